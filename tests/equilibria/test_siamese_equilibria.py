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
    commuting_equilibria,
    differentiable_root,
    equilibrium_state,
    one_feature_eigenvalues,
    one_feature_roots,
    orbit_dimension,
    siamese_equilibria,
    stability,
)
from jepa_dyn.equilibria.certificate import certify, same_root
from jepa_dyn.equilibria.homotopy import FAILED, FINITE, Member, scaled, solve_total_degree
from jepa_dyn.equilibria.parameter_homotopy import generic_member, merge, solve_by_parameter
from jepa_dyn.equilibria.reduced import (
    GENERIC_COUNTS,
    entries,
    gram_of,
    rank_residual,
    reduced_residual,
    symmetric,
)
from jepa_dyn.flows import SiameseState, siamese, siamese_arguments
from jepa_dyn.moments import ViewMoments, view_moments

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
        member = Member(*random_data(rng, m), 0.02)
        paths = solve_total_degree(member, seed)
        assert len(paths.outcome) == 2 ** (m * (m + 1) // 2)
        assert (paths.outcome == FINITE).sum() == finite == len(paths.vectors) and not (paths.outcome == FAILED).any()
        for vector in paths.vectors:
            gap = np.asarray(reduced_residual(symmetric(jnp.asarray(vector), m), *member))
            assert np.abs(gap).max() < 1e-9 * (1 + np.abs(vector).max()) ** 2


@pytest.mark.parametrize("m", [2, 3])
def test_both_homotopies_find_the_same(m):
    rng = np.random.default_rng(5)
    members = [Member(*random_data(rng, m), 0.05) for _ in range(6)]
    for member, several in zip(members, solve_by_parameter(members, m), strict=True):
        ours, theirs = solve_total_degree(member).vectors, several.vectors
        assert len(ours) == len(theirs) and several.num_failed == 0
        apart = np.abs(ours[:, None] - theirs[None]).max(axis=2) / (1 + np.abs(ours).max(axis=1))[:, None]
        assert apart.min(axis=1).max() < 1e-8 and sorted(apart.argmin(axis=1)) == list(range(len(theirs)))


@pytest.mark.parametrize(("m", "rank"), [pair for pair in GENERIC_COUNTS if pair[1] > 1 or pair[0] == 1])
def test_stored_solutions_are_solutions(m, rank):
    """As many distinct ones as the Groebner bases say."""
    member, vectors = generic_member(m, rank)
    assert len(vectors) == GENERIC_COUNTS[m, rank]
    for vector in vectors:
        gap = np.asarray(rank_residual(jnp.asarray(vector), *member, rank))
        jacobian = jax.jacfwd(lambda v: rank_residual(v, *member, rank), holomorphic=True)(jnp.asarray(vector))
        # rounding times the condition number of those next to a singular beta
        assert np.linalg.norm(np.linalg.solve(jacobian, gap)) < 1e-7 * (1 + np.linalg.norm(vector))
    apart = np.abs(vectors[:, None] - vectors[None]).max(axis=2) + np.eye(len(vectors))
    assert (apart > 1e-6 * (1 + np.abs(vectors).max(axis=1))).all()


def test_the_counterexample_to_proposition_4_10(generic):
    """Four equilibria of full rank with 0, 1, 2, 3 unstable directions; S and the eigenvalue as found by another code."""
    args, found = generic
    assert found.complete and len(found.full_rank) == 4 and len(found.rank_one) == 2
    assert found.ranks[1].num_complex == 2 and found.ranks[0].num_complex == 2
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
    assert "4 of rank 2, 2 of rank 1, and 0" in str(found) and "unstable" in str(spectra[saddle])


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
    ours = np.concatenate([found.full_rank, found.ranks[1].other])
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
        for s, radius in zip(found.full_rank, found.ranks[1].radius, strict=True):

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
    for rank in (1, 2):
        data = (XX, YX, 0.02, rank)
        one, other = (certify(s, *data) for s in found.ranks[rank - 1].s[:2])
        again = certify(one.s * (1 + 1e-7), *data)
        assert same_root(one, again, *data) and not same_root(one, other, *data)
    double = certify(np.array([[(2 / 6) ** 2]]), np.array([[3.0]]), np.array([[2.0]]), 1 / 3, 1)  # tau^2 = 4 rho lambda
    assert np.isnan(double.radius)


@pytest.mark.slow
def test_three_inputs_at_every_rank():
    """Newton's method by scipy on the flow itself, from 250 starts, finds no equilibrium of any rank that is not ours."""
    rng = np.random.default_rng(2)
    xx, yx = random_data(rng, 3)
    args = arguments(xx, yx, 0.01)
    found = siamese_equilibria(args)
    assert found.complete and [one.rank for one in found.ranks] == [1, 2, 3] and len(found.ranks[1].s) >= 2
    for one, generic in zip(found.ranks, (6, 30, 24), strict=True):
        assert one.num_complex + len(one.s) + len(one.other) == generic and "NOT" not in str(one)
        for s, radius in zip(one.s, one.radius, strict=True):
            y = equilibrium_state(s, 4, args)
            assert stability(y, args).speed < 1e-12 and radius < 1e-9
            assert stability(y, args).orbit_dimension == orbit_dimension(4, one.rank)
    assert sum(stability(equilibrium_state(s, 4, args), args).stable for s in found.full_rank) <= 1

    def field(z):
        rate = siamese(0.0, SiameseState(*z.reshape(2, 3, 3)), args)
        return jnp.stack([rate.encoder, rate.predictor]).ravel()

    value, slope = jax.jit(field), jax.jit(jax.jacfwd(field))
    known, met = np.concatenate([found.all, np.zeros((1, 3, 3))]), set()
    for _ in range(250):
        z = rng.normal(size=18) * 10 ** rng.uniform(-1, 0.3)
        solved = root(lambda z: np.asarray(value(z)), z, jac=lambda z: np.asarray(slope(z)), method="lm", tol=1e-14)
        a = solved.x[:9].reshape(3, 3)
        if np.abs(value(solved.x)).max() < 1e-13:
            apart = np.linalg.norm(known - a.T @ a, axis=(1, 2))
            assert apart.min() < 1e-5
            met.add(int(apart.argmin()))
    assert len(met) > len(known) / 2


@pytest.mark.slow
def test_rank_three_of_four_inputs():
    """288 distinct solutions of random data, each of them by its equation; the real ones have certificates."""
    xx, yx = random_data(np.random.default_rng(3), 4)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    member, _ = scaled(turn @ xx @ turn.T, turn @ yx @ turn.T, 0.05)
    (found,) = solve_by_parameter([member], 3)
    assert len(found.vectors) == GENERIC_COUNTS[4, 3] and found.num_failed == found.num_at_infinity == 0
    assert len(merge(found.vectors[:0], found.vectors)) == len(found.vectors)
    for vector in found.vectors:
        assert len(merge(found.vectors, vector.conj()[None])) == len(found.vectors)
        gap = np.asarray(rank_residual(jnp.asarray(vector), *member, 3))
        jacobian = jax.jacfwd(lambda v: rank_residual(v, *member, 3), holomorphic=True)(jnp.asarray(vector))
        assert np.linalg.norm(np.linalg.solve(jacobian, gap)) < 1e-6 * (1 + np.linalg.norm(vector))
    real = [one.real for one in found.vectors if np.abs(one.imag).max() < 1e-6 * np.abs(one).max()]
    proofs = [certify(np.asarray(gram_of(jnp.asarray(one), 4, 3)), *member, 3) for one in real]
    assert len(real) == 4 and all(one.radius < 1e-9 for one in proofs)


def test_many_data_sets_at_once():
    """Lanes give what single calls give; lambda may be per lane, the moments shared."""
    decays = np.array([0.02, 0.05])
    args = jax.vmap(lambda decay: siamese_arguments(arguments(XX, YX, 0.02).moments, weight_decay=decay), out_axes=0)(
        decays
    )
    several = siamese_equilibria(args)
    assert isinstance(several, list) and len(several) == 2
    for one, decay in zip(several, decays, strict=True):
        alone = siamese_equilibria(arguments(XX, YX, decay))
        np.testing.assert_allclose(one.all, alone.all, rtol=1e-9, atol=1e-12)
        degree = siamese_equilibria(arguments(XX, YX, decay), method="total degree")
        np.testing.assert_allclose(one.full_rank, degree.full_rank, rtol=1e-9, atol=1e-12)


def test_repeated_features_form_continua_and_are_called_so():
    found = siamese_equilibria(arguments(np.eye(2), 0.9 * np.eye(2), 0.02))
    assert not found.complete and not found.ranks[0].complete and "NOT COMPLETE" in str(found)


@settings(max_examples=10, deadline=None)
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


def test_ema_spectrum_of_one_input():
    """Closed form against the Jacobian at both circles; the same stability as SG for every rate."""
    rho, tau, lam, n = 3.0, -2.0, 0.1, 3
    for r in one_feature_roots(rho, tau, lam)[:2]:
        for rate in (0.01, 0.1, 1.0, 7.0):
            args = arguments(np.array([[rho]]), np.array([[tau]]), lam, ema_rate=rate)
            found = stability(equilibrium_state(np.array([[r**2]]), n, args, target=True), args)
            want = np.sort_complex(np.asarray(one_feature_eigenvalues(r, tau, lam, n, rate)))
            np.testing.assert_allclose(np.sort_complex(found.eigenvalues), want, atol=1e-7)
            assert found.stable == (abs(tau) * r > 2 * lam)


def test_commuting_moments_have_a_closed_form():
    """All of 9 combinations of scalar roots are equilibria of their rank, and the enumeration finds no others."""
    rho, tau, lam = np.array([1.0, 2.0]), np.array([0.9, -1.2]), 0.03
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    sizes, which = commuting_equilibria(rho, tau, lam)
    assert sizes.shape == (9, 2) and (sizes[-1] == 0).all() and ((which == 0) == (sizes == 0)).all()
    found = siamese_equilibria(arguments(turn @ np.diag(rho) @ turn.T, turn @ np.diag(tau) @ turn.T, lam))
    assert found.complete and len(found.all) == 8
    for size, roots in zip(sizes[:-1], which[:-1], strict=True):
        own = found.ranks[int((roots > 0).sum()) - 1].s
        assert np.abs(own - turn @ np.diag(size) @ turn.T).max(axis=(1, 2)).min() < 1e-10
    assert (
        len(commuting_equilibria(np.array([1.0, 3.0]), np.array([1.0, 0.1]), 0.1)[0]) == 3
    )  # one mode has nothing but 0


@pytest.mark.slow
def test_four_commuting_inputs():
    """All 80 products of scalar roots, 32 of them of rank 3, are found at every rank, and no others."""
    rho, tau, lam = np.array([1.0, 2.0, 1.5, 0.7]), np.array([0.9, -1.2, 0.8, 0.75]), 0.05
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    sizes, which = commuting_equilibria(rho, tau, lam)
    found = siamese_equilibria(arguments(turn @ np.diag(rho) @ turn.T, turn @ np.diag(tau) @ turn.T, lam))
    assert found.complete and [len(one.s) for one in found.ranks] == [8, 24, 32, 16]
    for size, roots in zip(sizes[:-1], which[:-1], strict=True):
        own = found.ranks[int((roots > 0).sum()) - 1].s
        assert np.abs(own - turn @ np.diag(size) @ turn.T).max(axis=(1, 2)).min() < 1e-10


def test_inputs_that_do_not_vary_are_forgotten():
    """A third input that is constant: the equilibria of the other two, and none of rank 3."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    padded = [turn @ np.pad(matrix, ((0, 1), (0, 1))) @ turn.T for matrix in (XX, YX)]
    moments = ViewMoments(jnp.asarray(padded[0]), jnp.asarray(padded[1]), 2 * jnp.eye(3))
    args = siamese_arguments(moments, weight_decay=0.02)
    found, two = siamese_equilibria(args), siamese_equilibria(arguments(XX, YX, 0.02))
    assert found.complete and [len(one.s) for one in found.ranks] == [2, 4, 0]
    want = turn @ np.pad(two.full_rank, ((0, 0), (0, 1), (0, 1))) @ turn.T
    np.testing.assert_allclose(found.ranks[1].s, want, atol=1e-10)
    assert all(stability(equilibrium_state(s, 3, args), args).speed < 1e-12 for s in found.all)
    wrong = siamese_arguments(ViewMoments(moments.xx, jnp.eye(3), moments.yy), weight_decay=0.02)
    with pytest.raises(ValueError, match="must be 0 on inputs that do not vary"):
        siamese_equilibria(wrong)


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
        ends = [certify(s, XX, YX + sign * bump, 0.02, 2).s[0, 0] for sign in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(float(slope), rel=1e-5)
    ends = [certify(s, XX, YX, 0.02 + sign * 1e-6, 2).s[0, 0] for sign in (1, -1)]
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
        (lambda: commuting_equilibria(np.ones(1), np.ones(2), 0.1), ValueError, "Argument `tau` must have the shape of `rho`"),
        (lambda: one_feature_roots(0.0, 1.0, 0.1), ValueError, "Argument `rho` must be finite and > 0"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
