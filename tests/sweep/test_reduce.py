"""Reductions: statistics against numpy's on the whole array, whatever the blocks; what is counted, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn.status import Status
from jepa_dyn.sweep import Grid, Reduce, quantiles, static, sweep
from jepa_dyn.sweep.reduce import pairwise_sum

GRID = Grid(lam=[0.5, 1.0, 4.0]) * Grid.uniform(700, key=2, u=(0.0, 1.0)) * Grid(rho=[0.1, 0.3])


def fn(lam, u, rho):
    w = jnp.where(u < 0.01, jnp.nan, lam * u + rho)
    return {
        "w": w,
        "v": ("t", rho + u * jnp.arange(3.0)),
        "status": jnp.where(u < 0.01, Status.non_finite, Status.ok).astype(jnp.uint8),
    }


@pytest.fixture(scope="module")
def whole():
    with pytest.warns(UserWarning, match="points failed"):
        return sweep(fn, GRID, progress=False)


STATISTICS = Reduce("draw", w=["mean", "std", "min", "max", quantiles(0.1, 0.9, low=0, high=5, bins=500)], v=["mean"])


@pytest.mark.parametrize("chunk_size", [None, 5, 600])
def test_statistics_are_numpys(whole, chunk_size):
    with pytest.warns(UserWarning, match="points failed") as caught:
        found = sweep(fn, GRID, reduce=STATISTICS, chunk_size=chunk_size, progress=False)
    assert found.w_mean.dims == ("lam", "rho") and found.v_mean.dims == ("lam", "rho", "t")
    values = whole.w.values
    for name, numpys in (("mean", np.nanmean), ("std", np.nanstd), ("min", np.nanmin), ("max", np.nanmax)):
        np.testing.assert_allclose(found[f"w_{name}"], numpys(values, axis=1), rtol=1e-13)
    np.testing.assert_allclose(found.v_mean, whole.v.mean("draw"), rtol=1e-13)
    np.testing.assert_array_equal(found.w_count, (~np.isnan(values)).sum(axis=1))
    exact = np.moveaxis(np.nanquantile(values, [0.1, 0.9], axis=1), 0, -1)
    assert np.abs(found.w_quantile - exact).max() <= 5 / 500
    assert "histogram of 500 bins" in found.w_quantile.attrs["method"]
    bad = int(np.isnan(values).sum())
    assert int(found.status_count.sel(outcome="non_finite").sum()) == bad > 0
    assert int(found.status_count.sum()) == values.size
    # the same failures as without the reduction, and the same first one
    (message,) = [str(one.message) for one in caught]
    assert message.startswith(f"{bad} of {values.size} points failed ({bad} non_finite, {bad} non-finite w)")
    first = GRID.point(int(np.isnan(values).ravel().argmax()))
    assert f"u={first['u']:.6g}, rho=0.1" in message


def test_exact_quantiles(whole):
    wanted = Reduce("draw", v=[quantiles(0.0, 0.25, 0.5, 1.0)])
    with pytest.warns(UserWarning, match="points failed"):
        found = sweep(fn, GRID, reduce=wanted, progress=False)
    expected = np.moveaxis(np.quantile(whole.v, [0.0, 0.25, 0.5, 1.0], axis=1), 0, -1)
    np.testing.assert_allclose(found.v_quantile, expected, rtol=1e-14)
    assert list(found["quantile"]) == [0.0, 0.25, 0.5, 1.0] and "exact" in found.v_quantile.attrs["method"]
    with pytest.raises(ValueError, match="all 700 reduced points in one block, but a block may have 100"):
        sweep(fn, GRID, reduce=wanted, chunk_size=100, progress=False)


def test_infinities_are_ranked_but_not_averaged():
    def time(u):
        return {"t": ((), jnp.where(u < 0.4, 1 + u, jnp.inf), {"infinite_means": "never"})}

    grid = Grid.sobol(1024, u=(0.0, 1.0))
    for wanted in (quantiles(0.2, 0.6), quantiles(0.2, 0.6, low=0.5, high=3.0, bins=250, log=True)):
        found = sweep(time, grid, reduce=Reduce("draw", t=["mean", "max", wanted]), progress=False)
        assert float(found.t_mean) == pytest.approx(1.2, abs=2e-3) and float(found.t_max) < 1.4
        assert abs(int(found.t_count) - 0.4 * 1024) <= 1
        assert float(found.t_quantile[0]) == pytest.approx(1.2, abs=0.02) and np.isposinf(found.t_quantile[1])


def test_nothing_counted_is_nan_and_says_so():
    grid = Grid(a=[0.0, 1.0]) * Grid(b=np.linspace(1, 2, 8))
    wanted = Reduce("b", x=["mean", "min", "std", quantiles(0.5), ], )  # fmt: skip
    with pytest.warns(UserWarning, match="8 of 16 points failed \\(8 non-finite x\\); the first at a=0, b=1"):
        found = sweep(lambda a, b: {"x": b / a * a}, grid, reduce=wanted, progress=False)
    assert found.x_count.values.tolist() == [0, 8]
    for name in ("x_mean", "x_min", "x_std", "x_quantile"):
        assert np.isnan(found[name][0]).all() and np.isfinite(found[name][1]).all()


def test_whole_numbers_and_random_keys():
    grid = Grid(width=static([2, 3])) * Grid(seed=np.arange(2000))

    def draw(width, seed, key):
        return {"hits": (jax.random.uniform(key, (width,)) < 0.5).sum()}

    found = sweep(draw, grid, key=jax.random.key(1), reduce=Reduce("seed", hits=["mean", "max"]), progress=False)
    plain = sweep(draw, grid, key=jax.random.key(1), progress=False)
    np.testing.assert_allclose(found.hits_mean, plain.hits.mean("seed"), rtol=1e-14)
    assert found.hits_max.values.tolist() == [2, 3]


def test_batched_functions_are_reduced_too():
    grid = Grid(a=[1.0, 2.0]) * Grid(b=np.linspace(0, 1, 101))
    found = sweep(
        lambda a, b: {"x": np.asarray(a) * np.asarray(b)},
        grid,
        batched=True,
        chunk_size=30,
        reduce=Reduce("b", x=["mean"]),
        progress=False,
    )
    np.testing.assert_allclose(found.x_mean, [0.5, 1.0], rtol=1e-14)


def test_sum_by_halves_keeps_single_precision():
    x = np.full(30_001, 0.1, np.float32)
    assert float(jax.jit(pairwise_sum)(x)) == pytest.approx(30_001 * float(np.float32(0.1)), rel=2e-7)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Reduce([]), "at least one dimension"),
        (lambda: Reduce("draw", w=["median"]), "must be one of 'mean', 'std', 'min', 'max', but is 'median'"),
        (lambda: Reduce("draw", w=[quantiles(0.5), quantiles(0.1)]), "quantiles in one call"),
        (lambda: Reduce("draw", w=quantiles(0.5), v=quantiles(0.1)), "the same probabilities"),
        (lambda: quantiles(1.5), "lie in 0 .. 1"),
        (lambda: quantiles(), "at least one number"),
        (lambda: quantiles(0.5, low=0.0), "together, or neither"),
        (lambda: quantiles(0.5, low=1.0, high=0.0), "`high` must be above"),
        (lambda: sweep(fn, GRID, reduce=Reduce("draws", w="mean")), "Did you mean 'draw'"),
        (lambda: sweep(fn, GRID, reduce=Reduce("draw", ww="mean")), "Did you mean 'w'"),
        (lambda: sweep(fn, GRID, reduce=Reduce("draw", status="mean")), "a status is counted"),
        (
            lambda: sweep(lambda n: {"x": jnp.ones(n).sum()}, Grid(n=static([1, 2])), reduce=Reduce("n", x="mean")),
            "static dimension `n`",
        ),
    ],
)
def test_errors_say_what_is_wrong(build, message):
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
