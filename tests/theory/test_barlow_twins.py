"""Closed forms of Barlow Twins against mpmath, scipy's DOP853 at 1e-12, the flows, and identities; what is wrong in print fails."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar
from scipy.stats import chi

from jepa_dyn import flows, mode_parameters
from jepa_dyn.moments import view_moments
from jepa_dyn.theory import barlow_twins as modes
from jepa_dyn.theory import barlow_twins_alignment as alignment
from jepa_dyn.theory import barlow_twins_off_diagonal as off_diagonal
from jepa_dyn.theory import barlow_twins_optima as optima
from jepa_dyn.theory import barlow_twins_variants as variants
from jepa_dyn.theory.branches import DECAY, GROW, SHRINK
from jepa_dyn.theory.normal_form import logistic_time

RNG = np.random.default_rng
EPS = np.finfo(float).eps


def by_hand(t, s0, gamma):
    """(10) in 60 digits."""
    with mpmath.workdps(60):
        t, s0, gamma = (mpmath.mpf(float(v)) for v in (t, s0, gamma))
        return s0 / mpmath.sqrt(mpmath.exp(-8 * gamma * t) + gamma * s0**2 * (1 - mpmath.exp(-8 * gamma * t)))


def path(speed, start, ts, **tolerances):
    """DOP853 of the flattened array; (times, *shape)."""
    start = np.asarray(start, float)
    options = {"rtol": 1e-12, "atol": 1e-14} | tolerances
    solved = solve_ivp(
        lambda t, z: speed(z.reshape(start.shape)).ravel(), (0, ts[-1]), start.ravel(), "DOP853", ts, **options
    )
    assert solved.success
    return solved.y.T.reshape(-1, *start.shape)


def matrix_path(w0, gamma, ts):
    """(6), tolerances relative to the start's size."""
    one = np.eye(len(w0))
    return path(lambda w: -4 * (w @ gamma @ w.T - one) @ w @ gamma, w0, ts, rtol=1e-11, atol=1e-12 * np.abs(w0).max())


def rotated(gammas, seed=0):
    rows = np.linalg.qr(RNG(seed).normal(size=(len(gammas),) * 2))[0]
    matrix = rows.T @ np.diag(gammas) @ rows
    return (matrix + matrix.T) / 2


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), log_s=st.floats(-300, 2), log_gamma=st.floats(-8, 4))
def test_state_and_residual_in_all_of_the_range(seed, log_s, log_gamma):
    rng = RNG(seed)
    gamma = rng.choice([-1, 1], 24) * 10 ** (log_gamma + rng.uniform(-1, 1, 24))
    s0, age = 10 ** (log_s + rng.uniform(-1, 1, 24)), 10 ** rng.uniform(-3, 3, 24)
    t = age / (8 * np.abs(gamma))
    got, rest = np.asarray(modes.singular_value(t, s0, gamma)), np.asarray(modes.residual(t, s0, gamma))
    for i in range(24):
        want = by_hand(t[i], s0[i], gamma[i])
        if want > 1e-300:
            assert abs(got[i] / want - 1) < 8 * EPS * (1 + age[i])
        with mpmath.workdps(400):
            gap = 1 - mpmath.mpf(gamma[i]) * by_hand_far(t[i], s0[i], gamma[i]) ** 2
        start = abs(1 - gamma[i] * s0[i] ** 2)
        if gap != 0 and abs(gap) > 1e-290 and start > 1e-3:
            assert abs(rest[i] / gap - 1) < 16 * EPS * (1 + age[i]) / min(1, start)


def by_hand_far(t, s0, gamma):
    """(10) with the digits that 1 - gamma s^2 loses."""
    t, s0, gamma = (mpmath.mpf(float(v)) for v in (t, s0, gamma))
    return s0 / mpmath.sqrt(mpmath.exp(-8 * gamma * t) + gamma * s0**2 * (1 - mpmath.exp(-8 * gamma * t)))


def test_limits():
    s0, gamma = np.array([0.3, 0.3, 0.3, 3.0]), np.array([2.0, 0.0, -1.0, 2.0])
    want = [2**-0.5, 0.3, 0.0, 2**-0.5]
    np.testing.assert_allclose(modes.singular_value(np.inf, s0, gamma), want, rtol=1e-15)
    np.testing.assert_allclose(modes.limit(s0, gamma), want, rtol=1e-15)
    np.testing.assert_array_equal(modes.singular_value(0.0, s0, gamma), s0)
    assert modes.singular_value(7.0, 0.3, 0.0) == 0.3
    # (10) as printed overflows here
    assert modes.singular_value(1e6, 1e-300, 3.0) == pytest.approx(3**-0.5, rel=1e-15)


@pytest.mark.parametrize("s0", [1e-37, 1e-25, 1e-3])
def test_float32(float32, s0):
    """s0^2 and e^(-4 gamma t) underflow in float32; what is learned does not."""
    ts = np.array([0.0, 10.0, 20.0, 21.3, 23.0, 100.0])
    got = modes.singular_value(ts, s0, 1.0)
    assert got.dtype == jnp.float32
    want = np.array([float(by_hand(np.float32(t), np.float32(s0), 1.0)) for t in ts])
    np.testing.assert_allclose(got, want, rtol=3e-5)
    assert float(modes.critical_time(s0, 1.0)) == pytest.approx(np.log(1 / s0) / 4, rel=1e-5)


def test_what_float32_cannot_hold_is_refused(float32):
    with pytest.raises(ValueError, match=r"Argument `s0` must fit into float32.*turn x64 on.*is 1e-60"):
        modes.singular_value(1.0, 1e-60, 1.0)
    with pytest.raises(ValueError, match="Argument `encoder` must fit into float32"):
        alignment.small_start(1e-50 * np.eye(2), np.diag([2.0, 1.0]))
    # just above: the squares of the Gram-Schmidt lengths would underflow
    got = alignment.effective_singular_values(1e-30 * np.array([[1.0, 1.0], [1.0, 3.0]]), np.diag([2.0, 1.0]))
    np.testing.assert_allclose(got, 1e-30 * np.sqrt([2.0, 2.0]), rtol=1e-5)


@pytest.mark.parametrize("form", ["plain", "quartic", "preconditioned", "sharp", "smooth"])
def test_derivatives(form):
    """By t that of the flow; by s0 and gamma against central differences; growing, shrinking, decaying."""
    speeds = {
        "plain": lambda s, g: 4 * g * s * (1 - g * s**2),
        "quartic": lambda s, g: 8 * g * s * (1 - g * s**2) ** 3,
        "preconditioned": lambda s, g: 4 * g * s * (1 - g * s**2) / (0.7 * s**2 + 0.3),
        "sharp": lambda s, g: -2 * abs(g) * s + 2 * np.sign(g) * np.sqrt(abs(g)),
        "smooth": lambda s, g: 4 * g * s * (1 - g * s**2) * np.where(g * s**2 > 1, 0.25, 1),
    }
    calls = {
        "plain": modes.singular_value,
        "quartic": variants.quartic_singular_value,
        "preconditioned": lambda t, s, g: variants.preconditioned_singular_value(t, s, g, 0.7, 0.3),
        "sharp": variants.sharp_singular_value,
        "smooth": lambda t, s, g: variants.smooth_singular_value(t, s, g, 0.5),
    }
    call = calls[form]
    point = (np.array([0.3, 0.3, 0.3, 0.0]), np.array([0.2, 2.5, 1.3, 0.4]), np.array([0.4, 0.4, -0.5, 0.6]))
    slopes = jax.jit(jax.grad(lambda *p: jnp.sum(call(*p)), (0, 1, 2)))(*point)
    np.testing.assert_allclose(slopes[0], speeds[form](np.asarray(call(*point)), point[2]), rtol=1e-10)
    for i in (1, 2):
        up, down = ([p + h * (j == i) for j, p in enumerate(point)] for h in (1e-6, -1e-6))
        np.testing.assert_allclose(slopes[i], (call(*up) - call(*down)) / 2e-6, rtol=1e-7, atol=1e-9)


def test_derivatives_at_the_edges():
    slope = jax.vmap(jax.grad(modes.mode_state, (0, 1, 2)))
    got = slope(
        jnp.array([0.5, jnp.inf, jnp.inf, 1e4]), jnp.array([0.3, 0.3, 0.3, 1e-9]), jnp.array([0.0, 2.0, -2.0, 1.0])
    )
    # gamma = 0: s0 (1 + 4 gamma t) - ..: 4 t s0 (1 - 0); learned: gamma^(-1/2); died out: 0
    np.testing.assert_allclose(got[2], [4 * 0.5 * 0.3, -0.5 * 2**-1.5, 0.0, -0.5], rtol=1e-12)
    np.testing.assert_allclose(got[1], [1, 0, 0, 0], atol=1e-15)
    np.testing.assert_allclose(got[0], 0, atol=1e-15)


def test_times():
    rng = RNG(3)
    gamma, s0 = np.array([1.0, 0.3, 2.0, -0.7, 40.0]), np.array([1e-6, 0.3, 3.0, 1.2, 1e-200])
    t = rng.uniform(0.05, 0.4, 5) / np.abs(gamma) * np.array([1, 1, 1, 1, 100])
    s = modes.singular_value(t, s0, gamma)
    np.testing.assert_allclose(modes.time_to_reach(s, s0, gamma), t, rtol=1e-12)
    # the same mode as a MAE of depth 1: lam = 4 gamma, variance = 4 gamma^2
    as_mae = mode_parameters(4 * gamma, variance=4 * gamma**2, depth=1.0)
    np.testing.assert_allclose(
        flows.mae(0.0, jnp.asarray(s0), as_mae), 4 * gamma * s0 * (1 - gamma * s0**2), rtol=1e-14
    )
    never = modes.time_to_reach(*np.array([[2.0, 1, 0.5, 0.7, 1], [0.1, 0.1, 3, 0.5, 0.5], [1, 1, 1, -1, 0]]))
    assert np.isinf(never).all()
    assert modes.time_to_reach(0.1, 0.3, 1.0) == pytest.approx(-float(modes.time_to_reach(0.3, 0.1, 1.0)), rel=1e-14)
    assert modes.time_to_reach(0.3, 0.3, 0.0) == 0


@pytest.mark.parametrize("s0", [0.1, 1e-3, 1e-150])
def test_critical_times(s0):
    gamma = np.array([2.0, 0.5, 0.0, -1.0])
    exact = modes.critical_time(s0, gamma)
    with mpmath.workdps(400):
        want = [
            float(mpmath.log(1 / (mpmath.mpf(g) * mpmath.mpf(s0) ** 2) - 1) / (8 * mpmath.mpf(g))) for g in (2.0, 0.5)
        ]
    np.testing.assert_allclose(exact[:2], want, rtol=1e-14)
    assert np.isinf(exact[2:]).all()
    np.testing.assert_allclose(gamma[:2] * modes.singular_value(exact[:2], s0, gamma[:2]) ** 2, 0.5, rtol=1e-11)
    printed, small = np.asarray(modes.small_start_critical_time(s0, gamma)), gamma[:2] * s0**2
    error = np.abs(printed[:2] / exact[:2] - 1)
    assert (error <= 1.1 * small / np.abs(np.log(small)) + 1e-15).all()


def test_the_time_of_order_zero():
    """z - z0 in 700 digits; all branches, near and far ends, forward and back."""
    x0 = np.array([-600.0, -3.0, -0.1, 40.0, 0.3, 0.3, 3.0, -5.0, 3.0, 3.0])
    dx = np.array([599.9, 1e-9, -700.0, -39.0, -1e-9, -0.299, -1e-8, -800.0, -2.0, -30.0])
    branch = np.array([GROW] * 3 + [SHRINK] * 3 + [DECAY] * 4)
    got = logistic_time(*(jnp.asarray(v) for v in (x0, x0 + dx, dx, branch)))
    with mpmath.workdps(700):
        z = {
            GROW: lambda y: mpmath.log(y / (1 - y)),
            SHRINK: lambda y: mpmath.log(y / (y - 1)),
            DECAY: lambda y: mpmath.log(1 + 1 / y),
        }
        ends = [
            (mpmath.exp(mpmath.mpf(v)), mpmath.exp(mpmath.mpf(v) + mpmath.mpf(d))) for v, d in zip(x0, dx, strict=True)
        ]
        want = [float(z[b](y) - z[b](y0)) for b, (y0, y) in zip(branch, ends, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-13)


def test_footnote_23_has_the_wrong_sign():
    """From sbar = 1e-6 to the ball of radius 1/100 at gamma = 0.4: + log(eps / sbar0) / (4 gamma)."""
    gamma, start, ball = 0.4, 1e-6, 1e-2
    exact = float(modes.time_to_reach(ball / np.sqrt(gamma), start / np.sqrt(gamma), gamma))
    assert exact == pytest.approx(np.log(ball / start) / (4 * gamma), rel=1e-4)


def test_losses():
    s0, gammas = np.array([1e-6, 1e-6, 1e-6, 0.2]), np.array([1.0, 0.3, 0.1, -0.4])
    ts = np.array([0.0, 5.0, 20.0, 60.0, np.inf])
    s = np.array([[float(by_hand(t, *p)) if np.isfinite(t) else 0 for p in zip(s0, gammas, strict=True)] for t in ts])
    s[-1] = [1, 0.3**-0.5, 0.1**-0.5, 0]
    want = ((1 - gammas * s**2) ** 2).sum(axis=1) + 2
    np.testing.assert_allclose(modes.aligned_loss(ts, s0, gammas, 6), want, rtol=1e-12)
    np.testing.assert_array_equal(modes.staircase_loss(ts, s0, gammas, 6), [6, 5, 4, 3, 3])


def test_effective_singular_values_are_gram_schmidt_and_what_the_flow_shows():
    """B.1: R_jj; not the printed (19), nor raw outer products; read back from half times of the eigenvalues of C."""
    rng = RNG(5)
    gammas = np.array([1.0, 0.6, 0.4, 0.28, 0.1, 0.05])
    gamma, w = rotated(gammas), 1e-7 * rng.normal(size=(4, 6))
    got = np.asarray(alignment.effective_singular_values(w, gamma))
    columns = np.linalg.eigh(gamma)[1]
    u = (w @ columns[:, ::-1]).T
    with mpmath.workdps(40):
        basis, lengths = [], []
        for j in range(4):
            rest = mpmath.matrix(u[j])
            for q in basis:
                rest = rest - q * (q.T * rest)[0]
            lengths.append(mpmath.norm(rest))
            basis.append(rest / lengths[-1])
    np.testing.assert_allclose(got, [float(v) for v in lengths], rtol=1e-12)
    raw = [
        np.linalg.norm(u[j] - sum((u[k] * (u[k] @ u[j]) / (u[k] @ u[k]) for k in range(j)), np.zeros(4)))
        for j in range(4)
    ]
    printed = [np.linalg.norm(u[j] * (1 - j)) for j in range(4)]
    np.testing.assert_allclose(got[:2], raw[:2], rtol=1e-10)
    assert (np.abs(got / raw - 1)[2:] > 0.01).all() and (np.abs(printed / got - 1)[1:] > 0.01).all()

    ts = np.linspace(0, 18, 3601)
    seen = np.linalg.eigvalsh([x @ gamma @ x.T for x in matrix_path(w, gamma, ts)])[:, ::-1]
    half = np.array(
        [ts[i] + 0.005 * (0.5 - v[i]) / (v[i + 1] - v[i]) for v in seen.T for i in [np.argmax(v > 0.5) - 1]]
    )
    inferred = np.exp(-4 * gammas[:4] * half) / np.sqrt(gammas[:4])
    np.testing.assert_allclose(inferred, got, rtol=5e-3)


@pytest.mark.parametrize(
    ("d", "gammas", "reached", "exponent"),
    [
        (2, [1.0, 0.5, 0.25, 0.125], (1e-5, 1e-9), 0.5),
        (2, [1.0, 0.6, 0.36, -0.3], (1e-6, 1e-10), 0.4),
        (4, [1.0, 0.4], (1e-3, 1e-5), 0.6),
    ],
    ids=["d < m", "gamma < 0", "d > m"],
)
def test_result_46_and_its_rate(d, gammas, reached, exponent):
    """sup |W - W*| ~ alpha^p; with the off-diagonal entries alpha^(2p) at the end; entries of A follow the corrected (48)."""
    assert float(alignment.alignment_exponent(np.array(gammas[::-1]), d)) == pytest.approx(exponent)
    gamma, rough = rotated(gammas, 1), RNG(7).normal(size=(d, len(gammas)))
    first, second = [], []
    for alpha in reached:
        start = alignment.small_start(alpha * rough, gamma)
        times = np.asarray(start.aligned.critical_times())
        end = times[np.isfinite(times)].max()
        ts = np.append(np.linspace(0, 1.3 * end, 60), 1.8 * end)
        exact = matrix_path(alpha * rough, gamma, ts)
        first.append(np.linalg.norm(exact - start.aligned.encoder(ts), axis=(1, 2)))
        second.append(np.linalg.norm(exact - off_diagonal.small_start_encoder(ts, start), axis=(1, 2)))
        assert (
            np.abs(
                np.asarray(start.aligned.loss(ts)) - [np.sum((w @ gamma @ w.T - np.eye(d)) ** 2) for w in exact]
            ).max()
            < 0.02
        )
    ratio = np.log(reached[0] / reached[1])
    assert np.log(first[0].max() / first[1].max()) / ratio == pytest.approx(exponent, abs=0.01)
    # at the end; on the way there s_k carries a logarithm of alpha too
    assert np.log(second[0][-1] / second[1][-1]) / ratio == pytest.approx(2 * exponent, abs=0.01)
    assert second[1].max() < 10 * second[1][-1]
    if d < len(gammas) and min(gammas) > 0:
        # it does not decay in time, and (48) alone misses the end by F(g)
        assert first[1][-1] > 0.9 * first[1].max()
        turned = np.asarray(start.left).T @ exact @ np.asarray(start.features).T
        ours = np.asarray(off_diagonal.small_start_amplitudes(ts, start))
        np.testing.assert_allclose(turned[-1, 0], ours[-1, 0], rtol=0.01)
        old = start.amplitudes[0, 1] * (ours[-1, 0, 0] / start.amplitudes[0, 0]) ** 0.5
        assert turned[-1, 0, 1] / old == pytest.approx(np.pi / 2, rel=1e-3)
        assert turned[-1, 1, 0] == pytest.approx(-np.sqrt(0.5) * turned[-1, 0, 1], rel=1e-3)


def test_appendix_c_starts_the_aligned_solution_wrongly():
    """A(W(0)) instead of A(W(0) Gamma^(<=m)T) Gamma^(<=m): the same only for a diagonal Gamma."""
    gammas, rough = np.array([1.0, 0.5, 0.2]), 1e-8 * RNG(2).normal(size=(2, 3))
    for gamma, same in ((np.diag(gammas), True), (rotated(gammas), False)):
        start = alignment.small_start(rough, gamma).aligned
        gap = np.abs(start.encoder(0.0) - alignment.alignment_transformation(rough)).max()
        assert (gap < 1e-22) == same
        end = matrix_path(rough, gamma, np.array([25.0]))[0]
        assert np.linalg.norm(end - start.encoder(25.0)) < 1e-3


@pytest.mark.parametrize("g", [1.0, 1.3, 2.0, 7.0, 60.0])
def test_pair_factors(g):
    theta = np.linspace(0, 5, 11)
    solved = path(
        lambda z: np.array([1, -(np.tanh(z[0]) * z[1] + z[2]), -g * (z[1] + np.tanh(z[0]) * z[2])]),
        [0.0, 1.0, 0.0],
        theta,
    )
    x, y = off_diagonal.pair_factors(np.tanh(theta), g)
    np.testing.assert_allclose(x, solved[:, 1], atol=1e-10)
    np.testing.assert_allclose(y, solved[:, 2], atol=1e-10)


def test_late_factor():
    g = np.concatenate([[1, 2, 4], 10 ** np.linspace(0, 6, 80)])
    want = [float(mpmath.sqrt(mpmath.pi) * mpmath.gammaprod([(mpmath.mpf(v) + 1) / 2], [mpmath.mpf(v) / 2])) for v in g]
    np.testing.assert_allclose(off_diagonal.late_factor(g), want, rtol=1e-12)
    np.testing.assert_allclose(want[:3], [1, np.pi / 2, 3 * np.pi / 4], rtol=1e-14)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), shape=st.sampled_from([(1, 1), (2, 4), (4, 3)]), scale=st.floats(-250, 250))
def test_the_factorisation(seed, shape, scale):
    a, b = shape
    matrix = RNG(seed).normal(size=(a, b)) * 10**scale
    q, r = (np.asarray(part) for part in alignment.unique_qr(matrix))
    k = min(a, b)
    np.testing.assert_allclose(q.T @ q, np.eye(k), atol=1e-13)
    np.testing.assert_allclose(q @ (r / 10**scale), matrix / 10**scale, atol=1e-12)
    assert (np.diagonal(r) > 0).all() and (np.tril(r, -1) == 0).all()
    aligned = np.asarray(alignment.alignment_transformation(matrix))
    np.testing.assert_array_equal(aligned[:, :k], q * np.diagonal(r))
    assert (aligned[:, k:] == 0).all()


def test_definition_44_asks_for_too_little():
    """[[0, 1, 0], [0, 0, 1]] has full rank and at least two factorisations, with different alignment transformations."""
    matrix = np.array([[0.0, 1, 0], [0, 0, 1]])
    ends = []
    for q in (np.array([[0.0, 1], [1, 0]]), np.array([[0.6, 0.8], [-0.8, 0.6]])):
        r = q.T @ matrix
        assert np.allclose(np.tril(r, -1), 0) and (np.diag(r) >= 0).all()
        ends.append(q @ np.pad(np.diag(np.diag(r)), ((0, 0), (0, 1))))
    assert np.abs(ends[0] - ends[1]).max() > 0.1
    with pytest.raises(ValueError, match="Argument `matrix` must have its first 2 columns linearly independent"):
        alignment.unique_qr(matrix)


def test_start_statistics():
    """(21): R_jj of a normal matrix is a chi variable of d - j + 1 degrees; d = 4, m = 3 and m = 6."""
    for m in (3, 6):
        degrees = 4 - np.arange(min(4, m))
        law = chi(degrees)
        np.testing.assert_allclose(alignment.mean_singular_values(0.1, 4, m), 0.1 * law.mean(), rtol=1e-12)
        np.testing.assert_allclose(alignment.rms_singular_values(0.1, 4, m), 0.1 * np.sqrt(law.moment(2)), rtol=1e-12)
        draws = RNG(m).normal(size=(2000, 4, m)) * 0.1
        r = np.abs(np.diagonal(np.linalg.qr(draws)[1], axis1=1, axis2=2))
        np.testing.assert_allclose(alignment.mean_singular_values(0.1, 4, m), r.mean(axis=0), rtol=0.06)


@pytest.mark.parametrize("gammas", [[1.0, 0.5, 0.3, 0.2], [1.0, 0.5, 0.5, -0.2]])
def test_top_spectral_encoders_have_the_least_norm(gammas):
    gamma, rng = rotated(gammas), RNG(0)
    left = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    top = np.asarray(optima.top_spectral_encoder(gamma, 2, left))
    np.testing.assert_allclose(top @ gamma @ top.T, np.eye(2), atol=1e-13)
    least = float(optima.least_squared_norm(np.array(gammas), 2))
    assert np.sum(top**2) == pytest.approx(least, rel=1e-12) == pytest.approx(3.0)
    norms = []
    while len(norms) < 200:
        w = rng.normal(size=(2, 4))
        values, columns = np.linalg.eigh(w @ gamma @ w.T)
        if values[0] > 0:
            norms.append(np.sum((columns * values**-0.5 @ columns.T @ w) ** 2))
    assert min(norms) >= least * (1 - 1e-12)


def test_without_enough_positive_eigenvalues():
    gamma = rotated([1.0, -0.5, -0.6])
    top = np.asarray(optima.top_spectral_encoder(gamma, 5))
    assert top.shape == (5, 3) and (top[1:] == 0).all()
    assert np.sum((top @ gamma @ top.T - np.eye(5)) ** 2) == pytest.approx(
        float(optima.least_loss(np.array([1.0, -0.5, -0.6]), 5))
    )
    with pytest.raises(ValueError, match="Argument `gammas` must have 2 values > 0"):
        optima.least_squared_norm(np.array([1.0, -0.5, -0.6]), 2)


@pytest.mark.parametrize(("gamma", "decay"), [(1.0, 0.1), (0.3, 0.5), (0.2, 0.5), (-0.4, 0.1)])
def test_optimum_under_weight_decay(gamma, decay):
    """(31) as printed belongs to twice the decay of (27): 0.948683 for 0.974679 at gamma = 1, epsilon = 0.1."""
    best = minimize_scalar(
        lambda s: (1 - gamma * s * s) ** 2 + decay * s * s, bounds=(0, 5), method="bounded", options={"xatol": 1e-10}
    )
    assert float(optima.decayed_singular_value(gamma, decay)) == pytest.approx(best.x, abs=1e-6)
    if gamma == 1:
        assert abs(best.x - np.sqrt(gamma - decay) / gamma) > 0.02


@pytest.mark.parametrize("gamma", [1.0, 0.02, -0.7, 50.0])
@pytest.mark.parametrize("s0", [1e-6, 0.3, 20.0])
def test_variants_of_one_mode(gamma, s0):
    """Quartic and preconditioned against DOP853 in log s; start below, above, and gamma < 0; ridge above and below nu/gamma."""
    ts = np.linspace(0, 3, 6) / abs(gamma)

    def solved(rate):
        return np.exp(path(lambda u: rate(np.exp(2 * u)), [np.log(s0)], ts, atol=1e-13)[:, 0])

    quartic = variants.quartic_singular_value(ts, s0, gamma)
    np.testing.assert_allclose(quartic, solved(lambda q: 8 * gamma * (1 - gamma * q) ** 3), rtol=1e-10)
    np.testing.assert_allclose(variants.quartic_time_to_reach(quartic, s0, gamma), ts, rtol=1e-10, atol=1e-15)
    for share, ridge in ((1.7, 0.2), (0.1, 0.6)):
        nu = share * abs(gamma)
        got = variants.preconditioned_singular_value(ts, s0, gamma, nu, ridge)
        want = solved(lambda q, nu=nu, ridge=ridge: 4 * gamma * (1 - gamma * q) / (nu * q + ridge))
        np.testing.assert_allclose(got, want, rtol=1e-9)
    for form in (variants.quartic_singular_value, lambda *p: variants.preconditioned_singular_value(*p, 0.5, 0.1)):
        np.testing.assert_allclose(form(np.inf, s0, gamma), modes.limit(s0, gamma), rtol=1e-14)
        assert form(0.0, s0, gamma) == s0 == form(5.0, s0, 0.0)


def test_claims_of_appendix_g():
    """Sharp: from 0, extinction at 0.458162; smooth: stays above; quartic: the algebraic end 1 - l ~ (32 gamma t)^(-1/2)."""
    np.testing.assert_allclose(
        variants.sharp_singular_value(np.array([0.1, np.inf]), 0.0, 4.0), [0.5 * (1 - np.exp(-0.8)), 0.5], rtol=1e-14
    )
    end = float(variants.sharp_extinction_time((np.exp(0.458162) - 1) / np.sqrt(0.5), -0.5))
    assert end == pytest.approx(0.458162, rel=1e-12)
    s0 = (np.exp(0.458162) - 1) / np.sqrt(0.5)
    assert (
        variants.sharp_singular_value(end * (1 - 1e-9), s0, -0.5)
        > 0
        == variants.sharp_singular_value(2 * end, s0, -0.5)
    )
    assert np.isinf(variants.sharp_extinction_time(1.0, 0.5))
    assert variants.smooth_singular_value(9.0, 1.5, 1.0) == 1.5
    late = 1 - 0.5 * float(variants.quartic_singular_value(1e6, 1e-3, 0.5)) ** 2
    assert late * np.sqrt(32 * 0.5 * 1e6) == pytest.approx(1.0, rel=1e-3)


def test_the_closed_forms_mirror_the_flows():
    """dW/dt of every closed form is its flow: d = 3, m = 4, generic U and features, one gamma < 0, modes 1, 2, 4 (footnote 7)."""
    gammas, variance = np.array([0.9, 0.5, 0.2, -0.3]), np.array([1.0, 0.8, 0.2, 0.4])
    rows = np.linalg.qr(RNG(1).normal(size=(4, 4)))[0]
    law = view_moments((rows.T * variance) @ rows, (rows.T * gammas) @ rows)
    args = flows.barlow_twins_arguments(law, ridge=0.3, upper_slope=0.5)
    left, s0 = np.linalg.qr(RNG(2).normal(size=(3, 3)))[0], np.array([0.1, 1.9, 0.7])
    start = alignment.aligned_start(args.gamma, s0, left=left, modes=(0, 1, 3))
    g, nu, end, h = gammas[[0, 1, 3]], variance[[0, 1, 3]], 0.3, 1e-5
    ts = np.array([end - h, end, end + h])[:, None]
    forms = {
        flows.barlow_twins: modes.singular_value(ts, s0, g),
        flows.barlow_twins_preconditioned: variants.preconditioned_singular_value(ts, s0, g, nu, 0.3),
        flows.barlow_twins_sharp: variants.sharp_singular_value(ts, s0, g),
        flows.barlow_twins_smooth: variants.smooth_singular_value(ts, s0, g, 0.5),
        flows.barlow_twins_quartic: variants.quartic_singular_value(ts, s0, g),
    }
    for flow, s in forms.items():
        before, now, after = np.asarray(s)
        speed = flow(end, flows.BarlowTwinsState(jnp.asarray(left @ np.diag(now) @ start.features)), args).encoder
        np.testing.assert_allclose(speed, left @ np.diag((after - before) / (2 * h)) @ start.features, atol=1e-8)
    np.testing.assert_allclose(
        start.encoder(end), left @ np.diag(forms[flows.barlow_twins][1]) @ start.features, rtol=1e-12
    )
    c = start.encoder(end) @ args.gamma @ start.encoder(end).T
    np.testing.assert_allclose(np.linalg.eigvalsh(c), np.sort(start.eigenvalues(end)), atol=1e-13)
    assert start.loss(end) == pytest.approx(float(np.sum((c - np.eye(3)) ** 2)), rel=1e-12)
    # any off-diagonal weight has the same solution where U is a permutation with signs
    other = flows.barlow_twins_arguments(law, off_diagonal_weight=0.2)
    signed = alignment.aligned_start(args.gamma, s0, left=np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]]))
    now, slope = signed.encoder(end), (signed.encoder(end + h) - signed.encoder(end - h)) / (2 * h)
    np.testing.assert_allclose(flows.barlow_twins(end, flows.BarlowTwinsState(now), other).encoder, slope, atol=1e-8)


def test_an_aligned_start_is_its_own_alignment_whatever_the_signs_of_the_features():
    gamma = rotated([1.0, 0.6, 0.3, -0.2])
    given_start = alignment.aligned_start(
        gamma, np.array([1e-3, 2e-3, 5e-4]), left=np.linalg.qr(RNG(0).normal(size=(3, 3)))[0]
    )
    w = given_start.encoder(0.0)
    found = alignment.small_start(w, gamma).aligned
    np.testing.assert_allclose(found.start, given_start.start, rtol=1e-12)
    np.testing.assert_allclose(
        found.encoder(np.array([[0.0, 5.0]])), given_start.encoder(np.array([[0.0, 5.0]])), atol=1e-13
    )
    flipped = alignment.alignment_transformation(
        w @ (found_rows := alignment.cross_correlation_spectrum(gamma).features).T * np.array([1, -1, -1, 1])
    )
    np.testing.assert_allclose((flipped * np.array([1, -1, -1, 1])) @ found_rows, w, atol=1e-16)
    assert (
        alignment.alignment_exponent(np.ones(2), 2) == 0 and alignment.alignment_exponent(np.array([1.0, -1.0]), 3) == 1
    )


def test_under_transformations():
    gamma = rotated([1.0, 0.6, 0.3])
    starts = 1e-3 * jnp.asarray(RNG(0).normal(size=(4, 2, 3)))
    ends = jax.jit(jax.vmap(lambda w: alignment.small_start(w, gamma).aligned.encoder(3.0)))(starts)
    np.testing.assert_allclose(ends[2], alignment.small_start(starts[2], gamma).aligned.encoder(3.0), rtol=1e-10)
    assert jax.jit(modes.critical_time)(5.0, 1.0) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modes.singular_value(-1.0, 1.0, 1.0), "Argument `t` must be >= 0"),
        (lambda: modes.singular_value(np.nan, 1.0, 1.0), "Argument `t` must be >= 0"),
        (lambda: modes.singular_value(1.0, 0.0, 1.0), "Argument `s0` must be finite and > 0"),
        (lambda: modes.singular_value(1.0, 1.0, np.inf), "Argument `gamma` must be finite"),
        (lambda: modes.singular_value(1.0, np.ones(2), np.ones(3)), "must broadcast"),
        (lambda: modes.critical_time(5.0, 1.0), "Argument `s0` must have gamma s0\\^2 below `fraction`"),
        (lambda: modes.critical_time(0.1, 1.0, 1.0), "Argument `fraction` must lie strictly between"),
        (lambda: modes.aligned_loss(0.0, np.ones(2), np.ones(3)), "lists of one length"),
        (
            lambda: modes.aligned_loss(0.0, np.ones(2), np.ones(2), 1),
            "Argument `dimension` must be a whole number >= 2",
        ),
        (lambda: alignment.small_start(np.eye(2), np.eye(2)), "Argument `gamma` must have distinct eigenvalues"),
        (lambda: alignment.small_start(np.eye(3)[:1], np.diag([1.0, 1.0, 0.2])), "eigenvalues 0 and 1"),
        (lambda: alignment.small_start(np.eye(3), np.diag([2.0, 1.0])), "Argument `encoder` must have 2 columns"),
        (lambda: alignment.small_start(np.ones((2, 2)), np.diag([2.0, 1.0])), "linearly independent"),
        (lambda: alignment.small_start(np.eye(2), np.array([[1.0, 2], [0, 1]])), "Argument `gamma` must be symmetric"),
        (lambda: alignment.aligned_start(np.eye(2), np.array([1.0, -1.0])), "Argument `s0` must be finite and > 0"),
        (lambda: alignment.aligned_start(np.eye(2), np.ones(1), modes=(2,)), "Argument `modes` must name 1 different"),
        (lambda: alignment.aligned_start(np.eye(2), np.ones(1), left=2 * np.eye(1)), "orthonormal columns"),
        (lambda: alignment.alignment_exponent(np.ones(2), 0), "Argument `dimension` must be a whole number"),
        (lambda: alignment.rms_singular_values(0.0, 3), "Argument `sigma` must be finite and > 0"),
        (lambda: off_diagonal.late_factor(0.5), "Argument `ratio` must be finite and >= 1"),
        (lambda: off_diagonal.pair_factors(1.5, 2.0), "Argument `share` must lie in"),
        (lambda: optima.decayed_singular_value(1.0, -0.1), "Argument `decay` must be finite and >= 0"),
        (lambda: optima.top_spectral_encoder(np.eye(2), 2, 2 * np.eye(2)), "Argument `left` must be orthogonal"),
        (lambda: variants.sharp_singular_value(1.0, -1.0, 1.0), "Argument `s0` must be finite and >= 0"),
        (
            lambda: variants.preconditioned_singular_value(1.0, 1.0, 1.0, 1.0, 0.0),
            "Argument `ridge` must be finite and > 0",
        ),
        (lambda: variants.smooth_singular_value(1.0, 1.0, 1.0, -1.0), "Argument `upper_slope` must be"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_repeated_eigenvalues_that_are_never_learned_do_no_harm():
    start = alignment.small_start(1e-6 * RNG(0).normal(size=(3, 4)), np.diag([1.0, 0.0, 0.0, -1.0]))
    ends = np.asarray(off_diagonal.small_start_encoder(np.array([0.0, np.inf]), start))
    np.testing.assert_allclose(ends[0], start.left @ start.amplitudes @ start.features, atol=1e-18)
    np.testing.assert_allclose(np.linalg.norm(ends[1], axis=0), [1, 0, 0, 0], atol=1e-5)
    assert start.singular_values.shape == (3,) and np.isinf(start.aligned.critical_times()[1:]).all()
