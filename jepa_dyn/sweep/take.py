"""From what a kernel computed for a block to the arrays that are kept of it, and to how many of its points failed."""

import numpy as np

from jepa_dyn.sweep.failures import Failures, judged, kinds
from jepa_dyn.sweep.kernel import Kernel, Parts, split_judgement
from jepa_dyn.sweep.reduce import block_partials


def block_results(kernel: Kernel, number: int, parts: Parts) -> tuple[dict[str, np.ndarray], Failures]:
    """Results over the part of the block that lies in the grid, or partial results over what is kept of it; its failures."""
    boxes = kernel.boxes
    box, inside, points = boxes.box, boxes.inside(number), boxes.points
    if kernel.reduction is None:
        found = {name: values[:points] for name, values in _joined(parts).items()}
        judgement = judged(found, kernel.outputs)
    else:
        parts, flags = split_judgement(parts)
        found = block_partials(kernel.reduction, parts)
        judgement = {name: values[:points] for name, values in flags.items()}
        box, inside = tuple(box[dim] for dim in kernel.kept), tuple(inside[dim] for dim in kernel.kept)
    values = {name: np.asarray(one.reshape(box + one.shape[1:])[inside]) for name, one in found.items()}
    return values, _failures(kernel, number, judgement)


def _failures(kernel: Kernel, number: int, judgement: dict[str, np.ndarray]) -> Failures:
    """Which points of the block failed, repetitions that fill it up left out."""
    names, count = kinds(kernel.outputs), kernel.boxes.valid_points(number)
    if count == kernel.boxes.points:
        return Failures.of_block(judgement, names, count, lambda: kernel.numbers(number))
    valid = kernel.valid(number)
    judgement = {name: values[valid] for name, values in judgement.items()}
    return Failures.of_block(judgement, names, count, lambda: kernel.numbers(number)[valid])


def _joined(parts: Parts) -> dict[str, np.ndarray]:
    """Results of all workers, one after the other."""
    if len(parts) == 1:
        return {name: np.asarray(values) for name, values in parts[0].items()}
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}
