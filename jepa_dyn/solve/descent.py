"""One step of discrete training along a flow: any optax optimiser, moments of the batch in place of those of the population.

    gradient = -flow(t, y, args with the batch's moments),   t = step x learning rate

A state with a `target` (a moving average, see `flows.deep_linear` and `flows.siamese`) has only its other leaves trained. After
each step, of new weights and the old target, target <- alpha target + (1 - alpha) weights, where 1 - alpha is learning rate x
ema_rate, at most 1, or given by the task: Ponce 2025, (4), where the first two lines use old values and the third the new encoder.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

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
    target_momentum: Any = None


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


def _with_target(y: Any, target: Any) -> Any:
    return eqx.tree_at(lambda state: state.target, y, target, is_leaf=lambda leaf: leaf is None)


def _trained(y: Any) -> Any:
    return y if getattr(y, "target", None) is None else _with_target(y, None)


def _momentum(task: Task, number: Array) -> Array:
    """alpha of the step that `number` (from 0) other steps came before."""
    if task.target_momentum is None:
        rate = jnp.where(jnp.isnan(task.learning_rate), 1.0, task.learning_rate)
        return 1 - jnp.minimum(1.0, rate * task.args.ema_rate)
    if callable(task.target_momentum):
        # as a float: a schedule would otherwise turn the integer into float32
        return jnp.asarray(task.target_momentum((number + 1).astype(jnp.result_type(float))))
    return task.target_momentum


def largest(y: Any) -> Array:
    """The largest modulus among all numbers of a state; NaN where any is."""
    return functools.reduce(jnp.maximum, [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(y)])


def judge(acceptable: Array, size: Array) -> Array:
    """Status of a state whose largest modulus is `size`: NaN is `non_finite`, beyond the bound `diverged`."""
    failure = jnp.where(jnp.isnan(size), Status.non_finite, Status.diverged)
    return jnp.where(acceptable, Status.ok, failure).astype(jnp.uint8)


def begin(task: Task, y0: Any) -> Run:
    """The run before its first step."""
    size = largest(y0)
    status = judge(size <= task.bound, size)
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
    if getattr(y, "target", None) is not None:
        alpha = _momentum(task, number).astype(y.target.dtype)
        new = _with_target(new, alpha * y.target + (1 - alpha) * new.tracked)  # in this form exact at alpha = 0 and 1
    size = largest(new)
    going = run.status == Status.ok
    fails = going & ~(size <= task.bound)
    status = jnp.where(fails, judge(size <= task.bound, size), run.status)
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
