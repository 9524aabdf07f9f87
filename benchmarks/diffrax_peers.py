"""diffrax as its documentation runs a batch: `jax.jit(jax.vmap(diffeqsolve))` with Tsit5, every lane its own times.

In w, the equation as it is printed; in log w, which suits it better; and the latter with the lanes dealt to all devices by
`shard_map`, where no device waits for another.
"""

from functools import partial
from time import perf_counter
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.method import Method, Prepared
from benchmarks.problem import Batch

# Some lanes stall in diffrax 0.7.2 (in log w 2 of 1e5; in float32 2 of 100) and fail at 4096 steps too. Under vmap all lanes
# run until the last one stops, so that this limit is what diffrax is timed at: it is the power of two next above what the
# other lanes need (419 in w and 230 in log w, JEPA; in float32 96 and 82). A larger one would only make diffrax look slower.
MOST_STEPS = {"float64": {"w": 512, "log": 256}, "float32": {"w": 128, "log": 128}}
# such that the errors of all integrators are about the same (see `modes.py`); in w the absolute one lies far below any start
TOLERANCES = {"float64": {"w": (1e-10, 1e-14), "log": (0.0, 4e-9)}, "float32": {"w": (1e-5, 1e-9), "log": (0.0, 1e-5)}}
# ratios depend on this choice, hence looser ones beside
LOOSE = {"float64": {"w": (1e-7, 1e-11), "log": (0.0, 1e-7)}}


def _speed(t: Any, w: Any, args: Any) -> Any:
    lam, variance, r = args
    return lam * w ** (3 - r) - variance * w**3


def _log_speed(t: Any, u: Any, args: Any) -> Any:
    lam, variance, r = args
    return lam * jnp.exp((2 - r) * u) - variance * jnp.exp(2 * u)


def _solve_lane(
    logarithmic: bool, most_steps: int, rtol: Any, atol: Any, w0: Any, lam: Any, variance: Any, r: Any, ts: Any
) -> Any:
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_log_speed if logarithmic else _speed),
        diffrax.Tsit5(),
        t0=jnp.zeros_like(w0),
        t1=ts[-1],
        dt0=None,
        y0=jnp.log(w0) if logarithmic else w0,
        args=(lam, variance, r),
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=most_steps,
        throw=False,
    )
    return jnp.exp(solution.ys) if logarithmic else solution.ys


@partial(jax.jit, static_argnames=("logarithmic", "most_steps", "devices"))
def _solve_lanes(logarithmic: bool, most_steps: int, devices: tuple, rtol: Any, atol: Any, *lanes: Any) -> Any:
    solve = jax.vmap(partial(_solve_lane, logarithmic, most_steps), (None, None, 0, 0, 0, 0, 0))
    if not devices:
        return solve(rtol, atol, *lanes)
    split, whole = PartitionSpec("lanes"), PartitionSpec()
    mesh = Mesh(np.asarray(devices), ("lanes",))
    specs = (whole, whole, *(split for _ in lanes))
    return jax.shard_map(solve, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)(rtol, atol, *lanes)


def _prepare(logarithmic: bool, devices: tuple, chosen: dict, batch: Batch) -> Prepared:
    host = (batch.eps, batch.lam, batch.variance, batch.power, batch.ts)
    if devices:  # the number of lanes must be a multiple of the number of devices
        host = tuple(np.concatenate([a, np.repeat(a[-1:], -len(a) % len(devices), axis=0)]) for a in host)
    target = NamedSharding(Mesh(np.asarray(devices), ("lanes",)), PartitionSpec("lanes")) if devices else None
    variable = "log" if logarithmic else "w"
    tolerances, most_steps = chosen[str(batch.dtype)][variable], MOST_STEPS[str(batch.dtype)][variable]

    def call(lanes: tuple) -> Any:
        return _solve_lanes(logarithmic, most_steps, devices, *(np.asarray(x, batch.dtype) for x in tolerances), *lanes)

    def solve() -> np.ndarray:
        return np.asarray(call(host))[: batch.num_lanes]

    on_device: list[tuple] = []

    def kernel() -> float:
        if not on_device:
            on_device.append(jax.block_until_ready(jax.device_put(host, target)))
        start = perf_counter()
        call(on_device[0]).block_until_ready()
        return perf_counter() - start

    return Prepared(solve, kernel)


def _note(variable: str, chosen: dict) -> str:
    return "Tsit5; " + "; ".join(
        f"{dtype}: rtol, atol {chosen[dtype][variable]}, at most {MOST_STEPS[dtype][variable]} steps"
        for dtype in chosen
    )


def methods() -> list[Method]:
    devices = tuple(jax.local_devices())

    def method(name: str, describe: str, on: tuple, chosen: dict) -> Method:
        logarithmic = "log" in name
        note = _note("log" if logarithmic else "w", chosen)
        return Method(name, describe, partial(_prepare, logarithmic, on, chosen), 100_000, tuple(chosen), note=note)

    found = [
        method("diffrax_w", "diffrax vmap, in w", (), TOLERANCES),
        method("diffrax_log", "diffrax vmap, in log w", (), TOLERANCES),
        method("diffrax_w_loose", "diffrax vmap, in w, looser", (), LOOSE),
        method("diffrax_log_loose", "diffrax vmap, in log w, looser", (), LOOSE),
    ]
    if len(devices) > 1:
        found.append(method("diffrax_log_sharded", "diffrax vmap + shard_map, in log w", devices, TOLERANCES))
    return found
