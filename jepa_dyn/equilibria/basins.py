"""Basins of attraction by sampling: which share of the starts ends in which class of equilibria, with confidence intervals.

Starts are drawn, advanced (by a flow or by an algorithm) and classified by an invariant of their end state, such as the rank of
A^T A: two ends on one O(n) orbit are the same class, however far apart. What diverged and what has not settled is counted on its
own, never shared out among the classes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Int
from scipy.stats import binomtest

from jepa_dyn._checks import require, require_choice, require_count, require_fraction, require_positive
from jepa_dyn._progress import progress_bar
from jepa_dyn.solve.ensemble import ensemble
from jepa_dyn.solve.integrate import Flow
from jepa_dyn.solve.settle import stands_still
from jepa_dyn.solve.train import train
from jepa_dyn.status import Status

INTERVALS = ("wilson", "exact")
_FEW_STEPS, _FEW_LANES = 2_000, 8
UNRESOLVED = -1  # what `classify` returns for a state that belongs to no class


class Ends(NamedTuple):
    """Where lanes ended: states with a leading axis (lanes,), a `Status` per lane, whether each has settled."""

    y: Any
    status: np.ndarray
    settled: np.ndarray


Advance = Callable[[Any, Any], Ends]


@eqx.filter_jit
def _stand_still(flow: Flow, y: Any, args: Any, speed: Array) -> Array:
    """Which lanes do."""
    return jax.vmap(lambda y, args: stands_still(flow(0.0, y, args), y, speed))(y, args)


def by_flow(
    flow: Flow, horizon: float, *, settled_speed: float = 1e-6, max_steps: int = 65_536, **options: Any
) -> Advance:
    """Advances lanes along an autonomous flow until they stand still, at most to `horizon`.

    A lane has settled where max |dy/dt| / (1 + max |y|) < `settled_speed`, which must lie above the solver's own noise, some 100
    times its rtol. `max_steps` and `options` go to `solve.ensemble`. Lanes of more than 2,000 steps are done again in small blocks:
    a block takes as long as its slowest lane, and a few stiff ones would hold up many.

    Raises:
        ValueError: a horizon or a speed that is not > 0; as `solve.ensemble`.
    """
    require_positive("horizon", horizon)
    require_positive("settled_speed", settled_speed)

    def run(y0: Any, args: Any, **changed: Any) -> Ends:
        given: dict[str, Any] = {"settle": settled_speed} | options | changed
        runs = ensemble(flow, y0, args, [horizon], **given)
        ends = jax.tree.map(lambda leaf: np.array(leaf[:, 0]), runs.ys)
        return Ends(ends, np.array(runs.status), np.isfinite(runs.settled_time))

    def advance(y0: Any, args: Any) -> Ends:
        ends = run(y0, args, max_steps=min(max_steps, _FEW_STEPS))
        stiff = np.flatnonzero(ends.status == Status.max_steps)
        if stiff.size and max_steps > _FEW_STEPS:
            lanes = ends.status.size
            own = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (lanes, *np.shape(leaf)[1:]))[stiff], (y0, args))
            again = run(*own, max_steps=max_steps, block_size=_FEW_LANES)
            for old, new in zip(jax.tree.leaves(ends), jax.tree.leaves(again), strict=True):
                old[stiff] = new
        return ends

    return advance


def by_steps(
    flow: Flow,
    learning_rate: float,
    steps: int,
    *,
    settled_speed: float = 1e-6,
    optimiser: Any = optax.sgd,
    **options: Any,
) -> Advance:
    """Advances lanes by so many steps of an algorithm, `solve.train` on population moments, and keeps only the end states.

    A lane has settled where the flow stands nearly still, max |dy/dt| / (1 + max |y|) < `settled_speed`. `options` go to `train`.

    Raises:
        ValueError: as `solve.train`.
    """
    require_positive("learning_rate", learning_rate)
    require_positive("settled_speed", settled_speed)

    def advance(y0: Any, args: Any) -> Ends:
        runs = train(
            flow, y0, args, [int(steps)], learning_rate=learning_rate, optimiser=optimiser, observe=_nothing, **options
        )
        status = np.asarray(runs.status)
        settled = (status == Status.ok) & np.asarray(_stand_still(flow, runs.final, args, jnp.asarray(settled_speed)))
        return Ends(jax.tree.map(np.asarray, runs.final), status, settled)

    return advance


def _nothing(y: Any, args: Any) -> Array:
    """Saves no path."""
    return jnp.zeros(0)


class BasinShares(eqx.Module):
    """Shares of the starts that end in each class. `points` are the sets of parameters; one row where there is one.

    - `counts`: (points, classes) runs that settled in each class; `diverged`, `unresolved`: (points,) runs that failed, and runs
      that had not settled or fit no class; `trials`: (points,) all runs.
    - `low`, `high`: (points, classes) bounds of the confidence interval of each share, of all trials.
    """

    classes: tuple[str, ...] = eqx.field(static=True)
    counts: Int[np.ndarray, "points classes"]
    diverged: Int[np.ndarray, " points"]
    unresolved: Int[np.ndarray, " points"]
    trials: Int[np.ndarray, " points"]
    low: Float[np.ndarray, "points classes"]
    high: Float[np.ndarray, "points classes"]
    confidence: float = eqx.field(static=True)

    @property
    def shares(self) -> Float[np.ndarray, "points classes"]:
        """Share of all trials in each class."""
        return self.counts / self.trials[:, None]

    @property
    def width(self) -> Float[np.ndarray, " points"]:
        """Width of the widest interval of each point."""
        return (self.high - self.low).max(axis=1)

    def __str__(self) -> str:
        lines = [f"BasinShares: {len(self.trials)} sets of parameters, {self.confidence:.0%} intervals"]
        for i in range(min(len(self.trials), 8)):
            shares = ", ".join(
                f"{name} {100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}] %"
                for name, share, low, high in zip(self.classes, self.shares[i], self.low[i], self.high[i], strict=True)
            )
            rest = f"diverged {self.diverged[i]}, unresolved {self.unresolved[i]} of {self.trials[i]}"
            lines.append(f"  {shares}; {rest}")
        return "\n".join(lines + (["  ..."] if len(self.trials) > 8 else []))


def binomial_interval(
    count: ArrayLike, trials: ArrayLike, *, confidence: float = 0.95, method: str = "wilson"
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence interval of a share: "wilson" (Wilson 1927) or "exact" (Clopper, Pearson 1934), elementwise.

    Raises:
        ValueError: counts that are not within 0 .. trials, no trials, confidence not in (0, 1), an unknown method.
    """
    require_choice("method", method, INTERVALS)
    require_fraction("confidence", confidence)
    require("trials", trials, "be whole numbers >= 1", lambda a: (a >= 1) & (a == np.round(a)))
    count, trials = np.broadcast_arrays(np.asarray(count), np.asarray(trials))
    require(
        "count", count, "be whole numbers from 0 to `trials`", lambda a: (a >= 0) & (a <= trials) & (a == np.round(a))
    )
    bounds = np.empty((2, *count.shape))
    for index in np.ndindex(count.shape):
        found = binomtest(int(count[index]), int(trials[index])).proportion_ci(confidence, method)
        bounds[(slice(None), *index)] = found.low, found.high
    return bounds[0], bounds[1]


def basin_shares(
    advance: Advance,
    draw: Callable[[Array], Any],
    args: Any,
    classify: Callable[[Any, Any], Any],
    classes: Sequence[str],
    *,
    key: Array,
    over_parameters: bool = False,
    runs: int = 10_000,
    width: float | None = None,
    batch_size: int = 2_000,
    confidence: float = 0.95,
    interval: str = "wilson",
    progress: bool = True,
) -> BasinShares:
    """Shares of random starts that end in each class of equilibria.

    Args:
        advance: from `by_flow` or `by_steps`, or a function (y0, args) -> `Ends` of one's own; both have a leading axis of lanes.
        draw: a key -> one start.
        args: parameters of one system; with `over_parameters` a stack of them, every leaf with a leading axis (points,).
        classify: (y, args) -> the number of its class, 0 .. len(classes) - 1, or `UNRESOLVED`; of one state, as a JAX function.
            Take an invariant that does not change along an orbit, e.g. a rank or a trace.
        classes: names, in the order of the numbers.
        key: run i of every point starts from draw(fold_in(key, i)): the same starts at every point, whatever the batch size.
        runs: of each point, or the most where `width` is given.
        width: stop once the widest interval of every point is narrower than this (sequential sampling: looked at after each batch,
            so that the confidence of the last look is slightly below the nominal one).
        batch_size: runs of each point per batch.
        confidence, interval: of `binomial_interval`.
        progress: shows a bar.

    Raises:
        ValueError: a bad argument, or `classify` returning a number that is no class.
    """
    for name, value in (("runs", runs), ("batch_size", batch_size)):
        require_count(name, value)
    require_choice("interval", interval, INTERVALS)
    require_fraction("confidence", confidence)
    if width is not None:
        require_positive("width", width)
    if len(classes) == 0:
        raise ValueError("Argument `classes` must name at least one class, but is empty.")
    stack = args if over_parameters else jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], args)
    leaves = jax.tree.leaves(stack)
    points = len(leaves[0]) if leaves else 1
    counts = np.zeros((points, len(classes)), np.int64)
    diverged, unresolved, trials = (np.zeros(points, np.int64) for _ in range(3))
    bounds = [(first, min(first + batch_size, runs)) for first in range(0, runs, batch_size)]
    low, high = np.zeros(counts.shape), np.ones(counts.shape)
    for first, last in progress_bar(
        bounds, points * runs, show=progress, weight=lambda b: points * (b[1] - b[0]), unit="runs"
    ):
        numbers = jnp.arange(first, last)
        starts = jax.vmap(lambda i: draw(jax.random.fold_in(key, i)))(numbers)
        size = last - first
        lanes = jax.tree.map(lambda leaf, size=size: jnp.repeat(jnp.asarray(leaf), size, axis=0), stack)
        y0 = jax.tree.map(lambda leaf: jnp.tile(leaf, (points, *(1,) * (leaf.ndim - 1))), starts)
        ends = advance(y0, lanes)
        label = np.asarray(jax.vmap(classify)(jax.tree.map(jnp.asarray, ends.y), lanes)).reshape(points, size)
        if label.min() < UNRESOLVED or label.max() >= len(classes):
            raise ValueError(
                f"Argument `classify` must return -1 or a number below {len(classes)}, but returned {label.min()} to {label.max()}."
            )
        failed = (ends.status != Status.ok).reshape(points, size)
        decided = ends.settled.reshape(points, size) & ~failed & (label != UNRESOLVED)
        for i in range(len(classes)):
            counts[:, i] += (decided & (label == i)).sum(axis=1)
        diverged += failed.sum(axis=1)
        unresolved += (~failed & ~decided).sum(axis=1)
        trials += size
        low, high = binomial_interval(counts, trials[:, None], confidence=confidence, method=interval)
        if width is not None and (high - low).max() < width:
            break
    return BasinShares(tuple(classes), counts, diverged, unresolved, trials, low, high, confidence)
