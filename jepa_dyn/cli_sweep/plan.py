"""What a sweep will be, before anything runs: points, results, bytes, blocks."""

import numpy as np

from jepa_dyn.cli_sweep.config import SweepConfig
from jepa_dyn.sweep.boxes import Boxes
from jepa_dyn.sweep.kernel import BatchedKernel, MappedKernel
from jepa_dyn.sweep.results import Output
from jepa_dyn.sweep.run import make_kernel
from jepa_dyn.sweep.sizes import largest_boxes


def plan_text(config: SweepConfig) -> str:
    """A short table. A function that is batched is run at one point to know its results, no other is run at all.

    Raises:
        ValueError, TypeError: what `sweep` itself would say at once.
    """
    given = config.arguments()
    kernel = make_kernel(
        config.function,
        config.grid,
        **{name: given[name] for name in ("key", "outputs", "reduce", "batched", "threads")},
    )
    if isinstance(kernel, BatchedKernel):
        kernel.boxes = Boxes(kernel.grid.shape, (1,) * len(kernel.grid.shape))
        kernel.start(0)
    boxes = largest_boxes(kernel, given["chunk_size"], given["memory_bytes"])
    points, lines = len(kernel.grid), [f"{config.model.name}: {config.model.title}".rstrip(": "), repr(kernel.grid)]
    if kernel.reduction is None:
        stored = {name: points * _bytes(one) for name, one in kernel.outputs.items()}
        what = {name: f"{np.dtype(one.dtype).name}{_own(one)}" for name, one in kernel.outputs.items()}
    else:
        partials = kernel.reduction.partials(kernel.outputs)
        kept = int(np.prod([kernel.grid.shape[dim] for dim in kernel.kept], dtype=int))
        per_block = int(np.prod([boxes.counts[dim] for dim in kernel.reduced], dtype=int)) * kept
        stored = {
            name: per_block * int(np.prod(shape)) * dtype.itemsize for name, (_, shape, dtype, _) in partials.items()
        }
        what = {name: f"partial result, over {', '.join(kernel.reduction.over)}" for name in partials}
    width = max(len(name) for name in stored)
    lines += ["", *(f"  {name:<{width}}  {_size(stored[name]):>9}  {what[name]}" for name in stored)]
    exactly = given["chunk_size"] is not None or not isinstance(kernel, MappedKernel)
    lines += [
        "",
        f"points    {points:,}",
        f"bytes     {_size(sum(stored.values()))} before compression",
        f"blocks    {'' if exactly else 'at least '}{len(boxes):,} of {'' if exactly else 'at most '}{boxes.points:,} points"
        + ("" if exactly else "; fewer points where a block would take more than about a second"),
    ]
    if isinstance(kernel, MappedKernel):
        lines.append(f"programs  {len(kernel.traces)} to compile")
    return "\n".join(lines)


def _bytes(output: Output) -> int:
    return int(np.prod(output.shape, dtype=int)) * np.dtype(output.dtype).itemsize


def _own(output: Output) -> str:
    sizes = " x ".join(f"{dim} {size:,}" for dim, size in zip(output.dims, output.shape, strict=True))
    return f", {sizes}" if sizes else ""


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    raise AssertionError
