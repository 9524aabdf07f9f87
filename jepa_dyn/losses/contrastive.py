"""Contrastive losses over one batch: InfoNCE with its bound on mutual information, and NT-Xent (SimCLR).

Both are the cross-entropy of picking a row's partner among candidates by similarity over temperature,

    -log( exp(s_i+ / tau) / sum_j exp(s_ij / tau) ),    mean over the rows i.

InfoNCE picks among the N rows of the other view, partner included; NT-Xent among the 2N - 1 other rows of both views. Where all
similarities are equal, as at complete collapse, they are log N and log(2N - 1) and their gradients vanish: collapse is a stationary
point of both, an unstable one.

Source: van den Oord 2018 and Chen 2020, as in the note on collapse, sections 2.1 and 4.1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_count, require_positive
from jepa_dyn.losses._rows import require_pairs, similarities


def pick_positive(
    scores: Float[Array, "n k"], positive: Float[Array, " n"], temperature: ArrayLike
) -> Float[Array, ""]:
    """Mean of log sum_j exp((s_ij - s_i+) / tau), where the candidates j include the partner; -inf is no candidate."""
    return jnp.mean(jax.nn.logsumexp((scores - positive[:, None]) / temperature, axis=1))


def info_nce_loss(
    first: Float[Array, "n d"], second: Float[Array, "_ _"], *, temperature: ArrayLike = 1.0, normalise: bool = False
) -> Float[Array, ""]:
    """InfoNCE of the critic exp(z.z' / tau): each row of `first` picks its partner among the rows of `second`.

    One direction; the mean of it and of the one with the views exchanged is the symmetric form. Both views get gradients. log N
    at complete collapse, with gradient 0; 0 for a batch of one, which has no negatives.

    Args:
        first: contexts z. second: keys z', row i of both is one pair; the N - 1 other rows are the negatives.
        temperature: tau > 0.
        normalise: cosine instead of inner product; of a row of zeros it is 0, without gradient.

    Raises:
        ValueError: shapes that differ, an empty batch, a temperature that is not > 0.

    Source: note on collapse, section 2.1, where N counts the positive.
    """
    require_pairs(first, second)
    require_positive("temperature", temperature)
    scores = similarities(first, second, normalise)
    return pick_positive(scores, jnp.diagonal(scores), temperature)


def nt_xent_loss(
    first: Float[Array, "n d"], second: Float[Array, "_ _"], *, temperature: ArrayLike = 0.5
) -> Float[Array, ""]:
    """NT-Xent of SimCLR: each of the 2N rows picks its partner among the 2N - 1 others by cosine over temperature.

    Mean over all 2N rows. log(2N - 1) at complete collapse, with gradient 0; 0 for a batch of one. The cosine with a row of zeros
    is 0, without gradient.

    Args:
        first, second: embeddings of the two views, row i of both is one pair.
        temperature: tau > 0.

    Raises:
        ValueError: shapes that differ, an empty batch, a temperature that is not > 0.

    Source: note on collapse, section 4.1. It says that at collapse the loss "generates gradients that break collapse": the
    gradient is 0 there.
    """
    require_pairs(first, second)
    require_positive("temperature", temperature)
    n = first.shape[0]
    rows = jnp.concatenate([first, second])
    scores = similarities(rows, rows, normalise=True)
    positive = jnp.diagonal(jnp.roll(scores, -n, axis=1))
    others = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, scores)
    return pick_positive(others, positive, temperature)


def mutual_information_bound(loss: ArrayLike, num_candidates: ArrayLike) -> Float[Array, "*batch"]:
    """log N - L <= I(x; c), in nats: the lower bound that an expected InfoNCE loss gives. Never above log N.

    Args:
        loss: expected InfoNCE over batches of independent pairs; the mean over few batches can exceed the bound.
        num_candidates: N, the positive included.

    Raises:
        ValueError: `num_candidates` not a whole number >= 1.

    Source: note on collapse, section 2.1; van den Oord 2018.
    """
    require_count("num_candidates", num_candidates)
    loss = jnp.asarray(loss)
    return jnp.log(jnp.asarray(num_candidates, jnp.result_type(float, loss.dtype))) - loss
