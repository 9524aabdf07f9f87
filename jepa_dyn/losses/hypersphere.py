"""Alignment and uniformity on the unit sphere, and the limit of the contrastive loss for many negatives.

With unit rows f, f' and K negatives drawn independently from the law of y, the InfoNCE loss L_K obeys

    L_K - log K  ->  E|f - f'|^2 / (2 tau)  +  E_x log E_y exp(-|f(x) - f(y)|^2 / (2 tau))        (K -> infinity)

The note prints E|f - f'|^2 + log E_{x,y} exp(-|f(x) - f(y)|^2 / (2 tau^2)): no factor 1 / (2 tau), tau squared, the logarithm
outside both expectations. Wang and Isola minimise the two terms `alignment_loss` and `uniformity_loss` instead.

Source: Wang 2020, theorem 1, as in the note on collapse, section 2.2, corrected.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_nonnegative, require_positive
from jepa_dyn.losses._rows import require_pairs, squared_distances, unit


def alignment_loss(
    first: Float[Array, "n d"], second: Float[Array, "_ _"], *, power: ArrayLike = 2.0
) -> Float[Array, ""]:
    """E|f - f'|^power of the unit rows, mean over the pairs. 0 at complete collapse, with gradient 0.

    Args:
        first, second: embeddings of the two views, normalised here; a row of zeros stays zero, without gradient.
        power: > 0; below 2 the gradient of a pair without distance is set to 0.

    Raises:
        ValueError: shapes that differ, an empty batch, a power that is not > 0.

    Source: Wang 2020, (4); note on collapse, section 2.2.
    """
    require_pairs(first, second)
    require_positive("power", power)
    squares = jnp.sum((unit(first)[0] - unit(second)[0]) ** 2, axis=1)
    together = squares == 0
    return jnp.mean(jnp.where(together, 0.0, jnp.where(together, 1.0, squares) ** (jnp.asarray(power) / 2)))


def uniformity_loss(embeddings: Float[Array, "n d"], *, sharpness: ArrayLike = 2.0) -> Float[Array, ""]:
    """log E exp(-sharpness |f(x) - f(y)|^2) over all pairs of different rows, normalised to length 1; in [-4 sharpness, 0].

    0 at complete collapse, its largest value, with gradient 0.

    Args:
        embeddings: (batch, dim), at least 2 rows; normalised here, a row of zeros stays zero, without gradient.
        sharpness: t > 0.

    Raises:
        ValueError: not a matrix of at least 2 rows, a sharpness that is not > 0.

    Source: Wang 2020, (5); note on collapse, section 2.2.
    """
    require_pairs(embeddings, embeddings, 2, "uniformity is about pairs of rows")
    require_positive("sharpness", sharpness)
    rows = unit(embeddings)[0]
    n = rows.shape[0]
    exponents = jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, -jnp.asarray(sharpness) * squared_distances(rows, rows))
    return jax.nn.logsumexp(exponents) - np.log(n * (n - 1))


def alignment_uniformity_loss(
    first: Float[Array, "n d"],
    second: Float[Array, "_ _"],
    *,
    alignment_weight: ArrayLike = 1.0,
    uniformity_weight: ArrayLike = 1.0,
    power: ArrayLike = 2.0,
    sharpness: ArrayLike = 2.0,
) -> Float[Array, ""]:
    """alignment_weight x alignment + uniformity_weight x the mean of the two views' uniformities. At least 2 pairs.

    Args, raises: as `alignment_loss` and `uniformity_loss`; weights >= 0.

    Source: Wang 2020, figure 6.
    """
    require_nonnegative("alignment_weight", alignment_weight)
    require_nonnegative("uniformity_weight", uniformity_weight)
    spread = uniformity_loss(first, sharpness=sharpness) + uniformity_loss(second, sharpness=sharpness)
    close = alignment_loss(first, second, power=power)
    return jnp.asarray(alignment_weight) * close + jnp.asarray(uniformity_weight) * spread / 2


def contrastive_limit_loss(
    first: Float[Array, "n d"],
    second: Float[Array, "_ _"],
    negatives: Float[Array, "_ _"] | None = None,
    *,
    temperature: ArrayLike = 1.0,
) -> Float[Array, ""]:
    """lim (L_K - log K) for K -> infinity of the InfoNCE loss of unit rows, the negatives drawn from given rows.

    With the rows of `second` as the law of the negatives it is `info_nce_loss(..., normalise=True) - log N`, identically. 0 at
    complete collapse, with gradient 0.

    Args:
        first, second: embeddings of the two views, normalised here.
        negatives: (N', dim), rows of equal weight: the law of y, or a sample of it; the rows of `second` by default.
        temperature: tau > 0.

    Raises:
        ValueError: shapes that do not fit, an empty batch, a temperature that is not > 0.

    Source: Wang 2020, theorem 1; note on collapse, section 2.2, corrected (see the head of this file).
    """
    require_pairs(first, second)
    require_positive("temperature", temperature)
    if negatives is None:
        negatives = second
    if np.ndim(negatives) != first.ndim or negatives.shape[0] == 0 or negatives.shape[1] != first.shape[1]:
        raise ValueError(
            f"Argument `negatives` must have shape (N, {first.shape[1]}) with N >= 1, but has shape {np.shape(negatives)}."
        )
    anchors, others = unit(first)[0], unit(negatives)[0]
    repulsion = jax.nn.logsumexp(-squared_distances(anchors, others) / (2 * temperature), axis=1)
    return alignment_loss(first, second) / (2 * temperature) + jnp.mean(repulsion) - np.log(others.shape[0])
