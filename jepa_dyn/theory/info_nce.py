"""InfoNCE on a linear encoder: how its eigenvalues move, its small-start growth, its Gaussian modes in closed form.

    eigenvalues lambda_k of W W^T   d lambda_k/dt = 2 u_k^T (dW/dt) W^T u_k = 2 lambda_k v_k^T M v_k     for dW/dt = W M
    small start                     W(t) = W(0) e^(M_0 t),   M_0 = (2 / tau) Gamma_c, the centred cross-covariance, symmetrised
    Gaussian views, commuting       ds/dt = (2 gamma / tau) s - (2 rho rho' / tau^2) s^3      the MAE mode of depth 1, order n = 0

u_k, v_k are the singular vectors of W, s its singular value of a mode with covariance gamma and variances rho, rho' in the views.
So a Gaussian mode is learned at its own rate 2 gamma / tau and ends at s^2 = tau gamma / (rho rho'); one with gamma <= 0 dies. None
is the poorer for another's growth: in this limit the rich do not get richer, as the note has it.

Source: note on collapse, section 3.2, corrected. It prints d lambda_k/dt =
lambda_k (softmax(lambda / tau)_k / tau - (N / tau) E[alignment]).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_nonnegative, require_positive
from jepa_dyn.parameters import ModeParameters, mode_parameters


def eigenvalue_rates(encoder: Float[Array, "d m"], velocity: Float[Array, "d m"]) -> Float[Array, " d"]:
    """d lambda_k/dt = 2 u_k^T (dW/dt) W^T u_k of the eigenvalues of W W^T, in the order of `jnp.linalg.eigvalsh`, for any flow.

    Exact where lambda_k is simple; in a repeated one it is the rate along one basis of its eigenspace.

    Source: note on collapse, section 3.2, corrected.
    """
    _, vectors = jnp.linalg.eigh(encoder @ encoder.T)
    return 2 * jnp.sum(vectors * (velocity @ encoder.T @ vectors), axis=0)


def printed_eigenvalue_rates(
    eigenvalues: Float[Array, " d"], temperature: ArrayLike, num_samples: ArrayLike, alignment: ArrayLike
) -> Float[Array, " d"]:
    """What the note prints for them, for comparison: lambda_k (softmax(lambda / tau)_k / tau - (N / tau) E|z - z'|^2).

    Source: note on collapse, section 3.2, as printed.
    """
    shares = jax.nn.softmax(eigenvalues / temperature)
    return eigenvalues * (shares - jnp.asarray(num_samples) * alignment) / temperature


def small_start_generator(
    first: Float[Array, "N m"], second: Float[Array, "_ m"], temperature: ArrayLike = 1.0
) -> Float[Array, "m m"]:
    """M_0 = (2 / tau) Gamma_c: at W = 0 all candidates are equal, and what is left of M is the centred cross-covariance.

    Gamma_c = (C + C^T) / 2 with C = E[(x - mean)(x' - mean')^T], divided by N. The largest eigenvalue is W's rate of escape.

    Raises:
        ValueError: a temperature that is not > 0.

    Source: the flow of the note's section 3.2, corrected, at W = 0.
    """
    require_positive("temperature", temperature)
    centred = first - jnp.mean(first, axis=0), second - jnp.mean(second, axis=0)
    c = centred[0].T @ centred[1] / first.shape[0]
    return (c + c.T) / jnp.asarray(temperature)


def gaussian_mode(
    covariance: ArrayLike, variance: ArrayLike, other_variance: ArrayLike | None = None, temperature: ArrayLike = 1.0
) -> ModeParameters:
    """ds/dt = (2 gamma / tau) s - (2 rho rho' / tau^2) s^3, as the MAE mode of depth 1: `theory.state("mae", t, s0, ...)`.

    `theory.fixed_point("mae", ...)` is sqrt(tau gamma / (rho rho')), `theory.critical_time`, `theory.time_to_reach` likewise.

    Args:
        covariance: gamma, any sign. variance, other_variance: rho, rho' > 0 of the mode in the two views, equal by default.
        temperature: tau > 0. Everything broadcasts.

    Raises:
        ValueError: a value out of range.

    Source: the Gaussian limit of InfoNCE (`flows.gaussian_info_nce`) for commuting moments; ours.
    """
    require_positive("temperature", temperature)
    require_nonnegative("variance", variance)
    other = variance if other_variance is None else other_variance
    require_nonnegative("other_variance", other)
    tau = jnp.asarray(temperature)
    product: Array = jnp.asarray(variance) * jnp.asarray(other)
    return mode_parameters(2 * jnp.asarray(covariance) / tau, variance=2 * product / tau**2, depth=1.0)
