"""Figures 2 and 4: every claim comes out as it should, misprints fail beside their corrections, checks can fail."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot
from scipy.integrate import solve_ivp

from jepa_dyn.papers import checks, littwin2024
from jepa_dyn.papers import littwin2024_checks as claims


@pytest.fixture(scope="module")
def fig2():
    return littwin2024.fig2()


@pytest.fixture(scope="module")
def fig4():
    return littwin2024.fig4()


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


@pytest.mark.parametrize("name", ["fig2", "fig4"])
def test_every_claim_comes_out_as_expected(name, request):
    found = checks(request.getfixturevalue(name))
    assert [c.claim for c in found if not c.as_expected] == []
    assert len(found) >= 10


@pytest.mark.parametrize("name", ["fig2", "fig4"])
def test_a_claim_that_fails_has_a_corrected_sibling(name, request):
    found = checks(request.getfixturevalue(name))
    assert any(not c.expected for c in found)
    for failed in (c for c in found if not c.expected):
        assert failed.note or any(c.expected and "(corrected)" in c.printed for c in found)
    assert sum("(corrected)" in c.printed and c.holds for c in found) >= (1 if name == "fig2" else 3)


@pytest.mark.parametrize("name", ["fig2", "fig4"])
def test_closed_form_and_integration_agree(name, request):
    dataset = request.getfixturevalue(name)
    assert (dataset.status == 0).all()
    np.testing.assert_allclose(dataset.w_simulation, dataset.w_theory, atol=1e-4)
    np.testing.assert_allclose(dataset.critical_time_simulation, dataset.critical_time_theory, rtol=1e-6)
    np.testing.assert_allclose(dataset.fixed_point_simulation, dataset.fixed_point_theory, rtol=1e-6)


def test_curve_is_scipys(fig2):
    """One curve of each objective, integrated in log w by another code."""
    for objective, power in (("jepa", 3 - 1 / 5), ("mae", 2 - 1 / 5)):
        one = fig2.sel(objective=objective, panel="opposite").isel(curve=3)
        lam, rho, ts = float(one.lam), float(one.rho), one.time.values

        def rate(t, u, lam=lam, rho=rho, power=power):
            return lam * np.exp((power - 1) * u) - lam / rho * np.exp(2 * u)

        solved = solve_ivp(rate, (0, ts[-1]), [np.log(1e-3)], "LSODA", ts, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(one.w_theory, np.exp(solved.y[0]), atol=1e-5)


def test_shapes_and_labels(fig2, fig4):
    assert fig2.w_theory.dims == ("objective", "panel", "curve", "time_index")
    assert fig4.depth.values.tolist() == [2, 5, 6, 7]
    assert fig2.time.attrs["units"] == "mode clock" and fig2.attrs["eps"] == 1e-3


def test_checks_can_fail(fig2, fig4):
    """Datasets with the order of the features reversed, or a wrong fixed point, are found out."""
    wrong = fig2.copy()
    wrong["critical_time_simulation"] = wrong.critical_time_simulation.isel(curve=slice(None, None, -1))
    assert sum(not c.holds for c in claims._greedy(wrong)) == 4  # all but MAE's indifference to rho
    wrong["fixed_point_simulation"] = wrong.fixed_point_simulation * 1.001
    assert not any(c.holds for c in claims._fixed_points(wrong)) and not claims._agreement(wrong).holds
    swapped = fig4.assign_coords(objective=["mae", "jepa"])
    assert not any(c.holds for c in claims._spread_over_depth(swapped))


# measured independently (DOP853 and mpmath): ratio of critical times of rho = 0.5 and 0.9 at equal lambda
@pytest.mark.parametrize(
    ("depth", "eps", "ratio"),
    [
        (1, 1e-2, 1.010),
        (2, 1e-2, 1.16),
        (3, 1e-3, 1.15),
        (5, 1e-3, 1.60),
        (5, 1e-12, 1.004),
        (10, 1e-4, 3.18),
        (20, 1e-12, 1.47),
    ],
)
def test_ratio_of_critical_times(depth, eps, ratio):
    assert claims.time_ratio("jepa", eps, float(depth)) == pytest.approx(ratio, abs=6e-3)


def test_no_ratio_where_a_feature_starts_above_half():
    assert np.isnan(claims.time_ratio("jepa", 1e-2, 10.0)) and np.isnan(claims.time_ratio("jepa", 1e-6, 20.0))


@pytest.mark.parametrize(
    ("eps", "depth", "error"), [(0.1, 10, 0.22), (0.1, 1e3, 2.4e-3), (1e-2, 100, 0.33), (1e-3, 1e4, 0.056)]
)
def test_distance_from_the_limit_of_infinite_depth(eps, depth, error):
    assert claims.infinite_depth_error(eps, float(depth)) == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, "Argument `eps` must lie strictly between 0 and 1"),
        ({"eps": float("nan")}, "Argument `eps`"),
        ({"depth": 0.0}, "Argument `depth` must be finite and > 0"),
        ({"depth": 1.0}, "Argument `depth` must be > 1"),
        ({"eps": 0.3}, "below `fraction` of the fixed point"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        littwin2024.fig2(**options)


def test_drawings_hold_every_panel(fig2, fig4):
    for dataset, plot, panels in ((fig2, littwin2024.plot_fig2, 6), (fig4, littwin2024.plot_fig4, 8)):
        axes = [ax for ax in plot(dataset).axes if ax.get_title(loc="left")]
        assert len(axes) == panels
        for ax in axes:
            assert len(ax.collections[0].get_segments()) == 6 and len(ax.lines) == 6
