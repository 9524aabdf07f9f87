"""Training and integration in the eigenbasis of Gamma against plain autodiff on the pairs, dense steps and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jepa_dyn.flows import (
    BarlowTwinsState,
    barlow_twins,
    barlow_twins_arguments,
    barlow_twins_arguments_from_pairs,
    barlow_twins_loss,
    barlow_twins_preconditioned,
    barlow_twins_state,
)
from jepa_dyn.moments import WishartBatches, eigenbasis_from_pairs
from jepa_dyn.solve import integrate_in_eigenbasis, train, train_in_eigenbasis
from jepa_dyn.solve.eigenbasis import _turn, _TurnedEvent
from jepa_dyn.status import Status

RATE, STEPS, DIMENSION, SIZE = 0.02, [0, 30, 60], 3, 8


def problem(n, thin=True, scale=0.1, **options):
    """(pairs, arguments, start) for n pairs of 8 numbers, 3 embedding dimensions."""
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, SIZE))
    y = x * np.linspace(1, -0.3, SIZE) + 0.3 * rng.normal(size=(n, SIZE))
    make = (lambda: barlow_twins_arguments(eigenbasis_from_pairs(x, y), **options)) if thin else (
        lambda: barlow_twins_arguments_from_pairs(x, y, **options)
    )  # fmt: skip
    return (x, y), make(), barlow_twins_state(scale * rng.normal(size=(DIMENSION, SIZE)))


def autodiff_loop(pairs, w):
    """W after each number of steps: plain gradient descent on (1), (2) of the pairs."""

    def loss(w):
        f, g = pairs[0] @ w.T, pairs[1] @ w.T
        c = (f.T @ g + g.T @ f) / (2 * len(f))
        return jnp.sum((c - jnp.eye(len(c))) ** 2)

    slope, kept = jax.jit(jax.grad(loss)), {0: np.asarray(w)}
    for number in range(1, STEPS[-1] + 1):
        w = w - RATE * slope(w)
        kept[number] = np.asarray(w)
    return np.stack([kept[number] for number in STEPS])


@pytest.mark.parametrize(("n", "thin"), [(3, True), (20, False)])
def test_training_is_plain_gradient_descent(n, thin):
    """Fewer pairs than inputs, and more; moments in the eigenbasis, and as matrices."""
    pairs, args, y0 = problem(n, thin)
    run = train_in_eigenbasis(barlow_twins, y0, args, STEPS, learning_rate=RATE)
    wanted = autodiff_loop(pairs, y0.encoder)
    assert run.status == Status.ok and run.y0 is y0 and run.args is args and "eigenbasis" in run.method
    np.testing.assert_allclose(run.ys.encoder, wanted, atol=1e-13)
    np.testing.assert_allclose(run.final.encoder, wanted[-1], atol=1e-13)
    if n == 3:  # what the views do not span stays where it is
        outside = np.eye(SIZE) - np.linalg.pinv(np.concatenate(pairs)) @ np.concatenate(pairs)
        assert np.linalg.norm(y0.encoder @ outside) > 0.1
        np.testing.assert_allclose(run.final.encoder @ outside, y0.encoder @ outside, atol=1e-14)


def test_the_preconditioned_gradient_takes_the_same_steps():
    """It sees the covariance of the views too: against steps on matrices, which its own tests hold against autodiff."""
    _, dense, y0 = problem(20, False, scale=0.5, ridge=0.3)
    _, thin, _ = problem(20, True, ridge=0.3)
    run = train_in_eigenbasis(barlow_twins_preconditioned, y0, thin, STEPS[-1:], learning_rate=RATE)
    field, w = jax.jit(barlow_twins_preconditioned), y0
    for _ in range(STEPS[-1]):
        w = BarlowTwinsState(w.encoder + RATE * field(0.0, w, dense).encoder)
    assert np.linalg.norm(w.encoder - y0.encoder) > 0.1
    np.testing.assert_allclose(run.final.encoder, w.encoder, atol=1e-12)


def loss_and_encoder(y, args):
    return {"loss": barlow_twins_loss(y, args), "encoder": y.encoder}


def test_lanes_and_what_observers_see():
    """Lanes of starts and learning rates; one that is too large is flagged; observers see W and the arguments as given."""
    pairs, args, y0 = problem(3)
    starts = BarlowTwinsState(jnp.stack([y0.encoder, 2 * y0.encoder, y0.encoder]))
    rates = jnp.asarray([RATE, RATE / 2, 5.0])
    runs = train_in_eigenbasis(barlow_twins, starts, args, STEPS, learning_rate=rates, observe=loss_and_encoder)
    assert list(np.asarray(runs.status)) == [Status.ok, Status.ok, Status.diverged]
    wanted = autodiff_loop(pairs, y0.encoder)
    np.testing.assert_allclose(runs.ys["encoder"][0], wanted, atol=1e-13)
    np.testing.assert_allclose(runs.final.encoder[0], wanted[-1], atol=1e-13)
    for w, found in zip(wanted, runs.ys["loss"][0], strict=True):
        c = (w @ pairs[0].T @ pairs[1] @ w.T) / len(pairs[0])
        assert float(found) == pytest.approx(np.sum(((c + c.T) / 2 - np.eye(DIMENSION)) ** 2), rel=1e-12)
    assert runs.final.encoder.shape == (3, DIMENSION, SIZE)


def first_eigenvalue_is_half(t, y, args):
    return jnp.linalg.eigvalsh(y.encoder @ args.gamma @ y.encoder.T)[-1] - 0.5


def test_integration_against_scipy():
    (x, y), args, y0 = problem(3)
    gamma = (x.T @ y + y.T @ x) / 6

    def speed(t, w):
        w = w.reshape(DIMENSION, SIZE)
        return (-4 * (w @ gamma @ w.T - np.eye(DIMENSION)) @ w @ gamma).ravel()

    ts = np.linspace(0, 2, 5)
    exact = solve_ivp(speed, (0, 2), np.ravel(y0.encoder), "DOP853", dense_output=True, rtol=1e-12, atol=1e-14)
    wanted = exact.sol(ts).T.reshape(5, DIMENSION, SIZE)
    found = integrate_in_eigenbasis(barlow_twins, y0, args, ts, rtol=1e-10, atol=1e-12, dense=True)
    assert found.status == Status.ok and found.args is args
    np.testing.assert_allclose(found.ys.encoder, wanted, atol=1e-8)
    np.testing.assert_allclose(found.evaluate(1.3).encoder, exact.sol(1.3).reshape(DIMENSION, SIZE), atol=1e-6)


def test_events_see_the_encoder():
    """What the solver calls, without the program that finds crossings."""
    _, args, y0 = problem(3)
    start, turned = _turn(y0, args)
    seen = _TurnedEvent(first_eigenvalue_is_half)(0.0, start, turned)
    assert start.encoder.shape == (DIMENSION, 6)
    assert float(seen) == pytest.approx(float(first_eigenvalue_is_half(0.0, y0, args)), rel=1e-12)


def test_bad_input_is_named():
    _, args, y0 = problem(3)
    inside = barlow_twins_arguments(args.moments.in_basis)
    options = {"learning_rate": RATE}
    with pytest.raises(TypeError, match="Argument `y0` must be BarlowTwinsState"):
        train_in_eigenbasis(barlow_twins, y0.encoder, args, [1], **options)
    with pytest.raises(ValueError, match="must have moments with `columns`"):
        train_in_eigenbasis(barlow_twins, y0, inside, [1], **options)
    with pytest.raises(ValueError, match="Argument `y0` must have 8 columns"):
        integrate_in_eigenbasis(barlow_twins, barlow_twins_state(np.ones((2, 5))), args, [1.0])
    with pytest.raises(TypeError, match="must have moments as matrices to train on batches"):
        train(barlow_twins, y0, args, [1], batches=WishartBatches(4), key=jax.random.key(0), **options)
    with pytest.raises(ValueError, match="Argument `batches` must be None"):
        train_in_eigenbasis(barlow_twins, y0, args, [1], batches=WishartBatches(4), key=jax.random.key(0), **options)
