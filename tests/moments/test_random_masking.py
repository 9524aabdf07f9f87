import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_dyn.moments import (
    feature_spectrum,
    gaussian_rows,
    masking_moments,
    masking_pair_batches,
    masking_spectrum,
    moments_from_pairs,
    orthonormal_rows,
    random_masking_model,
    sample_masking_pairs,
    sparse_variances,
)
from jepa_dyn.moments.random_masking import data_covariance


@settings(deadline=None, max_examples=25)
@given(
    d=st.integers(1, 4), k=st.integers(1, 5), f=st.floats(0.05, 0.95), noise=st.floats(0, 2), seed=st.integers(0, 999)
)
def test_exact_moments_are_the_average_over_all_masks(d, k, f, noise, seed):
    """All 2^d masks are enumerated with their probabilities; the trace of yx is 0 for any data."""
    rng = np.random.default_rng(seed)
    b, s2 = rng.normal(size=(k, d)), rng.uniform(0.1, 3, k)
    z = b.T @ np.diag(s2) @ b + noise**2 * np.eye(d)
    expected = np.zeros((3, d, d))
    for mask in itertools.product([0, 1], repeat=d):
        m = np.array(mask)
        weight = np.prod(np.where(m == 1, f, 1 - f))
        expected += weight * np.array([np.outer(m, m) * z, np.outer(1 - m, m) * z, np.outer(1 - m, 1 - m) * z])
    moments = masking_moments(random_masking_model(b, s2, f, noise))
    for got, want in zip((moments.xx, moments.yx, moments.yy), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)
    assert float(jnp.trace(moments.yx)) == 0.0


def orthonormal_model(d, gamma, f=0.5, noise=0.5):
    keys = jax.random.split(jax.random.key(d), 2)
    return random_masking_model(orthonormal_rows(keys[0], d, d), sparse_variances(keys[1], d, gamma), f, noise)


def along_rows(model):
    """b_k M b_k^T / |b_k|^2 of the exact moments."""
    b, moments = model.loadings, masking_moments(model)
    norm = jnp.sum(b**2, axis=1)
    return tuple(jnp.einsum("kd,de,ke->k", b, m, b) / norm for m in (moments.yx, moments.xx))


@pytest.mark.parametrize("gamma", [1.0, 0.1])
@pytest.mark.parametrize("f", [0.3, 0.7])
def test_closed_form_is_right_to_leading_order_for_orthonormal_rows(gamma, f):
    errors = []
    for d in (100, 400):
        model = orthonormal_model(d, gamma, f)
        spectrum, (lam, variance) = masking_spectrum(model), along_rows(model)
        scale = float(jnp.sqrt(jnp.mean(spectrum.lam**2)))
        errors.append(float(jnp.sqrt(jnp.mean((lam - spectrum.lam) ** 2))) / scale)
        np.testing.assert_allclose(variance, spectrum.variance, rtol=0.25)
        np.testing.assert_allclose(spectrum.rho, spectrum.lam / spectrum.variance, rtol=1e-13)
    assert errors[1] < 0.6 * errors[0] and errors[1] < 0.02


def test_closed_form_126_as_printed():
    model = orthonormal_model(50, 0.4, f=0.3, noise=0.7)
    s2 = np.asarray(model.coefficient_variance)
    excess = s2 - s2.mean()
    expected = 0.7 * excess / (s2.mean() + 0.49 + 0.3 * excess)
    np.testing.assert_allclose(masking_spectrum(model).rho, expected, rtol=1e-12)


def test_commutator_shrinks_with_dimension():
    """Simultaneous diagonalisability in the limit, about as d^(-1/2)."""
    small, large = (
        float(feature_spectrum(masking_moments(orthonormal_model(d, 1.0))).defect.commutator) for d in (50, 300)
    )
    assert 0 < large < 0.6 * small


def test_gaussian_rows_are_off_by_the_mean_at_every_dimension():
    """The print claims (125) for B_ki ~ N(0, 1/d); there lam is larger by f(1-f) E[s^2], .99 of it at gamma = 1."""
    f = 0.5
    for d in (100, 400):
        keys = jax.random.split(jax.random.key(d), 2)
        model = random_masking_model(gaussian_rows(keys[0], d, d), sparse_variances(keys[1], d, 1.0), f, 0.5)
        s2 = model.coefficient_variance
        printed = f * (1 - f) * (s2 - jnp.mean(s2))
        shift = float(jnp.mean(along_rows(model)[0] - printed) / (f * (1 - f) * jnp.mean(s2)))
        assert abs(shift - 1) < 0.1
        with pytest.raises(ValueError, match=r"orthonormal rows of loadings.*feature_spectrum"):
            masking_spectrum(model)
        spectrum = feature_spectrum(masking_moments(model))  # computed instead
        assert abs(float(spectrum.lam.sum())) < 1e-10
        assert float(spectrum.lam[0]) > 0 > float(spectrum.lam[-1])


@pytest.mark.parametrize(("rows", "holds"), [(orthonormal_rows, True), (gaussian_rows, False)])
def test_second_equality_of_131_needs_orthonormal_loadings(rows, holds):
    model = random_masking_model(
        rows(jax.random.key(0), 60, 60), sparse_variances(jax.random.key(1), 60, 0.5), 0.5, 1.0
    )
    b, s2 = model.loadings, model.coefficient_variance
    printed = (b.T * (s2 + model.noise**2)) @ b
    error = float(jnp.linalg.norm(printed - data_covariance(model)) / jnp.linalg.norm(data_covariance(model)))
    assert (error < 1e-12) if holds else (error > 0.1)


def test_equal_variances_leave_nothing_to_learn():
    model = random_masking_model(orthonormal_rows(jax.random.key(0), 8, 8), 2.0)
    np.testing.assert_allclose(masking_spectrum(model).lam, 0, atol=1e-14)
    np.testing.assert_allclose(feature_spectrum(masking_moments(model)).lam, 0, atol=1e-14)


def test_samples_have_those_moments():
    model = random_masking_model(gaussian_rows(jax.random.key(0), 4, 5), np.array([2.0, 0.5, 1.0, 0.0]), 0.4, 0.3)
    sampled = moments_from_pairs(*sample_masking_pairs(model, jax.random.key(1), 60_000), center=False)
    exact = masking_moments(model)
    error = 6 * np.sqrt(3 / 60_000) * float(exact.xx.max())
    for name in ("xx", "yx", "yy"):
        np.testing.assert_allclose(getattr(sampled, name), getattr(exact, name), atol=error)


def test_views_are_complements_and_do_not_depend_on_batches():
    model = random_masking_model(gaussian_rows(jax.random.key(0), 3, 6), 1.0, 0.3, 0.5)
    key = jax.random.key(2)
    x, y = sample_masking_pairs(model, key, 17)
    np.testing.assert_array_equal(x * y, 0)
    assert ((np.asarray(x) != 0) ^ (np.asarray(y) != 0)).all()
    for batch_size in (1, 4, 17, 50):
        batches = list(masking_pair_batches(model, key, 17, batch_size=batch_size))
        np.testing.assert_allclose(np.concatenate([b[0] for b in batches]), x, atol=1e-14)
        np.testing.assert_allclose(np.concatenate([b[1] for b in batches]), y, atol=1e-14)


def test_orthonormal_rows_are_uniform():
    """Without the sign convention the diagonal of R would fix signs; the mean of every entry is 0."""
    rows = jax.vmap(lambda key: orthonormal_rows(key, 2, 3))(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(
        jnp.einsum("nkd,nld->nkl", rows, rows), np.broadcast_to(np.eye(2), (4000, 2, 2)), atol=1e-12
    )
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose((rows**2).mean(axis=0), 1 / 3, atol=0.03)


def test_sparse_variances_are_sparse():
    values = np.asarray(sparse_variances(jax.random.key(0), 200, 0.1, 0.5, 4.0))
    assert (values > 0).sum() == 20
    assert values[values > 0].min() >= 0.5 and values.max() <= 4
    for arguments, message in (
        (dict(gamma=0.0), "`gamma` must lie in"),
        (dict(gamma=1.5), "`gamma` must lie in"),
        (dict(gamma=0.001), "at least one of 200"),
        (dict(gamma=0.5, low=3.0, high=1.0), "0 <= low <= high"),
    ):
        with pytest.raises(ValueError, match=message):
            sparse_variances(jax.random.key(0), 200, **arguments)


def test_is_differentiable_in_the_masking_fraction():
    b, s2 = orthonormal_rows(jax.random.key(0), 5, 5), jnp.arange(1.0, 6.0)

    def lam(f):
        return masking_spectrum(random_masking_model(b, s2, f)).lam

    np.testing.assert_allclose(jax.jacobian(lam)(0.3), (1 - 0.6) * (s2 - 3), rtol=1e-12)


def test_float32(float32):
    model = random_masking_model(
        orthonormal_rows(jax.random.key(0), 30, 30), sparse_variances(jax.random.key(1), 30, 0.5)
    )
    assert masking_moments(model).xx.dtype == jnp.float32
    assert masking_spectrum(model).lam.dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(loadings=np.ones(3)), "`loadings` must have shape"),
        (dict(loadings=np.array([[np.inf]])), "`loadings` must be finite"),
        (dict(coefficient_variance=np.array([1.0, -1])), "`coefficient_variance` must be finite and >= 0"),
        (dict(coefficient_variance=np.ones(3)), r"`coefficient_variance` must have shape \(2,\)"),
        (dict(visible_fraction=0.0), "`visible_fraction` must lie strictly between 0 and 1"),
        (dict(visible_fraction=1.0), "`visible_fraction` must lie strictly between 0 and 1"),
        (dict(visible_fraction=np.array([0.5, 0.5])), "`visible_fraction` must be a scalar"),
        (dict(noise=-0.1), "`noise` must be finite and >= 0"),
        (dict(coefficient_variance=0.0), "must give some variance"),
    ],
)
def test_bad_models_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        random_masking_model(**(dict(loadings=np.eye(2), coefficient_variance=np.ones(2)) | change))


def test_bad_counts_are_refused():
    model = random_masking_model(np.eye(2), 1.0)
    for arguments in (dict(num_pairs=0), dict(num_pairs=3, batch_size=0)):
        with pytest.raises(ValueError, match="must be at least 1, but is 0"):
            masking_pair_batches(model, jax.random.key(0), **arguments)
    with pytest.raises(ValueError, match="`num_rows` must lie between 1 and d = 3"):
        orthonormal_rows(jax.random.key(0), 4, 3)
    with pytest.raises(ValueError, match="must be at least 1"):
        gaussian_rows(jax.random.key(0), 0, 3)
