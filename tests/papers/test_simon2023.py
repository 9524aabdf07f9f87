"""Simon 2023: claims come out as they should; trained and printed series against plain numpy and scipy."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import xarray
from matplotlib import pyplot
from scipy.integrate import solve_ivp

from jepa_dyn.papers import checks, simon2023, simon2023_losses
from jepa_dyn.papers import simon2023_checks as claims
from jepa_dyn.papers.simon2023_data import photograph_pairs, photograph_problem
from jepa_dyn.papers.simon2023_losses_checks import fig9_checks, speed_up_checks
from jepa_dyn.status import Status

SMALL = {"pairs": 60, "patch_size": 4, "dimension": 4, "alpha": 1e-5}


@pytest.fixture(scope="module")
def fig1ab():
    return simon2023.fig1ab(**SMALL, learning_rate=5e-3)


@pytest.fixture(scope="module")
def fig6():
    return simon2023.fig6()


@pytest.fixture(scope="module")
def fig8():
    return simon2023.fig8()


@pytest.fixture(scope="module")
def fig9():
    return simon2023.fig9()


@pytest.fixture(scope="module")
def speed_up():
    return simon2023.speed_up(**SMALL)


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


@pytest.mark.parametrize(
    ("name", "num_checks", "num_failing", "panels"),
    [("fig1ab", 8, 2, 3), ("fig6", 9, 2, 3), ("fig8", 9, 3, 4), ("fig9", 10, 4, 4), ("speed_up", 12, 3, 4)],
)
def test_claims_come_out_as_expected_and_are_drawn(name, num_checks, num_failing, panels, request):
    dataset = request.getfixturevalue(name)
    found = checks(dataset)
    assert [c.claim for c in found if not c.as_expected] == []
    assert len(found) == num_checks and sum(not c.expected for c in found) == num_failing
    axes = getattr(simon2023, f"plot_{name}")(dataset).axes
    assert len([ax for ax in axes if ax.get_title(loc="left") and ax.has_data()]) == panels


def test_training_is_descent_on_the_pairs(fig1ab):
    """Eigenvalues of C after some hundred steps by numpy on the pairs themselves; s_j(0) by numpy's QR."""
    x, y = (rows.astype(float) for rows in photograph_pairs(60, 4, 0))
    rate, n = fig1ab.attrs["learning_rate"], len(x)
    problem = photograph_problem(60, 4, 4, 1e-5, 0)
    w = start = np.asarray(problem.y0.encoder)
    steps = np.round(fig1ab.time.values / rate).astype(int)
    index = int(np.searchsorted(steps, 300))
    for _ in range(steps[index]):
        f, g = x @ w.T, y @ w.T
        c = (f.T @ g + g.T @ f) / (2 * n)
        w = w - rate * 4 * (c - np.eye(4)) @ (g.T @ x + f.T @ y) / (2 * n)
    found = fig1ab.eigenvalue.values[index]
    assert found[0] > 0.99
    c = w @ (x.T @ y + y.T @ x) @ w.T / (2 * n)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(c)[::-1], rtol=1e-7, atol=1e-13)
    gammas, vectors = np.linalg.eigh((x.T @ y + y.T @ x) / (2 * n))
    np.testing.assert_allclose(fig1ab.gamma.values, gammas[::-1][:4], rtol=1e-10)
    wanted = np.abs(np.diagonal(np.linalg.qr(start @ vectors[:, ::-1][:, :4])[1]))
    np.testing.assert_allclose(problem.start.singular_values, wanted, rtol=1e-9)
    times = -np.log(gammas[::-1][:4] * wanted**2) / (8 * gammas[::-1][:4])
    np.testing.assert_allclose(fig1ab.predicted_time.sel(reading="(19), Gram-Schmidt").values, times, rtol=1e-9)


def test_readings_of_19():
    """The three readings on a start whose columns are known, by hand."""
    start = simon2023.small_start(np.array([[3.0, 1, 1], [0, 2, 1], [0, 0, 5]]), np.diag([3.0, 2.0, 1.0]))
    found = simon2023.readings_of_19(start, 1.0)
    np.testing.assert_allclose(found["(19), Gram-Schmidt"], [3, 2, 5], rtol=1e-12)
    np.testing.assert_allclose(found["(19) as printed"], [3, 0, np.sqrt(27)], rtol=1e-12)
    # u_3 less u_1 (u_1.u_3)/9 less u_2 (u_2.u_3)/5 = (1, 1, 5) - (1, 0, 0) - 3/5 (1, 2, 0)
    np.testing.assert_allclose(
        found["(19), outer products of raw u"], [3, 2, np.hypot(5, np.hypot(0.6, 0.2))], rtol=1e-12
    )
    np.testing.assert_allclose(found["(21)"], np.sqrt([3, 2, 1]), rtol=1e-12)


def test_entries_of_figure_6_against_scipy(fig6):
    """(45) at alpha = 1e-5 by DOP853, in the appendix's clock 4 t; (47), (48) as printed by hand."""
    one, gammas = fig6.isel(start=0), 2.0 ** -np.arange(1, 6)
    initial = one.simulated.values[0]
    assert not np.tril(initial, -1).any()

    def speed(t, a):
        a = a.reshape(3, 5)
        return ((np.eye(3) - a * gammas @ a.T) @ a * gammas).ravel()

    ts = one.t.values[[0, 60, 150, 299]]
    run = solve_ivp(speed, (0, 4 * ts[-1]), initial.ravel(), "DOP853", 4 * ts, rtol=1e-12, atol=1e-20)
    found = one.simulated.values[[0, 60, 150, 299]]
    np.testing.assert_allclose(found, run.y.T.reshape(4, 3, 5), rtol=1e-5, atol=1e-14)
    grown = np.exp(gammas[0] * 4 * ts) / np.sqrt(initial[0, 0] ** -2 + (np.exp(2 * gammas[0] * 4 * ts) - 1) * gammas[0])
    np.testing.assert_allclose(one.printed.values[[0, 60, 150, 299], 0, 0], grown, rtol=1e-9)
    above = initial[0, 1] * (grown / initial[0, 0]) ** 0.5
    np.testing.assert_allclose(one.printed.values[[0, 60, 150, 299], 0, 1], above, rtol=1e-9)


def test_descent_of_figure_9_is_the_map(fig9):
    """The last values of the squared and of the smooth loss by the one-dimensional map in plain Python."""
    for name, cut in (("squared", False), ("smooth", True)):
        for rate in (0.24, 0.26, 0.3):
            s, kept = 1e-3, []
            for number in range(3032):
                if number >= 3000:
                    kept.append(s)
                s = s if cut and s * s > 1 else s + rate * 4 * s * (1 - s * s)
            found = fig9.end.sel(name=name).sel(rate=rate, method="nearest").values
            np.testing.assert_allclose(np.sort(found), np.sort(kept), rtol=1e-6)


def test_outcomes():
    values = np.array([[1.0, 0.95], [1.0, 0.95]])
    assert simon2023_losses.outcome(Status.ok, values) == "all learned"
    assert simon2023_losses.outcome(Status.diverged, values) == "diverged"
    assert simon2023_losses.outcome(Status.ok, values + np.array([[0], [0.1]])) == "cycles"
    assert simon2023_losses.outcome(Status.ok, values - np.array([0, 0.2])) == "unfinished"
    assert simon2023_losses.outcome(Status.ok, values + np.array([0.5, 0])) == "above 1"


@pytest.mark.parametrize("last", [5.0, 401.0, 1e3, 1e6])
def test_saved_steps_increase(last):
    saved = simon2023_losses._saved_steps(last)
    assert len(saved) == simon2023_losses.SAVES and (np.diff(saved) > 0).all()
    assert saved[0] == 1 and saved[-1] - saved[-2] == 1 and saved[-1] == max(int(last), 2 * len(saved))


def test_checks_can_fail(fig1ab, fig6, fig8, fig9, speed_up):
    late = fig1ab.assign(half_time=1.3 * fig1ab.half_time, loss=fig1ab.loss + 1)
    moved = fig6.assign(simulated=1.2 * fig6.simulated + 1e-3)
    turned = fig8.assign(ssl_speed=-fig8.ssl_speed, half_time=fig8.half_time + 1 / fig8.start)
    bent = fig9.assign(loss=fig9.loss + 1, force=0 * fig9.force, end=0 * fig9.end + 1, curvature=0 * fig9.curvature + 8)
    slow = speed_up.assign(theory_time=2 * speed_up.theory_time, outcome=xarray.full_like(speed_up.outcome, "cycles"))
    for found, least in (
        (claims.fig1ab_checks(late), 5),
        (claims.fig6_checks(moved), 6),
        (claims.fig8_checks(turned), 4),
        (fig9_checks(bent), 5),
        (speed_up_checks(slow), 5),
    ):
        assert sum(not c.as_expected for c in found) >= least


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("fig1ab", {"pairs": 1}, "Argument `pairs` must be a whole number >= 2"),
        ("fig1ab", {"patch_size": 1}, "Argument `patch_size` must be a whole number >= 2"),
        ("fig1ab", {"learning_rate": 0.0}, "Argument `learning_rate` must be finite and > 0"),
        ("fig1ab", {"pairs": 8, "patch_size": 2, "dimension": 7}, "Argument `dimension` must be at most 6"),
        ("speed_up", {"pairs": 8, "patch_size": 2, "alpha": 0.0, "dimension": 3}, "Argument `alpha` must be finite and > 0"),
        ("speed_up", {"ridge": 0.0}, "Argument `ridge` must be finite and > 0"),
        ("fig6", {"alpha": 1e-3}, "Argument `alpha` must be at most 1e-5"),
        ("fig8", {"start": 0.5}, "Argument `start` must be at most 0.1"),
        ("fig9", {"start": -1.0}, "Argument `start` must be finite and > 0"),
    ],
)  # fmt: skip
def test_bad_options_are_named(call, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(simon2023, call)(**options)
