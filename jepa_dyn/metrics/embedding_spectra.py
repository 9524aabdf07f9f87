"""Eigenvalues of embeddings of view pairs, largest first: of their cross-correlation, covariance; singular values.

Source: Simon 2023, appendix D.4.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_dyn.losses.barlow_twins import cross_correlation


def cross_correlation_eigenvalues(first: Float[Array, "n d"], second: Float[Array, "n d"]) -> Float[Array, " d"]:
    """Eigenvalues of C = (Z^T Z' + Z'^T Z) / (2n), not centred, of any sign; `first`, `second`: one row per pair."""
    return jnp.linalg.eigvalsh(cross_correlation(first, second))[::-1]


def covariance_eigenvalues(embeddings: Float[Array, "N d"]) -> Float[Array, " d"]:
    """Eigenvalues of E[(f - mean)(f - mean)^T], divided by N: of embeddings, or of hidden representations, of N samples."""
    # singular values of the embeddings themselves, so that small eigenvalues keep their digits
    return embedding_singular_values(embeddings - jnp.mean(embeddings, axis=0)) ** 2 / embeddings.shape[0]


def embedding_singular_values(embeddings: Float[Array, "N d"]) -> Float[Array, " d"]:
    """Singular values of the matrix of embeddings, not centred; min(N, d) of them and then zeros."""
    sizes = jnp.linalg.svd(embeddings, compute_uv=False)
    return jnp.zeros(embeddings.shape[1], sizes.dtype).at[: sizes.shape[0]].set(sizes)
