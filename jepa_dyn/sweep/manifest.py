"""What a stored sweep is: its grid, function, key and number types, written once, and compared by whoever continues it."""

import json
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._precision import x64_is_on
from jepa_dyn.sweep.fingerprint import code_fingerprint, function_name, program_fingerprint
from jepa_dyn.sweep.kernel import Kernel, MappedKernel
from jepa_dyn.sweep.results import Output

FORMAT = 1


class SweepMismatch(ValueError):
    """A stored sweep was begun with something else than what it is to be continued with."""


def describe_sweep(kernel: Kernel) -> dict[str, Any]:
    """What makes a sweep this sweep, as JSON. A batched kernel must have run a block, so that its results are known."""
    mapped = isinstance(kernel, MappedKernel)
    program = program_fingerprint(kernel.traces.values()) if mapped else code_fingerprint(kernel.fn)
    found = {
        "format": FORMAT,
        "grid": kernel.grid.identity(),
        "function": {"name": function_name(kernel.fn), "program": program},
        "key": _describe_key(kernel.key),
        "x64": x64_is_on(),
        "results": describe_outputs(kernel.outputs),
        "reduce": kernel.reduction.identity() if kernel.reduction else None,
    }
    return json.loads(json.dumps(found, default=lambda value: value.tolist()))  # numpy's numbers as JSON has them


def describe_outputs(outputs: Mapping[str, Output]) -> dict[str, Any]:
    """What a store keeps of its outputs, in JSON: dimensions, shape, dtype and attributes of each."""
    return {
        name: {"dims": list(one.dims), "shape": list(one.shape), "dtype": np.dtype(one.dtype).name, "attrs": one.attrs}
        for name, one in outputs.items()
    }


def outputs_from(described: Mapping[str, Any]) -> dict[str, Output]:
    """The inverse of `describe_outputs`."""
    return {
        name: Output(tuple(one["dims"]), one["attrs"], tuple(one["shape"]), np.dtype(one["dtype"]))
        for name, one in described.items()
    }


def _describe_key(key: jax.Array | None) -> dict[str, Any] | None:
    if key is None:
        return None
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = jax.random.key_data(key) if typed else key
    return {"kind": str(key.dtype), "data": np.asarray(data).tolist()}


def describe_setting() -> dict[str, str]:
    """Versions and device that the numbers come from."""
    import jaxlib

    import jepa_dyn

    found = {module.__name__: module.__version__ for module in (jepa_dyn, jax, jaxlib, np)}
    found["python"] = ".".join(platform.python_version_tuple()[:2])
    return found | {"device": jax.local_devices()[0].device_kind}


def require_same(
    folder: str, stored: Mapping[str, Any], wanted: Mapping[str, Any], *, allow_mixed_versions: bool = False
) -> None:
    """Whether the sweep in `folder` (`stored`) may be continued as `wanted`; each has `sweep` and `setting`.

    Raises:
        SweepMismatch: naming all that changed.
    """
    changed = list(differences(stored["sweep"], wanted["sweep"]))
    setting = [f"{name} ({stored['setting'].get(name)}, now {value})"
               for name, value in wanted["setting"].items() if stored["setting"].get(name) != value]  # fmt: skip
    if setting:
        # another version of JAX writes the same function as another program
        changed = [one for one in changed if one != _PROGRAM]
    if changed:
        raise SweepMismatch(
            f"The sweep in {folder!r} was begun with something else than this one: {'; '.join(changed)}. Continue it with what it "
            "was begun with, or start anew in another folder (force)."
        )
    if setting and not allow_mixed_versions:
        raise SweepMismatch(
            f"The sweep in {folder!r} was begun under other versions or on another device: {'; '.join(setting)}. The last digits "
            "may differ; allow_mixed_versions continues it all the same."
        )


_PROGRAM = "the function computes something else (its program changed)"


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two descriptions of a sweep, in words."""
    if stored["format"] != wanted["format"]:
        yield f"format of the store ({stored['format']}, now {wanted['format']})"
    yield from _grid_differences(stored["grid"], wanted["grid"])
    if stored["x64"] != wanted["x64"]:
        yield f"number type (x64 {_switch(stored['x64'])}, now {_switch(wanted['x64'])})"
        return  # everything below follows from it
    results = (stored["results"], wanted["results"])
    for name in [*results[0], *(name for name in results[1] if name not in results[0])]:
        one, other = results[0].get(name), results[1].get(name)
        if one is None or other is None:
            yield f"result `{name}` ({'new' if one is None else 'gone'})"
        elif one["dtype"] != other["dtype"]:
            yield f"number type of `{name}` ({one['dtype']}, now {other['dtype']})"
        elif (one["dims"], one["shape"]) != (other["dims"], other["shape"]):
            yield f"shape of `{name}` ({one['shape']}, now {other['shape']})"
    if stored["function"]["program"] != wanted["function"]["program"]:
        yield _PROGRAM
    if stored["key"] != wanted["key"]:
        yield "the key"
    if stored["reduce"] != wanted["reduce"]:
        yield "the reduction"


def _grid_differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for name in [*stored, *(name for name in wanted if name not in stored)]:
        one, other = stored.get(name), wanted.get(name)
        if one is None or other is None:
            yield f"dimension or constant `{name}` of the grid ({'new' if one is None else 'gone'})"
        elif one != other:
            axes, others = one.get("axes"), other.get("axes")
            if axes is not None and others is not None and axes.keys() == others.keys():
                for axis in (axis for axis in axes if axes[axis] != others[axis]):
                    counts = (axes[axis]["values"], others[axis]["values"])
                    yield f"values of axis `{axis}`" + (
                        f" ({counts[0]} of them, now {counts[1]})" if counts[0] != counts[1] else ""
                    )
            elif "constant" in one and "constant" in other:
                yield f"constant `{name}` ({one['constant']}, now {other['constant']})"
            else:
                yield f"dimension `{name}` of the grid"
    if list(stored) != list(wanted) and stored.keys() == wanted.keys():
        yield "order of the grid's dimensions"


def _switch(on: bool) -> str:
    return "on" if on else "off"
