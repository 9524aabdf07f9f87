"""Paths of eigenvalues: eigenvectors followed through crossings, rates of convergence, what collapsed, diverged or was recruited.

Source: Halvagal 2023, figures 2, 4-8.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jepa_dyn._checks import require, require_fraction, require_increasing, require_positive


class EigenvaluePaths(eqx.Module):
    """Eigenpairs of a path of symmetric matrices, each followed through time.

    - `values`: (T, M), column m belongs to one eigenvector all along; at the first time they ascend.
    - `vectors`: (T, M, M), columns; signs and, where eigenvalues meet, bases go on as they were.
    - `overlaps`: (T, M), |u_m(t - 1).u_m(t)|, 1 at the first time: how sure the assignment is.
    """

    values: Float[Array, "T M"]
    vectors: Float[Array, "T M M"]
    overlaps: Float[Array, "T M"]


def follow_eigenvectors(matrices: ArrayLike, degeneracy: ArrayLike = 1e-8) -> EigenvaluePaths:
    """Eigenvalues and eigenvectors of C(t_1), ..., C(t_T), matched from each time to the next by their overlap.

    Eigenvalues closer than `degeneracy` x the largest modulus count as one: inside their eigenspace the basis nearest to the last
    one is taken. So paths pass through one another, and modes that have become equal keep their names. A NaN from a failed run
    stays NaN.

    Args:
        matrices: (T, M, M), symmetric; `jax.vmap` for more runs.
        degeneracy: relative gap > 0.

    Raises:
        ValueError: not a path of square matrices.
    """
    array = jnp.asarray(matrices)
    if array.ndim != 3 or array.shape[1] != array.shape[2] or 0 in array.shape:
        raise ValueError(f"Argument `matrices` must have shape (T, M, M), but has shape {array.shape}.")
    require_positive("degeneracy", degeneracy)
    array = array.astype(jnp.result_type(float, array.dtype))
    return EigenvaluePaths(*_follow(array, jnp.asarray(degeneracy, array.dtype)))


def _match(shares: Array) -> Array:
    """For every row the column that is its own, none twice: the largest share left, again and again."""
    size = shares.shape[0]

    def assign(_: ArrayLike, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        left, owner = carry
        row, column = jnp.unravel_index(jnp.argmax(left), left.shape)
        left = left.at[row, :].set(-1.0).at[:, column].set(-1.0)
        return left, owner.at[row].set(column.astype(owner.dtype))

    return jax.lax.fori_loop(0, size, assign, (shares, jnp.zeros(size, jnp.int32)))[1]


@jax.jit
def _follow(matrices: Array, degeneracy: Array) -> tuple[Array, Array, Array]:
    def step(last: Array, matrix: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        symmetric = (matrix + matrix.T) / 2
        values, columns = jnp.linalg.eigh(symmetric)
        near = jnp.diff(values) <= degeneracy * jnp.max(jnp.abs(values))
        cluster = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(~near).astype(jnp.int32)])
        together = (cluster[:, None] == cluster[None, :]).astype(values.dtype)
        products = last.T @ columns
        # a vector belongs to the eigenspace that holds most of it, whatever basis that came in
        owner = _match(products**2 @ together + 1e-3 * products**2)
        inside = together[owner] * products  # coordinates of its projection on that eigenspace, rows
        left, _, right = jnp.linalg.svd(inside)
        vectors = columns @ (left @ right).T
        vectors = jnp.where(jnp.all(jnp.isfinite(matrix)), vectors, jnp.nan)
        turned = jnp.einsum("im,ij,jm->m", vectors, symmetric, vectors)
        kept = jnp.where(jnp.all(jnp.isfinite(vectors)), vectors, last)
        return kept, (turned, vectors, jnp.abs(jnp.sum(last * vectors, axis=0)))

    first = jnp.linalg.eigh((matrices[0] + matrices[0].T) / 2)[1]
    start = jnp.where(jnp.all(jnp.isfinite(first)), first, jnp.eye(first.shape[0], dtype=first.dtype))
    return jax.lax.scan(step, start, matrices)[1]


def predictor_alignment(correlation: ArrayLike, predictor: ArrayLike) -> Float[Array, " M"]:
    """cos(u_m, W_P u_m) for every eigenvector u_m of C_z, by descending eigenvalue: 1 where the predictor has it too.

    0 where W_P u_m = 0 up to rounding. For a repeated eigenvalue of C_z the u_m are any basis of its eigenspace.

    Args:
        correlation: C_z, symmetric (M, M). predictor: W_P, (M, M).

    Raises:
        ValueError: not square matrices of one size.

    Source: Halvagal 2023, figure 4.
    """
    shapes = np.shape(correlation), np.shape(predictor)
    if len(shapes[0]) != 2 or shapes[0][0] != shapes[0][1] or shapes[0] != shapes[1]:
        raise ValueError(
            f"Arguments `correlation` and `predictor` must be square matrices of one size, but have {shapes[0]}, {shapes[1]}."
        )
    return _predictor_alignment(jnp.asarray(correlation), jnp.asarray(predictor))


@jax.jit
def _predictor_alignment(correlation: Array, predictor: Array) -> Array:
    columns = jnp.linalg.eigh((correlation + correlation.T) / 2)[1][:, ::-1]
    images = predictor @ columns
    lengths = jnp.linalg.norm(images, axis=0)
    absent = lengths <= 8 * lengths.shape[0] * jnp.finfo(lengths.dtype).eps * jnp.max(jnp.abs(predictor))
    return jnp.where(absent, 0.0, jnp.sum(columns * images, axis=0) / jnp.where(absent, 1.0, lengths))


def convergence_rates(ts: ArrayLike, values: ArrayLike, limit: ArrayLike) -> Float[Array, "*batch intervals modes"]:
    """-d log|values - limit| / dt between saved times: how fast every mode closes on its limit. One fewer than the times.

    Near a stable limit it tends to a constant per mode, far from it, it tells who waits. NaN where a value is the limit itself.

    Args:
        ts: (T,) increasing times. values: (..., T, M). limit: number, (M,), or (..., 1, M).

    Raises:
        ValueError: times that do not increase, shapes that disagree.
    """
    require_increasing("ts", ts)
    times, series = jnp.asarray(ts), jnp.asarray(values)
    if times.ndim != 1 or series.ndim < 2 or series.shape[-2] != times.shape[0]:
        raise ValueError(
            f"Argument `values` must have shape (..., {times.shape[-1]}, M), one row per time, but has {series.shape}."
        )
    return _convergence_rates(times, series, jnp.asarray(limit, series.dtype))


@jax.jit
def _convergence_rates(times: Array, series: Array, limit: Array) -> Array:
    gaps = jnp.abs(series - limit)
    logs = jnp.where(gaps > 0, jnp.log(jnp.where(gaps > 0, gaps, 1.0)), jnp.nan)
    return -jnp.diff(logs, axis=-2) / jnp.diff(times)[:, None]


def rate_ratio(rates: ArrayLike) -> Float[Array, "*batch"]:
    """Largest over smallest along the last axis: 1 where all modes are equally fast; the anisotropy that an IsoLoss removes.

    Of rates, or of times such as `crossing_times`. NaN entries are left out; all NaN gives NaN. A sign that differs gives a
    negative ratio, a 0 or an infinity among others infinity.
    """
    return _rate_ratio(jnp.asarray(rates))


@jax.jit
def _rate_ratio(values: Array) -> Array:
    known = ~jnp.isnan(values)
    sizes = jnp.where(known, jnp.abs(values), jnp.nan)
    largest, smallest = jnp.nanmax(sizes, axis=-1), jnp.nanmin(sizes, axis=-1)
    mixed = jnp.any(known & (values > 0), axis=-1) & jnp.any(known & (values < 0), axis=-1)
    equal = largest == smallest
    ratio = jnp.where(equal, 1.0, largest / jnp.where(equal, 1.0, smallest))
    return jnp.where(jnp.any(known, axis=-1), jnp.where(mixed, -ratio, ratio), jnp.nan)


def recruited(eigenvalues: ArrayLike, share: ArrayLike = 0.1) -> Int[Array, "*batch"]:
    """How many eigenvalues exceed `share` of the largest of their spectrum: (..., M) -> (...). A spectrum of zeros has none.

    Args:
        eigenvalues: (..., M). share: in (0, 1).

    Raises:
        ValueError: a share not in (0, 1).

    Source: Halvagal 2023, figures 7, 8.
    """
    require_fraction("share", share)
    return _recruited(jnp.asarray(eigenvalues), jnp.asarray(share))


@jax.jit
def _recruited(values: Array, share: Array) -> Array:
    return jnp.sum(values > share * jnp.maximum(jnp.max(values, axis=-1, keepdims=True), 0), axis=-1)


class Outcome(eqx.Module):
    """What became of a path of spectra; one entry per run.

    - `collapsed`: the trace fell below `lost` of its start: complete collapse.
    - `rank_collapsed`: it did not, but eigenvalues that were alive at the start (above `lost` of the largest then) are now below
      it: dimensional collapse, at constant trace or not.
    - `diverged`: the trace grew beyond `grown` times its start, or is not finite.
    - `trace_ratio`: last trace over first. `rank_start`, `rank_end`: eigenvalues above `lost` of the largest.
    """

    collapsed: Bool[Array, "*batch"]
    rank_collapsed: Bool[Array, "*batch"]
    diverged: Bool[Array, "*batch"]
    trace_ratio: Float[Array, "*batch"]
    rank_start: Int[Array, "*batch"]
    rank_end: Int[Array, "*batch"]


def spectrum_outcome(values: ArrayLike, *, lost: ArrayLike = 1e-2, grown: ArrayLike = 1e2) -> Outcome:
    """Flags of a path of spectra of C_z (at alpha = 1, of W_P), (..., T, M), from its first and last time.

    Args:
        values: eigenvalues >= 0 at the saved times, with any leading axes.
        lost: share below which something is gone, in (0, 1).
        grown: factor > 1 beyond which the trace has diverged.

    Raises:
        ValueError: a shape without times, a share or factor out of range.

    Source: Halvagal 2023, Table 1. It has the cosine loss without stop gradient diverge; its trace is conserved and its rank
    collapses.
    """
    series = jnp.asarray(values)
    if series.ndim < 2 or series.shape[-2] == 0:
        raise ValueError(f"Argument `values` must have shape (..., T, M), but has shape {series.shape}.")
    require_fraction("lost", lost)
    require("grown", grown, "be > 1", lambda a: a > 1)
    return Outcome(*_outcome(series, jnp.asarray(lost), jnp.asarray(grown)))


@jax.jit
def _outcome(series: Array, lost: Array, grown: Array) -> tuple[Array, ...]:
    first, last = series[..., 0, :], series[..., -1, :]
    start, end = jnp.sum(first, axis=-1), jnp.sum(last, axis=-1)
    ratio = end / jnp.where(start == 0, 1.0, start)
    ranks = [_recruited(spectrum, lost) for spectrum in (first, last)]
    collapsed = ratio < lost
    diverged = ~jnp.isfinite(ratio) | (ratio > grown)
    return collapsed, ~collapsed & ~diverged & (ranks[1] < ranks[0]), diverged, ratio, ranks[0], ranks[1]
