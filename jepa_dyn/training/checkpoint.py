"""Checkpoints of training: written whole or not at all, resumed bit for bit, refused by name where what is trained has changed.

A file holds one line of JSON, the fingerprint of everything that a run depends on, and after it the leaves of the run and of what
it has logged so far, as Equinox serialises them.
"""

import functools
import hashlib
import json
import os
import time
import types
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax


class CheckpointMismatch(ValueError):
    """A checkpoint that belongs to another run: its message names what differs."""


def fingerprint(parts: dict[str, Any]) -> dict[str, str]:
    """A short hash of each part by name, arrays by their bytes, functions by their code, modules by their fields; and the versions.

    Functions count as equal where module, name, code, defaults and what they enclose are.
    """
    found = {name: hashlib.sha256(repr(_described(part)).encode()).hexdigest()[:16] for name, part in parts.items()}
    versions = f"jax {jax.__version__}, equinox {eqx.__version__}, optax {optax.__version__}, numpy {np.__version__}"
    device = jax.local_devices()[0]
    return found | {"versions": versions, "device": f"{device.platform} {device.device_kind}"}


def _described(part: Any, depth: int = 0) -> Any:
    """A value whose `repr` tells everything and nothing else, such as where in memory something lies."""
    if depth > 20:
        return type(part).__qualname__
    below = functools.partial(_described, depth=depth + 1)
    if part is None or isinstance(part, bool | int | float | complex | str | bytes):
        return part
    if isinstance(part, jax.Array | np.ndarray | np.generic):
        if isinstance(part, jax.Array) and jax.numpy.issubdtype(part.dtype, jax.dtypes.prng_key):
            part = jax.random.key_data(part)
        array = np.asarray(part)
        return str(array.dtype), array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    if isinstance(part, functools.partial):
        return "partial", below(part.func), below(part.args), below(part.keywords)
    if isinstance(part, types.CodeType):
        return part.co_code, part.co_names, [below(constant) for constant in part.co_consts]
    if isinstance(part, types.FunctionType):
        enclosed = [below(cell.cell_contents) for cell in part.__closure__ or ()]
        return part.__module__, part.__qualname__, below(part.__code__), below(part.__defaults__), enclosed
    if isinstance(part, dict):
        return {str(name): below(value) for name, value in part.items()}
    if isinstance(part, tuple | list):
        return type(part).__qualname__, [below(value) for value in part]
    fields = getattr(part, "__dict__", None)
    own = below(fields) if isinstance(fields, dict) and not isinstance(part, type | types.ModuleType) else None
    return type(part).__module__, type(part).__qualname__, getattr(part, "__qualname__", ""), own


def save(path: Path, header: dict[str, Any], tree: Any) -> None:
    """Writes a checkpoint beside the old one and puts it in its place by one rename."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        eqx.tree_serialise_leaves(file, tree)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_header(path: Path) -> dict[str, Any]:
    """The first line of a checkpoint.

    Raises:
        ValueError: not a checkpoint.
    """
    with open(path, "rb") as file:
        try:
            header = json.loads(file.readline())
        except (UnicodeDecodeError, json.JSONDecodeError):
            header = None
    if not isinstance(header, dict) or not {"fingerprint", "steps"} <= set(header):
        raise ValueError(
            f"Argument `checkpoint` must name a checkpoint or a new file, but {str(path)!r} is something else."
        )
    return header


def require_same(path: Path, saved: dict[str, str], now: dict[str, str]) -> None:
    """Raises CheckpointMismatch, naming what differs, unless the two fingerprints are equal."""
    differs = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    if differs:
        told = [
            f"{name} ({saved.get(name)} there, {now.get(name)} here)" if name in ("versions", "device") else name
            for name in differs
        ]
        raise CheckpointMismatch(
            f"Checkpoint {str(path)!r} belongs to a run that differs in {', '.join(told)}: give back what it had, or another file."
        )


def load(path: Path, like: Any) -> Any:
    """The leaves of a checkpoint in a tree like this one.

    Raises:
        ValueError: a file that is cut off or damaged.
    """
    with open(path, "rb") as file:
        file.readline()
        try:
            return eqx.tree_deserialise_leaves(file, like)
        except Exception as error:  # a damaged file may raise nearly anything
            raise ValueError(f"Checkpoint {str(path)!r} cannot be read: {error or type(error).__name__}.") from error


class Keeper:
    """Writes and reads the checkpoint of a call, where it has one.

    Args:
        path: of the file; None: nothing is written or read.
        seconds: least time between two writings.
        saved: the logged steps.
        parts: what the runs depend on, by name.
    """

    def __init__(self, path: str | Path | None, seconds: float, saved: np.ndarray, parts: dict[str, Any]) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self.seconds, self.saved, self.written = seconds, saved, time.monotonic()
        self.fingerprint = {} if path is None else fingerprint(parts)

    def resumed(self, runs: Any, shapes: Any) -> tuple[Any, Any, int] | None:
        """(runs, what was logged, logged steps that are done) from the file; None where there is none.

        Args:
            runs: at the start. shapes: of what is logged, (lanes, any number of steps, ...).
        """
        if self.path is None or not self.path.exists():
            return None
        header = read_header(self.path)
        require_same(self.path, header["fingerprint"], self.fingerprint)
        before = header["steps"]
        if before != self.saved[: len(before)].tolist():
            raise CheckpointMismatch(
                f"Checkpoint {str(self.path)!r} belongs to a run that was logged at other steps: give back its `log_every`, and "
                f"`steps` of at least {before[-1]} that continue them."
            )
        like = jax.tree.map(lambda leaf: np.zeros((leaf.shape[0], len(before), *leaf.shape[2:]), leaf.dtype), shapes)
        return *load(self.path, (runs, like)), len(before)

    def is_due(self) -> bool:
        """Whether a file is wanted and the last was written long enough ago."""
        return self.path is not None and time.monotonic() - self.written >= self.seconds

    def keep(self, runs: Any, logged: list[Any], done: int) -> None:
        """Writes the runs and what was logged up to now, where a file is wanted."""
        if self.path is None:
            return
        values = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *logged)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save(self.path, {"fingerprint": self.fingerprint, "steps": self.saved[:done].tolist()}, (runs, values))
        self.written = time.monotonic()
