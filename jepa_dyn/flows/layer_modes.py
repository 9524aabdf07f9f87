"""The mode equations of `modes` in the weight of one layer, v = w^(1/L), where a whole-numbered depth makes all powers integers.

    JEPA  dv/dt = v^(2L) (lam - variance v) / L - (weight_decay / L) v
    MAE   dv/dt = v^L (lam - variance v^(L+1)) / L - (weight_decay / L) v

A general power costs about 68 multiplications, so this is the coordinate of large ensembles. psi = v / rho is the variable of
Littwin 2024, eq. (71), dpsi/dt = k psi^(2L) (1 - psi); v itself also serves lam <= 0, where rho has the wrong sign, and
weight decay. Depths differ between lanes of one compiled program: bit j of the depth decides whether v^(2^j) is a factor.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from jepa_dyn.parameters import ModeParameters


class LayerParameters(eqx.Module):
    """`ModeParameters` made ready for the layer coordinate: rates divided by the depth, and the bits of the depth.

    - `growth`: lam / L; `loss`: variance / L; `decay`: weight_decay / L.
    - `bits`: bit j of the depth, lowest first; their number bounds the depth, L < 2^len(bits).
    """

    growth: Float[Array, "*#batch"]
    loss: Float[Array, "*#batch"]
    decay: Float[Array, "*#batch"]
    bits: tuple[Bool[Array, "*#batch"], ...]


def layer_parameters(args: ModeParameters, num_bits: int) -> LayerParameters:
    """The parameters in the layer coordinate. Depths must be whole numbers below 2^num_bits, else the rates become NaN."""
    depth = jnp.round(args.depth)
    good = (depth == args.depth) & (depth >= 1) & (depth < 2**num_bits)
    scale = jnp.where(good, args.depth, jnp.nan)
    whole = depth.astype(jnp.int32)
    bits = tuple(((whole >> j) & 1) == 1 for j in range(num_bits))
    growth, loss, decay = (jnp.divide(rate, scale) for rate in (args.lam, args.variance, args.weight_decay))
    return LayerParameters(growth, loss, decay, bits)


def depth_power(x: Float[Array, "*#batch"], bits: tuple[Bool[Array, "*#batch"], ...]) -> Float[Array, "*batch"]:
    """x^L by repeated squaring, L given by its bits."""
    result = jnp.where(bits[0], x, 1.0)
    for bit in bits[1:]:
        x = x * x
        result = jnp.where(bit, result * x, result)
    return result


def jepa_layer(t: ArrayLike, v: Float[Array, "*#batch"], args: LayerParameters) -> Float[Array, "*batch"]:
    """`jepa` in v = w^(1/L), in the mode clock. Source: Littwin 2024, eqs (7), (71), with weight decay added."""
    power = depth_power(v * v, args.bits)
    return power * (args.growth - args.loss * v) - args.decay * v


def mae_layer(t: ArrayLike, v: Float[Array, "*#batch"], args: LayerParameters) -> Float[Array, "*batch"]:
    """`mae` in v = w^(1/L), in the mode clock. Source: Littwin 2024, eq. (8), with weight decay added."""
    power = depth_power(v, args.bits)
    return power * (args.growth - args.loss * (power * v)) - args.decay * v
