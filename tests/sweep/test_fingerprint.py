"""Fingerprints: equal for the same program written differently, different for every change that computes something else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn.sweep.fingerprint import code_fingerprint, function_name, program_fingerprint


def traced(fn):
    return program_fingerprint([jax.make_jaxpr(fn)(1.0)])


def first(x):
    """One way to write it."""
    return jnp.where(x > 0, jnp.exp(-2.0 * x), 0.0)


def second(argument):
    rate = -2.0  # another
    decayed = jnp.exp(rate * argument)
    return jnp.where(argument > 0, decayed, 0.0)


@jax.custom_jvp
def custom(x):
    return jnp.sin(x)


custom.defjvp(lambda p, t: (custom(*p), jnp.cos(p[0]) * t[0]))


def scaled(scale):
    return lambda x: (x * jnp.asarray(scale)).sum()


def looped(steps, rate=0.5):
    return lambda x: jax.lax.fori_loop(0, steps, lambda i, y: rate * y, x)


def test_same_program_written_differently():
    def reordered(x):
        decayed = jnp.exp(-2.0 * x)
        return jnp.where(x > 0, decayed, 0.0)

    assert traced(second) == traced(reordered)
    assert traced(scaled([1.0, 2.0])) == traced(scaled([1.0, 2.0]))
    assert traced(custom) == traced(lambda x: custom(x))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (second, lambda x: jnp.where(x > 0, jnp.exp(-2.0000001 * x), 0.0)),
        (scaled([1.0, 2.0]), scaled([1.0, 2.0 + 1e-15])),
        (scaled(np.arange(5000.0)), scaled(np.arange(5000.0)[::-1].copy())),
        (looped(3), looped(4)),
        (looped(3), looped(3, 0.25)),
        (jax.jit(second), jax.jit(lambda x: jnp.where(x > 1, jnp.exp(-2.0 * x), 0.0))),
        (custom, jnp.sin),
        (lambda x: x.astype(jnp.float32), lambda x: x.astype(jnp.float16)),
    ],
)
def test_another_program(one, other):
    assert traced(one) != traced(other)
    assert traced(one) == traced(one)


def test_byte_code_of_functions_that_are_not_traced():
    def make(scale, table=(1, 2)):
        def batched(x):
            "A docstring."
            return helper(x) * scale + np.asarray(table)

        return batched

    def helper(x):
        return np.asarray(x)

    assert code_fingerprint(make(2.0)) == code_fingerprint(make(2.0))
    assert code_fingerprint(make(2.0)) != code_fingerprint(make(3.0))
    assert code_fingerprint(make(np.ones(3))) != code_fingerprint(make(np.zeros(3)))
    assert code_fingerprint(functools.partial(make, 1)) != code_fingerprint(functools.partial(make, 2))
    assert code_fingerprint(lambda x: x + 1) != code_fingerprint(lambda x: x + 2)


def test_recursive_functions_end():
    def recursive(n):
        return recursive(n - 1) if n else 0

    assert code_fingerprint(recursive) == code_fingerprint(recursive)


def test_names_are_for_people():
    assert function_name(functools.partial(first, 1)) == "tests.sweep.test_fingerprint.first" or function_name(
        first
    ).endswith("test_fingerprint.first")
