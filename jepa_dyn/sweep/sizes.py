"""How many points a block has: what fits the memory, and where blocks are stored, what takes about a second."""

from time import perf_counter

import jax
import numpy as np

from jepa_dyn.sweep.boxes import Boxes, cut
from jepa_dyn.sweep.kernel import Kernel, MappedKernel

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
    memory = memory_bytes or DEFAULT_MEMORY_BYTES
    if chunk_size is not None:
        kernel.cover(_boxes(kernel, chunk_size, stored))
        return
    most = max(1, memory // max(kernel.bytes_per_point, 1))
    if stored:
        largest = max(int(np.prod(o.shape)) * np.dtype(o.dtype).itemsize for o in kernel.outputs.values())
        # every worker has a few blocks, where there are enough points
        most = min(most, CHUNK_BYTES // max(largest, 1), max(_FIRST_POINTS, -(-len(kernel.grid) // (4 * workers))))
    if kernel.reduction is not None and kernel.reduction.exact:
        # one block must hold all reduced points: their number is not ours to choose
        most = max(most, _reduced_points(kernel)) if memory_bytes is None else most
        stored_by_time = False
    else:
        stored_by_time = stored
    size = _of_about_a_second(kernel, most) if stored_by_time else most
    used = kernel.cover(_boxes(kernel, size, stored)) if not hasattr(kernel, "boxes") else 0
    if used > memory and size > 1:
        kernel.cover(_boxes(kernel, max(1, int(size * memory / used)), stored))


def _reduced_points(kernel: Kernel) -> int:
    return int(np.prod([kernel.grid.shape[dim] for dim in kernel.reduced], dtype=int))


def _boxes(kernel: Kernel, size: int, stored: bool) -> Boxes:
    """Blocks of at most `size` points. In memory, without static axes and reductions, a plain run of points does."""
    grid = kernel.grid
    statics = [i for i, dim in enumerate(grid.dims) if dim.static_names]
    if not stored and not statics and kernel.reduction is None:
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


def _of_about_a_second(kernel: MappedKernel, most: int) -> int:
    """Tries blocks of growing size until one takes long enough to be worth a file, and not longer than it must."""
    size = min(most, _FIRST_POINTS)
    for trial in range(_TRIALS):
        begun = perf_counter()
        kernel.cover(_boxes(kernel, size, stored=True))
        compiled = perf_counter()
        seconds = np.inf
        for _ in range(2 if trial == 0 else 1):
            start = perf_counter()
            jax.block_until_ready(kernel.start(0)())
            seconds = min(seconds, perf_counter() - start)
            if seconds > SHORT_SECONDS:
                break
        if seconds >= SHORT_SECONDS or size >= most or compiled - begun > _LONG_COMPILATION:
            break
        size = min(most, int(size * min(64.0, BLOCK_SECONDS / seconds)))
    return size
