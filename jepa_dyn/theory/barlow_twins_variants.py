"""Closed forms of the variants of Barlow Twins for aligned modes: sharp, smooth, quartic loss and preconditioned gradient.

With l = gamma s^2 an eigenvalue loss h moves an aligned mode by ds/dt = -2 gamma s h'(l), dl/dt = -4 gamma l h'(l):

    sharp           sbar = |gamma|^(1/2) s:   1 - sbar(t) = (1 - sbar(0)) e^(-2 gamma t)          gamma > 0
                    1 + sbar(t) = (1 + sbar(0)) e^(-2 |gamma| t), 0 once it gets there            gamma < 0
    smooth          (10) for l <= 1; above, (10) with epsilon^2 t for t, epsilon = `upper_slope`
    quartic         log|l / (1-l)| + 1/(1-l) + 1/(2 (1-l)^2) = 16 gamma t + const
    preconditioned  ridge log|l / (1-l)| - (nu/gamma) log|1-l| = 8 gamma t + const

The last needs S = (xx + yy)/2 and Gamma to share the features; nu is the variance of the feature, the eigenvalue of S.
They mirror `flows.spectral_losses` (with `kink_width` 0) and `flows.barlow_twins_preconditioned`. No factor of time is hidden.

Source: Simon 2023, appendix G, (52), which gives none of these solutions; footnote 26 says that the sharp one exists.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_nonnegative, require_positive
from jepa_dyn.theory.barlow_twins import mode_state, prepare, require_times

_MAX_NEWTON = 200
_TERMS = 16


def sharp_singular_value(t: ArrayLike, s0: ArrayLike, gamma: ArrayLike) -> Float[Array, "..."]:
    """s(t) under h = (g(l) - 1)^2, g = sign(l) |l|^(1/2): an exponential approach without plateau, or 0 in finite time.

    Args:
        t: gradient-flow time >= 0, infinity allowed.
        s0: singular value at t = 0, >= 0; from 0 a mode with gamma > 0 leaves at once.
        gamma: eigenvalue of Gamma, any sign. Everything broadcasts.

    Raises:
        ValueError: t or s0 < 0, a value not finite or not representable.

    Source: Simon 2023, G.2, footnote 26.
    """
    require_times(t)
    require_nonnegative("s0", s0)
    s0, gamma, t = prepare({}, s0=s0, gamma=gamma, t=t)
    return _sharp(t, s0, gamma)


@jax.jit
def _sharp(t: Array, s0: Array, gamma: Array) -> Array:
    moves = gamma != 0
    root = jnp.sqrt(jnp.where(moves, jnp.abs(gamma), 1.0))
    elapsed = 2 * root**2 * jnp.where(moves, t, 0.0)
    # s0 e^-x + (1 - e^-x) / root grows, s0 e^-x - (1 - e^-x) / root dies out
    step = -jnp.expm1(-elapsed) / root
    kept = s0 * jnp.exp(-elapsed)
    return jnp.where(moves, jnp.where(gamma > 0, kept + step, jnp.maximum(kept - step, 0.0)), s0)


def sharp_extinction_time(s0: ArrayLike, gamma: ArrayLike) -> Float[Array, "..."]:
    """When a mode with gamma < 0 reaches 0 under the sharp loss: log(1 + |gamma|^(1/2) s0) / (2 |gamma|); else infinite.

    Args, raises: as `sharp_singular_value`. Source: Simon 2023, G.2 (not in the paper).
    """
    require_nonnegative("s0", s0)
    s0, gamma = prepare({}, s0=s0, gamma=gamma)
    size = jnp.where(gamma < 0, -gamma, 1.0)
    return jnp.where(gamma < 0, jnp.log1p(jnp.sqrt(size) * s0) / (2 * size), jnp.inf)


def smooth_singular_value(
    t: ArrayLike, s0: ArrayLike, gamma: ArrayLike, upper_slope: ArrayLike = 0.0
) -> Float[Array, "..."]:
    """s(t) under h = (g(l) - 1)^2, g = min(l, 1 + epsilon (1 - l)): (10), slowed by epsilon^2 where it starts above.

    Args:
        t, s0, gamma: as in `barlow_twins.singular_value`.
        upper_slope: epsilon >= 0; with 0 a start above the fixed point stays where it is.

    Raises:
        ValueError: as `barlow_twins.singular_value`; upper_slope < 0.

    Source: Simon 2023, G.3.
    """
    require_times(t)
    require_nonnegative("upper_slope", upper_slope)
    s0, gamma, upper_slope, t = prepare({"s0": s0}, gamma=gamma, upper_slope=upper_slope, t=t)
    return _smooth(t, s0, gamma, upper_slope)


@jax.jit
def _smooth(t: Array, s0: Array, gamma: Array, upper_slope: Array) -> Array:
    above = gamma * s0**2 > 1
    slowed = jnp.where(upper_slope == 0, 0.0, upper_slope**2 * jnp.where(upper_slope == 0, 0.0, t))
    return mode_state(jnp.where(above, slowed, t), s0, gamma)


def _newton(step: Callable[[Array], Array], start: Array) -> Array:
    """The root of `step`, by x + step(x) from a side from which Newton's steps never pass it; derivatives are those of the root."""
    tolerance = 4 * jnp.finfo(start.dtype).eps

    def solve(step: Callable[[Array], Array], start: Array) -> Array:
        def body(carry: tuple) -> tuple:
            x, _, count = carry
            move = step(x)
            move = jnp.where(jnp.isfinite(move), move, 0.0)
            return x + move, jnp.abs(move) > tolerance * (1 + jnp.abs(x)), count + 1

        def unfinished(carry: tuple) -> Array:
            return jnp.any(carry[1]) & (carry[2] < _MAX_NEWTON)

        return jax.lax.while_loop(unfinished, body, (start, jnp.ones_like(start, bool), 0))[0]

    # lanes do not mix: the linear map is a factor on each
    return jax.lax.custom_root(step, start, solve, lambda linear, y: y / linear(jnp.ones_like(y)))


def _cubic_tail(p: Array) -> Array:
    """log(1 + p) - p + p^2/2 for p > -1, by its series p^3 (1/3 - p/4 + ..) where |p| < 1/10."""
    small = jnp.abs(p) < 0.1
    near = jnp.where(small, p, 0.0)
    series = jnp.zeros_like(p)
    for i in range(_TERMS - 1, -1, -1):
        series = 1 / (i + 3) - near * series
    safe = jnp.where(small, 1.0, p)
    return jnp.where(small, near**3 * series, jnp.log1p(safe) - safe + safe**2 / 2)


def _log_abs(s: Array, gamma: Array) -> Array:
    """log |gamma s^2|, 0 where gamma = 0."""
    return jnp.where(gamma == 0, 0.0, jnp.log(jnp.where(gamma == 0, 1.0, jnp.abs(gamma))) + 2 * jnp.log(s))


def _grow_level(z: Array) -> Array:
    """Quartic, 0 < l < 1: z + q + q^2/2 with z = logit l, q = 1/(1-l) = 1 + e^z. Convex."""
    q = 1 + jnp.exp(z)
    return z + q + q**2 / 2


def _decay_level(v: Array) -> Array:
    """Quartic, l < 0: log(1-b) + b + b^2/2 with v = log |l|, b = 1/(1+|l|). Concave."""
    b = jax.nn.sigmoid(-v)
    # 1 - b = |l| b, so that the logarithm is exact for small |l|
    return jnp.where(v < 0, v - jax.nn.softplus(v) + b + b**2 / 2, _cubic_tail(-b))


def _quartic_grow(z0: Array, elapsed: Array) -> Array:
    """logit l after 16 gamma t = `elapsed`."""
    target = _grow_level(z0) + elapsed
    # both lie right of the root: level >= z + 3/2 everywhere, and >= q^2/2 where z > 0
    start = jnp.where(target > 2, 0.5 * jnp.log(2 * jnp.maximum(target, 1.0)), target - 1.5)

    def step(z: Array) -> Array:
        q = 1 + jnp.exp(z)
        return (target - _grow_level(z)) / (1 + (1 + q) * jnp.exp(z))

    return _newton(step, start)


def _quartic_shrink(p0: Array, elapsed: Array) -> Array:
    """p = 1/(l-1) after `elapsed`: log(1+p) - p + p^2/2 rises by it. Convex in p."""
    target = _cubic_tail(p0) + elapsed
    bound = 1 + jnp.sqrt(2 * target)
    start = jnp.minimum(bound, (3 * target * (1 + bound)) ** (1 / 3))
    return _newton(lambda p: (target - _cubic_tail(p)) * (1 + p) / p**2, start)


def _quartic_decay(v0: Array, elapsed: Array) -> Array:
    """log |l| after `elapsed` = 16 |gamma| t: the level falls by it."""
    target = _decay_level(v0) - elapsed
    wide = jnp.maximum((-3 * target) ** (-1 / 3) - 1, jnp.finfo(v0.dtype).tiny)
    start = jnp.maximum(target - 1.5, jnp.log(wide))
    return _newton(lambda v: (target - _decay_level(v)) * (1 + jnp.exp(v)) ** 3, jnp.minimum(start, v0))


def quartic_singular_value(t: ArrayLike, s0: ArrayLike, gamma: ArrayLike) -> Float[Array, "..."]:
    """s(t) under h = (1 - l)^4: twice as fast from a small start as (10), but 1 - l -> (32 gamma t)^(-1/2).

    Args, raises: as `barlow_twins.singular_value`; t = inf gives its limit.

    Accuracy: about 1e-13 in float64.

    Source: Simon 2023, G.3 (the solution is not in the paper).
    """
    require_times(t)
    s0, gamma, t = prepare({"s0": s0}, gamma=gamma, t=t)
    return _quartic(t, s0, gamma)


@jax.jit
def _quartic(t: Array, s0: Array, gamma: Array) -> Array:
    t, s0, gamma = jnp.broadcast_arrays(t, s0, gamma)
    size = jnp.where(gamma == 0, 1.0, jnp.abs(gamma))
    level = _log_abs(s0, gamma)
    endless = jnp.isinf(t)
    elapsed = 16 * size * jnp.where(endless, 1.0, t)
    grows, shrinks = (gamma > 0) & (level < 0), (gamma > 0) & (level > 0)
    low = jnp.where(grows, level, -1.0)
    z = _quartic_grow(low - jnp.log(-jnp.expm1(low)), elapsed)
    above = jnp.where(shrinks, level, 1.0)
    p = _quartic_shrink(1 / jnp.expm1(above), elapsed)
    v = _quartic_decay(jnp.where(gamma < 0, level, 0.0), elapsed)
    log_l = jnp.where(grows, -jax.nn.softplus(-z), jnp.where(shrinks, jnp.log1p(1 / p), v))
    moving = grows | shrinks | (gamma < 0)
    moved = jnp.exp((log_l - jnp.log(size)) / 2)
    moved = moved + jnp.where(t == 0, jax.lax.stop_gradient(s0 - moved), 0.0)  # exactly s0 there, with its derivatives
    ends = jnp.where(gamma > 0, 1 / jnp.sqrt(size), 0.0)
    return jnp.where(moving, jnp.where(endless, ends, moved), s0)


def quartic_time_to_reach(s: ArrayLike, s0: ArrayLike, gamma: ArrayLike) -> Float[Array, "..."]:
    """Exact time from s0 to s under h = (1 - l)^4: the difference of log|l/(1-l)| + 1/(1-l) + 1/(2 (1-l)^2), over 16 gamma.

    Args, raises: as `barlow_twins.time_to_reach`. Negative behind the start; infinite where s lies on the other side of the fixed
    point, on it, or gamma = 0.

    Source: Simon 2023, G.3 (the solution is not in the paper).
    """
    return _quartic_time_to_reach(*prepare({"s": s, "s0": s0}, gamma=gamma))


@jax.jit
def _quartic_time_to_reach(s: Array, s0: Array, gamma: Array) -> Array:
    s, s0, gamma = jnp.broadcast_arrays(s, s0, gamma)
    size = jnp.where(gamma == 0, 1.0, jnp.abs(gamma))

    def level_of(value: Array) -> tuple[Array, Array]:
        x = _log_abs(value, gamma)
        low = jnp.where((gamma > 0) & (x < 0), x, -1.0)
        high = jnp.where((gamma > 0) & (x > 0), x, 1.0)
        grow, shrink = _grow_level(low - jnp.log(-jnp.expm1(low))), _cubic_tail(1 / jnp.expm1(high))
        side = jnp.where(gamma < 0, 2, jnp.sign(x).astype(int))
        return jnp.where(gamma < 0, -_decay_level(x), jnp.where(x < 0, grow, shrink)), side

    (end, end_side), (start, start_side) = level_of(s), level_of(s0)
    reachable = (end_side == start_side) & (end_side != 0) & (gamma != 0)
    return jnp.where(s == s0, 0.0, jnp.where(reachable, (end - start) / (16 * size), jnp.inf))


def _precondition_level(x: Array, ridge: Array, kappa: Array, branch: str) -> Array:
    """ridge log|l/(1-l)| - kappa log|1-l| in the branch's coordinate, kappa = nu/gamma; for decay of the modulus of both."""
    if branch == "grow":  # x = logit l
        return ridge * x + kappa * jax.nn.softplus(x)
    if branch == "shrink":  # x = log(l/(l-1))
        return ridge * x + kappa * (x + jnp.log(-jnp.expm1(-x)))
    return ridge * x + (kappa - ridge) * jax.nn.softplus(x)  # x = log |l|


def _precondition_slope(x: Array, ridge: Array, kappa: Array, branch: str) -> Array:
    if branch == "grow":
        return ridge + kappa * jax.nn.sigmoid(x)
    if branch == "shrink":
        return ridge - kappa / jnp.expm1(-x)
    return ridge + (kappa - ridge) * jax.nn.sigmoid(x)


def _precondition_solve(x0: Array, change: Array, ridge: Array, kappa: Array, branch: str) -> Array:
    """The coordinate after the level has changed by `change` (> 0 for grow and shrink, < 0 for decay)."""
    level, slope = partial(_precondition_level, branch=branch), partial(_precondition_slope, branch=branch)
    target = level(x0, ridge, kappa) + change
    if branch == "grow":  # convex: from the right, level >= ridge x and >= (ridge + kappa) x
        start = jnp.minimum(target / ridge, target / (ridge + kappa))
    elif branch == "shrink":  # concave: from the left, level <= (ridge + kappa) x
        start = jnp.maximum(x0, target / (ridge + kappa))
    else:  # convex for kappa > ridge, level >= ridge x; else concave, level <= ridge x
        start = jnp.where(kappa > ridge, jnp.minimum(x0, target / ridge), target / ridge)
    return _newton(lambda x: (target - level(x, ridge, kappa)) / slope(x, ridge, kappa), start)


def preconditioned_singular_value(
    t: ArrayLike, s0: ArrayLike, gamma: ArrayLike, variance: ArrayLike, ridge: ArrayLike
) -> Float[Array, "..."]:
    """s(t) of ds/dt = 4 gamma s (1 - gamma s^2) / (variance s^2 + ridge): from a small start faster by 1 / ridge.

    Args:
        t, s0, gamma: as in `barlow_twins.singular_value`.
        variance: nu >= 0, eigenvalue of (xx + yy)/2 along the feature; data has nu >= |gamma|, which is not asked here.
        ridge: alpha > 0.

    Raises:
        ValueError: as `barlow_twins.singular_value`; variance < 0, ridge <= 0.

    Accuracy: about 1e-13 in float64.

    Source: Simon 2023, (52), per pair (the print sums over the batch); the solution is not in the paper.
    """
    require_times(t)
    require_nonnegative("variance", variance)
    require_positive("ridge", ridge)
    s0, ridge, gamma, variance, t = prepare({"s0": s0, "ridge": ridge}, gamma=gamma, variance=variance, t=t)
    return _preconditioned(t, s0, gamma, variance, ridge)


@jax.jit
def _preconditioned(t: Array, s0: Array, gamma: Array, variance: Array, ridge: Array) -> Array:
    t, s0, gamma, variance, ridge = jnp.broadcast_arrays(t, s0, gamma, variance, ridge)
    size = jnp.where(gamma == 0, 1.0, jnp.abs(gamma))
    level, kappa = _log_abs(s0, gamma), variance / size
    endless = jnp.isinf(t)
    elapsed = 8 * size * jnp.where(endless, 1.0, t)
    grows, shrinks, decays = (gamma > 0) & (level < 0), (gamma > 0) & (level > 0), gamma < 0
    low, high = jnp.where(grows, level, -1.0), jnp.where(shrinks, level, 1.0)
    z = _precondition_solve(low - jnp.log(-jnp.expm1(low)), elapsed, ridge, kappa, "grow")
    x = _precondition_solve(-jnp.log(-jnp.expm1(-high)), elapsed, ridge, kappa, "shrink")
    v = _precondition_solve(jnp.where(decays, level, 0.0), -elapsed, ridge, kappa, "decay")
    log_l = jnp.where(grows, -jax.nn.softplus(-z), jnp.where(shrinks, -jnp.log(-jnp.expm1(-x)), v))
    moved = jnp.exp((log_l - jnp.log(size)) / 2)
    moved = moved + jnp.where(t == 0, jax.lax.stop_gradient(s0 - moved), 0.0)  # exactly s0 there, with its derivatives
    ends = jnp.where(gamma > 0, 1 / jnp.sqrt(size), 0.0)
    moving = grows | shrinks | decays
    return jnp.where(moving, jnp.where(endless, ends, moved), s0)
