"""Aligned Barlow Twins: exact singular values s(t), times, limits and losses, one mode each (Simon 2023, section 4.2).

Mirrors `flows.barlow_twins` from W(0) = U diag(s) Gamma^(rows): the singular vectors stay, each s obeys

    ds/dt = 4 gamma s (1 - gamma s^2),      lam = gamma s^2:  dlam/dt = 8 gamma lam (1 - lam)

the normal form of order n = 0 in y = |gamma| s^2 with k = 8 |gamma|, which has a closed form in both directions. It is also the MAE
mode of depth 1 with lam = 4 gamma, variance = 4 gamma^2. Times are gradient-flow times, with the 4 of (6).

All functions broadcast, can be vmapped and differentiated. `barlow_twins_alignment` says which s(0) a small start amounts to.

Source: Simon 2023, eqs (10)-(14), (16), (20). As printed (10) overflows for 8 gamma t > 709 (float64) or 88 (float32), and s(0)^-2
overflows float32 for s(0) < 5e-20; here neither is formed. Footnote 23 has the wrong sign: the time from s(0) to a small s
is + log(s / s(0)) / (4 gamma). Appendix F calls 1 / (4 gamma) the time scale of the approach to the minimum: it is 1 / (8 gamma).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import (
    is_traced,
    require,
    require_broadcastable,
    require_finite,
    require_fraction,
    require_not_empty,
    require_positive,
    require_representable,
)
from jepa_dyn.theory.branches import DECAY, GROW, SHRINK, z_from_log_y
from jepa_dyn.theory.normal_form import logistic_time


def prepare(positive: dict[str, Any], **others: Any) -> list[Array]:
    """Arguments in the order given, checked, of one floating dtype: `positive` ones > 0, all representable, shapes that broadcast.

    Raises:
        ValueError: naming the argument.
    """
    named = positive | others
    for name, value in named.items():
        require_not_empty(name, value)
        if name in positive:
            require_positive(name, value, "a mode at 0 stays there")
    require_broadcastable(**named)
    dtypes = [jnp.asarray(v).dtype for v in named.values() if not isinstance(v, int | float)]
    dtype = jnp.result_type(float, *dtypes)
    for name, value in named.items():
        if name != "t":
            require_finite(name, value)
            require_representable(name, value, dtype)
    return [jnp.asarray(value, dtype) for value in named.values()]


def require_times(t: ArrayLike) -> None:
    """t >= 0, infinity allowed."""
    require("t", t, "be >= 0 (infinity is allowed)", lambda a: a >= 0)


def _elapsed(t: Array, gamma: Array) -> Array:
    """|gamma| t, 0 where gamma = 0 even at t = inf."""
    return jnp.where(gamma == 0, 0.0, jnp.abs(gamma) * jnp.where(gamma == 0, 0.0, t))


def _state_and_share(t: Array, s0: Array, gamma: Array) -> tuple[Array, Array]:
    """s(t) and r = e^(-4 gamma t) s / s0, in [0, 1]: both without overflow, r^2 = ds/ds0 * s0 / s."""
    grows, elapsed = gamma > 0, _elapsed(t, gamma)
    # in two halves: e^(-4 gamma t) / s0 matters long after e^(-4 gamma t) alone has underflowed
    half = jnp.exp(-2 * elapsed)
    fill = jnp.sqrt(jnp.abs(gamma)) * jnp.sqrt(-jnp.expm1(-8 * elapsed))
    start = jnp.where(grows, (half / s0) * half, 1 / s0)
    length = jnp.hypot(start, fill)
    s = jnp.where(grows, 1.0, half * half) / length
    return jnp.where(elapsed == 0, s0, s), start / length


@jax.jit
def mode_state(t: Array, s0: Array, gamma: Array) -> Array:
    """s(t), no checks; arguments of one dtype."""
    return _mode_state(t, s0, gamma)


@jax.custom_jvp
def _mode_state(t: Array, s0: Array, gamma: Array) -> Array:
    return _state_and_share(t, s0, gamma)[0]


@_mode_state.defjvp
def _mode_state_jvp(primals, tangents):
    t, s0, gamma = primals
    t_dot, s0_dot, gamma_dot = tangents
    s, share = _state_and_share(t, s0, gamma)
    square = share * share
    gone = (square == 0) | (s == 0)
    # at t = inf the factor e^(-8 gamma t) has won
    age = jnp.where(gone, 0.0, jnp.where(gone, 0.0, t) * square)
    by_t = 4 * gamma * s * (square * (1 - gamma * s0**2))
    by_start = square * (s / s0)
    by_gamma = s / 2 * (8 * age * (1 - gamma * s0**2) - (s**2 - square * s0**2))
    return s, by_t * t_dot + by_start * s0_dot + by_gamma * gamma_dot


def singular_value(t: ArrayLike, s0: ArrayLike, gamma: ArrayLike) -> Float[Array, "..."]:
    """s(t) of a mode that starts at s0: s0 / (e^(-8 gamma t) + gamma s0^2 (1 - e^(-8 gamma t)))^(1/2).

    Args:
        t: gradient-flow time, >= 0; t = inf gives the limit (13): gamma^(-1/2), s0 or 0 for gamma > 0, = 0, < 0.
        s0: singular value at t = 0, > 0.
        gamma: eigenvalue of Gamma, any sign. Everything broadcasts.

    Raises:
        ValueError: t < 0 or NaN, s0 <= 0, a value not finite, or one that the number type would round to 0 or infinity.

    Accuracy: a few units of the last place, times 1 + 8 |gamma| t (the rounding of 8 gamma t itself); never 0 for gamma >= 0.

    Source: Simon 2023, (10), (13), rearranged.
    """
    require_times(t)
    s0, gamma, t = prepare({"s0": s0}, gamma=gamma, t=t)
    return mode_state(t, s0, gamma)


def residual(t: ArrayLike, s0: ArrayLike, gamma: ArrayLike) -> Float[Array, "..."]:
    """1 - gamma s(t)^2, without the cancellation near the fixed point: e^(-8 gamma t) (s / s0)^2 (1 - gamma s0^2).

    Args, raises: as `singular_value`. Source: Simon 2023, (10), (14).
    """
    require_times(t)
    s0, gamma, t = prepare({"s0": s0}, gamma=gamma, t=t)
    return mode_residual(t, s0, gamma)


@jax.jit
def mode_residual(t: Array, s0: Array, gamma: Array) -> Array:
    """`residual`, no checks; arguments of one dtype."""
    s = mode_state(t, s0, gamma)
    growing = jnp.where(gamma > 0, gamma, 0.0)
    ratio = jnp.exp(-2 * _elapsed(t, growing)) / s0 * s * jnp.exp(-2 * _elapsed(t, growing))
    return jnp.where(gamma > 0, ratio**2 * (1 - gamma * s0**2), 1 - gamma * s**2)


def limit(s0: ArrayLike, gamma: ArrayLike) -> Float[Array, "..."]:
    """s(inf): gamma^(-1/2) for gamma > 0, s0 for gamma = 0, 0 for gamma < 0.

    Args, raises: as `singular_value`. Source: Simon 2023, (13).
    """
    return _limit(*prepare({"s0": s0}, gamma=gamma))


@jax.jit
def _limit(s0: Array, gamma: Array) -> Array:
    positive = gamma > 0
    learned = 1 / jnp.sqrt(jnp.where(positive, gamma, 1.0))
    return jnp.where(positive, learned, jnp.where(gamma == 0, s0, 0.0))


def time_to_reach(s: ArrayLike, s0: ArrayLike, gamma: ArrayLike) -> Float[Array, "..."]:
    """Exact time at which a mode that starts at s0 passes s: [logit(gamma s^2) - logit(gamma s0^2)] / (8 gamma) where it grows.

    Negative where s lies behind the start of a growing mode; infinite where s is never reached: the fixed point and all beyond it,
    s > s0 where the mode shrinks, s != s0 where gamma = 0.

    Args:
        s: singular value to reach, > 0.
        s0, gamma: as in `singular_value`. Everything broadcasts.

    Raises:
        ValueError: s or s0 <= 0, a value not finite or not representable.

    Source: Simon 2023, (10), inverted through the normal form with n = 0; covers gamma s0^2 > 1 and gamma < 0.
    """
    return _time_to_reach(*prepare({"s": s, "s0": s0}, gamma=gamma))


@jax.jit
def _time_to_reach(s: Array, s0: Array, gamma: Array) -> Array:
    s, s0, gamma = jnp.broadcast_arrays(s, s0, gamma)
    size = jnp.where(gamma == 0, 1.0, jnp.abs(gamma))
    x0, x = jnp.log(size) + 2 * jnp.log(s0), jnp.log(size) + 2 * jnp.log(s)
    branch = jnp.where(gamma < 0, DECAY, jnp.where(x0 > 0, SHRINK, GROW))
    ahead = jnp.where(branch == GROW, x < 0, jnp.where(branch == SHRINK, (x > 0) & (s <= s0), s <= s0))
    reachable = ahead & (gamma != 0) & ((branch != GROW) | (x0 < 0))
    ratio = s / s0
    near = jnp.abs(ratio - 1) < 0.5
    log_ratio = jnp.where(near, jnp.log1p((s - s0) / s0), jnp.log(s) - jnp.log(s0))
    x0 = jnp.where(reachable, x0, jnp.where(branch == GROW, -1.0, 1.0))
    dx = jnp.where(reachable, 2 * log_ratio, 0.0)
    time = logistic_time(x0, jnp.where(reachable, x, x0), dx, branch) / (8 * size)
    return jnp.where(s == s0, 0.0, jnp.where(reachable, time, jnp.inf))


def critical_time(s0: ArrayLike, gamma: ArrayLike, fraction: ArrayLike = 0.5) -> Float[Array, "..."]:
    """Exact time at which the eigenvalue gamma s^2 of C reaches `fraction` of its end value 1; infinite for gamma <= 0.

    With the default 1/2 it is log(1 / (gamma s0^2) - 1) / (8 gamma).

    Args:
        s0: singular value at t = 0, > 0.
        gamma: eigenvalue of Gamma.
        fraction: p in (0, 1), of the eigenvalue (not of s).

    Raises:
        ValueError: as `singular_value`; a fraction not in (0, 1); a start with gamma s0^2 >= p, which has no such time. Under a
            transformation, where nothing can be raised, such a lane gets 0.

    Source: Simon 2023, (16) without its approximation.
    """
    require_fraction("fraction", fraction)
    s0, gamma, fraction = prepare({"s0": s0}, gamma=gamma, fraction=fraction)
    time, late = _critical_time(s0, gamma, fraction)
    if not is_traced(late):
        require(
            "s0",
            np.broadcast_to(s0, late.shape),
            "have gamma s0^2 below `fraction` (a mode that starts above has no critical time)",
            lambda a: ~np.asarray(late),
        )
    return time


@jax.jit
def _critical_time(s0: Array, gamma: Array, fraction: Array) -> tuple[Array, Array]:
    """The time, and whether the mode starts too late to have one."""
    learned = gamma > 0
    size = jnp.where(learned, gamma, 1.0)
    x0 = jnp.log(size) + 2 * jnp.log(s0)
    late = learned & (x0 >= jnp.log(fraction))
    start = jnp.where(late | ~learned, -1.0, x0)
    ahead = z_from_log_y(jnp.log(fraction), GROW) - z_from_log_y(start, GROW)
    return jnp.where(learned, jnp.where(late, 0.0, ahead / (8 * size)), jnp.inf), late


def small_start_critical_time(s0: ArrayLike, gamma: ArrayLike) -> Float[Array, "..."]:
    """tau = -log(gamma s0^2) / (8 gamma), the paper's critical time; infinite for gamma <= 0.

    It is `critical_time(s0, gamma)` up to the relative error gamma s0^2 / |log(gamma s0^2)|; negative where gamma s0^2 > 1.

    Args, raises: as `singular_value`. Source: Simon 2023, (16); the same as tau of appendix F with sbar = gamma^(1/2) s.
    """
    return _small_start_critical_time(*prepare({"s0": s0}, gamma=gamma))


@jax.jit
def _small_start_critical_time(s0: Array, gamma: Array) -> Array:
    learned = gamma > 0
    size = jnp.where(learned, gamma, 1.0)
    return jnp.where(learned, -(jnp.log(size) + 2 * jnp.log(s0)) / (8 * size), jnp.inf)


def aligned_loss(t: ArrayLike, s0: ArrayLike, gammas: ArrayLike, dimension: int | None = None) -> Float[Array, "..."]:
    """Loss of the aligned solution at the times t: sum_j (1 - gamma_j s_j^2)^2 over k modes, + d - k for dimensions without one.

    Args:
        t: a time, or any array of times; its shape is that of the answer.
        s0, gammas: (k,) singular values at t = 0 and their eigenvalues.
        dimension: d >= k, size of the embedding; default k.

    Raises:
        ValueError: as `singular_value`; not lists of one length; dimension < k.

    Source: Simon 2023, (14).
    """
    count, dimension = _counted(s0, gammas, dimension)
    require_times(t)
    s0, gammas = prepare({"s0": s0}, gammas=gammas)
    return _aligned_loss(jnp.asarray(t, s0.dtype), s0, gammas, dimension - count)


@jax.jit
def _aligned_loss(t: Array, s0: Array, gammas: Array, missing: ArrayLike) -> Array:
    return jnp.sum(mode_residual(t[..., None], s0, gammas) ** 2, axis=-1) + missing


def staircase_loss(t: ArrayLike, s0: ArrayLike, gammas: ArrayLike, dimension: int | None = None) -> Float[Array, "..."]:
    """The loss as a staircase: how many modes have their critical time tau_j still ahead, + d - k.

    Args, raises: as `aligned_loss`. Source: Simon 2023, (20) with (16).
    """
    require_times(t)
    count, dimension = _counted(s0, gammas, dimension)
    times = small_start_critical_time(s0, gammas)
    waiting = times > jnp.asarray(t, times.dtype)[..., None]
    # gamma <= 0 is never learned, not even at t = inf
    waiting = waiting | jnp.isposinf(times)
    return jnp.sum(waiting, axis=-1).astype(times.dtype) + (dimension - count)


def _counted(s0: ArrayLike, gammas: ArrayLike, dimension: int | None) -> tuple[int, int]:
    """(k, d)."""
    shapes = np.shape(s0), np.shape(gammas)
    if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
        raise ValueError(
            f"Arguments `s0` and `gammas` must be lists of one length, but have shapes {shapes[0]}, {shapes[1]}."
        )
    count = shapes[0][0]
    if dimension is None:
        return count, count
    require("dimension", dimension, f"be a whole number >= {count}, the number of modes", lambda a: a >= count)
    return count, int(dimension)
