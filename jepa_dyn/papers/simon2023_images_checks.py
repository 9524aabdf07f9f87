"""What Simon et al. 2023 claim about deep networks (Figures 3, 4, 5), and what is found on small ones."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jepa_dyn.papers._figure import Check

if TYPE_CHECKING:
    import xarray

HIDDEN = 8  # hidden eigenvalues that are followed
FLOOR = 0.02  # an eigenvalue below this share of the largest has not been learned
SMALL_STARTS = {"Barlow Twins": 1e-3, "SimCLR": 1e-6, "VICReg": 1e-3}  # top eigenvalues that appendix D.2 recommends
RESOLVED = 1e-7  # share of the largest eigenvalue below which float32 sees nothing
LEAST = 0.05  # share of the eigenvalues that makes a band
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

    A twentieth of the eigenvalues at least lies on either side: a straggler is no band. NaN and 1 where no eigenvalue is positive,
    as in a run that failed.
    """
    if not (eigenvalues > 0).any():
        return Bands(float("nan"), 1.0)
    middles, shares = histogram(eigenvalues[eigenvalues > RESOLVED * np.nanmax(eigenvalues)])
    left, right = np.maximum.accumulate(shares), np.maximum.accumulate(shares[::-1])[::-1]
    peak = np.minimum(left, right)  # 0 outside all eigenvalues
    depth = np.where(peak > 0, shares / np.where(peak > 0, peak, 1), 1)  # 1 at a peak and on the way down from the last
    below = np.cumsum(shares)
    depth = np.where((below < LEAST) | (below - shares > 1 - LEAST), 1, depth)
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
                f"{grown[0]:.0f} of {d} above the threshold at the start, {smooth[0]:.0f} in the first eighth of the run, "
                f"{smooth[-1]:.0f} in the last",
                True,
                bool(smooth[-1] > grown[0] and (np.diff(smooth) >= -0.5).all()),
                SCALE,
            )
        )
    first = dataset.eigenvalue.isel(step=0, mode=0)
    times = {str(loss): float(first.sel(loss=loss)) / SMALL_STARTS[str(loss)] for loss in dataset.loss.values}
    last = dataset.eigenvalue.isel(step=-1)
    left = {
        str(loss): float((last.sel(loss=loss) < 0.01 * last.sel(loss=loss).max()).mean())
        for loss in dataset.loss.values
    }
    found += [
        Check(
            "Barlow Twins, VICReg: many eigenvalues remain small, at the end a tenth of them is below a hundredth of the largest",
            "appendix G",
            "a significant fraction of the eigenvalues remain small",
            ", ".join(f"{loss} {100 * value:.0f} %" for loss, value in left.items()),
            True,
            all(left[loss] >= 0.1 for loss in ("Barlow Twins", "VICReg")),
            "the paper says so of all; SimCLR has learned nearly all of its few dimensions here",
        ),
        Check(
            "Eigenvalues are no longer uniformly small at the start: the largest is ten times that of the paper's small starts",
            f"{where}; appendix D.2",
            ", ".join(f"{loss} {value:.0e}" for loss, value in SMALL_STARTS.items()),
            ", ".join(f"{loss} × {value:.3g}" for loss, value in times.items()),
            True,
            all(value >= 10 for value in times.values()),
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
                str(loss) != "SimCLR",
                valley < 0.5,
                f"SimCLR's eigenvalues spread evenly over decades here; {SCALE}" if str(loss) == "SimCLR" else SCALE,
            )
        )
    return found


def growth_during(steps: np.ndarray, values: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[float, float]:
    """d log(product of the eigenvalues) / d log(step): (while any of the rises lasts, otherwise), after the first of them.

    NaN where there is no such time. Eigenvalues that rounding has made <= 0 are left out.
    """
    known = np.isfinite(starts) & np.isfinite(ends)
    if not known.any():
        return np.nan, np.nan
    starts, ends = starts[known], ends[known]
    later = steps > 0
    clock, kept = np.log(steps[later]), values[later][:, (values[later] > 0).all(axis=0)]
    change, took, middle = np.diff(np.log(kept).sum(axis=1)), np.diff(clock), np.exp((clock[1:] + clock[:-1]) / 2)
    rising = ((middle[:, None] >= starts) & (middle[:, None] <= ends)).any(axis=1)
    after = middle >= starts.min()

    def rate(where: np.ndarray) -> float:
        return float(change[where].sum() / took[where].sum()) if where.any() else np.nan

    return rate(rising & after), rate(~rising & after)


def fig5_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Steps of the embeddings for each loss, and how the hidden representation grows meanwhile."""
    found = []
    for loss in dataset.loss.values:
        one = dataset.sel(loss=loss)
        times, ends = one.step_times.values, one.step_ends.values
        learned = np.flatnonzero(np.isfinite(times))
        order = learned[np.argsort(times[learned])]
        apart = int((times[order][1:] > ends[order][:-1]).sum())
        found.append(
            Check(
                f"{loss}: eigenvalues of the embeddings rise in turn or a few at a time: a third of them wait for the one before",
                "Figs. 1 C, D, 2 C to F, 5, section 6",
                "clearly show the same stepwise learning behavior",
                f"{learned.size} of {times.size} rise; {apart} of {max(learned.size - 1, 0)} only when the one before has "
                f"risen; effective rank {float(one.effective_rank.max()):.1f} at most",
                True,
                learned.size >= 2 and apart >= (learned.size - 1) / 3,
                f"footnote 17 has 'a few at a time'; {SCALE}",
            )
        )
    rates = {}
    for loss in dataset.loss.values:
        one = dataset.sel(loss=loss)
        top = one.hidden_eigenvalue.values[:, :HIDDEN]
        rates[str(loss)] = growth_during(one.step.values, top, one.step_starts.values, one.step_ends.values)
    found.append(
        Check(
            "Barlow Twins, VICReg: hidden eigenvalues grow while those of the embeddings rise, 1.5 times as fast as between",
            "Fig. 5, section 6",
            "learning steps coinciding with the learning steps at the embeddings",
            f"d log / d log t of the product of the {HIDDEN} largest, during rises and between: "
            + "; ".join(f"{loss} {during:.1f}, {between:.1f}" for loss, (during, between) in rates.items()),
            True,
            all(rates[loss][0] > 1.5 * rates[loss][1] for loss in ("Barlow Twins", "VICReg")),
            "SimCLR's rises overlap, what lies between them depends on the seed (ratios of 0.9 and 2.5 were found)",
        )
    )
    return found
