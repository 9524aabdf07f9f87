"""Spectrum of view pairs through a kernel: against mpmath, against the linear model, by Sylvester's law, at every edge."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag

from jepa_dyn import kernels
from jepa_dyn.kernels import _large_matrices

from .problems import gamma_of, views

RNG = np.random.default_rng
METHODS = ["eigh", "cholesky"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("pairs", "m"), [(6, 16), (6, 4)])
def test_linear_kernel_is_the_linear_model(method, pairs, m):
    points = views(0, pairs, m)
    found = kernels.pair_spectrum(kernels.linear(points), method=method)
    values, vectors = np.linalg.eigh(gamma_of(points))
    known = min(2 * pairs, m)
    want = np.sort(values[np.argsort(-np.abs(values))[:known]])[::-1]
    got = np.asarray(found.gammas)
    scale = np.abs(want).max()
    np.testing.assert_allclose(np.sort(got[np.argsort(-np.abs(got))[:known]])[::-1], want, rtol=0, atol=1e-14 * scale)
    assert np.all(np.abs(np.sort(np.abs(got))[:-known]) < 1e-14 * scale)  # the zeros of what Gamma has not
    top = int(found.learnable.sum())
    assert top == (want > 1e-12).sum()
    features = found.coefficients[:top] @ points
    # eigenvectors of Gamma up to sign, of unit length
    np.testing.assert_allclose(np.abs(features @ vectors[:, ::-1][:, :top]), np.eye(top), atol=1e-10)
    np.testing.assert_allclose(found.values[:, :top], points @ features.T, atol=1e-10 * scale**0.5)


def exact_gammas(gram, digits):
    """All eigenvalues of K_Gamma, from the definition (23) with a true inverse root, in so many digits."""
    with mpmath.workdps(digits):
        values, vectors = mpmath.eigsy(gram)
        n2 = gram.rows
        root = vectors * mpmath.diag([mpmath.sqrt(v) for v in values]) * vectors.T
        swap = mpmath.matrix(n2)
        for i in range(n2):
            swap[i, (i + n2 // 2) % n2] = 1
        inner = root * swap * root / n2
        return sorted((float(v) for v in mpmath.eigsy((inner + inner.T) / 2, eigvals_only=True)), reverse=True)


@pytest.fixture(scope="module")
def ill_conditioned():
    """RBF kernel of length 3 on 6 pairs on a line, condition number above 1e25: in floating point, and its exact eigenvalues."""
    points = np.concatenate([np.linspace(-1, 1, 6), np.linspace(-1, 1, 6) + 0.05 * RNG(3).normal(size=6)])
    with mpmath.workdps(80):
        exact = mpmath.matrix(12)
        for i in range(12):
            for j in range(12):
                exact[i, j] = mpmath.exp(-((mpmath.mpf(points[i]) - mpmath.mpf(points[j])) ** 2) / 18)
        spectrum = mpmath.eigsy(exact, eigvals_only=True)
        assert max(spectrum) / min(spectrum) > 1e25
    return kernels.RBF(3.0)(points[:, None]), exact_gammas(exact, 80)


@pytest.mark.parametrize("method", METHODS)
def test_ill_conditioned_kernel(ill_conditioned, method):
    gram, want = ill_conditioned
    found = kernels.pair_spectrum(gram, method=method)
    got, errors = (np.asarray(part)[:6] for part in (found.gammas, found.uncertainties))
    assert np.all(np.abs(got - want[:6])[np.isfinite(errors)] <= errors[np.isfinite(errors)])
    np.testing.assert_allclose(got[:4], want[:4], atol=4e-15 * want[0])
    assert 4 <= int(found.learnable.sum()) <= 6
    # (23) through a pseudo-inverse: what the print suggests
    values, vectors = np.linalg.eigh(np.asarray(gram))
    inverse = np.where(values > 1e-15 * values[-1], 1 / np.sqrt(np.abs(values)), 0)
    inverse = (vectors * inverse) @ vectors.T
    swapped = np.roll(np.asarray(gram), 6, axis=0)
    printed = np.sort(np.linalg.eigvalsh(inverse @ np.asarray(gram) @ swapped @ inverse / 12))[::-1]
    assert np.abs(printed[:4] - want[:4]).max() > 1e3 * np.abs(got[:4] - want[:4]).max()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), pairs=st.just(6), rank=st.integers(1, 16), log_scale=st.floats(-6, 6))
def test_sylvester(seed, pairs, rank, log_scale):
    """At most n eigenvalues on either side of 0, n each for a regular kernel; they sum up to tr(S K) / 2n."""
    points = 10**log_scale * RNG(seed).normal(size=(2 * pairs, rank))
    gram = points @ points.T
    found = kernels.pair_spectrum(gram)
    positive, negative = int(found.learnable.sum()), int((-found.gammas > found.uncertainties).sum())
    assert positive <= pairs and negative <= pairs
    assert positive + negative <= rank
    if rank >= 2 * pairs:
        assert positive == negative == pairs
    trace = 2 * np.trace(gram[:pairs, pairs:]) / (2 * pairs)
    np.testing.assert_allclose(found.gammas.sum(), trace, atol=1e-13 * np.abs(gram).max())


def test_uncertainties_bound_what_an_error_does():
    gram, error = np.array(kernels.RBF(0.8)(views(5, 6, 3))), RNG(6).normal(size=(12, 12))
    error = 1e-9 * (error @ error.T) / np.linalg.norm(error @ error.T, 2)
    before, after = (kernels.pair_spectrum(part) for part in (gram, gram + error))
    rounding = 16 * np.finfo(float).eps * np.linalg.norm(gram)
    bound = np.asarray(before.uncertainties) * 1e-9 / rounding
    moved = np.abs(np.asarray(after.gammas) - np.asarray(before.gammas))
    assert np.all(moved <= 1.01 * bound + 1e-15)
    assert np.any(moved > 0.01 * bound)  # not a bound that says nothing


@pytest.mark.parametrize("method", METHODS)
def test_equal_views(method):
    """X = X': K_Gamma is K~ / (2n), twice the eigenvalues of K / (2n), and not K~ as printed; the other n are 0."""
    x = RNG(7).normal(size=(6, 4))
    gram = kernels.RBF(1.0)(np.concatenate([x, x]))
    found = kernels.pair_spectrum(gram, method=method)
    want = np.linalg.eigvalsh(np.asarray(gram)[:6, :6])[::-1] / 6
    np.testing.assert_allclose(found.gammas[:6], want, atol=1e-14)
    np.testing.assert_allclose(found.gammas[6:], 0, atol=1e-14)
    assert int(found.learnable.sum()) == 6


def test_opposite_views_teach_nothing():
    x = RNG(8).normal(size=(6, 3))
    found = kernels.pair_spectrum(kernels.linear(np.concatenate([x, -x])))
    assert not found.learnable.any()
    assert int((-found.gammas > found.uncertainties).sum()) == 3


@pytest.mark.parametrize("method", METHODS)
def test_two_encoders(method):
    points = views(9, 6, 8)
    first, second = np.array(kernels.RBF(1.0)(points[:6])), np.array(kernels.ArcCosine(1)(points[6:]))
    joint = kernels.pair_spectrum(block_diag(first, second))
    found = kernels.two_encoder_spectrum(first, second, method=method)
    np.testing.assert_allclose(found.gammas, joint.gammas, atol=1e-14)
    np.testing.assert_allclose(found.gammas, -found.gammas[::-1], atol=1e-15)
    np.testing.assert_allclose(found.uncertainties, joint.uncertainties, rtol=1)
    signs = np.sign(np.sum(np.asarray(found.values) * np.asarray(joint.values), axis=0))
    np.testing.assert_allclose(found.values * signs, joint.values, atol=1e-12)
    few = kernels.two_encoder_spectrum(first, second, 3, method=method)
    np.testing.assert_allclose(few.gammas, found.gammas[:3], atol=1e-15)


def test_methods_agree_and_count():
    gram = kernels.RBF(1.0)(views(10, 6, 3))
    whole = kernels.pair_spectrum(gram, method="eigh")
    for method in METHODS:
        top = kernels.pair_spectrum(gram, 3, method=method)
        assert top.gammas.shape == (3,) and top.values.shape == (12, 3)
        np.testing.assert_allclose(top.gammas, whole.gammas[:3], atol=1e-15)
        np.testing.assert_allclose(
            np.abs(top.values.T @ whole.values[:, :3]), np.abs(whole.values.T @ whole.values)[:3, :3], atol=1e-12
        )
    np.testing.assert_allclose(
        jax.vmap(kernels.pair_spectrum)(jnp.stack([gram, 2 * gram])).gammas[1], 2 * whole.gammas, atol=1e-14
    )


def test_repeated_eigenvalues_are_named():
    """Two independent copies of the same three pairs: every eigenvalue twice."""
    x = np.kron(np.eye(2), np.array([[2.0, 0.3, 0.1], [0.1, 1.0, 0.0], [0.0, 0.2, 0.5]]))
    points = np.concatenate([x, 0.9 * x])
    found = kernels.pair_spectrum(kernels.linear(points))
    np.testing.assert_array_equal(found.repeated, [True, False] * 3 + [True] * 5)  # and the six zeros


@pytest.mark.parametrize("method", METHODS)
def test_float32(float32, method):
    points = views(11, 6, 3).astype(np.float32)
    found = kernels.pair_spectrum(kernels.linear(points), method=method)
    assert found.gammas.dtype == jnp.float32
    np.testing.assert_allclose(found.gammas[:3], np.linalg.eigvalsh(gamma_of(points.astype(float)))[::-1], atol=1e-6)
    assert int(found.learnable.sum()) == 3


@pytest.mark.parametrize("method", METHODS)
def test_bad_arguments(method):
    good = np.eye(12)
    indefinite, hidden = good.copy(), np.diag([1.0] * 10 + [0.0] * 2)
    indefinite[0, 1] = indefinite[1, 0] = 2.0
    hidden[10, 11] = hidden[11, 10] = 0.5
    for gram, message in [
        (np.ones((3, 4)), r"square matrix, but has shape \(3, 4\)"),
        (np.eye(3), "even size"),
        (good * np.nan, "`gram` must be finite"),
        (good + np.eye(12, k=1), "`gram` must be symmetric"),
        (indefinite, "`gram` must be positive semidefinite"),
        (hidden, "`gram` must be positive semidefinite"),
        (-good, "`gram` must be positive semidefinite"),
        (0 * good, "nothing can be learned"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels.pair_spectrum(gram, method=method)
    with pytest.raises(ValueError, match="`count` must be a whole number from 1 to 12, but is 13"):
        kernels.pair_spectrum(good, 13, method=method)
    with pytest.raises(ValueError, match="`method` must be one of"):
        kernels.pair_spectrum(good, method=method + "x")
    with pytest.raises(ValueError, match="must have one size"):
        kernels.two_encoder_spectrum(good, np.eye(3))
    with pytest.raises(TypeError, match="real numbers"):
        kernels.pair_spectrum(good * 1j)


def test_iteration_for_large_kernels_finds_repeated_eigenvalues(monkeypatch):
    """Two independent copies of 30 pairs, by iteration and by LAPACK; no answer where the iteration has not converged."""
    half = np.array(kernels.RBF(0.7)(views(12, 30, 4)))
    root, left, missed = _large_matrices.pivoted_root(copies(half), 1e-14)
    assert root.shape[1] > 100 and left < 1e-11 and missed < 1e-12
    values, vectors = _large_matrices._by_iteration(root, 4)
    want = np.repeat(np.asarray(kernels.pair_spectrum(half, method="cholesky").gammas[:2]), 2) / 2
    np.testing.assert_allclose(values, want, rtol=1e-12)
    np.testing.assert_allclose(_large_matrices._by_lapack(root, 4)[0], want, rtol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-12)
    monkeypatch.setattr(_large_matrices, "_ITERATIONS", 1)
    assert _large_matrices._by_iteration(root, 4) is None


def copies(gram):
    """The kernel of two independent copies of the pairs: stacked as [X_1, X_2; X'_1, X'_2]."""
    n = len(gram) // 2
    blocks = gram.reshape(2, n, 2, n)
    joint = np.zeros((2, 2, n, 2, 2, n))
    for copy in range(2):
        joint[:, copy, :, :, copy, :] = blocks
    return joint.reshape(4 * n, 4 * n)
