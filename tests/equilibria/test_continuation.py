"""Branches and folds against curves known in closed form, a classical boundary value problem, bifurcations that are no folds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from jepa_dyn import Status
from jepa_dyn.equilibria import continue_branch, locate_fold, siamese_branch, siamese_equilibria
from jepa_dyn.flows import siamese_arguments
from jepa_dyn.moments import ViewMoments


def circle(x, p, radius):
    return x**2 + p**2 - radius**2


def one_feature(s, weight_decay, args):
    """The reduced equation of a siamese network with one input, as a vector field in s = |a|^2: (rho s + lambda)^2 = tau^2 s."""
    rho, tau = args
    return tau**2 * s - (rho * s + weight_decay) ** 2


def pitchfork(x, p, args):
    return x * (p - x**2)


def two_by_two(entries, weight_decay, args):
    """Eq. (6) of Ponce 2025 for m = 2 in the entries (s11, s12, s22)."""
    xx, yx = args
    s = jnp.array([[entries[0], entries[1]], [entries[1], entries[2]]])
    shifted = xx @ s + weight_decay * jnp.eye(2)
    gap = yx.T @ s @ yx - shifted @ shifted.T
    return jnp.array([gap[0, 0], gap[0, 1], gap[1, 1]])


def chebyshev(n):
    """Differentiation matrix on the n + 1 Chebyshev points of [0, 1]."""
    nodes = np.cos(np.pi * np.arange(n + 1) / n)
    weight = np.r_[2, np.ones(n - 1), 2] * (-1.0) ** np.arange(n + 1)
    gap = nodes[:, None] - nodes
    matrix = np.outer(weight, 1 / weight) / (gap + np.eye(n + 1))
    return 2 * (matrix - np.diag(matrix.sum(axis=1)))


def bratu(u, strength, second):
    return second @ u + strength * jnp.exp(u)


def test_circle_closes_and_turns_twice():
    branch = continue_branch(circle, 1.5, 0.0, 1.5, (-2.0, 2.0), step=0.05)
    np.testing.assert_allclose(branch.points**2 + branch.parameter**2, 1.5**2, rtol=1e-12)
    np.testing.assert_allclose(np.sort(branch.fold_parameters), [-1.5, 1.5], rtol=1e-14)
    np.testing.assert_allclose(branch.fold_points, [0, 0], atol=1e-12)
    assert branch.closed and branch.status == Status.ok and "closed" in str(branch)
    # each half of the circle is met: x > 0 unstable by the sign of f_x = 2 x
    assert ((branch.points > 0) == (branch.num_unstable == 1)).mean() > 0.9


@settings(max_examples=15, deadline=None)
@given(st.floats(0.2, 5.0), st.floats(0.3, 4.0), st.booleans())
def test_fold_of_one_feature(rho, tau, upwards):
    """Equilibria of one feature vanish at tau^2 = 4 rho lambda (Ponce 2025, section 4.3), stability is lost there."""
    threshold = tau**2 / (4 * rho)
    lam = 0.3 * threshold
    root = (tau + (1 if upwards else -1) * np.sqrt(tau**2 - 4 * rho * lam)) / (2 * rho)
    branch = continue_branch(one_feature, root**2, lam, (rho, tau), (0.0, 2 * threshold), step=0.02 * threshold)
    np.testing.assert_allclose(branch.fold_parameters, [threshold], rtol=1e-12)
    np.testing.assert_allclose(branch.fold_points, [(tau / (2 * rho)) ** 2], rtol=1e-7)
    on_curve = (rho * branch.points + branch.parameter) ** 2 - tau**2 * branch.points
    np.testing.assert_allclose(on_curve, 0, atol=1e-11 * tau**2 * branch.points.max())
    stable = branch.points > (tau / (2 * rho)) ** 2
    assert ((branch.num_unstable == 0) == stable).all() and stable.any() and not stable.all()


def test_threshold_as_a_function_of_the_data():
    """The fold's derivative against that of tau^2 / (4 rho), under vmap."""

    def threshold(rho, tau):
        return locate_fold(one_feature, 0.2, 0.2, (rho, tau)).parameter

    rho, tau = jnp.array([1.0, 1.3, 0.8]), jnp.array([1.0, 1.1, 0.9])
    value, (by_rho, by_tau) = jax.vmap(jax.value_and_grad(threshold, (0, 1)))(rho, tau)
    np.testing.assert_allclose(value, tau**2 / (4 * rho), rtol=1e-13)
    np.testing.assert_allclose(by_rho, -(tau**2) / (4 * rho**2), rtol=1e-10)
    np.testing.assert_allclose(by_tau, tau / (2 * rho), rtol=1e-10)


def test_bratu_folds_where_it_is_known_to():
    """u'' + p e^u = 0, u(0) = u(1) = 0: the fold solves p = 8 c^2 / cosh^2(c) with c tanh c = 1, 3.5138307..."""
    c = brentq(lambda c: c * np.tanh(c) - 1, 1, 2)
    known = 8 * c**2 / np.cosh(c) ** 2
    second = jnp.asarray((chebyshev(20) @ chebyshev(20))[1:-1, 1:-1])
    branch = continue_branch(bratu, np.zeros(19), 0.0, second, (-0.1, 4.0), step=0.1, max_points=300)
    assert branch.fold_parameters[0] == pytest.approx(known, rel=1e-10)
    assert branch.parameter.max() < known
    # the lower branch is stable, the upper one has one unstable direction
    turn = int(np.argmax(branch.parameter))
    assert (branch.num_unstable[: turn - 1] == 0).all() and (branch.num_unstable[turn + 2 :] == 1).all()


def test_pitchfork_is_walked_through_and_is_no_fold():
    branch = continue_branch(pitchfork, 0.0, -1.0, None, (-1.5, 1.0), step=0.07)
    np.testing.assert_allclose(branch.points, 0, atol=1e-12)
    assert branch.fold_parameters.size == 0 and branch.status == Status.ok
    assert ((branch.num_unstable == 1) == (branch.parameter > 0)).all()


def test_generic_two_by_two():
    """The saddle of the counterexample to proposition 4.10 (section 'Document 004' of our corrections), followed to its fold."""
    data = (jnp.array([[1.2, 0.35], [0.35, 0.8]]), jnp.array([[0.95, 0.3], [-0.2, 0.7]]))
    start = np.array([0.78226569, -0.31557027, 0.12802903])
    branch = continue_branch(two_by_two, start, 0.02, data, (0.0, 1.0))
    for s, lam in zip(branch.points, branch.parameter, strict=True):
        assert np.abs(two_by_two(s, lam, data)).max() < 1e-12
    assert branch.fold_parameters.size >= 1
    for s, lam in zip(branch.fold_points, branch.fold_parameters, strict=True):
        jacobian = jax.jacfwd(two_by_two)(jnp.asarray(s), lam, data)
        singular = np.linalg.svd(jacobian, compute_uv=False)
        assert np.abs(two_by_two(s, lam, data)).max() < 1e-12 and singular[-1] < 1e-9 * singular[0]


def siamese_args(xx, yx, weight_decay, **rates):
    size = len(xx)
    return siamese_arguments(
        ViewMoments(jnp.asarray(xx), jnp.asarray(yx), jnp.eye(size)), weight_decay=weight_decay, **rates
    )


def scaled_predictability(args, factor):
    moments = ViewMoments(args.moments.xx, factor * args.moments.yx, args.moments.yy)
    return siamese_arguments(moments, weight_decay=args.weight_decay)


def rotation(angle):
    return jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])


def turned_data(args, angle):
    turn = rotation(angle)
    moments = ViewMoments(*(turn @ matrix @ turn.T for matrix in (args.moments.xx, args.moments.yx, args.moments.yy)))
    return siamese_arguments(moments, weight_decay=args.weight_decay)


@pytest.mark.parametrize("target", [False, True])
def test_branch_of_the_whole_flow_of_one_input(target):
    """tau^2 = 4 rho lambda to 1e-10, the stable circle outside and the saddle inside it, for SG and EMA."""
    args = siamese_args([[3.0]], [[2.0]], 0.1, ema_rate=0.1)
    s = siamese_equilibria(args).full_rank[0]
    found = siamese_branch(args, s, (0.0, 1.0), outputs=2, target=target)
    np.testing.assert_allclose(found.fold_parameters, [4 / 12], rtol=1e-10)
    np.testing.assert_allclose(found.fold_s[:, 0, 0], [(2 / 6) ** 2], rtol=1e-6)
    outside = found.s[:, 0, 0] > (2 / 6) ** 2
    assert ((found.num_unstable == 0) == outside).all() and outside.any() and not outside.all()
    assert "unstable" in str(found)


@pytest.mark.slow
def test_branches_of_every_rank_and_parameter():
    """Roots along a branch are those found from scratch; the learning-rate ratio moves the stability alone."""
    data = np.array([[1.2, 0.35], [0.35, 0.8]]), np.array([[0.95, 0.3], [-0.2, 0.7]])
    args = siamese_args(*data, 0.02)
    found = siamese_equilibria(args)
    for rank in (1, 2):
        branch = siamese_branch(args, found.ranks[rank - 1].s[0], (0.01, 0.04), step=0.005)
        last = siamese_equilibria(siamese_args(*data, branch.parameter[-1])).ranks[rank - 1].s
        assert np.abs(last - branch.s[-1]).max(axis=(1, 2)).min() < 1e-8
    weaker = siamese_branch(
        args, found.full_rank[0], (0.9, 1.1), along=scaled_predictability, start=1.0, step=-0.02, outputs=3
    )
    again = siamese_equilibria(scaled_predictability(args, float(weaker.parameter[-1]))).full_rank
    assert np.abs(again - weaker.s[-1]).max(axis=(1, 2)).min() < 1e-8
    ratio = siamese_branch(args, found.full_rank[1], (0.5, 2.0), along="predictor_rate", step=0.1)
    np.testing.assert_allclose(ratio.s, np.broadcast_to(found.full_rank[1], ratio.s.shape), atol=1e-12)
    assert np.ptp(ratio.largest.real) > 1e-3 and (ratio.num_unstable > 0).all()
    # turned data have turned equilibria: also where the span of S has left the half plane of the start
    rank_one = found.ranks[0].s[0]
    half_turn = siamese_branch(args, rank_one, (-0.1, 3.0), along=turned_data, start=0.0, step=0.05)
    expected = [turned_data(args, angle).moments.xx for angle in half_turn.parameter]
    assert half_turn.branch.status == Status.ok and (np.diff(half_turn.parameter) > 0).all()
    for angle, gram, xx in zip(half_turn.parameter, half_turn.s, expected, strict=True):
        turn = rotation(angle)
        np.testing.assert_allclose(gram, turn @ rank_one @ turn.T, atol=1e-11)
        np.testing.assert_allclose(xx, turn @ data[0] @ turn.T, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"along": "momentum"}, "Argument `along` must be one of"),
        ({"along": scaled_predictability}, "Argument `start` must be given"),
        ({"s": np.zeros((1, 1))}, "Argument `s` must be of rank 1 at least"),
    ],
)
def test_bad_siamese_branches_are_named(change, message):
    given = {"s": np.eye(1), "parameter_range": (0.0, 1.0)} | change
    with pytest.raises(ValueError, match=message):
        siamese_branch(siamese_args([[3.0]], [[2.0]], 0.1), **given)


def test_a_state_of_several_arrays():
    def apart(x, p, args):
        return {"a": x["a"] ** 2 - p, "b": x["b"] - x["a"] * args}

    branch = continue_branch(apart, {"a": 1.0, "b": np.ones(2)}, 1.0, 2.0, (0.0, 4.0), step=-0.1)
    np.testing.assert_allclose(branch.points["b"], 2 * branch.points["a"][:, None] * np.ones(2), rtol=1e-12)
    np.testing.assert_allclose(branch.fold_parameters, [0], atol=1e-14)
    assert branch.points["b"].shape == (branch.num_points, 2)


def test_stops_are_named():
    short = continue_branch(circle, 1.0, 0.0, 1.0, (-2.0, 2.0), step=0.01, max_points=5)
    assert short.status == Status.max_steps and short.num_points == 5 and "max_steps" in str(short)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 0.0}, "Argument `step` must be finite and not 0"),
        ({"parameter": 3.0}, "Argument `parameter` must lie in `parameter_range`"),
        ({"parameter": float("nan")}, "Argument `parameter` must be finite"),
        ({"max_points": 0}, "Argument `max_points`"),
        ({"x0": 1.0, "args": -5.0, "parameter": 0.0, "residual": lambda x, p, a: x**2 + 1}, "finds none from there"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"residual": circle, "x0": 1.0, "parameter": 0.0, "args": 1.0, "parameter_range": (-2.0, 2.0)} | change
    with pytest.raises(ValueError, match=message):
        continue_branch(**given)
