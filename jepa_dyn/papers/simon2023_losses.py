"""The losses that Simon et al. 2023, appendix G, propose for speed (Figure 9): how fast on photographs, and where each fails."""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require_positive
from jepa_dyn.flows import (
    BarlowTwinsState,
    barlow_twins,
    barlow_twins_arguments,
    barlow_twins_arguments_from_gamma,
    barlow_twins_loss,
    barlow_twins_preconditioned,
    barlow_twins_quartic,
    barlow_twins_sharp,
    barlow_twins_smooth,
)
from jepa_dyn.papers import simon2023_losses_checks as claims
from jepa_dyn.papers._figure import PAPERS, in_float64, with_checks
from jepa_dyn.papers.simon2023_data import (
    correlation_eigenvalues,
    first_crossings,
    photograph_problem,
)
from jepa_dyn.solve import train, train_in_eigenbasis
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
FIGURE_9 = ("squared", "sharp", "smooth", "quartic")
LEVELS = (0.5, 0.9, 0.99)
# learning rates in units of 1 / (4 gamma_1), where gradient descent on (1) loses its minimum
RATES = (0.5, 0.9, 1.1, 2.0, 4.0, 8.0)
SAVES = 200


@partial(jax.jit, static_argnums=(0, 1))
def landscape(flow: Any, loss: Any, s: Any, args: Any) -> tuple[Any, Any]:
    """(loss, speed of s) at every s of a mode with gamma = 1, for the arguments of such a mode."""

    def one(s: Any) -> tuple[Any, Any]:
        y = BarlowTwinsState(jnp.reshape(s, (1, 1)))
        return loss(y, args), flow(0.0, y, args).encoder[0, 0]

    return jax.vmap(one)(s)


def _only_weight(y: BarlowTwinsState, args: Any) -> Any:
    return y.encoder[0, 0]


@in_float64
def fig9(*, start: float = 1e-3, full: bool = False) -> "xarray.Dataset":
    """Figure 9: the modewise losses, and where gradient descent on each ends, for a mode of gamma = 1, over the learning rate.

    Beside it a mode of gamma = -1/2 from s = 1/2, which should go to 0.

    Args:
        start: s(0), in (0, 0.1].
        full: 600 learning rates instead of 120.

    Returns:
        Dataset over loss: values over sbar, as printed and by the library; curvature either side of the minimum; the force near
        zero; the last 32 of many steps over the learning rate, NaN where the run diverged.

    Raises:
        ValueError: start out of range.

    Source: Simon 2023, Figure 9, appendix G.2, G.3.
    """
    import xarray

    require_positive("start", start)
    if start > 0.1:
        raise ValueError(f"Argument `start` must be at most 0.1, a small one, but is {start}.")
    args = barlow_twins_arguments_from_gamma(np.ones((1, 1)))
    place = np.linspace(-1.6, 1.6, 321)
    # 0.24, 0.26, 0.5, 1 are among them
    rates = np.linspace(0.01, 1.2, 120) if not full else np.linspace(0.002, 1.2, 600)
    last = np.arange(3000, 3032)
    y0 = BarlowTwinsState(jnp.full((len(rates), 1, 1), start))
    negative = barlow_twins_arguments_from_gamma(np.full((1, 1), -0.5))
    negative_y0 = BarlowTwinsState(jnp.full((len(rates), 1, 1), 0.5))
    measured: dict[str, list[np.ndarray]] = {"loss": [], "curvature": [], "force": [], "end": [], "negative_end": []}
    beside, near = np.array([1 - 1e-6, 1 + 1e-6]), np.array([1e-3, 1e-6, 1e-9])
    points = jnp.asarray(np.concatenate([place, beside, near]))
    for flow in (FLOWS[name] for name in FIGURE_9):
        loss, speed = (
            np.asarray(one) for one in landscape(flow, getattr(flow, "loss", barlow_twins_loss), points, args)
        )
        measured["loss"].append(loss[:-5])
        measured["curvature"].append(speed[-5:-3] / (1 - beside))
        measured["force"].append(speed[-3:])
        run = train(flow, y0, args, last, learning_rate=rates, observe=_only_weight)
        measured["end"].append(np.asarray(run.ys))
        run = train(flow, negative_y0, negative, last, learning_rate=rates, observe=_only_weight)
        measured["negative_end"].append(np.asarray(run.ys))
    s = np.abs(place)
    printed = [(1 - s**2) ** 2, (1 - s) ** 2, (1 - np.minimum(s**2, 1)) ** 2, (1 - s**2) ** 4]
    dims = {
        "loss": ("name", "place"),
        "curvature": ("name", "side"),
        "force": ("name", "near"),
        "end": ("name", "rate", "step"),
        "negative_end": ("name", "rate", "step"),
    }
    labels = {"loss": "loss", "curvature": "curvature beside sbar = 1", "force": "speed of s"}
    labels |= {"end": "s at the end, gamma = 1", "negative_end": "s at the end, gamma = -1/2"}
    variables = {name: (dims[name], np.stack(measured[name]), {"long_name": labels[name]}) for name in dims}
    variables["printed"] = (dims["loss"], np.stack(printed), {"long_name": "loss as a function of sbar"})
    coords = {"name": list(FIGURE_9), "place": ("place", place, {"long_name": "sbar"}), "side": ["below", "above"]}
    coords |= {"near": near, "rate": ("rate", rates, {"long_name": "learning rate"}), "step": last}
    dataset = xarray.Dataset(variables, coords)
    return with_checks(dataset, claims.fig9_checks(dataset), paper=PAPERS["simon2023"], figure="9")


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
    """What became of a run: "all learned", "above 1", "cycles", "unfinished" or "diverged".

    `values` (2, d): the eigenvalues of C after the last two steps.
    """
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
    pairs = 500 if full else pairs
    moments, features, y0, start = photograph_problem(pairs, patch_size, dimension, alpha, key)
    args = barlow_twins_arguments(moments, ridge=ridge)
    gammas, d = np.asarray(moments.gammas), int(dimension)
    s0, own = np.asarray(start.singular_values), gammas[:d]
    variances = np.diagonal(np.asarray(moments.covariance))[:d]
    unit = 1 / (4 * float(own[0]))
    ts = np.geomspace(1e-2 * unit, 1e3 / own[-1], 4000)
    theory_values = closed_forms(s0, own, variances, ridge, ts)
    theory_time = np.stack([_time_to_all(ts, theory_values, level) for level in LEVELS], axis=-1)
    aligned = (start.left * start.singular_values) @ start.features[:d] @ features
    starts = {"aligned": BarlowTwinsState(jnp.asarray(aligned)), "random": y0}
    runs = [("aligned", RATES[0]), *(("random", rate) for rate in RATES)]
    # flow time; the quartic loss would take sixty times that of the squared one
    horizons = 1.2 * np.minimum(theory_time[:, -1], theory_time[0, -1])
    found: dict[str, list[Any]] = {name: [] for name in ("steps", "values", "status", "final")}
    for flow, horizon in zip(FLOWS.values(), horizons, strict=True):
        for kind, rate in runs:
            saved = _saved_steps(horizon / (rate * unit))
            run = train_in_eigenbasis(
                flow, starts[kind], args, saved, learning_rate=rate * unit, observe=correlation_eigenvalues
            )
            for name, value in zip(found, (saved, run.ys, run.status, run.final.encoder), strict=True):
                found[name].append(np.asarray(value))
    shape = (len(FLOWS), len(runs))
    steps, values, status, final = (np.reshape(one, (*shape, *one[0].shape)) for one in found.values())
    count = np.stack([_time_to_all(steps, values, level) for level in LEVELS], axis=-1)
    final = np.where((status == Status.ok)[..., None, None], final, np.nan)
    rows = np.linalg.qr(final.mT)[0].mT
    spanned = ((rows @ features[:d].T) ** 2).sum(axis=(-2, -1)) / d
    size = (final**2).sum(axis=(-2, -1)) / float(least_squared_norm(own, d))
    ends = [[outcome(int(status[i, j]), values[i, j, -2:]) for j in range(len(runs))] for i in range(len(FLOWS))]
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
    coords = {"loss": list(FLOWS), "start": ("run", [kind for kind, _ in runs]), "level": list(LEVELS)}
    coords |= {
        "rate": ("run", [rate for _, rate in runs], {"long_name": "learning rate x 4 gamma_1"}),
        "step": ((*run_dims, "save"), steps),
    }
    coords |= {
        "time": ("time", ts),
        "mode": np.arange(1, d + 1),
        "gamma": ("mode", own),
        "spectrum": ("feature", gammas),
    }
    attrs = {"ridge": ridge, "unit": unit, "negative": int((gammas < 0).sum()), "pairs": int(pairs)}
    dataset = xarray.Dataset(variables, coords, attrs)
    return with_checks(dataset, claims.speed_up_checks(dataset), paper=PAPERS["simon2023"], section="appendix G")


def _saved_steps(last: float) -> np.ndarray:
    """A geometric series of whole numbers, always as many, up to the last step and the one before it."""
    last = max(int(last), 2 * SAVES)
    saved = np.maximum(np.geomspace(1, last, SAVES).astype(int), np.arange(1, SAVES + 1))
    saved[-2:] = last - 1, last
    return saved


def _time_to_all(ts: np.ndarray, values: np.ndarray, level: float) -> np.ndarray:
    """When the smallest of the eigenvalues (..., time, mode) passes the level."""
    return first_crossings(ts, values.min(axis=-1, keepdims=True), level)[..., 0]


__all__ = ["fig9", "landscape", "speed_up"]
