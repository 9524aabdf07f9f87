"""Ways to train a linear Barlow Twins model by full-batch gradient descent: the library's, and the autodiff loops one writes.

All take the same pairs, start and learning rate to the same W: numpy in, numpy out. The plain loops differentiate

    L = |C - I|^2,   C = sum_i (f(x_i) f(y_i)^T + f(y_i) f(x_i)^T) / (2n),   f(x) = W x

on the pairs, or with C = W Gamma W^T.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import num_cores
from jepa_dyn.flows import (
    barlow_twins,
    barlow_twins_arguments,
    barlow_twins_arguments_from_pairs,
    barlow_twins_state,
)
from jepa_dyn.moments import eigenbasis_from_pairs
from jepa_dyn.papers.simon2023_data import photograph_pairs
from jepa_dyn.solve import train, train_in_eigenbasis

ALPHA = 1e-3


class Problem(NamedTuple):
    """Pairs as rows, W(0), and a learning rate that is stable: a fifth of 1 / (4 gamma_1)."""

    x: np.ndarray
    y: np.ndarray
    start: np.ndarray
    learning_rate: float

    def sizes(self) -> tuple[int, int, int]:
        return (*self.x.shape, self.start.shape[0])


def make_problem(pairs: int, patch_size: int, dimension: int, dtype: str) -> Problem:
    """Colour crops of photographs, m = 3 patch_size^2; W(0) ~ N(0, 1e-6)."""
    x, y = (rows.astype(dtype) for rows in photograph_pairs(pairs, patch_size, 0))
    top = np.random.default_rng(0).normal(size=x.shape[1])
    for _ in range(20):  # gamma_1 by power iteration
        top = (x @ top) @ y + (y @ top) @ x
        top = top / np.linalg.norm(top)
    largest = float((x @ top) @ (y @ top)) / pairs
    start = ALPHA * np.random.default_rng(1).normal(size=(dimension, x.shape[1]))
    return Problem(x, y, start.astype(dtype), 0.05 / largest)


@dataclass(frozen=True)
class Route:
    """One row of a table.

    - `prepare(problem)`: what is made of the pairs once, before training.
    - `run(problem, ready, steps)`: W after so many steps, as numpy.
    - `fast`: whether it takes many steps in a turn.
    """

    name: str
    describe: str
    prepare: Callable[[Problem], Any]
    run: Callable[[Problem, Any, int], np.ndarray]
    fast: bool = False
    note: str = ""


def _loss_of_pairs(w: Any, x: Any, y: Any) -> Any:
    f, g = x @ w.T, y @ w.T
    c = f.T @ g
    return jnp.sum(((c + c.T) / (2 * len(x)) - jnp.eye(len(w), dtype=w.dtype)) ** 2)


def _loss_of_gamma(w: Any, gamma: Any) -> Any:
    return jnp.sum((w @ gamma @ w.T - jnp.eye(len(w), dtype=w.dtype)) ** 2)


@partial(jax.jit, static_argnames="loss")
def _descend(loss: Callable, w: Any, data: tuple, rate: Any, steps: Any) -> Any:
    return jax.lax.fori_loop(0, steps, lambda _, w: w - rate * jax.grad(loss)(w, *data), w)


def _plain(loss: Callable, problem: Problem, ready: tuple, steps: int) -> np.ndarray:
    rate = np.asarray(problem.learning_rate, problem.start.dtype)
    return np.asarray(_descend(loss, jnp.asarray(problem.start), ready, rate, steps))


def _pairs_on_device(problem: Problem) -> tuple:
    return jax.block_until_ready((jnp.asarray(problem.x), jnp.asarray(problem.y)))


def _gamma(problem: Problem) -> tuple:
    cross = problem.x.T @ problem.y
    return (jax.block_until_ready(jnp.asarray((cross + cross.T) / (2 * len(problem.x)))),)


def _plain_torch(problem: Problem, ready: Any, steps: int) -> np.ndarray:
    import torch

    torch.set_num_threads(num_cores())
    x, y = ready
    w = torch.tensor(problem.start).requires_grad_()
    optimiser = torch.optim.SGD([w], lr=problem.learning_rate)
    identity = torch.eye(len(w), dtype=w.dtype)
    for _ in range(steps):
        c = (x @ w.T).T @ (y @ w.T)
        loss = (((c + c.T) / (2 * len(x)) - identity) ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return w.detach().numpy()


def _pairs_in_torch(problem: Problem) -> Any:
    import torch

    return torch.tensor(problem.x), torch.tensor(problem.y)


def _nothing(y: Any, args: Any) -> Any:
    return jnp.zeros(0)


def _library(trainer: Callable, problem: Problem, ready: Any, steps: int) -> np.ndarray:
    y0, rate = barlow_twins_state(problem.start), problem.learning_rate
    run = trainer(barlow_twins, y0, ready, [steps], learning_rate=rate, observe=_nothing)
    return np.asarray(run.raise_if_failed().final.encoder)


def _matrices(problem: Problem) -> Any:
    return jax.block_until_ready(barlow_twins_arguments_from_pairs(problem.x, problem.y))


def _basis(problem: Problem) -> Any:
    return jax.block_until_ready(barlow_twins_arguments(eigenbasis_from_pairs(problem.x, problem.y)))


def routes() -> list[Route]:
    """All routes, the plain loop first; PyTorch where it is installed."""
    found = [
        Route("plain", "plain JAX, autodiff on pairs", _pairs_on_device, partial(_plain, _loss_of_pairs)),
        Route("plain_gamma", "plain JAX, autodiff with Gamma", _gamma, partial(_plain, _loss_of_gamma)),
    ]
    if importlib.util.find_spec("torch"):
        cores = num_cores()
        text = f"plain PyTorch, autodiff on pairs, {cores} thread{'s' if cores > 1 else ''}"
        found.append(Route("plain_torch", text, _pairs_in_torch, _plain_torch, note="eager"))
    return [
        *found,
        Route("train", "train, moments as matrices", _matrices, partial(_library, train)),
        Route("ours", "train_in_eigenbasis", _basis, partial(_library, train_in_eigenbasis), fast=True),
    ]


__all__ = ["Problem", "Route", "make_problem", "routes"]
