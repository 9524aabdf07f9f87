"""Alignment of pairs and uniformity of embeddings on the unit sphere, as one measures them.

They are `losses.alignment_loss` and `losses.uniformity_loss` of arrays that are checked first.

Source: Wang 2020, (4), (5); note on collapse, section 2.2.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_finite
from jepa_dyn.losses import alignment_loss, uniformity_loss

_alignment = jax.jit(alignment_loss)
_uniformity = jax.jit(uniformity_loss)


def pair_alignment(first: ArrayLike, second: ArrayLike, power: ArrayLike = 2.0) -> Float[Array, ""]:
    """E|f - f'|^power of unit rows, mean over the pairs: 0 for equal views and at complete collapse.

    Args:
        first, second: (N, d) embeddings of the two views, not 0. power: > 0.

    Raises:
        ValueError: shapes that differ, values that are not finite, a power that is not > 0.

    Source: Wang 2020, (4).
    """
    require_finite("first", first)
    require_finite("second", second)
    return _alignment(_floats(first), _floats(second), power=power)


def uniformity(embeddings: ArrayLike, sharpness: ArrayLike = 2.0) -> Float[Array, ""]:
    """log E exp(-sharpness |f - g|^2) of unit rows over all pairs: 0 at complete collapse, lower the more uniform they are.

    On the sphere of many dimensions it tends to -2 sharpness for uniform rows.

    Args:
        embeddings: (N, d), N >= 2, rows not 0. sharpness: t > 0.

    Raises:
        ValueError: not a finite matrix of at least 2 rows, a sharpness that is not > 0.

    Source: Wang 2020, (5).
    """
    require_finite("embeddings", embeddings)
    return _uniformity(_floats(embeddings), sharpness=sharpness)


def _floats(values: ArrayLike) -> Array:
    array = jnp.asarray(values)
    return array.astype(jnp.result_type(float, array.dtype))
