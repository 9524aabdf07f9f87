"""A block-masked JEPA: its loss from its parts, and training of it; a ResNet with statistics and a masked autoencoder beside it."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jepa_dyn import losses
from jepa_dyn.moments import load_labelled_images
from jepa_dyn.training import (
    BlockMasks,
    Crop,
    DirectPredictor,
    Flip,
    HiddenPatches,
    JointEmbedding,
    MaskedPrediction,
    TwoViews,
    block_predictor,
    linear_network,
    perceptron,
    residual_network,
    train_networks,
    vision_transformer,
)
from jepa_dyn.training.joint_embedding import Memory, Target

IMAGES, LABELS = load_labelled_images(max_images=256)
MASKS = BlockMasks(2, ((1, 2), (2, 1)), (4, 4))


def masked(key):
    first, second = jax.random.split(key)
    encoder = vision_transformer(first, (8, 8, 1), patch_size=2, width=16, depth=1, heads=2)
    return MaskedPrediction(encoder, block_predictor(second, encoder, width=8, depth=1, heads=2))


@pytest.mark.slow
def test_the_loss_is_that_of_predictions_and_normalised_tokens():
    network = masked(jax.random.key(0))
    target = jax.tree.map(lambda leaf: 1.5 * leaf if eqx.is_array(leaf) else leaf, network.encoder)
    keys = jax.random.split(jax.random.key(1), 3)
    images = jnp.asarray(IMAGES[:3], float)
    views = jax.vmap(MASKS)(keys, images)

    @eqx.filter_jit
    def objective(network, loss):
        return network.objective(loss, None, Target(target, None), Memory(), views)

    found, outcome = objective(network, losses.jepa_loss)
    encode, predict = eqx.filter_jit(type(network.encoder).tokens), eqx.filter_jit(network.predictor)
    everything = jnp.ones(16, bool)
    expected = np.zeros(2)
    for i in range(3):
        tokens = encode(network.encoder, views[0][i], views[1][i])
        goals = np.asarray(encode(target, views[0][i], everything))
        goals = (goals - goals.mean(1, keepdims=True)) / np.sqrt(goals.var(1, keepdims=True) + 1e-5)
        for k, block in enumerate(part[i] for part in views[2]):
            prediction = predict(tokens, views[1][i], block)
            expected[k] += (
                np.sum((np.asarray(prediction) - goals[np.asarray(block)]) ** 2) / 6
            )  # 3 images, 2 tokens each
        visible = np.asarray(views[1][i])
        np.testing.assert_allclose(outcome.embeddings[0][i], np.asarray(tokens)[visible].mean(0), rtol=1e-9)
    np.testing.assert_allclose(found, expected.sum(), rtol=1e-9)

    def squares(first, second):
        assert first.shape == second.shape == (12, 16)
        return jnp.mean(jnp.sum((first - second) ** 2, axis=1))

    np.testing.assert_allclose(objective(network, squares)[0], expected.mean(), rtol=1e-9)


@pytest.mark.slow
def test_a_masked_jepa_trains():
    runs = train_networks(
        masked, IMAGES, "jepa", 60, views=MASKS, labels=LABELS, batch_size=16, seeds=np.arange(2), learning_rate=1e-3,
        optimiser=optax.adam, target_momentum=0.9, log_every=20, spectrum_samples=64,
    ).raise_if_failed()  # fmt: skip
    assert (runs.ys["loss"][:, -1] < 0.9 * runs.ys["loss"][:, 0]).all()
    assert runs.ys["hidden_block_0"].shape == (2, 4, 16) and runs.target.embed.weight.shape == (2, 16, 4)
    assert (runs.ys["probe_accuracy"][:, -1] > 0.3).all()
    assert runs.representations(IMAGES[:3].reshape(3, -1)).shape == (2, 3, 16)


def residual(key):
    first, second = jax.random.split(key)
    encoder = residual_network(first, (6, 6, 1), channels=(8,), norm="batch")
    return JointEmbedding(encoder, linear_network(second, 8, 8), DirectPredictor(), target="ema")


@pytest.mark.slow
def test_a_residual_network_with_direct_pred_and_lars_trains():
    """Halvagal 2023, section 3, in small: cosine IsoLoss, closed-form predictor, moving average, LARS."""
    views = TwoViews((Crop(6), Flip()))
    runs = train_networks(
        residual, IMAGES, losses.TABLE_1["cosine_iso"], 40, views=views, batch_size=32, seeds=np.arange(2), learning_rate=0.5,
        optimiser=partial(optax.lars, weight_decay=1e-4), log_every=20, spectrum_samples=64,
    ).raise_if_failed()  # fmt: skip
    assert (runs.ys["loss"][:, -1] < runs.ys["loss"][:, 0]).all()
    assert runs.ys["correlation_eigenvalues"].shape == (2, 3, 8)
    assert all((np.abs(leaf) > 0).any() for leaf in jax.tree.leaves(runs.target_statistics))


def autoencoder(key):
    first, second = jax.random.split(key)
    encoder, decoder = perceptron(first, 64, 16, widths=(32,)), perceptron(second, 16, 64, widths=(32,))
    return JointEmbedding(encoder, predictor=decoder, target="input")


@pytest.mark.slow
def test_a_masked_autoencoder_trains():
    runs = train_networks(
        autoencoder, IMAGES, "mae", 200, views=HiddenPatches(2, 0.5), batch_size=32, learning_rate=3e-3, optimiser=optax.adam,
        log_every=100, spectrum_samples=64, spectra=False,
    ).raise_if_failed()  # fmt: skip
    assert np.ndim(runs.status) == 0 and runs.ys["loss"].shape == (3,)
    assert runs.ys["loss"][-1] < 0.7 * runs.ys["loss"][0]
    assert runs.target is None and "mae_loss" in repr(runs)
