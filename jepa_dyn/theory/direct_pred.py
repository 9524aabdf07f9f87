"""DirectPred under Euclidean losses: exact predictor eigenvalues lambda(t), times, limits, recruitment (Halvagal 2023).

Mirrors `flows.correlation_eigenvalues` for the Euclidean loss and its IsoLoss, lambda = s^alpha, in gradient-flow time (eta = 1):

    Euclidean   dlambda/dt = 2 alpha lambda^2 (cross - online lambda)    normal form n = 1: JEPA mode of depth 1, w = lambda
    IsoLoss     dlambda/dt = 2 alpha lambda   (cross - online lambda)    normal form n = 0: logistic

`online` and `cross` are E[h^2], E[h h'] of the mode in the views, in units in which C_z has the eigenvalue s: 1 and 1 in the
paper; with noise sigma^2 on both views online = 1 + sigma^2. So a small start escapes after 1 / (2 alpha lambda0), under the
IsoLoss after log(1 / lambda0) / (2 alpha).

The cosine losses have no closed form; here is what the paper prints for them beside what is right for small noise.

Source: Halvagal 2023, (9), (11), (16), (23), C.2.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import (
    require,
    require_broadcastable,
    require_finite,
    require_nonnegative,
    require_not_empty,
    require_positive,
)
from jepa_dyn.parameters import ModeParameters, mode_parameters
from jepa_dyn.theory import modes
from jepa_dyn.theory.time_integral import power_integral


def _rates(alpha: ArrayLike, online: ArrayLike, cross: ArrayLike) -> ModeParameters:
    """2 alpha (cross, online), as `lam` and `variance` of the JEPA mode of depth 1."""
    require_positive("alpha", alpha, "at alpha = 0 the eigenvalue of the predictor is 1 and stays it")
    require_positive("online", online)
    require_broadcastable(alpha=alpha, online=online, cross=cross)
    rate = 2 * jnp.asarray(alpha)
    return mode_parameters(rate * jnp.asarray(cross), variance=rate * jnp.asarray(online))


def _positive(name: str, value: ArrayLike, args: ModeParameters) -> Array:
    require_positive(name, value, "a mode at 0 stays there")
    require_broadcastable(**{name: value}, parameters=args.broadcast().lam)
    return jnp.asarray(value, jnp.result_type(args.lam, *([jnp.asarray(value).dtype] if np.ndim(value) else [])))


@jax.jit
def _logistic_state(t: Array, lam0: Array, args: ModeParameters) -> Array:
    """Order n = 0: lam0 / (e^(-rate t) + variance lam0 int_0^t e^(-rate s) ds), rate = `args.lam` of any sign."""
    rate, t = jnp.broadcast_arrays(args.lam, t)
    arrived = jnp.isposinf(t)
    time = jnp.where(arrived, 1.0, t)
    moved = lam0 / (jnp.exp(-rate * time) + args.variance * lam0 * power_integral(rate, time))
    return jnp.where(arrived, jnp.maximum(rate, 0) / args.variance, moved)


@jax.jit
def _logistic_time(lam: Array, lam0: Array, args: ModeParameters) -> Array:
    """Order n = 0: log(1 + rate x) / rate with x = (lam - lam0) / (lam0 (rate - variance lam))."""
    rate, lam, lam0, variance = jnp.broadcast_arrays(args.lam, lam, lam0, args.variance)
    speed, start = rate - variance * lam, rate - variance * lam0
    # on the way: both on one side of the fixed point, and not behind the start of a mode that shrinks
    ahead = (speed * start > 0) & ((start > 0) | (lam <= lam0))
    x = (lam - lam0) / (lam0 * jnp.where(ahead, speed, 1.0))
    still = rate == 0
    time = jnp.where(still, x, jnp.log1p(jnp.where(ahead, rate * x, 0.0)) / jnp.where(still, 1.0, rate))
    return jnp.where(lam == lam0, 0.0, jnp.where(ahead, time, jnp.inf))


def predictor_eigenvalue(
    t: ArrayLike,
    lam0: ArrayLike,
    *,
    alpha: ArrayLike = 1.0,
    online: ArrayLike = 1.0,
    cross: ArrayLike = 1.0,
    iso: bool = False,
) -> Float[Array, "..."]:
    """lambda(t) of a mode that starts at lam0, exactly. Everything broadcasts; differentiable.

    Args:
        t: gradient-flow time >= 0; inf gives the limit.
        lam0: eigenvalue of the predictor at t = 0, > 0; that of C_z is lam0^(1/alpha).
        alpha: exponent of the closed form, > 0.
        online, cross: moments of the views in this mode, online > 0, cross of any sign (<= 0 decays).
        iso: IsoLoss in place of the Euclidean loss.

    Raises:
        ValueError: naming the argument.

    Source: Halvagal 2023, (9), (16), in closed form.
    """
    args = _rates(alpha, online, cross)
    require("t", t, "be >= 0 (infinity is allowed)", lambda a: a >= 0)
    start = _positive("lam0", lam0, args)
    if iso:
        require_broadcastable(t=t, lam0=lam0, parameters=args.broadcast().lam)
        return _logistic_state(jnp.asarray(t, start.dtype), start, args)
    return modes.state("jepa", t, start, args)


def predictor_time_to_reach(
    lam: ArrayLike,
    lam0: ArrayLike,
    *,
    alpha: ArrayLike = 1.0,
    online: ArrayLike = 1.0,
    cross: ArrayLike = 1.0,
    iso: bool = False,
) -> Float[Array, "..."]:
    """Exact time at which the mode passes lam: the inverse of `predictor_eigenvalue`; infinite where it never does.

    Negative where lam lies behind the start of a growing mode.

    Args, raises: as `predictor_eigenvalue`, lam > 0.

    Source: Halvagal 2023, (9), (16), in closed form.
    """
    args = _rates(alpha, online, cross)
    goal, start = _positive("lam", lam, args), _positive("lam0", lam0, args)
    if iso:
        require_broadcastable(lam=lam, lam0=lam0, parameters=args.broadcast().lam)
        return _logistic_time(goal, start, args)
    return modes.time_to_reach("jepa", goal, start, args)


def recruitment(
    weight_decay: ArrayLike, *, online: ArrayLike = 1.0, cross: ArrayLike = 1.0, iso: bool = False
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(smallest lambda from which a mode is recruited, lambda at which it ends then), under weight decay kappa.

    Euclidean: the roots of cross lambda - online lambda^2 = kappa. A mode that starts below the smaller one dies; beyond
    kappa = cross^2 / (4 online) all do. IsoLoss: every start ends at (cross - kappa) / online while kappa < cross. The threshold
    is infinite and the end 0 where no start is recruited. alpha only sets the speed.

    Args:
        weight_decay: kappa >= 0.
        online, cross: as in `predictor_eigenvalue`.
        iso: IsoLoss in place of the Euclidean loss.

    Raises:
        ValueError: naming the argument.

    Source: Halvagal 2023, figure 8 (there for the cosine loss), from (9), (16) with weight decay.
    """
    require_nonnegative("weight_decay", weight_decay)
    require_positive("online", online)
    require_finite("cross", cross)
    require_broadcastable(weight_decay=weight_decay, online=online, cross=cross)
    dtype = jnp.result_type(float, *(jnp.asarray(v).dtype for v in (weight_decay, online, cross) if np.ndim(v)))
    return _recruitment(*(jnp.asarray(v, dtype) for v in (weight_decay, online, cross)), iso)


@partial(jax.jit, static_argnums=3)
def _recruitment(decay: Array, online: Array, cross: Array, iso: bool) -> tuple[Array, Array]:
    decay, online, cross = jnp.broadcast_arrays(decay, online, cross)
    if iso:
        alive = cross > decay
        return jnp.where(alive, 0.0, jnp.inf), jnp.where(alive, (cross - decay) / online, 0.0)
    square = cross**2 - 4 * online * decay
    alive = (square >= 0) & (cross > 0)
    far = cross + jnp.sqrt(jnp.where(alive, square, 0.0))
    far = jnp.where(alive, far, 1.0)
    # the smaller root from the larger: nothing cancels
    return jnp.where(alive, 2 * decay / far, jnp.inf), jnp.where(alive, far / (2 * online), 0.0)


def _embedding(lam: ArrayLike, *embeddings: ArrayLike) -> list[Array]:
    """lam and embeddings as arrays of one dtype, modes along the last axis."""
    require_not_empty("lam", lam)
    require_nonnegative("lam", lam)
    dtype = jnp.result_type(float, *(jnp.asarray(value).dtype for value in (lam, *embeddings)))
    require_broadcastable(lam=lam, **{f"z{i or ''}": value for i, value in enumerate(embeddings)})
    return [jnp.asarray(value, dtype) for value in (lam, *embeddings)]


def _length(v: Array) -> Array:
    return jnp.linalg.norm(v, axis=-1, keepdims=True)


def small_noise_cosine_speed(z: ArrayLike, lam: ArrayLike, *, iso: bool = False) -> Float[Array, "*batch M"]:
    """dz_m/dt = lambda_m z_m / (|D z|^3 |z|) sum_k lambda_k (lambda_k - lambda_m) z_k^2 under the cosine loss, z' = z.

    What (10) is without noise, exactly; sum_m z_m dz_m/dt = 0. An IsoLoss leaves out the first lambda_m.

    Args:
        z: embedding in the predictor's eigenbasis, (..., M), not 0.
        lam: eigenvalues of the predictor, >= 0, (M,) or (..., M).

    Raises:
        ValueError: naming the argument.

    Source: Halvagal 2023, (10), (11), (23), corrected: z_k^2 stays inside the sum.
    """
    return _small_noise_speed(*_embedding(lam, z), iso)


@partial(jax.jit, static_argnums=2)
def _small_noise_speed(lam: Array, z: Array, iso: bool) -> Array:
    prediction, size = _length(lam * z), _length(z)
    squares = lam * z**2
    pulls = jnp.sum(lam * squares, axis=-1, keepdims=True) - lam * jnp.sum(squares, axis=-1, keepdims=True)
    return (z if iso else lam * z) * pulls / (prediction**3 * size)


def printed_cosine_speed(z: ArrayLike, lam: ArrayLike) -> Float[Array, "*batch M"]:
    """(11) as printed, of one embedding: lambda_m (z_m^2 / |D z|^3) (z_m / |z|) sum_k lambda_k (lambda_k - lambda_m).

    An approximation of `small_noise_cosine_speed` for |z_k| all equal; it does not conserve |z|.

    Args, raises: as `small_noise_cosine_speed`.

    Source: Halvagal 2023, (11).
    """
    return _printed_speed(*_embedding(lam, z))


@jax.jit
def _printed_speed(lam: Array, z: Array) -> Array:
    prediction, size = _length(lam * z), _length(z)
    total = jnp.sum(lam**2, axis=-1, keepdims=True) - lam * jnp.sum(lam, axis=-1, keepdims=True)
    return lam * z**3 / (prediction**3 * size) * total


def printed_no_stop_gradient_cosine_gradient(z1: ArrayLike, z2: ArrayLike, lam: ArrayLike) -> Float[Array, "*batch M"]:
    """C.2 as printed: the gradient of the cosine loss without stop gradient, both branches added, in the eigenbasis. It is wrong.

    Its last terms stand for the second branch, which is -sum_k (lambda_m z1_m z2_k^2 - lambda_k z1_k z2_k z2_m) / (|D z1| |z2|^3):
    `losses.representation_gradients` has it.

    Args, raises: as `small_noise_cosine_speed`, for the embeddings z1, z2 of the two views.

    Source: Halvagal 2023, C.2.
    """
    return _printed_gradient(*_embedding(lam, z1, z2))


@jax.jit
def _printed_gradient(lam: Array, first: Array, second: Array) -> Array:
    prediction, size = _length(lam * first), _length(second)
    m, k = (lambda v: v[..., :, None]), (lambda v: v[..., None, :])
    terms = (
        k(lam) ** 2 * k(first) ** 2 * m(second)
        - m(lam) * k(lam) * m(first) * k(first) * k(second)
        + k(lam) ** 2 * m(lam) * k(first) ** 3
        - k(lam) * m(second) * k(second) * k(first)
    )
    others = jnp.sum(jnp.where(jnp.eye(lam.shape[-1], dtype=bool), 0.0, terms), axis=-1)
    own = lam**3 * first**3 - lam * second**2 * first
    return -lam / (prediction**3 * size) * (others + own)
