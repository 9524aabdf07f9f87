"""The compiled programs of training: all lanes at once, on a CPU in blocks of lanes that stay in the cache, on threads over them.

On an accelerator all lanes are one block. On a CPU lanes whose numbers do not fit the cache together take longer (a small ResNet
twice as long with 16 lanes as alone), and a few small ones take longer because of what every operation costs (a perceptron of 32
units twice as long with 8 lanes as with 64). Which lanes share a block changes no more than rounding.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jepa_dyn._programs import bears_threads
from jepa_dyn.solve._devices import in_threads, num_cores
from jepa_dyn.training.observation import observe_run
from jepa_dyn.training.step import Lane, NetworkRun, Setup, begin, evaluation_views, step

CHUNK = 16  # logged steps per call of the compiled program, which so does not depend on how many there are
_BLOCK_BYTES = 2**24  # computed in the forward pass of one block on a CPU
_LEAST_FOR_A_THREAD = 4  # lanes, below which a block is not split between cores


class Observed(eqx.Module):
    """What is logged."""

    probe: Any
    own: Any
    spectra: bool = eqx.field(static=True)


class ManyLanes:
    """Lanes in blocks of one size, the last filled up with its last lane.

    Args:
        setup, lanes, observed: what they share, what they differ in, what is logged.
        lane_bytes: what one lane computes in a step, see `bytes_computed`.
    """

    def __init__(self, setup: Setup, lanes: Lane, observed: Observed, lane_bytes: int) -> None:
        self.setup, self.observed, self.count = setup, observed, lanes.seed.shape[0]
        self.size = block_size(self.count, lane_bytes)
        self.threads: int | None = 1
        self.apart = False
        self.lanes = self.cut(lanes)
        self.evaluation = [_evaluation(setup, block) for block in self.lanes]

    def begin(self) -> list[NetworkRun]:
        """The runs before their first step, in blocks."""
        return [_begin(self.setup, own, views) for own, views in zip(self.lanes, self.evaluation, strict=True)]

    def advance(self, runs: list[NetworkRun], bounds: Int[Array, "chunk 2"]) -> tuple[list[NetworkRun], Any]:
        """(the runs after some stretches of steps in blocks, what was logged after each, of all lanes); see `_advance`."""

        if self.apart:
            return self._advance_apart(runs, bounds)

        def one(lanes: Lane, views: Any, run: NetworkRun) -> Any:
            return _advance(self.setup, self.observed, lanes, views, run, bounds)

        results = self._each(one, self.lanes, self.evaluation, runs)
        return [run for run, _ in results], self.join([values for _, values in results])

    def _advance_apart(self, runs: list[NetworkRun], bounds: Int[Array, "chunk 2"]) -> tuple[list[NetworkRun], Any]:
        """`advance` with the steps of each stretch on threads and what is logged after it on one."""
        logs: list[Any] = []
        for ends in bounds[np.asarray(bounds[:, 0]) >= 0]:
            runs = self._each(lambda lanes, run, ends=ends: _train(self.setup, lanes, run, ends), self.lanes, runs)
            blocks = zip(self.lanes, self.evaluation, runs, strict=True)
            logs.append(self.join([_observe(self.setup, self.observed, *block) for block in blocks]))
        return runs, jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *logs)

    def _each(self, function: Callable, *blocks: list[Any]) -> list[Any]:
        """`function` of every block, on threads where there are several."""
        items = list(zip(*blocks, strict=True))
        if len(items) == 1:
            return [function(*items[0])]
        return in_threads(lambda block: jax.block_until_ready(function(*block)), items, self.threads)

    def trace(self, runs: list[NetworkRun]) -> Any:
        """Shapes of what `advance` logs; settles on what of it threads run."""
        bounds = jnp.zeros((CHUNK, 2), jnp.int32)
        program, (_, logged), _ = eqx.filter_make_jaxpr(_advance)(
            self.setup, self.observed, self.lanes[0], self.evaluation[0], runs[0], bounds
        )
        if bears_threads(program.jaxpr):
            self.threads = None
        elif len(self.lanes) > 1:
            steps = eqx.filter_make_jaxpr(_train)(self.setup, self.lanes[0], runs[0], bounds[0])[0]
            self.apart = bears_threads(steps.jaxpr)
            self.threads = None if self.apart else 1
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((self.count, *leaf.shape[1:]), leaf.dtype), logged)

    def cut(self, tree: Any) -> list[Any]:
        """A tree of all lanes in blocks."""
        if self.size == self.count:
            return [tree]
        arrays, rest = eqx.partition(tree, eqx.is_array)

        def block(first: int) -> Any:
            chosen = jnp.minimum(jnp.arange(first, first + self.size), self.count - 1)
            return eqx.combine(jax.tree.map(lambda leaf: leaf[chosen], arrays), rest)

        return [block(first) for first in range(0, self.count, self.size)]

    def join(self, blocks: list[Any]) -> Any:
        """All lanes of some blocks."""
        if len(blocks) == 1:
            return blocks[0]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: self.count], *blocks)


def block_size(count: int, lane_bytes: int) -> int:
    """Lanes in a block: all on an accelerator; on a CPU as many as suit its cache, and at least a block for every core."""
    if jax.default_backend() != "cpu":
        return count
    fit = max(1, _BLOCK_BYTES // max(lane_bytes, 1))
    blocks = max(-(-count // fit), min(num_cores(), count // _LEAST_FOR_A_THREAD), 1)
    return -(-count // blocks)


@eqx.filter_jit
def _evaluation(setup: Setup, lanes: Lane) -> Any:
    return over_lanes(lambda lane: evaluation_views(setup, lane), lanes)


@eqx.filter_jit
def _begin(setup: Setup, lanes: Lane, evaluation: Any) -> NetworkRun:
    return over_lanes(lambda lane, own: begin(setup, lane, own), lanes, evaluation)


@eqx.filter_jit
def _train(setup: Setup, lanes: Lane, runs: NetworkRun, ends: Array) -> NetworkRun:
    """The runs after the steps from ends[0] to ends[1]."""

    def one_step(number: Array, runs: NetworkRun) -> NetworkRun:
        return over_lanes(lambda lane, run: step(setup, lane, run, number), lanes, runs)

    return jax.lax.fori_loop(ends[0], ends[1], one_step, runs)


@eqx.filter_jit
def _observe(setup: Setup, observed: Observed, lanes: Lane, evaluation: Any, runs: NetworkRun) -> Any:
    def log(lane: Lane, run: NetworkRun, views: Any) -> Any:
        return observe_run(setup, lane, observed.probe, observed.own, observed.spectra, run, views)

    return over_lanes(log, lanes, runs, evaluation)


@eqx.filter_jit
def _advance(
    setup: Setup, observed: Observed, lanes: Lane, evaluation: Any, runs: NetworkRun, bounds: Array
) -> tuple[NetworkRun, Any]:
    """The runs after some stretches of steps, and what was logged after each; bounds (first, end) with first < 0 are no stretch."""

    def observe(runs: NetworkRun) -> Any:
        return _observe(setup, observed, lanes, evaluation, runs)

    def stretch(runs: NetworkRun, ends: Array) -> tuple[NetworkRun, Any]:
        runs = _train(setup, lanes, runs, ends)
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(observe, runs))
        return runs, jax.lax.cond(ends[0] >= 0, observe, lambda _: blank, runs)

    runs, values = jax.lax.scan(stretch, runs, bounds)
    return runs, jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), values)


def over_lanes(function: Callable, lanes: Lane, *carried: Any) -> Any:
    """`function(lane, *carried)` over the lanes; everything in `carried` has an axis of lanes."""
    arrays, rest = eqx.partition(lanes, eqx.is_array)
    return jax.vmap(lambda own, *carried: function(eqx.combine(own, rest), *carried))(arrays, *carried)
