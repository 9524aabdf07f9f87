"""Random designs: Sobol points against scipy's, uniform draws against their law, access in any order, number types, errors."""

import numpy as np
import pytest
from scipy import stats

from jepa_dyn.sweep import Grid, between, sweep
from jepa_dyn.sweep.designs import Draws, _sobol_words


@pytest.mark.parametrize(("columns", "size"), [(1, 1), (3, 1000), (7, 2**12)])
def test_sobol_points_are_scipys_shifted(columns, size):
    words = _sobol_words(np.arange(size, dtype=np.uint64), columns, key=5, size=size)
    plain = stats.qmc.Sobol(columns, scramble=False).random(2 ** (size - 1).bit_length())[:size].T
    for ours, theirs in zip(words, plain, strict=True):
        # a digital shift: exclusive or with one word, that of the first point, which is 0 unshifted
        np.testing.assert_array_equal(ours ^ ours[0], (theirs * 2.0**52).astype(np.uint64))


def test_sobol_points_fill_each_cell_once():
    found = Grid.sobol(64, a=(0.0, 1.0), b=(0.0, 1.0), key=3).points(np.arange(64))
    # a (0, 6, 2)-net: 8 x 8 cells of equal area hold one point each
    cells = np.floor(found["a"] * 8) * 8 + np.floor(found["b"] * 8)
    assert sorted(cells) == list(range(64))


@pytest.mark.parametrize("kind", ["sobol", "uniform"])
def test_any_point_at_once(kind):
    grid = getattr(Grid, kind)(5000, lam=between(1e-3, 1e3, log=True), rho=(0.2, 0.9), key=1)
    whole = grid.points(np.arange(5000))
    order = np.random.default_rng(0).permutation(5000)
    for name, values in grid.points(order).items():
        np.testing.assert_array_equal(values, whole[name][order])
    assert grid.point(4321) == {name: values[4321] for name, values in whole.items()}
    other = getattr(Grid, kind)(5000, lam=between(1e-3, 1e3, log=True), rho=(0.2, 0.9), key=2).points(np.arange(5000))
    assert not np.intersect1d(other["lam"], whole["lam"]).size
    assert (whole["rho"] > 0.2).all() and (whole["rho"] < 0.9).all()


@pytest.mark.parametrize("kind", ["sobol", "uniform"])
def test_law_of_the_draws(kind):
    found = getattr(Grid, kind)(4096, lam=between(1e-3, 1e3, log=True), rho=(-1.0, 1.0)).points(np.arange(4096))
    # p-values of a right sampler are uniform; the keys are fixed, so that this either always or never fails
    assert stats.kstest((np.log10(found["lam"]) + 3) / 6, "uniform").pvalue > 0.01
    assert stats.kstest(found["rho"], stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert abs(np.corrcoef(np.log(found["lam"]), found["rho"])[0, 1]) < 4 / np.sqrt(4096)


def test_neighbouring_keys_and_columns_are_independent():
    fractions = [Grid.uniform(2000, a=(0.0, 1.0), b=(0.0, 1.0), key=key).points(np.arange(2000)) for key in range(3)]
    columns = np.array([one[name] for one in fractions for name in "ab"])
    assert np.abs(np.corrcoef(columns) - np.eye(6)).max() < 4 / np.sqrt(2000)


def test_a_billion_uniform_draws_cost_nothing():
    grid = Grid(width=[1.0, 2.0]) * Grid.uniform(10**9, lam=(0.0, 1.0))
    assert len(grid) == 2 * 10**9 and "1,000,000,000" in repr(grid)
    assert 0 < grid.point(2 * 10**9 - 1)["lam"] < 1


def test_integration_by_sobol_points_beats_the_root():
    found = sweep(lambda a, b: {"f": a * b}, Grid.sobol(1024, a=(0.0, 1.0), b=(0.0, 1.0)), progress=False)
    assert found.f.dims == ("draw",) and found.a.dims == ("draw",)
    assert abs(float(found.f.mean()) - 0.25) < 1e-3  # independent draws: 0.007


def test_float32(float32):
    grid = Grid.uniform(10, lam=between(0.5, 1.0, description="covariance"))
    found = sweep(lambda lam: {"x": lam}, grid, progress=False)
    assert found.lam.dtype == np.float32 and found.lam.attrs == {"long_name": "covariance"}
    np.testing.assert_array_equal(found.lam, found.x)
    with pytest.raises(ValueError, match="enable_x64"):
        sweep(lambda lam: {"x": lam}, Grid.uniform(10, lam=between(1e-60, 1.0, log=True)), progress=False)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Grid.sobol(10), ValueError, "at least one range"),
        (lambda: Grid.sobol(0, a=(0, 1)), ValueError, "`points` must be a whole number >= 1"),
        (lambda: Grid.sobol(2**33, a=(0, 1)), ValueError, "<= 2\\^32"),
        (lambda: Grid.uniform(10, key=-1, a=(0, 1)), ValueError, "`key` must be a whole number >= 0"),
        (lambda: Grid.uniform(10, a=(1.0, 0.0)), ValueError, "Range of `a`: Argument `high` must be above"),
        (lambda: Grid.uniform(10, a=3.0), TypeError, "Parameter `a` must be drawn from between"),
        (lambda: Grid.uniform(10, "a", a=(0, 1)), ValueError, "a name of its own"),
        (lambda: between(0.0, 1.0, log=True), ValueError, "`low` must be > 0"),
        (lambda: between(0.0, np.inf), ValueError, "`high` must be finite"),
        (lambda: Grid.uniform(10, a=(0, 1)) * Grid(a=[1.0]), ValueError, "share no name"),
    ],
)
def test_errors_say_what_is_wrong(build, error, message):
    with pytest.raises(error, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_identity_tells_designs_apart():
    def identity(**changes):
        given = {"key": 1, "lam": between(0.1, 1.0), "points": 10} | changes
        return Grid.sobol(given.pop("points"), **given).identity()

    assert identity() == identity()
    changed = [identity(key=2), identity(points=11), identity(lam=between(0.1, 1.0, log=True))]
    assert all(one != identity() for one in changed)
    assert isinstance(Grid.sobol(2, a=(0, 1)).dims[0], Draws)
