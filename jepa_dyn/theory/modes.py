"""Closed forms of the JEPA and MAE modes: fixed points, exact times, exact states, critical times.

They mirror `flows.modes` without weight decay: dw/dt = lam w^(3-r) - variance w^3 with r = 1/L (JEPA) or 1 + 1/L (MAE), in the
mode clock t_mode = L t_flow. All functions broadcast, can be vmapped, and are differentiable in every float argument (depth too).

Source: Littwin 2024, eqs (7)-(9), (11), (12), (14), (72), (81), (82), (99)-(103), through the normal form; where the print is wrong
(psi(0) in (88), y > 1 in (12), the Lerch exponent in (15)) the corrected form is used.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import (
    is_traced,
    require,
    require_broadcastable,
    require_choice,
    require_finite,
    require_fraction,
    require_not_empty,
    require_positive,
)
from jepa_dyn.parameters import OBJECTIVES, ModeParameters, Objective
from jepa_dyn.theory.branches import DECAY, GROW, SHRINK, log_y_from_z
from jepa_dyn.theory.normal_form import advance, scaled_time


def amplitude_power(objective: Objective, depth: Float[Array, "..."]) -> Float[Array, "..."]:
    """r of y = (w / w_inf)^r: 1/L for JEPA, 1 + 1/L for MAE; the order of the saddle at 0 is n = 2/r - 1."""
    return 1 / depth + (1.0 if objective == "mae" else 0.0)


def mode_time(flow_time: ArrayLike, depth: ArrayLike) -> Array:
    """Mode clock from gradient-flow time: t_mode = L t_flow.

    Source: Littwin 2024, eqs (54), (60), (64) against (7), (8), (67), (69), which absorb the L.
    """
    return jnp.asarray(flow_time) * jnp.asarray(depth)


def flow_time(mode_time: ArrayLike, depth: ArrayLike) -> Array:
    """Gradient-flow time from the mode clock: t_flow = t_mode / L; the inverse of `mode_time`."""
    return jnp.asarray(mode_time) / jnp.asarray(depth)


def _log_scale(objective: Objective, args: ModeParameters) -> Array:
    """log of the amplitude at which both terms are equal: (|lam| / variance)^(1/r), the fixed point where lam > 0."""
    r = amplitude_power(objective, args.depth)
    nonzero = jnp.where(args.lam == 0, 1.0, args.lam)
    return (jnp.log(jnp.abs(nonzero)) - jnp.log(args.variance)) / r


def _fixed_point(objective: Objective, args: ModeParameters) -> Array:
    return jnp.where(args.lam > 0, jnp.exp(_log_scale(objective, args)), 0.0)


def _log_ratio(w: Array, w0: Array) -> Array:
    """log(w / w0), precise for w near w0."""
    ratio = w / w0
    near = jnp.abs(ratio - 1) < 0.5
    return jnp.where(near, jnp.log1p((w - w0) / w0), jnp.log(w) - jnp.log(w0))


def _start(objective: Objective, w0: Array, args: ModeParameters) -> tuple[Array, Array, Array, Array, Array]:
    """(r, n, x0, branch, rate): exponents, log y at the start, branch, and r |lam| w0^(2-r) = d(sigma)/dt."""
    r = amplitude_power(objective, args.depth)
    n = 2 / r - 1
    log_w0, log_scale = jnp.log(w0), _log_scale(objective, args)
    x0 = r * (log_w0 - log_scale)
    branch = jnp.where(args.lam < 0, DECAY, jnp.where(x0 > 0, SHRINK, GROW))
    rate = r * jnp.abs(args.lam) * jnp.exp((2 - r) * log_w0)
    return r, n, x0, branch, rate


def _where_tangent_safe(special: Array, value: Array, *leaves: Array) -> tuple[Array, ...]:
    """The leaves with a harmless value where `special`, so that no derivative of an unused branch is evaluated there."""
    return tuple(jnp.where(special, value, leaf) for leaf in leaves)


def _broadcast(args: ModeParameters, *values: ArrayLike) -> tuple[ModeParameters, list[Array]]:
    """Everything in one shape and one dtype."""
    arrays = [jnp.asarray(v) for v in values]
    dtype = jnp.result_type(*(a.dtype for a in (*arrays, args.lam) if jnp.issubdtype(a.dtype, jnp.floating)))
    leaves = jnp.broadcast_arrays(args.lam, args.variance, args.depth, args.weight_decay, *arrays)
    leaves = [leaf.astype(dtype) for leaf in leaves]
    return ModeParameters(*leaves[:4]), leaves[4:]


@partial(jax.jit, static_argnames="objective")
def _time_to_reach(objective: Objective, w: ArrayLike, w0: ArrayLike, args: ModeParameters) -> Array:
    args, (w, w0) = _broadcast(args, w, w0)
    only_decay = args.lam == 0
    at_fixed_point = (_start(objective, w0, args)[2] == 0) & (args.lam > 0)
    (lam,) = _where_tangent_safe(only_decay, jnp.ones_like(w), args.lam)
    safe = ModeParameters(lam, args.variance, args.depth, args.weight_decay)
    r, n, x0, branch, rate = _start(objective, jnp.where(at_fixed_point, 0.5 * w0, w0), safe)
    x = r * (jnp.log(w) - _log_scale(objective, safe))
    # the fixed point itself and all behind it are never reached
    reachable = (
        jnp.where(branch == GROW, x < 0, jnp.where(branch == SHRINK, (x > 0) & (w <= w0), w <= w0)) & ~at_fixed_point
    )
    inside = jnp.where(reachable, x, x0)
    dx = jnp.where(reachable, r * _log_ratio(w, w0), 0.0)
    elapsed = scaled_time(x0, inside, dx, n, branch) / rate
    elapsed = jnp.where(reachable, elapsed, jnp.inf)
    # lam = 0: dw/dt = -variance w^3
    pure = (w0 / w - 1) * (w0 / w + 1) / (2 * args.variance * w0**2)
    elapsed = jnp.where(only_decay, jnp.where(w <= w0, pure, jnp.inf), elapsed)
    return jnp.where(w == w0, 0.0, elapsed)


@partial(jax.jit, static_argnames="objective")
def _state(objective: Objective, t: ArrayLike, w0: ArrayLike, args: ModeParameters) -> Array:
    args, (t, w0) = _broadcast(args, t, w0)
    only_decay = args.lam == 0
    (lam,) = _where_tangent_safe(only_decay, jnp.ones_like(t), args.lam)
    safe = ModeParameters(lam, args.variance, args.depth, args.weight_decay)
    at_fixed_point = (_start(objective, w0, safe)[2] == 0) & (lam > 0)
    r, n, x0, branch, rate = _start(objective, jnp.where(at_fixed_point, 0.5 * w0, w0), safe)
    z = advance(x0, rate * t, n, branch)
    gone = (jnp.isposinf(z) & (branch == DECAY)) | jnp.isneginf(z)
    x = log_y_from_z(jnp.where(gone, 1.0, z), branch)
    # from the nearer of the two exact points: the start or the fixed point
    nearer_start = (jnp.abs(x - x0) <= jnp.abs(x)) | (branch == DECAY)
    log_w = jnp.where(nearer_start, jnp.log(w0) + (x - x0) / r, _log_scale(objective, safe) + x / r)
    moved = jnp.exp(log_w)
    # exactly w0 at t = 0, with the derivatives of the flow
    moved = moved + jnp.where(t == 0, jax.lax.stop_gradient(w0 - moved), 0.0)
    w = jnp.where(gone, 0.0, jnp.where(at_fixed_point, w0, moved))
    square = 1 + 2 * args.variance * w0**2 * t
    pure = jnp.where(square > 0, w0 / jnp.sqrt(jnp.where(square > 0, square, 1.0)), jnp.nan)
    return jnp.where(only_decay, pure, w)


def check_mode(objective: Objective, args: ModeParameters, **positive: ArrayLike) -> None:
    """Raises what all closed forms share: a known objective, variance > 0, depth > 0, no weight decay, amplitudes > 0."""
    require_choice("objective", objective, OBJECTIVES)
    require_finite("lam", args.lam)
    require_positive("variance", args.variance, "a closed form needs rho = lam / variance to be finite")
    require_positive("depth", args.depth)
    require(
        "weight_decay",
        args.weight_decay,
        "be 0 (no closed form has weight decay: integrate the flow)",
        lambda a: a == 0,
    )
    for name, value in positive.items():
        require_not_empty(name, value)
        require_positive(name, value, "an amplitude of 0 is a fixed point that no mode leaves or reaches")
    require_broadcastable(parameters=args.broadcast().lam, **positive)


def fixed_point(objective: Objective, args: ModeParameters) -> Float[Array, "..."]:
    """Amplitude that a mode ends at: rho^L (JEPA), rho^(L/(L+1)) (MAE), 0 where lam <= 0.

    Args:
        objective: "jepa" or "mae".
        args: parameters of the modes.

    Raises:
        ValueError: variance <= 0, depth <= 0, weight decay other than 0, unknown objective.

    Source: Littwin 2024, eq. (9), which holds for lam > 0 (the limit is 0 otherwise).
    """
    check_mode(objective, args)
    return _fixed_point(objective, args)


def time_to_reach(objective: Objective, w: ArrayLike, w0: ArrayLike, args: ModeParameters) -> Float[Array, "..."]:
    """Exact time (mode clock) at which a mode that starts at `w0` passes the amplitude `w`.

    Negative where w lies behind the start of a growing mode; infinite where w is never reached (the fixed point itself, and
    all beyond it, or w > w0 where the mode shrinks).

    Args:
        objective: "jepa" or "mae".
        w: amplitude to reach, > 0.
        w0: amplitude at t = 0, > 0.
        args: parameters of the modes; everything broadcasts.

    Raises:
        ValueError: an amplitude <= 0 or not finite, parameters outside their domain, shapes that do not broadcast.

    Accuracy: 1e-12 relative in float64 for L in [0.5, 30], rho in [0.01, 3], amplitudes down to 1e-12. In float32 the error is
    that of rounding the inputs: about 1e-6 (1 + |log w0| / L) n.

    Source: Littwin 2024, eqs (72), (82) and (99), (100), as one normal form; starts above the fixed point corrected.
    """
    check_mode(objective, args, w=w, w0=w0)
    return _time_to_reach(objective, w, w0, args)


def state(objective: Objective, t: ArrayLike, w0: ArrayLike, args: ModeParameters) -> Float[Array, "..."]:
    """Exact amplitude of a mode at time t (mode clock) after a start at `w0`: the inverse of `time_to_reach`.

    Near its critical time w(t) is ill-conditioned: dlog(w)/dlog(t) reaches 5e10 for JEPA L = 2 from 1e-8. Where the shape of the
    transition is wanted, use `state_around_critical_time`, which takes times relative to it.

    Args:
        objective: "jepa" or "mae".
        t: time, mode clock. t = inf gives the limit. t < 0 goes back in time where the mode grows.
        w0: amplitude at t = 0, > 0.
        args: parameters of the modes; everything broadcasts.

    Raises:
        ValueError: t is NaN, or t < 0 for a mode that shrinks; amplitudes or parameters outside their domain. Under a
            transformation (jit, vmap, grad) values cannot be looked at: there such a lane is NaN.

    Accuracy: relative 1e-13 times the condition number, in float64.

    Source: Littwin 2024, eqs (12), (14), inverted; psi(0) and the branch y > 1 corrected.
    """
    check_mode(objective, args, w0=w0)
    require("t", t, "not be NaN", lambda a: a == a)
    require_broadcastable(t=t, w0=w0, parameters=args.broadcast().lam)
    if not is_traced(t, w0, args):
        shrinks = jnp.asarray(w0) > _fixed_point(objective, args)
        require(
            "t",
            jnp.where(shrinks, t, 0.0),
            "be >= 0 where the mode shrinks (lam <= 0, or w0 above the fixed point)",
            lambda a: a >= 0,
        )
    return _state(objective, t, w0, args)


def critical_time(
    objective: Objective, eps: ArrayLike, args: ModeParameters, fraction: ArrayLike = 0.5
) -> Float[Array, "..."]:
    """Exact critical time t*: when a mode that starts at `eps` reaches `fraction` of its fixed point (mode clock).

    Args:
        objective: "jepa" or "mae".
        eps: amplitude at initialisation, > 0.
        args: parameters of the modes.
        fraction: p in (0, 1).

    Raises:
        ValueError: parameters or eps outside their domain, fraction not in (0, 1), or an eps at or above `fraction` of a fixed
            point > 0, where there is no such time.

    Returns infinity where lam <= 0 (never learned). Under a transformation, where nothing can be raised, a lane that starts
    at or above the fraction gets 0 (already there).

    Source: Littwin 2024, eq. (11), exact by (82) and (99) instead of the expansions (13), (16).
    """
    check_mode(objective, args, eps=eps)
    require_fraction("fraction", fraction)
    require_broadcastable(eps=eps, fraction=fraction, parameters=args.broadcast().lam)
    if not is_traced(eps, args, fraction):
        limit = jnp.where(args.lam > 0, fraction * _fixed_point(objective, args), jnp.inf)
        require("eps", jnp.broadcast_to(eps, jnp.broadcast_shapes(jnp.shape(eps), limit.shape)),
                "be below `fraction` of the fixed point (a mode that starts above it has no critical time)",
                lambda a: a < limit)  # fmt: skip
    return _critical_time(objective, eps, args, fraction)


@partial(jax.jit, static_argnames="objective")
def _critical_time(objective: Objective, eps: ArrayLike, args: ModeParameters, fraction: ArrayLike) -> Array:
    args, (eps, fraction) = _broadcast(args, eps, fraction)
    grows = args.lam > 0
    target = jnp.where(grows, fraction * _fixed_point(objective, args), 1.0)
    late = grows & (eps >= target)
    start = jnp.where(late, 0.5 * target, eps)
    return jnp.where(grows, jnp.where(late, 0.0, _time_to_reach(objective, target, start, args)), jnp.inf)


def state_around_critical_time(
    objective: Objective, tau: ArrayLike, args: ModeParameters, fraction: ArrayLike = 0.5
) -> Float[Array, "..."]:
    """Exact amplitude at the time t* + tau, from tau itself: well-conditioned where w(t) is not.

    Since the equation is autonomous, no eps is needed: w = `fraction` of the fixed point at tau = 0.

    Args:
        objective: "jepa" or "mae".
        tau: time after (before, where negative) the critical time, mode clock.
        args: parameters of the modes; lam > 0.
        fraction: p in (0, 1) that defines the critical time.

    Raises:
        ValueError: lam <= 0 (no critical time), or what `state` raises.
    """
    check_mode(objective, args)
    require_positive("lam", args.lam, "a feature with lam <= 0 has no critical time")
    require_fraction("fraction", fraction)
    require("tau", tau, "not be NaN", lambda a: a == a)
    return _state(objective, tau, jnp.asarray(fraction) * _fixed_point(objective, args), args)
