"""Full-batch training: a linear module against the linear library, networks against finite differences; lanes, failures."""

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
from jepa_dyn.training import in_coordinates, one_hidden_layer_encoder, train_full_batch

KEY = jax.random.key(5)
M, D, PAIRS = 6, 3, 8
RNG = np.random.default_rng(4)
X = RNG.normal(size=(PAIRS, M))
Y = 0.8 * X + 0.4 * RNG.normal(size=(PAIRS, M))
STEPS = [0, 2, 10, 30, 31]  # of uneven spacing


def observed(y, args):
    c = embedding_cross_correlation(y, args)
    return {"loss": flows.barlow_twins_loss(y, args), "eigenvalues": jnp.linalg.eigvalsh(c)[::-1]}


def test_a_linear_module_is_the_linear_library():
    """Gradients from raw pairs by autodiff here, from moments by the printed flow there."""
    start = eqx.nn.Linear(M, D, use_bias=False, key=KEY)
    loss = partial(barlow_twins_loss, off_diagonal_weight=0.4)
    options = {"learning_rate": 0.02, "optimiser": partial(optax.sgd, momentum=0.5)}
    found = train_full_batch(start, X, Y, loss, STEPS, **options)
    args = barlow_twins_arguments_from_pairs(X, Y, off_diagonal_weight=0.4)
    y0 = BarlowTwinsState(start.weight)
    expected = train(flows.barlow_twins, y0, args, STEPS, observe=observed, **options)
    np.testing.assert_allclose(found.final.weight, expected.final.encoder, rtol=1e-11, atol=1e-13)
    assert float(jnp.abs(found.final.weight - start.weight).max()) > 0.1
    for name in ("loss", "eigenvalues"):
        np.testing.assert_allclose(found.ys[name], expected.ys[name], rtol=1e-10, atol=1e-12)
    assert int(found.status) == Status.ok and int(found.failed_at) == -1
    np.testing.assert_allclose(found.flow_times, 0.02 * np.array(STEPS))
    assert "sgd, full batch" in repr(found) and dict(found.to_xarray().sizes)["step"] == len(STEPS)


def counted_loss(first, second):
    counted_loss.traces += 1
    return barlow_twins_loss(first, second)


counted_loss.traces = 0


def network(key):
    return one_hidden_layer_encoder(key, M, D, width=50, readout_scale=0.1)


def run_of(key, rate=0.02, x=X, y=Y, steps=STEPS):
    return train_full_batch(network(key), x, y, counted_loss, steps, learning_rate=rate)


@pytest.fixture(scope="module")
def single():
    return run_of(KEY)


def test_one_step_goes_down_the_gradient_of_the_printed_loss(single):
    """Central differences in every parameter of the loss written out in numpy; the compiled program is that of `single`."""
    traces = counted_loss.traces
    run = run_of(KEY, rate=1e-3, steps=[1])
    assert counted_loss.traces == traces + 1  # to see the shape of the loss: no new program for new numbers
    start = jax.tree.leaves(eqx.filter(network(KEY), eqx.is_array))

    def loss(leaves):
        u, b, v, c = leaves
        z, other = (np.maximum(a @ u.T + b, 0) @ v.T + c for a in (X, Y))
        return np.sum(((z.T @ other + other.T @ z) / (2 * PAIRS) - np.eye(D)) ** 2)

    def slope(k, index):
        values = []
        for sign in (1, -1):
            leaves = [np.array(leaf) for leaf in start]
            leaves[k][index] += 1e-6 * sign
            values.append(loss(leaves))
        return (values[0] - values[1]) / 2e-6

    for k, (before, after) in enumerate(zip(start, jax.tree.leaves(eqx.filter(run.final, eqx.is_array)), strict=True)):
        slopes = np.array([slope(k, index) for index in np.ndindex(before.shape)]).reshape(before.shape)
        np.testing.assert_allclose(after - before, -1e-3 * slopes, atol=1e-11)
    moved = [np.array(leaf) for leaf in jax.tree.leaves(eqx.filter(run.final, eqx.is_array))]
    np.testing.assert_allclose(run.ys["loss"][0], loss(moved), rtol=1e-12)


@pytest.fixture(scope="module")
def lanes():
    """Three seeds at one learning rate; one seed again at a rate that diverges, and at none."""
    keys = jnp.concatenate([jax.random.split(KEY, 2), KEY[None], KEY[None], KEY[None]])
    return eqx.filter_vmap(run_of)(keys, jnp.array([0.02, 0.02, 0.02, 30.0, jnp.nan]))


def test_seeds_are_lanes(single, lanes):
    assert lanes.ys["eigenvalues"].shape == (5, len(STEPS), D)
    np.testing.assert_allclose(lanes.ys["eigenvalues"][2], single.ys["eigenvalues"], rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(lanes.final.hidden.weight[2], single.final.hidden.weight, rtol=1e-9)
    assert np.abs(lanes.ys["loss"][0] - lanes.ys["loss"][1])[-1] > 1e-6
    data = lanes.to_xarray()
    assert data.sizes["lane"] == 5 and data.sizes["step"] == len(STEPS)
    np.testing.assert_array_equal(data["learning_rate"][:4], [0.02, 0.02, 0.02, 30.0])


def test_diverging_runs_are_flagged_and_keep_their_history(lanes):
    assert [Status(int(s)).name for s in lanes.status] == ["ok", "ok", "ok", "diverged", "non_finite"]
    failed = int(lanes.failed_at[3])
    assert 1 <= failed <= 30 and int(lanes.failed_at[4]) == 1
    kept = np.array(STEPS) < failed
    np.testing.assert_array_equal(np.isfinite(lanes.ys["loss"][3]), kept)
    np.testing.assert_array_equal(np.isfinite(lanes.ys["eigenvalues"][3]).all(-1), kept)
    np.testing.assert_allclose(lanes.ys["loss"][3][0], lanes.ys["loss"][2][0], rtol=1e-12)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(eqx.filter(lanes.final, eqx.is_array)))
    assert "2 FAILED" in repr(lanes)


def test_inputs_in_coordinates_train_the_same_function(single):
    """Views that span 4 of 6 dimensions."""
    basis = np.linalg.qr(RNG.normal(size=(M, 4)))[0]
    inside = X @ basis, Y @ basis
    whole = run_of(KEY, x=inside[0] @ basis.T, y=inside[1] @ basis.T)
    start = in_coordinates(network(KEY), basis)
    found = train_full_batch(start, *inside, counted_loss, STEPS, learning_rate=0.02, progress=True)
    np.testing.assert_allclose(found.ys["eigenvalues"], whole.ys["eigenvalues"], rtol=1e-9, atol=1e-13)
    assert not np.allclose(whole.ys["loss"], single.ys["loss"])


def scaled_to(value):
    return eqx.tree_at(lambda encoder: encoder.readout.bias, network(KEY), jnp.full(D, value))


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
        ({"encoder": scaled_to(np.nan)}, ValueError, "`encoder.readout.bias` must be finite"),
        ({"encoder": jnp.tanh}, TypeError, "`encoder` must be a callable equinox.Module"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    given = {
        "encoder": network(KEY),
        "x": X,
        "y": Y,
        "loss": barlow_twins_loss,
        "steps": STEPS,
        "learning_rate": 0.1,
    } | change
    with pytest.raises(error, match=message):
        train_full_batch(*[given.pop(name) for name in ("encoder", "x", "y", "loss", "steps")], **given)
