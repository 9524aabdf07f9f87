"""A fan of learning curves, each coloured by a parameter."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import label, new_axes, normalisation, require_array, require_coordinate, sequential, tidy

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

# above this many curves the lines become pixels inside a vector file, which otherwise grows to megabytes
RASTERISE_ABOVE = 2000


def learning_curves(
    data: "xarray.DataArray",
    *,
    colour: str,
    x: str = "time",
    log_x: bool = False,
    log_y: bool = False,
    log_colour: bool | None = None,
    colour_bar: bool = True,
    status: "xarray.DataArray | None" = None,
    ax: "Axes | None" = None,
    **line: Any,
) -> tuple[Any, "Axes"]:
    """Draws one line per lane of `data` against `x`; darker lines have the larger `colour`.

    Args:
        data: has a time dimension; all its other dimensions are lanes.
        colour: name of the coordinate that colours the lanes.
        x: name of the coordinate of the horizontal axis; it may differ from lane to lane.
        log_x, log_y: logarithmic axes; points that are not positive are left out.
        log_colour: logarithmic colours; by default where the values span more than a factor of 30.
        colour_bar: adds one.
        status: codes per lane; lanes that are not ok are drawn dashed and grey.
        ax: axes to draw in.
        **line: passed on to `matplotlib.collections.LineCollection`, e.g. `linewidths`.

    Returns:
        Figure and axes.

    Raises:
        TypeError: `data` is not labelled. ValueError: a coordinate is missing, or `x` has no time dimension.
    """
    from matplotlib.collections import LineCollection

    require_array(data)
    times, hues = require_coordinate(data, x), require_coordinate(data, colour)
    running = [dim for dim in data.dims if dim in times.dims and dim not in hues.dims]
    if len(running) != 1:
        raise ValueError(
            f"Coordinate {x!r} must have one dimension of the data that {colour!r} does not have, but has {running}."
        )
    time_dim = running[0]
    lanes = [dim for dim in data.dims if dim != time_dim]
    full = data.transpose(*lanes, time_dim)
    ts = times.broadcast_like(full).transpose(*lanes, time_dim).values.reshape(-1, full.sizes[time_dim]).astype(float)
    ys = full.values.reshape(ts.shape).astype(float)
    values = hues.broadcast_like(full.isel({time_dim: 0})).transpose(*lanes).values.ravel().astype(float)
    hidden = (log_x & (ts <= 0)) | (log_y & (ys <= 0)) if log_x or log_y else np.zeros(ts.shape, bool)
    points = np.stack([np.where(hidden, np.nan, ts), np.where(hidden, np.nan, ys)], axis=-1)
    failed = np.zeros(len(points), bool)
    if status is not None:
        failed = status.broadcast_like(full.isel({time_dim: 0})).transpose(*lanes).values.ravel() != 0

    figure, ax = new_axes(ax)
    norm, cmap = normalisation(values, log_colour), sequential()
    style: dict[str, Any] = {"linewidths": 1.4, "rasterized": len(points) > RASTERISE_ABOVE} | line
    coloured: dict[str, Any] = {"array": values[~failed], "norm": norm, "cmap": cmap}
    drawn = LineCollection(list(points[~failed]), **style, **coloured)
    ax.add_collection(drawn)
    if failed.any():
        grey: dict[str, Any] = {"colors": "0.6", "linestyles": "dashed", "label": f"{int(failed.sum())} failed"}
        ax.add_collection(LineCollection(list(points[failed]), **(style | grey)))
        ax.legend(frameon=False, fontsize="small")
    ax.set_xscale("log" if log_x else "linear")
    ax.set_yscale("log" if log_y else "linear")
    ax.autoscale_view()
    ax.margins(x=0)
    ax.set_xlabel(label(times))
    ax.set_ylabel(label(data))
    tidy(ax)
    if colour_bar:
        figure.colorbar(drawn, ax=ax, label=label(hues), pad=0.02)
    return figure, ax
