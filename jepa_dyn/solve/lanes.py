"""A lane-parallel explicit stepper: a block of trajectories advances together, each lane with its own time and step.

Why beside diffrax: under `vmap` diffrax spends most of an ensemble's time writing saved values one lane and one time at a
time. Here every step leaves its interpolant in the loop's state, and all saved times of the block are filled from it at
once in the next turn of the loop, which vectorises. On two cores this is about thirty times faster for scalar modes.

The loop runs until its slowest lane is done, so blocks should be small and hold lanes of like cost (see `ensemble`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jepa_dyn.solve.settle import arrival
from jepa_dyn.solve.tableau import TSIT5
from jepa_dyn.status import Status

_RUNNING = -1
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 5.0


class Piece(NamedTuple):
    """One step's interpolant, y(t + theta h) = y + h (c_1 theta + ... + c_4 theta^4), valid on (t, end]."""

    y: Any
    t: Array
    h: Array
    end: Array
    coefficients: tuple[Any, ...]


class Lanes(NamedTuple):
    """State of the loop; every leaf has the lanes as its first axis, `saved` has the times before them."""

    t: Array
    y: Any
    h: Array
    slope: Any
    piece: Piece
    saved: Any
    steps: Int[Array, " lanes"]
    rejected: Int[Array, " lanes"]
    status: Int[Array, " lanes"]
    settled: Bool[Array, " lanes"]


class BlockResult(NamedTuple):
    """What a block returns: `ys` lanes first, then times."""

    ys: Any
    status: Array
    steps: Array
    rejected: Array
    settled_time: Array


def _combine(weights: Sequence[float] | np.ndarray, stages: Sequence[Any]) -> Any:
    """sum_i weights_i stages_i over trees."""

    def add(*leaves: Array) -> Any:
        terms = [float(weight) * leaf for weight, leaf in zip(weights, leaves, strict=True) if weight != 0]
        return sum(terms[1:], terms[0])

    return jax.tree.map(add, *stages)


def _along(scalar: Array, leaf: Array) -> Array:
    """A per-lane (or times x lanes) array with axes added so that it broadcasts against a leaf of the state."""
    return scalar.reshape(scalar.shape + (1,) * (leaf.ndim - 1))


def _axpy(y: Any, h: Array, direction: Any) -> Any:
    return jax.tree.map(lambda a, b: a + _along(h, a) * b, y, direction)


def _select(keep: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(_along(keep, a), a, b), new, old)


def lane_norm(tree: Any) -> Array:
    """Root mean square over everything but the lanes; of one number its size."""
    leaves = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)]
    if len(leaves) == 1 and leaves[0].shape[1] == 1:
        return jnp.abs(leaves[0][:, 0])
    total = sum(jnp.sum(leaf**2, axis=1) for leaf in leaves)
    return jnp.sqrt(total / sum(leaf.shape[1] for leaf in leaves))


def _scaled(tree: Any, y: Any, other: Any, rtol: Array, atol: Array) -> Any:
    def scale(e: Array, a: Array, b: Array) -> Array:
        return e / (_along(atol, a) + _along(rtol, a) * jnp.maximum(jnp.abs(a), jnp.abs(b)))

    return jax.tree.map(scale, tree, y, other)


def _first_step(
    flow: Callable, t: Array, y: Any, slope: Any, args: Any, span: Array, rtol: Array, atol: Array
) -> Array:
    """Starting step from the sizes of y, y' and an estimate of y'' (Hairer, Norsett, Wanner 1993, II.4)."""
    size, speed = lane_norm(_scaled(y, y, y, rtol, atol)), lane_norm(_scaled(slope, y, y, rtol, atol))
    moving = speed > 1e-30
    trial = jnp.minimum(jnp.where(moving, 0.01 * size / jnp.where(moving, speed, 1.0), span), span)
    trial = jnp.where((size < 1e-5) & moving, jnp.minimum(1e-5 / jnp.where(moving, speed, 1.0), span), trial)
    beyond = flow(t + trial, _axpy(y, trial, slope), args)
    bend = lane_norm(_scaled(jax.tree.map(jnp.subtract, beyond, slope), y, y, rtol, atol)) / trial
    largest = jnp.maximum(speed, bend)
    quiet = ~(largest > 1e-15)
    refined = jnp.where(quiet, span, (0.01 / jnp.where(quiet, 1.0, largest)) ** (1 / TSIT5.order))
    step = jnp.minimum(jnp.minimum(100 * trial, refined), span)
    return jnp.where(jnp.isfinite(step) & (step > 0), step, 1e-6 * span)


def _step_factor(error: Array) -> Array:
    """By how much to change a step. In float32: its accuracy is irrelevant, and a float64 power would cost more than a stage."""
    single = jnp.maximum(error.astype(jnp.float32), 1e-12)
    factor = jnp.clip(_SAFETY * jnp.exp(-jnp.log(single) / TSIT5.order), _SHRINK, _GROW)
    return jnp.where(jnp.isfinite(factor), factor, _SHRINK).astype(error.dtype)


def _record(saved: Any, piece: Piece, ts: Array) -> Any:
    """Fills the saved times that lie in the piece."""
    inside = (ts > piece.t) & (ts <= piece.end)
    theta = (ts - piece.t) / piece.h

    def fill(old: Array, y: Array, *coefficients: Array) -> Array:
        fraction = _along(theta, y)
        value = coefficients[-1]
        for coefficient in coefficients[-2::-1]:
            value = coefficient + fraction * value
        return jnp.where(_along(inside, y), y + _along(piece.h, y) * (fraction * value), old)

    return jax.tree.map(fill, saved, piece.y, *piece.coefficients)


def solve_block(
    flow: Callable[[Any, Any, Any], Any],
    y0: Any,
    args: Any,
    ts: Float[Array, "times #lanes"],
    t0: Float[Array, ""],
    rtol: Float[Array, " lanes"],
    atol: Float[Array, " lanes"],
    max_steps: Int[Array, ""],
    settle: bool,
    settle_speed: Float[Array, ""] | None = None,
) -> tuple[Lanes, Any]:
    """All lanes of a block, each until its last saved time. Returns the final state of the loop and the saved states.

    Args:
        flow: of one lane, f(t, y, args).
        y0, args: leaves with the lanes as first axis.
        ts: (T, lanes), or (T, 1) where all lanes share them; (0, ...) saves nothing (then see `horizon` of the caller).
        t0: common start.
        rtol, atol: one per lane.
        max_steps: attempted steps per lane.
        settle: stop a lane that has arrived: by `settle_speed`, or without one by the test for states of one number.
    """
    num_lanes = jax.tree.leaves(y0)[0].shape[0]
    field = jax.vmap(flow)
    end = jnp.broadcast_to(ts[-1], (num_lanes,))
    t = jnp.broadcast_to(t0, (num_lanes,)).astype(ts.dtype)
    slope = field(t, y0, args)
    info = jnp.finfo(ts.dtype)

    def finite(tree: Any) -> Array:
        flat = [jnp.isfinite(leaf).reshape(num_lanes, -1).all(axis=1) for leaf in jax.tree.leaves(tree)]
        return jnp.stack(flat).all(axis=0)

    def arrived(y: Any, slope: Any) -> Array:
        if not settle:
            return jnp.zeros(num_lanes, bool)

        return jax.vmap(arrival(flow, settle_speed))(t, y, slope, args, rtol, atol)

    def judge(t: Array, y: Any, slope: Any, status: Array, settled: Array) -> tuple[Array, Array]:
        sound = finite(y) & finite(slope)
        settled = settled | ((status == _RUNNING) & sound & (t < end) & arrived(y, slope))
        status = jnp.where((status == _RUNNING) & ~sound, Status.non_finite, status)
        return jnp.where((status == _RUNNING) & (settled | (t >= end)), Status.ok, status), settled

    def attempt(s: Lanes) -> Lanes:
        saved = _record(s.saved, s.piece, ts)
        last = s.t + s.h >= end
        h = jnp.where(last, end - s.t, s.h)
        stages, y = [s.slope], s.y
        for row, node in zip(TSIT5.a, TSIT5.c, strict=True):
            y = _axpy(s.y, h, _combine(row, stages))
            stages.append(field(s.t + float(node) * h, y, args))
        difference = jax.tree.map(lambda e: _along(h, e) * e, _combine(TSIT5.error, stages))
        error = lane_norm(_scaled(difference, s.y, y, rtol, atol))
        running = s.status == _RUNNING
        accepted = running & (error <= 1)
        t = jnp.where(accepted, jnp.where(last, end, s.t + h), s.t)
        piece = Piece(s.y, s.t, h, t, tuple(_combine(row, stages) for row in TSIT5.dense))
        y, slope = _select(accepted, y, s.y), _select(accepted, stages[-1], s.slope)
        h = jnp.where(running, h * _step_factor(error), s.h)
        steps = s.steps + running
        rejected = s.rejected + (running & ~accepted)
        status, settled = judge(t, y, slope, s.status, s.settled)
        stuck = (status == _RUNNING) & ~accepted & ~(h > 4 * info.eps * jnp.abs(t) + 100 * info.tiny)
        status = jnp.where(stuck, Status.step_underflow, status)
        status = jnp.where((status == _RUNNING) & (steps >= max_steps), Status.max_steps, status)
        return Lanes(t, y, h, slope, piece, saved, steps, rejected, status, settled)

    none = jnp.zeros(num_lanes, jnp.int32)
    status, settled = judge(t, y0, slope, none + _RUNNING, none > 0)
    span = jnp.maximum(end - t, info.tiny)
    h = _first_step(field, t, y0, slope, args, span, rtol, atol)
    nothing = Piece(y0, t, jnp.ones_like(t), t, tuple(slope for _ in TSIT5.dense))
    saved = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (ts.shape[0], *leaf.shape)), y0)
    start = Lanes(t, y0, h, slope, nothing, saved, none, none, status, settled)
    final = jax.lax.while_loop(lambda s: jnp.any(s.status == _RUNNING), attempt, start)
    saved = _record(final.saved, final.piece, ts)
    late = ts > final.t
    rest = jax.tree.map(lambda leaf: jnp.where(_along(final.settled, leaf), leaf, jnp.nan), final.y)
    broken = ~(finite(y0) & finite(slope))

    def complete(leaf: Array, value: Array) -> Array:
        leaf = jnp.where(_along(late, value), value, leaf)
        return jnp.where(_along(broken, value), jnp.nan, leaf)

    return final, jax.tree.map(complete, saved, rest)
