"""Barlow Twins trained or integrated in the eigenbasis of Gamma: the caller's W in and out, d r numbers a step in between.

With Gamma = V diag(gammas) V^T, V (m, r), r <= min(m, 2n) for n pairs, every flow of `flows.barlow_twins` and
`flows.spectral_losses` moves W within the span of V, and its own formula in A = W V is that of diagonal moments:

    W(t) = W(0) (1 - V V^T) + A(t) V^T

A step then costs d^2 r in place of d m^2 (d r^2 for the preconditioned gradient, whose S is dense there); the eigenvalue problem
is paid once. No smaller system exists in general: dC/dt needs W Gamma^2 W^T, whose rate needs W Gamma^3 W^T, and so on.
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_dyn.flows import BarlowTwinsArguments, BarlowTwinsState
from jepa_dyn.moments import EigenbasisMoments, eigenbasis
from jepa_dyn.parameters import Leaf
from jepa_dyn.solve.coordinates import PLAIN
from jepa_dyn.solve.events import EventFunction
from jepa_dyn.solve.integrate import Flow, integrate
from jepa_dyn.solve.result import Trajectories
from jepa_dyn.solve.train import Observe, train, whole_state
from jepa_dyn.solve.training_result import TrainingRuns


class _TurnedArguments(eqx.Module):
    """What the solver holds: the arguments in the basis and what leads back to those `given`."""

    own: BarlowTwinsArguments
    given: BarlowTwinsArguments
    columns: Float[Leaf, "*#lanes m r"]
    outside: Float[Leaf, "*#lanes d m"]

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (*self.own.leaf_ndims, *self.given.leaf_ndims, 2, 2)


def _turn(y0: Any, args: Any) -> tuple[BarlowTwinsState, _TurnedArguments]:
    for name, value, kind in (("y0", y0, BarlowTwinsState), ("args", args, BarlowTwinsArguments)):
        if not isinstance(value, kind):
            raise TypeError(f"Argument `{name}` must be {kind.__name__}, but has type {type(value).__name__}.")
    moments = args.moments if isinstance(args.moments, EigenbasisMoments) else eigenbasis(args.moments)
    if moments.columns is None:
        raise ValueError("Argument `args` must have moments with `columns`, but is given in the basis already.")
    columns, encoder = jnp.asarray(moments.columns), jnp.asarray(y0.encoder)
    if encoder.shape[-1] != columns.shape[-2]:
        raise ValueError(
            f"Argument `y0` must have {columns.shape[-2]} columns like the moments, but has shape {encoder.shape}."
        )
    start = (encoder @ columns).astype(jnp.result_type(float, encoder.dtype))
    own = eqx.tree_at(lambda one: one.moments, args, moments.in_basis)
    return BarlowTwinsState(start), _TurnedArguments(own, args, columns, encoder - _unturned(start, columns))


def _unturned(held: Array, columns: Array) -> Array:
    return held @ jnp.swapaxes(columns, -1, -2)


def _turn_back(y: BarlowTwinsState, args: _TurnedArguments) -> BarlowTwinsState:
    return BarlowTwinsState(args.outside + _unturned(y.encoder, args.columns))


class _TurnedFlow(eqx.Module):
    flow: Flow

    def __call__(self, t: Any, y: BarlowTwinsState, args: _TurnedArguments) -> BarlowTwinsState:
        return self.flow(t, y, args.own)


class _TurnedObserve(eqx.Module):
    observe: Observe

    def __call__(self, y: BarlowTwinsState, args: _TurnedArguments) -> Any:
        return self.observe(_turn_back(y, args), args.given)


class _TurnedEvent(eqx.Module):
    event: EventFunction

    def __call__(self, t: Any, y: BarlowTwinsState, args: _TurnedArguments) -> Any:
        return self.event(t, _turn_back(y, args), args.given)


_COORDINATE = replace(PLAIN, name="the eigenbasis of Gamma", decode=_turn_back)


def train_in_eigenbasis(
    flow: Flow,
    y0: Any,
    args: Any,
    steps: Any,
    *,
    observe: Observe = whole_state,
    **options: Any,
) -> TrainingRuns:
    """`solve.train` on population moments, step for step the same run, carried out in the eigenbasis of Gamma.

    Plain gradient descent is the same up to rounding. An optimiser that treats entries alone (Adam) or a bound `diverged_above`
    sees those of W V: its run is another one.

    Args:
        flow: a flow of `flows.barlow_twins` or `flows.spectral_losses`, or one that meets the moments through
            `args.correlated` and `args.spread` alone.
        y0, args, steps: as in `train`; either may have lanes. `args.moments` are matrices, then their eigenvalue problem is solved
            here, or come from `moments.eigenbasis_from_pairs`.
        observe: sees the caller's W and `args`.
        options: as in `train`, but for `batches`.

    Returns:
        As `train`: `ys`, `final`, `y0`, `args` are the caller's.

    Raises:
        TypeError, ValueError: as `train`; not a Barlow Twins state or arguments; W and moments of different sizes; `batches`.
    """
    if options.get("batches") is not None:
        raise ValueError("Argument `batches` must be None: the Gamma of every batch has an eigenbasis of its own.")
    start, turned = _turn(y0, args)
    run = train(_TurnedFlow(flow), start, turned, steps, observe=_TurnedObserve(observe), **options)
    return replace(
        run, final=_turn_back(run.final, turned), y0=y0, args=args, method=f"{run.method} in {_COORDINATE.name}"
    )


def integrate_in_eigenbasis(
    flow: Flow,
    y0: Any,
    args: Any,
    ts: Any,
    *,
    events: EventFunction | dict[str, EventFunction] | None = None,
    **options: Any,
) -> Trajectories:
    """`solve.integrate` carried out in the eigenbasis of Gamma; tolerances are on the entries of W V.

    Args:
        flow, args: as in `train_in_eigenbasis`.
        y0, ts, options: as in `integrate`.
        events: see the caller's W and `args`.

    Raises:
        TypeError, ValueError: as `integrate`; not a Barlow Twins state or arguments; W and moments of different sizes.
    """
    start, turned = _turn(y0, args)
    if callable(events):
        events = _TurnedEvent(events)
    elif isinstance(events, dict):
        events = {name: _TurnedEvent(event) for name, event in events.items()}
    found = integrate(_TurnedFlow(flow), start, turned, ts, events=events, **options)
    dense = found.interpolation
    if dense is not None:
        dense = replace(dense, coordinate=_COORDINATE)
    return replace(
        found,
        ys=jax.vmap(_turn_back, (0, None))(found.ys, turned),
        y0=y0,
        args=args,
        interpolation=dense,
        method=f"{found.method} in {_COORDINATE.name}",
    )


__all__ = ["integrate_in_eigenbasis", "train_in_eigenbasis"]
