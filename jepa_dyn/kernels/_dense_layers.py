"""Gradients by the weights of dense layers, as pairs of vectors: dW = delta h^T is read off one backward pass and never formed.

A layer z = W h that is called once on one vector has the gradient delta h^T, delta = df/dz. Two of them have the inner product
(delta delta') (h h'): n + m products instead of n m, and as much less memory. Each `equinox.nn.Linear` is run through a product
whose backward pass hands out delta and h as the derivative by a dummy argument, the tap. A layer that is called several times (on
every token, say) or whose weight is used elsewhere too has a gradient of another form: `outer_product_layers` tries them all.

Source: the structured derivatives of Novak, Sohl-Dickstein, Schoenholz 2022, here for the dense layers of any Equinox module.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

Taps = list[tuple[Array, Array]]


@jax.custom_vjp
def _product(weight: Array, h: Array, tap: tuple[Array, Array]) -> Array:
    return weight @ h


def _product_forward(weight: Array, h: Array, tap: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    return weight @ h, (weight, h)


def _product_backward(saved: tuple[Array, Array], delta: Array) -> tuple[Array, Array, tuple[Array, Array]]:
    weight, h = saved
    tap = (delta.astype(weight.dtype), h.astype(weight.dtype))
    return jnp.zeros_like(weight), (weight.T @ delta).astype(h.dtype), tap


_product.defvjp(_product_forward, _product_backward)


class _TappedLinear(eqx.Module):
    """A dense layer whose weight is not differentiated but tapped."""

    linear: eqx.nn.Linear
    tap: tuple[Array, Array]

    def __call__(self, x: Array, *, key: Any = None) -> Array:
        z = _product(self.linear.weight, x, self.tap)
        return z if self.linear.bias is None else z + self.linear.bias

    @property
    def weight(self) -> Array:
        return self.linear.weight

    @property
    def bias(self) -> Array | None:
        return self.linear.bias


def _is_dense(node: Any) -> bool:
    """A dense layer that maps vectors to vectors; not a stack of them."""
    return (
        type(node) is eqx.nn.Linear
        and np.ndim(node.weight) == 2
        and "scalar" not in (node.in_features, node.out_features)
    )


def dense_layers(model: Any) -> list[eqx.nn.Linear]:
    """All dense layers of a module, in the order that `chosen` counts them."""
    return [node for node in jax.tree.leaves(model, is_leaf=_is_dense) if _is_dense(node)]


def split(model: Any, chosen: tuple[bool, ...]) -> tuple[Any, Any, Taps]:
    """(parameters to differentiate, everything else, zero taps): the weights of the chosen dense layers are not differentiated."""
    nodes, structure = jax.tree.flatten(model, is_leaf=_is_dense)
    wanted, flags, taps = [], iter(chosen), []
    for node in nodes:
        spec = jax.tree.map(eqx.is_inexact_array, node)
        if _is_dense(node) and next(flags):
            spec = eqx.tree_at(lambda layer: layer.weight, spec, False)
            taps.append(tuple(jnp.zeros(size, node.weight.dtype) for size in node.weight.shape))
        wanted.append(spec)
    trainable, fixed = eqx.partition(model, structure.unflatten(wanted))
    return trainable, fixed, taps


def outputs(trainable: Any, taps: Taps, fixed: Any, chosen: tuple[bool, ...], x: Array) -> Array:
    """f(x) as a vector, of the model that `split` took apart."""
    nodes, structure = jax.tree.flatten(eqx.combine(trainable, fixed), is_leaf=_is_dense)
    flags, left = iter(chosen), iter(taps)
    nodes = [_TappedLinear(node, next(left)) if _is_dense(node) and next(flags) else node for node in nodes]
    return jnp.ravel(structure.unflatten(nodes)(x))


def outer_product_layers(model: Any, samples: ArrayLike, size: int) -> tuple[bool, ...]:
    """Which dense layers have gradients delta h^T: those that have them on samples, for a generic sum of the outputs."""
    layers = dense_layers(model)
    if not layers:
        return ()
    weight = np.cos(np.arange(1, size + 1)).astype(layers[0].weight.dtype)
    try:
        return tuple(bool(one) for one in np.asarray(_agreement(model, samples, weight)))
    except TypeError:  # a model that differentiates forwards inside, which the tapped product does not know
        return (False,) * len(layers)


@eqx.filter_jit
def _agreement(model: Any, samples: Any, weight: Any) -> Array:
    """Whether tapped and full gradients of each dense layer agree to rounding on all samples."""
    count = len(dense_layers(model))

    def of_one(x: Array) -> Array:
        trainable, fixed, _ = split(model, (False,) * count)
        full = jax.grad(lambda p: weight @ outputs(p, [], fixed, (False,) * count, x))(trainable)
        trainable, fixed, taps = split(model, (True,) * count)
        tapped = jax.grad(lambda taps: weight @ outputs(trainable, taps, fixed, (True,) * count, x))(taps)
        return jnp.stack(
            [_close(jnp.outer(*pair), layer.weight) for pair, layer in zip(tapped, dense_layers(full), strict=True)]
        )

    return jnp.all(jax.lax.map(of_one, samples), axis=0)


def _close(one: Array, other: Array) -> Array:
    return jnp.max(jnp.abs(one - other)) <= 1e3 * jnp.finfo(one.dtype).eps * jnp.max(jnp.abs(other))
