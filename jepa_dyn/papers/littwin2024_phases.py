"""How far the scalar modes of Littwin et al. 2024 hold: a phase diagram over the commutator of the moments and the start.

Theorem 4.2 needs moments that are diagonal together and the aligned start. Here both assumptions are left by degrees:

- Sigma_yx is turned against Sigma_xx by an angle: the commutator of the two grows from 0;
- layers and decoder are mixed, cos(pi g / 2) aligned + sin(pi g / 2) Gaussian of the same scale: g = 1 is a generic start.

The matrix flows are integrated and compared with the modes of `feature_spectrum(moments)`, which is what one can predict without
integrating. None of the papers has this figure.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np

from jepa_dyn._checks import require, require_count, require_fraction
from jepa_dyn._progress import progress_bar
from jepa_dyn.flows import (
    aligned_initialisation,
    deep_linear_arguments,
    encoder_matrix,
    layer_mask,
    small_gaussian_initialisation,
)
from jepa_dyn.metrics import crossing_times, projections, rank_agreement
from jepa_dyn.moments import FeatureSpectrum, ViewMoments, feature_spectrum, view_moments
from jepa_dyn.papers._figure import PAPERS, Check, in_float64, with_checks
from jepa_dyn.papers.littwin2024_training import FLOWS
from jepa_dyn.parameters import OBJECTIVE_NAMES, OBJECTIVES, Objective
from jepa_dyn.solve.ensemble import ensemble
from jepa_dyn.theory import modes as theory

if TYPE_CHECKING:
    import xarray

LAM = np.array([1.0, 0.9, 0.8, 0.7])
RHO = np.array([0.6, 0.7, 0.8, 0.9])  # opposite trends: the objectives disagree about the order
NUM_TIMES = 200
_HORIZON = 3.0  # of the slowest theoretical critical time


def turned_moments(angle: float, key: Any) -> ViewMoments:
    """xx = diag(lam / rho); yx = Q diag(lam) Q^T, Q a rotation by at most `angle` (radians) in a random plane of each feature."""
    d = LAM.size
    skew = jax.random.normal(key, (d, d))
    skew = np.asarray(skew - skew.T)
    turn = np.asarray(jax.scipy.linalg.expm(angle * skew / np.linalg.norm(skew, 2)))
    yx = (turn * LAM) @ turn.T
    xx = np.diag(LAM / RHO)
    # y given x is noise of variance 0.1: its covariance does not enter the flows, but must be possible
    return view_moments(xx, yx, yx @ np.linalg.solve(xx, yx.T) + 0.1 * np.eye(d))


def mixed_start(key: Any, mask: Any, genericity: float, *, eps: float, objective: Objective) -> Any:
    """Weights between the aligned start (genericity 0) and a Gaussian one of the same scale (1)."""
    aligned_key, generic_key = jax.random.split(key)
    aligned = aligned_initialisation(aligned_key, mask, LAM.size, eps=eps, objective=objective)
    generic = small_gaussian_initialisation(generic_key, mask, LAM.size, eps=eps)
    cosine, sine = np.cos(np.pi / 2 * genericity), np.sin(np.pi / 2 * genericity)
    return jax.tree.map(lambda a, b: cosine * a + sine * b, aligned, generic)


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _compare(
    objective: Objective,
    laws: list[ViewMoments],
    spectra: list[FeatureSpectrum],
    starts: list[Any],
    depth: int,
    eps: float,
) -> dict[str, np.ndarray]:
    """Integrated flows beside the modes, one lane per entry of the lists: the measures of `phase_diagram`."""
    args = _stack([deep_linear_arguments(law, layer_mask(depth)) for law in laws])
    parameters = _stack([spectrum.parameters(depth).broadcast() for spectrum in spectra])
    critical = np.asarray(theory.critical_time(objective, eps, parameters))  # (lane, feature), mode clock
    limit = np.asarray(theory.fixed_point(objective, parameters))
    horizon = _HORIZON * critical.max(axis=1)
    ts = np.asarray(theory.flow_time(horizon, depth))[:, None] * np.linspace(0, 1, NUM_TIMES)
    runs = ensemble(FLOWS[objective], _stack(starts), args, ts, rtol=1e-8, atol=1e-11)
    bases = jnp.stack([spectrum.basis for spectrum in spectra])
    encoders = jax.vmap(jax.vmap(encoder_matrix, (0, None)))(runs.ys, args)  # (lane, time, w, d)
    size = np.asarray(jax.vmap(projections)(encoders, bases))
    times = np.asarray(theory.mode_time(crossing_times(ts, size, limit / 2, log=True), depth))
    learned = np.isfinite(times)
    away = np.where(learned, np.abs(np.log(np.where(learned, times, 1) / critical)), np.nan)
    with np.errstate(invalid="ignore"):
        time_error = np.where(learned.any(axis=1), np.nansum(away, axis=1) / np.maximum(learned.sum(axis=1), 1), np.nan)
    return {
        "time_error": np.expm1(time_error),
        "amplitude_error": np.abs(size[:, -1] / limit - 1).max(axis=1),
        "learned": learned.mean(axis=1),
        "order_agreement": np.asarray(rank_agreement(times, critical)),
        "status": np.asarray(runs.status),
    }


LABELS = {
    "time_error": "error of the critical times",
    "amplitude_error": "error of the amplitudes at the end",
    "learned": "share of features learned",
    "order_agreement": "order of learning: Kendall's τ",
    "status": "outcome, see jepa_dyn.Status",
}


@in_float64
def phase_diagram(
    *, depth: int = 3, eps: float = 1e-2, largest_angle: float = 0.8, full: bool = False, key: int = 0
) -> "xarray.Dataset":
    """Where the scalar modes predict a deep linear net: over the commutator of its moments and the genericity of its start.

    Four features with opposite trends of lam (1 to 0.7) and rho (0.6 to 0.9).

    Args:
        depth: number of layers L, whole, >= 1.
        eps: amplitude at the start, in (0, 1), below half of every fixed point.
        largest_angle: of the rotation of Sigma_yx against Sigma_xx, in (0, pi/2), radians.
        full: 13 x 13 points of 16 draws instead of 5 x 5 of 3.
        key: seed of rotations and starts.

    Returns:
        Dataset over (objective, angle, genericity, draw): mean relative error of the critical times of the features that
        reach half of their predicted fixed point, largest relative error of the amplitudes after 3 critical times, share
        of features that get there, Kendall's tau of predicted and measured order, status; and per (angle, draw)
        the relative commutator of the moments.

    Raises:
        ValueError: an option outside its range, or a feature that starts above half of its fixed point.

    Source: Littwin 2024, theorem 4.2 and assumption 4.1, each left by degrees (section 7 names both as limitations).
    """
    import xarray

    require_count("depth", depth)
    require_fraction("eps", eps)
    require("largest_angle", largest_angle, "lie strictly between 0 and pi/2", lambda a: (a > 0) & (a < np.pi / 2))
    points, draws = (13, 16) if full else (5, 3)
    angles, genericity = np.linspace(0, largest_angle, points), np.linspace(0, 1, points) ** 2
    shape = (points, points, draws)
    law_keys, start_keys = (jax.random.split(k, draws) for k in jax.random.split(jax.random.key(key)))
    mask = layer_mask(depth)
    laws = {(i, k): turned_moments(angle, law_keys[k]) for i, angle in enumerate(angles) for k in range(draws)}
    spectra = {place: feature_spectrum(law) for place, law in laws.items()}
    lanes = list(np.ndindex(shape))
    dims = ("objective", "angle", "genericity", "draw")
    collected: dict[str, list[np.ndarray]] = {}
    for objective in progress_bar(OBJECTIVES, len(OBJECTIVES), unit="objectives"):
        starts = [
            mixed_start(start_keys[k], mask, float(genericity[j]), eps=eps, objective=objective) for i, j, k in lanes
        ]
        found = _compare(
            objective, [laws[i, k] for i, _, k in lanes], [spectra[i, k] for i, _, k in lanes], starts, depth, eps
        )
        for name, values in found.items():
            collected.setdefault(name, []).append(values.reshape(shape))
    variables: dict[str, Any] = {
        name: (dims, np.stack(values), {"long_name": LABELS[name]}) for name, values in collected.items()
    }
    commutator = np.array([[float(spectra[i, k].defect.commutator) for k in range(draws)] for i in range(points)])
    variables["commutator"] = (("angle", "draw"), commutator, {"long_name": "commutator of Σxx and Σyx, relative"})
    coords = {
        "objective": list(OBJECTIVES),
        "angle": ("angle", angles, {"long_name": "rotation of Σyx against Σxx", "units": "radians"}),
        "mean_commutator": ("angle", commutator.mean(axis=1), {"long_name": "commutator of Σxx and Σyx, relative"}),
        "genericity": ("genericity", genericity, {"long_name": "start: 0 aligned, 1 Gaussian"}),
    }
    dataset = xarray.Dataset(variables, coords)
    return with_checks(
        dataset, phase_checks(dataset), paper=PAPERS["littwin2024"], section="7, beyond the paper", depth=depth, eps=eps
    )


def phase_checks(dataset: "xarray.Dataset") -> list[Check]:
    """What holds at the corner where the theory is exact, and what is lost first on the way out of it."""
    mean = dataset.mean("draw")
    corner, aligned, commuting = mean.isel(angle=0, genericity=0), mean.isel(genericity=0), mean.isel(angle=0)
    far = aligned.isel(angle=-1)
    commutator, angle = float(dataset.mean_commutator[-1]), float(dataset.angle[-1])

    def both(values: "xarray.DataArray", form: str) -> str:
        return ", ".join(f"{OBJECTIVE_NAMES[o]} {format(float(values.sel(objective=o)), form)}" for o in OBJECTIVES)

    def of(values: "xarray.DataArray", objective: str) -> float:
        return float(values.sel(objective=objective))

    at_angle = f"turned by {angle:.2f} rad, commutator {commutator:.3f}, aligned start: "
    generic = commuting.isel(genericity=-1)
    slightly = commuting.isel(genericity=1)
    return [
        Check(
            "Commuting moments, aligned start: critical times and amplitudes are those of the modes",
            "theorem 4.2",
            "equivalence to eqs (7), (8)",
            f"relative error of the times: {both(corner.time_error, '.1e')}; amplitudes: {both(corner.amplitude_error, '.1e')}",
            True,
            bool((corner.time_error < 5e-3).all() and (corner.amplitude_error < 1e-3).all()),
            "times interpolated between saved ones; the flows agree to 1e-8",
        ),
        Check(
            "MAE's critical times hold within 5 % where the moments no longer commute",
            "beyond assumption 4.1(1)",
            "no claim",
            at_angle + both(far.time_error, ".1%"),
            True,
            of(far.time_error, "mae") < 0.05,
        ),
        Check(
            "JEPA's do so as well",
            "beyond assumption 4.1(1)",
            "no claim",
            at_angle + both(far.time_error, ".1%"),
            False,
            of(far.time_error, "jepa") < 0.05,
            "its critical times contain rho^(2L-1): what turns Σyx moves each rho",
        ),
        Check(
            "MAE's order of learning survives the rotation (tau > 0.75)",
            "beyond assumption 4.1(1)",
            "no claim",
            f"Kendall's tau of prediction and measurement: {both(far.order_agreement, '.2f')}",
            True,
            of(far.order_agreement, "mae") > 0.75,
        ),
        Check(
            "Critical times hold within 10 % on a Gaussian start of the same scale",
            "section 7",
            "'results qualitatively generalize to popular initialization schemes'",
            f"relative error of the times {both(generic.time_error, '.0%')}; "
            f"already {both(slightly.time_error, '.0%')} at genericity {float(slightly.genericity):.2f}",
            False,
            bool((generic.time_error < 0.1).all()),
            "commuting moments; the time of a feature depends on the strength that its own random start gives it",
        ),
        Check(
            "JEPA learns all features from a Gaussian start within 3 critical times",
            "section 7",
            "as above",
            f"share learned: {both(generic.learned, '.2f')}",
            False,
            of(generic.learned, "jepa") > 0.99,
            "a decoder that is not aligned loses features, see the sign in assumption 4.1(3)",
        ),
        Check(
            "On a Gaussian start of a small net the order of four features is still the predicted one (tau > 0.5)",
            "section 7",
            "order of learning is kept",
            f"Kendall's tau: {both(generic.order_agreement, '.2f')}",
            False,
            bool((generic.order_agreement > 0.5).all()),
            "it survives as a trend over many features and starts: Figures 1 and 5",
        ),
    ]


def plot_phase_diagram(dataset: "xarray.Dataset") -> Any:
    """One row per objective: error of the critical times, share of features learned, order, over angle and genericity."""
    from matplotlib import pyplot

    from jepa_dyn.plots import heat_map

    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6.2), layout="constrained")
    mean = dataset.mean("draw", keep_attrs=True)
    for row, objective in enumerate(OBJECTIVES):
        one = mean.sel(objective=objective)
        for column, name in enumerate(("time_error", "learned", "order_agreement")):
            shown = one[name].clip(min=1e-3, keep_attrs=True) if name == "time_error" else one[name]
            limits = {"time_error": {"log_colour": True}, "learned": {}, "order_agreement": {"centre": 0.0}}[name]
            ax = heat_map(shown, x="mean_commutator", y="genericity", ax=axes[row, column], **limits)[1]
            ax.set_title(f"({'abcdef'[3 * row + column]}) {OBJECTIVE_NAMES[objective]}", fontsize=10, loc="left")
    figure.suptitle(
        f"Deep linear nets beside their scalar modes: L = {dataset.attrs['depth']}, {dataset.sizes['draw']} draws per point",
        fontsize=11,
    )
    return figure
