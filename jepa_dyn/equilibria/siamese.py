"""Equilibria of linear siamese networks: every S = A^T A of full rank, of rank 1, and zero; their weights; closed forms.

SG and EMA have the same equilibria (C = A). Full rank: all real solutions of (6), complete by the homotopy, each proved by its
certificate. Rank 1: A = u v^T with (b^2 X - b Y^T + lambda) v = 0, |v| = |b|, all eigenvalues b of a quadratic pencil. Ranks
between, which exist for m >= 3 only and can be stable, are not enumerated: the result says so.

Source: Ponce 2025, propositions 4.5, 4.11, corollary 4.6, with our corrections. (Rank 1 is not in the paper; some are stable.)
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require_choice, require_finite, require_nonnegative, require_positive
from jepa_dyn._precision import x64_context
from jepa_dyn.equilibria.certificate import Certificate, certify, same_root
from jepa_dyn.equilibria.homotopy import AT_INFINITY, FAILED, FINITE, Paths, solve_by_parameter, solve_total_degree
from jepa_dyn.equilibria.reduced import entries, packed_residual, predictor_of, symmetric
from jepa_dyn.flows.siamese import SiameseArguments, SiameseState

METHODS = ("total degree", "parameter")
MOST_INPUTS = 4


class SiameseEquilibria(eqx.Module):
    """Equilibria of one data set, one S = A^T A per O(n) orbit, by falling trace.

    - `full_rank`: (K, m, m) positive definite roots of (6); `radius`: (K,) proved bounds of their Frobenius errors.
    - `rank_one`: (K1, m, m) with one positive eigenvalue each. S = 0 is always an equilibrium too.
    - `other_real`: (K2, m, m) real roots of (6) that are not positive definite: no equilibria.
    - `num_complex`: finite roots that are not real; `num_at_infinity`, `num_failed`: paths without a finite end; all add up to the
      paths followed.
    - `num_unproved`: ends that look real, but have no certificate (a multiple root, as at a fold); not among the above.
    """

    full_rank: Float[np.ndarray, "k m m"]
    radius: Float[np.ndarray, " k"]
    rank_one: Float[np.ndarray, "k1 m m"]
    other_real: Float[np.ndarray, "k2 m m"]
    num_complex: int = eqx.field(static=True)
    num_at_infinity: int = eqx.field(static=True)
    num_failed: int = eqx.field(static=True)
    num_unproved: int = eqx.field(static=True)

    @property
    def unsearched_ranks(self) -> tuple[int, ...]:
        """Ranks whose equilibria are not enumerated: 2 .. m - 1. There are such equilibria, stable ones among them."""
        return tuple(range(2, self.full_rank.shape[-1]))

    @property
    def full_rank_complete(self) -> bool:
        """Whether no path failed and every real end is proved: then `full_rank` holds all."""
        return self.num_failed == 0 and self.num_unproved == 0

    @property
    def complete(self) -> bool:
        """Whether all equilibria of every rank are here: never for m >= 3, see `unsearched_ranks`."""
        return self.full_rank_complete and not self.unsearched_ranks

    def __str__(self) -> str:
        m = self.full_rank.shape[-1]
        real = len(self.full_rank) + len(self.other_real)
        lines = [
            f"SiameseEquilibria, m = {m}: {len(self.full_rank)} of full rank, {len(self.rank_one)} of rank 1, and 0"
            f"{'' if self.full_rank_complete else '; NOT COMPLETE'}",
            f"  paths      {real} real, {self.num_complex} complex, {self.num_at_infinity} at infinity, {self.num_failed} failed, "
            f"{self.num_unproved} unproved",
        ]
        for s, radius in zip(self.full_rank, self.radius, strict=True):
            values = ", ".join(f"{value:.6g}" for value in np.linalg.eigvalsh(s)[::-1])
            lines.append(f"  full rank  eigenvalues of S: {values}  (proved within {radius:.0e})")
        if self.unsearched_ranks:
            lines.append(f"  rank {', '.join(map(str, self.unsearched_ranks))}     not searched")
        lines += [f"  rank 1     eigenvalue of S: {np.trace(s):.6g}" for s in self.rank_one]
        return "\n".join(lines)


def siamese_equilibria(args: SiameseArguments, *, method: str = "total degree", seed: int = 0) -> SiameseEquilibria:
    """All equilibria of full rank, rank 1 and rank 0 of one data set with m <= 4 inputs: for m <= 2 all there are.

    Args:
        args: of one system, weight decay > 0. The rates do not matter.
        method: "total degree" follows 2^(m(m+1)/2) paths, some minutes at m = 4; "parameter" the finite ones of a generic member.
        seed: of the random numbers of the homotopy, which decide the order of the work, not the result.

    Raises:
        ValueError: m > 4, a weight decay of 0 (then the equilibria form continua), an unknown method.
        TypeError: called under a JAX transformation; for derivatives take `differentiable_root`.
    """
    require_choice("method", method, METHODS)
    if is_traced(args):
        raise TypeError("Argument `args` must be concrete: call `siamese_equilibria` outside of jit, vmap and grad.")
    xx, yx = (np.asarray(matrix, np.float64) for matrix in (args.moments.xx, args.moments.yx))
    if xx.ndim != 2 or len(xx) > MOST_INPUTS:
        raise ValueError(
            f"Argument `args` must be one system of at most {MOST_INPUTS} inputs, but `xx` has shape {xx.shape}."
        )
    require_positive("args.weight_decay", args.weight_decay, "at 0 the equilibria form continua")
    lam = float(np.asarray(args.weight_decay))
    if method == "total degree":
        paths = solve_total_degree(xx, yx, lam, seed)
    else:
        several = solve_by_parameter(xx[None], yx[None], np.array([lam]), seed)
        paths = Paths(several.solutions[0], several.outcome[0], several.tries)
    with x64_context(True):
        real, num_complex, num_unproved = _real_roots(paths, xx, yx, lam)
    definite = [np.linalg.eigvalsh(one.root)[0] > one.radius for one in real]
    full = sorted((one for one, good in zip(real, definite, strict=True) if good), key=lambda one: -np.trace(one.root))
    empty = np.zeros((0, *xx.shape))
    others = [one.root for one, good in zip(real, definite, strict=True) if not good]
    return SiameseEquilibria(
        full_rank=np.stack([one.root for one in full]) if full else empty,
        radius=np.array([one.radius for one in full]),
        rank_one=rank_one_equilibria(xx, yx, lam),
        other_real=np.stack(others) if others else empty,
        num_complex=num_complex,
        num_at_infinity=int((paths.outcome == AT_INFINITY).sum()),
        num_failed=int((paths.outcome == FAILED).sum()),
        num_unproved=num_unproved,
    )


def _real_roots(paths: Paths, xx: np.ndarray, yx: np.ndarray, lam: float) -> tuple[list[Certificate], int, int]:
    """(distinct proved real roots, number of complex ones, number of ends that look real and are not proved)."""
    proved: list[Certificate] = []
    num_complex = unproved = 0
    for s in paths.solutions[paths.outcome == FINITE]:
        size = np.abs(s).max()
        if np.abs(s.imag).max() > 1e-6 * size:
            num_complex += 1
            continue
        found = certify(s.real, xx, yx, lam)
        near = np.linalg.norm(found.root - s.real) < 1e-3 * size
        if not (np.isfinite(found.radius) and near):
            unproved += 1
        elif not any(same_root(found, other) for other in proved):
            proved.append(found)
    return proved, num_complex, unproved


def rank_one_equilibria(xx: np.ndarray, yx: np.ndarray, weight_decay: float) -> np.ndarray:
    """All S = v v^T with (b^2 X - b Y^T + lambda) v = 0, |v| = |b|, b real: (K, m, m), by falling trace."""
    m = len(xx)
    zero, one = np.zeros((m, m)), np.eye(m)
    pencil: Any = scipy.linalg.eig(
        np.block([[zero, one], [-weight_decay * one, yx.T]]), np.block([[one, zero], [zero, xx]])
    )
    values, vectors = pencil
    found = []
    for b, vector in zip(values, vectors.T, strict=True):
        if np.isfinite(b) and abs(b.imag) <= 1e-9 * abs(b):
            v = vector[:m] / vector[:m][np.argmax(np.abs(vector[:m]))]
            v = v.real * abs(b) / np.linalg.norm(v.real)
            found.append(np.outer(v, v))
    return np.stack(sorted(found, key=lambda s: -np.trace(s))) if found else np.zeros((0, m, m))


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
        rank = int(np.sum(np.asarray(values) > 1e-10 * np.abs(np.asarray(values)).max(initial=1e-300)))
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


def one_feature_roots(rho: ArrayLike, tau: ArrayLike, weight_decay: ArrayLike) -> tuple[Array, Array, Array]:
    """m = 1, rho = [xx] > 0, tau = [yx]: (r1, r2, Delta), r = (|tau| -+ sqrt(Delta)) / (2 rho), S = r^2.

    Delta = tau^2 - 4 rho lambda.

    NaN where Delta < 0: only 0 is an equilibrium. At Delta = 0 the two meet. Elementwise.

    Raises:
        ValueError: rho <= 0, lambda < 0, or a number that is not finite.

    Source: Ponce 2025, section 4.3, proposition 4.11.
    """
    require_positive("rho", rho)
    require_finite("tau", tau)
    require_nonnegative("weight_decay", weight_decay)
    rho, size, lam = jnp.asarray(rho), jnp.abs(jnp.asarray(tau)), jnp.asarray(weight_decay)
    delta = size**2 - 4 * rho * lam
    larger = (size + jnp.sqrt(delta)) / (2 * rho)
    # the product of the roots is lambda / rho: no cancellation in the small one
    return jnp.where(larger > 0, lam / (rho * jnp.where(larger > 0, larger, 1.0)), larger), larger, delta


def one_feature_eigenvalues(
    radius: ArrayLike, tau: ArrayLike, weight_decay: ArrayLike, outputs: int
) -> Float[Array, " p"]:
    """Spectrum of the stop-gradient flow at an equilibrium of m = 1 with |a| = radius, n = `outputs`, (n + n^2,):

    -2 lambda (n times), 2 lambda - |tau| r, -lambda ((n-1)^2 times), -|tau| r (n-1 times), 0 (n-1 times).

    Source: Ponce 2025, proposition 4.11, whose (54), (55) are corrected.
    """
    r, size, lam = jnp.asarray(radius), jnp.abs(jnp.asarray(tau)), jnp.asarray(weight_decay)
    n = outputs
    parts = [(-2 * lam, n), (2 * lam - size * r, 1), (-lam, (n - 1) ** 2), (-size * r, n - 1), (0 * r, n - 1)]
    return jnp.concatenate([jnp.full(count, value) for value, count in parts])
