"""Closed forms of DirectPred against DOP853 at 1e-12, root finding and the flows; what is wrong in print fails."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from jepa_dyn import flows
from jepa_dyn.losses import TABLE_1, representation_gradients
from jepa_dyn.theory import direct_pred

# alpha, online, cross, lam0: from below, from small starts, from above, decaying, without correlation
ALPHA, ONLINE, CROSS, LAM0 = np.array(
    [
        (0.5, 1.0, 1.0, 0.01),
        (0.5, 1.0, 1.0, 1e-4),
        (0.5, 1.0, 1.0, 1e-6),
        (1.0, 1.25, 1.0, 0.3),
        (1.0, 1.0, 1.0, 2.5),
        (0.7, 1.5, 0.4, 1.0),
        (2.0, 1.2, -0.5, 0.8),
        (0.5, 1.2, 0.0, 0.8),
    ]
).T
TS = np.array([0.0, 0.5, 2.0, 9.0])


@pytest.mark.parametrize("iso", [False, True])
def test_eigenvalues_are_scipys_and_their_times_the_inverse(iso):
    """The flow has the same speed. Small starts escape in 1 / (2 alpha lambda0), or in log(1 / lambda0) / (2 alpha)."""
    options = {"alpha": ALPHA, "online": ONLINE, "cross": CROSS, "iso": iso}
    ours = np.asarray(direct_pred.predictor_eigenvalue(TS[:, None], LAM0, **options))

    def speed(t, lam):
        return 2 * ALPHA * lam * (1 if iso else lam) * (CROSS - ONLINE * lam)

    solved = solve_ivp(speed, (0, 9), LAM0, "DOP853", TS, rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose(ours, solved.y.T, rtol=1e-9)
    limit = np.asarray(direct_pred.predictor_eigenvalue(np.full((4, 1), np.inf), LAM0, **options))
    np.testing.assert_allclose(limit, np.broadcast_to(np.maximum(CROSS, 0) / ONLINE, (4, 8)), rtol=1e-12)
    target = ours.copy()
    target[0] = 0.5
    times = np.asarray(direct_pred.predictor_time_to_reach(target, LAM0, **options))
    np.testing.assert_allclose(times[1:], np.broadcast_to(TS[1:, None], (3, 8)), rtol=1e-7)
    np.testing.assert_allclose(times[0, 1:3], np.log(1 / LAM0[1:3]) if iso else 1 / LAM0[1:3], rtol=2e-3)
    behind = np.asarray(direct_pred.predictor_time_to_reach(np.broadcast_to(0.9 * LAM0, (4, 8)), LAM0, **options))[0]
    falls = ONLINE * LAM0 >= CROSS
    assert (behind[~falls] < 0).all() and (behind[falls] > 0).all()
    never = np.asarray(
        direct_pred.predictor_time_to_reach(
            np.broadcast_to(1.1 * np.maximum(LAM0, CROSS / ONLINE), (4, 8)), LAM0, **options
        )
    )
    assert np.isposinf(never).all()
    s = LAM0 ** (1 / ALPHA)
    for i in range(8):
        args = flows.representation_mode_arguments(
            1,
            TABLE_1["euclidean_iso" if iso else "euclidean"],
            online=ONLINE[i],
            target=2.0,
            cross=CROSS[i],
            alpha=jnp.asarray(ALPHA[i]),
        )
        moved = ALPHA[i] * LAM0[i] / s[i] * flows.correlation_eigenvalues(0.0, jnp.asarray(s[i : i + 1]), args)[0]
        np.testing.assert_allclose(moved, speed(0, LAM0)[i], rtol=1e-12)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.floats(0, 1.5), st.floats(0.5, 2.0), st.floats(-1.0, 2.0))
def test_recruitment_is_where_the_speed_changes_sign(decay, online, cross):
    def speed(lam):
        return lam * (cross - online * lam) - decay

    threshold, end = (float(v) for v in direct_pred.recruitment(decay, online=online, cross=cross))
    top = cross / (2 * online)
    if cross > 0 and speed(top) > 1e-9:
        assert threshold == pytest.approx(brentq(speed, 0, top, xtol=1e-14), rel=1e-6, abs=1e-9)
        assert end == pytest.approx(brentq(speed, top, cross / online, xtol=1e-14), rel=1e-6)
    elif cross <= 0 or speed(top) < -1e-9:
        assert threshold == np.inf and end == 0
    threshold, end = (float(v) for v in direct_pred.recruitment(decay, online=online, cross=cross, iso=True))
    assert threshold == (0.0 if cross > decay else np.inf)
    assert end == pytest.approx(max(cross - decay, 0) / online, rel=1e-12, abs=1e-15)


def test_recruitment_is_that_of_the_flow():
    """Just below the threshold a mode dies, just above it is recruited; the IsoLoss recruits both."""
    threshold, end = (float(v) for v in direct_pred.recruitment(0.1, online=1.04))
    start = jnp.sqrt(jnp.asarray([0.98, 1.02]) * threshold)  # alpha = 1: lambda = a^2
    for name, want in (("euclidean", [0.0, end]), ("euclidean_iso", [0.9 / 1.04] * 2)):
        args = flows.representation_mode_arguments(2, TABLE_1[name], online=1.04, target=1.04, weight_decay=0.1)
        amplitudes = flows.RepresentationModes(start)

        def speed(a, args=args):
            return np.asarray(flows.representation_modes(0.0, flows.RepresentationModes(jnp.asarray(a)), args).encoder)

        solved = solve_ivp(
            lambda t, a: speed(a), (0, 300), np.asarray(amplitudes.encoder), "LSODA", rtol=1e-8, atol=1e-10
        )
        np.testing.assert_allclose(solved.y[:, -1] ** 2, want, atol=1e-4)


def test_small_noise_speed_is_the_loss_and_the_printed_one_is_not():
    """z' = z: autodiff's gradient; the length of z is conserved, by (11) it is not."""
    rng = np.random.default_rng(0)
    z, lam = rng.normal(size=(6, 4)), np.array([1.5, 0.9, 0.4, 0.1])
    for name, iso in (("cosine", False), ("cosine_iso", True)):
        slope = representation_gradients(TABLE_1[name], jnp.asarray(z), jnp.asarray(z), jnp.diag(jnp.asarray(lam)))[0]
        np.testing.assert_allclose(direct_pred.small_noise_cosine_speed(z, lam, iso=iso), -slope, atol=1e-14)
    right, printed = direct_pred.small_noise_cosine_speed(z, lam), direct_pred.printed_cosine_speed(z, lam)
    np.testing.assert_allclose(np.sum(z * right, axis=1), 0, atol=1e-14)
    assert np.abs(np.sum(z * printed, axis=1)).min() > 1e-3
    assert np.abs(right - printed).max() > 0.05
    equal = np.full((1, 4), 0.7)  # the case that (11) approximates
    np.testing.assert_allclose(
        direct_pred.small_noise_cosine_speed(equal, lam), direct_pred.printed_cosine_speed(equal, lam), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: direct_pred.predictor_eigenvalue(1.0, 0.0), "Argument `lam0` must be finite and > 0"),
        (lambda: direct_pred.predictor_eigenvalue(1.0, 0.1, alpha=0.0), "Argument `alpha` must be finite and > 0"),
        (lambda: direct_pred.predictor_eigenvalue(-1.0, 0.1), "Argument `t` must be >= 0"),
        (lambda: direct_pred.predictor_eigenvalue(1.0, 0.1, online=0.0), "Argument `online` must be finite and > 0"),
        (lambda: direct_pred.predictor_time_to_reach(-1.0, 0.1), "Argument `lam` must be finite and > 0"),
        (lambda: direct_pred.recruitment(-1.0), "Argument `weight_decay`"),
        (lambda: direct_pred.small_noise_cosine_speed(np.ones(3), np.ones(2)), "must broadcast"),
        (lambda: direct_pred.printed_cosine_speed(np.ones(2), -np.ones(2)), "Argument `lam` must be finite and >= 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
