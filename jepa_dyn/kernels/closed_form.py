"""Kernels in closed form: linear, Gaussian (RBF), and arc-cosine of degree 0 and 1 (Cho and Saul 2009).

A kernel is anything that maps points x (N, ...) and y (M, ...) to the matrix of their inner products phi(x_i)^T phi(y_j) (N, M);
`kernel(x)` is `kernel(x, x)`. Parameters are leaves: a new value never recompiles, and all can be differentiated and mapped.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_positive
from jepa_dyn.kernels._angles import angles, length
from jepa_dyn.kernels._points import number, product, two_sets
from jepa_dyn.parameters import Leaf


def linear(x: ArrayLike, y: ArrayLike | None = None) -> Float[Array, "N M"]:
    """x^T y: the kernel of the linear encoder itself.

    Args:
        x: points (N, ...), flattened to vectors; y: points (M, ...) of the same size, default x.

    Raises:
        TypeError, ValueError: not real, not finite, empty, points of different sizes.

    Source: Simon 2023, section 5: "in our original linear model, the kernel is simply the inner product".
    """
    return _linear(*two_sets(x, y))


_linear = jax.jit(product)


class RBF(eqx.Module):
    """exp(-|x - y|^2 / (2 length^2)), the Gaussian kernel.

    Args:
        length: > 0, in units of the points.

    Squared distances come from one matrix product of centred points: an entry errs by some eps R^2 / length^2, with R the
    largest distance from the centre.

    Raises:
        ValueError: length <= 0; `rbf(x, y)`: as `linear`.
    """

    length: Float[Leaf, ""]

    def __init__(self, length: ArrayLike):
        require_positive("length", length)
        self.length = number(length)

    def __call__(self, x: ArrayLike, y: ArrayLike | None = None) -> Float[Array, "N M"]:
        first, second = two_sets(x, y)
        return _gaussian(first, second, jnp.asarray(self.length, first.dtype))


@jax.jit
def _gaussian(x: Array, y: Array, length: Array) -> Array:
    centre = jnp.mean(y, axis=0)
    x, y = (x - centre) / length, (y - centre) / length
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1) - 2 * product(x, y)
    return jnp.exp(-jnp.maximum(squares, 0.0) / 2)


class ArcCosine(eqx.Module):
    """2 E[step(w x) step(w y) (w x)^degree (w y)^degree], w standard normal: an infinitely wide hidden layer, its readout trained.

    With theta the angle between x and y:

        degree 0 (steps):   1 - theta / pi
        degree 1 (ReLU):    |x| |y| (sin theta + (pi - theta) cos theta) / pi

    Args:
        degree: 0 or 1.

    Angles are exact to rounding also where points coincide. A point at 0 has theta = pi/2, as step(0) = 1/2 gives. Derivatives are
    finite everywhere: 0 at the kinks (coincident points for degree 0, a point at 0).

    Raises:
        ValueError: another degree; `kernel(x, y)`: as `linear`.

    Source: Cho and Saul 2009, eqs (1)-(6).
    """

    degree: int = eqx.field(static=True)

    def __init__(self, degree: int):
        if degree not in (0, 1):
            raise ValueError(f"Argument `degree` must be 0 or 1, but is {degree!r}.")
        self.degree = int(degree)

    def __call__(self, x: ArrayLike, y: ArrayLike | None = None) -> Float[Array, "N M"]:
        first, second = two_sets(x, y)
        return _steps(first, second) if self.degree == 0 else _rectified(first, second)


@jax.jit
def _steps(x: Array, y: Array) -> Array:
    return step_overlap(angles(x, y))


@jax.jit
def _rectified(x: Array, y: Array) -> Array:
    theta = angles(x, y)
    return length(x)[:, None] * length(y) * (1 - rectified_gap(theta, 2 * jnp.sin(theta / 2) ** 2))


def step_overlap(theta: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 - theta / pi: degree 0."""
    return 1 - theta / np.pi


@jax.custom_jvp
def rectified_gap(theta: Float[Array, "..."], gap: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 - (sin theta + (pi - theta) cos theta) / pi, given gap = 1 - cos theta as well: small where that is small, to rounding."""
    return gap - (jnp.sin(theta) - theta * jnp.cos(theta)) / np.pi


@rectified_gap.defjvp
def _rectified_gap_jvp(primals, tangents):
    # by the gap alone: d theta is infinite at 0 and pi, this is not
    return rectified_gap(*primals), step_overlap(primals[0]) * tangents[1]
