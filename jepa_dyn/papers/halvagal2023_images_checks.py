"""What Halvagal et al. 2023 claim in Figures 3, 7 and 8 about the eigenvalues that encoders of images recruit, and what is found.

An eigenvalue of C_z is recruited where it exceeds a tenth of the largest.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.papers._figure import Check

if TYPE_CHECKING:
    import xarray

SCALE = "in kind; the paper's ResNet-18, 256 dimensions and hundreds of epochs need its scale (`full`)"


def _listed(values: Any, form: str = "g") -> str:
    return ", ".join(format(float(value), form) for value in np.ravel(values))


def _largest(values: np.ndarray) -> float:
    """NaN of none, which no claim is true of."""
    return float(values.max()) if values.size else np.nan


def alive(one: "xarray.Dataset") -> np.ndarray:
    """Which modes are recruited at the end of one run."""
    end = one.eigenvalue.isel(step=-1).values
    return end > 0.1 * end.max()


def rises(one: "xarray.Dataset") -> np.ndarray:
    """Steps from which on 2, 3, ... eigenvalues are recruited for good, up to the number at the end."""
    counts = np.nan_to_num(one.recruited.values)
    numbers = np.arange(2, counts[-1] + 1)
    return np.array([one.step.values[np.flatnonzero(counts < n)[-1] + 1] for n in numbers if (counts < n).any()])


def half_way(one: "xarray.Dataset", goal: float) -> float:
    """Step from which on the effective rank exceeds half the goal; infinite where it does not at the end."""
    low = np.flatnonzero(~(one.effective_rank.values > goal / 2))
    steps = np.append(one.step.values, np.inf)
    return float(steps[low[-1] + 1 if low.size else 0])


def spread_in_decades(one: "xarray.Dataset") -> float:
    """log10 of the largest over the smallest eigenvalue at the end."""
    end = one.eigenvalue.isel(step=-1).values.astype(float)
    return float(np.log10(end.max() / max(end.min(), 1e-30)))


def fig3_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Where eigenvalues end under either distance, which are recruited, how soon, and what remains without a moving average."""
    averaged, online = dataset.sel(target="averaged"), dataset.sel(target="online")
    return _euclidean(averaged.sel(distance="euclidean")) + _cosine(
        averaged.sel(distance="cosine"), online.sel(distance="cosine")
    )


def _euclidean(runs: "xarray.Dataset") -> list[Check]:
    direct, iso, trained = (runs.sel(predictor=name) for name in ("direct", "iso", "trained"))
    closed = [(one.isel(step=-1), alive(one)) for one in (direct, iso)]
    tops = [float(end.eigenvalue.max()) for end, _ in closed]
    least = [-_largest(-end.eigenvalue.values[on]) for end, on in closed]
    gaps = [_largest(np.abs(end.predictor_eigenvalue - end.view_correlation).values[on]) for end, on in closed]
    below = [_largest(np.abs(end.predictor_eigenvalue - 1).values[on]) for end, on in closed]
    counts = [float(one.recruited.isel(step=-1)) for one in (direct, iso)]
    decades = [spread_in_decades(one) for one in (direct, iso, trained)]
    readout = [float(one.probe_accuracy.mean("step")) for one in (direct, iso)]
    goal = float(iso.effective_rank.max())
    when = [half_way(one, goal) for one in (direct, iso)]
    where, size = "Figure 3 a", runs.sizes["mode"]
    return [
        Check(
            "Euclidean: eigenvalues end near 1, with DirectPred and with IsoLoss",
            where,
            "converge to a small range of values around one",
            f"largest {_listed(tops, '.2f')}; smallest that is recruited {_listed(least, '.2f')}",
            True,
            0.7 < min(tops) and max(tops) < 1.4,
            SCALE,
        ),
        Check(
            "Euclidean: each eigenvalue of W_P ends at the correlation of the two views along its mode",
            where,
            "(corrected) not 1: noisy views lower the end",
            f"farthest {_listed(gaps, '.2f')} among those recruited; from 1 {_listed(below, '.2f')}",
            True,
            bool(max(gaps) < 0.25 and sum(gaps) < 0.7 * sum(below)),
            "1 / (1 + σ²) for noise of variance σ² becomes E[h h'] / E[h²] of each mode",
        ),
        Check(
            "Euclidean: IsoLoss recruits more eigenvalues than DirectPred",
            where,
            "all converge quickly",
            f"{counts[1]:g} of {size} instead of {counts[0]:g}",
            True,
            counts[1] > counts[0],
            SCALE,
        ),
        Check(
            "Euclidean: IsoLoss recruits sooner",
            where,
            "IsoLoss had faster initial dynamics for the eigenvalues",
            f"half of the effective rank {goal:.1f} for good after {when[1]:g} steps instead of {when[0]:g}",
            True,
            when[1] < when[0],
        ),
        Check(
            "Euclidean: a trained predictor spreads eigenvalues over a larger range",
            where,
            "spread across a large range of magnitudes",
            f"{decades[2]:.1f} decades; {decades[0]:.1f} (DirectPred), {decades[1]:.1f} (IsoLoss); nan is divergence",
            True,
            decades[2] > max(decades[:2]),
        ),
        Check(
            "Euclidean: IsoLoss reads out better early on",
            "Figure 3 b",
            "accelerates the initial learning dynamics",
            f"accuracy over the run {readout[1]:.3f} on average instead of {readout[0]:.3f}",
            True,
            readout[1] > readout[0],
        ),
    ]


def _cosine(runs: "xarray.Dataset", online: "xarray.Dataset") -> list[Check]:
    direct, iso, trained = (runs.sel(predictor=name) for name in ("direct", "iso", "trained"))
    counts = [float(one.recruited.isel(step=-1)) for one in (direct, iso)]
    traces = [float(one.eigenvalue.isel(step=-1).sum()) for one in (direct, iso)]
    start = [
        one.eigenvalue.isel(step=0).values.max() / one.eigenvalue.isel(step=0).values[:4].min() for one in (direct, iso)
    ]
    end = [one.eigenvalue.isel(step=-1).values for one in (direct, iso)]
    ratio = [values[0] / values[3] for values in end]
    when = rises(trained)
    without = [float(online.sel(predictor=name).effective_rank.isel(step=-1)) for name in ("direct", "iso")]
    with_it = [float(one.effective_rank.isel(step=-1)) for one in (direct, iso)]
    where, size = "Figure 3 c", runs.sizes["mode"]
    return [
        Check(
            "cosine: the largest eigenvalues are driven to the same magnitude",
            where,
            "gradually to the same magnitude",
            f"first over fourth {_listed(start, '.1f')} at the start, {_listed(ratio, '.2f')} at the end",
            True,
            bool(max(ratio) < min(min(start), 2)),
        ),
        Check(
            "cosine: IsoLoss recruits more eigenvalues than DirectPred",
            where,
            "L_cos recruits few large eigenvalues, L_iso quickly recruits all",
            f"{counts[1]:g} of {size} instead of {counts[0]:g}",
            True,
            counts[1] > counts[0],
            f"{SCALE}; with little weight decay embeddings grow under IsoLoss, gradients shrink with them, and fewer are recruited",
        ),
        Check(
            "cosine: embeddings are larger under IsoLoss",
            where,
            "(ours) tr C_z grows at the rate sum (λ_k - λ_m)² >= 0",
            f"tr C_z {traces[1]:.3g} instead of {traces[0]:.3g}",
            True,
            traces[1] > traces[0],
        ),
        Check(
            "cosine: a trained predictor recruits eigenvalues one by one",
            where,
            "recruits eigenvalues in a step-wise manner",
            f"{float(trained.recruited[0]):g} of {size} at the start; further ones after {_listed(when) or 'no'} steps",
            False,
            bool(when.size >= size / 2 and np.unique(when).size > when.size / 2),
            "needs the paper's scale: a small encoder starts with as many above a tenth of the largest as it ends with",
        ),
        Check(
            "cosine: without a moving-average target fewer eigenvalues are recruited, IsoLoss included",
            "section 3.2",
            "a notable reduction in the recruitment of small eigenvalues",
            f"effective rank {_listed(without, '.1f')} instead of {_listed(with_it, '.1f')} (DirectPred, IsoLoss)",
            True,
            without[0] < with_it[0] and without[1] < with_it[1],
        ),
    ]


def fig7_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Recruitment without a moving average and with one, for either loss; what removing it costs a readout."""
    end = dataset.isel(step=-1)
    usual = float(dataset.momentum.values[np.argmin(np.abs(dataset.momentum.values - 0.99))])
    ranks = {loss: end.effective_rank.sel(loss=loss).values for loss in dataset.loss.values}
    iso = end.sel(loss="IsoLoss")
    counts = [float(iso.recruited.sel(momentum=value)) for value in (0.0, usual)]
    readout = {
        loss: [float(end.probe_accuracy.sel(loss=loss, momentum=value)) for value in (0.0, usual)] for loss in ranks
    }
    cost = {loss: after - before for loss, (before, after) in readout.items()}
    up_to = int(np.argmax(dataset.momentum.values == usual)) + 1
    without = [ranks[loss][0] for loss in ("DirectPred", "IsoLoss")]
    return [
        Check(
            "IsoLoss: without a moving-average target fewer eigenvalues are recruited",
            "Figure 7",
            "fewer eigenmodes recruited during training",
            f"{counts[0]:g} of {dataset.sizes['mode']} instead of {counts[1]:g}",
            True,
            counts[0] < counts[1],
            SCALE,
        ),
        Check(
            "Without it, IsoLoss learns where DirectPred fails",
            "section 3.2, Table 2",
            "L_iso robust to EMA removal, L_cos unstable",
            f"effective rank {without[1]:.2f} instead of {without[0]:.2f}; accuracy of a readout "
            f"{readout['IsoLoss'][0]:.3f} instead of {readout['DirectPred'][0]:.3f}",
            True,
            bool(without[1] > without[0]) and readout["IsoLoss"][0] > readout["DirectPred"][0],
            "at the paper's scale DirectPred falls to chance",
        ),
        Check(
            "Removing it costs IsoLoss less accuracy than DirectPred",
            "section 3.2",
            "a slight drop in performance",
            f"{cost['IsoLoss']:.3f} instead of {cost['DirectPred']:.3f}",
            True,
            0 <= cost["IsoLoss"] < cost["DirectPred"],
            "not slight here, where runs are short: 0 to 5 % in Table 2",
        ),
        Check(
            "Either loss: the slower the target, up to 0.99, the more is recruited",
            "section 3.2",
            "(ours) EMA target networks are thought to amplify small eigenvalues",
            "; ".join(f"{loss} {_listed(values, '.1f')}" for loss, values in ranks.items()) + " (effective rank)",
            True,
            all(bool((np.diff(values[:up_to]) > -0.02 * values[up_to - 1]).all()) for values in ranks.values()),
        ),
    ]


def fig8_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Recruitment and magnitude against weight decay, from the decay on at which a loss recruits most."""
    end = dataset.isel(step=-1)
    decays = dataset.weight_decay.values
    ranks = {loss: end.effective_rank.sel(loss=loss).values for loss in dataset.loss.values}
    counts = {loss: end.recruited.sel(loss=loss).values for loss in dataset.loss.values}
    best = {loss: int(np.argmax(values)) for loss, values in ranks.items()}
    kept = {loss: float(values[-1] / values.max()) for loss, values in ranks.items()}
    falling = ranks["DirectPred"][best["DirectPred"] :]
    traces = end.eigenvalue.sum("mode").sel(loss="IsoLoss").values
    few = f"{_listed(counts['IsoLoss'])} of {dataset.sizes['mode']}"
    return [
        Check(
            "DirectPred: the more weight decay, the fewer eigenvalues are recruited",
            "Figure 8 a",
            "decreasing weight decay correlates with the number of eigenvalues recruited",
            f"effective rank {_listed(ranks['DirectPred'], '.1f')}, recruited {_listed(counts['DirectPred'])} "
            f"at decays {_listed(decays)}",
            True,
            falling.size > 2 and bool((np.diff(falling) < 0).all()) and kept["DirectPred"] < 0.75,
            f"from {decays[best['DirectPred']]:g} on; with less decay runs of this length are not done recruiting",
        ),
        Check(
            "IsoLoss: weight decay takes away less of what is recruited",
            "Figure 8 b, section 3.2",
            "IsoLoss reduces the impact of weight decay on eigenvalue recruitment",
            f"the largest decay leaves {kept['IsoLoss']:.2f} of the best effective rank instead of {kept['DirectPred']:.2f}",
            True,
            kept["IsoLoss"] > kept["DirectPred"],
            SCALE,
        ),
        Check(
            "IsoLoss: all eigenvalues are recruited at every weight decay",
            "Figure 8 b",
            "all eigenvalues are recruited independent of the strength of weight decay",
            few,
            False,
            bool((counts["IsoLoss"] == dataset.sizes["mode"]).all()),
            "needs the paper's scale: with little decay embeddings grow and gradients shrink, and runs of this length are not done",
        ),
        Check(
            "IsoLoss: the more weight decay, the smaller the eigenvalues",
            "Figure 8 b",
            "the magnitude inversely correlates with the magnitude of weight decay",
            f"tr C_z {_listed(traces, '.2g')}",
            True,
            bool((np.diff(traces) < 0).all()),
        ),
    ]
