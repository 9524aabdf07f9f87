"""From view pairs to a prediction: which features a JEPA and an MAE encoder learn first, when, and how strongly.

The second moments of the views give features (lam, rho, direction); the exact solution of the scalar mode equations gives each
feature's critical time and final strength. This is exact for deep linear encoders from a small balanced initialisation on moments
that are simultaneously diagonal (Littwin 2024, assumption 4.1); how far the moments are from that is part of the result.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require_not_empty, require_positive
from jepa_dyn.moments import FeatureSpectrum
from jepa_dyn.parameters import OBJECTIVES, ModeParameters
from jepa_dyn.solve.exact import exact
from jepa_dyn.theory import modes as theory

if TYPE_CHECKING:
    import xarray

DEFAULT_DEPTHS = (1.0, 2.0, 3.0, 5.0)
DEFAULT_EPS = 1e-3

# what becomes of a feature; stored as codes
LEARNED, NEVER_LEARNED, STARTS_ABOVE = 0, 1, 2
OUTCOMES = ("learned", "never_learned", "starts_above")
NUM_CURVE_TIMES = 300


def predict(
    spectrum: FeatureSpectrum, *, depths: Sequence[float | int] | np.ndarray = DEFAULT_DEPTHS, eps: float = DEFAULT_EPS
) -> "xarray.Dataset":
    """Order, critical time and final strength of every feature, for JEPA and MAE at several depths.

    Args:
        spectrum: features of view pairs, from `moments.feature_spectrum`.
        depths: numbers of encoder layers, each > 0, all different.
        eps: amplitude of every feature at initialisation, > 0.

    Returns:
        Dataset over (objective, depth, feature); features are numbered from 1 by falling lam. Variables:

        - `critical_time`: when the feature reaches half of its fixed point, in the clock of the mode equations; infinite where it
          never does (lam <= 0), 0 where it starts above. `critical_flow_time`: the same in gradient-flow time, t / L.
        - `strength`: fixed point of its amplitude w, 0 where lam <= 0.
        - `order`: 1 for the feature learned first; 0 where it is not learned or starts above.
        - `outcome`: `learned`, `never_learned` (lam <= 0) or `starts_above` (eps is at least half of the fixed point).
        - `w`: the learning curves on logarithmic times `time` (objective, depth, time_index); NaN unless `learned`.
        - `swapped_pairs` (depth): pairs of learned features that JEPA and MAE learn in opposite orders; `learned_pairs`.
        - `basis` (input, feature): the features' directions, and the coordinates lam, rho, variance, leakage_xx, leakage_yx.

        The measured defect of simultaneous diagonalisability is in the attributes `defect_*`.

    Raises:
        ValueError: a depth or eps is not > 0, or depths repeat.

    Source: Littwin 2024, eqs (7)-(9), (11); exact critical times by (82) and (99).
    """
    import xarray

    require_not_empty("depths", depths)
    require_positive("depths", depths, "an encoder has some depth")
    if len(set(depths)) < len(depths):
        raise ValueError(f"Argument `depths` must not repeat a value, but is {list(depths)}.")
    require_positive("eps", eps)
    depth = np.asarray(depths, float)
    args = spectrum.parameters(depth[:, None])
    per_objective = [_features(objective, eps, args) for objective in OBJECTIVES]
    found = {name: np.stack([one[name] for one in per_objective]) for name in per_objective[0]}
    dims = ("objective", "depth", "feature")
    variables: dict[str, Any] = {name: (dims, values, _labels()[name]) for name, values in found.items()}
    times, curves = _curves(eps, args, found)
    swapped = [_swapped(*found["critical_time"][:, row], *found["outcome"][:, row]) for row in range(len(depth))]
    learned = (found["outcome"] == LEARNED).all(axis=0).sum(axis=-1)
    variables |= {
        "w": (
            (*dims, "time_index"),
            curves,
            {"long_name": "amplitude w", "missing_means": "not learned, or starts above"},
        ),
        "swapped_pairs": ("depth", [len(pairs) for pairs in swapped], {"long_name": "pairs in opposite order"}),
        "learned_pairs": ("depth", learned * (learned - 1) // 2, {"long_name": "pairs learned by both"}),
        "basis": (("input", "feature"), np.asarray(spectrum.basis), {"long_name": "direction of the feature"}),
    }
    coords = {
        "objective": list(OBJECTIVES),
        "depth": ("depth", depth, {"long_name": "depth L"}),
        "feature": ("feature", np.arange(1, spectrum.num_features + 1), {"long_name": "feature, by falling λ"}),
        "time": (("objective", "depth", "time_index"), times, {"long_name": "time", "units": "mode clock"}),
        "lam": ("feature", np.asarray(spectrum.lam), {"long_name": "covariance between the views λ"}),
        "rho": ("feature", np.asarray(spectrum.rho), {"long_name": "regression coefficient ρ"}),
        "variance": ("feature", np.asarray(spectrum.variance), {"long_name": "variance σ²"}),
        "leakage_xx": ("feature", np.asarray(spectrum.leakage_xx)),
        "leakage_yx": ("feature", np.asarray(spectrum.leakage_yx)),
    }
    names = ("off_diagonal_xx", "off_diagonal_yx", "asymmetry_yx", "commutator", "mean_square_off_diagonal")
    attrs = {f"defect_{name}": float(getattr(spectrum.defect, name)) for name in names}
    attrs |= {"eps": float(eps), "basis_kind": spectrum.basis_kind, "num_dropped": spectrum.num_dropped}
    return xarray.Dataset(variables, coords=coords, attrs=attrs)


def _labels() -> dict[str, dict[str, Any]]:
    return {
        "critical_time": {
            "long_name": "critical time",
            "units": "mode clock",
            "infinite_means": "never learned",
        },
        "critical_flow_time": {
            "long_name": "critical time",
            "units": "gradient-flow time",
            "infinite_means": "never learned",
        },
        "strength": {"long_name": "final strength w(∞)"},
        "order": {"long_name": "order of learning (1 = first, 0 = none)"},
        "outcome": {"flag_values": list(range(len(OUTCOMES))), "flag_meanings": " ".join(OUTCOMES)},
    }


def _features(objective: Any, eps: float, args: ModeParameters) -> dict[str, np.ndarray]:
    """What becomes of every (depth, feature) under one objective."""
    args = args.broadcast()
    strength = np.asarray(theory.fixed_point(objective, args))
    grows = np.asarray(args.lam) > 0
    outcome = np.where(grows, np.where(eps >= 0.5 * strength, STARTS_ABOVE, LEARNED), NEVER_LEARNED)
    # a mode that starts above has no critical time: ask the closed form for a start that it has, and set 0 afterwards
    start = np.where(outcome == STARTS_ABOVE, 0.25 * strength, eps)
    time = np.where(outcome == STARTS_ABOVE, 0.0, np.asarray(theory.critical_time(objective, jnp.asarray(start), args)))
    return {
        "critical_time": time,
        "critical_flow_time": np.asarray(theory.flow_time(time, args.depth)),
        "strength": strength,
        "order": _order(time, outcome),
        "outcome": outcome.astype(np.uint8),
    }


def _order(times: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Rank of each learned feature along the last axis, 1 first; 0 for the others."""
    shown = np.where(outcome == LEARNED, times, np.inf)
    ranks = np.argsort(np.argsort(shown, axis=-1, kind="stable"), axis=-1) + 1
    return np.where(outcome == LEARNED, ranks, 0)


def _swapped(
    jepa: np.ndarray, mae: np.ndarray, jepa_outcome: np.ndarray, mae_outcome: np.ndarray
) -> list[tuple[int, int]]:
    """Pairs (first under JEPA, first under MAE) of features, from 0, that the objectives learn in opposite orders."""
    both = np.flatnonzero((jepa_outcome == LEARNED) & (mae_outcome == LEARNED))
    earlier = jepa[both][:, None] < jepa[both][None, :]
    later = mae[both][:, None] > mae[both][None, :]
    return [(int(both[i]), int(both[j])) for i, j in np.argwhere(earlier & later)]


def swapped_pairs(dataset: "xarray.Dataset", depth: float | int) -> list[tuple[int, int]]:
    """Pairs of features in opposite orders at this depth: (the one JEPA learns first, the one MAE learns first)."""
    one = dataset.sel(depth=depth)
    times, outcomes = (
        [variable.sel(objective=o).values for o in OBJECTIVES] for variable in (one.critical_time, one.outcome)
    )
    return [(i + 1, j + 1) for i, j in _swapped(*times, *outcomes)]


def _curves(eps: float, args: ModeParameters, found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Logarithmic times that hold all transitions of one (objective, depth), and the learned features' curves on them."""
    learned = found["outcome"] == LEARNED
    first = np.where(learned, found["critical_time"], np.inf).min(axis=-1)
    last = np.where(learned, found["critical_time"], -np.inf).max(axis=-1)
    nothing = ~learned.any(axis=-1)
    first, last = np.where(nothing, 1.0, first), np.where(nothing, 10.0, last)
    grid = np.linspace(0, 1, NUM_CURVE_TIMES)
    ts = np.exp(np.log(first / 4)[..., None] * (1 - grid) + np.log(last * 4)[..., None] * grid)
    curves = np.full((*learned.shape, NUM_CURVE_TIMES), np.nan)
    for row, objective in enumerate(OBJECTIVES):
        if not learned[row].any():
            continue
        lanes = jax.tree.map(lambda leaf, chosen=learned[row]: leaf[chosen], args.broadcast())
        own = np.broadcast_to(ts[row][:, None], curves[row].shape)[learned[row]]
        curves[row][learned[row]] = exact(objective, eps, lanes, own).ys  # pyright: ignore[reportArgumentType]
    return ts, curves
