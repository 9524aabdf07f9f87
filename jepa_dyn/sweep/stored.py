"""A sweep into a store: begun, continued, shared by several processes, and summed up."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn._progress import progress_meter
from jepa_dyn.sweep.boxes import Boxes
from jepa_dyn.sweep.failures import Failures
from jepa_dyn.sweep.kernel import BatchedKernel, Kernel, Parts
from jepa_dyn.sweep.layout import Layout
from jepa_dyn.sweep.manifest import SweepMismatch, describe_setting, describe_sweep, outputs_from, require_same
from jepa_dyn.sweep.pipeline import SweepDrained, draining, run_blocks
from jepa_dyn.sweep.results import Output
from jepa_dyn.sweep.sizes import choose_boxes
from jepa_dyn.sweep.store import TIMES, Store, StoreError, read_manifest
from jepa_dyn.sweep.take import block_results

if TYPE_CHECKING:
    import xarray


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
            kernel.learn(Layout(kernel).grid_number(worker[0] % len(kernel.boxes)))
        layout = Layout(kernel)
        manifest = layout.manifest()
        if Store.create(path, manifest, layout.coords(coords), layout.variables()):
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


def _run(kernel: Kernel, store: Store, worker: tuple[int, int], progress: bool) -> None:
    layout = Layout(kernel)
    expected = _shapes(outputs_from(store.manifest["sweep"]["results"]))
    there = (layout.grid_number(int(number)) for number in np.flatnonzero(store.finished()))
    done = sum(kernel.boxes.valid_points(number) for number in there)

    def start(number: int) -> Callable[[], Parts]:
        return kernel.start(layout.grid_number(number))

    with progress_meter(len(kernel.grid), show=progress, unit="points", done=done) as tick, draining() as stop:

        def take(number: int, parts: Parts, seconds: float) -> None:
            if _shapes(kernel.outputs) != expected:
                raise SweepMismatch("The results of `fn` have other shapes or number types than those that are stored.")
            own = layout.grid_number(number)
            values, failures = block_results(kernel, own, parts)
            if kernel.reduction is not None:
                values = {name: value[(None,) * len(kernel.reduced)] for name, value in values.items()}
            store.write(number, values, layout.line_values(number), [seconds, time(), *failures.as_row()])
            tick(kernel.boxes.valid_points(own))

        run_blocks(work_order(store, *worker), start, take, stop)
    left = int((~store.finished()).sum()) if stop.is_set() else 0
    if left:
        there = len(store.space) - left
        raise SweepDrained(f"stopped as asked; {there} of {len(store.space)} blocks are in {str(store.folder)!r}")


def _shapes(outputs: Mapping[str, Output]) -> dict[str, Any]:
    return {name: (one.shape, np.dtype(one.dtype)) for name, one in outputs.items()}


def work_order(store: Store, rank: int, world: int) -> Iterator[int]:
    """Blocks for one of several workers that share a store and do not talk: every world-th, then what others have left.

    The second pass goes backwards, so that who helps a slow worker begins where that one would come last.
    """
    total = len(store.space)
    mine = set()

    def fresh(numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            if number not in mine and not store.is_finished(number):
                mine.add(number)
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
