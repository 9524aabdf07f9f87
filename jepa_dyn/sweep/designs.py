"""Random designs: Sobol and uniform draws from ranges, looked up by the number of the draw and never stored.

Draw i is computed from i and the design's key alone, by integer arithmetic: 1e9 draws cost no memory, any process can begin
anywhere, and the same key gives the same draws on every machine and with every version of numpy and scipy.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import ArrayLike

from jepa_dyn._checks import require_choice, require_count, require_finite, require_one_number

DESIGNS = ("sobol", "uniform")
_BITS = 52  # of each number: with half a step added they are exact in float64 and strictly inside (0, 1)
_SOBOL_BITS = 32  # as many as scipy can pass over quickly; its first 2^32 points need no more
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Range:
    """Where a parameter is drawn from; build it with `between`, which validates."""

    low: float
    high: float
    log: bool = False
    attrs: Mapping[str, str] = field(default_factory=dict)

    def at(self, fraction: np.ndarray) -> np.ndarray:
        """The value at this fraction of the range, of its logarithm where `log`."""
        if self.log:
            return np.exp(np.log(self.low) + fraction * (np.log(self.high) - np.log(self.low)))
        return self.low + fraction * (self.high - self.low)


def between(low: ArrayLike, high: ArrayLike, *, log: bool = False, units: str = "", description: str = "") -> Range:
    """A range to draw a parameter from: uniformly, or with `log` uniformly in its logarithm.

    Args:
        low, high: ends, low < high; both > 0 where `log`.
        units: shown beside the name in figures. description: what the parameter is.

    Raises:
        ValueError: ends that are not finite, not in order, or not positive where `log`.
    """
    for name, value in (("low", low), ("high", high)):
        require_one_number(name, value)
        require_finite(name, value)
    low, high = float(np.asarray(low)), float(np.asarray(high))
    if not low < high:
        raise ValueError(f"Argument `high` must be above `low` = {low}, but is {high}.")
    if log and low <= 0:
        raise ValueError(f"Argument `low` must be > 0 where `log` is on, but is {low}.")
    named = {"units": units, "long_name": description}
    return Range(low, high, log, {key: text for key, text in named.items() if text})


def as_range(name: str, given: Any) -> Range:
    """A `Range`, or one from a pair (low, high).

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    if isinstance(given, Range):
        return given
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(
            f"Parameter `{name}` must be drawn from between(low, high) or a pair (low, high), not {given!r}."
        )
    try:
        return between(*given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Range of `{name}`: {error}") from None


@dataclass(frozen=True)
class Draws:
    """One dimension of a grid: `size` draws of several parameters. Build it with `Grid.sobol` or `Grid.uniform`."""

    name: str
    size: int
    kind: str
    key: int
    ranges: Mapping[str, Range]
    dtype: Any

    static_names: ClassVar[tuple[str, ...]] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.ranges)

    def at(self, along: np.ndarray) -> dict[str, np.ndarray]:
        """Values of the draws with these numbers, one array per parameter."""
        words = {"sobol": _sobol_words, "uniform": _uniform_words}[self.kind]
        found = words(np.asarray(along, np.uint64), len(self.ranges), self.key, self.size)
        fractions = [(word.astype(np.float64) + 0.5) * 2.0**-_BITS for word in found]
        return {
            name: one.at(fraction).astype(self.dtype)
            for (name, one), fraction in zip(self.ranges.items(), fractions, strict=True)
        }

    def coords(self) -> dict[str, tuple]:
        return {
            name: (self.name, value, self.ranges[name].attrs) for name, value in self.at(np.arange(self.size)).items()
        }

    def cast(self, convert: Callable[[str, np.ndarray], Any]) -> "Draws":
        """The same draws in the number type to which `convert` takes the ends of their ranges."""
        ends = [np.asarray(convert(name, np.array([one.low, one.high]))) for name, one in self.ranges.items()]
        return Draws(self.name, self.size, self.kind, self.key, self.ranges, ends[0].dtype)

    def identity(self) -> dict[str, Any]:
        """What makes the draws these draws, as JSON."""
        ranges = {name: [one.low, one.high, one.log] for name, one in self.ranges.items()}
        return {"kind": self.kind, "points": self.size, "key": self.key, "dtype": self.dtype.name, "ranges": ranges}

    def __str__(self) -> str:
        spans = [f"{name} {one.low:.6g} .. {one.high:.6g}{' (log)' * one.log}" for name, one in self.ranges.items()]
        return f"{self.name}[{self.kind} {', '.join(spans)}] ({self.size:,})"


def make_draws(kind: str, points: int, dim: str, key: int, ranges: Mapping[str, Any]) -> Draws:
    """Validated draws.

    Raises:
        ValueError, TypeError: no range, a bad one, a count or a key that is not a whole number, a dimension named as a parameter.
    """
    require_choice("design", kind, DESIGNS)
    for name, value, least in (("points", points, 1), ("key", key, 0)):
        require_one_number(name, value)
        require_count(name, value, least)
    if kind == "sobol" and points > 2**_SOBOL_BITS:
        raise ValueError(f"Argument `points` of a Sobol design must be <= 2^{_SOBOL_BITS}, but is {points}.")
    if not ranges:
        raise ValueError("A random design must have at least one range, e.g. Grid.sobol(1000, lam=between(0.1, 10)).")
    if dim in ranges:
        raise ValueError(
            f"The dimension of random draws must have a name of its own, but {dim!r} is one of the parameters."
        )
    return Draws(
        dim, int(points), kind, int(key), {name: as_range(name, one) for name, one in ranges.items()}, np.dtype(float)
    )


def _mix(word: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014): one to one on 64-bit words, its outputs look independent."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def _column_seeds(columns: int, key: int) -> np.ndarray:
    """One 64-bit seed per parameter. The key's 64 bits are mixed once more, so that neighbouring keys share no stream."""
    start = _mix(np.array([key & 0xFFFFFFFFFFFFFFFF], np.uint64) + _GOLDEN)
    return _mix(start + np.arange(1, columns + 1, dtype=np.uint64) * _GOLDEN)


def _uniform_words(along: np.ndarray, columns: int, key: int, size: int) -> list[np.ndarray]:
    """Words of `_BITS` bits: output number `along` of one SplitMix64 generator per parameter."""
    drop = np.uint64(64 - _BITS)
    return [_mix(seed + (along + np.uint64(1)) * _GOLDEN) >> drop for seed in _column_seeds(columns, key)]


@functools.lru_cache(maxsize=8)
def _direction_tables(columns: int, bits: int) -> np.ndarray:
    """(bytes, 256, columns): what each byte of a Gray code adds (by exclusive or) to a point of the Sobol sequence.

    The direction numbers are read off scipy's sequence: its points 2^j - 1 and 2^j differ by number j alone (Antonov and
    Saleev 1979). Costs one pass over 2^bits points of scipy's fast-forward, a second or so at 1e9.
    """
    from scipy.stats import qmc

    engine = qmc.Sobol(columns, scramble=False, bits=_SOBOL_BITS)
    directions = np.zeros((-(-bits // 8) * 8, columns), np.uint64)
    for j in range(bits):
        engine.reset()
        if j:
            engine.fast_forward(2**j - 1)
        before, after = (engine.random(2) * 2.0**_BITS).astype(np.uint64)
        directions[j] = before ^ after
    tables = np.zeros((len(directions) // 8, 256, columns), np.uint64)
    for byte in range(256):
        for j in range(8):
            if byte >> j & 1:
                tables[:, byte] ^= directions[j::8]
    return tables


def _sobol_words(along: np.ndarray, columns: int, key: int, size: int) -> list[np.ndarray]:
    """Words of `_BITS` bits: points of the Sobol sequence, each coordinate shifted (by exclusive or) by a random word."""
    tables = _direction_tables(columns, max(1, (size - 1).bit_length()))
    gray = along ^ (along >> np.uint64(1))
    shifts = _column_seeds(columns, key) >> np.uint64(64 - _BITS)
    words = []
    for column, shift in enumerate(shifts):
        word = np.full(along.shape, shift, np.uint64)
        for place, table in enumerate(tables[:, :, column]):
            word ^= table[(gray >> np.uint64(8 * place)) & np.uint64(255)]
        words.append(word)
    return words
