"""Which arrays a stored sweep has, how they are cut into chunks, and which block of points fills which chunks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from time import time
from typing import Any

import numpy as np

from jepa_dyn.sweep.boxes import Boxes
from jepa_dyn.sweep.designs import Draws
from jepa_dyn.sweep.failures import Failures, kinds
from jepa_dyn.sweep.kernel import Kernel
from jepa_dyn.sweep.label import kept_coords, provenance
from jepa_dyn.sweep.manifest import describe_setting, describe_sweep
from jepa_dyn.sweep.results import own_coords, own_sizes
from jepa_dyn.sweep.store import TIMES, Variable

MISSING_STATUS = 255


@dataclass(frozen=True)
class Layout:
    """Blocks of a kernel as chunks of arrays. Reduced dimensions come first, with one entry per block; then those that are kept."""

    kernel: Kernel

    @cached_property
    def dims(self) -> tuple[str, ...]:
        """Dimensions that all results share."""
        names = self.kernel.grid.dim_names
        return (*(f"{names[dim]}_block" for dim in self.kernel.reduced), *(names[dim] for dim in self.kernel.kept))

    @cached_property
    def space(self) -> Boxes:
        """Chunks over these dimensions, numbered as the blocks of the store are."""
        boxes, reduced, kept = self.kernel.boxes, self.kernel.reduced, self.kernel.kept
        shape = (*(boxes.counts[dim] for dim in reduced), *(boxes.shape[dim] for dim in kept))
        return Boxes(shape, (*(1 for _ in reduced), *(boxes.box[dim] for dim in kept)))

    def grid_number(self, number: int) -> int:
        """Number of a block among the kernel's boxes from that among the store's."""
        order, place = self.kernel.reduced + self.kernel.kept, self.space.place(number)
        turned = [place[order.index(dim)] for dim in range(len(place))]
        return int(np.ravel_multi_index(turned, self.kernel.boxes.counts)) if place else 0

    def draws(self) -> dict[int, Draws]:
        """Dimensions of random draws whose values are stored beside the results: too many, maybe, to be written at once."""
        dims = enumerate(self.kernel.grid.dims) if self.kernel.reduction is None else ()
        return {index: dim for index, dim in dims if isinstance(dim, Draws)}

    def line_values(self, number: int) -> dict[str, np.ndarray]:
        """Drawn parameters along the block's part of their dimensions."""
        region, found = self.space.region(number), {}
        for index, draws in self.draws().items():
            found |= draws.at(np.arange(region[index].start, region[index].stop))
        return found

    def results(self) -> dict[str, Variable]:
        """The arrays that blocks of results fill."""
        reduction, outputs, space = self.kernel.reduction, self.kernel.outputs, self.space
        if reduction is None:
            own = {name: (o.dims, o.shape, o.dtype, missing(name, o.dtype), o.attrs) for name, o in outputs.items()}
        else:
            own = {name: (*one, {}) for name, one in reduction.partials(outputs).items()}
        found = {}
        for name, (dims, shape, dtype, fill, attrs) in own.items():
            attrs = attrs | ({"not_computed": fill} if fill == MISSING_STATUS else {})
            found[name] = Variable(self.dims + dims, space.shape + shape, space.box + shape, dtype, fill, attrs)
        return found

    def columns(self) -> list[str]:
        """What is kept about each block."""
        return [*TIMES, *Failures.columns(kinds(self.kernel.outputs))]

    def variables(self) -> dict[str, Variable]:
        """Every array that is written block by block."""
        found, space, columns = self.results(), self.space, self.columns()
        mask = {"long_name": "whether the point is computed"}
        found["finished"] = Variable(self.dims, space.shape, space.box, bool, False, mask)
        rows = (len(space), len(columns))
        found["block_summary"] = Variable(("block", "column"), rows, (1, rows[1]), float, np.nan, {"columns": columns})
        for index, draws in self.draws().items():
            for name, one in draws.ranges.items():
                attrs = {**one.attrs, "is_coordinate": True}
                found[name] = Variable((draws.name,), (draws.size,), (space.box[index],), draws.dtype, np.nan, attrs)
        return found

    def coords(self, given: Mapping[str, Any]) -> dict[str, tuple]:
        """Coordinates that are written at once."""
        grid, outputs, reduction = self.kernel.grid, self.kernel.outputs, self.kernel.reduction
        known = own_coords(given, outputs, own_sizes(outputs, grid), grid)
        over = reduction.over if reduction else tuple(draws.name for draws in self.draws().values())
        return kept_coords(grid, over) | known

    def manifest(self) -> dict[str, Any]:
        """All that is to be known to continue the sweep or to read it."""
        kernel, space = self.kernel, self.space
        return {
            "sweep": describe_sweep(kernel),
            "setting": describe_setting(),
            "begun": time(),
            "about": provenance() | {"points": len(kernel.grid), "grid": repr(kernel.grid)},
            "layout": {
                "box": list(kernel.boxes.box),
                "dims": list(self.dims),
                "shape": list(space.shape),
                "chunks": list(space.box),
                "reduced": len(kernel.reduced),
                "columns": self.columns(),
                # dimensions of its own that each result has; the dimension of each drawn parameter
                "variables": {name: len(one.dims) - len(self.dims) for name, one in self.results().items()},
                "lines": {name: index for index, draws in self.draws().items() for name in draws.ranges},
            },
        }


def missing(name: str, dtype: Any) -> Any:
    """What stands where nothing has been computed: NaN where there is one, a status that none has, else 0."""
    kind = np.dtype(dtype).kind
    if name == "status" and kind in "iu" and np.iinfo(dtype).max >= MISSING_STATUS:
        return MISSING_STATUS
    return np.nan if kind in "fc" else False if kind == "b" else 0
