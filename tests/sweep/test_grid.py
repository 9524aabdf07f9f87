"""Grids: order of the points against itertools, laziness, labels, errors."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepa_dyn.sweep import Grid, axis


def test_product_walks_as_itertools():
    grid = Grid(lam=[1.0, 2.0, 3.0], rho=[0.1, 0.2], depth=[1, 4, 5, 6])
    expected = list(itertools.product([1.0, 2.0, 3.0], [0.1, 0.2], [1, 4, 5, 6]))
    assert [tuple(grid.point(i).values()) for i in range(len(grid))] == expected
    assert grid.shape == (3, 2, 4) and grid.dim_names == ("lam", "rho", "depth")


def test_zip_walks_together_and_multiplies():
    grid = Grid(depth=[1, 2]) * Grid.zip("feature", lam=[1.0, 2.0, 3.0], rho=[0.9, 0.5, 0.1])
    expected = [(d, lam, rho) for d in (1, 2) for lam, rho in zip((1.0, 2.0, 3.0), (0.9, 0.5, 0.1), strict=True)]
    points = grid.points(np.arange(6))
    assert list(zip(*(points[n].tolist() for n in ("depth", "lam", "rho")), strict=True)) == expected
    assert grid.coords()["rho"][0] == "feature"


def test_constants_make_no_dimension():
    grid = Grid(lam=[1.0, 2.0], depth=3.0)
    assert grid.shape == (2,) and grid.point(1) == {"lam": 2.0, "depth": 3.0}
    assert len(Grid(lam=2.0)) == 1 and Grid(lam=2.0).shape == ()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.data())
def test_point_is_numpys_unravel_index(lengths, data):
    grid = Grid(**{f"a{i}": np.arange(float(n)) for i, n in enumerate(lengths)})
    index = data.draw(st.integers(0, len(grid) - 1))
    assert tuple(grid.point(index).values()) == tuple(float(i) for i in np.unravel_index(index, lengths))


def test_a_trillion_points_cost_nothing():
    grid = Grid(**{name: np.linspace(0, 1, 10_000) for name in ("a", "b", "c")})
    assert len(grid) == 10**12
    assert grid.point(10**12 - 1) == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_labels_are_carried():
    grid = Grid(t=axis([1.0, 2.0], units="s", description="time of day"))
    assert grid.coords()["t"][2] == {"units": "s", "long_name": "time of day"}
    assert "2 points" in repr(grid) and "t 1 .. 2" in repr(grid)


def test_values_are_copied():
    values = np.array([1.0, 2.0])
    grid = Grid(a=values)
    values[0] = 7.0
    assert grid.point(0) == {"a": 1.0}


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Grid(), ValueError, "at least one axis"),
        (lambda: Grid(lam=[]), ValueError, "Axis `lam` must hold at least one value"),
        (lambda: Grid(lam=[1.0, np.nan]), ValueError, "value at index 1 is NaN"),
        (lambda: Grid(lam=np.nan), ValueError, "NaN"),
        (lambda: Grid(lam=[[1.0]]), ValueError, "one-dimensional"),
        (lambda: Grid(objective=["jepa", "mae"]), TypeError, "real numbers"),
        (lambda: Grid(a=[1j]), TypeError, "real numbers"),
        (lambda: Grid.zip(a=[1.0], b=[1.0, 2.0]), ValueError, "same length, but have `a` 1, `b` 2"),
        (lambda: Grid.zip("a", a=[1.0], b=[1.0]), ValueError, "name of its own"),
        (lambda: Grid.zip(), ValueError, "at least one axis"),
        (lambda: Grid(a=[1.0]) * Grid(a=[2.0]), ValueError, "share no name, but both have `a`"),
        (lambda: Grid.zip(a=[1.0]) * Grid.zip(b=[2.0]), ValueError, "`point`"),
        (lambda: Grid(a=[1.0]).point(1), IndexError, "0 .. 0"),
        (lambda: Grid(a=[1.0]).point(-1), IndexError, "0 .. 0"),
    ],
)
def test_errors_say_what_is_wrong(build, error, message):
    with pytest.raises(error, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
