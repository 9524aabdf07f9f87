"""A stored sweep at a glance: a table of its variables, and one of them drawn."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

_LARGEST = 10**7  # values that are read for a line of the table


def summary_table(dataset: "xarray.Dataset") -> str:
    """One line per variable: dimensions, and the range of its finite values where they are few enough to read."""
    head = ("variable", "dimensions", "smallest", "mean", "largest", "finite")
    rows: list[tuple[str, ...]] = [head]
    for name, variable in dataset.data_vars.items():
        if name == "finished":
            continue
        sizes = " x ".join(f"{dim} {size:,}" for dim, size in variable.sizes.items()) or "one number"
        rows.append((str(name), sizes, *_range(variable)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(f"{cell:<{w}}" if i < 2 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
             for row in rows]  # fmt: skip
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:]])


def _range(variable: "xarray.DataArray") -> tuple[str, str, str, str]:
    if variable.dtype.kind not in "biuf" or variable.size > _LARGEST:
        return ("", "", "", "")
    values = variable.values.astype(float)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return ("", "", "", "0%")
    share = f"{finite.size / values.size:.1%}" if finite.size < values.size else "100%"
    return (f"{finite.min():.4g}", f"{finite.mean():.4g}", f"{finite.max():.4g}", share)


def chosen_variable(dataset: "xarray.Dataset", name: str | None) -> "xarray.DataArray":
    """The variable of this name, by default the first that varies.

    Raises:
        ValueError: there is none.
    """
    numeric = {
        str(key): one for key, one in dataset.data_vars.items() if key != "finished" and one.dtype.kind in "biuf"
    }
    if name is not None:
        if name not in numeric:
            raise ValueError(f"--variable must be one of {', '.join(numeric)}, but is {name!r}")
        return numeric[name]
    drawn = [one for key, one in numeric.items() if one.ndim and key != "status" and not key.endswith("_count")]
    if not drawn:
        raise ValueError("there is nothing to draw: no variable has a dimension")
    return drawn[0]


def sliced(variable: "xarray.DataArray", at: Mapping[str, str]) -> "xarray.DataArray":
    """The variable over two dimensions at most: at the asked values (the nearest ones), else at the first of the others.

    Raises:
        ValueError: a dimension that it does not have.
    """
    for dim, text in at.items():
        if dim not in variable.dims:
            raise ValueError(
                f"--at must name a dimension of {variable.name} ({', '.join(map(str, variable.dims))}), but is {dim!r}"
            )
        coordinate = variable[dim]
        if coordinate.dtype.kind in "biuf":
            try:
                place = int(np.abs(coordinate.values.astype(float) - float(text)).argmin())
            except ValueError:
                raise ValueError(f"--at {dim} must be a number, but is {text!r}") from None
        else:
            found = np.flatnonzero(coordinate.values.astype(str) == text)
            if not found.size:
                raise ValueError(f"--at {dim} must be one of {', '.join(map(str, coordinate.values))}, but is {text!r}")
            place = int(found[0])
        variable = variable.isel({dim: place})
    extra = [dim for dim in variable.dims if variable[dim].dtype.kind not in "biuf"]
    extra += [dim for dim in reversed(variable.dims) if dim not in extra]
    for dim in extra[: max(0, variable.ndim - 2)]:
        variable = variable.isel({dim: 0})
    return variable


def draw(variable: "xarray.DataArray") -> Any:
    """A map of two dimensions or a line along one, with what was held fixed in the title."""
    from matplotlib import pyplot

    from jepa_dyn.plots import heat_map

    variable = variable.load()
    if variable.ndim == 2:
        up, across = (str(dim) for dim in variable.dims)
        data = variable.assign_coords({dim: variable[dim] for dim in (up, across)})
        figure, ax = heat_map(data, x=across, y=up, log_x=_spans(data[across]), log_y=_spans(data[up]))
    else:
        figure, ax = pyplot.subplots(figsize=(5.0, 3.6), constrained_layout=True)
        if variable.ndim == 1:
            (dim,) = variable.dims
            ax.plot(variable[dim].values, variable.values, ".-" if variable.size < 60 else "-")
            ax.set_xlabel(str(dim))
            ax.set_xscale("log" if _spans(variable[dim]) else "linear")
        ax.set_ylabel(str(variable.name))
    fixed = [f"{name} = {_short(one.values)}" for name, one in variable.coords.items() if one.ndim == 0]
    ax.set_title(", ".join([str(variable.name), *fixed]), fontsize=9)
    return figure


def _short(value: Any) -> str:
    return str(value) if np.asarray(value).dtype.kind not in "fiu" else f"{float(value):.4g}"


def _spans(coordinate: "xarray.DataArray") -> bool:
    """Whether a coordinate is spaced by factors."""
    values = coordinate.values.astype(float)
    return bool(values.size > 2 and (values > 0).all() and values.max() > 30 * values.min())
