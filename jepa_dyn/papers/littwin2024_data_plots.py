"""Drawings of the data models of Littwin et al. 2024: Figure 3 and random masking."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import CYCLE, tidy

if TYPE_CHECKING:
    import xarray


def plot_fig3(dataset: "xarray.Dataset") -> Any:
    """Figure 3: images, flicker, empirical moments, lam and rho over the number of samples, the defect. Returns the figure."""
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplot_mosaic(
        [["v1", "v2", "u", "u", "xx", "yx"], ["lam", "lam", "rho", "rho", "defect", "defect"]],
        height_ratios=[1, 1.3],
    )
    for index, name in enumerate(("v1", "v2")):
        axes[name].imshow(dataset.images.values[index], cmap="gray_r", vmin=0)
        axes[name].set_title(f"(a) image {index + 1}", fontsize=10, loc="left")
        axes[name].set_xticks([])
        axes[name].set_yticks([])
        axes["u"].plot(
            dataset.flicker.values[:, index],
            color=CYCLE[index],
            linewidth=1,
            label=f"image {index + 1}, γ = {float(dataset.autocorrelation[index]):g}",
        )
    axes["u"].set_xlabel("time (frames)")
    axes["u"].set_ylabel("frame · image")
    axes["u"].set_title("(b) flicker in noise", fontsize=10, loc="left")
    axes["u"].margins(y=0.3)
    axes["u"].legend(frameon=False, fontsize=8, loc="upper right")
    samples = dataset.samples.values
    for name, letter, text in (("xx", "c", "Σxx"), ("yx", "d", "Σyx")):
        largest = float(abs(dataset[name]).max())
        image = axes[name].imshow(dataset[name].values, cmap="RdBu_r", vmin=-largest, vmax=largest)
        figure.colorbar(image, ax=axes[name], location="bottom", shrink=0.9)
        axes[name].set_title(f"({letter}) {text}", fontsize=10, loc="left")
        axes[name].set_xlabel("pixel")
    for name, text in (("lam", "covariance λ"), ("rho", "regression coefficient ρ")):
        for index in range(2):
            one = dataset[name].isel(image=index)
            _band(
                axes[name],
                samples,
                one.mean("run").values,
                one.std("run", ddof=1).values,
                CYCLE[index],
                f"image {index + 1}",
            )
            axes[name].axhline(float(dataset[f"{name}_theory"][index]), color="k", linestyle="--", linewidth=1)
        axes[name].set_ylabel(text)
        axes[name].legend(frameon=False, fontsize=8)
        axes[name].set_title(f"(e) {text}; dashed: eq. (19)", fontsize=10, loc="left")
    one = dataset.defect
    _band(axes["defect"], samples, one.mean("run").values, one.std("run", ddof=1).values, "k", "mean of runs")
    reference = float(one.isel(samples=0).mean()) * samples[0] / samples
    axes["defect"].plot(samples, reference, color="0.5", linestyle=":", label="1/T")
    axes["defect"].set_yscale("log")
    axes["defect"].set_ylabel("mean squared off-diagonal (λ²)")
    axes["defect"].set_title("(f) how far from diagonal", fontsize=10, loc="left")
    axes["defect"].legend(frameon=False, fontsize=8)
    for name in ("lam", "rho", "defect"):
        axes[name].set_xscale("log")
        axes[name].set_xlabel("number of samples T")
    for name in ("u", "lam", "rho", "defect"):
        tidy(axes[name])
    figure.suptitle(
        f"Temporal model: moments of {samples[-1]:,} samples; {dataset.sizes['run']} runs, bands of 2 standard deviations",
        fontsize=11,
    )
    return figure


def _band(ax: Any, x: np.ndarray, mean: np.ndarray, deviation: np.ndarray, colour: str, label: str) -> None:
    ax.plot(x, mean, "o-", color=colour, markersize=3, linewidth=1.3, label=label)
    ax.fill_between(x, mean - 2 * deviation, mean + 2 * deviation, color=colour, alpha=0.2, lw=0)


def plot_random_masking(dataset: "xarray.Dataset") -> Any:
    """Features beside theorem C.1, its error and the commutator over d, for orthonormal and Gaussian rows. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11.5, 3.7), layout="constrained")
    sizes, colours = dataset.d.values, dict(zip(dataset.rows.values, CYCLE, strict=False))
    for kind, colour in colours.items():
        one = dataset.sel(rows=kind)
        order = np.argsort(one.second_moment.values)
        second = one.second_moment.values[order]
        axes[0].plot(second, one.lam_row.values[order], ".", color=colour, markersize=4, label=f"{kind} rows of B")
        if kind == "orthonormal":
            axes[0].plot(second, one.lam_printed.values[order], color="k", linewidth=1, label="eq. (125)")
        for gamma, style in zip(dataset.gamma.values, ("-", "--", ":"), strict=False):
            error = one.error_lam.sel(gamma=gamma).mean("model").values
            axes[1].plot(sizes, error, style, marker="o", markersize=3, color=colour, label=f"{kind}, γ = {gamma:g}")
            commutator = one.commutator.sel(gamma=gamma).mean("model").values
            axes[2].plot(sizes, commutator, style, marker="o", markersize=3, color=colour)
    axes[0].axhline(0, color="0.6", linewidth=0.8)
    axes[0].set_xlabel("second moment E[s²] of the factor")
    axes[0].set_ylabel("covariance λ of the row")
    axes[0].set_title(f"(a) features at d = {sizes[-1]}, γ = 0.5", fontsize=10, loc="left")
    axes[0].legend(frameon=False, fontsize=8)
    axes[1].set_ylabel("relative error of (125), rms")
    axes[1].set_title("(b) theorem C.1 needs orthonormal rows", fontsize=10, loc="left")
    axes[1].legend(frameon=False, fontsize=7, ncols=2, loc="upper center")
    axes[2].plot(sizes, 2.0 / sizes, color="0.5", linewidth=1, label=r"$\propto d^{-1}$")
    axes[2].set_ylabel("commutator of Σxx and Σyx, relative")
    axes[2].set_title("(c) both become diagonal together", fontsize=10, loc="left")
    axes[2].legend(frameon=False, fontsize=8)
    for ax in axes[1:]:
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("number of components d")
        ax.set_xticks(sizes, [str(size) for size in sizes], minor=False)
        ax.minorticks_off()
    axes[1].set_ylim(top=12)  # room for the legend
    for ax in axes:
        tidy(ax)
    figure.suptitle(f"Random masking, visible fraction {dataset.attrs['visible_fraction']:g}", fontsize=11)
    return figure
