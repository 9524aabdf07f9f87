"""How much two subspaces of functions on the same samples have in common.

    a(P, P') = |P^T P'|_F^2 / d,    P, P' orthonormal bases (N, d) of two subspaces of R^N

It is the mean squared cosine of the principal angles: 1 for equal subspaces, 0 for orthogonal ones, d / N on average for a random
one.

Source: Simon 2023, appendix E, whose P are rows. It prints a maximum of d and a mean of d^2 / 2n for random subspaces of R^2n; with
the factor 1/d of its own definition these are 1 and d / 2n, as in its tables (50 / 2000 = 0.025).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_count, require_finite


def subspace_alignment(first: ArrayLike, second: ArrayLike) -> Float[Array, "*batch"]:
    """a(P, P') of the subspaces that the columns of two matrices span, in [0, 1].

    Args:
        first, second: (..., N, d) and (..., N, d'): embeddings of N samples, or eigenvectors of a kernel on them, as columns.
            Any invertible d x d matrix on the right changes nothing.

    A matrix of rank r < d, up to N rounding errors of its largest singular value, spans r dimensions, and the smaller of the two
    ranks stands for d: a subspace inside the other has alignment 1. One without columns that differ from 0 has alignment 0.

    Raises:
        ValueError: not matrices with equally many rows; not finite.

    Source: Simon 2023, appendix E, corrected (see above).
    """
    a, b = (jnp.asarray(value) for value in (first, second))
    if a.ndim < 2 or b.ndim < 2 or a.shape[-2] != b.shape[-2]:
        raise ValueError(
            "Arguments `first` and `second` must have shapes (..., N, d) and (..., N, d') with one N, but have "
            f"{a.shape} and {b.shape}."
        )
    require_finite("first", a)
    require_finite("second", b)
    dtype = jnp.result_type(float, a.dtype, b.dtype)
    return _alignment(a.astype(dtype), b.astype(dtype))


def chance_alignment(dimension: int, num_samples: int) -> float:
    """d / N: the mean alignment of a random subspace of dimension d with a fixed one, in the space of functions on N samples.

    Args:
        dimension: d; the larger one where two differ.
        num_samples: N >= d, for n view pairs 2n.

    Raises:
        ValueError: not whole numbers with 1 <= d <= N.

    Source: Simon 2023, appendix E, corrected: E |P^T P'|_F^2 = d d' / N for uniformly random P'.
    """
    require_count("dimension", dimension)
    require_count("num_samples", num_samples, dimension)
    return dimension / num_samples


def _basis(columns: Array) -> tuple[Array, Array]:
    """Orthonormal columns that span those of the matrix, zeros beyond its rank; the rank."""
    left, sizes, _ = jnp.linalg.svd(columns, full_matrices=False)
    smallest = columns.shape[-2] * jnp.finfo(columns.dtype).eps * sizes[..., :1]
    spanning = sizes > smallest
    return jnp.where(spanning[..., None, :], left, 0.0), jnp.sum(spanning, axis=-1)


@jax.jit
def _alignment(first: Array, second: Array) -> Array:
    (p, rank), (q, other) = _basis(first), _basis(second)
    common = jnp.sum(jnp.abs(jnp.swapaxes(p, -1, -2) @ q) ** 2, axis=(-2, -1))
    return jnp.minimum(common / jnp.maximum(jnp.minimum(rank, other), 1), 1.0)
