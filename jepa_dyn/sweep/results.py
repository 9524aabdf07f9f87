"""What the function of a sweep returns: named arrays, with the names of their own dimensions and attributes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn.status import MESSAGES, Status
from jepa_dyn.sweep.grid import Grid

RESERVED = ("finished", "block_summary")


class Output(NamedTuple):
    """One result: names of its own dimensions, its attributes; its own shape and number type, where they are known."""

    dims: tuple[str, ...]
    attrs: dict[str, Any]
    shape: tuple[int, ...] = ()
    dtype: Any = None


def split_results(
    returned: Any, grid: Grid, leading: int, outputs: dict[str, Output], keep: tuple[str, ...] | None = None
) -> dict[str, jax.Array]:
    """Arrays of the function's dict; what is to be known of each goes to `outputs`.

    `leading` is the number of axes that belong to the points: 0 for one point, 1 for a block. `keep` names the results that
    are wanted.
    """
    if not isinstance(returned, Mapping):
        raise TypeError(
            f"Argument `fn` must return a dict of named arrays such as {{'w': w}}, but returned {type(returned).__name__}."
        )
    if not returned:
        raise ValueError("Argument `fn` must return at least one named array, but returned an empty dict.")
    missing = [name for name in keep or () if name not in returned]
    if missing:
        raise ValueError(f"Results {missing} must be among those of `fn`, which returns {list(returned)}.")
    arrays = {}
    for name, value in returned.items():
        if keep is not None and name not in keep:
            continue
        if name in grid.names or name in grid.dim_names:
            raise ValueError(
                f"A result must not have the name of a parameter or dimension of the grid, but `{name}` has."
            )
        if name in RESERVED:
            raise ValueError(f"A result must not be called {name!r}, which a stored sweep uses itself.")
        dims, value, attrs = _unpack(name, value)
        array = jnp.asarray(value)
        own = array.ndim - leading
        dims = tuple(f"{name}_dim_{i}" for i in range(own)) if dims is None else dims
        if len(dims) != own:
            raise ValueError(
                f"Result `{name}` must have one name per dimension, but names {dims} for {own} dimensions."
            )
        if name == "status":
            attrs = status_attrs() | attrs
        arrays[name], outputs[name] = array, Output(dims, attrs, array.shape[leading:], array.dtype)
    return arrays


def _unpack(name: str, value: Any) -> tuple[tuple[str, ...] | None, Any, dict[str, Any]]:
    if not isinstance(value, tuple):
        return None, value, {}
    if len(value) not in (2, 3):
        raise ValueError(
            f"Result `{name}` must be an array, (dims, array) or (dims, array, attrs), but is a tuple of {len(value)}."
        )
    dims = (value[0],) if isinstance(value[0], str) else tuple(value[0])
    return dims, value[1], dict(value[2]) if len(value) == 3 else {}


def status_attrs() -> dict[str, Any]:
    """Attributes of a variable that holds statuses."""
    return {
        "long_name": "outcome of each point",
        "flag_values": [int(code) for code in Status],
        "flag_meanings": " ".join(code.name for code in Status),
        "description": "; ".join(f"{code.name}: {MESSAGES[code]}" for code in Status),
    }


def own_sizes(outputs: Mapping[str, Output], grid: Grid) -> dict[str, int]:
    """Length of each dimension that the results have of their own.

    Raises:
        ValueError: a dimension has a name of the grid, or two lengths.
    """
    taken = set(grid.names) | set(grid.dim_names)
    sizes: dict[str, int] = {}
    for name, output in outputs.items():
        for dim, length in zip(output.dims, output.shape, strict=True):
            if dim in taken:
                raise ValueError(
                    f"Result `{name}` must name its dimensions differently from the grid, but uses `{dim}`."
                )
            if sizes.setdefault(dim, length) != length:
                raise ValueError(
                    f"Dimension `{dim}` must have one length, but has {sizes[dim]} and {length} (in `{name}`)."
                )
    return sizes


def own_coords(
    coords: Mapping[str, Any], outputs: Mapping[str, Output], sizes: Mapping[str, int], grid: Grid
) -> dict[str, tuple]:
    """Coordinates of the results' own dimensions in xarray's form.

    Raises:
        ValueError: naming the one that does not fit.
    """
    taken = set(grid.names) | set(grid.dim_names) | set(outputs)
    found = {}
    for dim, given in coords.items():
        if dim in taken:
            raise ValueError(f"Argument `coords` must not repeat a name of the grid or of a result, but has `{dim}`.")
        values, attrs = given if isinstance(given, tuple) else (given, {})
        if dim not in sizes:
            raise ValueError(f"Argument `coords` must name dimensions of the results, but no result has `{dim}`.")
        if np.shape(values) != (sizes[dim],):
            raise ValueError(f"Coordinate `{dim}` must have shape ({sizes[dim]},), but has shape {np.shape(values)}.")
        found[dim] = (dim, np.asarray(values), dict(attrs))
    return found
