"""Embeddings that move themselves: pairs z_i, z'_i under the losses of `representation`, coupled by a tangent kernel.

    dZ/dt = -K grad_Z L - weight_decay Z,      W_P = (C_z)^alpha of the embeddings as they are, or held fixed

K is the neural tangent kernel. For a linear network it is K = X X^T / n over all 2n inputs, constant: this flow then is the
network's, seen in its outputs. The paper takes K = 1 for a view with itself, 0 between samples; what it is between the two views
of a sample decides whether the target moves along.

Source: Halvagal 2023, (2), (7), (8), (10), (19)-(21), (24), C.1, C.2 (corrected). (20), (21) need inputs of length 1: for
standard Gaussian x in N dimensions x_i.x_i is about N, so that either x is divided by N^(1/2) or eta is.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_finite, require_nonnegative
from jepa_dyn.flows.representation import checked_rates, named_loss
from jepa_dyn.losses.predictor import exponent, predictor_matrix
from jepa_dyn.losses.representation import RepresentationLoss, representation_gradients
from jepa_dyn.parameters import Leaf


class RepresentationPairArguments(eqx.Module):
    """How embeddings of pairs move. Build it with `representation_pair_arguments`, which validates.

    - `kernel`: (2, 2) between the views of one sample, samples apart; or (2n, 2n) between all inputs, first views first.
    - `view_weights`: (2,) C_z = sum_v w_v mean_i z_vi z_vi^T.
    - `predictor`: a fixed W_P (M, M), or None for the closed form with exponent `alpha` (None is 1).
    - `weight_decay`; `loss`.
    """

    kernel: Float[Leaf, "*#lanes k k"]
    view_weights: Float[Leaf, "*#lanes 2"]
    predictor: Float[Leaf, "*#lanes M M"] | None
    alpha: Float[Leaf, "*#lanes"] | None
    weight_decay: Float[Leaf, "*#lanes"]
    loss: RepresentationLoss = eqx.field(static=True)

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (2, 1, *((2,) * (self.predictor is not None)), *((0,) * (self.alpha is not None)), 0)


def tangent_kernel(x: Float[Array, "n N"], y: Float[Array, "n N"]) -> Float[Array, "k k"]:
    """K = X X^T / n of a linear network on the pairs (x_i, y_i), k = 2n: mean loss, all inputs, first views first.

    Source: Halvagal 2023, (19), with the mean over the samples that the loss takes.
    """
    inputs = jnp.concatenate([x, y])
    return inputs @ inputs.T / x.shape[0]


def representation_pair_arguments(
    kernel: ArrayLike,
    loss: RepresentationLoss | str,
    *,
    alpha: ArrayLike = 1.0,
    predictor: ArrayLike | None = None,
    view_weights: ArrayLike | Sequence[float] = (1.0, 0.0),
    weight_decay: ArrayLike = 0.0,
) -> RepresentationPairArguments:
    """Validated `RepresentationPairArguments`; for lanes, `jax.vmap` this function.

    Args:
        kernel: `tangent_kernel(x, y)`, or (2, 2): [[1, 0], [0, 0]] moves the first views only, as (8) and (10) read; all ones is
            a view that equals the other.
        loss: a name in `losses.TABLE_1`, or any `RepresentationLoss`.
        alpha: exponent >= 0 of the closed-form predictor.
        predictor: W_P (M, M), to hold it fixed, as the paper's D is.
        view_weights: which views make C_z, >= 0; by default the first, online ones.
        weight_decay: number >= 0.

    Raises:
        ValueError: naming the argument.
    """
    loss = named_loss(loss)
    named: dict[str, Any] = {"kernel": kernel} | ({} if predictor is None else {"predictor": predictor})
    for name, value in named.items():
        shape = np.shape(value)
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0 or (name == "kernel" and shape[0] % 2):
            even = " of even size" if name == "kernel" else ""
            raise ValueError(f"Argument `{name}` must be a square matrix{even}, but has shape {shape}.")
        require_finite(name, value)
    if np.shape(view_weights) != (2,):
        raise ValueError(f"Argument `view_weights` must have shape (2,), but has shape {np.shape(view_weights)}.")
    require_nonnegative("view_weights", view_weights)
    dtype = jnp.result_type(float, *(jnp.asarray(value).dtype for value in named.values()))
    power = exponent(alpha)
    return RepresentationPairArguments(
        jnp.asarray(kernel, dtype),
        jnp.asarray(view_weights, dtype),
        None if predictor is None else jnp.asarray(predictor, dtype),
        None if power is None else jnp.asarray(power, dtype),
        **checked_rates(dtype, weight_decay=weight_decay),
        loss=loss,
    )


def pair_correlation(z: Float[Array, "2 n M"], args: RepresentationPairArguments) -> Float[Array, "M M"]:
    """C_z of the embeddings as they are."""
    return jnp.einsum("v,vni,vnj->ij", args.view_weights, z, z) / z.shape[1]


def pair_predictor(z: Float[Array, "2 n M"], args: RepresentationPairArguments) -> Float[Array, "M M"]:
    """W_P: the fixed one, or the closed form."""
    if args.predictor is not None:
        return jnp.asarray(args.predictor)
    return predictor_matrix(pair_correlation(z, args), args.alpha)


def representation_pairs(
    t: ArrayLike, z: Float[Array, "2 n M"], args: RepresentationPairArguments
) -> Float[Array, "2 n M"]:
    """Speed of the embeddings: z[0] of the first views, z[1] of the second. One sample (n = 1) is fine.

    A (2, 2) kernel moves every sample by the gradient of its own loss, a (2n, 2n) one by what `tangent_kernel` hands it.

    Source: Halvagal 2023, (7).
    """
    slopes = jnp.stack(representation_gradients(args.loss, z[0], z[1], pair_predictor(z, args))[:2])
    kernel = jnp.asarray(args.kernel)
    if kernel.shape[-1] == 2:
        moved = jnp.einsum("vw,wni->vni", kernel, slopes)
    elif kernel.shape[-1] == 2 * z.shape[1]:
        moved = (kernel @ slopes.reshape(kernel.shape[-1], -1)).reshape(z.shape)
    else:
        raise ValueError(
            f"Argument `kernel` must have shape (2, 2) or {(2 * z.shape[1],) * 2} for {z.shape[1]} pairs, "
            f"but has shape {kernel.shape}."
        )
    return -moved - args.weight_decay * z
