"""Where Barlow Twins ends: top spectral encoders, the least norm of all that reach loss zero, and the optima under weight decay.

Source: Simon 2023, definition 4.2, proposition 4.3, appendix B.1. Corrections: in (30) J is a list of d elements of {1, .., m} and
Gamma^(J) holds eigenvectors; (27) lacks its epsilon; with it, L + epsilon |W|^2 has s^2 = (gamma - epsilon/2) / gamma^2, and (28),
(31), (gamma - epsilon) / gamma^2, belong to L + 2 epsilon |W|^2 (limits as epsilon -> 0 are the same).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require_count, require_nonnegative
from jepa_dyn.theory.barlow_twins import prepare
from jepa_dyn.theory.barlow_twins_alignment import cross_correlation_spectrum


def top_spectral_encoder(gamma: ArrayLike, dimension: int, left: ArrayLike | None = None) -> Float[Array, "d m"]:
    """W = U diag(gamma_j^(-1/2), 0 for gamma_j <= 0) Gamma^(<=d): the end of training from a small start, up to the rotation U.

    Args:
        gamma: Gamma (m, m), symmetric.
        dimension: d >= 1; with d > m, and for every gamma_j <= 0, rows of zeros are left.
        left: U (d, d), orthogonal; default the unit matrix.

    Raises:
        ValueError: Gamma not symmetric, dimension < 1, `left` not orthogonal.

    Where gamma_d = gamma_{d+1} > 0 it is one of many, even up to rotation.
    Source: Simon 2023, definition 4.2.
    """
    require_count("dimension", dimension)
    spectrum, d = cross_correlation_spectrum(gamma), int(dimension)
    gammas, features = spectrum.gammas[:d], spectrum.features[:d]
    scales = jnp.where(gammas > 0, 1 / jnp.sqrt(jnp.where(gammas > 0, gammas, 1.0)), 0.0)
    rows = jnp.zeros((d, features.shape[1]), features.dtype).at[: gammas.shape[0]].set(scales[:, None] * features)
    if left is None:
        return rows
    if np.shape(left) != (d, d):
        raise ValueError(f"Argument `left` must have shape {(d, d)}, but has shape {np.shape(left)}.")
    turn = jnp.asarray(left, rows.dtype)
    if not is_traced(turn):
        worst = float(jnp.abs(turn.T @ turn - jnp.eye(d, dtype=turn.dtype)).max())
        if worst > 64 * d * float(jnp.finfo(turn.dtype).eps):
            raise ValueError(f"Argument `left` must be orthogonal, but left^T left differs from 1 by {worst:.3g}.")
    return turn @ rows


def least_loss(gammas: ArrayLike, dimension: int) -> Float[Array, ""]:
    """The smallest |C - I|^2 that any W (d, m) reaches: d less the number of positive eigenvalues, at least 0.

    C = W Gamma W^T has no more positive eigenvalues than Gamma (Sylvester), and each of the others costs at least 1.

    Args:
        gammas: all eigenvalues of Gamma.
        dimension: d >= 1.

    Raises:
        ValueError: dimension < 1, a value not finite.

    Source: Simon 2023, (14), without the assumption gamma_d > 0.
    """
    require_count("dimension", dimension)
    (values,) = prepare({}, gammas=gammas)
    return jnp.maximum(int(dimension) - jnp.sum(values > 0), 0).astype(values.dtype)


def least_squared_norm(gammas: ArrayLike, dimension: int) -> Float[Array, ""]:
    """The smallest |W|^2 among all W (d, m) of loss zero: sum_{j<=d} 1 / gamma_j, taken by the top spectral ones alone.

    Args:
        gammas: all eigenvalues of Gamma, in any order.
        dimension: d.

    Raises:
        ValueError: fewer than d eigenvalues > 0: no W has loss zero. Under a transformation the answer is infinite there.

    Source: Simon 2023, proposition 4.3, (15).
    """
    require_count("dimension", dimension)
    if np.ndim(gammas) != 1:
        raise ValueError(f"Argument `gammas` must be a list, but has shape {np.shape(gammas)}.")
    (values,) = prepare({}, gammas=gammas)
    d = int(dimension)
    top = jnp.sort(values)[::-1][:d]
    positive = jnp.sum(top > 0)
    if not is_traced(top) and int(positive) < d:
        raise ValueError(
            f"Argument `gammas` must have {d} values > 0 (one per dimension, else no loss is zero), but has {int(positive)}."
        )
    return jnp.where(positive == d, jnp.sum(1 / jnp.where(top > 0, top, 1.0)), jnp.inf)


def decayed_singular_value(gamma: ArrayLike, decay: ArrayLike) -> Float[Array, "..."]:
    """s at the minimum of (1 - gamma s^2)^2 + decay s^2: (gamma - decay/2)^(1/2) / gamma, 0 for gamma <= decay / 2.

    So |C - I|^2 + decay |W|^2 learns no feature with gamma <= decay / 2.

    Args:
        gamma: eigenvalue of Gamma, any sign.
        decay: epsilon >= 0. Both broadcast.

    Raises:
        ValueError: decay < 0, a value not finite.

    Source: Simon 2023, (27), (31), corrected (see above).
    """
    require_nonnegative("decay", decay)
    gamma, decay = prepare({}, gamma=gamma, decay=decay)
    learned = gamma > decay / 2
    safe = jnp.where(learned, gamma, 1.0)
    left = jnp.where(learned, gamma - decay / 2, 1.0)
    return jnp.where(learned, jnp.sqrt(left) / safe, 0.0)
