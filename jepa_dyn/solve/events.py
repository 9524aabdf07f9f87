"""Events that record and go on: when did g(t, y, args) pass through zero along a dense solution?

Every step of the solver is looked at in four places; where g changes sign between two neighbours the crossing is bracketed,
bisected on the interpolant to the last bit, and then corrected with true solver steps from the last step point, because the
interpolant of an explicit method can be a hundred times less accurate than its steps. Two crossings within a quarter step of
each other cancel and are missed, as are touches without a change of sign: tighten `rtol` to see more.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_LOOKS = 4
_CORRECTIONS = 3

EventFunction = Callable[[Any, Any, Any], Any]


def _looks(steps: Float[Array, " steps"]) -> Float[Array, " looks"]:
    """The step points (padded with inf) with _LOOKS - 1 equally spaced points in each step."""
    left, right = steps[:-1], steps[1:]
    real = jnp.isfinite(right)
    width = jnp.where(real, right - left, jnp.inf)
    fractions = jnp.arange(1, _LOOKS + 1, dtype=steps.dtype) / _LOOKS
    inside = jnp.where(real, left, 0.0)[:, None] + width[:, None] * fractions
    inside = inside.at[:, -1].set(right)
    return jnp.concatenate([steps[:1], inside.reshape(-1)])


def find_crossings(
    event: EventFunction,
    state: Callable[[Array], Any],
    advance: Callable[[Array, Array], Any] | None,
    steps: Float[Array, " steps"],
    args: Any,
    capacity: int,
) -> tuple[Float[Array, " capacity"], Int[Array, " capacity"], Int[Array, ""]]:
    """(times, directions, count) of the zero crossings of `event` along one trajectory, in order.

    Args:
        event: g(t, y, args) -> number.
        state: y(t) by the interpolant, in the caller's variable.
        advance: y at time tau by one true solver step from step point t (arguments t, tau), or None where there is none.
        steps: accepted step points, ascending, padded with +inf.
        args: of the event.
        capacity: crossings kept; unused slots hold time +inf and direction 0.
    """

    def value(t: Array) -> Array:
        return jnp.asarray(event(t, state(t), args), steps.dtype)

    times = _looks(steps)
    real = jnp.isfinite(times)
    values = jnp.where(real, jax.vmap(value)(jnp.where(real, times, steps[0])), jnp.nan)
    before, after = values[:-1], values[1:]
    rises, falls = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
    crosses = rises | falls
    where = jnp.nonzero(crosses, size=capacity, fill_value=-1)[0]
    used = where >= 0
    where = jnp.maximum(where, 0)
    direction = jnp.where(used, jnp.where(rises[where], 1, -1), 0).astype(jnp.int32)

    def locate(index: Array, sign: Array) -> Array:
        def halve(_, bracket):
            low, high = bracket
            middle = low + (high - low) / 2
            beyond = value(middle) * sign >= 0
            return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

        bracket = (times[index], times[index + 1])
        time = jax.lax.fori_loop(0, jnp.finfo(steps.dtype).nmant + 8, halve, bracket)[1]
        if advance is None:
            return time
        step_to, start = advance, steps[index // _LOOKS]

        def correct(_, tau):
            slope = jax.jvp(value, (tau,), (jnp.ones_like(tau),))[1]
            miss = jnp.asarray(event(tau, step_to(start, tau), args), steps.dtype)
            moved = jnp.clip(tau - miss / slope, times[index], times[index + 1])
            return jnp.where(jnp.isfinite(moved), moved, tau)

        return jax.lax.fori_loop(0, _CORRECTIONS, correct, time)

    safe = jnp.where(used, where, 0)
    located = jax.vmap(locate)(safe, jnp.where(direction == 0, 1, direction).astype(steps.dtype))
    return jnp.where(used, located, jnp.inf), direction, jnp.sum(crosses).astype(jnp.int32)


def explicit_advance(
    solver: diffrax.AbstractSolver,
    flow: Callable,
    args: Any,
    state: Callable[[Array], Any],
    decode: Callable[[Any], Any],
) -> Callable[[Array, Array], Any] | None:
    """`advance` for `find_crossings` where the solver is explicit; an implicit step is left to its interpolant."""
    if not isinstance(solver, diffrax.AbstractERK):
        return None
    term = diffrax.ODETerm(flow)

    def advance(start: Array, tau: Array) -> Any:
        end = jnp.where(tau > start, tau, start + 1)  # a step of no length divides by zero
        y = state(start)
        memory = solver.init(term, start, end, y, args)
        moved = solver.step(term, start, end, y, args, memory, made_jump=False)[0]
        return decode(jax.tree.map(lambda a, b: jnp.where(tau > start, a, b), moved, y))

    return advance
