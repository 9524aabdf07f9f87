"""Kinds of collapse, scores without labels, alignment and uniformity, against numpy and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats
from scipy.spatial.distance import pdist

from jepa_dyn.metrics import (
    Collapse,
    collapse_code,
    effective_rank_of_singular_values,
    embedding_collapse,
    embedding_singular_values,
    lidar,
    pair_alignment,
    rankme,
    siamese_objective_of_networks,
    uniformity,
)

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(20, 4)) * np.array([3.0, 1.0, 0.5, 0.2]) + 1.0


def test_codes_of_spectra():
    spectra = np.array(
        [[1, 0.5, 0.1], [1, 0.5, 1e-4], [1, 0.5, 0], [1e-7, 5e-8, 1e-8], [0, 0, 0], [1, np.nan, 1], [np.inf, 1, 1]]
    )
    expected = [Collapse.none, *[Collapse.dimensional] * 2, *[Collapse.complete] * 2, *[Collapse.unknown] * 2]
    np.testing.assert_array_equal(collapse_code(spectra), expected)
    np.testing.assert_array_equal(jax.vmap(collapse_code)(jnp.asarray(spectra)), expected)
    # by another scale, and by other thresholds
    np.testing.assert_array_equal(
        collapse_code(spectra[3], scale=np.array([1.0, 1e-7])), [Collapse.complete, Collapse.none]
    )
    assert (
        collapse_code(spectra[1], share=1e-5) == Collapse.none
        and collapse_code(spectra[0], lost=0.9999) == Collapse.none
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.floats(-100, 100), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_codes_know_no_units(exponent, values):
    """A common factor of spectrum and scale changes nothing away from the thresholds."""
    spectrum = np.round(np.array(values), 1)
    unit = 10.0**exponent
    assert collapse_code(spectrum * unit, scale=unit) == collapse_code(spectrum)


def test_codes_of_embeddings():
    constant = np.broadcast_to(Z[:1], Z.shape)
    flat = Z.copy()
    flat[:, 2] = flat[:, 1]
    cases = {Collapse.none: Z, Collapse.dimensional: flat, Collapse.complete: constant}
    for code, z in cases.items():
        assert embedding_collapse(jnp.asarray(z)) == code
    # all dimensions shrink alike: only a scale can tell; a batch smaller than the width has no more dimensions than it can
    assert embedding_collapse(1e-5 * jnp.asarray(Z)) == Collapse.none
    assert embedding_collapse(1e-5 * jnp.asarray(Z), scale=10.0) == Collapse.complete
    assert (
        embedding_collapse(jnp.asarray(Z[:3])) == Collapse.none
        and embedding_collapse(jnp.zeros((3, 4))) == Collapse.complete
    )
    assert embedding_collapse(jnp.asarray(Z).at[0, 0].set(np.nan)) == Collapse.unknown


def test_rankme_is_its_definition():
    sizes = np.linalg.svd(Z, compute_uv=False)
    np.testing.assert_allclose(embedding_singular_values(jnp.asarray(Z)), sizes, rtol=1e-13)
    np.testing.assert_allclose(rankme(Z, eps=0.0), np.exp(stats.entropy(sizes)), rtol=1e-13)
    np.testing.assert_allclose(rankme(Z, eps=0.0), effective_rank_of_singular_values(sizes), rtol=1e-13)
    shares = sizes / sizes.sum() + 1e-3
    np.testing.assert_allclose(rankme(Z, eps=1e-3), np.exp(-np.sum(shares * np.log(shares))), rtol=1e-13)
    assert rankme(np.zeros((4, 3))) == 0 and rankme(np.ones((4, 3)), eps=0.0) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(rankme(Z[:2], eps=0.0), np.exp(stats.entropy(np.linalg.svd(Z[:2], compute_uv=False))))


def test_lidar_is_its_definition():
    z = RNG.normal(size=(6, 1, 4)) + 0.3 * RNG.normal(size=(6, 5, 4))
    means = z.mean(1)
    within = np.einsum("nqi,nqj->ij", z - means[:, None], z - means[:, None]) / 30 + 1e-2 * np.eye(4)
    values = linalg.eigh(np.cov(means.T, ddof=0), within, eigvals_only=True)
    np.testing.assert_allclose(lidar(z, delta=1e-2, eps=0.0), np.exp(stats.entropy(values)), rtol=1e-12)
    # few objects: no more dimensions than objects less one; equal means: none
    assert lidar(z[:2], eps=0.0) == pytest.approx(1, abs=1e-12)
    assert lidar(np.stack([z[0], z[0]])) == 0
    # a direction in which only views differ counts for RankMe and not for LiDAR
    noisy = z.copy()
    noisy[..., 3] = np.where(np.arange(5) % 2, 50.0, -50.0 * 2 / 3)
    assert lidar(noisy, eps=0.0) < 3.01 and lidar(noisy, eps=0.0) < lidar(z, eps=0.0)


def test_alignment_and_uniformity():
    other = Z + 0.3 * RNG.normal(size=Z.shape)
    unit, goal = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (Z, other))
    np.testing.assert_allclose(pair_alignment(Z, other), np.mean(np.sum((unit - goal) ** 2, 1)), rtol=1e-13)
    np.testing.assert_allclose(uniformity(Z, 3.0), np.log(np.mean(np.exp(-3 * pdist(unit, "sqeuclidean")))), rtol=1e-12)


def test_uniformity_of_uniform_rows_in_closed_form():
    """On S^2, E exp(t u.v) = sinh(t)/t: log E exp(-2 |u - v|^2) = log(sinh(4)/4) - 4, by Monte Carlo to three standard errors."""
    z = np.random.default_rng(3).normal(size=(1500, 3))
    assert float(uniformity(z)) == pytest.approx(np.log(np.sinh(4) / 4) - 4, abs=0.01)


def test_objectives_of_networks_are_their_definition():
    rng = np.random.default_rng(4)
    x, y, w, p, c = (jnp.asarray(rng.normal(size=size)) for size in ((6, 3), (6, 3), (2, 3), (2, 2), (2, 3)))
    objective = siamese_objective_of_networks(lambda w, x: jnp.tanh(w @ x), lambda p, z: p @ z, x, y, 0.1)
    x, y, w, p, c = (np.asarray(v) for v in (x, y, w, p, c))
    for target in (c, w):  # F, and E at xi = theta
        errors = np.tanh(x @ w.T) @ p.T - np.tanh(y @ target.T)
        expected = np.mean(np.sum(errors**2, 1)) / 2 + 0.05 * (np.sum(w**2) + np.sum(p**2))
        np.testing.assert_allclose(objective((w, p), target), expected, rtol=1e-13)


BAD = [
    (lambda: collapse_code(3.0), r"`eigenvalues` must have shape"),
    (lambda: collapse_code(np.ones(3), lost=0.0), "`lost` must lie strictly between"),
    (lambda: collapse_code(np.ones(3), scale=-1.0), "`scale`"),
    (lambda: collapse_code(np.ones((2, 3)), scale=np.ones(4)), "broadcast"),
    (lambda: embedding_collapse(jnp.ones((1, 3))), r"`embeddings` must have shape \(N, d\)"),
    (lambda: rankme(np.ones(3)), r"`embeddings` must have shape \(N, d\)"),
    (lambda: rankme(np.ones((2, 3)), eps=-1.0), "`eps`"),
    (lambda: rankme(np.full((2, 3), np.nan)), "must be finite"),
    (lambda: lidar(np.ones((1, 3, 2))), "2 objects and 2 views"),
    (lambda: lidar(np.ones((2, 3, 2)), delta=0.0), "`delta`"),
    (lambda: uniformity(np.ones((1, 3))), "at least 2"),
    (lambda: pair_alignment(np.ones((2, 3)), np.ones((2, 4))), "one shape"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
