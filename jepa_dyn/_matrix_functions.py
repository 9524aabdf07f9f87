"""Functions of a symmetric matrix through its eigenvalues, with derivatives that are exact at repeated eigenvalues too."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def elementwise_slope(function: Callable[[Array], Array], x: Array) -> Array:
    """The derivative of an elementwise function, element by element."""
    return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def matrix_function(function: Callable[[Array, Any], Array], c: Array, args: Any) -> Array:
    """U diag(function(l, args)) U^T for a symmetric C = U diag(l) U^T; `function` acts on each eigenvalue alone.

    Autodiff of the eigenvectors themselves is NaN at repeated eigenvalues, where the matrix function is smooth.
    """
    values, columns = jnp.linalg.eigh(c)
    return (columns * function(values, args)) @ columns.T


@matrix_function.defjvp
def _matrix_function_jvp(function, primals, tangents):
    """Daleckii and Krein: in the eigenbasis, df(C)_ij = dC_ij times the divided difference of f between l_i and l_j."""
    (c, args), (c_dot, args_dot) = primals, tangents
    values, columns = jnp.linalg.eigh(c)
    raised = function(values, args)
    left, right = values[:, None], values[None, :]
    gap = left - right
    # below the square root of the precision the derivative in the middle is the better difference
    near = jnp.abs(gap) <= jnp.sqrt(jnp.finfo(c.dtype).eps) * (jnp.abs(left) + jnp.abs(right))
    rises = (raised[:, None] - raised[None, :]) / jnp.where(near, 1.0, gap)
    divided = jnp.where(near, elementwise_slope(lambda l: function(l, args), (left + right) / 2), rises)
    turned = divided * (columns.T @ c_dot @ columns)
    by_args = jax.jvp(lambda a: function(values, a), (args,), (args_dot,))[1]
    return (columns * raised) @ columns.T, columns @ (turned + jnp.diag(by_args)) @ columns.T
