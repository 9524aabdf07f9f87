"""Invariance and InfoNCE on a linear encoder: gradients of the losses, the Gaussian limit by quadrature, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn.flows import (
    gaussian_info_nce,
    gaussian_info_nce_arguments,
    gaussian_info_nce_objective,
    info_nce,
    info_nce_arguments,
    info_nce_generator,
    invariance,
    invariance_arguments,
    invariance_objective,
)
from jepa_dyn.losses import info_nce_loss, invariance_loss
from jepa_dyn.moments import moments_from_pairs, view_moments

RNG = np.random.default_rng(0)
FIRST = jnp.asarray(RNG.normal(size=(7, 3)))
SECOND = 0.7 * FIRST + 0.4 * jnp.asarray(RNG.normal(size=(7, 3)))
W = jnp.asarray(RNG.normal(size=(2, 3)))
MOMENTS = moments_from_pairs(FIRST, SECOND, center=False)


def test_invariance_descends_on_its_loss():
    args = invariance_arguments(MOMENTS, rate=0.3)
    loss = jax.jit(jax.value_and_grad(lambda w: invariance_loss(FIRST @ w.T, SECOND @ w.T)))
    value, slope = loss(W)
    np.testing.assert_allclose(invariance_objective(W, args), value, rtol=1e-13)
    np.testing.assert_allclose(invariance(0.0, W, args), -0.3 * slope, atol=1e-14)


@pytest.mark.parametrize("tau", [0.2, 1.0, 5.0])
def test_info_nce_descends_on_its_loss(tau):
    """Both branches: the note's gradient holds the keys fixed."""
    args = info_nce_arguments(FIRST, SECOND, temperature=tau)
    slope = SLOPE(W, tau)
    np.testing.assert_allclose(info_nce(0.0, W, args), -slope, atol=1e-13)
    generator = info_nce_generator(W, args)
    np.testing.assert_allclose(generator, generator.T, atol=1e-14)


SLOPE = jax.jit(jax.grad(lambda w, tau: info_nce_loss(FIRST @ w.T, SECOND @ w.T, temperature=tau)))


def test_gaussian_limit_by_quadrature():
    """-E[z.z'] / tau + E_x log E_y exp(z.z' / tau) on nodes of Gauss and Hermite, views of different laws; its gradient."""
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(2, 2, 2))
    xx, yy = (root @ root.T for root in roots)
    yx = 0.5 * roots[1] @ roots[0].T
    args = gaussian_info_nce_arguments(view_moments(xx, yx, yy), temperature=0.8)
    w = jnp.asarray(0.3 * rng.normal(size=(2, 2)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    grid = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    mass = np.outer(weights, weights).ravel() / weights.sum() ** 2
    z, keys = grid @ roots[0].T @ w.T, grid @ roots[1].T @ w.T
    repulsion = mass @ np.log(np.exp(z @ keys.T / 0.8) @ mass)
    found, slope = jax.jit(jax.value_and_grad(gaussian_info_nce_objective))(w, args)
    np.testing.assert_allclose(found, repulsion - np.trace(w @ yx @ w.T) / 0.8, rtol=1e-10)
    np.testing.assert_allclose(gaussian_info_nce(0.0, w, args), -slope, atol=1e-13)


def test_batches_tend_to_the_gaussian_limit():
    """At N = 1000 the two fields agree to the noise of 1 / sqrt(N)."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1000, 2))
    y = 0.8 * x + 0.6 * rng.normal(size=x.shape)
    w = jnp.asarray([[0.5, 0.2], [-0.1, 0.6]])
    limit = gaussian_info_nce(0.0, w, gaussian_info_nce_arguments(view_moments(np.eye(2), 0.8 * np.eye(2))))
    np.testing.assert_allclose(info_nce(0.0, w, info_nce_arguments(x, y)), limit, atol=4 / np.sqrt(1000))


BAD = [
    (lambda: info_nce_arguments(FIRST, SECOND[:3]), r"one shape \(N, m\)"),
    (lambda: info_nce_arguments(FIRST, SECOND.at[0, 0].set(np.nan)), "`second` must be finite"),
    (lambda: info_nce_arguments(FIRST, SECOND, temperature=0.0), "`temperature` must be finite and > 0"),
    (lambda: gaussian_info_nce_arguments(MOMENTS, temperature=np.ones(2)), "must be one number"),
    (lambda: invariance_arguments(MOMENTS, rate=-1.0), "`rate`"),
    (lambda: invariance_arguments(view_moments(np.eye(2), np.ones((1, 2)) / 2, np.eye(1))), "size|components"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
