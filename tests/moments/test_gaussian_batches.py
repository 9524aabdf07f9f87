"""Moments of Gaussian batches: their exact law (mean and covariance by Isserlis' theorem), and the same law as drawn pairs."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jepa_dyn.moments import (
    GaussianBatches,
    WishartBatches,
    batch_moments,
    draw_moments,
    draw_pair_moments,
    draw_pairs,
    joint_factor,
    moments_from_spectrum,
    view_moments,
)

KEY = jax.random.key(0)
DRAWS = 20_000


def general_moments(rank=None):
    """d = 2, d_y = 3, nothing special; of rank 2 on request (y then is a function of x)."""
    root = np.random.default_rng(0).normal(size=(5, rank or 5))
    joint = root @ root.T
    return view_moments(joint[:2, :2], joint[2:, :2], joint[2:, 2:])


factor_of = jax.jit(joint_factor)
draw_one = jax.jit(draw_moments)
draw_many = jax.jit(jax.vmap(lambda key, factor, n: draw_moments(key, factor, n).joint, (0, None, None)))


@cache
def draws(n):
    """Matrices of second moments drawn directly; one program for all n."""
    return np.asarray(draw_many(jax.random.split(KEY, DRAWS), factor_of(general_moments()), n))


def drawn_by_numpy(n):
    """The same from the pairs themselves."""
    root = np.linalg.cholesky(np.asarray(general_moments().joint))
    z = np.random.default_rng(1).normal(size=(DRAWS, n, 5)) @ root.T
    return np.einsum("ani,anj->aij", z, z) / n


def test_factor_reproduces_the_joint_matrix():
    for moments in (
        general_moments(),
        general_moments(rank=2),
        moments_from_spectrum(np.array([1.0, 0.0]), variance=np.array([1.0, 0.0])),
    ):
        f = factor_of(moments)
        a = np.block([[f.x, np.zeros((f.x.shape[0], f.yy.shape[0]))], [f.yx, f.yy]])
        np.testing.assert_allclose(a @ a.T, moments.joint, atol=2e-7)  # root of rounding where singular


@pytest.mark.parametrize("n", [50, 4, 1])
def test_mean_and_covariance_are_exact(n):
    """E S = joint and n cov(S_ij, S_kl) = J_ik J_jl + J_il J_jk, for n above and below the dimension 5 (and that of x, 2)."""
    moments = general_moments()
    s, joint = draws(n), np.asarray(moments.joint)
    i, j = np.triu_indices(5)
    values = s[:, i, j]
    exact = (joint[np.ix_(i, i)] * joint[np.ix_(j, j)] + joint[np.ix_(i, j)] * joint[np.ix_(j, i)]) / n
    error = np.sqrt(np.diag(exact) / DRAWS)
    assert np.all(np.abs(values.mean(0) - joint[i, j]) < 5 * error)
    measured = np.cov(values.T)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    # standard error of a covariance estimate, from the sample itself (the tails are heavy for small n)
    centred = values - values.mean(0)
    products = centred[:, :, None] * centred[:, None, :]
    assert np.all(np.abs(measured - exact) < 5.5 * products.std(0) / np.sqrt(DRAWS) + 1e-12 * scale)
    np.testing.assert_allclose(s, np.swapaxes(s, 1, 2), atol=1e-12)


@pytest.mark.parametrize("n", [2, 4, 7])
def test_same_law_as_drawn_pairs(n):
    """Beyond second order: Kolmogorov-Smirnov tests on products, determinants and eigenvalues; the rank is min(n, 5)."""
    a, b = draws(n), drawn_by_numpy(n)
    for measure in (
        lambda s: s[:, 0, 2] * s[:, 1, 3] - s[:, 0, 1],
        lambda s: np.linalg.det(s[:, :2, :2]),
        lambda s: np.linalg.eigvalsh(s)[:, -1],
        lambda s: np.linalg.eigvalsh(s)[:, -min(n, 5)],
        lambda s: s[:, 0, 4] / np.sqrt(s[:, 0, 0] * s[:, 4, 4]),
    ):
        assert stats.ks_2samp(measure(a), measure(b)).pvalue > 1e-3
    smallest = np.linalg.eigvalsh(a[:200])
    np.testing.assert_allclose(smallest[:, : max(5 - n, 0)], 0, atol=1e-12)
    assert n < 5 or np.all(smallest[:, 0] > 0)


def test_pair_moments_are_those_of_the_pairs():
    factor = factor_of(general_moments())
    x, y = draw_pairs(KEY, factor, 6)
    one, other = batch_moments(x, y), draw_pair_moments(KEY, factor, 6)
    np.testing.assert_allclose(one.joint, other.joint, atol=1e-13)
    z = np.concatenate([x, y], axis=1)
    np.testing.assert_allclose(one.joint, z.T @ z / 6, atol=1e-13)


def test_singular_law_stays_in_its_range():
    moments = general_moments(rank=2)
    null = np.linalg.svd(np.asarray(moments.joint))[2][2:]
    batch = draw_one(KEY, factor_of(moments), 9).joint
    np.testing.assert_allclose(batch @ null.T, 0, atol=1e-6)
    assert np.linalg.matrix_rank(np.asarray(batch), tol=1e-6) == 2


def test_batch_size_may_be_mapped_over_and_draws_do_not_depend_on_it():
    factor = factor_of(general_moments())
    many = jax.jit(jax.vmap(lambda n: draw_moments(KEY, factor, n).xx))(jnp.array([3, 50]))
    np.testing.assert_allclose(many[1], draw_one(KEY, factor, 50).xx, rtol=1e-13)
    np.testing.assert_allclose(many[0], draw_one(KEY, factor, 3).xx, rtol=1e-13)


def test_one_dimension_is_a_chi_square():
    factor = factor_of(view_moments(np.full((1, 1), 2.0), np.ones((1, 1))))
    s = draw_many(jax.random.split(KEY, 4000), factor, 3)[:, 0, 0]
    assert stats.kstest(np.asarray(s) * 3 / 2, stats.chi2(3).cdf).pvalue > 1e-3


@pytest.mark.parametrize("source", [WishartBatches, GaussianBatches])
def test_sources_refuse_bad_sizes(source):
    for size in (0, 2.5):
        with pytest.raises(ValueError, match="`batch_size` must be a whole number >= 1"):
            source(size)
