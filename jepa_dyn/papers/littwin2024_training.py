"""Figures 1 and 5 of Littwin et al. 2024: deep linear nets trained by minibatch descent on Gaussian data from a generic start.

x, y jointly Gaussian with one (lam, rho) per coordinate, width d, depth 5, batches of 1000 drawn anew at each iteration. The paper
prints neither the learning rate, nor the values of lam and rho, nor what "default scale" is (appendix A.1): ours are W_ij ~ N(0,
1/(3d)), the variance of the usual default of linear layers, and options, chosen where the claims can be seen. A batch is drawn
as its second moments (Wishart), which is all that a linear net sees of it.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require_fraction, require_positive
from jepa_dyn._progress import progress_bar
from jepa_dyn.flows import (
    DeepLinearArguments,
    DeepLinearState,
    deep_jepa,
    deep_linear_arguments,
    deep_mae,
    encoder_matrix,
    gaussian_initialisation,
    layer_mask,
)
from jepa_dyn.metrics import projections, rank_agreement
from jepa_dyn.moments import WishartBatches, moments_from_spectrum
from jepa_dyn.papers._figure import PAPERS, Check, with_checks
from jepa_dyn.parameters import OBJECTIVE_NAMES, OBJECTIVES
from jepa_dyn.plots._style import tidy
from jepa_dyn.solve import train
from jepa_dyn.status import Status

if TYPE_CHECKING:
    import xarray

FLOWS = {"jepa": deep_jepa, "mae": deep_mae}
DEPTH, BATCH, RUNS, NUM_SAVES = 5, 1000, 6, 80
PANELS = {"lam": "λ rises", "rho": "ρ rises", "together": "both rise", "opposite": "ρ falls as λ rises"}
GAIN = 3**-0.5  # weights uniform in +-1/sqrt(inputs), the usual default, have variance 1 / (3 inputs)
# Kendall's tau between ||W e_i|| and a parameter from which learning counts as ordered by it: 2 s.d. of no order at d = 24
ORDERED = 0.3


def _held(y: DeepLinearState, args: DeepLinearArguments) -> Any:
    return projections(encoder_matrix(y, args))


def _train_panels(
    lam: np.ndarray, rho: np.ndarray, *, iterations: int, learning_rate: float, gain: float, key: int
) -> dict[str, np.ndarray]:
    """||W e_i|| over (objective, panel, run, step, feature) and what became of each run; `lam`, `rho`: (panel, feature)."""
    panels, d = lam.shape
    mask = layer_mask(DEPTH)
    laws = [moments_from_spectrum(*one) for one in zip(lam, rho, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(deep_linear_arguments(law, mask) for law in laws))
    args = jax.tree.map(lambda leaf: jnp.repeat(leaf, RUNS, axis=0), stacked)
    start_key, batch_key = jax.random.split(jax.random.key(key))
    # starts and random numbers of the batches are shared by panels and objectives: what differs is the data alone
    starts = jax.vmap(lambda k: gaussian_initialisation(k, mask, d, gain=gain))(jax.random.split(start_key, RUNS))
    y0 = jax.tree.map(lambda leaf: jnp.tile(leaf, (panels, *(1,) * (leaf.ndim - 1))), starts)
    keys = jnp.tile(jax.random.split(batch_key, RUNS), panels)
    # the first features are learned within hundreds of iterations, the last after thousands
    steps = np.unique(np.round(np.geomspace(1, iterations + 1, NUM_SAVES)).astype(int) - 1)
    collected: dict[str, list[np.ndarray]] = {"projection": [], "status": [], "failed_at": []}
    for objective in progress_bar(OBJECTIVES, len(OBJECTIVES), unit="objectives"):
        runs = train(
            FLOWS[objective],
            y0,
            args,
            steps,
            learning_rate=learning_rate,
            batches=WishartBatches(BATCH),
            key=keys,
            observe=_held,
        )
        collected["projection"].append(np.asarray(runs.ys).reshape(panels, RUNS, steps.size, d))
        collected["status"].append(np.asarray(runs.status).reshape(panels, RUNS))
        collected["failed_at"].append(np.asarray(runs.failed_at).reshape(panels, RUNS))
    return {name: np.stack(values) for name, values in collected.items()} | {"step": steps}


def _trained(
    parameters: dict[str, tuple[np.ndarray, np.ndarray]], *, full: bool, learning_rate: float, gain: float, key: int
) -> "xarray.Dataset":
    """The dataset of either figure; `parameters` gives lam and rho of each panel."""
    import xarray

    require_positive("learning_rate", learning_rate)
    require_positive("gain", gain)
    lam, rho = (np.stack(values).astype(np.float32) for values in zip(*parameters.values(), strict=True))
    found = _train_panels(lam, rho, iterations=5000 if full else 6000, learning_rate=learning_rate, gain=gain, key=key)
    run = ("objective", "panel", "run")
    variables = {
        "projection": ((*run, "step", "feature"), found["projection"], {"long_name": "projection ||W e_i||"}),
        "status": (run, found["status"], {"long_name": "outcome, see jepa_dyn.Status"}),
        "failed_at": (run, found["failed_at"], {"long_name": "first iteration that failed, -1 if none"}),
    }
    coords = {
        "objective": list(OBJECTIVES),
        "panel": list(parameters),
        "step": ("step", found["step"], {"long_name": "iteration"}),
        "lam": (("panel", "feature"), lam, {"long_name": "covariance λ"}),
        "rho": (("panel", "feature"), rho, {"long_name": "regression coefficient ρ"}),
    }
    settings = {"depth": DEPTH, "batch": BATCH, "learning_rate": learning_rate, "gain": gain}
    return xarray.Dataset(variables, coords, settings | {"paper": PAPERS["littwin2024"]})


def _ramps(full: bool, lowest_lam: float, lowest_rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lam rising to 1, rho rising to 1, ones) over the d features: d = 100 as in the paper, or 24."""
    rising = np.linspace(0, 1, 100 if full else 24)
    return lowest_lam + (1 - lowest_lam) * rising, lowest_rho + (1 - lowest_rho) * rising, np.ones_like(rising)


def _require_ramps(lowest_lam: float, lowest_rho: float) -> None:
    require_fraction("lowest_lam", lowest_lam)
    require_fraction("lowest_rho", lowest_rho)


def fig1(
    *,
    lowest_lam: float = 0.2,
    lowest_rho: float = 0.7,
    learning_rate: float = 0.02,
    gain: float = GAIN,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 1: what JEPA and MAE nets learn first as lam and rho rise together, and as rho falls while lam rises.

    Args:
        lowest_lam, lowest_rho: the smallest of each, in (0, 1); the largest is 1. Features with rho^5 below the start would
            not grow under JEPA.
        learning_rate: of plain minibatch descent, > 0.
        gain: the start is W_ij ~ N(0, gain^2 / d), > 0.
        full: width 100 and 5000 iterations, as in the paper, instead of 24 and 6000.
        key: seed of starts and batches.

    Returns:
        Dataset over (objective, panel, run, step, feature); a run that diverges has its status and NaN from there on.

    Raises:
        ValueError: an option outside its range.

    Source: Littwin 2024, Figure 1, section 3, appendix A.1.
    """
    _require_ramps(lowest_lam, lowest_rho)
    lam, rho, _ = _ramps(full, lowest_lam, lowest_rho)
    dataset = _trained(
        {"together": (lam, rho), "opposite": (lam, rho[::-1])},
        full=full,
        learning_rate=learning_rate,
        gain=gain,
        key=key,
    )
    return with_checks(dataset, [_all_ran(dataset), *_inversion(dataset)], figure="1")


def fig5(
    *,
    lowest_lam: float = 0.2,
    lowest_rho: float = 0.7,
    learning_rate: float = 0.02,
    gain: float = GAIN,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 5: as Figure 1, and with one of lam and rho equal for all features.

    Arguments, result and errors: as `fig1`.

    Source: Littwin 2024, Figure 5, section 5, appendix A.1.
    """
    _require_ramps(lowest_lam, lowest_rho)
    lam, rho, ones = _ramps(full, lowest_lam, lowest_rho)
    dataset = _trained(
        {
            "lam": (lam, ones),
            "rho": (ones, rho),
            "together": (lam, rho),
            "opposite": (lam, rho[::-1]),
        },
        full=full,
        learning_rate=learning_rate,
        gain=gain,
        key=key,
    )
    made = [_all_ran(dataset), *_one_varies(dataset), *_inversion(dataset)]
    return with_checks(dataset, made, figure="5")


def halfway(dataset: "xarray.Dataset", objective: str, panel: str) -> np.ndarray:
    """||W e_i||, root mean square over the runs, when their sum has gone half of the way from its start to its end; (feature,)."""
    one = dataset.projection.sel(objective=objective, panel=panel)
    size = np.sqrt((one**2).mean("run")).transpose("step", "feature").values
    total = size.sum(axis=1)
    return size[int(np.argmax(np.abs(total - total[0]) >= np.abs(total[-1] - total[0]) / 2))]


def order_by(dataset: "xarray.Dataset", objective: str, panel: str, parameter: str) -> float:
    """Kendall's tau between ||W e_i|| halfway through learning and a parameter; +1: the largest are learned first."""
    value = dataset[parameter].sel(panel=panel).values
    return float(rank_agreement(halfway(dataset, objective, panel), value))


def separation(dataset: "xarray.Dataset", objective: str, panel: str) -> float:
    """Mean ||W e_i|| of the last quarter of the features over that of the first, halfway through learning."""
    size = halfway(dataset, objective, panel)
    quarter = max(1, size.size // 4)
    return float(size[-quarter:].mean() / size[:quarter].mean())


def _all_ran(dataset: "xarray.Dataset") -> Check:
    failed = int((dataset.status != Status.ok).sum())
    return Check(
        "All runs stay finite at this learning rate",
        "appendix A.1",
        "5000 iterations, learning rate not printed",
        f"{failed} of {dataset.status.size} runs failed at learning rate {dataset.attrs['learning_rate']:g}",
        True,
        failed == 0,
    )


def _ordered_by(dataset: "xarray.Dataset", claim: str, source: str, panel: str, wanted: dict[str, str]) -> Check:
    """Whether each objective's order in a panel is that of the parameter which `wanted` names."""
    found = {o: order_by(dataset, o, panel, parameter) for o, parameter in wanted.items()}
    symbols = {"lam": "λ", "rho": "ρ"}
    return Check(
        claim,
        source,
        f"Kendall's tau of ||W e_i|| halfway beyond {ORDERED:g}",
        "tau "
        + ", ".join(
            f"{OBJECTIVE_NAMES[o]} {found[o]:+.2f} with {symbols[parameter]}" for o, parameter in wanted.items()
        ),
        True,
        min(found.values()) > ORDERED,
    )


def _inversion(dataset: "xarray.Dataset") -> list[Check]:
    where = f"Fig. {'1' if dataset.sizes['panel'] == 2 else '5'}, caption"
    return [
        _ordered_by(
            dataset,
            "λ and ρ rise together: both objectives learn the strongest features first",
            where,
            "together",
            dict.fromkeys(OBJECTIVES, "lam"),
        ),
        _ordered_by(dataset, "ρ falls while λ rises: MAE keeps its order, by λ", where, "opposite", {"mae": "lam"}),
        _ordered_by(
            dataset, "ρ falls while λ rises: JEPA reverses its order, by ρ", where, "opposite", {"jepa": "rho"}
        ),
    ]


def _one_varies(dataset: "xarray.Dataset") -> list[Check]:
    where = "Fig. 5, caption"
    apart = {o: separation(dataset, o, "rho") for o in OBJECTIVES}
    return [
        _ordered_by(dataset, "Equal ρ: both objectives learn by λ", where, "lam", dict.fromkeys(OBJECTIVES, "lam")),
        _ordered_by(dataset, "Equal λ: JEPA learns by ρ", where, "rho", {"jepa": "rho"}),
        Check(
            "Equal λ: ρ separates JEPA's features at least 3 times as far as MAE's",
            where,
            "order dictated by ρ for JEPA, by λ for MAE",
            "||W e_i||, strongest over weakest quarter: "
            + ", ".join(f"{OBJECTIVE_NAMES[o]} {apart[o]:.3g}" for o in OBJECTIVES),
            True,
            apart["jepa"] > 3 * apart["mae"],
            "MAE's features end at ρ^(5/6) (9), which alone makes some difference",
        ),
    ]


def plot_training(dataset: "xarray.Dataset") -> Any:
    """One row per panel: parameters of the features, ||W e_i|| over training under MAE and JEPA. Returns the figure."""
    from matplotlib import colormaps, pyplot
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    panels, steps = dataset.panel.values, dataset.step.values
    shown = np.linspace(0, steps.size - 1, 12).round().astype(int)
    colours, scale = colormaps["viridis_r"], Normalize(0, steps[-1])
    figure, axes = pyplot.subplots(
        len(panels), 3, figsize=(10, 0.6 + 2.4 * len(panels)), layout="constrained", squeeze=False
    )
    feature = np.arange(1, dataset.sizes["feature"] + 1)
    for row, panel in enumerate(panels):
        one = dataset.sel(panel=panel)
        for name, text, style in (("lam", "λ", "-"), ("rho", "ρ", "--")):
            axes[row, 0].plot(feature, one[name].values, style, color="k", label=text)
        axes[row, 0].set_ylim(0, 1.05)
        axes[row, 0].set_ylabel("feature parameters")
        axes[row, 0].legend(frameon=False, fontsize=9, loc="lower right")
        for column, objective in enumerate(("mae", "jepa"), start=1):
            mean = one.projection.sel(objective=objective).mean("run").values
            for index in shown:
                axes[row, column].plot(feature, mean[index], color=colours(scale(steps[index])), linewidth=1.4)
            axes[row, column].set_ylabel(r"projection  $\|W e_i\|$")
            axes[row, column].set_ylim(bottom=0)
        for column, text in enumerate((PANELS[panel], OBJECTIVE_NAMES["mae"], OBJECTIVE_NAMES["jepa"])):
            axes[row, column].set_title(f"({'abcdefghijkl'[3 * row + column]}) {text}", fontsize=10, loc="left")
            tidy(axes[row, column])
            if row == len(panels) - 1:
                axes[row, column].set_xlabel("feature i")
    bar = ScalarMappable(scale, colours)
    figure.colorbar(bar, ax=axes, label="iteration (minibatch descent)", pad=0.01)
    d, runs = dataset.sizes["feature"], dataset.sizes["run"]
    figure.suptitle(
        f"Deep linear nets from a Gaussian start: L = {dataset.attrs['depth']}, d = {d}, mean of {runs} runs",
        fontsize=11,
    )
    return figure
