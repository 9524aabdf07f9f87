"""Figures 3, 7, 8 of Halvagal 2023 on small encoders: claims as they should be, and what lanes compute against plain numpy."""

import matplotlib

matplotlib.use("Agg")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot

from jepa_dyn.papers import checks, halvagal2023
from jepa_dyn.papers import halvagal2023_images as images
from jepa_dyn.papers import halvagal2023_images_checks as claims
from jepa_dyn.papers.halvagal2023_networks import LOSSES, LossOfLane, Networks, spectrum, views_of, warmed_up
from jepa_dyn.training.joint_embedding import Target

SMALL = {"dimension": 6, "width": 24, "steps": 240}  # of all three, so that they are one program


@pytest.fixture(scope="module")
def fig3():
    return images.fig3(**SMALL)


@pytest.fixture(scope="module")
def fig7():
    return images.fig7(**SMALL)


@pytest.fixture(scope="module")
def fig8():
    return images.fig8(**SMALL)


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


@pytest.mark.parametrize(("name", "panels"), [("fig3", 10), ("fig7", 10), ("fig8", 10)])
def test_figures_are_drawn(name, panels, request):
    dataset = request.getfixturevalue(name)
    axes = getattr(halvagal2023, f"plot_{name}")(dataset).axes
    assert len([ax for ax in axes if ax.get_title(loc="left") and ax.has_data()]) == panels
    assert all(len(one.note) < 400 for one in checks(dataset))


@pytest.mark.parametrize("name", ["fig3", "fig7", "fig8"])
def test_what_is_derived_of_the_spectra(name, request):
    """Effective rank and number recruited by numpy; correlations are some; W_P only where it is used."""
    dataset = request.getfixturevalue(name)
    values = dataset.eigenvalue.values.astype(float)
    known = np.isfinite(values).all(-1)
    assert (known | (dataset.status.values != 0)[..., None]).all()
    shares = values / values.sum(-1, keepdims=True)
    entropy = -np.sum(np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0), axis=-1)
    np.testing.assert_allclose(dataset.effective_rank.values[known], np.exp(entropy)[known], rtol=1e-5)
    counted = (values > 0.1 * values[..., :1]).sum(-1)
    assert (dataset.recruited.values == counted)[known].all()
    assert np.abs(dataset.view_correlation.values[known]).max() < 1 + 1e-4
    assert (np.diff(values[known], axis=-1) <= 0).all()
    trained = np.isnan(dataset.predictor_eigenvalue.values).all((-1, -2))
    assert trained.sum() == (4 if name == "fig3" else 0)


def test_lanes_of_one_setting_agree(fig7, fig8):
    """The lane of rate 0.99 and decay 2e-3 of Figure 7 is one of Figure 8."""
    same = fig7.sel(momentum=0.99), fig8.sel(weight_decay=2e-3)
    np.testing.assert_allclose(same[0].eigenvalue.values, same[1].eigenvalue.values, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def network():
    """(two predictors, statistics, both views), small."""
    made, statistics = eqx.nn.make_with_state(Networks((3, 3, 1), 4, 8, 0.9))(jax.random.key(0))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 32, 9)).astype(np.float32)
    return made, statistics, (jnp.asarray(x[0]), jnp.asarray(x[0] + 0.3 * x[1]))


def by_numpy(name, z, goal, matrix, prediction):
    """The printed losses of one direction, their values."""
    p = prediction if name.endswith("trained") else z @ matrix.T
    if name.startswith("euclidean"):
        return 0.5 * ((p - goal) ** 2).sum(1).mean()
    size, far = np.linalg.norm(p, axis=1), np.linalg.norm(goal, axis=1)
    cosine = (p * goal).sum(1) / (size * far)
    if name.endswith("iso"):  # (17): of its value only the gradient matters
        return (-(z * goal).sum(1) / (size * far) + cosine / size**2 * (z * p).sum(1) / 2).mean()
    return -cosine.mean()


def test_a_lane_has_the_loss_it_names(network):
    """Values of all losses in both directions, target of the same weights, closed-form predictor of the running correlation."""
    made, statistics, views = network
    memory = made.first_memory(statistics, views)
    target = Target(made.moving_part(), statistics)

    @jax.jit
    def everything(weights):
        value, outcome = made.objective(LossOfLane(weights), statistics, target, memory, views)
        return value, outcome.embeddings, outcome.memory.correlation

    found = {name: everything({one: jnp.asarray(float(one == name)) for one in LOSSES}) for name in LOSSES}
    (z, other), c = (
        (np.asarray(one, float) for one in found["cosine_iso"][1]),
        np.asarray(found["cosine_iso"][2], float),
    )
    both = np.concatenate([z, other])
    np.testing.assert_allclose(c, both.T @ both / len(both), rtol=1e-4, atol=1e-6)
    s, u = np.linalg.eigh(c)
    matrix = u @ np.diag(np.sqrt(np.maximum(s, 0))) @ u.T
    run = jax.vmap(made.trained, (0, None), axis_name="batch")
    p, q = (np.asarray(run(jnp.asarray(one, jnp.float32), statistics)[0], float) for one in (z, other))
    for name, (value, *_) in found.items():
        expected = (by_numpy(name, z, other, matrix, p) + by_numpy(name, other, z, matrix, q)) / 2
        np.testing.assert_allclose(value, expected, rtol=2e-4, err_msg=name)


def test_spectrum_is_that_of_the_correlation(network):
    made, statistics, views = network
    found = jax.jit(lambda x, y: spectrum(made, statistics, (x, y)))(*views)
    run = jax.vmap(made.trunk, (0, None), axis_name="batch")
    z, other = (np.asarray(run(one, statistics)[0], float) for one in views)
    s, u = np.linalg.eigh((z.T @ z + other.T @ other) / 64)
    shared = np.array([axis @ (z.T @ other / 32) @ axis for axis in u.T])
    np.testing.assert_allclose(found["eigenvalue"], s[::-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["view_correlation"], (shared / s)[::-1], rtol=1e-3, atol=1e-3)
    blank = jax.tree.map(lambda leaf: 0 * leaf if eqx.is_inexact_array(leaf) else leaf, made)
    nothing = spectrum(blank, statistics, views)
    assert (nothing["eigenvalue"] == 0).all() and (nothing["view_correlation"] == 0).all()


def test_learning_rate_rises_and_falls():
    """Steps of gradient 1 from rest: the first is of rate 0, later ones move by rate x (1 + 0.9 + ...), the last hardly."""
    optimiser, w = warmed_up(jnp.asarray(0.1), jnp.asarray(100.0)), jnp.zeros(())
    state, moved = optimiser.init(w), []
    for _ in range(100):
        update, state = optimiser.update(jnp.ones(()), state, w)
        moved.append(float(update))
    assert moved[0] == 0
    np.testing.assert_allclose(moved[50], -0.1 * (1 + np.cos(np.pi / 2)) / 2 * 10, rtol=0.02)
    assert -moved[-1] < 0.01 * max(-np.array(moved))


def test_network_of_the_paper():
    """ResNet-18 without its classifier, stem of 3 x 3: 11,168,832 parameters; views of CIFAR keep their shape."""
    paper = Networks((32, 32, 3), 256, 64, 0.998, True)
    like, _ = eqx.filter_eval_shape(eqx.nn.make_with_state(paper), jax.random.key(0))
    leaves = [leaf for leaf in jax.tree.leaves(like.encoder) if isinstance(leaf, jax.ShapeDtypeStruct)]
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == 11_168_832
    assert views_of((32, 32, 3), False).shape_of((32, 32, 3)) == (32, 32, 3)
    assert views_of((8, 8, 1), False).shape_of((8, 8, 1)) == (6, 6, 1)


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("fig3", {"dimension": 3}, "Argument `dimension` must be a whole number >= 4"),
        ("fig3", {"weight_decay": -1.0}, "Argument `weight_decay`"),
        ("fig7", {"steps": 10}, "Argument `steps` must be a whole number >= 20"),
        ("fig7", {"learning_rate": 0.0}, "Argument `learning_rate`"),
        ("fig8", {"width": 0}, "Argument `width` must be a whole number >= 1"),
        ("fig8", {"momentum": 1.5}, "must lie between 0 and 1"),
        ("fig8", {"path": "/nowhere"}, "Argument `path` must name an existing"),
    ],
)
def test_bad_options_are_named(call, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(images, call)(**options)
