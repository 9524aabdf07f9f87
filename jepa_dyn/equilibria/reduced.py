"""The reduced equation of siamese equilibria, in S = A^T A: one symmetric matrix per O(n) orbit (Ponce 2025, (6), (7)).

    F(S) = (X S + lambda)(S X + lambda) - Y^T S Y = 0,    X = [xx^T], Y = [yx^T],    B = A Y A^T (A X A^T + lambda)^-1

for encoders of full rank m. For any rank the equilibria are the positive semidefinite S with S F(S) = 0: with A = U V^T, U
orthonormal columns, V of full rank, B = U b U^T, the flow vanishes if and only if V^T F(V V^T) = 0. (The print asks for rank m and
has [yy^T] for [yx^T] in its proof.)

A symmetric matrix is a vector of its m (m + 1) / 2 entries, those off the diagonal times sqrt(2): lengths are Frobenius norms.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike


def num_entries(m: int) -> int:
    """Independent entries of a symmetric m x m matrix."""
    return m * (m + 1) // 2


def _places(m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, columns = np.triu_indices(m)
    return rows, columns, np.where(rows == columns, 1.0, np.sqrt(2.0))


def symmetric(entries: Array, m: int) -> Array:
    """The (..., m, m) matrices of the entries (..., m (m + 1) / 2)."""
    rows, columns, scale = _places(m)
    values = entries / scale.astype(entries.real.dtype)
    empty = jnp.zeros((*entries.shape[:-1], m, m), entries.dtype)
    return empty.at[..., rows, columns].set(values).at[..., columns, rows].set(values)


def entries(matrix: Array) -> Array:
    """The entries of (..., m, m) symmetric matrices; the inverse of `symmetric`."""
    rows, columns, scale = _places(matrix.shape[-1])
    return matrix[..., rows, columns] * scale.astype(matrix.real.dtype)


def reduced_residual(s: Array, xx: Array, yx: Array, weight_decay: ArrayLike, one: ArrayLike = 1.0) -> Array:
    """F(S), symmetric where S and X are; `one` is the variable that makes it homogeneous of degree 2, for solutions at infinity.

    Complex arguments are transposed, not conjugated. Source: Ponce 2025, (6).
    """
    shifted = xx @ s + weight_decay * one * jnp.eye(xx.shape[0], dtype=xx.dtype)
    return shifted @ shifted.T - one * (yx.T @ s @ yx)


def packed_residual(vector: Array, xx: Array, yx: Array, weight_decay: ArrayLike, one: ArrayLike = 1.0) -> Array:
    """`reduced_residual` as a field on the entries of S."""
    return entries(reduced_residual(symmetric(vector, xx.shape[0]), xx, yx, weight_decay, one))


def predictor_of(encoder: Array, xx: Array, yx: Array, weight_decay: ArrayLike) -> Array:
    """B of an equilibrium from its A, (n, n): the predictor that minimises F at fixed A. Source: Ponce 2025, (7)."""
    gram = encoder @ xx @ encoder.T + weight_decay * jnp.eye(encoder.shape[0], dtype=encoder.dtype)
    return jnp.linalg.solve(gram.T, (encoder @ yx @ encoder.T).T).T
