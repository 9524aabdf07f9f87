"""What the note on collapse claims in its summary of Tian et al. 2021, and what is found."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn.papers._figure import Check

if TYPE_CHECKING:
    import xarray

WHERE = "note, section 3.3"
ROUNDING = 1e-8
NORMAL = ["commuting, C symmetric", "commuting, C normal", "T normal"]
COMMUTING = NORMAL[:2]


def _largest(values: Any) -> float:
    return float(np.max(np.asarray(values)))


def stationary_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Which states are stationary, and which formula W^T W obeys there."""
    zero, held, any_w, balanced = (dataset.sel(state=name) for name in dataset.state.values)
    far, commuting, others = (
        [kind for kind in dataset.kind.values if kind not in NORMAL],
        dataset.sel(kind=COMMUTING),
        dataset.sel(kind=[kind for kind in dataset.kind.values if kind not in COMMUTING]),
    )
    printed, product = dataset.distance.sel(formula="printed"), dataset.distance.sel(formula="T^T T")
    at_zero, rest = _largest(zero.residual), _largest(zero.speed)
    exact = float((printed.sel(kind=others.kind) < ROUNDING).mean())
    root = max(_largest(balanced.speed), _largest(balanced.imbalance), _largest(dataset.root_miss))
    normal, not_normal = product.sel(kind=NORMAL), product.sel(kind=far)
    return [
        Check(
            "W = 0 does not satisfy the stationary condition P W A = W̄ Cᵀ",
            WHERE,
            "is not satisfied by W = 0",
            f"|P W A - W̄ Cᵀ| = {at_zero:.1g} at W = W̄ = 0, for any P",
            False,
            at_zero > ROUNDING,
            "with a stop gradient W̄ is W",
        ),
        Check(
            "Collapse is no fixed point of the flow",
            WHERE,
            "dynamics where collapse is not a fixed point",
            f"largest speed {rest:.1g} at W = W̄ = 0, any P",
            False,
            rest > ROUNDING,
        ),
        Check(
            "P W A = W̄ Cᵀ is stationary: every invertible W = W̄ beside P = W T W⁻¹",
            WHERE,
            "stationary condition P W A = W̄ Cᵀ",
            f"largest speed {_largest(any_w.speed):.1e}",
            True,
            _largest(any_w.speed) < ROUNDING,
        ),
        Check(
            "Every stationary state satisfies P W A = W̄ Cᵀ",
            WHERE,
            "the stationary condition",
            f"W = P = 0 rests for every held W̄, |P W A - W̄ Cᵀ| up to {_largest(held.residual):.2g}",
            False,
            _largest(held.residual) < ROUNDING or _largest(held.speed) > ROUNDING,
            "sufficient; necessary where W is invertible",
        ),
        Check(
            "P* = W̄ Cᵀ Wᵀ (W A Wᵀ)⁻¹ is where the predictor stands still",
            WHERE,
            "the predictor learns P*",
            f"largest |dP/dt| {_largest(dataset.best_predictor_speed):.1e}",
            True,
            _largest(dataset.best_predictor_speed) < ROUNDING,
        ),
        Check(
            "Moments alone settle WᵀW where the flow stands still",
            WHERE,
            "the system converges to WᵀW = CᵀA⁻¹CA⁻¹",
            f"stationary WᵀW at relative distances {float(dataset.spread.min()):.2g} to {_largest(dataset.spread):.2g}",
            False,
            _largest(dataset.spread) < 0.01,
            "without weight decay the start decides, through the conserved W Wᵀ - PᵀP",
        ),
        Check(
            "Balanced states: WᵀW = S, the positive definite root of S² = TᵀS T",
            WHERE,
            "(corrected) S² = TᵀS T, T = CᵀA⁻¹",
            f"speed, imbalance and residual at most {root:.1e}",
            True,
            root < ROUNDING and bool((dataset.num_positive == 3).all()),
        ),
        Check(
            "Balanced states: WᵀW = CᵀA⁻¹CA⁻¹ whatever the views",
            WHERE,
            "WᵀW = CᵀA⁻¹CA⁻¹",
            f"off by {100 * float(printed.sel(kind='generic').median()):.0f} % (median, generic views), not symmetric either; "
            f"right in {100 * exact:.0f} % of the data sets where A and C do not commute",
            False,
            _largest(printed) < ROUNDING,
        ),
        Check(
            "The printed formula holds where A and C commute and C is normal",
            WHERE,
            "(corrected)",
            f"largest relative distance {_largest(printed.sel(kind=COMMUTING)):.1e}",
            True,
            _largest(commuting.distance.sel(formula="printed")) < ROUNDING,
            "C symmetric is more than is needed",
        ),
        Check(
            "S = TᵀT where T is normal, and nowhere else",
            WHERE,
            "(corrected)",
            f"distance at most {_largest(normal):.1e} there, at least {float(not_normal.min()):.1e} elsewhere",
            True,
            _largest(normal) < ROUNDING < float(not_normal.min()),
        ),
    ]


def rank_checks(dataset: "xarray.Dataset") -> list[Check]:
    """How much of W is left at the end of the flow, over starts, weight decay and similarity of the views."""
    rank = dataset["rank"]
    free, decayed = rank.sel(decay="no weight decay"), rank.sel(decay="weight decay")
    lam = dataset.attrs["weight_decay"]

    def counts(data: str, start: str, where: Any = free) -> str:
        values = where.sel(data=data, start=start).values
        return ", ".join(f"{int((values == r).sum())} of rank {r}" for r in (0, 1, 2, 3) if (values == r).any())

    full = free == 3
    gauss, even = full.sel(start="Gaussian"), full.sel(start="balanced, P > 0")
    helped = (decayed == 3).mean("run")
    lost = free.sel(start="P = 1, W small") == 0
    balanced = dataset.gap.sel(start=["balanced, P random", "balanced, P > 0"])
    there = (balanced.sel(formula="root") < 1e-3).where(full.sel(start=balanced.start))
    printed = float((balanced.sel(formula="printed") < 0.01).mean())
    ends = dataset.smallest_w.sel(similarity=1.0) < dataset.attrs["level"]
    at_one = [int(ends.sel(decay=one).sum()) for one in dataset.decay.values]
    apart = dataset.smallest_w.sel(decay="weight decay")
    level = dataset.attrs["level"]
    similar, different = (
        float(dataset.smallest_c.sel(similarity=1).min()),
        _largest(dataset.smallest_c.sel(similarity=0)),
    )
    weak = apart.sel(similarity=0.1)
    return [
        Check(
            "C of full rank: the flow ends at full rank from Gaussian starts",
            WHERE,
            "full rank (r = d), no dimensional collapse",
            f"C symmetric: {counts('C symmetric', 'Gaussian')}; generic: {counts('generic', 'Gaussian')}",
            False,
            bool(gauss.all()),
            f"with weight decay {lam:g} full rank in {100 * float(helped.sel(start='Gaussian').mean()):.0f} %, "
            f"without in {100 * float(gauss.mean()):.0f} %",
        ),
        Check(
            "C of full rank: W never goes to 0 altogether",
            WHERE,
            "no complete collapse",
            f"P = 1 and a small W: {int(lost.sum())} of {lost.size} runs end at W = 0",
            False,
            not bool((free == 0).any()),
            "P stays near 1, where dW/dt = -W (A - Cᵀ), because W Wᵀ - PᵀP is kept",
        ),
        Check(
            "From balanced starts with P > 0 at least 95 % end at full rank",
            WHERE,
            "(corrected) PᵀP = W Wᵀ, P symmetric, no weight decay",
            f"{int(even.sum())} of {even.size}; from balanced starts with any P "
            f"{int(full.sel(start='balanced, P random').sum())} of {even.size}",
            True,
            float(even.mean()) >= 0.95,
            f"with weight decay {lam:g}: {100 * float(helped.sel(start='balanced, P > 0').mean()):.0f} % "
            f"and {100 * float(helped.sel(start='balanced, P random').mean()):.0f} %",
        ),
        Check(
            "Balanced runs of full rank end at the root of S² = TᵀS T",
            WHERE,
            "(corrected)",
            f"WᵀW within 0.1 % of the root in {100 * float(there.mean()):.1f} % of them",
            True,
            float(there.mean()) >= 0.98,
        ),
        Check(
            "Balanced runs end at WᵀW = CᵀA⁻¹CA⁻¹",
            WHERE,
            "the system converges to WᵀW = CᵀA⁻¹CA⁻¹",
            f"within 1 % in {100 * printed:.0f} % of the runs",
            False,
            printed > 0.95,
        ),
        Check(
            "Views too similar make C low-rank, and W collapses",
            f"{WHERE}, condition 3",
            "if views are too similar, C is low-rank",
            f"identical views: C = A, smallest singular value at least {similar:.2g}; "
            f"W loses a direction in {at_one[0]} of {dataset.sizes['trial']} runs without weight decay, in {at_one[1]} with it",
            False,
            similar < level or float(ends.mean()) > 0.5,
            "reversed: see the next line",
        ),
        Check(
            "Views that are independent in a direction take it from C and, with weight decay, from W",
            f"{WHERE}, condition 3",
            "(corrected)",
            f"smallest singular value of C {different:.1g}, eigenvalue of WᵀW at most {_largest(apart.sel(similarity=0)):.1g}",
            True,
            different < ROUNDING and bool((apart.sel(similarity=0) < level).all()),
        ),
        Check(
            "C of full rank is enough, with weight decay",
            f"{WHERE}, condition 3",
            "neither complete nor dimensional collapse occurs",
            f"q = 0.1, weight decay {lam:g}: the direction is kept in {int((weak > level).sum())} of {weak.size} runs",
            False,
            bool((weak > level).all()),
            "commuting moments: a mode of variance a needs q² a > 4 λ",
        ),
    ]


def ablation_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Which of predictor and stop gradient W needs to stay."""
    level = dataset.attrs["level"]
    square = dataset.square.isel(time=-1)
    gone = square < level
    runs = dataset.sizes["run"]

    def found(arm: str, views: str) -> str:
        free, decayed = (int(gone.sel(arm=arm, views=views, decay=one).sum()) for one in dataset.decay.values)
        return f"{free} of {runs} runs without weight decay, {decayed} with it"

    bound = dataset.square.isel(time=0) * np.exp(-2 * dataset.slowest.rename(removed="arm") * dataset.time)
    ratio = (dataset.square - bound * (1 + 1e-6)).sel(arm=dataset.removed.values)
    both = gone.sel(arm=["both", "both, EMA target"], views="noisy")
    kept = (dataset.eigenvalue > level).sum("mode").sel(arm="both", views="noisy")
    whole = [int((kept.sel(decay=one) == 3).sum()) for one in dataset.decay.values]
    same = gone.sel(arm=dataset.removed.values, views="identical", decay="no weight decay")
    alone, joint = (int(same.sel(arm=arm).sum()) for arm in dataset.removed.values)
    return [
        Check(
            "Without predictor W collapses (views that differ)",
            f"{WHERE}, condition 1",
            "collapse is a fixed point",
            f"W = 0 in {found('no predictor', 'noisy')}",
            True,
            bool(gone.sel(arm="no predictor", views="noisy").all()),
            "P = 1: dW/dt = -W (A - Cᵀ)",
        ),
        Check(
            "Without stop gradient W collapses (views that differ)",
            f"{WHERE}, condition 2",
            "both collapse",
            f"W = 0 in {found('no stop gradient', 'noisy')}",
            True,
            bool(gone.sel(arm="no stop gradient", views="noisy").all()),
            "also without weight decay: x does not determine x+",
        ),
        Check(
            "|W| falls at least as fast as proved",
            WHERE,
            "(corrected) rates σ + λ, σ the smallest eigenvalue of A - C, or of A - CᵀA⁻¹C",
            f"largest excess of |W|² over its bound {_largest(ratio):.1e}",
            True,
            _largest(ratio) < 1e-10,
        ),
        Check(
            "Both are needed whatever the views",
            WHERE,
            "three necessary conditions",
            f"identical views, λ = 0: W = 0 in {alone} of {runs} runs without predictor, in {joint} without stop gradient",
            False,
            bool(same.all()),
            "identical views give σ = 0; with weight decay all of these collapse",
        ),
        Check(
            "With both, target EMA or not, W survives in at least 95 % of Gaussian starts",
            WHERE,
            "(corrected) collapse does not occur",
            f"W = 0 in {int(both.sum())} of {both.size} runs",
            True,
            float(both.mean()) <= 0.05,
            "a stable W = 0 has other starts: see rank_at_end",
        ),
        Check(
            "With both no dimension is lost",
            WHERE,
            "neither complete nor dimensional collapse occurs",
            f"full rank in {whole[0]} of {runs} runs without weight decay, in {whole[1]} with it",
            False,
            bool((kept == 3).all()),
        ),
    ]
