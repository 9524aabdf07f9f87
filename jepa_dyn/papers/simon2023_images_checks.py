"""What Simon et al. 2023 claim about deep networks (Figures 3, 4, 5), and what is found on small ones."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jepa_dyn.papers._figure import Check

if TYPE_CHECKING:
    import xarray

FLOOR = 0.02  # an eigenvalue below this share of the largest has not been learned
BIN = 0.25  # decades per bin of a histogram of eigenvalues
SCALE = "small networks, minutes; the paper has ResNet-50 on STL-10, 320 to 500 epochs"


class Bands(NamedTuple):
    """Where eigenvalues part into those that have grown and those that have not, and how empty it is there.

    `valley`: density at the threshold over that of the lower of the two peaks beside it, 1 where there is only one peak.
    """

    threshold: float
    valley: float


def histogram(eigenvalues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(middles of bins in log10, shares) of positive eigenvalues."""
    logs = np.log10(eigenvalues[eigenvalues > 0])
    edges = np.arange(np.floor(logs.min() / BIN), np.ceil(logs.max() / BIN) + 1.5) * BIN
    counts, _ = np.histogram(logs, edges)
    return (edges[1:] + edges[:-1]) / 2, counts / counts.sum()


def bands(eigenvalues: np.ndarray) -> Bands:
    """The emptiest place between two peaks of the histogram of log eigenvalues; of equally empty ones the middle.

    NaN and 1 where no eigenvalue is positive, as in a run that failed.
    """
    if not (eigenvalues > 0).any():
        return Bands(float("nan"), 1.0)
    middles, shares = histogram(eigenvalues)
    left, right = np.maximum.accumulate(shares), np.maximum.accumulate(shares[::-1])[::-1]
    depth = shares / np.minimum(left, right)  # 1 at a peak or on its way down from the only one
    least = np.flatnonzero(depth == depth.min())
    runs = np.split(least, np.flatnonzero(np.diff(least) > 1) + 1)
    widest = max(runs, key=len)
    return Bands(float(10 ** middles[widest].mean()), float(depth.min()))


def fig3_checks(dataset: "xarray.Dataset") -> list[Check]:
    """How many eigenvalues pass from the lower band to the upper one, how many at a time, and how many stay behind."""
    where, found = "Fig. 3, section 6", []
    d = dataset.sizes["mode"]
    for loss in dataset.loss.values:
        grown = dataset.grown.sel(loss=loss).values.astype(float)
        smooth = [float(np.median(part)) for part in np.array_split(grown, 8)]
        found.append(
            Check(
                f"{loss}: eigenvalues move from the lower to the upper band as training proceeds",
                where,
                "eigenvalues move from the lower band to the upper band",
                f"{smooth[0]:.0f} of {d} above the threshold in the first eighth of the run, {smooth[-1]:.0f} in the last",
                True,
                smooth[-1] > smooth[0] and bool((np.diff(smooth) >= -0.5).all()),
                SCALE,
            )
        )
    start = dataset.eigenvalue.isel(step=0)
    share = {
        str(loss): float((start.sel(loss=loss) > dataset.threshold.sel(loss=loss)).mean())
        for loss in dataset.loss.values
    }
    left = {str(loss): 1 - float(dataset.grown.sel(loss=loss)[-1]) / d for loss in dataset.loss.values}
    found += [
        Check(
            "A significant fraction of the eigenvalues remains small even late in training: at least a tenth",
            "appendix G",
            "a significant fraction of the eigenvalues remain small",
            ", ".join(f"{loss} {100 * value:.0f} %" for loss, value in left.items()),
            True,
            all(value >= 0.1 for value in left.values()),
        ),
        Check(
            "Eigenvalues are no longer uniformly small at the start: some lie above the threshold for every loss",
            where,
            "no longer uniformly small at initialization",
            ", ".join(f"{loss} {100 * value:.0f} %" for loss, value in share.items()),
            True,
            all(value > 0 for value in share.values()),
        ),
    ]
    return found


def fig4_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Whether the histograms have two peaks."""
    found = []
    for loss in dataset.loss.values:
        valley, threshold = (float(dataset[name].sel(loss=loss)) for name in ("valley", "threshold"))
        upper = [float((dataset.eigenvalue.sel(loss=loss)[k] > threshold).mean()) for k in (len(dataset.step) // 4, -1)]
        found.append(
            Check(
                f"{loss}: the distribution of the eigenvalues has two peaks, with less than half of the lower one between them",
                "Fig. 4, section 6",
                "bimodal distributions",
                f"at {threshold:.2g} {100 * valley:.0f} % of the lower peak; upper band {100 * upper[0]:.0f} % after a quarter, "
                f"{100 * upper[1]:.0f} % at the end",
                True,
                valley < 0.5,
                SCALE,
            )
        )
    return found


def matched(times: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """(median, by chance) of |log(t / t')| to the nearest other time; by chance t is spread evenly in log over the same span."""
    own, other = (np.log(one[np.isfinite(one) & (one > 0)]) for one in (times, others))
    if own.size == 0 or other.size == 0:
        return np.inf, np.inf
    grid = np.linspace(min(own.min(), other.min()), max(own.max(), other.max()), 400)

    def nearest(at: np.ndarray) -> float:
        return float(np.median(np.abs(at[:, None] - other).min(axis=1)))

    return nearest(own), nearest(grid)


def fig5_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Steps of the embeddings for each loss, and how near those of the hidden representation are."""
    found = []
    for loss in dataset.loss.values:
        one = dataset.sel(loss=loss)
        times, ends = one.step_times.values, one.step_ends.values
        learned = np.flatnonzero(np.isfinite(times))
        order = learned[np.argsort(times[learned])]
        apart = int((times[order][1:] > ends[order][:-1]).sum())
        found.append(
            Check(
                f"{loss}: eigenvalues of the embeddings rise one after another, at least two of them",
                "Figs. 1 C, D, 2 C to F, 5, section 6",
                "clearly show the same stepwise learning behavior",
                f"{learned.size} of {times.size} rise; {apart} of {max(learned.size - 1, 0)} only when the one before has "
                f"risen; effective rank {float(one.effective_rank.max()):.1f} at most",
                True,
                learned.size >= 2 and apart >= (learned.size - 1) / 2,
                SCALE,
            )
        )
    for loss in dataset.loss.values:
        one = dataset.sel(loss=loss)
        gap, chance = matched(one.step_times.values, one.hidden_step_times.values)
        found.append(
            Check(
                f"{loss}: steps of the hidden representation coincide with those of the embeddings, twice as well as by chance",
                "Fig. 5, section 6",
                "learning steps coinciding with the learning steps at the embeddings",
                f"nearest hidden step {100 * np.expm1(gap):.0f} % away (median), by chance {100 * np.expm1(chance):.0f} %",
                True,
                bool(gap < chance / 2),
                SCALE,
            )
        )
    return found
