"""Equilibria of one rank of many data sets, by following those of a generic member of the family to each of them.

The equation of rank r (`reduced`) of a generic complex member (X, Y, lambda) has `GENERIC_COUNTS` finite solutions, all simple.
They were counted over a finite field, where a Groebner basis of a random member gives their number exactly, and found by
monodromy (`monodromy`, which writes the file that is read here). Along a line from that member to another they end at all
isolated solutions of the other: 6 paths in place of the 8 of the total degree at m = 2, 124 in place of 1024 at m = 4.

Source: Sommese and Wampler 2005, The numerical solution of systems of polynomials, chapter 7 (coefficient-parameter homotopy).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jepa_dyn._precision import x64_context
from jepa_dyn.equilibria.frames import Divided, divided, from_frames, num_framed, renewed, residual_in_frame, to_frames
from jepa_dyn.equilibria.homotopy import AT_INFINITY, FINITE, Choice, Member, affine, draw_choice, follow
from jepa_dyn.equilibria.reduced import GENERIC_COUNTS, num_unknowns, packed_residual

STARTS = Path(__file__).with_name("generic_solutions.npz")
MANY = 200  # paths, above which every route takes half a minute
_MOST_ROUTES, _FEW_ROUTES = 10, 4
_CAUTION = 1e-3
_ROUNDS, _MOST_STEPS = 30, 1500  # attempts after which the frames are renewed, after which a path is given up


class Solutions(NamedTuple):
    """Distinct finite solutions of one member, (number, unknowns) complex, and how many of the generic number have none.

    Those go to infinity (`num_at_infinity`), or were lost or meet others in multiple solutions (`num_failed`).
    """

    vectors: np.ndarray
    num_at_infinity: int
    num_failed: int


@dataclass(frozen=True)
class Between:
    """The equation of one rank along a line from a shared member, at t = 1, to one of each path's own, at t = 0."""

    rank: int

    def __call__(self, z: Array, t: Array, own: tuple[Any, Array], begin: Any, choice: Choice) -> Array:
        """Its value at z = (unknowns, one); below full rank of `Divided` members, in a frame and with one = 1."""
        goal, frame = own
        share = choice.gamma * t / (choice.gamma * t + 1 - t)  # from 0 to 1 on a circle through both
        parts = [share * start + (1 - share) * end for end, start in zip(goal, begin, strict=True)]
        if isinstance(begin, Divided):
            return residual_in_frame(z[:-1], frame, Divided(*parts), self.rank)
        return packed_residual(z[:-1], *Member(*parts), z[-1])

    def renew(self, z: np.ndarray, own: tuple[Divided, np.ndarray]) -> tuple[np.ndarray, tuple[Divided, np.ndarray]]:
        """The same points in frames that fit them."""
        goal, frames = own
        turned, frames = renewed(z[:, :-1], frames.shape[-2], self.rank)
        return with_one(turned), (goal, frames)


@lru_cache(maxsize=1)
def _stored() -> dict[str, np.ndarray]:
    with np.load(STARTS) as file:
        return dict(file)


def generic_member(m: int, rank: int) -> tuple[Member, np.ndarray]:
    """A generic member and all its finite solutions (`GENERIC_COUNTS`, unknowns)."""
    stored, name = _stored(), f"m{m}_rank{rank}"
    parts = (stored[f"{name}_xx"], stored[f"{name}_yx"], stored[f"{name}_weight_decay"])
    return Member(*(jnp.asarray(part) for part in parts)), stored[f"{name}_solutions"]


def random_member(rng: np.random.Generator, m: int) -> Member:
    """A complex member with coefficients of order 1."""
    root, yx = ((rng.normal(size=(m, m)) + 1j * rng.normal(size=(m, m))) / np.sqrt(2 * m) for _ in range(2))
    weight_decay = 0.3 * np.exp(2j * np.pi * rng.random())
    return Member(*(jnp.asarray(leaf, complex) for leaf in (root @ root.T + np.eye(m), yx, weight_decay)))


def merge(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The known solutions and those of the new ones that differ from all."""
    for one in new:
        apart = np.linalg.norm(known - one, axis=1) if len(known) else np.ones(1)
        if not (apart < 1e-8 * (1 + np.linalg.norm(one))).any():
            known = np.concatenate([known, one[None]])
    return known


def solve_by_parameter(members: Sequence[Member], rank: int, seed: int = 0) -> list[Solutions]:
    """All solutions of one rank of real members of one size m, whose coefficients should be of order 1 (`scaled`).

    Members that do not show the generic number of distinct finite solutions are solved again, along a bent arc and then by way of
    random members, so that other paths come close to infinity; the solutions of all routes count.
    """
    m = members[0].xx.shape[-1]
    with x64_context(True):
        rng = np.random.default_rng(seed)
        generic = GENERIC_COUNTS[m, rank]
        base, known = generic_member(m, rank)
        begin, starts = base, known
        found = [np.zeros((0, num_unknowns(m, rank)), complex) for _ in members]
        infinite, lost = np.zeros(len(members), int), np.full(len(members), generic)
        going = np.arange(len(members))
        for route in range(_MOST_ROUTES if generic <= MANY else _FEW_ROUTES):
            if route > 1:
                begin = random_member(rng, m)
                starts = carried(base, begin, known, rank, rng, generic)
                if not len(starts):
                    continue
                starts = starts[np.arange(generic) % len(starts)]
            stack = Member(*(np.stack([np.asarray(members[i][k], complex) for i in going.tolist()]) for k in range(3)))
            bend = rng.uniform(-1.0, 1.0) if route else 0.0
            ends_of, outcome = follow_sets(begin, stack, starts, rank, rng, bend)
            for i, ends, how in zip(going, ends_of, outcome, strict=True):
                new = ends[how == FINITE]
                new = np.concatenate([new, new.conj()])  # members are real: their solutions come in pairs
                found[i] = merge(found[i], new)
                infinite[i] = max(infinite[i], int((how == AT_INFINITY).sum()))
                lost[i] = max(0, generic - len(found[i]) - infinite[i])
            going = going[lost[going] > 0]
            if going.size == 0:
                break
        return [
            Solutions(vectors, min(int(n), generic - len(vectors)), int(k))
            for vectors, n, k in zip(found, infinite, lost, strict=True)
        ]


def follow_sets(
    begin: Member, stack: Member, vectors: np.ndarray, rank: int, rng: np.random.Generator, bend: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Every solution to every member of the stack: unknowns at the ends (sets, paths, unknowns), outcomes (sets, paths).

    In the complex line of members through both, along an arc that leaves the straight one by the angle `bend`.
    """
    paths, sets = len(vectors), len(stack.xx)
    goals = Member(*(np.repeat(np.asarray(leaf), paths, axis=0) for leaf in stack))
    ends, outcome = _follow_each(begin, goals, np.tile(vectors, (sets, 1)), rank, rng, bend)
    return ends.reshape(sets, paths, -1), outcome.reshape(sets, paths)


def _follow_each(
    begin: Member, goals: Member, starts: np.ndarray, rank: int, rng: np.random.Generator, bend: float
) -> tuple[np.ndarray, np.ndarray]:
    """Every start to a member of its own: unknowns at the ends (paths, unknowns), outcomes (paths,)."""
    m = begin.xx.shape[-1]
    below = rank < m
    count = num_framed(m, rank) if below else num_unknowns(m, rank)
    choice, between = draw_choice(rng, count)._replace(gamma=jnp.asarray(np.exp(1j * bend))), Between(rank)
    first, last = (divided(begin), divided(goals)) if below else (begin, goals)
    last = jax.tree.map(np.asarray, last)
    ends = np.full(starts.shape, np.nan, complex)
    if not below:
        z, outcome, _ = follow(between, with_one(starts), (last, np.zeros(len(starts))), first, choice, _CAUTION)
        ends[outcome == FINITE] = affine(z, outcome)
        return ends, outcome
    unknowns, frames = to_frames(starts, m, rank)
    # no homogeneous coordinate
    z, outcome, _ = follow(
        between,
        with_one(unknowns),
        (last, frames),
        first,
        choice._replace(plane=jnp.zeros(count + 1, complex).at[-1].set(1.0)),
        _CAUTION,
        renew=between.renew,
        rounds=_ROUNDS,
        most_steps=_MOST_STEPS,
    )
    ends[outcome == FINITE] = from_frames(z[outcome == FINITE, :-1], m, rank)
    return ends, outcome


def carried(
    begin: Member, goal: Member, vectors: np.ndarray, rank: int, rng: np.random.Generator, paths: int
) -> np.ndarray:
    """The distinct solutions of `goal` to which those of `begin` lead; filled up to so many paths, so that little is compiled."""
    if not len(vectors):
        return vectors
    starts = vectors[np.arange(paths) % len(vectors)]
    ends, outcome = follow_sets(begin, jax.tree.map(lambda leaf: leaf[None], goal), starts, rank, rng)
    return merge(vectors[:0], ends[0, outcome[0] == FINITE])


def with_one(vectors: np.ndarray) -> np.ndarray:
    """Homogeneous coordinates (number, unknowns + 1)."""
    return np.concatenate([vectors, np.ones((len(vectors), 1))], axis=1)
