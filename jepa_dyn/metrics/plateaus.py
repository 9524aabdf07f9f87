"""Plateaus and steps of one path whose levels are not known beforehand, for example of a loss: a staircase with noise."""

import itertools

import equinox as eqx
import numpy as np
from jaxtyping import ArrayLike, Float

from jepa_dyn._checks import require_increasing, require_nonnegative, require_positive

_CONTRAST = 2.0


class Plateaus(eqx.Module):
    """The plateaus of one path, in the order of time. Build it with `find_plateaus`.

    - `levels` (P,): medians. `starts`, `ends` (P,): first and last saved time on each.
    - `step_times`, `step_heights` (P - 1,): when the path passes half way from one plateau to the next, and how much they differ.
    """

    levels: Float[np.ndarray, " P"]
    starts: Float[np.ndarray, " P"]
    ends: Float[np.ndarray, " P"]
    step_times: Float[np.ndarray, " steps"]
    step_heights: Float[np.ndarray, " steps"]


def find_plateaus(
    ts: ArrayLike, path: ArrayLike, *, band: float, shortest: float = 0.0, log_time: bool = False
) -> Plateaus:
    """Plateaus and steps of one path whose levels are not known, for example of a loss: a staircase with noise, up or down.

    A plateau is a stretch of time in which the path stays within a band of height `band`, twice as long as it needs for the next
    band on either side: a slope is none. The longest are taken first, and neighbours closer than `band` are one.

    Args:
        ts: (T,) times, strictly increasing.
        path: (T,); what follows the first value that is not finite is left out.
        band: height, > 0: above the range of the noise, below half of the smallest step.
        shortest: length that a plateau must have at least, >= 0.
        log_time: lengths are differences of log t, for paths over decades of time; needs times > 0.

    Raises:
        ValueError: not one path, times that do not increase (or not > 0 with `log_time`), a band not > 0.
    """
    times, values = np.asarray(ts, float), np.asarray(path, float)
    require_increasing("ts", times)
    if times.ndim != 1 or values.shape != times.shape:
        raise ValueError(
            f"Arguments `ts` and `path` must both have shape (T,), but have {times.shape} and {values.shape}."
        )
    require_positive("band", band)
    require_nonnegative("shortest", shortest)
    if log_time:
        require_positive("ts", times, "their logarithm is taken")
    good = values.size if np.isfinite(values).all() else int(np.argmin(np.isfinite(values)))
    times, values = times[:good], values[:good]
    clock = np.log(times) if log_time else times
    pieces = _merged(_longest_first(clock, values, band, shortest), values, band)
    levels = np.array([np.median(values[first : last + 1]) for first, last in pieces])
    steps = [
        _passage(times[a : b + 1], values[a : b + 1], levels[k], levels[k + 1])
        for k, ((_, a), (b, _)) in enumerate(itertools.pairwise(pieces))
    ]
    ends = np.array(pieces, int).reshape(-1, 2)
    return Plateaus(levels, times[ends[:, 0]], times[ends[:, 1]], np.array(steps, float), np.diff(levels))


def _reach(values: np.ndarray, band: float) -> np.ndarray:
    """For every index the last one up to which the path stays within a band of this height."""
    reach = np.empty(values.size, int)
    for first in range(values.size):
        rest = values[first:]
        spread = np.maximum.accumulate(rest) - np.minimum.accumulate(rest)
        reach[first] = first + np.searchsorted(spread, band, side="right") - 1
    return reach


def _longest_first(clock: np.ndarray, values: np.ndarray, band: float, shortest: float) -> list[tuple[int, int]]:
    """(first, last) index of every plateau, in order of time."""
    reach, found, sections = _reach(values, band), [], [(0, values.size - 1)]
    while sections:
        first, last = sections.pop()
        if first > last:
            continue
        ends = np.minimum(reach[first : last + 1], last)
        lengths = clock[ends] - clock[first : last + 1]
        best = int(np.argmax(lengths))
        if lengths[best] < shortest or lengths[best] <= 0:
            continue
        start, end = first + best, int(ends[best])
        if _stands_out(clock, values, start, end, band):
            found.append((start, end))
        sections += [(first, start - 1), (end + 1, last)]
    return sorted(found)


def _stands_out(clock: np.ndarray, values: np.ndarray, start: int, end: int, band: float) -> bool:
    """Whether the path stays here twice as long as it needs for the band above and the band below, as far as it goes there."""
    away = np.abs(values - np.median(values[start : end + 1])) > 1.5 * band
    after, before = np.flatnonzero(away[end:]), np.flatnonzero(away[: start + 1])
    needed = [clock[end + after[0]] - clock[end]] if after.size else []
    needed += [clock[start] - clock[before[-1]]] if before.size else []
    return bool(clock[end] - clock[start] >= _CONTRAST * max(needed, default=0.0))


def _merged(pieces: list[tuple[int, int]], values: np.ndarray, band: float) -> list[tuple[int, int]]:
    """Neighbours whose levels are closer than the band become one."""
    made: list[tuple[int, int]] = []
    for piece in pieces:
        if made:
            level, before = (np.median(values[a : b + 1]) for a, b in (piece, made[-1]))
            if abs(level - before) < band:
                made[-1] = (made[-1][0], piece[1])
                continue
        made.append(piece)
    return made


def _passage(times: np.ndarray, values: np.ndarray, start: float, end: float) -> float:
    """When the path first passes half way from the level `start` to the level `end`, interpolated."""
    middle = (start + end) / 2
    beyond = (values - middle) * np.sign(end - start) >= 0
    k = int(np.argmax(beyond))
    if k == 0:
        return float(times[0])
    share = (middle - values[k - 1]) / (values[k] - values[k - 1])
    return float(times[k - 1] + share * (times[k] - times[k - 1]))
