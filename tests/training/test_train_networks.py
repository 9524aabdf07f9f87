"""Training of many networks at once: against a loop written out and full-batch training; checkpoints resumed bit for bit."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jepa_dyn import Status, _programs
from jepa_dyn.losses import barlow_twins_loss, vicreg_loss
from jepa_dyn.moments import load_labelled_images
from jepa_dyn.training import (
    CheckpointMismatch,
    Crop,
    JointEmbedding,
    Standardise,
    TwoViews,
    linear_network,
    many_lanes,
    perceptron,
    scale_parameters,
    train_full_batch,
    train_networks,
)
from jepa_dyn.training.observation import ridge_scores

RNG = np.random.default_rng(4)
X = RNG.normal(size=(8, 5))
Y = 0.8 * X + 0.4 * RNG.normal(size=(8, 5))


def plain(key):
    return JointEmbedding(perceptron(key, 5, 3, widths=(20,)))


@pytest.fixture(scope="module")
def full_batch():
    """One seed at two rates and a rate that diverges; another seed at none."""
    return train_networks(
        plain, (X, Y), barlow_twins_loss, 30, batch_size=None, seeds=np.array([3, 3, 3, 4]), log_every=[0, 7, 30],
        learning_rate=np.array([0.02, 0.05, 40.0, np.finfo(float).tiny]), init_scale=0.5, progress=True,
    )  # fmt: skip


def test_full_batch_training_of_pairs(full_batch):
    """The same gradient descent by `train_full_batch`, which knows neither lanes nor joint embeddings."""
    start = scale_parameters(plain(jax.random.fold_in(jax.random.key(3), 0)), 0.5).encoder
    for lane, rate in enumerate([0.02, 0.05]):
        expected = train_full_batch(start, X, Y, barlow_twins_loss, [0, 7, 30], learning_rate=rate)
        for name in ("loss", "eigenvalues"):
            np.testing.assert_allclose(full_batch.ys[name][lane], expected.ys[name], rtol=1e-9, atol=1e-12)
        network, _ = full_batch.lane(lane)
        for one, other in zip(jax.tree.leaves(network.encoder), jax.tree.leaves(expected.final), strict=False):
            if eqx.is_array(one):
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert float(full_batch.ys["loss"][1, -1]) < 0.8 * float(full_batch.ys["loss"][1, 0])
    np.testing.assert_allclose(full_batch.ys["loss"][3, 0], full_batch.ys["loss"][3, -1], rtol=1e-12)  # no rate


def test_what_is_logged_and_what_becomes_of_a_diverging_lane(full_batch):
    assert [Status(int(s)).name for s in full_batch.status] == ["ok", "ok", "diverged", "ok"]
    failed = int(full_batch.failed_at[2])
    assert 1 <= failed <= 7 and int(full_batch.steps[2]) == failed - 1
    for name, values in full_batch.ys.items():
        assert np.isfinite(values[np.array([0, 1, 3])]).all(), name
        assert np.isfinite(values[2, 0]).all() and np.isnan(values[2, 1:]).all(), name
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(eqx.filter(full_batch.final, eqx.is_array)))
    network, _ = full_batch.lane(1)
    z, other = (np.asarray(full_batch.representations(v))[1] for v in (X, Y))
    np.testing.assert_allclose(z, jax.vmap(network.encoder)(jnp.asarray(X)), rtol=1e-12)
    both = np.concatenate([z, other])
    covariance = np.linalg.eigvalsh(np.cov(both.T, ddof=0))[::-1]
    np.testing.assert_allclose(full_batch.ys["covariance_eigenvalues"][1, -1], covariance, rtol=1e-9)
    hidden = np.maximum(X @ network.encoder.stages[0].linear.weight.T + network.encoder.stages[0].linear.bias, 0)
    wider = np.linalg.eigvalsh(np.cov(hidden.T, ddof=0))[::-1]  # 20 units, 8 samples: rank 7
    np.testing.assert_allclose(full_batch.ys["hidden_layer_0"][1, -1], np.maximum(wider, 0), rtol=1e-8, atol=1e-13)
    data = full_batch.to_xarray()
    assert dict(data.sizes)["lane"] == 4 and data["seed"].values.tolist() == [3, 3, 3, 4]
    assert "1 FAILED" in repr(full_batch) and "barlow_twins_loss" in repr(full_batch)
    norm = np.sqrt(sum(np.sum(np.asarray(leaf) ** 2) for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_array))))
    np.testing.assert_allclose(full_batch.ys["parameter_norm"][1, -1], norm, rtol=1e-12)


def siamese(key):
    first, second = jax.random.split(key)
    return JointEmbedding(
        linear_network(first, 5, 3), predictor=linear_network(second, 3, 3), target="ema", symmetric=False
    )


def half_squares(prediction, target):
    return jnp.mean(jnp.sum((prediction - target) ** 2, axis=1)) / 2


def test_moving_average_weight_decay_and_momentum_against_a_loop():
    """Ponce 2025, (4), with gradients by hand: alpha 0 is the online branch, alpha 1 the start."""
    alphas, steps, rate, decay = np.array([0.0, 0.7, 1.0]), 5, 0.1, 0.05
    runs = train_networks(
        siamese, (X, Y), half_squares, steps, batch_size=None, seeds=2, learning_rate=rate, weight_decay=decay,
        optimiser=partial(optax.sgd, momentum=0.9), target_momentum=alphas, log_every=1,
    ).raise_if_failed()  # fmt: skip
    start = siamese(jax.random.fold_in(jax.random.key(2), 0))
    for lane, alpha in enumerate(alphas):
        a, b = (np.asarray(part.stages[0].linear.weight) for part in (start.encoder, start.predictor))
        c, momenta = a.copy(), [0.0, 0.0]
        for number in range(steps):
            gap = X @ a.T @ b.T - Y @ c.T
            np.testing.assert_allclose(runs.ys["loss"][lane, number], (gap**2).sum(1).mean() / 2, rtol=1e-10)
            slopes = b.T @ gap.T @ X / 8 + decay * a, gap.T @ (X @ a.T) / 8 + decay * b
            momenta = [0.9 * m + s for m, s in zip(momenta, slopes, strict=True)]
            a, b = a - rate * momenta[0], b - rate * momenta[1]
            c = alpha * c + (1 - alpha) * a
        network, _ = runs.lane(lane)
        np.testing.assert_allclose(network.encoder.stages[0].linear.weight, a, rtol=1e-10)
        np.testing.assert_allclose(network.predictor.stages[0].linear.weight, b, rtol=1e-10)
        target = runs.target.stages[0].stages[0].linear.weight[lane]
        np.testing.assert_allclose(target, c, rtol=1e-10)
        increment = rate * np.sqrt(sum(np.sum(m**2) for m in momenta))
        np.testing.assert_allclose(runs.ys["increment"][lane, -1], increment, rtol=1e-10)
    np.testing.assert_array_equal(
        runs.target.stages[0].stages[0].linear.weight[2], start.encoder.stages[0].linear.weight
    )
    np.testing.assert_array_equal(
        runs.target.stages[0].stages[0].linear.weight[0], runs.final.encoder.stages[0].linear.weight[0]
    )


IMAGES, LABELS = load_labelled_images(max_images=200)


def small(key):
    first, second = jax.random.split(key)
    return JointEmbedding(perceptron(first, 36, 16, widths=(24,), norm="batch"), linear_network(second, 16, 8))


def of_digits(steps, **changes):
    options = {
        "views": TwoViews((Crop(6), Standardise(0.0, 1.0))), "labels": LABELS, "batch_size": 16, "learning_rate": 0.02,
        "seeds": np.array([0, 1]), "log_every": 5, "spectrum_samples": 40,
        "loss": partial(vicreg_loss, covariance_weight=np.array([1.0, 2.0])),
    } | changes  # fmt: skip
    return train_networks(small, IMAGES, steps=steps, **options)


@pytest.fixture(scope="module")
def digits():
    return of_digits(100)


def test_training_on_views_learns_features(digits):
    digits.raise_if_failed()
    assert digits.ys["eigenvalues"].shape == (2, 21, 8) and digits.ys["hidden_representation"].shape == (2, 21, 16)
    assert (digits.ys["loss"][:, -1] < 0.95 * digits.ys["loss"][:, 0]).all()
    assert (digits.ys["probe_accuracy"][:, -1] > 0.4).all()  # of ten classes
    assert (digits.ys["increment"][:, 0] == 0).all() and (digits.ys["increment"][:, 1:] > 0).all()
    averages = jax.tree.leaves(digits.statistics)
    assert len(averages) == 3 and (averages[-1] > 0.5).all()  # 1 - 0.99^200: two batches a step
    assert digits.to_xarray()["loss_covariance_weight"].values.tolist() == [1.0, 2.0]


def test_a_checkpoint_resumes_bit_for_bit(digits, tmp_path):
    file = tmp_path / "deep" / "run.eqx"
    of_digits(35, checkpoint=file)
    again = of_digits(100, checkpoint=file, checkpoint_seconds=0.0)
    for name, values in digits.ys.items():
        np.testing.assert_array_equal(again.ys[name], values, err_msg=name)
    for one, other in zip(jax.tree.leaves(again.final), jax.tree.leaves(digits.final), strict=True):
        if eqx.is_array(one):
            np.testing.assert_array_equal(one, other)
    assert eqx.tree_equal(again.statistics, digits.statistics)
    assert [path.name for path in file.parent.iterdir()] == ["run.eqx"]
    done = of_digits(100, checkpoint=file)  # nothing left to do
    np.testing.assert_array_equal(done.ys["loss"], digits.ys["loss"])


def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path):
    file = tmp_path / "run.eqx"
    of_digits(5, checkpoint=file)
    for name, changes in {
        "weight_decay": {"weight_decay": 0.1},
        "loss": {"loss": partial(vicreg_loss, covariance_weight=np.array([1.0, 3.0]))},
        "views": {"views": TwoViews((Crop(6), Standardise(0.0, 2.0)))},
        "seeds": {"seeds": np.array([0, 2])},
        "labels": {"labels": LABELS[::-1]},
    }.items():
        with pytest.raises(CheckpointMismatch, match=f"differs in .*{name}"):
            of_digits(10, checkpoint=file, **changes)
    with pytest.raises(CheckpointMismatch, match="logged at other steps"):
        of_digits(12, checkpoint=file, log_every=4)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match="cannot be read"):
        of_digits(10, checkpoint=file)
    file.write_bytes(b"\x93other")
    with pytest.raises(ValueError, match="is something else"):
        of_digits(10, checkpoint=file)


@pytest.mark.parametrize("count", [5, 30])
def test_the_probe_is_ridge_regression(count):
    """Fewer and more samples than features, against the normal equations; equal features tell nothing."""
    features, labels = RNG.normal(size=(count, 12)), RNG.integers(0, 3, count)
    goals = np.eye(3)[labels]
    centred = features - features.mean(0)
    gram = centred.T @ centred / count
    weights = np.linalg.solve(gram + 0.01 * np.trace(gram) * np.eye(12), centred.T @ (goals - goals.mean(0)) / count)
    other = RNG.normal(size=(4, 12))
    scores = ridge_scores(*map(jnp.asarray, (features, labels, other)), 3, jnp.asarray(0.01))
    np.testing.assert_allclose(scores, (other - features.mean(0)) @ weights + goals.mean(0), rtol=1e-9, atol=1e-12)
    nothing = ridge_scores(jnp.ones((count, 12)), jnp.asarray(labels), jnp.ones((2, 12)), 3, jnp.asarray(0.01))
    np.testing.assert_allclose(nothing, np.broadcast_to(goals.mean(0), (2, 3)))


def wrong(key):
    return linear_network(key, 5, 3)


def pairwise(first, second):
    return jnp.sum(first - second, axis=1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": X}, ValueError, "`images` must be a pair"),
        ({"images": (X, Y[:3])}, ValueError, "`images` must be two arrays of one shape"),
        ({"images": (X[:, :4], Y[:, :4])}, ValueError, "`make`, `views` and `loss` must fit each other"),
        ({"loss": "barlow"}, ValueError, "`loss` must be one of"),
        ({"loss": 3}, TypeError, "`loss` must be a name"),
        ({"loss": pairwise}, ValueError, "`loss` must return one number"),
        ({"loss": "vicreg", "batch_size": 1}, ValueError, "`batch_size` must be at least 2 for the loss 'vicreg'"),
        ({"make": wrong}, TypeError, "`make` must return a JointEmbedding"),
        ({"seeds": np.array([0, -1])}, ValueError, "`seeds` must be whole numbers"),
        ({"seeds": np.arange(2), "learning_rate": np.ones(3)}, ValueError, "Lane axes must agree, but `seed` has 2"),
        ({"weight_decay": np.zeros((2, 2))}, ValueError, "`weight_decay` must be a number or one per lane"),
        ({"target_momentum": 1.5}, ValueError, "`target_momentum` must lie between 0 and 1"),
        ({"init_scale": 0.0}, ValueError, "`init_scale` must be finite and > 0"),
        ({"steps": -1}, ValueError, "`steps` must be a whole number >= 0"),
        ({"log_every": 0}, ValueError, "`log_every` must be a whole number >= 1"),
        ({"log_every": [0, 2]}, ValueError, "`log_every` must end with `steps` = 3, but ends with 2"),
        ({"labels": np.zeros(3, int)}, ValueError, "`labels` must have one label per image"),
        ({"labels": np.zeros(8, int)}, ValueError, "`labels` must hold at least two classes"),
        ({"images": IMAGES, "views": TwoViews((Crop(9),))}, ValueError, "at least 9 x 9 pixels"),
        ({"images": IMAGES, "views": lambda key, image: image}, TypeError, "`views` must be"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(change, error, message):
    given = {"make": plain, "images": (X, Y), "loss": "barlow_twins", "steps": 3, "learning_rate": 0.1} | change
    with pytest.raises(error, match=message):
        train_networks(given.pop("make"), given.pop("images"), given.pop("loss"), given.pop("steps"), **given)


@pytest.mark.parametrize("log_every", [7, 1])
def test_spectra_apart_from_the_steps(monkeypatch, log_every):
    """Two blocks of lanes, the steps on two threads and the spectra on one: as in one program, but for rounding."""
    monkeypatch.setattr(many_lanes, "num_cores", lambda: 2)
    found = []
    for version in ((99, 0), (0, 1)):
        monkeypatch.setattr(_programs, "_MENDED_IN", version)
        if version == (0, 1):  # this jaxlib may hang: one block after the other
            monkeypatch.setattr(many_lanes, "in_threads", lambda function, blocks, most: [function(b) for b in blocks])
        found.append(
            train_networks(
                plain,
                (X, Y),
                barlow_twins_loss,
                20,
                batch_size=None,
                seeds=np.arange(8),
                log_every=log_every,
                learning_rate=0.02,
            )
        )
    apart, together = found
    assert {"eigenvalues", "loss"} < set(apart.ys) == set(together.ys)
    np.testing.assert_array_equal(apart.steps, together.steps)
    for name, values in together.ys.items():
        np.testing.assert_allclose(apart.ys[name], values, rtol=1e-9, atol=1e-12, err_msg=name)
