"""The configuration of a sweep, in TOML: what is computed, over which grid, how. Every mistake is told with its key.

function = "critical_time"                      # a model that ships, a figure of a paper, or module:function
key = 0                                         # seed, for functions that take a key
times = { geomspace = [1.0, 1e4, 64] }          # for functions that take times
outputs = ["critical_time"]                     # default: all results

[axes]                                          # their product; the last one varies fastest
lam = { geomspace = [0.1, 10.0, 50], description = "covariance of the views" }
rho = { linspace = [0.3, 0.95, 40] }
objective = ["jepa", "mae"]                     # texts, and what is marked static = true, choose a program

[zip.feature]                                   # walked together along one dimension
[draws]                                         # points = 1000, design = "sobol" or "uniform", key = 0, dim = "draw"
[draws.ranges]                                  # eps = { log = [1e-6, 1e-2] }, gain = { linear = [0, 1] }
[constants]                                     # depth = 3.0
[reduce]                                        # over = ["draw"]; w = ["mean", { quantiles = [0.1, 0.9], low = 0, high = 1 }]
[run]                                           # chunk_size, memory = "256MB", threads, x64, batched
[slurm]                                         # array, time, partition, account, cpus, gpus, memory, setup
"""

import functools
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_dyn.cli_sweep.config_grid import SPACINGS, grid_from, key_of, spaced
from jepa_dyn.cli_sweep.models import Model, find_model
from jepa_dyn.cli_sweep.problems import Problem, did_you_mean, only, told
from jepa_dyn.sweep import Grid, Reduce, axis, quantiles
from jepa_dyn.sweep.reduce import MOMENTS

TABLES = ("axes", "zip", "draws", "constants", "reduce", "run", "slurm")
TOP = ("function", "key", "times", "outputs", "title", *TABLES)
RUN = ("chunk_size", "memory", "threads", "x64", "batched")
SLURM = ("array", "time", "partition", "account", "cpus", "gpus", "memory", "setup")


@dataclass(frozen=True)
class SweepConfig:
    """A configuration that was read and found to be in order."""

    path: Path
    model: Model
    grid: Grid
    key: int | None
    times: np.ndarray | None
    outputs: tuple[str, ...] | None
    reduce: Reduce | None
    run: Mapping[str, Any]
    slurm: Mapping[str, Any]
    title: str

    @property
    def function(self) -> Callable[..., Mapping[str, Any]]:
        """The model with its times."""
        return self.model.call if self.times is None else functools.partial(self.model.call, times=self.times)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `sweep`."""
        import jax

        return {
            "key": None if self.key is None else jax.random.key(self.key),
            "coords": None if self.times is None else {"time": self.times},
            "reduce": self.reduce,
            "outputs": self.outputs,
            "batched": self.model.batched,
            "chunk_size": self.run.get("chunk_size", 1 if self.model.host else None),
            "memory_bytes": self.run.get("memory"),
            "threads": self.run.get("threads"),
        }


def read_config(path: str | Path, changes: Sequence[str] = ()) -> SweepConfig:
    """The configuration in a file, with `changes` of the form a.b=v.

    Raises:
        ValueError: naming the file, the key, and what is allowed.
    """
    file = Path(path).expanduser()
    try:
        with file.open("rb") as handle:
            found = tomllib.load(handle)
    except OSError as error:
        raise ValueError(f"cannot read the configuration {str(file)!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not TOML: {error}") from None
    for change in changes:
        _set(found, change)
    try:
        return _checked(found, file)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _set(config: dict[str, Any], change: str) -> None:
    """Applies a.b=v, v in TOML, or a text where it is none."""
    where, separator, text = change.partition("=")
    names = [name.strip() for name in where.split(".")]
    if not separator or not all(names):
        raise ValueError(f"--set must be KEY=VALUE, e.g. --set run.threads=2, but is {change!r}")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = config
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ValueError(f"--set {where}: {name!r} is no table")
    table[names[-1]] = value


def _checked(config: dict[str, Any], file: Path) -> SweepConfig:
    only(config, TOP, "")
    for name in TABLES:
        if not isinstance(config.get(name, {}), dict):
            raise Problem(name, f"must be a table [{name}]")
    run = _run(config.get("run", {}))
    if not isinstance(config.get("function"), str):
        raise Problem("function", 'must name what is computed, e.g. "critical_time" or "my_module:my_function"')
    model = find_model(config["function"], file.resolve().parent, run.pop("batched", False))
    grid = grid_from(config, model)
    known = tuple(model.parameters)
    for name in grid.names:
        if name not in known and not model.takes_anything:
            raise Problem(key_of(config, name), f"is no parameter of {model.name!r}{did_you_mean(name, known)}")
    missing = [name for name in model.required if name not in grid.names]
    if missing:
        raise Problem("axes", f"{model.name!r} needs {', '.join(missing)} as well (in axes, zip, draws or constants)")
    return SweepConfig(
        path=file,
        model=model,
        grid=grid,
        key=_key(config, model),
        times=_times(config, model),
        outputs=_texts(config, "outputs"),
        reduce=_reduce(config["reduce"], grid) if "reduce" in config else None,
        run=run,
        slurm=_slurm(config.get("slurm", {})),
        title=str(config.get("title", "")),
    )


def _key(config: Mapping[str, Any], model: Model) -> int | None:
    key = config.get("key", 0 if model.takes("key") else None)
    if key is None:
        return None
    if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < 2**63:
        raise Problem("key", f"must be a whole number >= 0, but is {key!r}")
    if not model.takes("key") and not model.takes_anything:
        raise Problem("key", f"{model.name!r} draws no random numbers: leave it out")
    return key


def _times(config: Mapping[str, Any], model: Model) -> np.ndarray | None:
    if "times" not in config:
        if _needs_times(model):
            raise Problem("times", f"{model.name!r} needs times, e.g. times = {{ geomspace = [1.0, 1e4, 64] }}")
        return None
    if not model.takes("times"):
        raise Problem("times", f"{model.name!r} takes no times: leave them out")
    given = config["times"]
    table = given if isinstance(given, dict) else {"values": given}
    only(table, (*SPACINGS, "values"), "times.")
    if len(table) != 1:
        raise Problem("times", f"must be a list, or one of {', '.join(SPACINGS)}")
    (kind,) = table
    values = table["values"] if kind == "values" else spaced(f"times.{kind}", kind, table[kind])
    times = told("times", lambda: axis(values)).values.astype(float)
    if times[0] < 0 or not np.isfinite(times).all() or not (np.diff(times) > 0).all():
        raise Problem("times", "must be finite, >= 0 and increasing")
    return times


def _needs_times(model: Model) -> bool:
    import inspect

    one = inspect.signature(model.call).parameters.get("times")
    return one is not None and one.default is inspect.Parameter.empty


def _texts(config: Mapping[str, Any], key: str, where: str = "") -> tuple[str, ...] | None:
    given = config.get(key)
    if given is None:
        return None
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        raise Problem(f"{where}{key}", f"must be a list of names, but is {given!r}")
    return tuple(given)


def _reduce(table: Mapping[str, Any], grid: Grid) -> Reduce:
    over = _texts(table, "over", "reduce.") if "over" in table else None
    if over is None:
        raise Problem("reduce.over", f"must name dimensions to reduce: {', '.join(grid.dim_names)}")
    for name in over:
        if name not in grid.dim_names:
            raise Problem("reduce.over", f"{name!r} is no dimension{did_you_mean(name, grid.dim_names)}")
    statistics = {}
    for name, given in table.items():
        if name == "over":
            continue
        wanted = []
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, dict):
                only(one, ("quantiles", "low", "high", "bins", "log"), f"reduce.{name}.")
                options = {option: value for option, value in one.items() if option != "quantiles"}
                wanted.append(told(f"reduce.{name}", lambda o=one, k=options: quantiles(*o.get("quantiles", ()), **k)))
            elif one in MOMENTS:
                wanted.append(one)
            else:
                raise Problem(
                    f"reduce.{name}", f"must be of {', '.join(MOMENTS)} or {{ quantiles = [0.5] }}, but is {one!r}"
                )
        statistics[name] = wanted
    reduction = told("reduce", lambda: Reduce(over, **statistics))
    told("reduce", lambda: reduction.check(grid))
    return reduction


def _run(table: Mapping[str, Any]) -> dict[str, Any]:
    only(table, RUN, "run.")
    found = dict(table)
    for name in ("chunk_size", "threads"):
        if name in found and (isinstance(found[name], bool) or not isinstance(found[name], int) or found[name] < 1):
            raise Problem(f"run.{name}", f"must be a whole number >= 1, but is {found[name]!r}")
    for name in ("x64", "batched"):
        if name in found and not isinstance(found[name], bool):
            raise Problem(f"run.{name}", f"must be true or false, but is {found[name]!r}")
    if "memory" in found:
        found["memory"] = _bytes("run.memory", found["memory"])
    return found


def _bytes(key: str, given: Any) -> int:
    sizes = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]*)\s*", str(given))
    if not match or match[2].upper() not in sizes or float(match[1]) <= 0:
        raise Problem(key, f'must be a size such as "256MB" or "2GiB", but is {given!r}')
    return max(1, int(float(match[1]) * sizes[match[2].upper()]))


def _slurm(table: Mapping[str, Any]) -> dict[str, Any]:
    only(table, SLURM, "slurm.")
    for name in ("array", "cpus", "gpus"):
        least = 0 if name == "gpus" else 1
        if name in table and (not isinstance(table[name], int) or table[name] < least):
            raise Problem(f"slurm.{name}", f"must be a whole number >= {least}, but is {table[name]!r}")
    return dict(table)
