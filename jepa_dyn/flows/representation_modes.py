"""The modes of `representation`: where the data has one spectrum for both views, a linear network is M coupled numbers, exactly.

With W = U diag(a) V^T, V the eigenvectors of xx, yy, yx and G, the singular vectors stay and each amplitude obeys

    da_m/dt = -(lambda_m or 1) g_m [- g'_m] - weight_decay a_m,    lambda_m = (G_m a_m^2)^alpha,  p = lambda a,  q = a or target
    Euclidean  g = p xx - q yx,  g' = q yy - p yx        cosine  g, g' by `losses.gaussian_cosine`, of Gaussian data

and a target, an estimate of C_z and a trained predictor that begin in these vectors stay in them too. Isotropic data (the
paper's) has the eigenvectors of any W: every start is of this form, see `modes_of_network`, and steps of gradient descent are the
network's own. A cosine loss keeps the sum of a^2 (where weight_decay = 0), IsoLoss apart. C_z has the eigenvalues s = G a^2
(`correlation_eigenvalues`).

Source: Halvagal 2023, (9), (11)-(14), (16), appendix C. Exact where the paper approximates: (11) and (22)-(25) break the
conservation of the trace, and the products of expectations there are biased. (12) collapses only with noise: without it lambda =
1 is semi-stable and modes from above stop there. (13) is at rest only where the online view is clean, else da/dt = -sigma^2 a.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import (
    is_traced,
    require,
    require_broadcastable,
    require_count,
    require_finite,
    require_nonnegative,
)
from jepa_dyn.flows.representation import (
    RepresentationArguments,
    RepresentationState,
    data_correlation,
    named_loss,
    require_leaves,
)
from jepa_dyn.losses.gaussian_cosine import NODES, gaussian_cosine_gradients
from jepa_dyn.losses.predictor import exponent, predictor_eigenvalues
from jepa_dyn.losses.representation import RepresentationLoss
from jepa_dyn.moments import ViewMoments
from jepa_dyn.parameters import Leaf, checked_rates


class RepresentationModes(eqx.Module):
    """`RepresentationState` by modes: every leaf (M,), amplitudes of any sign; unused ones None."""

    encoder: Float[Leaf, "*lanes M"]
    predictor: Float[Leaf, "*lanes M"] | None = None
    target: Float[Leaf, "*lanes M"] | None = None
    correlation: Float[Leaf, "*lanes M"] | None = None

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        rest = (self.predictor, self.target, self.correlation)
        return (1, *(1 for leaf in rest if leaf is not None))

    @property
    def tracked(self) -> Leaf:
        """What the target follows."""
        return self.encoder


class RepresentationModeArguments(eqx.Module):
    """What the modes learn from, and how. Build it with `representation_mode_arguments`, or by `modes_of_network`.

    - `online`, `target`, `cross`: eigenvalues (M,) of xx, yy, yx; `correlation`: of G.
    - the rest as in `RepresentationArguments`.
    """

    online: Float[Leaf, "*#lanes M"]
    target: Float[Leaf, "*#lanes M"]
    cross: Float[Leaf, "*#lanes M"]
    correlation: Float[Leaf, "*#lanes M"]
    alpha: Float[Leaf, "*#lanes"] | None
    weight_decay: Float[Leaf, "*#lanes"]
    predictor_rate: Float[Leaf, "*#lanes"]
    ema_rate: Float[Leaf, "*#lanes"]
    correlation_rate: Float[Leaf, "*#lanes"]
    loss: RepresentationLoss = eqx.field(static=True)
    nodes: int = eqx.field(static=True)

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (1, 1, 1, 1, *((0,) * (self.alpha is not None)), 0, 0, 0, 0)


def representation_mode_arguments(
    num_modes: int,
    loss: RepresentationLoss | str,
    *,
    online: ArrayLike = 1.0,
    target: ArrayLike = 1.0,
    cross: ArrayLike = 1.0,
    correlation: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    predictor_rate: ArrayLike = 1.0,
    ema_rate: ArrayLike = 0.0,
    correlation_rate: ArrayLike = 0.0,
    nodes: int = NODES,
) -> RepresentationModeArguments:
    """Validated `RepresentationModeArguments` of M = `num_modes` modes; for lanes, `jax.vmap` this function.

    The defaults are the paper's data without noise. With noise of variance sigma^2: `target = 1 + sigma^2`, and `online` too
    where both views are noisy.

    Args:
        online, target, correlation: variances >= 0 of the views, and of what C_z is taken of: a number or one per mode.
        cross: covariance of the views, cross^2 <= online target.
        others: as in `representation_arguments`.

    Raises:
        ValueError: naming the argument.
    """
    require_count("num_modes", num_modes)
    require_count("nodes", nodes, 8)
    loss = named_loss(loss)
    named: dict[str, Any] = {"online": online, "target": target, "cross": cross, "correlation": correlation}
    require_broadcastable(modes=np.zeros(num_modes), **named)
    for name, value in named.items():
        (require_finite if name == "cross" else require_nonnegative)(name, value)
    if not is_traced(online, target, cross):
        largest = np.sqrt(np.asarray(online, float) * np.asarray(target, float)) * (1 + 1e-6)
        require(
            "cross",
            np.broadcast_to(np.asarray(cross, float), np.broadcast_shapes(np.shape(cross), largest.shape)),
            "have cross^2 <= online target",
            lambda a: np.abs(a) <= largest,
        )
    dtype = jnp.result_type(float, *(jnp.asarray(v).dtype for v in named.values() if not isinstance(v, int | float)))
    leaves = {name: jnp.broadcast_to(jnp.asarray(value, dtype), (num_modes,)) for name, value in named.items()}
    power = exponent(alpha)
    rates = checked_rates(
        dtype,
        weight_decay=weight_decay,
        predictor_rate=predictor_rate,
        ema_rate=ema_rate,
        correlation_rate=correlation_rate,
    )
    return RepresentationModeArguments(
        **leaves, alpha=None if power is None else jnp.asarray(power, dtype), **rates, loss=loss, nodes=int(nodes)
    )


def modes_of_network(
    y: RepresentationState, args: RepresentationArguments
) -> tuple[RepresentationModes, RepresentationModeArguments, Float[Array, "M k"], Float[Array, "N k"]]:
    """(state, arguments, U, V) of a linear network on isotropic moments: W = U diag(a) V^T, k = min(M, N) modes.

    What is left of the output space stays 0. Target, estimate and trained predictor are taken in the same vectors: what they have
    beside them is left out and must be 0, as at a start with W' = W and C = C_z.

    Raises:
        ValueError: xx, yy, yx or G not multiples of the identity, ReLU, a sample; under a transformation the values are not
        looked at.
    """
    if not isinstance(args.moments, ViewMoments) or args.relu:
        raise ValueError("Argument `args` must hold moments of a linear network: a sample or ReLU has no modes.")
    moments = args.moments
    matrices = {"xx": moments.xx, "yy": moments.yy, "yx": moments.yx, "correlation": data_correlation(args)}
    for name, matrix in matrices.items():
        if not is_traced(matrix):
            host = np.asarray(matrix)
            if np.abs(host - host[0, 0] * np.eye(len(host))).max() > 1e-5 * np.abs(host).max():
                raise ValueError(
                    f"Argument `args` must have moments that are multiples of the identity, but `{name}` is not."
                )
    left, amplitudes, right = jnp.linalg.svd(jnp.asarray(y.encoder), full_matrices=False)

    def diagonal(matrix: Leaf | None, to: Array) -> Array | None:
        return None if matrix is None else jnp.einsum("ik,ij,jk->k", left, jnp.asarray(matrix), to)

    state = RepresentationModes(
        amplitudes, diagonal(y.predictor, left), diagonal(y.target, right.T), diagonal(y.correlation, left)
    )
    values = {name: jnp.broadcast_to(matrix[0, 0], amplitudes.shape) for name, matrix in matrices.items()}
    reduced = RepresentationModeArguments(
        online=values["xx"],
        target=values["yy"],
        cross=values["yx"],
        correlation=values["correlation"],
        alpha=args.alpha,
        weight_decay=args.weight_decay,
        predictor_rate=args.predictor_rate,
        ema_rate=args.ema_rate,
        correlation_rate=args.correlation_rate,
        loss=args.loss,
        nodes=args.nodes,
    )
    return state, reduced, left, right.T


def mode_predictor(y: RepresentationModes, args: RepresentationModeArguments) -> Float[Array, " M"]:
    """lambda_m, the eigenvalues of W_P. Source: Halvagal 2023, (1)."""
    if not args.loss.predictor:
        return jnp.ones_like(y.encoder)
    if y.predictor is not None:
        return jnp.asarray(y.predictor)
    own = args.correlation * jnp.asarray(y.encoder) ** 2 if y.correlation is None else y.correlation
    return predictor_eigenvalues(own, args.alpha)


def representation_modes(
    t: ArrayLike, y: RepresentationModes, args: RepresentationModeArguments
) -> RepresentationModes:
    """The flow of the amplitudes, see the head of this file.

    Source: Halvagal 2023, (9), (12), (13), (16) exactly, and the expectation of (10), C.2 (corrected), (24), C.5.2.
    """
    loss = args.loss
    require_leaves(y, loss)
    encoder = jnp.asarray(y.encoder)
    gains, goal = mode_predictor(y, args), encoder if y.target is None else jnp.asarray(y.target)
    prediction = gains * encoder
    if loss.distance == "euclidean":
        by_prediction = prediction * args.online - goal * args.cross
        by_second = goal * args.target - prediction * args.cross
    else:
        by_prediction, by_second = gaussian_cosine_gradients(
            prediction, goal, args.online, args.target, args.cross, args.nodes
        )
    slope = by_prediction if loss.is_iso else gains * by_prediction
    if not loss.stop_gradient:
        slope = slope + by_second
    trained = estimate = None
    if y.predictor is not None:
        trained = -args.predictor_rate * (by_prediction * encoder + args.weight_decay * y.predictor)
    if y.correlation is not None:
        estimate = args.correlation_rate * (args.correlation * encoder**2 - y.correlation)
    return RepresentationModes(
        encoder=-slope - args.weight_decay * encoder,
        predictor=trained,
        target=None if y.target is None else args.ema_rate * (encoder - y.target),
        correlation=estimate,
    )


def correlation_eigenvalues(
    t: ArrayLike, s: Float[Array, " M"], args: RepresentationModeArguments
) -> Float[Array, " M"]:
    """ds/dt of the eigenvalues of C_z, a plain array: 2 (G s)^(1/2) da/dt. The predictor is in closed form, the target W itself.

    Euclidean rows in lambda = s^alpha, with xx = yx = 1: dlambda/dt = 2 alpha lambda^2 (1 - lambda) (normal form, n = 1),
    IsoLoss 2 alpha lambda (1 - lambda) (n = 0). s <= 0 is at rest.

    Source: Halvagal 2023, (9), (11)-(14), (16) and Table 1, in s_m = E[z_m^2].
    """
    absent = (s <= 0) | (args.correlation == 0)
    amplitude = jnp.sqrt(jnp.where(absent, 1.0, s) / jnp.where(absent, 1.0, args.correlation))
    amplitude = jnp.where(absent, 0.0, amplitude)
    speed = representation_modes(t, RepresentationModes(amplitude), args).encoder
    return 2 * args.correlation * amplitude * speed
