"""Step size control that recovers from overflowing steps and reports a step too small for the number type."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp


class GuardedController(diffrax.AbstractAdaptiveStepSizeController):
    """A `diffrax.PIDController` that stops with `dt_min_reached` once t + step can no longer be told from t.

    The limit is relative to the present time, so that a first step of 1e-3 on the way to t = 1e20 is no failure, as a fixed
    `dtmin` would have it.
    """

    inner: diffrax.PIDController
    rtol: Any
    atol: Any
    norm: Callable

    def __init__(self, rtol: Any, atol: Any):
        self.inner = diffrax.PIDController(rtol=rtol, atol=atol)
        self.rtol, self.atol, self.norm = rtol, atol, self.inner.norm

    def wrap(self, direction: Any) -> "GuardedController":
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return self.inner.init(terms, t0, t1, y0, dt0, args, func, error_order)

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        # A step that overflowed must only be shortened. Left alone, an infinite candidate makes the scaled error inf/inf, the
        # next step NaN, and the solve repeats that step until `max_steps` (diffrax 0.7.2).
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((y1_candidate, y_error))]).all()
        y1_candidate = jax.tree.map(lambda new, old: jnp.where(finite, new, old), y1_candidate, y0)
        y_error = jax.tree.map(lambda error: jnp.where(finite, error, jnp.inf), y_error)
        keep, next_t0, next_t1, jump, state, result = self.inner.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
        )
        step, at = jnp.asarray(next_t1 - next_t0), jnp.abs(next_t0)
        info = jnp.finfo(step.dtype)
        # ~(>) also catches a NaN step
        stuck = ~keep & ~(step > 4 * info.eps * at + 100 * info.tiny)
        result = diffrax.RESULTS.where(stuck, diffrax.RESULTS.dt_min_reached, result)
        return keep, next_t0, next_t1, jump, state, result
