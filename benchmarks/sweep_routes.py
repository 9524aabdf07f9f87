"""What `benchmarks/sweep.py` runs, each in a process of its own: one sweep, and the same points by the bare compiled kernel.

python -m benchmarks.sweep_routes '{"points": 10000, ...}'     prints one line of JSON
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from time import perf_counter
from typing import Any

STEPS = 4000  # of Euler's method per point: a microsecond or two


def decay(lam: Any, rho: Any) -> dict[str, Any]:
    """The point function of all runs: a JEPA mode of depth 1, dw/dt = lam w^2 - (lam / rho) w^3, by Euler's method."""
    import jax

    def step(_: Any, w: Any) -> Any:
        return w + 0.0025 * w * w * (lam - lam / rho * w)

    w = jax.lax.fori_loop(0, STEPS, step, 0.1 * rho)
    return {"w": w, "distance": rho - w}


def grid_of(points: int) -> Any:
    """A product of two axes with so many points; a multiple of 100."""
    import numpy as np

    from jepa_dyn.sweep import Grid

    return Grid(lam=np.geomspace(0.1, 1.0, 100)) * Grid.uniform(points // 100, rho=(0.3, 0.9))


def bare(points: int, chunk: int, threads: int) -> float:
    """Seconds of all chunks by `jit` of the tiled kernel on arrays that are there, nothing kept."""
    import jax

    from jepa_dyn.solve._devices import in_threads
    from jepa_dyn.sweep.kernel import TILE, tiled

    grid = grid_of(points)
    share = -(-chunk // threads)
    program = jax.jit(lambda lanes: tiled(lambda lane: decay(**lane), lanes, TILE))
    parts = [dict(grid.points([(i * share + k) % points for k in range(share)])) for i in range(threads)]
    jax.block_until_ready(program(parts[0]))
    start = perf_counter()
    for _ in range(-(-points // chunk)):
        in_threads(lambda part: jax.block_until_ready(program(part)), parts, threads)
    return perf_counter() - start


def run(given: dict[str, Any]) -> dict[str, Any]:
    """One sweep as asked: points, chunk, threads, devices, worker, store ("" in memory), reduce, bare."""
    import jax

    jax.config.update("jax_num_cpu_devices", given.get("devices", 1))
    jax.config.update("jax_enable_x64", True)
    import xarray  # noqa: F401 - a second that no sweep but the first of a process takes
    import zarr  # noqa: F401

    from benchmarks.machine import peak_resident_bytes
    from jepa_dyn.sweep import Reduce, sweep
    from jepa_dyn.sweep.kernel import MappedKernel

    points, chunk, threads = given["points"], given.get("chunk"), given.get("threads", 1)
    compiling, covered, original = [0.0], [0.0], MappedKernel.cover

    def cover(self: MappedKernel, boxes: Any) -> int:
        start = perf_counter()
        used = original(self, boxes)
        compiling[0] += perf_counter() - start
        covered[0] = time.time()
        return used

    MappedKernel.cover = cover
    temporary = None
    store = given.get("store")
    if store == "temporary":
        temporary = tempfile.mkdtemp()
        store = f"{temporary}/store"
    options = {"chunk_size": chunk, "threads": threads, "progress": False, "worker": tuple(given.get("worker", (0, 1)))}
    reduction = Reduce("draw", w=["mean", "std"]) if given.get("reduce") else None
    start = perf_counter()
    found = sweep(decay, grid_of(points), store=store, reduce=reduction, **options)
    seconds = perf_counter() - start
    result: dict[str, Any] = {"seconds": seconds - compiling[0], "compile_s": compiling[0], "points": points}
    if store:
        from jepa_dyn.sweep.store import Store

        opened = Store.open(Path(store))
        rows = opened.summaries(opened.finished())
        result |= {
            "first_s": float(rows[:, 1].min() - covered[0]),
            "span_s": float(rows[:, 1].max() - (rows[:, 1] - rows[:, 0]).min()),
            "blocks": len(opened.space),
            "block_points": opened.space.points,
        }
    result["peak_mb"] = peak_resident_bytes() / 1e6
    result["check"] = float(found.w_mean.mean() if reduction else found.w[:, :100].mean())
    if temporary:
        shutil.rmtree(temporary)
    if given.get("bare"):
        result["bare_s"] = bare(points, chunk, threads)
    return result


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
