"""The note's summary of Tian 2021: claims come out as they should; roots, ends and rates against plain numpy and scipy."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot
from scipy.integrate import solve_ivp
from scipy.linalg import expm, sqrtm
from scipy.optimize import fsolve

from jepa_dyn.papers import checks, tian2021
from jepa_dyn.papers import tian2021_checks as claims


@pytest.fixture(scope="module")
def stationary_points():
    return tian2021.stationary_points(seeds=6)


@pytest.fixture(scope="module")
def rank_at_end():
    return tian2021.rank_at_end(count=8, horizon=1000.0)


@pytest.fixture(scope="module")
def ablations():
    return tian2021.ablations(count=8, horizon=400.0)


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


@pytest.mark.parametrize(
    ("name", "num_checks", "num_failing"), [("stationary_points", 10, 5), ("rank_at_end", 8, 5), ("ablations", 6, 2)]
)
def test_every_claim_comes_out_as_expected(name, num_checks, num_failing, request):
    found = checks(request.getfixturevalue(name))
    assert [c.claim for c in found if not c.as_expected] == []
    assert len(found) == num_checks and sum(not c.expected for c in found) == num_failing


@pytest.mark.parametrize("kind", tian2021.KINDS)
def test_views_are_of_their_kind_and_possible(kind):
    rng = np.random.default_rng(3)
    for _ in range(20):
        a, c = tian2021.draw_views(kind, rng)
        t = c.T @ np.linalg.inv(a)
        assert np.linalg.eigvalsh(np.block([[a, c], [c.T, a]]))[0] > 0 and np.linalg.matrix_rank(c) == 3
        commute = np.allclose(a @ c, c @ a, atol=1e-12)
        assert commute == kind.startswith("commuting")
        assert np.allclose(c, c.T, atol=1e-12) == (kind in ("commuting, C symmetric", "C symmetric"))
        assert np.allclose(t @ t.T, t.T @ t, atol=1e-12) == (kind in claims.NORMAL)


def test_balanced_starts_are_balanced():
    rng = np.random.default_rng(0)
    for kind in tian2021.STARTS:
        w, p = tian2021.draw_start(kind, rng)
        assert np.allclose(p.T @ p, w @ w.T) == kind.startswith("balanced")
    w, p = tian2021.draw_start("balanced, P > 0", rng)
    np.testing.assert_allclose(p, np.real(np.asarray(sqrtm(w @ w.T))), atol=1e-10)


def test_distances_are_those_from_a_root_by_scipy(stationary_points):
    """The root of S^2 = T^T S T by fsolve, from T^T T, for the first data sets of the last kind."""
    rng = np.random.default_rng(0)
    drawn = [tian2021.draw_views(kind, rng) for kind in tian2021.KINDS for _ in range(6)]
    for seed in range(3):
        a, c = drawn[24 + seed]
        t = c.T @ np.linalg.inv(a)

        def gap(x, t=t):
            x = x.reshape(3, 3)
            return (x @ x - t.T @ x @ t).ravel()

        s = np.reshape(np.asarray(fsolve(gap, (t.T @ t).ravel(), xtol=1e-13)), (3, 3))
        assert np.linalg.eigvalsh((s + s.T) / 2)[0] > 0
        printed = c.T @ np.linalg.inv(a) @ c @ np.linalg.inv(a)
        one = stationary_points.distance.sel(kind="generic").isel(seed=seed)
        for formula, x in (("T^T T", t.T @ t), ("printed", printed)):
            far = np.linalg.norm(x - s) / np.linalg.norm(s)
            assert float(one.sel(formula=formula)) == pytest.approx(far, rel=1e-6)


def _speed(z, a, c, decay=0.0, joint=False):
    """The field of W and P written out, for the note's loss halved; `joint` moves the second branch as well."""
    w, p = z.reshape(2, 3, 3)
    left = p @ w @ a - w @ c.T
    dw = -p.T @ left - decay * w
    if joint:
        dw = dw - (w @ a - p @ w @ c)
    return np.stack([dw, -left @ w.T - decay * p]).ravel()


def test_ends_are_those_of_scipy(rank_at_end):
    """First run of two kinds of starts, symmetric C: eigenvalues of W^T W at t = 1000 by LSODA."""
    rng = np.random.default_rng(0)
    drawn = {}
    for start in tian2021.STARTS:
        lanes = [(tian2021.draw_views("C symmetric", rng), tian2021.draw_start(start, rng)) for _ in range(8)]
        drawn[start] = lanes[0]
    for start in ("Gaussian", "P = 1, W small"):
        (a, c), y0 = drawn[start]
        for decay, lam in (("no weight decay", 0.0), ("weight decay", 0.01)):
            run = solve_ivp(
                lambda t, z, a=a, c=c, lam=lam: _speed(z, a, c, lam),
                (0, 1000),
                np.ravel(y0),
                "LSODA",
                rtol=1e-10,
                atol=1e-13,
            )
            w = run.y[:9, -1].reshape(3, 3)
            found = rank_at_end.eigenvalue.sel(start=start, data="C symmetric", decay=decay).isel(run=0).values
            np.testing.assert_allclose(found, np.linalg.svd(w, compute_uv=False) ** 2, rtol=1e-4, atol=1e-9)


def test_ablated_runs_are_those_of_scipy(ablations):
    """Run 0, noisy views, weight decay: without predictor a matrix exponential, without stop gradient by DOP853."""
    rng = np.random.default_rng(0)
    (a, c), *_ = [tian2021.draw_views("C symmetric", rng) for _ in range(8)]
    w, p = tian2021.draw_start("Gaussian", rng)
    one = ablations.square.sel(views="noisy", decay="weight decay").isel(run=0)
    ts = ablations.time.values[[0, 30, 50, 60]]
    linear = [np.sum((w @ expm(-(a - c.T + 0.01 * np.eye(3)) * t)) ** 2) for t in ts]
    np.testing.assert_allclose(one.sel(arm="no predictor", time=ts).values, linear, rtol=1e-5, atol=1e-14)
    z0 = np.ravel([w, p])
    run = solve_ivp(lambda t, z: _speed(z, a, c, 0.01, True), (0, ts[-1]), z0, "DOP853", ts, rtol=1e-10, atol=1e-13)
    found = one.sel(arm="no stop gradient", time=ts).values
    np.testing.assert_allclose(found, (run.y[:9] ** 2).sum(0), rtol=1e-4, atol=1e-13)


def test_nothing_moves_without_predictor_on_identical_views(ablations):
    one = ablations.square.sel(arm="no predictor", views="identical", decay="no weight decay")
    np.testing.assert_allclose(one.values, np.broadcast_to(one.values[:, :1], one.shape), rtol=1e-10)


def test_checks_can_fail(stationary_points, rank_at_end, ablations):
    moved = stationary_points.assign(speed=stationary_points.speed + 1, residual=stationary_points.residual + 1)
    assert sum(not c.as_expected for c in claims.stationary_checks(moved)) >= 4
    full = rank_at_end.assign(
        {"rank": rank_at_end["rank"] * 0 + 3, "smallest_w": rank_at_end.smallest_w + 1, "gap": rank_at_end.gap * 0}
    )
    assert sum(not c.as_expected for c in claims.rank_checks(full)) >= 4
    kept = ablations.assign(square=ablations.square + 1)
    assert sum(not c.as_expected for c in claims.ablation_checks(kept)) >= 3


def test_drawings_hold_every_panel(stationary_points, rank_at_end, ablations):
    for dataset, plot, panels in (
        (stationary_points, tian2021.plot_stationary_points, 2),
        (rank_at_end, tian2021.plot_rank_at_end, 3),
        (ablations, tian2021.plot_ablations, 4),
    ):
        assert len([ax for ax in plot(dataset).axes if ax.get_title(loc="left") and ax.has_data()]) == panels


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("stationary_points", {"seeds": 1}, "Argument `seeds` must be a whole number >= 2"),
        ("rank_at_end", {"count": 4}, "Argument `count` must be a whole number >= 5"),
        ("rank_at_end", {"horizon": 0.0}, "Argument `horizon` must be finite and > 0"),
        ("ablations", {"weight_decay": 0.0}, "Argument `weight_decay` must be finite and > 0"),
        ("ablations", {"ema_rate": -1.0}, "Argument `ema_rate`"),
    ],
)
def test_bad_options_are_named(call, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(tian2021, call)(**options)
