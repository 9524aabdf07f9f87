"""MoCo: InfoNCE against a queue of earlier keys. The queue is a value: one goes in, a new one comes out.

Source: He 2020, as in the note on collapse, section 4.6.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from jepa_dyn._checks import require_count, require_positive
from jepa_dyn.losses._rows import require_pairs, similarities, unit
from jepa_dyn.losses.contrastive import pick_positive


class KeyQueue(eqx.Module):
    """The last K keys, newest first. Build it with `key_queue`, move it on with `enqueue`.

    - `keys`: (K, dim); K may be 0, a queue without negatives.
    - `filled`: how many of them have been set; the rest are no candidates.
    """

    keys: Float[Array, "K dim"]
    filled: Int[Array, ""]


def key_queue(size: int, dim: int, dtype: jax.typing.DTypeLike = float) -> KeyQueue:
    """An empty queue for `size` = K >= 0 keys of `dim` >= 1 numbers.

    Raises:
        ValueError: not whole numbers in range.
    """
    require_count("size", size, 0)
    require_count("dim", dim)
    return KeyQueue(jnp.zeros((size, dim), dtype), jnp.zeros((), int))


def enqueue(queue: KeyQueue, keys: Float[Array, "n dim"]) -> KeyQueue:
    """The queue with these keys in front, row 0 the newest, and the oldest dropped; no gradient passes.

    Raises:
        ValueError: keys of another length than those of the queue.
    """
    size, dim = queue.keys.shape
    if np.ndim(keys) != queue.keys.ndim or np.shape(keys)[1] != dim:
        raise ValueError(f"Argument `keys` must have shape (batch, {dim}), but has shape {np.shape(keys)}.")
    new = jax.lax.stop_gradient(keys).astype(queue.keys.dtype)
    return KeyQueue(
        jnp.concatenate([new, queue.keys])[:size], jnp.minimum(queue.filled + len(new), size).astype(queue.filled.dtype)
    )


def moco_loss(
    queries: Float[Array, "n d"],
    keys: Float[Array, "_ _"],
    queue: KeyQueue,
    *,
    temperature: ArrayLike = 0.07,
    normalise: bool = True,
) -> Float[Array, ""]:
    """InfoNCE of each query over its own key and the keys of the queue: 1 positive and K negatives, mean over the queries.

    Keys and queue are held fixed. At complete collapse, queue included, it is log(K + 1), with gradient 0; 0 with an empty queue.
    Enqueue the keys afterwards: `enqueue(queue, keys)`; the keys of this batch are no negatives of each other.

    Args:
        queries: of the online encoder. keys: of the momentum encoder, row i of both is one pair.
        queue: earlier keys; see `KeyQueue`.
        temperature: tau > 0.
        normalise: cosine instead of inner product; of a row of zeros it is 0, without gradient.

    Raises:
        ValueError: shapes that do not fit, an empty batch, a temperature that is not > 0.

    Source: note on collapse, section 4.6. Its k_0 ... k_K are one positive and K negatives.
    """
    require_pairs(queries, keys)
    require_positive("temperature", temperature)
    if queue.keys.shape[1] != queries.shape[1]:
        raise ValueError(
            f"Argument `queue` must hold keys of dim {queries.shape[1]}, but has dim {queue.keys.shape[1]}."
        )
    keys, negatives = jax.lax.stop_gradient((keys, queue.keys))
    one, own = (unit(queries)[0], unit(keys)[0]) if normalise else (queries, keys)
    positive = jnp.sum(one * own, axis=1)
    scores = similarities(queries, negatives, normalise)
    known = jnp.where(jnp.arange(len(negatives)) < queue.filled, scores, -jnp.inf)
    return pick_positive(jnp.concatenate([positive[:, None], known], axis=1), positive, temperature)
