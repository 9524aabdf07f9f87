"""Simon 2023, small networks: the figures at tiny sizes, their checks both ways, their drawings."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot

from jepa_dyn.papers import checks, simon2023
from jepa_dyn.papers import simon2023_nonlinear_checks as claims
from jepa_dyn.papers.simon2023_nonlinear import standardised_pairs

SMALL = {"pairs": 6, "patch_size": 4, "dimension": 3}


@pytest.fixture(scope="module")
def fig2ab():
    return simon2023.fig2ab(**SMALL, width=256, alpha=1e-3, learning_rate=4e-3)


@pytest.fixture(scope="module")
def appendix_e():
    return simon2023.appendix_e(**SMALL, steps=3000)


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


def test_pairs_are_standardised():
    x, y = standardised_pairs(5, 4, 0)
    assert x.shape == y.shape == (5, 48)
    colours = np.concatenate([x, y]).reshape(-1, 3)
    np.testing.assert_allclose(colours.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(colours.std(axis=0), 1, atol=1e-6)


def test_a_small_perceptron_learns_in_steps_at_the_predicted_times(fig2ab):
    found = checks(fig2ab)
    assert all(c.as_expected for c in found if "fixed" not in c.claim and "plateaus" not in c.claim), found
    assert len(found) == 7
    times = fig2ab.step_time.values
    assert (
        (np.diff(times) > 0).all()
        and (fig2ab.step_start.values < times).all()
        and (times < fig2ab.step_end.values).all()
    )
    # the loss is that of the eigenvalues; so is the rank
    values = fig2ab.eigenvalue.values
    np.testing.assert_allclose(fig2ab.loss, ((1 - values) ** 2).sum(axis=1), atol=1e-4)
    shares = np.maximum(values[-1], 0) / values[-1].sum()
    np.testing.assert_allclose(fig2ab.effective_rank[-1], np.exp(-(shares * np.log(shares)).sum()), rtol=1e-6)
    assert (fig2ab.gamma.diff("mode") < 0).all()


def test_two_networks_learn_what_their_kernels_say(appendix_e):
    found = checks(appendix_e)
    assert len(found) == 7 and {c.claim: c.as_expected for c in found}["The largest alignment is d"]
    assert ((appendix_e.alignment > 0) & (appendix_e.alignment < 1 + 1e-12)).all()
    np.testing.assert_allclose(appendix_e.alignment.sel(prediction="chance"), 3 / 12)
    assert (appendix_e.alignment.sel(points="training", prediction="theory, final NTK") > 0.8).all()


def test_checks_can_fail(fig2ab, appendix_e):
    wrong = fig2ab.assign(
        step_time=fig2ab.step_time * 2, eigenvalue=fig2ab.eigenvalue * 0.5, alignment=fig2ab.alignment * 0.5,
        plateau_level=fig2ab.plateau_level + 0.4,
    ).assign_attrs(kernel_growth=1.01, kernel_cosine=0.5, largest_with_all_scaled=1.0)  # fmt: skip
    assert not any(c.as_expected for c in claims.fig2ab_checks(wrong))
    nothing = fig2ab.assign(step_time=fig2ab.step_time * np.inf)
    assert sum(not c.holds for c in claims.fig2ab_checks(nothing)) >= 2
    printed = appendix_e.assign(
        alignment=appendix_e.alignment * 0 + 3.0, random=appendix_e.random - appendix_e.random.mean() + 9 / 12
    )
    assert [c.holds for c in claims.appendix_e_checks(printed)][-3:] == [True, True, False]
    poor = appendix_e.assign(alignment=appendix_e.alignment * 0.1, between=appendix_e.between * 0)
    assert sum(not c.as_expected for c in claims.appendix_e_checks(poor)) >= 3


def test_drawings_hold_every_panel(fig2ab, appendix_e):
    assert len([ax for ax in simon2023.plot_fig2ab(fig2ab).axes if ax.get_title(loc="left") and ax.has_data()]) == 4
    axes = simon2023.plot_appendix_e(appendix_e).axes
    assert [len(ax.patches) for ax in axes] == [9, 9]


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("fig2ab", {"pairs": 5, "dimension": 3}, "`pairs` must be a whole number >= 6"),
        ("fig2ab", {"alpha": 0.0}, "`alpha` must be finite and > 0"),
        ("fig2ab", {"learning_rate": -1.0}, "`learning_rate` must be finite and > 0"),
        ("fig2ab", {"horizon": 0.0}, "`horizon` must be finite and > 0"),
        ("appendix_e", {"steps": 1}, "`steps` must be a whole number >= 2"),
        ("appendix_e", {"dimension": 1}, "`dimension` must be a whole number >= 2"),
    ],
)
def test_bad_options_are_named(call, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(simon2023, call)(**options)
