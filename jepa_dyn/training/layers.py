"""Layers of the networks here: convolutions as dense layers on patches, norms with channels last, attention blocks, statistics.

A layer maps one sample; a batch is `over_rows(layer, rows, statistics)`. Layers that carry statistics of their batches
(`BatchNorm`, or anything with an `equinox.nn.StateIndex`) are called as `layer(x, statistics) -> (output, statistics)`, which is
Equinox's convention, under a `vmap` whose axis is called `BATCH_AXIS`.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

BATCH_AXIS = "batch"
_EPS = 1e-5  # inside the root of every norm


def _is_index(node: Any) -> bool:
    return isinstance(node, eqx.nn.StateIndex)


def carries_statistics(layer: Any) -> bool:
    """Whether a module has statistics of its batches somewhere in it."""
    return any(_is_index(node) for node in jax.tree.leaves(layer, is_leaf=_is_index))


def apply_layer(layer: Callable, x: Array, statistics: Any) -> tuple[Array, Any]:
    """(output, statistics) of one sample, whether or not the layer carries statistics."""
    if not carries_statistics(layer):
        return layer(x), statistics
    return layer(x, jax.tree.map(identity, statistics))  # a copy: Equinox marks what was replaced as unusable


def over_rows(layer: Callable, rows: Array, statistics: Any) -> tuple[Array, Any]:
    """(outputs, statistics) of a batch, one sample a row."""
    if carries_statistics(layer):
        return jax.vmap(layer, (0, None), (0, None), axis_name=BATCH_AXIS)(rows, statistics)
    return jax.vmap(layer)(rows), statistics


def over_views(layer: Callable, x: Array, y: Array, statistics: Any, apart: bool = False) -> tuple[Array, Array, Any]:
    """(outputs of x, of y, statistics). One pass of all rows; with statistics one batch after the other, as in BYOL or SimSiam.

    `apart`: one after the other in any case, so that what is not needed of either is not computed.
    """
    if apart or carries_statistics(layer):
        first, statistics = over_rows(layer, x, statistics)
        second, statistics = over_rows(layer, y, statistics)
        return first, second, statistics
    both = jax.vmap(layer)(jnp.concatenate([x, y]))
    return both[: len(x)], both[len(x) :], statistics


class Dense(eqx.Module):
    """activation(norm(W x + b)) along the last axis."""

    linear: eqx.nn.Linear
    norm: Any
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*places m"], statistics: Any = None) -> Any:
        y = along_last(self.linear, x)
        if self.norm is not None:
            y, statistics = apply_layer(self.norm, y, statistics)
        y = self.activation(y)
        return (y, statistics) if carries_statistics(self.norm) else y


def dense(
    key: Array,
    inputs: int,
    outputs: int,
    *,
    norm: str = "none",
    activation: Callable[[Array], Array] = jax.nn.relu,
    bias: bool = True,
) -> Dense:
    """A dense layer, started as such layers usually are: weights and biases uniform in +-1 / sqrt(inputs)."""
    return Dense(eqx.nn.Linear(inputs, outputs, use_bias=bias, key=key), norm_layer(norm, outputs), activation)


def along_last(layer: Callable, x: Array) -> Array:
    """A layer of vectors on every vector along the last axis."""
    for _ in range(x.ndim - 1):
        layer = jax.vmap(layer)
    return layer(x)


def identity(x: Array) -> Array:
    """No activation."""
    return x


def patches(image: Float[Array, "h w c"], stride: int = 2) -> Float[Array, "rows columns k"]:
    """The 3 x 3 patches around every place, or every second one, flattened over (row, column, channel); zeros beyond the border."""
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    height, width = image.shape[:2]
    shifted = [padded[i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1)


class BatchNorm(eqx.Module):
    """(x - mean) / sqrt(variance + 1e-5) weight + bias, channels last, over the batch and all places.

    In training the moments of the batch; in inference (`equinox.nn.inference_mode`) the moving averages that training kept, each
    divided by 1 - momentum^steps, so that they are averages of what was seen from the first step on.
    """

    weight: Float[Array, " c"]
    bias: Float[Array, " c"]
    averages: eqx.nn.StateIndex
    inference: bool
    momentum: float = eqx.field(static=True)

    def __init__(self, channels: int, momentum: float = 0.99):
        self.weight, self.bias = jnp.ones(channels), jnp.zeros(channels)
        zeros = jnp.zeros(channels)
        self.averages = eqx.nn.StateIndex((zeros, zeros, jnp.zeros(())))  # of mean, variance, and of 1
        self.inference, self.momentum = False, momentum

    def __call__(self, x: Float[Array, "*places c"], statistics: Any) -> tuple[Float[Array, "*places c"], Any]:
        kept = statistics.get(self.averages)
        if self.inference:
            seen = jnp.where(kept[2] == 0, 1.0, kept[2])
            mean, variance = kept[0] / seen, jnp.where(kept[2] == 0, 1.0, kept[1] / seen)
        else:
            places = tuple(range(x.ndim - 1))
            mean = jax.lax.pmean(jnp.mean(x, places), BATCH_AXIS)
            variance = jax.lax.pmean(jnp.mean((x - mean) ** 2, places), BATCH_AXIS)
            found = jax.lax.stop_gradient((mean, variance, jnp.ones_like(kept[2])))
            moved = jax.tree.map(
                lambda old, new: old + (1 - self.momentum) * (new.astype(old.dtype) - old), kept, found
            )
            statistics = statistics.set(self.averages, moved)
        return (x - mean) / jnp.sqrt(variance + _EPS) * self.weight + self.bias, statistics


class GroupNorm(eqx.Module):
    """The same with the moments of one sample: over all places and each of `groups` equal groups of channels."""

    weight: Float[Array, " c"]
    bias: Float[Array, " c"]
    groups: int = eqx.field(static=True)

    def __init__(self, channels: int, groups: int):
        self.weight, self.bias, self.groups = jnp.ones(channels), jnp.zeros(channels), groups

    def __call__(self, x: Float[Array, "*places c"]) -> Float[Array, "*places c"]:
        grouped = x.reshape(-1, self.groups, x.shape[-1] // self.groups)
        centred = grouped - jnp.mean(grouped, (0, 2), keepdims=True)
        variance = jnp.mean(centred**2, (0, 2), keepdims=True)
        return (centred / jnp.sqrt(variance + _EPS)).reshape(x.shape) * self.weight + self.bias


NORMS = ("none", "group", "batch")


def norm_layer(norm: str, channels: int) -> BatchNorm | GroupNorm | None:
    """`BatchNorm`, `GroupNorm` with groups of 8 channels (or all of them, where 8 do not divide them), or None."""
    if norm == "batch":
        return BatchNorm(channels)
    if norm == "group":
        return GroupNorm(channels, channels // 8 if channels % 8 == 0 else 1)
    return None


class AttentionBlock(eqx.Module):
    """t + attention(norm(t)), then t + perceptron(norm(t)), on tokens (T, width); keys that are not `visible` are not looked at."""

    attention: eqx.nn.MultiheadAttention
    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    widen: eqx.nn.Linear
    narrow: eqx.nn.Linear

    def __init__(self, key: Array, width: int, heads: int):
        first, second, third = jax.random.split(key, 3)
        self.attention = eqx.nn.MultiheadAttention(heads, width, use_output_bias=True, key=first)
        self.norms = (eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width))
        self.widen = eqx.nn.Linear(width, 4 * width, key=second)
        self.narrow = eqx.nn.Linear(4 * width, width, key=third)

    def __call__(self, tokens: Float[Array, "T w"], visible: Bool[Array, " T"] | None = None) -> Float[Array, "T w"]:
        mask = None if visible is None else jnp.broadcast_to(visible, (len(tokens), len(tokens)))
        inner = jax.vmap(self.norms[0])(tokens)
        tokens = tokens + self.attention(inner, inner, inner, mask)
        inner = jax.vmap(self.norms[1])(tokens)
        return tokens + jax.vmap(self.narrow)(jax.nn.gelu(jax.vmap(self.widen)(inner)))


def sine_positions(rows: int, columns: int, width: int) -> Float[Array, "T w"]:
    """Fixed embeddings of the places of a grid, row by row: sines and cosines of the row and of the column, width / 4 of each."""
    count = width // 4
    rates = 10000.0 ** (-jnp.arange(count) / count)
    angles = [jnp.arange(n)[:, None] * rates for n in (rows, columns)]
    along = [jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1) for angle in angles]
    down = jnp.repeat(along[0], columns, axis=0)
    return jnp.concatenate([down, jnp.tile(along[1], (rows, 1))], axis=1)
