"""Drawings: what is drawn is the data (lines, colours, labels, ranks), global settings stay, bad input is named."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import xarray
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, to_hex

from jepa_dyn.plots import critical_times, heat_map, learning_curves, learning_order


@pytest.fixture(autouse=True)
def settings_stay_and_figures_close():
    before = dict(matplotlib.rcParams)
    yield
    pyplot.close("all")
    assert dict(matplotlib.rcParams) == before


@pytest.fixture
def fan():
    ts, lam = np.linspace(0, 10, 21), np.array([0.5, 1.0, 2.0])
    return xarray.DataArray(
        1 - np.exp(-np.outer(lam, ts)),
        dims=("lam", "time"),
        coords={
            "lam": ("lam", lam, {"long_name": "covariance λ"}),
            "time": ("time", ts, {"long_name": "time", "units": "mode clock"}),
        },
        name="w",
        attrs={"long_name": "amplitude"},
    )


def lines_of(ax):
    return next(c for c in ax.collections if isinstance(c, LineCollection))


def test_curves_are_the_data(fan):
    figure, ax = learning_curves(fan, colour="lam")
    drawn = lines_of(ax)
    for lam, path in zip(fan.lam.values, drawn.get_segments(), strict=True):
        np.testing.assert_allclose(path, np.stack([fan.time, fan.sel(lam=lam)], axis=1))
    np.testing.assert_array_equal(drawn.get_array(), fan.lam)
    assert ax.get_xlabel() == "time (mode clock)" and ax.get_ylabel() == "amplitude"
    assert figure.axes[-1].get_ylabel() == "covariance λ"


def test_darker_means_more(fan):
    _, ax = learning_curves(fan, colour="lam")
    drawn = lines_of(ax)
    drawn.update_scalarmappable()
    brightness = drawn.get_colors()[:, :3].sum(axis=1)
    assert (np.diff(brightness) < 0).all()


def test_curves_with_times_of_their_own_and_log_axes(fan):
    own = fan.assign_coords(clock=(("lam", "time"), np.outer(1 / fan.lam, fan.time)))
    _, ax = learning_curves(own, colour="lam", x="clock", log_x=True, log_colour=True, linewidths=3)
    segments = lines_of(ax).get_segments()
    np.testing.assert_allclose(np.asarray(segments[0])[:, 0], fan.time[1:] / 0.5)  # t = 0 has no logarithm
    assert ax.get_xscale() == "log" and isinstance(lines_of(ax).norm, LogNorm)


def test_failed_lanes_are_marked(fan):
    status = xarray.DataArray([0, 1, 0], dims="lam", coords={"lam": fan.lam})
    _, ax = learning_curves(fan, colour="lam", status=status)
    good, bad = ax.collections
    assert len(good.get_segments()) == 2 and len(bad.get_segments()) == 1
    assert ax.get_legend().get_texts()[0].get_text() == "1 failed"


def test_draws_in_given_axes(fan):
    figure, axes = pyplot.subplots(1, 2)
    returned, ax = learning_curves(fan, colour="lam", ax=axes[1], colour_bar=False)
    assert returned is figure and ax is axes[1] and not axes[0].collections


@pytest.fixture
def times():
    return xarray.DataArray(
        [[1.0, 2.0, 3.0, np.inf], [5.0, 4.0, 3.0, np.inf]],
        dims=("objective", "lam"),
        coords={"objective": ["mae", "jepa"], "lam": [0.1, 0.2, 0.3, -0.1]},
        name="critical time",
    )


def test_critical_times_and_the_never_learned(times):
    _, ax = critical_times(times, x="lam", hue="objective")
    mae, jepa, *never = ax.lines
    np.testing.assert_array_equal(mae.get_ydata(), [1, 2, 3])
    np.testing.assert_array_equal(jepa.get_ydata(), [5, 4, 3])
    assert [line.get_xdata().tolist() for line in never] == [[-0.1], [-0.1]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["MAE", "JEPA"]
    assert to_hex(jepa.get_color()).lower() == "#0072b2" and ax.get_yscale() == "log"


def test_relative_times_and_numeric_hues(times):
    spread = times.assign_coords(objective=[2.0, 5.0]).rename(objective="depth")
    _, ax = critical_times(spread, x="lam", hue="depth", relative=True)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [5 / 3, 4 / 3, 1])
    assert ax.get_legend().get_texts()[0].get_text() == "depth = 2"
    _, plain = critical_times(times.sel(objective="mae"), x="lam")
    assert plain.get_legend() is None


def test_order_is_the_rank(times):
    order = times.rename(objective="depth", lam="feature").assign_coords(depth=[1.0, 5.0], feature=[10, 20, 30, 40])
    _, ax = learning_order(order)
    ranks = [line.get_ydata().tolist() for line in ax.lines]
    assert ranks[:3] == [[1, 3], [2, 2], [3, 1]] and np.isnan(ranks[3]).all()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "5"] and ax.yaxis_inverted()


def test_map_is_the_data_and_hatches_gaps():
    values = np.array([[1.0, 10.0, 100.0], [2.0, np.nan, 200.0]])
    data = xarray.DataArray(values, dims=("b", "a"), coords={"a": [1.0, 10.0, 100.0], "b": [0.0, 1.0]}, name="q")
    _, ax = heat_map(data.T, x="a", y="b", log_x=True)
    mesh = ax.collections[0]
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), values)
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [10**-0.5, 10**0.5, 10**1.5, 10**2.5])
    assert isinstance(mesh.norm, LogNorm) and ax.patch.get_hatch()


def test_map_with_a_centre_and_contours():
    data = xarray.DataArray(
        np.outer([1.0, 2.0], [1.0, 2.0]), dims=("b", "a"), coords={"a": [0.0, 1.0], "b": [0.0, 1.0]}
    )
    _, ax = heat_map(data, x="a", y="b", centre=1.0, contours=[2.0])
    norm = ax.collections[0].norm
    assert norm(1.0) == pytest.approx(0.5) and norm(4.0) == pytest.approx(1.0) and len(ax.collections) == 2


def test_maps_of_one_value_or_none():
    one = xarray.DataArray([[1.0]], dims=("b", "a"), coords={"a": [1.0], "b": [1.0]})
    for data, shown in ((one, 1), (one * np.nan, 0)):
        _, ax = heat_map(data, x="a", y="b")
        assert ax.collections[0].get_array().count() == shown


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda fan: learning_curves(fan.values, colour="lam"), TypeError, "xarray.DataArray"),
        (lambda fan: learning_curves(fan, colour="rho"), ValueError, "'rho' must belong to the data"),
        (lambda fan: learning_curves(fan, colour="lam", x="lam"), ValueError, "one dimension"),
        (
            lambda fan: learning_curves(fan.assign_coords(lam=[-1.0, 0, 1]), colour="lam", log_colour=True),
            ValueError,
            "positive",
        ),
        (lambda fan: heat_map(fan.isel(time=0), x="lam", y="time"), ValueError, "dimensions of 'lam' and 'time'"),
        (lambda fan: critical_times(fan.values, x="lam"), TypeError, "xarray.DataArray"),
        (lambda fan: learning_order(fan), ValueError, "'depth' must belong"),
    ],
)
def test_errors_name_the_argument(fan, draw, error, message):
    with pytest.raises(error, match=message):
        draw(fan)
