"""Siamese flows against per-sample means, autodiff, scipy and the identities of Ponce 2025, at sizes n above, at and below m."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jepa_dyn.flows import (
    DeepLinearState,
    SiameseState,
    deep_jepa,
    deep_linear_arguments,
    siamese,
    siamese_arguments,
    siamese_gradient,
    siamese_objective,
    siamese_state,
)
from jepa_dyn.metrics import (
    increments,
    integrability_defect,
    linear_integrability_defect,
    predictor_imbalance,
    stop_gradient_field,
)
from jepa_dyn.moments import moments_from_pairs, view_moments
from jepa_dyn.solve import integrate
from jepa_dyn.status import Status

SIZES = [(1, 1), (4, 2), (3, 3), (2, 4)]


def problem(n, m, *, target=False, samples=60, **rates):
    """(pairs, arguments, state): pairs correlated, moments generic."""
    rng = np.random.default_rng(10 * n + m)
    x = rng.normal(size=(samples, m)) @ (np.eye(m) + 0.3 * rng.normal(size=(m, m)))
    y = 0.8 * x @ (np.eye(m) + 0.2 * rng.normal(size=(m, m))) + 0.3 * rng.normal(size=(samples, m))
    args = siamese_arguments(moments_from_pairs(x, y, center=False), **{"weight_decay": 0.07} | rates)
    encoder, predictor, other = rng.normal(size=(n, m)), rng.normal(size=(n, n)), rng.normal(size=(n, m))
    return (x, y), args, siamese_state(encoder, predictor, other if target else None)


def leaves(y):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(y)]


def per_sample(y, target, pairs, weight_decay):
    a, b = np.asarray(y.encoder), np.asarray(y.predictor)
    gaps = pairs[0] @ a.T @ b.T - pairs[1] @ np.asarray(target).T
    return (gaps**2).sum(axis=1).mean() / 2 + weight_decay * ((a**2).sum() + (b**2).sum()) / 2


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("target", [False, True])
def test_objective_and_its_gradients(n, m, target):
    pairs, args, y = problem(n, m, target=target)
    held = y.encoder if y.target is None else y.target
    assert float(siamese_objective(y, args)) == pytest.approx(per_sample(y, held, pairs, 0.07), rel=1e-12)
    slope = jax.grad(lambda y, c: siamese_objective(SiameseState(y.encoder, y.predictor, c), args))(
        SiameseState(y.encoder, y.predictor), held
    )
    flow = siamese(0.0, y, args)
    np.testing.assert_allclose(flow.encoder, -slope.encoder, atol=1e-12)
    np.testing.assert_allclose(flow.predictor, -slope.predictor, atol=1e-12)
    if target:
        with pytest.raises(ValueError, match="Argument `y` must have no target"):
            siamese_gradient(0.0, y, args)
    else:
        plain, whole = siamese_gradient(0.0, y, args), jax.grad(siamese_objective)(y, args)
        np.testing.assert_allclose(plain.encoder, -whole.encoder, atol=1e-12)
        np.testing.assert_allclose(plain.predictor, -whole.predictor, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_rates_are_factors(n, m):
    _, args, y = problem(n, m, target=True, encoder_rate=2.0, predictor_rate=0.5, ema_rate=0.3)
    _, plain, _ = problem(n, m, target=True)
    fast, slow = siamese(0.0, y, args), siamese(0.0, y, plain)
    np.testing.assert_allclose(fast.encoder, 2 * slow.encoder, rtol=1e-14)
    np.testing.assert_allclose(fast.predictor, 0.5 * slow.predictor, rtol=1e-14)
    np.testing.assert_allclose(fast.target, 0.3 * (y.encoder - y.target), rtol=1e-14)


def test_stop_gradient_is_a_one_layer_jepa():
    _, args, y = problem(3, 3)
    other = deep_jepa(
        0.0,
        DeepLinearState(y.encoder[None], y.predictor),
        deep_linear_arguments(args.moments, np.array([True]), weight_decay=0.07),
    )
    flow = siamese(0.0, y, args)
    np.testing.assert_allclose(flow.encoder, other.layers[0], rtol=1e-12)
    np.testing.assert_allclose(flow.predictor, other.decoder, rtol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(4, 2), (2, 4)])
@pytest.mark.parametrize("target", [False, True])
def test_paths_are_scipys_and_the_balance_decays(n, m, target):
    """Paths by DOP853; lemma 4.4: A A^T - B^T B = e^(-2 lambda t) K for the stop gradient and the EMA, at one rate for both."""
    _, args, y = problem(n, m, target=target, ema_rate=0.4)
    ts = np.array([0.0, 0.5, 2.0, 6.0])
    path = integrate(siamese, y, args, ts, rtol=1e-11, atol=1e-13)
    assert path.status == Status.ok
    xx, yx = (np.asarray(matrix) for matrix in (args.moments.xx, args.moments.yx))
    sizes = [n * m, n * n]

    def speed(t, z):
        a, b, rest = np.split(z, np.cumsum(sizes))
        a, b = a.reshape(n, m), b.reshape(n, n)
        c = rest.reshape(n, m) if target else a
        r = b @ a @ xx - c @ yx
        moves = [-(b.T @ r + 0.07 * a).ravel(), -(r @ a.T + 0.07 * b).ravel()]
        return np.concatenate([*moves, 0.4 * (a - c).ravel()] if target else moves)

    solved = solve_ivp(
        speed, (0, 6), np.concatenate([leaf.ravel() for leaf in leaves(y)]), "DOP853", ts, rtol=1e-12, atol=1e-13
    )
    ours = np.concatenate([leaf.reshape(4, -1) for leaf in leaves(path.ys)], axis=1)
    np.testing.assert_allclose(ours, solved.y.T, atol=1e-8)
    balance = np.asarray(jax.vmap(predictor_imbalance)(path.ys))
    np.testing.assert_allclose(balance, np.exp(-0.14 * ts)[:, None, None] * balance[0], atol=1e-8)


def test_modes_of_commuting_moments_are_one_by_one_networks():
    """Tian's reduction: A = U diag(a) V^T, B = U diag(b) U^T, C = U diag(c) V^T stay so, each mode as a 1 x 1 network."""
    rng = np.random.default_rng(4)
    u, v = (np.linalg.qr(rng.normal(size=(2, 2)))[0] for _ in range(2))
    rho, tau, (a, b, c) = np.array([1.5, 0.7]), np.array([0.9, -0.4]), rng.normal(size=(3, 2))
    law = view_moments(v @ np.diag(rho) @ v.T, v @ np.diag(tau) @ v.T, np.eye(2))
    y = siamese_state(u @ np.diag(a) @ v.T, u @ np.diag(b) @ u.T, u @ np.diag(c) @ v.T)
    ts = np.array([0.5, 3.0])
    whole = integrate(siamese, y, siamese_arguments(law, weight_decay=0.05, ema_rate=0.3), ts, rtol=1e-10, atol=1e-12)
    for i in range(2):
        one = view_moments(rho[i : i + 1, None], tau[i : i + 1, None], np.eye(1))
        mode = integrate(
            siamese,
            siamese_state(*(np.array([[value[i]]]) for value in (a, b, c))),
            siamese_arguments(one, weight_decay=0.05, ema_rate=0.3),
            ts,
            rtol=1e-10,
            atol=1e-12,
        )
        for name, left, right in (("encoder", u, v), ("predictor", u, u), ("target", u, v)):
            turned = np.einsum("ki,tkl,lj->tij", left, getattr(whole.ys, name), right)
            np.testing.assert_allclose(turned[:, i, i], getattr(mode.ys, name)[:, 0, 0], atol=1e-8)
            np.testing.assert_allclose(turned[:, i, 1 - i], 0, atol=1e-8)


def test_balance_with_two_rates():
    """With mu != nu lemma 4.4 fails; M = A A^T / mu - B^T B / nu obeys dM/dt = -2 lambda (A A^T - B^T B)."""
    _, args, y = problem(3, 2, encoder_rate=1.0, predictor_rate=3.0)
    flow = siamese(0.0, y, args)

    def mixed(y):
        return y.encoder @ y.encoder.T - y.predictor.T @ y.predictor / 3.0

    change = jax.jvp(mixed, (y,), (flow,))[1]
    np.testing.assert_allclose(change, -2 * 0.07 * predictor_imbalance(y), atol=1e-12)
    plain = jax.jvp(predictor_imbalance, (y,), (flow,))[1]
    assert np.abs(plain + 2 * 0.07 * predictor_imbalance(y)).max() > 0.1


def test_plain_gradient_collapses():
    """Lemma 4.3: tr A^T A falls at least as fast as e^(-2 lambda t); B goes to 0 too, other than the remark below it says."""
    _, args, y = problem(4, 2)
    ts = np.linspace(0, 120, 25)
    path = integrate(siamese_gradient, y, args, ts)
    size = np.sum(np.asarray(path.ys.encoder) ** 2, axis=(1, 2))
    assert (size <= size[0] * np.exp(-2 * 0.07 * ts) * (1 + 1e-6)).all()
    assert np.abs(path.ys.predictor[-1]).max() < 1e-2 and path.status == Status.ok
    energy = np.asarray(jax.vmap(siamese_objective, (0, None))(path.ys, args))
    assert (np.diff(energy) <= 1e-12).all()


def test_an_equilibrium_of_the_stop_gradient():
    """Lemma 4.2: B^T B = A A^T there; proposition 3.1: the gradient of E does not vanish, it is A [yy^T] - B A [xy^T]."""
    law = view_moments(np.array([[1.2, 0.35], [0.35, 0.8]]), np.array([[0.95, 0.3], [-0.2, 0.7]]), 2 * np.eye(2))
    args = siamese_arguments(law, weight_decay=0.02)
    rng = np.random.default_rng(1)
    path = integrate(
        siamese, siamese_state(rng.normal(size=(3, 2)), rng.normal(size=(3, 3))), args, np.array([3000.0]), rtol=1e-10
    )
    y = jax.tree.map(lambda leaf: leaf[0], path.ys)
    assert max(np.abs(leaf).max() for leaf in leaves(siamese(0.0, y, args))) < 1e-6
    assert np.linalg.svd(y.encoder, compute_uv=False).min() > 0.1
    np.testing.assert_allclose(predictor_imbalance(y), 0, atol=1e-5)
    whole = jax.grad(siamese_objective)(y, args)
    want = y.encoder @ law.yy - y.predictor @ y.encoder @ law.yx.T
    np.testing.assert_allclose(whole.encoder, want, atol=1e-5)
    assert np.abs(want).max() > 0.1


@pytest.mark.parametrize(("n", "m"), [(3, 2), (2, 3)])
def test_the_stop_gradient_field_is_no_gradient(n, m):
    """Proposition 3.2, linear case: the cross block is 1_n kron ([yx^T] A^T); the encoder block is not symmetric either."""
    pairs, args, y = problem(n, m)

    def field(parameters):
        flow = siamese(0.0, SiameseState(*parameters), args)
        return -flow.encoder, -flow.predictor

    defect = integrability_defect(field, (y.encoder, y.predictor))
    np.testing.assert_allclose(defect[: n * m, n * m :], linear_integrability_defect(y, args), atol=1e-12)
    assert np.abs(defect[: n * m, : n * m]).max() > 1e-2
    np.testing.assert_allclose(defect[n * m :, n * m :], 0, atol=1e-12)
    general = stop_gradient_field(
        lambda a, v: a @ v, lambda b, v: b @ v, *(jnp.asarray(p) for p in pairs), weight_decay=0.07
    )
    np.testing.assert_allclose(integrability_defect(general, (y.encoder, y.predictor)), defect, atol=1e-10)
    energy = jax.grad(lambda p: siamese_objective(SiameseState(*p), args))
    np.testing.assert_allclose(integrability_defect(energy, (y.encoder, y.predictor)), 0, atol=1e-10)


def test_a_nonlinear_network_has_no_gradient_either():
    pairs, _, _ = problem(3, 2, samples=12)
    keys = jax.random.split(jax.random.key(0), 4)
    theta = {"in": jax.random.normal(keys[0], (5, 2)), "out": jax.random.normal(keys[1], (3, 5))}
    psi = {"in": jax.random.normal(keys[2], (4, 3)), "out": jax.random.normal(keys[3], (3, 4))}

    def network(weights, v):
        return weights["out"] @ jnp.tanh(weights["in"] @ v)

    field = stop_gradient_field(network, network, *(jnp.asarray(p) for p in pairs), weight_decay=0.1)
    defect = integrability_defect(field, (theta, psi))
    cross = defect[:25, 25:]  # dP/dpsi - (dQ/dtheta)^T = E[J_theta f(y)^T J_psi g(f(x))], (16)

    def one(x, y):
        left = jax.jacfwd(lambda z: network(unravel(z), y))(flat)
        right = jax.jacfwd(lambda z: network(unravel_psi(z), network(theta, x)))(flat_psi)
        return left.T @ right

    flat, unravel = jax.flatten_util.ravel_pytree(theta)
    flat_psi, unravel_psi = jax.flatten_util.ravel_pytree(psi)
    want = np.mean([one(x, y) for x, y in zip(*pairs, strict=True)], axis=0)
    np.testing.assert_allclose(cross, want, atol=1e-10)
    assert np.abs(want).max() > 0.1


def test_increments():
    states = SiameseState(np.array([[[0.0]], [[3.0]], [[3.0]]]), np.array([[[0.0]], [[4.0]], [[2.0]]]))
    np.testing.assert_allclose(increments(states), [5.0, 2.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda law: siamese_arguments(law, weight_decay=-1.0), "Argument `weight_decay` must be finite and >= 0"),
        (lambda law: siamese_arguments(law, ema_rate=np.ones(2)), "Argument `ema_rate` must be one number"),
        (
            lambda law: siamese_arguments(view_moments(np.eye(2), np.ones((1, 2)) * 0.1, np.eye(1))),
            "views of equal size",
        ),
        (lambda law: siamese_state(np.eye(2), np.eye(3)), r"Argument `predictor` must have shape \(2, 2\)"),
        (lambda law: siamese_state(np.full((2, 2), np.nan), np.eye(2)), "Argument `encoder` must be finite"),
        (lambda law: siamese_state(np.ones(2), np.eye(2)), "Argument `encoder` must be a matrix"),
        (lambda law: siamese_state(np.eye(2), np.eye(2), np.eye(3)), "Argument `target` must have shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(view_moments(np.eye(2), 0.5 * np.eye(2), np.eye(2)))
