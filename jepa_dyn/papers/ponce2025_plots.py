"""Drawings of the figures of Ponce et al. 2025, from their datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import CYCLE, tidy

if TYPE_CHECKING:
    import xarray

NAMES = {"sg": "SG", "ema": "EMA"}


def plot_fig3(dataset: "xarray.Dataset") -> Any:
    """One row per procedure: the weights of one run over the steps, and all paths in the plane of a. Returns the figure."""
    from matplotlib import pyplot
    from matplotlib.patches import Circle

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 7.6), layout="constrained", width_ratios=[1.25, 1])
    steps = dataset.step.values + 1
    for row, procedure in enumerate(dataset.procedure.values):
        one = dataset.sel(procedure=procedure)
        left, right = axes[row]
        for k in range(2):
            left.plot(steps, one.a.isel(run=0).values[:, k], color=CYCLE[k], label=f"a{k + 1}")
            if procedure == "ema":
                left.plot(steps, one.c.isel(run=0).values[:, k], "--", color=CYCLE[k], label=f"c{k + 1}")
        left.plot(steps, one.B.isel(run=0).values.reshape(len(steps), -1), color="0.6", linewidth=1)
        left.plot([], [], color="0.6", label="entries of B")
        left.set_xscale("log")
        left.set_xlabel(f"steps of the algorithm + 1, learning rate {dataset.attrs['learning_rate']:g}")
        left.set_ylabel("weights of one run")
        left.legend(frameon=False, fontsize=8, ncols=2)
        left.set_title(f"({'ac'[row]}) {NAMES[procedure]}", fontsize=10, loc="left")
        for radius, style in ((dataset.attrs["r1"], ":"), (dataset.attrs["r2"], "-")):
            right.add_patch(Circle((0, 0), radius, fill=False, color="k", linestyle=style, linewidth=1))
        for path in one.a.values:
            right.plot(path[:, 0], path[:, 1], color=CYCLE[1], linewidth=0.9)
            right.plot(*path[0], ".", color="0.5", markersize=4)
        if procedure == "ema":
            for path in one.c.values:
                right.plot(path[:, 0], path[:, 1], color=CYCLE[0], linewidth=0.7)
        right.set_aspect("equal")
        right.set_xlabel(r"$a_1$" + (r" (and $c_1$, blue)" if procedure == "ema" else ""))
        right.set_ylabel(r"$a_2$")
        right.set_title(f"({'bd'[row]}) paths; circles S1 (dotted), S2", fontsize=10, loc="left")
        tidy(left)
        tidy(right)
    settings = dataset.attrs
    figure.suptitle(f"ρ = {settings['rho']:g}, τ = {settings['tau']:g}, λ = {settings['weight_decay']:g}", fontsize=11)
    return figure


def plot_fig4(dataset: "xarray.Dataset") -> Any:
    """E along the paths of SG, E and F along those of EMA. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    steps = dataset.step.values + 1
    for ax, (name, procedure), letter in zip(axes, (("E", "sg"), ("E", "ema"), ("F", "ema")), "abc", strict=True):
        values = dataset[name].sel(procedure=procedure).transpose("run", "step").values
        for path in values:
            rises = np.diff(path).max() > 1e-6 * path.max()
            ax.plot(steps, path, color=CYCLE[1] if rises else CYCLE[0], linewidth=1)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(bottom=1e-5)
        ax.set_xlabel("steps of the algorithm + 1")
        ax.set_ylabel(f"objective {name}")
        ax.set_title(f"({letter}) {NAMES[procedure]}: orange where {name} rises", fontsize=10, loc="left")
        tidy(ax)
    return figure


def plot_trials(dataset: "xarray.Dataset") -> Any:
    """Shares of each reading that end on S2, at the origin or elsewhere, with the printed ones. Returns the figure."""
    from matplotlib import pyplot

    from jepa_dyn.papers.ponce2025_checks import EMA_PRINTED, SG_PRINTED

    figure, ax = pyplot.subplots(figsize=(9, 4.4), layout="constrained")
    places = np.arange(dataset.sizes["variant"])[::-1]
    left = np.zeros(len(places))
    colours = {"S2": CYCLE[0], "origin": "0.75", "S1": CYCLE[3], "diverged": CYCLE[1], "unresolved": CYCLE[4]}
    for end, colour in colours.items():
        share = 100 * dataset.share.sel(end=end).values
        ax.barh(places, share, left=left, color=colour, label=end, height=0.7)
        left += share
    one = dataset.sel(end="S2")
    middle = 100 * one.share.values
    ax.errorbar(
        middle,
        places,
        xerr=[middle - 100 * one.low.values, 100 * one.high.values - middle],
        fmt="none",
        ecolor="k",
        capsize=2,
    )
    for value, text, side in ((SG_PRINTED, "SG, printed ", "right"), (EMA_PRINTED, " EMA, printed", "left")):
        ax.axvline(100 * value, color="k", linestyle="--", linewidth=1)
        ax.text(100 * value, len(places) - 0.35, text, ha=side, va="bottom", fontsize=8)
    ax.set_yticks(places, dataset.variant.values)
    ax.set_xlabel("share of trials (%), 95 % intervals")
    ax.set_xlim(0, 100)
    ax.set_ylim(-0.6, len(places) + 0.1)
    ax.legend(frameon=False, fontsize=8, ncols=5, loc="upper center", bbox_to_anchor=(0.4, -0.12))
    tidy(ax)
    figure.suptitle(
        f"Where {dataset.attrs['trials']:,} random starts end, in eleven readings of section 4.3", fontsize=11
    )
    return figure


def plot_proposition_4_10(dataset: "xarray.Dataset") -> Any:
    """Equilibria by number of unstable directions, one colour per rank; how many data sets have how many. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, dataset.sizes["inputs"], figsize=(10, 3.8), layout="constrained")
    for ax, m, sets in zip(axes, dataset.inputs.values, dataset.attrs["sets"], strict=True):
        one = dataset["count"].sel(inputs=m, procedure="sg")
        last = int(np.flatnonzero(one.sum("rank"))[-1])
        places = np.arange(last + 1)
        for k, rank in enumerate(range(int(m), 0, -1)):
            heights = one.sel(rank=rank).values[: last + 1] / sets
            width = 0.8 / int(m)
            ax.bar(places + (k - (m - 1) / 2) * width, heights, width, color=CYCLE[k], label=f"rank {rank}")
        ax.set_xticks(places)
        ax.set_xlabel("unstable directions across the orbit")
        ax.set_ylabel("equilibria per data set")
        ax.set_title(f"m = {m} inputs, {sets} data sets, SG", fontsize=10, loc="left")
        ax.legend(frameon=False, fontsize=9)
        tidy(ax)
    figure.suptitle("All equilibria of random data; Proposition 4.10 expects those of full rank at 0 only", fontsize=11)
    return figure
