"""Many lanes of small matrices through a loop of steps: in blocks that stay in the cache, with the lanes last in memory.

The loop of a whole batch streams every weight through memory at each step, and lanes first leaves the processor's vector units
inner loops of two or three entries. Steps of siamese networks at (n, m) = (2, 1) are three to four times as fast for it.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jepa_dyn._checks import is_traced
from jepa_dyn.flows._products import SMALL
from jepa_dyn.solve._devices import map_blocks

BLOCK = 512


def blocks_pay(lanes: Any, mapped: tuple[bool, ...]) -> bool:
    """Whether there is more than a block of lanes, of small matrices only, on a CPU, outside of JAX transformations."""
    leaves = jax.tree.leaves(eqx.filter(lanes, eqx.is_array))
    lengths = [leaf.shape[0] for leaf, flag in zip(leaves, mapped, strict=True) if flag]
    sides = [side for leaf, flag in zip(leaves, mapped, strict=True) for side in leaf.shape[int(flag) :]]
    small = bool(lengths) and lengths[0] > BLOCK and max(sides, default=1) <= SMALL
    return small and not is_traced(leaves) and jax.default_backend() == "cpu"


def loop_in_blocks(
    begin: Callable[[Any], Any],
    one_step: Callable[[Any, Array, Any], Any],
    observed: Callable[[Any, Any], Any],
    lanes: Any,
    mapped: tuple[bool, ...],
    segments: tuple[Array, Array],
) -> tuple[Any, Any]:
    """(runs after the last step, what was observed after each segment), lanes first.

    Args:
        begin: a lane -> its run; one_step: (lane, number, run) -> run; observed: (lane, run) -> array or pytree.
        lanes, mapped: what a lane is made of, and which of its arrays carry a first axis of lanes.
        segments: first step and end of each segment.
    """
    arrays, rest = eqx.partition(lanes, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)
    own = [leaf for leaf, flag in zip(leaves, mapped, strict=True) if flag]
    common = [leaf for leaf, flag in zip(leaves, mapped, strict=True) if not flag]
    num_lanes = own[0].shape[0]
    padding = -num_lanes % BLOCK
    own = [jnp.concatenate([leaf, jnp.repeat(leaf[-1:], padding, axis=0)]) for leaf in own]

    def block(shared: tuple, own: list) -> tuple[Any, Any]:
        common, segments = shared
        own = [jnp.moveaxis(leaf, 0, -1) for leaf in own]

        def over(function: Callable, *carried: Any) -> Any:
            def one(own: list, *carried: Any) -> Any:
                mine, others = iter(own), iter(common)
                joined = [next(mine) if flag else next(others) for flag in mapped]
                return function(eqx.combine(jax.tree.unflatten(treedef, joined), rest), *carried)

            return jax.vmap(one, -1, -1)(own, *carried)

        def segment(run: Any, ends: tuple[Array, Array]) -> tuple[Any, Any]:
            def advance(number: Array, run: Any) -> Any:
                return over(lambda lane, run: one_step(lane, number, run), run)

            run = jax.lax.fori_loop(*ends, advance, run)
            return run, over(observed, run)

        run, ys = jax.lax.scan(segment, over(begin), segments)
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), (run, ys))

    result = map_blocks(block, (common, segments), own, BLOCK, (None,))
    return jax.tree.map(lambda leaf: leaf[:num_lanes], result)
