"""When features are learned and in which order, measured on saved series."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jepa_dyn._checks import require_broadcastable, require_increasing


def crossing_times(
    ts: ArrayLike,
    series: ArrayLike,
    threshold: ArrayLike,
    *,
    log: bool = False,
) -> Float[Array, "*batch features"]:
    """First time at which each feature rises through its threshold, interpolated between the saved times.

    Args:
        ts: (T,) saved times (or step numbers), strictly increasing; or with leading axes of their own.
        series: (..., T, features), for example `projections` at the saved times. A failed run's NaN never crosses.
        threshold: number or one per feature, e.g. a fraction of the fixed point; (features,) or (..., features).
        log: interpolate linearly in log(series), better on a steep rise from a small value; needs positive values there.

    Returns the first saved time where the series already starts at or above the threshold, +inf where it never gets there.

    Raises:
        ValueError: fewer than one time, times that do not increase, shapes that disagree.
    """
    times, values = jnp.asarray(ts, jnp.result_type(float)), jnp.asarray(series)
    require_increasing("ts", times)
    if values.ndim < 2 or values.shape[-2] != times.shape[-1]:
        raise ValueError(
            f"Argument `series` must have shape (..., {times.shape[-1]}, features), one row per time, but has {values.shape}."
        )
    level = jnp.asarray(threshold, values.dtype)[..., None, :] if jnp.ndim(threshold) else jnp.asarray(threshold)
    require_broadcastable(series=values, threshold=level)
    return _crossing_times(times, values, level, bool(log))


@partial(jax.jit, static_argnums=3)
def _crossing_times(times: Array, values: Array, level: Array, log: bool) -> Array:
    above = values >= level
    index = jnp.argmax(above, axis=-2, keepdims=True)
    before = jnp.maximum(index - 1, 0)

    def at(array: Array, where: Array) -> Array:
        return jnp.take_along_axis(jnp.broadcast_to(array, values.shape), where, axis=-2)

    def height(value: Array) -> Array:
        return jnp.log(value) if log else value

    low, high, goal = height(at(values, before)), height(at(values, index)), height(at(level, index))
    fraction = jnp.where(high > low, (goal - low) / jnp.where(high > low, high - low, 1.0), 1.0)
    start, end = at(times[..., None], before), at(times[..., None], index)
    # a NaN or a log of 0 before the crossing cannot be interpolated: the later time is the bound that is known
    fraction = jnp.where(jnp.isfinite(fraction), fraction, 1.0)
    crossing = jnp.where(index == 0, end, start + fraction * (end - start))
    return jnp.where(above.any(axis=-2), crossing[..., 0, :], jnp.inf)


def learning_order(times: ArrayLike) -> Int[Array, "*batch features"]:
    """Indices of the features in the order of their times, first learned first; those never learned (+inf, NaN) come last."""
    values = jnp.asarray(times)
    return jnp.argsort(jnp.where(jnp.isnan(values), jnp.inf, values), axis=-1, stable=True)


def rank_agreement(a: ArrayLike, b: ArrayLike) -> Float[Array, "*batch"]:
    """Kendall's tau-a of two scores per feature: +1 the same order, -1 the inverted one; a tied pair counts 0.

    `rank_agreement(-times, lam)` says whether larger lam was learned first. +inf equals +inf, NaN counts as +inf. NaN for fewer
    than two features.

    Source: Kendall 1938.
    """
    first, second = (_pair_signs(jnp.asarray(values)) for values in (a, b))
    n = jnp.shape(a)[-1]
    return jnp.sum(first * second, axis=(-2, -1)) / (n * (n - 1)) if n > 1 else jnp.full(jnp.shape(a)[:-1], jnp.nan)


def _pair_signs(values: Array) -> Array:
    clean = jnp.where(jnp.isnan(values), jnp.inf, values)
    larger = clean[..., :, None] > clean[..., None, :]
    return larger.astype(jnp.int32) - jnp.swapaxes(larger, -2, -1).astype(jnp.int32)
