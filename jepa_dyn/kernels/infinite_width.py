"""Infinitely wide ReLU networks of any depth: the covariance of their outputs at the start (NNGP) and their neural tangent kernel.

With normal weights and biases in the NTK parametrisation, z^1 = (w/m)^(1/2) W x + b^(1/2) beta, z^(l+1) the same of relu(z^l) and
its width, w = weight_variance, b = bias_variance, m the size of x:

    K^1 = w x^T y / m + b                                   Theta^1 = K^1
    K^(l+1) = w E[relu(z) relu(z')] + b                     Theta^(l+1) = K^(l+1) + w E[relu'(z) relu'(z')] Theta^l

(z, z') normal with covariance K^l, so that the expectations are halves of arc-cosine kernels of the angle theta^l.

The recursion runs in 1 - cos theta and 1 + cos theta, sums of positive terms: angles stay exact to rounding at any depth, also
where points coincide, where cos theta itself has lost half of the digits.

Source: Jacot 2018, theorem 1; Lee 2018, (4), (5). Simon 2023, section 5 uses them as kernels.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_count, require_nonnegative, require_positive
from jepa_dyn.kernels._angles import angles, length
from jepa_dyn.kernels._points import number, root, two_sets
from jepa_dyn.kernels.closed_form import rectified_gap, step_overlap
from jepa_dyn.parameters import Leaf


class _Network(eqx.Module):
    """Depth and variances of a wide ReLU network."""

    hidden_layers: int = eqx.field(static=True)
    weight_variance: Float[Leaf, ""]
    bias_variance: Float[Leaf, ""]

    def __init__(self, hidden_layers: int, weight_variance: ArrayLike = 2.0, bias_variance: ArrayLike = 0.0):
        require_count("hidden_layers", hidden_layers, 0)
        require_positive("weight_variance", weight_variance)
        require_nonnegative("bias_variance", bias_variance)
        self.hidden_layers = int(hidden_layers)
        self.weight_variance, self.bias_variance = number(weight_variance), number(bias_variance)

    def _kernels(self, x: ArrayLike, y: ArrayLike | None) -> tuple[Array, Array]:
        first, second = two_sets(x, y)
        weight, bias = (jnp.asarray(v, first.dtype) for v in (self.weight_variance, self.bias_variance))
        return _recursion(first, second, weight, bias, self.hidden_layers)


class ReluNngp(_Network):
    """Covariance K of the outputs of a wide ReLU network over its random weights: the kernel where only the last layer is trained.

    Args:
        hidden_layers: >= 0; 0 is a linear map.
        weight_variance: w > 0; 2 keeps the size of the signal from layer to layer.
        bias_variance: b >= 0.

    Derivatives are finite everywhere, points at 0 included.

    Raises:
        ValueError: a number out of range; `kernel(x, y)`: as `linear`.

    Source: Lee 2018, (4), (5).
    """

    def __call__(self, x: ArrayLike, y: ArrayLike | None = None) -> Float[Array, "N M"]:
        return self._kernels(x, y)[0]


class ReluNtk(_Network):
    """Neural tangent kernel Theta of a wide ReLU network, all weights and biases trained (NTK parametrisation).

    Args, raises: as `ReluNngp`. It has a kink where points coincide: its derivative there is that of the smooth part.

    Source: Jacot 2018, theorem 1.
    """

    def __call__(self, x: ArrayLike, y: ArrayLike | None = None) -> Float[Array, "N M"]:
        return self._kernels(x, y)[1]


class _Layer(NamedTuple):
    """Lengths a (N,), b (M,) of the points in one layer, and for every pair 1 - cos theta and theta (N, M)."""

    a: Array
    b: Array
    gap: Array
    theta: Array

    @property
    def covariance(self) -> Array:
        return self.a[:, None] * self.b * (1 - self.gap)


@eqx.filter_jit
def _recursion(x: Array, y: Array, weight: Array, bias: Array, hidden_layers: int) -> tuple[Array, Array]:
    """(K, Theta) of the output layer."""
    scale, theta = x.shape[1] ** -0.5, angles(x, y)
    gap, rest = 2 * jnp.sin(theta / 2) ** 2, 2 * jnp.cos(theta / 2) ** 2
    first = _affine(length(x) * scale, length(y) * scale, gap, rest, weight, bias)

    def step(carry: tuple[_Layer, Array], _: None) -> tuple[tuple[_Layer, Array], None]:
        before, tangent = carry
        gap = rectified_gap(before.theta, before.gap)
        layer = _affine(before.a * 0.5**0.5, before.b * 0.5**0.5, gap, 2 - gap, weight, bias)
        return (layer, layer.covariance + weight / 2 * step_overlap(before.theta) * tangent), None

    (last, tangent), _ = jax.lax.scan(step, (first, first.covariance), None, length=hidden_layers)
    return last.covariance, tangent


def _affine(a: Array, b: Array, gap: Array, rest: Array, weight: Array, bias: Array) -> _Layer:
    """The layer after K -> w K + b, from lengths, gap = 1 - cos theta and rest = 1 + cos theta before.

    With a' = (w a^2 + b)^(1/2), and excess = a' b' - w a b >= 0 written without a difference:

        gap' a' b' = w a b gap + w (a - b)^2 (bias + excess) / (a' + b')^2,    rest' a' b' = w a b rest + bias + excess
    """
    own, other = root(weight * a**2 + bias), root(weight * b**2 + bias)
    a2, b2, sum2 = a[:, None], b[None], own[:, None] + other
    both = own[:, None] * other
    empty = both == 0  # a point at 0 in a network without biases: orthogonal to all
    safe = jnp.where(empty, 1.0, both)
    excess = bias * (weight * (a2**2 + b2**2) + bias) / (safe + weight * a2 * b2)
    apart = weight * (a2 - b2) ** 2 * (bias + excess) / jnp.where(empty, 1.0, sum2) ** 2
    gap = jnp.where(empty, 1.0, (weight * a2 * b2 * gap + apart) / safe)
    rest = jnp.where(empty, 1.0, (weight * a2 * b2 * rest + bias + excess) / safe)
    return _Layer(own, other, gap, 2 * jnp.arctan2(root(gap), root(rest)))
