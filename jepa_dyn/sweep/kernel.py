"""The function of a sweep as programs over blocks of points: compiled once per static choice, shared by every local device.

A block's lanes run in tiles of one size, which depends on the size of the block alone: devices and threads are dealt tiles, so
that the same program sees the same lanes whoever runs it.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jepa_dyn._programs import bears_threads
from jepa_dyn.solve._devices import Device, in_threads, num_cores
from jepa_dyn.sweep.boxes import Boxes
from jepa_dyn.sweep.failures import judged
from jepa_dyn.sweep.grid import Grid
from jepa_dyn.sweep.reduce import Reduce, summarise
from jepa_dyn.sweep.results import Output, split_results

TILE, LEAST_TILES = 1024, 16  # on a CPU: lanes that fit its cache; shares for 16 threads or devices
ACCELERATOR_TILE = 2**18
Parts: TypeAlias = list[dict[str, Any]]
_BAD = "failed: "


def require_names(fn: Callable, grid: Grid, key: jax.Array | None) -> None:
    """Says which parameters do not fit before JAX says it at length."""
    if key is not None and "key" in grid.names:
        raise ValueError("A grid must not have an axis called `key` where the argument `key` is given.")
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return
    names = (*grid.names, *(("key",) if key is not None else ()))
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise TypeError(
            f"Argument `fn` must take the parameters ({', '.join(names)}) by name, but takes ({takes}): {error}."
        ) from None


def folded_key(wide: bool, key: jax.Array, low: Any, high: Any) -> jax.Array:
    """The key of a point: `fold_in(key, number)`; in `wide` grids, numbers past 32 bits fold their upper half in as well."""
    one = jax.random.fold_in(key, low)
    return jax.lax.cond(high > 0, lambda: jax.random.fold_in(one, high), lambda: one) if wide else one


def words(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper 32 bits."""
    return (numbers & 0xFFFFFFFF).astype(np.uint32), (numbers >> 32).astype(np.uint32)


class Kernel(ABC):
    """What every block of a sweep is computed by. `start(number)` begins a block, what it returns is called for the results.

    `boxes` are the blocks; set them with `cover`. `outputs` says what there is to know about the results as soon as it is known.
    """

    boxes: Boxes

    def __init__(
        self,
        fn: Callable[..., Any],
        grid: Grid,
        key: jax.Array | None,
        keep: tuple[str, ...] | None,
        reduction: Reduce | None,
    ):
        self.fn, self.grid, self.key, self.keep, self.reduction = fn, grid, key, keep, reduction
        self.outputs: dict[str, Output] = {}
        self.wide = len(grid) > 2**32
        over = reduction.over if reduction else ()
        self.reduced = tuple(i for i, name in enumerate(grid.dim_names) if name in over)
        self.kept = tuple(i for i in range(len(grid.shape)) if i not in self.reduced)

    def cover(self, boxes: Boxes) -> int:
        """Takes these blocks; returns the bytes that one of them will use, 0 where unknown."""
        self.boxes = boxes
        return 0

    @abstractmethod
    def start(self, number: int) -> Callable[[], Parts]:
        """Begins block `number`; the call of what is returned waits for it."""

    @property
    def _order(self) -> tuple[int, ...] | None:
        """Dimensions of the grid as the lanes of a block run through them, the slowest first; None for a plain run of points."""
        return self.reduced + self.kept if self.boxes.shape == self.grid.shape else None

    def numbers(self, number: int) -> np.ndarray:
        """Numbers of the block's points, in the order of its lanes: what is reduced varies slowest."""
        return self.boxes.numbers(number, self._order)

    def valid(self, number: int) -> np.ndarray:
        """Which lanes of the block are points of the grid, and not repetitions that fill it up."""
        mask = np.zeros(self.boxes.box, bool)
        mask[self.boxes.inside(number)] = True
        return mask.transpose(self._order).reshape(-1)

    def values(self, number: int) -> dict[str, np.ndarray]:
        """Parameters of the block's lanes: each looked up along its own dimension and spread over the others."""
        order, grid = self._order, self.grid
        if order is None:
            return dict(grid.points(self.boxes.numbers(number)))
        sides, place = [self.boxes.box[dim] for dim in order], self.boxes.place(number)
        found = {name: np.full(self.boxes.points, one.values[0]) for name, one in grid.constants.items()}
        for position, dim in enumerate(order):
            shape = [1] * len(order)
            shape[position] = -1
            for name, along in grid.dims[dim].at(self.boxes.along(place, dim)).items():
                found[name] = np.broadcast_to(along.reshape(shape), sides).reshape(-1)
        return found

    def split_statics(self, points: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Traced parameters, and the static ones, of which a block has one value each."""
        statics = {name: points[name].reshape(-1)[0].item() for name in self.grid.static_names}
        return {name: values for name, values in points.items() if name not in statics}, statics

    def _summarised(self, arrays: Mapping[str, jax.Array], valid: jax.Array) -> dict[str, jax.Array]:
        """Partial results and the judgement of each lane, in the place of the results."""
        assert self.reduction is not None
        columns = int(np.prod([self.boxes.box[dim] for dim in self.kept], dtype=int))

        def rows(x: jax.Array) -> jax.Array:
            return x.reshape(-1, columns, *x.shape[1:])

        wanted = {name: rows(arrays[name]) for name in self.reduction.names(self.outputs)}
        found = summarise(self.reduction, wanted, rows(valid))
        bad = {_BAD + name: one for name, one in judged(arrays, self.outputs, jnp).items()}
        return found | bad


def split_judgement(parts: Parts) -> tuple[Parts, dict[str, np.ndarray]]:
    """Partial results of each worker, and what a reducing program says about each lane."""
    bad = [name for name in parts[0] if name.startswith(_BAD)]
    judgement = {name.removeprefix(_BAD): np.concatenate([np.asarray(p[name]) for p in parts]) for name in bad}
    return [{name: p[name] for name in p if name not in bad} for p in parts], judgement


class MappedKernel(Kernel):
    """A function of one point: vmapped and compiled, its lanes shared by the local devices, or on one CPU by threads."""

    def __init__(
        self,
        fn: Callable[..., Any],
        grid: Grid,
        key: jax.Array | None = None,
        keep: tuple[str, ...] | None = None,
        reduction: Reduce | None = None,
        devices: Sequence[Device] | None = None,
        threads: int | None = None,
    ):
        super().__init__(fn, grid, key, keep, reduction)
        self.devices = tuple(jax.local_devices() if devices is None else devices)
        self.programs: dict[tuple, Any] = {}
        self.traces = {group: self._trace(dict(group)) for group in self._groups()}
        on_cpu = self.devices[0].platform == "cpu"
        if on_cpu and not all(bears_threads(one.jaxpr) for one in self.traces.values()):
            self.devices, threads = self.devices[:1], 1
        on_one_cpu = on_cpu and len(self.devices) == 1
        self.threads = (num_cores() if threads is None else threads) if on_one_cpu else 1
        self.workers = self.threads if on_one_cpu else len(self.devices)
        if reduction:
            reduction.check(grid, self.outputs)

    def _groups(self) -> list[tuple]:
        """Every combination of static values, as items of a dict."""
        strides = np.cumprod((1, *self.grid.shape[:0:-1]))[::-1] if self.grid.shape else np.array([])
        numbers = np.zeros(1, np.int64)
        for dim, stride in zip(self.grid.dims, strides, strict=True):
            if dim.static_names:
                numbers = (numbers[:, None] + np.arange(dim.size) * stride).reshape(-1)
        points = self.grid.points(numbers)
        rows = zip(*([value.item() for value in points[name]] for name in self.grid.static_names), strict=True)
        names = self.grid.static_names
        return list(dict.fromkeys(tuple(zip(names, row, strict=True)) for row in rows)) if names else [()]

    def _one_point(self, statics: Mapping[str, Any], outputs: dict[str, Output], key: Any, lane: tuple) -> dict:
        points, number = lane
        given = dict(points) if key is None else {**points, "key": folded_key(self.wide, key, *number)}
        return split_results(self.fn(**given, **statics), self.grid, 0, outputs, self.keep)

    def _lanes(self, count: int) -> tuple:
        """Parameters and words of so many lanes, all of them the first point: what a program is compiled for."""
        points, _ = self.split_statics(dict(self.grid.points(np.zeros(count, np.int64))))
        return points, self._words(points, lambda: np.zeros(count, np.int64))

    def _words(self, points: Mapping[str, Any], numbers: Callable[[], np.ndarray]) -> tuple:
        """Numbers of the points for their keys, or where there would be nothing else to tell how many lanes there are."""
        return words(numbers()) if self.key is not None or not points else ()

    def _trace(self, statics: dict[str, Any]) -> Any:
        """The program of one point, uncompiled. Fills `outputs`, which every static choice must agree on."""
        lanes = self._lanes(1)
        lane = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), lanes)
        outputs: dict[str, Output] = {}
        traced = jax.make_jaxpr(partial(self._one_point, statics, outputs))(self.key, lane)
        if not self.outputs:
            self.outputs.update(outputs)
        for name in self.outputs.keys() | outputs.keys():
            one, other = self.outputs.get(name), outputs.get(name)
            if (
                one is None
                or other is None
                or (one.dims, one.shape, one.dtype) != (other.dims, other.shape, other.dtype)
            ):
                raise ValueError(
                    f"Result `{name}` must have one shape and number type for all static values, but at {statics} is "
                    f"{_described(other)} instead of {_described(one)}."
                )
        return traced

    @property
    def bytes_per_point(self) -> int:
        """Parameters and results of one point."""
        given = sum(np.dtype(one.dtype).itemsize for one in self._lanes(1)[0].values())
        return given + sum(int(np.prod(o.shape)) * np.dtype(o.dtype).itemsize for o in self.outputs.values())

    def cover(self, boxes: Boxes) -> int:
        """Takes these blocks and compiles the first program; returns what the compiler says that one block uses."""
        self.boxes, self.programs = boxes, {}
        columns = int(np.prod([boxes.box[dim] for dim in self.kept], dtype=int)) if self.reduction else 1
        rows = -(-boxes.points // columns)
        self.lanes = -(-rows // self.workers) * self.workers * columns
        on_cpu = self.devices[0].platform == "cpu"
        self.tile = min(TILE, -(-boxes.points // LEAST_TILES)) if on_cpu else min(ACCELERATOR_TILE, boxes.points)
        return measured_bytes(self._program(self.split_statics(self.values(0))[1])) * self.threads

    def _program(self, statics: dict[str, Any]) -> Any:
        """Compiled for one worker's lanes where threads call it, for all lanes where devices share them."""
        group = tuple(statics.items())
        if group not in self.programs:
            one = partial(self._one_point, statics, {})

            def local(key: Any, lanes: tuple, valid: Any) -> dict[str, jax.Array]:
                arrays = tiled(partial(one, key), lanes, self.tile)
                if not self.reduction:
                    return arrays
                return self._summarised(arrays, valid)

            share = self.lanes // self.threads
            lanes = self._lanes(share)
            valid = np.zeros(share, bool) if self.reduction else None
            program = jax.jit(local) if len(self.devices) == 1 else self._over_devices(local)
            with jax.default_device(self.devices[0]):
                self.programs[group] = program.lower(self.key, lanes, valid).compile()
        return self.programs[group]

    def _over_devices(self, local: Callable) -> Any:
        """The program on every device for its own lanes: no device waits for another."""
        mesh = Mesh(np.asarray(self.devices), ("lanes",))
        split, whole = PartitionSpec("lanes"), PartitionSpec()

        def own(key: Any, lanes: tuple, valid: Any) -> dict[str, jax.Array]:
            found = local(key, lanes, valid)
            return jax.tree.map(lambda leaf: leaf[None], found) if self.reduction else found

        mapped = jax.shard_map(own, mesh=mesh, in_specs=(whole, split, split), out_specs=split, check_vma=False)
        placed = (NamedSharding(mesh, whole), NamedSharding(mesh, split), NamedSharding(mesh, split))
        return jax.jit(mapped, in_shardings=placed, out_shardings=NamedSharding(mesh, split))

    def _filled(self, values: np.ndarray, by: Any = None) -> np.ndarray:
        """The values of a block's lanes, filled up to the number that the workers share."""
        more = self.lanes - values.size
        return np.concatenate([values, np.full(more, values[-1] if by is None else by)]) if more else values

    def start(self, number: int) -> Callable[[], Parts]:
        points, statics = self.split_statics(self.values(number))
        lanes = jax.tree.map(self._filled, (points, self._words(points, partial(self.numbers, number))))
        flags = self._filled(self.valid(number), False) if self.reduction else None
        program = self._program(statics)
        if self.threads > 1:
            share = self.lanes // self.threads

            def of_thread(i: int) -> Any:
                cut = jax.tree.map(lambda a: a[i * share : (i + 1) * share], (lanes, flags))
                return jax.block_until_ready(program(self.key, *cut))

            found = in_threads(of_thread, range(self.threads), self.threads)
            return lambda: found
        whole = program(self.key, lanes, flags)
        if len(self.devices) == 1 or not self.reduction:
            return lambda: [whole]

        def of_devices() -> Parts:
            arrays = {name: np.asarray(values) for name, values in whole.items()}
            return [{name: values[i] for name, values in arrays.items()} for i in range(len(self.devices))]

        return of_devices


def tiled(one: Callable[[Any], Any], lanes: Any, tile: int) -> Any:
    """`one` of every lane, `tile` of them at a time; the last tile is filled up by repeating the last lane."""
    count = jax.tree.leaves(lanes)[0].shape[0]
    if count <= tile:
        return jax.vmap(one)(lanes)
    tiles = -(-count // tile)

    def stack(leaf: jax.Array) -> jax.Array:
        filled = jnp.concatenate([leaf, jnp.broadcast_to(leaf[-1:], (tiles * tile - count, *leaf.shape[1:]))])
        return filled.reshape(tiles, tile, *leaf.shape[1:])

    found = jax.lax.map(jax.vmap(one), jax.tree.map(stack, lanes))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], found)


def measured_bytes(compiled: Any) -> int:
    """What the compiler says a program uses: arguments, results and workspace; 0 where a backend does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return int(analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes)


def _described(output: Output | None) -> str:
    return "missing" if output is None else f"{np.dtype(output.dtype).name}{list(output.shape)} over {output.dims}"


class BatchedKernel(Kernel):
    """A function that takes all points of a block at once and is left as it is; it schedules its own lanes."""

    _learnt: tuple[int, Callable[[], Parts]] | None = None

    @cached_property
    def _summarise(self) -> Callable[..., dict[str, jax.Array]]:
        return jax.jit(self._summarised)

    def cover(self, boxes: Boxes) -> int:
        self._learnt = None
        return super().cover(boxes)

    def learn(self, number: int) -> None:
        """Runs a block to know what the results are; its results are kept for the next `start` of the same block."""
        self._learnt = (number, self.start(number))

    def start(self, number: int) -> Callable[[], Parts]:
        if self._learnt is not None and self._learnt[0] == number:
            found, self._learnt = self._learnt[1], None
            return found
        given, statics = self.split_statics(self.values(number))
        points: dict[str, Any] = {name: jnp.asarray(values) for name, values in given.items()}
        if self.key is not None:
            points["key"] = jax.vmap(partial(folded_key, self.wide, self.key))(*words(self.numbers(number)))
        arrays = split_results(self.fn(**points, **statics), self.grid, 1, self.outputs, self.keep)
        for name, array in arrays.items():
            if array.shape[0] != self.boxes.points:
                raise ValueError(
                    f"Result `{name}` of a batched `fn` must have {self.boxes.points} points first, but has shape {array.shape}."
                )
        if self.reduction:
            self.reduction.check(self.grid, self.outputs)
            valid = jnp.asarray(self.valid(number))
            return lambda: [self._summarise(arrays, valid)]
        return lambda: [arrays]
