"""Grids of parameters: named axes, taken as a product, zipped together or drawn at random, without ever being spelt out.

A grid of 1e9 points costs no more memory than its axes: `grid.points(indices)` looks up any points by their number.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from jepa_dyn.sweep.designs import Draws, make_draws


@dataclass(frozen=True)
class Axis:
    """The values of one parameter with its units and description; build it with `axis` or `static`, which validate."""

    values: np.ndarray
    units: str = ""
    description: str = ""
    static: bool = False

    @property
    def attrs(self) -> dict[str, str]:
        """Labels in the words of xarray: `units` and `long_name`, only those that were given."""
        named = {"units": self.units, "long_name": self.description}
        return {key: value for key, value in named.items() if value}


def axis(values: Any, units: str = "", description: str = "") -> Axis:
    """An axis of a grid with its labels, e.g. `Grid(lam=axis([0.1, 1.0], description="covariance of the views"))`.

    Args:
        values: one-dimensional numbers; at least one, none of them NaN. Whole numbers stay whole.
        units: shown beside the name in figures.
        description: what the parameter is.

    Raises:
        TypeError: the values are not numbers. ValueError: they are empty, NaN or have more than one dimension.
    """
    return _checked("values", values, units, description)


def static(values: Any, units: str = "", description: str = "") -> Axis:
    """An axis whose values choose a program: a width, a number of steps, the name of an objective.

    The function of a sweep gets them as plain Python numbers or texts instead of traced ones, and is compiled once per value
    (per combination, where there are several such axes).

    Raises:
        TypeError: the values are neither numbers nor texts. ValueError: as for `axis`.
    """
    return _checked("values", values, units, description, static=True)


def _checked(name: str, values: Any, units: str = "", description: str = "", static: bool = False) -> Axis:
    if isinstance(values, Axis):
        return values
    array = np.asarray(list(values) if isinstance(values, range) else values)
    if array.dtype.kind not in ("biufU" if static else "biuf"):
        kind = array.dtype.name if array.size else type(values).__name__
        raise TypeError(
            f"Axis `{name}` must hold real numbers, but holds {kind}; a choice such as an objective is a static axis: "
            f"{name}=static([...])."
        )
    if array.ndim != 1:
        raise ValueError(f"Axis `{name}` must be one-dimensional, but has shape {array.shape}.")
    if array.size == 0:
        raise ValueError(f"Axis `{name}` must hold at least one value, but is empty.")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(
            f"Axis `{name}` must not hold NaN, but the value at index {int(np.isnan(array).argmax())} is NaN."
        )
    array = array.copy()
    array.setflags(write=False)
    return Axis(array, units, description, static)


@dataclass(frozen=True)
class _Dim:
    """One dimension of the result: one axis, or several of one length zipped together. `Draws` is the other kind."""

    name: str
    axes: Mapping[str, Axis]

    @property
    def size(self) -> int:
        return next(iter(self.axes.values())).values.size

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.axes)

    @property
    def static_names(self) -> tuple[str, ...]:
        return tuple(name for name, one in self.axes.items() if one.static)

    def at(self, along: np.ndarray) -> dict[str, np.ndarray]:
        """Values at these places of the dimension, one array per parameter."""
        return {name: one.values[along] for name, one in self.axes.items()}

    def coords(self) -> dict[str, tuple]:
        return {name: (self.name, one.values, one.attrs) for name, one in self.axes.items()}

    def cast(self, convert: Callable[[str, np.ndarray], Any]) -> "_Dim":
        return _Dim(self.name, _cast(self.axes, convert))

    def identity(self) -> dict[str, Any]:
        """What makes the dimension this dimension, as JSON."""
        return {"kind": "axes", "axes": {name: _axis_identity(one) for name, one in self.axes.items()}}

    def __str__(self) -> str:
        spans = [f"{name} {_text(one.values[0])} .. {_text(one.values[-1])}" for name, one in self.axes.items()]
        if list(self.axes) == [self.name]:
            return f"{spans[0]} ({self.size:,})"
        return f"{self.name}[{', '.join(spans)}] ({self.size:,})"


_AnyDim: TypeAlias = _Dim | Draws


def _cast(axes: Mapping[str, Axis], convert: Callable[[str, np.ndarray], Any]) -> dict[str, Axis]:
    """Axes with other values; texts and other static values stay as they are."""
    return {
        name: one if one.static else Axis(np.asarray(convert(name, one.values)), one.units, one.description)
        for name, one in axes.items()
    }


def _axis_identity(one: Axis) -> dict[str, Any]:
    values = np.ascontiguousarray(one.values)
    spelt = values.tobytes() if values.dtype.kind != "U" else repr(values.tolist()).encode()
    found = {"values": values.size, "dtype": values.dtype.name, "sha256": hashlib.sha256(spelt).hexdigest()}
    return found | ({"static": True} if one.static else {})


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value:.6g}"


@dataclass(frozen=True, init=False)
class Grid:
    """Points of a parameter space.

    `Grid(lam=[0.1, 1.0], rho=np.linspace(0.2, 0.9, 50), depth=3.0)` is the product of its axes (a single number is a
    constant: it reaches the function and the result, but makes no dimension). `Grid.zip("feature", lam=..., rho=...)`
    walks its axes together along one dimension called `feature`; `Grid.sobol(10**6, lam=between(0.1, 10, log=True))` and
    `Grid.uniform` draw at random. `width=static([16, 64])` chooses a program. `a * b` is the product of two grids.

    The last axis varies fastest. Nothing is materialised: `grid.point(i)` is the i-th point.

    Raises:
        ValueError, TypeError: an axis is empty, holds NaN or no numbers; two parameters or dimensions share a name.
    """

    dims: tuple[_AnyDim, ...] = ()
    constants: Mapping[str, Axis] = field(default_factory=dict)

    def __init__(self, **axes: Any):
        if not axes:
            raise ValueError("A grid must have at least one axis, e.g. Grid(lam=[0.1, 1.0]).")
        dims, constants = [], {}
        for name, values in axes.items():
            if not isinstance(values, Axis) and np.ndim(values) == 0:
                constants[name] = _checked(name, [values], static=isinstance(values, str))
            else:
                dims.append(_Dim(name, {name: _checked(name, values)}))
        object.__setattr__(self, "dims", tuple(dims))
        object.__setattr__(self, "constants", constants)

    @classmethod
    def zip(cls, dim: str = "point", /, **axes: Any) -> "Grid":
        """Axes of one length walked together along the dimension `dim`; each of them becomes a coordinate of it.

        Raises:
            ValueError: the lengths differ, no axis is given, or the dimension has the name of one of several axes.
        """
        if not axes:
            raise ValueError("Grid.zip must have at least one axis, e.g. Grid.zip(lam=[0.1, 1.0], rho=[0.9, 0.5]).")
        checked = {name: _checked(name, values) for name, values in axes.items()}
        lengths = {name: one.values.size for name, one in checked.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
            raise ValueError(f"Zipped axes must have the same length, but have {listed}.")
        if dim in checked and len(checked) > 1:
            raise ValueError(
                f"The dimension of zipped axes must have a name of its own, but {dim!r} is one of the axes."
            )
        return cls._of((_Dim(dim, checked),), {})

    @classmethod
    def sobol(cls, points: int, dim: str = "draw", /, *, key: int = 0, **ranges: Any) -> "Grid":
        """Points of the Sobol sequence along the dimension `dim`: they fill the ranges more evenly than random ones.

        A power of two of them is the most even. Each coordinate is shifted (by exclusive or) by a random word of the key, so that
        every point is uniformly distributed and another key gives an independent estimate.

        Args:
            points: how many, up to 2^32. dim: name of the dimension.
            key: a whole number; the same key gives the same draws, everywhere.
            ranges: `lam=between(0.1, 10, log=True)`, or a pair (low, high).

        Raises:
            ValueError, TypeError: no range, a bad one, or a dimension named as one of the parameters.

        Source: Sobol 1967 with the direction numbers of Joe and Kuo 2008 (scipy.stats.qmc), digital shift as in Owen 2003.
        """
        return cls._of((make_draws("sobol", points, dim, key, ranges),), {})

    @classmethod
    def uniform(cls, points: int, dim: str = "draw", /, *, key: int = 0, **ranges: Any) -> "Grid":
        """Independent uniform draws along the dimension `dim`; arguments and errors as in `sobol`."""
        return cls._of((make_draws("uniform", points, dim, key, ranges),), {})

    @classmethod
    def _of(cls, dims: tuple[_AnyDim, ...], constants: Mapping[str, Axis]) -> "Grid":
        grid = object.__new__(cls)
        object.__setattr__(grid, "dims", dims)
        object.__setattr__(grid, "constants", dict(constants))
        return grid

    def __mul__(self, other: "Grid") -> "Grid":
        """Every point of the one with every point of the other; `self` varies slowest."""
        if not isinstance(other, Grid):
            return NotImplemented
        clash = (self._all_names() & other._all_names()) - {""}
        if clash:
            raise ValueError(f"Grids that are multiplied must share no name, but both have {_listed(sorted(clash))}.")
        return Grid._of(self.dims + other.dims, {**self.constants, **other.constants})

    def _all_names(self) -> set[str]:
        return set(self.names) | {dim.name for dim in self.dims}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters that a point has, constants last."""
        return tuple(name for dim in self.dims for name in dim.names) + tuple(self.constants)

    @property
    def static_names(self) -> tuple[str, ...]:
        """Names of the parameters that choose a program."""
        varying = tuple(name for dim in self.dims for name in dim.static_names)
        return varying + tuple(name for name, one in self.constants.items() if one.static)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension of the result; `()` where all parameters are constants."""
        return tuple(dim.size for dim in self.dims)

    @property
    def dim_names(self) -> tuple[str, ...]:
        """Name of each dimension of the result."""
        return tuple(dim.name for dim in self.dims)

    def __len__(self) -> int:
        return math.prod(self.shape)

    def points(self, indices: Any) -> dict[str, np.ndarray]:
        """Parameters of the points with these numbers, one array per parameter, shaped as `indices`.

        Raises:
            IndexError: a number is outside 0 .. len(grid) - 1.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(
                f"A point's number must lie in 0 .. {len(self) - 1}, but {indices.min()} .. {indices.max()} was asked."
            )
        found: dict[str, np.ndarray] = {}
        remainder = indices
        for dim in reversed(self.dims):
            remainder, along = np.divmod(remainder, dim.size)
            found |= dim.at(along)
        found |= {name: np.broadcast_to(one.values[0], indices.shape) for name, one in self.constants.items()}
        return {name: found[name] for name in self.names}

    def point(self, index: int) -> dict[str, Any]:
        """Parameters of one point as numbers: `{"lam": 0.1, "rho": 0.9}`."""
        return {name: value[0] for name, value in self.points([int(index)]).items()}

    def coords(self) -> dict[str, tuple]:
        """Coordinates in xarray's form `{name: (dims, values, attrs)}`."""
        varying = {name: one for dim in self.dims for name, one in dim.coords().items()}
        return varying | {name: ((), one.values[0], one.attrs) for name, one in self.constants.items()}

    def cast(self, convert: Callable[[str, np.ndarray], Any]) -> "Grid":
        """The same grid with `convert(name, values)` applied to every axis that is not static."""
        return Grid._of(tuple(dim.cast(convert) for dim in self.dims), _cast(self.constants, convert))

    def identity(self) -> dict[str, Any]:
        """What makes the grid this grid, as JSON: two grids of equal points have equal identities."""
        found = {dim.name: dim.identity() for dim in self.dims}
        return found | {name: {"constant": one.values[0].item()} for name, one in self.constants.items()}

    def __repr__(self) -> str:
        parts = [str(dim) for dim in self.dims]
        parts += [f"{name}={_text(one.values[0])}" for name, one in self.constants.items()]
        return f"Grid of {len(self):,} points: " + " x ".join(parts)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
