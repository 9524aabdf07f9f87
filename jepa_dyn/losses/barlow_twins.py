"""Barlow Twins as Simon 2023 has it: the cross-correlation of raw embeddings, symmetrised, held against the identity.

    C = (Z^T Z' + Z'^T Z) / (2n),    L = sum_i (C_ii - 1)^2 + weight sum_{i != j} C_ij^2

Z, Z' (n, d): embeddings of the two views of n pairs. No mean is subtracted and nothing is divided by a standard deviation, unlike
in the original (Zbontar 2021), which is `barlow_twins_standardised`. Of a linear encoder these are
`flows.embedding_cross_correlation` and `flows.barlow_twins_loss`.

Source: Simon 2023, (1), (2).
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


def cross_correlation(first: Float[Array, "n d"], second: Float[Array, "n d"]) -> Float[Array, "d d"]:
    """C = (Z^T Z' + Z'^T Z) / (2n): symmetric, its eigenvalues may have any sign. Source: Simon 2023, (2)."""
    c = first.T @ second
    return (c + c.T) / (2 * first.shape[0])


def distance_from_identity(c: Float[Array, "d d"], off_diagonal_weight: ArrayLike) -> Float[Array, ""]:
    """sum_i (C_ii - 1)^2 + weight sum_{i != j} C_ij^2."""
    on_diagonal = jnp.diagonal(c)
    off_diagonal = c - jnp.diag(on_diagonal)
    return jnp.sum((on_diagonal - 1) ** 2) + off_diagonal_weight * jnp.sum(off_diagonal**2)


def barlow_twins_loss(
    first: Float[Array, "n d"], second: Float[Array, "n d"], off_diagonal_weight: ArrayLike = 1.0
) -> Float[Array, ""]:
    """|C - I|^2 with its off-diagonal terms weighted; d for embeddings of zeros.

    Args:
        first, second: embeddings of the two views, row i of both is one pair.
        off_diagonal_weight: lambda >= 0 of the original loss; 1 is the loss of Simon 2023.

    Source: Simon 2023, (1); Zbontar 2021 for the weight.
    """
    return distance_from_identity(cross_correlation(first, second), off_diagonal_weight)
