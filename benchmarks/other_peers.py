"""scipy, torchdiffeq, torchode, numba and gradsolve on the same batch, all in u = log w; those that are installed.

Where a library wants one time axis for all lanes, time is counted in each lane's own horizon, s = t / T in [0, 1].
"""

import importlib.util
from typing import Any

import numpy as np

from benchmarks.machine import num_cores
from benchmarks.method import Method, Prepared
from benchmarks.problem import NUM_SAVES, Batch

# absolute in log w, hence relative in w; such that the errors of all integrators are about the same (see `modes.py`)
ATOL = {"float64": 2e-9, "float32": 1e-5}
ATOL_OF_THE_WORST_LANE = {"float64": 1e-8, "float32": 1e-5}  # torchdiffeq: most lanes are far more accurate
ATOL_BETWEEN_SAVES = {"float64": 4e-8, "float32": 1e-5}  # numba: the steps that land on saves are short


def _scipy(batch: Batch) -> Prepared:
    from scipy.integrate import solve_ivp

    def solve() -> np.ndarray:
        out = np.empty(batch.ts.shape)
        for i, (lam, variance, r) in enumerate(zip(batch.lam, batch.variance, batch.power, strict=True)):

            def speed(
                t: float, u: np.ndarray, lam: float = lam, variance: float = variance, r: float = r
            ) -> np.ndarray:
                return lam * np.exp((2 - r) * u) - variance * np.exp(2 * u)

            span, ts = (0.0, batch.ts[i, -1]), batch.ts[i]
            out[i] = solve_ivp(speed, span, [np.log(batch.eps[i])], t_eval=ts, rtol=3e-14, atol=ATOL["float64"]).y[0]
        return np.exp(out)

    return Prepared(solve)


def _torch_lanes(batch: Batch) -> tuple:
    import torch

    return tuple(torch.from_numpy(a) for a in (batch.lam, batch.variance, batch.power, np.log(batch.eps), batch.ts))


def _torchdiffeq(batch: Batch) -> Prepared:
    import torch
    from torchdiffeq import odeint

    def solve() -> np.ndarray:
        lam, variance, r, u0, ts = _torch_lanes(batch)
        horizon = ts[:, -1]

        def speed(s: Any, u: Any) -> Any:
            return horizon * (lam * torch.exp((2 - r) * u) - variance * torch.exp(2 * u))

        saves = torch.linspace(0, 1, NUM_SAVES, dtype=u0.dtype)
        # the step is that of the worst lane: its default norm averages the error over the batch
        atol = ATOL_OF_THE_WORST_LANE[str(batch.dtype)]
        worst = {"norm": lambda x: x.abs().max()}
        with torch.no_grad():
            u = odeint(speed, u0, saves, rtol=0.0, atol=atol, method="dopri5", options=worst)
        return np.exp(np.ascontiguousarray(u.numpy().T))

    return Prepared(solve)


def _torchode(batch: Batch) -> Prepared:
    import torch
    import torchode

    def solve() -> np.ndarray:
        lam, variance, r, u0, ts = _torch_lanes(batch)
        lam, variance, r = lam[:, None], variance[:, None], r[:, None]

        def speed(t: Any, u: Any) -> Any:
            return lam * torch.exp((2 - r) * u) - variance * torch.exp(2 * u)

        term = torchode.ODETerm(speed)
        controller = torchode.IntegralController(atol=ATOL[str(batch.dtype)], rtol=0.0, term=term)
        solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), controller)
        with torch.no_grad():
            solution = solver.solve(torchode.InitialValueProblem(y0=u0[:, None], t_eval=ts))
        # one failed lane stops all lanes, and what was not reached is memory that nobody has written
        failed = int((solution.status != 0).sum())
        if failed:
            raise RuntimeError(
                f"{failed} lanes failed with status {int(solution.status.max())}, which stops all of them"
            )
        return np.exp(solution.ys[..., 0].numpy())

    return Prepared(solve)


def _gradsolve(batch: Batch) -> Prepared:
    import gradsolve
    import jax.numpy as jnp

    class LogMode:
        name, dim, t0, t1, is_stiff = "log_mode", 1, 0.0, 1.0, False

        def f_jax(self, s: Any, u: Any, p: Any) -> Any:
            lam, variance, r, horizon = p
            return horizon * (lam * jnp.exp((2 - r) * u) - variance * jnp.exp(2 * u))

    params = np.stack([batch.lam, batch.variance, batch.power, batch.ts[:, -1]], axis=1)
    saves = np.linspace(0, 1, NUM_SAVES)

    def solve() -> np.ndarray:
        start = np.log(batch.eps)[:, None]
        solution = gradsolve.solve(
            LogMode(), start, params, saveat=saves, rtol=1e-12, atol=ATOL["float64"], device="cpu"
        )
        return np.exp(np.asarray(solution.y_saved)[..., 0])

    return Prepared(solve)


def _numba_kernel() -> Any:
    """Dormand-Prince 5(4) per lane with a step that lands on every save, compiled for all cores."""
    import numba

    @numba.njit(parallel=True, fastmath=True, cache=False)
    def integrate(lam, variance, r, u0, ts, atol, out):  # pragma: no cover - compiled
        for i in numba.prange(u0.size):
            a, b, c = lam[i], variance[i], 2 - r[i]
            u, t, h = u0[i], ts[i, 0], ts[i, 1] - ts[i, 0]
            out[i, 0] = np.exp(u)
            k1 = a * np.exp(c * u) - b * np.exp(2 * u)
            for save in range(1, ts.shape[1]):
                end = ts[i, save]
                while t < end:
                    step = min(h, end - t)
                    v = u + step * k1 / 5
                    k2 = a * np.exp(c * v) - b * np.exp(2 * v)
                    v = u + step * (3 * k1 + 9 * k2) / 40
                    k3 = a * np.exp(c * v) - b * np.exp(2 * v)
                    v = u + step * (44 * k1 / 45 - 56 * k2 / 15 + 32 * k3 / 9)
                    k4 = a * np.exp(c * v) - b * np.exp(2 * v)
                    v = u + step * (19372 * k1 / 6561 - 25360 * k2 / 2187 + 64448 * k3 / 6561 - 212 * k4 / 729)
                    k5 = a * np.exp(c * v) - b * np.exp(2 * v)
                    v = u + step * (
                        9017 * k1 / 3168 - 355 * k2 / 33 + 46732 * k3 / 5247 + 49 * k4 / 176 - 5103 * k5 / 18656
                    )
                    k6 = a * np.exp(c * v) - b * np.exp(2 * v)
                    new = u + step * (
                        35 * k1 / 384 + 500 * k3 / 1113 + 125 * k4 / 192 - 2187 * k5 / 6784 + 11 * k6 / 84
                    )
                    k7 = a * np.exp(c * new) - b * np.exp(2 * new)
                    wrong = (
                        71 * k1 / 57600
                        - 71 * k3 / 16695
                        + 71 * k4 / 1920
                        - 17253 * k5 / 339200
                        + 22 * k6 / 525
                        - k7 / 40
                    )
                    error = abs(step * wrong) / atol + 1e-10
                    if error <= 1:
                        t = end if step == end - t else t + step
                        u, k1 = new, k7
                    factor = min(5.0, max(0.2, 0.9 * error**-0.2))
                    # a step cut short to land on a save says nothing against a longer one
                    h = max(h, step * factor) if error <= 1 and step < h else step * factor
                out[i, save] = np.exp(u)

    return integrate


def _numba(batch: Batch) -> Prepared:
    integrate = _numba_kernel()

    def solve() -> np.ndarray:
        out = np.empty(batch.ts.shape, batch.dtype)
        start, atol = np.log(batch.eps), batch.dtype.type(ATOL_BETWEEN_SAVES[str(batch.dtype)])
        integrate(batch.lam, batch.variance, batch.power, start, batch.ts, atol, out)
        return out

    return Prepared(solve)


def methods() -> list[Method]:
    threads = f"{num_cores()} threads"
    listed = [
        ("scipy", Method("scipy", "scipy solve_ivp RK45, a loop", _scipy, 100, ("float64",))),
        ("torchdiffeq", Method("torchdiffeq", "torchdiffeq dopri5, one batch", _torchdiffeq, 10_000, note=threads)),
        ("torchode", Method("torchode", "torchode Dopri5, a step per lane", _torchode, 10_000, note=threads)),
        ("numba", Method("numba", "numba, own DP5 per lane", _numba, 100_000, note=threads)),
        ("gradsolve", Method("gradsolve", "gradsolve, engine 'auto'", _gradsolve, 10_000, ("float64",))),
    ]
    return [method for module, method in listed if importlib.util.find_spec(module)]
