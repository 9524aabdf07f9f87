"""Moments in the eigenbasis of Gamma against sums over the pairs in numpy, for few and for many pairs."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn.moments import eigenbasis, eigenbasis_from_pairs, moments_from_pairs, view_moments


def draw(n, m, seed=0):
    """Pairs, an encoder, and (Gamma, S) summed pair by pair."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, m)) + 0.5
    y = x * np.linspace(1, -0.5, m) + 0.3 * rng.normal(size=(n, m))
    gamma = sum(np.outer(a, b) + np.outer(b, a) for a, b in zip(x, y, strict=True)) / (2 * n)
    s = sum(np.outer(a, a) + np.outer(b, b) for a, b in zip(x, y, strict=True)) / (2 * n)
    return x, y, jnp.asarray(rng.normal(size=(3, m))), gamma, s


@pytest.mark.parametrize(("n", "m", "r"), [(3, 8, 6), (4, 8, 8), (20, 8, 8)])
def test_products_are_those_of_the_matrices(n, m, r):
    x, y, w, gamma, s = draw(n, m)
    found = eigenbasis_from_pairs(x, y)
    assert found.columns.shape == (m, r) and found.gammas.shape == (r,)
    assert (np.diff(found.gammas) <= 0).all()
    np.testing.assert_allclose(found.columns.T @ found.columns, np.eye(r), atol=1e-14)
    np.testing.assert_allclose(found.gamma, gamma, atol=1e-14)
    np.testing.assert_allclose(found.correlated(w), w @ gamma, atol=1e-13)
    np.testing.assert_allclose(found.spread(w), w @ s @ w.T, atol=1e-13)
    inside, held = found.in_basis, w @ found.columns
    assert inside.columns is None
    np.testing.assert_allclose(inside.gamma, np.diag(found.gammas))
    np.testing.assert_allclose(inside.correlated(held) @ found.columns.T, w @ gamma, atol=1e-13)
    np.testing.assert_allclose(inside.spread(held), w @ s @ w.T, atol=1e-13)
    # Sylvester: with n pairs in general position n eigenvalues of each sign, of 2n <= m
    if 2 * n <= m:
        assert (np.asarray(found.gammas) > 0).sum() == (np.asarray(found.gammas) < 0).sum() == n


@pytest.mark.parametrize("n", [3, 20])
def test_dependent_views_do_no_harm(n):
    """A pair twice, a view that is its partner, a component that is always 0."""
    x, y, w, _, _ = draw(n, 8)
    x[1], y[1], y[2] = x[0], y[0], x[2]
    x[:, 5] = y[:, 5] = 0
    found = eigenbasis_from_pairs(x, y)
    gamma, s = (x.T @ y + y.T @ x) / (2 * n), (x.T @ x + y.T @ y) / (2 * n)
    np.testing.assert_allclose(found.columns.T @ found.columns, np.eye(found.gammas.size), atol=1e-14)
    np.testing.assert_allclose(found.correlated(w), w @ gamma, atol=1e-13)
    np.testing.assert_allclose(found.spread(w), w @ s @ w.T, atol=1e-13)


def test_from_moments_with_lanes():
    cases = [draw(20, 8, seed) for seed in (0, 1)]
    moments = [moments_from_pairs(x, y, center=False) for x, y, *_ in cases]
    found = eigenbasis(jax.tree.map(lambda *leaves: jnp.stack(leaves), *moments))
    assert found.columns.shape == (2, 8, 8)
    np.testing.assert_allclose(found.gamma, np.stack([gamma for *_, gamma, _ in cases]), atol=1e-13)


def test_few_pairs_of_large_views_need_no_square_matrix():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 20_000))
    tracemalloc.start()
    found = eigenbasis_from_pairs(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 8 * 20_000 * 8  # 20 copies of Phi; Gamma alone would be 3.2 GB
    w = jnp.asarray(rng.normal(size=(2, 20_000)))
    direct = ((w @ x.T) @ y + (w @ y.T) @ x) / 8
    np.testing.assert_allclose(found.correlated(w), direct, atol=1e-11)


def test_float32(float32):
    x, y, w, gamma, _ = draw(3, 8)
    found = eigenbasis_from_pairs(x.astype(np.float32), y.astype(np.float32))
    assert found.columns.dtype == found.covariance.dtype == np.float32
    np.testing.assert_allclose(found.correlated(w), w @ gamma, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eigenbasis_from_pairs(np.ones((3, 9)), np.ones((3, 8))), "Arguments `x` and `y` must have one shape"),
        (lambda: eigenbasis_from_pairs(np.ones(9), np.ones(9)), r"Argument `x` must have shape \(pairs, components\)"),
        (lambda: eigenbasis_from_pairs(np.ones((1, 9)), np.ones((1, 9))), "at least two pairs"),
        (lambda: eigenbasis_from_pairs(np.full((2, 9), np.nan), np.ones((2, 9))), "Argument `x` must be finite"),
        (lambda: eigenbasis(view_moments(np.eye(2), np.full((1, 2), 0.1), np.eye(1))), "views of equal size"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
