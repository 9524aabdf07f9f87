"""Scalar mode equations of a deep linear JEPA and a deep linear masked autoencoder (Littwin 2024, eqs (7), (8)).

With r = 1/L (JEPA) or 1 + 1/L (MAE) both are

    dw/dt = lam w^(3-r) - variance w^3 - weight_decay w

in the mode clock t = L t_flow: the print absorbs the factor L of eqs (54), (60), and so do we.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn.parameters import ModeParameters


def jepa_order(args: ModeParameters) -> Float[Array, "*depths"]:
    """r = 1/L, the order of the JEPA mode: y = w^r / rho is 1 at the fixed point."""
    return 1 / jnp.asarray(args.depth)


def mae_order(args: ModeParameters) -> Float[Array, "*depths"]:
    """r = 1 + 1/L, the order of the MAE mode: y = w^r / rho is 1 at the fixed point."""
    return 1 + 1 / jnp.asarray(args.depth)


def _mode(w: Array, r: Array, args: ModeParameters) -> Array:
    # the power of 0 has an infinite derivative (and for L < 1/3 an infinite value), so it is never formed
    alive = w > 0
    base = jnp.where(alive, w, 1.0)
    speed = args.lam * base ** (3 - r) - args.variance * base**3 - args.weight_decay * base
    return jnp.where(alive | jnp.isnan(w), jnp.where(jnp.isnan(w), w, speed), 0.0)


def jepa(t: ArrayLike, w: Float[Array, "*#batch"], args: ModeParameters) -> Float[Array, "*batch"]:
    """Speed of a JEPA mode, dw/dt = lam w^(3-1/L) - variance w^3 - weight_decay w, in the mode clock (L times flow time).

    w = 0 gives 0 for every depth: a network whose weights are all zero stays there. w < 0 gives 0 as well, so that a mode that
    decays to 0 in a finite time (lam < 0, L < 1/2) is absorbed there. NaN in, NaN out. Nothing is validated.

    Args:
        t: time, unused (the equation is autonomous).
        w: amplitude of the mode, >= 0; broadcasts against the leaves of `args`.
        args: parameters of the mode.

    Source: Littwin 2024, eq. (7), with weight decay added.
    """
    return _mode(w, jepa_order(args), args)


def mae(t: ArrayLike, w: Float[Array, "*#batch"], args: ModeParameters) -> Float[Array, "*batch"]:
    """Speed of an MAE mode, dw/dt = lam w^(2-1/L) - variance w^3 - weight_decay w, in the mode clock (L times flow time).

    w <= 0 gives 0, as for `jepa` (absorption in finite time happens for lam < 0, L < 1). NaN in, NaN out.

    Args:
        t: time, unused (the equation is autonomous).
        w: amplitude of the mode, >= 0; broadcasts against the leaves of `args`.
        args: parameters of the mode.

    Source: Littwin 2024, eq. (8), with weight decay added.
    """
    return _mode(w, mae_order(args), args)
