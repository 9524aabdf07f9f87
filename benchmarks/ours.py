"""The methods of jepa_dyn, as a user calls them, and their compiled parts alone.

The compiled part is found by listening in on one call: the private jitted function is wrapped for its duration, and what it
was called with is run again on arrays that lie on the device.
"""

import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from types import ModuleType
from typing import Any

import jax
import numpy as np

from benchmarks.machine import num_cores
from benchmarks.method import Method, Prepared
from benchmarks.problem import Batch
from jepa_dyn import flows
from jepa_dyn._precision import x64_context, x64_is_on
from jepa_dyn.parameters import ModeParameters, mode_parameters
from jepa_dyn.theory import curve_table

# `jepa_dyn.solve` re-exports the function `ensemble` under the name of its module
ENSEMBLE_RTOL = {"float64": 1e-9, "float32": 1e-5}  # float64: a tenth of the default
_exact_module = importlib.import_module("jepa_dyn.solve.exact")
_ensemble_module = importlib.import_module("jepa_dyn.solve.ensemble")


@contextmanager
def calls_of(module: ModuleType, name: str) -> Iterator[list[tuple]]:
    """Positional arguments of every call of a module's function inside the block."""
    original, calls = getattr(module, name), []

    def listen(*args: Any) -> Any:
        calls.append(args)
        return original(*args)

    setattr(module, name, listen)
    try:
        yield calls
    finally:
        setattr(module, name, original)


def _parameters(batch: Batch) -> ModeParameters:
    return mode_parameters(batch.lam, variance=batch.variance, depth=batch.depth)


def _on_device(tree: Any) -> Any:
    """Host arrays with an axis put on the device; everything else as it is."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf) if isinstance(leaf, np.ndarray) and leaf.ndim else leaf, tree)


def _prepare(module: ModuleType, compiled: str, threads: int, call: Any, batch: Batch) -> Prepared:
    def solve() -> np.ndarray:
        return np.asarray(call(batch).ys)

    replay: list[tuple] = []

    def kernel() -> float:
        if not replay:
            with calls_of(module, compiled) as calls:
                solve()
            replay.extend(_on_device(arguments) for arguments in calls)
        x64 = x64_is_on()

        def run(arguments: tuple) -> None:
            with x64_context(x64):
                jax.block_until_ready(getattr(module, compiled)(*arguments))

        with ThreadPoolExecutor(threads) as pool:
            start = perf_counter()
            list(pool.map(run, replay))
            return perf_counter() - start

    return Prepared(solve, kernel)


def _exact(method: str, batch: Batch) -> Any:
    return _exact_module.exact(batch.objective, batch.eps, _parameters(batch), batch.ts, method=method)


def _ensemble(batch: Batch) -> Any:
    flow, rtol = getattr(flows, batch.objective), ENSEMBLE_RTOL[str(batch.dtype)]
    return _ensemble_module.ensemble(flow, batch.eps, _parameters(batch), batch.ts, rtol=rtol)


def forget_compiled() -> None:
    """Forgets what the package and JAX keep between calls, so that the next call is a first one."""
    jax.clear_caches()
    curve_table.forget_tables()


def methods() -> list[Method]:
    exact = partial(_prepare, _exact_module, "_evaluate", num_cores())
    return [
        Method("exact_table", "jepa_dyn exact, table", partial(exact, partial(_exact, "table"))),
        Method("exact_polish", "jepa_dyn exact, polished", partial(exact, partial(_exact, "polish"))),
        Method(
            "ensemble",
            "jepa_dyn ensemble (ODE)",
            # the kernel is both the pilot, by which lanes are sorted, and the solve itself
            partial(_prepare, _ensemble_module, "_run", 1, _ensemble),
            note=f"rtol {ENSEMBLE_RTOL}",
        ),
    ]
