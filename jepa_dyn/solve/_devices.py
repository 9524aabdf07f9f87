"""Spreading blocks of lanes over the local devices: independent loops, no collectives, the caller's order kept."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int

Device: TypeAlias = Any  # jax.Device, which is a value and no type to a type checker


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_host_devices(count: int | None = None) -> int:
    """Lets JAX use `count` CPU devices (default: one per core that this process may use), and returns how many it has.

    One XLA CPU device runs the loop of an ensemble on one core. To be called before JAX computes anything: the number of
    devices is fixed when JAX starts its backend. A command line does this for its user, a library must not.

    Raises:
        ValueError: count < 1.
        RuntimeError: JAX has already started with a different number.
    """
    if count is None:
        count = num_cores()
    if count < 1:
        raise ValueError(f"Argument `count` must be a whole number >= 1, but is {count!r}.")
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        if len(jax.local_devices(backend="cpu")) != count:
            raise RuntimeError(
                f"JAX already runs with {len(jax.local_devices(backend='cpu'))} CPU devices: call `use_host_devices` before "
                f"any computation, or set XLA_FLAGS=--xla_force_host_platform_device_count={count} before starting Python."
            ) from error
    return len(jax.local_devices(backend="cpu"))


def default_block_size(device: Device, num_lanes: int, num_devices: int) -> int:
    """128 lanes on a CPU, whose cache they fit; on an accelerator one block for each device, up to 2^18 lanes."""
    if device.platform == "cpu":
        return 128
    return min(-(-num_lanes // num_devices), 2**18)


def block_order(key: np.ndarray | None, num_lanes: int, block_size: int, num_devices: int) -> np.ndarray:
    """Which lane stands where: sorted by `key`, cut into blocks that are dealt to the devices in turn.

    Each device's run of blocks is contiguous in the result. The last lane is repeated until all devices have equally many.
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


def original_order(tree: Any, order: np.ndarray, num_lanes: int, devices: Sequence[Device]) -> Any:
    """Results back in the caller's order, padding dropped, on the first device."""
    if devices[0].platform != "cpu":
        position = np.empty(num_lanes, np.int64)
        position[order[::-1]] = np.arange(order.size)[::-1]
        return _take(jax.device_put(tree, devices[0]), jnp.asarray(position, jnp.int32))

    def scatter(leaf: Array) -> Array:
        out = np.empty((num_lanes, *leaf.shape[1:]), leaf.dtype)
        # shard by shard: no second copy of the whole is made
        for shard in leaf.addressable_shards:
            out[order[shard.index[0]]] = np.asarray(shard.data)
        return jax.device_put(out, devices[0])

    return jax.tree.map(scatter, tree)
