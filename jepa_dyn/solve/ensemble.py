"""Many trajectories of one system in one call: sorted by cost, cut into blocks, spread over devices, returned in order."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import diffrax
import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from jepa_dyn._checks import require_choice, require_count
from jepa_dyn._programs import bears_threads
from jepa_dyn.solve._devices import (
    Device,
    block_order,
    default_block_size,
    in_threads,
    map_blocks,
    num_cores,
    original_order,
)
from jepa_dyn.solve._tolerances import resolve_tolerances, state_dtype
from jepa_dyn.solve.closed_form import ClosedForm
from jepa_dyn.solve.coordinates import PLAIN, Coordinate, choose_coordinate, clock, mode_name
from jepa_dyn.solve.integrate import Flow, check_start, check_times, is_finite, resolve_solver, solve_lane
from jepa_dyn.solve.lanes import BlockResult, lane_norm, solve_block
from jepa_dyn.solve.result import Trajectories
from jepa_dyn.solve.settle import resolve_settle
from jepa_dyn.status import Status

Stepper = Literal["lanes", "diffrax"]
SortKey = Literal["pilot", "rate"]
_PILOT_RTOL, _PILOT_STEPS = 1e-4, 64


class _Shared(eqx.Module):
    """What all lanes have in common: arrays may change without recompiling, the static fields choose the program."""

    system: Any
    ts: Array | None
    t0: Array
    rtol: Array
    atol: Array
    max_steps: Array
    coordinate: Coordinate = eqx.field(static=True)
    stepper: str = eqx.field(static=True)
    solver: Any
    static_max_steps: int = eqx.field(static=True)
    settle: bool = eqx.field(static=True)
    settle_speed: Array | None

    def times(self, own_ts: Array | None) -> Array:
        """(T,) common or (lanes, T) own saved times."""
        if own_ts is not None:
            return own_ts
        assert self.ts is not None
        return self.ts


def _prepared(shared: _Shared, y0: Any, args: Any) -> tuple[Callable, Any, Any, Array, Array]:
    """Field, start, parameters and tolerances of a block in the solver's coordinate."""
    coordinate = shared.coordinate
    field = shared.system if coordinate.flow is None else coordinate.flow
    start = jax.vmap(coordinate.encode)(y0, args)
    num_lanes = jax.tree.leaves(y0)[0].shape[0]
    rtol, atol = jax.vmap(coordinate.tolerances, (None, None, 0), axis_size=num_lanes)(shared.rtol, shared.atol, args)
    return field, start, jax.vmap(coordinate.prepare, axis_size=num_lanes)(args), rtol, atol


def _lanes_block(shared: _Shared, block: tuple) -> BlockResult:
    y0, args, own_ts = block
    ts = shared.times(own_ts).T
    ts = ts[:, None] if ts.ndim == 1 else ts
    field, start, ready, rtol, atol = _prepared(shared, y0, args)
    final, saved = solve_block(
        field, start, ready, ts, shared.t0, rtol, atol, shared.max_steps, shared.settle, shared.settle_speed
    )
    ys = jax.vmap(jax.vmap(shared.coordinate.decode), (0, None))(saved, args)
    ys = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), ys)
    # finite in the solver's variable, out of range in the caller's
    overflow = (final.status == Status.ok) & ~jax.vmap(is_finite)(ys)
    status = jnp.where(overflow, Status.non_finite, final.status).astype(jnp.uint8)
    return BlockResult(ys, status, final.steps, final.rejected, jnp.where(final.settled, final.t, jnp.inf))


def _diffrax_block(shared: _Shared, block: tuple) -> BlockResult:
    y0, args, own_ts = block

    def one(y0: Any, args: Any, ts: Array) -> BlockResult:
        lane = solve_lane(
            shared.system,
            shared.coordinate,
            y0,
            args,
            ts,
            shared.t0,
            shared.rtol,
            shared.atol,
            solver=shared.solver,
            max_steps=shared.static_max_steps,
            settle=shared.settle,
            settle_speed=shared.settle_speed,
        )
        return BlockResult(lane.ys, lane.status, lane.steps, lane.rejected, lane.settled_time)

    ts, axis = shared.times(own_ts), None if own_ts is None else 0
    return jax.vmap(one, (0, 0, axis))(y0, args, ts)


def _closed_block(shared: _Shared, block: tuple) -> BlockResult:
    y0, args, own_ts = block
    form = shared.system
    ts, axis = shared.times(own_ts), None if own_ts is None else 0

    def one(y0: Any, args: Any, ts: Array) -> BlockResult:
        ys = jax.vmap(form.state, (0, None, None))(ts - shared.t0, y0, args)
        status = jnp.where(is_finite(ys), Status.ok, Status.non_finite)
        if form.status is not None:
            given = jnp.asarray(form.status(y0, args))
            status = jnp.where(given == Status.ok, status, given)
        none = jnp.asarray(0, jnp.int32)
        return BlockResult(ys, status.astype(jnp.uint8), none, none, jnp.asarray(jnp.inf, ts.dtype))

    return jax.vmap(one, (0, 0, axis))(y0, args, ts)


_BLOCKS = {"lanes": _lanes_block, "diffrax": _diffrax_block, "closed form": _closed_block}


def _pilot_block(shared: _Shared, block: tuple) -> Array:
    """Steps that a coarse solve takes, extrapolated where it did not get to the end."""
    y0, args, own_ts = block
    ends = jnp.atleast_1d(shared.times(own_ts)[..., -1])[None, :]
    field, start, ready, rtol, _ = _prepared(shared, y0, args)
    coarse = jnp.full_like(rtol, _PILOT_RTOL)
    final, _ = solve_block(
        field,
        start,
        ready,
        ends,
        shared.t0,
        coarse,
        1e-3 * coarse,
        shared.max_steps,
        shared.settle,
        shared.settle_speed,
    )
    fraction = (final.t - shared.t0) / jnp.maximum(ends[0] - shared.t0, jnp.finfo(ends.dtype).tiny)
    longer = jnp.where(final.status == Status.ok, 1.0, 1 / jnp.clip(fraction, 1e-12, 1.0))
    # few distinct counts: ties are broken by how far the state moved, which orders the lanes along their curve
    growth = lane_norm(final.y) / (lane_norm(start) + jnp.finfo(ends.dtype).tiny)
    return final.steps * longer + 1 - 1 / (1 + growth)


def _rate_block(shared: _Shared, block: tuple) -> Array:
    """|trace of the Jacobian| at the start times the horizon."""
    y0, args, own_ts = block
    field, start, ready, _, _ = _prepared(shared, y0, args)
    ends = shared.times(own_ts)[..., -1]

    def one(y: Any, args: Any) -> Array:
        flat, unravel = jax.flatten_util.ravel_pytree(y)
        jacobian = jax.jacfwd(lambda v: jax.flatten_util.ravel_pytree(field(shared.t0, unravel(v), args))[0])(flat)
        return jnp.abs(jnp.trace(jacobian))

    return jax.vmap(one)(start, ready) * (ends - shared.t0)


@eqx.filter_jit
def _run(block_function: Callable, shared: _Shared, lanes: tuple, block_size: int, devices: tuple) -> Any:
    arrays, static = eqx.partition(shared, eqx.is_array)
    return map_blocks(lambda a, b: block_function(eqx.combine(a, static), b), arrays, lanes, block_size, devices)


_program = eqx.filter_make_jaxpr(_run)
_VERDICTS: dict[Any, bool] = {}


def _threads_may_run(call: tuple) -> bool:
    """`bears_threads` of `_run(*call)`, looked up once for each kind of system and parameters: it costs milliseconds."""
    leaves, structure = jax.tree.flatten(call[:3])
    kind = structure, *(leaf for leaf in leaves if not eqx.is_array_like(leaf))
    if kind not in _VERDICTS:
        _VERDICTS[kind] = bears_threads(_program(*call)[0].jaxpr)
    return _VERDICTS[kind]


def runs_in_threads(devices: tuple) -> bool:
    """Whether threads of our own share the lanes, or devices of XLA do."""
    return devices[0].platform == "cpu"


def _count_lanes(y0: Any, args: Any, ts: Any) -> int:
    """The number of lanes that the leaves agree on.

    Raises:
        ValueError: leading axes that disagree.
    """
    found: dict[int, str] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path({"y0": y0, "args": args})[0]:
        if np.ndim(leaf) > 0:
            found.setdefault(np.shape(leaf)[0], jax.tree_util.keystr(path, simple=True, separator="."))
    if np.ndim(ts) == 2:
        found.setdefault(np.shape(ts)[0], "ts")
    sizes = {size: name for size, name in found.items() if size != 1 or len(found) == 1}
    if len(sizes) > 1:
        listed = ", ".join(f"`{name}` has {size}" for size, name in sizes.items())
        raise ValueError(
            f"Leading axes of `y0`, `args` and `ts` must be the same number of lanes (or leaves single numbers), but {listed}. "
            "What all lanes share belongs into the flow (an equinox.Module)."
        )
    return next(iter(sizes), 1)


def _per_lane(tree: PyTree, num_lanes: int, dtype: np.dtype | None = None) -> PyTree:
    """Host arrays with the lanes as first axis; numbers are repeated."""

    def spread(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf) if dtype is None else np.asarray(leaf, dtype)
        return np.broadcast_to(array, (num_lanes, *array.shape[1:]))

    return jax.tree.map(spread, tree)


def ensemble(
    system: Flow | ClosedForm,
    y0: Any,
    args: Any,
    ts: ArrayLike | Sequence[Any],
    *,
    t0: ArrayLike = 0.0,
    stepper: str | None = None,
    solver: str | diffrax.AbstractSolver = "tsit5",
    coordinate: str | None = "auto",
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    max_steps: int = 65536,
    settle: bool | float | None = None,
    sort_key: str | Callable[[Any, Any, Any], Any] | ArrayLike | None = "pilot",
    block_size: int | None = None,
    devices: Sequence[Device] | None = None,
    threads: int | None = None,
) -> Trajectories:
    """Trajectories of a batch of lanes of any flow or closed form, in the caller's order, each with its own status.

    Lanes are sorted by an estimate of their cost and cut into blocks; a block takes as long as its slowest lane, and a failed
    lane touches no other. Blocks are dealt to the devices, each of which loops over its own. Numbers do not depend on block
    size or device count.

    Args:
        system: a flow f(t, y, args) -> dy/dt of one system, or a `ClosedForm`. Arrays that all lanes share belong into it
            (an `equinox.Module`).
        y0: state at `t0`: leaves with the lanes as first axis, or single numbers.
        args: parameters, likewise; for the mode flows `ModeParameters`.
        ts: (T,) shared or (lanes, T) saved times in the system's clock, strictly increasing, >= t0.
        t0: common start. A `ClosedForm` is given t - t0.
        stepper: "lanes" (our own Tsit5, every lane with its own step, fastest) or "diffrax" (any solver); the default is
            "lanes" for solver "tsit5". Neither allows reverse-mode derivatives; "lanes" allows `jax.jvp` of its core.
        solver: as in `integrate`.
        coordinate: as in `integrate`; "auto" is for the mode flows "layer" (whole depths), else "log", else "w".
        rtol, atol: as in `integrate`: on w, whatever the coordinate.
        max_steps: attempted steps per lane.
        settle: stop lanes that have arrived: True for states of one number, or a speed (see `integrate`); default: on for the
            mode flows.
        sort_key: "pilot" counts the steps of a coarse solve; "rate" is |tr J(y0)| times the horizon; an array with one
            number per lane, or a function (y0, args, ts) -> such an array; None leaves the order.
        block_size: lanes per block; default 128 on CPUs, one block per device on accelerators.
        devices: accelerators to share the lanes (an implicit solver takes the first alone); default `jax.local_devices()`.
        threads: on a CPU, threads to share the lanes; default one per core.

    Returns:
        `Trajectories` with `ys` (lanes, T, ...), `status`, `steps`, `rejected`, `settled_time` (lanes,).

    Raises:
        ValueError, TypeError: a bad argument, before tracing. What goes wrong while solving is a status of its lane.
    """
    closed = isinstance(system, ClosedForm)
    check_start(system.state if closed else system, y0, args)
    check_times(ts, t0)
    if np.ndim(ts) > 2:
        raise ValueError(f"Argument `ts` must have shape (T,) or (lanes, T), but has shape {np.shape(ts)}.")
    require_count("max_steps", max_steps)
    num_lanes = _count_lanes(y0, args, ts)
    dtype = state_dtype(y0)
    tolerances = resolve_tolerances(rtol, atol, dtype)
    scalar_state = all(np.ndim(leaf) <= 1 for leaf in jax.tree.leaves(y0)) and len(jax.tree.leaves(y0)) == 1
    if settle is None:
        settle = not closed and mode_name(system) is not None
    stops, settle_speed = resolve_settle(settle, y0, one_number=scalar_state)
    if stepper is None:
        stepper = "lanes" if solver == "tsit5" else "diffrax"
    require_choice("stepper", stepper, get_args(Stepper))
    method = resolve_solver(solver)
    if stepper == "lanes" and not isinstance(method, diffrax.Tsit5):
        raise ValueError(f"Argument `stepper` must be 'diffrax' for solver {solver!r}: 'lanes' has Tsit5 only.")
    devices = tuple(jax.local_devices()) if devices is None else tuple(devices)
    if not devices:
        raise ValueError("Argument `devices` must hold at least one device, but is empty.")
    if isinstance(method, diffrax.AbstractImplicitSolver):
        devices = devices[:1]  # lineax refuses the arrays of a program that is split over devices
    if block_size is None:
        block_size = default_block_size(devices[0], num_lanes, len(devices))
    for name, value in (("block_size", block_size), ("threads", 1 if threads is None else threads)):
        require_count(name, value)
    block_size, on_cpu = int(block_size), runs_in_threads(devices)
    most = (num_cores() if threads is None else int(threads)) if on_cpu else len(devices)
    workers = min(most, -(-num_lanes // block_size)) if on_cpu else most
    route = "closed form" if closed else stepper
    chosen = PLAIN if closed else choose_coordinate(system, coordinate, y0, args)

    host_y0, host_args = _per_lane(y0, num_lanes, dtype), _per_lane(args, num_lanes)
    host_ts = np.asarray(ts, dtype)
    own_ts = np.broadcast_to(host_ts, (num_lanes, host_ts.shape[1])) if host_ts.ndim == 2 else None
    shared = _Shared(
        system=system,
        ts=jnp.asarray(host_ts) if own_ts is None else None,
        t0=jnp.asarray(t0, dtype),
        rtol=tolerances[0],
        atol=tolerances[1],
        max_steps=jnp.asarray(max_steps, jnp.int32),
        coordinate=chosen,
        stepper=route,
        solver=method if route == "diffrax" else None,
        static_max_steps=int(max_steps) if route == "diffrax" else 0,
        settle=stops,
        settle_speed=settle_speed,
    )

    def run(block_function: Callable, shared: _Shared, key: np.ndarray | None) -> Any:
        order = block_order(key, num_lanes, block_size, workers)

        def given(own: np.ndarray) -> tuple:
            lanes = jax.tree.map(lambda leaf: leaf[own], (host_y0, host_args, own_ts))
            return block_function, shared, lanes, block_size, devices[:1] if on_cpu else devices

        def part(own: np.ndarray) -> Any:
            if not on_cpu:
                return _run(*given(own))
            with jax.default_device(devices[0]):
                return jax.block_until_ready(_run(*given(own)))

        owns = np.split(order, workers) if on_cpu else [order]
        parts = in_threads(part, owns, None if len(owns) == 1 or _threads_may_run(given(owns[0])) else 1)
        return original_order(parts, order, num_lanes, devices[0])

    key = None if closed else _sort_values(sort_key, run, shared, y0, args, ts, num_lanes, block_size)
    result = run(_BLOCKS[route], shared, key)
    if route == "lanes":
        described = f"lanes Tsit5 in {chosen.name}"
    else:
        described = system.name if closed else f"diffrax {type(method).__name__} in {chosen.name}"
    as_given = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf), (y0, args))
    return Trajectories(
        ts=jnp.asarray(host_ts),
        ys=result.ys,
        status=result.status,
        steps=result.steps,
        rejected=result.rejected,
        settled_time=result.settled_time,
        y0=as_given[0],
        args=as_given[1],
        method=described,
        time_unit=clock(system.state if isinstance(system, ClosedForm) else system),
    )


def _sort_values(
    sort_key: Any, run: Callable, shared: _Shared, y0: Any, args: Any, ts: Any, num_lanes: int, block_size: int
) -> np.ndarray | None:
    """The cost estimate per lane, on the host; not finite sorts last."""
    if sort_key is None or num_lanes <= block_size:
        return None
    if isinstance(sort_key, str):
        require_choice("sort_key", sort_key, get_args(SortKey))
        if sort_key == "rate":
            key = run(_rate_block, shared, None)
        else:
            limited = eqx.tree_at(lambda s: s.max_steps, shared, jnp.minimum(shared.max_steps, _PILOT_STEPS))
            key = run(_pilot_block, limited, None)
    else:
        key = sort_key(y0, args, ts) if callable(sort_key) else sort_key
    key = np.asarray(key, float)
    if key.shape != (num_lanes,):
        raise ValueError(f"Argument `sort_key` must give shape ({num_lanes},), but gives shape {key.shape}.")
    return np.where(np.isnan(key), np.inf, key)


__all__ = ["ClosedForm", "SortKey", "Stepper", "ensemble"]
