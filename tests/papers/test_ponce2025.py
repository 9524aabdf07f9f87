"""Ponce 2025, section 4.3: claims come out as they should; draws, starts and ends against plain numpy."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot

from jepa_dyn.papers import checks, ponce2025
from jepa_dyn.papers import ponce2025_checks as claims


@pytest.fixture(scope="module")
def fig3():
    return ponce2025.fig3()


@pytest.fixture(scope="module")
def fig4():
    return ponce2025.fig4()


@pytest.fixture(scope="module")
def trials():
    return ponce2025.trials(count=250)


@pytest.fixture(scope="module")
def proposition_4_10():
    return ponce2025.proposition_4_10(sets=16)


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


@pytest.mark.parametrize(
    ("name", "num_checks", "num_failing"),
    [("fig3", 2, 0), ("fig4", 3, 0), ("trials", 6, 2), ("proposition_4_10", 7, 3)],
)
def test_every_claim_comes_out_as_expected(name, num_checks, num_failing, request):
    found = checks(request.getfixturevalue(name))
    assert [c.claim for c in found if not c.as_expected] == []
    assert len(found) == num_checks and sum(not c.expected for c in found) == num_failing


def test_shares_are_those_found_by_another_code(trials):
    """10,000 trials per reading of an independent integration, in our corrections of section 4.3; ours lie within 3.5 s.d."""
    known = {
        "SG flow, all draws": 0.379,
        "SG flow": 0.803,
        "EMA flow, 1-α = 0.1, C0 independent": 0.886,
        "EMA flow, 1-α = 0.1": 0.893,
        "EMA flow, 1-α = 0.03": 0.928,
        "EMA flow, 1-α = 0.01": 0.943,
        "SG steps of 0.1": 0.788,
        "SG steps of 1": 0.284,
        "EMA steps of 0.1, α = 0.99": 0.871,
    }
    for variant, share in known.items():
        found = float(trials.share.sel(variant=variant, end="S2"))
        assert found == pytest.approx(share, abs=3.5 * np.sqrt(share * (1 - share) / 250)), variant
    assert (trials["count"].sum("end") == 250).all()
    assert (trials.low <= trials.share + 1e-12).all() and (trials.high >= trials.share - 1e-12).all()
    assert trials.attrs["share_with_equilibria"] == pytest.approx(0.476, abs=2e-3)


def test_draws_are_as_stated():
    rho, tau, lam = ponce2025.draw_parameters(np.random.default_rng(0), 5000, True)
    assert (tau**2 >= 4 * rho * lam).all() and len(rho) == 5000
    assert 0 <= rho.min() and rho.max() <= 3 and np.abs(tau).max() <= 1 and lam.min() >= 0.01 and lam.max() <= 0.1


def test_paths_are_those_of_a_plain_loop(fig3):
    """One EMA run of Figure 3 by numpy: (4) with alpha = 0.9 + 0.1 t / T and C from the new A."""
    one = fig3.sel(procedure="ema").isel(run=2)
    a, b, c = (one[name].values[0].copy() for name in ("a", "B", "c"))
    saved, total, h = set(one.step.values.tolist()), 3000, 0.1
    row = 1
    for t in range(1, 201):
        gap = 3.0 * b @ a - 2.0 * c
        a, b = a - h * (b.T @ gap + 0.1 * a), b - h * (np.outer(gap, a) + 0.1 * b)
        alpha = 0.9 + 0.1 * t / total
        c = alpha * c + (1 - alpha) * a
        if t in saved:
            np.testing.assert_allclose(one.a.values[row], a, atol=1e-10)
            np.testing.assert_allclose(one.c.values[row], c, atol=1e-10)
            row += 1
    assert row > 50


def test_objectives_are_expectations(fig4):
    """E of a saved state against its definition with moments 3, 2, 4/3 + 1."""
    one = fig4.sel(procedure="ema").isel(run=1, step=10)
    a, b, c = one.a.values, one.B.values, one.c.values
    decay = 0.05 * (a @ a + (b**2).sum())
    for goal, value in ((a, one.E), (c, one.F)):
        ba = b @ a
        assert float(value) == pytest.approx(
            1.5 * ba @ ba - 2 * goal @ ba + (4 / 3 + 1) / 2 * goal @ goal + decay, rel=1e-10
        )


def test_indices_add_up(proposition_4_10):
    """Every equilibrium is counted once; a stable one is one with no unstable direction; a drawing per number of inputs."""
    found = proposition_4_10
    counts = found["count"].sel(procedure="sg").sum("num_unstable")
    numbers = found.num_equilibria.where(found.num_equilibria >= 0, 0).sum("set")
    assert (counts == numbers).all() and found.complete.all()
    stable = found.num_stable.where(found.num_stable >= 0, 0).sum("set").sel(procedure="sg")
    assert (found["count"].sel(procedure="sg", num_unstable=0) == stable).all()
    assert len(ponce2025.plot_proposition_4_10(found).axes) == found.sizes["inputs"]
    wrong = found.assign(
        num_stable=found.num_stable * 0, complete=~found.complete, largest_is_stable=~found.largest_is_stable
    )
    assert sum(not c.as_expected for c in claims.index_checks(wrong)) >= 4


def test_checks_can_fail(fig3, fig4, trials):
    wrong = trials.assign(share=trials.share * 0 + 0.82, count=trials["count"] + 1)
    assert sum(not c.as_expected for c in claims.trial_checks(wrong)) >= 4
    assert sum(not c.holds for c in claims.path_checks(fig3.assign(a=fig3.a * 1.5))) == 2
    flat = fig4.assign(E=fig4.E * 0, F=fig4.F * 0)
    assert sum(not c.holds for c in claims.objective_checks(flat)) >= 2


def test_drawings_hold_every_panel(fig3, fig4, trials):
    for dataset, plot, titles in ((fig3, ponce2025.plot_fig3, 4), (fig4, ponce2025.plot_fig4, 3)):
        assert len([ax for ax in plot(dataset).axes if ax.get_title(loc="left") and ax.has_data()]) == titles
    bars = ponce2025.plot_trials(trials).axes[0].patches
    assert len(bars) == trials.share.size


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("trials", {"count": 5}, "Argument `count` must be a whole number >= 10"),
        ("fig3", {"rho": 0.0}, "Argument `rho` must be finite and > 0"),
        ("fig3", {"weight_decay": 1.0}, "must have tau\\^2 > 4 rho weight_decay"),
        ("fig4", {"step": -0.1}, "Argument `step`"),
        ("trials", {"horizon": 0.0}, "Argument `horizon` must be finite and > 0"),
        ("proposition_4_10", {"sets": 3}, "Argument `sets` must be a whole number >= 10"),
    ],
)
def test_bad_options_are_named(call, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(ponce2025, call)(**options)
