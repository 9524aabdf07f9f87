"""The time integral of one order n >= 0 that all lanes share, and one Newton step that takes a tabulated state to rounding error.

The time integral of `time_integral` in the shape that costs least when n is one number: with N = round(n), m = n - N,

    F(y) = - sum_{j=1}^{N} y^-(m+j) / (m+j) + (1 - y^-m)/m + H_m(y),     H_m(y) = int_0^y u^-m / (1-u) du,

where H_m is a power series in y (y <= 1/2) or in 1 - y (y > 1/2) whose coefficients all lanes share.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jepa_dyn.parameters import Leaf
from jepa_dyn.theory.branches import GROW, log_one_minus_exp, namespace, speed_factor
from jepa_dyn.theory.time_integral import power_integral

_TERMS = 54
_FINITE_LENGTHS = 16  # the finite sum is padded to a multiple, so that the usual orders share one compiled program


class Order(NamedTuple):
    """One order n: coefficients of the finite sum and of both series, the constant between them, m, log y and F half-way."""

    n: Leaf | float
    finite: Leaf
    near_zero: Leaf
    near_one: Leaf
    constant: Leaf | float
    m: Leaf | float
    half: Leaf | float
    at_half: Leaf | float


def order_of(n: float) -> Order:
    """The constants of order n >= 0, in numpy and float64 whatever JAX's setting."""
    reductions = round(n)
    m = n - reductions
    j = np.arange(1, _TERMS)
    finite = np.zeros((reductions // _FINITE_LENGTHS + 1) * _FINITE_LENGTHS)
    finite[:reductions] = 1 / (m + np.arange(reductions, 0, -1))
    near_zero = 1 / (np.arange(_TERMS) + 1 - m)
    near_one = np.cumprod((m + j - 1) / j) / j
    # both series hold at y = 1/2, which gives psi(1 - m) + euler_gamma between them
    middle = np.array([0.5])
    constant = np.log(2.0) - 0.5 * unrolled(near_one, middle) - 2**m * 0.5 * unrolled(near_zero, middle)
    half = -2 * np.log(2.0) / (1 + n)
    order = Order(n, finite, near_zero, near_one, float(constant[0]), m, half, 0.0)
    return order._replace(at_half=float(_antiderivative(np.array([half]), order, unrolled)[0]))


def unrolled(coefficients: Leaf, at: Leaf) -> Leaf:
    """sum_j c_j at^j, as code without a loop, which XLA keeps in registers."""
    total = namespace(at).zeros_like(at)
    for c in coefficients[::-1]:
        total = total * at + c
    return total


def rolled(coefficients: Array, at: Array) -> Array:
    """The same as a loop: less to compile, for what is evaluated once per lane."""
    return jax.lax.fori_loop(
        0, len(coefficients), lambda j, total: total * at + coefficients[-1 - j], jnp.zeros_like(at)
    )


def _antiderivative(x: Leaf, order: Order, polynomial: Callable[[Leaf, Leaf], Leaf]) -> Leaf:
    """F(e^x), in a sum of which the value half-way is subtracted by the caller."""
    xp = namespace(x)
    low = x <= -np.log(2.0)
    y, log_q = xp.exp(x), log_one_minus_exp(x)
    y_low, q_high = xp.where(low, y, 0.0), xp.where(low, 0.0, xp.exp(log_q))
    small = xp.exp(-order.m * x) * y_low * polynomial(order.near_zero, y_low)
    large = -log_q - order.constant - q_high * polynomial(order.near_one, q_high)
    # y^-n, capped short of infinity: beyond lie no lanes, only bins of a table that nobody looks up
    cap = float(np.log(np.finfo(x.dtype).max)) - 20
    power = xp.exp(xp.minimum(-order.n * x, cap))
    return power_integral(order.m, x) + xp.where(low, small, large) - power * polynomial(order.finite, y)


def time_from_half(
    x: Float[Leaf, "..."], order: Order, polynomial: Callable[[Leaf, Leaf], Leaf] = rolled
) -> Float[Leaf, "..."]:
    """Time u from the half height to x = log y < 0, in units of the rate there (negative before it)."""
    return (_antiderivative(x, order, polynomial) - order.at_half) * namespace(x).exp(order.n * order.half)


def polish_log_y(x: Float[Array, "..."], u: Float[Array, "..."], order: Order) -> Float[Array, "..."]:
    """x = log y from `curve_table.curve_log_y` after one Newton step towards the time u."""
    inside = jnp.minimum(x, -jnp.finfo(x.dtype).tiny)
    slope = jnp.exp(order.n * (inside - order.half)) * speed_factor(inside, GROW)
    moved = inside + (u - time_from_half(inside, order, unrolled)) * slope
    # arrived: the time to y = 1 is infinite and there is nothing left to correct
    return jnp.where((x < -1e-15) & jnp.isfinite(moved), jnp.minimum(moved, 0.0), x)
