"""What the note on collapse claims about linear encoders under each mechanism, and what is found."""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn.metrics import Collapse
from jepa_dyn.papers._figure import Check
from jepa_dyn.papers.note_collapse_systems import CORRELATIONS, VARIANCES, WEIGHT_DECAY

if TYPE_CHECKING:
    import xarray


def _gap(found: "xarray.DataArray", theory: "xarray.DataArray") -> float:
    """Largest |found - theory| where theory says something."""
    return float(np.nanmax(np.abs(found.values - theory.values)))


def _kinds(dataset: "xarray.Dataset") -> str:
    """'invariance alone: complete' of the rows given."""
    return "; ".join(
        f"{name} ({views}): {Collapse(int(code)).name}"
        for name, views, code in zip(dataset.name.values, dataset.views.values, dataset.code.values, strict=True)
    )


def zoo_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Of `collapse_zoo`."""
    starts = int(dataset.ends_of.isel(row=0).sum())

    def rows(name: str, views: str | None = None) -> "xarray.Dataset":
        kept = dataset.name.str.contains(name, regex=False)
        return dataset.isel(row=(kept if views is None else kept & (dataset.views == views)).values)

    def kind(part: "xarray.Dataset", code: Collapse) -> bool:
        return bool((part.code == code).all())

    def generic(part: "xarray.Dataset", code: Collapse) -> str:
        return f"{int(part.ends_of.sel(kind=code.name).sum())} of {starts * part.sizes['row']} Gaussian starts"

    alone, shared = rows("invariance", "noisy"), rows("invariance", "one direction shared")
    no_predictor, no_stop = rows("no predictor"), rows("no stop gradient")
    both, decayed = dataset.isel(row=dataset.mechanism.str.contains("predictor, ").values), rows("weight decay")
    free = both.isel(row=~both.name.str.contains("weight decay", regex=False).values)
    negatives, reversed_ = rows("Gaussian limit", "noisy"), rows("Gaussian limit", "one direction reversed")
    batch, hinge, vicreg = rows("batch of"), rows("without covariance"), rows("VICReg").isel(row=[-1])
    barlow, barlow_reversed = rows("Barlow", "noisy"), rows("Barlow", "one direction reversed")
    bound = float(np.min(VARIANCES * (1 - CORRELATIONS["noisy"] ** 2)))
    slowest = float(-np.max(no_stop.late))
    unequal = np.sqrt(dataset.end.where(dataset.code == Collapse.none))
    return [
        Check(
            "W(t) = W(0) exp(-2 η S t) under invariance alone", "3.1", "W(t) = W(0)e^(-2ηSt)",
            f"largest error {_gap(alone.singular_value, alone.singular_value_theory):.0e}; {_kinds(alone)}", True,
            _gap(alone.singular_value, alone.singular_value_theory) < 1e-8 and kind(alone, Collapse.complete),
        ),
        Check(
            "Every singular value of W decays to zero", "3.1", "every singular value of W decays exponentially to zero",
            f"views that share one direction: s² = {float(shared.end.max()):.2g} is left; {_kinds(shared)}", False,
            kind(shared, Collapse.complete), "needs S > 0",
        ),
        Check(
            "Directions with S > 0 are lost, those that the views share stay", "3.1", "(corrected)",
            f"end of s² as in theory to {_gap(shared.end, shared.end_theory):.0e}", True,
            _gap(shared.end, shared.end_theory) < 1e-8 and kind(shared, Collapse.dimensional),
        ),
        Check(
            "Without predictor W collapses, at the rates of A - Cᵀ", "3.3, condition 1", "without P collapse is a fixed point",
            f"W(t) to {_gap(no_predictor.singular_value, no_predictor.singular_value_theory):.0e}; {_kinds(no_predictor)}", True,
            _gap(no_predictor.singular_value, no_predictor.singular_value_theory) < 1e-8 and kind(no_predictor, Collapse.complete),
        ),
        Check(
            "Without stop gradient W collapses, at the rate σ at least", "3.3, condition 2", "(corrected) σ of Y - CᵀA⁻¹C",
            f"slowest mode {slowest:.3g}, σ = {bound:.3g}; {_kinds(no_stop)}", True,
            slowest >= bound and kind(no_stop, Collapse.complete),
        ),
        Check(
            "With predictor and stop gradient collapse is no fixed point", "3.3", "PWA = W̄C is not satisfied by W = 0",
            f"d log s/dt at s = 1e-4: at most {float(free.rate.max()):.0e}", False, bool((free.rate > 1e-3).all()),
            "W = 0 is stationary, and left algebraically: ds/dt ∝ s²",
        ),
        Check(
            "They leave W = 0 and end at WᵀW = CᵀA⁻¹CA⁻¹", "3.3", "the system converges to WᵀW = CᵀA⁻¹CA⁻¹",
            f"aligned starts: s² to {_gap(free.end, free.end_theory):.0e}; {_kinds(free)}", True,
            _gap(free.end, free.end_theory) < 1e-6 and kind(free, Collapse.none),
            "moments commute and C is symmetric here; wrong in general: tian2021.stationary_points",
        ),
        Check(
            "Neither complete nor dimensional collapse occurs with them", "3.3", "r = d",
            f"{generic(free, Collapse.dimensional)} lose a dimension", False,
            bool((free.ends_of.sel(kind="none") == starts).all()), "full rank needs a start on the right side",
        ),
        Check(
            "Weight decay: W = 0 attracts at the rate λ, and modes of c² < 4 ρ λ die at it", "3.3", "(not in the note)",
            f"late rates to {_gap(decayed.late, decayed.late_theory):.0e} of -{WEIGHT_DECAY}; s² to "
            f"{_gap(decayed.end, decayed.end_theory):.0e}; {_kinds(decayed)}", True,
            _gap(decayed.late, decayed.late_theory) < 1e-4 and bool((decayed.code == decayed.expected).all()),
        ),
        Check(
            "InfoNCE: the rich get richer, minor modes are given up", "3.2", "three phases, the last is dimensional collapse",
            f"{_kinds(negatives)}; {_kinds(batch)}; {generic(negatives, Collapse.dimensional)} lose a dimension", False,
            kind(negatives, Collapse.dimensional),
            "repulsion in a mode is quadratic in that mode",
        ),
        Check(
            "InfoNCE, Gaussian limit: each mode grows at 2γ/τ and ends at s² = τγ/ρ²", "3.2", "(corrected)",
            f"s(t) to {_gap(negatives.singular_value, negatives.singular_value_theory):.0e}", True,
            _gap(negatives.singular_value, negatives.singular_value_theory) < 1e-7 and kind(negatives, Collapse.none),
        ),
        Check(
            "InfoNCE, batch: W leaves 0 at the eigenvalues of (2/τ) times the centred cross-covariance", "3.2", "(corrected)",
            f"rates to {_gap(batch.rate, batch.rate_theory):.0e} of {float(batch.rate_theory.max()):.2f}", True,
            _gap(batch.rate, batch.rate_theory) < 1e-4,
        ),
        Check(
            "A direction of negative covariance is lost to InfoNCE and Barlow Twins, at 2|γ|/τ and 4|γ|", "4.1, 4.3",
            "(not in the note)",
            f"{_kinds(reversed_)}; {_kinds(barlow_reversed)}; late rates to "
            f"{max(_gap(p.late, p.late_theory) for p in (reversed_, barlow_reversed)):.0e}", True,
            all(kind(p, Collapse.dimensional) and _gap(p.late, p.late_theory) < 1e-3 for p in (reversed_, barlow_reversed)),
        ),
        Check(
            "Barlow Twins learns every direction of positive covariance", "4.3", "redundancy reduction",
            f"s(t) to {_gap(barlow.singular_value, barlow.singular_value_theory):.0e}; {_kinds(barlow)}", True,
            _gap(barlow.singular_value, barlow.singular_value_theory) < 1e-7 and kind(barlow, Collapse.none),
        ),
        Check(
            "VICReg's variance hinge prevents dimensional collapse", "4.2", "this directly prevents dimensional collapse",
            f"{_kinds(hinge)}; {generic(hinge, Collapse.dimensional)}", False, kind(hinge, Collapse.none),
            "every dimension of z varies, all along one direction of x",
        ),
        Check(
            "The hinge alone keeps one direction, of the largest correlation; the covariance term keeps all", "4.2",
            "(corrected)",
            f"s² to {max(_gap(p.end, p.end_theory) for p in (hinge, vicreg)):.0e}, late rates to "
            f"{_gap(hinge.late, hinge.late_theory):.0e}; {_kinds(vicreg)}", True,
            _gap(hinge.end, hinge.end_theory) < 1e-3 and _gap(vicreg.end, vicreg.end_theory) < 1e-3
            and kind(vicreg, Collapse.none),
        ),
        Check(
            "Every aligned start ends as theory says, and leaves W = 0 at the rate it says", "3.1-4.7", "(ours)",
            f"{int((dataset.code == dataset.expected).sum())} of {dataset.sizes['row']} rows; rates to "
            f"{_gap(dataset.rate, dataset.rate_theory):.0e}; surviving s from {float(unequal.min()):.2f} to "
            f"{float(unequal.max()):.2f}", True,
            bool((dataset.code == dataset.expected).all()) and _gap(dataset.rate, dataset.rate_theory) < 1e-2,
        ),
    ]  # fmt: skip
