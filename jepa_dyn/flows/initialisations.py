"""Starts of a deep linear net: pure functions of a key, vmappable over keys, masks and scales.

All return a `DeepLinearState` whose array has one entry per entry of `layer_mask`; masked layers are drawn too and never read,
so that the weights of layer a are the same whatever the number of layers. Sizes: `inputs` d, hidden `width` m (default d),
`outputs` of the decoder (default m, as JEPA needs; an MAE has d_y), all padded with zeros to w = max(d, m, outputs). The first
layer that exists is (m, d), the others (m, m), the decoder (outputs, m).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from jepa_dyn._checks import require, require_choice, require_positive
from jepa_dyn.flows.deep_linear import DeepLinearState, pad
from jepa_dyn.parameters import OBJECTIVES, Objective


def haar_orthogonal(key: PRNGKeyArray, n: int, dtype: np.dtype | None = None) -> Float[Array, "n n"]:
    """A random orthogonal matrix of the uniform (Haar) law."""
    q, r = jnp.linalg.qr(jax.random.normal(key, (n, n), dtype or jnp.result_type(float)))
    return q * jnp.where(jnp.diag(r) < 0, -1, 1).astype(q.dtype)  # LAPACK's signs are not random


def aligned_initialisation(
    key: PRNGKeyArray,
    layer_mask: ArrayLike,
    inputs: int,
    *,
    eps: ArrayLike,
    objective: Objective,
    signs: ArrayLike | None = None,
    basis: ArrayLike | None = None,
    dtype: np.dtype | None = None,
) -> DeepLinearState:
    """Assumption 4.1: W^a = eps^(1/L) U^a and V = eps^(1/L) U^v, orthogonal U^a, and U^v = I (JEPA), U^v U^L...U^1 = I (MAE).

    Then ||W b_i|| starts at eps and follows the scalar mode of each feature b_i exactly (theorem 4.2), t_mode = L t_flow.

    Args:
        key: draws the U^a.
        layer_mask: (num_layers,) booleans; L is their number (a depth 0 counts as 1 in eps^(1/L)).
        inputs: d; all layers are square.
        eps: amplitude at the start, > 0.
        objective: "jepa" or "mae".
        signs: (d,) numbers +-1, one per feature: U^v = U diag(signs) U^T (JEPA), U^v U = diag(signs) (MAE) in place of the
            identity, U = U^L...U^1. The features of sign -1 then decay to 0. (The print allows U^v = diag(signs) for JEPA:
            the same where U = 1; for other U the signs belong to mixtures of the features, and some of those are lost.)
        basis: (d, d) orthogonal, columns are the features that `signs` refers to; default the coordinate axes.

    Raises:
        ValueError: eps <= 0, an unknown objective, sizes that disagree.

    Source: Littwin 2024, assumption 4.1, whose (3) asks for "diagonal" only: corrected to +identity.
    """
    require_choice("objective", objective, OBJECTIVES)
    require_positive("eps", eps)
    mask, dtype = _checked(layer_mask, inputs, inputs, inputs, dtype)
    keys = _layer_keys(key, len(mask))[0]
    layers = jax.vmap(lambda k: haar_orthogonal(k, inputs, dtype))(keys)
    identity = jnp.eye(inputs, dtype=dtype)
    signed = identity
    if signs is not None:
        require("signs", signs, "be +1 or -1", lambda a: np.abs(a) == 1)
        if np.shape(signs) != (inputs,):
            raise ValueError(f"Argument `signs` must have shape ({inputs},), but has shape {np.shape(signs)}.")
        columns = identity if basis is None else jnp.asarray(basis, dtype)
        if columns.shape != (inputs, inputs):
            raise ValueError(f"Argument `basis` must have shape {(inputs, inputs)}, but has shape {columns.shape}.")
        signed = (columns * jnp.asarray(signs, dtype)) @ columns.T
    product = identity
    for a in range(len(mask)):
        product = jnp.where(mask[a], layers[a] @ product, product)
    if objective == "mae":
        decoder = signed @ product.T
    else:
        decoder = identity if signs is None else product @ signed @ product.T
    scale = _root(eps, mask, dtype)
    return DeepLinearState(scale * layers, scale * decoder)


def orthogonal_initialisation(
    key: PRNGKeyArray,
    layer_mask: ArrayLike,
    inputs: int,
    *,
    eps: ArrayLike = 1.0,
    width: int | None = None,
    outputs: int | None = None,
    dtype: np.dtype | None = None,
) -> DeepLinearState:
    """Layers and decoder are independent random orthogonal matrices (rows or columns orthonormal where not square) times eps^(1/L).

    Square: assumption 4.1(1, 2) without (3), the decoder is not aligned. Raises ValueError: eps <= 0, sizes below 1.
    """
    require_positive("eps", eps)
    m, rows = _sizes(inputs, width, outputs)
    mask, dtype = _checked(layer_mask, inputs, m, rows, dtype)
    w = max(inputs, m, rows)
    keys, decoder_key = _layer_keys(key, len(mask))

    def layer(k: Array, first: Array) -> Array:
        square = pad(haar_orthogonal(k, m, dtype), w)
        return square if m == inputs else jnp.where(first, _semi_orthogonal(k, m, inputs, w, dtype), square)

    decoder = _semi_orthogonal(decoder_key, rows, m, w, dtype)
    if m != inputs:
        decoder = jnp.where(mask.any(), decoder, _semi_orthogonal(decoder_key, rows, inputs, w, dtype))
    scale = _root(eps, mask, dtype)
    return DeepLinearState(scale * jax.vmap(layer)(keys, _is_first(mask)), scale * decoder)


def gaussian_initialisation(
    key: PRNGKeyArray,
    layer_mask: ArrayLike,
    inputs: int,
    *,
    gain: ArrayLike = 1.0,
    width: int | None = None,
    outputs: int | None = None,
    dtype: np.dtype | None = None,
) -> DeepLinearState:
    """Independent entries ~ N(0, gain^2 / fan_in): the generic start at default scale.

    gain = 1 keeps the expected length of a vector where a layer is square; sqrt(2) is the scale of He et al. 2015, 1/sqrt(3) has
    the variance of PyTorch's default for linear layers. The print ("standard gaussian initialization with default scale") does
    not say which. Raises ValueError: gain <= 0, sizes below 1.

    Source: Littwin 2024, figs 1, 5.
    """
    require_positive("gain", gain)
    m, rows = _sizes(inputs, width, outputs)
    mask, dtype = _checked(layer_mask, inputs, m, rows, dtype)
    w = max(inputs, m, rows)
    keys, decoder_key = _layer_keys(key, len(mask))
    index = jnp.arange(w)

    def block(k: Array, height: int, fan_in: Array) -> Array:
        entries = jax.random.normal(k, (w, w), dtype)
        inside = (index[:, None] < height) & (index[None, :] < fan_in)
        return jnp.where(inside, entries, 0.0) * (jnp.asarray(gain, dtype) / jnp.sqrt(fan_in.astype(dtype)))

    fan_in = jnp.where(_is_first(mask), inputs, m)
    layers = jax.vmap(lambda k, n: block(k, m, n))(keys, fan_in)
    return DeepLinearState(layers, block(decoder_key, rows, jnp.where(mask.any(), m, inputs)))


def small_gaussian_initialisation(
    key: PRNGKeyArray,
    layer_mask: ArrayLike,
    inputs: int,
    *,
    eps: ArrayLike,
    width: int | None = None,
    outputs: int | None = None,
    dtype: np.dtype | None = None,
) -> DeepLinearState:
    """Gaussian entries of gain eps^(1/L): the mean square of ||W e_i|| is eps^2 where all layers are square; the generic neighbour
    of the aligned start. Raises ValueError: eps <= 0, sizes below 1.
    """
    require_positive("eps", eps)
    mask, dtype = _checked(layer_mask, inputs, *_sizes(inputs, width, outputs), dtype)
    gain = _root(eps, mask, dtype)
    return gaussian_initialisation(key, mask, inputs, gain=gain, width=width, outputs=outputs, dtype=dtype)


def balanced_initialisation(
    key: PRNGKeyArray,
    layer_mask: ArrayLike,
    inputs: int,
    *,
    eps: ArrayLike,
    width: int | None = None,
    outputs: int | None = None,
    dtype: np.dtype | None = None,
) -> DeepLinearState:
    """Generic but balanced: W^(a+1)T W^(a+1) = W^a W^aT for all a, the decoder included (lemma B.1 with constant 0).

    The encoder W has the law of a Gaussian (m, d) matrix with entries ~ N(0, eps^2 / d); its singular values s are shared as
    s^(1/L) by all layers and the decoder, with independent random orthogonal frames between them.

    Raises:
        ValueError: eps <= 0, sizes below 1, or outputs < min(inputs, width): no decoder of lower rank can be balanced.
    """
    require_positive("eps", eps)
    m, rows = _sizes(inputs, width, outputs)
    mask, dtype = _checked(layer_mask, inputs, m, rows, dtype)
    w, rank = max(inputs, m, rows), min(inputs, m)
    if rows < rank:
        raise ValueError(
            f"Argument `outputs` must be at least min(inputs, width) = {rank} for a balanced decoder, but is {rows}."
        )
    keys, decoder_key = _layer_keys(key, len(mask))
    value_key, frame_key = jax.random.split(decoder_key)
    input_key, output_key = jax.random.split(frame_key)
    gaussian = jax.random.normal(value_key, (m, inputs), dtype) / jnp.sqrt(jnp.asarray(inputs, dtype))
    values = jnp.linalg.svd(gaussian, compute_uv=False)
    depth = jnp.maximum(mask.sum(), 1).astype(dtype)
    shared = jnp.pad(jnp.exp(jnp.log(jnp.asarray(eps, dtype) * values) / depth), (0, w - rank))
    frame = _semi_orthogonal(input_key, inputs, rank, w, dtype)
    layers = []
    for a in range(len(mask)):
        after = _semi_orthogonal(keys[a], m, rank, w, dtype)
        layers.append((after * shared) @ frame.T)
        frame = jnp.where(mask[a], after, frame)
    decoder = (_semi_orthogonal(output_key, rows, rank, w, dtype) * shared) @ frame.T
    return DeepLinearState(jnp.stack(layers), decoder)


def _sizes(inputs: int, width: int | None, outputs: int | None) -> tuple[int, int]:
    m = inputs if width is None else width
    return m, m if outputs is None else outputs


def _checked(mask: ArrayLike, inputs: int, width: int, outputs: int, dtype: np.dtype | None) -> tuple[Array, np.dtype]:
    """The mask as an array and the dtype, after the host checks that all initialisations share."""
    for name, value in (("inputs", inputs), ("width", width), ("outputs", outputs)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"Argument `{name}` must be a whole number >= 1, but is {value!r}.")
    array = jnp.asarray(mask)
    if array.ndim != 1 or array.dtype != bool or array.size == 0:
        raise ValueError(
            f"Argument `layer_mask` must be booleans of shape (num_layers,), but has dtype {array.dtype}, shape {array.shape}."
        )
    return array, np.dtype(jnp.result_type(float) if dtype is None else dtype)


def _layer_keys(key: PRNGKeyArray, num_layers: int) -> tuple[Array, Array]:
    """A key for each layer, which does not depend on how many there are, and one for the decoder."""
    layers, decoder = jax.random.split(key)
    return jax.vmap(lambda a: jax.random.fold_in(layers, a))(jnp.arange(num_layers)), decoder


def _is_first(mask: Array) -> Array:
    """True at the first layer that exists."""
    return mask & (jnp.cumsum(mask) == 1)


def _root(eps: ArrayLike, mask: Array, dtype: np.dtype) -> Array:
    """eps^(1/L)."""
    depth = jnp.maximum(mask.sum(), 1).astype(dtype)
    return jnp.exp(jnp.log(jnp.asarray(eps, dtype)) / depth)


def _semi_orthogonal(key: Array, rows: int, columns: int, w: int, dtype: np.dtype) -> Array:
    """Orthonormal rows or columns (whichever are fewer) of the uniform law, padded to (w, w)."""
    return pad(haar_orthogonal(key, max(rows, columns), dtype)[:rows, :columns], w)
