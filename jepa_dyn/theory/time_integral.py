"""Exact time of the normal form: T(x0, x; n) = int_{z0}^{z} (y / y0)^-n dz', the time in units of 1 / y0^n.

The scale y0^-n is taken out because it spans hundreds of decades; T itself is of order one near the start. Each branch is a
sum of positive terms or a short alternating one, so nothing cancels:

- grow: 1/(y^(1+n)(1-y)) = y^-(1+n) + 1/(y^n (1-y)) is applied until the exponent m = n - N lies in [-1/2, 1/2]; what is left
  is H_m(y) = int_0^y u^-m / (1 - u) du, by its power series in y (y <= 1/2) or in 1 - y (y > 1/2). For integer n this is the
  finite sum of Littwin 2024, eq. (72), with the index that eq. (79) misprints (the sum starts at 0).
- shrink: int_0^u v^n / (1 - v) dv with u = 1/y, by the same two series, or by Gauss-Legendre panels in between.
- decay: series in y below 1/2, in 1/y above 2, Gauss-Legendre in between.
- close ends (|z - z0| (1 + |n|) small): Gauss-Legendre, which keeps the relative error where the others would subtract.

Relative error below 1e-13 in float64 against mpmath over the whole domain (tests/theory/test_normal_form.py).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma
from jaxtyping import Array, Float

from jepa_dyn.parameters import Leaf
from jepa_dyn.theory.branches import (
    DECAY,
    GROW,
    SHRINK,
    Branch,
    log_one_minus_exp,
    namespace,
    select,
    speed_factor,
    z_from_log_y,
)

_TERMS = 54  # 2^-54: the series are used for arguments up to 1/2
_LOG_2 = float(np.log(2.0))
_NODES_16, _WEIGHTS_16 = np.polynomial.legendre.leggauss(16)
_NODES_24, _WEIGHTS_24 = np.polynomial.legendre.leggauss(24)
# int_0^inf e^-tau f(tau) dtau cut at 40, panels graded towards the pole of f at tau < -1
_PANELS = ((0.0, 1.5), (1.5, 7.0), (7.0, 18.0), (18.0, 40.0))


def power_integral(delta: Leaf | float, length: Leaf) -> Leaf:
    """int_0^length e^(-delta s) ds = (1 - e^(-delta length)) / delta, smooth through delta = 0."""
    xp = namespace(length)
    exponent = delta * length
    small = xp.abs(exponent) < 0.1
    safe = xp.where(small, 1.0, exponent)
    near = xp.where(small, exponent, 0.0)
    series = xp.ones_like(near)
    for k in range(12, 1, -1):
        series = 1 - near / k * series
    return length * xp.where(small, series, -xp.expm1(-safe) / safe)


def _gauss_legendre(integrand, start: Array | float, length: Array, nodes: np.ndarray, weights: np.ndarray) -> Array:
    """int_start^(start+length) of an elementwise function; the nodes run along a leading axis."""
    shape = (-1, *(1,) * jnp.ndim(length))
    fractions = jnp.asarray(0.5 * (1 + nodes), length.dtype).reshape(shape)
    scaled_weights = jnp.asarray(0.5 * weights, length.dtype).reshape(shape)
    return length * jnp.sum(scaled_weights * integrand(start + fractions * length), axis=0)


def _short_time(x0: Array, dx: Array, n: Array, branch: Branch) -> Array:
    """T for close ends, from dx itself: int_0^dx e^(-n s) / (dx/dz)(x0 + s) ds."""
    y0, factor0 = jnp.exp(x0), speed_factor(x0, branch)

    def integrand(s):
        # dx/dz at x0 + s without forming 1 - y: grow, shrink 1 - y0 e^s; decay -(1 + y0 e^s)
        return jnp.exp(-n * s) / (factor0 - y0 * jnp.expm1(s))

    return _gauss_legendre(integrand, 0.0, dx, _NODES_16, _WEIGHTS_16)


def series_constant(n: Array | float) -> Array:
    """psi(1 - n) + euler_gamma = int_0^1 (1 - u^-n) / (1 - u) du, n < 1."""
    return digamma(jnp.asarray(1.0 - n)) + np.euler_gamma


def _log_series(n: Array, log_q: Array) -> Array:
    """int_0^y u^-n / (1-u) du = -log q - (psi(1-n) + euler_gamma) - sum_j (n)_j / (j! j) q^j,  q = 1 - y <= 1/2, n < 1."""
    q = jnp.exp(log_q)

    def add_term(j, carry):
        coefficient, total = carry
        j = jnp.asarray(j, q.dtype)
        coefficient = coefficient * q * ((n + (j - 1)) / j)
        return coefficient, total + coefficient / j

    zero = jnp.zeros_like(q * n)
    total = jax.lax.fori_loop(1, _TERMS, add_term, (zero + 1, zero))[1]
    return -log_q - series_constant(n) - total


def _power_series(n: Array, y: Array) -> Array:
    """sum_{j>=0} y^(j+1) / (j + 1 - n) = y^n int_0^y u^-n / (1-u) du for y <= 1/2, n < 1."""

    def add_term(j, total):
        return total * y + 1 / (_TERMS - jnp.asarray(j, y.dtype) - n)

    return y * jax.lax.fori_loop(0, _TERMS, add_term, jnp.zeros_like(y * n))


def _grow_time(x0: Array, x: Array, dx: Array, n: Array) -> Array:
    """T for y < 1: sum_{j=0}^{N} y0^j int_0^dx e^{-(n-j)s} ds + y0^n [H_{n-N}(y) - H_{n-N}(y0)]."""
    # a depth near 1e4 or more would loop for seconds; nothing in the field comes near
    reductions = jnp.maximum(jnp.round(jax.lax.stop_gradient(n)), 0.0)
    remainder = n - reductions

    def add_term(j, total):
        j = jnp.asarray(j, x0.dtype)
        term = jnp.exp(j * x0) * power_integral(n - j, dx)
        return total + jnp.where(j <= reductions, term, 0.0)

    last = jax.lax.stop_gradient(jnp.max(reductions, initial=0.0)).astype(jnp.int32)
    total = jax.lax.fori_loop(0, last + 1, add_term, jnp.zeros_like(x0 + x + n))

    # y0^n H_m(e^at) at both ends
    at = jnp.stack([x, x0])
    low = at <= -_LOG_2
    series = _power_series(remainder, jnp.exp(jnp.where(low, at, -1.0)))
    low_value = jnp.exp(n * x0 - remainder * at) * series
    high = _log_series(remainder, log_one_minus_exp(jnp.where(low, -0.5, at)))
    at_end, at_start = jnp.where(low, low_value, jnp.exp(n * x0) * high)
    return total + (at_end - at_start)


def time_from_infinity(x: Array, n: Array) -> Array:
    """Shrink branch, J(x) = y^n int_0^(1/y) v^n / (1 - v) dv: time since y = infinity, in units of 1 / y^n, x = log y > 0."""
    u, log_q = jnp.exp(-x), log_one_minus_exp(-x)
    q = jnp.exp(log_q)
    near_zero = u <= 0.5
    near_one = ~near_zero & ((q * (n + 2) < 1) | (n <= 2))
    small_u = _power_series(-n, jnp.where(near_zero, u, 0.25))
    close = jnp.exp(jnp.where(near_one, n * x, 0.0)) * _log_series(-n, jnp.where(near_one, log_q, -1.0))
    rate = n + 1

    def integrand(tau):
        return jnp.exp(-tau) / (q - u * jnp.expm1(-tau / rate))

    middle = sum(
        _gauss_legendre(integrand, start, jnp.full_like(u * n, end - start), _NODES_16, _WEIGHTS_16)
        for start, end in _PANELS
    )
    return jnp.where(near_zero, small_u, jnp.where(near_one, close, u / rate * middle))


def _shrink_time(x0: Array, x: Array, dx: Array, n: Array) -> Array:
    """T for y > 1; dx <= 0."""
    at_end, at_start = time_from_infinity(jnp.stack([x, x0]), n)
    return jnp.exp(-n * dx) * at_end - at_start


def _decay_time(x0: Array, x: Array, n: Array) -> Array:
    """T for lam < 0 as the sum over y < 1/2, 1/2 < y < 2, y > 2; x <= x0."""

    def clipped(low: float, high: float) -> tuple[Array, Array]:
        return jnp.clip(x, low, high), jnp.clip(x0, low, high) - jnp.clip(x, low, high)

    def piece(exponent: Array, delta: Array, length: Array) -> Array:
        """e^exponent int_0^length e^(-delta s) ds without overflow for delta < 0."""
        return jnp.exp(exponent + jnp.maximum(-delta, 0.0) * length) * power_integral(jnp.abs(delta), length)

    low, low_length = clipped(-jnp.inf, -_LOG_2)
    high, high_length = clipped(_LOG_2, jnp.inf)

    def add_terms(j, total):
        m = jnp.asarray(j, x0.dtype)
        below = piece(n * (x0 - low) + m * low, n - m, low_length)
        above = piece(n * (x0 - high) - (m + 1) * high, n + m + 1, high_length)
        return total + jnp.where(j % 2 == 0, 1.0, -1.0).astype(x0.dtype) * (below + above)

    total = jax.lax.fori_loop(0, _TERMS, add_terms, jnp.zeros_like(x0 + x + n))
    start, length = clipped(-_LOG_2, _LOG_2)
    length = jnp.minimum(length, 40 / jnp.maximum(n, 1.0))  # beyond that e^(-n s) < 1e-17

    def integrand(s):
        return jnp.exp(n * (x0 - start - s)) / (1 + jnp.exp(start + s))

    return total + _gauss_legendre(integrand, 0.0, length, _NODES_24, _WEIGHTS_24)


def _raw_time(x0: Array, x: Array, dx: Array, n: Array, branch: Branch) -> Array:
    z0, z = z_from_log_y(x0, branch), z_from_log_y(x, branch)
    short = (jnp.abs(z - z0) < 0.5) & (jnp.abs(dx) * (1 + jnp.abs(n)) < 4)

    def only(on: int, value: Array, elsewhere: float) -> Array:
        return jnp.where(jnp.asarray(branch == on) & ~short, value, elsewhere)

    grow = _grow_time(only(GROW, x0, -2.0), only(GROW, x, -1.0), only(GROW, dx, 1.0), only(GROW, n, 0.0))
    shrink = _shrink_time(only(SHRINK, x0, 2.0), only(SHRINK, x, 1.0), only(SHRINK, dx, -1.0), only(SHRINK, n, 0.0))
    decay = _decay_time(only(DECAY, x0, 1.0), only(DECAY, x, 0.0), only(DECAY, n, 0.0))
    near = _short_time(jnp.where(short, x0, -1.0), jnp.where(short, dx, 0.0), n, branch)
    return jnp.where(short, near, select(branch, grow, shrink, decay))


def scaled_time(
    x0: Float[Array, "..."], x: Float[Array, "..."], dx: Float[Array, "..."], n: Float[Array, "..."], branch: Branch
) -> Float[Array, "..."]:
    """T(x0, x; n): time from y0 = e^x0 to y = e^x in units of 1 / y0^n (all arguments of one shape).

    `dx = x - x0` is passed beside x, because the caller often knows it more precisely than the difference. Negative where the
    state lies behind the start (grow only). Differentiable in x0, dx and n; x carries no tangent of its own.
    """
    known = branch if isinstance(branch, int) else None
    return jax.jit(_scaled_time, static_argnums=0)(known, x0, x, dx, n, jnp.asarray(branch))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _scaled_time(known: int | None, x0: Array, x: Array, dx: Array, n: Array, branch: Array) -> Array:
    return _raw_time(x0, x, dx, n, branch if known is None else known)


@_scaled_time.defjvp
def _scaled_time_jvp(known, primals, tangents):
    x0, x, dx, n, branch = primals
    x0_dot, _, dx_dot, n_dot, _ = tangents
    kind = branch if known is None else known
    time = _scaled_time(known, x0, x, dx, n, branch)
    by_dx = jnp.exp(-n * dx) / speed_factor(x, kind)
    by_x0 = by_dx - 1 / speed_factor(x0, kind) + n * time
    return time, by_dx * dx_dot + by_x0 * x0_dot + time_by_order(x0, x, dx, n, kind) * n_dot


def time_by_order(x0: Array, x: Array, dx: Array, n: Array, branch: Branch) -> Array:
    """Partial derivative of T by n at fixed ends."""
    return jax.jvp(lambda order: _raw_time(x0, x, dx, order, branch), (n,), (jnp.ones_like(n),))[1]
