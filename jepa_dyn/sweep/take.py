"""From what a kernel computed for a block to the arrays that are kept of it."""

import numpy as np

from jepa_dyn.sweep.failures import Failures, judged, kinds
from jepa_dyn.sweep.kernel import Kernel, Parts, split_judgement
from jepa_dyn.sweep.reduce import block_partials


def block_values(kernel: Kernel, number: int, parts: Parts) -> dict[str, np.ndarray]:
    """Results over the part of the block that lies in the grid; with a reduction, partial results over what is kept of it."""
    boxes = kernel.boxes
    box, inside = boxes.box, boxes.inside(number)
    if kernel.reduction is None:
        found = _joined(parts)
    else:
        found = block_partials(kernel.reduction, split_judgement(parts)[0])
        box, inside = tuple(box[dim] for dim in kernel.kept), tuple(inside[dim] for dim in kernel.kept)
    points = int(np.prod(box, dtype=int))
    return {name: np.asarray(values[:points].reshape(box + values.shape[1:])[inside]) for name, values in found.items()}


def block_failures(kernel: Kernel, number: int, parts: Parts) -> Failures:
    """Which points of the block failed, repetitions that fill it up left out."""
    numbers, valid = kernel.numbers(number), kernel.valid(number)
    if kernel.reduction is None:
        arrays = {name: values[: numbers.size][valid] for name, values in _joined(parts).items()}
        found = judged(arrays, kernel.outputs)
    else:
        found = {name: values[: numbers.size][valid] for name, values in split_judgement(parts)[1].items()}
    return Failures.of_block(found, kinds(kernel.outputs), numbers[valid])


def _joined(parts: Parts) -> dict[str, np.ndarray]:
    """Results of all workers, one after the other."""
    if len(parts) == 1:
        return {name: np.asarray(values) for name, values in parts[0].items()}
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}
