import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_dyn.moments import BASES, ViewMoments, feature_spectrum, moments_from_spectrum, view_moments
from jepa_dyn.moments.joint_diagonalisation import joint_basis, resolved_eigenbasis


def random_orthogonal(seed, d):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def random_moments(seed, d, asymmetric=0.3):
    z = np.random.default_rng(seed).normal(size=(4 * d, d))
    x, y = z, 0.6 * z + asymmetric * np.roll(z, 1, axis=1) + 0.5 * np.roll(z, 1, axis=0)
    return view_moments(x.T @ x / len(z), y.T @ x / len(z), y.T @ y / len(z))


@settings(deadline=None, max_examples=40)
@given(
    d=st.integers(1, 7),
    seed=st.integers(0, 1000),
    basis=st.sampled_from(BASES),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    data=st.data(),
)
def test_recovers_what_simultaneously_diagonal_moments_were_made_of(d, seed, basis, scale, data):
    """Distinct or equal lam, any signs: features come back, and every defect is rounding."""
    levels = st.sampled_from([-0.5, 0.0, 0.2, 0.7, 1.3])
    lam = np.array(data.draw(st.lists(levels, min_size=d, max_size=d))) * scale
    variance = scale * (1.5 + np.arange(d) / d)
    columns = random_orthogonal(seed, d)
    spectrum = feature_spectrum(moments_from_spectrum(lam, variance=variance, basis=columns), basis=basis)
    # features with equal lam come in any order: match them by direction
    overlap = np.abs(np.asarray(spectrum.basis).T @ columns)
    match = overlap.argmax(axis=1)
    np.testing.assert_array_equal(np.sort(match), np.arange(d))
    np.testing.assert_allclose(overlap[np.arange(d), match], 1, atol=1e-10)
    assert (np.diff(spectrum.lam) <= 0).all()
    np.testing.assert_allclose(spectrum.lam, lam[match], atol=1e-12 * scale)
    np.testing.assert_allclose(spectrum.variance, variance[match], rtol=1e-11)
    np.testing.assert_allclose(spectrum.rho, (lam / variance)[match], atol=1e-11)
    worst = max(float(x) for x in jax.tree.leaves(spectrum.defect)[:4])
    assert worst < 1e-12
    np.testing.assert_allclose(spectrum.leakage_xx, 0, atol=1e-11)
    np.testing.assert_array_less(np.asarray(spectrum.leakage_yx)[lam[match] != 0], 1e-10)


def two_by_two(c):
    return view_moments(np.diag([2.0, 1.0]), np.array([[0.5, c], [c, 0.5]]))


@pytest.mark.parametrize("c", [0.1, 0.4])
def test_defects_of_a_pair_that_does_not_commute_by_hand(c):
    norm_x, norm_y = np.sqrt(5), np.sqrt(0.5 + 2 * c**2)
    cross = feature_spectrum(two_by_two(c))
    np.testing.assert_allclose(cross.lam, [0.5 + c, 0.5 - c], rtol=1e-14)
    np.testing.assert_allclose(cross.variance, [1.5, 1.5], rtol=1e-14)
    np.testing.assert_allclose(np.abs(cross.basis), np.sqrt(0.5), rtol=1e-14)
    np.testing.assert_allclose(cross.defect.off_diagonal_xx, np.sqrt(0.5) / norm_x, rtol=1e-13)
    np.testing.assert_allclose(cross.defect.off_diagonal_yx, 0, atol=1e-15)
    np.testing.assert_allclose(cross.leakage_xx, 0.5 / 1.5, rtol=1e-13)
    np.testing.assert_allclose(cross.leakage_yx, 0, atol=1e-14)
    component = feature_spectrum(two_by_two(c), basis="input")
    np.testing.assert_allclose(component.lam, [0.5, 0.5], rtol=1e-14)
    np.testing.assert_allclose(component.variance, [2, 1], rtol=1e-14)
    np.testing.assert_allclose(component.defect.off_diagonal_yx, np.sqrt(2) * c / norm_y, rtol=1e-13)
    np.testing.assert_allclose(component.leakage_yx, 2 * c, rtol=1e-13)
    for spectrum in (cross, component):  # the same in every basis
        np.testing.assert_allclose(spectrum.defect.commutator, c / (norm_x * norm_y), rtol=1e-13)
        np.testing.assert_allclose(spectrum.defect.mean_square_off_diagonal, c**2, rtol=1e-13)
        np.testing.assert_allclose(spectrum.defect.asymmetry_yx, 0, atol=1e-16)


@pytest.mark.parametrize("basis", BASES)
def test_the_antisymmetric_part_is_reported(basis):
    a = 0.3
    spectrum = feature_spectrum(view_moments(np.eye(2), np.array([[0.5, a], [-a, 0.5]])), basis=basis)
    expected = a * np.sqrt(2) / np.sqrt(0.5 + 2 * a**2)
    np.testing.assert_allclose(spectrum.defect.asymmetry_yx, expected, rtol=1e-13)
    np.testing.assert_allclose(spectrum.defect.off_diagonal_yx, expected, rtol=1e-13)
    np.testing.assert_allclose(spectrum.leakage_yx, a / 0.5, rtol=1e-13)
    np.testing.assert_allclose(spectrum.defect.commutator, 0, atol=1e-15)


@settings(deadline=None, max_examples=25)
@given(d=st.integers(2, 8), seed=st.integers(0, 10_000), basis=st.sampled_from(BASES), scale=st.floats(1e-3, 1e3))
def test_identities_of_general_moments(d, seed, basis, scale):
    moments = random_moments(seed, d)
    spectrum = feature_spectrum(moments, basis=basis)
    xx, yx, b = (np.asarray(a) for a in (moments.xx, moments.yx, spectrum.basis))
    np.testing.assert_allclose(b.T @ b, np.eye(d), atol=1e-12)
    np.testing.assert_allclose(spectrum.lam.sum(), np.trace(yx), atol=1e-11)
    np.testing.assert_allclose(spectrum.variance.sum(), np.trace(xx), rtol=1e-12)
    assert (np.diff(spectrum.lam) <= 0).all()
    assert (b[np.abs(b).argmax(axis=0), np.arange(d)] > 0).all()
    # Pythagoras: what is not on the diagonal is the defect, and it is the leakage of the features
    off = float(spectrum.defect.off_diagonal_xx) * np.linalg.norm(xx)
    np.testing.assert_allclose(off**2 + (spectrum.variance**2).sum(), np.linalg.norm(xx) ** 2, rtol=1e-11)
    np.testing.assert_allclose(
        (spectrum.leakage_xx * spectrum.variance) @ (spectrum.leakage_xx * spectrum.variance),
        off**2,
        rtol=1e-9,
        atol=1e-25,
    )
    for name in ("off_diagonal_xx", "off_diagonal_yx", "asymmetry_yx", "commutator"):
        assert 0 <= float(getattr(spectrum.defect, name)) <= 1
    # units: data scaled by s changes lam by s^2, and no relative number
    scaled = feature_spectrum(ViewMoments(*(scale**2 * m for m in (moments.xx, moments.yx, moments.yy))), basis=basis)
    np.testing.assert_allclose(scaled.lam, scale**2 * spectrum.lam, atol=1e-9 * scale**2)
    np.testing.assert_allclose(scaled.rho, spectrum.rho, atol=1e-8)
    np.testing.assert_allclose(scaled.defect.off_diagonal_xx, spectrum.defect.off_diagonal_xx, atol=1e-8)


def objective(b, matrices):
    total = 0.0
    for m in matrices:
        rotated = b.T @ m @ b / np.linalg.norm(m)
        total += (rotated**2).sum() - (np.diag(rotated) ** 2).sum()
    return total


def test_joint_basis_is_the_optimum_in_the_plane():
    """All orthonormal bases of the plane are tried."""
    moments = two_by_two(0.3)
    matrices = [np.asarray(moments.xx), np.asarray(moments.yx)]
    angles = np.linspace(0, np.pi / 2, 20_001)
    best = min(objective(np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]), matrices) for t in angles)
    found = objective(np.asarray(feature_spectrum(moments, basis="joint").basis), matrices)
    assert abs(found - best) < 1e-8


@pytest.mark.parametrize("d", [2, 3, 7, 16])
def test_joint_basis_finds_a_common_eigenbasis_from_anywhere(d):
    columns = random_orthogonal(1, d)
    values = np.random.default_rng(2).uniform(0.2, 2, (2, d))
    first, second = ((columns * v) @ columns.T for v in values)
    found = joint_basis(first, second, random_orthogonal(3, d))
    assert objective(found, [first, second]) < 1e-20
    np.testing.assert_allclose(np.sort(np.abs(columns.T @ found).max(axis=0)), 1, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_joint_basis_is_no_worse_than_the_other_two(seed):
    moments = random_moments(seed, 9)
    matrices = [np.asarray(moments.xx), np.asarray((moments.yx + moments.yx.T) / 2)]
    scores = {b: objective(np.asarray(feature_spectrum(moments, basis=b).basis), matrices) for b in BASES}
    assert scores["joint"] <= min(scores["cross"], scores["input"]) * (1 + 1e-3)


def test_degenerate_eigenspaces_are_resolved_by_the_other_matrix():
    columns = random_orthogonal(5, 4)
    first = (columns * [1.0, 1.0, 1.0, 2.0]) @ columns.T
    second = (columns * [3.0, 1.0, 2.0, 5.0]) @ columns.T
    found = resolved_eigenbasis((first + first.T) / 2, second, 1e-13)
    np.testing.assert_allclose(np.sort(np.abs(columns.T @ found), axis=0)[-1], 1, atol=1e-12)


def test_a_chain_of_close_eigenvalues_is_not_one_eigenspace():
    """64 eigenvalues, neighbours closer than the tolerance, all of them ten times wider: they keep their eigenvectors."""
    values = 1 + np.arange(64) * 0.5e-6
    columns = random_orthogonal(0, 64)
    found = resolved_eigenbasis((columns * values) @ columns.T, np.diag(np.arange(64.0)), 1e-6 / np.linalg.norm(values))
    weights = (columns.T @ found) ** 2  # of the eigenvalues in each column found
    mean = values @ weights
    spread = np.sqrt((weights * (values[:, None] - mean) ** 2).sum(axis=0))
    assert spread.max() < 1.1e-6


def test_weak_features_of_float32_moments_keep_their_order(float32):
    lam = np.concatenate([[5.0], np.linspace(4e-3, -4e-3, 63)])
    basis = random_orthogonal(2, 64)
    moments = moments_from_spectrum(lam, variance=np.full(64, 6.0), basis=basis)
    spectrum = feature_spectrum(moments)
    assert (np.diff(spectrum.lam) <= 0).all()
    np.testing.assert_allclose(spectrum.lam, lam, atol=1e-5)


@pytest.mark.parametrize("basis", BASES)
def test_directions_without_variance_are_dropped_and_counted(basis):
    columns = random_orthogonal(3, 5)
    variance = np.array([1.0, 0.0, 0.5, 0.0, 2.0])
    lam = np.array([0.5, 0.0, 0.4, 0.0, -0.3])
    spectrum = feature_spectrum(moments_from_spectrum(lam, variance=variance, basis=columns), basis=basis)
    assert (spectrum.num_features, spectrum.num_dropped, spectrum.num_truncated) == (3, 2, 0)
    np.testing.assert_allclose(spectrum.lam, [0.5, 0.4, -0.3], atol=1e-14)
    np.testing.assert_allclose(spectrum.rho, [0.5, 0.8, -0.15], atol=1e-13)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(spectrum))


def test_fewer_pairs_than_dimensions():
    x = np.random.default_rng(0).normal(size=(6, 10))
    x -= x.mean(0)
    y = np.roll(x, 1, axis=0)
    spectrum = feature_spectrum(view_moments(x.T @ x / 6, y.T @ x / 6, y.T @ y / 6))
    assert spectrum.num_dropped == 5
    assert (spectrum.variance > 0).all()


def test_no_covariance_between_the_views():
    spectrum = feature_spectrum(view_moments(np.diag([2.0, 1.0]), np.zeros((2, 2))))
    np.testing.assert_array_equal(spectrum.lam, 0)
    np.testing.assert_array_equal(spectrum.leakage_yx, 0)
    assert all(float(x) == 0 for x in jax.tree.leaves(spectrum.defect))


def test_leakage_is_infinite_where_only_lam_vanishes():
    spectrum = feature_spectrum(view_moments(np.diag([2.0, 1.0]), np.array([[0.0, 0.3], [0.3, 0.0]])), basis="input")
    np.testing.assert_array_equal(spectrum.lam, 0)
    assert np.isinf(spectrum.leakage_yx).all()


def test_rounding_of_lam_is_set_to_zero():
    columns = random_orthogonal(8, 30)
    lam = np.concatenate([[1.0], np.zeros(29)])
    spectrum = feature_spectrum(moments_from_spectrum(lam, variance=np.full(30, 2.0), basis=columns))
    np.testing.assert_array_equal(spectrum.lam[1:], 0)


def test_num_features_keeps_the_strongest_and_counts_the_rest():
    moments = random_moments(0, 6)
    full, kept = feature_spectrum(moments), feature_spectrum(moments, 2)
    np.testing.assert_array_equal(kept.lam, full.lam[:2])
    np.testing.assert_array_equal(kept.basis, full.basis[:, :2])
    np.testing.assert_array_equal(kept.leakage_xx, full.leakage_xx[:2])
    assert kept.num_truncated == 4
    assert float(kept.defect.off_diagonal_xx) == float(full.defect.off_diagonal_xx)
    for bad in (0, -1, 7):
        with pytest.raises(ValueError, match=f"`num_features` must lie between 1 and 6.*is {bad}"):
            feature_spectrum(moments, bad)


def test_parameters_of_the_modes():
    spectrum = feature_spectrum(moments_from_spectrum(np.array([0.5, 0.2]), np.array([0.5, 0.8])))
    one = spectrum.parameters(3.0, weight_decay=0.01)
    np.testing.assert_allclose(one.rho, spectrum.rho, rtol=1e-13)
    np.testing.assert_allclose(one.lam, [0.5, 0.2], rtol=1e-13)
    assert spectrum.parameters(np.array([[1.0], [2.0], [5.0]])).shape == (3, 2)
    with pytest.raises(ValueError, match="`depth` must be"):
        spectrum.parameters(0.0)


def test_dtype_and_degeneracy_in_float32(float32):
    columns = random_orthogonal(3, 6)
    lam, variance = np.array([0.5, 0.5, 0.5, 0.1, 0.1, 0.0]), np.array([1.0, 2.0, 3.0, 1.0, 2.0, 1.0])
    spectrum = feature_spectrum(moments_from_spectrum(lam, variance=variance, basis=columns))
    assert spectrum.lam.dtype == jnp.float32
    for found, expected in ((slice(0, 3), [1, 2, 3]), (slice(3, 5), [1, 2]), (slice(5, 6), [1])):
        np.testing.assert_allclose(np.sort(spectrum.variance[found]), expected, rtol=1e-5)
    assert float(spectrum.defect.off_diagonal_xx) < 1e-5


def test_bad_arguments():
    moments = random_moments(0, 3)
    with pytest.raises(ValueError, match="Did you mean 'cross'"):
        feature_spectrum(moments, basis="cros")
    with pytest.raises(ValueError, match="views of equal size"):
        feature_spectrum(view_moments(np.eye(2), np.zeros((3, 2)), np.eye(3)))
    with pytest.raises(ValueError, match="must hold some variance"):
        feature_spectrum(ViewMoments(*(jnp.zeros((2, 2)),) * 3))
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(feature_spectrum)(moments)


def test_summary_says_the_defect():
    text = str(feature_spectrum(random_moments(0, 12), 10))
    assert "10 features" in text and "2 truncated" in text and "defect: off-diagonal xx" in text
    assert len(text.splitlines()) == 3 + 8 + 1
