"""Barlow Twins as in the original: every dimension centred over the batch and divided by its standard deviation.

    C_ij = (1/N) sum_b u_bi u'_bj,   u = (z - mean) / sqrt(Var + eps),   L = sum_i (1 - C_ii)^2 + weight sum_{i != j} C_ij^2

C is not symmetrised; the variance divides by N and eps is inside the root, as in batch normalisation.

Source: Zbontar 2021, (1), (2), as in the note on collapse, section 4.3, which prints C without centring.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_nonnegative, require_positive
from jepa_dyn.losses._rows import require_pairs
from jepa_dyn.losses.barlow_twins import distance_from_identity


def standardised_barlow_twins_loss(
    first: Float[Array, "n d"],
    second: Float[Array, "_ _"],
    *,
    off_diagonal_weight: ArrayLike = 5e-3,
    centred: bool = True,
    eps: ArrayLike = 1e-5,
) -> Float[Array, ""]:
    """The loss of the head of this file. Scale of the embeddings, and with centring their mean, do not matter beyond eps.

    At complete collapse d, with gradient 0, because C = 0 where nothing varies (without eps 0/0). Without centring, as the note
    prints it, weight d (d - 1) there, because every |C_ij| = 1; value and gradient 0 up to eps.

    Args:
        first, second: embeddings of the two views, row i of both is one pair. A batch of one counts as collapsed.
        off_diagonal_weight: >= 0.
        centred: subtract the mean over the batch.
        eps: > 0, added to the variance (without centring, to the mean square).

    Raises:
        ValueError: shapes that differ, an empty batch, a number out of range.

    Source: Zbontar 2021, (1), (2); note on collapse, section 4.3.
    """
    require_pairs(first, second)
    require_nonnegative("off_diagonal_weight", off_diagonal_weight)
    require_positive("eps", eps)

    def standard(z: Array) -> Array:
        shifted = z - jnp.mean(z, axis=0) if centred else z
        return shifted / jnp.sqrt(jnp.mean(shifted**2, axis=0) + eps)

    return distance_from_identity(standard(first).T @ standard(second) / first.shape[0], off_diagonal_weight)
