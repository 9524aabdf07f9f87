"""Drawings of what goes beyond Halvagal et al. 2023: the phase diagram of its losses, IsoLoss on coloured inputs."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.papers.halvagal2023_phase_checks import CLASSES, UNRESOLVED
from jepa_dyn.papers.halvagal2023_plots import mode_colours
from jepa_dyn.plots._style import CYCLE, tidy

if TYPE_CHECKING:
    import xarray

CLASS_COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#000000", "#d9d9d9")
SHORT = {
    "euclidean": "Euclidean",
    "euclidean_no_stop_gradient": "Euclidean,\nno stop gradient",
    "euclidean_iso": "Euclidean,\nIsoLoss",
    "cosine": "cosine",
    "cosine_no_stop_gradient": "cosine,\nno stop gradient",
    "cosine_iso": "cosine,\nIsoLoss",
}


def plot_phase_diagram(dataset: "xarray.Dataset") -> Any:
    """One row per loss, one column per alpha: classes over weight decay and start, without moving-average target.

    A dot: some EMA rate gives another class, where both are resolved. Returns the figure.
    """
    from matplotlib import pyplot
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    losses, alphas = dataset.loss.values, dataset.alpha.values
    decays, ratios = dataset.weight_decay.values, dataset.anisotropy.values
    size = max(8.0, 1.5 * alphas.size + 2.4), 1.25 * losses.size + 1.2
    figure, axes = pyplot.subplots(
        losses.size, alphas.size, figsize=size, layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    colours, norm = ListedColormap(CLASS_COLOURS), BoundaryNorm(np.arange(len(CLASSES) + 1) - 0.5, len(CLASSES))
    order = ("loss", "alpha", "ema_rate", "anisotropy", "weight_decay")
    kind = dataset["class"].transpose(*order).values
    first = int(np.argmax(dataset.ema_rate.values))
    for i, loss in enumerate(losses):
        for k, alpha in enumerate(alphas):
            ax, shown = axes[i, k], kind[i, k, first]
            ax.imshow(shown, cmap=colours, norm=norm, origin="lower", aspect="auto", interpolation="nearest")
            others = ((kind[i, k] != shown) & (kind[i, k] != UNRESOLVED)).any(axis=0) & (shown != UNRESOLVED)
            up, across = np.nonzero(others)
            ax.plot(across, up, "o", color="white", markersize=3)
            ax.spines[:].set_visible(False)
            ax.tick_params(length=2, labelsize=8)
            if i == 0:
                ax.set_title(f"α = {alpha:g}" + (": no predictor" if alpha == 0 else ""), fontsize=9)
        axes[i, 0].set_ylabel(SHORT.get(str(loss), str(loss)), fontsize=9)
    axes[0, 0].set_yticks(*_few(ratios))
    axes[0, 0].set_xticks(*_few(decays))
    for ax in axes[-1]:
        ax.set_xlabel("weight decay", fontsize=9)
    figure.supylabel("largest over smallest eigenvalue at the start", fontsize=9)
    handles: list[Any] = [Patch(color=CLASS_COLOURS[code], label=CLASSES[code]) for code in np.unique(kind)]
    handles.append(
        Line2D([], [], color="0.6", marker="o", linestyle="", markersize=4, label="another class at some EMA rate")
    )
    figure.legend(handles=handles, frameon=False, ncols=3, loc="outside lower center", fontsize=9)
    return figure


def _few(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """At most six ticks of an axis of cells."""
    places = np.unique(np.linspace(0, values.size - 1, min(values.size, 6)).round().astype(int))
    return places, [f"{values[k]:g}" for k in places]


def plot_coloured_inputs(dataset: "xarray.Dataset") -> Any:
    """Eigenvalues of aligned modes over time, one row per loss and one column per kind of data, closed form dashed."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    rows, kinds = dataset.row.values, dataset.data.values
    figure, axes = pyplot.subplots(
        rows.size, kinds.size, figsize=(12.5, 10), layout="constrained", sharex="row", sharey=True, squeeze=False
    )
    colours = mode_colours(dataset.sizes["mode"])
    for i, row in enumerate(rows):
        for k, kind in enumerate(kinds):
            ax, one = axes[i, k], dataset.sel(row=row, data=kind)
            t, by_variance = one.t.values, np.argsort(np.argsort(one.variance.values, kind="stable"), kind="stable")
            for m, place in enumerate(by_variance):
                ax.plot(t, one.modes.values[:, m], color=colours[place], linewidth=2.2, alpha=0.8)
                ax.plot(t, one.theory.values[:, m], color="k", linewidth=0.8, linestyle=(0, (4, 3)))
            ax.plot(t, one.network.values, color=CYCLE[1], linewidth=0.9, linestyle=(0, (1, 1)))
            ax.set_title(f"{row.replace('_', ' ')}, {kind}", fontsize=9, loc="left")
            ax.set_xscale("log")
            ax.set_xlim(t[-1] / 300, t[-1])
            ax.set_yscale("log")
            ax.set_ylim(0.02, 8)
            tidy(ax)
        axes[i, 0].set_ylabel("eigenvalues of $C_z$")
    for ax in axes[-1]:
        ax.set_xlabel("time")
    handles = [
        Line2D([], [], color=colours[-1], linewidth=2.2, label="mode of the largest input variance"),
        Line2D([], [], color=colours[0], linewidth=2.2, label="of the smallest"),
        Line2D([], [], color="k", linewidth=0.8, linestyle=(0, (4, 3)), label="closed form"),
        Line2D([], [], color=CYCLE[1], linewidth=0.9, linestyle=(0, (1, 1)), label="network from a Gaussian start"),
    ]
    figure.legend(handles=handles, frameon=False, ncols=4, loc="outside lower center")
    return figure
