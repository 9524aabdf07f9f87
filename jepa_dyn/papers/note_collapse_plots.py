"""Drawings of the note on collapse, from their datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.metrics import Collapse
from jepa_dyn.plots._style import CYCLE, tidy

if TYPE_CHECKING:
    import xarray

KIND_COLOURS = {"none": CYCLE[2], "dimensional": CYCLE[4], "complete": CYCLE[1], "unknown": "0.8"}
FLOOR = 1e-6


def plot_collapse_zoo(dataset: "xarray.Dataset") -> Any:
    """One panel per row: singular values over time, theory dashed; the ends of the Gaussian starts as a bar. Returns the figure."""
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    columns = 5
    lines = -(-dataset.sizes["row"] // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(3.1 * columns, 2.9 * lines), layout="constrained", sharex=True, sharey=True
    )
    times = dataset.time.values
    for ax, i in zip(axes.flat, dataset.row.values, strict=False):
        row = dataset.sel(row=i)
        for mode in range(dataset.sizes["mode"]):
            size, theory = row.singular_value.isel(mode=mode).values, row.singular_value_theory.isel(mode=mode).values
            ax.plot(times, np.where(size > FLOOR, size, np.nan), color=CYCLE[mode], linewidth=2.4, alpha=0.55)
            ax.plot(times, np.where(theory > FLOOR, theory, np.nan), "--", color="k", linewidth=0.9)
            if np.isnan(theory).all() and row.end_theory[mode] > 0:
                ax.plot(times[-1], np.sqrt(row.end_theory[mode]), "k<", markersize=5, clip_on=False)
        kind = Collapse(int(row.code)).name
        ax.set_title(f"{row.name.item()}\n{row.views.item()} views", fontsize=9, loc="left")
        ax.text(0.03, 0.04, _verdict(kind), transform=ax.transAxes, fontsize=9, color=KIND_COLOURS[kind], weight="bold")
        _ends(ax, row)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(FLOOR, 50)
        ax.set_xlim(times[1], times[-1])
        tidy(ax)
    for ax in axes.flat[dataset.sizes["row"] :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("singular value $s_k$")
    for ax in axes[-1]:
        ax.set_xlabel("gradient-flow time")
        ax.tick_params(labelbottom=True)
    figure.suptitle(
        "Linear encoders, three modes (colours, the most correlated first): simulation (wide), closed form (dashed) or limit (<); "
        "bars: Gaussian starts by their end",
        fontsize=11,
    )
    handles = [Patch(color=colour) for colour in KIND_COLOURS.values()]
    words = [_verdict(kind) for kind in KIND_COLOURS]
    seen = [i for i, kind in enumerate(KIND_COLOURS) if kind != "unknown" or int(dataset.ends_of.sel(kind=kind).sum())]
    figure.legend(
        [handles[i] for i in seen], [words[i] for i in seen], frameon=False, ncols=4, loc="outside lower center"
    )
    return figure


def _verdict(kind: str) -> str:
    return {"none": "no collapse", "unknown": "unknown"}.get(kind, f"{kind} collapse")


def _ends(ax: Any, row: "xarray.Dataset") -> None:
    """A bar at the top: shares of the Gaussian starts by kind."""
    total, left = int(row.ends_of.sum()), 0.0
    for kind, colour in KIND_COLOURS.items():
        share = int(row.ends_of.sel(kind=kind)) / total
        if share > 0:
            ax.barh(0.97, share, left=left, height=0.05, color=colour, transform=ax.transAxes, zorder=3)
            left += share
