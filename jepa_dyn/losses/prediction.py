"""Losses of a prediction against a target that is held fixed: BYOL, SimSiam, JEPA with several scales, MAE.

Every target passes a stop gradient inside the loss; `stop_gradient=False` is the ablation. Which target it is, the other branch
(SimSiam), an encoder that follows by moving average (BYOL, JEPA), or the input (MAE), is the caller's choice. BYOL and SimSiam take
both directions of a pair of views: `symmetrised`.

Source: note on collapse, sections 4.4, 4.5, 5.1, 5.4.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from jepa_dyn._checks import require_nonnegative
from jepa_dyn.losses._rows import require_same_shape, unit
from jepa_dyn.losses.representation import distance


def _goal(target: Array, stop_gradient: bool) -> Array:
    return jax.lax.stop_gradient(target) if stop_gradient else target


def byol_loss(
    prediction: Float[Array, "*batch d"], target: Float[Array, "..."], *, stop_gradient: bool = True
) -> Float[Array, ""]:
    """E|p / |p| - q / |q||^2 = 2 - 2 E[cos], mean over the rows; 0 at complete collapse, with gradient 0.

    A row of zeros stays zero, without gradient: it is at distance 1 from a unit row and 0 from another row of zeros.

    Args:
        prediction: of the online branch, (..., dim). target: projection of the target branch, same shape.
        stop_gradient: hold the target fixed.

    Raises:
        ValueError: shapes that differ, or empty.

    Source: note on collapse, section 4.4: one direction of it.
    """
    require_same_shape(prediction=prediction, target=target)
    return jnp.mean(jnp.sum((unit(prediction)[0] - unit(_goal(target, stop_gradient))[0]) ** 2, axis=-1))


def simsiam_loss(
    prediction: Float[Array, "*batch d"], target: Float[Array, "..."], *, stop_gradient: bool = True
) -> Float[Array, ""]:
    """-E[cos(p, q)], mean over the rows; -1 at complete collapse (the note says 0), with gradient 0.

    The cosine with a row of zeros is 0, without gradient. Args, raises: as `byol_loss`.

    Source: note on collapse, section 4.5: one direction of it.
    """
    require_same_shape(prediction=prediction, target=target)
    return jnp.mean(distance("cosine", prediction, _goal(target, stop_gradient)))


def symmetrised(
    loss: Callable[..., Array],
    predictions: tuple[Array, Array],
    targets: tuple[Array, Array],
    *,
    weight: ArrayLike = 1.0,
    **options: Any,
) -> Float[Array, ""]:
    """weight x (loss(p_1, z_2) + loss(p_2, z_1)) of predictions p and targets z of the two views.

    Args:
        loss: `byol_loss`, `simsiam_loss` or another loss(prediction, target, **options).
        weight: 1 in BYOL, 1/2 in SimSiam (`LOSSES[name].direction_weight`).
    """
    return jnp.asarray(weight) * (
        loss(predictions[0], targets[1], **options) + loss(predictions[1], targets[0], **options)
    )


def jepa_loss(
    predictions: Sequence[Float[Array, "..."]] | Float[Array, "..."],
    targets: Sequence[Float[Array, "..."]] | Float[Array, "..."],
    *,
    weights: ArrayLike | None = None,
    stop_gradient: bool = True,
) -> Float[Array, ""]:
    """sum_k w_k E|p_k - q_k|^2 over K target blocks or scales; summed over dim, mean over the rows of each scale.

    0 at complete collapse, predictors included, with gradient 0.

    Args:
        predictions, targets: K arrays (..., dim_k) each, or one (K, ..., dim); scales may differ in shape (number of tokens, dim).
        weights: w_k >= 0, (K,); 1 by default. 1 / K is the mean over the blocks.
        stop_gradient: hold the targets fixed.

    Raises:
        ValueError: no scales, not equally many predictions, targets and weights, shapes that differ, a negative weight.

    Source: note on collapse, section 5.1.
    """
    counts = len(predictions), len(targets)
    if counts[0] != counts[1] or counts[0] == 0:
        raise ValueError(
            f"Arguments `predictions` and `targets` must be equally many, at least one, but are {counts[0]} and {counts[1]}."
        )
    if weights is not None:
        if np.shape(weights) != counts[:1]:
            raise ValueError(f"Argument `weights` must have shape {counts[:1]}, but has shape {np.shape(weights)}.")
        require_nonnegative("weights", weights)
    factors = [1.0] * counts[0] if weights is None else jnp.asarray(weights)
    loss = jnp.zeros((), jnp.result_type(float, *predictions))
    for factor, prediction, target in zip(factors, predictions, targets, strict=True):
        require_same_shape(prediction=prediction, target=target)
        loss = loss + factor * jnp.mean(jnp.sum((prediction - _goal(target, stop_gradient)) ** 2, axis=-1))
    return loss


def mae_loss(
    reconstruction: Float[Array, "*batch d"],
    pixels: Float[Array, "..."],
    *,
    hidden: Bool[Array, "..."] | None = None,
    stop_gradient: bool = True,
) -> Float[Array, ""]:
    """Mean squared error over the hidden entries of the input; 0, with gradient 0, where nothing is hidden.

    Args:
        reconstruction, pixels: (..., dim), for example (batch, pixels) or (batch, patches, pixels of a patch).
        hidden: which entries count, broadcastable against them, for example (batch, patches, 1); all by default.
        stop_gradient: hold `pixels` fixed; it matters only where they depend on what one differentiates by.

    Raises:
        ValueError: shapes that do not fit, or empty.

    Source: note on collapse, section 5.4 (without a mask); He 2022 for the mean over what is hidden.
    """
    require_same_shape(reconstruction=reconstruction, pixels=pixels)
    squares = (reconstruction - _goal(pixels, stop_gradient)) ** 2
    if hidden is None:
        return jnp.mean(squares)
    try:
        counted = np.broadcast_shapes(np.shape(hidden), squares.shape) == squares.shape
    except ValueError:
        counted = False
    if not counted:
        raise ValueError(
            f"Argument `hidden` must broadcast to shape {squares.shape}, but has shape {np.shape(hidden)}."
        )
    mask = jnp.broadcast_to(hidden, squares.shape)
    return jnp.sum(jnp.where(mask, squares, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
