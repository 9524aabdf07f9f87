"""Milliseconds per step and seed of a deep linear JEPA: `jepa_dyn.solve.train` beside the autodiff loop that one would write.

    python -m benchmarks.deep_linear                                    d = 100, L = 5, 8 seeds, batches of 1000, float32
    python -m benchmarks.deep_linear --quick                            a tiny net, a few seconds
    python -m benchmarks.deep_linear --results benchmarks/RESULTS.md    also write the table there

Every route (`training_routes.py`) trains the same starts for the same number of steps, in turns in one process. A turn is a
whole call, numpy weights out; `x plain JAX` is the median of the ratios within each turn, which a busy machine disturbs less
than the ratio of the medians. `first` is the first call, with compilation, less the fastest later one.
`loss` is the loss on the population after the last step, mean over seeds (before the first one: above the table). `gap` says
whether the routes compute the same: with M = V W the end-to-end matrix of a seed,

    gap = median over seeds of |M - M_plain| / |M_plain| (Frobenius norms), M_plain of the plain JAX loop.

Routes on the same samples as that loop must agree to rounding (1e-4 allowed). Routes that draw their own samples must be as far
from it as the loop is from itself on other samples ('expected', within 15 %), and the population 1/sqrt(2) of that.
Nothing passes or fails on time; ratios are to be read, not absolute figures.
"""

import argparse
import sys
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.report import about_this_run, command_parser, parse_command, publish, section

STANDARD = {"inputs": 100, "depth": 5, "seeds": 8, "batch_size": 1000}
QUICK = {"inputs": 24, "depth": 3, "seeds": 4, "batch_size": 200}
BASE = "plain_jax"
# (route, how many times faster than the plain JAX loop at the standard size)
TARGETS = [("covariances", 2.3), ("wishart", 7.0)]
_ROUNDING, _BAND = 1e-4, 0.15


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = command_parser("deep_linear", __doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny net")
    parser.add_argument("--steps", type=int, default=20, help="steps per call (default 20)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of which the median is taken (default 7)")
    return parse_command(parser, argv)


def end_to_end(y: Any) -> Any:
    """M = V W^L ... W^1 of every seed, (seeds, d, d), in float64."""
    import numpy as np

    product = np.asarray(y.layers[:, 0], np.float64)
    for a in range(1, y.layers.shape[1]):
        product = y.layers[:, a] @ product
    return y.decoder @ product


def gap(one: Any, other: Any) -> float:
    """Median over seeds of |M - M'| / |M'|."""
    import numpy as np

    distance = np.linalg.norm(one - other, axis=(1, 2)) / np.linalg.norm(other, axis=(1, 2))
    return float(np.median(distance))


def population_loss(problem: Any, y: Any) -> float:
    """Loss on the population, mean over seeds."""
    import jax

    from jepa_dyn.flows import deep_jepa_loss

    return float(jax.vmap(deep_jepa_loss, (0, None))(y, problem.args).mean())


def _agrees(draws: str, found: float, scatter: float) -> bool:
    """Whether a gap is as large as the samples of the route explain; `scatter` is that of two independent series."""
    if draws == "same":
        return found < _ROUNDING
    expected = scatter / 2**0.5 if draws == "none" else scatter
    return abs(found / expected - 1) < _BAND


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One row per route, the loss of the starts, and the scatter of the plain loop between two series of batches."""
    from benchmarks.training_routes import make_problem, routes

    problem = make_problem(**(QUICK if options.quick else STANDARD))
    chosen, first, finals = routes(), {}, {}
    for route in chosen:
        print(f"  {route.describe} ...", file=sys.stderr, flush=True)
        start = perf_counter()
        finals[route.name] = route.run(problem, options.steps, 0)
        first[route.name] = perf_counter() - start
    seconds: dict[str, list[float]] = {route.name: [] for route in chosen}
    for turn in range(options.repeats):
        print(f"  turn {turn + 1} of {options.repeats}", file=sys.stderr, flush=True)
        for route in chosen:
            start = perf_counter()
            route.run(problem, options.steps, 0)
            seconds[route.name].append(perf_counter() - start)
    base = end_to_end(finals[BASE])
    scatter = gap(end_to_end(next(r for r in chosen if r.name == BASE).run(problem, options.steps, 1)), base)
    rows = []
    for route in chosen:
        call, found = median(seconds[route.name]), gap(end_to_end(finals[route.name]), base)
        rows.append({
            "route": route.name, "describe": route.describe, "note": route.note, "draws": route.draws,
            "ms_per_step_and_seed": 1e3 * call / (options.steps * problem.seeds), "turns_s": seconds[route.name],
            "times_plain_jax": median(b / s for b, s in zip(seconds[BASE], seconds[route.name], strict=True)),
            "first_s": first[route.name] - min(seconds[route.name]),
            "loss": population_loss(problem, finals[route.name]), "gap": found,
            "agrees": _agrees(route.draws, found, scatter),
        })  # fmt: skip
    return {"rows": rows, "scatter": scatter, "loss_at_start": population_loss(problem, problem.starts)}


def table(found: dict[str, Any]) -> str:
    """The routes as a Markdown table."""
    scatter = found["scatter"]
    expected = {"same": f"< {_ROUNDING:.0e}", "none": f"{scatter / 2**0.5:.2e}", "own": f"{scatter:.2e}"}
    head = "route|ms per step and seed|x plain JAX|first s|loss|gap|expected|agrees".split("|")
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in found["rows"]:
        cells = [
            row["describe"], f"{row['ms_per_step_and_seed']:.3g}", f"{row['times_plain_jax']:.3g}", f"{row['first_s']:.2f}",
            f"{row['loss']:.5g}", f"{row['gap']:.2e}", expected[row["draws"]], "yes" if row["agrees"] else "NO",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """The targets beside what was measured; a route that disagrees misses its target."""
    own, lines = {row["route"]: row for row in rows}, []
    for name, times in TARGETS:
        row = own[name]
        reached = row["times_plain_jax"] >= times and row["agrees"]
        lines.append(f"- {row['describe']} >= {times:g} x {own[BASE]['describe']}: {row['times_plain_jax']:.3g} x: "
                     f"{'reached' if reached else 'MISSED'}")  # fmt: skip
    return lines


def main(argv: list[str] | None = None) -> dict[str, Any]:
    options = parse(argv)
    import jax

    about = about_this_run(jax.local_devices()[:1])
    found = measure(options)
    size = QUICK if options.quick else STANDARD
    lines = [] if options.quick else verdicts(found["rows"])
    parts = [
        f"`{options.command}`; columns as its `--help` says.",
        f"**d = {size['inputs']}, L = {size['depth']}, {size['seeds']} seeds, batches of {size['batch_size']}, float32, "
        f"{options.steps} steps, loss at the start {found['loss_at_start']:.5g}**",
        table(found),
        *(["Targets:\n\n" + "\n".join(lines)] if lines else []),
        "Notes:\n\n" + "\n".join(f"- {row['describe']}: {row['note']}" for row in found["rows"] if row["note"]),
    ]
    text = section("Deep linear training", "\n\n".join(parts), about)
    return publish(
        options, text, {"about": about, "size": {**size, "steps": options.steps}, **found, "verdicts": lines}
    )


if __name__ == "__main__":
    main()
