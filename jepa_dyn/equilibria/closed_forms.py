"""Siamese equilibria in closed form: one input, and moments that commute, where every mode is one input.

Source: Ponce 2025, section 4.3, proposition 4.11, with our corrections.
"""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, Int

from jepa_dyn._checks import require_finite, require_nonnegative, require_positive


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
    radius: ArrayLike, tau: ArrayLike, weight_decay: ArrayLike, outputs: int, ema_rate: ArrayLike | None = None
) -> Complex[Array, " p"]:
    """Spectrum of the flow at an equilibrium of m = 1 with |a| = radius r > 0, n = `outputs`.

    - Stop gradient (`ema_rate` None), n + n^2 numbers: -2 lambda (n times), 2 lambda - |tau| r, -lambda ((n-1)^2 times),
      -|tau| r (n-1 times), 0 (n-1 times).
    - EMA with rate g, 2 n + n^2 numbers: -2 lambda (n times), the roots of x^2 + (2 |tau| r - 2 lambda + g) x + g (|tau| r - 2
      lambda), -lambda ((n-1)^2 times), and -|tau| r, -g, 0 (n-1 times each): the same stability for every g > 0.

    Source: Ponce 2025, proposition 4.11, whose (54), (55) are corrected; EMA is not in the paper.
    """
    r, size, lam = jnp.asarray(radius), jnp.abs(jnp.asarray(tau)), jnp.asarray(weight_decay)
    n = outputs
    parts = [(-2 * lam, n), (-lam, (n - 1) ** 2), (-size * r, n - 1), (0 * r, n - 1)]
    if ema_rate is None:
        parts += [(2 * lam - size * r, 1)]
    else:
        g = jnp.asarray(ema_rate)
        half, product = (2 * size * r - 2 * lam + g) / 2, g * (size * r - 2 * lam)
        spread = jnp.sqrt(half**2 - product + 0j)
        parts += [(-half + spread, 1), (-half - spread, 1), (-g, n - 1)]
    return jnp.concatenate([jnp.full(count, value + 0j) for value, count in parts])


def commuting_equilibria(
    rho: ArrayLike, tau: ArrayLike, weight_decay: float
) -> tuple[Float[np.ndarray, "k m"], Int[np.ndarray, "k m"]]:
    """Equilibria where [xx^T] and [yx^T] are symmetric with common eigenvectors V: S = V diag(sizes) V^T, all ranks, 0 last.

    Every mode takes one of the roots of its own equation, 0, r1^2 or r2^2 (`one_feature_roots`), the last two where
    Delta = tau^2 - 4 rho lambda >= 0.

    Args:
        rho, tau: (m,) eigenvalues of [xx^T] and [yx^T].
        weight_decay: lambda > 0.

    Returns:
        (sizes, which): (K, m) eigenvalues of S, and 0, 1 or 2 for each; by falling trace.

    Raises:
        ValueError: shapes that differ, rho <= 0, a weight decay that is not > 0.
    """
    require_positive("weight_decay", weight_decay)
    rho, tau = np.asarray(rho, np.float64), np.asarray(tau, np.float64)
    if rho.ndim != 1 or tau.shape != rho.shape:
        raise ValueError(f"Argument `tau` must have the shape of `rho`, {rho.shape}, of one axis, but has {tau.shape}.")
    small, large, _ = (np.asarray(values) for values in one_feature_roots(rho, tau, weight_decay))
    own = [[(0.0, 0)] + ([(a**2, 1), (b**2, 2)] if np.isfinite(b) else []) for a, b in zip(small, large, strict=True)]
    chosen = sorted(itertools.product(*own), key=lambda one: -sum(size for size, _ in one))
    sizes, which = np.moveaxis(np.array(chosen), -1, 0)
    return sizes, which.astype(int)


__all__ = ["commuting_equilibria", "one_feature_eigenvalues", "one_feature_roots"]
