"""The commands of `jepa-dyn` about sweeps: sweep, plan, status, verify, show, slurm. What is heavy is imported when needed."""

import argparse
import sys
from pathlib import Path
from typing import Any

from jepa_dyn.cli_arguments import count, require_packages, share

COMMANDS = ("sweep", "plan", "status", "verify", "show", "slurm")

_EXAMPLE = """a configuration, sweep.toml:

  function = "critical_time"          # or jepa, mae, jepa_exact, mae_exact, barlow_twins, direct_pred, siamese, deep_linear,
                                      # a figure (littwin2024.fig2), or your own my_module:my_function
  [axes]
  lam = { geomspace = [0.1, 10.0, 200] }
  rho = { linspace = [0.3, 0.95, 100] }
  objective = ["jepa", "mae"]

more tables: [zip.NAME], [draws], [constants], [reduce], [run], [slurm]; top level: key, times, outputs."""

_EPILOGS = {
    "sweep": f"""examples:
  jepa-dyn sweep sweep.toml --out times
  jepa-dyn sweep sweep.toml --out times --resume               goes on where it was, also after a crash
  jepa-dyn sweep sweep.toml --out times --processes 2
  jepa-dyn sweep sweep.toml --out fine --set axes.rho.linspace=[0.3,0.95,1000]
  jepa-dyn sweep sweep.toml --out times --resume --worker 3/16   the fourth of sixteen, by hand

writes DIR, a Zarr v3 store: jepa_dyn.sweep.open_sweep(DIR) or xarray.open_zarr(DIR, consolidated=False), at any time.
exit code 0: all points are there; 75: it was asked to stop (SIGTERM), run it again with --resume; 2: bad use.

{_EXAMPLE}""",
    "plan": f"""example:
  jepa-dyn plan sweep.toml

prints points, results, bytes and blocks before anything runs.

{_EXAMPLE}""",
    "status": """example:
  jepa-dyn status times

prints how far the sweep in DIR is, how fast it goes, and how many points failed. Exit code 0: complete; 1: not yet.""",
    "verify": """examples:
  jepa-dyn verify times
  jepa-dyn verify times --repair       the next run with --resume computes damaged blocks again

reads every finished block and checks it against its checksum. Exit code 0: all is well; 1: something is damaged.""",
    "show": """examples:
  jepa-dyn show times
  jepa-dyn show times --variable critical_time --at objective=mae --figure mae.png

prints a table of the variables and draws one of them over two of its dimensions, also of a sweep that is half done.""",
    "slurm": """example:
  jepa-dyn slurm sweep.toml --out times > times.sh && sbatch times.sh

prints a script for an array of jobs that share a store; [slurm] in the configuration sets array, time, partition, account,
cpus, gpus, memory and setup (lines that prepare a job, such as `source .venv/bin/activate`).""",
}

_TITLES = {
    "sweep": "compute a large grid of parameters into a folder, resumable, by any number of processes",
    "plan": "points, bytes and blocks of a sweep, before anything runs",
    "status": "how far a sweep is",
    "verify": "check a stored sweep for damage",
    "show": "a stored sweep as a table and a figure",
    "slurm": "print the SLURM script of a sweep",
}


def add_commands(commands: Any) -> None:
    """Adds the parsers of all commands."""
    for name in COMMANDS:
        title = _TITLES[name]
        parser = commands.add_parser(
            name,
            help=title,
            description=f"{title[0].upper()}{title[1:]}.",
            epilog=_EPILOGS[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add = parser.add_argument
        if name in ("sweep", "plan", "slurm"):
            add("config", metavar="CONFIG", help="configuration in TOML")
            add("--set", metavar="KEY=VALUE", action="append", default=[], help="change an entry, e.g. run.threads=2")
        else:
            add("store", metavar="DIR", help="folder of a sweep")
        if name in ("sweep", "slurm"):
            add("--out", metavar="DIR", required=True, help="folder of the sweep; made if missing")
    _sweep_options(commands.choices["sweep"].add_argument)
    commands.choices["verify"].add_argument("--repair", action="store_true", help="mark damaged blocks as missing")
    add = commands.choices["show"].add_argument
    add("--variable", metavar="NAME", help="what to draw; default: the first variable")
    add("--at", metavar="DIM=VALUE", action="append", default=[], help="hold a dimension at its value nearest to this")
    add("--figure", metavar="FILE", help="where to draw; default: DIR.png beside the folder")


def _sweep_options(add: Any) -> None:
    add("--resume", action="store_true", help="continue a sweep that is there")
    add(
        "--force",
        action="store_true",
        help="start anew in the first of DIR, DIR-2, ... that is free; overwrites nothing",
    )
    add("--processes", type=count, default=1, metavar="N", help="share the work among N processes of this machine")
    add("--worker", type=share, default=(0, 1), metavar="RANK/WORLD", help="this process is one of several (from 0)")
    add("--threads", type=count, metavar="N", help="threads on a CPU; default: all cores, shared by --processes")
    add("--host-devices", type=count, metavar="N", help="split the CPU into N devices of XLA instead of using threads")
    add("--allow-mixed-versions", action="store_true", help="continue under other versions or on another device")
    add("--no-progress", action="store_true", help="show no progress bar")
    add("--distributed", action="store_true", help="use JAX's distributed runtime for the ranks (TPU pods, SLURM)")
    add("--coordinator", metavar="HOST:PORT", help="with --distributed, where nothing tells it: where rank 0 listens")
    add("--num-processes", type=count, metavar="N", help="with --distributed: how many")
    add("--process-id", type=int, metavar="I", help="with --distributed: which one is this")


def run(options: argparse.Namespace) -> int:
    """Runs one of the commands and returns the exit code."""
    require_packages("xarray", "zarr")
    return _RUN[options.command](options)


def _sweep(options: argparse.Namespace) -> int:
    import jax

    import jepa_dyn
    from jepa_dyn.cli_sweep.config import read_config
    from jepa_dyn.solve._devices import num_cores
    from jepa_dyn.sweep import SweepDrained, sweep
    from jepa_dyn.sweep.stored import fresh_sibling

    if options.host_devices:
        jax.config.update("jax_num_cpu_devices", options.host_devices)
    worker = _distributed(options) if options.distributed else options.worker
    config = read_config(options.config, options.set)
    jepa_dyn.enable_x64(config.run.get("x64", True))
    out = Path(options.out).expanduser()
    if options.force:
        out = fresh_sibling(out)
        print(f"writing to {out}", flush=True)
    if options.processes > 1:
        return _by_processes(options, out, options.threads or max(1, num_cores() // options.processes))
    arguments = config.arguments()
    if options.threads:
        arguments["threads"] = options.threads
    try:
        dataset = sweep(
            config.function,
            config.grid,
            **arguments,
            store=out,
            resume=options.resume or options.force,
            worker=worker,
            allow_mixed_versions=options.allow_mixed_versions,
            progress=not options.no_progress,
        )
    except SweepDrained as drained:
        print(f"jepa-dyn sweep: {drained}", file=sys.stderr)
        raise
    _finished(dataset, out)
    return 0


def _finished(dataset: Any, out: Path) -> None:
    from jepa_dyn.cli_sweep.show import summary_table

    print(f"{summary_table(dataset)}\n\nwrote {out}")


def _distributed(options: argparse.Namespace) -> tuple[int, int]:
    from jepa_dyn.sweep.workers import distributed_worker

    return distributed_worker(options.coordinator, options.num_processes, options.process_id)


def _by_processes(options: argparse.Namespace, out: Path, threads: int) -> int:
    from jepa_dyn.cli_sweep.processes import run_processes
    from jepa_dyn.sweep import StoreError, open_sweep
    from jepa_dyn.sweep.store import read_manifest

    if options.distributed or options.worker != (0, 1):
        raise ValueError("--processes starts its own workers: leave out --worker and --distributed")
    if read_manifest(out) is not None and not options.resume:
        raise StoreError(
            f"a sweep is stored in {str(out)!r} already: --resume continues it, --force starts anew beside it"
        )
    words = [
        sys.executable,
        "-m",
        "jepa_dyn.cli",
        "sweep",
        options.config,
        "--out",
        str(out),
        "--resume",
        "--no-progress",
    ]
    words += ["--threads", str(threads), *(word for change in options.set for word in ("--set", change))]
    words += ["--host-devices", str(options.host_devices)] if options.host_devices else []
    words += ["--allow-mixed-versions"] if options.allow_mixed_versions else []
    code = run_processes(words, out, options.processes, progress=not options.no_progress)
    if code == 0:
        _finished(open_sweep(out), out)
    return code


def _plan(options: argparse.Namespace) -> int:
    import jepa_dyn
    from jepa_dyn.cli_sweep.config import read_config
    from jepa_dyn.cli_sweep.plan import plan_text

    config = read_config(options.config, options.set)
    jepa_dyn.enable_x64(config.run.get("x64", True))
    print(plan_text(config))
    return 0


def _status(options: argparse.Namespace) -> int:
    from jepa_dyn.sweep import status

    found = status(options.store)
    print(found)
    return 0 if found.complete else 1


def _verify(options: argparse.Namespace) -> int:
    from jepa_dyn.sweep import status, verify

    damaged = verify(options.store, repair=options.repair)
    for number, found in damaged.items():
        print(f"block {number}: {'; '.join(found)}")
    if not damaged:
        print(f"{status(options.store).finished_blocks} finished blocks, none damaged")
    elif options.repair:
        print(f"{len(damaged)} damaged blocks count as missing now: continue the sweep to compute them again")
    return 1 if damaged else 0


def _show(options: argparse.Namespace) -> int:
    from jepa_dyn.cli_sweep.show import chosen_variable, draw, sliced, summary_table
    from jepa_dyn.sweep import open_sweep, status

    require_packages("matplotlib")
    folder = Path(options.store).expanduser()
    dataset = open_sweep(folder)
    at = dict(one.partition("=")[::2] for one in options.at)
    variable = sliced(chosen_variable(dataset, options.variable), at)
    print(f"{status(folder)}\n\n{summary_table(dataset)}")
    figure = Path(options.figure).expanduser() if options.figure else folder.with_name(f"{folder.name}.png")
    draw(variable).savefig(figure, dpi=150)
    print(f"\nwrote {figure}")
    return 0


def _slurm(options: argparse.Namespace) -> int:
    from jepa_dyn.cli_sweep.config import read_config
    from jepa_dyn.cli_sweep.slurm import slurm_script

    config = read_config(options.config, options.set)
    print(slurm_script(Path(options.config), options.out, config.slurm, options.set), end="")
    return 0


_RUN = {"sweep": _sweep, "plan": _plan, "status": _status, "verify": _verify, "show": _show, "slurm": _slurm}
