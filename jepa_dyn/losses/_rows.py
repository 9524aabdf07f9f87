"""What the losses share: checks of pairs of rows, unit rows, similarities and distances between rows."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

# an array of shape (batch, dim) at least
_MATRIX = 2


def require_pairs(first: Array, second: Array, least: int = 1, why: str = "") -> None:
    """Two matrices of one shape (batch, dim), batch >= least, dim >= 1.

    Raises:
        ValueError: naming the shapes.
    """
    shapes = np.shape(first), np.shape(second)
    if shapes[0] != shapes[1] or len(shapes[0]) != _MATRIX:
        raise ValueError(
            "Arguments `first` and `second` must have one shape (batch, dim) (row i of both is one pair), but have "
            f"{shapes[0]} and {shapes[1]}."
        )
    if shapes[0][0] < least or shapes[0][1] < 1:
        raise ValueError(
            f"Arguments `first` and `second` must have a batch of at least {least}{why and f' ({why})'} and dim >= 1, "
            f"but have shape {shapes[0]}."
        )


def require_same_shape(**named: Array) -> None:
    """Arrays (..., dim) of one shape that is not empty.

    Raises:
        ValueError: naming the arguments and their shapes.
    """
    shapes = [np.shape(value) for value in named.values()]
    if any(shape != shapes[0] for shape in shapes) or not shapes[0] or 0 in shapes[0]:
        names, found = " and ".join(f"`{name}`" for name in named), " and ".join(str(shape) for shape in shapes)
        raise ValueError(f"Arguments {names} must have one shape (..., dim) that is not empty, but have {found}.")


def unit(v: Array) -> tuple[Array, Array]:
    """(v / |v|, 1 / |v|) along the last axis, both 0 where v is 0; no square leaves the range of floating-point numbers."""
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(v)), axis=-1, keepdims=True)
    absent = size == 0
    size = jnp.where(absent, 1.0, size)
    scaled = jnp.where(absent, 0.0, v) / size  # and so without a derivative
    length = jnp.sqrt(jnp.where(absent, 1.0, jnp.sum(scaled**2, axis=-1, keepdims=True)))
    return scaled / length, jnp.where(absent, 0.0, 1 / length / size)


def similarities(first: Array, second: Array, normalise: bool) -> Array:
    """z_i.z'_j for all rows, or their cosine, which is 0 where a row is 0."""
    if normalise:
        first, second = unit(first)[0], unit(second)[0]
    return first @ second.T


def squared_distances(first: Array, second: Array) -> Array:
    """|z_i - z'_j|^2 for all rows, by inner products: off by rounding of |z|^2, so perhaps below 0 for equal rows."""
    return jnp.sum(first**2, axis=1)[:, None] + jnp.sum(second**2, axis=1) - 2 * first @ second.T
