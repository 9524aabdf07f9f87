"""A sweep into a store: begun, continued, shared by several processes, and summed up."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn._progress import progress_meter
from jepa_dyn.sweep.boxes import Boxes
from jepa_dyn.sweep.failures import Failures, kinds
from jepa_dyn.sweep.kernel import BatchedKernel, Kernel, Parts
from jepa_dyn.sweep.label import kept_coords, provenance
from jepa_dyn.sweep.manifest import (
    SweepMismatch,
    describe_outputs,
    describe_setting,
    describe_sweep,
    outputs_from,
    require_same,
)
from jepa_dyn.sweep.pipeline import SweepDrained, draining, run_blocks
from jepa_dyn.sweep.results import own_coords, own_sizes
from jepa_dyn.sweep.sizes import choose_boxes
from jepa_dyn.sweep.store import TIMES, Store, StoreError, Variable, read_manifest
from jepa_dyn.sweep.take import block_failures, block_values

if TYPE_CHECKING:
    import xarray

_MISSING_STATUS = 255


def stored_sweep(
    kernel: Kernel,
    folder: str | Path,
    *,
    coords: Mapping[str, Any],
    memory_bytes: int | None,
    chunk_size: int | None,
    progress: bool,
    resume: bool,
    force: bool,
    worker: tuple[int, int],
    allow_mixed_versions: bool,
) -> "xarray.Dataset":
    """Computes what is missing in the store and returns it opened; see `sweep`."""
    # here, so that what is missing is said before anything is computed, and the first block is not kept waiting
    import xarray  # noqa: F401
    import zarr  # noqa: F401

    from jepa_dyn.sweep.archive import open_sweep

    path = Path(folder).expanduser()
    path = fresh_sibling(path) if force else path
    store = _open_or_create(kernel, path, coords, memory_bytes, chunk_size, resume, worker, allow_mixed_versions)
    rank, world = worker
    for number in range(rank, len(store.space), world):
        if store.is_finished(number) and (found := store.problems(number)):
            warnings.warn(f"Block {number} of {str(path)!r} is computed again: {'; '.join(found)}.", stacklevel=3)
            store.discard(number)
    store.remove_leftovers()
    _run(kernel, store, worker, progress)
    total = total_failures(store, store.finished())
    total.warn(kernel.grid, stacklevel=3)
    return open_sweep(path)


def _open_or_create(
    kernel: Kernel,
    path: Path,
    coords: Mapping[str, Any],
    memory_bytes: int | None,
    chunk_size: int | None,
    resume: bool,
    worker: tuple[int, int],
    allow_mixed_versions: bool,
) -> Store:
    found = read_manifest(path)
    if found is None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StoreError(f"cannot make the store {str(path)!r}: something else is there")
        choose_boxes(kernel, chunk_size, memory_bytes, stored=True, workers=worker[1])
        if isinstance(kernel, BatchedKernel):
            kernel.learn(_grid_number(kernel, worker[0] % len(kernel.boxes)))
        manifest, known, variables = _lay_out(kernel, coords)
        if Store.create(path, manifest, known, variables):
            return Store(path, manifest)
        found, resume = read_manifest(path), True  # another worker was first
        assert found is not None
    if not resume:
        raise StoreError(
            f"a sweep is stored in {str(path)!r} already: resume continues it, force starts anew in a folder beside it"
        )
    if isinstance(kernel, BatchedKernel) and not kernel.outputs:
        kernel.outputs.update(outputs_from(found["sweep"]["results"]))
    wanted = {"sweep": describe_sweep(kernel), "setting": describe_setting()}
    require_same(str(path), found, wanted, allow_mixed_versions=allow_mixed_versions)
    kernel.cover(Boxes(kernel.grid.shape, tuple(found["layout"]["box"])))
    return Store(path, found)


def fresh_sibling(path: Path) -> Path:
    """The folder itself where nothing is there, else the first of FOLDER-2, FOLDER-3, ... where nothing is."""
    candidates = (path if n == 1 else path.with_name(f"{path.name}-{n}") for n in range(1, 10**6))
    return next(one for one in candidates if not one.exists() or (one.is_dir() and not any(one.iterdir())))


def space_of(kernel: Kernel) -> tuple[tuple[str, ...], Boxes]:
    """Dimensions that all results share, and blocks over them: reduced dimensions come first, one entry per block."""
    names, boxes = kernel.grid.dim_names, kernel.boxes
    reduced, kept = kernel.reduced, kernel.kept
    dims = (*(f"{names[dim]}_block" for dim in reduced), *(names[dim] for dim in kept))
    shape = (*(boxes.counts[dim] for dim in reduced), *(boxes.shape[dim] for dim in kept))
    return dims, Boxes(shape, (*(1 for _ in reduced), *(boxes.box[dim] for dim in kept)))


def _grid_number(kernel: Kernel, number: int) -> int:
    """Number of a block among the kernel's boxes from that among the store's."""
    place = dict(zip(kernel.reduced + kernel.kept, space_of(kernel)[1].place(number), strict=True))
    if not place:
        return 0
    return int(np.ravel_multi_index([place[dim] for dim in range(len(place))], kernel.boxes.counts))


def _lay_out(kernel: Kernel, coords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple], dict[str, Variable]]:
    """The manifest, the coordinates that are written at once, and every array of a new store."""
    grid, outputs, reduction = kernel.grid, kernel.outputs, kernel.reduction
    dims, space = space_of(kernel)
    known = own_coords(coords, outputs, own_sizes(outputs, grid), grid)
    drawn = {dim.name: i for i, dim in enumerate(grid.dims) if not hasattr(dim, "axes")}
    lines: dict[str, int] = {}
    variables: dict[str, Variable] = {}
    if reduction is None:
        for name, one in outputs.items():
            fill = _MISSING_STATUS if name == "status" and _holds_255(one.dtype) else _fill(one.dtype)
            attrs = one.attrs if fill != _MISSING_STATUS else one.attrs | {"not_computed": _MISSING_STATUS}
            variables[name] = Variable(
                dims + one.dims, space.shape + one.shape, space.box + one.shape, one.dtype, fill, attrs
            )
    else:
        for name, (own, shape, dtype, fill) in reduction.partials(outputs).items():
            variables[name] = Variable(dims + own, space.shape + shape, space.box + shape, dtype, fill, {})
    written = {name: len(one.shape) - len(dims) for name, one in variables.items()}
    variables["finished"] = Variable(
        dims, space.shape, space.box, bool, False, {"long_name": "whether the point is computed"}
    )
    columns = [*TIMES, *Failures.columns(kinds(outputs))]
    blocks = (len(space), len(columns))
    variables["block_summary"] = Variable(
        ("block", "column"), blocks, (1, blocks[1]), float, np.nan, {"columns": columns}
    )
    plain = (
        kept_coords(grid, reduction)
        if reduction
        else {n: c for d in grid.dims if d.name not in drawn for n, c in d.coords().items()}
    )
    if reduction is None:
        plain |= {name: ((), one.values[0], one.attrs) for name, one in grid.constants.items()}
        for name, index in drawn.items():
            draws: Any = grid.dims[index]
            for parameter, drawn_range in draws.ranges.items():
                lines[parameter] = index
                attrs = {**drawn_range.attrs, "is_coordinate": True}
                variables[parameter] = Variable((name,), (draws.size,), (space.box[index],), draws.dtype, np.nan, attrs)
    manifest = {
        "sweep": describe_sweep(kernel),
        "setting": describe_setting(),
        "begun": time(),
        "about": provenance() | {"points": len(grid), "grid": repr(grid)},
        "layout": {
            "box": list(kernel.boxes.box), "dims": list(dims), "shape": list(space.shape), "chunks": list(space.box),
            "variables": written, "lines": lines, "reduced": len(kernel.reduced), "columns": columns,
        },
    }  # fmt: skip
    return manifest, plain | known, variables


def _holds_255(dtype: Any) -> bool:
    return np.dtype(dtype).kind in "iu" and np.iinfo(dtype).max >= _MISSING_STATUS


def _fill(dtype: Any) -> Any:
    """What stands where nothing has been computed: NaN where there is one."""
    return np.nan if np.dtype(dtype).kind in "fc" else False if np.dtype(dtype).kind == "b" else 0


def _run(kernel: Kernel, store: Store, worker: tuple[int, int], progress: bool) -> None:
    expected = describe_outputs(outputs_from(store.manifest["sweep"]["results"]))
    done = store.finished()
    begun: list[int] = []

    with progress_meter(
        len(kernel.grid), show=progress, unit="points", done=_points(kernel, np.flatnonzero(done))
    ) as tick, draining() as stop:  # fmt: skip

        def take(number: int, parts: Parts, seconds: float) -> None:
            own = _grid_number(kernel, number)
            if describe_outputs(kernel.outputs) != expected and isinstance(kernel, BatchedKernel):
                raise SweepMismatch("The results of `fn` have other shapes or number types than those that are stored.")
            failures = block_failures(kernel, own, parts)
            values = block_values(kernel, own, parts)
            if kernel.reduction is not None:
                values = {name: value[(None,) * len(kernel.reduced)] for name, value in values.items()}
            store.write(number, values, _line_values(kernel, store, number), [seconds, time(), *failures.as_row()])
            tick(kernel.boxes.valid_points(own))

        run_blocks(
            work_order(store, *worker, begun), lambda number: kernel.start(_grid_number(kernel, number)), take, stop
        )
    if stop.is_set():
        left = int((~store.finished()).sum())
        if left:
            raise SweepDrained(
                f"stopped as asked; {len(store.space) - left} of {len(store.space)} blocks are in {str(store.folder)!r}"
            )


def _points(kernel: Kernel, numbers: np.ndarray) -> int:
    return sum(kernel.boxes.valid_points(_grid_number(kernel, int(number))) for number in numbers)


def _line_values(kernel: Kernel, store: Store, number: int) -> dict[str, np.ndarray]:
    """Drawn parameters along the block's part of their dimensions."""
    region = store.space.region(number)
    found: dict[str, np.ndarray] = {}
    for index in set(store.manifest["layout"]["lines"].values()):
        found |= kernel.grid.dims[index].at(np.arange(region[index].start, region[index].stop))
    return found


def work_order(store: Store, rank: int, world: int, begun: list[int]) -> Iterator[int]:
    """Blocks for one of several workers that share a store and do not talk: every world-th, then what others have left.

    The second pass goes backwards, so that who helps a slow worker begins where that one would come last. `begun` collects what
    was given out.
    """
    total = len(store.space)
    mine = set()

    def fresh(numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            if number not in mine and not store.is_finished(number):
                mine.add(number)
                begun.append(number)
                yield number

    yield from fresh(iter(range(rank, total, world)))
    while True:
        missing = [int(number) for number in np.flatnonzero(~store.finished())[::-1] if number not in mine]
        if not missing:
            return
        turn = rank * len(missing) // world
        yield from fresh(iter(missing[turn:] + missing[:turn]))


def total_failures(store: Store, done: np.ndarray) -> Failures:
    """Counts over all finished blocks."""
    names = tuple(store.manifest["layout"]["columns"][len(TIMES) + 3 :])
    total = Failures(names)
    for row in store.summaries(np.flatnonzero(done)):
        total.add(Failures.from_row(row[len(TIMES) :], names))
    return total
