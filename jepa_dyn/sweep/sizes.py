"""How many points a block has: what fits the memory, and where blocks are stored, what takes about a second."""

from time import perf_counter

import jax
import numpy as np

from jepa_dyn.sweep.boxes import Boxes, cut
from jepa_dyn.sweep.kernel import BatchedKernel, Kernel, MappedKernel

DEFAULT_MEMORY_BYTES = 256 * 2**20
DEFAULT_BATCHED_POINTS = 2**16
CHUNK_BYTES = 64 * 2**20  # of one variable on disk
BLOCK_SECONDS, SHORT_SECONDS = 1.0, 0.3
_FIRST_POINTS, _TRIALS, _LONG_COMPILATION = 1024, 3, 5.0


def choose_boxes(
    kernel: Kernel, chunk_size: int | None, memory_bytes: int | None, *, stored: bool = False, workers: int = 1
) -> None:
    """Has the kernel `cover` the grid with blocks of a size that suits.

    Raises:
        ValueError: exact quantiles need a larger block than may be.
    """
    if not isinstance(kernel, MappedKernel):
        kernel.cover(_boxes(kernel, chunk_size or DEFAULT_BATCHED_POINTS, stored))
        return
    if chunk_size is not None:
        kernel.cover(_boxes(kernel, chunk_size, stored))
        return
    memory = memory_bytes or DEFAULT_MEMORY_BYTES
    size = _most_points(kernel, memory_bytes, stored, workers)
    needs_all = kernel.reduction is not None and kernel.reduction.exact
    if stored and not needs_all:
        _cover_about_a_second(kernel, size)
        return
    used = kernel.cover(_boxes(kernel, size, stored))
    if used > memory and size > 1:
        kernel.cover(_boxes(kernel, max(1, int(size * memory / used)), stored))


def largest_boxes(kernel: Kernel, chunk_size: int | None, memory_bytes: int | None) -> Boxes:
    """Blocks of a store as they will be with this `chunk_size`, or at their largest without one; nothing is compiled."""
    if chunk_size is None:
        mapped = isinstance(kernel, MappedKernel)
        chunk_size = _most_points(kernel, memory_bytes, True, 1) if mapped else DEFAULT_BATCHED_POINTS
    return _boxes(kernel, chunk_size, stored=True)


def _most_points(kernel: MappedKernel, memory_bytes: int | None, stored: bool, workers: int) -> int:
    """Points of a block that fit the memory by their parameters and results, and a file where they are stored."""
    most = max(1, (memory_bytes or DEFAULT_MEMORY_BYTES) // max(kernel.bytes_per_point, 1))
    needs_all = kernel.reduction is not None and kernel.reduction.exact
    if stored and not needs_all:
        largest = max(int(np.prod(o.shape)) * np.dtype(o.dtype).itemsize for o in kernel.outputs.values())
        # every worker has a few blocks, where there are enough points
        most = min(most, CHUNK_BYTES // max(largest, 1), max(_FIRST_POINTS, -(-len(kernel.grid) // (4 * workers))))
    return max(1, most)


def _reduced_points(kernel: Kernel) -> int:
    return int(np.prod([kernel.grid.shape[dim] for dim in kernel.reduced], dtype=int))


def _boxes(kernel: Kernel, size: int, stored: bool) -> Boxes:
    """Blocks of at most `size` points. A batched function gets plain runs of points where it can: as many at a time as asked."""
    grid = kernel.grid
    statics = [i for i, dim in enumerate(grid.dims) if dim.static_names]
    if isinstance(kernel, BatchedKernel) and not stored and not statics and kernel.reduction is None:
        return Boxes((len(grid),), (min(size, len(grid)),))
    boxes = cut(grid.shape, min(size, len(grid)), single=statics, first=kernel.reduced)
    if kernel.reduction is not None and kernel.reduction.exact:
        needed = _reduced_points(kernel)
        if any(boxes.box[dim] < grid.shape[dim] for dim in kernel.reduced):
            raise ValueError(
                f"Exact quantiles need all {needed} reduced points in one block, but a block may have {size}: raise "
                "`chunk_size` or `memory_bytes`, or give quantiles(..., low=, high=) a range."
            )
    return boxes


def _cover_about_a_second(kernel: MappedKernel, most: int) -> None:
    """Tries blocks of growing size until one takes long enough to be worth a file, and not longer than it must."""
    size, boxes = min(most, _FIRST_POINTS), None
    for trial in range(_TRIALS):
        if boxes == (boxes := _boxes(kernel, size, stored=True)):
            return  # no larger ones fit the grid
        begun = perf_counter()
        kernel.cover(boxes)
        compiled = perf_counter()
        seconds = np.inf
        for _ in range(2 if trial == 0 else 1):
            start = perf_counter()
            jax.block_until_ready(kernel.start(0)())
            seconds = min(seconds, perf_counter() - start)
            if seconds > SHORT_SECONDS:
                break
        if seconds >= SHORT_SECONDS or size >= most or compiled - begun > _LONG_COMPILATION:
            return
        size = min(most, int(size * min(64.0, BLOCK_SECONDS / seconds)))
    kernel.cover(_boxes(kernel, size, stored=True))
