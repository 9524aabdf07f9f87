"""When features are learned (critical times) and in which order."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import (
    CYCLE,
    OBJECTIVE_COLOURS,
    label,
    new_axes,
    normalisation,
    require_array,
    require_coordinate,
    sequential,
    tidy,
)

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes


def critical_times(
    data: "xarray.DataArray",
    *,
    x: str,
    hue: str | None = None,
    relative: bool = False,
    log_x: bool = False,
    ax: "Axes | None" = None,
    **line: Any,
) -> tuple[Any, "Axes"]:
    """Draws critical times against a parameter, one line per value of `hue`, on a logarithmic axis.

    Features that are never learned (an infinite time) are marked by triangles at the upper edge.

    Args:
        data: critical times, of the dimension of `x` and, with `hue`, one more.
        x: name of the coordinate of the horizontal axis.
        hue: name of the dimension that makes the lines; values "jepa" and "mae" have colours of their own.
        relative: divides every line by its smallest value, on a linear axis, to compare spreads.
        log_x: logarithmic horizontal axis.
        ax: axes to draw in.
        **line: passed on to `Axes.plot`.

    Raises:
        TypeError: `data` is not labelled. ValueError: a coordinate is missing.
    """
    require_array(data)
    across = require_coordinate(data, x)
    names = [None] if hue is None else list(require_coordinate(data, hue).values)
    figure, ax = new_axes(ax)
    ramp = _line_colours(names)
    never: list[tuple[np.ndarray, Any]] = []
    for name, colour in zip(names, ramp, strict=True):
        one = data if name is None else data.sel({hue: name})
        xs, ts = across.values.astype(float), one.transpose(across.dims[0]).values.astype(float)
        finite = np.isfinite(ts)
        if relative and finite.any():
            ts = ts / ts[finite].min()
        shown = {"marker": "o", "markersize": 4, "linewidth": 1.4, "color": colour} | line
        ax.plot(xs[finite], ts[finite], label=None if name is None else _legend(str(hue), name), **shown)
        never.append((xs[np.isposinf(ts)], colour))
    ax.set_xscale("log" if log_x else "linear")
    if not relative:
        ax.set_yscale("log")
    for xs, colour in never:
        ax.plot(xs, np.ones_like(xs), "^", color=colour, clip_on=False, transform=ax.get_xaxis_transform())
    ax.set_xlabel(label(across))
    ax.set_ylabel("critical time / the shortest" if relative else label(data))
    tidy(ax)
    if hue is not None:
        ax.legend(frameon=False, fontsize="small")
    return figure, ax


def _line_colours(names: list[Any]) -> list[Any]:
    if all(str(name) in OBJECTIVE_COLOURS for name in names):
        return [OBJECTIVE_COLOURS[str(name)] for name in names]
    if len(names) > len(CYCLE):
        return list(sequential()(np.linspace(0.1, 1, len(names))))
    return list(CYCLE[: len(names)])


def _legend(hue: str, name: Any) -> str:
    if str(name) in OBJECTIVE_COLOURS:
        return str(name).upper()
    return f"{hue} = {name:.4g}" if np.issubdtype(np.asarray(name).dtype, np.number) else str(name)


def learning_order(
    data: "xarray.DataArray",
    *,
    x: str = "depth",
    feature: str = "feature",
    colour: str | None = None,
    ax: "Axes | None" = None,
) -> tuple[Any, "Axes"]:
    """Draws the rank of every feature (1 is learned first) against `x`, e.g. the depth; lines that cross swap their order.

    Args:
        data: critical times of the dimensions `x` and `feature`; infinite where a feature is never learned, NaN where
            there is none: neither has a rank.
        x: name of the dimension of the horizontal axis, drawn at equal distances.
        feature: name of the dimension of the features, whose values label the lines at both ends.
        colour: name of a coordinate of the features that colours them; their number by default.
        ax: axes to draw in.

    Raises:
        TypeError: `data` is not labelled. ValueError: a coordinate is missing.
    """
    require_array(data)
    columns, names = require_coordinate(data, x), require_coordinate(data, feature)
    hues = names if colour is None else require_coordinate(data, colour)
    times = data.transpose(x, feature).values.astype(float)
    learned = np.isfinite(times)
    ranks = np.full(times.shape, np.nan)
    for row, (one, ok) in enumerate(zip(times, learned, strict=True)):
        ranks[row, np.flatnonzero(ok)[np.argsort(one[ok], kind="stable")]] = np.arange(1, ok.sum() + 1)
    numbers = hues.values.astype(float) if np.issubdtype(hues.dtype, np.number) else np.arange(hues.size, dtype=float)
    norm, cmap = normalisation(numbers, None), sequential()
    figure, ax = new_axes(ax, (5.2, 4.2))
    across = np.arange(columns.size)
    for i in range(names.size):
        tone = cmap(norm(numbers[i]))
        ax.plot(across, ranks[:, i], "-o", color=tone, markersize=5, linewidth=2, solid_capstyle="round")
        for end, offset, side in ((0, -7, "right"), (-1, 7, "left")):
            if np.isfinite(ranks[end, i]):
                place = (across[end], ranks[end, i])
                ax.annotate(
                    f"{names.values[i]}",
                    place,
                    (offset, 0),
                    textcoords="offset points",
                    ha=side,
                    va="center",
                    fontsize=7,
                )
    ax.set_xticks(across, [f"{value:g}" for value in columns.values])
    ax.set_xlim(-0.35, across[-1] + 0.35)
    ax.invert_yaxis()
    ax.set_xlabel(label(columns))
    ax.set_ylabel("order of learning (1 = first)")
    tidy(ax, grid=False)
    return figure, ax
