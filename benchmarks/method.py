"""What a method is to the harness: a name, how to make a batch ready, and in what it differs from the others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.problem import Batch


class Prepared(NamedTuple):
    """A batch made ready. `solve` is what a user calls: numpy in, numpy (lanes, times) out. `kernel` gives the seconds of the
    compiled computation alone, on arrays that already lie on the device; None where there is nothing to set apart.
    """

    solve: Callable[[], np.ndarray]
    kernel: Callable[[], float] | None = None


@dataclass(frozen=True)
class Method:
    """One row of the table.

    - `most_lanes`: larger batches are cut to that many (a rate is then that of the smaller batch, and the table says so).
    - `dtypes`: that the method can do.
    - `final_only`: saves the last time only.
    """

    name: str
    describe: str
    prepare: Callable[[Batch], Prepared]
    most_lanes: int | None = None
    dtypes: tuple[str, ...] = ("float64", "float32")
    final_only: bool = False
    note: str = ""

    def lanes(self, batch: Batch) -> int:
        return min(batch.num_lanes, self.most_lanes or batch.num_lanes)
