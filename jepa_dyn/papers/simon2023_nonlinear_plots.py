"""Drawings of the small networks of Simon et al. 2023 (Figure 2 A, B, appendix E), from their datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import CYCLE, sequential, tidy

if TYPE_CHECKING:
    import xarray

PREDICTION_COLOURS = (CYCLE[0], CYCLE[5], CYCLE[1], "0.75")


def plot_fig2ab(dataset: "xarray.Dataset") -> Any:
    """Loss, eigenvalues of C, measured beside predicted step times, effective rank. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7.2), layout="constrained", width_ratios=[1.5, 1])
    (loss, times), (spectrum, rank) = axes
    ts, settings = dataset.time.values, dataset.attrs
    first = dataset.sel(kernel="initial")
    shades = sequential()(np.linspace(1.0, 0.2, dataset.sizes["mode"]))
    for time, shade in zip(dataset.step_time.values, shades, strict=True):
        loss.axvline(time, color=shade, linewidth=0.9)
    for level, begin, end in zip(dataset.plateau_level, dataset.plateau_start, dataset.plateau_end, strict=True):
        loss.plot([begin, end], [level, level], color=CYCLE[5], linewidth=6, alpha=0.5, solid_capstyle="butt")
    loss.plot([], [], color=CYCLE[5], linewidth=6, alpha=0.5, label="plateaus found")
    loss.plot(ts, dataset.loss.values, color="k", linewidth=1.8, label="trained")
    loss.plot(ts, first.predicted_loss.values, "--", color=CYCLE[1], linewidth=1.5, label="theory, NTK at the start")
    loss.set_ylabel(r"loss $|C - I|^2$")
    loss.set_title("(A) loss; lines: steps found in (B)", fontsize=10, loc="left")
    loss.legend(edgecolor="none", framealpha=1, fontsize=9, loc="lower left")
    for j, shade in enumerate(shades):
        spectrum.plot(ts, dataset.eigenvalue.values[:, j], color=shade, linewidth=1.8)
        spectrum.plot(ts, first.predicted_eigenvalue.values[:, j], "--", color=shade, linewidth=1.1)
    spectrum.set_ylabel("eigenvalues of $C$")
    spectrum.set_title("(B) trained (solid); theory, NTK at the start (dashed)", fontsize=10, loc="left")
    found = dataset.step_time.values
    for name, colour, mark in (("initial", CYCLE[1], "o"), ("final", CYCLE[0], "s")):
        predicted = dataset.predicted_time.sel(kernel=name).values
        text = f"NTK at the {'start' if name == 'initial' else 'end'}"
        times.plot(predicted, found, mark, color=colour, markersize=5.5, label=text)
    ends = np.array([dataset.predicted_time.min(), dataset.predicted_time.max()]) * [0.8, 1.25]
    times.plot(ends, ends, color="0.6", linewidth=1, zorder=0)
    times.set_xscale("log")
    times.set_yscale("log")
    times.set_xlabel("predicted time $t$ of a step")
    times.set_ylabel("measured time $t$")
    times.set_title("(C) times of the steps", fontsize=10, loc="left")
    times.legend(frameon=False, fontsize=9)
    learned = (ts[:, None] >= found).sum(axis=1)
    rank.plot(ts, learned, color="0.65", linewidth=1.2, drawstyle="steps-post", label="steps so far")
    rank.plot(ts, dataset.effective_rank.values, color=CYCLE[2], linewidth=1.8, label="effective rank of $C$")
    rank.set_ylabel("dimensions")
    rank.set_title("(D) effective rank of $C$ (entropy of its eigenvalues)", fontsize=10, loc="left")
    rank.legend(frameon=False, fontsize=9, loc="upper left")
    shown = ts >= float(dataset.predicted_time.sel(kernel="initial").min()) / 4
    for ax in (loss, spectrum, rank):
        ax.set_xscale("log")
        ax.set_xlim(ts[shown][0], ts[-1])
        ax.set_xlabel("time $t$ = learning rate × step")
    for ax in axes.flat:
        tidy(ax)
    figure.suptitle(
        f"Perceptron of width {settings['width']}, readout × {settings['alpha']:g} at the start, {settings['pairs']} pairs; "
        f"the norm of its NTK ends × {settings['kernel_growth']:.2f}, its shape stays (cosine {settings['kernel_cosine']:.3f})",
        fontsize=11,
    )
    return figure


def plot_appendix_e(dataset: "xarray.Dataset") -> Any:
    """Alignment of the embeddings of each network with each prediction, on both sets of pairs. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, dataset.sizes["points"], figsize=(10, 3.9), layout="constrained", sharey=True)
    networks, predictions = dataset.network.values, dataset.prediction.values
    places = np.r_[np.arange(networks.size), networks.size]
    for ax, points in zip(axes, dataset.points.values, strict=True):
        one = dataset.sel(points=points)
        for k, (name, colour) in enumerate(zip(predictions, PREDICTION_COLOURS, strict=True)):
            bars = ax.bar(
                places[:-1] + (k - 1.5) * 0.2, one.alignment.sel(prediction=name).values, 0.19, color=colour, label=name
            )
            ax.bar_label(bars, fmt="%.2f", fontsize=8, padding=1)
        bars = ax.bar(places[-1:], one.between.values[None], 0.19, color=CYCLE[2], label="each other")
        ax.bar_label(bars, fmt="%.2f", fontsize=8, padding=1)
        ax.set_xticks(places, [*networks, "both networks"])
        ax.set_title(f"on {dataset.attrs['pairs']} {points} pairs", fontsize=10, loc="left")
        ax.set_ylim(0, 1.12)
        tidy(ax)
        ax.grid(False, axis="x")
    axes[0].set_ylabel("alignment of the embeddings with")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, ncols=5, loc="outside lower center")
    d, n = dataset.attrs["dimension"], dataset.attrs["pairs"]
    figure.suptitle(
        f"What networks with d = {d} outputs learn, beside theory: alignment 1 is the same span, d/2n = {d / (2 * n):.2f} chance",
        fontsize=11,
    )
    return figure
