"""The positive definite X with X = (C^T X C)^(1/2), by plain iteration, with its implicit derivative (Ponce 2025, lemma 6.2).

The square root halves distances in Thompson's metric d(X, Z) = |log eig(X^-1 Z)|_max and Z -> C^T Z C keeps them, so the iteration
halves its distance from X each time, from any start: X exists and is unique for every invertible C, which is more than the lemma
says. (Its proof is misprinted: the similarity is X^(-1/2) H X^(-1/2), and the last line 2 |H|^2 + 2 |E^-1 H E|^2.)
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require_finite
from jepa_dyn.equilibria.reduced import entries, symmetric

_ITERATIONS = 70  # halvings of the distance: from e^1000 to rounding


def square_root(matrix: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """The positive semidefinite square root of a positive semidefinite matrix."""
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T


def square_root_fixed_point(c: ArrayLike) -> Float[Array, "m m"]:
    """X with X^2 = C^T X C, positive definite; differentiable in C, `vmap`-able.

    Args:
        c: invertible matrix, (m, m).

    Raises:
        ValueError: not square, not finite, or singular to rounding.

    Source: Ponce 2025, lemma 6.2, strengthened: unique, and reached by plain iteration at a rate of 1/2.
    """
    if np.ndim(c) != 2 or np.shape(c)[0] != np.shape(c)[1]:
        raise ValueError(f"Argument `c` must be a square matrix, but has shape {np.shape(c)}.")
    require_finite("c", c)
    matrix = jnp.asarray(c, jnp.result_type(float, jnp.asarray(c).dtype))
    if not is_traced(c):
        singular = np.linalg.svd(np.asarray(matrix), compute_uv=False)
        if singular[-1] <= len(singular) * np.finfo(singular.dtype).eps * singular[0]:
            raise ValueError(f"Argument `c` must be invertible, but its singular values are {singular}.")
    m = matrix.shape[0]
    held = jax.lax.stop_gradient(matrix)
    size = jnp.linalg.norm(held) / jnp.sqrt(m)

    def iterate(_: Array, x: Array) -> Array:
        return square_root(held.T @ x @ held)

    x = jax.lax.fori_loop(0, _ITERATIONS, iterate, size**2 * jnp.eye(m, dtype=matrix.dtype))
    known = jax.lax.stop_gradient(entries(x))

    def gap(vector: Array, matrix: Array) -> Array:
        x = symmetric(vector, m)
        return entries(x @ x - matrix.T @ x @ matrix)

    # one Newton step with its matrix held: exact to rounding, and with the derivative of the implicit function
    slope = jax.lax.stop_gradient(jax.jacfwd(gap)(known, held))
    return symmetric(known - jnp.linalg.solve(slope, gap(known, matrix)), m)
