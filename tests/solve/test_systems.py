"""The matrix flows of the battery through every solver route, against DOP853 of their right-hand sides in plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import systems

from jepa_dyn.solve import ensemble, integrate, train

SYSTEMS = [system.name for system in systems()]


def named(name):
    return next(system for system in systems() if system.name == name)


def flat(ys, leading):
    return np.concatenate(
        [np.asarray(leaf).reshape(*leaf.shape[:leading], -1) for leaf in jax.tree.leaves(ys)], axis=-1
    )


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("solver", ["tsit5", "kvaerno5"])
def test_integrate(name, solver):
    """The implicit solver needs the Jacobian of the flow, at repeated eigenvalues of C too."""
    system = named(name)
    path = integrate(system.flow, system.y0, system.args, system.ts, solver=solver, rtol=1e-9, atol=1e-11)
    path.raise_if_failed()
    np.testing.assert_allclose(flat(path.ys, 1), system.path, atol=1e-7)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("stepper", ["lanes", "diffrax"])
def test_ensemble(name, stepper):
    """Two lanes, the second with signs of both rows turned."""
    system = named(name)
    y0, args = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), system.y0), system.args
    args = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), args)
    result = ensemble(system.flow, y0, args, system.ts, stepper=stepper, rtol=1e-9, atol=1e-11).raise_if_failed()
    np.testing.assert_allclose(flat(result.ys, 2), np.stack([system.path, -system.path]), atol=1e-7)


@pytest.mark.parametrize("name", SYSTEMS)
def test_train_converges_to_the_flow(name):
    """Gradient descent is Euler's method: the error is of first order in the learning rate."""
    system, errors = named(name), []
    counts = np.array([200, 400])
    for count in counts:
        runs = train(system.flow, system.y0, system.args, [count], learning_rate=system.end / count)
        errors.append(np.abs(flat(runs.ys, 1)[0] - system.path[-1]).max())
    assert errors[1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2.0, abs=0.25)
