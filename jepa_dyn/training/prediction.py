"""What the kernel theory says about the training of a network: its steps and embeddings from its empirical tangent kernel.

A network that trained as its linearisation does would follow `kernels.kernel_barlow_twins` of its neural tangent kernel, from the
embeddings it starts with. The kernel of the start predicts; that of the end explains, where the kernel has moved.

Source: Simon 2023, sections 5, 6, appendix E.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from jepa_dyn.kernels import KernelBarlowTwins, empirical_ntk, kernel_barlow_twins


def tangent_kernel_prediction(
    encoder: Any, x: ArrayLike, y: ArrayLike, *, start: Any = None, output: str | int = "trace"
) -> KernelBarlowTwins:
    """The Barlow Twins model of an encoder's tangent kernel on n pairs, from the embeddings that the encoder starts with.

    `critical_times()` of its `motion` are the predicted steps, `trajectory(t)` has the eigenvalues of C and the loss, `values` the
    functions on [x; y] that the embeddings end up spanning.

    Args:
        encoder: the network whose kernel is taken, at the start or at the end of its training.
        x, y: (n, m) the views.
        start: the network at the start, whose embeddings the theory starts from; default `encoder`.
        output: what is made of the d outputs, see `kernels.empirical_ntk`. The theory has one kernel for all: "trace", the mean of
            theirs, leaves out what couples them; Simon 2023 takes "average".

    Raises:
        ValueError, TypeError: as `kernels.empirical_ntk` and `kernels.kernel_barlow_twins`, among others where fewer eigenvalues
            are positive than the embedding has dimensions.
    """
    points = jnp.concatenate([jnp.asarray(x), jnp.asarray(y)])
    initial = _embed(encoder if start is None else start, points)
    gram = empirical_ntk(encoder, points, output=output)
    return kernel_barlow_twins(gram, initial.shape[1], initial=initial)


@eqx.filter_jit
def _embed(encoder: Any, points: Array) -> Array:
    return jax.vmap(encoder)(points)
