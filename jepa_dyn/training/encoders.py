"""Small encoders as Equinox modules, from one flat view (m,) to its embedding (d,), with the scale of their start as a parameter.

All start as linear and convolutional layers usually do, weights and biases uniform in +-1/sqrt(inputs of a unit), times the scales.
How a small start is made small matters. With a small readout the embeddings are small while the network learns as fast as at its
usual scale. With all parameters times alpha everything slows down: of a network with two layers the tangent kernel, and so every
rate of learning, is of order alpha^2.

Source: Simon 2023, appendix D.1, D.2.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require_count, require_positive
from jepa_dyn.training.layers import patches

Encoder = TypeVar("Encoder")


class OneHiddenLayerEncoder(eqx.Module):
    """f(x) = V activation(U x + b) + c, a perceptron with one hidden layer. Build it with `one_hidden_layer_encoder`."""

    hidden: eqx.nn.Linear
    readout: eqx.nn.Linear
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, x: Float[Array, " m"]) -> Float[Array, " d"]:
        return self.readout(self.activation(self.hidden(x)))


def one_hidden_layer_encoder(
    key: Array,
    inputs: int,
    outputs: int,
    *,
    width: int = 2048,
    hidden_scale: ArrayLike = 1.0,
    readout_scale: ArrayLike = 1.0,
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> OneHiddenLayerEncoder:
    """A perceptron with one hidden layer, f(x) = V activation(U x + b) + c.

    Args:
        key: JAX key of the start.
        inputs, outputs, width: m, d and the number of hidden units, >= 1.
        hidden_scale, readout_scale: factors > 0 on the usual start of (U, b) and of (V, c).
        activation: of the hidden units.

    Raises:
        ValueError: a size that is not a whole number >= 1, a scale that is not > 0.

    Source: Simon 2023, section 6, appendix D.1.
    """
    _require_sizes(inputs=inputs, outputs=outputs, width=width)
    first, last = jax.random.split(key)
    return OneHiddenLayerEncoder(
        scale_parameters(eqx.nn.Linear(inputs, width, key=first), hidden_scale),
        scale_parameters(eqx.nn.Linear(width, outputs, key=last), readout_scale),
        activation,
    )


class ConvolutionalEncoder(eqx.Module):
    """Convolutions with 3 x 3 kernels and stride 2, an activation after each, and a linear readout of what is left of the image.

    Build it with `convolutional_encoder`. `shape` is (height, width, channels) of the view, flattened in this order. Each
    convolution is a dense layer on the 3 x 3 patches of a zero-padded image, flattened over (row, column, channel): one training
    step of 100 views takes a fifth of the time that XLA's own convolution takes on a CPU.
    """

    convolutions: tuple[eqx.nn.Linear, ...]
    readout: eqx.nn.Linear
    shape: tuple[int, int, int] = eqx.field(static=True)
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, x: Float[Array, " m"]) -> Float[Array, " d"]:
        image = x.reshape(self.shape)
        for convolution in self.convolutions:
            image = self.activation(jax.vmap(jax.vmap(convolution))(patches(image)))
        return self.readout(image.reshape(-1))


def convolutional_encoder(
    key: Array,
    shape: tuple[int, int, int],
    outputs: int,
    *,
    channels: Sequence[int] = (16, 32),
    hidden_scale: ArrayLike = 1.0,
    readout_scale: ArrayLike = 1.0,
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> ConvolutionalEncoder:
    """A small convolutional network: 3 x 3 kernels of stride 2, each halving the image, and a linear readout.

    Args:
        key: JAX key of the start.
        shape: (height, width, channels) of a view.
        outputs: d.
        channels: of each convolution.
        hidden_scale: factor > 0 on the usual start of all convolutions; `readout_scale`: of the readout.
        activation: after each convolution.

    Raises:
        ValueError: a size that is not a whole number >= 1, a scale that is not > 0.
    """
    if len(shape) != 3 or not channels:
        raise ValueError(
            f"Arguments `shape`, `channels` must be (height, width, channels) and at least one number, but are {shape}, {channels}."
        )
    _require_sizes(shape=shape, outputs=outputs, channels=channels)
    *inner, last = jax.random.split(key, len(channels) + 1)
    sizes = (shape[2], *channels)
    convolutions = tuple(
        scale_parameters(eqx.nn.Linear(9 * sizes[i], sizes[i + 1], key=inner[i]), hidden_scale)
        for i in range(len(channels))
    )
    height, width = (-(-side // 2 ** len(channels)) for side in shape[:2])  # every stride rounds up
    readout = eqx.nn.Linear(height * width * channels[-1], outputs, key=last)
    return ConvolutionalEncoder(convolutions, scale_parameters(readout, readout_scale), shape, activation)


def scale_parameters(encoder: Encoder, factor: ArrayLike) -> Encoder:
    """The encoder with all its parameters, weights and biases, times a factor > 0: the "parameterwise small start".

    Raises:
        ValueError: a factor that is not > 0.

    Source: Simon 2023, appendix D.2.
    """
    require_positive("factor", factor)
    return jax.tree.map(
        lambda leaf: (leaf * factor).astype(leaf.dtype) if eqx.is_inexact_array(leaf) else leaf, encoder
    )


def in_coordinates(encoder: OneHiddenLayerEncoder, basis: Float[Any, "m r"]) -> OneHiddenLayerEncoder:
    """The perceptron that sees x^T basis where the given one sees x: the first weights U become U basis.

    On inputs in the span of the r orthonormal columns both are the same function, and under gradient descent (with momentum or
    without, not with weights scaled one by one as in Adam) on such inputs they stay so: what U does outside the span never
    changes. With few samples of many components this saves most of the work; the tangent kernel is the same as well.

    Raises:
        ValueError: a basis of the wrong size, or columns that are not orthonormal.
    """
    weight = encoder.hidden.weight
    columns = jnp.asarray(basis, weight.dtype)
    if columns.ndim != 2 or columns.shape[0] != weight.shape[1]:
        raise ValueError(f"Argument `basis` must have {weight.shape[1]} rows, but has shape {columns.shape}.")
    if not is_traced(columns):
        worst = float(jnp.abs(columns.T @ columns - jnp.eye(columns.shape[1])).max())
        if worst > 64 * columns.shape[0] * float(jnp.finfo(weight.dtype).eps):
            raise ValueError(
                f"Argument `basis` must have orthonormal columns, but basis^T basis differs from 1 by {worst:.3g}."
            )
    like = eqx.filter_eval_shape(eqx.nn.Linear, columns.shape[1], weight.shape[0], key=jax.random.key(0))
    hidden = eqx.tree_at(lambda layer: (layer.weight, layer.bias), like, (weight @ columns, encoder.hidden.bias))
    return OneHiddenLayerEncoder(hidden, encoder.readout, encoder.activation)


def _require_sizes(**sizes: Any) -> None:
    for name, size in sizes.items():
        require_count(name, size)
