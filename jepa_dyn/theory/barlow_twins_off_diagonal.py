"""Barlow Twins from a small start, the entries beside the diagonal: how far W(t) is from the aligned motion (Simon 2023, app. C).

With W = Q A Gamma^(<=m) and A(0) upper triangular, to leading order in the start alpha, for j < k, g = gamma_j / gamma_k,
r = gamma_k^(1/2) s_k(t) (0 where gamma_k <= 0 or k > d):

    a_jk(t) = a_jk(0) (s_j(t) / s_j(0))^(1/g)  X(r)                         (48) is this with X = 1
    a_kj(t) = a_jk(0) (s_j(t) / s_j(0))^(1/g)  g^(-1/2) Y(r)                (48) has 0

X and Y solve the pair's own equations, while mode j sits at its fixed point and mode k grows (theta = artanh r):

    dX/dtheta = -(r X + Y),   dY/dtheta = -g (X + r Y),   X = 1, Y = 0 at r = 0
    Y = -F I(r^2; 1/2, (g+1)/2),   X = (1 - r^2)^((g+1)/2) - r Y,   F(g) = pi^(1/2) Gamma((g+1)/2) / Gamma(g/2)

with I the regularised incomplete beta function. X is 1 at first and F(g) >= 1 at the end, where C becomes diagonal:
a_kj = -(gamma_k / gamma_j)^(1/2) a_jk. F(1) = 1, F(2) = pi/2, F(g) ~ (pi g / 2)^(1/2).

Source: Simon 2023, (43)-(48), with t there 4 t. (46) leaves out the part of C that couples a_jk to a_kj, which is of their own
order once mode k has grown: (48) is then too small by F, and "0 for j > k" is wrong by as much. That all vanish with alpha stands.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require
from jepa_dyn.theory.barlow_twins import mode_residual, mode_state, prepare, require_times
from jepa_dyn.theory.barlow_twins_alignment import SmallStart


def late_factor(ratio: ArrayLike) -> Float[Array, "..."]:
    """F(g) = pi^(1/2) Gamma((g+1)/2) / Gamma(g/2): a_jk(inf) over what (48) gives, for j < k <= d.

    Args:
        ratio: g = gamma_j / gamma_k >= 1.

    Raises:
        ValueError: ratio < 1 or not finite.

    Source: not in Simon 2023; corrects (48). Accuracy 4e-14 in float64.
    """
    require("ratio", ratio, "be finite and >= 1", lambda a: np.isfinite(a) & (a >= 1))
    (ratio,) = prepare({}, ratio=ratio)
    return _late_factor(ratio)


@jax.jit
def _late_factor(g: Array) -> Array:
    # Gamma(h + 1/2) / Gamma(h), h = g/2: lgamma loses digits for large h, where the series in 1/h has them
    h = g / 2
    large = h > 40
    near, far = jnp.where(large, 1.0, h), jnp.where(large, h, 40.0)
    u = 1 / far
    series = 1 + u * (
        -1 / 8 + u * (1 / 128 + u * (5 / 1024 + u * (-21 / 32768 + u * (-399 / 262144 + u * 869 / 4194304))))
    )
    exact = jnp.exp(jax.lax.lgamma(near + 0.5) - jax.lax.lgamma(near))
    return jnp.sqrt(jnp.asarray(np.pi, g.dtype)) * jnp.where(large, jnp.sqrt(far) * series, exact)


def pair_factors(share: ArrayLike, ratio: ArrayLike) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(X, Y): what the growth of mode k does to gamma_k^(1/2) a_jk and gamma_j^(1/2) a_kj, in units of the former before it.

    Args:
        share: r = gamma_k^(1/2) s_k in [0, 1].
        ratio: g = gamma_j / gamma_k >= 1. Both broadcast.

    Raises:
        ValueError: share outside [0, 1], ratio < 1.

    Source: not in Simon 2023; replaces X = 1, Y = 0 of (48).
    """
    require("share", share, "lie in [0, 1]", lambda a: (a >= 0) & (a <= 1))
    require("ratio", ratio, "be finite and >= 1", lambda a: np.isfinite(a) & (a >= 1))
    share, ratio = prepare({}, share=share, ratio=ratio)
    share, ratio = jnp.broadcast_arrays(share, ratio)
    return _pair_factors(share, (1 - share) * (1 + share), ratio)


@jax.jit
def _pair_factors(share: Array, rest: Array, ratio: Array) -> tuple[Array, Array]:
    """From r, 1 - r^2 and g."""
    order = (ratio + 1) / 2
    grown = jax.scipy.special.betainc(jnp.full_like(order, 0.5), order, share**2)
    y = -_late_factor(ratio) * grown
    return rest**order - share * y, y


def small_start_amplitudes(t: ArrayLike, start: SmallStart) -> Float[Array, "... k m"]:
    """A(t) of W(t) = Q A(t) Gamma^(<=m): the singular values on the diagonal and both triangles beside it, to leading order.

    What is left of the error of W(t) is of order alpha^(2p) at the end, and alpha^(2p) log(1 / alpha) while modes grow, where the
    aligned motion alone has alpha^p, p = `alignment_exponent`: poor, again, where gamma_k / gamma_j is near 1.

    Args:
        t: times >= 0, a number or an array of any shape.
        start: from `small_start(encoder, gamma)`.

    Raises:
        ValueError: t < 0 or NaN.

    Source: Simon 2023, (43), (47), (48); upper triangle for k <= d and lower triangle corrected.
    """
    require_times(t)
    amplitudes = jnp.asarray(start.amplitudes)
    return _small_start_amplitudes(jnp.asarray(t, amplitudes.dtype), amplitudes, jnp.asarray(start.gammas))


@jax.jit
def _small_start_amplitudes(t: Array, amplitudes: Array, gammas: Array) -> Array:
    k, m = amplitudes.shape
    s0, own = jnp.diagonal(amplitudes), gammas[:k]
    times, s0, own = jnp.broadcast_arrays(t[..., None], s0, own)
    s = mode_state(times, s0, own)
    rest = jnp.where(own > 0, mode_residual(times, s0, own), 1.0)
    share = jnp.clip(jnp.sqrt(jnp.where(own > 0, own, 0.0)) * s, 0.0, 1.0)

    # row j, column l > j: growth by gamma_l / gamma_j; where gamma_j <= 0 nothing stops a row, and e^(4 gamma_l t) is left
    learned = own > 0
    log_growth = jnp.where(learned, (jnp.log(s) - jnp.log(s0)) / jnp.where(learned, own, 1.0), 4 * times)
    exponent = jnp.where(gammas == 0, 0.0, jnp.where(gammas == 0, 0.0, log_growth[..., None]) * gammas)
    upper = jnp.triu(amplitudes, 1) * jnp.exp(jnp.where(jnp.triu(jnp.ones((k, m), bool), 1), exponent, 0.0))

    square = upper[..., :k]
    pair = jnp.triu(jnp.ones((k, k), bool), 1) & (own[..., None, :] > 0)
    ratio = jnp.where(pair, own[..., :, None] / jnp.where(pair, own[..., None, :], 1.0), 1.0)
    x, y = _pair_factors(
        jnp.broadcast_to(share[..., None, :], pair.shape), jnp.broadcast_to(rest[..., None, :], pair.shape), ratio
    )
    lower = jnp.where(pair, square * y / jnp.sqrt(ratio), 0.0)
    square = jnp.where(pair, square * x, square) + jnp.swapaxes(lower, -1, -2)
    square = square + s[..., None] * jnp.eye(k, dtype=s.dtype)
    return jnp.concatenate([square, upper[..., k:]], axis=-1)


def small_start_encoder(t: ArrayLike, start: SmallStart) -> Float[Array, "... d m"]:
    """W(t) = Q A(t) Gamma^(<=m) with the off-diagonal entries: beyond Result 4.6 by their order.

    Args, raises: as `small_start_amplitudes`. Source: Simon 2023, (43), (48), corrected.
    """
    return jnp.einsum("dk,...km,mn->...dn", start.left, small_start_amplitudes(t, start), start.features)
