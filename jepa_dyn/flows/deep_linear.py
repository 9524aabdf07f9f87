"""Deep linear encoder and decoder under the JEPA and MAE objectives (Littwin 2024, eqs (5), (6), (21)-(28)), general moments.

With W = W^L ... W^1 the encoder, V the decoder, T the encoder that makes the target (W itself, its gradient stopped, or an
exponential moving average of it):

    JEPA  L = E|V W x - T y|^2 / 2      R = V W Sigma_xx - T Sigma_yx
    MAE   L = E|V W x - y|^2 / 2        R = V W Sigma_xx - Sigma_yx
    dW^a/dt = -r_W [W^L...W^(a+1)]^T V^T R [W^(a-1)...W^1]^T - kappa W^a,    dV/dt = -r_V R W^T - kappa V,    dT/dt = m (W - T)

in gradient-flow time; on the aligned start each feature follows `flows.jepa`/`flows.mae` in their clock, t_mode = L t_flow.

One array holds all layers, padded with zeros to one square width w = max(inputs, hidden width, outputs); a mask says which layers
exist, the others act as the identity. Zero padding stays zero under the flow (a unit without incoming and outgoing weights has
no gradient). So depths and widths are data, not shapes: they vary inside one compiled, vmapped program.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from jepa_dyn._checks import is_traced, require, require_finite, require_one_number
from jepa_dyn.moments import ViewMoments
from jepa_dyn.moments.view_moments import require_equal_views
from jepa_dyn.parameters import Leaf, checked_rates


class DeepLinearState(eqx.Module):
    """Weights of a deep linear net. Build it with `deep_linear_state` or with an initialisation, or fill it by hand.

    - `layers[a]` = W^(a+1), padded to (w, w); inputs are the first columns of the first layer. Masked layers are never read.
    - `decoder` = V, padded to (w, w): from the embedding to the embedding (JEPA) or to the view y (MAE).
    - `target`: layers of the encoder that makes the target of JEPA, moving after `layers` by an exponential moving average;
      None (the default) is the plain stop-gradient, target = encoder.
    """

    layers: Float[Leaf, "*lanes num_layers w w"]
    decoder: Float[Leaf, "*lanes w w"]
    target: Float[Leaf, "*lanes num_layers w w"] | None = None

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (3, 2) if self.target is None else (3, 2, 3)

    @property
    def tracked(self) -> Leaf:
        """What the target follows."""
        return self.layers


class DeepLinearArguments(eqx.Module):
    """What a deep linear net is trained on and how. Build it with `deep_linear_arguments`, which validates.

    - `moments`: second moments of the view pairs, any, commuting or not.
    - `layer_mask[a]`: whether layer a exists; its sum is the depth L.
    - `weight_decay`: kappa >= 0, of layers and decoder; on the aligned start it is the kappa of `ModeParameters`.
    - `encoder_rate`, `decoder_rate` >= 0: factors r_W, r_V on the gradients of the two groups (not on the weight decay).
    - `ema_rate` >= 0: rate m at which the target follows, per unit of flow time; only used where the state has a target.
    """

    moments: ViewMoments
    layer_mask: Bool[Leaf, "*lanes num_layers"]
    weight_decay: Float[Leaf, "*#lanes"]
    encoder_rate: Float[Leaf, "*#lanes"]
    decoder_rate: Float[Leaf, "*#lanes"]
    ema_rate: Float[Leaf, "*#lanes"]

    @property
    def depth(self) -> Array:
        """Number L of layers that exist."""
        return jnp.sum(jnp.asarray(self.layer_mask), axis=-1)

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (2, 2, 2, 1, 0, 0, 0, 0)


def layer_mask(depth: ArrayLike, max_depth: int | None = None) -> Bool[Array, " num_layers"]:
    """Mask of an encoder with the first `depth` of `max_depth` layers; `depth` may be mapped over, 0 is the identity encoder.

    Raises:
        ValueError: depth not a whole number between 0 and `max_depth`, or `max_depth` missing under a transformation.
    """
    if max_depth is None:
        if is_traced(depth) or np.ndim(depth) != 0:
            raise ValueError("Argument `max_depth` must be given unless `depth` is one concrete number.")
        max_depth = int(np.asarray(depth))
    require_one_number("depth", depth)
    require(
        "depth",
        depth,
        f"be a whole number between 0 and `max_depth` = {max_depth}",
        lambda a: (a >= 0) & (a <= max_depth) & (a == np.round(a)),
    )
    return jnp.arange(max(max_depth, 1)) < jnp.asarray(depth)


def deep_linear_arguments(
    moments: ViewMoments,
    layer_mask: ArrayLike,
    *,
    weight_decay: ArrayLike = 0.0,
    encoder_rate: ArrayLike = 1.0,
    decoder_rate: ArrayLike = 1.0,
    ema_rate: ArrayLike = 0.0,
) -> DeepLinearArguments:
    """Validated `DeepLinearArguments` of one system, in the dtype of the moments; for lanes, `jax.vmap` this function.

    Args:
        moments: second moments of the views.
        layer_mask: (num_layers,) booleans, for example from `layer_mask(depth, max_depth)`.
        weight_decay, encoder_rate, decoder_rate, ema_rate: numbers >= 0, see `DeepLinearArguments`.

    Raises:
        ValueError: a negative or not finite number, or a mask that is not a list of booleans.
    """
    mask = jnp.asarray(layer_mask)
    if mask.ndim != 1 or mask.dtype != bool or mask.size == 0:
        raise ValueError(
            f"Argument `layer_mask` must be booleans of shape (num_layers,), but has dtype {mask.dtype}, shape {mask.shape}."
        )
    rates = checked_rates(
        moments.xx.dtype,
        weight_decay=weight_decay,
        encoder_rate=encoder_rate,
        decoder_rate=decoder_rate,
        ema_rate=ema_rate,
    )
    return DeepLinearArguments(moments, mask, **rates)


def deep_linear_state(
    layers: Sequence[Any] | Any, decoder: ArrayLike, *, max_depth: int | None = None, target: bool = False
) -> DeepLinearState:
    """State from weight matrices of any sizes that chain: layers[0] of shape (m_1, d), ..., decoder of shape (outputs, m_L).

    Args:
        layers: the L >= 1 matrices, first layer first; not all sizes need agree.
        decoder: the matrix V.
        max_depth: number of layers of the array, >= L; further layers are zero and must be masked.
        target: whether to add a moving-average target, started at the encoder.

    Raises:
        ValueError: not matrices, not finite, sizes that do not chain, `max_depth` below L.
    """
    chain: list[Any] = [*layers, decoder]
    num_layers = len(chain) - 1
    for index, matrix in enumerate(chain):
        name = f"layers[{index}]" if index < num_layers else "decoder"
        if np.ndim(matrix) != 2:
            raise ValueError(f"Argument `{name}` must be a matrix, but has shape {np.shape(matrix)}.")
        require_finite(name, matrix)
        if index and np.shape(matrix)[1] != np.shape(chain[index - 1])[0]:
            raise ValueError(
                f"Argument `{name}` must have {np.shape(chain[index - 1])[0]} columns, the rows of the layer before, "
                f"but has shape {np.shape(matrix)}."
            )
    max_depth = num_layers if max_depth is None else max_depth
    if num_layers < 1 or max_depth < num_layers:
        raise ValueError(
            f"Argument `max_depth` must be at least the number of layers {num_layers} >= 1, not {max_depth}."
        )
    width = max(max(np.shape(matrix)) for matrix in chain)
    dtype = jnp.result_type(float, *(jnp.asarray(matrix).dtype for matrix in chain))
    padded = [pad(jnp.asarray(matrix, dtype), width) for matrix in chain]
    stacked = jnp.stack([*padded[:-1], *[jnp.zeros((width, width), dtype)] * (max_depth - num_layers)])
    return DeepLinearState(stacked, padded[-1], stacked if target else None)


def with_target(y: DeepLinearState) -> DeepLinearState:
    """The same state with a moving-average target that starts at the encoder."""
    return DeepLinearState(y.layers, y.decoder, y.layers)


def pad(matrix: Float[Array, "rows columns"], width: int) -> Float[Array, "w w"]:
    """The matrix with zeros added to (width, width); a trace-time ValueError where it does not fit."""
    rows, columns = matrix.shape
    if max(rows, columns) > width:
        raise ValueError(f"A matrix of shape {matrix.shape} does not fit the width {width} of the layers.")
    return matrix if rows == columns == width else jnp.pad(matrix, ((0, width - rows), (0, width - columns)))


def _effective(layers: Array, mask: Array) -> list[Array]:
    """The layers in order, the identity where masked."""
    identity = jnp.eye(layers.shape[-1], dtype=layers.dtype)
    return [jnp.where(mask[a], layers[a], identity) for a in range(layers.shape[0])]


def _products(effective: list[Array]) -> list[Array]:
    """[W^1, W^2 W^1, ..., W^L...W^1]."""
    products = effective[:1]
    for layer in effective[1:]:
        products.append(layer @ products[-1])
    return products


def encoder_matrix(y: DeepLinearState, args: DeepLinearArguments) -> Float[Array, "w d"]:
    """The encoder W = W^L ... W^1 as one matrix, rows padded to w, one column per input."""
    return _products(_effective(y.layers, args.layer_mask))[-1][:, : args.moments.xx.shape[-1]]


def target_matrix(y: DeepLinearState, args: DeepLinearArguments) -> Float[Array, "w d"]:
    """The encoder that makes the target of JEPA: that of `y.target`, or the encoder itself where there is none."""
    layers = y.layers if y.target is None else y.target
    return _products(_effective(layers, args.layer_mask))[-1][:, : args.moments.xx.shape[-1]]


def _descend(y: DeepLinearState, args: DeepLinearArguments, jepa: bool) -> DeepLinearState:
    width = y.layers.shape[-1]
    xx, yx = pad(args.moments.xx, width), pad(args.moments.yx, width)
    effective = _effective(y.layers, args.layer_mask)
    products = _products(effective)
    encoder = products[-1]
    goal = yx
    if jepa:
        require_equal_views(args.moments)
        target = encoder if y.target is None else _products(_effective(y.target, args.layer_mask))[-1]
        goal = target @ yx
    residual = y.decoder @ (encoder @ xx) - goal
    signal = y.decoder.T @ residual  # gradient with respect to the product of the layers still to the right
    gradients: list[Any] = [None] * len(effective)
    for a in reversed(range(len(effective))):
        gradients[a] = signal @ products[a - 1].T if a else signal
        signal = effective[a].T @ signal
    mask = args.layer_mask[:, None, None]
    speed = -args.encoder_rate * jnp.stack(gradients) - args.weight_decay * y.layers
    return DeepLinearState(
        layers=jnp.where(mask, speed, 0.0),
        decoder=-args.decoder_rate * (residual @ encoder.T) - args.weight_decay * y.decoder,
        target=None if y.target is None else jnp.where(mask, args.ema_rate * (y.layers - y.target), 0.0),
    )


def deep_jepa(t: ArrayLike, y: DeepLinearState, args: DeepLinearArguments) -> DeepLinearState:
    """Gradient flow of the JEPA objective, in gradient-flow time. Views of equal size; `yy` is not used.

    Source: Littwin 2024, eqs (25), (26) (right as printed), with weight decay, group rates and a moving target added.
    """
    return _descend(y, args, jepa=True)


def deep_mae(t: ArrayLike, y: DeepLinearState, args: DeepLinearArguments) -> DeepLinearState:
    """Gradient flow of the MAE objective, in gradient-flow time. The views may differ in size; `yy` is not used.

    Source: Littwin 2024, eqs (27), (28) (right as printed), with weight decay and group rates added.
    """
    return _descend(y, args, jepa=False)


def _loss(prediction: Array, goal: Array, args: DeepLinearArguments) -> Array:
    """E|A x - B y|^2 / 2 = tr(A xx A^T) / 2 - tr(A yx^T B^T) + tr(B yy B^T) / 2."""
    moments = args.moments
    width = goal.shape[-1]
    xx, yx, yy = (pad(matrix, width) for matrix in (moments.xx, moments.yx, moments.yy))
    own, cross, rest = (prediction @ xx) * prediction, (goal @ yx) * prediction, (goal @ yy) * goal
    return own.sum() / 2 - cross.sum() + rest.sum() / 2


def deep_jepa_loss(y: DeepLinearState, args: DeepLinearArguments) -> Float[Array, ""]:
    """E|V W x - SG(T) y|^2 / 2 without weight decay; its gradient by autodiff is that of the flow (the target is stopped).

    Source: Littwin 2024, eq. (5).
    """
    require_equal_views(args.moments)
    encoder = _products(_effective(y.layers, args.layer_mask))[-1]
    target = encoder if y.target is None else _products(_effective(y.target, args.layer_mask))[-1]
    return _loss(y.decoder @ encoder, jax.lax.stop_gradient(target), args)


def deep_mae_loss(y: DeepLinearState, args: DeepLinearArguments) -> Float[Array, ""]:
    """E|V W x - y|^2 / 2 without weight decay. Source: Littwin 2024, eq. (5)."""
    encoder = _products(_effective(y.layers, args.layer_mask))[-1]
    return _loss(y.decoder @ encoder, jnp.eye(encoder.shape[-1], dtype=encoder.dtype), args)
