"""Why a linear encoder collapses, with exact motion or exact rates: invariance alone, no predictor, no stop gradient.

    invariance alone    W(t) = W(0) e^(-2 eta S t),               S = E[(x - x')(x - x')^T]
    no predictor        W(t) = W(0) e^(-(A - C^T + lambda) t),    A = E[x x^T], C = E[x x'^T]; target held, predictor 1
    no stop gradient    |W(t)| <= |W(0)| e^(-(sigma + lambda) t), sigma the smallest eigenvalue of E[x' x'^T] - C^T A^-1 C

With predictor and stop gradient, commuting moments and a balanced start (singular value a of W and of P alike) a mode of variance
rho and covariance tau obeys da/dt = a^2 (tau - rho a) - lambda a: the JEPA mode of depth 1, `siamese_mode`, that leaves 0
algebraically; with weight decay it falls back at the rate lambda from below the smaller root of tau a - rho a^2 = lambda.

Source: note on collapse, sections 3.1 and 3.3, corrected; Ponce 2025, lemma 4.3.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require, require_finite, require_nonnegative
from jepa_dyn.moments import ViewMoments
from jepa_dyn.moments.view_moments import require_equal_views
from jepa_dyn.parameters import ModeParameters, mode_parameters


def _require_times(t: ArrayLike) -> None:
    require("t", t, "be finite and >= 0", lambda a: np.isfinite(a) & (a >= 0))


def invariance_encoder(
    t: ArrayLike, encoder: Float[Array, "d m"], moments: ViewMoments, rate: ArrayLike = 1.0
) -> Float[Array, "*T d m"]:
    """W(t) = W(0) e^(-2 eta S t) of `flows.invariance`: every direction falls for good where S > 0, and stays where S has none.

    Args:
        t: times >= 0, any shape (the axes of the matrix come last). encoder: W(0). rate: eta >= 0.

    Raises:
        ValueError: a negative or infinite time, views of different sizes, a negative rate.

    Source: note on collapse, section 3.1; "every singular value decays" needs S > 0.
    """
    _require_times(t)
    require_nonnegative("rate", rate)
    require_equal_views(moments)
    return _falling(jnp.asarray(t), encoder, 2 * jnp.asarray(rate) * moments.difference)


@jax.jit
def _falling(t: Array, encoder: Array, generator: Array) -> Array:
    """W(0) e^(-generator t) of a symmetric generator."""
    values, vectors = jnp.linalg.eigh((generator + generator.T) / 2)
    shrink = jnp.exp(-t[..., None] * values)
    return (encoder @ vectors * shrink[..., None, :]) @ vectors.T


def invariance_rates(moments: ViewMoments, rate: ArrayLike = 1.0) -> Float[Array, " m"]:
    """2 eta s of the eigenvalues s of S, ascending: the rates at which the directions of W fall under invariance alone."""
    require_equal_views(moments)
    require_nonnegative("rate", rate)
    return 2 * jnp.asarray(rate) * jnp.linalg.eigvalsh(moments.difference)


def no_predictor_encoder(
    t: ArrayLike, encoder: Float[Array, "d m"], moments: ViewMoments, weight_decay: ArrayLike = 0.0
) -> Float[Array, "*T d m"]:
    """W(t) = W(0) e^(-(A - C^T + lambda) t) of `flows.siamese` with the predictor held at 1, stop gradient in place.

    Raises:
        ValueError: a negative or infinite time, views of different sizes, a negative weight decay.

    Source: note on collapse, section 3.3, condition 1.
    """
    _require_times(t)
    require_nonnegative("weight_decay", weight_decay)
    require_equal_views(moments)
    return _no_predictor(jnp.asarray(t), encoder, moments.xx - moments.yx, jnp.asarray(weight_decay))


@jax.jit
def _no_predictor(t: Array, encoder: Array, generator: Array, weight_decay: Array) -> Array:
    whole = generator + weight_decay * jnp.eye(generator.shape[0], dtype=generator.dtype)
    flat = jax.vmap(lambda time: encoder @ jax.scipy.linalg.expm(-time * whole))(t.reshape(-1).astype(whole.dtype))
    return flat.reshape(*t.shape, *encoder.shape)


def no_stop_gradient_rate(moments: ViewMoments, weight_decay: ArrayLike = 0.0) -> Float[Array, ""]:
    """sigma + lambda: |W| falls at least as fast where both branches move, whatever the predictor does.

    sigma is the smallest eigenvalue of E[x' x'^T] - C^T A^-1 C, what x does not tell of x'; 0 for identical views.

    Raises:
        ValueError: views of different sizes, a negative weight decay.

    Source: Ponce 2025, lemma 4.3, has the lambda. The objective E is quadratic in W, so d|W|^2/dt = -4 E - 2 lambda |W|^2, and no
    linear prediction of W x' from x leaves less than 2 E >= sigma |W|^2.
    """
    require_equal_views(moments)
    require_nonnegative("weight_decay", weight_decay)
    told = moments.yx @ jnp.linalg.solve(moments.xx, moments.yx.T)
    return jnp.linalg.eigvalsh(moments.yy - (told + told.T) / 2)[0] + jnp.asarray(weight_decay)


def siamese_mode(rho: ArrayLike, tau: ArrayLike, weight_decay: ArrayLike = 0.0) -> ModeParameters:
    """da/dt = a^2 (tau - rho a) - lambda a of a balanced siamese mode, as the JEPA mode of depth 1: `theory.state("jepa", ...)`.

    Args:
        rho: variance of the mode, > 0. tau: covariance between the views, any sign. weight_decay: lambda >= 0.

    Raises:
        ValueError: a value out of range.

    Source: Ponce 2025, (5) at n = m = 1, a = b; note on collapse, section 3.3.
    """
    return mode_parameters(tau, variance=rho, depth=1.0, weight_decay=weight_decay)


def siamese_survival_threshold(rho: ArrayLike, weight_decay: ArrayLike) -> Float[Array, "..."]:
    """tau = 2 sqrt(rho lambda): a mode of smaller covariance has no fixed point but 0, and collapses from any start.

    Raises:
        ValueError: a value not finite and >= 0.

    Source: Ponce 2025, section 4.3: Delta = tau^2 - 4 rho lambda.
    """
    require_nonnegative("rho", rho)
    require_nonnegative("weight_decay", weight_decay)
    require_finite("rho", rho)
    return 2 * jnp.sqrt(jnp.asarray(rho) * jnp.asarray(weight_decay))
