"""Simon et al. 2023, "On the stepwise nature of self-supervised learning": the linear model (Figures 1 A and B, 6, 8, 9).

Times are gradient-flow times with the 4 of (6); "time" in the paper's figures is learning rate x step, the same.
"""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require_positive
from jepa_dyn.flows import (
    barlow_twins,
    barlow_twins_arguments,
    barlow_twins_arguments_from_gamma,
    barlow_twins_loss,
    barlow_twins_state,
)
from jepa_dyn.papers import simon2023_checks as claims
from jepa_dyn.papers._figure import PAPERS, Item, in_float64, with_checks
from jepa_dyn.papers.simon2023_data import (
    correlation_eigenvalues,
    first_crossings,
    photograph_problem,
)
from jepa_dyn.papers.simon2023_images import fig3, fig4, fig5
from jepa_dyn.papers.simon2023_images_plots import plot_fig3, plot_fig4, plot_fig5
from jepa_dyn.papers.simon2023_losses import fig9, landscape, speed_up
from jepa_dyn.papers.simon2023_nonlinear import appendix_e, fig2ab
from jepa_dyn.papers.simon2023_nonlinear_plots import plot_appendix_e, plot_fig2ab
from jepa_dyn.papers.simon2023_plots import plot_fig1ab, plot_fig6, plot_fig8, plot_fig9, plot_speed_up
from jepa_dyn.solve import integrate, train_in_eigenbasis
from jepa_dyn.theory import barlow_twins as theory
from jepa_dyn.theory.barlow_twins_alignment import SmallStart, alignment_exponent, rms_singular_values, small_start
from jepa_dyn.theory.barlow_twins_off_diagonal import small_start_amplitudes

if TYPE_CHECKING:
    import xarray

TIME = {"long_name": "time t = learning rate x step"}


def readings_of_19(start: SmallStart, alpha: float) -> dict[str, np.ndarray]:
    """s_j(0) by every reading of (19), and by (21), from the columns u_j = W(0) v_j of the start in the eigenbasis."""
    amplitudes = np.asarray(start.amplitudes)
    k = amplitudes.shape[0]
    u = np.asarray(start.left) @ amplitudes[:, :k]
    squares = (u**2).sum(axis=0)
    raw = [np.linalg.norm(u[:, j] - (u[:, :j] / squares[:j]) @ (u[:, :j].T @ u[:, j])) for j in range(k)]
    return {
        "(19), Gram-Schmidt": np.asarray(start.singular_values),
        "(19), outer products of raw u": np.asarray(raw),
        "(19) as printed": np.abs(1.0 - np.arange(k)) * np.sqrt(squares),
        "(21)": np.asarray(rms_singular_values(alpha, k)),
    }


@in_float64
def fig1ab(
    *,
    pairs: int = 500,
    patch_size: int = 20,
    dimension: int = 10,
    alpha: float = 1e-7,
    learning_rate: float = 5e-5,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 1 A, B: loss and eigenvalues of C under full-batch gradient descent from a small start, beside the theory.

    The theory is Result 4.6: the aligned motion (10) from s_j(0) = R_jj of the start that was drawn; step times are (16).
    Data are crops of photographs where the paper has CIFAR-10; n, m, d, alpha and the learning rate are the paper's.

    Args:
        pairs: n, pairs of crops.
        patch_size: side of the crops in pixels; m = 3 patch_size^2.
        dimension: d, size of the embedding.
        alpha: standard deviation of W(0), > 0.
        learning_rate: step of gradient descent, > 0.
        full: a fifth of the learning rate.
        key: seed of crops and start.

    Returns:
        Dataset over (time, mode): eigenvalues of C and the loss, trained and predicted; when each eigenvalue is half grown, trained
        and by (16) with each reading of (19).

    Raises:
        ValueError: an option out of range, more than n / 2 or m / 2 dimensions.

    Source: Simon 2023, Figure 1 A and B, section 4.4.
    """
    import xarray

    require_positive("learning_rate", learning_rate)
    rate = learning_rate / 5 if full else learning_rate
    moments, _, y0, start = photograph_problem(pairs, patch_size, dimension, alpha, key)
    args = barlow_twins_arguments(moments)
    s0, gammas = np.asarray(start.singular_values), np.asarray(start.gammas)
    own = gammas[: s0.size]
    times = np.asarray(theory.critical_time(s0, own))
    steps = np.unique((np.geomspace(times[0] / 3, 1.3 * times.max(), 800) / rate).astype(int))
    run = train_in_eigenbasis(barlow_twins, y0, args, steps, learning_rate=rate, observe=correlation_eigenvalues)
    run.raise_if_failed()
    ts, values = rate * steps, np.asarray(run.ys)
    predicted = own * np.asarray(theory.singular_value(ts[:, None], s0, own)) ** 2
    readings = readings_of_19(start, alpha)
    taken = [
        np.where(s > 0, theory.small_start_critical_time(np.where(s > 0, s, 1), own), np.inf) for s in readings.values()
    ]
    series = ("time", "mode")
    variables = {
        "eigenvalue": (series, values, {"long_name": "eigenvalue of C"}),
        "predicted_eigenvalue": (series, predicted, {"long_name": "eigenvalue of C, (10)"}),
        "loss": ("time", ((1 - values) ** 2).sum(axis=1), {"long_name": "loss"}),
        "predicted_loss": ("time", np.asarray(theory.aligned_loss(ts, s0, own)), {"long_name": "loss, (14)"}),
        "staircase": ("time", np.asarray(theory.staircase_loss(ts, s0, own)), {"long_name": "loss, (20)"}),
        "half_time": ("mode", first_crossings(ts, values, 0.5), TIME),
        "predicted_time": (("reading", "mode"), np.stack(taken), TIME),
    }  # fmt: skip
    coords = {"time": ("time", ts, TIME), "mode": np.arange(1, s0.size + 1), "gamma": ("mode", own)}
    coords |= {"reading": list(readings), "spectrum": ("feature", gammas)}
    attrs = {"pairs": int(pairs), "inputs": int(y0.encoder.shape[1]), "alpha": alpha, "learning_rate": rate}
    attrs |= {"steps": int(steps[-1]), "exponent": float(alignment_exponent(gammas, s0.size))}
    dataset = xarray.Dataset(variables, coords, attrs)
    return with_checks(dataset, claims.fig1ab_checks(dataset), paper=PAPERS["simon2023"], figure="1 A, B")


def printed_amplitudes(ts: np.ndarray, start: SmallStart) -> np.ndarray:
    """A(t) by (47), (48) as printed: nothing below the diagonal, (time, row, column)."""
    initial, gammas = np.asarray(start.amplitudes), np.asarray(start.gammas)
    own, s0 = gammas[: len(initial)], np.diagonal(initial)
    s = np.asarray(theory.singular_value(ts[:, None], s0, own))
    return initial * (s / s0)[..., None] ** (gammas / own[:, None])


@in_float64
def fig6(*, alpha: float = 1e-9, full: bool = False, key: int = 0) -> "xarray.Dataset":
    """Figure 6: every entry of A(t), d = 3, m = 5, gamma_j = 2^-j, from a random upper triangular start of size alpha.

    Integrated, beside (47), (48) as printed and as corrected (`theory.barlow_twins_off_diagonal`); also at 10^4 and 10^-4 alpha.

    Args:
        alpha: size of the start, in (0, 1e-5].
        full: 1000 saved times instead of 300.
        key: seed of the start.

    Returns:
        Dataset over (start, time, row, column): A(t) by each route; `time` has a row per start.

    Raises:
        ValueError: alpha out of range.

    Source: Simon 2023, Figure 6, appendix C. Times are those of (6), a quarter of the appendix's.
    """
    import xarray

    require_positive("alpha", alpha)
    if alpha > 1e-5:
        raise ValueError(f"Argument `alpha` must be at most 1e-5 (else 10^4 alpha is no small start), but is {alpha}.")
    gammas = 2.0 ** -np.arange(1, 6)
    initial = np.triu(np.random.default_rng(key).normal(size=(3, 5)))
    np.fill_diagonal(initial, np.abs(np.diagonal(initial)))
    args = barlow_twins_arguments_from_gamma(np.diag(gammas))
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("time", "simulated", "printed", "corrected", "aligned")}
    alphas = alpha * np.array([1e4, 1.0, 1e-4])
    for size in alphas:
        start = small_start(size * initial, np.diag(gammas))
        ts = np.linspace(0, 1.6 * float(start.aligned.critical_times()[-1]), 1000 if full else 300)
        run = integrate(barlow_twins, barlow_twins_state(size * initial), args, ts, rtol=1e-10, atol=1e-9 * size)
        run.raise_if_failed()
        turned = np.asarray(start.left).T @ np.asarray(run.ys.encoder) @ np.asarray(start.features).T
        found["time"].append(ts)
        found["simulated"].append(turned)
        found["printed"].append(printed_amplitudes(ts, start))
        found["corrected"].append(np.asarray(small_start_amplitudes(ts, start)))
        found["aligned"].append(np.asarray(start.aligned.singular_values(ts)))
    entry = ("start", "time", "row", "column")
    variables: dict[str, Any] = {
        name: (entry, np.stack(found[name]), {"long_name": f"A(t), {name}"})
        for name in found
        if name not in ("time", "aligned")
    }
    variables["singular_value"] = (("start", "time", "row"), np.stack(found["aligned"]), {"long_name": "s(t), (47)"})
    coords = {"alpha": ("start", alphas), "t": (("start", "time"), np.stack(found["time"]), {"long_name": "time t"})}
    coords |= {"row": np.arange(1, 4), "column": np.arange(1, 6), "gamma": ("column", gammas)}
    dataset = xarray.Dataset(variables, coords, {"exponent": float(alignment_exponent(gammas, 3))})
    return with_checks(dataset, claims.fig6_checks(dataset), paper=PAPERS["simon2023"], figure="6")


def _both_kinds(t: Any, y: dict[str, Any], args: dict[str, Any]) -> dict[str, Any]:
    """Modes of either kind: W, and supervised coefficients with target 1, dcbar/dt = -gamma dL/dcbar, L = (1 - cbar)^2."""
    return {"ssl": barlow_twins(t, y["ssl"], args["ssl"]), "supervised": 2 * args["gammas"] * (1 - y["supervised"])}


def _integrated(gammas: np.ndarray, start: np.ndarray, ts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ts, sbar, cbar) of four modes of either kind from sbar(0) = cbar(0) = `start`."""
    args = {"ssl": barlow_twins_arguments_from_gamma(np.diag(gammas)), "gammas": jnp.asarray(gammas)}
    y0 = {"ssl": barlow_twins_state(np.diag(start / np.sqrt(gammas))), "supervised": jnp.asarray(start)}
    ys: Any = integrate(_both_kinds, y0, args, ts, rtol=1e-10, atol=1e-16).raise_if_failed().ys
    return (
        ts,
        np.diagonal(np.asarray(ys["ssl"].encoder), axis1=1, axis2=2) * np.sqrt(gammas),
        np.asarray(ys["supervised"]),
    )


@in_float64
def fig8(*, start: float = 1e-3, full: bool = False) -> "xarray.Dataset":
    """Figure 8: the landscape of one mode and its descent, self-supervised (A, C) and supervised (B, D), for four gamma.

    Args:
        start: sbar(0) and cbar(0), in (0, 0.1].
        full: 2000 saved times instead of 400.

    Returns:
        Dataset: losses over sbar; trajectories over (time, gamma), integrated and exact; half times over starts.

    Raises:
        ValueError: start out of range.

    Source: Simon 2023, Figure 8, appendix F.
    """
    import xarray

    require_positive("start", start)
    if start > 0.1:
        raise ValueError(f"Argument `start` must be at most 0.1, a small one, but is {start}.")
    gammas, ones = np.array([1.0, 0.5, 0.25, 0.125]), np.ones(4)
    smaller = start * 10.0 ** -np.arange(0, 8, 2)
    s0 = start / np.sqrt(gammas)
    horizons = 1.4 * np.max(theory.critical_time(s0, gammas)), 1.4 * np.max(theory.critical_time(smaller, ones))
    (ts, ssl, supervised), (late, *grown) = (
        _integrated(own, first, np.linspace(0, horizon, 2000 if full else 400))
        for own, first, horizon in zip((gammas, ones), (np.full(4, start), smaller), horizons, strict=True)
    )
    exact = np.asarray(theory.singular_value(ts[:, None], s0, gammas)) * np.sqrt(gammas)
    place = np.linspace(-1.6, 1.6, 321)
    unit = barlow_twins_arguments_from_gamma(np.ones((1, 1)))
    loss, speed = landscape(barlow_twins, barlow_twins_loss, jnp.asarray(place), unit)
    half = np.stack([first_crossings(late, values**2, 0.5) for values in grown])
    path = ("time", "gamma")
    variables = {
        "ssl_loss": ("place", np.asarray(loss), {"long_name": "loss"}),
        "ssl_speed": ("place", np.asarray(speed), {"long_name": "speed of s at gamma = 1"}),
        "supervised_loss": ("place", (1 - place) ** 2, {"long_name": "loss"}),
        "ssl": (path, ssl, {"long_name": "singular value sbar"}),
        "ssl_exact": (path, exact, {"long_name": "singular value sbar, (10)"}),
        "supervised": (path, supervised, {"long_name": "coefficient cbar"}),
        "supervised_exact": (
            path,
            1 - (1 - start) * np.exp(-2 * gammas * ts[:, None]),
            {"long_name": "coefficient cbar"},
        ),
        "half_time": (("kind", "start"), half, {"long_name": "time until sbar^2 = 1/2, gamma = 1"}),
    }
    coords = {"place": ("place", place, {"long_name": "sbar or cbar"}), "time": ("time", ts, {"long_name": "time t"})}
    coords |= {"gamma": gammas, "kind": ["ssl", "supervised"], "start": smaller}
    dataset = xarray.Dataset(variables, coords)
    return with_checks(dataset, claims.fig8_checks(dataset), paper=PAPERS["simon2023"], figure="8")


ITEMS = (
    Item(
        "fig1ab",
        "crops of photographs: loss and eigenvalues one step at a time, beside the theory",
        fig1ab,
        plot_fig1ab,
    ),
    Item("fig6", "every entry of A(t) in the 3 x 5 case, (48) printed and corrected", fig6, plot_fig6),
    Item("fig8", "landscape and descent of one mode, self-supervised and supervised", fig8, plot_fig8),
    Item("fig9", "four modewise losses, and where gradient descent on them ends", fig9, plot_fig9),
    Item(
        "fig2ab",
        "a perceptron: loss and eigenvalues one step at a time, beside the theory of its NTK",
        fig2ab,
        plot_fig2ab,
    ),
    Item("fig3", "three losses on photographs from a usual start: eigenvalues grow past a gap", fig3, plot_fig3),
    Item("fig4", "histograms of those eigenvalues along training: two bands", fig4, plot_fig4),
    Item("fig5", "three losses from a small start: steps of embeddings and hidden layers", fig5, plot_fig5),
    Item(
        "appendix_e",
        "functions learned by two networks beside those predicted from their NTK",
        appendix_e,
        plot_appendix_e,
    ),
    Item("speed_up", "five losses on photographs: time to d modes, and where each fails", speed_up, plot_speed_up),
)
