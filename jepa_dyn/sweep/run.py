"""Run a function over a grid in blocks that fit the memory, and label the result.

Every block has the same shape (the last one is padded by repeating its last point), so one compiled program serves all
of them. A block is a pure function of its points' numbers, which is what a store that resumes and a second device need.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jepa_dyn._progress import progress_bar
from jepa_dyn.status import Status, count_statuses
from jepa_dyn.sweep.block import Output, batched_block, mapped_block
from jepa_dyn.sweep.grid import Grid

if TYPE_CHECKING:
    import xarray

DEFAULT_MEMORY_BYTES = 256 * 2**20
DEFAULT_BATCHED_POINTS = 2**16


def sweep(
    fn: Callable[..., Mapping[str, Any]],
    grid: Grid,
    *,
    key: jax.Array | None = None,
    coords: Mapping[str, Any] | None = None,
    memory_bytes: int | None = None,
    chunk_size: int | None = None,
    batched: bool = False,
    progress: bool = True,
) -> "xarray.Dataset":
    """Calls `fn` at every point of the grid and returns one labelled dataset.

    `fn` takes the grid's parameters by name, as scalars, and returns a dict of named results:

        sweep(lambda lam, rho: {"rate": lam * rho}, Grid(lam=[0.1, 1.0], rho=np.linspace(0.1, 0.9, 9)))

    A result is an array, or a tuple in xarray's order `(dims, array)` or `(dims, array, attrs)` that names its own
    dimensions: `{"w": ("time", w, {"units": "..."})}`; their coordinates are given as `coords={"time": ts}`. A result
    called `status` holds codes of `jepa_dyn.Status`. `fn` is mapped over the points with `jax.vmap` and compiled once.

    Args:
        fn: function of one point; with `batched=True` of a whole block.
        grid: the points; see `Grid`.
        key: where given, `fn` is also called with `key=`, the key of its point: `fold_in(key, number of the point)`.
            The same key gives the same numbers whatever the block size.
        coords: coordinates of the results' own dimensions: `{dim: values}` or `{dim: (values, attrs)}`.
        memory_bytes: what one block may use; 256 MiB by default. The block's size follows from the sizes of the
            results and from what the compiler reports.
        chunk_size: points per block instead.
        batched: `fn` takes arrays of one block's points, results have the points as first axis, and it runs as it is
            (not compiled here): for functions that schedule their own lanes, such as `solve.ensemble`.
        progress: shows a bar where the sweep takes longer than half a second.

    Returns:
        Dataset with the grid's axes as coordinates; zipped axes share a dimension. A NaN stays a NaN. Points that
        failed (a status other than ok, a NaN, an infinity that no attribute `infinite_means` of the result explains) are
        counted in one warning.

    Raises:
        TypeError: `fn` does not take the grid's parameters or returns no dict.
        ValueError: two things share a name, a shape does not fit, the block size is not positive, or an axis cannot be
            represented in float32 while x64 is off.
    """
    if (chunk_size is not None and chunk_size < 1) or (memory_bytes is not None and memory_bytes < 1):
        raise ValueError("Arguments `chunk_size` and `memory_bytes` must be positive.")
    _require_names(fn, grid, key)
    grid = grid.cast(_representable)
    if batched:
        size = min(chunk_size or DEFAULT_BATCHED_POINTS, len(grid))
        block = batched_block(fn, grid, key, size)
    else:
        block = mapped_block(fn, grid, key, chunk_size, memory_bytes or DEFAULT_MEMORY_BYTES)
        size = block.size
    results: dict[str, np.ndarray] = {}
    blocks = _bounds(len(grid), size)
    for start, stop in progress_bar(
        blocks, len(grid), show=progress, weight=lambda bounds: bounds[1] - bounds[0], unit="points"
    ):
        for name, values in block(start).items():
            if name not in results:
                results[name] = np.empty((len(grid), *values.shape[1:]), values.dtype)
            results[name][start:stop] = values[: stop - start]
    dataset = _label(results, block.outputs, grid, dict(coords or {}))
    _warn_of_failures(dataset, grid)
    return dataset


def _bounds(total: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, total)) for start in range(0, total, size))


def _require_names(fn: Callable, grid: Grid, key: jax.Array | None) -> None:
    """Says which parameters do not fit before JAX says it at length."""
    if key is not None and "key" in grid.names:
        raise ValueError("A grid must not have an axis called `key` where the argument `key` is given.")
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return
    names = (*grid.names, *(("key",) if key is not None else ()))
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise TypeError(
            f"Argument `fn` must take the parameters ({', '.join(names)}) by name, but takes ({takes}): {error}."
        ) from None


def _representable(name: str, values: np.ndarray) -> np.ndarray:
    """The values in the number type that JAX will compute with, so that labels tell what was computed."""
    dtype = jax.dtypes.canonicalize_dtype(values.dtype)
    if dtype == values.dtype:
        return values
    with np.errstate(over="ignore", under="ignore"):
        cast = values.astype(dtype)
    lost = np.unique(cast).size < np.unique(values).size or (np.isinf(cast) & ~np.isinf(values)).any()
    if lost or ((cast == 0) & (values != 0)).any():
        raise ValueError(
            f"Axis `{name}` must be representable in {dtype.name} while x64 is off, but its values overflow, underflow "
            "or coincide there; call jepa_dyn.enable_x64() first."
        )
    return cast


def _label(
    results: dict[str, np.ndarray], outputs: Mapping[str, Output], grid: Grid, coords: dict[str, Any]
) -> "xarray.Dataset":
    import xarray

    import jepa_dyn

    taken = set(grid.names) | set(grid.dim_names)
    sizes: dict[str, int] = {}
    variables = {}
    for name, values in results.items():
        output = outputs[name]
        for dim, length in zip(output.dims, values.shape[1:], strict=True):
            if dim in taken:
                raise ValueError(
                    f"Result `{name}` must name its dimensions differently from the grid, but uses `{dim}`."
                )
            if sizes.setdefault(dim, length) != length:
                raise ValueError(
                    f"Dimension `{dim}` must have one length, but has {sizes[dim]} and {length} (in `{name}`)."
                )
        variables[name] = (grid.dim_names + output.dims, values.reshape(grid.shape + values.shape[1:]), output.attrs)
    for dim, given in coords.items():
        if dim in taken or dim in results:
            raise ValueError(f"Argument `coords` must not repeat a name of the grid or of a result, but has `{dim}`.")
        values, attrs = given if isinstance(given, tuple) else (given, {})
        if dim not in sizes:
            raise ValueError(f"Argument `coords` must name dimensions of the results, but no result has `{dim}`.")
        if np.shape(values) != (sizes[dim],):
            raise ValueError(f"Coordinate `{dim}` must have shape ({sizes[dim]},), but has shape {np.shape(values)}.")
        coords[dim] = (dim, np.asarray(values), dict(attrs))
    attrs = {
        "jepa_dyn_version": jepa_dyn.__version__,
        "jax_version": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "x64": int(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
    }
    return xarray.Dataset(variables, coords=grid.coords() | coords, attrs=attrs)


def _warn_of_failures(dataset: "xarray.Dataset", grid: Grid) -> None:
    """One line: how many points failed, in which way, and where the first one is."""
    bad = np.zeros(len(grid), bool)
    counts: dict[str, int] = {}
    for name, variable in dataset.data_vars.items():
        rows = variable.values.reshape(len(grid), -1)
        if name == "status":
            failed = (rows != Status.ok).any(axis=1)
            counts |= {cause: n for cause, n in count_statuses(rows).items() if cause != Status.ok.name}
        elif rows.dtype.kind in "fc":
            fine = ~np.isnan(rows) if "infinite_means" in variable.attrs else np.isfinite(rows)
            failed = ~fine.all(axis=1)
            if failed.any():
                counts[f"non-finite {name}"] = int(failed.sum())
        else:
            continue
        bad |= failed
    if bad.any():
        first = ", ".join(f"{k}={v:.6g}" for k, v in grid.point(int(bad.argmax())).items())
        kinds = ", ".join(f"{count} {cause}" for cause, count in counts.items())
        warnings.warn(f"{int(bad.sum())} of {len(grid)} points failed ({kinds}); the first at {first}.", stacklevel=3)
