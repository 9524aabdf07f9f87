"""What each way of holding two views against each other makes of a loss: against the losses themselves and numpy."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn import losses
from jepa_dyn.training import DirectPredictor, JointEmbedding, linear_network
from jepa_dyn.training.joint_embedding import Memory, Target

KEYS = jax.random.split(jax.random.key(0), 4)
RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(6, 4))), jnp.asarray(RNG.normal(size=(6, 4)))
ENCODER, PROJECTOR = linear_network(KEYS[0], 4, 3), linear_network(KEYS[1], 3, 2)
SQUARE, DECODER = linear_network(KEYS[2], 2, 2), linear_network(KEYS[3], 2, 4)


def weight(network):
    return np.asarray(network.stages[0].linear.weight)


Z = [np.asarray(v) @ weight(ENCODER).T @ weight(PROJECTOR).T for v in (X, Y)]
P = [z @ weight(SQUARE).T for z in Z]


def value(network, loss, memory=None, target=None, views=(X, Y)):
    return network.objective(loss, None, target, memory or Memory(), views)


def squares(first, second):
    return jnp.mean(jnp.sum((first - second) ** 2, axis=1))


def test_views_are_embedded_and_compared_once():
    network = JointEmbedding(ENCODER, PROJECTOR)
    found, outcome = value(network, losses.vicreg_loss)
    np.testing.assert_allclose(outcome.embeddings, Z, rtol=1e-12)
    np.testing.assert_allclose(found, losses.vicreg_loss(*outcome.embeddings), rtol=1e-12)
    alone = JointEmbedding(ENCODER)
    np.testing.assert_allclose(value(alone, squares)[1].embeddings[0], X @ weight(ENCODER).T, rtol=1e-12)


@pytest.mark.parametrize("target", ["online", "stop_gradient", "ema"])
def test_predictions_are_held_against_the_other_branch_both_ways(target):
    network = JointEmbedding(ENCODER, PROJECTOR, SQUARE, target=target)
    moving = None
    goals = Z
    if target == "ema":
        moving = Target(jax.tree.map(lambda leaf: 2 * leaf if eqx.is_array(leaf) else leaf, network.trunk), None)
        goals = [4 * z for z in Z]
    expected = [np.mean(np.sum((p - q) ** 2, axis=1)) for p, q in zip(P, goals[::-1], strict=True)]
    np.testing.assert_allclose(value(network, squares, target=moving)[0], np.mean(expected), rtol=1e-12)
    # the zoo knows how much either direction weighs: 1 in BYOL
    byol = losses.symmetrised(losses.byol_loss, tuple(map(jnp.asarray, P)), tuple(map(jnp.asarray, goals)))
    np.testing.assert_allclose(value(network, losses.byol_loss, target=moving)[0], byol, rtol=1e-12)
    one_way = eqx.tree_at(
        lambda n: n.encoder, JointEmbedding(ENCODER, PROJECTOR, SQUARE, target, symmetric=False), ENCODER
    )
    np.testing.assert_allclose(value(one_way, squares, target=moving)[0], expected[0], rtol=1e-12)
    scales = partial(losses.jepa_loss, stop_gradient=False)
    np.testing.assert_allclose(value(one_way, scales, target=moving)[0], expected[0], rtol=1e-12)

    def slope_of_the_second_view(y):
        return value(one_way, squares, target=moving, views=(X, y))[0]

    slope = np.asarray(jax.grad(slope_of_the_second_view)(Y))
    assert (np.abs(slope).max() > 1e-3) == (target == "online")


def test_queue_of_keys():
    network = JointEmbedding(ENCODER, PROJECTOR, target="stop_gradient", queue_size=8)
    memory = network.first_memory(None, (X, Y))
    assert memory.correlation is None and memory.queue.keys.shape == (8, 2)
    first, outcome = value(network, losses.moco_loss, memory)
    np.testing.assert_allclose(first, 0.0, atol=1e-12)  # nothing to confuse a key with
    np.testing.assert_allclose(outcome.memory.queue.keys[:6], Z[1], rtol=1e-12)
    second, outcome = value(network, losses.moco_loss, outcome.memory)
    expected = losses.moco_loss(jnp.asarray(Z[0]), jnp.asarray(Z[1]), outcome.memory.queue)
    assert float(second) > 0.1 and int(outcome.memory.queue.filled) == 8
    assert np.isfinite(expected)
    empty = JointEmbedding(ENCODER, PROJECTOR, target="stop_gradient")
    assert float(value(empty, losses.moco_loss, empty.first_memory(None, (X, Y)))[0]) == 0.0


def test_the_input_as_target():
    network = JointEmbedding(ENCODER, PROJECTOR, DECODER, target="input")
    hidden = jnp.asarray(RNG.uniform(size=(6, 4)) < 0.5)
    found = value(network, losses.mae_loss, views=(X, Y, hidden))[0]
    squared = (Z[0] @ weight(DECODER).T - np.asarray(Y)) ** 2
    np.testing.assert_allclose(found, squared[np.asarray(hidden)].mean(), rtol=1e-12)
    np.testing.assert_allclose(value(network, losses.mae_loss)[0], squared.mean(), rtol=1e-12)
    np.testing.assert_allclose(value(network, squares)[0], squared.sum(1).mean(), rtol=1e-12)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_direct_predictor_is_the_power_of_the_moving_correlation(exponent):
    network = JointEmbedding(ENCODER, PROJECTOR, DirectPredictor(exponent, 0.75), target="stop_gradient")
    before = network.first_memory(None, (2 * X, 2 * Y))
    both = np.concatenate(Z)
    moved = 0.75 * 4 * both.T @ both / 12 + 0.25 * both.T @ both / 12
    found, outcome = value(network, squares, before)
    np.testing.assert_allclose(outcome.memory.correlation, moved, rtol=1e-12)
    s, u = np.linalg.eigh(moved)
    matrix = u @ np.diag(s**exponent) @ u.T
    expected = np.mean([np.mean(np.sum((z @ matrix - q) ** 2, axis=1)) for z, q in zip(Z, Z[::-1], strict=True)])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    ridge = DirectPredictor(exponent, ridge=0.1).matrix(jnp.asarray(moved))
    np.testing.assert_allclose(ridge, matrix + 0.1 * s.max() ** exponent * np.eye(2), rtol=1e-10)
    # an IsoLoss takes the matrix itself
    loss = losses.TABLE_1["cosine_iso"]
    pairs = [(jnp.asarray(z), jnp.asarray(q)) for z, q in zip(Z, Z[::-1], strict=True)]
    iso = [losses.representation_loss(loss, *pair, jnp.asarray(matrix)) for pair in pairs]
    np.testing.assert_allclose(value(network, loss, before)[0], np.mean(iso), rtol=1e-10)


def test_representation_losses_with_a_trained_matrix_and_without():
    network = JointEmbedding(ENCODER, PROJECTOR, SQUARE, target="online")
    euclidean = losses.TABLE_1["euclidean"]
    expected = np.mean([np.mean(np.sum((p - q) ** 2, axis=1)) / 2 for p, q in zip(P, Z[::-1], strict=True)])
    np.testing.assert_allclose(value(network, euclidean)[0], expected, rtol=1e-12)
    plain = JointEmbedding(ENCODER, PROJECTOR)
    found = value(plain, losses.TABLE_1["euclidean_no_predictor"])[0]
    np.testing.assert_allclose(found, np.mean(np.sum((Z[0] - Z[1]) ** 2, axis=1)) / 2, rtol=1e-12)
    with pytest.raises(ValueError, match="`predictor` must be a `DirectPredictor` or linear without bias"):
        value(plain, euclidean)


def test_bad_networks_are_refused():
    with pytest.raises(ValueError, match="`target` must be one of"):
        JointEmbedding(ENCODER, target="momentum")
    with pytest.raises(ValueError, match="`predictor` must be the decoder"):
        JointEmbedding(ENCODER, target="input")
    with pytest.raises(ValueError, match="`momentum` must lie between 0 and 1"):
        DirectPredictor(momentum=1.5)
    with pytest.raises(ValueError, match="`exponent` must be finite and >= 0"):
        DirectPredictor(exponent=-1.0)
