"""Starts of deep linear nets: their defining identities and laws, sizes, keys."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn import flows
from jepa_dyn.flows import deep_linear_arguments, encoder_matrix, layer_mask
from jepa_dyn.metrics import imbalance_norm
from jepa_dyn.moments import moments_from_spectrum

KEY = jax.random.key(1)
MASK = jnp.array([True, False, True, True])


@cache
def program(name, d, options):
    return jax.jit(lambda key, mask: getattr(flows, f"{name}_initialisation")(key, mask, d, **dict(options)))


def make(name, key, mask, d, **options):
    """The start as one compiled program, quicker than its operations one by one, unless arrays are among the options."""
    if "signs" in options:
        return getattr(flows, f"{name}_initialisation")(key, mask, d, **options)
    return program(name, d, tuple(options.items()))(key, mask)


def arguments(mask, d):
    return deep_linear_arguments(moments_from_spectrum(np.ones(d), np.full(d, 0.5)), mask)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_aligned_is_assumption_4_1_with_the_sign_corrected(objective):
    y = make("aligned", KEY, MASK, 5, eps=1e-2, objective=objective)
    scale = 1e-2 ** (1 / 3)
    for layer in (*y.layers, y.decoder):
        np.testing.assert_allclose(layer @ layer.T, scale**2 * np.eye(5), atol=1e-15)
    w = encoder_matrix(y, arguments(MASK, 5))
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=0), 1e-2, rtol=1e-12)
    if objective == "jepa":
        np.testing.assert_allclose(y.decoder, scale * np.eye(5), atol=1e-16)
    else:
        np.testing.assert_allclose(y.decoder @ w, scale * 1e-2 * np.eye(5), atol=1e-16)
    basis = flows.haar_orthogonal(jax.random.key(2), 5)
    signs = np.array([1, -1, 1, 1, -1])
    y = make("aligned", KEY, MASK, 5, eps=1e-2, objective=objective, signs=signs, basis=basis)
    product = y.decoder @ encoder_matrix(y, arguments(MASK, 5)) / 1e-2
    if objective == "jepa":
        product = encoder_matrix(y, arguments(MASK, 5)).T @ product / 1e-2
    np.testing.assert_allclose(basis.T @ product @ basis, scale * np.diag(signs), atol=1e-15)


@pytest.mark.parametrize(("d", "width", "outputs"), [(5, None, None), (5, 3, 5), (3, 5, 4)])
def test_balanced_is_balanced_at_any_size(d, width, outputs):
    for mask in (MASK, layer_mask(4, 4), jnp.array([False, True, False, False])):
        y = make("balanced", KEY, mask, d, eps=0.3, width=width, outputs=outputs)
        assert imbalance_norm(y, arguments(mask, d)) < 1e-14
        assert np.abs(np.asarray(y.decoder)).max() > 0.1


def test_balanced_encoder_has_the_law_of_a_gaussian():
    """Second moments of ||W||_F^2 over keys: chi-square with m d degrees of freedom."""
    mask = layer_mask(3)
    args = arguments(mask, 4)

    def square(key):
        y = make("balanced", key, mask, 4, eps=0.1, width=3, outputs=3)
        return jnp.sum(encoder_matrix(y, args) ** 2)

    values = np.asarray(jax.jit(jax.vmap(square))(jax.random.split(KEY, 4000))) * 4 / 0.1**2
    np.testing.assert_allclose(values.mean(), 12, atol=5 * np.sqrt(24 / 4000))
    np.testing.assert_allclose(values.var(), 24, rtol=0.15)


@pytest.mark.parametrize(("d", "width"), [(5, 5), (5, 3), (3, 5)])
def test_orthogonal_keeps_lengths_where_it_can(d, width):
    y = make("orthogonal", KEY, MASK, d, eps=0.2, width=width, outputs=4)
    scale = 0.2 ** (1 / 3)
    first = np.asarray(y.layers[0])[:width, :d] / scale
    gram = first @ first.T if width <= d else first.T @ first
    np.testing.assert_allclose(gram, np.eye(min(d, width)), atol=1e-14)
    for layer in np.asarray(y.layers[2:]) / scale:
        np.testing.assert_allclose(layer[:width, :width] @ layer[:width, :width].T, np.eye(width), atol=1e-14)
        assert not layer[width:].any() and not layer[:, width:].any()
    decoder = np.asarray(y.decoder)[:4, :width] / scale
    gram = decoder @ decoder.T if width >= 4 else decoder.T @ decoder
    np.testing.assert_allclose(gram, np.eye(min(4, width)), atol=1e-14)


def test_gaussian_scales():
    d, width = 40, 20
    y = make("gaussian", KEY, MASK, d, gain=2.0, width=width, outputs=30)
    for layer, fan_in in ((y.layers[0], d), (y.layers[2], width), (y.layers[3], width)):
        block = np.asarray(layer)[:width, :fan_in]
        np.testing.assert_allclose(block.std(), 2 / np.sqrt(fan_in), rtol=0.15)
        assert not np.asarray(layer)[width:].any() and not np.asarray(layer)[:, fan_in:].any()
    np.testing.assert_allclose(np.asarray(y.decoder)[:30, :width].std(), 2 / np.sqrt(width), rtol=0.15)
    assert not np.asarray(y.decoder)[30:].any() and not np.asarray(y.decoder)[:, width:].any()
    small = make("small_gaussian", KEY, MASK, d, eps=1e-3)
    held = np.linalg.norm(encoder_matrix(small, arguments(MASK, d)), axis=0)
    np.testing.assert_allclose(np.sqrt((held**2).mean()), 1e-3, rtol=0.2)


def test_layers_do_not_depend_on_how_many_there_are_nor_on_vmap():
    one = make("gaussian", KEY, layer_mask(2, 2), 4)
    more = make("gaussian", KEY, layer_mask(2, 5), 4)
    np.testing.assert_array_equal(one.layers, more.layers[:2])
    np.testing.assert_array_equal(one.decoder, more.decoder)
    keys = jax.random.split(KEY, 3)
    draw = lambda key: make("orthogonal", key, layer_mask(2), 4)  # noqa: E731
    batch, alone = jax.jit(jax.vmap(draw))(keys), jax.jit(draw)(keys[1])
    np.testing.assert_allclose(batch.layers[1], alone.layers, atol=1e-15)
    assert not np.allclose(batch.layers[0], batch.layers[1])


def test_edges_and_dtype(float32):
    y = make("balanced", KEY, layer_mask(1), 1, eps=0.1)
    assert y.layers.dtype == jnp.float32 and y.layers.shape == (1, 1, 1)
    np.testing.assert_allclose(jnp.abs(y.layers[0, 0, 0]), jnp.abs(y.decoder[0, 0]), rtol=1e-6)
    off = make("gaussian", KEY, layer_mask(0, 2), 4, width=2, outputs=3)
    assert np.all(np.asarray(off.decoder)[:3, :4] != 0)  # without layers the decoder reads the inputs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flows.aligned_initialisation(KEY, MASK, 3, eps=0.0, objective="jepa"), "`eps` must be"),
        (lambda: flows.aligned_initialisation(KEY, MASK, 3, eps=0.1, objective="vae"), "`objective` must be"),
        (lambda: flows.aligned_initialisation(KEY, MASK, 3, eps=0.1, objective="mae", signs=np.array([1, 2, 1])), "`signs` must"),
        (lambda: flows.aligned_initialisation(KEY, MASK, 3, eps=0.1, objective="mae", signs=np.ones(2)), "`signs` must have"),
        (lambda: flows.gaussian_initialisation(KEY, MASK, 3, gain=-1.0), "`gain` must be"),
        (lambda: flows.gaussian_initialisation(KEY, MASK, 0), "`inputs` must be a whole number >= 1"),
        (lambda: flows.gaussian_initialisation(KEY, MASK, 3, width=0), "`width` must be"),
        (lambda: flows.gaussian_initialisation(KEY, jnp.ones(3), 3), "`layer_mask` must be booleans"),
        (lambda: flows.balanced_initialisation(KEY, MASK, 3, eps=0.1, outputs=2), "`outputs` must be at least"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
