"""Which points failed and how: a status other than ok, a NaN, an infinity that nothing explains. Counted, never hidden."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_dyn.status import Status
from jepa_dyn.sweep.grid import Grid
from jepa_dyn.sweep.results import Output

_STATUSES = tuple(code.name for code in Status if code != Status.ok)


def kinds(outputs: Mapping[str, Output]) -> tuple[str, ...]:
    """Ways in which a point of these results can fail."""
    floating = [f"non-finite {name}" for name, one in outputs.items() if name != "status" and _is_inexact(one)]
    return (*(_STATUSES if "status" in outputs else ()), *floating)


def _is_inexact(output: Output) -> bool:
    return output.dtype is not None and np.dtype(output.dtype).kind in "fc"


def not_finite(name: str, values: Any, outputs: Mapping[str, Output], xp: Any = np) -> Any:
    """Per point: whether a number of this result is not what it may be; `xp` is numpy or jax.numpy."""
    fine = ~xp.isnan(values) if "infinite_means" in outputs[name].attrs else xp.isfinite(values)
    return ~fine.reshape(len(values), -1).all(axis=1)


def judged(arrays: Mapping[str, Any], outputs: Mapping[str, Output], xp: Any = np) -> dict[str, Any]:
    """What is to be known of each point of a block: its statuses, and whether each result of floating point is bad."""
    found = {}
    for name, values in arrays.items():
        if name == "status":
            found[name] = values
        elif _is_inexact(outputs[name]):
            found[f"non-finite {name}"] = not_finite(name, values, outputs, xp)
    return found


@dataclass
class Failures:
    """Counts over points: `failed` of `points`, by kind; the number of the first point that failed, or -1."""

    kinds: tuple[str, ...]
    points: int = 0
    failed: int = 0
    first: int = -1
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_block(
        cls, found: Mapping[str, np.ndarray], names: tuple[str, ...], points: int, numbers: Callable[[], np.ndarray]
    ) -> "Failures":
        """Of one block of so many points: `judged` of them. `numbers` gives the points' numbers, where one failed."""
        bad = np.zeros(points, bool)
        counts = {}
        for name, values in found.items():
            values = np.asarray(values)
            if name == "status":
                rows = values.reshape(points, -1)
                failed = (rows != Status.ok).any(axis=1)
                counts |= {one: 0 for one in _STATUSES}
                counts |= {
                    code.name: int((rows == code).sum()) for code in Status if code != Status.ok and failed.any()
                }
            else:
                failed = values
                counts[name] = int(values.sum())
            bad |= failed
        first = int(numbers()[bad].min()) if bad.any() else -1
        return cls(names, points, int(bad.sum()), first, counts)

    def add(self, other: "Failures") -> None:
        self.points += other.points
        self.failed += other.failed
        if other.first >= 0:
            self.first = other.first if self.first < 0 else min(self.first, other.first)
        self.counts = {kind: self.counts.get(kind, 0) + other.counts.get(kind, 0) for kind in self.kinds}

    def as_row(self) -> list[float]:
        """The counts as numbers in the order of `columns`."""
        counts = (self.counts.get(kind, 0) for kind in self.kinds)
        return [float(value) for value in (self.points, self.failed, self.first, *counts)]

    @classmethod
    def from_row(cls, row: np.ndarray, names: tuple[str, ...]) -> "Failures":
        points, failed, first, *counts = (int(value) for value in row)
        return cls(names, points, failed, first, dict(zip(names, counts, strict=True)))

    @staticmethod
    def columns(names: tuple[str, ...]) -> list[str]:
        return ["points", "failed", "first failed", *names]

    def message(self, grid: Grid | None = None) -> str:
        """One line, empty where nothing failed."""
        if not self.failed:
            return ""
        by_kind = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
        line = f"{self.failed} of {self.points} points failed ({by_kind})"
        if grid is None:
            return f"{line}; the first is number {self.first}."
        values = grid.point(self.first).items()
        where = ", ".join(
            f"{name}={value if isinstance(value, str) else format(value, '.6g')}" for name, value in values
        )
        return f"{line}; the first at {where}."

    def warn(self, grid: Grid, stacklevel: int) -> None:
        if self.failed:
            warnings.warn(self.message(grid), stacklevel=stacklevel + 1)
