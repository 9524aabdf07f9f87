"""What Simon et al. 2023, appendix G, expect of their losses for speed, and what is found on photographs."""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn.papers._figure import Check

if TYPE_CHECKING:
    import xarray

LEARNED = 0.9  # the level at which a mode counts as learned


def speed_up_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Times to all modes, by theory and trained; the largest useful learning rates; where each loss fails."""
    where, unit = "appendix G", dataset.attrs["unit"]
    theory = dataset.theory_time
    slow = dataset.isel(run=[0, 1])
    taken = slow.steps_to_all * slow.rate * unit / theory
    aligned, random = (taken.isel(run=i) for i in (0, 1))

    def worst(values: "xarray.DataArray") -> float:
        finite = values.values[np.isfinite(values.values)]
        return float(np.abs(finite - 1).max())

    def outcomes(loss: str) -> dict[float, str]:
        one = dataset.sel(loss=loss).isel(run=slice(1, None))
        return {float(rate): str(end) for rate, end in zip(one.rate.values, one.outcome.values, strict=True)}

    def best(loss: str) -> tuple[float, float]:
        """(fewest steps to all modes among the runs that end well, the learning rate of that run)."""
        one = dataset.sel(loss=loss, level=LEARNED).isel(run=slice(1, None))
        steps = np.where(one.outcome.values == "all learned", one.steps_to_all.values, np.inf)
        return float(steps.min()), float(one.rate.values[steps.argmin()])

    def faster(loss: str, level: float) -> float:
        return float(theory.sel(loss="squared", level=level) / theory.sel(loss=loss, level=level))

    def told(loss: str) -> str:
        return ", ".join(f"{rate:g}: {end}" for rate, end in outcomes(loss).items())

    fewest = {str(loss): best(str(loss)) for loss in dataset.loss.values}
    gains = {loss: fewest["squared"][0] / steps for loss, (steps, _) in fewest.items()}
    squared, smooth, quartic = (outcomes(loss) for loss in ("squared", "smooth", "quartic"))
    top = dataset.eigenvalue.sel(loss="smooth").isel(run=-1, save=-1).values.max()
    gammas = dataset.gamma.values
    half = dataset.theory_eigenvalue.sel(loss="squared")
    when = [float(dataset.time.values[np.argmax(half.values[:, j] > 0.5)]) for j in range(gammas.size)]
    waiting = 1 - when[gammas.size // 2 - 1] / when[-1]
    sharp = float(random.sel(loss="sharp").max())
    return [
        Check(
            "From the aligned start every loss takes the time of its closed form, within 6 %",
            where,
            "dynamics which can be solved exactly",
            f"off by at most {100 * worst(aligned):.1f} %",
            True,
            worst(aligned) < 0.06,
            "those of all but the first were not given; (52) needs S to share the features of Γ, which it nearly does",
        ),
        Check(
            "So from the random start, within 6 %, all but the sharp loss",
            "Result 4.6, appendix G",
            "(same conjecture for the other losses)",
            f"off by at most {100 * worst(random.drop_sel(loss='sharp')):.1f} %",
            True,
            worst(random.drop_sel(loss="sharp")) < 0.06,
        ),
        Check(
            "So from the random start the sharp loss",
            "appendix G.2",
            "(same conjecture)",
            f"slower by up to {100 * (sharp - 1):.0f} %; W spans {100 * float(slow.spanned.sel(loss='sharp')[1]):.0f} % of the top "
            f"features, with the squared loss {100 * float(slow.spanned.sel(loss='squared')[1]):.0f} %",
            False,
            worst(random.sel(loss="sharp")) < 0.06,
            "it leaves zero in every direction at once, before the weak ones have been sorted out",
        ),
        Check(
            "Training is slow because it waits for the small eigendirections",
            where,
            "smaller eigendirections require more time to grow",
            f"the second half of the modes takes {100 * waiting:.0f} % of the time",
            True,
            waiting > 0.5,
        ),
        Check(
            "The sharp loss is faster, in flow time and in steps",
            "appendix G.2",
            "quickly escape",
            f"in flow time {faster('sharp', LEARNED):.1f} x, in steps {gains['sharp']:.1f} x (at "
            f"{fewest['sharp'][1]:g} of 1/(4γ₁))",
            True,
            min(faster("sharp", LEARNED), gains["sharp"]) > 1.5,
            f"learning rates in units of 1/(4γ₁): {told('sharp')}",
        ),
        Check(
            "The preconditioned gradient is faster, in flow time and in steps",
            "appendix G.1, (52)",
            "faster growth of small eigenmodes",
            f"in flow time {faster('preconditioned', LEARNED):.1f} x, in steps {gains['preconditioned']:.1f} x (at "
            f"{fewest['preconditioned'][1]:g} of 1/(4γ₁)); ridge {dataset.attrs['ridge']:g}",
            True,
            min(faster("preconditioned", LEARNED), gains["preconditioned"]) > 1.5,
            f"learning rates: {told('preconditioned')}",
        ),
        Check(
            "On the squared loss a learning rate above 1/(4γ₁) is unstable",
            "appendix G.3",
            "minima of the fast-growing eigenmodes become unstable",
            told("squared"),
            True,
            squared[0.9] == "all learned" and squared[1.1] == "cycles",
        ),
        Check(
            "min(λ, 1) bears every learning rate, and the steps needed fall with it",
            "appendix G.3",
            "tolerate a larger learning rate",
            f"{told('smooth')}",
            True,
            not {"cycles", "diverged", "unfinished"} & set(smooth.values()),
        ),
        Check(
            "and C = I is reached",
            "appendix G.3",
            "one solution",
            f"largest eigenvalue of C at 8/(4γ₁): {float(top):.2f}",
            False,
            set(smooth.values()) == {"all learned"},
            "it jumps over 1 and stays, already below 1/(4γ₁)",
        ),
        Check(
            "(1 - λ)⁴ bears a learning rate at which the squared loss cycles, 1.1/(4γ₁)",
            "appendix G.3",
            "vanishing curvature at its minimum",
            told("quartic"),
            True,
            quartic[1.1] not in ("cycles", "diverged"),
            "but not any: see Figure 9",
        ),
        Check(
            "and is faster: to 1/2",
            "appendix G.3",
            "encourage or enable faster growth",
            f"{faster('quartic', 0.5):.2f} x",
            True,
            faster("quartic", 0.5) > 1.5,
        ),
        Check(
            "and is faster: to 0.9",
            "appendix G.3",
            "encourage or enable faster growth",
            f"{faster('quartic', 0.9):.2f} x, to 0.99 {faster('quartic', 0.99):.3f} x",
            False,
            faster("quartic", 0.9) > 1.0,
            "no curvature, no haste: 1 - λ falls as (32 γ t)^(-1/2)",
        ),
    ]
