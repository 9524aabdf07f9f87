"""The note on collapse: claims come out as they should; populations, sums and limits against plain sums and quadrature."""

import matplotlib

matplotlib.use("Agg")

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot
from scipy.integrate import quad

from jepa_dyn.losses import vicreg_loss
from jepa_dyn.moments import ViewMoments
from jepa_dyn.papers import checks, note_collapse, note_collapse_losses
from jepa_dyn.papers import note_collapse_systems as zoo


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


def as_expected(dataset, count, failing):
    found = checks(dataset)
    assert [one.claim for one in found if not one.as_expected] == []
    assert len(found) == count and sum(not one.expected for one in found) == failing


@pytest.mark.slow
def test_collapse_zoo():
    """Every row by theory and by simulation; and the ends of VICReg where its gradient vanishes, by hand."""
    dataset = note_collapse.collapse_zoo(count=3)
    as_expected(dataset, 17, 5)
    assert dataset.sizes["row"] == 15 and int(dataset.ends_of.sum()) == 45
    # d/ds of lam 2 (1 - q) rho s^2 - (2 mu / d) sqrt(rho s^2 + eps) per coordinate, one direction each
    lam, mu, _, eps = zoo.VICREG
    squares = dataset.end.isel(row=-1).values
    q = zoo.CORRELATIONS["noisy"]
    slope = 2 * lam * 2 * (1 - q) - (2 * mu / zoo.SIZE) / np.sqrt(zoo.VARIANCES * squares + eps)
    np.testing.assert_allclose(slope, 0, atol=1e-4)
    note_collapse.plot_collapse_zoo(dataset)
    with pytest.raises(ValueError, match="`horizon` must be at least 200"):
        note_collapse.collapse_zoo(horizon=10.0)


@pytest.mark.slow
def test_losses_at_collapse_and_their_limit():
    dataset = note_collapse.losses_at_collapse()
    as_expected(dataset, 12, 3)
    note_collapse.plot_losses_at_collapse(dataset)
    dataset = note_collapse.contrastive_limit(count=50)
    as_expected(dataset, 3, 1)
    for i, tau in enumerate(note_collapse_losses.TEMPERATURES):
        mean, _ = quad(lambda s, tau=tau: np.exp((s - 1) / tau) / 2, -1, 1)  # z.z' is uniform on S^2
        expected = (1 - note_collapse_losses.SIMILARITY) / tau + np.log(mean)
        np.testing.assert_allclose(dataset.corrected[i], expected, rtol=1e-10)
    note_collapse.plot_contrastive_limit(dataset)


def test_info_nce():
    dataset = note_collapse.info_nce_theory(count=5)
    as_expected(dataset, 5, 2)
    note_collapse.plot_info_nce_theory(dataset)


def test_expected_loss_is_the_sum_over_all_batches():
    table = note_collapse_losses.TABLE
    px = table.sum(1)
    critic = table / np.outer(px, table.sum(0))
    total = 0.0
    for x, c, a, b in itertools.product(range(2), repeat=4):
        total -= table[x, c] * px[a] * px[b] * np.log(critic[x, c] / (critic[x, c] + critic[a, c] + critic[b, c]))
    np.testing.assert_allclose(note_collapse_losses._expected_loss(critic, 3), total, rtol=1e-13)


def test_population_of_vicreg_is_its_loss():
    """Identical views, so that only variance and covariance count; their sample covariance is the population's."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(9, 3)), rng.normal(size=(3, 3))
    xx = np.cov(x.T)
    _, _, target, eps = zoo.VICREG
    z = jnp.asarray(x @ w.T)
    expected = vicreg_loss(z, z, variance_weight=1.0, covariance_weight=0.7, target_std=target, eps=eps)
    moments = ViewMoments(*(jnp.asarray(v) for v in (xx, xx, xx)))
    np.testing.assert_allclose(zoo.vicreg_objective(jnp.asarray(w), (moments, 0.7)), expected, rtol=1e-12)


@pytest.mark.slow
def test_systems_agree_with_their_flows_at_zero():
    """Rates at W = 0 as directional derivatives of each flow there, for the rows of one matrix."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(zoo.SIZE, zoo.SIZE)))[0]
    rows = [row for row in zoo.systems(basis, rng) if row.state is zoo._itself]
    assert len(rows) == 7
    for row in rows:
        origin = jnp.zeros((zoo.SIZE, zoo.SIZE))
        _, change = jax.jvp(lambda w, row=row: row.flow(0.0, w, row.args), (origin,), (jnp.asarray(row.basis.T),))
        np.testing.assert_allclose(change, row.rates[:, None] * row.basis.T, atol=1e-10)
