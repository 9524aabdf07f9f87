"""Effective rank, participation ratio, spectra and alignment of embeddings against scipy, numpy and their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from jepa_dyn.losses import barlow_twins_loss, cross_correlation
from jepa_dyn.metrics import (
    chance_alignment,
    covariance_eigenvalues,
    cross_correlation_eigenvalues,
    effective_rank_of_eigenvalues,
    effective_rank_of_singular_values,
    participation_ratio,
    subspace_alignment,
)

RNG = np.random.default_rng(0)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 300), min_size=4, max_size=4), st.integers(-300, 290))
def test_ranks_are_their_definitions_at_any_size(digits, exponent):
    values = np.array(digits) * 10.0**exponent
    if values.max() < 1e-290:
        values[0] = 1e-290
    shares = values / values.max()
    expected = np.exp(stats.entropy(shares))
    np.testing.assert_allclose(effective_rank_of_eigenvalues(values), expected, rtol=1e-12)
    np.testing.assert_allclose(effective_rank_of_singular_values(values), expected, rtol=1e-12)
    ratio = float(participation_ratio(values))
    np.testing.assert_allclose(ratio, shares.sum() ** 2 / (shares**2).sum(), rtol=1e-12)
    assert 1 - 1e-12 <= ratio <= expected * (1 + 1e-12) <= 4 * (1 + 1e-12)


def test_the_two_conventions_differ():
    eigenvalues = np.array([4.0, 1.0, 0.25])
    found = [effective_rank_of_eigenvalues(eigenvalues), effective_rank_of_singular_values(np.sqrt(eigenvalues))]
    np.testing.assert_allclose(found, [1.9504, 2.6005], atol=1e-4)
    # both count equal values, of any size; more dimensions of zeros change nothing
    np.testing.assert_allclose(effective_rank_of_eigenvalues(np.array([7.0, 7.0, 7.0, 0.0])), 3.0)
    np.testing.assert_allclose(participation_ratio(np.array([7.0, 7.0, 7.0, 0.0])), 3.0)


def test_ranks_over_time_and_at_the_edges():
    over_time = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [2.0, -0.1], [np.nan, 1.0]])
    expected = [0.0, 1.0, 2.0, 1.0, np.nan]
    np.testing.assert_allclose(effective_rank_of_eigenvalues(over_time), expected)
    np.testing.assert_allclose(participation_ratio(over_time), expected)
    np.testing.assert_allclose(effective_rank_of_singular_values(over_time[:3]), expected[:3])
    with pytest.raises(ValueError, match="`singular_values` must be finite and >= 0"):
        effective_rank_of_singular_values(over_time)
    for bad in (3.0, np.zeros((2, 0))):
        with pytest.raises(ValueError, match="must have shape"):
            effective_rank_of_eigenvalues(bad)
    slope = jax.grad(lambda x: effective_rank_of_eigenvalues(x))(jnp.array([1.0, 1.0, 0.0]))
    assert np.isfinite(slope[:2]).all()


def test_alignment_is_the_mean_squared_cosine_of_the_principal_angles():
    first, second = RNG.normal(size=(2, 30, 4))
    expected = np.mean(np.cos(linalg.subspace_angles(first, second)) ** 2)
    np.testing.assert_allclose(subspace_alignment(first, second), expected, rtol=1e-12)
    # a property of the subspaces: any basis of each, either order, any size
    turned = 1e-9 * second @ RNG.normal(size=(4, 4))
    np.testing.assert_allclose(subspace_alignment(turned, first), expected, rtol=1e-9)
    batch = subspace_alignment(np.stack([first, second]), np.stack([second, second]))
    np.testing.assert_allclose(batch, [expected, 1.0], rtol=1e-12)


def test_alignment_at_the_edges():
    columns = np.eye(30)
    assert subspace_alignment(columns[:, :4], columns[:, :4]) == 1
    assert subspace_alignment(columns[:, :4], columns[:, 4:8]) == 0
    np.testing.assert_allclose(subspace_alignment(columns[:, :4], columns[:, 2:6]), 0.5)
    # a subspace inside the other; a matrix of smaller rank than it has columns; nothing at all
    np.testing.assert_allclose(subspace_alignment(columns[:, :4], columns[:, 1:3]), 1.0)
    collapsed = np.outer(columns[:, 0], [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(subspace_alignment(collapsed, columns[:, :4]), 1.0)
    assert subspace_alignment(np.zeros((30, 4)), columns[:, :4]) == 0
    with pytest.raises(ValueError, match="with one N"):
        subspace_alignment(columns[:, :4], columns[:5, :4])
    with pytest.raises(ValueError, match="`first` must be finite"):
        subspace_alignment(np.full((30, 4), np.nan), columns[:, :4])


def test_alignment_of_random_subspaces_is_d_over_2n_not_the_printed_one():
    d, samples = 4, 30
    found = np.asarray(subspace_alignment(*RNG.normal(size=(2, 4000, samples, d))))
    error = found.std() / np.sqrt(found.size)
    assert abs(found.mean() - chance_alignment(d, samples)) < 4 * error
    assert abs(found.mean() - d**2 / samples) > 100 * error  # as printed
    assert found.max() <= 1  # printed: d
    assert chance_alignment(50, 2000) == 0.025  # tables 1 and 2
    for bad in ((0, 5), (6, 5)):
        with pytest.raises(ValueError, match="must be a whole number"):
            chance_alignment(*bad)


def test_loss_and_spectra_are_the_printed_sums():
    z, other = RNG.normal(size=(2, 7, 3))
    c = sum(np.outer(a, b) + np.outer(b, a) for a, b in zip(z, other, strict=True)) / 14
    np.testing.assert_allclose(cross_correlation(jnp.asarray(z), jnp.asarray(other)), c, rtol=1e-13)
    pair = jnp.asarray(z), jnp.asarray(other)
    np.testing.assert_allclose(barlow_twins_loss(*pair), linalg.norm(c - np.eye(3)) ** 2, rtol=1e-13)
    weighted = sum((c[i, j] - (i == j)) ** 2 * (1 if i == j else 0.3) for i in range(3) for j in range(3))
    np.testing.assert_allclose(barlow_twins_loss(*pair, 0.3), weighted, rtol=1e-13)
    np.testing.assert_allclose(barlow_twins_loss(jnp.zeros((7, 3)), jnp.zeros((7, 3))), 3.0)
    np.testing.assert_allclose(cross_correlation_eigenvalues(*pair), np.sort(linalg.eigvalsh(c))[::-1], rtol=1e-12)
    np.testing.assert_allclose(covariance_eigenvalues(pair[0]), np.sort(linalg.eigvalsh(np.cov(z.T, bias=True)))[::-1])
    few = covariance_eigenvalues(jnp.asarray(RNG.normal(size=(2, 5))))
    assert few.shape == (5,) and np.all(few[1:] < 1e-28)
