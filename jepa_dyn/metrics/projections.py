"""How strongly an encoder holds each feature: the length of its image of the feature's direction."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def projections(
    encoder: Float[Array, "*batch w d"], basis: Float[Array, "d k"] | None = None
) -> Float[Array, "*batch k"]:
    """||W b_i|| for every column b_i of `basis` (the coordinate axes where it is not given).

    Args:
        encoder: W, for example from `flows.encoder_matrix`; leading axes are a batch.
        basis: directions of the features as columns, for example `feature_spectrum(moments).basis`.

    Source: Littwin 2024, section 3 and theorem 4.2 (||W e_i||).
    """
    images = encoder if basis is None else encoder @ basis
    return jnp.linalg.norm(images, axis=-2)
