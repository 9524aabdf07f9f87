"""The mode equations of `modes` in u = log w and in z = logit y, y = w^r / rho.

The logarithm resolves a small start, the logit both ends: on the plateau z ~ log y, after arrival dz/dt = k is constant, so
that an explicit solver never meets its stability limit. Both are changes of variable of Littwin 2024, eqs (7), (8); the logit
form joins eqs (80) and (98).
"""

import jax.numpy as jnp
from jax.nn import softplus
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn.flows.modes import jepa_order, mae_order
from jepa_dyn.parameters import ModeParameters


def _log_flow(u: Array, r: Array, args: ModeParameters) -> Array:
    growth, loss = jnp.multiply(args.lam, jnp.exp((2 - r) * u)), jnp.multiply(args.variance, jnp.exp(2 * u))
    return growth - loss - args.weight_decay


def jepa_log(t: ArrayLike, u: Float[Array, "*#batch"], args: ModeParameters) -> Float[Array, "*batch"]:
    """`jepa` in u = log w: du/dt = lam e^((2-1/L) u) - variance e^(2u) - weight_decay. Any lam; w > 0 only.

    Source: Littwin 2024, eq. (7) divided by w.
    """
    return _log_flow(u, jepa_order(args), args)


def mae_log(t: ArrayLike, u: Float[Array, "*#batch"], args: ModeParameters) -> Float[Array, "*batch"]:
    """`mae` in u = log w: du/dt = lam e^((1-1/L) u) - variance e^(2u) - weight_decay. Any lam; w > 0 only.

    Source: Littwin 2024, eq. (8) divided by w.
    """
    return _log_flow(u, mae_order(args), args)


def _logit_flow(z: Array, r: Array, args: ModeParameters) -> Array:
    n = 2 / r - 1
    log_rate = jnp.log(r) + jnp.log(args.lam) + n * (jnp.log(args.lam) - jnp.log(args.variance))
    # rho^n and y^n leave the range of floating-point numbers apart, their product does not
    return jnp.exp(log_rate - n * softplus(-z))


def jepa_logit(t: ArrayLike, z: Float[Array, "*#batch"], args: ModeParameters) -> Float[Array, "*batch"]:
    """`jepa` in z = logit(w^(1/L) / rho): dz/dt = k y^n, n = 2L - 1, k = lam rho^n / L.

    Holds for lam > 0, weight_decay = 0 and 0 < w < w_inf = rho^L; elsewhere the result is NaN or meaningless.

    Source: Littwin 2024, eqs (7), (80).
    """
    return _logit_flow(z, jepa_order(args), args)


def mae_logit(t: ArrayLike, z: Float[Array, "*#batch"], args: ModeParameters) -> Float[Array, "*batch"]:
    """`mae` in z = logit(w^(1+1/L) / rho): dz/dt = k y^n, n = (L-1)/(L+1), k = (1 + 1/L) lam rho^n.

    Holds for lam > 0, weight_decay = 0 and 0 < w < w_inf = rho^(L/(L+1)); elsewhere the result is NaN or meaningless.

    Source: Littwin 2024, eqs (8), (98).
    """
    return _logit_flow(z, mae_order(args), args)


def log_y_from_w(
    w: Float[Array, "*#batch"], r: Float[Array, "*#batch"], args: ModeParameters
) -> Float[Array, "*batch"]:
    """log y = r log w - log rho."""
    return r * jnp.log(w) - (jnp.log(args.lam) - jnp.log(args.variance))


def logit_from_w(
    w: Float[Array, "*#batch"], r: Float[Array, "*#batch"], args: ModeParameters
) -> Float[Array, "*batch"]:
    """z = log(y / (1 - y)); NaN above the fixed point, +inf on it."""
    log_y = log_y_from_w(w, r, args)
    return log_y - jnp.log(-jnp.expm1(log_y))


def w_from_logit(
    z: Float[Array, "*#batch"], r: Float[Array, "*#batch"], args: ModeParameters
) -> Float[Array, "*batch"]:
    """w = (rho y)^(1/r), y = 1 / (1 + e^-z), through logarithms so that nothing leaves the range before w does."""
    return jnp.exp((jnp.log(args.lam) - jnp.log(args.variance) - softplus(-z)) / r)
