"""What Littwin et al. 2024 claim about Figures 2 and 4, and what is found. Each function returns its checks."""

import math
from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn.papers._figure import Check
from jepa_dyn.papers._modes import ordered, simulate, spread
from jepa_dyn.parameters import Objective, mode_parameters
from jepa_dyn.solve.exact import exact
from jepa_dyn.theory import expansions
from jepa_dyn.theory import modes as theory

if TYPE_CHECKING:
    import xarray

# two features count as learned at the same time where their critical times differ by less
SAME_TIME = 0.05


def fig2_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Greedy learning and the inversion (on the integrated critical times), fixed points (9), initial value of (12)."""
    return [*_greedy(dataset), *_fixed_points(dataset), _agreement(dataset), *_initial_psi()]


def fig4_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Spread over depth, Corollary 4.8 and where it can be seen, the limit (10) and its rate."""
    return [*_spread_over_depth(dataset), _agreement(dataset), *_corollary(), *_visibility(), *_infinite_depth()]


def _greedy(dataset: "xarray.Dataset") -> list[Check]:
    times = dataset.critical_time_simulation
    found = {(o, p): times.sel(objective=o, panel=p).values for o in ("jepa", "mae") for p in dataset.panel.values}

    def first_to_last(objective: str, panel: str) -> str:
        row = found[objective, panel]
        return f"t* {row[0]:.4g} -> {row[-1]:.4g}"

    made = [
        Check(
            f"{objective.upper()} learns features of higher lambda first",
            f"Fig. 2({letter}), caption",
            "greedy in lambda at equal rho",
            first_to_last(objective, "lam"),
            True,
            ordered(found[objective, "lam"], ascending=False),
        )
        for objective, letter in (("jepa", "a"), ("mae", "d"))
    ]
    made.append(
        Check(
            "JEPA learns features of higher rho first",
            "Fig. 2(b), caption",
            "greedy in rho at equal lambda",
            first_to_last("jepa", "rho"),
            True,
            ordered(found["jepa", "rho"], ascending=False, margin=0.01),
        )
    )
    mae = float(spread(found["mae", "rho"]))
    made.append(
        Check(
            "MAE learns features of equal lambda at the same time, whatever rho",
            "Fig. 2(e), caption",
            "not greedy in rho",
            f"longest / shortest t* = {mae:.4f}",
            True,
            mae < 1 + SAME_TIME,
            f"'the same time' means within {SAME_TIME:.0%}",
        )
    )
    made.append(
        Check(
            "Opposite trends of lambda and rho: MAE follows lambda, JEPA follows rho",
            "Fig. 2(c, f), caption",
            "the order is inverted between the objectives",
            f"MAE {first_to_last('mae', 'opposite')}, JEPA {first_to_last('jepa', 'opposite')}",
            True,
            ordered(found["mae", "opposite"], ascending=False) and ordered(found["jepa", "opposite"], ascending=True),
            "needs eps^(1/L)/rho large enough to be seen: the paper prints no eps",
        )
    )
    return made


def _fixed_points(dataset: "xarray.Dataset") -> list[Check]:
    made = []
    for objective, formula in (("mae", "rho^(L/(L+1))"), ("jepa", "rho^L")):
        one = dataset.sel(objective=objective)
        error = float(abs(one.fixed_point_simulation / one.fixed_point_theory - 1).max())
        made.append(
            Check(
                f"{objective.upper()} settles at {formula}",
                "eq. (9)",
                f"w(infinity) = {formula}",
                f"largest relative difference {error:.1e}",
                True,
                error < 1e-5,
                "for lambda > 0; at lambda <= 0 the limit is 0",
            )
        )
    return made


def _agreement(dataset: "xarray.Dataset") -> Check:
    error = float(abs(dataset.critical_time_simulation / dataset.critical_time_theory - 1).max())
    return Check(
        "Closed-form critical times agree with the integration",
        "eqs (11), (12), (14)",
        "implicit solutions of (7), (8)",
        f"largest relative difference {error:.1e}",
        True,
        error < 1e-4,
        "exact inversion, not the expansions (13), (16)",
    )


def _initial_psi() -> list[Check]:
    """(12) from its printed initial value and from the corrected one, against the integration; L = 3, rho = 0.8, eps = 0.05."""
    lam, rho, depth, eps = 1.0, 0.8, 3, 0.05

    def time_of(psi: float) -> float:
        """Bracket of (12): lam rho^(2L-1) t / L + C = logit(psi) - sum_{m=1}^{2L-1} psi^-m / m."""
        bracket = math.log(psi / (1 - psi)) - sum(psi**-m / m for m in range(1, 2 * depth))
        return depth / (lam * rho ** (2 * depth - 1)) * bracket

    half = 0.5 * rho**depth
    arrival = time_of(half ** (1 / depth) / rho)
    corrected, printed = arrival - time_of(eps ** (1 / depth) / rho), arrival - time_of(eps**depth / rho)
    ts = corrected * np.linspace(0.9, 1.1, 401)
    ws, _ = simulate("jepa", eps, np.array([lam]), np.array([rho]), np.array([float(depth)]), ts[None])
    measured = float(np.interp(half, ws[0], ts))
    where = "line below eq. (12), eq. (88)"
    claim = "Implicit solution (12) started from psi(0) = {} gives the integrated half time"
    text = "L=3, rho=0.8, eps=0.05: integrated {:.6g}, eq. (12) {:.6g}"
    return [
        Check(
            claim.format("eps^L / rho"),
            where,
            "psi(0) = eps^L / rho",
            text.format(measured, printed),
            False,
            bool(abs(printed / measured - 1) < 1e-4),
            "misprint: psi = w^(1/L) / rho, as in eq. (81)",
        ),
        Check(
            claim.format("eps^(1/L) / rho"),
            where,
            "(corrected) psi(0) = eps^(1/L) / rho",
            text.format(measured, corrected),
            True,
            bool(abs(corrected / measured - 1) < 1e-4),
            "corrected sibling of the line above",
        ),
    ]


def _spread_over_depth(dataset: "xarray.Dataset") -> list[Check]:
    jepa, mae = (spread(dataset.critical_time_simulation.sel(objective=o).values) for o in ("jepa", "mae"))
    depths = dataset.depth.values

    def listed(values: np.ndarray) -> str:
        return ", ".join(f"L={depth:g}: {value:.3g}" for depth, value in zip(depths, values, strict=True))

    return [
        Check(
            "JEPA: the deeper the encoder, the wider rho spreads the features in time",
            "Fig. 4, caption; section 5",
            "deeper encoders learn more incrementally in rho",
            f"longest / shortest t*: {listed(jepa)}",
            True,
            bool((np.diff(jepa) > 0).all()),
        ),
        Check(
            "MAE: all features of one lambda are learned at the same time, at every depth",
            "Fig. 4, section 5",
            "independent of the depth",
            f"longest / shortest t*: {listed(mae)}",
            True,
            bool((mae < 1 + SAME_TIME).all()),
            f"'the same time' means within {SAME_TIME:.0%}",
        ),
    ]


def time_ratio(objective: Objective, eps: float, depth: float, rho: float = 0.5, other: float = 0.9) -> float:
    """t*(rho) / t*(rho') at equal lambda, exact; NaN where a feature starts above half of its fixed point."""
    args = mode_parameters(1.0, np.array([rho, other]), depth)
    if (eps >= 0.5 * np.asarray(theory.fixed_point(objective, args))).any():
        return math.nan
    late, early = np.asarray(theory.critical_time(objective, eps, args))
    return float(late / early)


def _corollary() -> list[Check]:
    difference = 1 / 0.5 - 1 / 0.9
    coefficients = []
    for depth, eps in ((2.0, 1e-10), (5.0, 1e-20)):
        excess = (time_ratio("jepa", eps, depth) - 1) / (difference * eps ** (1 / depth))
        coefficients.append((depth, excess, (2 * depth - 1) / (2 * depth - 2)))
    mae = max(abs(time_ratio("mae", 1e-6, depth) - 1) for depth in (2.0, 5.0))
    with np.errstate(divide="ignore"):
        printed_shallow = 1 + np.divide(1.0, 0.0) * difference * 1e-6  # 2L - 1 = 1, 2L - 2 = 0
    exact_shallow = time_ratio("jepa", 1e-6, 1.0)
    excess = [(time_ratio("jepa", eps, 1.0) - 1) / eps for eps in (1e-6, 1e-8)]
    shallow = (excess[1] - excess[0]) / (difference * math.log(1e-6 / 1e-8))
    return [
        Check(
            "JEPA, L >= 2: t*(rho)/t*(rho') = 1 + (2L-1)/(2L-2) (1/rho - 1/rho') eps^(1/L) as eps -> 0",
            "Corollary 4.8, eq. (17)",
            ", ".join(f"coefficient {want:.5f} at L={depth:g}" for depth, _, want in coefficients),
            ", ".join(f"{found:.5f} at L={depth:g}" for depth, found, _ in coefficients),
            True,
            all(abs(found / want - 1) < 5e-3 for _, found, want in coefficients),
            "exact times at eps = 1e-10 (L=2) and 1e-20 (L=5), rho = 0.5, rho' = 0.9",
        ),
        Check(
            "MAE, L >= 2: the ratio tends to 1 as eps -> 0",
            "Corollary 4.8, eq. (17)",
            "1 + Theta(eps^((L-1)/L))",
            f"|ratio - 1| <= {mae:.1e} at eps = 1e-6, L = 2, 5",
            True,
            mae < 1e-2,
        ),
        Check(
            "JEPA, L = 1: the same formula applies",
            "Corollary 4.8, eq. (17)",
            "any L: divides by 2L - 2 = 0 at L = 1",
            f"at eps = 1e-6 the formula gives {printed_shallow:g}, the exact ratio is {exact_shallow:.6f}",
            False,
            bool(abs(printed_shallow / exact_shallow - 1) < 1e-3),
            "the print excludes no L",
        ),
        Check(
            "JEPA, L = 1: t*(rho)/t*(rho') = 1 + (1/rho - 1/rho') eps |log eps|",
            "Corollary 4.8, eq. (17)",
            "(corrected) coefficient 1 as eps -> 0",
            f"(ratio - 1) / eps grows by {shallow:.4f} (1/rho - 1/rho') per unit of |log eps|",
            True,
            abs(shallow - 1) < 1e-2,
            "between eps = 1e-6 and 1e-8",
        ),
    ]


def _visibility() -> list[Check]:
    """Where the preference for rho is visible at all: eps^(1/L)/rho decides, not eps."""
    rows = []
    for depth in (2.0, 3.0, 5.0, 10.0, 20.0):
        for eps in (1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-12):
            small = float(expansions.expansion_parameter(eps, mode_parameters(1.0, 0.5, depth)))
            rows.append((depth, eps, small, time_ratio("jepa", eps, depth)))
    tiny = time_ratio("jepa", 1e-8, 2.0)
    hidden = [ratio for _, _, small, ratio in rows if small < 0.1]
    seen = [ratio for _, _, small, ratio in rows if 0.2 <= small <= 0.8 and not math.isnan(ratio)]
    gone = [ratio for _, _, small, ratio in rows if small >= 1]
    return [
        Check(
            "JEPA prefers high rho visibly (by more than 10 %) at every small initialisation",
            "section 4.2, below eq. (17)",
            "strong dependency on L and 1/rho - 1/rho'",
            f"L=2, eps=1e-8: t*(0.5)/t*(0.9) = {tiny:.5f}",
            False,
            tiny > 1.1,
            "as eps -> 0 at fixed L the preference vanishes relative to t*",
        ),
        Check(
            "JEPA's preference exceeds 10 % for eps^(1/L)/rho in 0.2-0.8, is lost below 0.1, and has no t* from 1 on",
            "section 4.2, below eq. (17)",
            "(corrected) the parameter is eps^(1/L)/rho",
            f"ratio {min(seen):.2f} .. {max(seen):.2f} inside ({len(seen)} cases), <= {max(hidden):.3f} below 0.1",
            True,
            min(seen) > 1.1 and max(hidden) < 1.1 and all(math.isnan(ratio) for ratio in gone),
            "L in 2 .. 20, eps in 1e-12 .. 1e-2, rho = 0.5, rho' = 0.9; from 1 on the feature starts above its fixed point",
        ),
    ]


def infinite_depth_error(eps: float, mae_depth: float, rho: float = 0.8) -> float:
    """sup over t of |w_MAE(t, L') - w_JEPA(t, 1)| at lam = 1, on a grid that resolves both transitions (mode clock)."""
    jepa, mae = mode_parameters(1.0, rho, 1.0), mode_parameters(1.0, rho, mae_depth)
    width, worst = 40 / rho, 0.0
    for half in (theory.critical_time("jepa", eps, jepa), theory.critical_time("mae", eps, mae)):
        ts = np.linspace(max(float(half) - width, 0.0), float(half) + width, 2001)
        difference = exact("mae", eps, mae, ts, method="polish").ys - exact("jepa", eps, jepa, ts, method="polish").ys
        worst = max(worst, float(np.abs(np.asarray(difference)).max()))
    return worst


def _infinite_depth() -> list[Check]:
    fixed = [infinite_depth_error(0.1, depth) for depth in (10.0, 100.0, 1e3, 1e4)]
    modest = infinite_depth_error(1e-3, 100.0)
    rates = [
        infinite_depth_error(eps, depth) * depth * eps / abs(math.log(eps))
        for eps, depth in ((0.1, 1e4), (1e-2, 1e5), (1e-3, 1e6))
    ]
    depth = 1000.0
    in_flow_time = float(
        theory.flow_time(theory.critical_time("mae", 0.1, mode_parameters(1.0, 0.8, depth)), depth)
        / theory.flow_time(theory.critical_time("jepa", 0.1, mode_parameters(1.0, 0.8, 1.0)), 1.0)
    )
    where = "Corollary 4.3, eq. (10)"
    return [
        Check(
            "MAE of infinite depth L' follows one-layer JEPA, at fixed eps, in the clock of (7), (8)",
            where,
            "lim w_MAE(t, L') = w_JEPA(t, 1)",
            "largest difference " + ", ".join(f"{e:.1e}" for e in fixed) + " at L' = 10, 100, 1e3, 1e4 (eps = 0.1)",
            True,
            fixed[-1] < 1e-3 and fixed[-1] < fixed[-2] < fixed[-3],
        ),
        Check(
            "L' >> 1 is enough for that (difference below 0.05 at L' = 100, eps = 1e-3)",
            "section 4, above Corollary 4.3",
            "for L >> 1 MAE approaches JEPA of L = 1",
            f"largest difference {modest:.2f}",
            False,
            modest < 0.05,
            "L' must exceed |log eps| / eps, here 6900",
        ),
        Check(
            "The difference is 0.08 to 0.1 times |log eps| / (eps L')",
            where,
            "(corrected) rate of the limit",
            "factor " + ", ".join(f"{rate:.3f}" for rate in rates) + " at eps = 0.1, 0.01, 0.001",
            True,
            all(0.075 < rate < 0.11 for rate in rates),
        ),
        Check(
            "The limit holds in gradient-flow time",
            "eqs (6)-(8), (10)",
            "(7), (8) follow 'under gradient flow (6)'",
            f"half time of MAE L'=1000 / of JEPA L=1: {in_flow_time:.4f} instead of 1",
            False,
            abs(in_flow_time - 1) < 0.05,
            "(7), (8) run in L times the gradient-flow time, eqs (54), (60)",
        ),
    ]
