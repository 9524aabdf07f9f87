"""Second moments from data: arrays of view pairs, or a stream of batches of any length, in bounded memory.

Sums run on the host in float64, whatever the dtype of the data and of JAX, about running means, and batches are merged by
the update of Chan, Golub, LeVeque 1983, so that a common offset that is large beside the spread costs no digits.
"""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from jepa_dyn.moments.view_moments import ViewMoments, view_moments

_CHUNK_BYTES = 8 * 2**20  # float64 working copy of one chunk of rows; bounds the memory of arrays on disk as well


class MomentAccumulator:
    """Running second moments of view pairs; host memory O((d + d_y)^2), whatever the number of pairs.

        accumulator = MomentAccumulator()
        for x, y in batches:
            accumulator.update(x, y)
        moments = accumulator.moments()

    With z = (x, y) it keeps the count n, the mean m and M = sum (z - m)(z - m)^T; two sets of pairs merge exactly by
    m = m_a + (n_b/n) delta,  M = M_a + M_b + (n_a n_b / n) delta delta^T,  delta = m_b - m_a  (Chan et al. 1983).
    Means are kept relative to the first row ever seen, so that a large common offset cancels before any rounding.
    An `update` that raises leaves the accumulator as it was.
    """

    def __init__(self) -> None:
        self._count = 0
        self._d = self._d_y = 0
        self._origin = self._mean = np.zeros(0)  # the mean is origin + _mean
        self._scatter = np.zeros((0, 0))

    @property
    def count(self) -> int:
        """Number of pairs so far."""
        return self._count

    @property
    def mean_x(self) -> Float[np.ndarray, " d"]:
        """Mean of x so far, float64."""
        return (self._origin + self._mean)[: self._d]

    @property
    def mean_y(self) -> Float[np.ndarray, " d_y"]:
        """Mean of y so far, float64."""
        return (self._origin + self._mean)[self._d :]

    def update(self, x: ArrayLike, y: ArrayLike) -> "MomentAccumulator":
        """Adds pairs: `x` of shape (n, d), `y` of shape (n, d_y), row i of both is one pair. n = 0 adds nothing.

        Arrays on disk (`np.memmap`) are read in chunks.

        Raises:
            TypeError: not real numbers.
            ValueError: not two-dimensional, numbers of rows or (against earlier batches) of columns that disagree, or a NaN
                or an infinity, named by its row counted over the whole stream.
        """
        x, y = as_rows("x", x), as_rows("y", y)
        if len(x) != len(y):
            raise ValueError(
                f"Arguments `x` and `y` must have equally many rows, one per pair, but have {len(x)} and {len(y)}."
            )
        d, d_y = x.shape[1], y.shape[1]
        if self._count and (d, d_y) != (self._d, self._d_y):
            raise ValueError(
                f"Arguments `x` and `y` must have {self._d} and {self._d_y} columns like the pairs before, but have {d} and {d_y}."
            )
        batch = MomentAccumulator()
        rows = max(1, _CHUNK_BYTES // (8 * (d + d_y)))
        buffer = np.empty((min(rows, len(x)), d + d_y))
        for start in range(0, len(x), rows):
            chunk = buffer[: len(x) - start]
            chunk[:, :d], chunk[:, d:] = x[start : start + rows], y[start : start + rows]
            if not np.isfinite(chunk).all():
                _raise_not_finite(chunk, d, self._count + start)
            origin = batch._origin if batch._count else chunk[0].copy()
            batch.merge(_scatter_of_chunk(chunk, d, origin))
        return self.merge(batch)

    def merge(self, other: "MomentAccumulator") -> "MomentAccumulator":
        """Adds all pairs of another accumulator (a part of the data handled elsewhere).

        Raises:
            ValueError: the other holds views of other sizes.
        """
        if other._count == 0:
            return self
        if self._count == 0:
            self._count, self._d, self._d_y = other._count, other._d, other._d_y
            self._origin, self._mean, self._scatter = other._origin.copy(), other._mean.copy(), other._scatter.copy()
            return self
        if (other._d, other._d_y) != (self._d, self._d_y):
            raise ValueError(
                f"Argument `other` must hold views of {self._d} and {self._d_y} components, but holds {other._d} and {other._d_y}."
            )
        total = self._count + other._count
        delta = (other._origin - self._origin) + (other._mean - self._mean)
        self._mean = self._mean + delta * (other._count / total)
        self._scatter = self._scatter + other._scatter + np.outer(delta, delta) * (self._count * (other._count / total))
        self._count = total
        return self

    def moments(self, *, center: bool = True, ddof: int = 0) -> ViewMoments:
        """The moments of all pairs so far.

        Args:
            center: covariances about the means, or (False) raw second moments E[x x^T], E[y x^T].
            ddof: sums are divided by count - ddof. The default 0 gives the moments OF this data set, which is what training
                on it sees; 1 gives the unbiased estimate for the law behind it (centred only).

        Raises:
            ValueError: no pairs, one pair only, constant data, or `ddof` out of range.
        """
        if self._count == 0:
            raise ValueError("There must be at least two pairs, but there are none.")
        if self._count == 1:
            raise ValueError("There must be at least two pairs, but there is only one: one pair has no variance.")
        if ddof not in (0, 1) or (ddof == 1 and not center):
            raise ValueError(f"Argument `ddof` must be 0, or 1 with center=True, but is {ddof!r} with center={center}.")
        second = self._scatter / (self._count - ddof)
        if center:
            self._refuse_constant(second)
        else:
            mean = self._origin + self._mean
            second = second + np.outer(mean, mean)
        d = self._d
        require_in_range(second)
        return view_moments(second[:d, :d], second[d:, :d], second[d:, d:])

    def _refuse_constant(self, second: np.ndarray) -> None:
        """Constant data has exactly zero scatter, because the first row is subtracted from all before anything is rounded."""
        for name, variances in (("x", np.diag(second)[: self._d]), ("y", np.diag(second)[self._d :])):
            if variances.max() <= 0:
                raise ValueError(
                    f"Argument `{name}` must vary, but all {self._count} rows are equal: constant data has zero variance, "
                    "there is nothing to learn."
                )


def moments_from_pairs(x: ArrayLike, y: ArrayLike, *, center: bool = True, ddof: int = 0) -> ViewMoments:
    """Second moments of the pairs (x[i], y[i]).

    Args:
        x: shape (n, d), one first view per row; an array in memory or on disk (`np.memmap`, read in chunks).
        y: shape (n, d_y), the second views.
        center, ddof: as in `MomentAccumulator.moments`: by default covariances divided by n.

    Raises:
        TypeError, ValueError: as `MomentAccumulator.update` and `MomentAccumulator.moments`.
    """
    return MomentAccumulator().update(x, y).moments(center=center, ddof=ddof)


def moments_from_batches(batches: Iterable[Any], *, center: bool = True, ddof: int = 0) -> ViewMoments:
    """Second moments of a stream of pairs of arrays (x, y), each of shapes (n_b, d), (n_b, d_y); memory is that of one batch.

    Args:
        batches: any iterable, for example `view_pair_batches(...)` or a generator that reads files.
        center, ddof: as in `MomentAccumulator.moments`.

    Raises:
        TypeError: a batch is not a pair of arrays.
        ValueError: as `MomentAccumulator.update` and `MomentAccumulator.moments`.
    """
    accumulator = MomentAccumulator()
    for index, batch in enumerate(batches):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(
                f"Argument `batches` must yield pairs of arrays (x, y), but item {index} is of type {type(batch).__name__}."
            )
        accumulator.update(*batch)
    return accumulator.moments(center=center, ddof=ddof)


def as_rows(name: str, value: Any) -> np.ndarray:
    """The argument as a matrix of real numbers, one view per row; an array on disk stays there.

    Raises:
        TypeError, ValueError: it is none.
    """
    rows = np.asarray(value) if not isinstance(value, np.ndarray) else value
    if jnp.issubdtype(rows.dtype, np.floating):  # jnp's test, because bfloat16 is no numpy float
        pass
    elif rows.dtype.kind not in "biu":
        raise TypeError(f"Argument `{name}` must hold real numbers, but has dtype {rows.dtype}.")
    if rows.ndim != 2:
        hint = f" Write {name}.reshape(len({name}), -1)." if rows.ndim else ""
        raise ValueError(f"Argument `{name}` must have shape (pairs, components), but has shape {rows.shape}.{hint}")
    if rows.shape[1] == 0:
        raise ValueError(f"Argument `{name}` must have at least one component, but has shape {rows.shape}.")
    return rows


def _scatter_of_chunk(chunk: np.ndarray, d: int, origin: np.ndarray) -> MomentAccumulator:
    """Mean and scatter of one chunk, in two passes; overwrites the chunk."""
    part = MomentAccumulator()
    part._count, part._d, part._d_y, part._origin = len(chunk), d, chunk.shape[1] - d, origin
    with np.errstate(over="ignore", invalid="ignore"):  # values near the largest float: refused by name in `moments`
        chunk -= origin
        part._mean = chunk.mean(axis=0)
        chunk -= part._mean
        part._scatter = chunk.T @ chunk
    return part


def _raise_not_finite(chunk: np.ndarray, d: int, first_row: int) -> None:
    row, column = (int(i) for i in np.argwhere(~np.isfinite(chunk))[0])
    name, component = ("x", column) if column < d else ("y", column - d)
    raise ValueError(
        f"Argument `{name}` must be finite, but holds {chunk[row, column]} in row {first_row + row}, component {component} "
        "(rows counted from 0 over all pairs)."
    )


def require_in_range(second: np.ndarray) -> None:
    """Moments must fit the dtype that they are about to take: squares reach the end of float32 at values of 1e19."""
    dtype = jnp.result_type(float)
    largest = np.abs(second).max()
    if not largest <= float(jnp.finfo(dtype).max):
        raise ValueError(
            f"Second moments must fit into {dtype}, but the largest is {largest:.3g}: rescale the data"
            + (" or turn x64 on." if dtype == np.float32 else ".")
        )
