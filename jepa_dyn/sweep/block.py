"""One block of a sweep: from the number of its first point to its results, always of the same shape."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn.status import MESSAGES, Status
from jepa_dyn.sweep.grid import Grid


class Output(NamedTuple):
    """Names of a result's own dimensions, and its attributes."""

    dims: tuple[str, ...]
    attrs: dict[str, Any]


@dataclass
class BlockFunction:
    """Maps the number of a block's first point to its results; `outputs` is filled at the latest by the first call."""

    run: Callable[[int], dict[str, np.ndarray]]
    size: int
    outputs: dict[str, Output] = field(default_factory=dict)

    def __call__(self, start: int) -> dict[str, np.ndarray]:
        return self.run(start)


def split_results(returned: Any, grid: Grid, leading: int, outputs: dict[str, Output]) -> dict[str, jax.Array]:
    """Arrays of the function's dict; names of dimensions and attributes go to `outputs`.

    `leading` is the number of axes that belong to the points: 0 for one point, 1 for a block.
    """
    if not isinstance(returned, Mapping):
        raise TypeError(
            f"Argument `fn` must return a dict of named arrays such as {{'w': w}}, but returned {type(returned).__name__}."
        )
    if not returned:
        raise ValueError("Argument `fn` must return at least one named array, but returned an empty dict.")
    arrays = {}
    for name, value in returned.items():
        if name in grid.names or name in grid.dim_names:
            raise ValueError(
                f"A result must not have the name of a parameter or dimension of the grid, but `{name}` has."
            )
        dims, value, attrs = _unpack(name, value)
        array = jnp.asarray(value)
        own = array.ndim - leading
        dims = tuple(f"{name}_dim_{i}" for i in range(own)) if dims is None else dims
        if len(dims) != own:
            raise ValueError(
                f"Result `{name}` must have one name per dimension, but names {dims} for {own} dimensions."
            )
        if name == "status":
            attrs = _status_attrs() | attrs
        arrays[name], outputs[name] = array, Output(dims, attrs)
    return arrays


def _unpack(name: str, value: Any) -> tuple[tuple[str, ...] | None, Any, dict[str, Any]]:
    if not isinstance(value, tuple):
        return None, value, {}
    if len(value) not in (2, 3):
        raise ValueError(
            f"Result `{name}` must be an array, (dims, array) or (dims, array, attrs), but is a tuple of {len(value)}."
        )
    dims = (value[0],) if isinstance(value[0], str) else tuple(value[0])
    return dims, value[1], dict(value[2]) if len(value) == 3 else {}


def _status_attrs() -> dict[str, Any]:
    return {
        "long_name": "outcome of each point",
        "flag_values": [int(code) for code in Status],
        "flag_meanings": " ".join(code.name for code in Status),
        "description": "; ".join(f"{code.name}: {MESSAGES[code]}" for code in Status),
    }


def _indices(start: int, size: int, total: int) -> np.ndarray:
    """Numbers of the block's points; past the end the last point again, to keep the shape."""
    return np.minimum(np.arange(start, start + size), total - 1)


def _keys(key: jax.Array, indices: np.ndarray) -> jax.Array:
    """The key of each point: `fold_in(key, number)`; numbers past 32 bits fold their upper half in as well."""
    low, high = (indices & 0xFFFFFFFF).astype(np.uint32), (indices >> 32).astype(np.uint32)
    folded = jax.vmap(jax.random.fold_in, (None, 0))(key, low)
    if not high.any():
        return folded
    return jax.vmap(lambda one, hi: jax.lax.cond(hi > 0, lambda: jax.random.fold_in(one, hi), lambda: one))(
        folded, high
    )


def mapped_block(
    fn: Callable[..., Any], grid: Grid, key: jax.Array | None, chunk_size: int | None, memory_bytes: int
) -> BlockFunction:
    """Block of a function of one point: vmapped, compiled once for one shape that fits the memory."""
    outputs: dict[str, Output] = {}

    def one_point(point: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return split_results(fn(**point), grid, 0, outputs)

    def inputs(start: int, size: int) -> dict[str, Any]:
        indices = _indices(start, size, len(grid))
        points = dict(grid.points(indices))
        return points if key is None else {**points, "key": _keys(key, indices)}

    single = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), inputs(0, 1))
    shapes = jax.eval_shape(one_point, single)
    per_point = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves((single, shapes)))
    size = min(chunk_size or max(1, memory_bytes // max(per_point, 1)), len(grid))
    program = jax.jit(jax.vmap(one_point))
    compiled = program.lower(inputs(0, size)).compile()
    used = _measured_bytes(compiled)
    if chunk_size is None and used > memory_bytes and size > 1:
        size = max(1, int(size * memory_bytes / used))
        compiled = program.lower(inputs(0, size)).compile()

    def run(start: int) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in compiled(inputs(start, size)).items()}

    return BlockFunction(run, size, outputs)


def _measured_bytes(compiled: Any) -> int:
    """What the compiler says one block uses: arguments, results and workspace; 0 where a backend does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return int(analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes)


def batched_block(fn: Callable[..., Any], grid: Grid, key: jax.Array | None, size: int) -> BlockFunction:
    """Block of a function that takes all its points at once and is left as it is."""
    block = BlockFunction(lambda start: {}, size)

    def run(start: int) -> dict[str, np.ndarray]:
        indices = _indices(start, size, len(grid))
        points: dict[str, Any] = {name: jnp.asarray(values) for name, values in grid.points(indices).items()}
        if key is not None:
            points["key"] = _keys(key, indices)
        arrays = split_results(fn(**points), grid, 1, block.outputs)
        for name, array in arrays.items():
            if array.shape[0] != size:
                raise ValueError(
                    f"Result `{name}` of a batched `fn` must have {size} points first, but has shape {array.shape}."
                )
        return {name: np.asarray(array) for name, array in arrays.items()}

    block.run = run
    return block
