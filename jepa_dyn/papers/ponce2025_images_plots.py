"""Drawing of Figure 2 of Ponce et al. 2025 in kind, from its dataset."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import CYCLE, tidy

if TYPE_CHECKING:
    import xarray

NAMES = {"gradient": "plain gradient", "sg": "SG", "ema": "EMA"}
SMOOTHED = 5  # logged steps in a moving average


def smoothed(path: np.ndarray) -> np.ndarray:
    """Centred moving average of what is finite, shorter at the ends."""
    half = SMOOTHED // 2
    return np.array([np.mean(path[max(0, k - half) : k + half + 1]) for k in range(len(path))])


def plot_fig2(dataset: "xarray.Dataset") -> Any:
    """A row per procedure: E and F, lengths of the parameter increments, probe accuracy; a line per seed. Returns the figure."""
    from matplotlib import pyplot

    procedures = dataset.procedure.values
    figure, axes = pyplot.subplots(
        procedures.size, 3, figsize=(11, 2.7 * procedures.size), layout="constrained", sharex=True, sharey="col"
    )
    steps = dataset.step.values
    lines = (
        (("E", "E", CYCLE[0], "-"), ("F", "F", CYCLE[1], "-")),
        (
            ("encoder_increment", "encoder θ", CYCLE[0], "-"),
            ("predictor_increment", "predictor ψ", CYCLE[2], "-"),
            ("target_increment", "target ξ", CYCLE[1], "--"),
        ),
        (("probe_accuracy", "linear probe", CYCLE[0], "-"),),
    )
    labels = ("objective, mean absolute error", "length of one step", "accuracy on fresh images")
    for row, procedure in zip(axes, procedures, strict=True):
        one = dataset.sel(procedure=procedure)
        for ax, own, text in zip(row, lines, labels, strict=True):
            for name, title, colour, style in own:
                if procedure != "ema" and name in ("F", "target_increment"):
                    continue  # equal to E and to the step of theta, or none
                for k, path in enumerate(one[name].transpose("seed", "step").values):
                    known = np.isfinite(path)
                    ax.plot(
                        steps[known],
                        smoothed(path[known]),
                        style,
                        color=colour,
                        linewidth=1.3,
                        label=title if k == 0 else None,
                    )
            ax.set_ylabel(text)
            if ax is not row[2]:
                ax.set_yscale("log")
            ax.legend(frameon=False, fontsize=9, loc="lower right" if ax is row[2] else "best")
            tidy(ax)
        row[2].axhline(dataset.attrs["most_frequent_class"], color="0.5", linestyle=":", linewidth=1)
        row[2].set_ylim(0, 1)
        row[0].set_title(NAMES[str(procedure)], fontsize=10, loc="left")
    for ax in axes[-1]:
        ax.set_xlabel("steps of the optimiser")
    first, last = dataset.attrs["alpha"]
    figure.suptitle(
        f"Perceptron on {dataset.attrs['data']}, α of EMA from {first:g} to {last:g}; dotted: the most frequent class",
        fontsize=11,
    )
    return figure
