"""Mode problems and systems with their answers from scipy's DOP853 at 1e-12, in log w for modes: shared by the solver tests."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from scipy.integrate import solve_ivp

from jepa_dyn import ModeParameters, flows, mode_parameters
from jepa_dyn.moments import view_moments

FLOWS = {"jepa": flows.jepa, "mae": flows.mae}


@dataclass(frozen=True)
class Problem:
    """One mode: `coordinates` are those in which it may be solved."""

    name: str
    objective: str
    lam: float
    variance: float
    depth: float
    weight_decay: float
    w0: float
    end: float
    coordinates: tuple[str, ...] = ("w", "log", "logit", "layer")

    @property
    def flow(self):
        return FLOWS[self.objective]

    @property
    def args(self) -> ModeParameters:
        return mode_parameters(self.lam, variance=self.variance, depth=self.depth, weight_decay=self.weight_decay)

    @property
    def ts(self) -> np.ndarray:
        return np.linspace(0.0, self.end, 9)

    @cached_property
    def w(self) -> np.ndarray:
        return reference(self)


def reference(problem: Problem) -> np.ndarray:
    r = 1 / problem.depth + (problem.objective == "mae")

    def speed(t, u):
        growth = problem.lam * np.exp((2 - r) * u) if problem.lam else 0.0
        return growth - problem.variance * np.exp(2 * u) - problem.weight_decay

    start = [np.log(problem.w0)]
    solution = solve_ivp(speed, (0, problem.end), start, "DOP853", problem.ts, rtol=1e-12, atol=1e-13)
    assert solution.success
    return np.exp(solution.y[0])


_NO_LOGIT = ("w", "log", "layer")
PROBLEMS = [
    Problem("jepa depth 1", "jepa", 1.0, 1.25, 1.0, 0.0, 0.02, 80.0),
    Problem("jepa depth 3", "jepa", 1.0, 1.25, 3.0, 0.0, 0.05, 240.0),
    Problem("jepa depth 2.3", "jepa", 1.0, 1.25, 2.3, 0.0, 0.05, 150.0, ("w", "log", "logit")),
    Problem("jepa depth 0.4", "jepa", 1.0, 1.25, 0.4, 0.0, 0.05, 5.0, ("w", "log", "logit")),
    Problem("jepa weight decay", "jepa", 1.0, 1.25, 2.0, 0.01, 0.1, 80.0, _NO_LOGIT),
    Problem("jepa above its fixed point", "jepa", 1.0, 2.0, 3.0, 0.0, 0.9, 40.0, _NO_LOGIT),
    Problem("jepa negative lam", "jepa", -1.0, 1.25, 2.0, 0.0, 0.5, 60.0, _NO_LOGIT),
    Problem("jepa lam 0", "jepa", 0.0, 1.25, 2.0, 0.0, 0.5, 60.0, _NO_LOGIT),
    Problem("jepa fast", "jepa", 1000.0, 1250.0, 3.0, 0.0, 0.05, 1.0),
    Problem("mae depth 1", "mae", 1.0, 1.25, 1.0, 0.0, 0.01, 12.0),
    Problem("mae depth 5", "mae", 1.0, 0.8, 5.0, 0.0, 0.01, 30.0),
    Problem("mae depth 0.75", "mae", 1.0, 1.25, 0.75, 0.0, 0.01, 6.0, ("w", "log", "logit")),
    Problem("mae weight decay", "mae", 1.0, 1.25, 3.0, 0.02, 0.05, 40.0, _NO_LOGIT),
    Problem("mae above its fixed point", "mae", 1.0, 2.0, 4.0, 0.0, 1.5, 10.0, _NO_LOGIT),
    Problem("mae negative lam", "mae", -0.5, 1.25, 3.0, 0.0, 0.5, 20.0, _NO_LOGIT),
]
EACH = [(problem, coordinate) for problem in PROBLEMS for coordinate in problem.coordinates]


@dataclass(frozen=True)
class System:
    """One matrix flow: `speed` is its right-hand side in plain numpy, on the flattened state."""

    name: str
    flow: Callable
    y0: Any
    args: Any
    end: float
    speed: Callable[[np.ndarray], np.ndarray]

    @property
    def ts(self) -> np.ndarray:
        return np.linspace(0.0, self.end, 5)

    @cached_property
    def path(self) -> np.ndarray:
        """(times, numbers of the state)."""
        start = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(self.y0)])
        solved = solve_ivp(lambda t, z: self.speed(z), (0, self.end), start, "DOP853", self.ts, rtol=1e-12, atol=1e-13)
        assert solved.success
        return solved.y.T


_GAMMA = np.array([[0.9, 0.2, 0.1], [0.2, 0.3, -0.2], [0.1, -0.2, -0.4]])
_ENCODER = np.array([[0.1, 0.05, 0.02], [-0.03, 0.08, 0.06]])
_BARLOW = {"off_diagonal_weight": 0.4, "ridge": 0.3, "kink_width": 0.05}


def _barlow_twins(z):
    w = z.reshape(2, 3)
    c = w @ _GAMMA @ w.T
    return -4 * ((0.4 * c + 0.6 * np.diag(np.diag(c)) - np.eye(2)) @ w @ _GAMMA).ravel()


def _preconditioned(z):
    w, (values, rows) = z.reshape(2, 3), np.linalg.eigh(_GAMMA)
    spread = w @ (rows * np.abs(values)) @ rows.T @ w.T + 0.3 * np.eye(2)
    return -4 * np.linalg.solve(spread, (w @ _GAMMA @ w.T - np.eye(2)) @ w @ _GAMMA).ravel()


def _sharp(z):
    w = z.reshape(2, 3)
    l, columns = np.linalg.eigh(w @ _GAMMA @ w.T)
    square = l**2 + 0.05**2
    slope = 2 * (l * square**-0.25 - 1) * (square**-0.25 - l**2 / 2 * square**-1.25)
    return -2 * ((columns * slope) @ columns.T @ w @ _GAMMA).ravel()


def _system(name: str, flow: Callable, end: float, speed: Callable) -> System:
    return System(
        name,
        flow,
        flows.barlow_twins_state(_ENCODER),
        flows.barlow_twins_arguments_from_gamma(_GAMMA, **_BARLOW),
        end,
        speed,
    )


_VIEWS = np.array([[1.2, 0.1, 0.0], [0.1, 0.9, 0.2], [0.0, 0.2, 1.0]])


def _direct_pred(z):
    w = z.reshape(2, 3)
    values, columns = np.linalg.eigh(w @ _VIEWS @ w.T)
    predictor = (columns * np.sqrt(values)) @ columns.T
    return -(predictor @ (predictor @ w @ _VIEWS - w @ (0.8 * _VIEWS))).ravel()


def systems() -> list[System]:
    """Made on call: what they hold are float64 arrays of JAX."""
    return [
        _system("barlow twins", flows.barlow_twins, 3.0, _barlow_twins),
        _system("barlow twins preconditioned", flows.barlow_twins_preconditioned, 1.0, _preconditioned),
        _system("barlow twins sharp", flows.barlow_twins_sharp, 2.0, _sharp),
        System(
            "direct pred",
            flows.representation,
            flows.representation_state(10 * _ENCODER),
            flows.representation_arguments(view_moments(_VIEWS, 0.8 * _VIEWS), "euclidean", alpha=0.5),
            2.0,
            _direct_pred,
        ),
    ]
