"""Scalar modes by closed form and by integration, side by side, in the shape that figures need."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jepa_dyn.flows import modes as flows
from jepa_dyn.parameters import Objective, mode_parameters
from jepa_dyn.solve.ensemble import ensemble
from jepa_dyn.theory import modes as theory

FLOWS = {"jepa": flows.jepa, "mae": flows.mae}


def simulate(objective: Objective, eps: float, lam: Any, rho: Any, depth: Any, ts: np.ndarray) -> tuple[Any, Any]:
    """Amplitudes (lanes, times) by integration of eqs (7), (8) and the status of each lane.

    `lam`, `rho`, `depth` have shape (lanes,), `ts` (lanes, times).
    """
    args = mode_parameters(lam, rho, depth)
    found = ensemble(FLOWS[objective], jnp.full(args.shape, eps), args.broadcast(), jnp.asarray(ts))
    return np.asarray(found.ys), np.asarray(found.status)


class Transition(NamedTuple):
    """Of each lane: critical time by closed form and by integration, and the amplitude at the end of the integration."""

    exact: np.ndarray
    simulated: np.ndarray
    end: np.ndarray
    status: np.ndarray


def transition(objective: Objective, eps: float, lam: Any, rho: Any, depth: Any, fraction: float = 0.5) -> Transition:
    """Critical times of the lanes, measured on an integration that resolves the transition and goes on until it settles.

    The closed form only says where to save; the crossing is interpolated among the integrated amplitudes, in the logit of
    w / w_end, where the transition is smooth.
    """
    args = mode_parameters(lam, rho, depth)
    limit = theory.fixed_point(objective, args)
    exact = np.asarray(theory.critical_time(objective, eps, args, fraction))
    before, after = (
        np.asarray(theory.time_to_reach(objective, share * limit, fraction * limit, args)) for share in (0.9, 1 - 1e-9)
    )
    start = np.maximum(exact - 3 * before, 0.0)
    window = start[:, None] + (exact + before - start)[:, None] * np.linspace(0, 1, 201)
    ts = np.concatenate([window, (exact + after)[:, None]], axis=1)
    ws, status = simulate(objective, eps, args.lam, args.rho, args.depth, ts)
    inside, end = ws[:, :-1], ws[:, -1]
    height = np.log(inside / (end[:, None] - inside))
    level = np.log(fraction / (1 - fraction))
    simulated = np.array([np.interp(level, z, t) for z, t in zip(height, window, strict=True)])
    return Transition(exact, simulated, end, status)


def ordered(times: np.ndarray, ascending: bool, margin: float = 0.0) -> bool:
    """Whether the times rise (fall) strictly along the last axis, each step by more than the relative margin."""
    steps = np.diff(np.log(times), axis=-1) * (1 if ascending else -1)
    return bool((steps > margin).all())


def spread(times: np.ndarray) -> np.ndarray:
    """Largest time over the smallest, along the last axis."""
    return np.asarray(times.max(axis=-1) / times.min(axis=-1))
