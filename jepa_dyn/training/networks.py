"""Networks as Equinox modules, encoders and heads alike, from one flat vector to another: linear, deep linear, perceptron, ResNet.

All start as such layers usually do, weights and biases uniform in +-1 / sqrt(inputs of a unit); a small start is that times a
scale, see `encoders.scale_parameters` and `init_scale` of `train_networks`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jepa_dyn._checks import require_choice, require_count
from jepa_dyn.training.layers import NORMS, Dense, apply_layer, carries_statistics, dense, identity, patches


class StagedNetwork(eqx.Module):
    """Stages one after the other. What comes out of all but the last are its hidden layers.

    Called as f(x), or f(x, statistics) -> (output, statistics) where a stage carries statistics of its batches. `shape` is
    (height, width, channels) of the image that the flat input is, None for a vector.
    """

    stages: tuple[Callable, ...]
    names: tuple[str, ...] = eqx.field(static=True)
    shape: tuple[int, int, int] | None = eqx.field(static=True, default=None)

    def __call__(self, x: Array, statistics: Any = None) -> Any:
        y = x if self.shape is None else x.reshape(self.shape)
        for stage in self.stages:
            y, statistics = apply_layer(stage, y, statistics)
        return (y, statistics) if carries_statistics(self) else y

    def hidden_layers(self, x: Array, statistics: Any = None) -> dict[str, Array]:
        """What comes out of all stages but the last, by name; of maps the mean over all places."""
        found, y = {}, x if self.shape is None else x.reshape(self.shape)
        for name, stage in zip(self.names[:-1], self.stages[:-1], strict=True):
            y, statistics = apply_layer(stage, y, statistics)
            found[name] = over_places(y)
        return found


def over_places(maps: Array) -> Array:
    """Mean over all axes but the last."""
    return jnp.mean(maps, axis=tuple(range(maps.ndim - 1)))


def linear_network(key: Array, inputs: int, outputs: int, *, bias: bool = False) -> StagedNetwork:
    """f(x) = W x, or W x + b.

    Raises:
        ValueError: a size that is not a whole number >= 1.
    """
    return perceptron(key, inputs, outputs, widths=(), bias=bias)


def deep_linear_network(
    key: Array, inputs: int, outputs: int, *, depth: int = 2, width: int | None = None, bias: bool = False
) -> StagedNetwork:
    """f(x) = W_L ... W_1 x of `depth` L layers, `width` units between them (default `outputs`).

    Raises:
        ValueError: a size that is not a whole number >= 1.
    """
    require_count("depth", depth)
    widths = (outputs if width is None else width,) * (depth - 1)
    return perceptron(key, inputs, outputs, widths=widths, activation=identity, bias=bias)


def perceptron(
    key: Array,
    inputs: int,
    outputs: int,
    *,
    widths: Sequence[int] = (256,),
    norm: str = "none",
    activation: Callable[[Array], Array] = jax.nn.relu,
    bias: bool = True,
) -> StagedNetwork:
    """Dense layers of these widths, activation(norm(W x + b)), and a last one, W x + b. Its stages: `layer_0`, `layer_1`, ...

    Args:
        norm: "none", "batch" or "group".
        activation: of the hidden layers, a module-level function.
        bias: whether there is a b.

    Raises:
        ValueError: a size that is not a whole number >= 1, an unknown norm.
    """
    sizes = (inputs, *widths, outputs)
    require_count("inputs", inputs)
    require_count("widths", widths)
    require_count("outputs", outputs)
    require_choice("norm", norm, NORMS)
    *inner, last = jax.random.split(key, len(sizes) - 1)
    hidden = [
        dense(inner[i], sizes[i], sizes[i + 1], norm=norm, activation=activation, bias=bias) for i in range(len(widths))
    ]
    stages = (*hidden, dense(last, sizes[-2], outputs, activation=identity, bias=bias))
    return StagedNetwork(stages, tuple(f"layer_{i}" for i in range(len(stages))))


class Convolution(eqx.Module):
    """A dense layer on the 3 x 3 patches of a zero-padded image: many lanes of it are one batched product of matrices."""

    dense: Dense
    stride: int = eqx.field(static=True)

    def __call__(self, image: Array, statistics: Any = None) -> Any:
        return self.dense(patches(image, self.stride), statistics)


class ResidualBlock(eqx.Module):
    """relu(convolution(convolution(x)) + shortcut(x)): the basic block of He 2016, the shortcut a 1 x 1 convolution or nothing."""

    first: Convolution
    second: Convolution
    shortcut: Dense | None

    def __call__(self, image: Array, statistics: Any = None) -> Any:
        y, statistics = apply_layer(self.first, image, statistics)
        y, statistics = apply_layer(self.second, y, statistics)
        if self.shortcut is not None:
            image = image[:: self.first.stride, :: self.first.stride]
            image, statistics = apply_layer(self.shortcut, image, statistics)
        y = jax.nn.relu(y + image)
        return (y, statistics) if carries_statistics(self) else y


def residual_network(
    key: Array,
    shape: tuple[int, int, int],
    *,
    channels: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
    norm: str = "group",
    outputs: int | None = None,
) -> StagedNetwork:
    """A small ResNet for small images: a 3 x 3 stem of stride 1 and no pooling after it, basic blocks, the mean over all places.

    Args:
        shape: (height, width, channels) of a view, flattened in this order.
        channels: of each group of blocks; the first block of all groups but the first halves the image.
        blocks: in each group. (64, 128, 256, 512) with 2 blocks and batch norm is the ResNet-18 of Halvagal 2023, appendix D.
        norm: "group" (groups of 8 channels), "batch" or "none".
        outputs: of a last dense layer; None: the pooled channels are the output.

    Raises:
        ValueError: a size that is not a whole number >= 1, an unknown norm.
    """
    if len(shape) != 3 or not channels:
        raise ValueError(
            f"Arguments `shape`, `channels` must be (height, width, channels) and at least one number, but are {shape}, {channels}."
        )
    for name, size in (("shape", shape), ("channels", channels), ("blocks", blocks)):
        require_count(name, size)
    require_choice("norm", norm, NORMS)
    keys = iter(jax.random.split(key, 3 * blocks * len(channels) + 2))

    def convolution(inputs: int, outputs: int, stride: int, activation: Callable = jax.nn.relu) -> Convolution:
        # a bias before a norm does nothing
        layer = dense(next(keys), 9 * inputs, outputs, norm=norm, activation=activation, bias=norm == "none")
        return Convolution(layer, stride)

    stages: list[Callable] = [convolution(shape[2], channels[0], 1)]
    names, before = ["stem"], channels[0]
    for group, count in enumerate(channels):
        for number in range(blocks):
            stride = 2 if group > 0 and number == 0 else 1
            first, second = convolution(before, count, stride), convolution(count, count, 1, identity)
            plain = stride == 1 and before == count
            shortcut = None if plain else dense(next(keys), before, count, norm=norm, activation=identity, bias=False)
            stages.append(ResidualBlock(first, second, shortcut))
            names.append(f"block_{group}_{number}")
            before = count
    stages.append(Pool())
    names.append("pool")
    if outputs is not None:
        require_count("outputs", outputs)
        stages.append(dense(next(keys), before, outputs, activation=identity))
        names.append("readout")
    return StagedNetwork(tuple(stages), tuple(names), shape)


class Pool(eqx.Module):
    """The mean over all places."""

    def __call__(self, maps: Array) -> Array:
        return over_places(maps)
