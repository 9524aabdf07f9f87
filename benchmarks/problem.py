"""The batch of modes that every method of `modes.py` solves, as plain numpy arrays that belong to no library.

    dw/dt = lam w^(3-r) - variance w^3,   w(0) = eps,   r = 1/L (JEPA) or 1 + 1/L (MAE),   until w has 99 % of its fixed point

(after arrival an explicit solver crawls at its stability limit, for up to a million steps: that would flatter whoever stops there).
Lanes are drawn one after the other from one stream, so that the first lanes of a large batch are a small batch: errors are
measured on them, and a slow method that runs fewer lanes runs the same ones.
"""

from dataclasses import dataclass, replace

import numpy as np

NUM_SAVES = 64
_NUM_DEPTHS = 7
_DRAWN_AT_ONCE = 100_000


@dataclass(frozen=True)
class Batch:
    """Modes to solve. `lam`, `variance`, `depth`, `eps` have shape (lanes,), `ts` (lanes, times), all of one dtype."""

    objective: str
    lam: np.ndarray
    variance: np.ndarray
    depth: np.ndarray
    eps: np.ndarray
    ts: np.ndarray

    @property
    def num_lanes(self) -> int:
        return self.lam.size

    @property
    def dtype(self) -> np.dtype:
        return self.lam.dtype

    @property
    def power(self) -> np.ndarray:
        """r, in the dtype of the batch."""
        return (1 / self.depth + (self.objective == "mae")).astype(self.dtype)

    def first(self, lanes: int) -> "Batch":
        """The first lanes, in arrays of their own."""
        names = ("lam", "variance", "depth", "eps", "ts")
        return replace(self, **{name: getattr(self, name)[:lanes].copy() for name in names})


def draw_modes(objective: str, lanes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(lam, rho, depth, eps) in float64.

    Depths 1 to 7, rho uniform in [.3, .95], lam log-uniform in [.1, 10], eps log-uniform from 1e-4 to 1e-2 or to .49 of the
    fixed point where that is less.
    """
    uniform = np.random.default_rng(seed).random((lanes, 4))
    depth = np.floor(1 + _NUM_DEPTHS * uniform[:, 0])
    rho = 0.3 + 0.65 * uniform[:, 1]
    lam = 10 ** (2 * uniform[:, 2] - 1)
    fixed_point = rho ** (depth if objective == "jepa" else depth / (depth + 1))
    largest = np.minimum(1e-2, 0.49 * fixed_point)
    return lam, rho, depth, 1e-4 * (largest / 1e-4) ** uniform[:, 3]


def make_batch(objective: str, lanes: int, dtype: str) -> Batch:
    """The batch of a benchmark, with `NUM_SAVES` times evenly spaced from 0 to each lane's own arrival."""
    from jepa_dyn._precision import x64_context
    from jepa_dyn.parameters import mode_parameters
    from jepa_dyn.theory import critical_time

    lam, rho, depth, eps = draw_modes(objective, lanes)
    ends = np.empty(lanes)
    with x64_context(True):
        for i in range(0, lanes, _DRAWN_AT_ONCE):
            part = slice(i, i + _DRAWN_AT_ONCE)
            ends[part] = critical_time(objective, eps[part], mode_parameters(lam[part], rho[part], depth[part]), 0.99)
    ts = ends.astype(dtype)[:, None] * np.linspace(0, 1, NUM_SAVES, dtype=dtype)
    # what all methods are given is (lam, variance): rho is then lam / variance of the rounded numbers, for the reference too
    return Batch(objective, *(a.astype(dtype) for a in (lam, lam / rho, depth, eps)), ts)
