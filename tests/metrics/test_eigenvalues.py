"""Paths of eigenvalues: crossings that are followed, rates, alignment, flags - on paths that are known."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from jepa_dyn.metrics import (
    convergence_rates,
    follow_eigenvectors,
    predictor_alignment,
    rate_ratio,
    recruited,
    spectrum_outcome,
)


def turning(values, angle=0.3):
    """Matrices (T, 3, 3) with known eigenvalues (T, 3), whose eigenvectors turn by `angle` in all."""
    generator = np.array([[0.0, -1.0, 0.4], [1.0, 0.0, -0.7], [-0.4, 0.7, 0.0]])
    bases = np.stack([expm(angle * t * generator) for t in np.linspace(0, 1, len(values))])
    return np.einsum("tik,tk,tjk->tij", bases, values, bases), bases


def test_paths_pass_through_one_another():
    """Two eigenvalues cross, at a saved time too, where the eigenvectors are not determined."""
    t = np.linspace(0, 1, 21)
    values = np.stack([0.2 + t, 1.2 - t, np.full(21, 3.0)], axis=1)
    matrices, bases = turning(values)
    paths = follow_eigenvectors(matrices)
    np.testing.assert_allclose(paths.values, values, atol=1e-12)
    np.testing.assert_allclose(np.abs(np.einsum("tik,tik->tk", paths.vectors, bases)), 1, atol=2e-2)
    apart = np.abs(t - 0.5) > 1e-9
    np.testing.assert_allclose(np.abs(np.einsum("tik,tik->tk", paths.vectors, bases))[apart], 1, atol=1e-10)
    assert (np.einsum("tik,tik->tk", paths.vectors[1:], paths.vectors[:-1]) > 0.99).all()  # no sign turns
    assert np.min(paths.overlaps) > 0.99


def test_modes_that_have_become_equal_keep_their_vectors():
    """All equal: any basis is one of eigenvectors; the last one is kept instead of a new one each time."""
    t = np.linspace(0, 1, 6)[:, None]
    values = 1 + np.maximum(0.6 - t, 0) * np.array([-1.0, 0.5, 1.0])
    matrices, _ = turning(values, 0.0)
    jitter = 1e-13 * np.random.default_rng(0).normal(size=matrices.shape)
    paths = follow_eigenvectors(matrices + jitter + np.swapaxes(jitter, 1, 2))
    np.testing.assert_allclose(paths.values, values, atol=1e-11)
    np.testing.assert_allclose(np.abs(paths.vectors), np.broadcast_to(np.eye(3), (6, 3, 3)), atol=1e-7)
    matrices[2] = np.nan
    gap = follow_eigenvectors(matrices)
    assert np.isnan(gap.values[2]).all() and np.isfinite(np.delete(gap.values, 2, axis=0)).all()
    np.testing.assert_allclose(gap.values[3], values[3], atol=1e-10)


def test_alignment_of_a_predictor():
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    c = turn @ np.diag([3.0, 2.0, 0.5]) @ turn.T
    np.testing.assert_allclose(predictor_alignment(c, turn @ np.diag([1.0, 0.2, 0.3]) @ turn.T), 1, atol=1e-12)
    np.testing.assert_allclose(
        predictor_alignment(c, turn @ np.diag([1.0, 0.0, -0.3]) @ turn.T), [1, 0, -1], atol=1e-12
    )
    np.testing.assert_array_equal(predictor_alignment(c, np.zeros((3, 3))), 0)
    swap = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(predictor_alignment(c, turn @ swap @ turn.T), [0, 0, 1], atol=1e-12)


def test_rates_and_their_ratio():
    ts = np.array([0.0, 0.5, 2.0, 3.0])
    rates = np.array([0.3, 1.2])
    values = 2.0 + np.array([1.0, -0.5]) * np.exp(-rates * ts[:, None])
    np.testing.assert_allclose(convergence_rates(ts, values, 2.0), np.broadcast_to(rates, (3, 2)), rtol=1e-10)
    np.testing.assert_allclose(rate_ratio(convergence_rates(ts, values, 2.0)), 4, rtol=1e-10)
    assert np.isnan(convergence_rates(ts, np.full((4, 1), 2.0), 2.0)).all()
    rows = np.array(
        [[2.0, 2.0], [1.0, np.nan], [np.nan, np.nan], [1.0, -3.0], [0.0, 1.0], [np.inf, np.inf], [1.0, np.inf]]
    )
    np.testing.assert_allclose(rate_ratio(rows), [1.0, 1.0, np.nan, -3.0, np.inf, 1.0, np.inf])


def test_recruited_and_outcomes():
    np.testing.assert_array_equal(recruited(np.array([[1.0, 0.2, 0.05], [0, 0, 0], [2, 2, 2]])), [2, 0, 3])
    start = np.array([1.0, 0.5, 0.2])
    ends = np.array(
        [[0.6, 0.55, 0.55], [1.69, 0.005, 0.005], [1e-4, 1e-4, 1e-4], [400.0, 1, 1], [np.nan] * 3, [0.9, 0.45, 0.18]]
    )
    outcome = spectrum_outcome(np.stack([np.broadcast_to(start, ends.shape), ends], axis=1))
    np.testing.assert_array_equal(outcome.collapsed, [False, False, True, False, False, False])
    np.testing.assert_array_equal(outcome.rank_collapsed, [False, True, False, False, False, False])
    np.testing.assert_array_equal(outcome.diverged, [False, False, False, True, True, False])
    np.testing.assert_allclose(outcome.trace_ratio[:2], 1.0)
    np.testing.assert_array_equal(outcome.rank_end[:2], [3, 1])
    none = spectrum_outcome(jnp.zeros((2, 3)))
    assert bool(none.collapsed) and not bool(none.diverged)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: follow_eigenvectors(np.ones((2, 3, 2))), r"Argument `matrices` must have shape \(T, M, M\)"),
        (lambda: predictor_alignment(np.eye(2), np.eye(3)), "square matrices of one size"),
        (lambda: convergence_rates(np.array([0.0, 1.0]), np.ones((3, 1)), 1.0), "Argument `values` must have shape"),
        (lambda: recruited(np.ones(3), 1.0), "Argument `share`"),
        (lambda: spectrum_outcome(np.ones(3)), r"must have shape \(..., T, M\)"),
        (lambda: spectrum_outcome(np.ones((2, 3)), grown=1.0), "Argument `grown` must be > 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
