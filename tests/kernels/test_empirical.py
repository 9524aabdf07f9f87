"""Empirical tangent kernel against jacrev, on a module with every kind of layer use; tiles, memory, wide networks."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn import kernels
from jepa_dyn.kernels import empirical
from jepa_dyn.kernels._dense_layers import outer_product_layers

RNG = np.random.default_rng


class Awkward(eqx.Module):
    """Dense layers called once, twice, on every token, with their weight used elsewhere; other leaves."""

    once: eqx.nn.Linear
    twice: eqx.nn.Linear
    tokens: eqx.nn.Linear
    tied: eqx.nn.Linear
    scalar: eqx.nn.Linear
    readout: eqx.nn.Linear
    gain: jax.Array
    table: jax.Array
    activation: Callable
    name: str = eqx.field(static=True)

    def __init__(self, key):
        keys = jax.random.split(key, 6)
        self.once = eqx.nn.Linear(4, 4, key=keys[0])
        self.twice = eqx.nn.Linear(4, 4, key=keys[1])
        self.tokens = eqx.nn.Linear(2, 2, use_bias=False, key=keys[2])
        self.tied = eqx.nn.Linear(4, 4, key=keys[3])
        self.scalar = eqx.nn.Linear(4, "scalar", key=keys[4])
        self.readout = eqx.nn.Linear(4, 4, key=keys[5])
        self.gain, self.table = jnp.asarray(1.3), jnp.arange(4)
        self.activation, self.name = jnp.tanh, "awkward"

    def __call__(self, x):
        h = jnp.ravel(jax.vmap(self.tokens)(x))
        h = self.activation(self.once(h)) * self.gain + self.table
        h = self.twice(self.activation(self.twice(h)))
        h = self.tied(h) + self.tied.weight[0]
        return self.readout(h) * self.scalar(h)


@pytest.fixture(scope="module")
def problem():
    """Model, inputs and its whole tangent kernel (N, N, d, d) from jacrev, d = 4."""
    model, x = Awkward(jax.random.key(0)), RNG(1).normal(size=(7, 2, 2))
    trainable, fixed = eqx.partition(model, eqx.is_inexact_array)
    jacobian = jax.jit(jax.vmap(lambda v: jax.jacrev(lambda p: eqx.combine(p, fixed)(v))(trainable)))(x)
    flat = np.concatenate([leaf.reshape(7, 4, -1) for leaf in jax.tree.leaves(jacobian)], axis=2)
    return model, x, np.einsum("iap,jbp->ijab", flat, flat)


def test_which_layers_have_outer_products(problem):
    model, x, _ = problem
    # once, twice, tokens, tied, readout
    assert outer_product_layers(model, x[:2], 4) == (True, False, False, False, True)


def test_every_output_against_jacrev(problem):
    model, x, want = problem
    close = {"rtol": 1e-12, "atol": 1e-12 * np.abs(want).max()}
    np.testing.assert_allclose(kernels.empirical_ntk(model, x, output="full"), want, **close)
    np.testing.assert_allclose(
        kernels.empirical_ntk(model, x, output="trace"), np.einsum("ijaa->ij", want) / 4, **close
    )
    for output, result in {"average": want.sum((2, 3)) / 4, "sum": want.sum((2, 3)), 2: want[:, :, 2, 2]}.items():
        np.testing.assert_allclose(kernels.empirical_ntk(model, x, output=output), result, **close)
    np.testing.assert_allclose(kernels.empirical_ntk(model, x), want.sum((2, 3)) / 4, **close)


def test_tiles_change_nothing(problem, monkeypatch):
    """Two inputs at a time, two tiles kept; with partial tiles on both sides."""
    model, x, want = problem
    monkeypatch.setattr(empirical, "_tiling", lambda *_: empirical._Tiling(inputs=2, batch=1, kept=2))
    for y, part in ((None, want), (x[2:7], want[:, 2:])):
        got = kernels.empirical_ntk(model, x, y, output=2, progress=True)
        np.testing.assert_allclose(got, part[:, :, 2, 2], rtol=1e-12, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize("size", [1, 3, 4, 10])
@pytest.mark.parametrize("kept", [1, 2, 9])
def test_every_entry_is_computed_once(monkeypatch, size, kept):
    """Of a symmetric kernel those of the upper half, by tiles; the progress bar ends where the work does."""
    monkeypatch.setattr(empirical, "_contract", lambda first, second, full: np.outer(first, second))
    x, y, tiling = np.arange(1.0, 11.0), np.arange(20.0, 27.0), empirical._Tiling(size, 1, kept)
    for other in (None, y):
        found, work = np.zeros((10, 10 if other is None else 7)), 0
        for block in empirical._blocks(lambda part: part, x, other, tiling, False):
            found[block[0], block[1]] += block[2]
            work += empirical._area(block)
        assert work == empirical._work(*found.shape, size, other is None)
        want = np.outer(x, x if other is None else y)
        if other is None:
            tile = np.arange(10) // size
            want = want * (tile[:, None] <= tile)
        np.testing.assert_array_equal(found, want)


def test_memory_is_kept(problem):
    model, x, _ = problem
    weights, chosen = np.eye(4), (True, False, False, False, True)
    one = sum(
        leaf.size * 8
        for leaf in jax.tree.leaves(eqx.filter_eval_shape(empirical._of_one, model, x[0], weights, chosen))
    )
    for memory in (10 * one, 200 * one):
        plan = empirical._tiling(model, x[0], weights, chosen, memory, 2000)
        assert 1 <= plan.batch <= plan.inputs and (plan.kept + 1) * plan.inputs * one <= memory
    assert plan.inputs * plan.kept >= 90  # and used
    with pytest.raises(ValueError, match=r"`memory_bytes` must be at least .* is 100"):
        kernels.empirical_ntk(model, x, output="full", memory_bytes=100)


def test_under_transformations(problem):
    model, x, want = problem
    arrays, fixed = eqx.partition(model, eqx.is_array)
    got = jax.jit(lambda arrays: kernels.empirical_ntk(eqx.combine(arrays, fixed), x, x[:2]))(arrays)
    np.testing.assert_allclose(got, want[:, :2].sum((2, 3)) / 4, rtol=1e-12)


class Wide(eqx.Module):
    """Two hidden ReLU layers in the NTK parametrisation, with biases."""

    weights: list[jax.Array]
    biases: list[jax.Array]

    def __call__(self, x):
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = x if k == 0 else jax.nn.relu(x)
            x = (1.7 / h.size) ** 0.5 * weight @ h + 0.3**0.5 * bias
        return x


def test_wide_network_has_the_infinite_kernel():
    sizes, rng = [5, 900, 900, 1], RNG(2)
    weights = [jnp.asarray(rng.normal(size=s)) for s in zip(sizes[1:], sizes[:-1], strict=True)]
    model = Wide(weights, [jnp.asarray(rng.normal(size=s)) for s in sizes[1:]])
    x = rng.normal(size=(4, 5))
    got, want = kernels.empirical_ntk(model, x), np.asarray(kernels.ReluNtk(2, 1.7, 0.3)(x))
    # one draw of width 900: its scatter is some 900^(-1/2)
    np.testing.assert_allclose(got, want, rtol=0.15)


def test_bad_arguments():
    model, x = eqx.nn.Linear(2, 3, key=jax.random.key(0)), np.ones((4, 2))
    for call, error, message in [
        (lambda: kernels.empirical_ntk("f", x), TypeError, "`model` must be callable on one input, but has type str"),
        (lambda: kernels.empirical_ntk(eqx.nn.Lambda(jnp.tanh), x), ValueError, "`model` must have parameters"),
        (
            lambda: kernels.empirical_ntk(jax.tree_util.Partial(jnp.dot, jnp.ones(2) * 1j), x),
            TypeError,
            "must have real parameters",
        ),
        (lambda: kernels.empirical_ntk(model, x, output="mean"), ValueError, "`output` must be one of 'average'"),
        (lambda: kernels.empirical_ntk(model, x, output=3), ValueError, "a number from 0 to 2, but is 3"),
        (
            lambda: kernels.empirical_ntk(model, x, np.ones((4, 3))),
            ValueError,
            r"inputs of one shape, but they have \(2,\) and \(3,\)",
        ),
        (lambda: kernels.empirical_ntk(model, x * np.inf), ValueError, "`x` must be finite"),
        (lambda: kernels.empirical_ntk(model, 2.0), ValueError, "along its first axis"),
    ]:
        with pytest.raises(error, match=message):
            call()
