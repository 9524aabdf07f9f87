"""One trajectory by diffrax: explicit or stiff, in a variable that suits, with recorded events, dense output and a status."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require, require_choice, require_finite, require_increasing, require_not_empty
from jepa_dyn.parameters import ModeParameters
from jepa_dyn.solve._controller import GuardedController
from jepa_dyn.solve._tolerances import resolve_tolerances, state_dtype
from jepa_dyn.solve.coordinates import Coordinate, choose_coordinate, clock, mode_name
from jepa_dyn.solve.events import EventFunction, explicit_advance, find_crossings
from jepa_dyn.solve.result import Crossings, Trajectories
from jepa_dyn.solve.settle import arrival, resolve_settle
from jepa_dyn.status import Status

Flow = Callable[[Any, Any, Any], Any]

SOLVERS: dict[str, type[diffrax.AbstractSolver]] = {
    "tsit5": diffrax.Tsit5,
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "kvaerno3": diffrax.Kvaerno3,
    "kvaerno4": diffrax.Kvaerno4,
    "kvaerno5": diffrax.Kvaerno5,
}


class DenseState(eqx.Module):
    """The solution between its steps, in the caller's variable; NaN outside the time that was solved."""

    interpolation: diffrax.DenseInterpolation
    reached: Array
    horizon: Array
    args: Any
    coordinate: Coordinate = eqx.field(static=True)

    def evaluate(self, t: Any) -> Any:
        """State at `t`: a number, or an array of times along new leading axes."""
        t = jnp.asarray(t, self.reached.dtype)

        def one(time: Array) -> Any:
            inside = (time >= self.interpolation.t0) & (time <= self.horizon)
            y = self.interpolation.evaluate(jnp.clip(time, self.interpolation.t0, self.reached))
            return jax.tree.map(lambda leaf: jnp.where(inside, leaf, jnp.nan), self.coordinate.decode(y, self.args))

        flat = jax.vmap(one)(t.reshape(-1))
        return jax.tree.map(lambda leaf: leaf.reshape(t.shape + leaf.shape[1:]), flat)


def resolve_solver(solver: str | diffrax.AbstractSolver) -> diffrax.AbstractSolver:
    """A diffrax solver by name or as it is."""
    if isinstance(solver, diffrax.AbstractSolver):
        return solver
    if not isinstance(solver, str):
        raise TypeError(f"Argument `solver` must be a name or a diffrax solver, but has type {type(solver).__name__}.")
    require_choice("solver", solver, tuple(SOLVERS))
    return SOLVERS[solver]()


def is_finite(tree: Any) -> Array:
    """Whether every number of a state is finite."""
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def solve_lane(
    flow: Flow,
    coordinate: Coordinate,
    y0: Any,
    args: Any,
    ts: Float[Array, " times"],
    t0: Float[Array, ""],
    rtol: Float[Array, ""],
    atol: Float[Array, ""],
    *,
    solver: diffrax.AbstractSolver,
    max_steps: int,
    settle: bool,
    settle_speed: Float[Array, ""] | None = None,
    events: tuple[EventFunction, ...] = (),
    event_names: tuple[str, ...] = (),
    capacity: int = 1,
    dense: bool = False,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Trajectories:
    """The readable core of `integrate`: one lane, no checks, `vmap`-able over every array."""
    field = flow if coordinate.flow is None else coordinate.flow
    ready = coordinate.prepare(args)
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, rtol.dtype), coordinate.encode(y0, args))
    own_rtol, own_atol = coordinate.tolerances(rtol, atol, args)
    keep_steps = dense or bool(events)
    stop = None
    if settle:
        arrived = arrival(field, settle_speed)
        stop = diffrax.Event(lambda t, y, args, **kw: arrived(t, y, field(t, y, args), args, own_rtol, own_atol))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        t0,
        ts[-1],
        None,
        start,
        ready,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=ts), diffrax.SubSaveAt(t1=True)], dense=keep_steps),
        stepsize_controller=GuardedController(own_rtol, own_atol),
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        event=stop,
        max_steps=max_steps,
        throw=False,
    )
    assert solution.ts is not None and solution.ys is not None
    saved, (ys, ends) = solution.ts[0], solution.ys
    reached, end = solution.ts[1][0], jax.tree.map(lambda leaf: leaf[0], ends)
    settled = solution.result == diffrax.RESULTS.event_occurred
    finished = (solution.result == diffrax.RESULTS.successful) | settled
    missing = ~jnp.isfinite(saved)
    fill = jax.tree.map(lambda leaf: jnp.where(settled, leaf, jnp.nan), end)

    def complete(leaf: Array, value: Array) -> Array:
        return jnp.where(missing.reshape((-1, *(1,) * (leaf.ndim - 1))), value, leaf)

    ys = jax.vmap(coordinate.decode, (0, None))(jax.tree.map(complete, ys, fill), args)
    # a solve that was stuck where the flow is not finite failed for that reason
    sound = is_finite(end) & is_finite(field(reached, end, ready))
    stuck = solution.result == diffrax.RESULTS.dt_min_reached
    failure = jnp.where(
        ~sound,
        Status.non_finite,
        jnp.where(stuck, Status.step_underflow, jnp.where(finished, Status.ok, Status.max_steps)),
    )
    # finite in the solver's variable, out of range in the caller's
    overflow = finished & ~is_finite(ys)
    status = jnp.where(overflow, Status.non_finite, failure)
    if mode_name(flow) is not None:
        status = jnp.where(y0 < 0, Status.invalid_parameter, status)
    crossings = state = None
    if keep_steps:
        interpolation = solution.interpolation
        assert isinstance(interpolation, diffrax.DenseInterpolation)
        horizon = jnp.where(settled, ts[-1], reached)
        state = DenseState(interpolation, reached, horizon, args, coordinate)
        if events:
            advance = explicit_advance(
                solver, field, ready, interpolation.evaluate, lambda y: coordinate.decode(y, args)
            )
            found = [
                find_crossings(event, state.evaluate, advance, interpolation.ts, args, capacity) for event in events
            ]
            columns = [jnp.stack(column) for column in zip(*found, strict=True)]
            crossings = Crossings(columns[0], columns[1], columns[2], event_names)
    return Trajectories(
        ts=ts,
        ys=ys,
        status=status.astype(jnp.uint8),
        steps=jnp.asarray(solution.stats["num_steps"], jnp.int32),
        rejected=jnp.asarray(solution.stats["num_rejected_steps"], jnp.int32),
        settled_time=jnp.where(settled, reached, jnp.inf),
        y0=y0,
        args=args,
        method=f"diffrax {type(solver).__name__} in {coordinate.name}"
        if coordinate.flow
        else f"diffrax {type(solver).__name__}",
        crossings=crossings,
        interpolation=state if dense else None,
        time_unit=clock(flow),
    )


_solve_jitted = eqx.filter_jit(solve_lane)


def check_start(flow: Flow, y0: Any, args: Any) -> None:
    """Host checks that hold for one system and for a batch."""
    if not callable(flow):
        raise TypeError(f"Argument `flow` must be a function f(t, y, args), but has type {type(flow).__name__}.")
    if not jax.tree.leaves(y0):
        raise ValueError("Argument `y0` must hold at least one array, but is an empty tree.")
    for path, leaf in jax.tree_util.tree_flatten_with_path(y0)[0]:
        name = "y0" + jax.tree_util.keystr(path)
        require_not_empty(name, leaf)
        require_finite(name, leaf)
    if mode_name(flow) is not None:
        if not isinstance(args, ModeParameters):
            raise TypeError(
                f"Argument `args` must be ModeParameters for this flow, but has type {type(args).__name__}."
            )
        require("y0", y0, "be >= 0 (the amplitude of a mode is not negative)", lambda a: a >= 0)


def numbers_to_arrays(tree: Any) -> Any:
    """Python and numpy numbers as arrays, so that a new value does not recompile; everything else as it is."""
    numeric = int | float | complex | np.ndarray | np.generic
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, numeric) else leaf, tree)


def check_times(ts: Any, t0: Any) -> None:
    """Saved times: finite, increasing, none before t0."""
    require_finite("t0", t0)
    require_increasing("ts", ts)
    if not is_traced(ts, t0):
        require("ts", ts, f"not begin before t0 = {np.asarray(t0)!s}", lambda a: a >= np.asarray(t0))


def _named_events(events: Any) -> tuple[tuple[str, ...], tuple[EventFunction, ...]]:
    if events is None:
        return (), ()
    if callable(events):
        events = {"event": events}
    if not isinstance(events, dict) or not all(callable(event) for event in events.values()):
        raise TypeError("Argument `events` must be a function g(t, y, args) or a dict of such functions by name.")
    return tuple(events), tuple(events.values())


def integrate(
    flow: Flow,
    y0: Any,
    args: Any,
    ts: ArrayLike | Sequence[Any],
    *,
    t0: ArrayLike = 0.0,
    solver: str | diffrax.AbstractSolver = "tsit5",
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    max_steps: int | None = None,
    coordinate: str | None = None,
    settle: bool | float = False,
    events: EventFunction | dict[str, EventFunction] | None = None,
    capacity: int = 8,
    dense: bool = False,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Trajectories:
    """One trajectory of dy/dt = flow(t, y, args), saved at `ts`. `vmap`-able; for many lanes use `ensemble`.

    Numbers are arrays: new times (of the same count), tolerances or parameters never recompile, as long as `flow` is a
    module-level function or an `equinox.Module`.

    Args:
        flow: vector field f(t, y, args) -> dy/dt.
        y0: state at `t0`, an array or a pytree of arrays. For the mode flows one number w0 >= 0.
        args: whatever the flow takes, its numbers become arrays; for the mode flows `ModeParameters` of one system.
        ts: (T,) saved times in the flow's clock, strictly increasing, >= t0.
        t0: start.
        solver: "tsit5", "dopri5", "dopri8" (explicit), "kvaerno3", "kvaerno4", "kvaerno5" (stiff), or a diffrax solver.
        rtol, atol: tolerances on w (or y), in every coordinate; default 1e-8 and 1e-12 in float64, 1e-5 and 1e-9 in float32.
        max_steps: attempted steps before status `max_steps`; default 65536, or 4096 with `events` or `dense`, which keep each.
        coordinate: variable of the mode flows: None or "w" as it stands, "log" u = log w, "logit" of (w / w_inf)^r (lam > 0,
            weight_decay = 0, start below the fixed point), "layer" w^(1/L) (whole depths), "auto" the best that holds.
        settle: stop once the state has arrived: |f|^3 / (-f Jf) < rtol |y| + atol with f Jf < 0, the estimated distance left.
            Later times are filled with the settled value. One-number autonomous flows only. A number instead is a speed, for
            autonomous flows of any size: stop once max |dy/dt| < settle (1 + max |y|), in the solver's variable. It must lie
            above the solver's own noise, some 100 times its rtol, and fires on paths that come as near to a saddle.
        events: g(t, y, args) or a dict of them; their zero crossings are recorded, the solve goes on. See `events.py`.
        capacity: crossings kept per event.
        dense: keep the interpolant, for `.evaluate(t)`.
        adjoint: diffrax's rule for derivatives; the default allows `jax.grad`, `diffrax.ForwardMode()` allows `jax.jvp`.

    Returns:
        `Trajectories` without a lane axis: `ts` (T,), `ys` (T, ...), `status`, `steps`, `settled_time`, `crossings`.

    Raises:
        ValueError, TypeError: a bad argument, before tracing. What goes wrong while solving is a status, never an exception.
    """
    check_start(flow, y0, args)
    check_times(ts, t0)
    if np.ndim(ts) != 1:
        raise ValueError(f"Argument `ts` must have shape (T,), but has shape {np.shape(ts)}.")
    if mode_name(flow) is not None and (np.shape(y0) != () or args.shape != ()):
        raise ValueError(
            f"Arguments `y0` and `args` must be one system, but have shapes {np.shape(y0)} and {args.shape}; use `ensemble`."
        )
    one_number = [np.shape(leaf) for leaf in jax.tree.leaves(y0)] == [()]
    stops, settle_speed = resolve_settle(settle, y0, one_number=one_number)
    names, functions = _named_events(events)
    if max_steps is None:
        max_steps = 4096 if events is not None or dense else 65536
    for name, value in (("max_steps", max_steps), ("capacity", capacity)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"Argument `{name}` must be a whole number >= 1, but is {value!r}.")
    method = resolve_solver(solver)
    dtype = state_dtype(y0)
    rtol, atol = resolve_tolerances(rtol, atol, dtype)
    y0 = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), y0)
    args = numbers_to_arrays(args)
    return _solve_jitted(
        flow,
        choose_coordinate(flow, coordinate, y0, args),
        y0,
        args,
        jnp.asarray(ts, dtype),
        jnp.asarray(t0, dtype),
        rtol,
        atol,
        solver=method,
        max_steps=int(max_steps),
        settle=stops,
        settle_speed=settle_speed,
        events=functions,
        event_names=names,
        capacity=int(capacity),
        dense=bool(dense),
        adjoint=adjoint,
    )
