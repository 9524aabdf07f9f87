"""Stored sweeps as they are found, finished or not: opened as a dataset, summed up, examined."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.sweep.failures import Failures
from jepa_dyn.sweep.label import reduced
from jepa_dyn.sweep.manifest import outputs_from
from jepa_dyn.sweep.reduce import Quantiles, Reduce, empty, merge
from jepa_dyn.sweep.store import MANIFEST, TIMES, Store, texts_allowed

if TYPE_CHECKING:
    import xarray

_RECENT = 20


def open_sweep(store: str | Path) -> "xarray.Dataset":
    """The dataset of a stored sweep, at any time, also while it is being written.

    Values are read when they are used. Points that are not computed yet are NaN (a `status` is 255, a whole number 0); the mask
    `finished` says which. With a reduction the statistics are those of the finished blocks, and `*_count` says of how many
    values.

    Raises:
        StoreError: there is no sweep.
    """
    import xarray

    opened = Store.open(Path(store).expanduser())
    with texts_allowed():
        dataset = xarray.open_zarr(opened.folder, consolidated=False, chunks=None)
    dataset = dataset.drop_vars("block_summary")
    dataset.attrs.pop(MANIFEST, None)
    dataset.attrs |= opened.manifest["about"] | {"store": str(opened.folder)}
    if opened.manifest["sweep"]["reduce"] is None:
        return dataset[[*opened.manifest["sweep"]["results"], "finished"]]
    reduction, outputs = _reduction(opened), outputs_from(opened.manifest["sweep"]["results"])
    layout = opened.manifest["layout"]
    count = layout["reduced"]
    partials = list(reduction.partials(outputs))
    merged = empty(reduction, outputs, opened.space.shape[count:])
    done = opened.finished().reshape(opened.space.counts)
    for place in np.ndindex(*opened.space.shape[:count]):
        if done[place].any():
            merged = merge(merged, {name: dataset[name][place].values for name in partials})
    found = reduced(merged, reduction, outputs, tuple(layout["dims"][count:]))
    summed = xarray.Dataset(found, coords=dataset.drop_vars([*partials, "finished"]).coords, attrs=dataset.attrs)
    return summed.set_coords([name for name in ("quantile", "outcome") if name in found])


def _reduction(store: Store) -> Reduce:
    stored = store.manifest["sweep"]["reduce"]
    statistics = {
        name: [one if isinstance(one, str) else Quantiles(**one | {"probabilities": tuple(one["probabilities"])}) for one in given]
        for name, given in stored["statistics"].items()
    }  # fmt: skip
    return Reduce(stored["over"], **statistics)


@dataclass(frozen=True)
class SweepStatus:
    """How far a stored sweep is. `str` of it is a short table."""

    store: str
    points: int
    finished_points: int
    blocks: int
    finished_blocks: int
    compute_seconds: float
    failures: Failures
    last_finished: float | None
    points_per_second: float | None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.finished_blocks == self.blocks

    @property
    def seconds_left(self) -> float | None:
        """At the pace of the last blocks, of all processes together."""
        if self.complete or not self.points_per_second:
            return None
        return (self.points - self.finished_points) / self.points_per_second

    def __str__(self) -> str:
        share = self.finished_points / max(self.points, 1)
        lines = [
            f"{self.store}: {'complete' if self.complete else f'{share:.1%} done'}",
            f"  points    {self.finished_points:,} of {self.points:,}",
            f"  blocks    {self.finished_blocks:,} of {self.blocks:,}, {self.compute_seconds:,.1f} s of computation",
        ]
        if self.points_per_second:
            left = "" if self.seconds_left is None else f", {_duration(self.seconds_left)} left at that pace"
            lines.append(f"  pace      {self.points_per_second:,.3g} points/s over the last blocks{left}")
        if self.last_finished is not None and not self.complete:
            lines.append(f"  last      {_duration(time() - self.last_finished)} ago")
        lines.append(f"  failed    {self.failures.message().rstrip('.') or 'none'}")
        about = self.about
        lines.append(
            f"  with      jepa_dyn {about['jepa_dyn_version']}, jax {about['jax_version']}, {about['device']}, "
            f"x64 {'on' if about['x64'] else 'off'}"
        )
        return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def status(store: str | Path) -> SweepStatus:
    """How far the sweep in this folder is, how fast, and how many of its points failed.

    Raises:
        StoreError: there is no sweep.
    """
    opened = Store.open(Path(store).expanduser())
    done = opened.finished()
    columns = opened.manifest["layout"]["columns"]
    rows = opened.summaries(np.flatnonzero(done))
    names = tuple(columns[len(TIMES) + 3 :])
    failures = Failures(names)
    for row in rows:
        failures.add(Failures.from_row(row[len(TIMES) :], names))
    pace = None
    ends = np.sort(rows[:, 1])[-_RECENT:]
    if len(ends) > 1 and ends[-1] > ends[0]:
        order = np.argsort(rows[:, 1])[-_RECENT:][1:]
        pace = float(rows[order, len(TIMES)].sum() / (ends[-1] - ends[0]))
    return SweepStatus(
        store=str(opened.folder),
        points=opened.manifest["about"]["points"],
        finished_points=failures.points,
        blocks=len(opened.space),
        finished_blocks=int(done.sum()),
        compute_seconds=float(rows[:, 0].sum()),
        failures=failures,
        last_finished=float(ends[-1]) if len(ends) else None,
        points_per_second=pace,
        about=opened.manifest["about"],
    )


def verify(store: str | Path, *, repair: bool = False) -> dict[int, list[str]]:
    """Reads every finished block and returns what is wrong, by number of block: empty where all is well.

    Every file must exist, hold something, and be what its checksum says.

    Args:
        store: folder of the sweep.
        repair: takes the mark off damaged blocks, so that the next run computes them again.

    Raises:
        StoreError: there is no sweep.
    """
    return dict(_damaged(Store.open(Path(store).expanduser()), repair))


def _damaged(store: Store, repair: bool) -> Iterator[tuple[int, list[str]]]:
    for number in np.flatnonzero(store.finished()):
        if found := store.problems(int(number)):
            if repair:
                store.discard(int(number))
            yield int(number), found
