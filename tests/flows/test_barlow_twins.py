"""Barlow Twins flows against autodiff of the losses of raw pairs, finite differences, symmetries and Simon 2023, at all sizes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn.flows import (
    BarlowTwinsState,
    SpectralFlow,
    barlow_twins,
    barlow_twins_arguments,
    barlow_twins_arguments_from_gamma,
    barlow_twins_arguments_from_pairs,
    barlow_twins_loss,
    barlow_twins_preconditioned,
    barlow_twins_quartic,
    barlow_twins_sharp,
    barlow_twins_smooth,
    barlow_twins_state,
    embedding_cross_correlation,
)
from jepa_dyn.moments import WishartBatches, view_moments
from jepa_dyn.solve import train
from jepa_dyn.status import Status


def problem(d, m, samples=40, **options):
    """(pairs, arguments, state): views whose Gamma has eigenvalues of both signs where m > 1."""
    rng = np.random.default_rng(10 * d + m)
    x = rng.normal(size=(samples, m)) + 0.3
    y = x * np.linspace(0.9, -0.5 if m > 1 else 0.9, m) + 0.3 * rng.normal(size=(samples, m))
    return (x, y), barlow_twins_arguments_from_pairs(x, y, **options), barlow_twins_state(rng.normal(size=(d, m)))


def follow(flow, y, args, end, steps):
    """The state after `end` by Runge and Kutta's classical steps: compiles in no time."""

    def move(y, slope, by):
        return jax.tree.map(lambda a, b: a + by * b, y, slope)

    def one(i, y):
        h = end / steps
        k1 = flow(0.0, y, args)
        k2 = flow(0.0, move(y, k1, h / 2), args)
        k3 = flow(0.0, move(y, k2, h / 2), args)
        k4 = flow(0.0, move(y, k3, h), args)
        return jax.tree.map(lambda a, b, c, d, e: a + h / 6 * (b + 2 * c + 2 * d + e), y, k1, k2, k3, k4)

    return jax.jit(lambda y: jax.lax.fori_loop(0, steps, one, y))(y)


def correlation_of_pairs(w, pairs):
    """C of (2), sample by sample, as the loop of the paper."""
    f, g = pairs[0] @ w.T, pairs[1] @ w.T
    return (f.T @ g + g.T @ f) / (2 * len(f))


@pytest.mark.parametrize(("d", "m"), [(1, 1), (4, 2), (2, 4)])
@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_the_flow_is_the_gradient_of_the_loss_of_the_pairs(d, m, weight):
    """(2)-(6), factor 4, and the off-diagonal weight of Zbontar 2021."""
    pairs, args, y = problem(d, m, off_diagonal_weight=weight)

    def loss(w):
        c = correlation_of_pairs(w, pairs)
        return jnp.sum((jnp.where(jnp.eye(d) == 1, 1, weight)) * (c - jnp.eye(d)) ** 2)

    value, slope = jax.jit(jax.value_and_grad(loss))(y.encoder)
    assert float(barlow_twins_loss(y, args)) == pytest.approx(float(value), rel=1e-12)
    flow = jax.jit(barlow_twins)(0.0, y, args).encoder
    np.testing.assert_allclose(flow, -slope, rtol=1e-11, atol=1e-11)
    if weight == 1:
        w, c = np.asarray(y.encoder), correlation_of_pairs(np.asarray(y.encoder), pairs)
        printed = -4 * (c - np.eye(d)) @ w @ np.asarray(args.gamma)
        np.testing.assert_allclose(flow, printed, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(embedding_cross_correlation(y, args), c, rtol=1e-12, atol=1e-13)


def squared(l, args):
    return (1 - l) ** 2


@pytest.mark.parametrize(("d", "m"), [(3, 4)])
@pytest.mark.parametrize("flow", [barlow_twins_sharp, barlow_twins_smooth, barlow_twins_quartic])
@pytest.mark.parametrize("kink", [0.0, 0.1])
def test_spectral_flows_are_gradients(d, m, flow, kink):
    """Losses written anew on the eigenvalues of C of the pairs; then those of the library."""
    pairs, args, y = problem(d, m, kink_width=kink, upper_slope=0.4)
    losses = {
        barlow_twins_sharp: lambda l: (l * (l**2 + kink**2) ** -0.25 - 1) ** 2,
        barlow_twins_smooth: lambda l: (jnp.minimum(l, 1 + 0.4 * (1 - l)) - 1) ** 2,
        barlow_twins_quartic: lambda l: (1 - l) ** 4,
    }
    whole = jax.value_and_grad(lambda w: jnp.sum(losses[flow](jnp.linalg.eigvalsh(correlation_of_pairs(w, pairs)))))
    value, slope = jax.jit(whole)(y.encoder)
    assert float(flow.loss(y, args)) == pytest.approx(float(value), rel=1e-11)
    np.testing.assert_allclose(jax.jit(flow)(0.0, y, args).encoder, -slope, rtol=1e-9, atol=1e-10)


def test_one_s_own_eigenvalue_loss():
    _, args, y = problem(3, 3)
    np.testing.assert_allclose(
        SpectralFlow(squared)(0.0, y, args).encoder, barlow_twins(0.0, y, args).encoder, rtol=1e-11
    )


def test_without_the_square_only_the_clock_differs():
    """|g(C) - I|_F as printed: autodiff of the root, singular values (3 features): force gamma^(1/2)/d^(1/2) from a small start."""
    gammas = np.array([1.0, 0.3, 0.05])
    args = barlow_twins_arguments_from_gamma(np.diag(gammas))
    y = barlow_twins_state(1e-9 * np.eye(3))
    square = jax.jit(barlow_twins_sharp)(0.0, y, args).encoder
    rate = np.asarray(square) / (2 * np.sqrt(float(barlow_twins_sharp.loss(y, args))))
    np.testing.assert_allclose(np.diag(rate), np.sqrt(gammas / 3), rtol=1e-7)
    np.testing.assert_allclose(np.diag(square), 2 * np.sqrt(gammas), rtol=1e-7)
    whole = jax.jit(jax.grad(lambda w: jnp.sqrt(barlow_twins_sharp.loss(BarlowTwinsState(w), args))))(y.encoder)
    np.testing.assert_allclose(rate, -whole, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("d", "m"), [(4, 2), (2, 4)])
def test_the_preconditioned_gradient_is_that_of_the_embeddings(d, m):
    """(52) as printed, on the 2n embeddings of the batch: ours with ridge = alpha / (2n) and time t / (2n)."""
    pairs, args, y = problem(d, m, ridge=0.3)
    both, n = np.concatenate(pairs), len(pairs[0])

    def loss(embeddings):
        c = embeddings[:n].T @ embeddings[n:]
        return jnp.sum(((c + c.T) / (2 * n) - jnp.eye(d)) ** 2)

    f = both @ np.asarray(y.encoder).T
    slope = np.asarray(jax.jit(jax.grad(loss))(f))
    printed = -(slope @ np.linalg.inv(f.T @ f + 0.3 * 2 * n * np.eye(d))).T @ both
    ours = barlow_twins_preconditioned(0.0, y, args).encoder / (2 * n)
    np.testing.assert_allclose(ours, printed, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("flow", [barlow_twins_quartic, barlow_twins_smooth, barlow_twins_sharp])
def test_the_jacobian_is_exact_at_repeated_eigenvalues(flow):
    """All eigenvalues of C equal (0.49), where the derivative of eigenvectors is infinite: against central differences."""
    gammas = np.array([1.0, 0.5, 0.25])
    args = barlow_twins_arguments_from_gamma(np.diag(gammas))
    w = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] * (0.7 / np.sqrt(gammas)))

    def field(w):
        return flow(0.0, BarlowTwinsState(w), args).encoder

    field = jax.jit(field)
    jacobian = jax.jit(jax.jacfwd(field))(w)
    assert np.isfinite(jacobian).all()
    for i, j in ((0, 0), (1, 2), (2, 1)):
        step = jnp.zeros_like(w).at[i, j].set(1e-5)
        np.testing.assert_allclose(jacobian[..., i, j], (field(w + step) - field(w - step)) / 2e-5, atol=1e-7)


def test_derivative_by_the_width_of_the_kink():
    _, args, y = problem(2, 2)

    def field(width):
        return barlow_twins_sharp(0.0, y, eqx.tree_at(lambda a: a.kink_width, args, width)).encoder

    field = jax.jit(field)
    slope = jax.jit(jax.jacfwd(field))(0.2)
    np.testing.assert_allclose(slope, (field(0.2 + 1e-6) - field(0.2 - 1e-6)) / 2e-6, atol=1e-7)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_symmetries(weight):
    """W -> U W commutes with the flow for every rotation at weight 1 (footnote 24), else for permutations with signs only."""
    _, args, y = problem(3, 3, off_diagonal_weight=weight)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    signed = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])

    def defect(u):
        turned = barlow_twins(0.0, BarlowTwinsState(jnp.asarray(u @ y.encoder)), args).encoder
        return np.abs(turned - u @ barlow_twins(0.0, y, args).encoder).max()

    assert defect(signed) < 1e-11
    assert defect(rotation) < 1e-11 if weight == 1 else defect(rotation) > 0.1


@pytest.mark.parametrize(
    ("d", "m", "weight", "floor"), [(2, 4, 1.0, 0.0), (2, 4, 0.2, 0.0), (4, 2, 1.0, 3.0), (3, 3, 1.0, 2.0)]
)
def test_where_training_ends(d, m, weight, floor):
    """The loss falls to d less the number of positive eigenvalues of Gamma (2 of 4, 1 of 2, 1 of 3 here), d > m included."""
    rng = np.random.default_rng(d)
    gammas = {4: [1.0, 0.5, -0.2, -0.6], 3: [0.8, -0.1, -0.9], 2: [0.9, -0.5]}[m]
    rows = np.linalg.qr(rng.normal(size=(m, m)))[0]
    args = barlow_twins_arguments_from_gamma(rows.T @ np.diag(gammas) @ rows, off_diagonal_weight=weight)
    y = barlow_twins_state(0.1 * rng.normal(size=(d, m)))
    early, late = follow(barlow_twins, y, args, 1.0, 50), follow(barlow_twins, y, args, 80.0, 3000)
    losses = [float(barlow_twins_loss(state, args)) for state in (y, early, late)]
    assert losses[2] == pytest.approx(floor, abs=1e-6)
    assert losses[0] > losses[1] > losses[2]


def test_at_weight_zero_every_row_learns_the_same_feature():
    args = barlow_twins_arguments_from_gamma(np.diag([1.0, 0.5, 0.2]), off_diagonal_weight=0.0)
    start = barlow_twins_state(1e-8 * np.random.default_rng(0).normal(size=(2, 3)))
    end = np.asarray(follow(barlow_twins, start, args, 20.0, 1000).encoder)
    np.testing.assert_allclose(np.abs(end), [[1, 0, 0]] * 2, atol=1e-3)


def test_a_rounded_kink_lets_a_negative_feature_die():
    """gamma < 0 under the sharp loss: log(1 + |gamma|^(1/2) s0) / (2 |gamma|) = 0.458162 until 0, then it stays there."""
    args = barlow_twins_arguments_from_gamma(np.diag([1.0, -0.5]), kink_width=1e-4)
    y0 = barlow_twins_state(np.diag([0.1, (np.exp(0.458162) - 1) / np.sqrt(0.5)]))
    before, after = (follow(barlow_twins_sharp, y0, args, end, 2000).encoder[1, 1] for end in (0.4, 2.0))
    assert before == pytest.approx((np.exp(0.458162 - 0.4) - 1) / np.sqrt(0.5), abs=2e-3)
    assert abs(float(after)) < 1e-12


def test_learning_rates_of_appendix_g3():
    """Gradient descent at gamma = 1: stable below 1/4, a 2-cycle above; with g = min(l, 1) it overshoots and stays."""
    args = barlow_twins_arguments_from_gamma(np.ones((1, 1)))
    y0 = barlow_twins_state(np.array([[0.1]]))

    def ends(flow, rate, steps=(3000, 3001)):
        return np.sort(np.asarray(train(flow, y0, args, steps, learning_rate=rate).ys.encoder).ravel())

    np.testing.assert_allclose(ends(barlow_twins, 0.24), 1.0, atol=1e-8)
    np.testing.assert_allclose(ends(barlow_twins, 0.26), [0.887, 1.084], atol=1e-3)
    above = ends(barlow_twins_smooth, 0.26)
    assert above[0] == above[1] > 1 + 1e-3
    quartic = barlow_twins_state(np.array([[1e-3]]))
    assert train(barlow_twins_quartic, quartic, args, [3000], learning_rate=0.5).status != Status.ok


def test_training_on_batches_and_lanes():
    """Three starts as lanes on drawn batches; arguments may have lanes too."""
    _, args, y = problem(2, 2)
    starts = BarlowTwinsState(jnp.stack([y.encoder, 0.5 * y.encoder, -y.encoder]))
    weights = eqx.tree_at(lambda a: a.off_diagonal_weight, args, jnp.array([0.5, 1.0, 0.5]))
    runs = train(
        barlow_twins, starts, weights, [0, 20], learning_rate=0.01, batches=WishartBatches(64), key=jax.random.key(0)
    )
    assert runs.ys.encoder.shape == (3, 2, 2, 2) and (np.asarray(runs.status) == Status.ok).all()
    np.testing.assert_allclose(runs.ys.encoder[2], -runs.ys.encoder[0], rtol=1e-12)
    several = jax.vmap(lambda scale: barlow_twins_arguments(jax.tree.map(lambda leaf: scale * leaf, args.moments)))(
        jnp.array([1.0, 2.0])
    )
    assert several.gamma.shape == (2, 2, 2)


def test_float32_and_its_end(float32):
    """A start of 1e-30 has C = 0 in float32 and still grows as (17); one of 1e-60 would silently be 0 and is refused."""
    args = barlow_twins_arguments_from_gamma(np.diag([1.0, 0.5]))
    y = barlow_twins_state(1e-30 * np.eye(2))
    assert y.encoder.dtype == args.gamma.dtype == jnp.float32
    speed = barlow_twins(0.0, y, args).encoder
    np.testing.assert_allclose(np.diag(speed), [4e-30, 2e-30], rtol=1e-6)
    with pytest.raises(ValueError, match="Argument `encoder` must fit into float32"):
        barlow_twins_state(1e-60 * np.eye(2))
    with pytest.raises(ValueError, match="Argument `gamma` must fit into float32"):
        barlow_twins_arguments_from_gamma(1e-60 * np.eye(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda law: barlow_twins_arguments(law, off_diagonal_weight=-1.0),
            "`off_diagonal_weight` must be finite and >= 0",
        ),
        (lambda law: barlow_twins_arguments(law, ridge=0.0), "Argument `ridge` must be finite and > 0"),
        (lambda law: barlow_twins_arguments(law, kink_width=np.ones(2)), "Argument `kink_width` must be one number"),
        (lambda law: barlow_twins_arguments(law, upper_slope=np.nan), "Argument `upper_slope` must be finite"),
        (
            lambda law: barlow_twins_arguments(view_moments(np.eye(2), np.ones((1, 2)) * 0.1, np.eye(1))),
            "views of equal size",
        ),
        (lambda law: barlow_twins_arguments_from_gamma(np.ones(2)), "Argument `gamma` must be a square matrix"),
        (
            lambda law: barlow_twins_arguments_from_gamma(np.array([[1.0, 2], [0, 1]])),
            "Argument `gamma` must be symmetric",
        ),
        (lambda law: barlow_twins_arguments_from_gamma(np.zeros((2, 2))), "Argument `gamma` must not be 0"),
        (lambda law: barlow_twins_arguments_from_pairs(np.ones((4, 2)), np.ones((5, 2))), "equally many rows"),
        (lambda law: barlow_twins_state(np.ones(3)), "Argument `encoder` must be a matrix"),
        (lambda law: barlow_twins_state(np.full((2, 2), np.inf)), "Argument `encoder` must be finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(view_moments(np.eye(2), 0.5 * np.eye(2), np.eye(2)))
