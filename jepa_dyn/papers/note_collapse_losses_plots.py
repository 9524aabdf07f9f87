"""Drawings of the note's statements about losses, from their datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import CYCLE, tidy

if TYPE_CHECKING:
    import xarray


def plot_losses_at_collapse(dataset: "xarray.Dataset") -> Any:
    """Value, gradient and change of every loss, one line each. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12.5, 5), layout="constrained", sharey=True)
    places = -np.arange(dataset.sizes["loss"])
    names = [name.replace("_", " ").replace(", ", ",\n") for name in dataset.loss.values]
    axes[0].barh(places, dataset.value, color=CYCLE[0])
    for place, value in zip(places, dataset.value.values, strict=True):
        axes[0].annotate(
            f"{0 if abs(value) < 1e-15 else value:.4g}",
            (max(value, 0), place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes[0].set_xscale("symlog", linthresh=1)
    axes[0].set_xlim(-2, 400)
    axes[0].set_title("(a) value at complete collapse", fontsize=10, loc="left")
    axes[0].set_yticks(places, names, fontsize=8.5)
    axes[1].plot(np.maximum(dataset.gradient, 1e-20), places, "o", color=CYCLE[1])
    axes[1].set_xscale("log")
    axes[1].set_xlim(3e-21, 1e2)
    axes[1].set_title("(b) its gradient, largest entry", fontsize=10, loc="left")
    for k, move in enumerate(dataset.move.values):
        shift = 0.16 if k == 0 else -0.16
        axes[2].barh(
            places + shift, dataset.change.sel(move=move), height=0.32, color=CYCLE[2 + k], label=f"pairs move {move}"
        )
    axes[2].set_xscale("symlog", linthresh=0.1)
    axes[2].set_xticks([-1e4, -1e2, -1, 0, 1, 1e2, 1e4])
    axes[2].axvline(0, color="k", linewidth=0.8)
    axes[2].set_title("(c) change of the loss over step²", fontsize=10, loc="left")
    figure.legend(frameon=False, fontsize=9, ncols=2, loc="outside lower right")
    for ax in axes:
        tidy(ax)
    return figure


def plot_contrastive_limit(dataset: "xarray.Dataset") -> Any:
    """L_K - log K over K with both limits, one panel per temperature. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, dataset.sizes["temperature"], figsize=(12, 3.8), layout="constrained")
    for ax, tau in zip(axes, dataset.temperature.values, strict=True):
        one = dataset.sel(temperature=tau)
        ax.errorbar(
            one.negatives, one.loss, 2 * one.error, fmt="o", color=CYCLE[0], markersize=4, label="$L_K - \\log K$"
        )
        ax.axhline(float(one.corrected), color=CYCLE[2], label="limit, corrected")
        ax.axhline(float(one.printed), color=CYCLE[1], linestyle="--", label="limit, printed")
        ax.set_xscale("log")
        ax.set_xlabel("negatives K")
        ax.set_title(f"τ = {tau:g}", fontsize=10, loc="left")
        tidy(ax)
    axes[0].set_ylabel("nats")
    axes[-1].legend(frameon=False, fontsize=9)
    return figure


def plot_info_nce_theory(dataset: "xarray.Dataset") -> Any:
    """The bound over N; the rates of the eigenvalues against the true ones. Returns the figure."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    n = dataset.candidates
    left.plot(n, dataset.bound, "o-", color=CYCLE[0], label="$\\log N - L$")
    left.plot(n, np.log(n), "--", color="0.5", label="$\\log N$")
    left.axhline(float(dataset.information), color=CYCLE[2], label="I(x; c)")
    left.set_xscale("log", base=2)
    left.set_ylim(-0.02, 1.4 * float(dataset.information))
    left.set_xlabel("candidates N, the positive included")
    left.set_ylabel("nats")
    left.set_title("(a) InfoNCE's bound, optimal critic", fontsize=10, loc="left")
    true = dataset.true.values.ravel()
    for name, colour, marker in (("printed", CYCLE[1], "x"), ("corrected", CYCLE[2], ".")):
        right.plot(true, dataset[name].values.ravel(), marker, color=colour, label=name)
    ends = np.array([true.min(), true.max()])
    right.plot(ends, ends, color="k", linewidth=0.8)
    right.set_xscale("symlog", linthresh=0.1)
    right.set_yscale("symlog", linthresh=0.1)
    right.set_xlabel("true $d\\lambda_k/dt$")
    right.set_ylabel("formula")
    right.set_title("(b) eigenvalues of $W W^T$ under InfoNCE", fontsize=10, loc="left")
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=9)
        tidy(ax)
    return figure
