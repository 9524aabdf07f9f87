"""What every kernel takes: points along the first axis, each flattened to a vector of floating-point numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from jepa_dyn._checks import require_finite, require_not_empty


def points(name: str, value: Any) -> Any:
    """The points as rows (N, m), whatever the shape (N, ...) they come in; numpy arrays stay where they are.

    Raises:
        TypeError: not real numbers.
        ValueError: a single number, empty, not finite.
    """
    if np.ndim(value) == 0:
        raise ValueError(f"Argument `{name}` must hold points along its first axis, but is the single number {value}.")
    require_not_empty(name, value)
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"Argument `{name}` must hold real numbers, but has dtype {array.dtype}.")
    require_finite(name, value)
    return array.astype(jnp.result_type(float, array.dtype)).reshape(array.shape[0], -1)


def two_sets(x: ArrayLike, y: ArrayLike | None) -> tuple[Any, Any]:
    """Rows of both sets, in one dtype; without `y`, `x` twice.

    Raises:
        TypeError, ValueError: as `points`; points of different sizes.
    """
    first = points("x", x)
    if y is None:
        return first, first
    second = points("y", y)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"Arguments `x` and `y` must hold points of one size, but they have {first.shape[1]} and {second.shape[1]} components."
        )
    dtype = jnp.result_type(first, second)
    return first.astype(dtype), second.astype(dtype)


def product(first: Array, second: Array) -> Array:
    """first second^T in the full precision of the dtype (accelerators round float32 products by default)."""
    return jnp.matmul(first, second.T, precision="highest")


def number(value: ArrayLike) -> Array:
    """A parameter as a floating-point array of its own precision."""
    return jnp.asarray(value, jnp.result_type(float, jnp.asarray(value).dtype))


def root(square: Array) -> Array:
    """Square root with derivative 0 at 0, where it has none."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
