"""What Ponce et al. 2025 claim about their experiments with one input, and what is found."""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn.papers._figure import Check

if TYPE_CHECKING:
    import xarray

PROCEDURES = ("sg", "ema")
SG_PRINTED, EMA_PRINTED = 0.820, 0.928


def trial_checks(dataset: "xarray.Dataset") -> list[Check]:
    """The printed shares beside those of the readings, what diverges, what reaches the saddles."""
    where = "section 4.3"

    def text(variant: str) -> str:
        one = dataset.sel(variant=variant, end="S2")
        return f"{100 * float(one.share):.1f} [{100 * float(one.low):.1f}, {100 * float(one.high):.1f}] %"

    def share(variant: str, end: str = "S2") -> float:
        return float(dataset.share.sel(variant=variant, end=end))

    possible = dataset.attrs["share_with_equilibria"]
    literal, sg = share("SG flow, all draws"), share("SG flow")
    slow, slower = share("EMA flow, 1-α = 0.1"), share("EMA flow, 1-α = 0.01")
    saddles = int(dataset["count"].sel(end="S1").sum())
    large = share("SG steps of 1", "diverged")
    return [
        Check(
            "SG ends on S2 in 82.0 % of all draws",
            where,
            "82.0 %",
            f"{text('SG flow, all draws')}; S2 exists in {100 * possible:.1f} % of the draws",
            False,
            abs(literal - SG_PRINTED) < 0.03,
            "more than half of the stated draws have Δ < 0 and no S2",
        ),
        Check(
            "SG ends on S2 in 82.0 % of the draws with Δ >= 0, within 5 points",
            where,
            "(corrected) conditioned on Δ >= 0",
            text("SG flow"),
            True,
            abs(sg - SG_PRINTED) < 0.05,
            "continuous time; 10,000 trials give 80.3 %, below the printed one by more than chance",
        ),
        Check(
            "EMA ends on S2 in 92.8 %: a share between those of 1-α = 0.1 and of 0.01",
            where,
            "92.8 %",
            f"1-α = 0.1: {text('EMA flow, 1-α = 0.1')}, 0.01: {text('EMA flow, 1-α = 0.01')}",
            True,
            slow - 0.02 < EMA_PRINTED < slower + 0.02,
            "C0 = A0; the paper does not say which α",
        ),
        Check(
            "EMA reaches S2 more often than SG",
            where,
            "92.8 % against 82.0 %",
            f"{slow:.3f} against {sg:.3f}",
            True,
            slow > sg,
        ),
        Check(
            "No run converges to the saddles S1",
            where,
            "never observed",
            f"{saddles} of {dataset['count'].values.sum()} runs",
            True,
            saddles == 0,
        ),
        Check(
            "The algorithms always converge, whatever the step",
            where,
            "the two algorithms always converge",
            f"steps of 1: {100 * large:.0f} % diverge",
            False,
            large < 0.01,
            "true of the flows and of small steps",
        ),
    ]


def path_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Where the paths of Figure 3 end."""
    size = np.linalg.norm(dataset.a.isel(step=-1).values, axis=-1)
    gap = float(np.nanmax(np.linalg.norm((dataset.a - dataset.c).sel(procedure="ema").isel(step=-1).values, axis=-1)))
    r1, r2 = dataset.attrs["r1"], dataset.attrs["r2"]
    outer, origin = np.abs(size / r2 - 1) < 0.02, size < 0.1 * r1
    made = [
        Check(
            "Every path ends on the circle of radius r2 or at the origin",
            "Fig. 3, proposition 4.11",
            "equilibria S2 and the origin attract",
            f"SG {outer[0].sum()} on S2, {origin[0].sum()} at 0; EMA {outer[1].sum()}, {origin[1].sum()}; of {size.shape[1]} each",
            True,
            bool((outer | origin).all()),
        ),
        Check(
            "c converges to a although α reaches 1 at t = T",
            "section 4.3",
            "in all trials",
            f"largest |a - c| at the end {gap:.1e}",
            True,
            gap < 1e-2,
        ),
    ]
    return made


def objective_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Whether E and F fall along the paths of Figure 4."""

    def rising(name: str, procedure: str) -> int:
        values = dataset[name].sel(procedure=procedure).transpose("run", "step").values
        return int((np.diff(values, axis=1).max(axis=1) > 1e-6 * values.max(axis=1)).sum())

    runs = dataset.sizes["run"]
    found = {(name, p): rising(name, p) for name, p in (("E", "sg"), ("E", "ema"), ("F", "ema"))}
    start_to_end = dataset.E.isel(step=-1).values
    return [
        Check(
            "SG and EMA do not minimise E, nor EMA F: they rise along some paths",
            "Fig. 4, proposition 3.1",
            "decreases steadily in some cases, not in others",
            f"E rises on {found['E', 'sg']} SG and {found['E', 'ema']} EMA paths, F on {found['F', 'ema']}, of {runs} each",
            True,
            all(count > 0 for count in found.values()),
        ),
        Check(
            "E decreases steadily on other paths",
            "Fig. 4, top",
            "appears to steadily decrease in some cases",
            f"on {runs - found['E', 'sg']} of {runs} SG paths",
            True,
            found["E", "sg"] < runs,
        ),
        Check(
            "No path that ends on S2 ends at a minimum of E (E = 0 at the origin)",
            "proposition 3.1",
            "not a degenerate solution",
            f"largest E at the end {np.nanmax(start_to_end):.4f}",
            True,
            bool(np.nanmax(start_to_end) > 1e-3),
        ),
    ]


def index_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Proposition 4.10 and what can be said in its place, over the data sets of `proposition_4_10`."""
    where, found = "proposition 4.10", []
    full_rank = {m: dataset.sel(inputs=m, rank=m) for m in dataset.inputs.values}
    for m, one in full_rank.items():
        counts = one["count"].sel(procedure="sg").values
        saddles, total = int(counts[1:].sum()), int(counts.sum())
        found.append(
            Check(
                f"m = {m}: every equilibrium of full rank is asymptotically stable",
                where,
                "all are",
                f"{saddles} of {total} have unstable directions across their orbit",
                False,
                saddles == 0,
                "the step from (49) holds for no u, not for generic u",
            )
        )
    for procedure, name in zip(PROCEDURES, ("SG", "EMA"), strict=True):
        wrong = sets = 0
        for one in full_rank.values():
            some = one.num_equilibria.values > 0
            wrong += int((one.num_stable.sel(procedure=procedure).values[some] != 1).sum())
            sets += int(some.sum())
        found.append(
            Check(
                f"{name}: exactly one orbit of full rank is stable where there is any",
                where,
                "(replacement, not proved)",
                f"so in {sets - wrong} of {sets} data sets",
                True,
                wrong == 0,
            )
        )
    other = sum(int((~one.largest_is_stable.values).sum()) for one in full_rank.values())
    deficient = sum(
        int((one.num_stable.sel(procedure="sg").sel(rank=slice(1, int(m) - 1)) > 0).any("rank").sum())
        for m, one in ((m, dataset.sel(inputs=m)) for m in dataset.inputs.values)
    )
    sets, bounds = dataset.attrs["sets"], {2: 6, 3: 24}
    most = {m: int(one.num_equilibria.max()) for m, one in full_rank.items()}
    lost = {m: int((~dataset.complete.sel(inputs=m, rank=int(m))).sum()) for m in most}
    lower = int((~dataset.complete).any("rank").sum()) - sum(lost.values())
    return [
        *found,
        Check(
            "The stable one of full rank has the largest trace",
            where,
            "(replacement, not proved)",
            f"other in {other} data sets",
            True,
            other == 0,
        ),
        Check(
            "Equilibria have full rank",
            "(6), (7)",
            "rank A = m",
            f"stable orbits of lower rank in {deficient} of {sum(sets)} data sets",
            False,
            deficient == 0,
            "dimensional collapse has a basin of its own",
        ),
        Check(
            "At most 2^(m(m+1)/2) equilibria of full rank",
            "corollary 4.6",
            ", ".join(f"{2 ** (m * (m + 1) // 2)} at m = {m}" for m in most),
            ", ".join(f"{number} at m = {m} (of {bounds[m]} complex)" for m, number in most.items()),
            True,
            all(number <= bounds[m] and lost[m] == 0 for m, number in most.items()),
            f"enumeration incomplete in {sum(lost.values())} data sets, of lower ranks alone in {lower}",
        ),
    ]
