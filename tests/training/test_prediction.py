"""Predictions from the tangent kernel are close for a wide network from a small readout."""

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn.losses import barlow_twins_loss
from jepa_dyn.metrics import detect_steps, subspace_alignment
from jepa_dyn.training import embed_pairs, one_hidden_layer_encoder, tangent_kernel_prediction, train_full_batch

M, D, PAIRS = 6, 3, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(PAIRS, M)) * np.array([2.0, 1.4, 1.0, 0.5, 0.3, 0.2])
Y = X + 0.1 * RNG.normal(size=(PAIRS, M))


def test_a_wide_network_steps_when_and_learns_what_its_kernel_says():
    """Width 512 from a small readout: times within 10 %, the span of the learned functions nearly that of the predicted ones."""
    encoder = one_hidden_layer_encoder(jax.random.key(2), M, D, width=512, readout_scale=1e-3)
    before = tangent_kernel_prediction(encoder, X, Y)
    predicted = np.asarray(before.motion.critical_times())
    assert np.all(np.diff(predicted) > 0)
    rate = 0.02 / float(before.motion.gammas[0])
    steps = np.unique(np.geomspace(predicted[0] / 2, 2 * predicted[-1], 150) / rate).astype(int)
    run = train_full_batch(encoder, X, Y, barlow_twins_loss, steps, learning_rate=rate).raise_if_failed()
    found = detect_steps(run.flow_times, run.ys["eigenvalues"], level=1.0)
    assert int(found.count) == D
    np.testing.assert_allclose(found.times, predicted, rtol=0.1)
    assert np.abs(run.ys["loss"][0] - D) < 0.1 and run.ys["loss"][-1] < 0.1
    learned = jnp.concatenate(embed_pairs(run.final, jnp.asarray(X), jnp.asarray(Y)))
    assert float(subspace_alignment(learned, before.values)) > 0.9
    # the kernel of the end has grown: from the same start it would have been faster
    after = tangent_kernel_prediction(run.final, X, Y, start=encoder)
    assert float(subspace_alignment(learned, after.values)) > 0.9
    assert np.all(np.asarray(after.motion.critical_times()) < predicted)
