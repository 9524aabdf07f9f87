import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_dyn.moments import ViewMoments, moments_from_spectrum, view_moments


def random_orthogonal(seed: int, d: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def test_holds_what_it_is_given():
    xx, yx, yy = np.diag([2.0, 1.0]), np.array([[0.5, 0.1], [0.0, 0.2], [0.3, 0.0]]), np.eye(3)
    moments = view_moments(xx, yx, yy)
    np.testing.assert_array_equal(moments.xx, xx)
    np.testing.assert_array_equal(moments.yx, yx)
    np.testing.assert_array_equal(moments.joint, np.block([[xx, yx.T], [yx, yy]]))
    swapped = moments.swapped()
    np.testing.assert_array_equal(swapped.yx, yx.T)
    np.testing.assert_array_equal(swapped.xx, yy)


def test_symmetrised_is_the_data_with_every_pair_in_both_orders():
    z = np.random.default_rng(0).normal(size=(50, 4))
    x, y = z[:, :2], z[:, 2:] + z[:, :2]
    one = ViewMoments(*(jnp.asarray(m) for m in (x.T @ x / 50, y.T @ x / 50, y.T @ y / 50))).symmetrised()
    both_x, both_y = np.concatenate([x, y]), np.concatenate([y, x])
    np.testing.assert_allclose(one.xx, both_x.T @ both_x / 100, rtol=1e-13)
    np.testing.assert_allclose(one.yx, both_y.T @ both_x / 100, rtol=1e-13)
    np.testing.assert_allclose(one.yy, one.xx)
    with pytest.raises(ValueError, match="equally many components"):
        view_moments(np.eye(2), np.zeros((1, 2)), np.eye(1)).symmetrised()


def test_without_yy_the_views_are_equally_distributed():
    moments = view_moments(np.diag([2.0, 1.0]), np.diag([1.0, -0.5]))
    np.testing.assert_array_equal(moments.yy, moments.xx)
    with pytest.raises(ValueError, match="`yy` must be given"):
        view_moments(np.eye(2), np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        (([[np.nan]], [[0.0]]), "`xx` must be finite"),
        (([[1.0]], [[np.inf]]), "`yx` must be finite"),
        (([[1.0]], [[0.5]], [[np.nan]]), "`yy` must be finite"),
        ((np.zeros((0, 0)), np.zeros((0, 0))), "at least one value"),
        (([1.0], [[0.5]]), "`xx` must be a matrix"),
        ((np.eye(3), np.eye(2)), r"`xx` must have shape \(2, 2\)"),
        ((np.eye(2), np.eye(2), np.eye(3)), r"`yy` must have shape \(2, 2\)"),
        (([[1.0, 0.5], [0.1, 1.0]], np.zeros((2, 2))), r"`xx` must be symmetric, but xx\[0, 1\] = 0.5"),
        (([[1.0, 2.0], [2.0, 1.0]], np.zeros((2, 2))), "`xx` must be positive semidefinite.* -1"),
        (([[1.0, 0.0], [0.0, -1.0]], np.zeros((2, 2))), r"`diag\(xx\)` must be finite and >= 0"),
        ((np.eye(2), np.zeros((2, 2)), [[1.0, 2.0], [2.0, 1.0]]), "`yy` must be positive semidefinite"),
        ((np.zeros((2, 2)), np.zeros((2, 2))), "`xx` must hold some variance"),
        ((np.eye(2), np.zeros((2, 2)), np.zeros((2, 2))), "`yy` must hold some variance"),
        (([[1.0]], [[1.01]]), "joint matrix.*smallest eigenvalue is -0.01"),
        (([[1.0, 0.0], [0.0, 0.0]], [[0.5, 0.1], [0.0, 0.0]]), "joint matrix"),
    ],
)
def test_what_no_data_can_have_is_refused_by_name(matrices, message):
    with pytest.raises(ValueError, match=message):
        view_moments(*(np.asarray(m) for m in matrices))


def test_complex_moments_are_refused():
    with pytest.raises(TypeError, match="`yx` must be real"):
        view_moments(np.eye(1), np.array([[0.5 + 0j]]))


def test_each_view_is_judged_in_its_own_units():
    """A view measured in tiny units is checked as sharply as the other, and perfect correlation is allowed."""
    view_moments(np.array([[1e-16]]), np.array([[1e-8]]), np.array([[1.0]]))
    with pytest.raises(ValueError, match="joint matrix"):
        view_moments(np.array([[1e-16]]), np.array([[1.1e-8]]), np.array([[1.0]]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_of_exact_covariances_is_no_error(dtype):
    x = np.random.default_rng(1).normal(size=(20, 40)).astype(dtype)  # rank 20: eigenvalue 0 is twenty times there
    moments = view_moments(x.T @ x / dtype(20), x.T @ x / dtype(20))
    assert moments.xx.dtype == dtype
    np.testing.assert_array_equal(moments.xx, moments.xx.T)


def test_dtype_without_x64(float32):
    assert view_moments(np.eye(2), np.eye(2)).xx.dtype == jnp.float32


def test_integers_become_floats():
    assert view_moments(np.eye(2, dtype=int), np.zeros((2, 2), int)).yx.dtype == jnp.float64


def test_goes_through_jit_grad_and_vmap():
    def energy(scale):
        return view_moments(scale * jnp.eye(2), 0.5 * scale * jnp.eye(2)).joint.sum()

    assert float(jax.jit(jax.grad(energy))(2.0)) == 6.0
    assert jax.vmap(energy)(jnp.arange(1.0, 4.0)).shape == (3,)
    batch = jax.vmap(lambda lam: moments_from_spectrum(lam, variance=jnp.ones(2)))(jnp.array([[0.1, 0.2], [0.3, 0.4]]))
    assert batch.yx.shape == (2, 2, 2)
    with pytest.raises(ValueError, match=r"`xx` must have shape \(2, 2\)"):
        jax.jit(lambda a: view_moments(a, jnp.eye(2)).xx)(jnp.eye(3))


@settings(deadline=None, max_examples=40)
@given(
    d=st.integers(1, 8),
    seed=st.integers(0, 1000),
    rho=st.lists(st.floats(0.01, 3), min_size=8, max_size=8),
    sign=st.lists(st.sampled_from([-1.0, 1.0]), min_size=8, max_size=8),
    scale=st.floats(1e-6, 1e6),
)
def test_from_spectrum_has_those_features_and_is_possible(d, seed, rho, sign, scale):
    rho_array = np.array(rho[:d]) * sign[:d]
    variance = scale * np.linspace(0.5, 2, d)
    basis = random_orthogonal(seed, d)
    moments = moments_from_spectrum(rho_array * variance, rho_array, basis=basis)
    np.testing.assert_allclose(basis.T @ moments.xx @ basis, np.diag(variance), atol=1e-12 * scale)
    np.testing.assert_allclose(basis.T @ moments.yx @ basis, np.diag(rho_array * variance), atol=1e-11 * scale)
    smallest = np.linalg.eigvalsh(moments.joint)[0]
    assert smallest > -1e-12 * np.linalg.norm(moments.joint)
    if np.all(np.abs(rho_array) <= 1):
        np.testing.assert_allclose(moments.yy, moments.xx, atol=1e-12 * scale)


def test_from_spectrum_with_variance_and_dead_directions():
    moments = moments_from_spectrum(np.array([0.5, 0.0, -0.1]), variance=np.array([1.0, 0.0, 0.2]))
    np.testing.assert_array_equal(moments.xx, np.diag([1.0, 0.0, 0.2]))
    np.testing.assert_array_equal(moments.yy, moments.xx)
    assert moments_from_spectrum(0.5, 0.8).xx.shape == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(lam=np.ones(2)), "Exactly one"),
        (dict(lam=np.ones(2), variance=np.array([1.0, 0.0])), "`variance` must be > 0 where `lam` is not 0.*index 1"),
        (dict(lam=np.ones(2), rho=np.zeros(2)), "`rho` must not be 0"),
        (dict(lam=np.ones(2), rho=-np.ones(2)), "sign of `lam`"),
        (dict(lam=np.zeros(2), variance=np.zeros(2)), "some variance"),
        (dict(lam=np.ones((2, 2)), rho=np.ones((2, 2))), "list of features"),
        (dict(lam=np.ones(2), rho=np.ones(2), basis=np.eye(3)), r"`basis` must have shape \(2, 2\)"),
        (dict(lam=np.ones(2), rho=np.ones(2), basis=np.ones((2, 2))), "`basis` must be orthogonal"),
        (dict(lam=np.ones(2), rho=np.ones(2), basis=np.full((2, 2), np.nan)), "`basis` must be finite"),
    ],
)
def test_impossible_spectra_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        moments_from_spectrum(**arguments)
