"""What every reproduced figure is made of: its checks, its drawing, its place in the list."""

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    import xarray

from jepa_dyn._checks import require_count

PAPERS = {
    "halvagal2023": "Halvagal et al. 2023",
    "littwin2024": "Littwin et al. 2024",
    "note_collapse": "The Mathematics of Latent Prediction & Collapse in SSL, a note",
    "ponce2025": "Ponce et al. 2025",
    "simon2023": "Simon et al. 2023",
    "tian2021": "Tian et al. 2021, as summarised in the note on collapse",
}


def whole(name: str, value: Any, least: int) -> int:
    """An option as an int, where it is a whole number of at least `least`.

    Raises:
        ValueError: naming the option.
    """
    require_count(name, value, least)
    return int(value)


@dataclass(frozen=True)
class Check:
    """One claim of a paper held against what was measured.

    - `claim`: what is tested, in words. `source`: where the paper says it. `printed`: what the paper says.
    - `measured`: what was found. `holds`: whether the claim was found to hold.
    - `expected`: whether our corrections say that it should; a misprint is `expected=False` beside a corrected sibling.
    - `note`: which correction, or what limits the claim.
    """

    claim: str
    source: str
    printed: str
    measured: str
    expected: bool
    holds: bool
    note: str = ""

    @property
    def as_expected(self) -> bool:
        """Whether the claim holds exactly where it should."""
        return self.holds == self.expected


@dataclass(frozen=True)
class Item:
    """One figure or table: its name in the paper, one line about it, what computes it and what draws it."""

    name: str
    title: str
    compute: Callable[..., "xarray.Dataset"]
    plot: Callable[["xarray.Dataset"], Any]

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Options of the figure beyond `full` and `key`, by name."""
        parameters = inspect.signature(self.compute).parameters
        return {name: one for name, one in parameters.items() if name not in ("full", "key")}

    @property
    def takes_key(self) -> bool:
        """Whether the figure draws random numbers."""
        return "key" in inspect.signature(self.compute).parameters


@contextmanager
def float64():
    """Turns x64 on for the block and puts back what was there."""
    before = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def in_float64(compute: Callable) -> Callable:
    """The function, run in float64 whatever the caller's setting, which it leaves as it was."""

    @functools.wraps(compute)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with float64():
            return compute(*args, **kwargs)

    return wrapped


def in_float32(network: Any) -> Any:
    """The network with parameters in float32, whatever the caller's setting: its steps take half the time."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, network)


def with_checks(dataset: "xarray.Dataset", found: Sequence[Check], **attrs: Any) -> "xarray.Dataset":
    """The dataset with its checks in the attribute `checks` (JSON) and further attributes."""
    return dataset.assign_attrs(checks=json.dumps([asdict(check) for check in found]), **attrs)


def checks(dataset: "xarray.Dataset") -> list[Check]:
    """The checks that a figure's dataset carries.

    Raises:
        ValueError: the dataset carries none.
    """
    if "checks" not in dataset.attrs:
        raise ValueError("Argument `dataset` must come from a figure of jepa_dyn.papers, but carries no checks.")
    return [Check(**one) for one in json.loads(dataset.attrs["checks"])]
