"""What a traced program is made of: its operations, those of inner programs included."""

from collections.abc import Iterator
from typing import Any

import jaxlib.version

# In jaxlib before 0.12 two threads or host devices that run these at once can wait for ever: with 0.10.2 two loops of 3000 `eigh`
# of (32, 16, 16) do within a few calls; of LU, QR and Cholesky none did. One after the other they take no longer.
_ONE_AT_A_TIME = frozenset({"eigh", "svd"})
_MENDED_IN = (0, 12)


def operations(jaxpr: Any) -> Iterator[Any]:
    """All equations that hold no program themselves."""
    for equation in jaxpr.eqns:
        inner = [program for value in equation.params.values() for program in _programs(value)]
        for program in inner:
            yield from operations(program)
        if not inner:
            yield equation


def _programs(value: Any) -> list[Any]:
    """A loop's body is one program, the branches of a condition are several."""
    values = value if isinstance(value, tuple | list) else (value,)
    return [one for one in (getattr(each, "jaxpr", each) for each in values) if hasattr(one, "eqns")]


def bytes_computed(jaxpr: Any) -> int:
    """The sizes of everything that a program computes, added up."""
    outputs = [one.aval for equation in operations(jaxpr) for one in equation.outvars]
    return sum(one.size * one.dtype.itemsize for one in outputs if hasattr(one, "size"))


def bears_threads(jaxpr: Any) -> bool:
    """Whether threads or host devices may run a program at once: not where it takes spectra and jaxlib is one that may hang."""
    if jaxlib.version.__version_info__[:2] >= _MENDED_IN:
        return True
    return all(equation.primitive.name not in _ONE_AT_A_TIME for equation in operations(jaxpr))
