"""Discrete training: against hand loops and the flow, on drawn and streamed batches, lanes, keys, divergence, results."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jepa_dyn import Status, flows
from jepa_dyn.flows import (
    DeepLinearState,
    aligned_initialisation,
    deep_linear_arguments,
    encoder_matrix,
    gaussian_initialisation,
    layer_mask,
    with_target,
)
from jepa_dyn.metrics import imbalance_norm, projections
from jepa_dyn.moments import (
    GaussianBatches,
    WishartBatches,
    batch_moments,
    draw_moments,
    joint_factor,
    moments_from_spectrum,
)
from jepa_dyn.solve import FailedTrajectories, TrainingRuns, integrate, train, train_on_batches

D = 4
KEY = jax.random.key(7)
MOMENTS = moments_from_spectrum(np.array([1.0, 0.8, 0.5, 0.3]), np.array([0.5, 0.6, 0.8, 0.9]))
MASK = layer_mask(2, 3)


def arguments(**options):
    return deep_linear_arguments(MOMENTS, MASK, **options)


@jax.jit
def start(key=KEY):
    return gaussian_initialisation(key, MASK, D, gain=0.7)


def held(y, args):
    return projections(encoder_matrix(y, args))


def close(a, b, tolerance=1e-12):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance), a, b)


def hand_loop(flow, y, args, rate, count, moments=None):
    """Plain descent, one step at a time, without optax."""
    speed = jax.jit(flow)
    for k in range(count):
        now = args if moments is None else deep_linear_arguments(moments[k], MASK)
        y = jax.tree.map(lambda w, s: w + rate * s, y, speed(0.0, y, now))
    return y


def test_population_descent_is_the_hand_loop_at_the_saved_steps():
    args = arguments(weight_decay=0.05, decoder_rate=2.0)
    runs = train(flows.deep_jepa, start(), args, [0, 3, 7], learning_rate=0.1)
    for index, count in enumerate((0, 3, 7)):
        close(
            jax.tree.map(lambda leaf, i=index: leaf[i], runs.ys), hand_loop(flows.deep_jepa, start(), args, 0.1, count)
        )
    close(runs.final, jax.tree.map(lambda leaf: leaf[-1], runs.ys), 0)
    assert int(runs.status) == Status.ok and int(runs.failed_at) == -1 and int(runs.steps) == 7
    np.testing.assert_allclose(runs.flow_times, [0.0, 0.3, 0.7])


def test_descent_converges_to_the_flow_with_first_order():
    args, end = arguments(), 4.0
    exact = integrate(flows.deep_mae, start(), args, [end], rtol=1e-11, atol=1e-13).raise_if_failed().ys
    rates = np.array([0.02, 0.01, 0.005])
    errors, drifts = [], []
    for rate in rates:
        final = train(flows.deep_mae, start(), args, [round(end / rate)], learning_rate=rate).raise_if_failed().final
        errors.append(float(jnp.abs(final.layers - exact.layers[0]).max()))
        drifts.append(abs(float(imbalance_norm(final, args) - imbalance_norm(start(), args))))
    ratios = np.array(errors)[:-1] / np.array(errors)[1:]
    np.testing.assert_allclose(ratios, 2.0, rtol=0.05)
    np.testing.assert_allclose(np.array(drifts)[:-1] / np.array(drifts)[1:], 2.0, rtol=0.1)  # so does the imbalance
    assert errors[-1] < 1e-2


def test_lanes_of_seeds_depths_rates_and_spectra_in_one_program():
    """Five lanes that differ in everything equal the five single runs, in draws and in numbers."""
    keys, depths = jax.random.split(KEY, 5), jnp.array([0, 1, 2, 3, 3])
    rates, scales = jnp.array([0.01, 0.1, 0.2, 0.1, 0.05]), jnp.array([0.5, 1.0, 1.5, 2.0, 0.7])

    def lane(key, depth, scale):
        mask = layer_mask(depth, 3)
        law = jax.tree.map(lambda m: m * scale, MOMENTS)
        return gaussian_initialisation(key, mask, D), deep_linear_arguments(law, mask)

    y0, args = jax.vmap(lane)(keys, depths, scales)
    options = {"optimiser": optax.adam, "observe": held}
    many = train(
        flows.deep_jepa, y0, args, [0, 5, 20], learning_rate=rates, batches=WishartBatches(6), key=keys, **options
    ).raise_if_failed()
    assert many.ys.shape == (5, 3, D)
    for i in (0, 3):
        one = train(
            flows.deep_jepa, *jax.tree.map(lambda leaf, i=i: leaf[i], (y0, args)), [0, 5, 20],
            learning_rate=rates[i], batches=WishartBatches(6), key=keys[i], **options,
        )  # fmt: skip
        np.testing.assert_allclose(many.ys[i], one.ys, rtol=1e-10)
    data = many.to_xarray()
    assert dict(data.sizes) == {"lane": 5, "step": 3, "y_0": D}
    np.testing.assert_array_equal(data["depth"], depths)
    np.testing.assert_allclose(data["flow_time"], np.outer(rates, [0, 5, 20]))


def test_batch_size_may_differ_between_lanes():
    """Shared arguments and key, lanes in the batch size alone: the noise falls as 1 / sqrt(n)."""
    sizes = np.array([100, 10_000, 10**8])
    runs = train(
        flows.deep_jepa,
        start(),
        arguments(),
        [20],
        learning_rate=0.1,
        batches=WishartBatches(sizes),
        key=KEY,
        observe=held,
    )
    noise = np.linalg.norm(np.asarray(runs.ys)[:2, 0] - np.asarray(runs.ys)[2, 0], axis=1)
    assert runs.ys.shape == (3, 1, D) and 3 < noise[0] / noise[1] < 30


@pytest.mark.parametrize("source", [WishartBatches(3), GaussianBatches(3)])
def test_drawn_batches_are_the_draws_of_the_folded_keys(source):
    """Step k uses fold_in(key, k), whatever is saved; n = 3 lies below the dimension."""
    prepared = joint_factor(MOMENTS)
    moments = [source.draw(jax.random.fold_in(KEY, k), prepared) for k in range(6)]
    if isinstance(source, WishartBatches):
        np.testing.assert_allclose(moments[2].xx, draw_moments(jax.random.fold_in(KEY, 2), prepared, 3).xx)
    runs = train(flows.deep_mae, start(), arguments(), [2, 6], learning_rate=0.05, batches=source, key=KEY)
    close(runs.final, hand_loop(flows.deep_mae, start(), arguments(), 0.05, 6, moments))


def test_streamed_pairs():
    """Batches of unequal sizes; saved every few steps and at the end; lanes see the same stream."""
    rng = np.random.default_rng(0)
    pairs = [(x := rng.normal(size=(n, D)), 0.5 * x + rng.normal(size=(n, D))) for n in (5, 9, 5, 2, 9, 5, 5)]
    moments = [batch_moments(jnp.asarray(x), jnp.asarray(y)) for x, y in pairs]
    runs = train_on_batches(flows.deep_jepa, start(), arguments(), iter(pairs), save_every=3, learning_rate=0.05)
    np.testing.assert_array_equal(runs.ts, [0, 3, 6, 7])
    for index, count in enumerate((0, 3, 6, 7)):
        expected = hand_loop(flows.deep_jepa, start(), arguments(), 0.05, count, moments)
        close(jax.tree.map(lambda leaf, i=index: leaf[i], runs.ys), expected)
    lanes = train_on_batches(
        flows.deep_jepa,
        start(),
        arguments(),
        pairs[:6],
        save_every=3,
        learning_rate=np.array([0.05, 0.01]),
        observe=held,
    )
    assert lanes.ys.shape == (2, 3, D)
    np.testing.assert_allclose(
        lanes.ys[0, 2], held(hand_loop(flows.deep_jepa, start(), arguments(), 0.05, 6, moments), arguments())
    )
    # chunks end between saved steps
    long = [pairs[0]] * 40
    whole = train_on_batches(flows.deep_jepa, start(), arguments(), long, save_every=100, learning_rate=0.05)
    np.testing.assert_array_equal(whole.ts, [0, 40])
    close(whole.final, hand_loop(flows.deep_jepa, start(), arguments(), 0.05, 40, [moments[0]] * 40))
    edge = train_on_batches(flows.deep_jepa, start(), arguments(), long[:32], save_every=100, learning_rate=0.05)
    np.testing.assert_array_equal(edge.ts, [0, 32])


def test_stability_edge_is_flagged_with_its_step_and_touches_no_neighbour():
    """All layers off is linear regression: descent on V is stable exactly for rates below 2 / largest variance = 2/2."""
    args = deep_linear_arguments(MOMENTS, layer_mask(0, 3))  # variances 2, 1.33, .625, .33
    y0 = DeepLinearState(jnp.zeros((3, D, D)), jnp.eye(D))
    rates = np.array([0.9, 1.1, 3.0, 0.5])
    runs = train(flows.deep_mae, y0, args, [0, 20, 200], learning_rate=rates, observe=lambda y, a: y.decoder)
    np.testing.assert_array_equal(runs.status, [Status.ok, Status.diverged, Status.diverged, Status.ok])
    # along the first feature V - rho grows by -(1 - 2 rate) each step from 0.5: the first k with |V| > 1e6
    for lane in (1, 2):
        values = 0.5 + 0.5 * (1 - 2 * rates[lane]) ** np.arange(300.0)
        assert int(runs.failed_at[lane]) == np.argmax(np.abs(values) > 1e6)
        assert np.abs(runs.final.decoder[lane]).max() <= 1e6
    assert np.isfinite(runs.ys[1, 1]).all() and np.isnan(runs.ys[1, 2]).all()  # between: not yet failed at step 20
    assert np.isnan(runs.ys[2, 1:]).all()
    alone = train(flows.deep_mae, y0, args, [0, 20, 200], learning_rate=0.9, observe=lambda y, a: y.decoder)
    np.testing.assert_allclose(runs.ys[0], alone.ys, rtol=1e-12)
    text = repr(runs)
    assert "2 FAILED" in text and f"at step {int(runs.failed_at[2])}" in text and "4 runs x 3 saved steps" in text
    with pytest.raises(FailedTrajectories, match=r"lane 1: diverged .*failed_at=\d+, learning_rate=1.1"):
        runs.raise_if_failed()
    data = runs.to_xarray()
    np.testing.assert_array_equal(data["failed_at"], runs.failed_at)
    assert data["learning_rate"].dims == ("lane",) and data.attrs["failed"] == 2
    assert data["status"].attrs["flag_meanings"].startswith("ok ")
    np.testing.assert_array_equal(runs.steps, [200, runs.failed_at[1] - 1, runs.failed_at[2] - 1, 200])


def bad_flow(t, y, args):
    return jnp.where(t > 0.35, jnp.nan, args * y)


def test_any_flow_any_optimiser_and_nan():
    runs = train(bad_flow, jnp.ones(2), -1.0, [2, 10], learning_rate=0.1)
    assert int(runs.status) == Status.non_finite and int(runs.failed_at) == 5  # t = 0.4 is the fifth step
    np.testing.assert_allclose(runs.ys[0], 0.81)
    mapped = jax.vmap(lambda rate: train(bad_flow, jnp.ones(2), -1.0, [2], learning_rate=rate).ys)(
        jnp.array([0.1, 0.2])
    )
    np.testing.assert_allclose(mapped[:, 0, 0], [0.81, 0.64])
    momentum = train(bad_flow, jnp.ones(2), -1.0, [3], learning_rate=0.1, optimiser=partial(optax.sgd, momentum=0.9))
    y, v = 1.0, 0.0
    for _ in range(3):
        v = 0.9 * v + y
        y = y - 0.1 * v
    np.testing.assert_allclose(momentum.final, y)
    ready = train(bad_flow, jnp.ones(2), -1.0, [0], optimiser=optax.sgd(0.1))
    assert np.isnan(ready.learning_rate) and "GradientTransformation" in ready.method
    huge = train(bad_flow, jnp.full(2, 1e7), -1.0, [0, 1], learning_rate=0.1)
    assert int(huge.failed_at) == 0 and np.isnan(huge.ys).all()


def test_moving_average_target_follows_after_each_step():
    args = arguments(ema_rate=2.0)
    y0 = with_target(start())
    runs = train(flows.deep_jepa, y0, args, [3], learning_rate=0.1)
    y = y0
    for _ in range(3):
        speed = flows.deep_jepa(0.0, y, args)
        layers, decoder = y.layers + 0.1 * speed.layers, y.decoder + 0.1 * speed.decoder
        y = DeepLinearState(layers, decoder, y.target + 0.2 * (layers - y.target))
    close(runs.final, y)
    # a fraction of 1 is the plain stopped gradient, under any optimiser
    full = train(flows.deep_jepa, y0, arguments(ema_rate=1e9), [20], learning_rate=0.05, optimiser=optax.adam)
    plain = train(flows.deep_jepa, start(), arguments(), [20], learning_rate=0.05, optimiser=optax.adam)
    close(full.final.layers, plain.final.layers)


def test_new_numbers_do_not_recompile():
    count = []

    def counted(y, args):
        count.append(1)
        return held(y, args)

    for rate, last in ((0.1, 5), (0.2, 9)):
        optimiser = partial(optax.sgd, momentum=0.5)
        train(
            flows.deep_jepa, start(), arguments(), [0, last], learning_rate=rate, optimiser=optimiser, observe=counted
        )
    traced = len(count)
    train(
        flows.deep_jepa, start(jax.random.key(9)), arguments(weight_decay=0.1), [1, 2], learning_rate=0.3,
        optimiser=partial(optax.sgd, momentum=0.5), observe=counted,
    )  # fmt: skip
    assert len(count) == traced


def test_float32_stays_float32(float32):
    law = moments_from_spectrum(np.float32([1.0, 0.5]), np.float32([0.5, 0.9]))
    mask = layer_mask(2)
    y0 = aligned_initialisation(KEY, mask, 2, eps=0.1, objective="jepa")
    runs = train(
        flows.deep_jepa,
        y0,
        deep_linear_arguments(law, mask),
        [5],
        learning_rate=0.1,
        batches=WishartBatches(8),
        key=KEY,
    )
    assert runs.final.layers.dtype == jnp.float32 and isinstance(runs, TrainingRuns)


PAIR = (np.ones((3, D)), np.ones((3, D)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": [0, 0]}, ValueError, "`steps` must be strictly increasing"),
        ({"steps": [0.5]}, ValueError, "`steps` must be whole numbers"),
        ({"steps": []}, ValueError, "`steps` must hold at least one"),
        ({"steps": 5}, ValueError, r"`steps` must have shape \(T,\)"),
        ({"learning_rate": 0.0}, ValueError, "`learning_rate` must be finite and > 0"),
        ({"learning_rate": None}, ValueError, "`learning_rate` must be given"),
        ({"optimiser": optax.sgd(0.1)}, ValueError, "left out with a ready"),
        ({"optimiser": 3}, TypeError, "`optimiser` must be a function"),
        ({"key": KEY}, ValueError, "`batches` and `key` belong together"),
        ({"batches": WishartBatches(2)}, ValueError, "`batches` and `key` belong together"),
        ({"batches": [PAIR], "key": KEY}, TypeError, "use `train_on_batches`"),
        ({"learning_rate": np.ones(3), "args": "lanes"}, ValueError, "Lane axes must agree, but .* has 2.* has 3"),
        ({"learning_rate": np.ones((3, 1))}, ValueError, "a number or one per lane"),
        ({"diverged_above": 0.0}, ValueError, "`diverged_above` must be > 0"),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    args = arguments()
    if options.get("args") == "lanes":
        args = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), args)
    call = {"steps": [1], "learning_rate": 0.1} | {k: v for k, v in options.items() if k != "args"}
    with pytest.raises(error, match=message):
        train(flows.deep_jepa, start(), args, call.pop("steps"), **call)


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "at least one pair of arrays, but is empty"),
        ([PAIR, PAIR[0]], TypeError, "item 1 is a ndarray"),
        ([PAIR, (PAIR[0], PAIR[1][:, :2])], ValueError, r"item 1 has shapes \(3, 4\) and \(3, 2\)"),
        ([(PAIR[0], PAIR[1][:2])], ValueError, "item 0 has shapes"),
    ],
)
def test_bad_streams_are_refused(batches, error, message):
    with pytest.raises(error, match=message):
        train_on_batches(flows.deep_jepa, start(), arguments(), batches, learning_rate=0.1)


def test_constant_stream_of_nan_is_flagged():
    runs = train_on_batches(
        flows.deep_jepa,
        start(),
        arguments(),
        [PAIR, (PAIR[0] * np.nan, PAIR[1]), PAIR],
        learning_rate=0.01,
        observe=held,
    )
    assert int(runs.status) == Status.non_finite and int(runs.failed_at) == 2
    assert np.isfinite(runs.ys[:2]).all() and np.isnan(runs.ys[2:]).all()


def test_args_without_moments_cannot_be_trained_on_batches():
    with pytest.raises(TypeError, match="`args` must have `moments`"):
        train(bad_flow, jnp.ones(2), 1.0, [1], learning_rate=0.1, batches=WishartBatches(2), key=KEY)
