"""In which variable a mode is integrated. The caller's state is always w; the solver sees y = encode(w).

Tolerances are always meant for w: each coordinate says which tolerance on y keeps w within rtol |w| + atol.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jepa_dyn import flows
from jepa_dyn._checks import is_traced, require, require_choice, require_positive
from jepa_dyn.flows.layer_modes import depth_power
from jepa_dyn.flows.log_modes import logit_from_w, w_from_logit
from jepa_dyn.parameters import ModeParameters

COORDINATES = ("w", "log", "logit", "layer")
_MODES: dict[Callable, str] = {flows.jepa: "jepa", flows.mae: "mae"}


@dataclass(frozen=True)
class Coordinate:
    """A change of variable: `flow` is the vector field for y (None: the caller's own); the rest take the caller's own `args`.

    Two coordinates made alike are equal and hash alike, so that they never cause a recompilation.
    """

    name: str
    flow: Callable[[Any, Any, Any], Any] | None
    prepare: Callable[[Any], Any]
    encode: Callable[[Any, Any], Any]
    decode: Callable[[Any, Any], Any]
    tolerances: Callable[[Array, Array, Any], tuple[Array, Array]]


def _same(value: Any) -> Any:
    return value


def _first(value: Any, args: Any) -> Any:
    return value


def _same_tolerances(rtol: Array, atol: Array, args: Any) -> tuple[Array, Array]:
    return rtol, atol


PLAIN = Coordinate("w", None, _same, _first, _first, _same_tolerances)


def _floor(rtol: Array) -> Array:
    """The smallest tolerance that rounding can meet."""
    return jnp.asarray(4 * jnp.finfo(rtol.dtype).eps, rtol.dtype)


def _log_encode(w: Array, args: ModeParameters) -> Array:
    return jnp.log(w)


def _log_decode(u: Array, args: ModeParameters) -> Array:
    return jnp.exp(u)


def _log_tolerances(rtol: Array, atol: Array, args: ModeParameters) -> tuple[Array, Array]:
    # du = dw / w: an absolute error in u is a relative one in w
    return _floor(rtol), rtol


def _logit_encode(order: Callable, w: Array, args: ModeParameters) -> Array:
    return logit_from_w(w, order(args), args)


def _logit_decode(order: Callable, z: Array, args: ModeParameters) -> Array:
    return w_from_logit(z, order(args), args)


def _logit_tolerances(order: Callable, rtol: Array, atol: Array, args: ModeParameters) -> tuple[Array, Array]:
    # dw / w = (1 - y) dz / r
    return _floor(rtol), rtol * order(args)


def _layer_prepare(num_bits: int, args: ModeParameters) -> Any:
    return flows.layer_parameters(args, num_bits)


def _layer_encode(w: Array, args: ModeParameters) -> Array:
    alive = w > 0
    root = jnp.where(alive, w, 1.0) ** (1 / args.depth)
    return jnp.where(alive, root, jnp.where(w == 0, 0.0, jnp.nan))


def _layer_decode(num_bits: int, v: Array, args: ModeParameters) -> Array:
    return depth_power(v, flows.layer_parameters(args, num_bits).bits)


def _layer_tolerances(rtol: Array, atol: Array, args: ModeParameters) -> tuple[Array, Array]:
    # dw / w = L dv / v; below w = atol the state may be anything small
    scaled = jnp.maximum(rtol / args.depth, _floor(rtol))
    return scaled, scaled * atol ** (1 / args.depth)


def _bound(function: Callable, *bound: Any) -> Callable:
    """A partial that compares by value (functools.partial compares by identity)."""
    return _Bound(function, bound)


@dataclass(frozen=True)
class _Bound:
    function: Callable
    bound: tuple

    def __call__(self, *args: Any) -> Any:
        return self.function(*self.bound, *args)


def mode_name(flow: Callable) -> str | None:
    """'jepa' or 'mae' for the two mode flows, else None."""
    try:
        return _MODES.get(flow)
    except TypeError:  # an unhashable user flow
        return None


def clock(system: Callable) -> str:
    """In what the times of a trajectory are counted: matrix flows, for one, run in gradient-flow time, not in the modes' clock."""
    return "mode clock" if mode_name(system) else "the system's own time"


def make_coordinate(flow: Callable, name: str, depth: Any = None) -> Coordinate:
    """The coordinate called `name` of a mode flow; `depth` bounds the bits that 'layer' needs."""
    if name == "w":
        return PLAIN
    objective = mode_name(flow)
    order = flows.jepa_order if objective == "jepa" else flows.mae_order
    if name == "log":
        field = flows.jepa_log if objective == "jepa" else flows.mae_log
        return Coordinate(name, field, _same, _log_encode, _log_decode, _log_tolerances)
    if name == "logit":
        field = flows.jepa_logit if objective == "jepa" else flows.mae_logit
        encode, decode = _bound(_logit_encode, order), _bound(_logit_decode, order)
        return Coordinate(name, field, _same, encode, decode, _bound(_logit_tolerances, order))
    num_bits = int(np.max(np.asarray(depth))).bit_length()
    field = flows.jepa_layer if objective == "jepa" else flows.mae_layer
    prepare, decode = _bound(_layer_prepare, num_bits), _bound(_layer_decode, num_bits)
    return Coordinate(name, field, prepare, _layer_encode, decode, _layer_tolerances)


def choose_coordinate(flow: Callable, name: str | None, w0: Any, args: Any) -> Coordinate:
    """The coordinate asked for, checked against start and parameters on the host.

    `None` is 'w'. 'auto' is for modes the fastest that holds: 'layer' for whole depths, else 'log' for w0 > 0, else 'w';
    for other flows 'w'.

    Raises:
        ValueError: the coordinate is unknown, not defined for this flow, or does not hold for a start or parameter.
    """
    if name is None:
        return PLAIN
    require_choice("coordinate", name, (*COORDINATES, "auto"))
    if name == "w" or (name == "auto" and mode_name(flow) is None):
        return PLAIN
    if mode_name(flow) is None or not isinstance(args, ModeParameters):
        raise ValueError(
            f"Argument `coordinate` must be None or 'w' for a flow other than `flows.jepa` and `flows.mae` (with "
            f"ModeParameters as `args`), but is {name!r}."
        )
    traced = is_traced(w0, args)
    if name == "auto":
        if traced:
            return PLAIN
        depth = np.asarray(args.depth)
        positive = bool((np.asarray(w0) > 0).all())
        if bool((depth == np.round(depth)).all()) and depth.max() < 64:
            name = "layer"
        else:
            name = "log" if positive else "w"
        return make_coordinate(flow, name, depth)
    if name in ("log", "logit"):
        require_positive("y0", w0, f"coordinate {name!r} holds the logarithm of w")
    if name == "logit":
        require_positive("args.lam", args.lam, "coordinate 'logit' needs a fixed point")
        require_positive("args.variance", args.variance, "coordinate 'logit' needs a fixed point")
        require("args.weight_decay", args.weight_decay, "be 0 in coordinate 'logit'", lambda a: a == 0)
        if not traced:
            order = flows.jepa_order(args) if mode_name(flow) == "jepa" else flows.mae_order(args)
            below = jax.device_get(logit_from_w(jnp.asarray(w0), order, args))
            require(
                "y0",
                np.where(np.isfinite(below), 0.0, np.nan),
                "lie below the fixed point in coordinate 'logit'",
                np.isfinite,
            )
    if name == "layer":
        if is_traced(args.depth):
            raise ValueError(
                "Argument `coordinate` 'layer' needs concrete depths, but `args.depth` is traced; use 'log'."
            )
        require(
            "args.depth",
            args.depth,
            "be a whole number below 64 in coordinate 'layer' (use 'log' otherwise)",
            lambda a: (a == np.round(a)) & (a >= 1) & (a < 64),
        )
    return make_coordinate(flow, name, args.depth)


__all__ = ["COORDINATES", "PLAIN", "Coordinate", "choose_coordinate", "clock", "make_coordinate", "mode_name"]
