"""A linear or ReLU encoder W under the losses of non-contrastive learning with a linear predictor (Halvagal 2023).

With z = f(W x), f the identity or ReLU, C_z = E[z z^T], W_P = C_z^alpha (or a moving average of C_z, or a matrix trained by
gradient) and a target W' (W itself, or its moving average),

    dW/dt = -grad_W E[L] - weight_decay W        L any `losses.RepresentationLoss`, W_P a constant in its gradient

What stands for the data in `args.moments` decides how E[L] is taken:

    ViewMoments + Euclidean     the population, exactly:  grad = (W_P^T or 1)(W_P W xx - W' yx)  [ + W yy - W_P W yx^T ]
    ViewMoments + cosine        the population of Gaussian views by quadrature, where xx, yy, yx and G are multiples of one matrix
    PairSample                  the mean over a sample of pairs, any loss, linear or ReLU; `representation_error` has its error

Times are gradient-flow times: the paper's learning rate eta is the unit of time, or the `learning_rate` of `solve.train`.

Source: Halvagal 2023, sections 2.1-2.4, figures 2, 4-8, without its approximations. The limit of the Euclidean loss is
lambda = 1 / (1 + sigma^2) where both views are noisy; the cosine rows conserve tr W W^T of i.i.d. data, IsoLoss apart, where it
grows.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import (
    is_traced,
    require_choice,
    require_count,
    require_finite,
)
from jepa_dyn.losses.gaussian_cosine import NODES, gaussian_cosine_gradients
from jepa_dyn.losses.predictor import exponent, predictor_eigenvalues, predictor_matrix
from jepa_dyn.losses.representation import TABLE_1, RepresentationLoss, representation_gradients
from jepa_dyn.moments import PairSample, ViewMoments
from jepa_dyn.parameters import Leaf, checked_rates


class RepresentationState(eqx.Module):
    """Weights, and what follows them. Build it with `representation_state`, or fill it by hand. Unused leaves are None.

    - `encoder` = W, (M, N).
    - `predictor` = W_P, (M, M), trained by gradient; None is the closed form.
    - `target` = W', (M, N), follows the encoder at `ema_rate`; None is W itself.
    - `correlation`, (M, M), follows C_z at `correlation_rate`, and the closed form takes it in its place; None is C_z itself.
    """

    encoder: Float[Leaf, "*lanes M N"]
    predictor: Float[Leaf, "*lanes M M"] | None = None
    target: Float[Leaf, "*lanes M N"] | None = None
    correlation: Float[Leaf, "*lanes M M"] | None = None

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        rest = (self.predictor, self.target, self.correlation)
        return (2, *(2 for leaf in rest if leaf is not None))

    @property
    def tracked(self) -> Leaf:
        """What the target follows."""
        return self.encoder


class RepresentationArguments(eqx.Module):
    """What is learned from, and how. Build it with `representation_arguments`, which validates.

    - `moments`: `ViewMoments` (the population) or a `PairSample`.
    - `correlation` = G, (N, N): C_z = W G W^T; None takes C_z of the first view. Linear encoders only.
    - `alpha`: exponent of the closed-form predictor; None is 1, without eigenvalues.
    - `weight_decay` of encoder and trained predictor; `predictor_rate`: factor on the speed of the trained predictor;
      `ema_rate`, `correlation_rate`: per unit of time, of the two moving averages.
    - `loss`, `relu`, `nodes` (of the quadrature): choose the program.
    """

    moments: ViewMoments | PairSample
    correlation: Float[Leaf, "*#lanes N N"] | None
    alpha: Float[Leaf, "*#lanes"] | None
    weight_decay: Float[Leaf, "*#lanes"]
    predictor_rate: Float[Leaf, "*#lanes"]
    ema_rate: Float[Leaf, "*#lanes"]
    correlation_rate: Float[Leaf, "*#lanes"]
    loss: RepresentationLoss = eqx.field(static=True)
    relu: bool = eqx.field(static=True)
    nodes: int = eqx.field(static=True)

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        data = (2, 2) if isinstance(self.moments, PairSample) else (2, 2, 2)
        return (*data, *((2,) * (self.correlation is not None)), *((0,) * (self.alpha is not None)), 0, 0, 0, 0)


def named_loss(loss: RepresentationLoss | str) -> RepresentationLoss:
    """The loss itself, or the row of Table 1 that has this name.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(loss, RepresentationLoss):
        return loss
    require_choice("loss", loss, tuple(TABLE_1))
    return TABLE_1[loss]


def representation_arguments(
    moments: ViewMoments | PairSample,
    loss: RepresentationLoss | str,
    *,
    alpha: ArrayLike = 1.0,
    correlation: ArrayLike | None = None,
    weight_decay: ArrayLike = 0.0,
    predictor_rate: ArrayLike = 1.0,
    ema_rate: ArrayLike = 0.0,
    correlation_rate: ArrayLike = 0.0,
    relu: bool = False,
    nodes: int = NODES,
    drawn: bool = False,
) -> RepresentationArguments:
    """Validated `RepresentationArguments` of one system, in the dtype of the data; for lanes, `jax.vmap` this function.

    Args:
        moments: of views of equal size N, or a sample of such pairs (needed for ReLU).
        loss: a name in `losses.TABLE_1`, or any `RepresentationLoss`.
        alpha: exponent >= 0 of the closed-form predictor.
        correlation: G, symmetric (N, N); the covariance of the clean data in the paper. None: of the first view.
        weight_decay, predictor_rate, ema_rate, correlation_rate: numbers >= 0.
        relu: z = max(W x, 0) in place of z = W x.
        nodes: of the quadrature for the cosine loss, >= 8; the work grows with its square.
        drawn: `moments` are only the law that `solve.train` draws `moments.PairBatches` from, so that any will do.

    Raises:
        ValueError: an unknown loss, views of different sizes, a bad number, ReLU with a G, or without pairs; a cosine loss on
            moments that are not multiples of one matrix.
    """
    views = (moments.x, moments.y) if isinstance(moments, PairSample) else (moments.xx, moments.yy)
    x_size, y_size = (view.shape[-1] for view in views)
    if x_size != y_size:
        raise ValueError(
            f"Argument `moments` must have views of equal size (one encoder sees both), but they have {x_size} and {y_size}."
        )
    dtype = views[0].dtype
    loss = named_loss(loss)
    if relu and (correlation is not None or not (drawn or isinstance(moments, PairSample))):
        raise ValueError("Argument `relu` must be False without a sample of pairs, and where `correlation` is given.")
    require_count("nodes", nodes, 8)
    if correlation is not None:
        if np.shape(correlation) != (x_size, x_size):
            raise ValueError(
                f"Argument `correlation` must have shape {(x_size, x_size)}, but has shape {np.shape(correlation)}."
            )
        require_finite("correlation", correlation)
        correlation = jnp.asarray(correlation, dtype)
    power = exponent(alpha)
    args = RepresentationArguments(
        moments,
        correlation,
        None if power is None else jnp.asarray(power, dtype),
        **checked_rates(
            dtype,
            weight_decay=weight_decay,
            predictor_rate=predictor_rate,
            ema_rate=ema_rate,
            correlation_rate=correlation_rate,
        ),
        loss=loss,
        relu=bool(relu),
        nodes=int(nodes),
    )
    checked = isinstance(moments, ViewMoments) and loss.distance == "cosine" and not drawn
    if checked and not is_traced(moments, correlation):
        _require_proportional(args)
    return args


def _require_proportional(args: RepresentationArguments) -> None:
    base = np.asarray(data_correlation(args))
    for name in ("xx", "yx", "yy"):
        matrix = np.asarray(getattr(args.moments, name))
        gap = np.abs(matrix * np.trace(base) - base * np.trace(matrix)).max()
        if gap > 1e-5 * np.abs(base).max() * max(abs(np.trace(matrix)), np.abs(matrix).max()):
            raise ValueError(
                f"Argument `moments` must be multiples of one matrix under a cosine loss, but `{name}` is not one of "
                f"{'`xx`' if args.correlation is None else '`correlation`'}; give a `PairSample`."
            )


def representation_state(
    encoder: ArrayLike,
    predictor: ArrayLike | None = None,
    target: ArrayLike | None = None,
    correlation: ArrayLike | None = None,
) -> RepresentationState:
    """Validated state of one system: see `RepresentationState`.

    Raises:
        ValueError: not matrices, not finite, sizes that do not fit, or both a trained predictor and an estimate of C_z.
    """
    if np.ndim(encoder) != 2:
        raise ValueError(f"Argument `encoder` must be a matrix, but has shape {np.shape(encoder)}.")
    if predictor is not None and correlation is not None:
        raise ValueError("Argument `correlation` must be None beside a trained `predictor`, which does not use it.")
    m, n = np.shape(encoder)
    named: dict[str, Any] = {"encoder": encoder, "predictor": predictor, "target": target, "correlation": correlation}
    wanted = {"encoder": (m, n), "predictor": (m, m), "target": (m, n), "correlation": (m, m)}
    given = {name: value for name, value in named.items() if value is not None}
    for name, value in given.items():
        if np.shape(value) != wanted[name]:
            raise ValueError(
                f"Argument `{name}` must have shape {wanted[name]} beside an encoder of shape {(m, n)}, "
                f"but has shape {np.shape(value)}."
            )
        require_finite(name, value)
    dtype = jnp.result_type(float, *(jnp.asarray(value).dtype for value in given.values()))
    return RepresentationState(**{name: jnp.asarray(value, dtype) for name, value in given.items()})


def representation_embeddings(
    encoder: Float[Array, "M N"], x: Float[Leaf, "n N"], args: RepresentationArguments
) -> Float[Array, "n M"]:
    """z = W x or max(W x, 0), row by row."""
    z = jnp.asarray(x) @ encoder.T
    return jnp.maximum(z, 0) if args.relu else z


def data_correlation(args: RepresentationArguments) -> Float[Array, "N N"]:
    """G of C_z = W G W^T: what `args` was given, else that of the first view."""
    if args.correlation is not None:
        return jnp.asarray(args.correlation)
    if isinstance(args.moments, PairSample):
        return jnp.asarray(args.moments.x.T @ args.moments.x / len(args.moments.x))
    return args.moments.xx


def _pairs_for_relu(args: RepresentationArguments) -> PairSample:
    if not isinstance(args.moments, PairSample):
        raise ValueError("Argument `args` must hold a `PairSample` for a ReLU encoder: moments do not determine it.")
    return args.moments


def representation_correlation(y: RepresentationState, args: RepresentationArguments) -> Float[Array, "M M"]:
    """C_z of the encoder as it is now. Source: Halvagal 2023, section 2.1."""
    encoder = jnp.asarray(y.encoder)
    if args.relu:
        z = representation_embeddings(encoder, _pairs_for_relu(args).x, args)
        return z.T @ z / z.shape[0]
    return encoder @ data_correlation(args) @ encoder.T


def representation_predictor(y: RepresentationState, args: RepresentationArguments) -> Float[Array, "M M"]:
    """W_P: the trained one, or the closed form; the identity for a loss without predictor."""
    if not args.loss.predictor:
        return jnp.eye(y.encoder.shape[-2], dtype=y.encoder.dtype)
    if y.predictor is not None:
        return jnp.asarray(y.predictor)
    base = representation_correlation(y, args) if y.correlation is None else jnp.asarray(y.correlation)
    return predictor_matrix(base, args.alpha)


def _by_sample(
    y: RepresentationState, args: RepresentationArguments, pairs: PairSample, predictor: Array
) -> tuple[Array, Array, Array, Array]:
    """Per pair: (gradient by W x, by W y, by the prediction, z), rows."""
    encoder = jnp.asarray(y.encoder)
    other = encoder if y.target is None else jnp.asarray(y.target)
    first = representation_embeddings(encoder, pairs.x, args)
    second = representation_embeddings(other, pairs.y, args)
    by_first, by_second, by_prediction = representation_gradients(args.loss, first, second, predictor)
    if args.relu:
        by_first, by_second = jnp.where(first > 0, by_first, 0.0), jnp.where(second > 0, by_second, 0.0)
    return by_first, by_second, by_prediction, first


def _from_pairs(
    y: RepresentationState, args: RepresentationArguments, pairs: PairSample, predictor: Array
) -> tuple[Array, Array]:
    """(gradient by W, by W_P)."""
    by_first, by_second, by_prediction, first = _by_sample(y, args, pairs, predictor)
    slope = by_first.T @ pairs.x
    if not args.loss.stop_gradient:
        slope = slope + by_second.T @ pairs.y
    return slope / len(pairs.x), by_prediction.T @ first / len(pairs.x)


def _from_moments(
    y: RepresentationState, args: RepresentationArguments, moments: ViewMoments, predictor: Array
) -> tuple[Array, Array]:
    """(gradient by W, by W_P), from E[g x^T] and E[g' y^T]."""
    loss = args.loss
    slopes = _euclidean_slopes if loss.distance == "euclidean" else _cosine_slopes
    by_prediction, by_second = slopes(y, args, moments, predictor)
    slope = predictor.T @ by_prediction if loss.predictor and not loss.is_iso else by_prediction
    return slope if loss.stop_gradient else slope + by_second, by_prediction @ jnp.asarray(y.encoder).T


def _euclidean_slopes(
    y: RepresentationState, args: RepresentationArguments, moments: ViewMoments, predictor: Array
) -> tuple[Array, Array]:
    encoder = jnp.asarray(y.encoder)
    prediction = predictor @ encoder if args.loss.predictor else encoder
    goal = encoder if y.target is None else jnp.asarray(y.target)
    return prediction @ moments.xx - goal @ moments.yx, goal @ moments.yy - prediction @ moments.yx.T


def _cosine_slopes(
    y: RepresentationState, args: RepresentationArguments, moments: ViewMoments, predictor: Array
) -> tuple[Array, Array]:
    """With xx, yx, yy multiples of G and W G^(1/2) = U s^(1/2) V^T, the views fall into independent modes, one per column of U."""
    if y.target is not None or y.correlation is not None or y.predictor is not None:
        raise ValueError(
            "Argument `y` must hold an encoder only under a cosine loss on moments: with a target, an estimate or a trained "
            "predictor give a `PairSample`, or use `representation_modes`."
        )
    encoder, base = jnp.asarray(y.encoder), data_correlation(args)
    online, cross, target = (jnp.trace(m) / jnp.trace(base) for m in (moments.xx, moments.yx, moments.yy))
    moved = encoder @ base
    values, columns = jnp.linalg.eigh(moved @ encoder.T)
    present = values > 0
    lengths = jnp.sqrt(jnp.where(present, values, 0.0))
    gains = predictor_eigenvalues(values, args.alpha) if args.loss.predictor else jnp.ones_like(values)
    by_modes = gaussian_cosine_gradients(gains * lengths, lengths, online, target, cross, args.nodes)
    turned = columns.T @ moved
    inverse = jnp.where(present, 1 / jnp.where(present, lengths, 1.0), 0.0)
    by_prediction, by_second = (columns @ ((inverse * by_mode)[:, None] * turned) for by_mode in by_modes)
    return by_prediction, by_second


def require_leaves(y: Any, loss: RepresentationLoss) -> None:
    """Raises ValueError where a state has a target or a trained predictor that the loss has no use for."""
    if y.target is not None and not loss.stop_gradient:
        raise ValueError("Argument `y` must have no target without stop gradient: both views are seen by one encoder.")
    if y.predictor is not None and (loss.is_iso or not loss.predictor):
        raise ValueError("Argument `y` must have no trained predictor under an IsoLoss or a loss without predictor.")


def representation(t: ArrayLike, y: RepresentationState, args: RepresentationArguments) -> RepresentationState:
    """The flow, see the head of this file. Encoders of norm 0 stay there, under the cosine loss too.

    Discrete training (`solve.train`) with plain gradient descent makes the estimate of C_z the moving average
    C <- (1 - h rho) C + h rho C_z of momentum 1 - h `correlation_rate` for the learning rate h, taken before the step.

    Source: Halvagal 2023, (3)-(6), (12)-(17), appendix C, with the expectations exact.
    """
    require_leaves(y, args.loss)
    predictor, data = representation_predictor(y, args), _pairs_for_relu(args) if args.relu else args.moments
    if isinstance(data, PairSample):
        by_encoder, by_predictor = _from_pairs(y, args, data, predictor)
    else:
        by_encoder, by_predictor = _from_moments(y, args, data, predictor)
    trained = estimate = None
    if y.predictor is not None:
        trained = -args.predictor_rate * (by_predictor + args.weight_decay * y.predictor)
    if y.correlation is not None:
        estimate = args.correlation_rate * (representation_correlation(y, args) - y.correlation)
    return RepresentationState(
        encoder=-by_encoder - args.weight_decay * y.encoder,
        predictor=trained,
        target=None if y.target is None else args.ema_rate * (y.encoder - y.target),
        correlation=estimate,
    )


def representation_error(y: RepresentationState, args: RepresentationArguments) -> Float[Array, "M N"]:
    """Standard error of dW/dt as an estimate of the population's, from the spread over the `PairSample`: entry by entry.

    W_P counts as given: with C_z of the same sample it is an estimate too.

    Raises:
        ValueError: not a sample, or one of fewer than two pairs, which shows no spread.
    """
    if not isinstance(args.moments, PairSample) or args.moments.x.shape[0] < 2:
        raise ValueError("Argument `args` must hold a `PairSample` of at least two pairs to have a standard error.")
    x, other = jnp.asarray(args.moments.x), jnp.asarray(args.moments.y)
    by_first, by_second, _, _ = _by_sample(y, args, args.moments, representation_predictor(y, args))
    count = x.shape[0]
    mean = (by_first.T @ x + by_second.T @ other) / count
    square = (by_first**2).T @ x**2 + 2 * (by_first * by_second).T @ (x * other) + (by_second**2).T @ other**2
    return jnp.sqrt(jnp.maximum(square / count - mean**2, 0.0) / (count - 1))
