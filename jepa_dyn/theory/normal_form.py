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

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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
from jepa_dyn.theory.time_integral import scaled_time, time_by_order

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


def _grow_early(x0: Array, sigma: Array, n: Array, time_to_half: Array) -> Array:
    """log y before the half height. n > 0: counted back from the half height; else forward from the start.

    In both the unknown enters through log1p(n T)/n, which is the identity as long as y << 1, so that Newton needs few steps.
    """
    half = half_log_y(n)
    backward = n > 1e-3
    order = jnp.where(backward, n, 1.0)

    def backward_level(x_from: Array, log_time: Array) -> Array:
        """log(1 + n phi) with phi = int (y/y_half)^-n dz from x_from to the half height."""
        return jnp.logaddexp(0.0, jnp.log(order) - order * (x_from - half) + log_time)

    remaining = jnp.maximum(time_to_half - sigma, jnp.finfo(x0.dtype).tiny)
    target = backward_level(x0, jnp.log(remaining))

    def backward_step(x: Array) -> Array:
        level = backward_level(x, jnp.log(scaled_time(x, half, half - x, n, GROW)))
        slope = order * jnp.exp(-order * (x - half) - level) / speed_factor(x, GROW)
        return (level - target) / slope

    # n < 0: y left 0 a finite time ago, so that 1 + rate T vanishes just there
    rate = jnp.where(backward, 0.0, jnp.where(n < 0, 1 / time_to_zero(x0, n, GROW), -n))

    def forward_level(time: Array) -> Array:
        """log1p(rate T) / rate, with its limit T at rate = 0."""
        flat = jnp.abs(rate) < 1e-12
        safe = jnp.where(flat, 1.0, rate)
        return jnp.where(flat, time, jnp.log1p(safe * time) / safe)

    forward_target = forward_level(jnp.where(backward, 0.0, sigma))

    def forward_step(x: Array) -> Array:
        dx = x - x0
        time = scaled_time(x0, x, dx, n, GROW)
        slope = jnp.exp(-n * dx) / (speed_factor(x, GROW) * (1 + rate * time))
        return (forward_target - forward_level(time)) / slope

    def step(x: Array) -> Array:
        # y = 1 is out of reach before the half height: keep the iterate below half of the remaining distance
        move = jnp.where(backward, backward_step(x), forward_step(x))
        return jnp.minimum(move, -0.5 * x)

    # the backward level is concave in x, so Newton is monotone from its right end, the half height
    return _newton(step, jnp.where(backward, half, jnp.minimum(x0 + forward_target, half)))


def _grow_late(anchor: Array, time_after: Array, n: Array) -> Array:
    """z after the half height (or after a later start): Newton on z, whose speed y^n is of order one there."""
    z_anchor = z_from_log_y(anchor, GROW)

    def step(z: Array) -> Array:
        inside = jnp.minimum(z, _largest_z(z))
        x = log_y_from_z(inside, GROW)
        short = time_after - scaled_time(anchor, x, x - anchor, n, GROW)
        return (inside - z) + short * jnp.exp(n * (x - anchor))

    return _newton(step, jnp.minimum(z_anchor + time_after, _largest_z(z_anchor)))


def _grow_z(x0: Array, sigma: Array, n: Array) -> Array:
    half = half_log_y(n)
    time_to_half = scaled_time(x0, half, half - x0, n, GROW)
    early = sigma < time_to_half
    late_start = x0 > half
    x_early = _grow_early(
        jnp.where(early, x0, half - 1), jnp.where(early, sigma, 0.1), n, jnp.where(early, time_to_half, 0.2)
    )
    anchor = jnp.where(late_start, x0, half)
    excess = jnp.where(late_start, sigma, sigma - time_to_half)
    log_scale = jnp.where(late_start, 0.0, n * (half - x0))
    largest = jnp.log(jnp.finfo(x0.dtype).max) - 1
    magnitude = jnp.exp(jnp.minimum(jnp.log(jnp.abs(jnp.where(early, 1.0, excess))) + log_scale, largest))
    z_late = _grow_late(anchor, jnp.where(early, 1.0, jnp.sign(excess) * magnitude), n)
    return jnp.where(early, z_from_log_y(x_early, GROW), z_late)


def _shrink_z(x0: Array, sigma: Array, n: Array) -> Array:
    """z on the shrink branch: Newton in z, where the time is convex, from the right of the root.

    With I(u) = int_0^u v^n/(1-v) dv >= u^(n+1)/(n+1), u = 1/y, the time since y = infinity bounds u from above.
    """
    z0 = z_from_log_y(x0, SHRINK)
    infinity = jnp.maximum(x0, 300.0)
    since_infinity = -scaled_time(x0, infinity, infinity - x0, n, SHRINK)
    log_u = (jnp.log(n + 1) + jnp.log(since_infinity + sigma) - n * x0) / (n + 1)
    bound = jnp.where(log_u < -1e-3, -log_one_minus_exp(jnp.minimum(log_u, -1e-3)), jnp.inf)

    def step(z: Array) -> Array:
        inside = jnp.minimum(z, _largest_z(z))
        x = log_y_from_z(inside, SHRINK)
        excess = scaled_time(x0, x, x - x0, n, SHRINK) - sigma
        return (inside - z) - excess * jnp.exp(n * (x - x0))

    start = jnp.minimum(z0 + sigma, jnp.maximum(bound, z0))
    return _newton(step, jnp.minimum(start, jnp.maximum(_largest_z(z0), z0)))


def _decay_z(x0: Array, sigma: Array, n: Array) -> Array:
    """z on the decay branch: Newton in log(time) against log(z - z0), from y0/y >= e^(z - z0), right of the root for n > 0."""
    z0 = z_from_log_y(x0, DECAY)
    target = jnp.log(sigma)
    order = jnp.where(n > 1e-12, n, 1.0)
    start = jnp.where(n > 1e-12, jnp.log1p(order * sigma) / order, sigma)

    def step(log_distance: Array) -> Array:
        distance = jnp.minimum(jnp.exp(log_distance), _largest_z(z0))
        x = log_y_from_z(z0 + distance, DECAY)
        time = scaled_time(x0, x, x - x0, n, DECAY)
        move = -(jnp.log(time) - target) * time / (distance * jnp.exp(-n * (x - x0)))
        move = jnp.where(jnp.isfinite(time), move, -0.05)  # overflowed: far right of the root
        return (jnp.log(distance) - log_distance) + move

    return z0 + jnp.exp(_newton(step, jnp.log(start)))


def time_to_zero(x0: Float[Array, "..."], n: Float[Array, "..."], branch: Branch) -> Float[Array, "..."]:
    """|sigma| between y0 and y = 0: finite for n < 0 (JEPA L < 1/2, MAE L < 1), else infinity.

    On the decay branch it is the extinction time; on the grow branch the time since y left 0.
    """
    order = jnp.where(n < 0, n, -1.0)
    bottom = jnp.minimum(x0, 0.0) - 45 / jnp.abs(order)  # what is left below is e^-45 of the whole
    return jnp.where(n < 0, jnp.abs(scaled_time(x0, bottom, bottom - x0, order, branch)), jnp.inf)


@jax.custom_jvp
def advance(
    x0: Float[Array, "..."], sigma: Float[Array, "..."], n: Float[Array, "..."], branch: Branch
) -> Float[Array, "..."]:
    """z after the time sigma from log y = x0: the exact inverse of `scaled_time` (all arguments of one shape).

    sigma < 0 goes back in time on the grow branch; on the other two it gives nan. sigma = inf gives z = inf (arrived).
    Differentiable in x0, sigma and n by the implicit function theorem.
    """
    arrived = jnp.isposinf(sigma)
    grows, shrinks, decays = branch == GROW, branch == SHRINK, branch == DECAY
    still = ~grows & ~(sigma > 0)
    forward = jnp.where(arrived | still, 1.0, sigma)

    def only(on: Array | bool, elsewhere: float) -> tuple[Array, Array]:
        return jnp.where(on, x0, elsewhere), jnp.where(on, forward, 1.0)

    z = select(
        branch, _grow_z(*only(grows, -1.0), n), _shrink_z(*only(shrinks, 1.0), n), _decay_z(*only(decays, 0.0), n)
    )
    # n < 0: on the grow branch y leaves 0 at a finite time, on the decay branch it reaches 0 at one
    since_zero = time_to_zero(jnp.where(shrinks, -1.0, x0), n, jnp.where(shrinks, GROW, branch))
    outside = ~shrinks & (jnp.where(grows, -sigma, sigma) >= since_zero)
    unborn, extinct = grows & outside, decays & outside
    z = jnp.where(unborn, -jnp.inf, jnp.where(arrived | extinct, jnp.inf, z))
    z = jnp.where(still, z_from_log_y(x0, branch), z)
    return jnp.where(~grows & (sigma < 0), jnp.nan, z)


@advance.defjvp
def _advance_jvp(primals, tangents):
    x0, sigma, n, branch = primals
    x0_dot, sigma_dot, n_dot, _ = tangents
    z = advance(x0, sigma, n, branch)
    # arrived: no state changes with z any more, and the derivative of the time by n would be infinity times 0
    moving = jnp.isfinite(z) & (z < _largest_z(z))
    x = jnp.where(moving, log_y_from_z(jnp.where(moving, z, 1.0), branch), x0)
    elapsed = jnp.where(moving, sigma, 0.0)
    by_start = 1 / speed_factor(x0, branch) - n * elapsed
    by_order = -time_by_order(x0, x, x - x0, n, branch)
    z_dot = jnp.exp(n * (x - x0)) * (sigma_dot + by_start * x0_dot + by_order * n_dot)
    return z, jnp.where(moving, z_dot, 0.0)


def universal_curve(s: Float[Array, "..."], n: Float[Array, "..."]) -> Float[Array, "..."]:
    """The growth curve of order n: the share w/w_inf of the fixed point at time s after the half height, s = k t.

    One curve per n; every JEPA, MAE, Barlow or DirectPred mode is a shift and a stretch of it.
    """
    s, n = jnp.broadcast_arrays(jnp.asarray(s), jnp.asarray(n))
    half = half_log_y(n)
    x = log_y_from_z(advance(half, s * jnp.exp(n * half), n, GROW), GROW)
    return jnp.exp(x * (1 + n) / 2)
