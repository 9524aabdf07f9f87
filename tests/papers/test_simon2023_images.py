"""Simon 2023, Figures 3 to 5 in kind: bands, steps and spectra against plain numpy, checks both ways, drawings."""

import matplotlib

matplotlib.use("Agg")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot

from jepa_dyn import losses
from jepa_dyn.papers import checks, simon2023
from jepa_dyn.papers import simon2023_images as images
from jepa_dyn.papers import simon2023_images_checks as claims

SMALL = {"steps": 40, "dimension": 3, "batch_size": 8, "images": 30}


@pytest.fixture(scope="module")
def fig3():
    return simon2023.fig3(**SMALL)


@pytest.fixture(scope="module")
def fig4():
    return simon2023.fig4(**SMALL)


@pytest.fixture(scope="module")
def fig5():
    return simon2023.fig5(**SMALL)


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


def test_bands_of_two_heaps_and_of_one():
    rng = np.random.default_rng(0)
    low, high = 10 ** rng.uniform(-5, -3.5, 400), 10 ** rng.uniform(-1.5, 0.5, 300)
    found = claims.bands(np.concatenate([low, high]))
    assert low.max() < found.threshold < high.min() and found.valley == 0
    assert abs(np.log10(found.threshold) + 2.5) < 0.3  # in the middle of the gap
    filled = claims.bands(np.concatenate([low, high, 10 ** rng.uniform(-3.5, -1.5, 60)]))
    assert -3.75 < np.log10(filled.threshold) < -1.25 and 0 < filled.valley < 0.5
    assert claims.bands(10 ** rng.triangular(-3, -1, 0, 20000)).valley > 0.9
    assert np.isnan(claims.bands(np.array([np.nan, -1.0, 0.0])).threshold)
    middles, shares = claims.histogram(low)
    assert shares.sum() == pytest.approx(1) and middles[0] > -5.25 and middles[-1] < -3.25


def test_growth_during_and_between():
    """Eigenvalues t^2 and t while one rises, constant otherwise: exponents 3 and 0."""
    steps = np.arange(1, 401)
    clock = np.clip(steps, 100, 200) / 100.0
    values = np.stack([clock**2, clock], axis=1)
    found = claims.growth_during(
        np.r_[0, steps], np.r_[values[:1], values], np.array([100.0, np.inf]), np.array([200.0, np.inf])
    )
    np.testing.assert_allclose(found, (3, 0), atol=1e-12)
    assert np.isnan(claims.growth_during(steps, values, np.array([np.inf]), np.array([np.inf]))).all()


def test_growth_has_the_level_of_the_end():
    ts = np.arange(200.0)
    paths = np.stack(
        [0.01 + 5 / (1 + np.exp(-(ts - 50))), 1e-4 + 0.5 / (1 + np.exp(-(ts - 120))), 0 * ts + 1e-3], axis=1
    )
    found = images.growth(ts, paths, 0.02)
    np.testing.assert_allclose(found.times[:2], [50, 120], atol=0.5)
    assert np.isinf(found.times[2]) and np.isinf(images.growth(ts, paths * np.nan, 0.02).times).all()


def test_weights_choose_a_loss():
    a, b = (jnp.asarray(np.random.default_rng(k).normal(size=(6, 4))) for k in range(2))
    expected = [
        losses.barlow_twins_loss(a, b), losses.nt_xent_loss(a, b, temperature=0.2), losses.vicreg_loss(a, b),
        losses.standardised_barlow_twins_loss(a, b, off_diagonal_weight=0.0051),
    ]  # fmt: skip
    for k, weights in enumerate(np.eye(3)):
        named = dict(zip(("barlow", "simclr", "vicreg"), jnp.asarray(weights), strict=True))
        np.testing.assert_allclose(images.small_start_loss(a, b, **named), expected[k], rtol=1e-12)
        np.testing.assert_allclose(images.standard_loss(a, b, **named), expected[k or 3], rtol=1e-12)


def test_windows_are_windows():
    found = images.image_windows("", 5, 0)
    assert found.shape == (5, 12, 12, 3) and 0 <= found.min() and found.max() <= 1
    assert len({one.tobytes() for one in found}) == 5


def test_standardised_spectrum_is_that_of_correlations():
    """By numpy.corrcoef, up to the 1e-5 that the loss adds to variances."""
    network = images.embedding_network(jax.random.key(0), side=3, dimension=3, network="perceptron")
    views = tuple(jnp.asarray(np.random.default_rng(k).normal(size=(50, 27)) * 100, jnp.float32) for k in range(2))
    z, other = (np.asarray(jax.vmap(network.trunk)(view), float) for view in views)
    cross = np.corrcoef(z.T, other.T)[:3, 3:]
    found = images._standardised_spectrum(network, None, views)
    np.testing.assert_allclose(found["eigenvalues"], np.linalg.eigvalsh((cross + cross.T) / 2)[::-1], atol=1e-4)
    np.testing.assert_allclose(
        found["covariance_eigenvalues"], np.linalg.eigvalsh(np.cov(np.r_[z, other].T, bias=True))[::-1], rtol=1e-3
    )


def test_a_tiny_run_is_labelled(fig3, fig4, fig5):
    np.testing.assert_array_equal(fig3.eigenvalue, fig4.eigenvalue)
    assert (fig3.status == 0).all() and (fig5.status == 0).all()
    np.testing.assert_array_equal(fig3.grown, (fig3.eigenvalue > fig3.threshold).sum("mode"))
    assert (fig5.eigenvalue.diff("mode") <= 1e-6).all() and fig5.sizes["hidden_mode"] == 6
    rates = fig5.time.values[:, -1] / 40
    np.testing.assert_allclose(rates, images.SMALL.rates)
    # at the start the lanes differ in scale alone: eight weights of four layers, and biases, shrink the spectra
    first = fig5.eigenvalue.isel(step=0, mode=0)
    assert float(first.sel(loss="SimCLR")) < float(first.sel(loss="VICReg"))


def test_checks_can_fail(fig3, fig4, fig5):
    assert (len(checks(fig3)), len(checks(fig4)), len(checks(fig5))) == (5, 3, 4)
    still = fig3.assign(grown=fig3.grown * 0 + 3, eigenvalue=fig3.eigenvalue * 0 + 1e-7)
    assert not any(c.holds for c in claims.fig3_checks(still))
    rising, spread = np.linspace(0, 2, fig3.sizes["step"]), np.array([1e9, 1.0, 1.0])
    moving = fig3.assign(grown=fig3.grown * 0 + rising, eigenvalue=fig3.eigenvalue * 0 + spread)
    assert all(c.holds for c in claims.fig3_checks(moving))
    for valley, holds in ((0.9, False), (0.1, True)):
        assert [c.holds for c in claims.fig4_checks(fig4.assign(valley=fig4.valley * 0 + valley))] == [holds] * 3
    clock = np.log(np.maximum(fig5.step.values, 1.0))
    windows = [(np.log(k), np.log(1.5 * k)) for k in (5.0, 10.0, 20.0)]
    grown = sum(np.clip(clock, *window) for window in windows)
    good = fig5.assign(
        hidden_eigenvalue=fig5.hidden_eigenvalue * 0 + np.exp(grown)[:, None],
        **{
            name: (("loss", "mode"), np.tile(values, (3, 1)))
            for name, values in (
                ("step_starts", [5, 10, 20.0]),
                ("step_times", [6, 12, 24.0]),
                ("step_ends", [7.5, 15, 30]),
            )
        },
    )
    assert all(c.holds for c in claims.fig5_checks(good))
    together = good.assign(step_ends=good.step_ends + 100)
    assert not any(c.holds for c in claims.fig5_checks(together))


def test_drawings_hold_every_panel(fig3, fig4, fig5):
    for dataset, plot, panels in ((fig3, "plot_fig3", 6), (fig4, "plot_fig4", 15), (fig5, "plot_fig5", 6)):
        axes = getattr(simon2023, plot)(dataset).axes
        assert len(axes) == panels and all(ax.has_data() for ax in axes), plot


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("fig3", {"steps": 3}, "`steps` must be a whole number >= 20"),
        ("fig4", {"network": "transformer"}, "`network` must be one of"),
        ("fig5", {"dimension": 1}, "`dimension` must be a whole number >= 2"),
        ("fig5", {"learning_rate": 0.0}, "`learning_rate` must be finite and > 0"),
        ("fig5", {"path": "/nowhere"}, "`path` must"),
    ],
)
def test_bad_options_are_named(call, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(simon2023, call)(**options)
