"""Proof that a real root of the reduced equation is there and which ball holds it alone (Newton and Kantorovich).

F is quadratic, so its second derivative is constant, |F''| <= 2 |X|^2 in Frobenius norms. With beta = |F'(S)^-1 F(S)| and
K = 2 |X|^2 |F'(S)^-1|, h = beta K <= 1/2 proves exactly one root within (1 - sqrt(1 - 2h)) / K of S and no other within
(1 + sqrt(1 - 2h)) / K. beta is enlarged by a bound of the rounding errors of F; F'(S)^-1 is taken as computed, times 1 + 1e-6.

Source: Kantorovich 1948; Ortega 1968.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn.equilibria.reduced import entries, packed_residual, symmetric


class Certificate(NamedTuple):
    """A refined root (m, m); the radius of a ball with exactly one root, and of a ball without any other; NaN if unproved."""

    root: np.ndarray
    radius: float
    alone: float


@jax.jit
def _value_and_jacobian(vector: jax.Array, xx: jax.Array, yx: jax.Array, weight_decay: jax.Array) -> tuple:
    arguments = (vector, xx, yx, weight_decay)
    return packed_residual(*arguments), jax.jacfwd(packed_residual)(*arguments)


def certify(s: np.ndarray, xx: np.ndarray, yx: np.ndarray, weight_decay: float) -> Certificate:
    """Refines an approximate real root by Newton's method in float64 and proves it where it can."""
    m = len(xx)
    vector = np.asarray(entries(jnp.asarray(s)))
    for _ in range(5):
        value, jacobian = (np.asarray(a) for a in _value_and_jacobian(vector, xx, yx, weight_decay))
        move = np.linalg.lstsq(jacobian, value)[0]
        vector = vector - move
    value, jacobian = (np.asarray(a) for a in _value_and_jacobian(vector, xx, yx, weight_decay))
    root = np.asarray(symmetric(jnp.asarray(vector), m))
    smallest = np.linalg.svd(jacobian, compute_uv=False)[-1]
    if not smallest > 0:
        return Certificate(root, np.nan, np.nan)
    inverse = (1 + 1e-6) / smallest
    size = np.linalg.norm(xx, 2)
    # every entry of F is a sum of about 4 m^2 products of numbers below these
    terms = (size * np.linalg.norm(root) + weight_decay) ** 2 + np.linalg.norm(yx, 2) ** 2 * np.linalg.norm(root)
    rounding = 4 * m**2 * np.finfo(float).eps * terms
    beta, curvature = inverse * (np.linalg.norm(value) + rounding), 2 * size**2 * inverse
    h = beta * curvature
    if not h <= 0.5:
        return Certificate(root, np.nan, np.nan)
    gap = np.sqrt(1 - 2 * h)
    # the first radius is (1 - gap) / curvature, written without its cancellation
    return Certificate(root, float(2 * beta / (1 + gap)), float((1 + gap) / curvature))


def same_root(a: Certificate, b: Certificate) -> bool:
    """Whether two certificates speak of one root: the ball of either lies where the other's is alone."""
    apart = float(np.linalg.norm(a.root - b.root))
    return bool(apart + a.radius < b.alone or apart + b.radius < a.alone)
