"""The phase to rounding error, and one Newton step that takes a tabulated state there, for lanes that share one order n >= 0.

The time integral of `time_integral` in the shape that costs least when n is one number: with N = round(n), m = n - N,

    F(y) = - sum_{j=1}^{N} y^-(m+j) / (m+j) + (1 - y^-m)/m + H_m(y),     H_m(y) = int_0^y u^-m / (1-u) du,

where H_m is a power series in y (y <= 1/2) or in 1 - y (y > 1/2) whose coefficients all lanes share.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jepa_dyn.theory.branches import GROW, log_one_minus_exp, speed_factor
from jepa_dyn.theory.normal_form import half_log_y
from jepa_dyn.theory.time_integral import power_integral, series_constant

_TERMS = 54


def order_coefficients(n: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
    """Coefficients of the finite sum, of both series and the constant between them, and m, for one order."""
    reductions = round(n)
    m = n - reductions
    j = np.arange(1, _TERMS)
    finite = 1 / (m + np.arange(1, reductions + 1))
    near_zero = 1 / (np.arange(_TERMS) + 1 - m)
    near_one = np.cumprod((m + j - 1) / j) / j
    return finite, near_zero, near_one, float(series_constant(m)), m


def _polynomial(coefficients: Float[Array, " k"], at: Array) -> Array:
    """sum_j c_j at^(j+1), unrolled so that XLA keeps it in registers."""
    total = jnp.zeros_like(at)
    for c in coefficients[::-1]:
        total = (total + c) * at
    return total


def _antiderivative(x: Array, coefficients) -> Array:
    """F(e^x) - [its value at the half height is subtracted by the caller]."""
    finite, near_zero, near_one, constant, m = coefficients
    y = jnp.exp(x)
    low = y <= 0.5
    log_q = log_one_minus_exp(x)
    small = jnp.exp(-m * x) * _polynomial(near_zero, jnp.where(low, y, 0.0))
    large = -log_q - constant - _polynomial(near_one, jnp.where(low, 0.0, jnp.exp(log_q)))
    total = power_integral(m, x) + jnp.where(low, small, large)
    return total - jnp.exp(-m * x) * _polynomial(finite, jnp.exp(-x))


def time_from_half(x: Float[Array, "..."], n: Float[Array, ""], coefficients) -> Float[Array, "..."]:
    """Time u from the half height to x = log y < 0, in units of the rate there (negative before it).

    Args:
        x: log y, < 0.
        n: the order, one number.
        coefficients: `order_coefficients(n)` as arrays.
    """
    half = half_log_y(n)
    return (_antiderivative(x, coefficients) - _antiderivative(half, coefficients)) * jnp.exp(n * half)


def polish_log_y(
    x: Float[Array, "..."], u: Float[Array, "..."], n: Float[Array, ""], coefficients
) -> Float[Array, "..."]:
    """x = log y from `curve_table.curve_log_y` after one Newton step towards the time u; the rest as in `time_from_half`."""
    inside = jnp.minimum(x, -jnp.finfo(x.dtype).tiny)
    slope = jnp.exp(n * (inside - half_log_y(n))) * speed_factor(inside, GROW)
    moved = inside + (u - time_from_half(inside, n, coefficients)) * slope
    # arrived: the time to y = 1 is infinite and there is nothing left to correct
    return jnp.where((x < -1e-15) & jnp.isfinite(moved), jnp.minimum(moved, 0.0), x)
