"""The prediction as one figure: what the features look like, what they are made of, when they are learned."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.parameters import OBJECTIVE_NAMES
from jepa_dyn.predict.core import LEARNED

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes


def plot_prediction(dataset: "xarray.Dataset", *, num_features: int = 10, depth: float | int | None = None) -> Any:
    """Draws the features as images in the order learned, (lam, rho), the learning curves and the order over depth.

    Args:
        dataset: from `predict`; its attribute `view_shape` (JSON) gives the shape of the images, where there are any.
        num_features: how many features, those of largest lam.
        depth: for which the images are ordered and the curves drawn; the largest by default.

    Returns:
        Figure.

    Raises:
        ValueError: the depth is not in the dataset.
    """
    from matplotlib import pyplot

    from jepa_dyn.plots import learning_order

    if depth is None:
        depth = float(dataset.depth.max())
    if depth not in dataset.depth.values:
        raise ValueError(f"Argument `depth` must be one of {dataset.depth.values.tolist()}, but is {depth:g}.")
    shown = dataset.isel(feature=slice(0, num_features))
    figure = pyplot.figure(figsize=(12, 9.4), layout="constrained")
    top, bottom = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=[1.0, 2.25])))
    _image_rows(top, shown, depth)
    axes = bottom.subplots(2, 3, width_ratios=[1.0, 1.35, 1.15])
    for row, objective in enumerate(OBJECTIVE_NAMES):
        _curves(shown, objective, depth, axes[row, 1])
        times = shown.critical_time.where(shown.outcome == LEARNED).sel(objective=objective)
        learning_order(times, colour="rho", ax=axes[row, 2])
        axes[row, 2].set_title(f"{OBJECTIVE_NAMES[objective]}: order of learning over depth", fontsize=10, loc="left")
    _scatter(dataset, shown, axes[0, 0])
    _strengths(shown, depth, axes[1, 0])
    figure.suptitle(_title(dataset), fontsize=12)
    return figure


def _title(dataset: "xarray.Dataset") -> str:
    source = dataset.attrs.get("source", "")
    return "What JEPA and MAE learn first" + (f", predicted from {source}" if source else "")


def _image_rows(place: Any, shown: "xarray.Dataset", depth: float) -> None:
    """One row of images per objective, first learned on the left; where both agree on a place the frame is grey."""
    shape = json.loads(shown.attrs.get("view_shape", "null"))
    axes = place.subplots(2, shown.sizes["feature"], squeeze=False)
    orders = {o: _learned_order(shown.sel(objective=o, depth=depth)) for o in OBJECTIVE_NAMES}
    for row, objective in enumerate(OBJECTIVE_NAMES):
        for column, ax in enumerate(axes[row]):
            ax.set_xticks([])
            ax.set_yticks([])
            if column >= len(orders[objective]):
                ax.axis("off")
                continue
            position = orders[objective][column]
            _image(ax, shown.basis.isel(feature=position).values, shape)
            others = orders["mae" if objective == "jepa" else "jepa"]
            differs = column >= len(others) or others[column] != position
            ax.spines[:].set(color="#D55E00" if differs else "0.75", linewidth=2.2 if differs else 1.0)
            ax.set_title(f"{int(shown.feature[position])}", fontsize=9, pad=2, color="#D55E00" if differs else "k")
        axes[row, 0].set_ylabel(
            f"{OBJECTIVE_NAMES[objective]}", fontsize=11, rotation=0, ha="right", va="center", labelpad=8
        )
    place.suptitle(
        f"Features in the order learned at depth L = {depth:g}: first on the left; framed where the objectives differ",
        fontsize=10,
    )


def _learned_order(one: "xarray.Dataset") -> list[int]:
    learned = np.flatnonzero(one.outcome.values == LEARNED)
    return [int(i) for i in learned[np.argsort(one.critical_time.values[learned], kind="stable")]]


def _image(ax: "Axes", values: np.ndarray, shape: list[int] | None) -> None:
    if shape is None:
        ax.plot(values, color="k", linewidth=1)
        return
    image = values.reshape(shape)
    reach = np.abs(image).max()
    if image.ndim == 3 and image.shape[-1] == 3:
        ax.imshow(0.5 + 0.5 * image / reach, interpolation="nearest")
    else:
        ax.imshow(image.reshape(shape[:2]), cmap="gray", vmin=-reach, vmax=reach, interpolation="nearest")


def _scatter(dataset: "xarray.Dataset", shown: "xarray.Dataset", ax: "Axes") -> None:
    from jepa_dyn.plots._style import tidy

    positive = dataset.isel(feature=np.flatnonzero(dataset.lam.values > 0))
    ax.scatter(positive.lam, positive.rho, s=12, color="0.75", label="all features")
    first = shown.isel(feature=np.flatnonzero(shown.lam.values > 0))
    ax.scatter(first.lam, first.rho, s=26, color="#0072B2", label="shown above")
    for lam, rho, number in zip(first.lam.values, first.rho.values, first.feature.values, strict=True):
        shift, side = ((4, -8), "left") if number % 2 else ((-4, 3), "right")
        ax.annotate(f"{number}", (lam, rho), shift, textcoords="offset points", fontsize=8, ha=side)
    if positive.sizes["feature"]:
        ax.set_xscale("log")
    ax.set_xlabel("covariance between the views λ")
    ax.set_ylabel("regression coefficient ρ")
    ax.set_title("The features' parameters", fontsize=10, loc="left")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    tidy(ax)


def _curves(shown: "xarray.Dataset", objective: str, depth: float, ax: "Axes") -> None:
    from jepa_dyn.plots import learning_curves

    one = shown.sel(objective=objective, depth=depth)
    learning_curves(one.w, colour="rho", x="time", log_x=True, ax=ax)
    ax.set_title(f"{OBJECTIVE_NAMES[objective]}: learning curves at L = {depth:g}", fontsize=10, loc="left")
    ax.set_xlabel("time (mode clock)")
    ax.set_ylim(bottom=0)


def _strengths(shown: "xarray.Dataset", depth: float, ax: "Axes") -> None:
    from jepa_dyn.plots._style import OBJECTIVE_COLOURS, tidy

    places = np.arange(shown.sizes["feature"])
    for objective, shift in (("jepa", -0.2), ("mae", 0.2)):
        one = shown.strength.sel(objective=objective, depth=depth)
        ax.bar(places + shift, one, 0.4, color=OBJECTIVE_COLOURS[objective], label=OBJECTIVE_NAMES[objective])
    ax.set_xticks(places, [f"{number}" for number in shown.feature.values])
    ax.set_xlabel("feature, by falling λ")
    ax.set_ylabel("final strength w(∞)")
    ax.set_title(f"Final strength at L = {depth:g}", fontsize=10, loc="left")
    ax.legend(frameon=False, fontsize=8, loc="upper right")
    tidy(ax)
