"""The normal form itself: the table of systems it unites, its inverse pair, its tables, and one polishing step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpmath import mp, mpf
from scipy.integrate import solve_ivp

from jepa_dyn.theory.branches import DECAY, GROW, SHRINK, log_y_from_z, z_from_log_y
from jepa_dyn.theory.curve_table import build_tables, curve_log_y, start_phase
from jepa_dyn.theory.normal_form import advance, half_log_y, scaled_time, universal_curve
from jepa_dyn.theory.order import order_of, polish_log_y

from .reference import antiderivative

ORDERS = [0.0, 1 / 3, 0.5, 1.0, 3.0, 5.0, 13.0, 59.0]

# Rows of the table in the module's docstring: (right-hand side, y(w), n, k) at lam = 1.3, rho = 0.7, L = 3, gamma = 0.6
LAM, RHO, L, GAMMA = 1.3, 0.7, 3.0, 0.6
ROWS = {
    "jepa": (
        lambda w: LAM * w ** (3 - 1 / L) - LAM / RHO * w**3,
        lambda w: w ** (1 / L) / RHO,
        2 * L - 1,
        LAM * RHO ** (2 * L - 1) / L,
    ),
    "mae": (
        lambda w: LAM * w ** (2 - 1 / L) - LAM / RHO * w**3,
        lambda w: w ** ((L + 1) / L) / RHO,
        (L - 1) / (L + 1),
        (L + 1) / L * LAM * RHO ** ((L - 1) / (L + 1)),
    ),
    "barlow twins, s' = -4 (gamma s^2 - 1) gamma s": (
        lambda s: -4 * (GAMMA * s**2 - 1) * GAMMA * s,
        lambda s: GAMMA * s**2,
        0.0,
        8 * GAMMA,
    ),
    "directpred, l' = 2 alpha eta l^2 (1 - l)": (lambda x: 2 * 0.5 * 0.3 * x**2 * (1 - x), lambda x: x, 1.0, 2 * 0.5 * 0.3),
    "isoloss, l' = 2 alpha eta l (1 - l)": (lambda x: 2 * 0.5 * 0.3 * x * (1 - x), lambda x: x, 0.0, 2 * 0.5 * 0.3),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_every_system_of_the_table_is_the_normal_form(row):
    """dy/ds = y^(1+n) (1-y) with s = k t, through the chain rule by automatic differentiation."""
    rhs, to_y, n, k = ROWS[row]
    for w in (0.01, 0.05, 0.2, 0.3):
        y = to_y(w)
        np.testing.assert_allclose(jax.grad(to_y)(w) * rhs(w), k * y ** (1 + n) * (1 - y), rtol=1e-12)


@pytest.mark.parametrize("branch", [GROW, SHRINK, DECAY])
@pytest.mark.parametrize("n", [*ORDERS, -0.8, -1 / 3, 1e-9])
def test_time_and_state_are_inverse(branch, n):
    """|x - x'| against the rounding of x and of sigma, over 12 decades of distance."""
    rng = np.random.default_rng(3)
    x0 = {
        GROW: -(10 ** rng.uniform(-6, 1.4, 200)),
        SHRINK: 10 ** rng.uniform(-6, 0.7, 200),
        DECAY: rng.uniform(-30, 4, 200),
    }[branch]
    x0 = jnp.asarray(x0)
    z = z_from_log_y(x0, branch) + 10 ** rng.uniform(-8, 1.3, 200)
    x, order = log_y_from_z(z, branch), jnp.full(200, n)
    sigma = scaled_time(x0, x, x - x0, order, branch)
    usable = np.array((sigma > 0) & (sigma < 1e250))
    back = log_y_from_z(advance(x0, sigma, order, jnp.full(200, branch)), branch)
    # dx = e^(n (x - x0)) (dx/dz) dsigma; where that loses everything (grow, y0^n below rounding) there is nothing to test
    speed = jnp.abs((1 + jnp.exp(x)) if branch == DECAY else jnp.expm1(x))
    amplified = jnp.exp(n * (x - x0)) * sigma
    usable &= np.asarray(amplified * 1e-16 < 1e-4)
    assert usable.sum() > 50
    limit = 1e-14 * (amplified * speed + jnp.abs(x) + jnp.abs(x0))
    assert np.all(np.abs(np.asarray(back - x))[usable] <= np.asarray(limit)[usable])


@pytest.mark.parametrize(("x0", "x", "n", "branch"), [
    (-30.0, -1e-9, 5.0, GROW), (-1e-3, -1e-4, 59.0, GROW), (-2.0, -0.6931471805599453, 2.5, GROW), (-80.0, -0.1, -0.5, GROW),
    (3.0, 1e-6, 59.0, SHRINK), (0.05, 0.02, 30.3, SHRINK), (0.7, 0.6931, 0.25, SHRINK), (4.0, 2.0, -0.7, SHRINK),
    (2.0, -5.0, 7.0, DECAY), (0.6931471805599453, -0.6931471805599453, 59.0, DECAY), (-3.0, -40.0, -0.4, DECAY),
    (5.0, 4.999, 0.5, DECAY),
])  # fmt: skip
def test_time_integral_against_mpmath(x0, x, n, branch):
    sign = -1 if branch == DECAY else 1
    y0, y, order = mp.exp(mpf(x0)), mp.exp(mpf(x)), mpf(n)
    truth = (
        y0**order * (antiderivative(y, order, sign) - antiderivative(y0, order, sign)) * (-1 if branch == DECAY else 1)
    )
    got = scaled_time(*map(jnp.asarray, (x0, x, x - x0, n)), branch)
    # x - x0 is rounded once: relative error eps |x| / |x - x0|, amplified by n |x - x0|
    assert abs(float(got) / truth - 1) < 1e-13 + 4e-16 * (abs(x) + abs(x0)) * (n + 1 / abs(x - x0))


def test_universal_curve_solves_its_equation():
    s = np.linspace(-4, 8, 13)
    for n in (0.0, 0.5, 1.0, 5.0):
        half = float(np.exp(half_log_y(jnp.asarray(n))))
        for side in (s[s <= 0][::-1], s[s >= 0]):
            solution = solve_ivp(
                lambda _, y, n=n: y ** (1 + n) * (1 - y), (0, side[-1]), [half], "DOP853", side, rtol=1e-13, atol=1e-20
            )
            expected = solution.y[0] ** ((1 + n) / 2)
            np.testing.assert_allclose(universal_curve(side, n), expected, rtol=1e-11)


@pytest.fixture(scope="module")
def tables():
    """All orders in one table, with starts from just below the half height to 1e-12 in w."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, len(ORDERS), 4000)
    n = jnp.asarray(np.array(ORDERS)[label])
    half = half_log_y(n)
    x0 = half - jnp.asarray(10 ** rng.uniform(-3, 1.4, 4000)) * 2 / (1 + n)
    u0 = -scaled_time(half, x0, x0 - half, n, GROW)
    z0 = np.asarray(z_from_log_y(x0, GROW))
    lowest = np.array([z0[label == g].min() for g in range(len(ORDERS))])
    log_phase = float(jnp.log(jnp.max(jnp.abs(u0))))
    table = build_tables(np.array(ORDERS), log_phase, lowest)
    return table, table.orders.of(jnp.asarray(label)), n, half, x0, -jnp.abs(u0), rng


def test_table_of_start_phases(tables):
    table, place, _, _, x0, u0, _ = tables
    np.testing.assert_allclose(start_phase(table, place, x0), u0, rtol=2e-11)


def test_table_of_the_curve_and_its_polish(tables):
    """Error in log w = x (1 + n) / 2: 3e-11 from the table, rounding after one Newton step."""
    table, place, n, half, _, u0, rng = tables
    late = jnp.asarray(10 ** rng.uniform(-6, 1.3, n.size))
    u = jnp.where(rng.random(n.size) < 0.6, u0 * rng.random(n.size) ** 3, late)
    exact = log_y_from_z(advance(half, u, n, jnp.zeros(n.shape, int)), GROW)
    x = curve_log_y(table, place, u)
    assert float(jnp.max(jnp.abs(x - exact) * (1 + n) / 2)) < 3e-11
    for order in (0.0, 1 / 3, 5.0, 59.0):
        rows = np.flatnonzero(np.asarray(n) == order)
        polished = jax.jit(polish_log_y)(x[rows], u[rows], jax.tree.map(jnp.asarray, order_of(order)))
        error = jnp.abs(polished - exact[rows]) * (1 + order) / 2
        # the phase u itself is known to a rounding, which the slope of log w turns into the same
        assert float(jnp.max(error)) < 1e-13 * (1 + order)


def test_times_outside_the_table_stay_at_its_ends(tables):
    table, place, *_ = tables
    one = jax.tree.map(lambda leaf: leaf[:1], place)
    assert curve_log_y(table, one, jnp.array([1e9]))[0] > -1e-15
    assert np.isfinite(curve_log_y(table, one, jnp.array([-1e300]))[0])
