"""Observables of siamese training: balance of encoder and predictor, whether a field is a gradient at all, size of the increments.

Source: Ponce 2025, lemmas 4.2, 4.4, proposition 3.2, figure 2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_dyn.flows.siamese import SiameseArguments, SiameseState


def predictor_imbalance(y: SiameseState) -> Float[Array, "n n"]:
    """K = A A^T - B^T B; 0 at every equilibrium with weight decay (lemma 4.2).

    Along the stop-gradient and the EMA flow with equal rates K(t) = e^(-2 lambda t) K(0) (lemma 4.4, (31)-(33)), at every size
    and for any moments. With rates mu of the encoder and nu of the predictor that is not so; what holds there is that
    M = A A^T / mu - B^T B / nu obeys dM/dt = -2 lambda (A A^T - B^T B).
    """
    encoder, predictor = jnp.asarray(y.encoder), jnp.asarray(y.predictor)
    return encoder @ encoder.T - predictor.T @ predictor


def integrability_defect(field: Callable[[Any], Any], point: Any) -> Float[Array, "p p"]:
    """J - J^T of a vector field at a point, flattened: 0 everywhere if and only if the field is the gradient of a function.

    Args:
        field: from a pytree of parameters to a pytree of the same shapes, for example `stop_gradient_field(...)` of any
            differentiable encoder and predictor, or a flow with its other arguments filled in.
        point: where.

    Source: Ponce 2025, proposition 3.2 (Schwarz's theorem).
    """
    flat, unravel = jax.flatten_util.ravel_pytree(point)
    jacobian = jax.jacfwd(lambda z: jax.flatten_util.ravel_pytree(field(unravel(z)))[0])(flat)
    return jacobian - jacobian.T


def siamese_objective_of_networks(
    encode: Callable[[Any, Array], Array],
    predict: Callable[[Any, Array], Array],
    x: Float[Array, "samples m"],
    y: Float[Array, "samples m"],
    weight_decay: float = 0.0,
) -> Callable[[tuple[Any, Any], Any], Array]:
    """((theta, psi), xi) -> F, the mean over the pairs, for any networks; E(theta, psi) is F at xi = theta.

    F = |predict(psi, encode(theta, x)) - encode(xi, y)|^2 / 2 + weight_decay (|theta|^2 + |psi|^2) / 2. Along a stop-gradient
    run E and F have one value at each step, F at the target of the step before another; with an EMA target they differ.

    Source: Ponce 2025, (1), (2), (13), figure 4.
    """

    def objective(parameters: tuple[Any, Any], target: Any) -> Array:
        theta, psi = parameters
        predictions = jax.vmap(lambda one: predict(psi, encode(theta, one)))(x)
        goals = jax.vmap(lambda one: encode(target, one))(y)
        size = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(parameters))
        return jnp.mean(jnp.sum((predictions - goals) ** 2, axis=-1)) / 2 + weight_decay * size / 2

    return objective


def stop_gradient_field(
    encode: Callable[[Any, Array], Array],
    predict: Callable[[Any, Array], Array],
    x: Float[Array, "samples m"],
    y: Float[Array, "samples m"],
    weight_decay: float = 0.0,
) -> Callable[[tuple[Any, Any]], tuple[Any, Any]]:
    """The field (theta, psi) -> mean over the pairs of (grad_theta F, grad_psi F) at xi = theta, for any networks.

    F is `siamese_objective_of_networks`.

    Source: Ponce 2025, (2), (3), (13), (14).
    """
    objective = siamese_objective_of_networks(encode, predict, x, y, weight_decay)
    return lambda parameters: jax.grad(objective)(parameters, parameters[0])


def linear_integrability_defect(y: SiameseState, args: SiameseArguments) -> Float[Array, "nm nn"]:
    """The encoder-predictor block of `integrability_defect` for linear networks, row-major: 1_n kron ([yx^T] A^T).

    It vanishes only where A [xy^T] = 0. (The encoder-encoder block is not symmetric either, in general: the print speaks of the
    cross block alone.) Of the gradients, with equal rates; of the flow it is the negative.

    Source: Ponce 2025, (16), (21).
    """
    encoder = jnp.asarray(y.encoder)
    return jnp.kron(jnp.eye(encoder.shape[0], dtype=encoder.dtype), args.moments.yx @ encoder.T)


def increments(states: Any) -> Float[Array, " steps"]:
    """|theta_t - theta_(t-1)| over consecutive states, a pytree whose leaves have the leading axis (steps + 1,).

    Source: Ponce 2025, figure 2, middle.
    """
    moves = [jnp.diff(jnp.asarray(leaf), axis=0) for leaf in jax.tree.leaves(states)]
    return jnp.sqrt(sum((jnp.sum(move.reshape(len(move), -1) ** 2, axis=1) for move in moves), start=jnp.zeros(())))
