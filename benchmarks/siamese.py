"""Many small siamese networks at once: steps of the algorithms, flows, branches of equilibria, the trials of Ponce 2025.

    python -m benchmarks.siamese                                    every table, many minutes
    python -m benchmarks.siamese --quick                            a few runs, a few seconds
    python -m benchmarks.siamese --runs 100000 --repeats 3          (2, 1) at that many runs only
    python -m benchmarks.siamese --results benchmarks/RESULTS.md    also write the tables there

Routes (`siamese_routes.py`, `siamese_branches.py`) are run in turns in one process. A turn is a whole call, numpy in and numpy
out; `s` is the median over turns and `x plain` the median of the ratios of rates within each turn, which a busy machine disturbs
less than the ratio of the medians. Routes that are slow run fewer of the runs: the rate is that of those. `first s` is the first
call, with compilation, less the fastest later one.

Steps: stop gradient (SG) and moving average (EMA, alpha = 0.9), 300 steps of 0.1, weight decay 0.1, moments of each run its own.
`gap` is the largest relative distance of a run's end from the numpy loop in float64, over up to 1,000 runs; routes agree below
1e-9 (float64) and 1e-2 (float32).
Flows: to t = 30, last state only; `gap` is that from scipy's DOP853 at 1e-12 over 16 runs, agrees below 1e-4 (float64) and 1e-2
(float32); `steps` are those of the integrator, a mean over runs.
Branches: `fold error` is that of the nearest fold found, `residual` the largest |F| of the points.
Nothing passes or fails on time.
"""

import argparse
import os
import sys
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.report import about_this_run, command_parser, parse_command, publish, section

# (n, m, runs of the steps, runs of the flows, most turns, whether EMA too)
SIZES = [(2, 1, 100_000, 100_000, 99, True), (2, 1, 1_000_000, 1_000_000, 2, False), (16, 8, 1_000, 200, 3, True)]
LIMITS = {"steps": {"float64": 1e-9, "float32": 1e-2}, "flow": {"float64": 1e-4, "float32": 1e-2}}
POINTS, FOLD_ERROR = 24, 1e-8
TIMES_PLAIN, SHARE_OF_C, TRIALS_SECONDS = 2.9, 0.25, 10.0
TRIALS, HORIZON = 10_000, 300.0
_CHECKED, _INTEGRATED = 1_000, 16


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = command_parser("siamese", __doc__)
    parser.add_argument("--quick", action="store_true", help="a few runs, no trials")
    parser.add_argument("--runs", type=int, metavar="N", help="only (n, m) = (2, 1), with so many runs")
    parser.add_argument("--repeats", type=int, default=5, help="turns of which the median is taken (default 5)")
    return parse_command(parser, argv)


def in_turns(calls: dict[str, Any], repeats: int) -> tuple[dict[str, Any], dict[str, float], dict[str, list[float]]]:
    """(what the first call of each gave, its seconds, the seconds of the later turns)."""
    results, first, seconds = {}, {}, {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = perf_counter()
            result = call()
            taken = perf_counter() - start
            if turn:
                seconds[name].append(taken)
            else:
                results[name], first[name] = result, taken
    return results, first, seconds


def measure_runs(kind: str, n: int, m: int, runs: int, dtype: str, ema: bool, repeats: int) -> list[dict[str, Any]]:
    """One row per route of the steps or of the flow, for one batch."""
    from benchmarks import siamese_routes as s
    from jepa_dyn._precision import x64_context

    print(f"{kind}, {'EMA' if ema else 'SG'}, ({n}, {m}), {dtype}, {runs:,} runs", file=sys.stderr, flush=True)
    batch, steps = s.make_batch(n, m, runs, dtype, ema), kind == "steps"
    routes = s.step_routes() if steps else s.flow_routes()
    # beyond 1e5 runs only what does them all: a rate on fewer is in the table for 1e5
    routes = [route for route in routes if runs <= 100_000 or route.part(batch).runs == runs]
    if steps:
        reference = s.numpy_loop(batch.first(_CHECKED if n < 10 else _INTEGRATED).as_float64())
    else:
        reference = s.exact_flow(batch.first(_INTEGRATED))
    with x64_context(dtype == "float64"):
        parts = {route.name: route.part(batch) for route in routes}
        calls = {route.name: lambda route=route: route.run(parts[route.name]) for route in routes}
        results, first, seconds = in_turns(calls, repeats)
    rows = []
    for route in routes:
        own, count = seconds[route.name], parts[route.name].runs
        plain, plain_runs = seconds.get("plain"), parts["plain"].runs if "plain" in parts else 0
        found = s.gap(results[route.name], reference)
        rows.append({
            "kind": kind, "n": n, "m": m, "runs": runs, "dtype": dtype, "ema": ema, "route": route.name,
            "describe": route.describe, "note": route.note, "own_runs": count, "turns_s": own, "seconds": median(own),
            "rate": count * (s.STEPS if steps else 1) / median(own), "first_s": first[route.name] - min(own),
            "times_plain": median(count * p / (plain_runs * t) for p, t in zip(plain, own, strict=True)) if plain else None,
            "solver_steps": results[route.name].steps, "gap": found, "agrees": found < LIMITS[kind][dtype],
        })  # fmt: skip
    return rows


def measure_branches(repeats: int, features: list[int]) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per route and number of features, and what is to be said about absent peers."""
    from benchmarks.siamese_branches import branch_routes, cases
    from jepa_dyn._precision import x64_context

    print("branches", file=sys.stderr, flush=True)
    routes, absent = branch_routes()
    rows = []
    with x64_context(True):
        for m, case in ((m, case) for m, case in cases().items() if m in features):
            calls = {route.name: lambda route=route, case=case: route.run(case, POINTS) for route in routes}
            results, first, seconds = in_turns(calls, repeats)
            for route in routes:
                found, own = results[route.name], seconds[route.name]
                error = float(abs(found.folds - case.fold).min()) if found.folds.size else None
                ratios = [other / mine for other, mine in zip(own, seconds["ours"], strict=True)]
                rows.append({
                    "m": m, "route": route.name, "describe": route.describe, "note": route.note, "points": found.points,
                    "seconds": median(own), "turns_s": own, "first_s": first[route.name] - min(own),
                    "times_ours": median(ratios), "residual": found.residual, "fold_error": error,
                    "agrees": found.residual < 1e-9 and (error is None or error < FOLD_ERROR),
                })  # fmt: skip
    return rows, absent


def measure_trials() -> list[dict[str, Any]]:
    """First and second call of 10,000 trials of every reading until T = 300: all of them, and the algorithms alone."""
    from jepa_dyn.papers import ponce2025
    from jepa_dyn.papers._figure import float64

    rows = []
    variants = ponce2025.VARIANTS
    for describe, chosen in (("all readings", variants), ("the algorithms", [one for one in variants if one[2]])):
        print(f"trials, {describe}", file=sys.stderr, flush=True)
        seconds = []
        for _ in range(2):
            start = perf_counter()
            with float64():
                for variant in chosen:
                    ponce2025.trial_ends(variant, TRIALS, HORIZON, 0)
            seconds.append(perf_counter() - start)
        describe = f"{describe} ({len(chosen)}), T = {HORIZON:g}"
        rows.append({"describe": describe, "trials": TRIALS, "first_s": seconds[0], "second_s": seconds[1]})
    return rows


def _markdown(head: str, rows: list[list[str]]) -> str:
    names = head.split("|")
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in rows])


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def run_table(rows: list[dict[str, Any]]) -> str:
    """One batch as a Markdown table."""
    steps = rows[0]["kind"] == "steps"
    cells = [
        [row["describe"], f"{row['own_runs']:,}", f"{row['seconds']:.3g}", f"{row['rate'] / (1e6 if steps else 1e3):.3g}",
         _number(row["times_plain"], ".3g"), f"{row['first_s']:.2f}", *([] if steps else [_number(row["solver_steps"], ".1f")]),
         f"{row['gap']:.1e}", "yes" if row["agrees"] else "NO"]
        for row in rows
    ]  # fmt: skip
    rate = "10^6 steps/s" if steps else "10^3 runs/s"
    return _markdown(f"route|runs|s|{rate}|x plain|first s|{'' if steps else 'steps|'}gap|agrees", cells)


def branch_table(rows: list[dict[str, Any]]) -> str:
    """The branches as a Markdown table."""
    cells = [
        [row["describe"], str(row["m"]), str(row["points"]), f"{1e3 * row['seconds']:.3g}", f"{row['times_ours']:.3g}",
         f"{row['first_s']:.2f}", f"{row['residual']:.1e}", _number(row["fold_error"], ".1e"), "yes" if row["agrees"] else "NO"]
        for row in rows
    ]  # fmt: skip
    return _markdown("route|m|points|ms|time / jepa_dyn's|first s|residual|fold error|agrees", cells)


def verdicts(rows: list[dict[str, Any]], trials: list[dict[str, Any]]) -> list[str]:
    """The targets beside what was measured; a route that disagrees misses its target."""
    lines = []
    batches = {(row["runs"], row["dtype"], row["ema"]) for row in rows if (row["kind"], row["n"]) == ("steps", 2)}
    for runs, dtype, ema in sorted(batches):
        own = {row["route"]: row for row in rows
               if (row["kind"], row["n"], row["runs"], row["dtype"], row["ema"]) == ("steps", 2, runs, dtype, ema)}  # fmt: skip
        ours = own["ours"]
        where = f"(2, 1), {'EMA' if ema else 'SG'} steps, {dtype}, {runs:,} runs"
        goals = [("plain", TIMES_PLAIN)] if "plain" in own else []
        goals += [(name, SHARE_OF_C) for name in own if name.startswith("c_1_")]
        for peer, times in goals:
            found = median(other * ours["own_runs"] / (mine * own[peer]["own_runs"])
                           for other, mine in zip(own[peer]["turns_s"], ours["turns_s"], strict=True))  # fmt: skip
            reached = found >= times and ours["agrees"]
            lines.append(f"- {where}: >= {times:g} x {own[peer]['describe']}: {found:.3g} x: "
                         f"{'reached' if reached else 'MISSED'}")  # fmt: skip
    for row in trials:
        reached = row["second_s"] < TRIALS_SECONDS
        lines.append(f"- {row['trials']:,} trials, {row['describe']}, after compile < {TRIALS_SECONDS:g} s: "
                     f"{row['second_s']:.3g} s: {'reached' if reached else 'MISSED'}")  # fmt: skip
    return lines


def batches(options: argparse.Namespace) -> list[tuple]:
    """(kind, n, m, runs, dtype, whether EMA, turns) of every table."""
    if options.quick:
        small = [("steps", 2, 1, 400, "float64", False), ("steps", 2, 1, 400, "float64", True),
                 ("steps", 2, 1, 400, "float32", False), ("steps", 16, 8, 16, "float64", False),
                 ("flow", 2, 1, 64, "float64", False)]  # fmt: skip
        return [(*batch, options.repeats) for batch in small]
    sizes = [(2, 1, options.runs, options.runs, 99, True)] if options.runs else SIZES
    return [
        (kind, n, m, runs if kind == "steps" else flow_runs, dtype, ema,
         min(options.repeats, most if kind == "steps" else 2))
        for kind in ("steps", "flow") for n, m, runs, flow_runs, most, both in sizes
        for dtype in ("float64", "float32") for ema in ((False, True) if both else (False,))
    ]  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every table."""
    rows = [row for batch in batches(options) for row in measure_runs(*batch)]
    branches, absent = measure_branches(min(options.repeats, 3), [1] if options.quick else [1, 2])
    return {"rows": rows, "branches": branches, "absent": absent, "trials": [] if options.quick else measure_trials()}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    options = parse(argv)
    from benchmarks.machine import num_cores

    if "jax" not in sys.modules:  # XLA reads it once
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={num_cores()}".strip()
    import jax

    about = about_this_run(jax.local_devices())
    found = measure(options)
    lines = [] if options.quick else verdicts(found["rows"], found["trials"])
    parts, tables = [f"`{options.command}`; columns as its `--help` says."], {}
    for row in found["rows"]:
        what = "300 steps" if row["kind"] == "steps" else "Flow to t = 30"
        title = f"{what}, {'EMA' if row['ema'] else 'SG'}, (n, m) = ({row['n']}, {row['m']}), {row['dtype']}"
        tables.setdefault(f"**{title}, {row['runs']:,} runs**", []).append(row)
    for title, rows in tables.items():
        parts += [title, run_table(rows)]
    parts += ["**Branches over the weight decay, through the fold, Newton's method to 2.2e-13**",
              branch_table(found["branches"]), *(f"- {line}" for line in found["absent"])]  # fmt: skip
    cells = [
        [r["describe"], f"{r['trials']:,}", f"{r['first_s']:.3g}", f"{r['second_s']:.3g}"] for r in found["trials"]
    ]
    trials = [
        "**Trials of Ponce 2025, section 4.3, eleven readings**",
        _markdown("what|trials|first s|second s", cells),
    ]
    parts += trials if cells else []
    parts += ["Targets:\n\n" + "\n".join(lines)] if lines else []
    notes = {f"- {row['describe']}: {row['note']}": None for row in found["rows"] + found["branches"] if row["note"]}
    text = section("Siamese networks", "\n\n".join([*parts, "Notes:\n\n" + "\n".join(notes)]), about)
    return publish(options, text, {"about": about, **found, "verdicts": lines})


if __name__ == "__main__":
    main()
