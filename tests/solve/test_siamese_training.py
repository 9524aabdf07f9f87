"""The SG and EMA algorithms of Ponce 2025, (4), as `train` runs them, against a plain loop of numpy over the samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jepa_dyn.flows import SiameseState, siamese, siamese_arguments, siamese_state
from jepa_dyn.moments import moments_from_pairs
from jepa_dyn.solve import integrate, train
from jepa_dyn.solve._blocks import _SMALL
from jepa_dyn.status import Status

STEPS = [0, 1, 2, 7, 40]


def problem(n=3, m=2, *, target=True, **rates):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, m))
    y = 0.8 * x + 0.4 * rng.normal(size=(50, m))
    args = siamese_arguments(moments_from_pairs(x, y, center=False), **{"weight_decay": 0.05} | rates)
    a, b, c = rng.normal(size=(n, m)), rng.normal(size=(n, n)), rng.normal(size=(n, m))
    return (x, y), args, siamese_state(a, b, c if target else None)


def loop(pairs, y, alphas, mu, nu, weight_decay):
    """(4) as printed: A and B from old values, C from the new A; gradients as means over the samples. Yields after each step."""
    a, b = np.array(y.encoder), np.array(y.predictor)
    c = a if y.target is None else np.array(y.target)
    x, views = pairs
    yield a, b, c
    for alpha in alphas:
        gaps = x @ a.T @ b.T - views @ c.T
        slope_a = b.T @ gaps.T @ x / len(x) + weight_decay * a
        slope_b = gaps.T @ (x @ a.T) / len(x) + weight_decay * b
        a, b = a - mu * slope_a, b - nu * slope_b
        c = a if y.target is None else alpha * c + (1 - alpha) * a
        yield a, b, c


@pytest.mark.parametrize(("n", "m"), [(3, 2), (2, 3)])
@pytest.mark.parametrize("momentum", [None, 0.9, "linear", "cosine"])
def test_steps_are_those_of_equation_4(n, m, momentum):
    """One common learning rate h, factors 1 and 0.5 on the groups; 0.9 + 0.1 t / T and a cosine as schedules."""
    pairs, args, y = problem(n, m, target=momentum is not None, encoder_rate=1.0, predictor_rate=0.5)
    schedules = {
        "linear": (optax.linear_schedule(0.9, 1.0, 40), lambda t: 0.9 + 0.1 * t / 40),
        "cosine": (
            lambda t: 1 - 0.1 * (jnp.cos(jnp.pi * t / 40) + 1) / 2,
            lambda t: 1 - 0.1 * (np.cos(np.pi * t / 40) + 1) / 2,
        ),
    }
    ours, theirs = schedules.get(momentum, (momentum, lambda t: momentum))
    runs = train(siamese, y, args, STEPS, learning_rate=0.1, target_momentum=ours)
    expected = list(loop(pairs, y, [theirs(t) for t in range(1, 41)], 0.1, 0.05, 0.05))
    for row, step in enumerate(STEPS):
        a, b, c = expected[step]
        np.testing.assert_allclose(runs.ys.encoder[row], a, atol=1e-11)
        np.testing.assert_allclose(runs.ys.predictor[row], b, atol=1e-11)
        if momentum is not None:
            np.testing.assert_allclose(runs.ys.target[row], c, atol=1e-11)


def test_no_momentum_is_the_stop_gradient_bit_for_bit():
    _, args, y = problem(target=False)
    started = siamese_state(y.encoder, y.predictor, y.encoder)
    sg = train(siamese, y, args, STEPS, learning_rate=0.1)
    ema = train(siamese, started, args, STEPS, learning_rate=0.1, target_momentum=0.0)
    np.testing.assert_array_equal(ema.ys.encoder, sg.ys.encoder)
    np.testing.assert_array_equal(ema.ys.predictor, sg.ys.predictor)
    np.testing.assert_array_equal(ema.ys.target, sg.ys.encoder)


def test_full_momentum_freezes_the_target():
    _, args, y = problem()
    frozen = train(siamese, y, args, STEPS, learning_rate=0.1, target_momentum=1.0)
    np.testing.assert_array_equal(frozen.ys.target, np.broadcast_to(y.target, frozen.ys.target.shape))


def test_steps_tend_to_the_flow_in_first_order():
    """1 - alpha of (4) is h gamma, gamma the 1 - alpha of (5): halving h halves the distance from the flow."""
    _, args, y = problem(ema_rate=0.3)
    end = integrate(siamese, y, args, np.array([4.0]), rtol=1e-11, atol=1e-13)
    errors = []
    for h in (0.02, 0.01, 0.005):
        runs = train(siamese, y, args, [round(4 / h)], learning_rate=h)
        named = train(siamese, y, args, [round(4 / h)], learning_rate=h, target_momentum=1 - 0.3 * h)
        np.testing.assert_allclose(runs.ys.encoder, named.ys.encoder, atol=1e-12)
        errors.append(np.abs(runs.ys.encoder[0] - end.ys.encoder[0]).max())
    ratios = np.array(errors[:-1]) / errors[1:]
    np.testing.assert_allclose(ratios, 2, atol=0.1)


def test_lanes_of_momenta_rates_and_starts():
    """Every lane equals its own single run, the momentum mapped with the rest."""
    _, args, _ = problem()
    starts = [problem()[2], siamese_state(*(0.5 * leaf for leaf in jax.tree.leaves(problem()[2])))]
    y0 = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    momenta, rates = np.array([0.5, 0.99]), np.array([0.1, 0.02])
    together = train(siamese, y0, args, [20], learning_rate=rates, target_momentum=momenta)
    for i in range(2):
        alone = train(siamese, starts[i], args, [20], learning_rate=rates[i], target_momentum=momenta[i])
        np.testing.assert_allclose(together.ys.encoder[i], alone.ys.encoder, rtol=1e-12)


def test_runs_that_diverge_are_flagged_beside_those_that_do_not():
    _, args, y = problem()
    y0 = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), y)
    runs = train(siamese, y0, args, STEPS, learning_rate=np.array([0.05, 5.0]), target_momentum=0.9)
    assert runs.status[0] == Status.ok and runs.status[1] in (Status.diverged, Status.non_finite)
    assert 1 <= int(runs.failed_at[1]) <= 40 and np.isnan(runs.ys.encoder[1, -1]).all()
    assert np.isfinite(runs.ys.encoder[0]).all()


@pytest.mark.parametrize("edge", ["no decay", "no correlation", "singular"])
def test_edges_of_the_data(edge):
    """lambda = 0, [yx^T] = 0 and a singular [xx^T] run as the loop does."""
    (x, views), _, y = problem(target=False)
    if edge == "singular":
        x = x * np.array([1.0, 0.0])
    if edge == "no correlation":
        views = views - x @ np.linalg.lstsq(x, views)[0]
    decay = 0.0 if edge == "no decay" else 0.05
    args = siamese_arguments(moments_from_pairs(x, views, center=False), weight_decay=decay)
    runs = train(siamese, y, args, [40], learning_rate=0.1)
    a, b, _ = list(loop((x, views), y, [0.0] * 40, 0.1, 0.1, decay))[-1]
    np.testing.assert_allclose(runs.ys.encoder[0], a, atol=1e-11)
    np.testing.assert_allclose(runs.ys.predictor[0], b, atol=1e-11)


def test_bad_momentum_is_named():
    _, args, y = problem()
    with pytest.raises(ValueError, match="Argument `target_momentum` must lie between 0 and 1"):
        train(siamese, y, args, [1], learning_rate=0.1, target_momentum=1.5)
    for momentum in (0.5, lambda t: 0.5):
        with pytest.raises(ValueError, match="Argument `target_momentum` must be left out"):
            train(siamese, problem(target=False)[2], args, [1], learning_rate=0.1, target_momentum=momentum)


@pytest.mark.parametrize("target", [False, True])
def test_lanes_in_blocks_are_those_of_a_small_call(target):
    """More lanes than a block go lanes last and block by block: same numbers, statuses and shapes, a failed lane included."""
    _, args, _ = problem(2, 1, target=target)
    lanes = _SMALL.block + 30
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(lanes, 2, 1)), rng.normal(size=(lanes, 2, 2))
    a[-5] *= 1e3
    y, rates = SiameseState(jnp.asarray(a), jnp.asarray(b), jnp.asarray(a) if target else None), np.full(lanes, 0.1)
    momentum = optax.linear_schedule(0.9, 1.0, 20) if target else None
    many = train(siamese, y, args, [0, 3, 20], learning_rate=rates, target_momentum=momentum, threads=2)
    alone = train(siamese, y, args, [0, 3, 20], learning_rate=rates, target_momentum=momentum, threads=1)
    for one, other in zip(
        leaves((many.ys, many.final, many.status)), leaves((alone.ys, alone.final, alone.status)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    last = jax.tree.map(lambda leaf: leaf[-40:], y)
    few = train(siamese, last, args, [0, 3, 20], learning_rate=rates[-40:], target_momentum=momentum)
    assert many.ys.encoder.shape == (lanes, 3, 2, 1)
    for one, other in zip(leaves((many.ys, many.final)), leaves((few.ys, few.final)), strict=True):
        np.testing.assert_allclose(one[-40:], other, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(many.status[-40:], few.status)
    np.testing.assert_array_equal(many.failed_at[-40:], few.failed_at)
    assert (np.asarray(many.status) != Status.ok).sum() == 1


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
