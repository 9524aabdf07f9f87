"""Small encoders against numpy and scipy; the scales of their start; inputs in coordinates of their span."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jepa_dyn.training import convolutional_encoder, in_coordinates, one_hidden_layer_encoder, scale_parameters

KEY = jax.random.key(3)


def relu(x):
    return np.maximum(x, 0)


def test_perceptron_and_the_scales_of_its_start():
    encoder = one_hidden_layer_encoder(KEY, 6, 3, width=50, hidden_scale=0.5, readout_scale=1e-3)
    hidden, readout = encoder.hidden, encoder.readout
    x = np.random.default_rng(0).normal(size=6)
    expected = readout.weight @ relu(hidden.weight @ x + hidden.bias) + readout.bias
    np.testing.assert_allclose(encoder(jnp.asarray(x)), expected, rtol=1e-12)
    # uniform in +-scale / sqrt(inputs): the largest of 300 lies within 5 % of the end with probability 1 - 2e-7
    for layer, size, scale in ((hidden, 6, 0.5), (readout, 50, 1e-3)):
        largest = float(jnp.abs(layer.weight).max()) * np.sqrt(size) / scale
        assert 0.9 < largest <= 1 and float(jnp.abs(layer.bias).max()) <= scale / np.sqrt(size)
    # the usual start times the scales: same key, same numbers
    plain = one_hidden_layer_encoder(KEY, 6, 3, width=50)
    np.testing.assert_allclose(readout.weight, 1e-3 * plain.readout.weight, rtol=1e-12)
    everything = scale_parameters(plain, 0.1)
    np.testing.assert_allclose(everything.hidden.bias, 0.1 * plain.hidden.bias, rtol=1e-12)
    small = one_hidden_layer_encoder(KEY, 6, 3, width=50, hidden_scale=0.1, readout_scale=0.1)
    assert eqx.tree_equal(eqx.filter(small, eqx.is_array), eqx.filter(everything, eqx.is_array))


@pytest.mark.parametrize("height", [6, 5])
def test_convolutions_are_correlations_of_stride_two(height):
    shape = (height, 6, 2)
    encoder = convolutional_encoder(KEY, shape, 3, channels=(4,), hidden_scale=2.0, readout_scale=0.5)
    x = np.random.default_rng(1).normal(size=shape)
    (layer,) = encoder.convolutions
    kernels = np.asarray(layer.weight).reshape(4, 3, 3, 2)
    maps = np.stack([
        sum(signal.correlate2d(x[:, :, c], kernels[o, :, :, c], mode="same") for c in range(2)) + float(layer.bias[o])
        for o in range(4)
    ], axis=-1)  # fmt: skip
    expected = encoder.readout.weight @ relu(maps[::2, ::2]).ravel() + encoder.readout.bias
    np.testing.assert_allclose(encoder(jnp.asarray(x.ravel())), expected, rtol=1e-12)
    assert 0.9 < float(jnp.abs(layer.weight).max()) * np.sqrt(18) / 2 <= 1


def test_inputs_in_coordinates_of_their_span():
    encoder = one_hidden_layer_encoder(KEY, 6, 3, width=50)
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 3)))[0]
    inside = in_coordinates(encoder, basis)
    coordinates = np.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(inside(jnp.asarray(coordinates)), encoder(jnp.asarray(basis @ coordinates)), rtol=1e-12)
    with pytest.raises(ValueError, match="orthonormal columns"):
        in_coordinates(encoder, 2 * basis)
    with pytest.raises(ValueError, match="must have 6 rows"):
        in_coordinates(encoder, np.eye(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: one_hidden_layer_encoder(KEY, 6, 3, width=0), "`width` must be a whole number >= 1"),
        (lambda: one_hidden_layer_encoder(KEY, 6, 3, readout_scale=0.0), "`factor` must be finite and > 0"),
        (lambda: convolutional_encoder(KEY, (6, 6, 0), 2), "`shape` must be a whole number >= 1"),
        (lambda: convolutional_encoder(KEY, (6, 6, 1), 2, channels=()), "at least one number"),
    ],
)
def test_bad_sizes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
