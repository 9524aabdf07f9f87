"""Trajectories per second and accuracy of the scalar modes: jepa_dyn beside the tools that one would use instead.

    python -m benchmarks.modes                                    every method that is installed, some 10 minutes
    python -m benchmarks.modes --quick                            small batches of ours and diffrax, under a minute
    python -m benchmarks.modes --memory                           peak memory of 1e7 exact trajectories, 64 saves each
    python -m benchmarks.modes --results benchmarks/RESULTS.md    also write the table there

Every method solves the same batch (`problem.py`) in one process, one after the other in turns, and the medians are compared.
`host` is what a user waits for, numpy in and numpy out; `kernel` the compiled computation alone; `first` the first call in
a process that has compiled nothing, less a later one. `error` is the largest relative error in w against mpmath
(`reference.py`), over saved times where w is well-conditioned (dlog w / dlog t <= 100); `failed` counts lanes with a value
that is not finite. In float64 all integrators run at tolerances that leave an error of about 1e-7; ratios to diffrax depend
on that choice, so that diffrax is measured at looser ones too, and targets are judged at both. A method that gives up on the
whole batch has a line below the table instead of a row.
Nothing passes or fails on time; ratios are to be read, not absolute figures.
"""

import argparse
import os
import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.report import about_this_run, command_parser, parse_command, publish, section

MEMORY_LANES = 10_000_000
_SLOW = 4.0  # seconds of a first call from which a method gets two turns, and its kernel is not timed apart
# (objective, number type, lanes): what is measured without options
BATCHES = [
    ("jepa", "float64", 1_000),
    ("jepa", "float64", 100_000),
    ("jepa", "float64", 1_000_000),
    ("mae", "float64", 100_000),
    ("jepa", "float32", 100_000),
]
QUICK = [("jepa", "float64", 1_000), ("mae", "float32", 500)]
# (method, peer, how many times faster at N = 1e5 in float64 on two cores)
TARGETS = [
    ("exact_table", "diffrax_w", 100),
    ("exact_table", "diffrax_log", 75),
    ("ensemble", "diffrax_w", 10),
    ("ensemble", "diffrax_log", 10),
    # the same at tolerances that leave diffrax a larger error, and on both cores
    ("exact_table", "diffrax_w_loose", 100),
    ("exact_table", "diffrax_log_loose", 75),
    ("exact_table", "diffrax_log_sharded", 75),
    ("ensemble", "diffrax_w_loose", 10),
    ("ensemble", "diffrax_log_loose", 10),
    ("ensemble", "diffrax_log_sharded", 10),
]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = command_parser("modes", __doc__)
    parser.add_argument("--n", type=int, nargs="+", metavar="LANES", help="batch sizes instead of the standard ones")
    parser.add_argument("--dtype", nargs="+", choices=["float64", "float32"], help="only these number types")
    parser.add_argument("--objective", nargs="+", choices=["jepa", "mae"], help="only these objectives")
    parser.add_argument("--peers", nargs="+", default=["all"], metavar="NAME", help="all, none, or names of methods")
    parser.add_argument("--quick", action="store_true", help="small batches, diffrax as the only peer")
    parser.add_argument("--repeats", type=int, default=5, help="turns of which the median is taken (default 5)")
    parser.add_argument(
        "--checked", type=int, default=200, metavar="LANES", help="lanes compared with mpmath (default 200)"
    )
    parser.add_argument("--devices", type=int, metavar="K", help="host devices of XLA (default: the number of cores)")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    return parse_command(parser, argv)


def batches(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """The standard batches, or the product of what was asked for."""
    standard = QUICK if options.quick else BATCHES
    if not (options.n or options.dtype or options.objective):
        return standard
    sizes = options.n or sorted({n for *_, n in standard})
    return [(o, d, n) for o in options.objective or ["jepa"] for d in options.dtype or ["float64"] for n in sizes]


def choose_methods(options: argparse.Namespace) -> list:
    from benchmarks import diffrax_peers, other_peers, ours

    peers = diffrax_peers.methods() + ([] if options.quick else other_peers.methods())
    if options.peers == ["none"]:
        peers = []
    elif options.peers != ["all"]:
        unknown = set(options.peers) - {peer.name for peer in peers}
        if unknown:
            raise SystemExit(f"--peers {' '.join(sorted(unknown))}: not installed or unknown; there are "
                             f"{', '.join(peer.name for peer in peers)}.")  # fmt: skip
        peers = [peer for peer in peers if peer.name in options.peers]
    return ours.methods() + peers


def measure(
    objective: str, dtype: str, lanes: int, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per method for one batch, and what the methods without a row said."""
    import numpy as np

    from benchmarks.ours import forget_compiled
    from benchmarks.problem import make_batch
    from benchmarks.reference import errors, exact_states
    from jepa_dyn._precision import x64_context

    batch = make_batch(objective, lanes, dtype)
    reference = exact_states(batch.first(min(options.checked, lanes)))
    # beyond 1e5 lanes only what runs them all: a rate on fewer is in the table for 1e5
    methods = [m for m in choose_methods(options) if dtype in m.dtypes and not (m.most_lanes and lanes > 100_000)]
    rows, prepared, refused = [], {}, []
    with x64_context(dtype == "float64"):
        for method in methods:
            print(f"  {method.describe} ...", file=sys.stderr, flush=True)
            prepared[method.name] = method.prepare(batch.first(method.lanes(batch)))
            forget_compiled()
            start = perf_counter()
            try:
                states = prepared[method.name].solve()
            except Exception as error:  # a peer that gives up on the whole batch is reported and left out
                said = (str(error) or type(error).__name__).splitlines()[0]
                refused.append(f"{method.describe} gave up on {method.lanes(batch):,} lanes: {said}")
                continue
            first = perf_counter() - start
            rows.append({
                "objective": objective, "dtype": dtype, "batch": lanes, "method": method.name, "describe": method.describe,
                "note": method.note, "lanes": method.lanes(batch), "first_call_s": first,
                "failed": int((~np.isfinite(states)).any(axis=1).sum()), **errors(states, reference),
            })  # fmt: skip
        methods = [method for method in methods if any(row["method"] == method.name for row in rows)]
        # turn 0 compiles again what was forgotten, and is not counted
        host: dict[str, list[float]] = {m.name: [] for m in methods}
        kernel: dict[str, list[float]] = {m.name: [] for m in methods if prepared[m.name].kernel}
        for turn in range(options.repeats + 1):
            print(f"  turn {turn} of {options.repeats}", file=sys.stderr, flush=True)
            for method in methods:
                slow = rows[methods.index(method)]["first_call_s"] > _SLOW
                if slow and turn > 2:  # two turns of what takes long
                    continue
                start = perf_counter()
                prepared[method.name].solve()
                seconds = perf_counter() - start
                alone = prepared[method.name].kernel
                if turn:
                    host[method.name].append(seconds)
                if alone and not slow:
                    seconds = alone()
                    if turn:
                        kernel[method.name].append(seconds)
    for row in rows:
        row["host_s"] = median(host[row["method"]])
        row["kernel_s"] = median(kernel[row["method"]]) if kernel.get(row["method"]) else None
        row["compile_s"] = row["first_call_s"] - row["host_s"]
        row["rate"] = row["lanes"] / row["host_s"]
    rates = {row["method"]: row["rate"] for row in rows}
    for row in rows:
        for peer in ("diffrax_w", "diffrax_log"):
            row[f"times_{peer}"] = row["rate"] / rates[peer] if peer in rates else None
    return rows, refused


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def table(rows: list[dict[str, Any]]) -> str:
    """One batch as a Markdown table."""
    head = "method|lanes|host s|kernel s|traj/s|x diffrax w|x diffrax log w|first s|error|median|failed".split("|")
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        cells = [
            row["describe"], f"{row['lanes']:,}", f"{row['host_s']:.3g}", _number(row["kernel_s"], ".3g"), f"{row['rate']:,.0f}",
            _number(row["times_diffrax_w"], ".3g"), _number(row["times_diffrax_log"], ".3g"), f"{row['compile_s']:.2f}",
            f"{row['max_well_conditioned']:.1e}", f"{row['median']:.1e}", str(row["failed"]),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """The targets beside what was measured, on the batch that they are set for."""
    own = {r["method"]: r for r in rows if (r["objective"], r["dtype"], r["batch"]) == ("jepa", "float64", 100_000)}
    lines = []
    for method, peer, times in TARGETS:
        if method in own and peer in own:
            ratio = own[method]["rate"] / own[peer]["rate"]
            no_worse = own[method]["max_well_conditioned"] <= own[peer]["max_well_conditioned"]
            lines.append(f"- {own[method]['describe']} >= {times} x {own[peer]['describe']} at no worse error: "
                         f"{ratio:.3g} x, error {'no worse' if no_worse else 'WORSE'}: "
                         f"{'reached' if ratio >= times and no_worse else 'MISSED'}"
                         + f" ({own[peer]['failed']} of its lanes failed)" * bool(own[peer]["failed"]))  # fmt: skip
    for method in ("exact_table", "exact_polish", "ensemble"):
        if method in own:
            seconds = own[method]["compile_s"]
            lines.append(f"- {own[method]['describe']} compiles in < 1 s: {seconds:.2f} s: "
                         f"{'reached' if seconds < 1 else 'MISSED'}")  # fmt: skip
    return lines


def peak_memory(lanes: int) -> dict[str, Any]:
    """Peak resident memory of a fresh process that computes `lanes` exact trajectories at 64 shared times, in float64."""
    code = (
        "import numpy as np, jepa_dyn as jd\n"
        "from benchmarks.machine import peak_resident_bytes\n"
        "from benchmarks.problem import draw_modes\n"
        "from jepa_dyn.solve.exact import exact\n"
        "jd.enable_x64()\n"
        f"lam, rho, depth, eps = draw_modes('jepa', {lanes})\n"
        "args = jd.mode_parameters(lam, rho, depth)\n"
        "del lam, rho, depth\n"
        "ys = exact('jepa', eps, args, np.concatenate([[0.0], np.geomspace(0.1, 1e7, 63)])).ys\n"
        "peak = peak_resident_bytes()\n"
        "assert np.isfinite(ys.sum()) and ys.shape == (eps.size, 64)\n"
        "print(ys.nbytes, peak)\n"
    )
    start = perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    result, peak = map(int, done.stdout.split())
    return {"lanes": lanes, "result_gb": result / 1e9, "peak_gb": peak / 1e9, "seconds": perf_counter() - start}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    options = parse(argv)
    command = options.command
    from benchmarks.machine import num_cores

    devices = options.devices or num_cores()
    if "jax" not in sys.modules:  # XLA reads it once
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}".strip()
    import jax

    about = about_this_run(jax.local_devices())
    if options.memory:
        title = "Memory of 1e7 exact trajectories"
        found = peak_memory(MEMORY_LANES)
        body = (f"`{command}`: {found['lanes']:,} lanes x 64 saves at shared times in float64, "
                f"a result of {found['result_gb']:.2f} GB: peak "
                f"{found['peak_gb']:.2f} GB (target < 6 GB), {found['seconds']:.0f} s with start-up.")  # fmt: skip
        report: dict[str, Any] = {"about": about, "memory": found}
    else:
        title = "Scalar modes"
        rows, parts = [], []
        for objective, dtype, lanes in batches(options):
            print(f"{objective}, {dtype}, {lanes:,} lanes", file=sys.stderr, flush=True)
            found, refused = measure(objective, dtype, lanes, options)
            rows += found
            part = [
                f"**{objective.upper()}, {dtype}, N = {lanes:,}**",
                table(found),
                *(f"- {line}" for line in refused),
            ]
            parts.append("\n\n".join(part))
        lines = verdicts(rows)
        notes = sorted({f"- {row['describe']}: {row['note']}" for row in rows if row["note"]})
        parts += ["Targets (JEPA, float64, N = 1e5):\n\n" + "\n".join(lines)] if lines else []
        parts.append("Notes:\n\n" + "\n".join(notes))
        body = f"`{command}`; columns as its `--help` says.\n\n" + "\n\n".join(parts)
        report = {"about": about, "rows": rows, "verdicts": lines}
    text = section(title, body, about)
    return publish(options, text, report)


if __name__ == "__main__":
    main()
