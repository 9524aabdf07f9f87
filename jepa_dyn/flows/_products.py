"""The product of two matrices, written out where they are small: many lanes of it are then vectorised as plain arithmetic."""

import jax.numpy as jnp
from jaxtyping import Array

SMALL = 4


def product(a: Array, b: Array) -> Array:
    """a @ b; entry by entry where no side is longer than 4."""
    if max(*a.shape, *b.shape) > SMALL:
        return a @ b

    def entry(i: int, j: int) -> Array:
        terms = [a[i, k] * b[k, j] for k in range(b.shape[0])]
        return sum(terms[1:], terms[0])

    return jnp.stack([jnp.stack([entry(i, j) for j in range(b.shape[1])]) for i in range(a.shape[0])])
