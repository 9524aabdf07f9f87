"""Training of many small networks on digits: steps per second and memory of lanes beside runs in turn, and what spectra cost.

    python -m benchmarks.training                                    every table, some minutes
    python -m benchmarks.training --quick                            tiny, half a minute
    python -m benchmarks.training --results benchmarks/RESULTS.md    also write the tables there

Full-batch Barlow Twins of pairs of noisy digits, float32, by plain gradient descent, the same in all routes: a small perceptron
(16, 16, 4 units; 16 pairs), a perceptron (64, 32, 8 units; 64 pairs), a ResNet (8 and 16 channels, group norm; 64 pairs). Routes
(`training_networks_routes.py`) are run in turns in one process. `steps/s` counts the steps of all runs; it is the median over
turns, and `x in turn` the median of the ratios within each turn to one call of the library for each run. A turn is a whole call,
host work and transfers included; `first s` is the first call, with compilation, less what its steps take later. `gap` is the
largest |W - W'| / |W'| of the last layer to the library's runs in turn, which agrees below 1e-3. `MB` is the peak of a fresh
process that trains 2 steps, less that of one that only has the pairs.
Tracking: the time of the same lanes with all spectra, of embeddings and hidden layers, logged every 20 steps, over that without;
the median of ratios within turns.
Nothing passes or fails on time; ratios are to be read, not absolute figures.
"""

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.report import command_parser, parse_command

RUNS = (1, 8, 64)
STEPS = {"small perceptron": 2000, "perceptron": 2000, "ResNet": 20}
TIMES_IN_TURN, OVERHEAD = 5.0, 0.10
LIMIT = 1e-3


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = command_parser("training", __doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps of a few runs of the small perceptron")
    parser.add_argument("--repeats", type=int, default=3, help="turns of which the median is taken (default 3)")
    return parse_command(parser, argv)


def _timed(call: Any) -> tuple[float, Any]:
    start = perf_counter()
    found = call()
    return perf_counter() - start, found


def measure(kind: str, count: int, steps: int, repeats: int, memory: bool) -> list[dict[str, Any]]:
    """One row per route for one kind of network and one number of runs."""
    import numpy as np

    from benchmarks.training_networks_routes import make_problem, routes

    print(f"{kind}, {count} runs of {steps} steps", file=sys.stderr, flush=True)
    problem, seeds = make_problem(kind), np.arange(count)
    chosen = [route for route in routes() if kind in route.kinds]
    first, ends = {}, {}
    seconds: dict[str, list[float]] = {route.name: [] for route in chosen}
    for route in chosen:
        first[route.name], ends[route.name] = _timed(lambda route=route: route.run(problem, seeds, steps))
    for _ in range(repeats):
        for route in chosen:
            seconds[route.name].append(_timed(lambda route=route: route.run(problem, seeds, steps))[0])
    base = peak_memory(kind, count, None) if memory else 0
    rows = []
    for route in chosen:
        own, turn = seconds[route.name], seconds["turn"]
        norms = np.linalg.norm(ends["turn"], axis=(1, 2))
        gap = float((np.linalg.norm(ends[route.name] - ends["turn"], axis=(1, 2)) / norms).max())
        rows.append({
            "kind": kind, "runs": count, "steps": steps, "route": route.name, "describe": route.describe, "turns_s": own,
            "rate": count * steps / median(own), "times_in_turn": median(t / o for t, o in zip(turn, own, strict=True)),
            "first_s": first[route.name] - median(own), "gap": gap, "agrees": gap < LIMIT,
            "peak": peak_memory(kind, count, route.name) - base if memory else None,
        })  # fmt: skip
    return rows


def peak_memory(kind: str, count: int, route: str | None) -> int:
    """Peak resident bytes of a fresh process that has the pairs, and trains by the route where one is named."""
    code = (
        "import numpy as np\n"
        "from benchmarks.machine import peak_resident_bytes\n"
        "from benchmarks.training_networks_routes import make_problem, routes\n"
        f"problem = make_problem({kind!r})\n"
        f"for route in [one for one in routes() if one.name == {route!r}]:\n"
        f"    route.run(problem, np.arange({count}), 2)\n"
        "print(peak_resident_bytes())\n"
    )
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def measure_tracking(kind: str, count: int, steps: int, repeats: int) -> dict[str, Any]:
    """What spectra every 20 steps cost, of the whole time without."""
    import numpy as np

    from benchmarks.training_networks_routes import library, make_problem, tracked

    print(f"{kind}, spectra of {count} runs", file=sys.stderr, flush=True)
    problem, seeds = make_problem(kind), np.arange(count)
    calls = [lambda: library(problem, seeds, steps), lambda: tracked(problem, seeds, steps)]
    for call in calls:
        call()
    turns = [[_timed(call)[0] for call in calls] for _ in range(repeats)]
    return {
        "kind": kind,
        "runs": count,
        "steps": steps,
        "turns_s": turns,
        "overhead": median(b / a - 1 for a, b in turns),
    }


def _markdown(head: str, rows: list[list[str]]) -> str:
    names = head.split("|")
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in rows])


def table(rows: list[dict[str, Any]]) -> str:
    """One kind of network as a Markdown table."""
    cells = [
        [row["describe"], str(row["runs"]), f"{row['rate']:,.0f}", f"{row['times_in_turn']:.3g}", f"{row['first_s']:.2f}",
         "" if row["peak"] is None else f"{row['peak'] / 1e6:,.0f}", f"{row['gap']:.1e}", "yes" if row["agrees"] else "NO"]
        for row in rows
    ]  # fmt: skip
    return _markdown("route|runs|steps/s|x in turn|first s|MB|gap|agrees", cells)


def tracking_table(rows: list[dict[str, Any]]) -> str:
    """What spectra cost, as a Markdown table."""
    cells = [[row["kind"], str(row["runs"]), f"{100 * row['overhead']:.1f} %"] for row in rows]
    return _markdown("network|runs|one log of all spectra every 20 steps", cells)


def verdicts(rows: list[dict[str, Any]], tracking: list[dict[str, Any]]) -> list[str]:
    """The targets beside what was measured; a route that disagrees misses its target."""
    lines = []
    for row in rows:
        if row["route"] == "lanes" and row["kind"] != "ResNet" and row["runs"] == RUNS[-1]:
            reached = row["times_in_turn"] >= TIMES_IN_TURN and row["agrees"]
            lines.append(
                f"- {row['runs']} runs of the {row['kind']} as lanes, >= {TIMES_IN_TURN:g} x as fast as in turn: "
                f"{row['times_in_turn']:.3g} x: {'reached' if reached else 'MISSED'}"
            )
    for row in tracking:
        lines.append(
            f"- spectra of {row['runs']} runs of the {row['kind']}, <= {100 * OVERHEAD:g} % at one log per 20 steps: "
            f"{100 * row['overhead']:.1f} %: {'reached' if row['overhead'] <= OVERHEAD else 'MISSED'}"
        )
    return lines


def main(argv: list[str] | None = None) -> dict[str, Any]:
    options = parse(argv)
    import jax

    from benchmarks.report import about_this_run, publish, section

    about = about_this_run(jax.local_devices())
    kinds, runs = (("small perceptron",), (1, 4)) if options.quick else (tuple(STEPS), RUNS)
    rows, tracking = [], []
    for kind in kinds:
        steps = 20 if options.quick else STEPS[kind]
        for count in runs:
            rows += measure(kind, count, steps, options.repeats, memory=not options.quick)
        tracking.append(measure_tracking(kind, runs[-1], steps, options.repeats))
    lines = verdicts(rows, tracking)
    parts = [f"`{options.command}`; columns as its `--help` says."]
    parts += [f"**{kind}**\n\n{table([row for row in rows if row['kind'] == kind])}" for kind in kinds]
    parts += [f"**Tracking**\n\n{tracking_table(tracking)}", "Targets:\n\n" + "\n".join(lines)]
    text = section("Training of networks", "\n\n".join(parts), about)
    return publish(options, text, {"about": about, "rows": rows, "tracking": tracking, "verdicts": lines})


if __name__ == "__main__":
    main()
