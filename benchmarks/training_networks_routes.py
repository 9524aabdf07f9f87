"""Ways to train many small Barlow Twins networks on the same pairs: the library's lanes, one run after another, plain loops.

All take the same pairs and seeds to the same weights by full-batch gradient descent, which the last layer's weights are compared
in.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import num_cores
from jepa_dyn.losses import barlow_twins_loss
from jepa_dyn.moments import load_labelled_images
from jepa_dyn.training import JointEmbedding, perceptron, residual_network, train_networks

RATE = 0.01
SHAPE = (8, 8, 1)


def make_small(key: jax.Array) -> JointEmbedding:
    """16 inputs, 16 hidden units, 4 outputs."""
    return JointEmbedding(perceptron(key, 16, 4, widths=(16,)))


def make_perceptron(key: jax.Array) -> JointEmbedding:
    """64 inputs, 32 hidden units, 8 outputs."""
    return JointEmbedding(perceptron(key, 64, 8, widths=(32,)))


def make_residual(key: jax.Array) -> JointEmbedding:
    """Two groups of 8 and 16 channels with group norm, 8 outputs."""
    return JointEmbedding(residual_network(key, SHAPE, channels=(8, 16), outputs=8))


MAKERS: dict[str, Callable] = {"small perceptron": make_small, "perceptron": make_perceptron, "ResNet": make_residual}


class Problem(NamedTuple):
    """A kind of network, and pairs of noisy digits as rows."""

    kind: str
    x: np.ndarray
    y: np.ndarray


def make_problem(kind: str) -> Problem:
    """64 digits of scikit-learn, each twice with noise of standard deviation 0.1; for the small perceptron 16, of half the size."""
    small = kind == "small perceptron"
    images = np.asarray(load_labelled_images(max_images=16 if small else 64)[0])
    images = images.reshape(-1, 4, 2, 4, 2).mean((2, 4)) if small else images
    rows = images.reshape(len(images), -1)
    noise = np.random.default_rng(0).normal(size=(2, *rows.shape)).astype(np.float32)
    return Problem(kind, rows + 0.1 * noise[0], rows + 0.1 * noise[1])


@dataclass(frozen=True)
class Route:
    """One row of a table. `run(problem, seeds, steps)`: last weights (seeds, outputs, units) as numpy."""

    name: str
    describe: str
    run: Callable[[Problem, np.ndarray, int], np.ndarray]
    kinds: tuple[str, ...] = tuple(MAKERS)


def _last_weight(network: Any) -> Any:
    return network.encoder.stages[-1].linear.weight


def library(problem: Problem, seeds: np.ndarray, steps: int, **options: Any) -> np.ndarray:
    """All seeds as lanes of one call, logged at its end."""
    runs = train_networks(
        MAKERS[problem.kind], (problem.x, problem.y), barlow_twins_loss, steps, batch_size=None, seeds=seeds,
        learning_rate=RATE, **({"log_every": max(steps, 1), "spectra": False} | options),
    )  # fmt: skip
    return np.asarray(_last_weight(runs.raise_if_failed().final))


def library_in_turn(problem: Problem, seeds: np.ndarray, steps: int) -> np.ndarray:
    """One call for each seed."""
    return np.concatenate([library(problem, seeds[i : i + 1], steps) for i in range(len(seeds))])


def _start(problem: Problem, seed: Any) -> Any:
    return MAKERS[problem.kind](jax.random.fold_in(jax.random.key(seed), 0))


@eqx.filter_jit
def _descend(network: Any, x: Any, y: Any, steps: Any) -> Any:
    parameters, rest = eqx.partition(network, eqx.is_inexact_array)

    def loss(parameters: Any) -> Any:
        encoder = eqx.combine(parameters, rest).encoder
        return barlow_twins_loss(jax.vmap(encoder)(x), jax.vmap(encoder)(y))

    def one(_: Any, parameters: Any) -> Any:
        return jax.tree.map(lambda w, g: w - RATE * g, parameters, jax.grad(loss)(parameters))

    return eqx.combine(jax.lax.fori_loop(0, steps, one, parameters), rest)


def plain_jax(problem: Problem, seeds: np.ndarray, steps: int) -> np.ndarray:
    """A compiled loop of plain gradient descent for each seed: no checks, no statuses, no log."""
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)
    ends = [_descend(_start(problem, seed), x, y, jnp.int32(steps)) for seed in seeds.tolist()]
    return np.stack([np.asarray(_last_weight(network)) for network in ends])


def plain_torch(problem: Problem, seeds: np.ndarray, steps: int) -> np.ndarray:
    """An eager PyTorch loop for each seed."""
    import torch

    torch.set_num_threads(num_cores())
    x, y, ends = torch.tensor(problem.x), torch.tensor(problem.y), []
    for seed in seeds.tolist():
        stages = _start(problem, seed).encoder.stages
        layers = [torch.nn.Linear(*stage.linear.weight.shape[::-1]) for stage in stages]
        with torch.no_grad():
            for layer, stage in zip(layers, stages, strict=True):
                layer.weight.copy_(torch.tensor(np.asarray(stage.linear.weight)))
                layer.bias.copy_(torch.tensor(np.asarray(stage.linear.bias)))
        network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
        optimiser, identity = torch.optim.SGD(network.parameters(), lr=RATE), torch.eye(len(layers[1].weight))
        for _ in range(steps):
            c = network(x).T @ network(y)
            value = (((c + c.T) / (2 * len(x)) - identity) ** 2).sum()
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        ends.append(layers[1].weight.detach().numpy())
    return np.stack(ends)


def routes() -> list[Route]:
    """All routes, that of one call for each run first; PyTorch where it is installed, for the perceptrons."""
    found = [
        Route("turn", "train_networks, one run after another", library_in_turn),
        Route("lanes", "train_networks, runs as lanes", library),
        Route("plain", "plain JAX loop, one run after another", plain_jax),
    ]
    if importlib.util.find_spec("torch"):
        text = f"plain PyTorch loop, one run after another, {num_cores()} threads"
        found.append(Route("torch", text, plain_torch, ("small perceptron", "perceptron")))
    return found


tracked = partial(library, log_every=20, spectra=True)

__all__ = ["MAKERS", "Problem", "Route", "library", "make_problem", "routes", "tracked"]
