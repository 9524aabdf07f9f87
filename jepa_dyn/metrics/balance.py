"""How far neighbouring layers of a deep linear net are from balance: what gradient flow conserves and finite steps do not.

    D_a = W^(a+1)T W^(a+1) - W^a W^aT,    W^(L+1) = V the decoder

dD_a/dt = 0 under the flow of JEPA and of MAE (lemma B.1), for any moments, with equal rates and without weight decay (with decay
kappa it shrinks as e^(-2 kappa t); an encoder frozen by rates, or a slower decoder, breaks it at the last gap). One step of plain
gradient descent of rate eta changes it by exactly eta^2 D_a(gradient): the same function, of the gradient. So the drift over a
fixed flow time is of first order in eta.

Source: Littwin 2024, lemma B.1, eqs (36)-(42).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_dyn.flows.deep_linear import DeepLinearArguments, DeepLinearState


def imbalance(y: DeepLinearState, args: DeepLinearArguments) -> Float[Array, "num_layers w w"]:
    """D_a for every layer a that exists, between it and the next one that exists (at last the decoder); 0 at masked layers.

    Also takes a gradient or a speed in place of the state, see above. One system; `jax.vmap` for more.
    """
    after = y.decoder.T @ y.decoder
    gaps = []
    for a in reversed(range(y.layers.shape[0])):
        layer = y.layers[a]
        gaps.append(jnp.where(args.layer_mask[a], after - layer @ layer.T, 0.0))
        after = jnp.where(args.layer_mask[a], layer.T @ layer, after)
    return jnp.stack(gaps[::-1])


def imbalance_norm(y: DeepLinearState, args: DeepLinearArguments) -> Float[Array, ""]:
    """Largest Frobenius norm of the D_a over the layers: 0 for balanced weights. Units: (weight)^2."""
    return jnp.max(jnp.linalg.norm(imbalance(y, args), axis=(-2, -1)))
