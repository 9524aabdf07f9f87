"""The reduced equation of siamese equilibria, in S = A^T A: one symmetric matrix per O(n) orbit (Ponce 2025, (6), (7)).

    F(S) = (X S + lambda)(S X + lambda) - Y^T S Y = 0,    X = [xx^T], Y = [yx^T],    B = A Y A^T (A X A^T + lambda)^-1

for encoders of full rank m. (The print asks for rank m and has [yy^T] for [yx^T] in its proof.) Of rank r < m, which the print
leaves out: with A = U V^T, U orthonormal columns, V of rank r, B = U b U^T, the flow vanishes if and only if V^T V = b^T b and
X V b^T b - Y^T V b + lambda V = 0. Where V spans the columns of L = [1; K], K (m - r, r), these are as many equations as unknowns,

    X L beta P^-1 beta^T P + lambda L - Y^T L beta = 0,    P = L^T L,    S = L beta P^-1 beta^T L^T,

in K and beta (r, r): (X G G^T + lambda - Y^T G) L = 0 with G = L beta P^-1 L^T, S = G G^T. Every real solution is an
equilibrium, and every equilibrium whose V has a regular upper r x r part is one. A random rotation of the inputs makes that
part regular.

A symmetric matrix is a vector of its m (m + 1) / 2 entries, those off the diagonal times sqrt(2): lengths are Frobenius norms.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

# (m, r): finite solutions of the equation of rank r of a generic data set with m inputs, as Groebner bases of random members over
# a field of 32003 elements give them
GENERIC_COUNTS = {
    (1, 1): 2,
    (2, 1): 4, (2, 2): 6,
    (3, 1): 6, (3, 2): 30, (3, 3): 24,
    (4, 1): 8, (4, 2): 84, (4, 3): 288, (4, 4): 124,
}  # fmt: skip


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


def reduced_residual(s: Array, xx: ArrayLike, yx: ArrayLike, weight_decay: ArrayLike, one: ArrayLike = 1.0) -> Array:
    """F(S), symmetric where S and X are; `one` is the variable that makes it homogeneous of degree 2, for solutions at infinity.

    Complex arguments are transposed, not conjugated. Source: Ponce 2025, (6).
    """
    xx, yx = jnp.asarray(xx), jnp.asarray(yx)
    shifted = xx @ s + weight_decay * one * jnp.eye(xx.shape[0], dtype=xx.dtype)
    return shifted @ shifted.T - one * (yx.T @ s @ yx)


def packed_residual(
    vector: Array, xx: ArrayLike, yx: ArrayLike, weight_decay: ArrayLike, one: ArrayLike = 1.0
) -> Array:
    """`reduced_residual` as a field on the entries of S."""
    return entries(reduced_residual(symmetric(vector, np.shape(xx)[0]), xx, yx, weight_decay, one))


def numerical_rank(eigenvalues: np.ndarray) -> int:
    """How many eigenvalues of S = A^T A are more than rounding of the largest."""
    largest = float(np.max(eigenvalues, initial=0.0))
    return int((eigenvalues > 1e-10 * largest).sum()) if largest > 0 else 0


def num_unknowns(m: int, rank: int) -> int:
    """Unknowns of the equation of one rank: entries of S at full rank, of K and beta below."""
    return num_entries(m) if rank == m else m * rank


def split_chart(vector: Array, m: int, rank: int) -> tuple[Array, Array]:
    """(L = [1; K], beta) of the unknowns (m r,) of a rank r < m."""
    upper = jnp.eye(rank, dtype=vector.dtype)
    k, beta = vector[: (m - rank) * rank], vector[(m - rank) * rank :]
    return jnp.concatenate([upper, k.reshape(m - rank, rank)]), beta.reshape(rank, rank)


def rank_residual(vector: Array, xx: ArrayLike, yx: ArrayLike, weight_decay: ArrayLike, rank: int) -> Array:
    """The equation of one rank in its unknowns (`num_unknowns`,): `packed_residual` at full rank."""
    xx, yx = jnp.asarray(xx), jnp.asarray(yx)
    m = xx.shape[0]
    if rank == m:
        return packed_residual(vector, xx, yx, weight_decay)
    span, beta = split_chart(vector, m, rank)
    gram, moved = span.T @ span, span @ beta
    image = xx @ (moved @ jnp.linalg.solve(gram, beta.T @ gram)) - yx.T @ moved
    return (image + weight_decay * span).reshape(-1)


def gram_of(vector: Array, m: int, rank: int) -> Array:
    """S (m, m) of the unknowns of the equation of one rank."""
    if rank == m:
        return symmetric(vector, m)
    span, beta = split_chart(vector, m, rank)
    moved = span @ beta
    return moved @ jnp.linalg.solve(span.T @ span, moved.T)


def chart_of_map(g: np.ndarray, span: np.ndarray, rank: int) -> np.ndarray:
    """The unknowns of the equation of one rank of S = G G^T, real or complex; `span` is any basis (m, r) of the columns of G."""
    if rank == len(g):
        return np.asarray(entries(jnp.asarray(g @ g.T)))
    span = span @ np.linalg.inv(span[:rank])
    beta = np.linalg.solve(span.T @ span, span.T @ g @ span)
    return np.concatenate([span[rank:].ravel(), beta.ravel()])


def chart_of(s: np.ndarray, xx: np.ndarray, yx: np.ndarray, weight_decay: float, rank: int) -> np.ndarray:
    """The unknowns of the equation of one rank of an equilibrium S (m, m); the inverse of `gram_of`."""
    values, vectors = np.linalg.eigh(s)
    unit, size = vectors[:, -rank:], np.sqrt(values[-rank:])
    v = unit * size
    # G = V b V^+, V^+ = diag(1 / size) unit^T
    return chart_of_map(v @ np.asarray(predictor_of(v.T, xx, yx, weight_decay)) @ (unit / size).T, unit, rank)


def predictor_of(encoder: ArrayLike, xx: ArrayLike, yx: ArrayLike, weight_decay: ArrayLike) -> Array:
    """B of an equilibrium from its A, (n, n): the predictor that minimises F at fixed A. Source: Ponce 2025, (7)."""
    encoder, xx, yx = jnp.asarray(encoder), jnp.asarray(xx), jnp.asarray(yx)
    gram = encoder @ xx @ encoder.T + weight_decay * jnp.eye(encoder.shape[0], dtype=encoder.dtype)
    return jnp.linalg.solve(gram.T, (encoder @ yx @ encoder.T).T).T
