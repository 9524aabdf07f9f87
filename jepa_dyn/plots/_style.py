"""What the drawings share: axes, labels from attributes, colours. Never touches matplotlib's global settings."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize

# Okabe-Ito colours, told apart by colour-blind readers; JEPA and MAE look the same in every figure
OBJECTIVE_COLOURS = {"jepa": "#0072B2", "mae": "#D55E00"}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GRID_COLOUR = "#d9d9d9"


def require_array(data: Any, argument: str = "data") -> None:
    """Raises TypeError unless the argument is labelled."""
    import xarray

    if not isinstance(data, xarray.DataArray):
        raise TypeError(f"Argument `{argument}` must be an xarray.DataArray, but has type {type(data).__name__}.")


def require_coordinate(data: "xarray.DataArray", name: str) -> "xarray.DataArray":
    """The coordinate, or a KeyError-free message that lists those there are."""
    if name in data.coords:
        return data.coords[name]
    if name in data.dims:
        import xarray

        return xarray.DataArray(np.arange(data.sizes[name]), dims=(name,), name=name)
    known = ", ".join(repr(str(one)) for one in data.coords) or "none"
    raise ValueError(f"Coordinate {name!r} must belong to the data, whose coordinates are {known}.")


def new_axes(ax: "Axes | None", figsize: tuple[float, float] = (5.2, 3.6)) -> tuple[Any, "Axes"]:
    """The given axes with their figure, or new ones."""
    if ax is not None:
        return ax.get_figure(), ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=figsize, layout="constrained")


def label(array: "xarray.DataArray") -> str:
    """'long name (units)' from the attributes, else the name."""
    text = str(array.attrs.get("long_name", array.name if array.name is not None else ""))
    units = array.attrs.get("units", "")
    return f"{text} ({units})" if units else text


def tidy(ax: "Axes", grid: bool = True) -> None:
    """Open frame and a faint grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(True, color=GRID_COLOUR, linewidth=0.6)


def sequential() -> "Colormap":
    """Light to dark without the colours that vanish on white: darker means more."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["viridis_r"](np.linspace(0.08, 1.0, 256)))


def normalisation(values: np.ndarray, log: bool | None) -> "Normalize":
    """Colour scale over the finite values; logarithmic where asked, or where they span more than a factor of 30."""
    from matplotlib.colors import LogNorm, Normalize

    finite = values[np.isfinite(values)].astype(float)
    if finite.size == 0:
        return Normalize(0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if log is None:
        log = low > 0 and high / low > 30
    if log and low <= 0:
        raise ValueError(f"A logarithmic colour scale must have positive values, but the smallest is {low:.6g}.")
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    return LogNorm(low, high) if log else Normalize(low, high)
