"""Drawings of Figures 3, 4 and 5 of Simon et al. 2023 in kind, from their datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import CYCLE, sequential, tidy

if TYPE_CHECKING:
    import xarray

SHOWN = (0.0, 0.1, 0.3, 0.6, 1.0)  # of the run, in Figure 4
TIME = "time $t$ = learning rate × step"


def _spectrum(ax: Any, ts: np.ndarray, values: np.ndarray) -> None:
    """Every eigenvalue over time, on a logarithmic scale, the largest darkest."""
    for path, shade in zip(values.T, sequential()(np.linspace(1.0, 0.15, values.shape[1])), strict=True):
        ax.plot(ts, np.where(path > 0, path, np.nan), color=shade, linewidth=1.3)
    ax.set_yscale("log")
    ax.set_xlim(ts[0], ts[-1])
    ax.set_xlabel(TIME)
    tidy(ax)


def _title(loss: str) -> str:
    return f"{loss}: eigenvalues of {'C' if loss == 'Barlow Twins' else 'the covariance'}"


def plot_fig3(dataset: "xarray.Dataset") -> Any:
    """Eigenvalues of the embeddings with the threshold, and below how many are above it; a column per loss. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, dataset.sizes["loss"], figsize=(12, 5.8), layout="constrained", height_ratios=[2, 1], sharex="col"
    )
    for (top, bottom), loss in zip(axes.T, dataset.loss.values, strict=True):
        one = dataset.sel(loss=loss)
        ts = one.time.values
        _spectrum(top, ts, one.eigenvalue.values)
        top.axhline(float(one.threshold), color="k", linestyle="--", linewidth=1.1, label="threshold")
        top.set_title(_title(str(loss)), fontsize=10, loc="left")
        top.set_xlabel("")
        bottom.plot(ts, one.grown.values, color=CYCLE[0], linewidth=1.4)
        bottom.set_ylim(0, dataset.sizes["mode"])
        bottom.set_xlabel(TIME)
        tidy(bottom)
    axes[0, 0].set_ylabel("eigenvalue")
    axes[0, 0].legend(frameon=False, fontsize=9, loc="lower right")
    axes[1, 0].set_ylabel("above the threshold")
    figure.suptitle(
        f"Embeddings of {dataset.attrs['dimension']} dimensions from a usual start ({dataset.attrs['data']})",
        fontsize=11,
    )
    return figure


def plot_fig4(dataset: "xarray.Dataset") -> Any:
    """Histograms of the eigenvalues at five times, a row per loss, with the threshold. Returns the figure."""
    from matplotlib import pyplot

    losses = dataset.loss.values
    figure, axes = pyplot.subplots(
        losses.size, len(SHOWN), figsize=(12, 6.2), layout="constrained", sharex="row", sharey="row"
    )
    last = dataset.sizes["step"] - 1
    for row, loss in zip(axes, losses, strict=True):
        one = dataset.sel(loss=loss)
        positive = one.eigenvalue.values[one.eigenvalue.values > 0]
        edges = np.linspace(np.log10(np.quantile(positive, 0.002)), np.log10(positive.max()), 25)
        for ax, share in zip(row, SHOWN, strict=True):
            now = one.isel(step=round(share * last))
            values = now.eigenvalue.values
            ax.hist(np.log10(values[values > 0]), edges, color=CYCLE[0])
            ax.axvline(np.log10(float(one.threshold)), color="k", linestyle="--", linewidth=1)
            ax.set_title(f"step {int(now.step)}", fontsize=9, loc="left")
            tidy(ax)
        row[0].set_ylabel(f"{loss}\neigenvalues per bin")
    for ax in axes[-1]:
        ax.set_xlabel("log₁₀ eigenvalue")
    figure.suptitle(
        f"Eigenvalues of embeddings of {dataset.attrs['dimension']} dimensions along training; dashed: threshold of Figure 3",
        fontsize=11,
    )
    return figure


def plot_fig5(dataset: "xarray.Dataset") -> Any:
    """Eigenvalues of embeddings above those of the hidden representation; lines: steps of the embeddings. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, dataset.sizes["loss"], figsize=(12, 6.6), layout="constrained", sharex="col")
    for column, loss in zip(axes.T, dataset.loss.values, strict=True):
        one = dataset.sel(loss=loss)
        ts = one.time.values
        rate = ts[-1] / float(dataset.step[-1])
        for ax, name in zip(column, ("eigenvalue", "hidden_eigenvalue"), strict=True):
            for step in one.step_times.values[np.isfinite(one.step_times.values)]:
                ax.axvline(rate * step, color=CYCLE[1], linewidth=0.8, alpha=0.7)
            values = one[name].values
            _spectrum(ax, ts, values)
            ax.set_ylim(max(values.max() * 1e-7, np.quantile(values[values > 0], 0.02)), 2 * values.max())
        column[0].set_title(_title(str(loss)), fontsize=10, loc="left")
        column[0].set_xlabel("")
    axes[0, 0].set_ylabel("embeddings")
    axes[1, 0].set_ylabel("hidden representation")
    figure.suptitle(
        f"From a small start ({dataset.attrs['network']}, {dataset.attrs['data']}); orange: steps of the embeddings",
        fontsize=11,
    )
    return figure
