"""Exact times and states of the modes against mpmath, over the whole domain and its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from jepa_dyn import mode_parameters
from jepa_dyn.theory import (
    critical_time,
    fixed_point,
    flow_time,
    mode_time,
    state,
    state_around_critical_time,
    time_to_reach,
)

from .reference import power, slope, time_between

EPS = np.finfo(float).eps
objectives = st.sampled_from(["jepa", "mae"])
depths = st.one_of(st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0]), st.floats(0.5, 30.0))
log_rhos = st.floats(np.log(0.01), np.log(3.0))
log_eps = st.floats(np.log(1e-12), np.log(0.5))
many = settings(max_examples=150, deadline=None, derandomize=True)


def _between(eps: float, limit: float, share: float) -> float:
    return float(np.exp((1 - share) * np.log(eps) + share * np.log(limit)))


def _amplification(objective: str, w: float, t: float, lam: float, variance: float, depth: float) -> float:
    """|dlog w / dlog t|: what a rounding of t does to w; its inverse is what a rounding of w does to t."""
    return abs(float(t * slope(objective, w, lam, variance, depth) / w))


@many
@given(objectives, depths, log_rhos, log_eps, st.floats(0.01, 0.999), st.floats(-2, 2))
def test_time_to_reach_is_right_to_1e12(objective, depth, log_rho, log_eps, share, log_lam):
    """Tolerance 1e-12 plus what rounding w and the fixed point (a few ulp of each logarithm) does to the time."""
    rho, eps, lam = float(np.exp(log_rho)), float(np.exp(log_eps)), float(np.exp(log_lam))
    args = mode_parameters(lam, rho, depth)
    limit = float(fixed_point(objective, args))
    assume(abs(np.log(eps / limit)) > 1e-2)
    w = _between(eps, limit, share)
    variance = float(args.variance)
    truth = time_between(objective, eps, w, lam, variance, depth)
    got = float(time_to_reach(objective, w, eps, args))
    condition = 1 / _amplification(objective, w, float(truth), lam, variance, depth)
    assert abs(got / truth - 1) < 1e-12 + 100 * EPS * condition


@many
@given(objectives, depths, log_rhos, log_eps, st.floats(0.01, 0.999))
def test_state_inverts_the_time(objective, depth, log_rho, log_eps, share):
    """1e-10 where well-conditioned (amplification below 100), else rounding times the amplification."""
    rho, eps = float(np.exp(log_rho)), float(np.exp(log_eps))
    args = mode_parameters(1.0, rho, depth)
    limit, variance = float(fixed_point(objective, args)), float(args.variance)
    assume(abs(np.log(eps / limit)) > 1e-2)
    w = _between(eps, limit, share)
    truth = time_between(objective, eps, w, 1.0, variance, depth)
    t = float(truth)
    # the exact state at the rounded time, to first order in the rounding
    expected = w + (t - truth) * slope(objective, w, 1.0, variance, depth)
    got = float(state(objective, t, eps, args))
    amplification = _amplification(objective, w, t, 1.0, variance, depth)
    if amplification * EPS < 1e-3:
        assert abs(got / expected - 1) < 1e-12 + 100 * EPS * (depth + amplification)


@many
@given(objectives, depths, st.floats(np.log(0.05), np.log(3.0)), st.floats(0.01, 4.0), st.floats(0.05, 0.999))
def test_starts_above_the_fixed_point_shrink_to_it(objective, depth, log_rho, log_excess, share):
    rho = float(np.exp(log_rho))
    args = mode_parameters(0.7, rho, depth)
    limit, variance = float(fixed_point(objective, args)), float(args.variance)
    start = limit * np.exp(log_excess)
    w = _between(start, limit, share)
    truth = time_between(objective, start, w, 0.7, variance, depth)
    condition = 1 / _amplification(objective, w, float(truth), 0.7, variance, depth)
    # w between start and limit is itself known to a few ulp of log(limit)
    assert abs(float(time_to_reach(objective, w, start, args)) / truth - 1) < 1e-12 + 300 * EPS * condition
    t = float(truth)
    expected = w + (t - truth) * slope(objective, w, 0.7, variance, depth)
    assert abs(float(state(objective, t, start, args)) / expected - 1) < 1e-11 * (1 + depth)


@many
@given(objectives, depths, st.floats(-3, 3), st.floats(np.log(1e-6), np.log(0.5)), st.floats(0.05, 8.0))
def test_negative_covariance_decays(objective, depth, log_variance, log_start, log_fall):
    lam, variance, start = -0.8, float(np.exp(log_variance)), float(np.exp(log_start))
    w = start * float(np.exp(-log_fall))
    args = mode_parameters(lam, variance=variance, depth=depth)
    truth = time_between(objective, start, w, lam, variance, depth)
    assert abs(float(time_to_reach(objective, w, start, args)) / truth - 1) < 1e-11
    t = float(truth)
    amplification = _amplification(objective, w, t, lam, variance, depth)
    expected = w + (t - truth) * slope(objective, w, lam, variance, depth)
    if expected > 0.5 * w:
        assert abs(float(state(objective, t, start, args)) / expected - 1) < 1e-12 * (1 + depth + amplification)
    assert fixed_point(objective, args) == 0


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize(
    ("lam", "depth", "w0"), [(1.0, 2.3, 0.01), (1.0, 0.4, 0.05), (0.0, 3.0, 0.3), (-0.5, 2.0, 0.4), (1, 3, 0.99)]
)
def test_states_solve_the_equation(objective, lam, depth, w0):
    """scipy's DOP853 at 1e-13 on the printed equation."""
    args = mode_parameters(lam, variance=1.7, depth=depth)
    r = float(power(objective, depth))
    end = (
        1.6 * float(critical_time(objective, w0, args)) if lam > 0 and w0 < 0.5 * fixed_point(objective, args) else 6.0
    )
    ts = np.linspace(0, end, 9)
    solution = solve_ivp(
        lambda _, w: lam * w ** (3 - r) - 1.7 * w**3, (0, end), [w0], "DOP853", ts, rtol=1e-13, atol=1e-30
    )
    np.testing.assert_allclose(state(objective, ts, w0, args), solution.y[0], rtol=1e-10)


def test_extinction_and_birth_in_finite_time():
    """MAE with L < 1 has n < 0: with lam < 0 it reaches 0 at a finite time and stays there."""
    args = mode_parameters(-1.0, variance=0.5, depth=0.6)
    end = float(time_between("mae", 0.3, 1e-200, -1.0, 0.5, 0.6))
    assert state("mae", 0.999 * end, 0.3, args) > 0
    assert state("mae", 1.001 * end, 0.3, args) == 0
    growing = mode_parameters(1.0, 0.8, 0.6)
    birth = float(time_between("mae", 0.3, 1e-200, 1.0, 1.25, 0.6))
    assert state("mae", 0.999 * birth, 0.3, growing) > 0
    assert state("mae", 1.001 * birth, 0.3, growing) == 0


def test_fixed_points():
    """Littwin 2024, eq. (9), and 0 for lam <= 0."""
    for depth in (1.0, 2.0, 5.0):
        args = mode_parameters(2.0, 0.7, depth)
        np.testing.assert_allclose(fixed_point("jepa", args), 0.7**depth, rtol=1e-14)
        np.testing.assert_allclose(fixed_point("mae", args), 0.7 ** (depth / (depth + 1)), rtol=1e-14)
    assert fixed_point("jepa", mode_parameters(-1.0, variance=1.0)) == 0
    assert fixed_point("mae", mode_parameters(0.0, variance=1.0)) == 0


@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_ends_of_time(objective):
    args = mode_parameters(1.0, 0.8, 3.0)
    assert state(objective, 0.0, 1e-5, args) == 1e-5
    assert state(objective, jnp.inf, 1e-5, args) == fixed_point(objective, args)
    np.testing.assert_allclose(state(objective, 1e30, 1e-5, args), fixed_point(objective, args), rtol=1e-14)
    limit = fixed_point(objective, args)
    assert state(objective, 5.0, limit, args) == limit
    assert time_to_reach(objective, limit, 1e-5, args) == np.inf
    assert time_to_reach(objective, 1.1 * limit, 1e-5, args) == np.inf
    assert time_to_reach(objective, 1e-5, 1e-5, args) == 0
    assert time_to_reach(objective, 1e-6, 1e-5, args) < 0
    assert time_to_reach(objective, 0.5, 0.1, mode_parameters(-1.0, variance=1.0)) == np.inf
    back = state(objective, -10.0, 1e-2, args)
    np.testing.assert_allclose(state(objective, 10.0, back, args), 1e-2, rtol=1e-13)


def test_half_time_with_the_misprinted_start_is_wrong():
    """CORRECTIONS A.3: eq. (88) prints psi(0) = eps^L/rho; right is eps^(1/L)/rho, as in (81)."""
    expected = {1: 20.8851, 2: 92.6322, 3: 189.329, 5: 440.095}
    for depth, time in expected.items():
        args = mode_parameters(1.0, 0.8, float(depth))
        np.testing.assert_allclose(critical_time("jepa", 0.05, args), time, rtol=3e-6)
        psi, psi0_printed = 0.5 ** (1 / depth), 0.05**depth / 0.8

        def total(y, depth=depth):
            return np.log(y / (1 - y)) - sum(1 / (j * y**j) for j in range(1, 2 * depth))

        printed = (total(psi) - total(psi0_printed)) * depth / 0.8 ** (2 * depth - 1)
        assert (abs(printed / time - 1) > 1e3) == (depth > 1)


def test_critical_time_of_every_kind_of_feature():
    args = mode_parameters(jnp.array([1.0, -1.0, 0.0]), variance=jnp.array([1.25, 1.0, 1.0]), depth=2.0)
    times = critical_time("jepa", 1e-3, args)
    assert np.isfinite(times[0]) and np.isposinf(times[1]) and np.isposinf(times[2])
    with pytest.raises(ValueError, match=r"`eps` must be below `fraction` of the fixed point.*0\.4"):
        critical_time("jepa", 0.4, mode_parameters(1.0, 0.8, 2.0))
    with pytest.raises(ValueError, match="`fraction` must lie strictly between 0 and 1"):
        critical_time("jepa", 0.1, mode_parameters(1.0, 0.8, 2.0), 1.0)
    # where nothing can be raised: already there, at time 0
    traced = jax.vmap(lambda eps: critical_time("jepa", eps, mode_parameters(1.0, 0.8, 2.0)))(
        jnp.array([1e-3, 0.4, 2.0])
    )
    assert traced[0] > 0 and traced[1] == 0 and traced[2] == 0


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("eps", [1e-3, 1e-8, 1e-12])
def test_times_relative_to_the_half_time(objective, eps):
    """The shape of the transition does not depend on eps and is right where w(t) cannot be resolved."""
    args = mode_parameters(1.0, 0.9, 2.0)
    tau = np.array([-5.0, -1.0, 0.0, 1.0, 10.0])
    w = state_around_critical_time(objective, tau, args)
    np.testing.assert_allclose(w[2], 0.5 * fixed_point(objective, args), rtol=1e-15)
    for shift, value in zip(tau, np.asarray(w), strict=True):
        half = 0.5 * float(fixed_point(objective, args))
        # a rounding of w moves the time by rounding / |dlog w / dt|
        per_ulp = float(value / slope(objective, value, 1.0, float(args.variance), 2.0)) * EPS
        measured = float(time_between(objective, half, value, 1.0, float(args.variance), 2.0))
        assert abs(measured - shift) < 1e-12 * abs(shift) + 20 * abs(per_ulp)
    if eps == 1e-3:
        start = critical_time(objective, eps, args)
        np.testing.assert_allclose(state(objective, start + tau, eps, args), w, rtol=1e-8)


def test_clocks():
    """t_mode = L t_flow (eqs (54), (60) against (7), (8))."""
    assert mode_time(3.0, 5.0) == 15.0 and flow_time(15.0, 5.0) == 3.0


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize(
    ("lam", "variance", "depth", "w0", "t"),
    [
        (1.1, 1.4, 2.3, 0.05, 60.0), (1.1, 1.4, 3.0, 0.05, 150.0), (1.1, 1.4, 2.0, 0.9, 3.0), (-0.7, 1.2, 2.5, 0.4, 4.0),
        (-0.7, 1.2, 0.8, 0.4, 0.5), (0.9, 0.4, 0.7, 0.03, 1.0), (1.1, 1.4, 2.3, 0.05, 5e3),
    ],
)  # fmt: skip
def test_derivatives(objective, lam, variance, depth, w0, t):
    """Forward and reverse mode in every float argument against central differences with a step of cube-root precision."""

    def value(x):
        return state(objective, x[4], x[3], mode_parameters(x[0], variance=x[1], depth=x[2]))

    x = jnp.array([lam, variance, depth, w0, t])
    reverse, forward = jax.grad(value)(x), jax.jacfwd(value)(x)
    np.testing.assert_allclose(reverse, forward, rtol=1e-10, atol=1e-13)
    for i in range(5):
        step = 1e-5 * float(x[i])
        difference = (value(x.at[i].add(step)) - value(x.at[i].add(-step))) / (2 * step)
        np.testing.assert_allclose(reverse[i], difference, rtol=2e-6, atol=1e-9)


def test_derivative_at_arrival_is_that_of_the_fixed_point():
    gradient = jax.grad(lambda rho: state("jepa", 1e6, 1e-2, mode_parameters(1.0, rho, 3.0)))(0.8)
    np.testing.assert_allclose(gradient, 3 * 0.8**2, rtol=1e-10)


def test_second_derivative():
    def value(depth):
        return critical_time("mae", 1e-3, mode_parameters(1.0, 0.8, depth))

    step = 1e-4
    difference = (value(2.5 + step) - 2 * value(2.5) + value(2.5 - step)) / step**2
    np.testing.assert_allclose(jax.jacfwd(jax.grad(value))(2.5), difference, rtol=1e-5)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_batching_is_broadcasting(objective):
    rho = jnp.linspace(0.3, 0.9, 7)
    depth = jnp.array([1.0, 2.0, 3.5])[:, None]
    together = critical_time(objective, 1e-6, mode_parameters(1.0, rho, depth))
    mapped = jax.vmap(
        jax.vmap(lambda r, d: critical_time(objective, 1e-6, mode_parameters(1.0, r, d)), (0, None)), (None, 0)
    )(rho, depth[:, 0])
    assert together.shape == (3, 7)
    np.testing.assert_allclose(together, mapped, rtol=1e-14)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_float32_is_right_to_float32(float32, objective):
    """The error is that of rounding the inputs: n |log y0| ulp, at most 1e-3 over the domain; nothing over- or underflows."""
    rng = np.random.default_rng(0)
    depth, rho = rng.uniform(0.5, 20, 300), rng.uniform(0.05, 3, 300)
    r = 1 / depth + (objective == "mae")
    eps = np.minimum(10 ** rng.uniform(-9, -1, 300), 0.4 * rho ** (1 / r))
    eps, rho, depth = (a.astype(np.float32) for a in (np.maximum(eps, 1e-12), rho, depth))
    keep = eps < 0.45 * rho ** (1 / depth if objective == "mae" else depth)
    keep &= eps < 0.45 * rho.astype(float) ** (1 / (1 / depth + (objective == "mae")))
    eps, rho, depth = eps[keep], rho[keep], depth[keep]
    args = mode_parameters(rho * 0 + 1, rho, depth)
    times = critical_time(objective, eps, args)
    assert times.dtype == jnp.float32
    for i in range(0, eps.size, 5):
        power_ = power(objective, float(depth[i]))
        target = 0.5 * (float(args.lam[i]) / float(args.variance[i])) ** float(1 / power_)
        truth = time_between(objective, float(eps[i]), target, 1.0, float(args.variance[i]), float(depth[i]))
        n = float(2 / power_ - 1)
        log_y0 = abs(float(power_) * np.log(eps[i]) - np.log(rho[i]))
        assert abs(float(times[i]) / float(truth) - 1) < 2e-6 * (1 + (1 + abs(n)) * (1 + log_y0))


BAD = {
    "eps": [0.0, -1.0, np.nan, np.inf, np.array([])],
    "lam": [np.nan, np.inf],
    "variance": [0.0, -1.0, np.nan],
    "depth": [0.0, -2.0, np.nan],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_input_is_named(name, value):
    good = {"eps": 0.01, "lam": 1.0, "variance": 1.2, "depth": 2.0} | {name: value}
    with pytest.raises(ValueError, match=f"`{name}`"):
        critical_time("jepa", good.pop("eps"), mode_parameters(good.pop("lam"), **good))


def test_bad_calls_are_explained():
    args = mode_parameters(1.0, 0.8, 2.0)
    with pytest.raises(ValueError, match=r"must be one of 'jepa', 'mae', but is 'jpea'\. Did you mean 'jepa'"):
        fixed_point("jpea", args)
    with pytest.raises(ValueError, match="`weight_decay` must be 0"):
        state("jepa", 1.0, 0.1, mode_parameters(1.0, 0.8, 2.0, weight_decay=0.1))
    with pytest.raises(ValueError, match="`t` must be >= 0 where the mode shrinks"):
        state("jepa", -1.0, 0.99, args)
    with pytest.raises(ValueError, match="`t` must not be NaN"):
        state("jepa", np.nan, 0.1, args)
    with pytest.raises(ValueError, match="must broadcast together"):
        state("jepa", jnp.ones(3), jnp.full(4, 0.1), args)
    with pytest.raises(ValueError, match="`lam` must be finite and > 0"):
        state_around_critical_time("jepa", 0.0, mode_parameters(-1.0, variance=1.0))
    with pytest.raises(ValueError, match="`rho` must have the sign of `lam`"):
        mode_parameters(1.0, -0.5)
    with pytest.raises(ValueError, match="Exactly one of the arguments `rho` and `variance`"):
        mode_parameters(1.0)
