"""Layers and networks: norms against numpy, convolutions against scipy, transformers against their symmetries."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jepa_dyn.training import (
    BatchNorm,
    GroupNorm,
    block_predictor,
    deep_linear_network,
    linear_network,
    perceptron,
    residual_network,
    vision_transformer,
)
from jepa_dyn.training.layers import over_rows, over_views, sine_positions

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)


def test_batch_norm_keeps_averages_of_what_it_saw():
    norm, statistics = eqx.nn.make_with_state(BatchNorm)(3, momentum=0.9)
    norm = eqx.tree_at(lambda n: (n.weight, n.bias), norm, (jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 1.0, -1.0])))
    batches = [RNG.normal(size=(5, 4, 3)) * scale for scale in (1.0, 3.0)]

    def expected(x, mean, variance):
        return (x - mean) / np.sqrt(variance + 1e-5) * np.array([1.0, 2.0, 3.0]) + np.array([0.0, 1.0, -1.0])

    moments = []
    for batch in batches:
        found, statistics = over_rows(norm, jnp.asarray(batch), statistics)
        moments.append((batch.mean((0, 1)), batch.var((0, 1))))
        np.testing.assert_allclose(found, expected(batch, *moments[-1]), rtol=1e-10, atol=1e-12)
    still = eqx.nn.inference_mode(norm)
    found, after = over_rows(still, jnp.asarray(batches[0]), statistics)
    # weights 0.09 and 0.1 of the two batches, together 1 - 0.9^2
    mean, variance = ((0.09 * a + 0.1 * b) / 0.19 for a, b in zip(*moments, strict=True))
    np.testing.assert_allclose(found, expected(batches[0], mean, variance), rtol=1e-10, atol=1e-12)
    assert eqx.tree_equal(after, statistics)


def test_group_norm_and_a_batch_of_one():
    x = RNG.normal(size=(3, 2, 4))
    groups = x.reshape(6, 2, 2)
    expected = (groups - groups.mean((0, 2), keepdims=True)) / np.sqrt(groups.var((0, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(GroupNorm(4, 2)(jnp.asarray(x)), expected.reshape(x.shape), rtol=1e-10)
    norm, statistics = eqx.nn.make_with_state(BatchNorm)(3)
    alone, _ = over_rows(norm, jnp.ones((1, 3)), statistics)
    np.testing.assert_array_equal(alone, np.zeros((1, 3)))


def test_linear_networks_are_products_of_their_weights():
    deep = deep_linear_network(KEY, 5, 2, depth=3, width=4)
    product = np.linalg.multi_dot([np.asarray(stage.linear.weight) for stage in deep.stages[::-1]])
    x = RNG.normal(size=5)
    np.testing.assert_allclose(deep(jnp.asarray(x)), product @ x, rtol=1e-10)
    single = linear_network(KEY, 5, 2, bias=True)
    np.testing.assert_allclose(
        single(jnp.asarray(x)), single.stages[0].linear.weight @ x + single.stages[0].linear.bias
    )
    assert set(deep.hidden_layers(jnp.asarray(x))) == {"layer_0", "layer_1"}


def convolved(image, layer, stride=1):
    """A 3 x 3 convolution by scipy, of weights flattened over (row, column, channel)."""
    kernels = np.asarray(layer.linear.weight).reshape(-1, 3, 3, image.shape[2])
    maps = [
        sum(signal.correlate2d(image[:, :, c], kernel[:, :, c], mode="same") for c in range(image.shape[2]))
        for kernel in kernels
    ]
    bias = 0 if layer.linear.bias is None else np.asarray(layer.linear.bias)
    return np.stack(maps, axis=-1)[::stride, ::stride] + bias


def test_residual_network_against_scipy():
    network = residual_network(KEY, (5, 6, 2), channels=(3, 4), norm="none")
    x = RNG.normal(size=(5, 6, 2))
    stem, first, second, _ = network.stages

    def relu(y):
        return np.maximum(y, 0)

    y = relu(convolved(x, stem.dense))
    y = relu(convolved(relu(convolved(y, first.first.dense)), first.second.dense) + y)
    shortcut = y[::2, ::2] @ np.asarray(second.shortcut.linear.weight).T
    y = relu(convolved(relu(convolved(y, second.first.dense, 2)), second.second.dense) + shortcut)
    found, hidden = eqx.filter_jit(lambda net, v: (net(v), net.hidden_layers(v)))(network, jnp.asarray(x.ravel()))
    np.testing.assert_allclose(found, y.mean((0, 1)), rtol=1e-10)
    np.testing.assert_allclose(hidden["block_1_0"], y.mean((0, 1)), rtol=1e-10)
    assert set(hidden) == {"stem", "block_0_0", "block_1_0"}


def test_two_views_of_a_network_with_batch_norm_are_two_batches():
    network, statistics = eqx.nn.make_with_state(perceptron)(KEY, 3, 2, widths=(4,), norm="batch")
    x, y = jnp.asarray(RNG.normal(size=(6, 3))), jnp.asarray(RNG.normal(size=(6, 3)))
    first, second, after = over_views(network, x, y, statistics)
    alone, between = over_rows(network, x, statistics)
    np.testing.assert_array_equal(first, alone)
    expected, last = over_rows(network, y, between)
    np.testing.assert_array_equal(second, expected)
    assert eqx.tree_equal(after, last)
    plain = perceptron(KEY, 3, 2, widths=(4,))
    both, apart = over_views(plain, x, y, None), over_views(plain, x, y, None, apart=True)
    np.testing.assert_allclose(both[1], apart[1], rtol=1e-12)


@pytest.fixture(scope="module")
def transformer():
    return vision_transformer(KEY, (4, 6, 1), patch_size=2, width=8, depth=2, heads=2)


def test_tokens_do_not_see_what_is_hidden(transformer):
    x = RNG.normal(size=(4, 6, 1))
    visible = jnp.array([True, True, False, True, False, True])
    changed = x.copy()
    changed[:2, 4:] += 1.0  # patch 2: row 0, column 2
    tokens = eqx.filter_jit(transformer.tokens)
    before, after = (tokens(jnp.asarray(image.ravel()), visible) for image in (x, changed))
    np.testing.assert_array_equal(np.asarray(before)[np.asarray(visible)], np.asarray(after)[np.asarray(visible)])
    assert np.abs(before[2] - after[2]).max() > 1e-3
    whole = [tokens(jnp.asarray(image.ravel()), jnp.ones(6, bool)) for image in (x, changed)]
    assert np.abs(whole[0][0] - whole[1][0]).max() > 1e-6
    np.testing.assert_allclose(transformer(jnp.asarray(x.ravel())), whole[0].mean(axis=0), rtol=1e-10)


def test_predictions_of_a_block_depend_on_the_context_and_on_places_alone(transformer):
    predictor = block_predictor(KEY, transformer, width=8, depth=1, heads=2)
    tokens = jnp.asarray(RNG.normal(size=(6, 8)))
    visible = jnp.array([True, True, False, False, False, False])
    predict = eqx.filter_jit(predictor)
    found = predict(tokens, visible, jnp.array([3, 4]))
    assert found.shape == (2, 8) and np.abs(found[0] - found[1]).max() > 1e-4
    hidden = predict(tokens.at[2:].add(1.0), visible, jnp.array([3, 4]))
    np.testing.assert_array_equal(hidden, found)
    np.testing.assert_allclose(predict(tokens, visible, jnp.array([4, 3])), found[::-1], rtol=1e-9)
    with pytest.raises(ValueError, match="`width` must be a multiple of 4"):
        block_predictor(KEY, transformer, width=6)


def test_positions_are_all_different():
    positions = np.asarray(sine_positions(3, 5, 8))
    assert positions.shape == (15, 8)
    apart = np.linalg.norm(positions[:, None] - positions, axis=-1) + np.eye(15)
    assert apart.min() > 0.1
    np.testing.assert_allclose(positions[7, :2], np.sin([1, 0.01]))  # row 1, column 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: perceptron(KEY, 3, 0), "`outputs` must be a whole number >= 1"),
        (lambda: perceptron(KEY, 3, 2, norm="layer"), "`norm` must be one of"),
        (lambda: deep_linear_network(KEY, 3, 2, depth=0), "`depth` must be a whole number >= 1"),
        (lambda: residual_network(KEY, (4, 4, 1), channels=()), "at least one number"),
        (lambda: vision_transformer(KEY, (4, 5, 1), patch_size=2), "`patch_size` must divide the view of 4 x 5"),
        (lambda: vision_transformer(KEY, (4, 4, 1), width=6), "`width` must be a multiple of 4"),
    ],
)
def test_bad_sizes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
