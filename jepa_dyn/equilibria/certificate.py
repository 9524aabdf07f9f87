"""Proof that a real root of the equation of one rank is there and which ball holds it alone (Newton and Kantorovich).

With beta = |f'(z)^-1 f(z)| and K = |f'(z)^-1| C, C a Lipschitz constant of f', h = beta K <= 1/2 proves exactly one root within
(1 - sqrt(1 - 2h)) / K of z and no other within (1 + sqrt(1 - 2h)) / K. beta is enlarged by a bound of the rounding errors of f;
f'(z)^-1 is taken as computed, times 1 + 1e-6. At full rank f = F is quadratic: C = 2 |X|^2 everywhere. Below, f is a product of
five factors L, beta, P^-1, beta^T, P less one of two, L = [1; K] and P = L^T L >= 1. With |L| <= l, |beta| <= b in a ball around
the root their norms are (l, b, r^(1/2), b, l^2), those of their first derivatives (1, 1, 2 l, 1, 2 l), of their second
(0, 0, 2 + 8 l^2, 0, 2), and C follows by the product rule.

Source: Kantorovich 1948; Ortega 1968.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn.equilibria.reduced import chart_of, gram_of, rank_residual, split_chart

_BALL = 1e-2  # radius of the ball in which C holds


class Certificate(NamedTuple):
    """A refined root and its proof.

    - `s`: S (m, m), off by at most `error`; NaN if unproved.
    - `unknowns`: of the equation of its rank, in inputs turned by `frame` (below full rank so that K = 0 about there).
    - `radius`: of a ball of unknowns with exactly one root; `alone`: of a ball without any other.
    """

    s: np.ndarray
    error: float
    unknowns: np.ndarray
    frame: np.ndarray
    radius: float
    alone: float


@partial(jax.jit, static_argnames="rank")
def _value_and_jacobian(vector: Any, xx: Any, yx: Any, weight_decay: Any, rank: int) -> tuple:
    arguments = (vector, xx, yx, weight_decay, rank)
    return rank_residual(*arguments), jax.jacfwd(rank_residual)(*arguments)


def _product_rule(factors: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Bounds of a product and of its first and second derivative, from those of its factors."""
    value = first = second = 0.0
    for k, (n, d, s) in enumerate(factors):
        value, first, second = (
            (n, d, s) if k == 0 else (value * n, value * d + first * n, value * s + 2 * first * d + second * n)
        )
    return value, first, second


def _factors(root: np.ndarray, m: int, rank: int, radius: float) -> dict[str, tuple[float, float, float]]:
    """Norm, norm of the first and of the second derivative of L, beta, P^-1 and P within a radius of the root."""
    span, beta = (float(np.linalg.norm(part)) + radius for part in split_chart(jnp.asarray(root), m, rank))
    return {
        "L": (span, 1.0, 0.0),
        "beta": (beta, 1.0, 0.0),
        "P^-1": (np.sqrt(rank), 2 * span, 2 + 8 * span**2),
        "P": (span**2, 2 * span, 2.0),
    }


def _gram_error(root: np.ndarray, m: int, rank: int, radius: float) -> float:
    """How far S may be off where the unknowns are off by a radius."""
    if rank == m:
        return radius
    parts = _factors(root, m, rank, radius)
    return radius * _product_rule([parts[name] for name in ("L", "beta", "P^-1", "beta", "L")])[1]


def _bounds(
    root: np.ndarray, xx: np.ndarray, yx: np.ndarray, weight_decay: float, rank: int
) -> tuple[float, float, float]:
    """(Lipschitz constant of f', in which radius it holds, rounding error of f)."""
    m, size, other = len(xx), float(np.linalg.norm(xx, 2)), float(np.linalg.norm(yx, 2))
    eps = float(np.finfo(float).eps)
    if rank == m:
        s = float(np.linalg.norm(root))
        # every entry of F is a sum of about 4 m^2 products of numbers below these
        return 2 * size**2, np.inf, 4 * m**2 * eps * ((size * s + weight_decay) ** 2 + other**2 * s)
    parts = _factors(root, m, rank, _BALL)
    long, short = (
        _product_rule([parts[name] for name in names]) for names in (("L", "beta", "P^-1", "beta", "P"), ("L", "beta"))
    )
    # a product of k matrices is off by less than k m eps times the product of their norms; P^-1 by its condition number more
    terms = float(np.linalg.norm(xx)) * long[0] * parts["P"][0] + weight_decay * parts["L"][0]
    terms += float(np.linalg.norm(yx)) * short[0]
    return size * long[2] + other * short[2], _BALL, 32 * m * eps * terms


def certify(
    s: np.ndarray, xx: np.ndarray, yx: np.ndarray, weight_decay: float, rank: int, frame: np.ndarray | None = None
) -> Certificate:
    """Refines an approximate equilibrium S of one rank by Newton's method in float64 and proves it where it can."""
    m = len(s)
    if frame is None:
        frame = np.eye(m) if rank == m else np.linalg.eigh(s)[1][:, ::-1].T
    xx, yx = frame @ xx @ frame.T, frame @ yx @ frame.T
    vector = chart_of(frame @ s @ frame.T, xx, yx, weight_decay, rank)
    for _ in range(5):
        value, jacobian = (np.asarray(a) for a in _value_and_jacobian(vector, xx, yx, weight_decay, rank))
        if not np.isfinite(jacobian).all():
            break
        vector = vector - np.linalg.lstsq(jacobian, value)[0]
    value, jacobian = (np.asarray(a) for a in _value_and_jacobian(vector, xx, yx, weight_decay, rank))
    turned = np.asarray(gram_of(jnp.asarray(vector), m, rank))
    refined = frame.T @ (turned + turned.T) @ frame / 2
    unproved = Certificate(refined, np.nan, vector, frame, np.nan, np.nan)
    smallest = np.linalg.svd(jacobian, compute_uv=False)[-1] if np.isfinite(jacobian).all() else 0.0
    if not smallest > 0:
        return unproved
    inverse = (1 + 1e-6) / smallest
    lipschitz, ball, rounding = _bounds(vector, xx, yx, weight_decay, rank)
    beta, curvature = inverse * (np.linalg.norm(value) + rounding), lipschitz * inverse
    h = beta * curvature
    if not (h <= 0.5 and 2 * beta <= ball):
        return unproved
    gap = np.sqrt(1 - 2 * h)
    # the first radius is (1 - gap) / curvature, written without its cancellation
    radius, alone = float(2 * beta / (1 + gap)), float(min((1 + gap) / curvature, ball))
    return Certificate(refined, _gram_error(vector, m, rank, radius), vector, frame, radius, alone)


def same_root(a: Certificate, b: Certificate, xx: np.ndarray, yx: np.ndarray, weight_decay: float, rank: int) -> bool:
    """Whether two certificates speak of one root: the ball of either lies where the other's is alone."""
    if np.linalg.norm(a.s - b.s) > a.error + b.error:
        return False  # proved to be different
    b = certify(b.s, xx, yx, weight_decay, rank, a.frame)  # the same unknowns for both
    apart = float(np.linalg.norm(a.unknowns - b.unknowns))
    return bool(apart + a.radius < b.alone or apart + b.radius < a.alone)
