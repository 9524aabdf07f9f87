"""What the command lines are made of: a parser whose errors are one line, numbers that are checked, packages that must be there."""

import argparse
import math
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def positive(text: str) -> float:
    """A number > 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be a number > 0, but is {text!r}")
    return value


def numbers(text: str) -> tuple[float, ...]:
    """Different numbers > 0 with commas between them."""
    values = tuple(positive(part) for part in text.split(","))
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"must not repeat a number, but is {text!r}")
    return values


def count(text: str) -> int:
    """A whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, but is {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A whole number >= 0 that fits 63 bits."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, but is {text!r}")
    return int(text)


def share(text: str) -> tuple[int, int]:
    """RANK/WORLD with 0 <= RANK < WORLD."""
    rank, _, world = text.partition("/")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise argparse.ArgumentTypeError(f"must be RANK/WORLD with 0 <= RANK < WORLD, but is {text!r}")
    return int(rank), int(world)


def require_packages(*names: str) -> None:
    """Raises ModuleNotFoundError before any work, with the command that installs what is missing."""
    import importlib.util

    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"needs {', '.join(missing)}, not installed here: pip install 'jepa_dyn[all]'")
