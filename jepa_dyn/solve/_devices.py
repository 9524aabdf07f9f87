"""Spreading blocks of lanes over cores or devices: independent loops, no collectives, the caller's order kept."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int

from jepa_dyn._precision import x64_context, x64_is_on

Device: TypeAlias = Any  # jax.Device, which is a value and no type to a type checker


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Any], Any], items: Sequence[Any], most: int | None = None) -> list[Any]:
    """`function` of every item, in order, on threads of our own, one per core or `most`, with the caller's number width.

    XLA runs the loops of small programs on the thread that called them: on a CPU this is how they use every core. Host devices
    of XLA do so less well, or not at all.
    """
    workers = min(num_cores() if most is None else most, len(items))
    if workers < 2:
        return [function(item) for item in items]
    x64 = x64_is_on()

    def one(item: Any) -> Any:
        with x64_context(x64):
            return function(item)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, items))


def default_block_size(device: Device, num_lanes: int, num_devices: int) -> int:
    """128 lanes on a CPU, whose cache they fit; on an accelerator one block for each device, up to 2^18 lanes."""
    if device.platform == "cpu":
        return 128
    return min(-(-num_lanes // num_devices), 2**18)


def block_order(key: np.ndarray | None, num_lanes: int, block_size: int, num_devices: int) -> np.ndarray:
    """Which lane stands where: sorted by `key`, cut into blocks that are dealt to the devices (or threads) in turn.

    Each one's run of blocks is contiguous in the result. The last lane is repeated until all have equally many.
    """
    order = np.arange(num_lanes) if key is None else np.argsort(key, kind="stable")
    padded = -(-num_lanes // (block_size * num_devices)) * block_size * num_devices
    order = np.concatenate([order, np.full(padded - num_lanes, order[-1])]).reshape(-1, block_size)
    return np.concatenate([order[device::num_devices] for device in range(num_devices)]).reshape(-1)


def map_blocks(
    function: Callable[..., Any],
    shared: Any,
    lanes: Any,
    block_size: int,
    devices: tuple[Device, ...],
) -> Any:
    """`function(shared, block)` over blocks of the leading axis of `lanes`, each device looping over its own blocks.

    The number of lanes is a multiple of block_size * len(devices).
    """

    def local(shared: Any, lanes: Any) -> Any:
        blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, block_size, *leaf.shape[1:]), lanes)
        result = jax.lax.map(lambda block: function(shared, block), blocks)
        return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * block_size, *leaf.shape[2:]), result)

    if len(devices) == 1:
        return local(shared, lanes)
    mesh = Mesh(np.asarray(devices), ("lanes",))
    split, whole = PartitionSpec("lanes"), PartitionSpec()
    return jax.shard_map(local, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False)(shared, lanes)


@eqx.filter_jit
def _take(tree: Any, position: Int[Array, " lanes"]) -> Any:
    return jax.tree.map(lambda leaf: leaf[position], tree)


def original_order(parts: Sequence[Any], order: np.ndarray, num_lanes: int, device: Device) -> Any:
    """Results of the parts in which `order` was run, back in the caller's order, padding dropped, on one device."""
    if device.platform != "cpu":
        (tree,) = parts
        position = np.empty(num_lanes, np.int64)
        position[order[::-1]] = np.arange(order.size)[::-1]
        return _take(jax.device_put(tree, device), jnp.asarray(position, jnp.int32))
    size = order.size // len(parts)

    def scatter(*leaves: Array) -> Array:
        out = np.empty((num_lanes, *leaves[0].shape[1:]), leaves[0].dtype)
        # part by part: no second copy of the whole is made
        for i, leaf in enumerate(leaves):
            out[order[i * size : (i + 1) * size]] = np.asarray(leaf)
        return jax.device_put(out, device)

    return jax.tree.map(scatter, *parts)
