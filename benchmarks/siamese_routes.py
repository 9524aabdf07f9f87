"""Ways to run many small siamese networks: steps of the algorithms and flows, by the library and by what one writes without it.

A route takes a `Batch` and gives the weights of all runs, side by side: numpy in, numpy out. The plain loops and the C source
(`siamese_loop.c`) compute

    R = B A X - C Y,   A -= h (B^T R + lambda A),   B -= h (R A^T + lambda B),   C <- alpha C + (1 - alpha) A   (EMA; SG: C = A)
"""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate

from benchmarks.machine import num_cores
from jepa_dyn.flows import SiameseArguments, SiameseState, siamese
from jepa_dyn.moments import ViewMoments
from jepa_dyn.solve import ensemble, train

LEARNING_RATE, WEIGHT_DECAY, EMA_RATE = 0.1, 0.1, 1.0
MOMENTUM = 1 - LEARNING_RATE * EMA_RATE
STEPS, HORIZON = 300, 30.0
# such that the integrators err alike (the table has the errors); the library's own are its defaults
TOLERANCES = {"float64": (1e-7, 1e-9), "float32": (1e-5, 1e-7)}
_SOURCE = Path(__file__).with_name("siamese_loop.c")


class Batch(NamedTuple):
    """Starts and moments of many runs, all with the runs as first axis; `target` is None for the stop gradient."""

    encoder: np.ndarray
    predictor: np.ndarray
    target: np.ndarray | None
    xx: np.ndarray
    yx: np.ndarray
    weight_decay: np.ndarray

    @property
    def runs(self) -> int:
        return len(self.encoder)

    def first(self, runs: int) -> "Batch":
        return Batch(*(None if leaf is None else leaf[:runs] for leaf in self))

    def as_float64(self) -> "Batch":
        return Batch(*(None if leaf is None else leaf.astype(np.float64) for leaf in self))

    def library(self) -> tuple[SiameseState, SiameseArguments]:
        rates = [jnp.asarray(rate, self.xx.dtype) for rate in (1.0, 1.0, EMA_RATE)]
        # the last moment plays no part in SG and EMA
        args = jax.vmap(lambda xx, yx, decay: SiameseArguments(ViewMoments(xx, yx, xx), decay, *rates))
        weights = (None if leaf is None else jnp.asarray(leaf) for leaf in self[:3])
        return SiameseState(*weights), args(*self[3:])


def make_batch(n: int, m: int, runs: int, dtype: str, ema: bool) -> Batch:
    """[xx] and [yx] share a random basis; their eigenvalues are uniform in [1, 2.5] and [-1, 1] where tau^2 > 4 rho lambda.

    Starts are Gaussian of deviation 1 / (2 sqrt(n)), C = A: no run diverges at a learning rate of 0.1.
    """
    rng = np.random.default_rng(0)
    rho, tau = np.empty(0), np.empty(0)
    while len(rho) < runs * m:
        more = rng.uniform([1, -1], [2.5, 1], (4 * runs * m, 2))
        more = more[more[:, 1] ** 2 > 4 * WEIGHT_DECAY * more[:, 0]]
        rho, tau = np.append(rho, more[:, 0]), np.append(tau, more[:, 1])
    basis = np.linalg.qr(rng.normal(size=(runs, m, m)))[0]
    xx, yx = ((basis * values[: runs * m].reshape(runs, 1, m)) @ basis.transpose(0, 2, 1) for values in (rho, tau))
    encoder, predictor = (rng.normal(size=(runs, n, columns)) / (2 * n**0.5) for columns in (m, n))
    batch = Batch(encoder, predictor, encoder if ema else None, xx, yx, np.full(runs, WEIGHT_DECAY))
    return Batch(*(None if leaf is None else leaf.astype(dtype) for leaf in batch))


class Ends(NamedTuple):
    """Weights of every run as one row each, (runs, entries), and how many steps the integrator took where it says."""

    rows: np.ndarray
    steps: float | None = None


def _ends(leaves: Any, steps: float | None = None) -> Ends:
    kept = [np.asarray(leaf) for leaf in leaves if leaf is not None]
    return Ends(np.concatenate([leaf.reshape(len(leaf), -1) for leaf in kept], axis=1), steps)


@dataclass(frozen=True)
class Route:
    """One row of a table. Batches of more than `most` entries of B are cut to fewer runs."""

    name: str
    describe: str
    run: Callable[[Batch], Ends]
    most: int | None = None
    note: str = ""

    def part(self, batch: Batch) -> Batch:
        return batch if self.most is None else batch.first(max(1, self.most // batch.predictor[0].size))


def _nothing(y: Any, args: Any) -> Any:
    return jnp.zeros(0)


def _train(batch: Batch) -> Ends:
    y0, args = batch.library()
    runs = train(siamese, y0, args, [STEPS], learning_rate=LEARNING_RATE, observe=_nothing)
    return _ends(jax.tree.leaves(runs.final))


@jax.jit
def _plain_loop(batch: Batch) -> Any:
    def one_run(run: Batch) -> Any:
        def one_step(_: Any, weights: tuple) -> tuple:
            a, b, c = weights
            r = b @ a @ run.xx - (a if c is None else c) @ run.yx
            new = a - LEARNING_RATE * (b.T @ r + run.weight_decay * a)
            b = b - LEARNING_RATE * (r @ a.T + run.weight_decay * b)
            return new, b, None if c is None else MOMENTUM * c + (1 - MOMENTUM) * new

        return jax.lax.fori_loop(0, STEPS, one_step, (run.encoder, run.predictor, run.target))

    return jax.vmap(one_run)(batch)


def _plain_jax(batch: Batch) -> Ends:
    return _ends(_plain_loop(batch))


def numpy_loop(batch: Batch) -> Ends:
    """The same steps with `numpy.einsum` over all runs: the reference in float64."""
    a, b, c = batch.encoder, batch.predictor, batch.target
    rate, momentum = a.dtype.type(LEARNING_RATE), a.dtype.type(MOMENTUM)
    decay = batch.weight_decay[:, None, None]
    for _ in range(STEPS):
        forward = np.einsum("rij,rjk->rik", np.einsum("rij,rjk->rik", b, a), batch.xx)
        r = forward - np.einsum("rij,rjk->rik", a if c is None else c, batch.yx)
        new = a - rate * (np.einsum("rji,rjk->rik", b, r) + decay * a)
        b = b - rate * (np.einsum("rij,rkj->rik", r, a) + decay * b)
        a, c = new, None if c is None else momentum * c + (1 - momentum) * new
    return _ends((a, b, c))


@cache
def _compiled(n: int, m: int, dtype: str, width: int) -> Any:
    """The C loop for one size and number type, compiled into a folder that goes when Python has loaded it."""
    real = {"float64": "double", "float32": "float"}[dtype]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "loop.so"
        flags = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
        sizes = [f"-DN={n}", f"-DM={m}", f"-DREAL={real}", f"-DW={width}"]
        subprocess.run(["gcc", *flags, *sizes, str(_SOURCE), "-o", str(library)], check=True)
        function = ctypes.CDLL(str(library)).train
    function.restype = None
    function.argtypes = [ctypes.c_void_p] * 6 + [ctypes.c_double] * 2 + [ctypes.c_size_t] + [ctypes.c_int] * 2
    return function


def _c_loop(width: int, threads: int, batch: Batch) -> Ends:
    (n, m), dtype = batch.encoder.shape[1:], str(batch.encoder.dtype)
    weights = [None if leaf is None else np.array(leaf, order="C") for leaf in batch[:3]]
    fixed = [np.ascontiguousarray(leaf) for leaf in batch[3:]]
    pointers = [None if leaf is None else leaf.ctypes.data for leaf in (*weights, *fixed)]
    _compiled(n, m, dtype, width)(*pointers, LEARNING_RATE, MOMENTUM, batch.runs, STEPS, threads)
    return _ends(weights)


def step_routes() -> list[Route]:
    """Routes of the algorithms; the C loop where there is gcc."""
    found = [
        Route("plain", "plain JAX", _plain_jax, note="jit, vmap of a fori_loop of matrix products"),
        Route("ours", "jepa_dyn train", _train, note="observes nothing, keeps the end states and a status per run"),
        Route("numpy", "numpy loop", numpy_loop, 40_000, "einsum over the runs"),
    ]
    if shutil.which("gcc"):
        cores = num_cores()
        for width, threads in sorted({(1, 1), (1, cores), (8, cores)}):
            plural = "s" if threads > 1 else ""
            side = ", 8 runs side by side" if width > 1 else ""
            flags = "gcc -O3 -march=native -fopenmp"
            found.append(Route(f"c_{width}_{threads}", f"C loop{side}, {threads} thread{plural}",
                               partial(_c_loop, width, threads), note=flags))  # fmt: skip
    return found


def _ensemble(batch: Batch) -> Ends:
    y0, args = batch.library()
    rtol, atol = TOLERANCES[str(batch.xx.dtype)]
    runs = ensemble(siamese, y0, args, [HORIZON], rtol=rtol, atol=atol)
    leaves = [np.asarray(leaf)[:, 0] for leaf in jax.tree.leaves(runs.ys)]
    return _ends(leaves, float(np.asarray(runs.steps).mean()))


def _field(t: Any, weights: tuple, run: Batch) -> tuple:
    a, b, c = weights
    r = b @ a @ run.xx - (a if c is None else c) @ run.yx
    target = None if c is None else EMA_RATE * (a - c)
    return -(b.T @ r + run.weight_decay * a), -(r @ a.T + run.weight_decay * b), target


@jax.jit
def _plain_flow(batch: Batch, rtol: Any, atol: Any) -> Any:
    def one_run(run: Batch) -> Any:
        start = (run.encoder, run.predictor, run.target)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(_field), diffrax.Tsit5(), jnp.zeros_like(rtol), jnp.full_like(rtol, HORIZON), None, start, run,
            saveat=diffrax.SaveAt(t1=True), stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol), max_steps=4096,
        )  # fmt: skip
        return jax.tree.map(lambda leaf: leaf[0], solution.ys), solution.stats["num_steps"]

    return jax.vmap(one_run)(batch)


def _plain_diffrax(batch: Batch) -> Ends:
    tolerances = (np.asarray(x, batch.xx.dtype) for x in TOLERANCES[str(batch.xx.dtype)])
    leaves, steps = _plain_flow(batch, *tolerances)
    return _ends(leaves, float(np.asarray(steps).mean()))


def flow_routes() -> list[Route]:
    """Routes of the flows to t = 30, of which only the last state is kept."""
    chosen = "; ".join(f"{dtype}: rtol, atol {pair}" for dtype, pair in TOLERANCES.items())
    return [
        Route("plain", "diffrax vmap", _plain_diffrax, 400_000, f"Tsit5, PIDController, final state only; {chosen}"),
        Route("ours", "jepa_dyn ensemble", _ensemble, note=f"lanes Tsit5; {chosen}"),
    ]


def exact_flow(batch: Batch) -> Ends:
    """The flow by scipy's DOP853 at 1e-12, run by run: the reference."""
    batch, ends = batch.as_float64(), []
    for i in range(batch.runs):
        run = Batch(*(None if leaf is None else leaf[i] for leaf in batch))
        start = [leaf for leaf in run[:3] if leaf is not None]
        cuts = np.cumsum([leaf.size for leaf in start])[:-1]

        def speed(t: float, y: np.ndarray, run: Batch = run, start: list = start, cuts: Any = cuts) -> np.ndarray:
            parts = [part.reshape(leaf.shape) for part, leaf in zip(np.split(y, cuts), start, strict=True)]
            slopes = _field(t, (*parts, *([None] * (3 - len(parts)))), run)
            return np.concatenate([leaf.ravel() for leaf in slopes if leaf is not None])

        y0 = np.concatenate([leaf.ravel() for leaf in start])
        ends.append(scipy.integrate.solve_ivp(speed, (0, HORIZON), y0, "DOP853", rtol=1e-12, atol=1e-14).y[:, -1])
    return Ends(np.stack(ends))


def gap(found: Ends, reference: Ends) -> float:
    """Largest relative distance of a run's weights from the reference, over the runs that it has."""
    runs = min(len(found.rows), len(reference.rows))
    own, right = found.rows[:runs].astype(np.float64), reference.rows[:runs]
    distance = np.linalg.norm(own - right, axis=1) / np.linalg.norm(right, axis=1)
    return float(np.where(np.isnan(distance), np.inf, distance).max())


__all__ = ["Batch", "Ends", "Route", "exact_flow", "flow_routes", "gap", "make_batch", "numpy_loop", "step_routes"]
