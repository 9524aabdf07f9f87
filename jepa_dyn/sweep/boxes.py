"""Cutting a grid into boxes of one shape: each is a block of points that is computed, and written, at one go."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Boxes:
    """Boxes of the shape `box` that cover an array of the shape `shape`; those at the upper ends may stand out of it."""

    shape: tuple[int, ...]
    box: tuple[int, ...]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Boxes along each dimension."""
        return tuple(-(-size // side) for size, side in zip(self.shape, self.box, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    @property
    def points(self) -> int:
        """Points of one box."""
        return math.prod(self.box)

    def place(self, number: int) -> tuple[int, ...]:
        """Where the box stands among the boxes; the last dimension varies fastest."""
        return tuple(int(i) for i in np.unravel_index(number, self.counts)) if self.counts else ()

    def region(self, number: int) -> tuple[slice, ...]:
        """The part of the array that the box covers."""
        sides = zip(self.place(number), self.box, self.shape, strict=True)
        return tuple(slice(at * side, min((at + 1) * side, size)) for at, side, size in sides)

    def inside(self, number: int) -> tuple[slice, ...]:
        """The part of the box that lies in the array."""
        return tuple(slice(0, part.stop - part.start) for part in self.region(number))

    def valid_points(self, number: int) -> int:
        return math.prod(part.stop - part.start for part in self.region(number))

    def numbers(self, number: int, order: Sequence[int] | None = None) -> np.ndarray:
        """Numbers of the box's points in the whole array, flat; what stands out repeats the last one inside.

        `order` lists the dimensions from the slowest to the fastest, if not as they are.
        """
        order = range(len(self.shape)) if order is None else order
        strides = np.cumprod((1, *self.shape[:0:-1]))[::-1].astype(np.int64) if self.shape else ()
        total = np.zeros(1, np.int64)
        place = self.place(number)
        for dim in order:
            total = (total[:, None] + self.along(place, dim) * strides[dim]).reshape(-1)
        return total

    def along(self, place: tuple[int, ...], dim: int) -> np.ndarray:
        """Places of a box's points along one dimension; what stands out repeats the last one inside."""
        return np.minimum(np.arange(self.box[dim]) + place[dim] * self.box[dim], self.shape[dim] - 1)


def cut(shape: Sequence[int], most: int, *, single: Collection[int] = (), first: Collection[int] = ()) -> Boxes:
    """Boxes of at most `most` points: whole in the dimensions `first`, then from the last dimension on, as far as that goes.

    Along the dimensions `single` a box is one point long. A dimension that does not fit is cut into equal parts.
    """
    box = [1] * len(shape)
    order = [dim for dim in reversed(range(len(shape))) if dim in first]
    order += [dim for dim in reversed(range(len(shape))) if dim not in first]
    left = max(1, most)
    for dim in order:
        if dim not in single:
            pieces = -(-shape[dim] // min(shape[dim], left))
            box[dim] = -(-shape[dim] // pieces)
            left = max(1, left // box[dim])
    return Boxes(tuple(shape), tuple(box))
