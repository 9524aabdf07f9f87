"""Training of many networks at once: one compiled step over all lanes, logged on a schedule, resumable."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike

from jepa_dyn._checks import require_count, require_nonnegative
from jepa_dyn._programs import bytes_computed
from jepa_dyn._progress import progress_bar
from jepa_dyn.solve._tolerances import state_dtype
from jepa_dyn.solve._training_arguments import DIVERGED_ABOVE, check_optimiser, checked_steps, optimiser_name
from jepa_dyn.status import Status
from jepa_dyn.training.checkpoint import Keeper
from jepa_dyn.training.image_data import probe_data, training_data
from jepa_dyn.training.lanes import describe_loss, make_lanes, named_numbers, require_batch
from jepa_dyn.training.many_lanes import CHUNK, ManyLanes, Observed, over_lanes
from jepa_dyn.training.network_runs import NetworkRuns
from jepa_dyn.training.step import (
    Lane,
    NetworkRun,
    Setup,
    begin,
    evaluation_views,
    network_of,
    objective,
    start_network,
)


def train_networks(
    make: Callable[[Array], Any],
    images: Any,
    loss: Any,
    steps: int,
    *,
    views: Any = None,
    seeds: Any = 0,
    batch_size: int | None = 128,
    learning_rate: ArrayLike | None = None,
    optimiser: Any = optax.sgd,
    weight_decay: ArrayLike = 0.0,
    init_scale: ArrayLike = 1.0,
    target_momentum: Any = 0.99,
    log_every: int | Sequence[int] = 20,
    spectra: bool = True,
    spectrum_samples: int = 256,
    observe: Callable[[Any, Any, Any], dict[str, Any]] | None = None,
    labels: Any = None,
    test: tuple[Any, Any] | None = None,
    probe_samples: int = 512,
    ridge: ArrayLike = 1e-3,
    diverged_above: ArrayLike = DIVERGED_ABOVE,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    progress: bool = False,
) -> NetworkRuns:
    """Trains networks on views of images and logs loss, spectra, probe and increments. One run, or one per lane.

    Lanes: `seeds`, `learning_rate`, `weight_decay`, `init_scale`, `target_momentum`, and every floating-point number of the loss,
    of the views and of the optimiser may be an array of one number per lane; all agree in length, the rest is shared. A seed
    decides the start, the batches and their views: lanes of one seed differ in nothing else.

    Args:
        make: key -> network, a `JointEmbedding` or `MaskedPrediction` (or a module with their `objective`), compiled and mapped
            over the seeds. A module-level function is compiled once.
        images: (N, h, w), (N, h, w, 1) or (N, h, w, 3), floats or bytes; without `views` a pair (x, y) of arrays (N, m).
        loss: a name of `losses.LOSSES`, a loss of the zoo with options by `functools.partial`, a `RepresentationLoss`, or any
            function of two arrays (batch, dim) that returns a number.
        steps: of the optimiser, >= 0.
        views: `TwoViews`, `HiddenPatches`, `BlockMasks` or of one's own: (key, image) -> what the network takes.
        seeds: whole numbers >= 0.
        batch_size: images per step, drawn with replacement; None: all of them, in order.
        learning_rate, optimiser: as in `solve.train`: `optax.sgd`, `partial(optax.lars, momentum=0.9)`, a function of one's own
            that makes a schedule of the rate, or a ready transformation without `learning_rate`.
        weight_decay: lambda >= 0 of the term lambda theta that is added to the gradient of every parameter. For decoupled or masked
            decay take an optimiser that has it.
        init_scale: alpha > 0, a factor on all parameters of encoder and projector at the start.
        target_momentum: alpha in [0, 1] of a moving-average target, or a function of the step's number 1.0, 2.0, ...:
            `cosine_momentum(0.99, 1.0, steps)`.
        log_every: logs before the first step, after every so many, and after the last; or the steps to log after, increasing.
        spectra: whether eigenvalues are logged, of the embeddings and of the hidden layers.
        spectrum_samples: images whose views, the same throughout a run, loss and spectra are computed on, evenly spread.
        observe: (network, statistics, views) -> dict of arrays, logged as well.
        labels: (N,) whole numbers: a linear probe is fitted at every logged step, see `observation`.
        test: (images, labels) to judge the probe on; None: every fourth image, which then is not fitted to.
        probe_samples: most images to fit to, and to judge on. ridge: its penalty, relative to the variance of the features.
        diverged_above: a run whose largest parameter exceeds this stops there, flagged `diverged`; NaN is `non_finite`.
        checkpoint: file to write the runs to, and to go on from where it exists: to the same number of steps or more, bit for bit
            as if there had been no break. At most every `checkpoint_seconds`, and at the end.
        progress: shows a bar.

    Returns:
        `NetworkRuns`: `ts` the logged steps, `ys` a dict of (lanes, T, ...), `final` the networks, `status`, `failed_at`. In a
        failed run what was logged before stays, NaN follows, and `final` is the last acceptable network. A single run has no axis
        of lanes.

    Raises:
        ValueError, TypeError: a bad argument, before training. A run that diverges is flagged, never raised.
        CheckpointMismatch: a checkpoint of runs that differ in anything but the number of steps.
    """
    check_optimiser(optimiser, learning_rate, diverged_above)
    require_count("steps", steps, 0)
    require_count("spectrum_samples", spectrum_samples)
    require_nonnegative("checkpoint_seconds", checkpoint_seconds)
    saved = _logged_steps(int(steps), log_every)
    like, _ = eqx.filter_eval_shape(_start_network, make, jax.random.key(0), jnp.ones(()))
    dtype = _dtype(like)
    lanes, count = make_lanes(
        seeds, learning_rate, weight_decay, init_scale, target_momentum, loss, views, optimiser, dtype
    )
    data = training_data(images, views, None if batch_size is None else int(batch_size), dtype)
    total = len(jax.tree.leaves(data)[0])
    require_batch(lanes.loss, total if batch_size is None else int(batch_size), "batch_size")
    require_batch(lanes.loss, min(total, int(spectrum_samples)), "spectrum_samples")
    probe = None
    if labels is not None:
        probe = probe_data(images, labels, test, int(probe_samples), ridge, views is None, dtype)
    setup = Setup(make, _without_arrays(like), data, jnp.asarray(diverged_above, dtype), int(spectrum_samples))
    lane_bytes = _require_fit(setup, lanes)
    observed = Observed(probe, observe, bool(spectra))
    many = ManyLanes(setup, lanes, observed, lane_bytes)
    runs = many.begin()
    parts = {"start": runs, "lanes per block": many.size} | _parts(setup, lanes, observed)
    keeper = Keeper(checkpoint, checkpoint_seconds, saved, parts)
    shapes = many.trace(runs)
    found = keeper.resumed(many.join(runs), shapes)
    logged, done = [], 0
    if found is not None:
        runs, logged, done = many.cut(found[0]), [found[1]], found[2]
    ends = range(done, len(saved), CHUNK)
    for first in progress_bar(ends, int(saved[-1]), show=progress, weight=lambda first: _stretch(saved, first)):
        done = min(first + CHUNK, len(saved))
        if first and all(bool((block.status != Status.ok).all()) for block in runs):  # nothing is left to train
            logged.append(_blank(shapes, done - first))
            continue
        runs, values = many.advance(runs, _bounds(saved, first, done))
        logged.append(_first_logs(values, done - first))
        if progress:
            jax.block_until_ready(runs)
        if keeper.is_due():
            keeper.keep(many.join(runs), logged, done)
    ended = many.join(runs)
    keeper.keep(ended, logged, done)
    ys = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *logged)
    return _result(setup, lanes, count, ended, ys, saved)


def _first_logs(values: Any, count: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[:, :count], values)


def _blank(shapes: Any, count: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.full((leaf.shape[0], count, *leaf.shape[2:]), jnp.nan, leaf.dtype), shapes)


def _bounds(saved: np.ndarray, first: int, last: int) -> Array:
    """(first step, end) of the stretches that end at these saved steps, filled up with stretches that are none."""
    ends = np.stack([np.concatenate([[0], saved[:-1]]), saved], axis=1)[first:last]
    filled = np.concatenate([ends, np.full((CHUNK - len(ends), 2), -1)])
    return jnp.asarray(filled, jnp.int32)


def _stretch(saved: np.ndarray, first: int) -> int:
    return int(saved[min(first + CHUNK, len(saved)) - 1] - (saved[first - 1] if first else 0))


def _logged_steps(steps: int, log_every: Any) -> np.ndarray:
    if np.ndim(log_every) == 0:
        require_count("log_every", log_every)
        return np.unique(np.r_[np.arange(0, steps, int(log_every)), steps])
    saved = np.asarray(checked_steps(log_every))
    if saved[-1] != steps:
        raise ValueError(f"Argument `log_every` must end with `steps` = {steps}, but ends with {saved[-1]}.")
    return saved


def _dtype(like: Any) -> np.dtype:
    """Of the parameters of a network, of which there are only shapes.

    Raises:
        TypeError: no network, or one without parameters, or with other arrays.
    """
    if not hasattr(like, "objective"):
        raise TypeError(
            f"Argument `make` must return a JointEmbedding or a MaskedPrediction, but returns a {type(like).__name__}."
        )
    leaves = [leaf for leaf in jax.tree.leaves(like) if isinstance(leaf, jax.ShapeDtypeStruct)]
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise TypeError("Argument `make` must return a network whose arrays are floating-point numbers, at least one.")
    return state_dtype([np.zeros((), leaf.dtype) for leaf in leaves])


def _without_arrays(like: Any) -> Any:
    return eqx.filter(like, lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct))


def _require_fit(setup: Setup, lanes: Lane) -> int:
    """Says in one line that network, views and loss do not fit, before JAX says it at length; returns bytes computed per lane."""
    arrays, rest = eqx.partition((setup, lanes), eqx.is_array)
    try:
        program = jax.make_jaxpr(lambda arrays: _first_losses(*eqx.combine(arrays, rest)))(arrays)
    except (TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"Arguments `make`, `views` and `loss` must fit each other, but: {reason[0] if reason else error!r}"
        ) from error
    (found,) = program.out_avals
    if found.shape != lanes.seed.shape:
        raise ValueError(f"Argument `loss` must return one number, but returns an array of shape {found.shape[1:]}.")
    return bytes_computed(program.jaxpr) // lanes.seed.shape[0]


# compiled never, but traced once only
_start_network = eqx.filter_jit(start_network)


@eqx.filter_jit
def _first_losses(setup: Setup, lanes: Lane) -> Array:
    def whole(lane: Lane) -> Array:
        run = begin(setup, lane, evaluation_views(setup, lane))
        return objective(setup, lane, run, setup.data.batch(lane.key, lane.views), run.parameters)[0]

    return over_lanes(whole, lanes)


def _parts(setup: Setup, lanes: Lane, observed: Observed) -> dict[str, Any]:
    """What a run depends on, by the names of the arguments."""
    return {
        "make": setup.make, "network": setup.rest, "images": setup.data, "loss": lanes.loss, "views": lanes.views,
        "optimiser": lanes.optimiser, "target_momentum": lanes.momentum, "seeds": lanes.seed,
        "learning_rate": lanes.learning_rate, "weight_decay": lanes.weight_decay, "init_scale": lanes.init_scale,
        "diverged_above": setup.bound, "spectrum_samples": setup.samples, "labels": observed.probe,
        "observe": observed.own, "spectra": observed.spectra,
    }  # fmt: skip


def _result(setup: Setup, lanes: Lane, count: int | None, runs: NetworkRun, ys: Any, saved: np.ndarray) -> NetworkRuns:
    def own(tree: Any) -> Any:
        return tree if count is not None else jax.tree.map(lambda leaf: leaf[0], tree)

    args = own(named_numbers(lanes))
    rate = args.pop("learning_rate")
    failed_at = own(runs.failed_at)
    taken = jnp.where(failed_at >= 0, jnp.maximum(failed_at - 1, 0), int(saved[-1])).astype(jnp.int32)
    target = None
    if runs.target is not None:
        target = eqx.combine(own(runs.target), setup.rest.moving_part())
    return NetworkRuns(
        ts=jnp.asarray(saved, rate.dtype),
        ys=own(ys),
        status=own(runs.status),
        steps=taken,
        rejected=jnp.zeros_like(taken),
        settled_time=jnp.full(taken.shape, jnp.inf, rate.dtype),
        y0=None,
        args=args,
        method=f"{optimiser_name(lanes.optimiser)}, {describe_loss(lanes.loss)}",
        time_unit="optimiser steps",
        failed_at=failed_at,
        final=network_of(setup, own(runs)) if count is None else eqx.combine(runs.parameters, setup.rest),
        learning_rate=rate,
        statistics=own(runs.statistics),
        target=target,
        target_statistics=own(runs.target_statistics),
    )
