"""What the runner and the store of a sweep cost over the bare kernel, memory, and how sweeps scale.

    python -m benchmarks.sweep                                    every table, some minutes
    python -m benchmarks.sweep --quick                            a few points, half a minute
    python -m benchmarks.sweep --results benchmarks/RESULTS.md    also write the tables there

Every run is a process of its own (`sweep_routes.py`). The function is 4000 steps of Euler's method on one number, in float64; the
grid has 100 values of one axis times random draws. `bare` is the compiled kernel on arrays that are there already, chunk by chunk,
nothing kept; `memory` a sweep in memory, `store` one to a new folder with fsync: both with grid and counts of failures, without
compilation. `overhead` is the median over turns of (store or memory) / bare - 1. `first s` is from the end of the
compilation to the first finished block on disk, with block sizes chosen by the program where the table says so.
Scaling: rate of the sweep from the start of its first block to the end of its last, over that of one device, thread and process.
Nothing passes or fails on time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

SIZES = [(10_000, 10_000), (1_000_000, 500_000), (10_000_000, 500_000)]
MEMORY_SIZES = [(10**5, False), (10**6, False), (10**7, False), (10**5, True), (10**6, True), (10**7, True)]
OVERHEAD, FIRST_SECONDS, SCALING = 0.10, 2.0, 1.7


def parse(argv: list[str] | None) -> argparse.Namespace:
    from benchmarks.report import command_parser, parse_command

    parser = command_parser("sweep", __doc__)
    parser.add_argument("--quick", action="store_true", help="a few points")
    parser.add_argument("--repeats", type=int, default=3, help="turns of which the median is taken (default 3)")
    return parse_command(parser, argv)


def begin(**given: Any) -> subprocess.Popen:
    """A run in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.sweep_routes", json.dumps(given)]
    folder = Path(__file__).resolve().parent.parent
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths})


def end(child: subprocess.Popen) -> dict[str, Any]:
    """What it measured."""
    out, _ = child.communicate()
    if child.returncode:
        raise RuntimeError(f"a run ended with exit code {child.returncode}")
    return json.loads(out.splitlines()[-1])


def run(**given: Any) -> dict[str, Any]:
    print(json.dumps(given), file=sys.stderr, flush=True)
    return end(begin(**given))


def measure_overhead(points: int, chunk: int, repeats: int) -> dict[str, Any]:
    """One row: the bare kernel, in memory, to a store, in turns."""
    turns = []
    for _ in range(repeats):
        stored = run(points=points, chunk=chunk, store="temporary", bare=True)
        memory = run(points=points, chunk=chunk, bare=True)
        turns.append({"store": stored, "memory": memory})
    row = {"points": points, "chunk": chunk, "turns": turns}
    for name in ("store", "memory"):
        row[f"{name}_s"] = median(turn[name]["seconds"] for turn in turns)
        row[f"{name}_overhead"] = median(turn[name]["seconds"] / turn[name]["bare_s"] - 1 for turn in turns)
    row["bare_s"] = median(turn[name]["bare_s"] for turn in turns for name in turn)
    row["chunk_s"] = row["bare_s"] / -(-points // chunk)
    row["first_s"] = median(turn["store"]["first_s"] for turn in turns)
    return row


def measure_first(points: int) -> dict[str, Any]:
    """One row: block sizes as the program chooses them."""
    found = run(points=points, store="temporary")
    return {name: found[name] for name in ("points", "block_points", "blocks", "first_s", "compile_s", "seconds")}


def measure_memory(points: int, reduce: bool) -> dict[str, Any]:
    found = run(points=points, chunk=100_000, store="temporary", reduce=reduce)
    return {"points": points, "reduce": reduce, "peak_mb": found["peak_mb"]}


def measure_scaling(points: int, chunk: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of the same sweep by one and two of everything, in turns."""
    cases: dict[str, Any] = {
        "one device, thread and process": {},
        "2 threads": {"threads": 2},
        "2 host devices": {"devices": 2},
        "2 processes": None,
    }
    spans: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(repeats):
        for case, given in cases.items():
            print(case, file=sys.stderr, flush=True)
            if given is not None:
                spans[case].append(run(points=points, chunk=chunk, store="temporary", **given)["span_s"])
                continue
            with tempfile.TemporaryDirectory() as folder:
                common = {"points": points, "chunk": chunk, "store": f"{folder}/store"}
                children = [begin(**common, worker=(i, 2)) for i in range(2)]
                spans[case].append(max(end(child)["span_s"] for child in children))
    alone = spans["one device, thread and process"]
    return [
        {"case": case, "seconds": median(own), "times": median(a / b for a, b in zip(alone, own, strict=True))}
        for case, own in spans.items()
    ]


def _markdown(head: str, rows: list[list[str]]) -> str:
    names = head.split("|")
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in rows])


def tables(found: dict[str, Any]) -> str:
    """All tables as Markdown."""
    overhead = [
        [f"{r['points']:,}", f"{r['chunk']:,}", f"{r['chunk_s']:.3g}", f"{r['bare_s']:.3g}", f"{r['memory_s']:.3g}",
         f"{r['memory_overhead']:.1%}", f"{r['store_s']:.3g}", f"{r['store_overhead']:.1%}", f"{r['first_s']:.2f}"]
        for r in found["overhead"]
    ]  # fmt: skip
    first = [
        [f"{r['points']:,}", f"{r['block_points']:,}", f"{r['blocks']:,}", f"{r['compile_s']:.2f}", f"{r['first_s']:.2f}",
         f"{r['seconds']:.3g}"]
        for r in found["first"]
    ]  # fmt: skip
    memory = [
        [f"{r['points']:,}", "statistics" if r["reduce"] else "every point", f"{r['peak_mb']:.0f}"]
        for r in found["memory"]
    ]
    scaling = [[r["case"], f"{r['seconds']:.3g}", f"{r['times']:.2f}"] for r in found["scaling"]]
    return "\n\n".join([
        "**Overhead, one thread**",
        _markdown("points|chunk|s per chunk|bare s|memory s|overhead|store s|overhead|first s", overhead),
        "**Block sizes as the program chooses them, one thread**",
        _markdown("points|points per block|blocks|compile s|first s|s", first),
        "**Largest memory of a process, blocks of 100,000 points, to a store**",
        _markdown("points|results|MB", memory),
        "**Scaling**",
        _markdown("by|s|times the rate of one", scaling),
    ])  # fmt: skip


def verdicts(found: dict[str, Any]) -> list[str]:
    """The targets beside what was measured."""

    def line(what: str, measured: str, reached: bool) -> str:
        return f"- {what}: {measured}: {'reached' if reached else 'MISSED'}"

    lines = []
    for row in found["overhead"]:
        if row["chunk_s"] >= 0.5:
            share = row["store_overhead"]
            lines.append(line(f"overhead of runner and store <= 10 %, {row['points']:,} points, {row['chunk_s']:.2g} s a chunk",
                              f"{share:.1%}", share <= OVERHEAD))  # fmt: skip
    for row in found["first"]:
        what = f"first result on disk within {FIRST_SECONDS:g} s after compilation, {row['points']:,} points"
        lines.append(line(what, f"{row['first_s']:.2f} s", row["first_s"] <= FIRST_SECONDS))
    peaks = {flag: [row["peak_mb"] for row in found["memory"] if row["reduce"] is flag] for flag in (False, True)}
    for flag, name in ((False, "every point"), (True, "statistics")):
        growth = max(peaks[flag]) / min(peaks[flag])
        what = f"memory flat in the number of points ({name}): largest over smallest <= 1.25"
        lines.append(line(what, f"{growth:.2f}", growth <= 1.25))
    for row in found["scaling"][1:]:
        lines.append(
            line(f"{row['case']}: >= {SCALING:g} x the rate of one", f"{row['times']:.2f} x", row["times"] >= SCALING)
        )
    return lines


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every table."""
    quick = options.quick
    repeats = 1 if quick else options.repeats
    sizes = [(2000, 1000)] if quick else SIZES
    memory = [(2000, False), (4000, False), (2000, True), (4000, True)] if quick else MEMORY_SIZES
    return {
        "overhead": [measure_overhead(points, chunk, repeats) for points, chunk in sizes],
        "first": [measure_first(points) for points in ((4000,) if quick else (10_000, 1_000_000))],
        "memory": [measure_memory(points, reduce) for points, reduce in memory],
        "scaling": measure_scaling(*((4000, 500) if quick else (4_000_000, 250_000)), repeats),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    options = parse(argv)
    from benchmarks.report import about_this_run, publish, section

    import jax  # isort: skip

    about = about_this_run(jax.local_devices())
    found = measure(options)
    lines = [] if options.quick else verdicts(found)
    parts = [f"`{options.command}`; columns as its `--help` says.", tables(found)]
    parts += ["Targets:\n\n" + "\n".join(lines)] if lines else []
    return publish(options, section("Sweeps", "\n\n".join(parts), about), {"about": about, **found, "verdicts": lines})


if __name__ == "__main__":
    main()
