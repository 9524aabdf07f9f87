"""Results of a sweep as a labelled `xarray.Dataset`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jepa_dyn._precision import x64_is_on
from jepa_dyn.status import Status
from jepa_dyn.sweep.grid import Grid
from jepa_dyn.sweep.reduce import MOMENTS, Quantiles, Reduce
from jepa_dyn.sweep.results import Output, own_coords, own_sizes, status_attrs

if TYPE_CHECKING:
    import xarray


def provenance() -> dict[str, Any]:
    """Attributes that say with what a dataset was computed."""
    import jepa_dyn

    return {
        "jepa_dyn_version": jepa_dyn.__version__,
        "jax_version": jax.__version__,
        "device": jax.local_devices()[0].device_kind,
        "x64": int(x64_is_on()),
    }


def labelled(
    results: Mapping[str, np.ndarray], outputs: Mapping[str, Output], grid: Grid, coords: Mapping[str, Any]
) -> "xarray.Dataset":
    """One variable per result, over the grid's dimensions and its own."""
    import xarray

    known = own_coords(coords, outputs, own_sizes(outputs, grid), grid)
    variables = {
        name: (
            grid.dim_names + outputs[name].dims,
            values.reshape(grid.shape + outputs[name].shape),
            outputs[name].attrs,
        )
        for name, values in results.items()
    }
    return xarray.Dataset(variables, coords=grid.coords() | known, attrs=provenance())


def kept_coords(grid: Grid, without: tuple[str, ...]) -> dict[str, tuple]:
    """Coordinates of the grid but those of some dimensions."""
    kept = {name: one for dim in grid.dims if dim.name not in without for name, one in dim.coords().items()}
    return kept | {name: ((), one.values[0], one.attrs) for name, one in grid.constants.items()}


def reduced(
    partials: Mapping[str, np.ndarray], reduction: Reduce, outputs: Mapping[str, Output], dims: tuple[str, ...]
) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]]:
    """Statistics from merged partial results over the kept `dims`, as variables and coordinates in xarray's form."""
    found: dict[str, tuple] = {}
    where = " and ".join(reduction.over)
    for name, wanted in reduction.statistics.items():
        own, attrs = dims + outputs[name].dims, dict(outputs[name].attrs)
        title = attrs.pop("long_name", name)
        attrs.pop("infinite_means", None)
        part = {one: partials[f"{name}.{one}"] for one in reduction.parts(name)}
        some = part["count"] > 0
        values = {
            "mean": lambda part=part: part["mean"],
            "std": lambda part=part: np.sqrt(part["m2"] / np.maximum(part["count"], 1)),
            "min": lambda part=part: part["min"],
            "max": lambda part=part: part["max"],
        }
        for one in MOMENTS:
            if one in wanted:
                labels = attrs | {"long_name": f"{one} of {title} over {where}"}
                found[f"{name}_{one}"] = (own, np.where(some, values[one](), np.nan), labels)
        for one in (one for one in wanted if isinstance(one, Quantiles)):
            labels = attrs | {"long_name": f"quantile of {title} over {where}", "method": quantile_method(one)}
            numbers = part["quantile"] if one.exact else histogram_quantiles(part["histogram"], one)
            found[f"{name}_quantile"] = ((*own, "quantile"), numbers, labels)
            found["quantile"] = (("quantile",), np.array(one.probabilities), {"long_name": "probability"})
        found[f"{name}_count"] = (own, part["count"], {"long_name": f"finite values of {title} over {where}"})
    if "status.histogram" in partials:
        labels = {"long_name": f"points over {where} by outcome", "description": status_attrs()["description"]}
        own = (*dims, *outputs["status"].dims, "outcome")
        found["status_count"] = (own, partials["status.histogram"], labels)
        found["outcome"] = (("outcome",), np.array([code.name for code in Status]), {})
    return found


def quantile_method(wanted: Quantiles) -> str:
    """How the quantiles were found, in words."""
    if wanted.exact:
        return "exact, linear between order statistics"
    assert wanted.low is not None and wanted.high is not None
    spacing = "the logarithm's" if wanted.log else "equal"
    return (
        f"histogram of {wanted.bins} bins of {spacing} width in {wanted.low:g} .. {wanted.high:g}: off by at most one bin; "
        "-inf below, inf above"
    )


def histogram_quantiles(histogram: np.ndarray, wanted: Quantiles) -> np.ndarray:
    """Quantiles from counts (..., bins + 2), linear inside a bin; (..., probabilities); NaN where nothing was counted."""
    reached = np.cumsum(histogram, axis=-1)
    total = reached[..., -1]
    edges = np.concatenate([[-np.inf], wanted.edges, [np.inf]])
    columns = []
    for probability in wanted.probabilities:
        rank = probability * total
        # the first bin that reaches the rank and is not empty
        enough = (reached >= rank[..., None]) & (histogram > 0)
        at = enough.argmax(axis=-1)
        inside = np.take_along_axis(histogram, at[..., None], -1)[..., 0]
        before = np.take_along_axis(reached, at[..., None], -1)[..., 0] - inside
        share = np.clip((rank - before) / np.maximum(inside, 1), 0, 1)
        low, high = edges[at], edges[at + 1]
        with np.errstate(invalid="ignore"):
            between = low * (high / low) ** share if wanted.log else low + (high - low) * share
        between = np.where(at == 0, -np.inf, np.where(at == wanted.bins + 1, np.inf, between))
        columns.append(np.where(total > 0, between, np.nan))
    return np.stack(columns, axis=-1)
