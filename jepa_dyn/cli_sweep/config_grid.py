"""The grid of a configuration: its tables axes, zip, draws and constants."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jepa_dyn.cli_sweep.models import CHOICES, Model
from jepa_dyn.cli_sweep.problems import Problem, only, told
from jepa_dyn.sweep import Grid, axis, between, static
from jepa_dyn.sweep.designs import DESIGNS

SPACINGS: dict[str, Callable[..., np.ndarray]] = {
    "linspace": np.linspace,
    "geomspace": np.geomspace,
    "arange": np.arange,
}


def key_of(config: Mapping[str, Any], parameter: str) -> str:
    """The key at which a parameter stands."""
    places = {"axes": config.get("axes", {}), "constants": config.get("constants", {})}
    places |= {"draws.ranges": config.get("draws", {}).get("ranges", {})}
    places |= {f"zip.{dim}": table for dim, table in config.get("zip", {}).items()}
    return next(f"{place}.{parameter}" for place, table in places.items() if parameter in table)


def grid_from(config: Mapping[str, Any], model: Model) -> Grid:
    """The grid of the tables [zip.*], [axes], [draws] and [constants] of a configuration, its dimensions in that order."""
    parts: list[Grid] = []
    for dim, table in config.get("zip", {}).items():
        if not isinstance(table, dict):
            raise Problem(f"zip.{dim}", f"must be a table [zip.{dim}] of axes")
        parts.append(
            told(
                f"zip.{dim}",
                lambda d=dim, t=table: Grid.zip(d, **{n: _axis(f"zip.{d}.{n}", v, model) for n, v in t.items()}),
            )
        )
    for name, given in config.get("axes", {}).items():
        parts.append(told(f"axes.{name}", lambda n=name, v=given: Grid(**{n: _axis(f"axes.{n}", v, model)})))
    if "draws" in config:
        parts.append(_draws(config["draws"]))
    for name, given in config.get("constants", {}).items():
        key = f"constants.{name}"
        if isinstance(given, dict | list):
            raise Problem(key, "must be one number or text; several values are an axis")
        _allowed(key, name, [given])
        whole = _is_static(name, given, model)
        one = static([given]) if whole and not isinstance(given, str) else given
        parts.append(told(key, lambda n=name, v=one: _constant(n, v)))
    if not parts:
        raise Problem("axes", "there is no axis; e.g. [axes] lam = { linspace = [0.1, 1.0, 10] }")
    grid = parts[0]
    for part in parts[1:]:
        grid = told("axes", lambda g=grid, p=part: g * p)
    return grid


def _constant(name: str, value: Any) -> Grid:
    """A grid of one constant; a static one is kept as a Python number."""
    return Grid._of((), {name: value}) if hasattr(value, "static") else Grid(**{name: value})


def _is_static(name: str, values: Any, model: Model) -> bool:
    return (
        name in model.static
        or isinstance(values, str)
        or (isinstance(values, list) and any(isinstance(v, str) for v in values))
    )


def _allowed(key: str, name: str, values: Iterable[Any]) -> None:
    for value in values:
        if name in CHOICES and value not in CHOICES[name]:
            raise Problem(key, f"must be one of {', '.join(map(repr, CHOICES[name]))}, but is {value!r}")


def _axis(key: str, given: Any, model: Model) -> Any:
    name = key.rsplit(".", 1)[1]
    table = given if isinstance(given, dict) else {"values": given}
    only(table, (*SPACINGS, "values", "units", "description", "static"), f"{key}.")
    found = [one for one in ("values", *SPACINGS) if one in table]
    if len(found) != 1:
        raise Problem(
            key, f"must have exactly one of values, {', '.join(SPACINGS)}, but has {', '.join(found) or 'none'}"
        )
    values = table["values"] if found == ["values"] else spaced(f"{key}.{found[0]}", found[0], table[found[0]])
    if not isinstance(values, list | np.ndarray):
        raise Problem(key, f"must be a list, or a table such as {{ linspace = [0.1, 1.0, 10] }}, but is {values!r}")
    _allowed(key, name, values)
    labels = {label: str(table[label]) for label in ("units", "description") if label in table}
    chooses = bool(table.get("static", False)) or _is_static(name, values, model)
    return told(key, lambda: (static if chooses else axis)(values, **labels))


def spaced(key: str, spacing: str, ends: Any) -> np.ndarray:
    """The values of an axis that is given by its two ends and a step or a number, of one of `SPACINGS`."""
    if (
        not isinstance(ends, list)
        or len(ends) != 3
        or any(isinstance(e, bool) or not isinstance(e, int | float) for e in ends)
    ):
        words = "[first, beyond the last, step]" if spacing == "arange" else "[first, last, how many]"
        raise Problem(key, f"must be {words}, but is {ends!r}")
    if spacing != "arange" and (not isinstance(ends[2], int) or ends[2] < 1):
        raise Problem(key, f"must end with how many values, a whole number >= 1, but ends with {ends[2]!r}")
    if spacing == "geomspace" and not (ends[0] * ends[1] > 0):
        raise Problem(key, f"must have ends of one sign, neither 0, but has {ends[0]} and {ends[1]}")
    return told(key, lambda: SPACINGS[spacing](*ends))


def _draws(table: Mapping[str, Any]) -> Grid:
    only(table, ("points", "design", "key", "dim", "ranges"), "draws.")
    design = table.get("design", "sobol")
    if design not in DESIGNS:
        raise Problem("draws.design", f"must be one of {', '.join(map(repr, DESIGNS))}, but is {design!r}")
    if not isinstance(table.get("points"), int):
        raise Problem("draws.points", f"must be a whole number, but is {table.get('points')!r}")
    if not isinstance(table.get("ranges"), dict):
        raise Problem("draws.ranges", "must be a table [draws.ranges], e.g. eps = { log = [1e-6, 1e-2] }")
    ranges = {}
    for name, given in table["ranges"].items():
        key, one = f"draws.ranges.{name}", given if isinstance(given, dict) else {"linear": given}
        only(one, ("linear", "log", "units", "description"), f"{key}.")
        kinds = [kind for kind in ("linear", "log") if kind in one]
        if len(kinds) != 1 or not isinstance(one[kinds[0]], list) or len(one[kinds[0]]) != 2:
            raise Problem(key, f"must be {{ linear = [low, high] }} or {{ log = [low, high] }}, but is {given!r}")
        labels = {label: str(one[label]) for label in ("units", "description") if label in one}
        ends = one[kinds[0]]
        ranges[name] = told(key, lambda e=ends, k=kinds, a=labels: between(*e, log=k == ["log"], **a))
    make = Grid.sobol if design == "sobol" else Grid.uniform
    dim, key = table.get("dim", "draw"), table.get("key", 0)
    return told("draws", lambda: make(table["points"], dim, key=key, **ranges))
