"""Discrete training along a flow: gradient descent on population moments, minibatch descent on drawn or streamed batches."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike

from jepa_dyn._checks import require, require_count
from jepa_dyn.moments.eigenbasis import EigenbasisMoments
from jepa_dyn.moments.gaussian_batches import batch_moments
from jepa_dyn.solve._blocks import Layout, block_layout, loop_in_blocks, over_threads
from jepa_dyn.solve._devices import num_cores
from jepa_dyn.solve._tolerances import state_dtype
from jepa_dyn.solve._training_arguments import DIVERGED_ABOVE, check_optimiser, checked_steps, optimiser_name
from jepa_dyn.solve.descent import Run, Task, begin, hashable_optimiser, observed, step
from jepa_dyn.solve.integrate import Flow, check_start, numbers_to_arrays
from jepa_dyn.solve.training_result import TrainingRuns, training_runs

Observe = Callable[[Any, Any], Any]
_CHUNK = 32


def whole_state(y: Any, args: Any) -> Any:
    """The default of `observe`: the state itself."""
    return y


def train(
    flow: Flow,
    y0: Any,
    args: Any,
    steps: ArrayLike | Sequence[Any],
    *,
    learning_rate: ArrayLike | None = None,
    optimiser: Any = optax.sgd,
    batches: Any = None,
    key: Array | None = None,
    target_momentum: ArrayLike | Callable[[Any], Any] | None = None,
    observe: Observe = whole_state,
    diverged_above: ArrayLike = DIVERGED_ABOVE,
    threads: int | None = None,
) -> TrainingRuns:
    """Training with gradient -flow(t, y, args), t = step x learning rate; observed at the saved steps. One run or many lanes.

    Lanes: any leaf of a `DeepLinearState`, of `DeepLinearArguments` (moments, masks, rates), of a batch source, the learning
    rate and the key may carry one leading axis more than one system has; they all agree in size, the rest is shared.
    Anything else (a state and arguments of one's own): one run, under `jax.vmap` for more. New numbers never recompile, as
    long as `flow`, `optimiser` and `observe` are module-level functions (or a `functools.partial` of one).

    Args:
        flow: vector field f(t, y, args) -> dy/dt, e.g. `flows.deep_jepa`.
        y0: start.
        args: parameters of the flow. With `batches`, `args.moments` is the law that is drawn from.
        steps: (T,) numbers of steps after which to observe, whole, >= 0, increasing; the last is the length of the run.
        learning_rate: number or one per lane.
        optimiser: a function from a learning rate to an optax transformation (`optax.sgd`, `optax.adam`,
            `functools.partial(optax.sgd, momentum=0.9)`), or a ready transformation, then without `learning_rate`.
        batches: None for population moments, or a source such as `moments.WishartBatches(n)`: anything with
            `prepare(moments)` and `draw(key, prepared) -> ViewMoments`.
        key: needed with `batches`; step k of a run draws with fold_in(key, k), so the draws depend neither on the other lanes
            nor on the saved steps. Lanes that share a key see the same batches.
        target_momentum: alpha of a state with a moving-average target: a number or one per lane in [0, 1], or a function of the
            step's number t = 1.0, 2.0, ..., e.g. `optax.linear_schedule(0.9, 1.0, 300)`; default 1 - learning rate x
            `args.ema_rate`.
        observe: (y, args) -> array or pytree to save, e.g. `lambda y, args: projections(encoder_matrix(y, args))`.
        diverged_above: a run whose largest weight exceeds this is flagged `diverged` at that step; NaN is `non_finite`.
        threads: which share many lanes on population moments on a CPU; default all cores. Numbers do not depend on it.

    Returns:
        `TrainingRuns`: `ts` the steps, `ys` (T, ...) or (lanes, T, ...), `status`, `failed_at`, `final`.

    Raises:
        ValueError, TypeError: a bad argument, before tracing. A run that diverges is flagged, never raised.
    """
    dtype, args, optimiser, rate = _common(flow, y0, args, learning_rate, optimiser, diverged_above)
    y0 = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), y0)
    saved = checked_steps(steps)
    if threads is not None:
        require_count("threads", threads)
    if (batches is None) != (key is None):
        raise ValueError("Arguments `batches` and `key` belong together: give both or neither.")
    if batches is not None:
        _require_moments(args)
        if not (hasattr(batches, "prepare") and hasattr(batches, "draw")):
            raise TypeError(
                f"Argument `batches` must have `prepare` and `draw`, but has type {type(batches).__name__}; "
                "for an iterable of pairs use `train_on_batches`."
            )
    momentum = _checked_momentum(target_momentum, y0, dtype)
    lanes = {"y0": y0, "args": args, "learning_rate": rate, "batches": batches, "key": key, "target_momentum": momentum}
    mapped = _lane_flags(lanes)
    layout = block_layout(lanes, mapped) if batches is None else None
    bound = jnp.asarray(diverged_above, dtype)

    def run_lanes(lanes: dict) -> tuple:
        return _train(flow, optimiser, observe, lanes, mapped, bound, saved, layout)

    if layout is None:
        run, ys = run_lanes(lanes)
    else:
        run, ys = over_threads(run_lanes, lanes, mapped, layout.block, threads or num_cores())
    kind = "population moments" if batches is None else f"{type(batches).__name__}"
    return training_runs(saved, ys, run, y0, args, rate, f"{optimiser_name(optimiser)} on {kind}")


def _over_lanes(function: Callable, lanes: dict, mapped: tuple[bool, ...], *carried: Any) -> Any:
    """`function(lane, *carried)`, mapped over the lanes where there are any; `carried` has a lane axis throughout."""
    arrays, rest = eqx.partition(lanes, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)

    def one(own: list, *carried: Any) -> Any:
        return function(eqx.combine(jax.tree.unflatten(treedef, own), rest), *carried)

    if not any(mapped):
        return one(leaves, *carried)
    return jax.vmap(one, ([0 if flag else None for flag in mapped], *(0 for _ in carried)))(leaves, *carried)


@eqx.filter_jit
def _train(
    flow: Flow,
    optimiser: Any,
    observe: Observe,
    lanes: dict,
    mapped: tuple[bool, ...],
    bound: Array,
    steps: Array,
    layout: Layout | None,
) -> tuple:
    starts = jnp.concatenate([jnp.zeros(1, steps.dtype), steps[:-1]])

    def task_of(lane: dict) -> Task:
        return Task(flow, optimiser, lane["args"], lane["learning_rate"], bound, lane["target_momentum"])

    if layout is not None:
        return loop_in_blocks(
            lambda lane: begin(task_of(lane), lane["y0"]),
            lambda lane, number, run: step(task_of(lane), run, number, None),
            lambda lane, run: observed(task_of(lane), run, observe),
            lanes,
            mapped,
            (starts, steps),
            layout,
        )

    def one_run(lane: dict) -> tuple:
        source, key = lane["batches"], lane["key"]
        task = task_of(lane)
        prepared = None if source is None else source.prepare(task.args.moments)

        def one_step(number: Array, run: Run) -> Run:
            moments = None if source is None else source.draw(jax.random.fold_in(key, number), prepared)
            return step(task, run, number, moments)

        def segment(run: Run, ends: tuple[Array, Array]) -> tuple[Run, Any]:
            run = jax.lax.fori_loop(*ends, one_step, run)
            return run, observed(task, run, observe)

        run, ys = jax.lax.scan(segment, begin(task, lane["y0"]), (starts, steps))
        return run, ys

    return _over_lanes(one_run, lanes, mapped)


def train_on_batches(
    flow: Flow,
    y0: Any,
    args: Any,
    batches: Iterable[Any],
    *,
    save_every: int = 1,
    learning_rate: ArrayLike | None = None,
    optimiser: Any = optax.sgd,
    observe: Observe = whole_state,
    diverged_above: ArrayLike = DIVERGED_ABOVE,
) -> TrainingRuns:
    """`train` on a stream of real pairs: one step per batch, every batch contracted to its raw second moments, seen by all lanes.

    Args:
        flow, y0, args, learning_rate, optimiser, observe, diverged_above: as in `train`; `args.moments` only gives the sizes.
        batches: any iterable of pairs (x, y) of shapes (n, d), (n, d_y), n free, such as `moments.view_pair_batches(...)`.
            Host memory is that of a few batches.
        save_every: observes at the start, after every so many steps, and at the end of the stream.

    Raises:
        TypeError: an item is not a pair of arrays.
        ValueError: a bad argument, an item of the wrong shape (named by its index), or an empty stream.
    """
    dtype, args, optimiser, rate = _common(flow, y0, args, learning_rate, optimiser, diverged_above)
    y0 = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), y0)
    _require_moments(args)
    require_count("save_every", save_every)
    lanes = {"y0": y0, "args": args, "learning_rate": rate}
    mapped, bound = _lane_flags(lanes), jnp.asarray(diverged_above, dtype)
    sizes = (args.moments.xx.shape[-1], args.moments.yy.shape[-1])
    run, values = _begin_stream(flow, optimiser, observe, lanes, mapped, bound)
    stream, done, saved, series = iter(batches), 0, [0], [values]
    while True:
        room = min(_CHUNK, int(save_every) - done % int(save_every))
        chunk = [_contract(item, done + i, sizes, dtype) for i, item in enumerate(itertools.islice(stream, room))]
        if chunk:
            filled = chunk + [chunk[-1]] * (_CHUNK - len(chunk))  # one shape, one program
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *filled)
            run, values = _advance_stream(
                flow, optimiser, observe, lanes, mapped, bound, run, stacked, jnp.asarray([done, len(chunk)], jnp.int32)
            )
            done += len(chunk)
            if done % int(save_every) == 0 or len(chunk) < room:
                saved.append(done)
                series.append(values)
        if len(chunk) < room:
            if not chunk and saved[-1] != done:  # the stream ended on the edge of a chunk
                saved.append(done)
                series.append(values)
            break
    if done == 0:
        raise ValueError("Argument `batches` must hold at least one pair of arrays, but is empty.")
    axis = 1 if any(mapped) else 0
    ys = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *series)
    return training_runs(
        jnp.asarray(saved, jnp.int32), ys, run, y0, args, rate, f"{optimiser_name(optimiser)} on streamed batches"
    )


@eqx.filter_jit
def _begin_stream(flow: Flow, optimiser: Any, observe: Observe, lanes: dict, mapped: tuple, bound: Array) -> tuple:
    def start(lane: dict) -> tuple:
        task = Task(flow, optimiser, lane["args"], lane["learning_rate"], bound)
        run = begin(task, lane["y0"])
        return run, observed(task, run, observe)

    return _over_lanes(start, lanes, mapped)


@eqx.filter_jit
def _advance_stream(
    flow: Flow,
    optimiser: Any,
    observe: Observe,
    lanes: dict,
    mapped: tuple,
    bound: Array,
    run: Run,
    chunk: Any,
    count: Array,
) -> tuple:
    def advance(lane: dict, run: Run) -> tuple:
        task = Task(flow, optimiser, lane["args"], lane["learning_rate"], bound)

        def one_step(i: Array, run: Run) -> Run:
            return step(task, run, count[0] + i, jax.tree.map(lambda leaf: leaf[i], chunk))

        run = jax.lax.fori_loop(0, count[1], one_step, run)
        return run, observed(task, run, observe)

    return _over_lanes(advance, lanes, mapped, run)


_contract_on_device = jax.jit(batch_moments)


def _contract(item: Any, index: int, sizes: tuple[int, int], dtype: np.dtype) -> Any:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise TypeError(
            f"Argument `batches` must yield pairs of arrays (x, y), but item {index} is a {type(item).__name__}."
        )
    x, y = (jnp.asarray(part, dtype) for part in item)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) == 0 or (x.shape[1], y.shape[1]) != sizes:
        raise ValueError(
            f"Argument `batches` must yield pairs of shapes (n, {sizes[0]}) and (n, {sizes[1]}) with n >= 1, "
            f"but item {index} has shapes {x.shape} and {y.shape}."
        )
    return _contract_on_device(x, y)


def _common(
    flow: Flow, y0: Any, args: Any, learning_rate: Any, optimiser: Any, diverged_above: Any
) -> tuple[np.dtype, Any, Any, Array]:
    """Checks that both kinds of training share: (dtype of the state, arguments as arrays, optimiser, learning rate)."""
    check_start(flow, y0, args)
    check_optimiser(optimiser, learning_rate, diverged_above)
    dtype = state_dtype(y0)
    rate = jnp.asarray(jnp.nan if learning_rate is None else learning_rate, dtype)
    return dtype, numbers_to_arrays(args), hashable_optimiser(optimiser), rate


def _checked_momentum(momentum: Any, y0: Any, dtype: np.dtype) -> Any:
    if momentum is None:
        return None
    if getattr(y0, "target", None) is None:
        raise ValueError("Argument `target_momentum` must be left out where the state has no moving-average target.")
    if callable(momentum):
        return momentum
    require("target_momentum", momentum, "lie between 0 and 1", lambda a: (a >= 0) & (a <= 1))
    return jnp.asarray(momentum, dtype)


def _require_moments(args: Any) -> None:
    if not hasattr(args, "moments"):
        raise TypeError(f"Argument `args` must have `moments` to train on batches, but has type {type(args).__name__}.")
    if isinstance(args.moments, EigenbasisMoments):
        raise TypeError("Argument `args` must have moments as matrices to train on batches, but has EigenbasisMoments.")


def _lane_flags(lanes: dict) -> tuple[bool, ...]:
    """Which leaves (in tree order) carry a lane axis: one axis more than `leaf_ndims` of their owner says.

    Raises:
        ValueError: lane axes that disagree, or more axes than one lane axis explains.
    """
    flags, found = [], {}
    for name in sorted(lanes):  # the order in which JAX flattens a dict
        owner = lanes[name]
        leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(owner, eqx.is_array))[0]
        if name in ("learning_rate", "target_momentum"):
            single = (0,) * len(leaves)
        elif name == "key" and owner is not None:
            single = (0 if jnp.issubdtype(owner.dtype, jax.dtypes.prng_key) else 1,)
        else:
            single = getattr(owner, "leaf_ndims", tuple(leaf.ndim for _, leaf in leaves))
        for (path, leaf), ndim in zip(leaves, single, strict=True):
            extra = leaf.ndim - ndim
            full = name + jax.tree_util.keystr(path)
            if extra not in (0, 1):
                raise ValueError(
                    f"Argument `{full}` must have {ndim} axes, or {ndim + 1} with lanes, but has shape {leaf.shape}."
                )
            flags.append(extra == 1)
            if extra:
                found.setdefault(leaf.shape[0], full)
    if len(found) > 1:
        listed = ", ".join(f"`{name}` has {size}" for size, name in found.items())
        raise ValueError(f"Lane axes must agree, but {listed}.")
    return tuple(flags)


__all__ = ["train", "train_on_batches", "whole_state"]
