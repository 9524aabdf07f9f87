"""One training step of one lane: views, loss, gradient, optimiser, moving averages; a run that fails is frozen and flagged.

theta <- theta + optimiser(grad L + weight_decay theta),    target <- alpha target + (1 - alpha) theta, of the new theta
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jepa_dyn.solve.descent import judge, largest
from jepa_dyn.status import Status
from jepa_dyn.training.encoders import scale_parameters
from jepa_dyn.training.joint_embedding import Memory, Outcome, Target

_START, _EVALUATION, _STEPS = 0, 1, 2  # what the keys of a lane are for; step k has the key of _STEPS + k


class Lane(eqx.Module):
    """What lanes may differ in. `loss`, `views` and `optimiser` are modules or partial functions, whose arrays are per lane."""

    seed: Array
    key: Array
    learning_rate: Array
    weight_decay: Array
    init_scale: Array
    momentum: Any
    loss: Any
    views: Any
    optimiser: Any


class Setup(eqx.Module):
    """What all lanes share."""

    make: Callable
    rest: Any
    data: Any
    bound: Array
    samples: int = eqx.field(static=True)


class NetworkRun(eqx.Module):
    """A run on its way: the last acceptable state, and what became of it. `increment` is the length of the last step taken."""

    parameters: Any
    statistics: Any
    target: Any
    target_statistics: Any
    optimiser: Any
    memory: Memory
    increment: Array
    status: Array
    failed_at: Array


def transformation(lane: Lane) -> optax.GradientTransformation:
    """The optimiser of a lane, made for its learning rate."""
    return (
        lane.optimiser
        if isinstance(lane.optimiser, optax.GradientTransformation)
        else lane.optimiser(lane.learning_rate)
    )


def evaluation_views(setup: Setup, lane: Lane) -> tuple[Any, ...]:
    """The views that spectra and loss are logged on: the same throughout a run."""
    return setup.data.spread(jax.random.fold_in(lane.key, _EVALUATION), lane.views, setup.samples)


def network_of(setup: Setup, run: NetworkRun) -> Any:
    """The network as it stands."""
    return eqx.combine(run.parameters, setup.rest)


def objective(setup: Setup, lane: Lane, run: NetworkRun, views: Any, parameters: Any) -> tuple[Array, Outcome]:
    """The loss of a batch, and what it leaves behind."""
    target = None
    if run.target is not None:
        target = Target(eqx.combine(run.target, setup.rest.moving_part()), run.target_statistics)
    network = eqx.combine(parameters, setup.rest)
    return network.objective(lane.loss, run.statistics, target, run.memory, views)


def scaled_start(network: Any, scale: Array) -> Any:
    """All parameters of encoder and projector times a factor; of a network without these parts, all."""
    parts = [name for name in ("encoder", "projector") if getattr(network, name, None) is not None]
    if not parts:
        return scale_parameters(network, scale)
    for name in parts:
        scaled = scale_parameters(getattr(network, name), scale)
        network = eqx.tree_at(lambda whole, name=name: getattr(whole, name), network, scaled)
    return network


def start_network(make: Callable, key: Array, scale: Array) -> tuple[Any, Any]:
    """(network, statistics) from one key."""
    network, statistics = eqx.nn.make_with_state(make)(key)
    return scaled_start(network, scale), statistics


def begin(setup: Setup, lane: Lane, evaluation: Any) -> NetworkRun:
    """The run before its first step; `evaluation`: the views that its memory starts from."""
    network, statistics = start_network(setup.make, jax.random.fold_in(lane.key, _START), lane.init_scale)
    parameters = eqx.filter(network, eqx.is_inexact_array)
    target = parameters.moving_part() if hasattr(parameters, "moving_part") else None
    memory = Memory()
    if hasattr(network, "first_memory"):
        memory = network.first_memory(statistics, evaluation)
    size = largest(parameters)
    status = judge(size <= setup.bound, size)
    return NetworkRun(
        parameters,
        statistics,
        target,
        None if target is None else statistics,
        transformation(lane).init(parameters),
        memory,
        jnp.zeros((), size.dtype),
        status,
        jnp.where(status == Status.ok, -1, 0).astype(jnp.int32),
    )


def step(setup: Setup, lane: Lane, run: NetworkRun, number: Array) -> NetworkRun:
    """The run after one more step; `number` counts from 0."""
    views = setup.data.batch(jax.random.fold_in(lane.key, _STEPS + number), lane.views)
    slope = jax.grad(lambda parameters: objective(setup, lane, run, views, parameters), has_aux=True)
    gradient, outcome = slope(run.parameters)
    gradient = jax.tree.map(lambda g, w: g + lane.weight_decay.astype(w.dtype) * w, gradient, run.parameters)
    updates, memory = transformation(lane).update(gradient, run.optimiser, run.parameters)
    parameters: Any = optax.apply_updates(run.parameters, updates)
    target = run.target
    if target is not None:
        alpha = _momentum(lane, number)
        # in this form exact at alpha = 0 and 1
        target = jax.tree.map(lambda t, w: _average(alpha.astype(t.dtype), t, w), target, parameters.moving_part())
    size = largest(parameters)
    acceptable = size <= setup.bound
    status = jnp.where(run.status == Status.ok, judge(acceptable, size), run.status)
    failed_at = jnp.where((run.status == Status.ok) & ~acceptable, number + 1, run.failed_at)
    moved = jax.tree.map(jnp.subtract, parameters, run.parameters)
    new = NetworkRun(
        parameters, outcome.statistics, target, outcome.target_statistics, memory, outcome.memory,
        optax.global_norm(moved).astype(run.increment.dtype), status, failed_at,
    )  # fmt: skip
    kept = jax.tree.map(lambda n, o: jnp.where(status == Status.ok, n, o), new, run)
    return eqx.tree_at(lambda one: (one.status, one.failed_at), kept, (status, failed_at))


def _average(alpha: Array, target: Array, weight: Array) -> Array:
    return alpha * target + (1 - alpha) * weight


def _momentum(lane: Lane, number: Array) -> Array:
    """alpha of the step that `number` others came before."""
    if callable(lane.momentum):
        # as a float: a schedule would otherwise turn the integer into float32
        return jnp.asarray(lane.momentum((number + 1).astype(jnp.result_type(float))))
    return lane.momentum
