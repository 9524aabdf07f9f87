"""Ponce 2025, Figure 2 in kind: increments and objectives of a tiny run against what they must be, checks both ways, drawing."""

import matplotlib

matplotlib.use("Agg")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot

from jepa_dyn.papers import checks, ponce2025
from jepa_dyn.papers import ponce2025_images_checks as claims
from jepa_dyn.papers.ponce2025_images import CROP, OUTPUTS, WIDTH, procedure_loss
from jepa_dyn.papers.ponce2025_images_plots import smoothed

STEPS, RATE = 40, 1e-3


@pytest.fixture(scope="module")
def fig2():
    return ponce2025.fig2(steps=STEPS, seeds=1, batch_size=8, learning_rate=RATE, weight_decay=0.0)


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


def test_objectives_are_one_unless_the_target_lags(fig2):
    for procedure in ("gradient", "sg"):
        one = fig2.sel(procedure=procedure)
        np.testing.assert_allclose(one.F, one.E, rtol=1e-4)
    lagging = fig2.sel(procedure="ema")
    np.testing.assert_allclose(lagging.F[:, 0], lagging.E[:, 0], rtol=1e-4)
    assert (np.abs(lagging.F / lagging.E - 1)[:, 5:] > 1e-3).all()
    # the first batch moves the predictors of SG and of the plain gradient alike, their encoders not
    assert float(fig2.E.sel(procedure="gradient")[0, -1]) < float(fig2.E.sel(procedure="sg")[0, -1])
    assert (fig2.status == 0).all() and fig2.attrs["most_frequent_class"] < 0.2


def test_increments_are_those_of_adam(fig2):
    """Adam's first step has the length of its rate in every parameter with a gradient; xi then follows by 1 - alpha of it."""
    inputs = round(CROP * 8) ** 2
    count = inputs * WIDTH + WIDTH + WIDTH * OUTPUTS + OUTPUTS
    assert list(fig2.step.values) == list(range(STEPS + 1))
    first = fig2.encoder_increment.isel(seed=0).sel(step=1).values
    assert (first <= RATE * np.sqrt(count) * (1 + 1e-4)).all() and (first > 0.7 * RATE * np.sqrt(count)).all()
    predictor = 2 * (OUTPUTS * OUTPUTS + OUTPUTS)
    assert (fig2.predictor_increment.sel(step=1) <= RATE * np.sqrt(predictor) * (1 + 1e-4)).all()
    alpha = 0.99 + 0.009 / STEPS
    moved = fig2.sel(procedure="ema", step=1)
    np.testing.assert_allclose(moved.target_increment, (1 - alpha) * moved.encoder_increment, rtol=1e-4)
    own = fig2.sel(procedure="sg", step=slice(1, None))
    np.testing.assert_allclose(own.target_increment, own.encoder_increment, rtol=1e-6)
    assert np.isnan(fig2.encoder_increment.sel(step=0)).all()


def test_loss_of_the_lanes():
    """Value |p - q|; the goal has a gradient for the plain one only."""
    p, own, held = (jnp.asarray(np.random.default_rng(k).normal(size=(4, 3))) for k in range(3))
    for plain, goal in ((1.0, own), (0.0, held)):
        np.testing.assert_allclose(
            procedure_loss(p, own, held, plain=jnp.asarray(plain)), np.abs(p - goal).mean(), rtol=1e-12
        )
        slopes = jax.grad(procedure_loss, argnums=(1, 2))(p, own, held, plain=jnp.asarray(plain))
        np.testing.assert_allclose(slopes[0], plain * np.sign(own - p) / p.size, atol=1e-15)
        assert (slopes[1] == 0).all()


def test_checks_can_fail(fig2):
    found = checks(fig2)
    assert len(found) == 9 and sum(not c.expected for c in found) == 3
    ramp = np.linspace(1, 0.001, STEPS + 1)
    wrong = fig2.assign(
        E=fig2.E * 0 + 1, F=fig2.F * 0 + ramp, probe_accuracy=fig2.probe_accuracy * 0 + 0.5,
        encoder_increment=fig2.encoder_increment * ramp**2, predictor_increment=fig2.predictor_increment * ramp**2,
        target_increment=fig2.target_increment * ramp**2,
    )  # fmt: skip
    assert not any(c.as_expected for c in claims.fig2_checks(wrong)[:7] if c.expected)
    falls = fig2.assign(
        E=fig2.E * 0 + np.linspace(0.1, 1, STEPS + 1),
        probe_accuracy=fig2.probe_accuracy * 0 + ramp * np.array([1, 1, 2.0])[:, None, None],
    )
    literal = [c for c in claims.fig2_checks(falls) if not c.expected]
    assert [c.holds for c in literal] == [True, True, True]


def test_drawing_holds_every_panel(fig2):
    axes = ponce2025.plot_fig2(fig2).axes
    assert len(axes) == 9 and all(ax.has_data() and ax.get_ylabel() for ax in axes)
    np.testing.assert_allclose(smoothed(np.array([0.0, 3, 6, 9, 12, 15])), [3, 4.5, 6, 9, 10.5, 12])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 5}, "`steps` must be a whole number >= 20"),
        ({"seeds": 0}, "`seeds` must be a whole number >= 1"),
        ({"learning_rate": 0.0}, "`learning_rate` must be finite and > 0"),
        ({"weight_decay": -1.0}, "`weight_decay` must be finite and >= 0"),
        ({"last_momentum": 1.0}, r"`last_momentum` must lie in \[0, 1\)"),
        ({"path": "/nowhere"}, "`path` must"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ponce2025.fig2(**options)
