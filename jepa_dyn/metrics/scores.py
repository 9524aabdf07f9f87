"""Scores of embeddings without labels: RankMe, an effective rank of the embeddings, and LiDAR, one of what tells objects apart.

    RankMe   exp(-sum_k p_k log p_k),   p_k = sigma_k / sum_j sigma_j + eps        sigma: singular values of Z, not centred
    LiDAR    the same of p_k = l_k / sum_j l_j + eps                               l: eigenvalues of S_w^-1/2 S_b S_w^-1/2

S_b is the covariance of the objects' means over their views, S_w the mean covariance of the views around them plus delta.
Covariances divide by the number of objects and of views. As printed the p do not add up to 1; with eps = 0 RankMe is
`effective_rank_of_singular_values`.

Source: Garrido 2023 (RankMe), Thilak 2024 (LiDAR).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_finite, require_nonnegative, require_positive
from jepa_dyn.metrics.embedding_spectra import embedding_singular_values


def rankme(embeddings: ArrayLike, eps: ArrayLike = 1e-7) -> Float[Array, ""]:
    """RankMe of (N, d) embeddings, one row per sample: between 1 and min(N, d) up to d eps; 0 for zeros alone.

    Complete collapse onto a vector other than 0 has RankMe 1, since nothing is centred.

    Args:
        embeddings: (N, d). eps: >= 0, added to every share; 1e-7 in the paper.

    Raises:
        ValueError: not a finite matrix that is not empty, a negative eps.

    Source: Garrido 2023, (1), (2); undefined there for zeros.
    """
    z = _finite("embeddings", embeddings, "(N, d)", 2)
    require_nonnegative("eps", eps)
    return _entropy_rank(embedding_singular_values(z)[: min(z.shape)], jnp.asarray(eps, z.dtype))


def lidar(embeddings: ArrayLike, delta: ArrayLike = 1e-4, eps: ArrayLike = 1e-7) -> Float[Array, ""]:
    """LiDAR of (objects, views, d) embeddings: how many dimensions tell objects apart against the spread of their views.

    Between 1 and min(objects - 1, d) up to d eps; 0 where all objects have one mean.

    Args:
        embeddings: (objects, views, d), at least 2 objects and 2 views of each.
        delta: > 0, added to the variance within objects in every dimension, in its units. eps: >= 0.

    Raises:
        ValueError: not a finite array of that shape, delta or eps out of range.

    Source: Thilak 2024, (2)-(5); undefined there for equal means.
    """
    z = _finite("embeddings", embeddings, "(objects, views, d)", 3)
    if z.shape[0] == 1 or z.shape[1] == 1:
        raise ValueError(f"Argument `embeddings` must hold 2 objects and 2 views at least, but has shape {z.shape}.")
    require_positive("delta", delta)
    require_nonnegative("eps", eps)
    spectrum = _discriminant_eigenvalues(z, jnp.asarray(delta, z.dtype))
    return _entropy_rank(spectrum[: min(z.shape[0] - 1, z.shape[2])], jnp.asarray(eps, z.dtype))


def _finite(name: str, values: ArrayLike, shape: str, ndim: int) -> Array:
    array = jnp.asarray(values)
    if array.ndim != ndim or 0 in array.shape:
        raise ValueError(
            f"Argument `{name}` must have shape {shape} and not be empty, but has shape {np.shape(values)}."
        )
    require_finite(name, array)
    return array.astype(jnp.result_type(float, array.dtype))


@jax.jit
def _entropy_rank(values: Array, eps: Array) -> Array:
    total = jnp.sum(values)
    shares = values / jnp.where(total == 0, 1.0, total) + eps
    logs = jnp.log(jnp.where(shares > 0, shares, 1.0))
    return jnp.where(total == 0, 0.0, jnp.exp(-jnp.sum(shares * logs)))


@jax.jit
def _discriminant_eigenvalues(z: Array, delta: Array) -> Array:
    """Eigenvalues of S_w^-1/2 S_b S_w^-1/2, largest first: squares of singular values, so that they are never negative."""
    means = jnp.mean(z, axis=1)
    around = (z - means[:, None]).reshape(-1, z.shape[2])
    within = around.T @ around / around.shape[0] + delta * jnp.eye(z.shape[2], dtype=z.dtype)
    apart = means - jnp.mean(means, axis=0)
    rounding = 8 * jnp.finfo(z.dtype).eps * jnp.max(jnp.abs(z))  # of a mean: equal means must not count as a dimension
    between = jnp.where(jnp.abs(apart) <= rounding, 0.0, apart).T / jnp.sqrt(means.shape[0])
    whitened = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(within), between, lower=True)
    return embedding_singular_values(whitened.T) ** 2
