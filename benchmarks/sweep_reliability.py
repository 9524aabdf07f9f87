"""Whether sweeps survive: kills, other numbers of devices and processes, flipped bits, a full disk, lanes of NaN.

    python -m benchmarks.sweep_reliability                                    100 kills, every model, some minutes
    python -m benchmarks.sweep_reliability --quick                            5 kills, three models
    python -m benchmarks.sweep_reliability --results benchmarks/RESULTS.md    also write the table there

Kills: a sweep of 80 blocks with random draws, keys and failing points runs in a process (now and then in one of two that share the
store) that gets SIGKILL at a random moment, is begun again, and so on; whenever it gets to its end its data files are held byte by
byte against those of a sweep that was left alone. Devices: results of each model that ships on 1, 2 and 4 host devices (of XLA) and
on 1 and 2 threads; processes: two at once on one store. `digits` is how many the numbers share at least, `bits` if they are
identical. Bit flips: in random places of random files of a finished store. Full disk: a tmpfs of 1 MB (needs the right to mount).
NaN: one lane of an adaptive solver is fed NaN; the others must not differ by a bit. Exit code 1 where anything is wrong.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MODELS = {
    "jepa": {"lam": 0.5, "rho": (0.2, 0.9), "times": True},
    "mae": {"lam": 0.5, "rho": (0.2, 0.9), "times": True},
    "jepa_exact": {"lam": 0.5, "rho": (0.2, 0.9), "times": True},
    "mae_exact": {"lam": 0.5, "rho": (0.2, 0.9), "times": True},
    "critical_time": {"lam": 0.5, "rho": (0.2, 0.9)},
    "barlow_twins": {"gamma": (-1.0, 2.0), "times": True},
    "direct_pred": {"lam0": (0.01, 2.0), "times": True},
    "siamese": {"weight_decay": (0.0, 0.3)},
    "deep_linear": {"covariance": (0.1, 0.9), "times": True},
}
QUICK_MODELS = ("critical_time", "barlow_twins", "siamese")
POINTS, KILL_POINTS, KILL_BLOCKS = 500, 8000, 80
_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    found: str
    good: bool


def _prepare(devices: int = 1) -> None:
    """What a process of its own begins with."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", True)
    sys.stderr = open(os.devnull, "w")  # for as long as the process lives


def run_killed_sweep(
    folder: str, worker: tuple[int, int] = (0, 1), begun: Any = None, early: bool = False, seconds: float = 0.01
) -> None:
    """The sweep that is killed: draws, keys, a loop, and points that fail.

    Sets `begun` before anything is there if `early`, else when it has something to write.
    """
    _prepare()
    import jax
    import jax.numpy as jnp

    from jepa_dyn.sweep import Grid, sweep
    from jepa_dyn.sweep.store import Store

    def fn(a: Any, b: Any, key: Any) -> dict[str, Any]:
        x = a + 1e-3 * jax.random.normal(key)
        x = jax.lax.fori_loop(0, 200, lambda i, y: y + 1e-2 * jnp.sin(b * y), x)
        return {
            "x": jnp.where(b > 0.95, jnp.nan, x),
            "path": ("time", x * jnp.arange(8.0)),
            "status": (b > 0.95).astype(jnp.uint8),
        }

    original = Store.write

    def slowly(self: Store, *arguments: Any) -> None:
        if begun is not None:
            begun.set()
        time.sleep(seconds)  # so that there are moments at which it can be killed
        original(self, *arguments)

    Store.write = slowly
    grid = Grid(a=np.linspace(0, 1, 8)) * Grid.sobol(KILL_POINTS // 8, key=4, b=(0.0, 1.0))
    if early:
        begun.set()
    options = {"chunk_size": KILL_POINTS // KILL_BLOCKS, "threads": 1, "progress": False}
    sweep(fn, grid, key=jax.random.key(3), store=folder, worker=worker, **options)


def data_files(folder: Path) -> dict[str, bytes]:
    """Bytes of all data, but the summaries of blocks, which hold times."""
    paths = (path for path in sorted(folder.rglob("c*")) if path.is_file() and path.parent.name != "block_summary")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if ".partial" not in path.name}


def run_in_process(function: Callable, *arguments: Any) -> int:
    """Its exit code."""
    child = _CONTEXT.Process(target=function, args=arguments)
    child.start()
    child.join()
    return child.exitcode or 0


def kills(folder: Path, count: int, seed: int) -> tuple[Finding, Path]:
    """Kills until there were `count`, over as many sweeps as that takes; returns the sweep that was left alone as well."""
    alone = folder / "alone"
    assert run_in_process(run_killed_sweep, str(alone)) == 0
    expected, random_moment = data_files(alone), random.Random(seed)
    done = ended = wrong = during_two = 0
    while done < count:
        store, finished = folder / f"killed{ended}", False
        while not finished:
            two = random_moment.random() < 0.3  # now and then two at once, of which one is killed
            begun = _CONTEXT.Event()
            workers = [(i, 2) for i in range(2)] if two else [(0, 1)]
            children = [
                _CONTEXT.Process(target=run_killed_sweep, args=(str(store), worker, begun)) for worker in workers
            ]
            for child in children:
                child.start()
            victim = children[random_moment.randrange(len(children))]
            if done < count:
                begun.wait(60)
                victim.join(random_moment.uniform(0.0, 1.0))
                if victim.exitcode is None:
                    victim.kill()
                    done, during_two = done + 1, during_two + two
            for child in children:
                child.join()
            finished = any(child.exitcode == 0 for child in children)
            print(f"\r{done} kills, {ended} sweeps ended", end="", file=sys.stderr, flush=True)
        ended += 1
        wrong += data_files(store) != expected
        shutil.rmtree(store)
    print(file=sys.stderr)
    found = (
        f"{done} kills ({during_two} with a second worker alive) over {ended} sweeps; {wrong} ended with other bytes"
    )
    return Finding("SIGKILL at random moments, begun again each time", found, wrong == 0), alone


def model_results(name: str, devices: int, threads: int, worker: tuple[int, int], store: str, out: str) -> None:
    """Runs one model on a grid of its own, in this process, and saves what came out."""
    _prepare(devices)
    from functools import partial
    from pathlib import Path

    import jax

    from jepa_dyn.cli_sweep.models import find_model
    from jepa_dyn.sweep import Grid, sweep

    given = dict(MODELS[name])
    model = find_model(name, Path())
    call = partial(model.call, times=np.geomspace(0.1, 100.0, 8)) if given.pop("times", False) else model.call
    drawn = {key: value for key, value in given.items() if isinstance(value, tuple)}
    grid = Grid.uniform(POINTS, key=1, **drawn)
    constants = {key: value for key, value in given.items() if key not in drawn}
    grid = grid * Grid(**constants) if constants else grid
    key = jax.random.key(0) if model.takes("key") else None
    options = {"batched": model.batched, "chunk_size": 100, "threads": threads, "worker": worker, "progress": False}
    found = sweep(call, grid, key=key, store=store, **options)
    if out:
        np.savez(out, **{str(name): found[name].values for name in found.data_vars})


def shared_digits(one: np.ndarray, other: np.ndarray) -> float:
    """Decimal digits that all numbers have in common; infinite where they are the same bits."""
    if one.tobytes() == other.tobytes():
        return np.inf
    if one.dtype.kind not in "fc" or (np.isnan(one) != np.isnan(other)).any():
        return 0.0
    fine = np.isfinite(one) & np.isfinite(other)
    scale = np.maximum(np.abs(one[fine]), np.abs(other[fine]))
    gap = np.abs(one[fine] - other[fine]) / np.where(scale > 0, scale, 1)
    return float(-np.log10(gap.max())) if gap.size and gap.max() > 0 else 16.0


def devices_and_processes(folder: Path, names: tuple[str, ...]) -> list[Finding]:
    """Every model against itself on one device and one thread."""
    found = []
    for name in names:
        print(name, file=sys.stderr, flush=True)
        cases = {"1 device": (1, 1), "2 devices": (2, 1), "4 devices": (4, 1), "2 threads": (1, 2)}
        for case, (devices, threads) in cases.items():
            stem = str(folder / f"{name} {case}")
            code = run_in_process(model_results, name, devices, threads, (0, 1), stem, f"{stem}.npz")
            if code:
                return [*found, Finding(f"{name}, {case}", f"exit code {code}", False)]
        stem = str(folder / f"{name} 2 processes")
        arguments = [(name, 1, 1, (i, 2), stem, f"{stem}.npz" if i == 0 else "") for i in range(2)]
        children = [_CONTEXT.Process(target=model_results, args=one) for one in arguments]
        for child in children:
            child.start()
        for child in children:
            child.join()
        base = dict(np.load(folder / f"{name} 1 device.npz"))
        told, good = [], True
        for case in [*list(cases)[1:], "2 processes"]:
            other = dict(np.load(folder / f"{name} {case}.npz"))
            digits = min(shared_digits(base[key], other[key]) for key in base)
            told.append(f"{case}: {'bits' if np.isinf(digits) else f'{digits:.1f} digits'}")
            good &= digits > 10
        found.append(Finding(f"{name}, against 1 device and 1 thread", ", ".join(told), good))
    return found


def bit_flips(store: Path, folder: Path, count: int, seed: int) -> Finding:
    """Flips one bit of a copy, asks `verify`, flips it back."""
    from jepa_dyn.sweep import verify

    copy = Path(shutil.copytree(store, folder / "flipped"))
    files = [path for path in sorted(copy.rglob("c.*")) if path.parent.name not in ("a", "lam")]
    chosen, noticed = random.Random(seed), 0
    for _ in range(count):
        path = chosen.choice(files)
        content = path.read_bytes()
        place, bit = chosen.randrange(len(content)), chosen.randrange(8)
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :])
        found = verify(copy)
        noticed += len(found) == 1 and any(
            problem.startswith(path.parent.name) for problem in next(iter(found.values()))
        )
        path.write_bytes(content)
    good = noticed == count and not verify(copy)
    return Finding("one bit flipped in a random file", f"{noticed} of {count} found, each in its block and file", good)


def full_disk(store: Path, folder: Path) -> Finding:
    """The sweep on a disk that is too small, then on the same with more room."""
    place, what = folder / "small", "disk of 1 MB full, then enlarged"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        return Finding(what, "not tried: mounting is not allowed here", True)
    try:
        from jepa_dyn.sweep import status, verify

        first = run_in_process(run_killed_sweep, str(place / "store"), (0, 1), None, False, 0.0)
        kept, damaged = status(place / "store").finished_blocks, verify(place / "store")
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True, capture_output=True)
        second = run_in_process(run_killed_sweep, str(place / "store"))
        same = data_files(place / "store") == data_files(store)
        found = f"exit code {first}, {kept} of {KILL_BLOCKS} blocks kept, {len(damaged)} damaged; then {second}, "
        good = first != 0 and 0 < kept < KILL_BLOCKS and not damaged and second == 0 and same
        return Finding(what, found + ("the same bytes" if same else "OTHER BYTES"), good)
    finally:
        subprocess.run(["umount", str(place)], capture_output=True)


def nan_lane() -> Finding:
    """An adaptive solver with one lane of NaN among 200, against the same without."""
    import warnings

    import jax.numpy as jnp

    from jepa_dyn import flows, mode_parameters
    from jepa_dyn._precision import x64_context
    from jepa_dyn.solve import integrate
    from jepa_dyn.sweep import Grid, sweep

    times, bad = np.geomspace(1.0, 100.0, 5), 77.0

    def fn(number: Any, poisoned: Any) -> dict[str, Any]:
        lam = jnp.where((number == bad) & poisoned, jnp.nan, 0.1 + number / 100)
        path = integrate(flows.jepa, 1e-2, mode_parameters(lam, variance=1.0, depth=2.0), times)
        return {"w": ("time", path.ys), "status": path.status}

    with x64_context(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sweep(fn, Grid(poisoned=np.array([False, True]), number=np.arange(200.0)), progress=False, threads=1)
    clean, poisoned = found.w.values
    others = np.arange(200) != bad
    same = clean[others].tobytes() == poisoned[others].tobytes()
    flagged = int((found.status.values[1] != 0).sum())
    return Finding(
        "one lane of NaN among 200 of an adaptive solver",
        f"the other 199 {'have the same bits' if same else 'DIFFER'}; {flagged} lane flagged, its NaN kept",
        same and flagged == 1 and bool(np.isnan(poisoned[77]).all()),
    )


def table(findings: list[Finding]) -> str:
    lines = ["| what | found | as it should be |", "|---|---|---|"]
    return "\n".join(lines + [f"| {one.what} | {one.found} | {'yes' if one.good else 'NO'} |" for one in findings])


def measure(options: argparse.Namespace) -> list[Finding]:
    """Everything, in a folder that is removed afterwards."""
    _CONTEXT.set_forkserver_preload(["jax", "zarr", "xarray", "jepa_dyn.sweep"])
    names = tuple(options.models or (QUICK_MODELS if options.quick else MODELS))
    count = options.kills if options.kills is not None else 5 if options.quick else 100
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        killed, alone = kills(folder, count, options.seed)
        return [
            killed,
            *devices_and_processes(folder, names),
            bit_flips(alone, folder, 5 if options.quick else 50, options.seed),
            full_disk(alone, folder),
            nan_lane(),
        ]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    from benchmarks.report import about_this_run, command_parser, parse_command, publish, section

    parser = command_parser("sweep_reliability", __doc__)
    parser.add_argument("--quick", action="store_true", help="a few kills, three models")
    parser.add_argument("--kills", type=int, metavar="N", help="how many kills (default 100)")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), help="only these models")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments and places")
    options = parse_command(parser, argv)
    findings = measure(options)
    import jax

    text = section(
        "Reliability of sweeps",
        f"`{options.command}`; what is done as its `--help` says.\n\n{table(findings)}",
        about_this_run(jax.local_devices()),
    )
    return publish(
        options, text, {"findings": [vars(one) for one in findings], "good": all(one.good for one in findings)}
    )


if __name__ == "__main__":
    sys.exit(0 if main()["good"] else 1)
