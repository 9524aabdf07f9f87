"""One step of discrete training along a flow: any optax optimiser, moments of the batch in place of those of the population.

    gradient = -flow(t, y, args with the batch's moments),   t = step x learning rate

A state with a `target` (a moving average, see `flows.deep_linear`) has only its other leaves trained; after each step the target
moves by the fraction min(1, learning rate x ema_rate) towards the new layers.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jepa_dyn.flows.deep_linear import DeepLinearState, follow_target
from jepa_dyn.status import Status


class Run(eqx.Module):
    """A run on its way: the last acceptable state, the optimiser's memory, and what became of it."""

    y: Any
    memory: Any
    status: Array
    failed_at: Array


class Task(eqx.Module):
    """What a run does: the same for all its steps."""

    flow: Callable
    optimiser: Any
    args: Any
    learning_rate: Array
    bound: Array


def hashable_optimiser(optimiser: Any) -> Any:
    """A `functools.partial` compares by identity and would recompile at each call; `jax.tree_util.Partial` compares by value."""
    if isinstance(optimiser, functools.partial) and not isinstance(optimiser, jax.tree_util.Partial):
        return jax.tree_util.Partial(optimiser.func, *optimiser.args, **optimiser.keywords)
    return optimiser


def transformation(task: Task) -> optax.GradientTransformation:
    """The optimiser of a task, made for its learning rate."""
    if isinstance(task.optimiser, optax.GradientTransformation):
        return task.optimiser
    return task.optimiser(task.learning_rate)


def _trained(y: Any) -> Any:
    if isinstance(y, DeepLinearState) and y.target is not None:
        return DeepLinearState(y.layers, y.decoder)
    return y


def _largest(y: Any) -> Array:
    return functools.reduce(jnp.maximum, [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(y)])


def _judge(acceptable: Array, size: Array) -> Array:
    """Status of a state whose largest modulus is `size`: NaN is `non_finite`, beyond the bound `diverged`."""
    failure = jnp.where(jnp.isnan(size), Status.non_finite, Status.diverged)
    return jnp.where(acceptable, Status.ok, failure).astype(jnp.uint8)


def begin(task: Task, y0: Any) -> Run:
    """The run before its first step."""
    size = _largest(y0)
    status = _judge(size <= task.bound, size)
    failed_at = jnp.where(status == Status.ok, -1, 0).astype(jnp.int32)
    return Run(y0, transformation(task).init(_trained(y0)), status, failed_at)


def step(task: Task, run: Run, number: Array, moments: Any) -> Run:
    """The run after one more step; `number` counts from 0. `moments` None: those of `args`."""
    args = task.args if moments is None else eqx.tree_at(lambda a: a.moments, task.args, moments)
    rate, y = task.learning_rate, run.y
    slope = task.flow(jnp.where(jnp.isnan(rate), number, number * rate), y, args)
    trained = _trained(y)
    gradient = jax.tree.map(lambda s, w: (-s).astype(w.dtype), _trained(slope), trained)
    updates, memory = transformation(task).update(gradient, run.memory, trained)
    new: Any = optax.apply_updates(trained, updates)
    if isinstance(y, DeepLinearState) and y.target is not None:
        fraction = jnp.minimum(1.0, jnp.where(jnp.isnan(rate), 1.0, rate) * args.ema_rate)
        new = follow_target(new, y.target, fraction.astype(y.target.dtype))
    size = _largest(new)
    going = run.status == Status.ok
    fails = going & ~(size <= task.bound)
    status = jnp.where(fails, _judge(size <= task.bound, size), run.status)
    failed_at = jnp.where(fails, number + 1, run.failed_at)
    kept = jax.tree.map(lambda n, o: jnp.where(status == Status.ok, n, o), new, y)
    return Run(kept, memory, status, failed_at)


def observed(task: Task, run: Run, observe: Callable[[Any, Any], Any]) -> Any:
    """The observed quantities, NaN where the run has failed."""
    alive = run.status == Status.ok

    def blank(leaf: Array) -> Array:
        leaf = jnp.asarray(leaf)
        leaf = leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(jnp.result_type(float))
        return jnp.where(alive, leaf, jnp.nan)

    return jax.tree.map(blank, observe(run.y, task.args))
