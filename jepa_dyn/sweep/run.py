"""Run a function over a grid in blocks that fit the memory, and label the result.

Every block has the same shape (what stands out of the grid repeats its last point), so one compiled program serves all of them.
A block is a pure function of its points' numbers, which is what a store that resumes and a second device need.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jepa_dyn._progress import progress_meter
from jepa_dyn.sweep.failures import Failures, kinds
from jepa_dyn.sweep.grid import Grid
from jepa_dyn.sweep.kernel import BatchedKernel, Kernel, MappedKernel, Parts, require_names
from jepa_dyn.sweep.label import kept_coords, labelled, provenance, reduced
from jepa_dyn.sweep.pipeline import run_blocks
from jepa_dyn.sweep.reduce import Reduce, empty, merge
from jepa_dyn.sweep.sizes import choose_boxes
from jepa_dyn.sweep.stored import stored_sweep
from jepa_dyn.sweep.take import block_results

if TYPE_CHECKING:
    import xarray


def sweep(
    fn: Callable[..., Mapping[str, Any]],
    grid: Grid,
    *,
    key: jax.Array | None = None,
    coords: Mapping[str, Any] | None = None,
    reduce: Reduce | None = None,
    outputs: Sequence[str] | None = None,
    memory_bytes: int | None = None,
    chunk_size: int | None = None,
    batched: bool = False,
    devices: Sequence[Any] | None = None,
    threads: int | None = None,
    progress: bool = True,
    store: str | Path | None = None,
    resume: bool = True,
    force: bool = False,
    worker: tuple[int, int] = (0, 1),
    allow_mixed_versions: bool = False,
) -> "xarray.Dataset":
    """Calls `fn` at every point of the grid and returns one labelled dataset.

    `fn` takes the grid's parameters by name, as scalars, and returns a dict of named results:

        sweep(lambda lam, rho: {"rate": lam * rho}, Grid(lam=[0.1, 1.0], rho=np.linspace(0.1, 0.9, 9)))

    A result is an array, or a tuple in xarray's order `(dims, array)` or `(dims, array, attrs)` that names its own
    dimensions: `{"w": ("time", w, {"units": "..."})}`; their coordinates are given as `coords={"time": ts}`. A result
    called `status` holds codes of `jepa_dyn.Status`. `fn` is mapped over the points with `jax.vmap` and compiled once (once
    per value of a static axis); the points of a block are shared by all local devices, on a CPU by threads.

    With `store` the blocks are written to a folder as they are finished (Zarr v3; `open_sweep` reads it at any time). Killed
    at any moment and called again, the sweep goes on where it was, and ends with the same bytes as one that was not disturbed
    (same versions, same kind of device). SIGTERM finishes the blocks that were begun and exits with code 75.

    Args:
        fn: function of one point; with `batched=True` of a whole block.
        grid: the points; see `Grid`.
        key: where given, `fn` is also called with `key=`, the key of its point: `fold_in(key, number of the point)`.
            The same key gives the same numbers whatever the block size.
        coords: coordinates of the results' own dimensions: `{dim: values}` or `{dim: (values, attrs)}`.
        reduce: statistics over some dimensions instead of the results of every point; see `Reduce`. Memory and store then do
            not grow with the number of points that are reduced (but for a few numbers per block in the store).
        outputs: names of the results that are kept; default all.
        memory_bytes: what one block may use; 256 MiB by default, two blocks are alive. The block's size follows from the
            sizes of the results and from what the compiler reports; in a store a block also takes about a second at most.
        chunk_size: points per block instead.
        batched: `fn` takes arrays of one block's points, results have the points as first axis, and it runs as it is
            (not compiled here): for functions that schedule their own lanes, such as `solve.ensemble`.
        devices: to share the points of a block; default `jax.local_devices()`. threads: on one CPU device; default every core.
        progress: shows a bar where the sweep takes longer than half a second.
        store: folder to write to, made if missing. resume: a store that is there is continued, otherwise refused.
        force: starts anew in the first of FOLDER, FOLDER-2, FOLDER-3, ... that is free; nothing is overwritten.
        worker: (rank, world): this process does every world-th block from `rank` on, then whatever is still missing. Any number
            of processes may share a store; one that dies is made up for by the others or by the next run.
        allow_mixed_versions: continues a store that was begun under other versions or on another kind of device.

    Returns:
        Dataset with the grid's axes as coordinates; zipped axes share a dimension. A NaN stays a NaN. Points that
        failed (a status other than ok, a NaN, an infinity that no attribute `infinite_means` of the result explains) are
        counted in one warning. From a store the values are read when they are used.

    Raises:
        TypeError: `fn` does not take the grid's parameters or returns no dict.
        ValueError: two things share a name, a shape does not fit, the block size is not positive, an axis cannot be
            represented in float32 while x64 is off, or (`SweepMismatch`) the store was begun with something else, which is named.
        StoreError: the store cannot be made, read or written; finished blocks stay as they are.
    """
    if any(one is not None and one < 1 for one in (chunk_size, memory_bytes, threads)):
        raise ValueError("Arguments `chunk_size`, `memory_bytes` and `threads` must be positive.")
    if not 0 <= worker[0] < worker[1]:
        raise ValueError(f"Argument `worker` must be (rank, world) with 0 <= rank < world, but is {worker}.")
    kernel = make_kernel(
        fn, grid, key=key, outputs=outputs, reduce=reduce, batched=batched, devices=devices, threads=threads
    )
    grid = kernel.grid
    if store is not None:
        return stored_sweep(
            kernel,
            store,
            coords=dict(coords or {}),
            memory_bytes=memory_bytes,
            chunk_size=chunk_size,
            progress=progress,
            resume=resume,
            force=force,
            worker=worker,
            allow_mixed_versions=allow_mixed_versions,
        )
    import xarray  # before anything is computed for nothing

    choose_boxes(kernel, chunk_size, memory_bytes)
    with progress_meter(len(grid), show=progress, unit="points") as tick:
        results, failures = _in_memory(kernel, tick)
    if reduce is None:
        dataset = labelled(results, kernel.outputs, grid, dict(coords or {}))
    else:
        kept = tuple(grid.dim_names[dim] for dim in kernel.kept)
        found = reduced(results, reduce, kernel.outputs, kept)
        known = _known_coords(kernel, dict(coords or {}))
        dataset = xarray.Dataset(found, coords=kept_coords(grid, reduce.over) | known, attrs=provenance())
        dataset = dataset.set_coords([name for name in ("quantile", "outcome") if name in found])
    failures.warn(grid, stacklevel=2)
    return dataset


def make_kernel(
    fn: Callable[..., Mapping[str, Any]],
    grid: Grid,
    *,
    key: jax.Array | None = None,
    outputs: Sequence[str] | None = None,
    reduce: Reduce | None = None,
    batched: bool = False,
    devices: Sequence[Any] | None = None,
    threads: int | None = None,
) -> Kernel:
    """What the blocks of a sweep are computed by; checks the names of parameters and results. Arguments as in `sweep`."""
    require_names(fn, grid, key)
    grid = grid.cast(_representable)
    keep = None if outputs is None else tuple(outputs)
    if reduce:
        reduce.check(grid)
    if batched:
        return BatchedKernel(fn, grid, key, keep, reduce)
    return MappedKernel(fn, grid, key, keep, reduce, devices, threads)


def _in_memory(kernel: Kernel, tick: Callable[[int], object]) -> tuple[dict[str, np.ndarray], Failures]:
    """Results of all blocks, or what their partial results come to, and who failed."""
    boxes, reduction = kernel.boxes, kernel.reduction
    results: dict[str, np.ndarray] = {}
    failures: list[Failures] = []

    def take(number: int, parts: Parts, _: float) -> None:
        (values, failed), region = block_results(kernel, number, parts), boxes.region(number)
        if reduction is None:
            for name, part in values.items():
                if name not in results:
                    results[name] = np.empty(boxes.shape + part.shape[len(boxes.shape) :], part.dtype)
                results[name][region] = part
        else:
            if not results:
                results.update(empty(reduction, kernel.outputs, tuple(boxes.shape[dim] for dim in kernel.kept)))
            kept = tuple(region[dim] for dim in kernel.kept)
            merged = merge({name: np.asarray(results[name][kept]) for name in values}, values)
            for name, part in merged.items():
                results[name][kept] = part
        failures.append(failed)
        tick(boxes.valid_points(number))

    run_blocks(range(len(boxes)), kernel.start, take)
    total = Failures(kinds(kernel.outputs))
    for one in failures:
        total.add(one)
    return results, total


def _known_coords(kernel: Kernel, coords: dict[str, Any]) -> dict[str, tuple]:
    from jepa_dyn.sweep.results import own_coords, own_sizes

    return own_coords(coords, kernel.outputs, own_sizes(kernel.outputs, kernel.grid), kernel.grid)


def _representable(name: str, values: np.ndarray) -> np.ndarray:
    """The values in the number type that JAX will compute with, so that labels tell what was computed."""
    dtype = jax.dtypes.canonicalize_dtype(values.dtype)
    if dtype == values.dtype:
        return values
    with np.errstate(over="ignore", under="ignore"):
        cast = values.astype(dtype)
    lost = np.unique(cast).size < np.unique(values).size or (np.isinf(cast) & ~np.isinf(values)).any()
    if lost or ((cast == 0) & (values != 0)).any():
        raise ValueError(
            f"Axis `{name}` must be representable in {dtype.name} while x64 is off, but its values overflow, underflow "
            "or coincide there; call jepa_dyn.enable_x64() first."
        )
    return cast
