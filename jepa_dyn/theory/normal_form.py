"""The one scalar equation behind every mode: dy/ds = +-y^(1+n) (1 -+ y), its exact time, its exact inverse.

    dynamics                          y               n                 k = ds/dt
    JEPA, depth L                     w^(1/L)/rho     2L-1              lambda rho^(2L-1) / L
    MAE, depth L                      w^(1+1/L)/rho   (L-1)/(L+1)       (1+1/L) lambda rho^((L-1)/(L+1))
    linear Barlow Twins               gamma s^2       0                 8 gamma
    DirectPred, Euclidean             lambda_m        1                 2 alpha eta
    Euclidean IsoLoss                 lambda_m        0                 2 alpha eta

With w the amplitude and y = (w/w_scale)^r, any equation dw/dt = lam w^(3-r) - variance w^3 has n = 2/r - 1.

Times are `sigma`, time in units of the initial rate dlog(y)/dt at small y: sigma = y0^n s. That scale stays finite where
k and y0^-n leave the range of floating-point numbers. `branches` explains x = log y and z; `time_integral` the forward map.

Source: Littwin 2024, eqs (71)-(82), (91)-(103), joined; corrected for y0 > 1 (the print's E/(1+E) is always below 1), for
psi(0) = eps^(1/L)/rho (eq. (88) prints eps^L/rho) and extended to real n > -1 and to lam < 0.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn.theory.branches import (
    DECAY,
    GROW,
    SHRINK,
    Branch,
    log_one_minus_exp,
    log_y_from_z,
    select,
    speed_factor,
    z_from_log_y,
)
from jepa_dyn.theory.time_integral import scaled_time, time_by_order, time_from_infinity

_MAX_NEWTON = 80


def _largest_z(like: Array) -> Array:
    """Beyond this z, log y of the grow branch underflows to 0 and the state has arrived long since."""
    return -0.98 * jnp.log(jnp.finfo(like.dtype).tiny)


def half_log_y(n: Float[Array, "..."]) -> Float[Array, "..."]:
    """log y where the amplitude is half its fixed point: y = 2^-r with r = 2 / (1 + n)."""
    return -2 * jnp.log(jnp.asarray(2.0, n.dtype)) / (1 + n)


def _newton(step: Callable[[Array], Array], start: Array) -> Array:
    """Iterates x + step(x) until every lane's step is below the square root of the precision (then the error is its square).

    Every use below is monotone from its start, so no bracket is needed; a lane that is done no longer moves.
    """
    tolerance = 0.1 * jnp.sqrt(jnp.finfo(start.dtype).eps)

    def body(carry):
        x, _, count = carry
        move = step(x)
        move = jnp.where(jnp.isfinite(move), move, 0.0)
        return x + move, jnp.abs(move) > tolerance * (1e-3 + jnp.abs(x)), count + 1

    def unfinished(carry):
        _, moving, count = carry
        return jnp.any(moving) & (count < _MAX_NEWTON)

    return jax.lax.while_loop(unfinished, body, (start, jnp.ones_like(start, bool), 0))[0]


def _grow_z(x0: Array, sigma: Array, n: Array) -> Array:
    """z on the grow branch; -inf where y had not left 0 yet (n < 0, sigma < 0).

    One Newton iteration, one time integral in it, for three ways of counting the time, each of which it solves monotonically:

    - backward (before the half height, n > 0): from x to the half height, log(1 + n phi) against x, where it is concave;
    - forward (before the half height, n <= 0): from x0 to x, log1p(rate T) / rate against x;
    - late (after the half height, or after a later start): from there to z, whose speed y^n is of order one.

    The logarithms are linear in x as long as y << 1, so that the early two need few steps.
    """
    half = half_log_y(n)
    bottom, order_to_bottom = _bottom(x0, n)
    ends, orders = jnp.stack([half, bottom]), jnp.stack([n, order_to_bottom])
    to_half, to_zero = scaled_time(jnp.broadcast_to(x0, ends.shape), ends, ends - x0, orders, GROW)
    since_zero = jnp.where(n < 0, -to_zero, jnp.inf)
    unborn = -sigma >= since_zero
    early = (sigma < to_half) & ~unborn
    backward = early & (n > 1e-3)
    order = jnp.where(backward, n, 1.0)
    # n < 0: y left 0 a finite time ago, so that 1 + rate T vanishes just there
    rate = jnp.where(early & ~backward, jnp.where(n < 0, 1 / since_zero, -n), 1.0)
    anchor = jnp.maximum(x0, half)
    start = jnp.where(early, x0, anchor)

    def backward_level(x_from: Array, log_time: Array) -> Array:
        """log(1 + n phi) with phi = int (y / y_half)^-n dz from x_from to the half height."""
        return jnp.logaddexp(0.0, jnp.log(order) - order * (x_from - half) + log_time)

    def forward_level(time: Array) -> Array:
        """log1p(rate T) / rate, with its limit T at rate = 0."""
        flat = jnp.abs(rate) < 1e-12
        safe = jnp.where(flat, 1.0, rate)
        return jnp.where(flat, time, jnp.log1p(safe * time) / safe)

    remaining = jnp.maximum(jnp.where(backward, to_half - sigma, 1.0), jnp.finfo(x0.dtype).tiny)
    backward_target = backward_level(x0, jnp.log(remaining))
    forward_target = forward_level(jnp.where(early & ~backward, sigma, 0.0))
    # after the half height: what is left of the time, in units of the rate at the anchor, capped where it overflows
    left = jnp.where(x0 > half, sigma, sigma - to_half)
    largest = jnp.log(jnp.finfo(x0.dtype).max) - 1
    log_left = jnp.log(jnp.abs(jnp.where(early, 1.0, left))) + n * (anchor - x0)
    late_target = jnp.sign(left) * jnp.exp(jnp.minimum(log_left, largest))

    def step(v: Array) -> Array:
        z = jnp.where(early, 0.0, jnp.minimum(v, _largest_z(v)))
        x = jnp.where(early, v, log_y_from_z(z, GROW))
        x_from, x_to = jnp.where(backward, x, start), jnp.where(backward, half, x)
        time = scaled_time(x_from, x_to, x_to - x_from, n, GROW)
        level = backward_level(x, jnp.log(jnp.where(backward, time, 1.0)))
        backward_slope = order * jnp.exp(-order * (x - half) - level)
        forward_slope = jnp.exp(-n * (x - x0)) / (1 + rate * jnp.where(early, time, 0.0))
        missing = jnp.where(backward, level - backward_target, forward_target - forward_level(time))
        move = missing * speed_factor(x, GROW) / jnp.where(backward, backward_slope, forward_slope)
        # y = 1 is out of reach before the half height: keep the iterate below half of the remaining distance
        early_move = jnp.minimum(move, -0.5 * x)
        late_move = (z - v) + (late_target - time) * jnp.exp(n * (x - anchor))
        return jnp.where(early, early_move, late_move)

    late_start = z_from_log_y(anchor, GROW)
    late_first = jnp.minimum(late_start + late_target, _largest_z(late_start))
    early_first = jnp.where(backward, half, jnp.minimum(x0 + forward_target, half))
    v = _newton(step, jnp.where(early, early_first, late_first))
    return jnp.where(unborn, -jnp.inf, jnp.where(early, z_from_log_y(jnp.where(early, v, -1.0), GROW), v))


def _shrink_z(x0: Array, sigma: Array, n: Array) -> Array:
    """z on the shrink branch: Newton in z, where the time is convex, from the right of the root.

    With I(u) = int_0^u v^n/(1-v) dv >= u^(n+1)/(n+1), u = 1/y, the time since y = infinity bounds u from above.
    """
    z0 = z_from_log_y(x0, SHRINK)
    log_u = (jnp.log(n + 1) + jnp.log(time_from_infinity(x0, n) + sigma) - n * x0) / (n + 1)
    bound = jnp.where(log_u < -1e-3, -log_one_minus_exp(jnp.minimum(log_u, -1e-3)), jnp.inf)

    def step(z: Array) -> Array:
        inside = jnp.minimum(z, _largest_z(z))
        x = log_y_from_z(inside, SHRINK)
        excess = scaled_time(x0, x, x - x0, n, SHRINK) - sigma
        return (inside - z) - excess * jnp.exp(n * (x - x0))

    start = jnp.minimum(z0 + sigma, jnp.maximum(bound, z0))
    return _newton(step, jnp.minimum(start, jnp.maximum(_largest_z(z0), z0)))


def _decay_z(x0: Array, sigma: Array, n: Array) -> Array:
    """z on the decay branch; infinity where y has died out (n < 0).

    Newton in log(time) against log(z - z0), from y0/y >= e^(z - z0), right of the root for n > 0.
    """
    z0 = z_from_log_y(x0, DECAY)
    target = jnp.log(sigma)
    order = jnp.where(n > 1e-12, n, 1.0)
    start = jnp.where(n > 1e-12, jnp.log1p(order * sigma) / order, sigma)
    bottom, order_to_bottom = _bottom(x0, n)
    extinction = jnp.where(n < 0, scaled_time(x0, bottom, bottom - x0, order_to_bottom, DECAY), jnp.inf)

    def step(log_distance: Array) -> Array:
        distance = jnp.minimum(jnp.exp(log_distance), _largest_z(z0))
        x = log_y_from_z(z0 + distance, DECAY)
        time = scaled_time(x0, x, x - x0, n, DECAY)
        move = -(jnp.log(time) - target) * time / (distance * jnp.exp(-n * (x - x0)))
        move = jnp.where(jnp.isfinite(time), move, -0.05)  # overflowed: far right of the root
        return (jnp.log(distance) - log_distance) + move

    return jnp.where(sigma >= extinction, jnp.inf, z0 + jnp.exp(_newton(step, jnp.log(start))))


def _bottom(x0: Array, n: Array) -> tuple[Array, Array]:
    """For n < 0 (JEPA L < 1/2, MAE L < 1), where y passes 0 in finite time: log y that stands for 0, and n (else -1).

    What is left below it is e^-45 of the time.
    """
    order = jnp.where(n < 0, n, -1.0)
    return jnp.minimum(x0, 0.0) - 45 / jnp.abs(order), order


def advance(
    x0: Float[Array, "..."], sigma: Float[Array, "..."], n: Float[Array, "..."], branch: Branch
) -> Float[Array, "..."]:
    """z after the time sigma from log y = x0: the exact inverse of `scaled_time` (all arguments of one shape).

    sigma < 0 goes back in time on the grow branch, where z = -inf means that y had not left 0 yet; on the other two it gives
    nan. sigma = inf gives z = inf (arrived), and so does a decay that has ended at 0 in finite time.
    Differentiable in x0, sigma and n by the implicit function theorem.
    """
    known = branch if isinstance(branch, int) else None
    return jax.jit(_advance, static_argnums=0)(known, x0, sigma, n, jnp.asarray(branch))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _advance(known: int | None, x0: Array, sigma: Array, n: Array, branch: Array) -> Array:
    kind = branch if known is None else known
    arrived = jnp.isposinf(sigma)
    still = (kind != GROW) & ~(sigma > 0)
    forward = jnp.where(arrived | still, 1.0, sigma)

    def lanes_of(solve: Callable[[Array, Array, Array], Array], on: int, harmless: float) -> Array:
        """`solve` with the lanes of other branches at a start that costs no steps."""
        if known is not None and known != on:
            return x0
        own = jnp.asarray(kind == on)
        return solve(jnp.where(own, x0, harmless), jnp.where(own, forward, 1.0), n)

    z = select(kind, lanes_of(_grow_z, GROW, -1.0), lanes_of(_shrink_z, SHRINK, 1.0), lanes_of(_decay_z, DECAY, 0.0))
    z = jnp.where(arrived, jnp.inf, jnp.where(still, z_from_log_y(x0, kind), z))
    return jnp.where((kind != GROW) & (sigma < 0), jnp.nan, z)


@_advance.defjvp
def _advance_jvp(known, primals, tangents):
    x0, sigma, n, branch = primals
    x0_dot, sigma_dot, n_dot, _ = tangents
    kind = branch if known is None else known
    z = _advance(known, x0, sigma, n, branch)
    # arrived: no state changes with z any more, and the derivative of the time by n would be infinity times 0
    moving = jnp.isfinite(z) & (z < _largest_z(z))
    x = jnp.where(moving, log_y_from_z(jnp.where(moving, z, 1.0), kind), x0)
    elapsed = jnp.where(moving, sigma, 0.0)
    by_start = 1 / speed_factor(x0, kind) - n * elapsed
    by_order = -time_by_order(x0, x, x - x0, n, kind)
    z_dot = jnp.exp(n * (x - x0)) * (sigma_dot + by_start * x0_dot + by_order * n_dot)
    return z, jnp.where(moving, z_dot, 0.0)


def logistic_time(
    x0: Float[Array, "..."], x: Float[Array, "..."], dx: Float[Array, "..."], branch: Branch
) -> Float[Array, "..."]:
    """The time of order n = 0, z - z0, without cancellation and without the series of `scaled_time` (all arguments of one shape).

    With y = e^x, `dx = x - x0` passed beside x for its precision; negative where the state lies behind the start.
    """
    y0 = jnp.exp(jnp.where(branch == GROW, x0, -1.0))
    rise = jnp.where(dx < 1, y0 * jnp.expm1(jnp.minimum(dx, 1.0)), jnp.exp(jnp.where(branch == GROW, x, 0.0)) - y0)
    grow = dx - jnp.log1p(jnp.where(branch == GROW, -rise / (1 - y0), 0.0))
    # in u = 1/y, which grows on both: log (1 - u0)/(1 - u) and log (1 + u)/(1 + u0)
    u0 = jnp.exp(-jnp.where(branch == SHRINK, x0, 1.0))
    shrink = -jnp.log1p(-u0 * jnp.expm1(-jnp.where(branch == SHRINK, dx, 0.0)) / (1 - u0))
    near = dx > -1
    short = jnp.log1p(jnp.expm1(-jnp.where(near, dx, 0.0)) / (1 + jnp.exp(jnp.where(branch == DECAY, x0, 0.0))))
    decay = jnp.where(near, short, jax.nn.softplus(-x) - jax.nn.softplus(-x0))
    return select(branch, grow, shrink, decay)


def universal_curve(s: ArrayLike, n: ArrayLike) -> Float[Array, "..."]:
    """The growth curve of order n: the share w/w_inf of the fixed point at time s after the half height, s = k t.

    One curve per n; every JEPA, MAE, Barlow or DirectPred mode is a shift and a stretch of it.
    """
    dtype = jnp.result_type(1.0, s, n)
    s, n = jnp.broadcast_arrays(jnp.asarray(s, dtype), jnp.asarray(n, dtype))
    half = half_log_y(n)
    x = log_y_from_z(advance(half, s * jnp.exp(n * half), n, GROW), GROW)
    return jnp.exp(x * (1 + n) / 2)
