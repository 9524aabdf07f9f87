"""Full-batch linear Barlow Twins on photographs: steps per second in the eigenbasis of Gamma beside plain autodiff loops.

    python -m benchmarks.stepwise                                    every table, some minutes
    python -m benchmarks.stepwise --quick                            tiny, a few seconds
    python -m benchmarks.stepwise --results benchmarks/RESULTS.md    also write the tables there

Routes (`stepwise_routes.py`) are run in turns in one process. A turn is a whole call, numpy in and numpy out, of as many steps as
the table says (`fast` routes take more, as real runs of 10^4 to 10^6 steps would). `steps/s` is the median over turns, `x plain`
the median of the ratios of rates within each turn, which a busy machine disturbs less than the ratio of the medians. `setup s` is
what is made of the pairs once (moments, their eigenbasis), the second time; `pays after` the steps after which setup and training
together are faster than the plain loop. `first s` is the first call, with compilation, less what its steps take later.
`gap` is |W - W_plain| / |W_plain| (Frobenius norms) after the steps of the plain loop; it agrees below 1e-9 (float64) or 1e-3.
Growth: one of n, m, d at a time. Memory: the peak of a fresh process that prepares and takes 10 steps, less that of one that
only has the pairs. Kernels: `stepwise_kernels.py`, whose docstring says what its columns are.
Nothing passes or fails on time; ratios are to be read, not absolute figures.
"""

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.report import about_this_run, command_parser, parse_command, publish, section

# n, side of the crops (m = 3 side^2), d
STANDARD = (500, 20, 10)
GROWTH = [(125, 20, 10), (2000, 20, 10), (500, 10, 10), (500, 40, 10), (500, 20, 30), (500, 20, 100)]
MEMORY = [(500, 20, 10), (500, 64, 10)]
QUICK = (6, 2, 3)
TIMES_PLAIN = 10.0
LIMITS = {"float64": 1e-9, "float32": 1e-3}
GROWTH_ROUTES = ("plain", "plain_gamma", "ours")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = command_parser("stepwise", __doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny problem in float64, nothing else")
    parser.add_argument("--steps", type=int, default=200, help="steps per turn of the plain loops (default 200)")
    parser.add_argument("--fast-steps", type=int, default=4000, help="steps per turn of the fast routes (default 4000)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of which the median is taken (default 5)")
    return parse_command(parser, argv)


def gap(found: Any, wanted: Any) -> float:
    """|W - W'| / |W'|, infinite where W is not finite."""
    import numpy as np

    wanted = wanted.astype(np.float64)
    distance = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    return distance if np.isfinite(distance) else float("inf")


def measure(
    size: tuple[int, int, int], dtype: str, options: argparse.Namespace, names: tuple[str, ...] | None = None
) -> list[dict[str, Any]]:
    """One row per route for one problem."""
    from benchmarks.stepwise_routes import make_problem, routes
    from jepa_dyn._precision import x64_context

    pairs, side, dimension = size
    print(f"n = {pairs}, m = {3 * side**2}, d = {dimension}, {dtype}", file=sys.stderr, flush=True)
    problem = make_problem(*size, dtype)
    chosen = [route for route in routes() if names is None or route.name in names]
    steps = {route.name: options.fast_steps if route.fast else options.steps for route in chosen}
    ready, setup, ends, first = {}, {}, {}, {}
    seconds: dict[str, list[float]] = {route.name: [] for route in chosen}
    with x64_context(dtype == "float64"):
        for route in chosen:
            for _ in range(2):  # the second without compilation
                start = perf_counter()
                ready[route.name] = route.prepare(problem)
                setup[route.name] = perf_counter() - start
            start = perf_counter()
            ends[route.name] = route.run(problem, ready[route.name], options.steps)
            first[route.name] = perf_counter() - start
        for _ in range(options.repeats):
            for route in chosen:
                start = perf_counter()
                route.run(problem, ready[route.name], steps[route.name])
                seconds[route.name].append(perf_counter() - start)
    per_step = {name: [taken / steps[name] for taken in own] for name, own in seconds.items()}
    rows = []
    for route in chosen:
        own, plain = per_step[route.name], per_step["plain"]
        saved = median(plain) - median(own)
        extra = setup[route.name] - setup["plain"]
        rows.append({
            "n": pairs, "m": 3 * side**2, "d": dimension, "dtype": dtype, "route": route.name, "describe": route.describe,
            "note": route.note, "steps": steps[route.name], "turns_s": seconds[route.name], "rate": 1 / median(own),
            "times_plain": median(p / t for p, t in zip(plain, own, strict=True)), "setup_s": setup[route.name],
            "pays_after": max(0.0, extra / saved) if saved > 0 else None,
            "first_s": first[route.name] - options.steps * median(own), "gap": gap(ends[route.name], ends["plain"]),
            "moved": gap(ends[route.name], problem.start), "agrees": gap(ends[route.name], ends["plain"]) < LIMITS[dtype],
        })  # fmt: skip
    return rows


def peak_memory(route: str | None, size: tuple[int, int, int]) -> int:
    """Peak resident bytes of a fresh process that has the pairs, and trains by the route where one is named."""
    code = (
        "import jax\n"
        "from benchmarks.machine import peak_resident_bytes\n"
        "from benchmarks.stepwise_routes import make_problem, routes\n"
        "jax.config.update('jax_enable_x64', True)\n"
        f"problem = make_problem({size[0]}, {size[1]}, {size[2]}, 'float64')\n"
        f"for route in [one for one in routes() if one.name == {route!r}]:\n"
        "    route.run(problem, route.prepare(problem), 10)\n"
        "print(peak_resident_bytes())\n"
    )
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def measure_memory(size: tuple[int, int, int]) -> list[dict[str, Any]]:
    """One row per route of the growth tables."""
    print(f"memory, n = {size[0]}, m = {3 * size[1] ** 2}, d = {size[2]}", file=sys.stderr, flush=True)
    base = peak_memory(None, size)
    found = [{"route": name, "peak": peak_memory(name, size) - base} for name in GROWTH_ROUTES]
    return [{"n": size[0], "m": 3 * size[1] ** 2, "d": size[2], **row} for row in found]


def measure_kernels() -> dict[str, dict[str, Any]]:
    """Rows and table of `stepwise_kernels`, under the titles of the tables."""
    from benchmarks.stepwise_kernels import measure_embeddings, measure_tangent_kernels, table

    found = {
        "Empirical tangent kernels of 1,000 pairs, float32": measure_tangent_kernels(),
        "Embeddings of 5,000 points in 10 dimensions through a kernel, float64": measure_embeddings(),
    }
    return {title: {"rows": rows, "table": table(rows)} for title, rows in found.items()}


def _markdown(head: str, rows: list[list[str]]) -> str:
    names = head.split("|")
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in rows])


def table(rows: list[dict[str, Any]]) -> str:
    """One problem as a Markdown table."""
    cells = [
        [row["describe"], f"{row['steps']:,}", f"{row['rate']:,.0f}", f"{row['times_plain']:.3g}", f"{row['setup_s']:.3g}",
         "" if row["pays_after"] is None else f"{row['pays_after']:,.0f}", f"{row['first_s']:.2f}", f"{row['gap']:.1e}",
         "yes" if row["agrees"] else "NO"]
        for row in rows
    ]  # fmt: skip
    return _markdown("route|steps|steps/s|x plain|setup s|pays after|first s|gap|agrees", cells)


def growth_table(problems: list[list[dict[str, Any]]]) -> str:
    """Microseconds per step of the routes that all problems have, one problem a row."""
    cells = []
    for rows in problems:
        own = {row["route"]: row for row in rows}
        ours, first = own["ours"], rows[0]
        cells.append([
            f"{first['n']:,}", f"{first['m']:,}", str(first["d"]), *(f"{1e6 / own[name]['rate']:,.0f}" for name in GROWTH_ROUTES),
            f"{ours['times_plain']:.3g}", f"{ours['setup_s']:.3g}", f"{ours['gap']:.1e}", "yes" if ours["agrees"] else "NO",
        ])  # fmt: skip
    return _markdown("n|m|d|plain, pairs|plain, Gamma|eigenbasis|x plain|setup s|gap|agrees", cells)


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Memory as a Markdown table."""
    cells = [
        [row["route"], f"{row['n']:,}", f"{row['m']:,}", str(row["d"]), f"{row['peak'] / 1e6:,.0f}"] for row in rows
    ]
    return _markdown("route|n|m|d|MB beyond the pairs", cells)


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """The target beside what was measured; a route that disagrees misses it."""
    lines = []
    for row in rows:
        if row["route"] == "ours":
            reached = row["times_plain"] >= TIMES_PLAIN and row["agrees"]
            lines.append(
                f"- {row['describe']}, {row['dtype']}, >= {TIMES_PLAIN:g} x the plain autodiff loop on the same trajectory: "
                f"{row['times_plain']:.3g} x: {'reached' if reached else 'MISSED'}"
            )
    return lines


def main(argv: list[str] | None = None) -> dict[str, Any]:
    options = parse(argv)
    import jax

    about = about_this_run(jax.local_devices())
    size = QUICK if options.quick else STANDARD
    standard = [measure(size, dtype, options) for dtype in (("float64",) if options.quick else LIMITS)]
    growth = [] if options.quick else [measure(one, "float64", options, GROWTH_ROUTES) for one in GROWTH]
    memory = [] if options.quick else [row for one in MEMORY for row in measure_memory(one)]
    kernels = {} if options.quick else measure_kernels()
    rows = [row for one in standard for row in one]
    lines = [] if options.quick else verdicts(rows)
    parts = [f"`{options.command}`; columns as its `--help` says."]
    for one in standard:
        first = one[0]
        parts += [f"**n = {first['n']}, m = {first['m']}, d = {first['d']}, {first['dtype']}**", table(one)]
    if growth:
        kept = [row for row in standard[0] if row["route"] in GROWTH_ROUTES]
        parts += ["**Microseconds per step as n, m, d grow, float64**", growth_table([kept, *growth])]
        parts += ["**Memory, float64**", memory_table(memory)]
        parts += [part for title, one in kernels.items() for part in (f"**{title}**", one["table"])]
        parts += ["Targets:\n\n" + "\n".join(lines)]
    notes = {f"- {row['describe']}: {row['note']}": None for row in rows if row["note"]}
    parts += ["Notes:\n\n" + "\n".join(notes)] if notes else []
    text = section("Stepwise learning", "\n\n".join(parts), about)
    report = {"about": about, "rows": rows, "growth": growth, "memory": memory, "kernels": kernels, "verdicts": lines}
    return publish(options, text, report)


if __name__ == "__main__":
    main()
