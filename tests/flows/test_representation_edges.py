"""Edges of the non-contrastive flows: repeated and zero eigenvalues, alpha = 0, embeddings of norm 0, M > N, one pair, no noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn.flows import (
    RepresentationModes,
    RepresentationState,
    mode_predictor,
    modes_of_network,
    representation,
    representation_arguments,
    representation_mode_arguments,
    representation_modes,
)
from jepa_dyn.losses import TABLE_1
from jepa_dyn.moments import additive_noise_moments, noisy_pairs, pair_sample

COSINE = [name for name in TABLE_1 if name.startswith("cosine")]


def speed(name, weights, data, **options):
    args = representation_arguments(data, name, **options)
    return np.asarray(representation(0.0, RepresentationState(jnp.asarray(weights)), args).encoder)


@pytest.mark.parametrize("name", COSINE)
def test_repeated_eigenvalues_on_the_population(name):
    """W of orthogonal rows, all of one length: equal modes are at rest under every cosine loss, whatever basis eigh returns."""
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0][:3]
    found = speed(name, 0.7 * rows, additive_noise_moments(np.eye(5), 0.3), correlation=np.eye(5), alpha=0.5, nodes=16)
    np.testing.assert_allclose(found, 0, atol=1e-9)


def test_no_predictor_where_eigenvalues_are_zero():
    """0^0 is 1: at alpha = 0 also a mode at 0 has the predictor 1, at any other alpha 0."""
    y = RepresentationModes(jnp.asarray([0.0, 0.5]))
    for alpha, wanted in ((0.0, [1.0, 1.0]), (0.5, [0.0, 0.5])):
        np.testing.assert_allclose(
            mode_predictor(y, representation_mode_arguments(2, "euclidean", alpha=alpha)), wanted
        )
    low = np.outer([1.0, 2.0, 0.0], [1.0, 0.0])
    pairs = noisy_pairs(jax.random.key(0), np.random.default_rng(1).normal(size=(4, 2)), 0.2)
    np.testing.assert_allclose(
        speed("cosine", low, pairs, alpha=0.0), speed("cosine_no_predictor", low, pairs), atol=1e-13
    )


@pytest.mark.parametrize("name", COSINE)
def test_an_embedding_of_norm_zero_counts_for_nothing(name):
    """A pair with a view at 0 adds nothing to the gradient: it is that of the other pairs, mean over all. C_z held at G = 1."""
    rng = np.random.default_rng(2)
    x, y, weights = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
    x[0], y[1] = 0.0, 0.0
    whole = speed(name, weights, pair_sample(x, y), correlation=np.eye(4))
    rest = speed(name, weights, pair_sample(x[2:], y[2:]), correlation=np.eye(4))
    assert np.abs(rest).max() > 1e-3
    np.testing.assert_allclose(whole, rest * 3 / 5, atol=1e-13)


@pytest.mark.parametrize("name", ["euclidean", "cosine"])
def test_more_outputs_than_inputs(name):
    """M > N: the network has N modes, which move as it does; the outputs beside them stay 0."""
    weights = np.random.default_rng(3).normal(size=(5, 3))
    args = representation_arguments(additive_noise_moments(np.eye(3), 0.3), name, nodes=16)
    state, own, left, right = modes_of_network(RepresentationState(jnp.asarray(weights)), args)
    assert state.encoder.shape == (3,) and left.shape == (5, 3)
    modes = representation_modes(0.0, state, own).encoder
    whole = representation(0.0, RepresentationState(jnp.asarray(weights)), args).encoder
    np.testing.assert_allclose(whole, (left * modes) @ right.T, atol=1e-9)


def test_one_pair_without_noise():
    """C_z = z z^T: the prediction |z|^2 z is parallel to its target. Cosine losses rest, the Euclidean ones obey lambda = |z|^2."""
    rng = np.random.default_rng(4)
    x, weights = rng.normal(size=(1, 4)), 0.4 * rng.normal(size=(3, 4))
    pairs = noisy_pairs(jax.random.key(0), x, 0.0)
    np.testing.assert_array_equal(pairs.x, pairs.y)
    z = weights @ x[0]
    lam = z @ z
    for name in COSINE:
        np.testing.assert_allclose(speed(name, weights, pairs), 0, atol=1e-13)
    factors = {"euclidean": lam * (1 - lam), "euclidean_iso": 1 - lam, "euclidean_no_predictor": 0.0}
    factors["euclidean_no_stop_gradient"] = -((1 - lam) ** 2)
    for name, factor in factors.items():
        np.testing.assert_allclose(speed(name, weights, pairs), factor * np.outer(z, x[0]), atol=1e-13)


def test_no_noise_on_the_population():
    """sigma = 0: all three moments are the inputs' covariance, and (9), (12), (13), (16) hold as printed."""
    moments = additive_noise_moments(np.diag([1.0, 2.0]), 0.0)
    for name in ("xx", "yx", "yy"):
        np.testing.assert_array_equal(getattr(moments, name), np.diag([1.0, 2.0]))
    a = np.array([0.3, 1.2])
    lam = a**2
    printed = {"euclidean": lam * (1 - lam) * a, "euclidean_no_stop_gradient": -((1 - lam) ** 2) * a}
    printed |= {"euclidean_no_predictor": 0 * a, "euclidean_iso": (1 - lam) * a}
    for name, wanted in printed.items():
        found = representation_modes(0.0, RepresentationModes(jnp.asarray(a)), representation_mode_arguments(2, name))
        np.testing.assert_allclose(found.encoder, wanted, atol=1e-14)
