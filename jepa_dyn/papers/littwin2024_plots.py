"""Drawings of the figures of Littwin et al. 2024, from their datasets."""

from typing import TYPE_CHECKING, Any

from jepa_dyn.parameters import OBJECTIVE_NAMES

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes


def plot_fig2(dataset: "xarray.Dataset") -> Any:
    """Figure 2: two rows (JEPA, MAE) of three panels (lam, rho, opposite trends); darker is larger. Returns the figure."""
    columns = {
        "lam": ("lam", "λ  at ρ = 1"),
        "rho": ("rho", "ρ  at λ = 1"),
        "opposite": ("lam", "λ  while ρ falls from {:.3g} to {:.3g}"),
    }
    figure, axes = _panels(3)
    for column, (panel, (colour, text)) in enumerate(columns.items()):
        rho = dataset.rho.sel(panel=panel).values
        bar = text.format(rho[0], rho[-1])
        for row, objective in enumerate(dataset.objective.values):
            one = dataset.sel(objective=objective, panel=panel)
            _draw(one, colour, axes[row, column], bar)
            axes[row, column].set_title(
                f"({'abcdef'[3 * row + column]}) {OBJECTIVE_NAMES[objective]}", fontsize=10, loc="left"
            )
    _legend(figure, f"Learning curves at depth L = {dataset.attrs['depth']:g}, started at {dataset.attrs['eps']:g}")
    return figure


def plot_fig4(dataset: "xarray.Dataset") -> Any:
    """Figure 4: two rows (JEPA, MAE) of one panel per depth; darker is larger rho. Returns the figure."""
    figure, axes = _panels(dataset.sizes["depth"])
    for column, depth in enumerate(dataset.depth.values):
        for row, objective in enumerate(dataset.objective.values):
            last = column == dataset.sizes["depth"] - 1
            one = dataset.sel(objective=objective, depth=depth)
            _draw(one, "rho", axes[row, column], "ρ  at λ = 1" if last else None)
            axes[row, column].set_title(f"{OBJECTIVE_NAMES[objective]}, L = {depth:g}", fontsize=10, loc="left")
    _legend(figure, f"Learning curves of features with equal λ, started at {dataset.attrs['eps']:g}")
    return figure


def _panels(columns: int) -> tuple[Any, Any]:
    from matplotlib import pyplot

    return pyplot.subplots(2, columns, figsize=(3.5 * columns, 5.6), layout="constrained", squeeze=False)


def _draw(one: "xarray.Dataset", colour: str, ax: "Axes", bar: str | None) -> None:
    from jepa_dyn.plots import learning_curves

    figure, _ = learning_curves(
        one.w_simulation, colour=colour, x="time", ax=ax, status=one.status, colour_bar=False, linewidths=1.6
    )
    for w in one.w_theory.transpose("curve", "time_index").values:
        ax.plot(one.time.values, w, color="k", linewidth=0.9, linestyle=(0, (1, 2.5)))
    if bar is not None:
        figure.colorbar(ax.collections[0], ax=ax, label=bar, pad=0.02)
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    ax.set_ylabel("amplitude w")
    ax.set_ylim(bottom=0)


def _legend(figure: Any, title: str) -> None:
    from matplotlib.lines import Line2D

    figure.suptitle(title, fontsize=11)
    lines = [
        Line2D([], [], color="#21918c", linewidth=1.6, label="integrated equations (7), (8)"),
        Line2D([], [], color="k", linewidth=0.9, linestyle=(0, (1, 2.5)), label="closed form"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
