"""Drawings of Figures 3, 7 and 8 of Halvagal et al. 2023 on small encoders, from their datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.papers.halvagal2023_plots import mode_colours
from jepa_dyn.plots._style import CYCLE, tidy

if TYPE_CHECKING:
    import xarray

NAMES = {"direct": "DirectPred", "iso": "IsoLoss", "trained": "trained predictor (BYOL)"}
COLOURS = {"direct": CYCLE[0], "iso": CYCLE[1], "trained": CYCLE[2], "DirectPred": CYCLE[0], "IsoLoss": CYCLE[1]}
FLOOR = 1e-6  # of the largest eigenvalue drawn


def _spectra(ax: Any, one: "xarray.Dataset", title: str) -> None:
    """One line per eigenvalue over the steps, and the number recruited at the end."""
    values = one.eigenvalue.transpose("step", "mode").values
    for values_of_mode, colour in zip(values.T, mode_colours(values.shape[1])[::-1], strict=True):
        ax.plot(one.step.values, np.maximum(values_of_mode, 1e-30), color=colour, linewidth=1.4)
    finite = values[np.isfinite(values) & (values > 0)]
    if finite.size:
        ax.set_yscale("log")
    last = float(one.recruited.isel(step=-1))
    text = f"{last:g} of {values.shape[1]} recruited" if np.isfinite(last) else "diverged"
    ax.text(0.03, 0.04, text, transform=ax.transAxes, fontsize=8.5, bbox={"color": "w", "alpha": 0.75, "pad": 1.5})
    ax.set_title(title, fontsize=9.5, loc="left")
    ax.set_xlim(0, one.step.values[-1])
    tidy(ax)


def _one_scale(axes: np.ndarray, values: np.ndarray) -> None:
    """The same eigenvalues on all axes."""
    top = 2 * float(np.nanmax(values))
    low = max(float(np.nanmin(np.where(values > 0, values, np.inf))), FLOOR * top)
    for ax in axes.ravel():
        ax.set_ylim(low / 2, top)


def plot_fig3(dataset: "xarray.Dataset") -> Any:
    """Eigenvalues with a moving-average target, accuracy, and effective rank with and without it, a row per distance."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    figure, axes = pyplot.subplots(2, 5, figsize=(17, 6.6), layout="constrained")
    for row, (distance, letter) in enumerate(zip(dataset.distance.values, "ac", strict=True)):
        one = dataset.sel(distance=distance)
        averaged = one.sel(target="averaged")
        for column, predictor in enumerate(dataset.predictor.values):
            _spectra(axes[row, column], averaged.sel(predictor=predictor), f"({letter}) {distance}, {NAMES[predictor]}")
            for k, name in enumerate(("probe_accuracy", "effective_rank")):
                for target, style in (("averaged", "-"), ("online", (0, (2, 2)))):
                    path = one.sel(predictor=predictor, target=target)[name]
                    axes[row, 3 + k].plot(dataset.step, path, color=COLOURS[predictor], linestyle=style, linewidth=1.6)
        _one_scale(axes[row, :3], averaged.eigenvalue.values)
        axes[row, 0].set_ylabel("eigenvalues of $C_z$")
        axes[row, 3].set_ylabel("accuracy of a linear readout")
        axes[row, 4].set_ylabel("effective rank of $C_z$")
        axes[row, 3].set_title(f"({'bd'[row]}) {distance}", fontsize=9.5, loc="left")
        axes[row, 4].set_title(f"{distance}, recruitment", fontsize=9.5, loc="left")
        axes[row, 4].set_ylim(0, 1.03 * dataset.sizes["mode"])
        for ax in axes[row, 3:]:
            ax.set_xlim(0, int(dataset.step[-1]))
            tidy(ax)
    for ax in axes[1]:
        ax.set_xlabel("training step")
    handles = [
        Line2D([], [], color=COLOURS[name], linewidth=1.8, label=NAMES[name]) for name in dataset.predictor.values
    ]
    handles.append(Line2D([], [], color="0.3", label="moving-average target"))
    handles.append(Line2D([], [], color="0.3", linestyle=(0, (2, 2)), label="target without it"))
    colours = mode_colours(5)
    handles.append(Line2D([], [], color=colours[-1], label="largest eigenvalue"))
    handles.append(Line2D([], [], color=colours[0], label="smallest"))
    figure.legend(handles=handles, frameon=False, ncols=7, loc="outside lower center", fontsize=9)
    return figure


def _rows_of_losses(dataset: "xarray.Dataset", over: str, shown: Any, text: str) -> tuple[Any, np.ndarray]:
    """(figure, the axes of its last column): eigenvalues at some values of a coordinate, a row per loss."""
    from matplotlib import pyplot

    losses = dataset.loss.values
    figure, axes = pyplot.subplots(2, len(shown) + 1, figsize=(3.5 * (len(shown) + 1), 6.4), layout="constrained")
    for row, loss in enumerate(losses):
        for column, value in enumerate(shown):
            title = f"({'ab'[row]}) {loss}, {text} {value:g}"
            _spectra(axes[row, column], dataset.sel({"loss": loss, over: value}), title)
        axes[row, 0].set_ylabel("eigenvalues of $C_z$")
    for ax in axes[1, :-1]:
        ax.set_xlabel("training step")
    _one_scale(axes[:, :-1], dataset.eigenvalue.sel({over: list(shown)}).values)
    return figure, axes[:, -1]


def _ends(
    ax: Any, x: np.ndarray, dataset: "xarray.Dataset", values: "xarray.DataArray", title: str, label: str
) -> None:
    for loss in dataset.loss.values:
        ax.plot(x, values.sel(loss=loss).values, "o-", color=COLOURS[str(loss)], label=str(loss))
    ax.set_title(title, fontsize=9.5, loc="left")
    ax.set_ylabel(label)
    ax.legend(frameon=False, fontsize=9)
    tidy(ax)


def plot_fig7(dataset: "xarray.Dataset") -> Any:
    """Eigenvalues at four rates of the moving average, and what was recruited at all of them; a row per loss."""
    momenta = dataset.momentum.values
    figure, last = _rows_of_losses(dataset, "momentum", momenta[[0, 2, 3, 4]], "rate")
    end, ticks = dataset.isel(step=-1), np.arange(momenta.size)
    _ends(last[0], ticks, dataset, end.effective_rank, "(c) recruitment", "effective rank of $C_z$ at the end")
    _ends(last[1], ticks, dataset, end.probe_accuracy, "(d) readout", "accuracy of a linear readout")
    last[0].set_ylim(0, 1.03 * dataset.sizes["mode"])
    for ax in last:
        ax.set_xticks(ticks, [f"{value:g}" for value in momenta])
        ax.set_xlabel("rate of the moving average")
    return figure


def plot_fig8(dataset: "xarray.Dataset") -> Any:
    """Eigenvalues at four weight decays, and what was recruited and how large it is at all of them; a row per loss."""
    decays = dataset.weight_decay.values
    figure, last = _rows_of_losses(dataset, "weight_decay", decays[[0, 2, 3, 5]], "decay")
    end = dataset.isel(step=-1)
    _ends(last[0], decays, dataset, end.effective_rank, "(c) recruitment", "effective rank of $C_z$ at the end")
    _ends(last[1], decays, dataset, end.eigenvalue.sum("mode"), "(d) magnitude", "tr $C_z$ at the end")
    last[0].set_ylim(0, 1.03 * dataset.sizes["mode"])
    last[1].set_yscale("log")
    for ax in last:
        ax.set_xscale("log")
        ax.set_xlabel("weight decay")
    return figure
