"""Littwin et al. 2024, "How JEPA avoids noisy features: the implicit bias of deep linear self-distillation networks".

Trained nets (Figures 1, 5), data models (Figure 3, random masking) and the phase diagram have modules of their own.

Figures 2 and 4: the scalar mode equations (7), (8) integrated for several features, beside their closed forms. The clock is
that of (7), (8): L times the gradient-flow time. The paper prints neither eps nor the values of lam and rho; ours are chosen
where its claims can be seen, which needs eps^(1/L)/rho between about 0.2 and 0.8 (see `littwin2024_checks`).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn._checks import require, require_fraction, require_positive
from jepa_dyn.papers import littwin2024_checks as claims
from jepa_dyn.papers._figure import PAPERS, Item, in_float64, with_checks
from jepa_dyn.papers._modes import simulate, transition
from jepa_dyn.papers.littwin2024_data import fig3, random_masking
from jepa_dyn.papers.littwin2024_data_plots import plot_fig3, plot_random_masking
from jepa_dyn.papers.littwin2024_phases import phase_diagram, plot_phase_diagram
from jepa_dyn.papers.littwin2024_plots import plot_fig2, plot_fig4
from jepa_dyn.papers.littwin2024_training import fig1, fig5, plot_training
from jepa_dyn.parameters import OBJECTIVES, mode_parameters
from jepa_dyn.solve.exact import exact
from jepa_dyn.theory import modes as theory

if TYPE_CHECKING:
    import xarray


def _resolution(full: bool) -> tuple[int, int]:
    """Curves per panel and saved times per curve."""
    return (24, 1000) if full else (6, 240)


def _panels(eps: float, lam: np.ndarray, rho: np.ndarray, depth: np.ndarray, num_times: int) -> dict[str, np.ndarray]:
    """Both objectives on parameters of shape (panel, curve): curves on a clock shared by a panel, and critical times."""
    shape, flat = lam.shape, (lam.ravel(), rho.ravel(), depth.ravel())
    args = mode_parameters(*flat)
    collected: dict[str, list[np.ndarray]] = {}
    for objective in OBJECTIVES:
        found = transition(objective, eps, *flat)
        horizon = 1.35 * found.exact.reshape(shape).max(axis=1)
        ts = horizon[:, None] * np.linspace(0, 1, num_times)
        lanes = np.repeat(ts, shape[1], axis=0)
        simulated, status = simulate(objective, eps, *flat, lanes)
        closed = exact(objective, eps, args, lanes, method="polish").ys  # pyright: ignore[reportArgumentType]
        one = {
            "time": ts,
            "w_simulation": simulated.reshape(*shape, num_times),
            "w_theory": np.asarray(closed).reshape(*shape, num_times),
            "critical_time_theory": found.exact.reshape(shape),
            "critical_time_simulation": found.simulated.reshape(shape),
            "fixed_point_theory": np.asarray(theory.fixed_point(objective, args)).reshape(shape),
            "fixed_point_simulation": found.end.reshape(shape),
            "status": np.maximum(status, found.status).astype(np.uint8).reshape(shape),
        }
        for name, values in one.items():
            collected.setdefault(name, []).append(values)
    return {name: np.stack(values) for name, values in collected.items()}


LABELS: dict[str, dict[str, str]] = {
    "time": {"long_name": "time", "units": "mode clock"},
    "w_simulation": {"long_name": "amplitude w, integrated"},
    "w_theory": {"long_name": "amplitude w, closed form"},
    "critical_time_theory": {"long_name": "critical time, closed form", "units": "mode clock"},
    "critical_time_simulation": {"long_name": "critical time, integrated", "units": "mode clock"},
    "fixed_point_theory": {"long_name": "fixed point, closed form"},
    "fixed_point_simulation": {"long_name": "amplitude once settled, integrated"},
    "status": {"long_name": "outcome, see jepa_dyn.Status"},
}


def _dataset(found: dict[str, np.ndarray], panel: str, coords: dict[str, Any]) -> "xarray.Dataset":
    import xarray

    dims = {"time": ("objective", panel, "time_index")}
    dims |= {name: ("objective", panel, "curve", "time_index") for name in ("w_simulation", "w_theory")}
    variables = {
        name: (dims.get(name, ("objective", panel, "curve")), values, LABELS[name]) for name, values in found.items()
    }
    time = variables.pop("time")
    return xarray.Dataset(variables, coords={"objective": list(OBJECTIVES), "time": time} | coords)


@in_float64
def fig2(*, eps: float = 1e-3, depth: float = 5.0, full: bool = False) -> "xarray.Dataset":
    """Figure 2: learning curves of JEPA and MAE as lam varies (a, d), as rho varies (b, e), as both do with opposite trends (c, f).

    Args:
        eps: amplitude at initialisation, 0 < eps < 1; with rho down to 0.5 it must be below half of every fixed point.
        depth: number of encoder layers, > 1; 5 in the paper.
        full: 24 curves of 1000 saved times per panel instead of 6 of 240.

    Returns:
        Dataset over (objective, panel, curve, time_index), closed form and integration side by side, times in the mode clock;
        its checks are read with `jepa_dyn.papers.checks`.

    Raises:
        ValueError: eps or depth outside their range, or a feature that starts above half of its fixed point.

    Source: Littwin 2024, Figure 2, eqs (7), (8), (9), (11), (12).
    """
    require_fraction("eps", eps)
    require_positive("depth", depth)
    require("depth", depth, "be > 1 (at L = 1 JEPA's order hardly depends on rho)", lambda a: a > 1)
    curves, num_times = _resolution(full)
    ones, down = np.ones(curves), 1 / np.linspace(1.0, 2.0, curves)
    lam = np.stack([np.linspace(0.5, 1.0, curves), ones, np.linspace(1.0, 1.2, curves)])
    rho = np.stack([ones, np.linspace(0.5, 1.0, curves), down])
    found = _panels(eps, lam, rho, np.full(lam.shape, float(depth)), num_times)
    coords = {
        "panel": ("panel", ["lam", "rho", "opposite"], {"long_name": "what varies"}),
        "lam": (("panel", "curve"), lam, {"long_name": "covariance λ"}),
        "rho": (("panel", "curve"), rho, {"long_name": "regression coefficient ρ"}),
    }
    dataset = _dataset(found, "panel", coords)
    return with_checks(
        dataset, claims.fig2_checks(dataset), paper=PAPERS["littwin2024"], figure="2", eps=eps, depth=depth
    )


@in_float64
def fig4(*, eps: float = 1e-3, full: bool = False) -> "xarray.Dataset":
    """Figure 4: learning curves of JEPA and MAE for features of one lam = 1 and several rho, at depths 2, 5, 6, 7.

    Args:
        eps: amplitude at initialisation, 0 < eps < 1; with rho down to 0.5 it must be below half of every fixed point.
        full: 24 curves of 1000 saved times per panel instead of 6 of 240.

    Returns:
        Dataset over (objective, depth, curve, time_index), as `fig2`.

    Raises:
        ValueError: eps outside its range, or a feature that starts above half of its fixed point.

    Source: Littwin 2024, Figure 4, eqs (7), (8), (10), (17).
    """
    require_fraction("eps", eps)
    curves, num_times = _resolution(full)
    depths = np.array([2.0, 5.0, 6.0, 7.0])
    rho = np.linspace(0.5, 1.0, curves)
    grid_depth, grid_rho = np.meshgrid(depths, rho, indexing="ij")
    found = _panels(eps, np.ones(grid_rho.shape), grid_rho, grid_depth, num_times)
    coords = {
        "depth": ("depth", depths, {"long_name": "depth L"}),
        "rho": ("curve", rho, {"long_name": "regression coefficient ρ"}),
        "lam": ((), 1.0, {"long_name": "covariance λ"}),
    }
    dataset = _dataset(found, "depth", coords)
    return with_checks(dataset, claims.fig4_checks(dataset), paper=PAPERS["littwin2024"], figure="4", eps=eps)


ITEMS = (
    Item(
        "fig1",
        "trained deep linear nets: JEPA reverses the learning order where rho opposes lambda",
        fig1,
        plot_training,
    ),
    Item("fig2", "JEPA and MAE learning curves: greedy in lambda, in rho, and the inverted order", fig2, plot_fig2),
    Item("fig3", "temporal model: features of noisy flickering images, closed form and samples", fig3, plot_fig3),
    Item("fig4", "JEPA and MAE learning curves over depth: rho spreads JEPA's features in time", fig4, plot_fig4),
    Item("fig5", "trained deep linear nets for four laws of lambda and rho", fig5, plot_training),
    Item(
        "random_masking",
        "theorem C.1: right for orthonormal rows, wrong for Gaussian ones",
        random_masking,
        plot_random_masking,
    ),
    Item(
        "phase_diagram",
        "how far the modes hold without commuting moments or aligned start",
        phase_diagram,
        plot_phase_diagram,
    ),
)
