"""Invariance alone: the mean squared distance of the two views of a pair. Its minimum is collapse.

Source: note on collapse, sections 1.2 and 3.1.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_dyn.losses._rows import require_pairs


def invariance_loss(first: Float[Array, "n d"], second: Float[Array, "_ _"]) -> Float[Array, ""]:
    """E|z - z'|^2: summed over the dimensions, mean over the pairs. 0 at complete collapse, with gradient 0.

    Of a linear encoder it is tr(W S W^T), S = E[(x - x')(x - x')^T], whose flow is `flows.invariance`.

    Raises:
        ValueError: shapes that differ, an empty batch.

    Source: note on collapse, sections 1.2 and 3.1.
    """
    require_pairs(first, second)
    return jnp.mean(jnp.sum((first - second) ** 2, axis=1))
