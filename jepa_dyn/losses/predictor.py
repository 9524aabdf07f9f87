"""The closed-form predictor W_P = U D^alpha U^T of a correlation matrix C_z = U D U^T (DirectPred; DirectCopy at alpha = 1).

The eigenvalues of C_z are s, those of the predictor lambda = s^alpha. Everything that needs either takes it from here.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require_finite, require_nonnegative, require_one_number
from jepa_dyn._matrix_functions import matrix_function
from jepa_dyn.parameters import Leaf


def predictor_eigenvalues(correlation_eigenvalues: ArrayLike, alpha: ArrayLike | None) -> Float[Array, "*batch"]:
    """lambda = s^alpha, element by element. alpha None is 1.

    0^alpha is 0 for alpha > 0, and 1 for alpha = 0, which is no predictor at all. Rounding makes small negative s: they count as
    0 (at alpha = 1 they stay as they are). The derivative at s <= 0 is taken as 0: for alpha < 1 it is infinite.
    """
    s = jnp.asarray(correlation_eigenvalues)
    if alpha is None:
        return s
    absent = s <= 0  # not `~(s > 0)`: NaN must stay NaN
    power = jnp.where(absent, 1.0, s) ** jnp.asarray(alpha, s.dtype)
    return jnp.where(jnp.asarray(alpha) == 0, 1.0, jnp.where(absent, 0.0, power))


def predictor_matrix(correlation: Array, alpha: Leaf | None) -> Array:
    """`closed_form_predictor`, no checks; alpha None is 1 and needs no eigenvalues."""
    symmetric = (correlation + correlation.T) / 2
    return symmetric if alpha is None else matrix_function(predictor_eigenvalues, symmetric, jnp.asarray(alpha))


_predictor_matrix = jax.jit(predictor_matrix)


def exponent(alpha: ArrayLike | None) -> ArrayLike | None:
    """alpha for the functions above: None where it is known to be 1, so that no eigenvalues are computed.

    Raises:
        ValueError: more than one number, or negative, or not finite.
    """
    if alpha is None:
        return None
    require_one_number("alpha", alpha)
    require_nonnegative("alpha", alpha)
    return None if not is_traced(alpha) and float(np.asarray(alpha)) == 1 else alpha


def closed_form_predictor(correlation: ArrayLike, alpha: ArrayLike = 1.0) -> Float[Array, "M M"]:
    """W_P = U D^alpha U^T for the symmetric C_z = U D U^T; at a known alpha = 1 it is C_z itself.

    Differentiable, at repeated eigenvalues too. See `predictor_eigenvalues` for eigenvalues that are 0 and for alpha = 0.

    Args:
        correlation: C_z, symmetric and positive semidefinite up to rounding, (M, M).
        alpha: exponent >= 0; 1/2 is DirectPred, 1 is DirectCopy, 0 is the identity.

    Raises:
        ValueError: not a square, finite, symmetric matrix; an eigenvalue below 0 by more than rounding; a negative exponent.

    Source: Halvagal 2023, (1).
    """
    shape = np.shape(correlation)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"Argument `correlation` must be a square matrix, but has shape {shape}.")
    require_finite("correlation", correlation)
    matrix = jnp.asarray(correlation)
    matrix = matrix.astype(jnp.result_type(float, matrix.dtype))
    if not is_traced(matrix):
        host = np.asarray(matrix)
        tolerance = 8 * shape[0] * float(np.finfo(host.dtype).eps) * float(np.abs(host).max())
        gap, smallest = float(np.abs(host - host.T).max()), float(np.linalg.eigvalsh((host + host.T) / 2)[0])
        if gap > tolerance:
            raise ValueError(f"Argument `correlation` must be symmetric, but C - C^T reaches {gap:.3g}.")
        if smallest < -tolerance:
            raise ValueError(
                f"Argument `correlation` must be positive semidefinite, but its smallest eigenvalue is {smallest:.3g}."
            )
    power = exponent(alpha)
    return _predictor_matrix(matrix, None if power is None else jnp.asarray(power, matrix.dtype))
