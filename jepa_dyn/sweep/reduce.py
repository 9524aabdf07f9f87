"""Statistics over dimensions of a grid, taken on the device block by block, so that 1e8 runs give a small result.

Every statistic is held as a partial result that can be merged: a count, a mean and a sum of squared deviations (Chan, Golub and
LeVeque 1979), a smallest and a largest value, a histogram. Partial results of blocks are merged on the host in float64, in the
order of the blocks: the outcome does not depend on who computed which block when.

NaN and, but for quantiles, infinities take no part; how many values did is always a result as well (`w_count`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from jepa_dyn._checks import require, require_choice, require_count
from jepa_dyn.status import Status
from jepa_dyn.sweep.designs import between
from jepa_dyn.sweep.grid import Grid
from jepa_dyn.sweep.results import Output

MOMENTS = ("mean", "std", "min", "max")
_EMPTY = {"count": 0, "mean": 0.0, "m2": 0.0, "min": np.inf, "max": -np.inf, "histogram": 0, "quantile": np.nan}
_NEEDS = {"mean": ("mean",), "std": ("mean", "m2"), "min": ("min",), "max": ("max",)}
_CODES = tuple(code.name for code in Status)


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of one result; build it with `quantiles`, which validates."""

    probabilities: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    bins: int = 1024
    log: bool = False

    @property
    def exact(self) -> bool:
        return self.low is None

    def bin_of(self, x: jax.Array) -> jax.Array:
        """Number of the bin of each value: 0 below `low`, 1 .. bins inside, bins + 1 above `high`."""
        low, high = np.float64(self.low), np.float64(self.high)
        if self.log:
            low, high, x = np.log(low), np.log(high), jnp.log(jnp.maximum(x, 0))
        place = jnp.floor((x - low) / (high - low) * self.bins)
        return jnp.clip(place, -1, self.bins).astype(jnp.int32) + 1

    @property
    def edges(self) -> np.ndarray:
        assert self.low is not None and self.high is not None
        spaced = np.geomspace if self.log else np.linspace
        return spaced(self.low, self.high, self.bins + 1)


def quantiles(
    *probabilities: ArrayLike,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    bins: ArrayLike = 1024,
    log: bool = False,
) -> Quantiles:
    """Quantiles of a result over the reduced dimensions, infinities included, NaN not.

    Without a range they are exact (linear between order statistics), which needs all points that are reduced in one block. With
    `low` and `high` they come from a histogram of equal bins (in the logarithm with `log`): off by at most the width of a bin,
    whatever the number of points; a quantile below `low` is given as -inf, one above `high` as inf.

    Raises:
        ValueError: a probability outside [0, 1], only one end of the range, ends in the wrong order, no bins.
    """
    require("probabilities", probabilities, "lie in 0 .. 1", lambda a: (a >= 0) & (a <= 1))
    if not probabilities:
        raise ValueError("Argument `probabilities` must hold at least one number, e.g. quantiles(0.1, 0.5, 0.9).")
    if (low is None) != (high is None):
        raise ValueError("Arguments `low` and `high` of quantiles must be given together, or neither.")
    if low is not None and high is not None:
        between(low, high, log=log)
    require_count("bins", bins)
    low, high = (None if one is None else float(np.asarray(one)) for one in (low, high))
    return Quantiles(tuple(float(np.asarray(p)) for p in probabilities), low, high, int(np.asarray(bins)), log)


@dataclass(frozen=True, init=False)
class Reduce:
    """Which dimensions of a grid are reduced, and by which statistics of which results.

    `Reduce("draw", w=["mean", "std", quantiles(0.1, 0.9, low=0, high=2)])` gives `w_mean`, `w_std`, `w_quantile` and `w_count`
    over the other dimensions. Results without statistics are dropped; a result `status` is always counted, by name
    (`status_count`).

    Raises:
        ValueError: no dimension, no statistic, one that is not known, several quantiles of one result.
    """

    over: tuple[str, ...]
    statistics: Mapping[str, tuple[str | Quantiles, ...]]

    def __init__(self, over: str | Sequence[str], /, **statistics: Any):
        over = (over,) if isinstance(over, str) else tuple(over)
        if not over:
            raise ValueError("A reduction must name at least one dimension, e.g. Reduce('draw', w=['mean']).")
        found: dict[str, tuple[str | Quantiles, ...]] = {}
        for name, given in statistics.items():
            wanted = (given,) if isinstance(given, str | Quantiles) else tuple(given)
            for one in wanted:
                if not isinstance(one, Quantiles):
                    require_choice(f"reduce: {name}", one, MOMENTS)
            if sum(isinstance(one, Quantiles) for one in wanted) > 1:
                raise ValueError(f"Result `{name}` must have its quantiles in one call: quantiles(0.1, 0.5, 0.9).")
            found[name] = wanted
        probabilities = {one.probabilities for given in found.values() for one in given if isinstance(one, Quantiles)}
        if len(probabilities) > 1:
            raise ValueError(
                f"Quantiles of one sweep must have the same probabilities, but have {sorted(probabilities)}."
            )
        object.__setattr__(self, "over", over)
        object.__setattr__(self, "statistics", found)

    def check(self, grid: Grid, outputs: Mapping[str, Output] | None = None) -> None:
        """Whether the names are those of the grid and of its results.

        Raises:
            ValueError: naming what is not there.
        """
        for dim in self.over:
            require_choice("reduce over", dim, grid.dim_names)
            if next(one for one in grid.dims if one.name == dim).static_names:
                raise ValueError(f"A reduction must not go over the static dimension `{dim}`.")
        for name in self.statistics if outputs is not None else ():
            assert outputs is not None
            require_choice("reduce", name, tuple(outputs))
            if np.dtype(outputs[name].dtype).kind not in "biuf" or name == "status":
                raise ValueError(
                    f"Result `{name}` cannot be reduced: statistics are of real numbers, a status is counted."
                )

    @property
    def exact(self) -> bool:
        """Whether a statistic needs all reduced points in one block."""
        return any(isinstance(one, Quantiles) and one.exact for given in self.statistics.values() for one in given)

    def parts(self, name: str) -> tuple[str, ...]:
        """Partial results that the statistics of a result are made from."""
        if name == "status":
            return ("histogram",)
        needed = ["count"]
        for one in self.statistics[name]:
            if isinstance(one, Quantiles):
                needed.append("quantile" if one.exact else "histogram")
            else:
                needed += [part for part in _NEEDS[one] if part not in needed]
        return tuple(needed)

    def quantiles_of(self, name: str) -> Quantiles:
        return next(one for one in self.statistics[name] if isinstance(one, Quantiles))

    def names(self, outputs: Mapping[str, Output]) -> tuple[str, ...]:
        """Results that have partial results."""
        return (*self.statistics, *(["status"] if "status" in outputs else []))

    def partials(self, outputs: Mapping[str, Output]) -> dict[str, tuple[tuple[str, ...], tuple[int, ...], Any, Any]]:
        """Every partial result by name: dimensions and shape of its own, number type, value of an empty one."""
        found = {}
        for name in self.names(outputs):
            for part in self.parts(name):
                dims, shape = outputs[name].dims, outputs[name].shape
                if part == "histogram":
                    bins = len(_CODES) if name == "status" else self.quantiles_of(name).bins + 2
                    dims, shape = (*dims, f"{name}_bin"), (*shape, bins)
                elif part == "quantile":
                    dims, shape = (*dims, "quantile"), (*shape, len(self.quantiles_of(name).probabilities))
                dtype = np.int64 if part in ("count", "histogram") else np.float64
                found[f"{name}.{part}"] = (dims, shape, np.dtype(dtype), _EMPTY[part])
        return found

    def identity(self) -> dict[str, Any]:
        """What makes the reduction this reduction, as JSON."""
        spelt = {name: [one if isinstance(one, str) else vars(one) | {"probabilities": list(one.probabilities)} for one in given]
                 for name, given in self.statistics.items()}  # fmt: skip
        return {"over": list(self.over), "statistics": spelt}


def pairwise_sum(x: jax.Array) -> jax.Array:
    """Sum over the first axis by halves: an error of log2(n) roundings where a plain sum may have n."""
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        rest = x[2 * half :]
        x = jnp.concatenate([x[:half] + x[half : 2 * half], rest]) if rest.shape[0] else x[:half] + x[half:]
    return x[0]


def summarise(reduction: Reduce, values: Mapping[str, jax.Array], valid: jax.Array) -> dict[str, jax.Array]:
    """Partial results of (reduced, kept, ...) values of which the (reduced, kept) `valid` ones count; (kept, ...) each.

    In the place of exact quantiles stand the values themselves, NaN where not valid: `(reduced, kept, ...)`.
    """
    found = {}
    for name, x in values.items():
        parts = reduction.parts(name)
        counted = valid.reshape(valid.shape + (1,) * (x.ndim - 2))
        if name == "status":
            found["status.histogram"] = _histogram(x.astype(jnp.int32), jnp.broadcast_to(counted, x.shape), len(_CODES))
            continue
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
        finite = jnp.isfinite(x) & counted
        count = finite.sum(axis=0, dtype=jnp.int32)
        found[f"{name}.count"] = count
        if "mean" in parts:
            mean = pairwise_sum(jnp.where(finite, x, 0.0)) / jnp.maximum(count, 1)
            found[f"{name}.mean"] = mean
            if "m2" in parts:
                found[f"{name}.m2"] = pairwise_sum(jnp.where(finite, (x - mean) ** 2, 0.0))
        if "min" in parts:
            found[f"{name}.min"] = jnp.where(finite, x, jnp.inf).min(axis=0)
        if "max" in parts:
            found[f"{name}.max"] = jnp.where(finite, x, -jnp.inf).max(axis=0)
        if "histogram" in parts:
            wanted = reduction.quantiles_of(name)
            found[f"{name}.histogram"] = _histogram(wanted.bin_of(x), ~jnp.isnan(x) & counted, wanted.bins + 2)
        if "quantile" in parts:
            found[f"{name}.quantile"] = jnp.where(counted, x, jnp.nan)
    return found


def _histogram(bins: jax.Array, counted: jax.Array, size: int) -> jax.Array:
    """Counts of bin numbers (reduced, kept, ...) -> (kept, ..., size)."""
    flat = jnp.where(counted, bins, size).reshape(bins.shape[0], -1)
    columns = jnp.broadcast_to(jnp.arange(flat.shape[1]), flat.shape)
    counts = jnp.zeros((flat.shape[1], size), jnp.int32).at[columns, flat].add(1, mode="drop")
    return counts.reshape(*bins.shape[1:], size)


def block_partials(reduction: Reduce, of_workers: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Partial results of one block from those of the devices or threads that shared its points."""
    exact = {name for name in of_workers[0] if name.endswith(".quantile")}
    found = [{name: _wide(np.asarray(part[name])) for name in part if name not in exact} for part in of_workers]
    merged = found[0]
    for other in found[1:]:
        merged = merge(merged, other)
    for name in exact:
        sample = np.concatenate([np.asarray(part[name], np.float64) for part in of_workers])
        merged[name] = exact_quantiles(sample, reduction.quantiles_of(name.removesuffix(".quantile")).probabilities)
    return merged


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int64 if values.dtype.kind in "iu" else np.float64)


def exact_quantiles(sample: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
    """Quantiles over the first axis, linear between order statistics, NaN left out; (..., probabilities)."""
    ordered = np.sort(sample, axis=0)  # NaN last
    counts = (~np.isnan(sample)).sum(axis=0)
    columns = []
    for probability in probabilities:
        place = probability * np.maximum(counts - 1, 0)
        below = np.take_along_axis(ordered, np.floor(place).astype(int)[None], axis=0)[0]
        above = np.take_along_axis(ordered, np.ceil(place).astype(int)[None], axis=0)[0]
        with np.errstate(invalid="ignore"):
            between_them = below + (place - np.floor(place)) * (above - below)
        columns.append(np.where(below == above, below, between_them))
    return np.stack(columns, axis=-1)


def merge(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Partial results of the points of both."""
    found = {}
    for name, a in one.items():
        b, (result, part) = other[name], name.rsplit(".", 1)
        if part in ("count", "histogram"):
            found[name] = a + b
        elif part in ("min", "max"):
            found[name] = (np.minimum if part == "min" else np.maximum)(a, b)
        elif part == "quantile":
            found[name] = np.where(np.isnan(a), b, a)
        else:
            of_a, of_b = one[f"{result}.count"], other[f"{result}.count"]
            share = of_b / np.maximum(of_a + of_b, 1)
            apart = other[f"{result}.mean"] - one[f"{result}.mean"]
            found[name] = a + apart * share if part == "mean" else a + b + apart**2 * of_a * share
    return {name: np.asarray(values) for name, values in found.items()}


def empty(reduction: Reduce, outputs: Mapping[str, Output], kept: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Partial results of no points at all."""
    return {
        name: np.full(kept + shape, fill, dtype)
        for name, (_, shape, dtype, fill) in reduction.partials(outputs).items()
    }
