"""Drawings of the figures of Simon et al. 2023, from their datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import CYCLE, sequential, tidy

if TYPE_CHECKING:
    import xarray

LOSS_COLOURS = {
    "squared": CYCLE[6],
    "sharp": CYCLE[1],
    "smooth": CYCLE[2],
    "quartic": CYCLE[3],
    "preconditioned": CYCLE[0],
}
LOSS_TEXTS = {
    "squared": r"squared, $(1-\lambda)^2$",
    "sharp": r"sharp, $(1-|\lambda|^{1/2})^2$",
    "smooth": r"smooth, $(1-\min(\lambda,1))^2$",
    "quartic": r"quartic, $(1-\lambda)^4$",
    "preconditioned": "preconditioned (52)",
}
OUTCOME_MARKS = {"all learned": "o", "above 1": "^", "cycles": "s", "unfinished": "d", "diverged": "x"}


def _shades(count: int) -> Any:
    """Dark to light, one per mode, the first learned darkest."""
    return sequential()(np.linspace(1.0, 0.2, count))


def plot_fig1ab(dataset: "xarray.Dataset") -> Any:
    """Loss with the predicted steps, eigenvalues of C with their prediction, the spectrum of Gamma. Returns the figure."""
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(
        1, 3, figsize=(13, 3.9), layout="constrained", width_ratios=[1.25, 1.25, 0.8]
    )
    ts, shades = dataset.time.values, _shades(dataset.sizes["mode"])
    for time, shade in zip(dataset.predicted_time.isel(reading=0).values, shades, strict=True):
        left.axvline(time, color=shade, linestyle="--", linewidth=0.9)
    left.plot(ts, dataset.staircase.values, color="0.65", linewidth=1, label="staircase (20)")
    left.plot(ts, dataset.loss.values, color="k", linewidth=1.8, label="trained")
    left.plot(ts, dataset.predicted_loss.values, ":", color=CYCLE[1], linewidth=1.8, label="theory (14)")
    left.set_ylabel(r"loss $|C - I|^2$")
    left.set_title("(A) loss; dashed: predicted steps (16)", fontsize=10, loc="left")
    left.legend(frameon=False, fontsize=9)
    for j, shade in enumerate(shades):
        middle.plot(ts, dataset.eigenvalue.values[:, j], color=shade, linewidth=1.8)
        middle.plot(ts, dataset.predicted_eigenvalue.values[:, j], "--", color=shade, linewidth=1.1)
    middle.set_ylabel("eigenvalues of $C$")
    middle.set_title("(B) trained (solid), theory (10) (dashed)", fontsize=10, loc="left")
    for ax in (left, middle):
        ax.set_xscale("log")
        ax.set_xlim(ts[0], ts[-1])
        ax.set_xlabel("time $t$ = learning rate × step")
        tidy(ax)
    gammas, d = dataset.spectrum.values, dataset.sizes["mode"]
    count = np.arange(1, gammas.size + 1)
    positive = gammas > 0
    right.plot(count[positive], gammas[positive], color="0.5", label="γ > 0")
    right.plot(np.arange(1, (~positive).sum() + 1), -gammas[~positive][::-1], "--", color=CYCLE[1], label="−γ > 0")
    right.scatter(count[:d], gammas[:d], c=list(shades), s=22, zorder=3)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_ylim(bottom=1e-5 * gammas[0])
    right.set_xlabel("number")
    right.set_ylabel(r"eigenvalues of $\Gamma$")
    right.set_title("(C) spectrum; dots: learned", fontsize=10, loc="left")
    right.legend(frameon=False, fontsize=9)
    tidy(right)
    one = dataset.attrs
    figure.suptitle(
        f"Linear Barlow Twins on {one['pairs']} pairs of crops of photographs, m = {one['inputs']}, d = {d}, "
        f"α = {one['alpha']:g}: {one['steps']:,} steps of {one['learning_rate']:g}",
        fontsize=11,
    )
    return figure


def plot_fig6(dataset: "xarray.Dataset") -> Any:
    """|s_j| and |a_jk| over time beside (48) as printed, and beside its correction. Returns the figure."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    one = dataset.isel(start=1)
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4.2), layout="constrained", width_ratios=[1.2, 1, 1])
    ts, size = one.t.values, float(one.alpha)
    panels = (
        ("printed", "all entries; dashed: (48) as printed", (size**1.5, 20)),
        ("printed", "closer; dashed: (48) as printed", (1e-3 * size**0.5, 10 * size**0.5)),
        ("corrected", "closer; dashed: corrected", (1e-3 * size**0.5, 10 * size**0.5)),
    )
    for ax, letter, (route, text, limits) in zip(axes, "abc", panels, strict=True):
        for j in range(one.sizes["row"]):
            for k in range(one.sizes["column"]):
                colour = CYCLE[1] if j == k else CYCLE[0] if j < k else CYCLE[2]
                path, wanted = (np.abs(one[name].values[:, j, k]) for name in ("simulated", route))
                ax.plot(ts, path, color=colour, linewidth=2.2 if j == k else 1.8, alpha=0.55)
                if wanted.any():
                    ax.plot(ts, np.where(wanted > 0, wanted, np.nan), "k--", linewidth=0.9)
        ax.set_yscale("log")
        ax.set_ylim(*limits)
        ax.set_xlim(0 if letter == "a" else 0.12 * ts[-1], ts[-1])
        ax.set_xlabel("time $t$ (the appendix's is $4t$)")
        ax.set_title(f"({letter}) {text}", fontsize=10, loc="left")
        tidy(ax)
    axes[0].set_ylabel("entries of $A(t)$, modulus")
    looks = ((CYCLE[1], "$s_j$"), (CYCLE[0], "$a_{jk}$, $j<k$"), (CYCLE[2], "$a_{jk}$, $j>k$"))
    handles = [Line2D([], [], color=colour, linewidth=2, alpha=0.7) for colour, _ in looks]
    axes[0].legend(handles, [text for _, text in looks], frameon=False, fontsize=9, loc="lower right")
    figure.suptitle(rf"$d = 3$, $m = 5$, $\gamma_j = 2^{{-j}}$, α = {size:g}", fontsize=11)
    return figure


def plot_fig8(dataset: "xarray.Dataset") -> Any:
    """Landscapes above, descents below; self-supervised left, supervised right. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6.2), layout="constrained", height_ratios=[0.85, 1])
    shades = _shades(dataset.sizes["gamma"])
    for column, (kind, name, text) in enumerate(
        (("ssl", r"\bar s", "self-supervised"), ("supervised", r"\bar c", "supervised"))
    ):
        top, bottom = axes[:, column]
        place = dataset.place.values
        top.plot(place, dataset[f"{kind}_loss"].values, "k", linewidth=1.8)
        minima = (-1, 1) if kind == "ssl" else (1,)
        top.plot(minima, [0] * len(minima), "o", color=CYCLE[2], label="minimum")
        if kind == "ssl":
            top.plot(0, 1, "o", color="w", markeredgecolor="k", label="unstable")
        top.set_ylim(-0.15, 2.6)
        top.set_xlabel(f"${name}$")
        top.set_ylabel("loss of the mode")
        top.set_title(f"({'AB'[column]}) {text}", fontsize=10, loc="left")
        top.legend(frameon=False, fontsize=9, loc="upper center")
        for j, shade in enumerate(shades):
            bottom.plot(
                dataset.time.values,
                dataset[kind].values[:, j],
                color=shade,
                linewidth=2,
                label=f"γ = {dataset.gamma.values[j]:g}",
            )
            bottom.plot(dataset.time.values, dataset[f"{kind}_exact"].values[:, j], "k:", linewidth=1)
        bottom.set_xlabel("time $t$")
        bottom.set_ylabel(f"${name}$")
        bottom.set_title(f"({'CD'[column]}) integrated (solid), exact (dotted)", fontsize=10, loc="left")
        bottom.legend(frameon=False, fontsize=9, loc="lower right")
        tidy(top)
        tidy(bottom)
    return figure


def plot_fig9(dataset: "xarray.Dataset") -> Any:
    """The four landscapes above; below, where gradient descent on each ends, over the learning rate. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(13, 5.6), layout="constrained", sharey="row", height_ratios=[0.8, 1])
    for column, name in enumerate(dataset.name.values):
        one, colour = dataset.sel(name=name), LOSS_COLOURS[str(name)]
        top, bottom = axes[:, column]
        top.plot(one.place.values, one.loss.values, color=colour, linewidth=2)
        top.set_ylim(-0.1, 2)
        top.set_xlabel(r"$\bar s$")
        top.set_title(f"({'ABCD'[column]}) {LOSS_TEXTS[str(name)]}", fontsize=10, loc="left")
        ends, dying = np.abs(one.end.values), np.abs(one.negative_end.values)
        bottom.plot(np.repeat(one.rate.values, dying.shape[1]), dying.ravel(), ".", color="0.65", markersize=2)
        bottom.plot(np.repeat(one.rate.values, ends.shape[1]), ends.ravel(), ".", color=colour, markersize=2)
        lost = np.isnan(ends).any(axis=1)
        bottom.plot(one.rate.values[lost], np.full(lost.sum(), -0.06), "|", color="r", markersize=5)
        bottom.axvline(0.25, color="0.5", linewidth=0.8, linestyle=":")
        bottom.set_ylim(-0.12, 2.6)
        bottom.set_xlabel("learning rate")
        tidy(top)
        tidy(bottom)
    axes[0, 0].set_ylabel("loss of the mode")
    axes[1, 0].set_ylabel(r"last 32 values of $|s|$")
    axes[1, 0].plot([], [], ".", color="k", label="γ = 1")
    axes[1, 0].plot([], [], ".", color="0.65", label="γ = −1/2")
    axes[1, 0].legend(frameon=False, fontsize=9, loc="upper right")
    figure.suptitle(
        "Modewise losses, and where gradient descent on them ends (dotted: η = 1/4; red: diverged)", fontsize=11
    )
    return figure


def plot_speed_up(dataset: "xarray.Dataset") -> Any:
    """Modes learned over time; steps to all over the learning rate; time by level; what is spanned. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11.5, 8), layout="constrained")
    (first, second), (third, fourth) = axes
    unit, d = dataset.attrs["unit"], dataset.sizes["mode"]
    never = 2.5 * float(dataset.step.max())
    names = [str(name) for name in dataset.loss.values]
    for shift, name in enumerate(names):
        one, colour = dataset.sel(loss=name), LOSS_COLOURS[name]
        slow = one.isel(run=1)
        count = (slow.eigenvalue.values > 0.5).sum(axis=-1)
        times = slow.step.values * float(slow.rate) * unit
        first.step(times, count + 0.06 * (shift - 2), where="post", color=colour, linewidth=1.8, label=LOSS_TEXTS[name])
        theory = (one.theory_eigenvalue.values > 0.5).sum(axis=-1)
        first.step(
            one.time.values, theory + 0.06 * (shift - 2), where="post", color=colour, linewidth=1, linestyle="--"
        )
        random = one.isel(run=slice(1, None))
        steps = random.steps_to_all.sel(level=0.9).values
        second.plot(random.rate.values, np.where(np.isfinite(steps), steps, np.nan), color=colour, linewidth=1.2)
        for rate, height, end in zip(random.rate.values, steps, random.outcome.values, strict=True):
            shown = height if np.isfinite(height) else never * 1.25 ** (shift - 2)
            second.plot(rate, shown, OUTCOME_MARKS[str(end)], color=colour, markersize=6)
        third.plot(
            np.arange(3) + 0.05 * (shift - 2),
            one.theory_time.values,
            "o--",
            color=colour,
            linewidth=1,
            fillstyle="none",
        )
        taken = slow.steps_to_all.values * float(slow.rate) * unit
        third.plot(np.arange(3) + 0.05 * (shift - 2), np.where(np.isfinite(taken), taken, np.nan), "o", color=colour)
        fourth.bar(shift - 0.2, 100 * float(slow.spanned), 0.36, color=colour)
        fourth.bar(shift + 0.2, 100 * float(one.isel(run=0).spanned), 0.36, color=colour, alpha=0.4)
        fourth.text(
            shift - 0.2, 100 * float(slow.spanned) + 1, f"{float(slow.squared_norm):.2f}", ha="center", fontsize=8
        )
    first.set_xscale("log")
    first.set_xlim(0.3 * unit, 3 * float(dataset.theory_time[0, -1]))
    first.set_xlabel("time $t$ = learning rate × step")
    first.set_ylabel(f"eigenvalues of $C$ above 1/2, of {d}")
    first.set_title("(a) trained from a random start (solid), theory, aligned (dashed)", fontsize=10, loc="left")
    first.legend(frameon=False, fontsize=8.5, loc="upper left")
    second.set_xscale("log")
    second.set_yscale("log")
    rates = dataset.rate.values[1:]
    second.set_xticks(rates, [f"{rate:g}" for rate in rates])
    second.minorticks_off()
    second.axhspan(0.58 * never, 3 * never, color="0.94", zorder=0)
    second.text(rates[-1], 2 * never, "never", ha="right", fontsize=9)
    second.set_ylim(top=3 * never)
    second.set_xlabel(r"learning rate × $4\gamma_1$")
    second.set_ylabel(f"steps until all {d} are above 0.9")
    second.set_title("(b) steps by learning rate, and what became of the run", fontsize=10, loc="left")
    for text, mark in OUTCOME_MARKS.items():
        second.plot([], [], mark, color="0.4", label=text)
    second.legend(frameon=False, fontsize=8.5, ncols=2, loc="center right")
    third.set_yscale("log")
    third.set_xticks(range(3), [f"{level:g}" for level in dataset.level.values])
    third.set_xlabel("level that all eigenvalues must pass")
    third.set_ylabel("time $t$")
    third.set_title("(c) time to all: trained (dots), theory (circles)", fontsize=10, loc="left")
    fourth.set_xticks(range(len(names)), names, fontsize=9)
    fourth.set_ylim(0, 112)
    fourth.set_ylabel(f"share of the top {d} features spanned (%)")
    fourth.set_title("(d) random start (pale: aligned); numbers: |W|² over its least", fontsize=10, loc="left")
    for ax in axes.flat:
        tidy(ax)
    return figure
