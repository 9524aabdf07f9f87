"""A quantity over two parameters."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import label, new_axes, normalisation, require_array, require_coordinate, tidy

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes


def heat_map(
    data: "xarray.DataArray",
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    log_colour: bool | None = None,
    centre: float | None = None,
    contours: Any = None,
    colour_map: str | None = None,
    ax: "Axes | None" = None,
) -> tuple[Any, "Axes"]:
    """Draws a two-dimensional quantity as colours; points without a finite value are hatched, never filled in.

    Args:
        data: has exactly the dimensions of `x` and `y`.
        x, y: names of the coordinates of the axes.
        log_x, log_y: logarithmic axes.
        log_colour: logarithmic colours; by default where the values span more than a factor of 30.
        centre: value shown as white between blue (below) and red (above), e.g. 1 for a ratio.
        contours: levels drawn as labelled lines.
        colour_map: name of a matplotlib colour map.
        ax: axes to draw in.

    Raises:
        TypeError: `data` is not labelled. ValueError: a coordinate is missing, or the data have other dimensions.
    """
    from matplotlib.colors import TwoSlopeNorm

    require_array(data)
    across, up = require_coordinate(data, x), require_coordinate(data, y)
    if data.ndim != 2 or {*across.dims, *up.dims} != set(data.dims):
        raise ValueError(f"Argument `data` must have the dimensions of {x!r} and {y!r} only, but has {data.dims}.")
    values = data.transpose(*up.dims, *across.dims).values.astype(float)
    xs, ys = across.values.astype(float), up.values.astype(float)
    shown = np.ma.masked_invalid(values)
    figure, ax = new_axes(ax, (5.0, 3.9))
    if centre is None:
        norm, cmap = normalisation(values, log_colour), colour_map or "viridis"
    else:
        reach = max(float(np.abs(shown - centre).max()) if shown.count() else 0.0, 1e-12)
        norm, cmap = TwoSlopeNorm(centre, centre - reach, centre + reach), colour_map or "RdBu_r"
    ax.set_xscale("log" if log_x else "linear")
    ax.set_yscale("log" if log_y else "linear")
    if shown.count() < shown.size:
        ax.patch.set(hatch="////", facecolor="0.95", edgecolor="0.6")
    mesh = ax.pcolormesh(_edges(xs, log_x), _edges(ys, log_y), shown, norm=norm, cmap=cmap, rasterized=True)
    if contours is not None:
        lines = ax.contour(xs, ys, shown, levels=np.sort(np.atleast_1d(contours)), colors="k", linewidths=0.8)
        ax.clabel(lines, fontsize=7)
    ax.set_xlabel(label(across))
    ax.set_ylabel(label(up))
    tidy(ax, grid=False)
    figure.colorbar(mesh, ax=ax, label=label(data), pad=0.02)
    return figure, ax


def _edges(centres: np.ndarray, log: bool) -> np.ndarray:
    """Borders of the cells half-way between neighbours; on a logarithmic axis half-way in the logarithm."""
    places = np.log(centres) if log else centres
    if places.size == 1:
        edges = np.array([places[0] - 0.5, places[0] + 0.5])
    else:
        middle = (places[1:] + places[:-1]) / 2
        edges = np.concatenate([[2 * places[0] - middle[0]], middle, [2 * places[-1] - middle[-1]]])
    return np.exp(edges) if log else edges
