"""Exact trajectories of JEPA and MAE modes: from the table of the universal curve, polished to rounding error on request.

Lanes that the table does not cover (lam <= 0, starts above half the fixed point, L < 1/2 for JEPA and L < 1 for MAE, times out
of the number type's range) take the exact inverse of `theory.modes` in the same call.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jepa_dyn._checks import require_choice, require_increasing, require_not_empty
from jepa_dyn.parameters import Leaf, ModeParameters, Objective
from jepa_dyn.solve._devices import in_threads
from jepa_dyn.solve.result import Trajectories
from jepa_dyn.status import Status
from jepa_dyn.theory import modes
from jepa_dyn.theory.branches import log_one_minus_exp
from jepa_dyn.theory.curve_table import CurveTable, OrderPlace, build_tables, curve_log_y, start_phase
from jepa_dyn.theory.normal_form import half_log_y
from jepa_dyn.theory.order import Order, order_of, polish_log_y, time_from_half

METHODS = ("table", "polish")
_MAX_ORDERS = 64  # beyond that many distinct depths, building tables costs more than it saves
_CPU_BLOCK_BYTES = 1 << 21  # of saved states per block: stays near the caches
_DEVICE_BLOCK_BYTES = 1 << 30
_TABLE_PHASE_ERROR = 1e-12  # relative, of `curve_table.start_phase` in float64


class _Modes(eqx.Module):
    """Per-lane inputs of the fast route; `label` is the lane's row in the table's orders."""

    w0: Float[Leaf, " lanes"]
    args: ModeParameters
    label: Int[Leaf, " lanes"]


@partial(jax.jit, static_argnames="objective")
def _survey(objective: Objective, lanes: _Modes) -> tuple[Array, Array, Array]:
    """(whether the table covers each lane, log of the largest |u0| of those, the lowest z0 of each order)."""
    args = lanes.args
    r = modes.amplitude_power(objective, args.depth)
    n = 2 / r - 1
    grows = args.lam > 0
    log_limit = jnp.log(jnp.where(grows, args.lam, 1.0)) - jnp.log(args.variance)
    x0, half = r * jnp.log(lanes.w0) - log_limit, half_log_y(n)
    covered = grows & (x0 < half * (1 + 1e-6)) & (n > -1e-9) & (lanes.label >= 0)
    x0 = jnp.where(covered, x0, 2 * half)
    z0, z_half = x0 - log_one_minus_exp(x0), half - log_one_minus_exp(half)
    log_phase = n * (half - x0) + jnp.log(z_half - z0 + 1)
    covered &= (log_phase + jnp.log1p(jnp.abs(n)) < 0.9 * jnp.log(jnp.finfo(lanes.w0.dtype).max)) & (n < 1e3)
    covered &= jnp.abs(log_limit / r) < jnp.log(jnp.finfo(lanes.w0.dtype).max)
    largest = jnp.max(jnp.where(covered, log_phase, 0.0))
    lowest = jax.ops.segment_min(jnp.where(covered, z0, 0.0), lanes.label, num_segments=_MAX_ORDERS)
    return covered, largest, lowest


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct values, label per lane) without sorting; lanes beyond the first `_MAX_ORDERS` values get the label -1."""
    label = np.full(values.shape, -1, np.int32)
    found: list[float] = []
    rest = np.ones(values.shape, bool)
    while len(found) < _MAX_ORDERS and rest.any():
        value = values[int(np.argmax(rest))]
        same = values == value
        label[same] = len(found)
        rest &= ~same
        found.append(float(value))
    return np.array(found), label


class _Prepared(eqx.Module):
    """Per-lane constants of the evaluation, as columns."""

    log_limit: Float[Array, "lanes ..."]
    power: Float[Array, "lanes ..."]
    rate: Float[Array, "lanes ..."]
    phase: Float[Array, "lanes ..."]
    place: OrderPlace


def _prepare(objective: Objective, table: CurveTable, lanes: _Modes, one_order: Order | None) -> _Prepared:
    args = lanes.args
    r = modes.amplitude_power(objective, args.depth)
    log_limit = (jnp.log(args.lam) - jnp.log(args.variance)) / r
    rate = r * args.lam * jnp.exp((2 - r) * (log_limit - jnp.log(jnp.asarray(2.0, r.dtype))))
    place = table.orders.of(lanes.label)
    x0 = r * (jnp.log(lanes.w0) - log_limit)
    phase = start_phase(table, place, x0) if one_order is None else time_from_half(x0, one_order)
    return jax.tree.map(lambda leaf: leaf[:, None], _Prepared(log_limit, r, rate, phase, place))


@partial(jax.jit, static_argnames=("objective", "out_dtype"))
def _evaluate(objective, table: CurveTable, one_order: Order | None, out_dtype, lanes: _Modes, ts: Array) -> Array:
    """States of lanes of one block, (lanes, times). `one_order`: that of all lanes where they are to be polished."""
    lane = _prepare(objective, table, lanes, one_order)
    u = lane.phase + lane.rate * ts
    x = curve_log_y(table, lane.place, u)
    if one_order is not None:
        x = polish_log_y(x, u, one_order)
    return jnp.where(ts == 0, lanes.w0[:, None], jnp.exp(lane.log_limit + x / lane.power)).astype(out_dtype)


def _phase_error(method: str, dtype) -> float:
    """Relative error of the phase: that of the table of starts, or of one rounding."""
    return max(_TABLE_PHASE_ERROR if method == "table" else 0.0, float(jnp.finfo(dtype).eps))


@partial(jax.jit, static_argnames="objective")
def _lost_digits(
    objective, table: CurveTable, one_order: Order | None, relative_error: ArrayLike, lanes: _Modes, ts: Array
) -> Bool[Array, " lanes"]:
    """Lanes with a saved time inside the transition, whose width is below the error of the phase."""
    lane = _prepare(objective, table, lanes, one_order)
    resolution = relative_error * jnp.abs(lane.phase)
    near = jnp.abs(lane.phase + lane.rate * ts) < jnp.maximum(5.0, 4 * resolution)
    return jnp.any(near & (resolution > 1e-2), axis=1)


def exact(
    objective: Objective, w0: ArrayLike, args: ModeParameters, ts: ArrayLike, *, method: str = "table"
) -> Trajectories:
    """Exact amplitudes of a batch of modes at the times `ts`.

    Args:
        objective: "jepa" or "mae".
        w0: amplitudes at t = 0, > 0, shape () or (lanes,).
        args: parameters of the modes, leaves of shape () or (lanes,).
        ts: times >= 0, strictly increasing, mode clock, shape (times,) or (lanes, times).
        method: "table" (relative error 3e-11 in w, plus 1e-12 times its condition number) or "polish" (exact phase and one
            Newton step more, to rounding error times the condition number).

    Returns:
        `Trajectories` with `ys` of shape (lanes, times), a numpy array in the caller's order, filled in blocks: the memory needed
        is that of the result and little else. The status is `unresolved` where a saved time falls into a transition that is
        narrower than the error of its phase, 1e-12 t* for "table" (JEPA L = 2 from 1e-7; "polish" resolves it) or the spacing
        of the numbers that hold the time for "polish" (JEPA L = 2 from 1e-12: there no function of t has a right answer;
        `theory.state_around_critical_time` has).

    Number types: the phase is computed in float64 where x64 is on, and the result returned in the inputs' type. In float32
    with x64 off a phase of 1e6 leaves an error of 0.06 transition widths in the time of a step.

    Raises:
        ValueError: parameters or amplitudes outside the domain of `theory.state`, times not increasing or negative, shapes that
            do not agree, unknown method.

    Source: Littwin 2024, eqs (7), (8), solved through the normal form (see `theory.normal_form` for the corrections).
    """
    modes.check_mode(objective, args, w0=w0)
    require_choice("method", method, METHODS)
    require_not_empty("w0", w0)
    require_increasing("ts", ts)
    out_dtype = jnp.result_type(args.lam, args.variance, jnp.asarray(w0).dtype)
    dtype = jnp.result_type(float)
    shape = jnp.broadcast_shapes(args.shape, jnp.shape(w0))
    if len(shape) > 1:
        raise ValueError(f"Argument `w0` and the parameters must have shape () or (lanes,), but broadcast to {shape}.")
    times = np.asarray(ts, dtype)
    if times.ndim > 2 or (times.ndim == 2 and times.shape[0] not in (1, *shape)):
        raise ValueError(
            f"Argument `ts` must have shape (times,) or (lanes, times) with lanes {shape}, but has {times.shape}."
        )
    lanes = shape[0] if shape else 1
    flat = ModeParameters(*(np.broadcast_to(np.asarray(leaf, dtype), (lanes,)) for leaf in jax.tree.leaves(args)))
    start = np.broadcast_to(np.asarray(w0, dtype), (lanes,))
    ys, status = _solve(objective, start, flat, times.reshape(-1, times.shape[-1]), method, out_dtype)
    zero = np.zeros(shape, np.int32)
    return Trajectories(
        ts=times,
        ys=ys.reshape(*shape, times.shape[-1]),
        status=jnp.asarray(status.reshape(shape)),
        steps=jnp.asarray(zero),
        rejected=jnp.asarray(zero),
        settled_time=jnp.full(shape, jnp.inf, dtype),
        y0=w0,
        args=args,
        method=f"exact {objective} ({method})",
    )


def _solve(
    objective: Objective, w0: np.ndarray, args: ModeParameters, ts: np.ndarray, method: str, out_dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Covered lanes from the table, the others from the exact inverse, each into its row of the result."""
    orders_by_depth, label = _distinct(np.asarray(args.depth))
    power = 1 / orders_by_depth + (1.0 if objective == "mae" else 0.0)
    lanes = _Modes(w0, args, label)
    covered, log_phase, lowest = (np.asarray(leaf) for leaf in _survey(objective, lanes))
    ys = np.empty((w0.size, ts.shape[1]), out_dtype)
    status = np.zeros(w0.shape, np.uint8)
    if covered.any():
        # orders that only uncovered lanes have must still have a row; n < 0 has none of its own
        table = build_tables(np.maximum(2 / power - 1, 0.0), float(log_phase), lowest[: power.size])
        error = _phase_error(method, ts.dtype)
        lossy = error * np.exp(min(float(log_phase), 600.0)) > 1e-2
        groups = [covered] if method == "table" else [covered & (label == g) for g in range(power.size)]
        for group, members in enumerate(groups):
            rows = slice(None) if members.all() else np.flatnonzero(members)
            count = int(members.sum())
            if count == 0:
                continue
            own = jax.tree.map(lambda leaf, rows=rows: leaf[rows], lanes)
            own_ts = ts if ts.shape[0] == 1 else ts[rows]
            one_order = None
            if method == "polish":
                order = order_of(max(2 / power[group] - 1, 0.0))
                one_order = jax.tree.map(lambda c: np.asarray(c, w0.dtype), order)
            part = ys if members.all() else np.empty((count, ts.shape[1]), out_dtype)
            _fill(part, own, own_ts, partial(_evaluate, objective, table, one_order, out_dtype))
            if not members.all():
                ys[rows] = part
            if lossy:
                flagged = _lost_digits(objective, table, one_order, error, own, own_ts)
                status[rows] = np.where(flagged, Status.unresolved, Status.ok)
    if not covered.all():
        rows = np.flatnonzero(~covered)
        own = jax.tree.map(lambda leaf: leaf[rows], _Modes(w0, args, label))
        part = np.empty((rows.size, ts.shape[1]), out_dtype)
        _fill(part, own, ts if ts.shape[0] == 1 else ts[rows], partial(_exact_inverse, objective), intermediates=64)
        ys[rows] = part
        status[rows] = np.where(np.isfinite(part).all(axis=1), Status.ok, Status.non_finite)
    return ys, status


def _exact_inverse(objective: Objective, lanes: _Modes, ts: Leaf) -> Array:
    return modes._state(objective, ts, lanes.w0[:, None], jax.tree.map(lambda leaf: leaf[:, None], lanes.args))


def _power_of_two_below(value: int) -> int:
    return 1 << max(0, value.bit_length() - 1)


def _fill(out: np.ndarray, lanes: _Modes, ts: np.ndarray, evaluate, intermediates: int = 1) -> None:
    """Writes `evaluate(lanes, ts)` into `out` block by block, one thread per core on a CPU.

    Blocks keep the working set in cache and the memory bounded. Their size is a power of two and the last one is padded, so that
    groups and batches of other sizes share the compiled program. XLA runs an elementwise program on one core, hence the threads.
    """
    on_cpu = jax.default_backend() == "cpu"
    count, times = out.shape
    most = (_CPU_BLOCK_BYTES if on_cpu else _DEVICE_BLOCK_BYTES) // (8 * times * intermediates)
    size = min(_power_of_two_below(2 * count - 1), _power_of_two_below(most))
    starts = range(0, count, size)

    def fill_block(i: int) -> None:
        def part(leaf: np.ndarray) -> np.ndarray:
            own = leaf[i : i + size]
            return own if len(own) == size else np.pad(own, [(0, size - len(own)), *[(0, 0)] * (own.ndim - 1)], "edge")

        own_ts = ts if ts.shape[0] == 1 else part(ts)
        out[i : i + size] = evaluate(jax.tree.map(part, lanes), own_ts)[: count - i]

    fill_block(0)  # compiles before the threads start
    in_threads(fill_block, starts[1:], None if on_cpu else 1)
