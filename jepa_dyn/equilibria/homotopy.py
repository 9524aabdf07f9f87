"""All complex solutions of the reduced equation, by following paths from a system whose solutions are known.

Total degree: from s_k^2 = c_k to F(S) = 0 along gamma t G + (1 - t) F, t from 1 to 0, 2^(m(m+1)/2) paths; with a random complex
gamma every isolated solution is the end of a path. F is made homogeneous and cut by a random plane, so that paths to infinity end
too. Most do (X S S X = 0 has nonzero complex symmetric solutions): 2, 6, 24, 124 of 2, 8, 64, 1024 are finite at m = 1, 2, 3, 4.

Source: Sommese and Wampler 2005, The numerical solution of systems of polynomials, chapters 2, 8; Ponce 2025, corollary 4.6.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jepa_dyn._precision import x64_context
from jepa_dyn.equilibria.reduced import GENERIC_COUNTS, num_entries, packed_residual

FINITE, AT_INFINITY, FAILED = 0, 1, 2
_END, _MARK = 1e-10, 1e-3  # of t: where tracking stops, and where |s_0| is noted for the growth towards infinity
_MOST_STEPS = 4000
_MOST_TRIES = 4
_REACH, _WEIGHT = np.array([0.0, 0.5, 0.5, 1.0]), np.array([1.0, 2.0, 2.0, 1.0]) / 6  # Runge-Kutta of order 4


class Paths(NamedTuple):
    """The finite ends, entries of S (number, m (m + 1) / 2) complex, and the outcome of every path, (paths,).

    `outcome` is FINITE, AT_INFINITY or FAILED; `tries` the number of random choices it took to have none fail.
    """

    vectors: np.ndarray
    outcome: np.ndarray
    tries: int


class Member(NamedTuple):
    """One member of the family: X, Y complex (m, m), lambda."""

    xx: Any
    yx: Any
    weight_decay: Any


class Choice(NamedTuple):
    """Random numbers of one homotopy: the plane, gamma, and c_k of the start system."""

    plane: Array
    gamma: Array
    c: Array


def _total_degree(z: Array, t: Array, own: tuple, data: Member, choice: Choice) -> Array:
    start = z[:-1] ** 2 - choice.c * z[-1] ** 2
    return choice.gamma * t * start + (1 - t) * packed_residual(z[:-1], *data, z[-1])


class _Path(NamedTuple):
    z: Any
    t: Any
    step: Any
    attempts: Any
    marked: Any  # |s_0| / |z| when t passed _MARK


def _bordered(system: Callable, z: Array, t: Array, plane: Array) -> Array:
    """The Jacobian in z with the plane as its last row: square."""
    return jnp.concatenate([jax.jacfwd(lambda z: system(z, t), holomorphic=True)(z), plane[None]])


def _newton(system: Callable, z: Array, t: Array, plane: Array) -> Array:
    return jnp.linalg.solve(_bordered(system, z, t, plane), jnp.append(system(z, t), plane @ z - 1))


def _speed(system: Callable, z: Array, t: Array, plane: Array) -> Array:
    by_t = jax.jvp(lambda t: system(z, t), (t,), (jnp.ones_like(t),))[1]
    return -jnp.linalg.solve(_bordered(system, z, t, plane), jnp.append(by_t, 0.0))


def _going(path: _Path, most_steps: Array) -> Array:
    return (path.t > _END) & (path.attempts < most_steps) & (path.step > 1e-14 * path.t)


def _advance(
    homotopy: Callable, path: _Path, own: Any, shared: Any, choice: Choice, caution: Any, limits: Array
) -> _Path:
    """So many attempts of one path, `limits` = (in this round, ever). Runge-Kutta predictor, three Newton iterations."""
    plane, first = choice.plane, path.attempts
    reach, weight = jnp.asarray(_REACH), jnp.asarray(_WEIGHT)

    def system(z: Array, t: Array) -> Array:
        return homotopy(z, t, own, shared, choice)

    def condition(path: _Path) -> Array:
        return _going(path, limits[1]) & (path.attempts < first + limits[0])

    def attempt(path: _Path) -> _Path:
        step = jnp.minimum(path.step, 0.5 * path.t)
        t = path.t - step

        # one stage of Runge and Kutta, one Newton iteration, compiled once each
        def stage(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            total, slope = carry
            slope = _speed(system, path.z - step * reach[i] * slope, path.t - step * reach[i], plane)
            return total + weight[i] * slope, slope

        def correct(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            z, moves = carry
            move = _newton(system, z, t, plane)
            return z - move, moves.at[i].set(jnp.linalg.norm(move))

        rise, _ = jax.lax.fori_loop(0, 4, stage, (jnp.zeros_like(path.z), jnp.zeros_like(path.z)))
        z, moves = jax.lax.fori_loop(0, 3, correct, (path.z - step * rise, jnp.zeros(3, path.t.dtype)))
        size = jnp.linalg.norm(z)
        # a prediction that has to be moved far may have been caught by a neighbouring path
        good = (moves[0] < caution * size) & (moves[2] < 1e-9 * size) & jnp.all(jnp.isfinite(z))
        passed = good & (path.t > _MARK) & (t <= _MARK)
        return _Path(
            jnp.where(good, z, path.z),
            jnp.where(good, t, path.t),
            jnp.where(good, step * jnp.where(moves[0] < 0.1 * caution * size, 2.0, 1.1), step / 2),
            path.attempts + 1,
            jnp.where(passed, jnp.abs(z[-1]) / size, path.marked),
        )

    return jax.lax.while_loop(condition, attempt, path)


def _finish(homotopy: Callable, path: _Path, own: Any, shared: Any, choice: Choice) -> tuple[Array, Array]:
    """End of one path in the plane, and FINITE / AT_INFINITY / FAILED."""
    plane, zero = choice.plane, jnp.zeros_like(path.t)

    def system(z: Array, t: Array) -> Array:
        return homotopy(z, t, own, shared, choice)

    arrived = path.t <= _END

    def correct(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        move = _newton(system, carry[0], zero, plane)
        return carry[0] - move, jnp.linalg.norm(move)

    z, last = jax.lax.fori_loop(0, 12, correct, (path.z, zero))
    size = jnp.linalg.norm(z)
    share = jnp.abs(path.z[-1]) / jnp.linalg.norm(path.z)
    growth = jnp.log(path.marked / share) / jnp.log(_MARK / jnp.minimum(path.t, 0.1 * _MARK))  # s_0 ~ t^growth
    regular = jnp.isfinite(size) & (last < 1e-10 * size) & (jnp.linalg.norm(z - path.z) < 1e-3 * size)
    # Newton's method converges fast at regular ends only; a regular end in the plane s_0 = 0 would be at infinity all the same
    finite = arrived & regular & (jnp.abs(z[-1]) > 1e-6 * size)
    # the other ends at infinity are singular: the corrector may stall before them, where s_0 has all but vanished
    lost = ~finite & (path.t < 0.1 * _MARK) & (growth > 0.1) & (share < 1e-3)
    return z, jnp.where(finite, FINITE, jnp.where(lost, AT_INFINITY, FAILED))


@partial(jax.jit, static_argnames="homotopy")
def _advance_all(
    homotopy: Callable, paths: _Path, own: Any, shared: Any, choice: Choice, caution: Any, limits: Array
) -> tuple[_Path, Array]:
    paths = jax.vmap(lambda path, own: _advance(homotopy, path, own, shared, choice, caution, limits))(paths, own)
    return paths, _going(paths, limits[1])


@partial(jax.jit, static_argnames="homotopy")
def _finish_all(homotopy: Callable, paths: _Path, own: Any, shared: Any, choice: Choice) -> tuple[Array, Array]:
    return jax.vmap(lambda path, own: _finish(homotopy, path, own, shared, choice))(paths, own)


def one_of_few(count: int, *sizes: int) -> int:
    """The first of some sizes that holds so many paths, else the last: filled up with copies, so that little is compiled."""
    return next((size for size in sizes[:-1] if count <= size < sizes[-1]), sizes[-1])


def follow(
    homotopy: Callable,
    starts: np.ndarray,
    own: Any,
    shared: Any,
    choice: Choice,
    caution: float,
    *,
    renew: Callable[[np.ndarray, Any], tuple[np.ndarray, Any]] | None = None,
    rounds: int = 100,
    most_steps: int = _MOST_STEPS,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """The ends of many paths (paths, unknowns + 1) at t = 0, their outcomes, and `own` as it is then.

    The homotopy is a function (z, t, own, shared, choice). Paths differ in length by a factor of 100: every so many attempts
    (`rounds`, of `most_steps`) those that are still going are gathered, else all would wait for the slowest; there `renew` may
    change coordinates, from (z, own) of these paths to others that describe the same.
    """
    z0 = np.asarray(starts, complex)
    lanes, ones = len(z0), np.ones(len(z0))
    whole = _Path(
        z0 / (z0 @ np.asarray(choice.plane))[:, None], ones, 0.05 * ones, np.zeros(lanes, np.int32), ones.copy()
    )
    own = jax.tree.map(np.array, own)
    limits, going = jnp.asarray([rounds, most_steps], jnp.int32), np.arange(lanes)
    while going.size:
        lane = going[np.arange(one_of_few(going.size, 32, lanes // 4, lanes)) % going.size]
        mine = jax.tree.map(lambda leaf, lane=lane: leaf[lane], own)
        paths, more = jax.device_get(
            _advance_all(homotopy, _Path(*(leaf[lane] for leaf in whole)), mine, shared, choice, caution, limits)
        )
        for old, new in zip(whole, paths, strict=True):
            old[lane] = np.asarray(new)
        going = going[np.asarray(more)[: going.size]]
        if renew is not None and going.size:
            z, changed = renew(whole.z[going], jax.tree.map(lambda leaf, going=going: leaf[going], own))
            whole.z[going] = z
            for old, new in zip(jax.tree.leaves(own), jax.tree.leaves(changed), strict=True):
                old[going] = new
    z, outcome = _finish_all(homotopy, whole, own, shared, choice)
    return np.asarray(z), np.asarray(outcome), own


def draw_choice(rng: np.random.Generator, count: int) -> Choice:
    """Random numbers of a homotopy with so many unknowns."""
    unit = np.exp(2j * np.pi * rng.random(count + 1))
    plane = rng.normal(size=count + 1) + 1j * rng.normal(size=count + 1)
    return Choice(jnp.asarray(plane), jnp.asarray(unit[0]), jnp.asarray(unit[1:]))


def affine(z: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """The unknowns of the finite ends, (number, unknowns)."""
    ends = z[outcome == FINITE]
    return ends[:, :-1] / ends[:, -1:]


def _scale(xx: np.ndarray, yx: np.ndarray, weight_decay: float) -> float:
    """A typical size of S, by which it is divided: |X| |S| ~ |Y| |S|^(1/2), or |X| |S| ~ lambda where that is larger."""
    size = np.linalg.norm(xx, 2)
    return float(max((np.linalg.norm(yx, 2) / size) ** 2, weight_decay / size))


def scaled(xx: np.ndarray, yx: np.ndarray, weight_decay: float) -> tuple[Member, float]:
    """The member, real, with its solutions of order 1 and its coefficients too, and the factor of the solutions."""
    factor = _scale(xx, yx, weight_decay)
    size = np.linalg.norm(xx, 2) * factor
    return Member(xx * factor / size, yx * np.sqrt(factor) / size, weight_decay / size), factor


def _repeated(z: np.ndarray, outcome: np.ndarray) -> bool:
    """Whether two paths ended at one regular solution, which shows that one of them had jumped."""
    ends = (z / np.linalg.norm(z, axis=1, keepdims=True))[outcome == FINITE]
    overlaps = np.abs(ends @ ends.conj().T) - np.eye(len(ends))
    return bool((overlaps > 1 - 1e-12).any())


def _solve(data: Member, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """(ends of all paths in projective coordinates, their outcomes, tries) of one member, real or complex."""
    m = data.xx.shape[0]
    count = num_entries(m)
    signs = 1 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    best: tuple[np.ndarray, np.ndarray, int] | None = None
    for attempt in range(_MOST_TRIES):
        choice = draw_choice(rng, count)
        starts = np.concatenate([signs * np.sqrt(np.asarray(choice.c)), np.ones((2**count, 1))], axis=1)
        z, outcome, _ = follow(_total_degree, starts, (), data, choice, 1e-3 * 0.2**attempt)
        repeated = _repeated(z, outcome)
        if not repeated and (outcome == FINITE).sum() == GENERIC_COUNTS[m, m]:
            # no member has more: these stalled on their way to infinity
            outcome = np.where(outcome == FAILED, AT_INFINITY, outcome)
        if best is None or (outcome == FAILED).sum() < (best[1] == FAILED).sum():
            best = z, outcome, attempt + 1
        if not (outcome == FAILED).any() and not repeated:
            return z, outcome, attempt + 1
    assert best is not None
    return best


def solve_total_degree(member: Member, seed: int = 0) -> Paths:
    """All solutions by the total degree homotopy; every one of the 2^(m(m+1)/2) paths has an outcome.

    The coefficients should be of order 1 (`scaled`). Where a path fails, or two paths end at one solution, all are followed
    again with other random numbers and more caution, at most 4 times; what still fails is said in `outcome`.
    """
    with x64_context(True):
        data = Member(*(jnp.asarray(leaf, complex) for leaf in member))
        z, outcome, tries = _solve(data, np.random.default_rng(seed))
        return Paths(affine(z, outcome), outcome, tries)


__all__ = [
    "AT_INFINITY",
    "FAILED",
    "FINITE",
    "Choice",
    "Member",
    "Paths",
    "affine",
    "draw_choice",
    "follow",
    "scaled",
    "solve_total_degree",
]
