"""X = (C^T X C)^(1/2): the equation, uniqueness from other starts by scipy, closed forms, the derivative by differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm

from jepa_dyn.equilibria import square_root_fixed_point


@pytest.mark.parametrize("m", [1, 2, 4])
def test_equation_and_uniqueness(m):
    rng = np.random.default_rng(m)
    for _ in range(20):
        c = rng.normal(size=(m, m))
        if np.linalg.cond(c) > 50:
            continue
        x = np.asarray(square_root_fixed_point(c))
        assert np.linalg.eigvalsh(x).min() > 0
        np.testing.assert_allclose(x @ x, c.T @ x @ c, atol=1e-10 * np.abs(x).max() ** 2)
        other = rng.normal(size=(m, m))
        z = other @ other.T + 1e-3 * np.eye(m)
        for _ in range(60):
            z = np.real(sqrtm(c.T @ z @ c))
        np.testing.assert_allclose(z, x, atol=1e-6 * np.abs(x).max())


def test_normal_matrices_have_a_closed_form():
    """C symmetric: X = C^2; C a multiple of a rotation: X = s^2 1."""
    c = np.array([[1.0, 0.4], [0.4, -0.5]])
    np.testing.assert_allclose(square_root_fixed_point(c), c @ c, rtol=1e-12)
    turn = 1.7 * np.array([[0.6, 0.8], [-0.8, 0.6]])
    np.testing.assert_allclose(square_root_fixed_point(turn), 1.7**2 * np.eye(2), atol=1e-12)


def test_derivative_against_differences():
    c = jnp.array([[1.0, 0.3, 0.0], [-0.2, 0.8, 0.5], [0.1, 0.0, 1.3]])
    slope = jax.jacfwd(square_root_fixed_point)(c)
    h = 1e-6
    for i, j in ((0, 1), (2, 0), (1, 1)):
        bump = jnp.zeros((3, 3)).at[i, j].set(h)
        change = (square_root_fixed_point(c + bump) - square_root_fixed_point(c - bump)) / (2 * h)
        np.testing.assert_allclose(slope[:, :, i, j], change, atol=1e-7)


@pytest.mark.parametrize(
    ("c", "message"),
    [
        (np.ones((2, 3)), "Argument `c` must be a square matrix"),
        (np.ones((2, 2)), "Argument `c` must be invertible"),
        (np.full((2, 2), np.nan), "Argument `c` must be finite"),
    ],
)
def test_bad_input_is_named(c, message):
    with pytest.raises(ValueError, match=message):
        square_root_fixed_point(c)
