"""What Halvagal et al. 2023 claim about collapse and recruitment, over a whole phase diagram, and what is found."""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn.papers._figure import Check
from jepa_dyn.theory.direct_pred import recruitment

if TYPE_CHECKING:
    import xarray

CLASSES = ("all modes", "dimensional collapse", "complete collapse", "diverged", "unresolved")
ALL, DIMENSIONAL, COMPLETE, DIVERGED, UNRESOLVED = range(5)


def starting_spectra(anisotropy: np.ndarray, modes: int) -> np.ndarray:
    """Eigenvalues of C_z, (..., modes), in geometric progression, largest over smallest as given, with mean 1."""
    shape = np.asarray(anisotropy, float)[..., None] ** np.linspace(0, 1, modes)
    return shape / shape.mean(axis=-1, keepdims=True)


def predicted_recruits(dataset: "xarray.Dataset", iso: bool) -> np.ndarray:
    """Modes that a Euclidean loss recruits without end of time, (alpha, weight_decay, anisotropy), by `theory.recruitment`."""
    start = starting_spectra(dataset.anisotropy.values, dataset.attrs["modes"])
    eigenvalues = start ** dataset.alpha.values[:, None, None, None]
    online = 1 + dataset.attrs["sigma"] ** 2
    threshold = np.asarray(recruitment(dataset.weight_decay.values, online=online, iso=iso)[0])
    return (eigenvalues > threshold[:, None, None]).sum(axis=-1)


def phase_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Over the whole diagram; alpha = 0 is no predictor and belongs to no claim about one."""
    order = ("loss", "alpha", "ema_rate", "weight_decay", "anisotropy")
    found = {loss: dataset.sel(loss=loss).transpose(*order[1:]) for loss in dataset.loss.values}
    kind = {loss: one["class"].values for loss, one in found.items()}
    count = {loss: one.recruited.values for loss, one in found.items()}
    alphas, spread = dataset.alpha.values, dataset.anisotropy.values
    with_predictor, tied = alphas > 0, np.isinf(dataset.ema_rate.values)
    settled = {loss: values != UNRESOLVED for loss, values in kind.items()}
    return [
        *_euclidean_checks(dataset, kind, count, with_predictor, tied),
        *_cosine_checks(dataset, kind, count, settled, with_predictor),
        *_stop_gradient_checks(kind, alphas, spread),
    ]


def _euclidean_checks(
    dataset: "xarray.Dataset", kind: dict, count: dict, with_predictor: np.ndarray, tied: np.ndarray
) -> list[Check]:
    plain, iso = "euclidean", "euclidean_iso"
    own, number = kind[plain][with_predictor], count[plain][with_predictor]
    number = np.where(own == COMPLETE, 0, number)
    wanted = predicted_recruits(dataset, False)[with_predictor][:, None]
    resolved = own != UNRESOLVED
    right = (number == wanted) & resolved
    by_decay = np.where(own == COMPLETE, 0, number)[:, tied].mean(axis=(0, 1, 3))
    iso_kind = kind[iso][with_predictor]
    iso_all = (iso_kind == ALL).sum(), (iso_kind != UNRESOLVED).sum()
    same = (own == own[:, tied][:, :1]) | ~resolved | ~resolved[:, tied][:, :1]
    return [
        Check(
            "Euclidean: a mode is recruited where λ lies above the smaller root of λ - (1 + σ²) λ² = κ, for every EMA rate",
            "Figure 8 (there for the cosine)",
            "(ours) (9) with weight decay κ: beyond κ = 1 / (4 (1 + σ²)) all collapse",
            f"right count at {right.sum()} of {resolved.sum()} resolved points, {(~resolved).sum()} unresolved",
            True,
            bool(right.sum() == resolved.sum() > 0),
            "unresolved: a small λ at κ = 0 escapes after 1 / (2 α λ)",
        ),
        Check(
            "Euclidean: weight decay keeps modes from being recruited",
            "Figure 8 a (there for the cosine)",
            "less eigenvalue recruitment with increasing weight decay",
            "mean number recruited "
            + ", ".join(f"{value:.2f}" for value in by_decay)
            + " for κ = "
            + ", ".join(f"{value:g}" for value in dataset.weight_decay.values),
            True,
            bool((np.diff(by_decay) <= 0).all() and by_decay[-1] < by_decay[0]),
        ),
        Check(
            "Euclidean IsoLoss: all modes are recruited, whatever the weight decay",
            "Figure 8 b (there for the cosine)",
            "all eigenvalues are recruited independent of the strength of weight decay",
            f"at {iso_all[0]} of {iso_all[1]} resolved points",
            True,
            bool(iso_all[0] == iso_all[1] > 0),
            "until κ = 1, where the last starts to die: λ ends at (1 - κ) / (1 + σ²)",
        ),
        Check(
            "Euclidean: a moving-average target changes what becomes of the modes",
            "section 3.2",
            "EMA target networks are thought to amplify small eigenvalues",
            f"another class at {(~same).sum()} of {same.size} points",
            False,
            bool((~same).any()),
            "it moves no fixed point: where W rests the target is W; it only delays",
        ),
    ]


def _cosine_checks(
    dataset: "xarray.Dataset", kind: dict, count: dict, settled: dict, with_predictor: np.ndarray
) -> list[Check]:
    plain, iso, rich = "cosine", "cosine_iso", "cosine_no_stop_gradient"
    own, resolved = kind[plain][with_predictor], settled[plain][with_predictor]
    low = np.where(resolved, count[plain][with_predictor], dataset.attrs["modes"] + 1).min(axis=2)
    high = np.where(resolved, count[plain][with_predictor], -1).max(axis=2)
    fewer = (high > low) & (high >= 0)
    free = np.isinf(dataset.ema_rate.values)
    iso_count, iso_resolved = count[iso][with_predictor], settled[iso][with_predictor]
    lost = (
        (iso_count[:, free] < iso_count[:, ~free].max(axis=1, keepdims=True)).sum()
        if free.any() and (~free).any()
        else 0
    )
    kept = {loss: dataset.trace_ratio.sel(loss=loss).values for loss in (plain, rich)}
    away = max(float(np.abs(values - 1).max()) for values in kept.values())
    gone = sum(int(((kind[loss] == COMPLETE) | (kind[loss] == DIVERGED)).sum()) for loss in (plain, rich, iso))
    waiting = [int((~settled[loss][with_predictor]).sum()) for loss in (plain, iso)]
    return [
        Check(
            "Cosine: weight decay keeps modes from being recruited",
            "Figure 8 a",
            "decreasing weight decay correlates with the number of eigenvalues recruited",
            f"the number depends on κ at {fewer.sum()} of {fewer.size} settings of the rest, unresolved points left out",
            False,
            bool(fewer.any()),
            "on the population it only changes the clock, t -> (exp(2 κ t) - 1) / 2 κ: the loss does not see how long W is",
        ),
        Check(
            "Cosine: the trace of C_z is kept, weight decay apart, at every α, EMA rate and start",
            "C.4 (there without predictor)",
            "(corrected) the sum of the eigenvalues of C_z, not of W_P",
            f"times exp(2 κ t) within {away:.1e}, with and without stop gradient",
            True,
            away < 1e-3,
            "on drawn pairs steps add to it, most where few modes are left: |W - h G|² = |W|² + h² |G|²",
        ),
        Check(
            "Under a cosine loss nothing collapses completely or diverges",
            "Table 1: 'all λs diverge' without stop gradient",
            "(corrected) no setting does",
            f"{gone} of {sum(kind[loss].size for loss in (plain, rich, iso))} points",
            True,
            gone == 0,
        ),
        Check(
            "Cosine IsoLoss: fewer modes are recruited without a moving-average target",
            "Figure 7",
            "removing the EMA: fewer eigenmodes recruited",
            f"at {lost} settings",
            False,
            bool(lost > 0),
            "on the population of a linear network; a slow target only delays",
        ),
        Check(
            "IsoLoss recruits all modes at all settings where the plain cosine loss does, and at those where it still waits",
            "section 3.2",
            "IsoLoss promotes eigenvalue recruitment",
            f"all modes at {(kind[iso][with_predictor] == ALL).sum()} of {iso_count.size} points, unresolved {waiting[1]}; "
            f"without IsoLoss at {(own == ALL).sum()}, unresolved {waiting[0]}",
            True,
            bool((kind[iso][with_predictor] == ALL)[iso_resolved].all() and waiting[1] < waiting[0]),
        ),
    ]


def _stop_gradient_checks(kind: dict, alphas: np.ndarray, spread: np.ndarray) -> list[Check]:
    gone = kind["euclidean_no_stop_gradient"] == COMPLETE
    rich = kind["cosine_no_stop_gradient"]
    collapsed = rich == DIMENSIONAL
    wide = collapsed[alphas >= 1][..., spread >= 3]
    shares = collapsed[alphas > 0].mean(axis=(0, 1, 2))
    return [
        Check(
            "Euclidean without stop gradient: complete collapse at every α, weight decay and start",
            "Table 1",
            "all λs collapse",
            f"at {gone.sum()} of {gone.size} points",
            True,
            bool(gone.all()),
            "by noise: without it modes from above stop at λ = 1",
        ),
        Check(
            "Cosine without stop gradient: the rank collapses from every start",
            "C.2",
            "(corrected) the large grow at the cost of the small",
            "share of points with predictor "
            + ", ".join(f"{share:.2f} from {ratio:g}" for share, ratio in zip(shares, spread, strict=True))
            + " (largest over smallest eigenvalue)",
            False,
            bool(collapsed[alphas > 0].all()),
            "equal eigenvalues stay equal, and without predictor (α = 0) they become so",
        ),
        Check(
            "Cosine without stop gradient: the rank collapses from spread starts (3 and more) for α >= 1",
            "C.2",
            "(corrected) only from spread starts",
            f"at {wide.sum()} of {wide.size} points",
            True,
            bool(wide.size and wide.all()),
        ),
    ]
