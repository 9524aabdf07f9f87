"""Full-batch training: a linear module against the linear library, any network against finite differences; failures, lanes, traces."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jepa_dyn import Status, flows
from jepa_dyn.flows import BarlowTwinsState, barlow_twins_arguments_from_pairs, embedding_cross_correlation
from jepa_dyn.losses import barlow_twins_loss
from jepa_dyn.solve import train
from jepa_dyn.training import convolutional_encoder, embed_pairs, in_coordinates, one_hidden_layer_encoder, train_full_batch

KEY = jax.random.key(5)
M, D, PAIRS = 6, 3, 8
RNG = np.random.default_rng(4)
X = RNG.normal(size=(PAIRS, M))
Y = 0.8 * X + 0.4 * RNG.normal(size=(PAIRS, M))
STEPS = [0, 2, 10, 30, 31]  # of uneven spacing


def observed(y, args):
    c = embedding_cross_correlation(y, args)
    return {"loss": flows.barlow_twins_loss(y, args), "eigenvalues": jnp.linalg.eigvalsh(c)[::-1]}


@pytest.mark.parametrize(("optimiser", "weight"), [(optax.sgd, 1.0), (partial(optax.sgd, momentum=0.5), 0.4)])
def test_a_linear_module_is_the_linear_library(optimiser, weight):
    """Gradients from raw pairs by autodiff here, from moments by the printed flow there."""
    start = eqx.nn.Linear(M, D, use_bias=False, key=KEY)
    loss = partial(barlow_twins_loss, off_diagonal_weight=weight)
    options = {"learning_rate": 0.02, "optimiser": optimiser}
    found = train_full_batch(start, X, Y, loss, STEPS, **options)
    args = barlow_twins_arguments_from_pairs(X, Y, off_diagonal_weight=weight)
    y0 = BarlowTwinsState(start.weight)
    expected = train(flows.barlow_twins, y0, args, STEPS, observe=observed, **options)
    np.testing.assert_allclose(found.final.weight, expected.final.encoder, rtol=1e-11, atol=1e-13)
    assert float(jnp.abs(found.final.weight - start.weight).max()) > 0.1
    for name in ("loss", "eigenvalues"):
        np.testing.assert_allclose(found.ys[name], expected.ys[name], rtol=1e-10, atol=1e-12)
    assert int(found.status) == Status.ok and int(found.failed_at) == -1
    np.testing.assert_allclose(found.flow_times, 0.02 * np.array(STEPS))
    assert "sgd, full batch" in repr(found) and dict(found.to_xarray().sizes)["step"] == len(STEPS)


def test_one_step_goes_down_the_gradient_of_the_loss():
    """Central differences of the loss in every parameter of a convolutional network."""
    encoder = convolutional_encoder(KEY, (3, 2, 1), 2, channels=(2,), activation=jnp.tanh)
    run = train_full_batch(encoder, X, Y, barlow_twins_loss, [1], learning_rate=1e-3)
    flat, rebuild = jax.flatten_util.ravel_pytree(eqx.filter(encoder, eqx.is_array))
    rest = eqx.partition(encoder, eqx.is_array)[1]

    @jax.jit
    def loss(vector):
        return barlow_twins_loss(*embed_pairs(eqx.combine(rebuild(vector), rest), jnp.asarray(X), jnp.asarray(Y)))

    differences = jax.vmap(lambda e: (loss(flat + e) - loss(flat - e)) / 2e-5)(1e-5 * jnp.eye(flat.size))
    moved = jax.flatten_util.ravel_pytree(eqx.filter(run.final, eqx.is_array))[0] - flat
    np.testing.assert_allclose(moved, -1e-3 * differences, atol=1e-11)
    np.testing.assert_allclose(run.ys["loss"][0], loss(flat + moved), rtol=1e-12)


def counted_loss(first, second):
    counted_loss.traces += 1
    return barlow_twins_loss(first, second)


counted_loss.traces = 0


def network(key, width=7):
    return one_hidden_layer_encoder(key, M, D, width=width, readout_scale=0.1)


def run_of(key, rate=0.02, x=X):
    return train_full_batch(network(key), x, Y, counted_loss, STEPS, learning_rate=rate)


def test_seeds_are_lanes_and_new_numbers_compile_nothing():
    keys = jax.random.split(KEY, 3)
    single = run_of(keys[1])
    traces = counted_loss.traces
    again = run_of(keys[2], rate=0.03, x=X + 0.1)
    assert counted_loss.traces <= traces + 1  # the check of the loss's shape, no new program
    assert not np.allclose(again.ys["loss"], single.ys["loss"])
    many = eqx.filter_vmap(run_of)(keys)
    assert many.ys["eigenvalues"].shape == (3, len(STEPS), D)
    np.testing.assert_allclose(many.ys["eigenvalues"][1], single.ys["eigenvalues"], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(many.final.hidden.weight[1], single.final.hidden.weight, rtol=1e-9)
    data = many.to_xarray()
    assert data.sizes["lane"] == 3 and not data["failed_at"].values.max() >= 0


def test_diverging_runs_are_flagged_and_keep_their_history():
    rates = jnp.array([0.02, 30.0, jnp.nan])
    runs = eqx.filter_vmap(lambda rate: run_of(KEY, rate))(rates)
    assert [Status(int(s)).name for s in runs.status] == ["ok", "diverged", "non_finite"]
    good = run_of(KEY)
    np.testing.assert_allclose(runs.ys["loss"][0], good.ys["loss"], rtol=1e-9)
    failed = int(runs.failed_at[1])
    kept = np.array(STEPS) < failed
    assert 1 <= failed <= 30 and int(runs.failed_at[2]) == 1
    np.testing.assert_array_equal(np.isfinite(runs.ys["loss"][1]), kept)
    np.testing.assert_array_equal(np.isfinite(runs.ys["eigenvalues"][1]).all(-1), kept)
    assert np.isfinite(runs.final.hidden.weight).all()


def test_inputs_in_coordinates_train_the_same_function():
    """PAIRS pairs of views in 40 dimensions span 16 of them."""
    wide = RNG.normal(size=(2, PAIRS, 40))
    basis = np.linalg.qr(wide.reshape(-1, 40).T)[0]
    encoder = one_hidden_layer_encoder(KEY, 40, D, width=7, readout_scale=0.1)
    whole = train_full_batch(encoder, *wide, barlow_twins_loss, STEPS, learning_rate=0.02)
    inside = train_full_batch(
        in_coordinates(encoder, basis), *(wide @ basis), barlow_twins_loss, STEPS, learning_rate=0.02, progress=True
    )
    np.testing.assert_allclose(inside.ys["eigenvalues"], whole.ys["eigenvalues"], rtol=1e-9, atol=1e-13)


def pairwise(first, second):
    return jnp.sum(first - second, axis=1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((2, 3, 4))}, ValueError, "must have one shape \\(n, m\\)"),
        ({"y": Y[:3]}, ValueError, "must have one shape \\(n, m\\)"),
        ({"x": np.full_like(X, np.nan)}, ValueError, "`x` must be finite"),
        ({"loss": pairwise}, ValueError, "`loss` must return one number"),
        ({"steps": [3, 2]}, ValueError, "`steps` must be strictly increasing"),
        ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be finite and > 0"),
        ({"learning_rate": None}, ValueError, "`learning_rate` must be given"),
        ({"optimiser": "adam"}, TypeError, "`optimiser` must be a function"),
        ({"encoder": jnp.tanh}, TypeError, "`encoder` must be a callable equinox.Module"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    given = {"encoder": network(KEY), "x": X, "y": Y, "loss": barlow_twins_loss, "steps": STEPS, "learning_rate": 0.1} | change
    with pytest.raises(error, match=message):
        train_full_batch(*[given.pop(name) for name in ("encoder", "x", "y", "loss", "steps")], **given)
