"""The prediction in words and tables, for the terminal."""

from typing import TYPE_CHECKING

from jepa_dyn.papers.table import text_table
from jepa_dyn.parameters import OBJECTIVE_NAMES
from jepa_dyn.predict.core import LEARNED, OUTCOMES, STARTS_ABOVE, swapped_pairs

if TYPE_CHECKING:
    import xarray

MAX_LISTED_PAIRS = 4
# what the order of two features is worth: leakage of a feature into others above this makes its scalar mode a rough picture
GOOD_DEFECT, FAIR_DEFECT = 0.1, 0.3


def report(dataset: "xarray.Dataset", num_features: int = 10) -> str:
    """One table per depth: order, critical time and final strength of the first features under both objectives."""
    shown = min(num_features, dataset.sizes["feature"])
    parts = [_heading(dataset, shown), defect_sentence(dataset)]
    parts += [_depth_table(dataset, float(depth), shown) for depth in dataset.depth.values]
    parts.append(_legend(dataset))
    return "\n\n".join(parts)


def _heading(dataset: "xarray.Dataset", shown: int) -> str:
    source = dataset.attrs.get("source", "")
    total = dataset.sizes["feature"]
    lines = [f"Predicted learning order{' from ' + source if source else ''}"]
    lines.append(
        f"{total} features with variance; the {shown} of largest covariance λ are shown. "
        f"Initial amplitude eps = {dataset.attrs['eps']:g}."
    )
    return "\n".join(lines)


def defect_sentence(dataset: "xarray.Dataset") -> str:
    """The measured defect of simultaneous diagonalisability, and what it means for the reader."""
    xx, yx = dataset.attrs["defect_off_diagonal_xx"], dataset.attrs["defect_off_diagonal_yx"]
    worst = max(xx, yx)
    if worst < GOOD_DEFECT:
        meaning = "the strong features hardly mix: the prediction should be close for deep linear encoders"
    elif worst < FAIR_DEFECT:
        meaning = "features mix somewhat: trust clear gaps between critical times, not close calls"
    else:
        meaning = "the features mix strongly: read the order as a tendency only"
    return (
        f"Diagonalisability defect: {xx:.1%} of Sigma_xx and {yx:.1%} of Sigma_yx lie off the diagonal in the features'\n"
        f"basis (Frobenius norm, ruled by the strongest features; the theory assumes 0 %).\nOverall, {meaning}.\n"
        "For a single feature see its leak."
    )


def _depth_table(dataset: "xarray.Dataset", depth: float, shown: int) -> str:
    one = dataset.sel(depth=depth).isel(feature=slice(0, shown))
    swaps = swapped_pairs(dataset, depth)
    visible = [(i, j) for i, j in swaps if i <= shown and j <= shown]
    moved = {i for pair in visible for i in pair}
    headers = ["feature", "λ", "ρ", "leak"]
    for objective in OBJECTIVE_NAMES.values():
        headers += [f"{objective} order", "t*", "t*/L", "strength"]
    rows = []
    for k in range(shown):
        number = int(one.feature[k])
        row = [
            f"{number}{' *' if number in moved else '  '}",
            f"{float(one.lam[k]):.3g}",
            f"{round(float(one.rho[k]), 3) + 0.0:.3f}",
            f"{_leak(one, k):.2f}",
        ]
        for objective in OBJECTIVE_NAMES:
            row += _cells(one.sel(objective=objective).isel(feature=k))
        rows.append(row)
    title = f"Depth L = {depth:g}"
    text = f"{title}\n{'=' * len(title)}\n{text_table(headers, rows, '>' * len(headers))}"
    return f"{text}\n{_swap_sentence(dataset, depth, visible, shown)}"


def _cells(one: "xarray.Dataset") -> list[str]:
    outcome, strength = int(one.outcome), f"{float(one.strength):.3g}"
    if outcome == LEARNED:
        return [
            str(int(one.order)),
            _number(float(one.critical_time)),
            _number(float(one.critical_flow_time)),
            strength,
        ]
    if outcome == STARTS_ABOVE:
        return ["-", "starts", "above", strength]
    return ["-", "never", "learned", "0"]


def _leak(one: "xarray.Dataset", k: int) -> float:
    return float(max(one.leakage_xx[k], one.leakage_yx[k]))


def _number(value: float) -> str:
    """Three digits without an exponent between 0.01 and 1e4, else as 1.23e5."""
    if 0.01 <= value < 1e4:
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _swap_sentence(dataset: "xarray.Dataset", depth: float, visible: list[tuple[int, int]], shown: int) -> str:
    one = dataset.sel(depth=depth)
    total, learned = int(one.swapped_pairs), int(one.learned_pairs)
    if learned == 0:
        return "Fewer than two features are learned by both objectives: there is no order to compare."
    if total == 0:
        return f"JEPA and MAE learn all features in the same order ({learned} pairs compared)."
    text = f"JEPA and MAE swap {total} of {learned} pairs of features ({total / learned:.1%})"
    if not visible:
        return text + f", none of them among the {shown} shown."
    listed = ", ".join(f"{i} before {j}" for i, j in visible[:MAX_LISTED_PAIRS])
    more = f" and {len(visible) - MAX_LISTED_PAIRS} more of those shown" if len(visible) > MAX_LISTED_PAIRS else ""
    return text + f"; JEPA, unlike MAE, learns {listed}{more} (marked *)."


def _legend(dataset: "xarray.Dataset") -> str:
    counts = [int((dataset.outcome == code).any(("objective", "depth")).sum()) for code in range(len(OUTCOMES))]
    lines = [
        "λ: covariance of the feature between the views; ρ: λ / variance. t*: time to half of the final strength, in the clock",
        "of the mode equations; t*/L: the same in gradient-flow time, comparable between depths. strength: final amplitude.",
        "leak: share of what drives the feature that comes from or goes to other directions; 0 where the theory is exact.",
    ]
    if counts[1]:
        lines.append(f"never learned ({counts[1]} features): λ <= 0, the views disagree about the feature.")
    if counts[STARTS_ABOVE]:
        lines.append(
            f"starts above ({counts[STARTS_ABOVE]} features at some depth): eps is already half of the final strength or more; "
            "a smaller eps resolves them."
        )
    return "\n".join(lines)
