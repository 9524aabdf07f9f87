"""How many dimensions a spectrum uses: effective rank of eigenvalues and of singular values, participation ratio.

    p_i = x_i / sum_j x_j,    effective rank exp(-sum_i p_i log p_i),    participation ratio 1 / sum_i p_i^2

For k equal values all three are k, for one value 1. With x the eigenvalues of a covariance and with x the singular values of the
embeddings, their square roots, the effective rank is not the same (eigenvalues 4, 1, 1/4: 1.95 and 2.60): each has its own name.

All take (..., d) and return (...): the spectra of a run over time give the rank over time. A spectrum of zeros uses no dimension.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require_nonnegative


def effective_rank_of_eigenvalues(eigenvalues: ArrayLike) -> Float[Array, "*batch"]:
    """exp of the entropy of the normalised eigenvalues of a covariance or cross-correlation; between 1 and d, 0 for zeros alone.

    Args:
        eigenvalues: (..., d). Negative ones, which a cross-correlation has and which rounding makes, count as 0; NaN gives NaN.

    Raises:
        ValueError: not at least one axis with one value.

    Source: note on collapse, dimensional collapse; undefined there for zeros.
    """
    return _effective_rank(_spectrum("eigenvalues", eigenvalues))


def effective_rank_of_singular_values(singular_values: ArrayLike) -> Float[Array, "*batch"]:
    """exp of the entropy of the normalised singular values of the embeddings; between 1 and d, 0 for zeros alone.

    Args:
        singular_values: (..., d), >= 0, for example the roots of the eigenvalues of a covariance; NaN gives NaN.

    Raises:
        ValueError: a negative value, or not at least one axis with one value.

    Source: Roy and Vetterli 2007.
    """
    spectrum = _spectrum("singular_values", singular_values)
    if not is_traced(spectrum):
        values = np.asarray(spectrum)
        require_nonnegative("singular_values", values[np.isfinite(values)])
    return _effective_rank(spectrum)


def participation_ratio(eigenvalues: ArrayLike) -> Float[Array, "*batch"]:
    """(sum x)^2 / sum x^2 of the eigenvalues x; between 1 and d, 0 for zeros alone; never above their effective rank.

    Args, raises: as `effective_rank_of_eigenvalues`.
    """
    return _participation_ratio(_spectrum("eigenvalues", eigenvalues))


def _spectrum(name: str, values: ArrayLike) -> Array:
    array = jnp.asarray(values)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"Argument `{name}` must have shape (..., d) with d >= 1, but has shape {array.shape}.")
    return array.astype(jnp.result_type(float, array.dtype))


def _shares(values: Array) -> tuple[Array, Array]:
    """(p, whether there is nothing to share)."""
    kept = jnp.maximum(values, 0)
    largest = jnp.max(kept, axis=-1, keepdims=True)
    scaled = kept / jnp.where(
        largest == 0, 1.0, largest
    )  # sums of the largest and squares of the smallest numbers stay in range
    total = jnp.sum(scaled, axis=-1, keepdims=True)
    return scaled / jnp.where(largest == 0, 1.0, total), largest[..., 0] == 0


@jax.jit
def _effective_rank(values: Array) -> Array:
    shares, nothing = _shares(values)
    logs = jnp.log(jnp.where(shares == 0, 1.0, shares))
    return jnp.where(nothing, 0.0, jnp.exp(-jnp.sum(shares * logs, axis=-1)))


@jax.jit
def _participation_ratio(values: Array) -> Array:
    shares, nothing = _shares(values)
    return jnp.where(nothing, 0.0, 1 / jnp.where(nothing, 1.0, jnp.sum(shares**2, axis=-1)))
