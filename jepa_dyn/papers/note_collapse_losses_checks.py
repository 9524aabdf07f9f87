"""What the note on collapse claims about its losses, and what is found."""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn.papers._figure import Check

if TYPE_CHECKING:
    import xarray

ROUNDING = 1e-12  # of sums of K + 1 = 65537 terms over a temperature of 0.07


def collapse_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Of `losses_at_collapse`."""
    n, d, k = (dataset.attrs[name] for name in ("batch", "dim", "queue"))
    value = {name: float(v) for name, v in zip(dataset.loss.values, dataset.value.values, strict=True)}
    gradient = {name: float(v) for name, v in zip(dataset.loss.values, dataset.gradient.values, strict=True)}
    together, apart = dataset.change.sel(move="together"), dataset.change.sel(move="apart")
    uncentred = "standardised_barlow_twins, not centred"
    pushing = ["info_nce", "nt_xent", "moco", "vicreg", "alignment_uniformity", "contrastive_limit"]
    pulling = ["invariance", "alignment", "byol", "simsiam", "jepa", "mae"]
    still = max(v for name, v in gradient.items() if name not in ("barlow_twins", uncentred))

    def equal(name: str, expected: float) -> bool:
        return bool(abs(value[name] - expected) <= 1e-12 * max(1.0, abs(expected)))

    return [
        Check(
            "NT-Xent is log(2N - 1) at collapse", "4.1", "-log(1/(2N-1))",
            f"{value['nt_xent']:.5f}, log {2 * n - 1} = {np.log(2 * n - 1):.5f}", True, equal("nt_xent", np.log(2 * n - 1)),
        ),
        Check(
            "That value generates gradients that break collapse", "4.1", "this generates gradients that break collapse",
            f"largest entry of the gradient {gradient['nt_xent']:.0e}", False, gradient["nt_xent"] > ROUNDING,
            "collapse is stationary",
        ),
        Check(
            "At collapse every loss is stationary", "4.1-4.6", "(corrected)",
            f"largest gradient {still:.0e}; Barlow Twins without centring {gradient['barlow_twins']:.1g}", True,
            still <= ROUNDING, "raw Barlow Twins sees the mean of the embeddings",
        ),
        Check(
            "Collapse is no minimum of the losses that repel", "4.1, 4.2, 4.6", "(corrected)",
            "pairs that move together lower " + ", ".join(f"{name} by {-float(together.sel(loss=name)):.2g}" for name in pushing)
            + " step²", True, all(float(together.sel(loss=name)) < -1e-6 for name in pushing),
        ),
        Check(
            "Collapse is a minimum of the losses of a pair alone", "3.1, 4.4, 4.5, 5.1", "global minimum",
            "no move lowers " + ", ".join(pulling), True,
            all(float(min(together.sel(loss=name), apart.sel(loss=name))) > -1e-6 for name in pulling),
            "what keeps BYOL, SimSiam and JEPA from it is the dynamics, not the loss",
        ),
        Check(
            "MoCo is log(K + 1) at collapse", "4.6", "log(K + 1) ≈ 11.09",
            f"{value['moco']:.5f} with K = {k} negatives", True, equal("moco", np.log(k + 1)),
            "one positive and K negatives; k_0 ... k_K are not K negatives",
        ),
        Check("BYOL is 0 at collapse", "4.4", "2 - 2⟨q, z⟩", f"{value['byol']:.0e}", True, equal("byol", 0.0)),
        Check("SimSiam is 0 at collapse", "4.5", "loss = 0", f"{value['simsiam']:.5f}", False, equal("simsiam", 0.0)),
        Check("SimSiam is -1 at collapse", "4.5", "(corrected)", f"{value['simsiam']:.5f}", True, equal("simsiam", -1.0)),
        Check(
            "VICReg is 2 μ (γ - sqrt(ε)) at collapse", "4.2", "(both branches)", f"{value['vicreg']:.5f}", True,
            equal("vicreg", 2 * 25 * 0.99), "the note prints one branch",
        ),
        Check(
            "Barlow Twins at collapse: the off-diagonal penalty is active", "4.3", "generally non-zero",
            f"not centred {value[uncentred]:.5f} = λ d (d - 1)", True, abs(value[uncentred] - 5e-3 * d * (d - 1)) < 1e-9,
        ),
        Check(
            "Barlow Twins as its source has it, centred: the off-diagonal penalty is active at collapse", "4.3",
            "this activates the off-diagonal penalty", f"{value['standardised_barlow_twins']:.5f} = d, C = 0", False,
            value["standardised_barlow_twins"] - d > 1e-9, "0/0 without the eps inside the root",
        ),
    ]  # fmt: skip


def limit_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Of `contrastive_limit`."""
    last = dataset.isel(negatives=-1)
    # the negatives are one sample for all anchors: their own error is added
    allowed = 4 * np.sqrt(last.error**2 + 1 / last.negatives)
    gap = {name: np.abs(last.loss - last[name]) for name in ("corrected", "printed")}

    def at(name: str) -> str:
        return ", ".join(f"{float(v):.5f}" for v in dataset[name])

    def close(name: str) -> bool:
        return bool((gap[name] <= allowed).all())

    measured = ", ".join(f"{float(v):.5f}" for v in last.loss)
    return [
        Check(
            "L - log K tends to E|f - f⁺|² + log E exp(-|f - g|²/2τ²)", "2.2", "alignment + uniformity",
            f"K = {int(last.negatives)}: {measured}; printed {at('printed')}", False, close("printed"),
            f"at τ = {', '.join(f'{float(t):g}' for t in dataset.temperature)}",
        ),
        Check(
            "It tends to E|f - f⁺|²/2τ + E_x log E_y exp(-|f - g|²/2τ)", "2.2", "(corrected)",
            f"K = {int(last.negatives)}: {measured}; {at('corrected')}", True, close("corrected"),
            f"largest gap {float(gap['corrected'].max()):.0e}",
        ),
        Check(
            "contrastive_limit_loss of the sample is that limit", "2.2", "(ours)", at("sampled"), True,
            bool((np.abs(dataset.sampled - dataset.corrected) <= allowed).all()),
        ),
    ]  # fmt: skip


def info_nce_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Of `info_nce_theory`."""
    bound, information, n = dataset.bound.values, float(dataset.information), dataset.candidates.values
    scale = float(np.abs(dataset.true).max())
    wrong = {name: float(np.abs(dataset[name] - dataset.true).max()) / scale for name in ("corrected", "printed")}
    signs = float((np.sign(dataset.printed) == np.sign(dataset.true)).mean())
    listed = ", ".join(f"{b:.3f}" for b in bound)
    return [
        Check(
            "log N - L bounds I(X; C) from below and tightens", "2.1", "I(X; C) ≥ log N - L",
            f"N = {', '.join(str(one) for one in n)}: {listed}; I = {information:.5f}", True,
            bool((bound <= information + ROUNDING).all() and (np.diff(bound) > 0).all()), "N counts the positive",
        ),
        Check(
            "The bound never exceeds log N", "2.1", "limited to log N", f"N = 1: {bound[0]:.0e}", True,
            bool((bound <= np.log(n) + ROUNDING).all()),
        ),
        Check(
            "p(x|c)/p(x) bounds a probability (proof sketch)", "2.1", "bounded by p(x⁺|c)/p(x⁺)",
            f"the ratio reaches {float(dataset.largest_ratio):.2f}", False, float(dataset.largest_ratio) <= 1,
        ),
        Check(
            "dλ_k/dt = λ_k (softmax(λ/τ)_k/τ - (N/τ) E[alignment])", "3.2", "spectral dynamics under InfoNCE",
            f"off by {wrong['printed']:.1f} times the largest true rate; the sign is right for {100 * signs:.0f} %", False,
            wrong["printed"] < 1e-6,
        ),
        Check(
            "dλ_k/dt = 2 u_kᵀ W' Wᵀ u_k with W' = W M", "3.2", "(corrected)", f"off by {wrong['corrected']:.0e}", True,
            wrong["corrected"] < 1e-9,
        ),
    ]  # fmt: skip
