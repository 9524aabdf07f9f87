"""Drawings of the figures of Halvagal et al. 2023, from their datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import CYCLE, sequential, tidy

if TYPE_CHECKING:
    import xarray

TITLES = {
    "euclidean": "Euclidean: to $1/(1+\\sigma^2)$",
    "euclidean_no_stop_gradient": "no stop gradient: collapse",
    "euclidean_no_predictor": "no predictor: decay as $e^{-2\\sigma^2 t}$",
    "euclidean_iso": "IsoLoss: small ones catch up",
    "cosine": "cosine: to equal values",
    "cosine_no_stop_gradient": "no stop gradient: rank collapses",
    "cosine_no_predictor": "no predictor: slowly nearer",
    "cosine_iso": "IsoLoss: small ones catch up",
}
ORDER = ("", "_no_stop_gradient", "_no_predictor", "_iso")


def mode_colours(count: int) -> list:
    """One colour per mode, darker for larger eigenvalues."""
    return [sequential()(x) for x in np.linspace(0.15, 1, count)]


def _eigenvalues(ax: Any, dataset: "xarray.Dataset", row: str, floor: float) -> None:
    """Eigenvalues of the first network (thick), and of its modes (dashed)."""
    one = dataset.sel(row=row).isel(seed=0)
    t, colours = one.t.values, mode_colours(dataset.sizes["mode"])
    found, exact = (np.maximum(one[name].values, floor / 10) for name in ("simulated", "predicted"))
    for m, colour in enumerate(colours):
        ax.plot(t, found[:, m], color=colour, linewidth=2.6, alpha=0.75, solid_capstyle="round")
        ax.plot(t, exact[:, m], color="k", linewidth=0.9, linestyle=(0, (4, 3)))
    trace = one.simulated.sum("mode").values
    ax.plot(t, np.maximum(trace, floor / 10), color="#D55E00", linewidth=1.4)
    ax.set_yscale("log")
    ax.set_xlim(0, t[-1])


def plot_table1(dataset: "xarray.Dataset") -> Any:
    """Eigenvalue paths of the first start in eight panels, network and modes, with the trace. Returns the figure."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    figure, axes = pyplot.subplots(2, 4, figsize=(14, 6.4), layout="constrained", sharey=True)
    floor = 1e-3
    for i, kind in enumerate(("euclidean", "cosine")):
        for k, suffix in enumerate(ORDER):
            ax, row = axes[i, k], kind + suffix
            _eigenvalues(ax, dataset, row, floor)
            ax.set_title(f"({'abcdefgh'[4 * i + k]}) {TITLES[row]}", fontsize=10, loc="left")
            if kind == "euclidean":
                ax.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
            ax.set_ylim(floor, 3 * float(dataset.simulated.isel(time=0).sum("mode").max()))
            tidy(ax)
        axes[i, 0].set_ylabel("eigenvalues of $C_z$")
    for ax in axes[1]:
        ax.set_xlabel("time")
    handles = [
        Line2D([], [], color=mode_colours(5)[2], linewidth=2.6, label="network on drawn pairs"),
        Line2D([], [], color="k", linewidth=0.9, linestyle=(0, (4, 3)), label="exact dynamics of the modes"),
        Line2D([], [], color="#D55E00", linewidth=1.4, label="trace"),
    ]
    figure.legend(handles=handles, frameon=False, ncols=3, loc="outside lower center")
    return figure


COLUMNS = (
    ("_no_stop_gradient", "no stop gradient"),
    ("_no_predictor", "no predictor"),
    ("", "BYOL / SimSiam"),
    ("_iso", "IsoLoss"),
)


def _trajectories(ax: Any, one: "xarray.Dataset", low: float, limit: float) -> None:
    """Representations at start and end, and the paths of some."""
    paths = one.representation.transpose("time", "point", "output").values
    ax.plot(paths[:, :60, 0], paths[:, :60, 1], color="#56B4E9", linewidth=0.6, alpha=0.6)
    ax.plot(*paths[0].T, ".", color="0.6", markersize=2.5)
    ax.plot(*paths[-1].T, ".", color="#D55E00", markersize=4)
    ax.set_aspect("equal")
    ax.set_xlim(low, limit)
    ax.set_ylim(low, limit)


def plot_fig2(dataset: "xarray.Dataset") -> Any:
    """One column per loss; representations (top) and eigenvalues (below) for each distance. Returns the figure.

    Figure 6 has the eigenvalues of a linear network beside them.
    """
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    figure, axes = pyplot.subplots(
        4, 4, figsize=(12.5, 11.5), layout="constrained", height_ratios=[1.25, 0.8, 1.25, 0.8]
    )
    linear = "predicted" in dataset
    limit = 1.02 * float(np.abs(dataset.representation.isel(time=0)).max())
    low = -0.04 * limit if float(dataset.representation.min()) >= 0 else -limit
    colours = mode_colours(dataset.sizes["mode"])
    top = 1.15 * float(dataset.eigenvalue.isel(time=0).max())
    for i, kind in enumerate(("euclidean", "cosine")):
        for k, (suffix, text) in enumerate(COLUMNS):
            one = dataset.sel(row=kind + suffix)
            above, below = axes[2 * i, k], axes[2 * i + 1, k]
            _trajectories(above, one, low, limit)
            above.set_title(f"({'abcd'[k]}) {text}, {kind}", fontsize=10, loc="left")
            for m, colour in enumerate(colours):
                below.plot(one.t.values, one.eigenvalue.values[:, m], color=colour, linewidth=1.6)
                if linear:
                    below.plot(
                        one.t.values, one.predicted.values[:, m], color="k", linewidth=0.7, linestyle=(0, (4, 3))
                    )
            below.set_xlim(0, float(one.t.max()))
            below.set_ylim(0, max(top, 1.05 * float(one.eigenvalue.max())))
            below.set_xlabel("time")
            if kind == "euclidean":
                below.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
            tidy(above)
            tidy(below)
        axes[2 * i, 0].set_ylabel("$z_2$, two outputs")
        axes[2 * i + 1, 0].set_ylabel(f"eigenvalues, M = {dataset.sizes['mode']}")
    handles = [
        Line2D([], [], color="0.6", marker=".", linestyle="", label="representations at the start"),
        Line2D([], [], color="#56B4E9", linewidth=1, label="paths of some"),
        Line2D([], [], color="#D55E00", marker=".", linestyle="", label="at the end"),
        Line2D([], [], color=colours[-1], linewidth=1.6, label="eigenvalues of $C_z$, one line each"),
    ]
    if linear:
        handles.append(Line2D([], [], color="k", linewidth=0.7, linestyle=(0, (4, 3)), label="of a linear network"))
    figure.legend(handles=handles, frameon=False, ncols=len(handles), loc="outside lower center")
    return figure


def plot_fig4(dataset: "xarray.Dataset") -> Any:
    """Alignment over time, one line per eigenvector (top), and the eigenvalues (below), first start. Returns the figure."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.4), layout="constrained", sharex="col", height_ratios=[1.2, 1])
    colours = mode_colours(dataset.sizes["mode"])[::-1]
    for k, distance in enumerate(dataset.distance.values):
        one = dataset.sel(distance=distance).isel(seed=0)
        t, alive = one.t.values, one.eigenvalue.values[-1] > 0.01 * one.eigenvalue.values[-1, 0]
        for m, colour in enumerate(colours):
            style = "-" if alive[m] else (0, (2, 2))
            for ax, name in ((axes[0, k], "alignment"), (axes[1, k], "eigenvalue")):
                ax.plot(t[1:], one[name].values[1:, m], color=colour, linestyle=style, linewidth=1.7)
        axes[0, k].set_title(f"({'ab'[k]}) {distance}", fontsize=10, loc="left")
        axes[0, k].set_ylim(-1.03, 1.03)
        axes[1, k].set_yscale("log")
        axes[1, k].set_ylim(1e-4, 5)
        axes[1, k].set_xscale("log")
        axes[1, k].set_xlim(t[1], t[-1])
        axes[1, k].set_xlabel("time")
        for ax in axes[:, k]:
            tidy(ax)
    axes[0, 0].set_ylabel("$\\cos(u_m, W_P u_m)$")
    axes[1, 0].set_ylabel("eigenvalues of $C_z$")
    handles = [
        Line2D([], [], color=colours[0], linewidth=1.7, label="largest eigenvalue"),
        Line2D([], [], color=colours[-1], linewidth=1.7, label="smallest"),
        Line2D([], [], color="0.4", linestyle=(0, (2, 2)), linewidth=1.7, label="collapsed at the end"),
    ]
    figure.legend(handles=handles, frameon=False, ncols=3, loc="outside lower center")
    return figure


def plot_fig5(dataset: "xarray.Dataset") -> Any:
    """Both eigenvalues over time, one colour per start, network and modes, one panel per distance. Returns the figure."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    for k, distance in enumerate(dataset.distance.values):
        ax, one = axes[k], dataset.sel(distance=distance)
        t = one.t.values
        for i in range(dataset.sizes["start"]):
            run = one.isel(start=i)
            ax.plot(t, run.simulated.values, color=CYCLE[i], linewidth=2.8, alpha=0.7)
            ax.plot(t, run.predicted.values, color="k", linewidth=0.9, linestyle=(0, (4, 3)))
            if distance == "cosine":
                ax.axhline(float(run.simulated.isel(time=0).mean()), color=CYCLE[i], linewidth=0.9, linestyle=":")
        if distance == "euclidean":
            ax.axhline(1, color="0.5", linewidth=0.9, linestyle=":")
        ax.set_title(f"({'ab'[k]}) {distance}", fontsize=10, loc="left")
        ax.set_xlim(0, t[-1])
        ax.set_ylim(bottom=0)
        ax.set_xlabel("time")
        tidy(ax)
    axes[0].set_ylabel("eigenvalues of $C_z$, two outputs")
    handles = [
        Line2D([], [], color=CYCLE[i], linewidth=2.8, alpha=0.7, label=f"start {i + 1}")
        for i in range(dataset.sizes["start"])
    ]
    handles += [
        Line2D([], [], color="k", linewidth=0.9, linestyle=(0, (4, 3)), label="exact dynamics of the modes"),
        Line2D([], [], color="0.4", linewidth=0.9, linestyle=":", label="1, or the mean at the start"),
    ]
    figure.legend(handles=handles, frameon=False, ncols=5, loc="outside lower center")
    return figure
