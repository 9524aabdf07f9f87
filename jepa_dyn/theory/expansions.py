"""The papers' own small-initialisation expansions, by name, for comparison with the exact `modes.critical_time`.

All need `expansion_parameter` = eps^(1/L)/rho << 1: that ratio, not eps, is what must be small (at L = 20, eps = 1e-12 it is still
0.5 for rho = 0.5). All times are in the mode clock. They are plain formulas: no lane is refused because the expansion is poor.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require, require_finite, require_positive
from jepa_dyn.parameters import ModeParameters


def _check(args: ModeParameters, **positive: ArrayLike) -> None:
    require_positive("lam", args.lam, "a feature with lam <= 0 has no critical time")
    require_positive("variance", args.variance)
    for name, value in positive.items():
        require_positive(name, value)


def _check_half_integer_depth(depth: ArrayLike) -> None:
    require(
        "depth",
        depth,
        "be a multiple of 1/2, at least 1 (the sum runs to 2L - 1)",
        lambda a: (a >= 1) & (2 * a == np.round(2 * a)),
    )


def expansion_parameter(eps: ArrayLike, args: ModeParameters) -> Float[Array, "..."]:
    """eps^(1/L) / rho, the initial psi of a JEPA mode: the expansions hold where it is much smaller than 1.

    Source: Littwin 2024, eq. (81) (the line below eq. (12) and eq. (88) print eps^L / rho).
    """
    _check(args, eps=eps)
    return jnp.asarray(eps) ** (1 / args.depth) / args.rho


def _jepa_sum(eps: Array, args: ModeParameters) -> Array:
    """sum_{j=1}^{2L-1} L / (j rho^(2L-j-1) eps^(j/L)) / lam, the terms masked beyond 2L - 1."""
    eps = jnp.asarray(eps)
    count = 2 * args.depth - 1
    if is_traced(args.depth):
        raise TypeError("Argument `depth` must be concrete: it sets the number of terms of the expansion.")
    total = jnp.zeros(jnp.broadcast_shapes(eps.shape, args.shape), jnp.result_type(eps, args.lam))
    for j in range(1, int(np.max(np.asarray(count))) + 1):
        inside = j <= count
        depth = jnp.where(inside, args.depth, j)
        term = depth / (j * args.rho ** (2 * depth - j - 1) * eps ** (j / depth))
        total = total + jnp.where(inside, term, 0.0)
    return total / args.lam


def jepa_critical_time_series(eps: ArrayLike, args: ModeParameters) -> Float[Array, "..."]:
    """t* ~ (1/lam) sum_{j=1}^{2L-1} L / (j rho^(2L-j-1) eps^(j/L)); the error is |log eps| / (lam rho^(2L-1)) to leading order.

    Args:
        eps: initial amplitude, > 0.
        args: lam > 0, depth a multiple of 1/2 and at least 1, not traced (it sets the number of terms).

    Source: Littwin 2024, eqs (13), (85).
    """
    _check(args, eps=eps)
    _check_half_integer_depth(args.depth)
    return _jepa_sum(jnp.asarray(eps), args)


def jepa_critical_time_log(eps: ArrayLike, args: ModeParameters) -> Float[Array, "..."]:
    """Eq. (13) with its next term, - log(eps) / (sigma^2 rho^(2L)) = |log eps| / (lam rho^(2L-1)).

    Often worse than (13) alone, because the constant that follows has the other sign. Arguments as `jepa_critical_time_series`.

    Source: Littwin 2024, eq. (84).
    """
    _check(args, eps=eps)
    _check_half_integer_depth(args.depth)
    return _jepa_sum(jnp.asarray(eps), args) - jnp.log(eps) / (args.lam * args.rho ** (2 * args.depth - 1))


def mae_critical_time_leading(eps: ArrayLike, args: ModeParameters) -> Float[Array, "..."]:
    """t* ~ L / (lam (L-1) eps^((L-1)/L)), L > 1; the error is of order one, eq. (113).

    Source: Littwin 2024, eqs (16), (112).
    """
    _check(args, eps=eps)
    require("depth", args.depth, "be > 1 (for a shallow encoder use `mae_shallow_critical_time`)", lambda a: a > 1)
    return args.depth / (args.lam * (args.depth - 1) * jnp.asarray(eps) ** ((args.depth - 1) / args.depth))


def mae_shallow_critical_time(eps: ArrayLike, args: ModeParameters) -> Float[Array, "..."]:
    """t* ~ |log eps| / lam for L = 1; slow: 21 % off at eps = 1e-2, 3 % at 1e-12.

    Source: Littwin 2024, eq. (121).
    """
    _check(args, eps=eps)
    require("depth", args.depth, "be 1", lambda a: a == 1)
    return -jnp.log(eps) / args.lam


def jepa_critical_time_ratio(
    eps: ArrayLike, rho: ArrayLike, rho_other: ArrayLike, depth: ArrayLike
) -> Float[Array, "..."]:
    """t*(rho) / t*(rho') ~ 1 + (2L-1)/(2L-2) (1/rho - 1/rho') eps^(1/L) for JEPA, L >= 2.

    At L = 1, where the print divides by 0, it is 1 + (1/rho - 1/rho') eps |log eps|.

    Args:
        eps: initial amplitude, > 0.
        rho, rho_other: the two regression coefficients, > 0, at one lam.
        depth: L = 1 or L >= 3/2.

    Source: Littwin 2024, eq. (17), Corollary 4.8; L = 1 is ours.
    """
    for name, value in {"eps": eps, "rho": rho, "rho_other": rho_other}.items():
        require_positive(name, value)
    require_finite("depth", depth)
    require("depth", depth, "be 1 or at least 3/2", lambda a: (a == 1) | (a >= 1.5))
    eps, depth = jnp.asarray(eps), jnp.asarray(depth)
    difference = 1 / jnp.asarray(rho) - 1 / jnp.asarray(rho_other)
    deep = jnp.where(depth == 1, 2.0, depth)
    factor = (2 * deep - 1) / (2 * deep - 2) * eps ** (1 / deep)
    return 1 + difference * jnp.where(depth == 1, -eps * jnp.log(eps), factor)


def mae_time_lerch(w: ArrayLike, w0: ArrayLike, args: ModeParameters) -> np.ndarray:
    """Time (mode clock) for a MAE mode to go from `w0` to `w`, through the Lerch transcendent: a cross-check of `time_to_reach`.

    I(u) = (L-1)/((L+1) u) Phi(u^((L+1)/(L-1)), 1, (1-L)/(1+L)),  u = rho^((1-L)/(L+1)) w^((L-1)/L),
    t = L rho^((1-L)/(L+1)) [I(u) - I(u0)] / (lam (L-1)),  Phi(z, 1, a) = sum_k z^k / (k + a).

    Slow and on the host (numpy, the series summed until it no longer changes); 0 < w0 < w < fixed point, L > 1.

    Raises:
        ValueError: lam <= 0, L <= 1, or an amplitude at or above the fixed point, where the series does not converge.

    Source: Littwin 2024, eqs (14), (99), (100), (103); eq. (15) prints the exponent of (n + a) as a, it is s = 1.
    """
    _check(args, w=w, w0=w0)
    require("depth", args.depth, "be > 1", lambda a: a > 1)
    lam, rho, depth = (np.asarray(leaf, float) for leaf in (args.lam, args.rho, args.depth))
    limit = rho ** (depth / (depth + 1))
    for name, value in {"w": w, "w0": w0}.items():
        require(name, np.asarray(value) + 0 * limit, "be below the fixed point", lambda a: a < limit * (1 - 1e-6))

    def integral(amplitude: np.ndarray):
        u = rho ** ((1 - depth) / (depth + 1)) * amplitude ** ((depth - 1) / depth)
        z, a = u ** ((depth + 1) / (depth - 1)), (1 - depth) / (1 + depth)
        total, power, k = 1 / a + np.zeros_like(z), np.ones_like(z), 0
        while np.any(power > 1e-18):
            k += 1
            power = power * z
            total = total + power / (k + a)
        return (depth - 1) / ((depth + 1) * u) * total

    prefactor = depth * rho ** ((1 - depth) / (depth + 1)) / (lam * (depth - 1))
    return np.asarray(prefactor * (integral(np.asarray(w, float)) - integral(np.asarray(w0, float))))
