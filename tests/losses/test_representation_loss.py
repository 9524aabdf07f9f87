"""Non-contrastive losses: gradients against autodiff of the losses as printed, expectations against integrals over angles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import fractional_matrix_power

from jepa_dyn.losses import (
    TABLE_1,
    RepresentationLoss,
    closed_form_predictor,
    distance,
    distance_gradients,
    gaussian_cosine_gradients,
    gaussian_cosine_loss,
    predictor_eigenvalues,
    representation_gradients,
    representation_loss,
)
from jepa_dyn.theory.direct_pred import printed_no_stop_gradient_cosine_gradient

FORMS = TABLE_1 | {
    "euclidean_linear": RepresentationLoss("euclidean", iso="linear"),
    "cosine_linear": RepresentationLoss("cosine", iso="linear"),
    "cosine_straight_through": RepresentationLoss("cosine", iso="straight_through"),
    "both_branches_iso": RepresentationLoss("cosine", stop_gradient=False, iso="straight_through"),
}


def embeddings(seed=0, n=5, m=3):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(2, n, m))
    root = rng.normal(size=(m, m))
    return jnp.asarray(z[0]), jnp.asarray(z[0] + 0.4 * z[1]), jnp.asarray(root @ root.T / m)


def test_table_1_has_its_eight_rows():
    assert len(TABLE_1) == 8 and len(set(TABLE_1.values())) == 8


@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_those_of_the_loss_as_written(name):
    """By both views, and by a W_P that is trained; for IsoLosses, W_P z in the place of the chain rule's last step."""
    loss, (first, second, predictor) = FORMS[name], embeddings()
    slopes = jax.grad(lambda a, b: representation_loss(loss, a, b, predictor), (0, 1))(first, second)
    by_first, by_second, by_prediction = representation_gradients(loss, first, second, predictor)
    np.testing.assert_allclose(slopes[0], by_first / 5, atol=1e-14)
    np.testing.assert_allclose(slopes[1], by_second / 5, atol=1e-14)
    assert np.any(slopes[1]) != loss.stop_gradient
    if loss.predictor and not loss.is_iso:
        trained = jax.grad(lambda w: representation_loss(loss, first, second, w))(predictor)
        np.testing.assert_allclose(trained, by_prediction.T @ first / 5, atol=1e-14)


@pytest.mark.parametrize("kind", ["euclidean", "cosine"])
def test_iso_forms_differ_in_value_only(kind):
    """(15) has the value of the plain loss, (17) and the linear forms have not; the gradient is the plain one without W_P^T."""
    first, second, predictor = embeddings(1)
    plain = representation_loss(RepresentationLoss(kind), first, second, predictor)
    values = {
        iso: float(representation_loss(RepresentationLoss(kind, iso=iso), first, second, predictor))
        for iso in ("straight_through", "printed", "linear")
    }
    assert values["straight_through"] == pytest.approx(float(plain), rel=1e-14)
    assert (values["printed"] == pytest.approx(float(plain), rel=1e-14)) == (kind == "euclidean")
    assert abs(values["linear"] - float(plain)) > 1e-2
    iso = representation_gradients(RepresentationLoss(kind, iso="printed"), first, second, predictor)[0]
    whole = representation_gradients(RepresentationLoss(kind), first, second, predictor)[0]
    np.testing.assert_allclose(iso @ predictor, whole, atol=1e-14)


def test_equation_17_with_its_square_root():
    first, second, predictor = (np.asarray(v) for v in embeddings(2))
    root = fractional_matrix_power(predictor, 0.5)
    value = 0.0
    for z, goal in zip(first, second, strict=True):
        p = predictor @ z
        size, other = np.linalg.norm(p), np.linalg.norm(goal)
        value += -z @ goal / (size * other) + 0.5 * (p @ goal) / (size**3 * other) * np.sum((root @ z) ** 2)
    ours = representation_loss(TABLE_1["cosine_iso"], *embeddings(2))
    assert float(ours) == pytest.approx(value / 5, rel=1e-12)


def test_c2_as_printed_is_not_the_gradient():
    """In the eigenbasis, both branches; what is printed for the second branch is wrong."""
    first, second, _ = embeddings(3)
    lam = jnp.asarray([1.3, 0.8, 0.4])
    loss = TABLE_1["cosine_no_stop_gradient"]
    slopes = jax.grad(lambda a, b: 5 * representation_loss(loss, a, b, jnp.diag(lam)), (0, 1))(first, second)
    ours = representation_gradients(loss, first, second, jnp.diag(lam))
    np.testing.assert_allclose(ours[0] + ours[1], slopes[0] + slopes[1], atol=1e-14)
    z1, z2 = np.asarray(first), np.asarray(second)
    sizes = np.linalg.norm(lam * z1, axis=1) * np.linalg.norm(z2, axis=1) ** 3
    pulls = lam * z1 * np.sum(z2**2, axis=1, keepdims=True) - z2 * np.sum(lam * z1 * z2, axis=1, keepdims=True)
    np.testing.assert_allclose(ours[1], -pulls / sizes[:, None], atol=1e-14)
    printed = printed_no_stop_gradient_cosine_gradient(first, second, lam)
    assert np.abs(printed - (slopes[0] + slopes[1])).max() > 0.1


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e160])
def test_zero_and_extreme_norms_under_the_cosine(scale):
    """A view of norm 0 has loss 0 and gradient 0, in autodiff too; squares never leave the range of the numbers."""
    p, q = jnp.asarray([[3.0, 4.0]]) * scale, jnp.asarray([[4.0, 3.0]])
    value = float(distance("cosine", p, q)[0])
    assert value == pytest.approx(0.0 if scale == 0 else -0.96, rel=1e-12)
    by_p, by_q = distance_gradients("cosine", p, q)
    present = float(scale > 0)
    np.testing.assert_allclose(by_p * scale, [[-0.0448 * present, 0.0336 * present]], rtol=1e-12)
    np.testing.assert_allclose(by_q, [[0.0336 * present, -0.0448 * present]], rtol=1e-12)
    loss = RepresentationLoss("cosine", stop_gradient=False)
    auto = jax.grad(lambda a, b: representation_loss(loss, a, b, jnp.eye(2)), (0, 1))(p, q)
    np.testing.assert_allclose(auto[0], by_p, rtol=1e-12)
    np.testing.assert_allclose(auto[1], by_q, rtol=1e-12, atol=1e-15)
    assert np.isnan(distance("cosine", p * jnp.nan, q)).all()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0, 2.0])
def test_closed_form_predictor(alpha):
    c = embeddings(4, m=4)[2] + 0.1 * jnp.eye(4)
    np.testing.assert_allclose(closed_form_predictor(c, alpha), fractional_matrix_power(c, alpha), atol=1e-12)
    np.testing.assert_allclose(jax.jit(closed_form_predictor)(c, alpha), closed_form_predictor(c, alpha), atol=1e-12)


def test_predictor_of_degenerate_matrices():
    """Eigenvalues 0, repeated, negative by rounding: finite, with the derivative of the matrix function where it has one."""
    np.testing.assert_allclose(closed_form_predictor(jnp.zeros((2, 2)), 0.5), 0)
    np.testing.assert_array_equal(closed_form_predictor(jnp.zeros((2, 2)), 0.0), np.eye(2))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    c = jnp.asarray(turn @ np.diag([4.0, 4.0, 1.0, 0.0]) @ turn.T)
    np.testing.assert_allclose(closed_form_predictor(c, 0.5), turn @ np.diag([2.0, 2.0, 1.0, 0.0]) @ turn.T, atol=1e-7)
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(4, 4))
    direction = jnp.asarray(direction + direction.T)
    full = jnp.asarray(turn @ np.diag([4.0, 4.0, 1.0, 1.0]) @ turn.T)
    slope = jax.jvp(lambda m: closed_form_predictor(m, 0.5), (full,), (direction,))[1]
    step = [fractional_matrix_power(full + h * direction, 0.5) for h in (1e-5, -1e-5)]
    np.testing.assert_allclose(slope, (step[0] - step[1]) / 2e-5, atol=1e-8)
    assert np.isfinite(jax.jacfwd(lambda m: closed_form_predictor(m, 0.5))(jnp.diag(jnp.asarray([1.0, 0.0])))).all()
    assert np.isnan(predictor_eigenvalues(jnp.nan, 0.5)) and predictor_eigenvalues(-1e-20, 0.5) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: closed_form_predictor(np.ones((2, 3))), "must be a square matrix"),
        (lambda: closed_form_predictor(np.array([[1.0, 2.0], [0.0, 1.0]])), "must be symmetric"),
        (lambda: closed_form_predictor(-np.eye(2)), "must be positive semidefinite"),
        (lambda: closed_form_predictor(np.eye(2), -0.5), "Argument `alpha` must be finite and >= 0"),
        (lambda: closed_form_predictor(np.eye(2), np.ones(2)), "Argument `alpha` must be one number"),
        (lambda: RepresentationLoss("cos"), "Argument `distance` must be one of 'euclidean', 'cosine'"),
        (lambda: RepresentationLoss(predictor=False, iso="printed"), "must be 'none' without a predictor"),
        (lambda: RepresentationLoss(stop_gradient=False, iso="linear"), "'straight_through' without stop gradient"),
        (lambda: representation_loss(TABLE_1["euclidean"], *embeddings()[:2]), "`predictor` must be given"),
        (lambda: representation_loss(TABLE_1["euclidean"], jnp.ones((2, 1)), jnp.ones((3, 1))), "must have one shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# the expected cosine loss of Gaussian modes

P, Q = np.array([1.1, -0.35]), np.array([0.7, 0.5])


def by_angle(p, q):
    """-E cos for two modes whose views are equal: the length of h cancels, its angle is uniform."""

    def integrand(angle):
        h = np.array([np.cos(angle), np.sin(angle)])
        return -(p * h) @ (q * h) / np.linalg.norm(p * h) / np.linalg.norm(q * h)

    return quad(integrand, 0, np.pi, epsabs=1e-13, epsrel=1e-13, limit=200)[0] / np.pi


def by_two_angles(p, q, online, target, cross, count=400):
    """-E cos for two modes and noisy views: over both angles, where the lengths integrate in closed form."""
    angles = 2 * np.pi * np.arange(count) / count
    unit = np.array([np.cos(angles), np.sin(angles)])
    det = online * target - cross**2
    a, c = (target / det * (unit.T / p) ** 2).sum(1)[:, None], (online / det * (unit.T / q) ** 2).sum(1)
    b = (cross / det / (p * q) * unit.T) @ unit
    k = b / np.sqrt(a * c)
    lengths = (1 / (1 - k**2) + k * (np.pi / 2 + np.arcsin(k)) / (1 - k**2) ** 1.5) / (a * c)
    density = lengths / (4 * np.pi**2 * np.prod(np.abs(p * q)) * np.prod(np.sqrt(det)))
    cell = (2 * np.pi / count) ** 2
    assert density.sum() * cell == pytest.approx(1.0, abs=1e-9)
    return -(density * (unit.T @ unit)).sum() * cell


def slopes_of(value, p, q, h=1e-5):
    moves = h * np.eye(2)
    by_p = [(value(p + move, q) - value(p - move, q)) / (2 * h) for move in moves]
    return by_p, [(value(p, q + move) - value(p, q - move)) / (2 * h) for move in moves]


def test_quadrature_without_noise():
    value = gaussian_cosine_loss(jnp.asarray(P), jnp.asarray(Q), 1.0, 1.0, 1.0, 96)
    assert float(value) == pytest.approx(by_angle(P, Q), abs=1e-8)
    ours = gaussian_cosine_gradients(jnp.asarray(P), jnp.asarray(Q), 1.0, 1.0, 1.0, 96)
    for mine, want in zip(ours, slopes_of(by_angle, P, Q), strict=True):
        np.testing.assert_allclose(mine, want, atol=1e-7)


def test_quadrature_with_noise():
    """Moments of its own for each mode, on both views."""
    moments = np.array([1.3, 1.6]), np.array([1.2, 1.5]), np.array([0.9, -0.4])

    def truth(p, q):
        return by_two_angles(p, q, *moments)

    value = gaussian_cosine_loss(jnp.asarray(P), jnp.asarray(Q), *moments, 96)
    assert float(value) == pytest.approx(truth(P, Q), abs=1e-8)
    ours = gaussian_cosine_gradients(jnp.asarray(P), jnp.asarray(Q), *moments, 96)
    for mine, want in zip(ours, slopes_of(truth, P, Q), strict=True):
        np.testing.assert_allclose(mine, want, atol=1e-7)


def test_quadrature_against_a_sample_and_its_own_refinement():
    """Ten modes over two decades, as the paper's networks have: within five standard errors of 6e4 pairs; nodes, scale, edges."""
    rng = np.random.default_rng(5)
    s = np.geomspace(0.05, 4.0, 10)
    p, q = jnp.asarray(s**1.5), jnp.asarray(s**0.5)
    clean, noise = rng.normal(size=(60_000, 10)), 0.3 * rng.normal(size=(2, 60_000, 10))
    h, other = clean + noise[0], clean + noise[1]
    coarse, fine = (gaussian_cosine_gradients(p, q, 1.09, 1.09, 1.0, nodes) for nodes in (32, 96))
    slopes = distance_gradients("cosine", jnp.asarray(h) * p, jnp.asarray(other) * q)
    for mine, better, slope, view in zip(coarse, fine, slopes, (h, other), strict=True):
        terms = np.asarray(slope) * view
        error = terms.std(0) / np.sqrt(len(terms))
        assert (np.abs(mine - terms.mean(0)) < 5 * error).all()
        np.testing.assert_allclose(mine, better, atol=1e-6 * np.abs(better).max())
    np.testing.assert_allclose(p @ coarse[0], 0, atol=1e-12)
    np.testing.assert_allclose(q @ coarse[1], 0, atol=1e-12)
    scaled = gaussian_cosine_gradients(1e-100 * p, 1e80 * q, 1.09, 1.09, 1.0)
    np.testing.assert_allclose(scaled[0] * 1e-100, coarse[0], rtol=1e-10)
    np.testing.assert_allclose(scaled[1] * 1e80, coarse[1], rtol=1e-10)
    for edge in (
        gaussian_cosine_gradients(0 * p, q, 1.09, 1.09, 1.0),
        gaussian_cosine_gradients(p, 0 * q, 1.0, 1.0, 1.0),
    ):
        np.testing.assert_array_equal(np.stack(edge), 0)
    some = gaussian_cosine_gradients(p.at[:3].set(0.0), q.at[:3].set(0.0), 1.0, 1.0, 1.0)
    assert np.isfinite(np.stack(some)).all()
