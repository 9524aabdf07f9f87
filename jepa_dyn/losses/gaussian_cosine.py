"""The expected cosine loss of Gaussian modes, and its gradient, by quadrature: no sample, no noise.

Mode m of the prediction is p_m h_m, of the target q_m h'_m, with amplitudes p, q and Gaussian pairs (h_m, h'_m), independent
between modes, of moments (online, cross, target)_m. From |v|^-1 = pi^-1/2 int_0^inf u^-1/2 e^(-u |v|^2) du, twice,

    E[p.q / (|p| |q|)] = (1/pi) int int (u v)^-1/2 prod_m D_m^-1/2  sum_m X_m / D_m  du dv
    D_m = (1 + 2 u P_m)(1 + 2 v Q_m) - 4 u v X_m^2,    P = p^2 online,  Q = q^2 target,  X = p q cross

because e^(-u |p|^2 - v |q|^2) turns a Gaussian into a Gaussian, mode by mode. The gradient weights the integrand with fourth
moments of that Gaussian. Both integrals use the trapezoidal rule in t, u = exp(t - e^(a-t) + e^(t-b)): between the ends a, b of
the spectrum it steps in log u, beyond them the integrand dies double exponentially.

Source: Halvagal 2023, (10), (14), C.2 are the integrands; the paper approximates their expectations, in (11), (22)-(25), by
products.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

NODES = 32
# of t beside the ends of the spectrum: u^(1/2) before the first and u^-1/2 after the last is below 1e-9
_BEFORE, _AFTER = 3.55, 3.55
_NEGLIGIBLE = 22.0  # -log of the share at which the tail of the integrand is cut
# modes weaker than this share of the strongest do not widen the range of the nodes
_SMALLEST_SHARE = 1e-16


def _nodes(variances: Array, count: int) -> tuple[Array, Array]:
    """(u, weights u^-1/2 du) for modes of these variances, the largest of which is 1."""
    weakest = jnp.min(jnp.where(variances > _SMALLEST_SHARE, variances, jnp.inf))
    end = -jnp.log(jnp.where(jnp.isfinite(weakest), weakest, 1.0))

    def log_u(t: Array) -> Array:
        return t - jnp.exp(-t) + jnp.exp(t - end)

    def narrow(_: ArrayLike, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        """Where u^(1/2) prod_m (1 + 2 u P_m)^-1/2 has become negligible: with many modes long before the end of the spectrum."""
        low, high = bracket
        middle = (low + high) / 2
        log_middle = log_u(middle)
        gone = (jnp.sum(jnp.log1p(2 * jnp.exp(log_middle) * variances)) - log_middle) / 2 > _NEGLIGIBLE
        return jnp.where(gone, low, middle), jnp.where(gone, middle, high)

    _, last = jax.lax.fori_loop(0, 7, narrow, (jnp.zeros_like(end), end + _AFTER))
    step = (last + _BEFORE) / (count - 1)
    t = step * jnp.asarray(np.arange(count), variances.dtype) - _BEFORE
    slope = 1 + jnp.exp(-t) + jnp.exp(t - end)
    return jnp.exp(log_u(t)), jnp.exp(log_u(t) / 2) * slope * step


def _tilted(u: Array, variance: Array) -> tuple[Array, Array]:
    """(2 u P / (1 + 2 u P), 1 / (1 + 2 u P)), (nodes,) of one mode."""
    rest = 1 / (1 + 2 * u * variance)
    return 2 * u * variance * rest, rest


def _integrals(
    p: Array, q: Array, online: Array, target: Array, cross: Array, count: int
) -> tuple[Array, Array, Array]:
    """(loss, its gradient by p, by q), for max |p| sqrt(online) = max |q| sqrt(target) = 1; one mode at a time."""
    first, second, common = p**2 * online, q**2 * target, p * q * cross
    product = online * target
    independence = jnp.where(product > 0, jnp.maximum(1 - cross**2 / jnp.where(product > 0, product, 1.0), 0.0), 1.0)
    (u, u_weights), (v, v_weights) = _nodes(first, count), _nodes(second, count)

    def inverse_determinant(mode: tuple) -> tuple[Array, Array, Array]:
        """1/D, and the variances of prediction and target in the turned Gaussian times 2u/P and 2v/Q."""
        first, second, _, rest = mode
        (a, a_rest), (b, b_rest) = _tilted(u, first), _tilted(v, second)
        a, a_rest = a[:, None], a_rest[:, None]
        b_kept, a_kept = b_rest + b * rest, a_rest + a * rest
        shrunk = 1 / (a_rest + a * b_kept)
        return a_rest * b_rest * shrunk, a_rest * b_kept * shrunk, b_rest * a_kept * shrunk

    def gather(carry: tuple[Array, Array], mode: tuple) -> tuple[tuple[Array, Array], None]:
        density, total = carry
        inverse, _, _ = inverse_determinant(mode)
        return (density * jnp.sqrt(inverse), total + mode[2] * inverse), None

    weights = u_weights[:, None] * v_weights / np.pi
    modes = (first, second, common, independence)
    (density, total), _ = jax.lax.scan(gather, (weights, jnp.zeros_like(weights)), modes)

    def weigh(_: None, mode: tuple) -> tuple[None, tuple[Array, Array]]:
        (p, q, online, target, cross), parts = mode
        inverse, by_first, by_second = inverse_determinant(parts)
        fourth = total + 2 * parts[2] * inverse
        by_p = density * (q * cross * inverse - 2 * u[:, None] * (p * online) * by_first * fourth)
        by_q = density * (p * cross * inverse - 2 * v * (q * target) * by_second * fourth)
        return None, (-jnp.sum(by_p), -jnp.sum(by_q))

    _, (by_p, by_q) = jax.lax.scan(weigh, None, ((p, q, online, target, cross), modes))
    return -jnp.sum(density * total), by_p, by_q


def _orthogonal(slope: Array, amplitudes: Array) -> Array:
    """The slope without what the quadrature leaves along the amplitudes, where the exact one has nothing."""
    square = jnp.sum(amplitudes**2)
    return slope - amplitudes * (jnp.sum(slope * amplitudes) / jnp.where(square == 0, 1.0, square))


@partial(jax.jit, static_argnums=5)
def _scaled(p: Array, q: Array, online: Array, target: Array, cross: Array, count: int) -> tuple[Array, Array, Array]:
    """`_integrals` for any amplitudes, by the invariance of the loss under scaling of either; 0 where either is 0."""
    p_size, q_size = jnp.max(jnp.abs(p) * jnp.sqrt(online)), jnp.max(jnp.abs(q) * jnp.sqrt(target))
    absent = (p_size == 0) | (q_size == 0)
    p_size, q_size = jnp.where(p_size == 0, 1.0, p_size), jnp.where(q_size == 0, 1.0, q_size)
    p, q = p / p_size, q / q_size
    loss, by_p, by_q = _integrals(p, q, online, target, cross, count)
    by_p, by_q = _orthogonal(by_p, p), _orthogonal(by_q, q)
    return jnp.where(absent, 0.0, loss), jnp.where(absent, 0.0, by_p / p_size), jnp.where(absent, 0.0, by_q / q_size)


def _moments(p: Array, *values: ArrayLike) -> list[Array]:
    return [jnp.broadcast_to(jnp.asarray(value, p.dtype), p.shape) for value in values]


def gaussian_cosine_loss(
    p: Float[Array, " M"],
    q: Float[Array, " M"],
    online: ArrayLike,
    target: ArrayLike,
    cross: ArrayLike,
    nodes: int = NODES,
) -> Float[Array, ""]:
    """-E[cos(p h, q h')] for independent Gaussian modes; 0 where p or q is 0 throughout. Nothing is validated.

    Args: as `gaussian_cosine_gradients`.
    """
    return _scaled(p, q, *_moments(p, online, target, cross), nodes)[0]


def gaussian_cosine_gradients(
    p: Float[Array, " M"],
    q: Float[Array, " M"],
    online: ArrayLike,
    target: ArrayLike,
    cross: ArrayLike,
    nodes: int = NODES,
) -> tuple[Float[Array, " M"], Float[Array, " M"]]:
    """Gradients of `gaussian_cosine_loss` by p and by q: E[g_m h_m] and E[g'_m h'_m] in the words of `representation`.

    Exactly orthogonal to p and to q, since the loss does not know their lengths. Modes of amplitude 0 have the gradient that is
    left as they go to 0, cut off where fewer than two modes are alive and it is infinite. Written for one system, vmappable.
    Nothing is validated.

    Args:
        p, q: amplitudes of prediction and target, any sign, M modes.
        online, target, cross: E[h^2], E[h'^2], E[h h'] per mode or for all; cross^2 <= online target.
        nodes: of each of the two integrals; twice the nodes show the error. For ten modes, P over 3, 6, 9 decades, it is below
            1e-6, 1e-4, 1e-3 of the largest entry with 24 nodes, 1e-8, 1e-6, 2e-5 with 32, 1e-8 with 48; with fewer modes alive,
            whose tails are longer, up to 1e-5, 1e-4, 1e-3 with 32 and 1e-8, 1e-5, 1e-4 with 48.
    """
    return _scaled(p, q, *_moments(p, online, target, cross), nodes)[1:]
