"""What Ponce et al. 2025 claim about SG and EMA on real data (Figure 2), and what is found on small networks."""

from typing import TYPE_CHECKING

from jepa_dyn.papers._figure import Check

if TYPE_CHECKING:
    import xarray

# parts of the run
FIRST, EARLY, LATE = slice(0.02, 0.1), slice(0.05, 0.25), slice(0.9, 1.0)
TENTHS = [slice(k / 10, (k + 1) / 10) for k in range(10)]


def over(dataset: "xarray.Dataset", name: str, procedure: str, part: slice) -> float:
    """Median of what was logged in a part of the run, over all seeds."""
    last = float(dataset.step[-1])
    return float(dataset[name].sel(procedure=procedure, step=slice(part.start * last, part.stop * last)).median())


def fig2_checks(dataset: "xarray.Dataset") -> list[Check]:
    """What is minimised, what converges, what the probe says; and the collapse of the plain gradient beside it."""
    where, scale = "Fig. 2, section 3.3", "small networks on digits; the paper has V-JEPA on videos, 300,000 iterations"
    names = {"sg": "SG", "ema": "EMA"}
    total = float(dataset.step[-1])

    ends = {p: over(dataset, "E", p, LATE) for p in dataset.procedure.values}
    least = {
        p: float(dataset.step[int(dataset.E.sel(procedure=p).mean("seed").values.argmin())]) / total for p in names
    }
    goal = [over(dataset, "F", "ema", part) for part in (FIRST, LATE)]
    found = [
        Check(
            "The smallest value of E is reached in the first tenth of the run, by SG and by EMA",
            f"{where} (left)",
            "its smallest value being reached early in the iterations",
            ", ".join(f"{names[p]} after {100 * share:.0f} % of the run" for p, share in least.items()),
            False,
            all(share < 0.1 for share in least.values()),
            f"E creeps down here and levels off; {scale}",
        ),
        Check(
            "EMA does not minimise F either: from the first tenth of the run to the last F falls by less than a third",
            f"{where} (left, bottom)",
            "similar conclusions can be reached for F",
            f"F from {goal[0]:.3f} to {goal[1]:.3f} (medians)",
            True,
            goal[1] > goal[0] * 2 / 3,
            scale,
        ),
    ]
    first = float(dataset.E.sel(procedure="gradient")[:, 0].mean())
    found.append(
        Check(
            "The plain gradient does minimise E, to less than a tenth of what SG and EMA end with",
            "section 2; lemma 4.3 for linear networks",
            "the degenerate zero global minimum",
            f"E from {first:.3f} to {ends['gradient']:.1e}; SG ends at {ends['sg']:.3f}, EMA at {ends['ema']:.3f}",
            True,
            ends["gradient"] < 0.1 * min(ends["sg"], ends["ema"]),
            "the plain gradient is not in the figure",
        )
    )
    start = {p: float(dataset.probe_accuracy.sel(procedure=p)[:, 0].mean()) for p in dataset.procedure.values}
    end = {p: over(dataset, "probe_accuracy", p, LATE) for p in dataset.procedure.values}
    found.append(
        Check(
            "SG and EMA avoid collapse, the plain gradient does not: a probe keeps nine tenths of its accuracy, or loses half",
            "proposition 3.1; lemma 4.3 for linear networks",
            "they do avoid collapse",
            ", ".join(f"{p} {100 * start[p]:.0f} → {100 * end[p]:.0f} %" for p in end),
            True,
            min(end[p] / start[p] for p in names) > 0.9 and end["gradient"] < 0.5 * start["gradient"],
        )
    )
    increments = {
        "sg": ("encoder_increment", "predictor_increment"),
        "ema": ("encoder_increment", "predictor_increment", "target_increment"),
    }
    for procedure, own in increments.items():
        ratios = {name: over(dataset, name, procedure, LATE) / over(dataset, name, procedure, EARLY) for name in own}
        found.append(
            Check(
                f"{names[procedure]} does not converge: increments late in the run are at least a tenth of those early",
                f"{where} (middle)",
                "do not tend to zero",
                ", ".join(f"{name.split('_')[0]} × {ratio:.2f}" for name, ratio in ratios.items()),
                True,
                all(ratio > 0.1 for ratio in ratios.values()),
                "minibatches at a constant rate let no procedure stand still; α alone makes the step of ξ six times smaller",
            )
        )
    best = {p: max(over(dataset, "probe_accuracy", p, part) for part in TENTHS) for p in names}
    both = "start, best tenth, end: " + ", ".join(
        f"{names[p]} {100 * start[p]:.1f}, {100 * best[p]:.1f}, {100 * end[p]:.1f} %" for p in names
    )
    found += [
        Check(
            "Accuracy of the probe increases initially, for SG and EMA, by half a point at least",
            f"{where} (right)",
            "does increase initially",
            both,
            True,
            all(best[p] > start[p] + 0.005 for p in names),
            "random features of digits are good already",
        ),
        Check(
            "Accuracy decreases late for SG: three points below its best tenth",
            f"{where} (right, top)",
            "before decreasing late in the process for SG",
            both,
            False,
            end["sg"] < best["sg"] - 0.03,
            scale,
        ),
        Check(
            "EMA gives better classification than SG at the end, by a point at least",
            f"{where} (right)",
            "in this particular setting, EMA gives better classification results",
            both,
            False,
            end["ema"] > end["sg"] + 0.01,
            f"general conclusions should not be drawn, says the paper; {scale}",
        ),
    ]
    return found
