"""Drawings of the tests of the note's summary of Tian et al. 2021, from their datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.plots._style import CYCLE, tidy

if TYPE_CHECKING:
    import xarray

FLOOR = 1e-18  # where zeros are drawn
RANK_COLOURS = {0: "k", 1: CYCLE[1], 2: CYCLE[4], 3: CYCLE[0], -1: "0.8"}
ARM_LOOKS = {  # colour, line, order
    "both": (CYCLE[0], "-", 3),
    "both, EMA target": (CYCLE[6], "--", 4),
    "no predictor": (CYCLE[1], "-", 3),
    "no stop gradient": (CYCLE[3], "-", 3),
}


def _dots(ax: Any, place: float, values: Any, **options: Any) -> None:
    """Values as dots around a place of the x axis, zeros at the floor."""
    flat = np.maximum(np.ravel(values), FLOOR)
    ax.plot(
        place + np.linspace(-0.13, 0.13, flat.size), flat, "o", markersize=4, markeredgewidth=0, alpha=0.6, **options
    )


def plot_stationary_points(dataset: "xarray.Dataset") -> Any:
    """Distance of each formula from the root by kind of data; speed and residual at four kinds of states. Returns the figure."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.4), layout="constrained", width_ratios=[1.25, 1])
    names = {"T^T T": "$T^T T$", "printed": "printed: $C^T A^{-1} C A^{-1}$"}
    for i, kind in enumerate(dataset.kind.values):
        for k, formula in enumerate(dataset.formula.values):
            values = dataset.distance.sel(kind=kind, formula=formula)
            _dots(left, i + 0.36 * k - 0.18, values, color=CYCLE[k], label=names[formula] if i == 0 else None)
    left.set_xticks(
        range(dataset.sizes["kind"]), [kind.replace(", ", ",\n") for kind in dataset.kind.values], fontsize=8.5
    )
    left.set_ylabel("relative distance from the root $S$")
    left.set_title("(a) which formula gives $W^T W$ of a balanced state", fontsize=10, loc="left")
    for i, state in enumerate(dataset.state.values):
        for k, (name, text) in enumerate(
            (
                ("speed", "speed of $W$, $P$"),
                ("residual", r"$|P W A - \bar{W} C^T|$"),
                ("imbalance", "$|P^T P - W W^T|$"),
            )
        ):
            values = dataset[name].sel(state=state).values
            _dots(right, i + 0.3 * k - 0.3, values, color=CYCLE[k + 2], label=text if i == 0 else None)
    right.set_xticks(
        range(dataset.sizes["state"]),
        ["$W=0$,\nany $P$", "$W=P=0$,\ntarget held", "any\ninvertible $W$", "balanced\nroot $S$"],
    )
    right.set_title("(b) where the flow stands still", fontsize=10, loc="left")
    for ax in (left, right):
        ax.set_yscale("log")
        ax.set_ylim(FLOOR / 5, 1e6 if ax is right else 10)
        ax.axhline(FLOOR, color="0.6", linewidth=0.8, linestyle=":")
        ax.text(0.995, FLOOR * 1.3, "zeros", transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
        ax.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower center", bbox_to_anchor=(0.5, -0.36))
        tidy(ax)
    return figure


def plot_rank_at_end(dataset: "xarray.Dataset") -> Any:
    """Shares of the runs by rank, start and weight decay; the weakest direction over its correlation. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13.5, 4.4), layout="constrained", width_ratios=[1, 1, 1.05])
    lam, level = dataset.attrs["weight_decay"], dataset.attrs["level"]
    rows = [(start, decay) for start in dataset.start.values for decay in dataset.decay.values]
    places = np.array([-1.3 * (i // 2) - 0.52 * (i % 2) for i in range(len(rows))])
    for ax, data, letter in zip(axes, dataset.data.values, "ab", strict=False):
        base = np.zeros(len(rows))
        for rank, colour in RANK_COLOURS.items():
            found = dataset["rank"].sel(data=data) == rank
            share = np.array([100 * float(found.sel(start=start, decay=decay).mean()) for start, decay in rows])
            name = f"rank {rank}" if rank >= 0 else "unresolved"
            if rank >= 0 or share.any():
                ax.barh(places, share, left=base, height=0.46, color=colour, label=name)
            base += share
        ax.set_yticks(
            places, [f"{start}, λ = {0 if decay.startswith('no') else lam:g}" for start, decay in rows], fontsize=8.5
        )
        ax.tick_params(axis="y", length=0, labelleft=letter == "a")
        ax.set_xlim(0, 100)
        ax.set_xlabel("share of the runs (%)")
        ax.set_title(f"({letter}) rank of $W^T W$ at the end, {data}", fontsize=10, loc="left")
        tidy(ax, grid=False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, ncols=5, loc="outside lower center")
    ax, q = axes[2], dataset.similarity.values
    lines = {"smallest singular value of $C$": (dataset.smallest_c, "0.5", "s")}
    for k, decay in enumerate(dataset.decay.values):
        text = f"smallest eigenvalue of $W^T W$, λ = {lam * k:g}"
        lines[text] = (dataset.smallest_w.sel(decay=decay), CYCLE[k], "o")
    for k, (text, (values, colour, marker)) in enumerate(lines.items()):
        spread = values.transpose("similarity", "trial").values
        ax.plot(q, np.median(spread, axis=1), color=colour, label=text)
        shift = np.repeat(q, spread.shape[1]) + 0.008 * (k - 1)
        ax.plot(shift, spread.ravel(), marker, color=colour, markersize=3, markeredgewidth=0, alpha=0.5)
    ax.set_yscale("symlog", linthresh=level / 10)
    ax.axhline(level, color="k", linewidth=0.8, linestyle=":")
    ax.text(1.0, level * 1.1, "counts as collapsed below", ha="right", va="bottom", fontsize=8)
    ax.set_ylim(-level / 50, 3)
    ax.set_xlabel("correlation q of one direction between the views\n(0 independent, 1 identical views)")
    ax.set_title("(c) condition 3; balanced starts, P > 0", fontsize=10, loc="left")
    ax.legend(frameon=False, fontsize=8.5, loc="lower right", bbox_to_anchor=(1, 0.06))
    tidy(ax)
    return figure


def plot_ablations(dataset: "xarray.Dataset") -> Any:
    """|W|^2 over time, one panel per kind of views and weight decay, one colour per arm. Returns the figure."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.6), layout="constrained", sharex=True, sharey=True)
    times = dataset.time.values[1:]
    for row, views in enumerate(dataset.views.values):
        for column, decay in enumerate(dataset.decay.values):
            ax = axes[row, column]
            for arm, (colour, style, order) in ARM_LOOKS.items():
                values = dataset.square.sel(arm=arm, views=views, decay=decay).transpose("run", "time").values[:, 1:]
                ax.plot(times, values[:15].T, color=colour, linewidth=0.5, alpha=0.5)
                ax.plot(times, np.median(values, axis=0), style, color=colour, linewidth=2.2, label=arm, zorder=order)
            lam = dataset.attrs["weight_decay"] * column
            ax.set_title(f"({'abcd'[2 * row + column]}) {views} views, λ = {lam:g}", fontsize=10, loc="left")
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xlim(0.1, times[-1])
            ax.set_ylim(1e-10, 100)
            tidy(ax)
        axes[row, 0].set_ylabel("$|W|^2$")
    for ax in axes[1]:
        ax.set_xlabel("flow time")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=4, loc="outside lower center")
    figure.suptitle("With predictor and stop gradient, and without one: medians (thick) and single runs", fontsize=11)
    return figure
