"""Eigenvalues of many small networks under the eight losses of Halvagal 2023, Table 1: runs per second at one accuracy.

    python -m benchmarks.representation                                    every table, some minutes
    python -m benchmarks.representation --quick                            tiny, a few seconds
    python -m benchmarks.representation --results benchmarks/RESULTS.md    also write the table there

N = 15, M = 10, both views noisy, sigma = 0.1, C_z = W W^T. Routes (`representation_routes.py`) take the weights of all networks to
the eigenvalues of C_z at 20 times of the gradient flow on the population: numpy in, numpy out, on one core, in one process, in
turns. `runs/s` is the median over turns. The loops draw fresh pairs at each step and take one run after another, as one writes
them; they are timed on few of the runs, the steps without noise on 64. `steps` are the fewest whose own error is at most half of
the accuracy asked, `pairs` per step the smallest power of two with which the median of five runs meets it. `error` is, for the
median of the runs that were timed, the largest distance of any eigenvalue from the reference (the modes integrated to 1e-10, 64
nodes) at any saved time, over the mean eigenvalue at the start; "not met" where it is above the accuracy by half or more, more
than few runs scatter by. `x loop` is our rate over that of the plain PyTorch loop (of the plain JAX loop where PyTorch is not
installed). `first s` is the first call of ours, with compilation, less the median later one.
Nothing passes or fails on time; ratios are to be read, not absolute figures.
"""

import argparse
import os
import sys
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.report import about_this_run, command_parser, parse_command, publish, section

SIZES = {"outputs": 10, "inputs": 15}
QUICK = {"outputs": 3, "inputs": 4}
TIMES_LOOP = 100.0
CHECKED = 16
SCATTER = 1.5  # of the accuracy: what the few runs of a loop may miss it by


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = command_parser("representation", __doc__)
    parser.add_argument("--quick", action="store_true", help="two losses of tiny networks")
    parser.add_argument("--runs", type=int, default=1000, help="networks per loss (default 1000)")
    parser.add_argument("--loop-runs", type=int, default=3, help="of which the loops take so many (default 3)")
    parser.add_argument("--accuracy", type=float, default=0.02, help="asked of every route (default 0.02)")
    parser.add_argument("--repeats", type=int, default=2, help="turns of which the median is taken (default 2)")
    return parse_command(parser, argv)


@contextmanager
def one_core():
    """Keeps the process on one of its cores, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(loss: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per route for one loss."""
    import numpy as np

    from benchmarks import representation_routes as r
    from jepa_dyn._precision import x64_context

    print(loss, file=sys.stderr, flush=True)
    with x64_context(True):
        problem = r.make_problem(loss, options.runs, **(QUICK if options.quick else SIZES))
        checked = problem.first(CHECKED)
        reference = r.modes_of(checked, r.TIGHT)
        few = problem.first(5)
        settings = r.choose_settings(few, reference[:5], options.accuracy, 64 if options.quick else 2**14)
        found, seconds, first = {}, {}, {}
        chosen = r.routes()
        parts = {route.name: problem.first(route.runs(options)) for route in chosen}
        for turn in range(options.repeats + 1):
            for route in chosen:
                start = perf_counter()
                result = route.run(parts[route.name], settings)
                taken = perf_counter() - start
                if turn:
                    seconds.setdefault(route.name, []).append(taken)
                else:
                    found[route.name], first[route.name] = result, taken
    rows = []
    for route in chosen:
        runs, own = len(parts[route.name].starts), seconds[route.name]
        error = float(np.median(r.errors(found[route.name][:CHECKED], reference[:runs])))
        rows.append({
            "loss": loss, "route": route.name, "describe": route.describe, "loop": route.loop, "runs": runs,
            "steps": r.SAVES * settings.steps_per_save, "pairs": settings.batch, "turns_s": own, "rate": runs / median(own),
            "first_s": first[route.name] - median(own), "error": error, "meets": error <= SCATTER * options.accuracy,
        })  # fmt: skip
        print(f"    {route.describe}: {rows[-1]['rate']:.3g} runs/s, error {error:.1e}", file=sys.stderr, flush=True)
    return rows


def loop_name(rows: list[dict[str, Any]]) -> str:
    """The loop that ours is compared with."""
    return "torch" if any(row["route"] == "torch" for row in rows) else "jax"


def table(problems: list[list[dict[str, Any]]]) -> str:
    """All losses as a Markdown table, one a row."""
    names = {row["route"]: row["describe"] for row in problems[0]}
    loops = [row["route"] for row in problems[0] if row["loop"]]
    own = [name for name in names if name not in loops]
    head = ["loss", "steps", "pairs", *(f"{names[name]}: runs/s|error" for name in [*loops, *own]), "x loop", "first s"]
    titles = "|".join(head).split("|")
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "---:|" * (len(titles) - 1)]
    for rows in problems:
        by = {row["route"]: row for row in rows}
        cells = [rows[0]["loss"], f"{rows[0]['steps']:,}", f"{rows[0]['pairs']:,}"]
        for name in [*loops, *own]:
            cells += [f"{by[name]['rate']:,.3g}", f"{by[name]['error']:.1e}{'' if by[name]['meets'] else ' (not met)'}"]
        cells += [f"{by['ours']['rate'] / by[loop_name(rows)]['rate']:,.0f}", f"{by['ours']['first_s']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(problems: list[list[dict[str, Any]]]) -> list[str]:
    """The target beside what was measured, for all losses together (time for one run of each) and the worst of them."""
    loop = loop_name(problems[0])
    describe = next(row["describe"] for row in problems[0] if row["route"] == loop)
    times: dict[str, float] = dict.fromkeys(("ours", loop), 0.0)
    ratios, good = {}, True
    for rows in problems:
        by = {row["route"]: row for row in rows}
        good = good and by["ours"]["meets"]
        ratios[rows[0]["loss"]] = by["ours"]["rate"] / by[loop]["rate"]
        for name in times:
            times[name] += 1 / by[name]["rate"]
    found = times[loop] / times["ours"]
    worst = min(ratios, key=lambda name: ratios[name])
    reached = found >= TIMES_LOOP and good
    return [
        f"- one run of each loss on one core, >= {TIMES_LOOP:g} x the {describe}: {found:,.0f} x: "
        f"{'reached' if reached else 'MISSED'}",
        f"- each loss by itself, >= {TIMES_LOOP:g} x: {ratios[worst]:,.0f} x for the slowest, {worst}: "
        f"{'reached' if ratios[worst] >= TIMES_LOOP and good else 'MISSED'}",
    ]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    options = parse(argv)
    import jax

    from jepa_dyn.losses import TABLE_1

    about = about_this_run(jax.local_devices())
    with one_core():
        losses = ("euclidean", "euclidean_iso") if options.quick else tuple(TABLE_1)
        problems = [measure(loss, options) for loss in losses]
    lines = [] if options.quick else verdicts(problems)
    parts = [f"`{options.command}`; columns as its `--help` says. Accuracy {options.accuracy:g}."]
    if loop_name(problems[0]) != "torch":
        parts += ["PyTorch is not installed: the loop that ours is compared with is the plain JAX loop."]
    parts += [table(problems)]
    parts += ["Targets:\n\n" + "\n".join(lines)] if lines else []
    text = section("Non-contrastive losses", "\n\n".join(parts), about)
    return publish(
        options, text, {"about": about, "rows": [row for rows in problems for row in rows], "verdicts": lines}
    )


if __name__ == "__main__":
    main()
