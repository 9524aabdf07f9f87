"""Halvagal 2023, Figure 6: rectified networks against plain numpy, their correlation in closed form, claims both ways."""

import matplotlib

matplotlib.use("Agg")

import jax
import numpy as np
import pytest
from matplotlib import pyplot

from jepa_dyn.moments import PairBatches, additive_noise_moments
from jepa_dyn.papers import checks, halvagal2023
from jepa_dyn.papers.halvagal2023_networks import rectified_spectra, representations
from jepa_dyn.papers.halvagal2023_relu import fig6_checks
from jepa_dyn.papers.halvagal2023_runs import PACE, draw_encoders, saved_steps


@pytest.fixture(scope="module")
def fig6():
    return halvagal2023.fig6(outputs=6, inputs=8, batch_size=128, num_steps=1600)


def test_correlation_of_rectified_units():
    """Units of one, of orthogonal, of opposite weights: 1/2, 1/(2 pi), 0 times the lengths; and a sample."""
    pair = np.array([[[2.0, 0, 0], [0, 1.0, 0]], [[2.0, 0, 0], [-1.0, 0, 0]], [[2.0, 0, 0], [1.0, 0, 0]]])
    off = np.array([1 / np.pi, 0.0, 1.0])
    wanted = [np.linalg.eigvalsh(np.array([[2.0, c], [c, 0.5]])) for c in off]
    np.testing.assert_allclose(rectified_spectra(pair), wanted, atol=1e-14)
    rng = np.random.default_rng(0)
    weights, points = rng.normal(size=(4, 5)), rng.normal(size=(200_000, 5))
    z = representations(weights, points, relu=True)
    np.testing.assert_allclose(rectified_spectra(weights), np.linalg.eigvalsh(z.T @ z / 200_000), rtol=0.02)


def rectified_gradient(name, w, x, y):
    """By hand from the printed losses; W_P is C_z of the first view, held."""
    z, other = np.maximum(x @ w.T, 0), np.maximum(y @ w.T, 0)
    predictor = np.eye(len(w)) if "no_predictor" in name else z.T @ z / len(z)
    p = z @ predictor
    if name.startswith("euclidean"):
        g, second = p - other, other - p
    else:
        size, far = (np.linalg.norm(v, axis=1, keepdims=True) for v in (p, other))
        near, there = (np.where(s > 0, v / np.where(s > 0, s, 1), 0) for v, s in ((p, size), (other, far)))
        cosine = np.sum(near * there, axis=1, keepdims=True)
        g = np.where(size > 0, (cosine * near - there) / np.where(size > 0, size, 1), 0)
        second = np.where(far > 0, (cosine * there - near) / np.where(far > 0, far, 1), 0)
    slope = ((g if "iso" in name else g @ predictor) * (z > 0)).T @ x
    return (slope + (second * (other > 0)).T @ y if "no_stop" in name else slope) / len(x)


@pytest.mark.slow
def test_claims_come_out_as_expected_and_are_drawn(fig6):
    found = checks(fig6)
    assert [c.claim for c in found if not c.as_expected] == []
    assert len(found) == 11 and sum(not c.expected for c in found) == 3
    axes = halvagal2023.plot_fig2(fig6).axes
    assert len([ax for ax in axes if ax.get_title(loc="left") and ax.has_data()]) == 8
    pyplot.close("all")
    still = fig6.isel(time=[0, 0])
    assert sum(not c.as_expected for c in fig6_checks(still)) >= 4
    swapped = fig6.assign_coords(row=np.roll(fig6.row.values, 4))
    assert sum(not c.as_expected for c in fig6_checks(swapped)) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", PACE)
def test_networks_descend_on_drawn_pairs(name, fig6):
    """The first steps by numpy on the same pairs; the linear modes begin where the network does."""
    w = np.sqrt(2) * draw_encoders(_generator(8), 1, 6, 8)[0]
    own, source, law = (
        jax.random.split(jax.random.key(0), 1)[0],
        PairBatches(128),
        additive_noise_moments(np.eye(8), 0.1),
    )
    steps, one = saved_steps(1600, 40)[:3], fig6.sel(row=name)
    for k in range(steps[-1] + 1):
        if k in steps:
            i = int(np.searchsorted(steps, k))
            np.testing.assert_allclose(one.eigenvalue.values[i], rectified_spectra(w), rtol=1e-9)
        pairs = source.draw(jax.random.fold_in(own, k), source.prepare(law))
        w = w - 0.025 * PACE[name] * rectified_gradient(name, w, np.asarray(pairs.x), np.asarray(pairs.y))
    np.testing.assert_allclose(one.predicted.values[0], one.eigenvalue.values[0], rtol=1e-12)


def _generator(inputs):
    """As the figure leaves it for the start with many outputs: directions of the other network are drawn before."""
    rng = np.random.default_rng(0)
    for size in (2, inputs):
        rng.normal(size=(size, 2))
    return rng


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="Argument `outputs` must be a whole number >= 4"):
        halvagal2023.fig6(outputs=3)
