"""Checks of arguments on the host, before any tracing: one vocabulary for all error messages.

Every public function runs these on concrete values only. Under `jit`, `vmap` or `grad` the arguments are tracers, whose
values do not exist yet: there the checks pass, and the function's docstring says what it returns outside its domain.
Message grammar: Argument `name` must <what is allowed>, but <what was found>.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import numpy as np


def is_traced(*values: Any) -> bool:
    """True where any leaf of the values is a tracer, so that its value cannot be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def describe_failures(value: np.ndarray, good: np.ndarray) -> str:
    """'is -0.5' for one number; '3 of 8 values are not, the first at index (2,): -0.5' for an array."""
    if value.ndim == 0:
        return f"is {value!s}"
    first = tuple(int(i) for i in np.argwhere(~good)[0])
    return f"{int((~good).sum())} of {value.size} values are not, the first at index {first}: {value[first]!s}"


def require(name: str, value: Any, allowed: str, predicate: Callable[[np.ndarray], np.ndarray]) -> None:
    """Raises ValueError unless `predicate` holds for every element; passes on tracers.

    `allowed` completes the sentence "Argument `name` must ...".
    """
    if is_traced(value):
        return
    array = np.asarray(value)
    if array.dtype == object or array.dtype.kind in "USV":
        raise TypeError(f"Argument `{name}` must be numeric, but has type {type(value).__name__}.")
    with np.errstate(invalid="ignore"):
        good = np.broadcast_to(np.asarray(predicate(array)), array.shape)
    if not good.all():
        raise ValueError(f"Argument `{name}` must {allowed}, but {describe_failures(array, good)}.")


def require_one_number(name: str, value: Any) -> None:
    """A number, not an array of them: what many systems differ in goes through `jax.vmap`."""
    if np.ndim(value) != 0:
        raise ValueError(f"Argument `{name}` must be one number (use jax.vmap), but has shape {np.shape(value)}.")


def require_finite(name: str, value: Any) -> None:
    """Numbers, none of them infinite or NaN."""
    require(name, value, "be finite", np.isfinite)


def require_positive(name: str, value: Any, why: str = "") -> None:
    """Finite numbers above 0; `why` says in the message what needs it."""
    require(name, value, "be finite and > 0" + (f" ({why})" if why else ""), lambda a: np.isfinite(a) & (a > 0))


def require_nonnegative(name: str, value: Any, why: str = "") -> None:
    """Finite numbers, 0 or above; `why` says in the message what needs it."""
    require(name, value, "be finite and >= 0" + (f" ({why})" if why else ""), lambda a: np.isfinite(a) & (a >= 0))


def require_representable(name: str, value: Any, dtype: Any) -> None:
    """Numbers that `dtype` holds: one that it would round to zero, or to infinity, is refused instead of changed silently."""
    tiny, largest = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    allowed = f"fit into {np.dtype(dtype).name}, whose normal numbers go from {tiny:.3g} to {largest:.3g}"
    wider = " (turn x64 on)" if np.dtype(dtype) == np.float32 else ""
    require(name, value, allowed + wider, lambda a: (a == 0) | ((abs(a) >= tiny) & (abs(a) <= largest)))


def require_count(name: str, value: Any, least: int = 1) -> None:
    """Whole numbers of at least `least`."""
    require(name, value, f"be a whole number >= {least}", lambda a: (a >= least) & (a == np.round(a)))


def require_fraction(name: str, value: Any) -> None:
    """Numbers between 0 and 1, without the ends."""
    require(name, value, "lie strictly between 0 and 1", lambda a: (a > 0) & (a < 1))


def require_not_empty(name: str, value: Any) -> None:
    """An array with at least one element; its shape is known under tracing too."""
    if np.size(value) == 0:
        raise ValueError(f"Argument `{name}` must hold at least one value, but has shape {np.shape(value)}.")


def require_increasing(name: str, value: Any) -> None:
    """Times: finite, >= 0, not empty, strictly increasing along the last axis."""
    require_not_empty(name, value)
    if is_traced(value):
        return
    array = np.asarray(value)
    if array.ndim == 0:
        raise ValueError(f"Argument `{name}` must have at least one axis, but is the single number {array!s}.")
    # increasing from a first >= 0 to a finite last: nothing between can be NaN, infinite or negative
    if array.dtype.kind in "iuf" and (array[..., 0] >= 0).all() and np.isfinite(array[..., -1]).all() and _rises(array):
        return
    require_nonnegative(name, value)
    steps = np.diff(array, axis=-1)
    if not (steps > 0).all():
        index = tuple(int(i) for i in np.argwhere(~(steps > 0))[0])
        later = (*index[:-1], index[-1] + 1)
        raise ValueError(
            f"Argument `{name}` must be strictly increasing, but {array[later]!s} follows {array[index]!s} at index {later}."
        )


def _rises(array: np.ndarray) -> bool:
    """Whether all rows increase strictly: 32k numbers at a time, so that what is compared stays in the cache."""
    flat, row = array.reshape(-1), array.shape[-1]
    size = max(1, (1 << 15) // row) * row
    for first in range(0, flat.size, size):
        part = flat[first : first + size + 1]
        larger = part[1:] > part[:-1]
        larger[row - 1 :: row] = True  # from the end of a row to the start of the next
        if not larger.all():
            return False
    return True


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """One of some names; the nearest one is offered for a misspelt one."""
    if value not in choices:
        import difflib

        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Argument `{name}` must be one of {', '.join(map(repr, choices))}, but is {value!r}.{hint}")


def require_broadcastable(**named: Any) -> None:
    """Raises ValueError naming the arguments and shapes that do not broadcast together."""
    shapes = {name: np.shape(value) for name, value in named.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        raise ValueError(f"Shapes of the arguments must broadcast together, but are {listed}.") from None
