"""The losses that Simon et al. 2023, appendix G, propose for speed, on the spectrum of photographs: how fast, and where each fails."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require_positive
from jepa_dyn.flows import (
    BarlowTwinsState,
    barlow_twins,
    barlow_twins_preconditioned,
    barlow_twins_quartic,
    barlow_twins_sharp,
    barlow_twins_smooth,
)
from jepa_dyn.metrics import crossing_times
from jepa_dyn.papers import simon2023_speed_up_checks as claims
from jepa_dyn.papers._figure import PAPERS, in_float64, with_checks
from jepa_dyn.papers.simon2023_data import (
    correlation_eigenvalues,
    gaussian_start,
    photograph_arguments,
    start_in_basis,
)
from jepa_dyn.solve import train_in_eigenbasis
from jepa_dyn.status import Status
from jepa_dyn.theory import barlow_twins as theory
from jepa_dyn.theory import barlow_twins_variants as variants
from jepa_dyn.theory.barlow_twins_optima import least_squared_norm

if TYPE_CHECKING:
    import xarray

FLOWS = {
    "squared": barlow_twins,
    "sharp": barlow_twins_sharp,
    "smooth": barlow_twins_smooth,
    "quartic": barlow_twins_quartic,
    "preconditioned": barlow_twins_preconditioned,
}
LEVELS = (0.5, 0.9, 0.99)
# learning rates in units of 1 / (4 gamma_1), where gradient descent on (1) loses its minimum
RATES = (0.1, 0.25, 0.5, 0.9, 1.1, 2.0, 4.0, 8.0)
OUTCOMES = ("all learned", "above 1", "cycles", "unfinished", "diverged")
SAVES = 160


def closed_forms(s0: np.ndarray, gammas: np.ndarray, variances: np.ndarray, ridge: float, ts: np.ndarray) -> np.ndarray:
    """Eigenvalues of C of aligned modes under every loss, (loss, time, mode)."""
    t = ts[:, None]
    s = (
        theory.singular_value(t, s0, gammas),
        variants.sharp_singular_value(t, s0, gammas),
        variants.smooth_singular_value(t, s0, gammas),
        variants.quartic_singular_value(t, s0, gammas),
        variants.preconditioned_singular_value(t, s0, gammas, variances, ridge),
    )
    return np.stack([gammas * np.asarray(one) ** 2 for one in s])


def outcome(status: int, values: np.ndarray) -> str:
    """What became of a run whose eigenvalues of C after the last two steps are `values` (2, d)."""
    if status != Status.ok:
        return "diverged"
    if np.abs(values[1] - values[0]).max() > 1e-3:
        return "cycles"
    if values[1].min() < 0.9:
        return "unfinished"
    return "above 1" if values[1].max() > 1.001 else "all learned"


@in_float64
def speed_up(
    *,
    pairs: int = 200,
    patch_size: int = 20,
    dimension: int = 10,
    alpha: float = 1e-7,
    ridge: float = 0.01,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Five losses from one start on the spectrum of photographs: time to d modes, in theory and trained, and where each fails.

    Losses: (1 - l)^2, sharp (sign(l) |l|^(1/2) - 1)^2, smooth (min(l, 1) - 1)^2, quartic (1 - l)^4, and the preconditioned gradient
    (52). All are trained by gradient descent at eight learning rates in units of 1 / (4 gamma_1) from the same Gaussian start, and
    at the smallest also from the aligned start that Result 4.6 makes of it, which is what the closed forms are about.

    Args:
        pairs: n, pairs of crops.
        patch_size: side of the crops in pixels; m = 3 patch_size^2.
        dimension: d, size of the embedding.
        alpha: standard deviation of W(0), > 0.
        ridge: alpha of (52), per pair (that of the print is 2n ridge), > 0.
        full: 500 pairs.
        key: seed of crops and start.

    Returns:
        Dataset over (loss, run, step, mode): eigenvalues of C; theory over (loss, time, mode); flow time until all eigenvalues have
        passed each level; outcome of each run; how much of the top d features W spans, |W|^2 over the least.

    Raises:
        ValueError: an option out of range.

    Source: Simon 2023, appendix G.
    """
    import xarray

    require_positive("ridge", ridge)
    args = photograph_arguments(500 if full else pairs, patch_size, key, ridge=ridge)
    y0 = gaussian_start(dimension, args, alpha, key)
    start, features = start_in_basis(y0, args), np.asarray(args.moments.columns).T
    gammas, d = np.asarray(args.moments.gammas), int(dimension)
    s0, own = np.asarray(start.singular_values), gammas[:d]
    variances = np.diagonal(np.asarray(args.moments.covariance))[:d]
    unit = 1 / (4 * own[0])
    ts = np.geomspace(1e-2 * unit, 1e3 / own[-1], 4000)
    theory_values = closed_forms(s0, own, variances, ridge, ts)
    theory_time = np.stack([_time_to_all(ts, theory_values, level) for level in LEVELS], axis=-1)
    aligned = np.asarray(start.left * start.singular_values) @ np.asarray(start.features)[:d] @ features
    y0 = BarlowTwinsState(jnp.stack([jnp.asarray(aligned), *(y0.encoder for _ in RATES)]))
    rates = unit * np.array([RATES[0], *RATES])
    most = 1.5 * theory_time[0, -1] / rates[0]
    found: dict[str, list[Any]] = {name: [] for name in ("steps", "values", "status", "final")}
    for row, flow in enumerate(FLOWS.values()):
        last = int(min(most, 1.5 * theory_time[row, -1] / rates[0]))
        saved = np.unique(np.geomspace(1, last - 1, SAVES - 2).astype(int))
        # one shape for all losses: what is missing is made up by the first whole numbers that were left out
        spare = np.setdiff1d(np.arange(1, last - 1), saved)[: SAVES - 1 - len(saved)]
        saved = np.sort(np.concatenate([saved, spare, [last]]))
        run = train_in_eigenbasis(flow, y0, args, saved, learning_rate=rates, observe=correlation_eigenvalues)
        found["steps"].append(saved)
        found["values"].append(np.asarray(run.ys))
        found["status"].append(np.asarray(run.status))
        found["final"].append(np.asarray(run.final.encoder))
    steps, values = np.stack(found["steps"]), np.stack(found["values"])
    status, final = np.stack(found["status"]), np.stack(found["final"])
    count = np.stack([
        [_time_to_all(steps[row], values[row], level) for level in LEVELS] for row in range(len(FLOWS))
    ]).transpose(0, 2, 1)  # fmt: skip
    rows = np.linalg.qr(final.mT)[0].mT
    spanned = ((rows @ features[:d].T) ** 2).sum(axis=(-2, -1)) / d
    size = (final**2).sum(axis=(-2, -1)) / float(least_squared_norm(own, d))
    ends = [[outcome(status[i, j], values[i, j, -2:]) for j in range(len(rates))] for i in range(len(FLOWS))]
    run_dims, level = ("loss", "run"), ("loss", "level")
    variables = {
        "eigenvalue": ((*run_dims, "save", "mode"), values, {"long_name": "eigenvalue of C"}),
        "theory_eigenvalue": (("loss", "time", "mode"), theory_values, {"long_name": "eigenvalue of C, aligned"}),
        "steps_to_all": ((*run_dims, "level"), count, {"long_name": "steps until all d eigenvalues pass the level"}),
        "theory_time": (level, theory_time, {"long_name": "time until all d eigenvalues pass the level"}),
        "outcome": (run_dims, ends, {"long_name": "what became of the run"}),
        "spanned": (run_dims, spanned, {"long_name": "share of the top d features that W spans"}),
        "squared_norm": (run_dims, size, {"long_name": "|W|^2 over its least at loss zero"}),
    }
    coords = {"loss": list(FLOWS), "start": ("run", ["aligned"] + ["random"] * len(RATES)), "level": list(LEVELS)}
    coords |= {
        "rate": ("run", rates / unit, {"long_name": "learning rate x 4 gamma_1"}),
        "step": (("loss", "save"), steps),
    }
    coords |= {
        "time": ("time", ts),
        "mode": np.arange(1, d + 1),
        "gamma": ("mode", own),
        "spectrum": ("feature", gammas),
    }
    attrs = {"ridge": ridge, "unit": unit, "negative": int((gammas < 0).sum()), "pairs": 500 if full else int(pairs)}
    dataset = xarray.Dataset(variables, coords, attrs)
    return with_checks(dataset, claims.speed_up_checks(dataset), paper=PAPERS["simon2023"], section="appendix G")


def _time_to_all(ts: np.ndarray, values: np.ndarray, level: float) -> np.ndarray:
    """When the smallest of the eigenvalues (..., time, mode) passes the level."""
    return np.asarray(crossing_times(ts, values.min(axis=-1, keepdims=True), level))[..., 0]


__all__ = ["speed_up"]
