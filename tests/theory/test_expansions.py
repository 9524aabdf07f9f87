"""The papers' expansions against the exact critical time, printed errors included."""

import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn import mode_parameters
from jepa_dyn.theory import critical_time, time_to_reach
from jepa_dyn.theory.expansions import (
    expansion_parameter,
    jepa_critical_time_log,
    jepa_critical_time_ratio,
    jepa_critical_time_series,
    mae_critical_time_leading,
    mae_shallow_critical_time,
    mae_time_lerch,
)

# (L, eps, rho, relative error of (13), of (84), eps^(1/L)/rho): CORRECTIONS A.4, from DOP853 and mpmath
TABLE = [
    (2, 1e-2, 1.0, 7.1e-4, 6.6e-3, 0.10),
    (3, 1e-2, 0.5, 8.6e-2, 0.14, 0.43),
    (5, 1e-2, 0.5, 1.47, 1.79, 0.80),
    (5, 1e-4, 0.5, 3.7e-4, 7.1e-4, 0.32),
    (10, 1e-4, 0.5, 0.18, 0.22, 0.80),
]


@pytest.mark.parametrize(("depth", "eps", "rho", "series", "log", "parameter"), TABLE)
def test_jepa_expansions_have_the_known_errors(depth, eps, rho, series, log, parameter):
    args = mode_parameters(1.0, rho, float(depth))
    exact = critical_time("jepa", eps, args)
    np.testing.assert_allclose(abs(jepa_critical_time_series(eps, args) / exact - 1), series, rtol=0.03)
    np.testing.assert_allclose(abs(jepa_critical_time_log(eps, args) / exact - 1), log, rtol=0.03)
    np.testing.assert_allclose(expansion_parameter(eps, args), parameter, rtol=0.03)


def test_remainder_of_the_log_expansion():
    """(84)'s next terms are known: the constant and L log(1 - eps^(1/L)/rho) / (lam rho^(2L-1)) make it exact (eq. (82))."""
    depth, eps, rho = 3, 1e-2, 0.9
    args = mode_parameters(1.0, rho, float(depth))
    psi, scale = 0.5 ** (1 / depth), depth / rho ** (2 * depth - 1)
    constant = np.log(rho) + np.log(psi / (1 - psi)) - sum(1 / (j * psi**j) for j in range(1, 2 * depth))
    full = jepa_critical_time_log(eps, args) + scale * (constant + np.log1p(-(eps ** (1 / depth)) / rho))
    np.testing.assert_allclose(full, critical_time("jepa", eps, args), rtol=1e-13)


def test_mae_expansions():
    for depth, error in ((2.0, 1.3e-2), (3.0, 2.4e-3), (5.0, 5.3e-5)):
        args = mode_parameters(1.0, 0.8, depth)
        measured = abs(mae_critical_time_leading(1e-4, args) / critical_time("mae", 1e-4, args) - 1)
        assert measured < 4 * error
    shallow = mode_parameters(1.0, 0.8, 1.0)
    errors = [
        abs(float(mae_shallow_critical_time(eps, shallow) / critical_time("mae", eps, shallow) - 1))
        for eps in (1e-2, 1e-6, 1e-12)
    ]
    assert errors[0] > errors[1] > errors[2] > 0.01


def test_ratio_tends_to_corollary_4_8():
    """The measured coefficient (ratio - 1) / eps^(1/L) approaches (2L-1)/(2L-2) (1/rho - 1/rho')."""
    for depth in (2.0, 3.0):
        errors = []
        for eps in (1e-6, 1e-9, 1e-12):
            exact = critical_time("jepa", eps, mode_parameters(1.0, 0.5, depth)) / critical_time(
                "jepa", eps, mode_parameters(1.0, 0.9, depth)
            )
            errors.append(abs(float((exact - 1) / (jepa_critical_time_ratio(eps, 0.5, 0.9, depth) - 1) - 1)))
        assert errors[0] > errors[1] > errors[2] and errors[2] < 5e-3 * depth**2
    shallow = critical_time("jepa", 1e-10, mode_parameters(1.0, 0.5, 1.0)) / critical_time(
        "jepa", 1e-10, mode_parameters(1.0, 0.9, 1.0)
    )
    predicted = jepa_critical_time_ratio(1e-10, 0.5, 0.9, 1.0)
    assert abs(float((shallow - 1) / (predicted - 1)) - 1) < 0.15


@pytest.mark.parametrize("depth", [1.5, 2.0, 3.0, 5.0])
def test_lerch_form_is_the_same_time(depth):
    """Eq. (14), with the exponent s = 1 of eq. (97) and not the one that (15) prints."""
    args = mode_parameters(1.3, 0.7, depth)
    w = np.array([0.05, 0.2, 0.5])
    np.testing.assert_allclose(mae_time_lerch(w, 0.01, args), time_to_reach("mae", w, 0.01, args), rtol=1e-12)
    # as printed, sum z^n / (n + a)^a with a < 0 is complex
    a = (1 - depth) / (1 + depth)
    assert isinstance(complex(a) ** a, complex) and abs((complex(a) ** a).imag) > 0.1


def test_expansions_refuse_what_they_do_not_hold_for():
    with pytest.raises(ValueError, match="`depth` must be a multiple of 1/2"):
        jepa_critical_time_series(1e-3, mode_parameters(1.0, 0.8, 2.3))
    with pytest.raises(ValueError, match="`depth` must be > 1"):
        mae_critical_time_leading(1e-3, mode_parameters(1.0, 0.8, 1.0))
    with pytest.raises(ValueError, match="`depth` must be 1"):
        mae_shallow_critical_time(1e-3, mode_parameters(1.0, 0.8, 2.0))
    with pytest.raises(ValueError, match="`w` must be below the fixed point"):
        mae_time_lerch(0.99, 0.01, mode_parameters(1.0, 0.8, 2.0))
    with pytest.raises(ValueError, match="`lam` must be finite and > 0"):
        jepa_critical_time_series(1e-3, mode_parameters(-1.0, variance=1.0, depth=2.0))


def test_expansions_broadcast():
    args = mode_parameters(1.0, jnp.array([0.5, 0.9]), jnp.array([[1.0], [2.0], [2.5]]))
    assert jepa_critical_time_series(1e-4, args).shape == (3, 2)
