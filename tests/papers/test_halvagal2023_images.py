"""Figures 3, 7, 8 of Halvagal 2023 on small encoders: claims as they should be, and what lanes compute against plain numpy."""

import matplotlib

matplotlib.use("Agg")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from matplotlib import pyplot

from jepa_dyn.papers import checks, halvagal2023
from jepa_dyn.papers import halvagal2023_images as images
from jepa_dyn.papers import halvagal2023_images_checks as claims
from jepa_dyn.papers.halvagal2023_encoders import LOSSES, LossOfLane, Networks, spectrum, views_of, warmed_up
from jepa_dyn.training.joint_embedding import Target

SMALL = {"dimension": 6, "width": 16, "steps": 80, "batch_size": 32}  # of all three, so that they are one program


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


STEPS = np.linspace(0, 100, 41)


def paths(ends, delays=0.0, duration=30.0):
    """Eigenvalues that move from 0.6 ... 0.001 to their ends, each after its delay: (steps, mode)."""
    ends, starts = np.asarray(ends, float), np.geomspace(0.6, 1e-3, len(ends))
    done = np.clip((STEPS[:, None] - delays) / duration, 0, 1)
    return starts * (ends / starts) ** done


def as_dataset(axes, eigenvalues, accuracy, correlation=0.9):
    """What `recruitment` returns for these paths (*grid, step, mode) and final accuracies (*grid,)."""
    shares = eigenvalues / eigenvalues.sum(-1, keepdims=True)
    rises = 1 - np.exp(-STEPS / 20)
    grid, mode = tuple(axes), np.arange(eigenvalues.shape[-1])
    levels = correlation - 0.02 * mode
    variables = {
        "eigenvalue": ((*grid, "step", "mode"), eigenvalues),
        "view_correlation": ((*grid, "step", "mode"), np.broadcast_to(levels, eigenvalues.shape)),
        "predictor_eigenvalue": ((*grid, "step", "mode"), np.broadcast_to(levels - 0.01, eigenvalues.shape)),
        "effective_rank": ((*grid, "step"), np.exp(-(shares * np.log(shares)).sum(-1))),
        "recruited": ((*grid, "step"), (eigenvalues > 0.1 * eigenvalues.max(-1, keepdims=True)).sum(-1).astype(float)),
        "probe_accuracy": ((*grid, "step"), np.asarray(accuracy)[..., None] * rises),
    }
    return xarray.Dataset(variables, axes | {"step": STEPS})


def few(count, level, size=8):
    return np.r_[np.linspace(1, 0.8, count), np.full(size - count, 1e-3)] * level


@pytest.fixture(scope="module")
def printed():
    """Runs that do all that the paper says, corrected where it must be."""
    lost = paths(few(1, 3.0))
    direct, iso = paths(few(5, 1.0), duration=60.0), paths(few(8, 1.0))
    by_loss = {
        "euclidean": [direct, iso, paths(np.geomspace(300, 3e-3, 8))],
        "cosine": [paths(few(5, 0.5), duration=60.0), paths(few(8, 2.0)), paths(few(2, 1.0))],
    }
    axes = {
        "distance": ["euclidean", "cosine"],
        "predictor": ["direct", "iso", "trained"],
        "target": ["averaged", "online"],
    }
    grid = np.array([[[run, lost] for run in runs] for runs in by_loss.values()])
    accuracy = np.array([[[0.8, 0.5], [0.9, 0.7], [0.7, 0.5]]] * 2)
    third = as_dataset(axes, grid, accuracy)
    counts = {"DirectPred": (1, 2, 3, 4, 5, 5), "IsoLoss": (3, 4, 5, 6, 8, 8)}
    axes = {"loss": list(counts), "momentum": list(images.MOMENTA)}
    seventh = as_dataset(
        axes,
        np.array([[paths(few(n, 1.0)) for n in row] for row in counts.values()]),
        np.array([np.linspace(0.4, 0.8, 6), np.linspace(0.7, 0.9, 6)]),
    )
    counts = {"DirectPred": (4, 6, 5, 4, 3, 2), "IsoLoss": (5, 7, 7, 7, 7, 7)}
    axes = {"loss": list(counts), "weight_decay": list(images.DECAYS)}
    sizes = 2.0 ** -np.arange(6)
    grid = np.array([[paths(few(n, size)) for n, size in zip(row, sizes, strict=True)] for row in counts.values()])
    return {"fig3": third, "fig7": seventh, "fig8": as_dataset(axes, grid, np.full((2, 6), 0.8))}


@pytest.mark.parametrize(("name", "num_checks", "num_failing"), [("fig3", 11, 1), ("fig7", 4, 0), ("fig8", 4, 1)])
def test_checks_tell_runs_that_do_as_claimed(name, num_checks, num_failing, printed):
    found = getattr(claims, f"{name}_checks")(printed[name])
    assert [one.claim for one in found if not one.as_expected] == []
    assert len(found) == num_checks and sum(not one.expected for one in found) == num_failing


def test_eigenvalues_recruited_one_by_one():
    """Six that jump in turn: at the first saved step after each has passed a tenth of the largest."""
    values = np.where(STEPS[:, None] >= [0, 10, 20, 30, 40, 50], 1.0, 1e-3)
    run = as_dataset({"seed": [0]}, values[None], np.ones(1)).isel(seed=0)
    np.testing.assert_allclose(claims.rises(run), [10, 20, 30, 40, 50])
    assert claims.half_way(run, 7.0) == 30 and claims.half_way(run, 20.0) == np.inf
    assert claims.spread_in_decades(run.isel(step=[0])) == pytest.approx(3)


@pytest.mark.parametrize("name", ["fig3", "fig7", "fig8"])
def test_checks_can_fail(name, printed):
    """Each check of a true claim fails for runs that stand still, diverge, or have exchanged their roles."""
    dataset, judge = printed[name], getattr(claims, f"{name}_checks")
    axis = "predictor" if name == "fig3" else "loss"
    other = {"direct": "iso", "iso": "direct", "DirectPred": "IsoLoss", "IsoLoss": "DirectPred"}
    names = [str(one) for one in dataset[axis].values]
    wrong = [
        judge(dataset.isel(step=[0, 0])),
        judge(dataset * np.nan),
        judge(dataset.assign_coords({axis: [other.get(one, one) for one in names]})),
    ]
    claimed = [i for i, one in enumerate(judge(dataset)) if one.holds]
    assert all(any(not found[i].holds for found in wrong) for i in claimed)
    assert not any(one.holds for one in wrong[1])


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
