"""All equilibria of siamese networks: counts known from algebra, a counterexample worked out elsewhere, scipy from many starts."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import root

from jepa_dyn.equilibria import (
    differentiable_root,
    equilibrium_state,
    one_feature_eigenvalues,
    one_feature_roots,
    orbit_dimension,
    reduced_residual,
    siamese_equilibria,
    stability,
)
from jepa_dyn.equilibria.certificate import certify, same_root
from jepa_dyn.equilibria.homotopy import FAILED, FINITE, solve_by_parameter, solve_total_degree
from jepa_dyn.equilibria.reduced import entries, symmetric
from jepa_dyn.flows import siamese, siamese_arguments
from jepa_dyn.moments import view_moments

XX, YX = np.array([[1.2, 0.35], [0.35, 0.8]]), np.array([[0.95, 0.3], [-0.2, 0.7]])


def arguments(xx, yx, weight_decay, **rates):
    large = yx @ np.linalg.solve(xx, yx.T) + np.eye(
        len(xx)
    )  # a covariance of y that is possible; no equilibrium depends on it
    return siamese_arguments(view_moments(xx, yx, large), weight_decay=weight_decay, **rates)


def random_data(rng, m):
    x = rng.normal(size=(100, m))
    y = 0.6 * x @ (np.eye(m) + 0.3 * rng.normal(size=(m, m))) + 0.4 * rng.normal(size=(100, m))
    return x.T @ x / 100, y.T @ x / 100


@pytest.fixture(scope="module")
def generic():
    args = arguments(XX, YX, 0.02)
    return args, siamese_equilibria(args)


@pytest.mark.parametrize(("m", "finite"), [(1, 2), (2, 6), (3, 24)])
def test_every_path_is_accounted_for(m, finite):
    """2, 6, 24 finite solutions of 2, 8, 64, for each of several data sets; each satisfies the equation."""
    rng = np.random.default_rng(m)
    for seed in range(4):
        xx, yx = random_data(rng, m)
        paths = solve_total_degree(xx, yx, 0.02, seed)
        assert len(paths.outcome) == 2 ** (m * (m + 1) // 2)
        assert (paths.outcome == FINITE).sum() == finite and not (paths.outcome == FAILED).any()
        for s in paths.solutions[paths.outcome == FINITE]:
            gap = np.asarray(reduced_residual(jnp.asarray(s), jnp.asarray(xx, complex), jnp.asarray(yx, complex), 0.02))
            assert np.abs(gap).max() < 1e-9 * (1 + np.abs(s).max()) ** 2


@pytest.mark.parametrize("m", [2, 3])
def test_both_homotopies_find_the_same(m):
    rng = np.random.default_rng(5)
    data = [random_data(rng, m) for _ in range(6)]
    several = solve_by_parameter(np.stack([d[0] for d in data]), np.stack([d[1] for d in data]), np.full(6, 0.05))
    for i, (xx, yx) in enumerate(data):
        one = solve_total_degree(xx, yx, 0.05)
        ours, theirs = one.solutions[one.outcome == FINITE], several.solutions[i][several.outcome[i] == FINITE]
        assert len(ours) == len(theirs)
        apart = np.abs(ours[:, None] - theirs[None]).max(axis=(2, 3)) / (1 + np.abs(ours).max(axis=(1, 2)))[:, None]
        assert apart.min(axis=1).max() < 1e-8 and sorted(apart.argmin(axis=1)) == list(range(len(theirs)))


def test_the_counterexample_to_proposition_4_10(generic):
    """Four equilibria of full rank with 0, 1, 2, 3 unstable directions; S and the eigenvalue as found by another code."""
    args, found = generic
    assert found.complete and len(found.full_rank) == 4 and len(found.rank_one) == 2 and found.num_complex == 2
    states = [equilibrium_state(s, 3, args) for s in found.full_rank]
    spectra = [stability(y, args) for y in states]
    assert sorted(one.num_unstable for one in spectra) == [0, 1, 2, 3]
    assert all(one.speed < 1e-13 and one.orbit_dimension == orbit_dimension(3, 2) == 3 for one in spectra)
    saddle = next(i for i, one in enumerate(spectra) if one.num_unstable == 1)
    known = [[0.78226569, -0.31557027], [-0.31557027, 0.12802903]]
    np.testing.assert_allclose(found.full_rank[saddle], known, atol=1e-8)
    assert spectra[saddle].transverse[0].real == pytest.approx(0.0193895, abs=5e-8)
    ema = arguments(XX, YX, 0.02, ema_rate=0.1)
    above = stability(equilibrium_state(found.full_rank[saddle], 3, ema, target=True), ema)
    assert above.transverse[0].real == pytest.approx(0.016481, abs=5e-7) and not above.stable
    # the stable one has the largest trace
    assert [one.stable for one in spectra] == [True, False, False, False]
    assert "4 of full rank" in str(found) and "unstable" in str(spectra[saddle])


def test_rank_one_equilibria_can_be_stable(generic):
    args, found = generic
    states = [equilibrium_state(s, 3, args) for s in found.rank_one]
    spectra = [stability(y, args) for y in states]
    assert np.sqrt(np.trace(found.rank_one[0])) == pytest.approx(0.9531, abs=5e-5)
    assert [one.stable for one in spectra] == [True, False]
    assert all(one.speed < 1e-13 and one.orbit_dimension == orbit_dimension(3, 1) == 2 for one in spectra)
    origin = stability(equilibrium_state(np.zeros((2, 2)), 3, args), args)
    assert origin.stable and origin.orbit_dimension == 0 and origin.transverse.real.max() == pytest.approx(-0.02)


def test_scipy_finds_no_further_root(generic):
    """MINPACK from 300 starts over several orders of magnitude: every real root that it finds is ours."""
    _, found = generic
    ours = np.concatenate([found.full_rank, found.other_real])
    rng = np.random.default_rng(0)
    hits = np.zeros(len(ours), int)
    gap = jax.jit(lambda v: entries(reduced_residual(symmetric(v, 2), jnp.asarray(XX), jnp.asarray(YX), 0.02)))
    for _ in range(300):
        factor = rng.normal(size=(2, 2)) * 10 ** rng.uniform(-2, 0.5)
        solved = root(
            lambda v: np.asarray(gap(jnp.asarray(v))),
            np.asarray(entries(jnp.asarray(factor @ factor.T))),
            tol=1e-13,
        )
        if np.abs(solved.fun).max() < 1e-13:
            apart = np.linalg.norm(ours - np.asarray(symmetric(jnp.asarray(solved.x), 2)), axis=(1, 2))
            assert apart.min() < 1e-6
            hits[apart.argmin()] += 1
    assert (hits > 0).all()


def test_certificates_hold_in_many_digits(generic):
    """Newton's method at 50 digits ends within the proved radius."""
    _, found = generic
    with mpmath.workdps(50):
        xx, yx, lam = mpmath.matrix(XX.tolist()), mpmath.matrix(YX.tolist()), mpmath.mpf(0.02)
        for s, radius in zip(found.full_rank, found.radius, strict=True):

            def gap(a, b, c):
                matrix = mpmath.matrix([[a, b], [b, c]])
                shifted = xx * matrix + lam * mpmath.eye(2)
                value = shifted * shifted.T - yx.T * matrix * yx
                return value[0, 0], value[0, 1], value[1, 1]

            exact = mpmath.findroot(gap, (s[0, 0], s[0, 1], s[1, 1]), tol=1e-60)
            error = mpmath.sqrt((exact[0] - s[0, 0]) ** 2 + 2 * (exact[1] - s[0, 1]) ** 2 + (exact[2] - s[1, 1]) ** 2)
            assert error <= radius < 1e-11


def test_certificates_tell_roots_apart(generic):
    _, found = generic
    one, other = (certify(s, XX, YX, 0.02) for s in found.full_rank[:2])
    again = certify(found.full_rank[0] + 1e-7, XX, YX, 0.02)
    assert same_root(one, again) and not same_root(one, other)
    double = certify(np.array([[(2 / 6) ** 2]]), np.array([[3.0]]), np.array([[2.0]]), 1 / 3)  # tau^2 = 4 rho lambda
    assert np.isnan(double.radius)


@pytest.mark.slow
def test_exactly_one_orbit_of_full_rank_is_stable():
    """The replacement for proposition 4.10, over random data: where any S exists exactly one is stable; most are saddles."""
    rng = np.random.default_rng(11)
    data = [random_data(rng, 2) for _ in range(60)]
    counts, indices = [], []
    for xx, yx in data:
        args = arguments(xx, yx, 0.02)
        found = siamese_equilibria(args)
        assert found.complete
        unstable = [stability(equilibrium_state(s, 3, args), args) for s in found.full_rank]
        counts.append(sum(one.stable for one in unstable))
        indices += [one.num_unstable for one in unstable]
        assert (counts[-1] == 1) == (len(unstable) > 0)
        if unstable:
            assert unstable[0].stable  # that of the largest trace
    assert sum(counts) >= 20 and np.mean(np.array(indices) > 0) > 0.5


def test_three_inputs():
    rng = np.random.default_rng(2)
    xx, yx = random_data(rng, 3)
    args = arguments(xx, yx, 0.01)
    found = siamese_equilibria(args)
    assert found.full_rank_complete and found.num_complex + len(found.full_rank) + len(found.other_real) == 24
    assert not found.complete and found.unsearched_ranks == (2,) and "rank 2     not searched" in str(found)
    for s in found.full_rank:
        one = stability(equilibrium_state(s, 4, args), args)
        assert one.speed < 1e-12 and one.orbit_dimension == orbit_dimension(4, 3) == 6
    assert sum(stability(equilibrium_state(s, 4, args), args).stable for s in found.full_rank) <= 1


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 4.0), st.floats(-3.0, 3.0), st.floats(1e-3, 0.5), st.integers(1, 3))
def test_one_input_has_a_closed_form(rho, tau, lam, n):
    args = arguments(np.array([[rho]]), np.array([[tau]]), lam)
    small, large, delta = one_feature_roots(rho, tau, lam)
    if abs(float(delta)) < 1e-3 * lam or abs(tau) < 1e-2:
        return
    found = siamese_equilibria(args)
    assert found.complete and len(found.full_rank) == (2 if delta > 0 else 0)
    if delta > 0:
        np.testing.assert_allclose(found.full_rank[:, 0, 0], [large**2, small**2], rtol=1e-9)
        for s, r in zip(found.full_rank, (large, small), strict=True):
            spectrum = stability(equilibrium_state(s, n, args), args)
            want = np.sort(np.asarray(one_feature_eigenvalues(r, tau, lam, n)))[::-1]
            np.testing.assert_allclose(spectrum.eigenvalues.real, want, atol=1e-7 * (1 + rho + abs(tau)) ** 2)
            assert spectrum.stable == (abs(tau) * r > 2 * lam)
    else:
        assert np.isnan(small) and np.isnan(large)


def test_one_input_at_its_edges():
    small, large, delta = one_feature_roots(3.0, 2.0, 1 / 3)  # Delta = 0: the fold
    assert float(delta) == pytest.approx(0, abs=1e-15) and float(small) == pytest.approx(float(large), rel=1e-7)
    small, large, _ = one_feature_roots(3.0, -2.0, 0.0)  # no decay: one root at 0
    assert (float(small), float(large)) == (0.0, pytest.approx(2 / 3))
    assert np.isnan(one_feature_roots(3.0, 0.0, 0.1)[1])  # nothing to predict: only 0
    assert [float(r) for r in one_feature_roots(3.0, 0.0, 0.0)[:2]] == [0.0, 0.0]


def test_commuting_moments_give_products_of_scalar_roots():
    rho, tau, lam = np.array([1.0, 2.0]), np.array([0.9, -1.2]), 0.03
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    found = siamese_equilibria(arguments(turn @ np.diag(rho) @ turn.T, turn @ np.diag(tau) @ turn.T, lam))
    small, large, _ = (np.asarray(a) for a in one_feature_roots(rho, tau, lam))
    want = [
        turn @ np.diag([a, b]) @ turn.T for a in (small[0] ** 2, large[0] ** 2) for b in (small[1] ** 2, large[1] ** 2)
    ]
    for s in want:
        assert np.abs(found.full_rank - s).max(axis=(1, 2)).min() < 1e-10
    assert found.complete


def test_roots_as_functions_of_the_data(generic):
    args, found = generic
    s = found.full_rank[1]

    def first_entry(yx, weight_decay):
        moved = siamese_arguments(args.moments, weight_decay=0.0)
        moments = type(args.moments)(args.moments.xx, yx, args.moments.yy)
        return differentiable_root(s, type(moved)(moments, weight_decay, *list(jax.tree.leaves(moved))[4:]))[0, 0]

    by_yx, by_decay = jax.grad(first_entry, (0, 1))(jnp.asarray(YX), jnp.asarray(0.02))
    h = 1e-5
    for bump, slope in (
        (np.array([[0.0, h], [0.0, 0.0]]), by_yx[0, 1]),
        (np.array([[0.0, 0.0], [h, 0.0]]), by_yx[1, 0]),
    ):
        ends = [certify(s, XX, YX + sign * bump, 0.02).root[0, 0] for sign in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(float(slope), rel=1e-5)
    ends = [certify(s, XX, YX, 0.02 + sign * 1e-6).root[0, 0] for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(by_decay), rel=1e-5)


def test_the_state_stands_still_at_any_size(generic):
    """n = m, n > m, and n < m for what has rank 1; with and without a target."""
    args, found = generic
    for s, n in ((found.full_rank[0], 2), (found.full_rank[0], 5), (found.rank_one[0], 1)):
        for target in (False, True):
            y = equilibrium_state(s, n, args, target=target)
            np.testing.assert_allclose(y.encoder.T @ y.encoder, s, atol=1e-12)
            assert all(np.abs(leaf).max() < 1e-12 for leaf in jax.tree.leaves(siamese(0.0, y, args)))


def test_float32_users_get_float64_roots(float32):
    found = siamese_equilibria(arguments(XX.astype(np.float32), YX.astype(np.float32), 0.02))
    assert found.full_rank.dtype == np.float64 and len(found.full_rank) == 4 and found.complete


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: siamese_equilibria(arguments(XX, YX, 0.0)), ValueError, "Argument `args.weight_decay` must be finite and > 0"),
        (lambda: siamese_equilibria(arguments(np.eye(5), 0.5 * np.eye(5), 0.1)), ValueError, "at most 4 inputs"),
        (lambda: siamese_equilibria(arguments(XX, YX, 0.1), method="newton"), ValueError, "`method` must be one of"),
        (lambda: jax.jit(siamese_equilibria)(arguments(XX, YX, 0.1)), TypeError, "Argument `args` must be concrete"),
        (lambda: equilibrium_state(np.eye(2), 1, arguments(XX, YX, 0.1)), ValueError, "must be at least the rank 2"),
        (lambda: one_feature_roots(0.0, 1.0, 0.1), ValueError, "Argument `rho` must be finite and > 0"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
