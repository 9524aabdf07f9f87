"""Closed forms of linear collapse and of InfoNCE modes against scipy's matrix exponential and the flows' right-hand sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from jepa_dyn import theory
from jepa_dyn.flows import (
    SiameseState,
    gaussian_info_nce,
    gaussian_info_nce_arguments,
    info_nce,
    info_nce_arguments,
    info_nce_generator,
    invariance,
    invariance_arguments,
    siamese,
    siamese_arguments,
    siamese_gradient,
)
from jepa_dyn.moments import ViewMoments, moments_from_pairs, view_moments
from jepa_dyn.theory import info_nce as info_nce_theory
from jepa_dyn.theory import linear_collapse

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3)) @ (np.eye(3) + 0.3 * RNG.normal(size=(3, 3)))
Y = 0.8 * X + 0.4 * RNG.normal(size=X.shape)
MOMENTS = moments_from_pairs(X, Y, center=False)
W = RNG.normal(size=(2, 3))
TIMES = np.array([0.0, 0.5, 3.0])


def test_invariance_alone():
    """W(0) expm(-2 eta S t), and the flow is its derivative; what the views share exactly does not fall."""
    s = np.mean([np.outer(a - b, a - b) for a, b in zip(X, Y, strict=True)], axis=0)
    path = linear_collapse.invariance_encoder(TIMES, jnp.asarray(W), MOMENTS, 0.7)
    np.testing.assert_allclose(path, [W @ expm(-1.4 * s * t) for t in TIMES], atol=1e-13)
    np.testing.assert_allclose(linear_collapse.invariance_rates(MOMENTS, 0.7), 1.4 * np.linalg.eigvalsh(s), rtol=1e-12)

    def at(t):
        return linear_collapse.invariance_encoder(t, jnp.asarray(W), MOMENTS, 0.7)

    value, slope = jax.jvp(at, (0.5,), (1.0,))
    np.testing.assert_allclose(slope, invariance(0.0, value, invariance_arguments(MOMENTS, rate=0.7)), atol=1e-13)
    shared = view_moments(np.eye(3), np.diag([1.0, 0.5, 0.5]))
    np.testing.assert_allclose(
        linear_collapse.invariance_encoder(1e3, jnp.asarray(W), shared)[:, 0], W[:, 0], rtol=1e-12
    )


def test_no_predictor():
    path = linear_collapse.no_predictor_encoder(TIMES, jnp.asarray(W), MOMENTS, 0.1)
    generator = np.asarray(MOMENTS.xx - MOMENTS.yx) + 0.1 * np.eye(3)
    np.testing.assert_allclose(path, [W @ expm(-generator * t) for t in TIMES], atol=1e-13)
    state = SiameseState(path[1], jnp.eye(2))
    args = siamese_arguments(MOMENTS, weight_decay=0.1, predictor_rate=0.0)
    held = siamese(0.0, SiameseState(path[1], jnp.eye(2)), siamese_arguments(MOMENTS)).encoder - 0.1 * path[1]
    np.testing.assert_allclose(siamese(0.0, state, args).encoder, held, atol=1e-14)
    np.testing.assert_allclose(held, -path[1] @ generator, atol=1e-13)


def test_no_stop_gradient_bound_holds_everywhere_and_is_attained():
    """d|W|^2/dt <= -2 (sigma + lambda) |W|^2 at random states; equal for one row along the mode of sigma, best predictor."""
    rng = np.random.default_rng(1)
    args = siamese_arguments(MOMENTS, weight_decay=0.05)
    rate = linear_collapse.no_stop_gradient_rate(MOMENTS, 0.05)
    speed = jax.jit(lambda y: jnp.sum(siamese_gradient(0.0, y, args).encoder * y.encoder) / jnp.sum(y.encoder**2))
    found = [float(speed(SiameseState(rng.normal(size=(2, 3)), rng.normal(size=(2, 2))))) for _ in range(200)]
    assert rate > 0.05 and max(found) <= -rate
    variances, covariances = np.array([1.5, 1.0]), np.array([0.9, 0.9])
    commuting = view_moments(np.diag(variances), np.diag(covariances))
    left = variances - covariances**2 / variances
    np.testing.assert_allclose(linear_collapse.no_stop_gradient_rate(commuting), left.min(), rtol=1e-14)
    k = int(left.argmin())
    best = SiameseState(np.eye(2)[k : k + 1], np.array([[covariances[k] / variances[k]]]))
    exact = siamese_gradient(0.0, best, siamese_arguments(commuting)).encoder
    np.testing.assert_allclose(exact, -left.min() * best.encoder, atol=1e-14)
    same = view_moments(MOMENTS.xx, MOMENTS.xx)
    np.testing.assert_allclose(linear_collapse.no_stop_gradient_rate(same), 0.0, atol=1e-14)


def test_siamese_mode_follows_the_flow():
    """Its speed is that of the 1 x 1 flow; the threshold is where its fixed points meet."""
    rho, tau, a = 1.3, 0.8, 0.35
    mode = linear_collapse.siamese_mode(rho, tau, 0.1)
    args = siamese_arguments(view_moments(np.array([[rho]]), np.array([[tau]])), weight_decay=0.1)
    flow = siamese(0.0, SiameseState(np.array([[a]]), np.array([[a]])), args)
    speed = mode.lam * a**2 - mode.variance * a**3 - mode.weight_decay * a
    np.testing.assert_allclose([flow.encoder[0, 0], flow.predictor[0, 0]], [speed, speed], rtol=1e-14)
    lam = 0.07
    tau = float(linear_collapse.siamese_survival_threshold(rho, lam))
    np.testing.assert_allclose(np.roots([-rho, tau, -lam]), tau / (2 * rho), rtol=1e-6)


def test_gaussian_modes_follow_the_flow():
    """An aligned encoder moves along its own modes, each at the speed of its closed form; one of negative covariance dies."""
    rng = np.random.default_rng(2)
    basis, left = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    variances, others, covariances = np.array([1.5, 1.0, 0.7]), np.array([1.2, 1.1, 0.9]), np.array([0.9, 0.4, -0.3])
    xx, yx, yy = (jnp.asarray((basis * v) @ basis.T) for v in (variances, covariances, others))
    args = gaussian_info_nce_arguments(ViewMoments(xx, yx, yy), temperature=0.6)
    modes = info_nce_theory.gaussian_mode(covariances, variances, others, 0.6)
    s = np.array([0.1, 0.2, 0.3])
    speed = gaussian_info_nce(0.0, jnp.asarray((left * s) @ basis.T), args)
    moved = np.asarray(modes.lam) * s - np.asarray(modes.variance) * s**3
    np.testing.assert_allclose(left.T @ speed @ basis, np.diag(moved), atol=1e-14)
    ends = theory.fixed_point("mae", modes)
    np.testing.assert_allclose(ends[:2] ** 2, 0.6 * covariances[:2] / (variances * others)[:2], rtol=1e-12)
    assert ends[2] == 0


def test_eigenvalues_move_as_corrected_and_not_as_printed():
    args = info_nce_arguments(X, Y, temperature=0.5)
    w = jnp.asarray(0.4 * W)
    velocity = info_nce(0.0, w, args)
    true = jax.jvp(lambda w: jnp.linalg.eigvalsh(w @ w.T), (w,), (velocity,))[1]
    found = info_nce_theory.eigenvalue_rates(w, velocity)
    np.testing.assert_allclose(found, true, rtol=1e-11)
    _, sizes, rows = np.linalg.svd(w)
    by_generator = [
        2 * s**2 * v @ np.asarray(info_nce_generator(w, args)) @ v for s, v in zip(sizes, rows, strict=False)
    ]
    np.testing.assert_allclose(found[::-1], by_generator, rtol=1e-11)
    alignment = np.mean(np.sum(((X - Y) @ w.T) ** 2, axis=1))
    printed = info_nce_theory.printed_eigenvalue_rates(jnp.linalg.eigvalsh(w @ w.T), 0.5, len(X), alignment)
    lam = np.linalg.eigvalsh(w @ w.T)
    share = np.exp(lam / 0.5) / np.exp(lam / 0.5).sum()
    np.testing.assert_allclose(printed, lam * (share / 0.5 - len(X) / 0.5 * alignment), rtol=1e-12)
    assert np.abs(printed - true).max() > 10 * np.abs(true).max()


def test_small_start_generator_is_that_of_the_flow_at_zero():
    args = info_nce_arguments(X + 0.5, Y - 0.2, temperature=0.3)  # views with means, which the softmax removes
    at_zero = info_nce_generator(jnp.zeros((2, 3)), args)
    found = info_nce_theory.small_start_generator(args.first, args.second, 0.3)
    np.testing.assert_allclose(found, at_zero, atol=1e-13)
    c = np.cov(X.T, Y.T, ddof=0)[:3, 3:]
    np.testing.assert_allclose(found, (c + c.T) / 0.3, atol=1e-13)


BAD = [
    (lambda: linear_collapse.invariance_encoder(-1.0, jnp.asarray(W), MOMENTS), "`t` must be finite and >= 0"),
    (lambda: linear_collapse.no_predictor_encoder(1.0, jnp.asarray(W), MOMENTS, -0.1), "`weight_decay`"),
    (lambda: linear_collapse.siamese_survival_threshold(-1.0, 0.1), "`rho`"),
    (lambda: info_nce_theory.gaussian_mode(1.0, 1.0, temperature=0.0), "`temperature`"),
    (lambda: info_nce_theory.gaussian_mode(1.0, -1.0), "`variance`"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
