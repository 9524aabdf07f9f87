"""Equilibria of linear siamese networks: every S = A^T A of every rank; their weights; closed forms.

SG and EMA have the same equilibria (C = A). Full rank: all real solutions of (6). Below: those of the equation of that rank
(`reduced`), which at rank 1 is a quadratic eigenvalue problem. All are found by following complex paths, each is proved by its
certificate.

Source: Ponce 2025, propositions 4.5, 4.11, corollary 4.6, with our corrections. (Deficient ranks are not in the paper; some are
stable.)
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require_choice, require_positive
from jepa_dyn._precision import x64_context
from jepa_dyn.equilibria.certificate import Certificate, certify, same_root
from jepa_dyn.equilibria.homotopy import AT_INFINITY, FAILED, Member, Paths, scaled, solve_total_degree
from jepa_dyn.equilibria.parameter_homotopy import MANY, Solutions, solve_by_parameter
from jepa_dyn.equilibria.reduced import (
    GENERIC_COUNTS,
    chart_of_map,
    entries,
    gram_of,
    numerical_rank,
    packed_residual,
    predictor_of,
    symmetric,
)
from jepa_dyn.flows.siamese import SiameseArguments, SiameseState

METHODS = ("parameter", "total degree")
MOST_INPUTS = 4
_MOST_TURNS = 5  # of the inputs, of data sets of which paths were lost; with `MANY` paths 1


class RankEquilibria(eqx.Module):
    """Equilibria of one rank r of one data set, by falling trace, and what became of the solutions of its equation.

    - `s`: (K, m, m), S = A^T A of rank r, one per O(n) orbit; `radius`: (K,) proved bounds of their Frobenius errors.
    - `other`: (K2, m, m) real solutions that are no equilibria (S not positive semidefinite of that rank).
    - `num_complex`: finite solutions that are not real; `num_at_infinity`: without a finite end; `num_failed`: lost.
    - `num_unproved`: ends that look real, but have no certificate (multiple solutions, as at a fold, and continua).
    """

    s: Float[np.ndarray, "k m m"]
    radius: Float[np.ndarray, " k"]
    other: Float[np.ndarray, "k2 m m"]
    rank: int = eqx.field(static=True)
    num_complex: int = eqx.field(static=True)
    num_at_infinity: int = eqx.field(static=True)
    num_failed: int = eqx.field(static=True)
    num_unproved: int = eqx.field(static=True)

    @property
    def complete(self) -> bool:
        """Whether nothing was lost and every real end is proved: then these are all."""
        return self.num_failed == 0 and self.num_unproved == 0

    def __str__(self) -> str:
        lines = [
            f"  rank {self.rank}  {len(self.s)} equilibria{'' if self.complete else ', NOT COMPLETE'}; solutions: "
            f"{len(self.s) + len(self.other)} real, {self.num_complex} complex, {self.num_at_infinity} at infinity, "
            f"{self.num_failed} lost, {self.num_unproved} unproved"
        ]
        for s, radius in zip(self.s, self.radius, strict=True):
            values = ", ".join(f"{value:.6g}" for value in np.linalg.eigvalsh(s)[: -self.rank - 1 : -1])
            lines.append(f"    eigenvalues of S: {values}  (proved within {radius:.0e})")
        return "\n".join(lines)


class SiameseEquilibria(eqx.Module):
    """All equilibria of one data set: `ranks` holds those of rank 1 .. m, see `RankEquilibria`; S = 0 is always one too."""

    ranks: tuple[RankEquilibria, ...]

    @property
    def full_rank(self) -> Float[np.ndarray, "k m m"]:
        """S of rank m."""
        return self.ranks[-1].s

    @property
    def rank_one(self) -> Float[np.ndarray, "k m m"]:
        """S of rank 1."""
        return self.ranks[0].s

    @property
    def all(self) -> Float[np.ndarray, "k m m"]:
        """Every S but 0, by falling rank."""
        return np.concatenate([one.s for one in reversed(self.ranks)])

    @property
    def complete(self) -> bool:
        """Whether all equilibria of every rank are here."""
        return all(one.complete for one in self.ranks)

    def __str__(self) -> str:
        counts = ", ".join(f"{len(one.s)} of rank {one.rank}" for one in reversed(self.ranks))
        head = f"SiameseEquilibria, m = {len(self.ranks)}: {counts}, and 0{'' if self.complete else '; NOT COMPLETE'}"
        return "\n".join([head, *map(str, reversed(self.ranks))])


def siamese_equilibria(
    args: SiameseArguments, *, method: str = "parameter", seed: int = 0
) -> SiameseEquilibria | list[SiameseEquilibria]:
    """All equilibria of every rank of data sets with m <= 4 inputs, each proved.

    Args:
        args: of one system, weight decay > 0; or of many, every leaf with a leading axis: then a list. The rates do not matter.
        method: how full rank is found: "parameter" follows the finite solutions of a generic member, 2, 6, 24, 124 paths;
            "total degree" all 2^(m(m+1)/2) of a start system, which needs no knowledge of that number. Rank 1 is a quadratic
            eigenvalue problem, the ranks between follow a generic member: rank 2 30 paths at m = 3 and 84 at m = 4, rank 3 288,
            which takes half a minute to some minutes for a data set and may lose a few (`num_failed`).
        seed: of the random numbers of the homotopy, which decide the order of the work; where an enumeration is not complete,
            others may find what is missing.

    Raises:
        ValueError: m > 4, a weight decay of 0 (then the equilibria form continua), an unknown method.
        TypeError: called under a JAX transformation; for derivatives take `differentiable_root`.
    """
    require_choice("method", method, METHODS)
    if is_traced(args):
        raise TypeError("Argument `args` must be concrete: call `siamese_equilibria` outside of jit, vmap and grad.")
    xx, yx, lam = (np.asarray(a, np.float64) for a in (args.moments.xx, args.moments.yx, args.weight_decay))
    if xx.shape[-1] > MOST_INPUTS or xx.ndim not in (2, 3):
        raise ValueError(
            f"Argument `args` must be of at most {MOST_INPUTS} inputs, one system or lanes, but `xx` has shape {xx.shape}."
        )
    require_positive("args.weight_decay", lam, "at 0 the equilibria form continua")
    parts = ((xx, 2), (yx, 2), (lam, 0))
    m, single = xx.shape[-1], all(a.ndim == ndim for a, ndim in parts)
    lanes = max(len(a) if a.ndim > ndim else 1 for a, ndim in parts)
    xx, yx, lam = (np.broadcast_to(a, (lanes, *a.shape[a.ndim - ndim :])) for a, ndim in parts)
    bases = [_support(one, other) for one, other in zip(xx, yx, strict=True)]
    found: list[Any] = [None] * lanes
    for size in {basis.shape[1] for basis in bases}:
        alike = [i for i, basis in enumerate(bases) if basis.shape[1] == size]
        data = [(bases[i].T @ xx[i] @ bases[i], bases[i].T @ yx[i] @ bases[i], float(lam[i])) for i in alike]
        for i, ranks in zip(alike, _all_ranks(data, method, seed), strict=True):
            lifted = [_lifted(one, bases[i]) for one in ranks]
            found[i] = SiameseEquilibria(tuple(lifted + [_none(rank, m) for rank in range(size + 1, m + 1)]))
    return found[0] if single else found


def _support(xx: np.ndarray, yx: np.ndarray) -> np.ndarray:
    """Orthonormal basis (m, k) of the inputs that vary: with weight decay the encoder forgets all others."""
    values, vectors = np.linalg.eigh(xx)
    varies = values > 1e-12 * max(values[-1], 0.0)
    still = vectors[:, ~varies]
    if np.abs(yx @ still).max(initial=0.0) > 1e-6 * np.abs(yx).max(initial=1e-300):
        raise ValueError(
            "Argument `args.moments.yx` must be 0 on inputs that do not vary, where `xx` is singular, but is not."
        )
    return np.eye(len(xx)) if varies.all() else vectors[:, varies]


def _all_ranks(data: list[tuple], method: str, seed: int) -> list[tuple[RankEquilibria, ...]]:
    """Rank 1 .. m of each of several data sets (xx, yx, weight decay) of one size with regular xx."""
    if len(data[0][0]) == 0:
        return [() for _ in data]
    with x64_context(True):
        members, factors = zip(*(scaled(*one) for one in data), strict=True)
        ranks = [_best_of_rank(members, factors, rank, method, seed) for rank in range(1, len(data[0][0]) + 1)]
    return list(zip(*ranks, strict=True))


def _lifted(one: RankEquilibria, basis: np.ndarray) -> RankEquilibria:
    """The same equilibria among all inputs."""
    return eqx.tree_at(lambda r: (r.s, r.other), one, (basis @ one.s @ basis.T, basis @ one.other @ basis.T))


def _none(rank: int, m: int) -> RankEquilibria:
    """No equilibria of a rank above the number of inputs that vary."""
    return RankEquilibria(np.zeros((0, m, m)), np.zeros(0), np.zeros((0, m, m)), rank, 0, 0, 0, 0)


def _best_of_rank(
    members: Sequence[Member], factors: Sequence[float], rank: int, method: str, seed: int
) -> list[RankEquilibria]:
    """`_of_rank`; data sets of which paths were lost again in other coordinates, the fullest enumeration of each."""
    best = _of_rank(members, factors, rank, method, seed)
    for turn in range(1, _MOST_TURNS if GENERIC_COUNTS[len(members[0].xx), rank] <= MANY else 1):
        poor = [i for i, one in enumerate(best) if not one.complete]
        if not poor:
            break
        again = _of_rank([members[i] for i in poor], [factors[i] for i in poor], rank, method, seed + turn)
        for i, one in zip(poor, again, strict=True):
            if one.num_failed + one.num_unproved < best[i].num_failed + best[i].num_unproved:
                best[i] = one
    return best


def _of_rank(
    members: Sequence[Member], factors: Sequence[float], rank: int, method: str, seed: int
) -> list[RankEquilibria]:
    m = len(members[0].xx)
    turn = np.eye(m)
    if rank < m:
        turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(m, m)))[0]  # makes the chart's r x r part regular
    turned = [Member(turn @ xx @ turn.T, turn @ yx @ turn.T, decay) for xx, yx, decay in members]
    if rank == m and method == "total degree":
        solutions = [_from_paths(solve_total_degree(member, seed)) for member in turned]
    elif rank == 1 < m:
        solutions = [_rank_one(member) for member in turned]
    else:
        solutions = solve_by_parameter(turned, rank, seed)
    return [
        _proved(one, member, rank, turn, factor) for one, member, factor in zip(solutions, turned, factors, strict=True)
    ]


def _from_paths(paths: Paths) -> Solutions:
    return Solutions(paths.vectors, int((paths.outcome == AT_INFINITY).sum()), int((paths.outcome == FAILED).sum()))


def _rank_one(member: Member) -> Solutions:
    """All v v^T with (b^2 X - b Y^T + lambda) v = 0, |v| = |b|, in the unknowns of rank 1."""
    xx, yx, weight_decay = member
    m = len(xx)
    zero, one = np.zeros((m, m)), np.eye(m)
    pencil: Any = scipy.linalg.eig(
        np.block([[zero, one], [-weight_decay * one, yx.T]]), np.block([[one, zero], [zero, xx]])
    )
    values, vectors = pencil
    finite = np.isfinite(values)
    # G = b v v^T / v.v
    found = [
        chart_of_map(b * np.outer(v, v) / (v @ v), v[:, None], 1)
        for b, v in zip(values[finite], vectors[:m].T[finite], strict=True)
    ]
    return Solutions(np.array(found).reshape(len(found), m), int((~finite).sum()), 0)


def _proved(found: Solutions, member: Member, rank: int, turn: np.ndarray, factor: float) -> RankEquilibria:
    """The distinct real solutions with their proofs, turned and scaled back."""
    m = len(turn)
    proved: list[Certificate] = []
    num_complex = unproved = 0
    for vector in found.vectors:
        size = np.abs(vector).max()
        if not np.abs(vector.imag).max() <= 1e-6 * size:
            num_complex += 1
            continue
        s = np.asarray(gram_of(jnp.asarray(vector.real), m, rank))
        one = certify(s, *member, rank)
        near = np.linalg.norm(one.s - s) < 1e-3 * np.linalg.norm(s)
        if not (np.isfinite(one.radius) and near):
            unproved += 1
        elif not any(same_root(one, other, *member, rank) for other in proved):
            proved.append(one)
    definite = [np.linalg.eigvalsh(one.s)[m - rank] > one.error for one in proved]
    good = sorted((one for one, right in zip(proved, definite, strict=True) if right), key=lambda one: -np.trace(one.s))
    other = [one for one, right in zip(proved, definite, strict=True) if not right]

    def back(some: list[Certificate]) -> np.ndarray:
        return np.array([factor * turn.T @ one.s @ turn for one in some]).reshape(-1, m, m)

    return RankEquilibria(
        s=back(good),
        radius=np.array([factor * one.error for one in good]),
        other=back(other),
        rank=rank,
        num_complex=num_complex,
        num_at_infinity=found.num_at_infinity,
        num_failed=found.num_failed,
        num_unproved=unproved,
    )


def equilibrium_state(s: ArrayLike, outputs: int, args: SiameseArguments, *, target: bool = False) -> SiameseState:
    """One point (A, B[, C]) of the orbit of S: A = [D^(1/2) V^T; 0] of S = V D V^T, B by (7), C = A.

    Args:
        s: (m, m), of rank r <= `outputs`.
        outputs: n.
        target: whether the state has a moving-average target.

    Raises:
        ValueError: S of a rank above n.
    """
    values, vectors = jnp.linalg.eigh(jnp.asarray(s))
    order = jnp.argsort(-values)[:outputs]
    if not is_traced(s):
        rank = numerical_rank(np.asarray(values))
        if rank > outputs:
            raise ValueError(f"Argument `outputs` must be at least the rank {rank} of `s`, but is {outputs}.")
    held = jnp.where(values > 64 * jnp.finfo(values.dtype).eps * jnp.max(values), values, 0.0)  # rounding is no feature
    rows = jnp.sqrt(held[order])[:, None] * vectors[:, order].T
    encoder = jnp.zeros((outputs, rows.shape[1]), rows.dtype).at[: len(rows)].set(rows)
    predictor = predictor_of(encoder, args.moments.xx, args.moments.yx, args.weight_decay)
    return SiameseState(encoder, predictor, encoder if target else None)


def differentiable_root(s: ArrayLike, args: SiameseArguments) -> Float[Array, "m m"]:
    """The root S of (6) near a known one as a function of the moments and of lambda, with its derivatives (implicit functions).

    One Newton step whose matrix is held constant; where (6) is singular (a fold) the result is not finite.
    """
    moments = args.moments
    m = moments.xx.shape[0]
    held = jax.lax.stop_gradient(args)
    known = jax.lax.stop_gradient(entries(jnp.asarray(s)))

    def field(vector: Array, args: Any) -> Array:
        return packed_residual(vector, args.moments.xx, args.moments.yx, args.weight_decay)

    matrix = jax.lax.stop_gradient(jax.jacfwd(field)(known, held))
    return symmetric(known - jnp.linalg.solve(matrix, field(known, args)), m)
