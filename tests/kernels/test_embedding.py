"""Embeddings by a kernel against the linear model, its flow and the flow in function space; the edges; what is refused and why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jepa_dyn import kernels
from jepa_dyn.status import Status
from jepa_dyn.theory import barlow_twins_alignment as alignment
from jepa_dyn.theory import barlow_twins_optima as optima

from .problems import gamma_of, views

RNG = np.random.default_rng


def flow_of_functions(gram, start, pairs, ts):
    """f on all points, whose first 2 `pairs` are trained on: dF/dt = -4 K S F (C - 1) / (2n), C = F^T S F / (2n), by DOP853."""
    shape, n2 = start.shape, 2 * pairs

    def speed(t, flat):
        f = flat.reshape(shape)
        swapped = np.roll(f[:n2], pairs, axis=0)
        cross = f[:n2].T @ swapped / n2
        return (-4 * gram[:, :n2] @ swapped @ (cross - np.eye(shape[1])) / n2).ravel()

    solved = solve_ivp(speed, (0, ts[-1]), start.ravel(), "DOP853", ts, rtol=1e-11, atol=1e-13 * np.abs(start).max())
    assert solved.success
    return solved.y.T.reshape(len(ts), *shape)


def test_linear_kernel_ends_where_the_linear_model_ends():
    points, unseen = views(0, 6, 4), RNG(1).normal(size=(2, 4))
    model = kernels.kernel_barlow_twins(kernels.linear(points), 2, scale=1e-3)
    encoder = np.asarray(optima.top_spectral_encoder(gamma_of(points), 2))
    got, want = np.asarray(model.embed(kernels.linear(unseen, points))), unseen @ encoder.T
    np.testing.assert_allclose(got @ got.T, want @ want.T, atol=1e-12 * np.abs(want @ want.T).max())
    np.testing.assert_allclose(model.motion.start, 1e-3 * np.sqrt([2, 1]), rtol=1e-14)


def test_aligned_start_follows_the_flow_in_function_space():
    """Any kernel, unseen points too: no theory in the reference. A start in the span of the top eigenfunctions is exact."""
    pairs, ts = 6, np.array([0.0, 1.0, 3.0, 30.0])
    points = np.concatenate([views(2, pairs, 3), RNG(3).normal(size=(2, 3))])
    gram = np.array(kernels.RBF(1.5)(points))
    typical = kernels.kernel_barlow_twins(gram[:12, :12], 2, scale=0.05)
    turn = np.linalg.qr(RNG(4).normal(size=(2, 2)))[0]
    start = np.asarray(typical.eigenfunctions(gram[:, :12])) * np.array([0.1, 0.04]) @ turn.T
    model = kernels.kernel_barlow_twins(gram[:12, :12], 2, initial=start[:12])
    np.testing.assert_allclose(model.motion.start, [0.1, 0.04], rtol=1e-10)
    want = flow_of_functions(gram, start, pairs, ts)
    got = np.asarray(model.embed(gram[:, :12], ts))
    np.testing.assert_allclose(got, want, atol=1e-8 * np.abs(want).max())
    np.testing.assert_allclose(model.embed_training_points(ts), want[:, :12], atol=1e-8 * np.abs(want).max())
    # C and the loss along the way
    cross = np.einsum("tia,tib->tab", want[:, :12], np.roll(want[:, :12], pairs, axis=1)) / 12
    path = model.trajectory(ts)
    np.testing.assert_allclose(np.linalg.eigvalsh(cross)[:, ::-1], np.sort(path.eigenvalues)[:, ::-1], atol=1e-8)
    np.testing.assert_allclose(path.loss, np.sum((cross - np.eye(2)) ** 2, axis=(1, 2)), atol=1e-7)
    assert (path.status == Status.ok).all()
    halves = np.asarray(model.trajectory(model.motion.critical_times()).eigenvalues)
    np.testing.assert_allclose(np.diag(halves), 0.5, rtol=1e-12)


def test_small_start_through_the_kernel_is_that_of_the_weights():
    """(42) against (41): U and s(0) from f(x, 0) alone; then within the known error of the flow itself."""
    points, alpha = views(5, 6, 4), 1e-6
    gamma, weights = gamma_of(points), alpha * RNG(6).normal(size=(2, 4))
    model = kernels.kernel_barlow_twins(kernels.linear(points), 2, initial=points @ weights.T)
    known = alignment.small_start(weights, gamma)
    np.testing.assert_allclose(model.motion.start, known.singular_values, rtol=1e-10)
    ts = np.linspace(0, 1.5 * float(model.motion.critical_times()[-1]), 6)
    flow = flow_of_functions(np.array(kernels.linear(points)), points @ weights.T, 6, ts)
    np.testing.assert_allclose(
        model.embed_training_points(ts), points @ np.swapaxes(known.aligned.encoder(ts), 1, 2), atol=1e-9
    )
    rate = float(alignment.alignment_exponent(np.linalg.eigvalsh(gamma), 2))
    assert np.abs(model.embed_training_points(ts) - flow).max() < 30 * alpha**rate < 0.3


def test_end_of_training_has_loss_zero_for_any_kernel():
    points = views(7, 6, 4)
    model = kernels.kernel_barlow_twins(kernels.ReluNtk(2, 2.0, 0.1)(points), 2, scale=1e-4)
    end = np.asarray(model.embed_training_points())
    np.testing.assert_allclose(end.T @ np.roll(end, 6, axis=0) / 12, np.eye(2), atol=1e-11)
    np.testing.assert_allclose(model.trajectory(np.inf).loss, 0, atol=1e-20)


def test_two_encoders_are_one_linear_model_with_two_paths():
    """f(x) = W_1 x, f'(x') = W_2 x' is one linear model of the inputs (x, 0) and (0, x')."""
    x, other = RNG(8).normal(size=(6, 3)), RNG(9).normal(size=(6, 4))
    other[:, :3] += x
    joint = np.block([[x, np.zeros((6, 4))], [np.zeros((6, 3)), other]])
    encoder = np.asarray(optima.top_spectral_encoder(gamma_of(joint), 2))
    spectrum = kernels.two_encoder_spectrum(kernels.linear(x), kernels.linear(other))
    model = kernels.kernel_barlow_twins(spectrum, 2, scale=1e-3)
    new, new_other = RNG(10).normal(size=(2, 3)), RNG(11).normal(size=(2, 4))
    got = np.concatenate(
        [model.embed(kernels.linear(new, x), encoder=0), model.embed(kernels.linear(new_other, other), encoder=1)]
    )
    want = np.concatenate([new @ encoder[:, :3].T, new_other @ encoder[:, 3:].T])
    np.testing.assert_allclose(got @ got.T, want @ want.T, atol=1e-12 * np.abs(want @ want.T).max())
    with pytest.raises(
        ValueError, match=r"`dimension` must be <= 3, the number of eigenvalues .* beyond rounding, but is 4"
    ):
        kernels.kernel_barlow_twins(spectrum, 4, scale=1e-3)


@pytest.mark.parametrize(
    ("points", "dimension", "message"),
    [
        (views(12, 6, 8), 7, r"`dimension` must be <= 6, the number of pairs, but is 7: .*Sylvester"),
        (
            views(12, 6, 1),
            2,
            r"`dimension` must be <= 1, the number of eigenvalues .* beyond rounding, but is 2: the next",
        ),
        (
            np.concatenate([np.eye(6), -np.eye(6)]),
            2,
            r"`dimension` must be <= 0, the number of eigenvalues .* but is 2",
        ),
        (views(12, 6, 8), 0, "`dimension` must be a whole number >= 1"),
    ],
)
def test_more_dimensions_than_can_be_learned(points, dimension, message):
    with pytest.raises(ValueError, match=message):
        kernels.kernel_barlow_twins(kernels.linear(points), dimension, scale=1e-3)


def test_repeated_eigenvalues():
    """Inside the top d any basis serves a typical start; across the cut the choice is arbitrary; a given start has no unique QR."""

    def gram(*variances):
        x = np.diag([*variances, 0.5, 0.4, 0.3]) ** 0.5
        return kernels.linear(np.concatenate([x, x]))

    model = kernels.kernel_barlow_twins(gram(2.0, 2.0, 1.0), 2, scale=1e-3)
    np.testing.assert_array_equal(model.repeated, [True, False])
    with pytest.warns(UserWarning, match=r"Eigenvalue 2 of K_Gamma, 0.16.*, cannot be told from the next"):
        kernels.kernel_barlow_twins(gram(2.0, 1.0, 1.0), 2, scale=1e-3)
    for variances, j in (((2.0, 1.0, 1.0), 2), ((2.0, 2.0, 1.0), 1)):
        with pytest.raises(ValueError, match=f"gamma_{j} and gamma_{j + 1} are equal within rounding: .*Q and R"):
            kernels.kernel_barlow_twins(gram(*variances), 2, initial=1e-3 * RNG(0).normal(size=(12, 2)))


def test_equal_views_learn_the_modes_of_the_kernel():
    x = RNG(13).normal(size=(6, 2))
    gram = np.array(kernels.RBF(1.0)(np.concatenate([x, x])))
    end = np.asarray(kernels.kernel_barlow_twins(gram, 2, scale=1e-3).embed_training_points())[:6]
    top = np.linalg.eigh(gram[:6, :6])[1][:, ::-1][:, :2]
    np.testing.assert_allclose(end @ end.T, 6 * top @ top.T, atol=1e-12)


def test_what_float32_cannot_hold(float32):
    gram = kernels.linear(views(14, 6, 3).astype(np.float32))
    path = kernels.kernel_barlow_twins(gram, 2, scale=1e-25).trajectory(np.array([0.0, 1e4]))
    # s(0)^2 is 1e-50; what is learned later is right
    np.testing.assert_array_equal(path.status, [[Status.unresolved] * 2, [Status.ok] * 2])
    assert np.isnan(path.eigenvalues[0]).all() and path.eigenvalues.dtype == jnp.float32
    np.testing.assert_allclose(path.eigenvalues[1], 1, rtol=1e-6)
    np.testing.assert_allclose(path.singular_values[0], 1e-25 * np.sqrt([2, 1]), rtol=1e-6)
    with pytest.raises(ValueError, match=r"`scale` must fit into float32.*turn x64 on.*is 1e-60"):
        kernels.kernel_barlow_twins(gram, 2, scale=1e-60)


def test_lanes_of_a_batch_have_statuses():
    """Nothing is raised under a transformation: no scale, a kernel with one mode less."""
    grams = np.stack([np.array(kernels.linear(views(15, 6, m))) for m in (3, 3, 1)])
    scales = jnp.array([1e-3, 0.0, 1e-3])
    path = jax.vmap(lambda gram, scale: kernels.kernel_barlow_twins(gram, 2, scale=scale).trajectory(5.0))(
        grams, scales
    )
    ok, bad = Status.ok, Status.invalid_parameter
    np.testing.assert_array_equal(path.status, [[ok, ok], [bad, bad], [ok, bad]])


def test_bad_arguments():
    points = views(16, 6, 4)
    gram = kernels.linear(points)
    model = kernels.kernel_barlow_twins(gram, 2, scale=1e-3)
    rank_one = np.outer(points[:, 0], [1.0, 2.0])
    for call, message in [
        (lambda: kernels.kernel_barlow_twins(gram, 2), "Exactly one of the arguments `scale` and `initial`"),
        (lambda: kernels.kernel_barlow_twins(gram, 2, scale=0.0), "`scale` must be finite and > 0"),
        (lambda: kernels.kernel_barlow_twins(gram, 2, scale=np.ones(2)), "`scale` must be one number"),
        (lambda: kernels.kernel_barlow_twins(gram, 2, initial=points), r"`initial` must have shape \(12, 2\)"),
        (
            lambda: kernels.kernel_barlow_twins(gram, 2, initial=rank_one),
            "`initial` must have components along all of the top 2 modes",
        ),
        (lambda: model.embed(gram[:, :4]), "`rows` must have one column for each of 12 training points"),
        (lambda: model.embed(gram, encoder=0), "one column for each of 6 training points"),
        (lambda: model.embed(gram, encoder=2), "`encoder` must be 0 or 1"),
        (lambda: model.embed(gram, -1.0), "`t` must be >= 0"),
        (lambda: kernels.kernel_barlow_twins(3.0, 2, scale=1.0), "square matrix"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
