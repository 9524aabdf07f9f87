"""Balance, projections, crossing times and learning order against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jepa_dyn import flows
from jepa_dyn.flows import DeepLinearState, deep_linear_arguments, deep_linear_state, layer_mask
from jepa_dyn.metrics import crossing_times, imbalance, imbalance_norm, learning_order, projections, rank_agreement
from jepa_dyn.moments import view_moments


def test_imbalance_is_its_definition_and_skips_masked_layers():
    rng = np.random.default_rng(0)
    w1, w2, v = rng.normal(size=(2, 3)), rng.normal(size=(2, 2)), rng.normal(size=(3, 2))
    moments = view_moments(np.eye(3), np.zeros((3, 3)))
    y = deep_linear_state([w1, w2], v)
    gaps = np.asarray(imbalance(y, deep_linear_arguments(moments, layer_mask(2))))
    np.testing.assert_allclose(gaps[0, :2, :2], w2.T @ w2 - w1 @ w1.T, atol=1e-14)
    np.testing.assert_allclose(gaps[1, :2, :2], v.T @ v - w2 @ w2.T, atol=1e-14)
    spread = DeepLinearState(jnp.stack([y.layers[0], jnp.full((3, 3), 9.0), y.layers[1]]), y.decoder)
    args = deep_linear_arguments(moments, jnp.array([True, False, True]))
    np.testing.assert_allclose(np.asarray(imbalance(spread, args))[[0, 2]], gaps, atol=1e-14)
    assert not np.any(imbalance(spread, args)[1])
    np.testing.assert_allclose(imbalance_norm(spread, args), max(np.linalg.norm(gaps[0]), np.linalg.norm(gaps[1])))
    assert imbalance_norm(spread, deep_linear_arguments(moments, jnp.array([False] * 3))) == 0


@pytest.mark.parametrize("flow", [flows.deep_jepa, flows.deep_mae])
def test_one_step_of_descent_drifts_by_the_imbalance_of_the_gradient(flow):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(20, 6))
    moments = view_moments(*(m / 20 for m in (z[:, :3].T @ z[:, :3], z[:, 3:].T @ z[:, :3], z[:, 3:].T @ z[:, 3:])))
    args = deep_linear_arguments(moments, layer_mask(3))
    y = flows.gaussian_initialisation(jax.random.key(0), args.layer_mask, 3)
    speed = flow(0.0, y, args)
    after = jax.tree.map(lambda w, s: w + 0.1 * s, y, speed)
    drift = imbalance(after, args) - imbalance(y, args)
    assert np.abs(drift).max() > 1e-4
    np.testing.assert_allclose(drift, 0.01 * imbalance(speed, args), atol=1e-14)


def test_projections_are_column_lengths():
    w = np.random.default_rng(2).normal(size=(7, 3, 4))
    basis = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0][:, :2]
    np.testing.assert_allclose(projections(jnp.asarray(w)), np.sqrt((w**2).sum(1)), rtol=1e-13)
    expected = [[np.linalg.norm(w[b] @ basis[:, i]) for i in range(2)] for b in range(7)]
    np.testing.assert_allclose(projections(jnp.asarray(w), jnp.asarray(basis)), expected, rtol=1e-13)


def test_crossing_times():
    ts = np.array([0.0, 1.0, 2.0, 4.0])
    series = np.array([[0.0, 2.0, 0.0, 0.0], [1.0, 3.0, 0.0, np.nan], [3.0, 0.0, 0.0, np.nan], [0.0, 4.0, 0.0, np.nan]])
    times = crossing_times(ts, series, 2.0)
    np.testing.assert_allclose(times, [1.5, 0.0, np.inf, np.inf])
    np.testing.assert_allclose(crossing_times(ts, series, np.array([0.5, 2.5, 0.0, 1.0])), [0.5, 0.5, 0.0, np.inf])
    grown = np.exp(ts)[:, None] * np.array([[1.0, 0.1]])
    np.testing.assert_allclose(crossing_times(ts, grown, 5.0, log=True), np.log([5.0, 50.0]), rtol=1e-12)
    batch = crossing_times(np.stack([ts, 2 * ts]), np.stack([series, series]), 2.0)
    np.testing.assert_allclose(batch[1], 2 * np.asarray(times))
    gap = np.array([[0.0], [np.nan], [5.0], [6.0]])
    np.testing.assert_allclose(crossing_times(ts, gap, 1.0), [2.0])  # known by then
    np.testing.assert_allclose(crossing_times(np.arange(4), grown, 1.0), crossing_times(np.arange(4.0), grown, 1.0))


@pytest.mark.parametrize(
    ("ts", "series", "threshold", "message"),
    [
        ([1.0, 0.0], np.zeros((2, 1)), 1.0, "`ts` must be strictly increasing"),
        ([0.0, 1.0], np.zeros((3, 1)), 1.0, "`series` must have shape"),
        ([0.0, 1.0], np.zeros(2), 1.0, "`series` must have shape"),
        ([0.0, 1.0], np.zeros((2, 2)), np.ones(3), "must broadcast together"),
    ],
)
def test_bad_series_are_refused(ts, series, threshold, message):
    with pytest.raises(ValueError, match=message):
        crossing_times(np.array(ts), series, threshold)


def test_learning_order_and_its_agreement():
    times = np.array([[3.0, 1.0, np.inf, 2.0], [np.nan, 5.0, 5.0, 1.0]])
    np.testing.assert_array_equal(learning_order(times), [[1, 3, 0, 2], [3, 1, 2, 0]])
    a, b = np.random.default_rng(0).normal(size=(2, 9))
    np.testing.assert_allclose(rank_agreement(a, b), stats.kendalltau(a, b).statistic, rtol=1e-12)
    np.testing.assert_allclose(rank_agreement(a, a), 1.0)
    np.testing.assert_allclose(rank_agreement(np.stack([a, -a]), a), [1.0, -1.0])
    # the tied pair of two features that are never learned counts 0: 2 of 3 pairs agree
    np.testing.assert_allclose(rank_agreement(np.array([1.0, np.inf, np.nan]), np.array([1.0, 2.0, 3.0])), 2 / 3)
    assert np.isnan(rank_agreement(np.ones(1), np.ones(1)))
