"""Many lanes through a loop of steps on a CPU: in blocks that stay in the cache, small ones with the lanes last in memory.

The loop of a whole batch streams every weight through memory at each step, and lanes first leaves the processor's vector units
inner loops of two or three entries. Steps of siamese networks at (n, m) = (2, 1) are three to four times as fast for it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jepa_dyn._checks import is_traced
from jepa_dyn._programs import bears_threads
from jepa_dyn.flows._products import SMALL
from jepa_dyn.solve._devices import in_threads, map_blocks


class Layout(NamedTuple):
    """How many lanes are a block, and where in memory the lanes of a block stand."""

    block: int
    axis: int


# small matrices: lanes last, and enough of them to fill the vector units; others: as they come, as many as fit the cache
_SMALL, _LARGE = Layout(512, -1), Layout(64, 0)


def block_layout(lanes: Any, mapped: tuple[bool, ...]) -> Layout | None:
    """The layout for these lanes; None where there is less than a block of them, off the CPU and inside JAX transformations."""
    leaves = jax.tree.leaves(eqx.filter(lanes, eqx.is_array))
    lengths = [leaf.shape[0] for leaf, flag in zip(leaves, mapped, strict=True) if flag]
    sides = [side for leaf, flag in zip(leaves, mapped, strict=True) for side in leaf.shape[int(flag) :]]
    layout = _SMALL if max(sides, default=1) <= SMALL else _LARGE
    many = bool(lengths) and lengths[0] > layout.block
    return layout if many and not is_traced(leaves) and jax.default_backend() == "cpu" else None


def loop_in_blocks(
    begin: Callable[[Any], Any],
    one_step: Callable[[Any, Array, Any], Any],
    observed: Callable[[Any, Any], Any],
    lanes: Any,
    mapped: tuple[bool, ...],
    segments: tuple[Array, Array],
    layout: Layout,
) -> tuple[Any, Any]:
    """(runs after the last step, what was observed after each segment), lanes first; their number is a multiple of the block.

    Args:
        begin: a lane -> its run; one_step: (lane, number, run) -> run; observed: (lane, run) -> array or pytree.
        lanes, mapped: what a lane is made of, and which of its arrays carry a first axis of lanes.
        segments: first step and end of each segment.
    """
    arrays, rest = eqx.partition(lanes, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)
    own = [leaf for leaf, flag in zip(leaves, mapped, strict=True) if flag]
    common = [leaf for leaf, flag in zip(leaves, mapped, strict=True) if not flag]
    axis = layout.axis

    def block(shared: tuple, own: list) -> tuple[Any, Any]:
        common, segments = shared
        own = [jnp.moveaxis(leaf, 0, axis) for leaf in own]

        def over(function: Callable, *carried: Any) -> Any:
            def one(own: list, *carried: Any) -> Any:
                mine, others = iter(own), iter(common)
                joined = [next(mine) if flag else next(others) for flag in mapped]
                return function(eqx.combine(jax.tree.unflatten(treedef, joined), rest), *carried)

            return jax.vmap(one, axis, axis)(own, *carried)

        def segment(run: Any, ends: tuple[Array, Array]) -> tuple[Any, Any]:
            def advance(number: Array, run: Any) -> Any:
                return over(lambda lane, run: one_step(lane, number, run), run)

            run = jax.lax.fori_loop(*ends, advance, run)
            return run, over(observed, run)

        run, ys = jax.lax.scan(segment, over(begin), segments)
        # what was observed has the segments in front
        first = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, axis, 0), run)
        return first, jax.tree.map(lambda leaf: jnp.moveaxis(leaf, axis if axis < 0 else axis + 1, 0), ys)

    return map_blocks(block, (common, segments), own, layout.block, (None,))


def over_threads(run: Callable[[Any], Any], lanes: Any, mapped: tuple[bool, ...], block: int, threads: int) -> Any:
    """`run(part)` of equal parts of the lanes, one per thread, joined again in their order. Every part is of whole blocks."""
    arrays, rest = eqx.partition(lanes, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)
    num_lanes = next(leaf.shape[0] for leaf, flag in zip(leaves, mapped, strict=True) if flag)
    blocks = -(-num_lanes // block)
    threads = min(threads, blocks)
    size = -(-blocks // threads) * block

    def part(first: int) -> Any:
        def cut(leaf: Array) -> Array:
            part = leaf[first : first + size]
            missing = size - len(part)
            return jnp.concatenate([part, jnp.repeat(leaf[-1:], missing, axis=0)]) if missing else part

        own = [cut(leaf) if flag else leaf for leaf, flag in zip(leaves, mapped, strict=True)]
        return eqx.combine(jax.tree.unflatten(treedef, own), rest)

    if threads > 1 and not bears_threads(eqx.filter_make_jaxpr(run)(part(0))[0].jaxpr):
        threads = 1
    parts = in_threads(lambda first: jax.block_until_ready(run(part(first))), range(0, num_lanes, size), threads)
    return jax.tree.map(lambda *each: jnp.concatenate(each)[:num_lanes], *parts)
