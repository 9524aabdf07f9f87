"""Kernels in closed form against quadrature and recursions in mpmath, and Kahan's angles in numpy; derivatives at the edges."""

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jepa_dyn import kernels
from jepa_dyn.kernels._angles import angles

RNG = np.random.default_rng


def awkward_points():
    """Generic, nearly equal (1e-9), nearly opposite, equal, 0, much longer."""
    x = RNG(0).normal(size=(6, 3))
    x[1] = x[0] + 1e-9 * x[2]
    x[3] = -x[0] * 3 + 1e-7 * x[4]
    x[4] = 1e6 * x[2]
    x[5] = 0
    return x


def exact_angle(x, y):
    """In all digits; pi/2 where a point is 0."""
    x, y = (mpmath.matrix([mpmath.mpf(float(v)) for v in p]) for p in (x, y))
    a, b = mpmath.norm(x), mpmath.norm(y)
    if a * b == 0:
        return a, b, mpmath.pi / 2
    return a, b, 2 * mpmath.atan2(mpmath.norm(x / a - y / b), mpmath.norm(x / a + y / b))


def exact_gram(entry, x):
    """(..., N, N) of a symmetric function of two points, which may give several numbers."""
    with mpmath.workdps(50):
        upper = {(i, j): np.array(entry(x[i], x[j]), float) for i in range(len(x)) for j in range(i, len(x))}
    rows = [[upper[min(i, j), max(i, j)] for j in range(len(x))] for i in range(len(x))]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def overlap(theta, degree):
    """2 E[..] of two unit vectors at angle theta, by quadrature over the direction of w: E[|w|^(2 degree)] = 2^degree degree!."""

    def both(phi):
        return (mpmath.cos(phi) * mpmath.cos(phi - theta)) ** degree

    return 2**degree * mpmath.quad(both, [theta - mpmath.pi / 2, mpmath.pi / 2]) / mpmath.pi


@pytest.mark.parametrize("degree", [0, 1])
def test_arc_cosine_against_quadrature(degree):
    x = awkward_points()

    def entry(p, q):
        a, b, theta = exact_angle(p, q)
        return (a * b) ** degree * overlap(theta, degree)

    want, got = exact_gram(entry, x), kernels.ArcCosine(degree)(x)
    lengths = np.linalg.norm(x + (x == 0).all(1, keepdims=True), axis=1) ** degree
    # relative to |x||y|: an entry of nearly opposite points is 0 there
    np.testing.assert_allclose(
        got / np.outer(lengths, lengths), want / np.outer(lengths, lengths), rtol=1e-15, atol=3e-15
    )


def exact_network(p, q, hidden_layers, weight, bias):
    """(K, Theta) by the recursion as printed, in cos theta, with digits to spare."""
    weight, bias = mpmath.mpf(weight), mpmath.mpf(bias)
    a, b, theta = exact_angle(p, q)
    m = len(p)
    k, kp, kq = (weight * v / m + bias for v in (a * b * mpmath.cos(theta), a * a, b * b))
    tangent = k
    for _ in range(hidden_layers):
        size = mpmath.sqrt(kp * kq)
        cosine = k / size if size else mpmath.mpf(0)
        theta = mpmath.acos(max(-1, min(1, cosine)))
        relu = size * (mpmath.sin(theta) + (mpmath.pi - theta) * cosine) / (2 * mpmath.pi)
        step = (1 - theta / mpmath.pi) / 2
        k, kp, kq = (weight * v + bias for v in (relu, kp / 2, kq / 2))
        tangent = k + weight * step * tangent
    return k, tangent


@pytest.mark.parametrize(
    ("hidden_layers", "weight", "bias"), [(0, 1.5, 0.2), (1, 1.3, 0.3), (6, 2.0, 0.0), (6, 1.7, 0.1)]
)
def test_infinite_width_against_high_precision(hidden_layers, weight, bias):
    x = awkward_points()
    x[4] /= 1e3  # beyond some 1e5 the angles to points of another size are those of the biases
    found = kernels.ReluNngp(hidden_layers, weight, bias)(x), kernels.ReluNtk(hidden_layers, weight, bias)(x)
    exact = exact_gram(lambda p, q: exact_network(p, q, hidden_layers, weight, bias), x)
    for got, want in zip(found, exact, strict=True):
        scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
        scale = np.where(scale > 0, scale, 1)
        np.testing.assert_allclose(got / scale, want / scale, atol=2e-14)


def test_angles_of_many_points_are_kahans():
    """Enough points for tiles, some of which have nearly parallel pairs and some not."""
    x, y = RNG(1).normal(size=(70, 40)), RNG(2).normal(size=(45, 40))
    y[3], y[40], y[44] = x[69] + 1e-8 * x[5], -x[33], 2.5 * x[12]
    u, v = (p / np.linalg.norm(p, axis=1)[:, None] for p in (x, y))
    apart, together = (np.linalg.norm(u[:, None] + sign * v, axis=2) for sign in (-1, 1))
    want = 2 * np.arctan2(apart, together)
    np.testing.assert_allclose(jax.jit(angles)(x, y), want, atol=3e-15)


def test_gaussian_and_linear():
    x, y = RNG(3).normal(size=(7, 2, 3)) + 100, RNG(4).normal(size=(5, 2, 3)) + 100
    apart = ((x[:, None] - y) ** 2).sum((2, 3))
    np.testing.assert_allclose(kernels.RBF(1.7)(x, y), np.exp(-apart / (2 * 1.7**2)), rtol=1e-13)
    np.testing.assert_allclose(kernels.linear(x, y), x.reshape(7, -1) @ y.reshape(5, -1).T, rtol=1e-14)
    np.testing.assert_allclose(kernels.RBF(1.7)(x), kernels.RBF(1.7)(x, x), rtol=0)
    lengths = jnp.array([0.5, 1.7])
    np.testing.assert_allclose(
        jax.vmap(lambda length: kernels.RBF(length)(x, y))(lengths)[1], kernels.RBF(1.7)(x, y), rtol=1e-14
    )


def test_float32_keeps_its_digits_on_the_diagonal(float32):
    """arccos of a rounded cosine would leave 3e-4."""
    x = RNG(5).normal(size=(4, 10)).astype(np.float32)
    got = kernels.ReluNtk(2)(x)
    assert got.dtype == jnp.float32
    # weights of variance 2 and no biases keep K = 2 |x|^2 / m; Theta adds as much per layer
    np.testing.assert_allclose(np.diag(got), 3 * 2 * (x**2).sum(1) / 10, rtol=2e-6)


@eqx.filter_jit
def sum_and_slope(kernel, x, y):
    return jax.value_and_grad(lambda x: kernel(x, y).sum())(x)


@pytest.mark.parametrize("kernel", [kernels.ArcCosine(1), kernels.ReluNtk(2, 1.5, 0.2), kernels.ReluNtk(2)])
def test_derivatives(kernel):
    """Against central differences, in which kinks at coincident and opposite points cancel; finite at 0."""
    x, y = RNG(7).normal(size=(4, 4)), RNG(6).normal(size=(3, 4))
    x[1], x[2], x[3] = 0, y[1], -y[2]
    slope = np.asarray(sum_and_slope(kernel, x, y)[1])
    assert np.isfinite(slope).all()
    step = 1e-6 * RNG(8).normal(size=(4, 4)) * np.array([[1], [0], [1], [1]])
    change = (sum_and_slope(kernel, x + step, y)[0] - sum_and_slope(kernel, x - step, y)[0]) / 2
    np.testing.assert_allclose(np.sum(slope * step), change, rtol=1e-6)


def test_bad_arguments():
    x = np.ones((3, 2))
    for call, message in [
        (lambda: kernels.linear(x, np.ones((3, 4))), "points of one size, but they have 2 and 4"),
        (lambda: kernels.linear(3.0), "`x` must hold points along its first axis"),
        (lambda: kernels.linear(x, x * np.nan), "`y` must be finite"),
        (lambda: kernels.RBF(0.0), "`length` must be finite and > 0"),
        (lambda: kernels.ArcCosine(2), "`degree` must be 0 or 1, but is 2"),
        (lambda: kernels.ReluNtk(-1), "`hidden_layers` must be a whole number >= 0"),
        (lambda: kernels.ReluNngp(1, 0.0), "`weight_variance` must be finite and > 0"),
        (lambda: kernels.ReluNtk(1, 1.0, -0.1), "`bias_variance` must be finite and >= 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="`x` must hold real numbers"):
        kernels.linear(x * 1j)
