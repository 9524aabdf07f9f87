"""Steps of learning in the paths of eigenvalues: how many there are, when, how long they last, and the plateaus beside them.

A mode makes a step when its eigenvalue rises for good: from below `low` x level to above `high` x level, never below `low` x level
again. Its time is the crossing of level / 2. Between the two thresholds nothing counts (hysteresis): noise below
min(low, 1 - high) x level neither makes nor hides a step. The level is 1 for Barlow Twins, or else a mode's own at the end.

Works on measured or simulated paths, on any grid of times. Eigenvalues that an eigensolver sorted exchange labels where they cross:
the k-th sorted path then rises when k eigenvalues have risen, whatever their labels, so compare with the sorted predicted times.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jepa_dyn._checks import require, require_broadcastable, require_increasing, require_positive
from jepa_dyn.metrics.learning_order import crossing_times
from jepa_dyn.parameters import Leaf

_MIDDLE = 0.5
_TAIL = 0.1


class Steps(eqx.Module):
    """The step of each mode. Build it with `detect_steps`. Modes without a step have time +inf, those with one before the first
    save -inf.

    - `times`: crossing of half the level, interpolated between the saved times.
    - `earliest`, `latest`: saved times around it: no crossing before, none after; they differ by one spacing without noise.
    - `starts`, `ends`: crossings of the lower and the upper threshold: how long the rise lasts.
    - `before`, `after`: medians of the path before the rise starts and after it ends, its plateaus; NaN where there is none.
    """

    times: Float[Leaf, "*batch modes"]
    earliest: Float[Leaf, "*batch modes"]
    latest: Float[Leaf, "*batch modes"]
    starts: Float[Leaf, "*batch modes"]
    ends: Float[Leaf, "*batch modes"]
    before: Float[Leaf, "*batch modes"]
    after: Float[Leaf, "*batch modes"]

    @property
    def count(self) -> Int[Array, "*batch"]:
        """How many modes make a step while one looks."""
        return jnp.sum(jnp.isfinite(jnp.asarray(self.times)), axis=-1)

    @property
    def gaps(self) -> Float[Array, "*batch pairs"]:
        """Time from the end of each rise to the start of the next, in the order of the steps; NaN where there is no next one.

        Positive: a plateau lies between. Negative: the rises overlap, they are learned together.
        """
        order = jnp.argsort(jnp.asarray(self.times), axis=-1)
        times, starts, ends = (
            jnp.take_along_axis(jnp.asarray(a), order, axis=-1) for a in (self.times, self.starts, self.ends)
        )
        both = jnp.isfinite(times[..., 1:]) & jnp.isfinite(times[..., :-1])
        return jnp.where(both, starts[..., 1:] - jnp.where(both, ends[..., :-1], 0.0), jnp.nan)

    @property
    def num_separate(self) -> Int[Array, "*batch"]:
        """Steps that a plateau separates from the one before: fewer than `count` where some are learned together."""
        return jnp.minimum(self.count, 1) + jnp.sum(self.gaps > 0, axis=-1)


def detect_steps(
    ts: ArrayLike,
    paths: ArrayLike,
    *,
    level: ArrayLike | None = None,
    low: float = 0.25,
    high: float = 0.75,
    floor: float = 0.05,
    log: bool = False,
) -> Steps:
    """The step of every eigenvalue path, see the head of this file.

    Args:
        ts: (T,) saved times or step numbers, strictly increasing, evenly spaced or not.
        paths: (..., T, modes). NaN, from where a run failed, is neither below nor above anything.
        level: the size that a learned eigenvalue has: a number, one per mode, or (..., modes). By default every mode's own, the
            median over the last tenth of the time that is not NaN. Then a mode that still grows has no level of its own: it must
            stay for as long as its rise lasted, never above level / high. One below `floor` times the largest level is not learned.
        low, high: thresholds in units of the level, 0 < low < 1/2 < high <= 1.
        floor: see `level`; in [0, 1).
        log: interpolate linearly in the logarithm, better between saves that are far apart on a steep rise from a small value.

    Raises:
        ValueError: thresholds out of order, a level that is not > 0, times that do not increase, shapes that disagree.
    """
    times, values = jnp.asarray(ts, jnp.result_type(float)), jnp.asarray(paths)
    values = values.astype(jnp.result_type(float, values))
    require_increasing("ts", times)
    if times.ndim != 1 or values.ndim < 2 or values.shape[-2] != times.shape[0]:
        raise ValueError(
            f"Arguments `ts` and `paths` must have shapes (T,) and (..., T, modes), but have {times.shape} and {values.shape}."
        )
    if not 0 < low < _MIDDLE < high <= 1:
        raise ValueError(f"Arguments `low` and `high` must have 0 < low < 1/2 < high <= 1, but are {low} and {high}.")
    require("floor", floor, "lie in [0, 1)", lambda a: (a >= 0) & (a < 1))
    thresholds = jnp.asarray(low, values.dtype), jnp.asarray(high, values.dtype)
    if level is None:
        return _detect(times, values, _own_level(times, values, floor), *thresholds, log, True)
    require_positive("level", level)
    require_broadcastable(paths=values[..., 0, :], level=level)
    given = jnp.broadcast_to(jnp.asarray(level, values.dtype), values[..., 0, :].shape)
    return _detect(times, values, given, *thresholds, log, False)


@jax.jit
def _own_level(times: Array, values: Array, floor: ArrayLike) -> Array:
    """Median over the end of each path; 0 where it is not above the floor."""
    known = jnp.isfinite(values)
    last = jnp.max(jnp.where(known, times[:, None], times[0]), axis=-2, keepdims=True)
    tail = known & (times[:, None] >= last - _TAIL * (last - times[0]))
    found = jnp.nan_to_num(_median(values, tail))  # a path of NaN alone has no level
    return jnp.where((found > 0) & (found >= floor * jnp.max(found, axis=-1, keepdims=True)), found, 0.0)


def _median(values: Array, where: Array) -> Array:
    """Over the times where asked; NaN where there are none."""
    return jnp.nanmedian(jnp.where(where, values, jnp.nan), axis=-2)


@eqx.filter_jit
def _detect(times: Array, values: Array, level: Array, low: Array, high: Array, log: bool, own: bool) -> Steps:
    index = jnp.arange(times.shape[0])[:, None]
    learned = level > 0
    size = jnp.where(learned, level, 1.0)

    def last(where: Array) -> Array:
        return jnp.max(jnp.where(where, index, -1), axis=-2)

    left = last(values < low * size[..., None, :])  # the last time below the lower threshold: the rise starts there
    rising = index > left[..., None, :]
    top = rising & (values >= high * size[..., None, :])
    arrived = jnp.argmax(top, axis=-2)
    half = rising & (values >= _MIDDLE * size[..., None, :])
    under = last(
        (values < _MIDDLE * size[..., None, :]) & (index < arrived[..., None, :]) & (index >= left[..., None, :])
    )
    path = jnp.where(index < left[..., None, :], -jnp.inf, values)

    def crossing(share: ArrayLike) -> Array:
        return crossing_times(times, path, share * size, log=log)

    starts, middle, ends = crossing(low), crossing(_MIDDLE), crossing(high)
    lasting = learned & jnp.any(top, axis=-2)
    if own:
        last_time = jnp.max(jnp.where(jnp.isfinite(values), times[:, None], -jnp.inf), axis=-2)
        highest = jnp.nanmax(jnp.where(index >= arrived[..., None, :], values, jnp.nan), axis=-2)
        lasting = lasting & (last_time - ends >= ends - starts) & (highest <= size / high)
    early = lasting & (left < 0)
    found = lasting & (left >= 0)

    def filled(value: Array) -> Array:
        return jnp.where(found, value, jnp.where(early, -jnp.inf, jnp.inf))

    earliest = times[jnp.maximum(jnp.argmax(half, axis=-2) - 1, 0)]
    latest = times[jnp.minimum(under + 1, times.shape[0] - 1)]
    calm = found[..., None, :] & (index <= left[..., None, :])
    done = lasting[..., None, :] & (index >= arrived[..., None, :])
    return Steps(
        *(filled(value) for value in (middle, earliest, latest, starts, ends)),
        before=_median(values, calm),
        after=_median(values, done),
    )
