"""Fingerprints of functions: equal for equal programs, whatever the names, comments and files they were written in.

A function of one point is known by its jaxpr: every operation with its parameters, every constant with its bytes, down into
nested programs. One that is not traced (a batched function) is known by its byte code, its constants and what it closes over.
Both depend on the versions of JAX and Python, which a stored sweep records and compares first.
"""

import functools
import hashlib
import re
import types
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+|0x[0-9a-fA-F]{6,}|\bid=\d+")


def program_fingerprint(programs: Iterable[ClosedJaxpr]) -> str:
    """Of one traced program per static choice."""
    digest = hashlib.sha256()
    for program in programs:
        _add(digest, program)
    return digest.hexdigest()


def code_fingerprint(fn: Callable) -> str:
    """Of a function that is not traced."""
    digest = hashlib.sha256()
    _add(digest, fn)
    return digest.hexdigest()


def function_name(fn: Callable) -> str:
    """Where a function was defined, for people."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    return f"{named.__module__}.{named.__qualname__}"


def _add(digest: Any, value: Any, seen: tuple[int, ...] = ()) -> None:
    """Feeds a value to the digest, each kind of it under a name of its own."""
    if id(value) in seen:  # a recursive function
        digest.update(b"again")
        return
    inner = (*seen, id(value))
    if isinstance(value, ClosedJaxpr | Jaxpr):  # one class since JAX 0.12
        _add_all(digest, "constants", getattr(value, "consts", ()), inner)
        program: Any = getattr(value, "jaxpr", value)
        _add_jaxpr(digest, program, inner)
    elif isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        _add_all(digest, str(value.dtype), (jax.random.key_data(value),), inner)
    elif isinstance(value, bool | int | float | complex) or (hasattr(value, "dtype") and hasattr(value, "__array__")):
        # by its bytes: JAX has number classes of its own, whose text is rounded
        array = np.asarray(value)
        spelt = array.tobytes() if array.dtype != object else repr(value).encode()  # a whole number beyond 64 bits
        digest.update(f"array {array.dtype} {array.shape}".encode() + spelt)
    elif isinstance(value, types.CodeType):
        # names of local variables and places in the file are left out
        digest.update(b"code" + value.co_code)
        _add_all(digest, "constants", (value.co_names, *value.co_consts[_docstrings(value) :]), inner)
    elif isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        _add_all(digest, "function", (value.__code__, value.__defaults__, value.__kwdefaults__, *cells), inner)
    elif isinstance(value, functools.partial):
        _add_all(digest, "partial", (value.func, value.args, value.keywords), inner)
    elif isinstance(value, types.MethodType):
        _add_all(digest, "method", (value.__func__, value.__self__), inner)
    elif isinstance(value, dict):
        _add_all(digest, "dict", [part for item in value.items() for part in item], inner)
    elif isinstance(value, tuple | list):
        _add_all(digest, "sequence", value, inner)
    elif isinstance(value, set | frozenset):
        _add_all(digest, "set", sorted(value, key=repr), inner)
    elif not isinstance(value, type) and len(leaves := jax.tree.leaves(value)) and leaves[0] is not value:
        _add_all(digest, str(jax.tree.structure(value)), leaves, inner)
    elif callable(value):
        digest.update(f"callable {getattr(value, '__qualname__', type(value).__qualname__)}".encode())
    else:
        digest.update(_ADDRESS.sub("", f"{type(value).__name__} {value!r}").encode())


def _add_all(digest: Any, kind: str, values: Iterable[Any], seen: tuple[int, ...]) -> None:
    values = list(values)
    digest.update(f"<{_ADDRESS.sub('', kind)} {len(values)}>".encode())
    for value in values:
        _add(digest, value, seen)


def _docstrings(code: types.CodeType) -> int:
    """How many of the first constants are no part of the program: a docstring, or the None in its place."""
    return 1 if code.co_consts and isinstance(code.co_consts[0], str | None) else 0


def _add_jaxpr(digest: Any, program: Jaxpr, seen: tuple[int, ...]) -> None:
    """Operations in order, variables by the order in which they appear."""
    names: dict[Any, int] = {}

    def name(variable: Any) -> None:
        if isinstance(variable, Literal):
            _add(digest, variable.val, seen)
        else:
            digest.update(f"v{names.setdefault(variable, len(names))} {variable.aval}".encode())

    for variable in (*program.constvars, *program.invars):
        name(variable)
    for operation in program.eqns:
        digest.update(f"\n{operation.primitive.name}".encode())
        for parameter in sorted(operation.params):
            if parameter not in ("name", "debug_info", "jvp_jaxpr_fun", "ctx_mesh"):
                digest.update(parameter.encode())
                _add(digest, operation.params[parameter], seen)
        for variable in (*operation.invars, *operation.outvars):
            name(variable)
    digest.update(b"\nreturns")
    for variable in program.outvars:
        name(variable)
