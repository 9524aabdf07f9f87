"""Halvagal 2023: claims come out as they should; networks, modes and what is measured of them against plain numpy."""

import matplotlib

matplotlib.use("Agg")

import jax
import numpy as np
import pytest
from matplotlib import pyplot

from jepa_dyn.moments import PairBatches, additive_noise_moments
from jepa_dyn.papers import checks, halvagal2023
from jepa_dyn.papers import halvagal2023_checks as claims
from jepa_dyn.papers.halvagal2023_networks import TWO_EIGENVALUES
from jepa_dyn.papers.halvagal2023_runs import PACE, draw_encoders, saved_steps
from jepa_dyn.papers.halvagal2023_starts import STARTS, fig5_checks

SMALL = {"count": 2, "outputs": 6, "inputs": 8, "batch_size": 400}


@pytest.fixture(scope="module")
def table1():
    return halvagal2023.table1(**SMALL)


@pytest.fixture(scope="module")
def fig2():
    # the smallest eigenvalue of key 0 starts at 0.014 and escapes after 1 / (2 lambda), later than the run ends
    return halvagal2023.fig2(outputs=6, inputs=8, batch_size=200, key=1)


@pytest.fixture(scope="module")
def fig4():
    return halvagal2023.fig4(count=2, outputs=6, inputs=8, num_steps=1000)


@pytest.fixture(scope="module")
def fig5():
    return halvagal2023.fig5(inputs=8, batch_size=1024)


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


@pytest.mark.parametrize(
    ("name", "num_checks", "num_failing", "panels"),
    [("table1", 17, 3, 8), ("fig2", 8, 2, 8), ("fig4", 6, 2, 2), ("fig5", 6, 0, 2)],
)
def test_claims_come_out_as_expected_and_are_drawn(name, num_checks, num_failing, panels, request):
    dataset = request.getfixturevalue(name)
    found = checks(dataset)
    assert [c.claim for c in found if not c.as_expected] == []
    assert len(found) == num_checks and sum(not c.expected for c in found) == num_failing
    axes = getattr(halvagal2023, f"plot_{name}")(dataset).axes
    assert len([ax for ax in axes if ax.get_title(loc="left") and ax.has_data()]) == panels


def gradient(name, w, x, y):
    """By hand from the printed losses, W_P = W W^T held: (3)-(6), (15), (17); the second branch of C.2 as corrected."""
    z, other = x @ w.T, y @ w.T
    predictor = np.eye(len(w)) if "no_predictor" in name else w @ w.T
    p = z @ predictor
    if name.startswith("euclidean"):
        g, second = p - other, other - p
    else:
        size, far = (np.linalg.norm(v, axis=1, keepdims=True) for v in (p, other))
        cosine = np.sum(p * other, axis=1, keepdims=True) / (size * far)
        g, second = -(other / far - cosine * p / size) / size, -(p / size - cosine * other / far) / far
    slope = (g if "iso" in name else g @ predictor).T @ x
    return (slope + second.T @ y if "no_stop" in name else slope) / len(x)


@pytest.mark.parametrize("name", PACE)
def test_networks_descend_on_drawn_pairs(name, table1):
    """The first steps of the second run by numpy on the same pairs; the modes' first values are those of the start."""
    starts = draw_encoders(np.random.default_rng(0), 2, 6, 8)
    w, own = starts[1].copy(), jax.random.split(jax.random.key(0), 2)[1]
    source, law = PairBatches(400), additive_noise_moments(np.eye(8), 0.1)
    steps = saved_steps(600, 40)[:4]
    found = table1.sel(row=name).isel(seed=1)
    for k in range(steps[-1] + 1):
        if k in steps:
            i = int(np.searchsorted(steps, k))
            np.testing.assert_allclose(found.simulated.values[i], np.linalg.eigvalsh(w @ w.T), rtol=1e-9)
        pairs = source.draw(jax.random.fold_in(own, k), source.prepare(law))
        w = w - 0.05 * PACE[name] * gradient(name, w, np.asarray(pairs.x), np.asarray(pairs.y))
    np.testing.assert_allclose(found.predicted.values[0], found.simulated.values[0], rtol=1e-12)
    np.testing.assert_allclose(found.t.values[:4], 0.05 * PACE[name] * steps, rtol=1e-12)


def test_modes_are_the_scalar_maps(table1):
    """Euclidean rows of the table by the map of each amplitude on the population, all 600 steps."""
    v = 1.01
    maps = {
        "euclidean": lambda a: a**2 * (a - v * a**3),
        "euclidean_iso": lambda a: a - v * a**3,
        "euclidean_no_predictor": lambda a: (1 - v) * a,
        "euclidean_no_stop_gradient": lambda a: a**2 * (a - v * a**3) - v * a + a**3,
    }
    for name, speed in maps.items():
        path = table1.sel(row=name).predicted.values[0]
        a = np.sqrt(path[0])
        for _ in range(600):
            a = a + 0.05 * PACE[name] * speed(a)
        np.testing.assert_allclose(path[-1], np.sort(a**2), rtol=1e-8, atol=1e-14)


def test_what_is_measured_of_paths():
    t = np.array([0.0, 1.0, 2.0, 4.0])
    paths = np.array([[[0.1, 2.0, 3.0], [0.5, 1.5, 2.0], [1.0, 0.95, 1.05], [1.0, 1.0, 1.0]]])
    assert claims.arrival(t, paths) == 2.0 and claims.arrival(t, paths[:, -1:]) == 0.0
    assert claims.arrival(t, paths[:, [3, 2, 1, 0]]) == np.inf
    assert claims.spread(paths[:, 0]) == pytest.approx(30.0)
    assert claims.growth_ratio(t, paths, 1.0) == pytest.approx(abs(np.log(0.75) / np.log(5.0)))
    assert claims.printed_growth_ratio(paths, True) == pytest.approx(1 / 0.9)
    assert claims.printed_growth_ratio(paths, False) == pytest.approx(2 / 0.09)
    steps = saved_steps(600, 40)
    assert steps[0] == 0 and steps[-1] == 600 and (np.diff(steps) > 0).all()


def test_checks_can_fail(table1):
    flat = table1.assign(simulated=table1.simulated.isel(time=0) + 0 * table1.simulated)
    assert sum(not c.as_expected for c in claims.table1_checks(flat)) >= 9
    grown = table1.assign(simulated=table1.simulated * np.linspace(1, 30, table1.sizes["time"])[:, None])
    assert sum(not c.as_expected for c in claims.table1_checks(grown)) >= 9


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("table1", {"count": 1}, "Argument `count` must be a whole number >= 2"),
        ("table1", {"outputs": 6, "inputs": 5}, "Argument `inputs` must be a whole number >= 6"),
        ("table1", {"sigma": 0.0}, "Argument `sigma` must be finite and > 0"),
        ("table1", {"learning_rate": -1.0}, "Argument `learning_rate`"),
        ("fig4", {"weight_decay": -1.0}, "Argument `weight_decay`"),
        ("fig4", {"count": 1}, "Argument `count` must be a whole number >= 2"),
        ("fig5", {"num_steps": 10}, "Argument `num_steps` must be a whole number >= 100"),
        ("fig2", {"outputs": 1}, "Argument `outputs` must be a whole number >= 2"),
    ],
)
def test_bad_options_are_named(call, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(halvagal2023, call)(**options)


def test_representations_are_those_of_the_weights(fig2):
    """Mean squares of z over 150 inputs are tr C_z within their sampling error, and the start has the eigenvalues it was given."""
    squares = (fig2.representation**2).sum("output")
    error = squares.std("point") / np.sqrt(150)
    traces = fig2.eigenvalue_of_two.sum("output")
    assert (np.abs(squares.mean("point") - traces) <= 4 * error + 1e-12).all()
    first = fig2.eigenvalue_of_two.isel(time=0).values
    np.testing.assert_allclose(first, np.tile(TWO_EIGENVALUES, (8, 1)), rtol=1e-10)


def test_checks_of_figure_2_can_fail(fig2):
    still = fig2.isel(time=[0, 0])
    assert sum(not c.as_expected for c in claims.fig2_checks(still)) >= 6


def test_trained_predictor_descends_too(fig4):
    """The Euclidean run of Figure 4 by numpy for its first saved steps: both gradients with weight decay; the cosines by eigh."""
    rng, own = np.random.default_rng(0), jax.random.split(jax.random.key(0), 2)[0]
    w, p = draw_encoders(rng, 2, 6, 8)[0], draw_encoders(rng, 2, 6, 6)[0]
    source, law = PairBatches(256), additive_noise_moments(np.eye(8), 0.1)
    steps, one = saved_steps(1000, 40)[:6], fig4.sel(distance="euclidean").isel(seed=0)
    for k in range(steps[-1] + 1):
        if k in steps:
            i = int(np.searchsorted(steps, k))
            values, columns = np.linalg.eigh(w @ w.T)
            images = p @ columns
            cosines = np.sum(columns * images, axis=0) / np.linalg.norm(images, axis=0)
            np.testing.assert_allclose(one.alignment.values[i], cosines[::-1], rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(one.eigenvalue.values[i], values[::-1], rtol=1e-9)
        pairs = source.draw(jax.random.fold_in(own, k), source.prepare(law))
        x, y = np.asarray(pairs.x), np.asarray(pairs.y)
        z = x @ w.T
        gap = z @ p.T - y @ w.T
        w, p = w - 0.05 * ((gap @ p).T @ x / 256 + 0.01 * w), p - 0.05 * (gap.T @ z / 256 + 0.01 * p)


def test_checks_of_figure_4_can_fail(fig4):
    still = fig4.isel(time=[0, 0])
    assert sum(not c.as_expected for c in claims.fig4_checks(still)) >= 4


def test_two_eigenvalues(fig5):
    """Euclidean modes of Figure 5 by the scalar map; every start has the eigenvalues it was given, in networks and modes."""
    np.testing.assert_allclose(fig5.simulated.isel(time=0).values, np.stack([STARTS, STARTS]), rtol=1e-9)
    a = np.sqrt(STARTS)
    for _ in range(900):
        a = a + 0.01 * a**2 * (a - 1.01 * a**3)
    np.testing.assert_allclose(fig5.predicted.sel(distance="euclidean").values[:, -1], np.sort(a**2), rtol=1e-9)


def test_checks_of_figure_5_can_fail(fig5):
    still = fig5.isel(time=[0, 0])
    assert sum(not c.as_expected for c in fig5_checks(still)) >= 2
    swapped = fig5.assign_coords(distance=["cosine", "euclidean"])
    assert sum(not c.as_expected for c in fig5_checks(swapped)) >= 3
