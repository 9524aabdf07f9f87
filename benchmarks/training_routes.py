"""Ways to train one deep linear JEPA from the same starts: the library's three sources of moments, and two plain autodiff loops.

Every route takes the starts of all seeds and a number of steps, and returns all weights after them as numpy arrays. The plain
loops are what one writes without the library: draw n pairs, differentiate

    L = sum_i |V W x_i - SG(W y_i)|^2 / (2 n),    W = W^L ... W^1,

and step against the gradient; all seeds in one batched program, float32.
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
from jepa_dyn import flows
from jepa_dyn.flows import DeepLinearArguments, DeepLinearState, gaussian_initialisation, layer_mask
from jepa_dyn.flows.deep_linear import deep_linear_arguments
from jepa_dyn.flows.initialisations import haar_orthogonal
from jepa_dyn.moments import GaussianBatches, WishartBatches, draw_pairs, joint_factor, moments_from_spectrum
from jepa_dyn.moments.gaussian_batches import JointFactor
from jepa_dyn.solve import train

LEARNING_RATE = 0.01


class Problem(NamedTuple):
    """What is trained: starts with a lane per seed, the law of the pairs, the number of pairs per batch."""

    starts: DeepLinearState
    args: DeepLinearArguments
    batch_size: int

    @property
    def seeds(self) -> int:
        return self.starts.layers.shape[0]


def make_problem(inputs: int, depth: int, seeds: int, batch_size: int) -> Problem:
    """Square Gaussian nets at gain 1; features with lambda_i from 1 to 0.1 and rho_i from 0.5 to 0.9, in a random basis."""
    i = np.arange(inputs) / max(inputs - 1, 1)
    basis = haar_orthogonal(jax.random.key(2), inputs, np.dtype(np.float32))
    moments = moments_from_spectrum((10.0**-i).astype(np.float32), (0.5 + 0.4 * i).astype(np.float32), basis=basis)
    mask = layer_mask(depth)
    starts = jax.jit(jax.vmap(lambda key: gaussian_initialisation(key, mask, inputs, dtype=np.dtype(np.float32))))
    args = deep_linear_arguments(moments, mask)
    return Problem(jax.block_until_ready(starts(jax.random.split(jax.random.key(0), seeds))), args, batch_size)


@dataclass(frozen=True)
class Route:
    """One row of the table.

    - `run(problem, steps, stream)`: weights of all seeds after so many steps; `stream` numbers independent series of batches.
    - `draws`: "none" (the population), "same" (those of `plain_jax`, sample by sample) or "own" (the same law).
    """

    name: str
    describe: str
    run: Callable[[Problem, int, int], DeepLinearState]
    draws: str
    note: str = ""


def _keys(problem: Problem, stream: int) -> Any:
    return jax.random.split(jax.random.fold_in(jax.random.key(1), stream), problem.seeds)


def _nothing(y: Any, args: Any) -> Any:
    return jnp.zeros(())


def _library(source: Any, problem: Problem, steps: int, stream: int) -> DeepLinearState:
    drawn = {} if source is None else {"batches": source(problem.batch_size), "key": _keys(problem, stream)}
    runs = train(
        flows.deep_jepa,
        problem.starts,
        problem.args,
        [steps],
        learning_rate=LEARNING_RATE,
        observe=_nothing,
        **drawn,
    )
    return jax.tree.map(np.asarray, runs.final)


def _pair_loss(y: DeepLinearState, own: jax.Array, other: jax.Array) -> jax.Array:
    """The loss of the module's docstring on rows of pairs."""
    for layer in y.layers:
        own, other = own @ layer.T, other @ layer.T
    return jnp.sum((own @ y.decoder.T - jax.lax.stop_gradient(other)) ** 2) / (2 * len(own))


@partial(jax.jit, static_argnames="batch_size")
def _plain_loop(
    starts: DeepLinearState, keys: jax.Array, factor: JointFactor, steps: jax.Array, batch_size: int
) -> DeepLinearState:
    def one_seed(start: DeepLinearState, key: jax.Array) -> DeepLinearState:
        def one_step(number: jax.Array, y: DeepLinearState) -> DeepLinearState:
            pairs = draw_pairs(jax.random.fold_in(key, number), factor, batch_size)
            return jax.tree.map(lambda w, g: w - LEARNING_RATE * g, y, jax.grad(_pair_loss)(y, *pairs))

        return jax.lax.fori_loop(0, steps, one_step, start)

    return jax.vmap(one_seed)(starts, keys)


def _plain_jax(problem: Problem, steps: int, stream: int) -> DeepLinearState:
    factor = joint_factor(problem.args.moments)
    final = _plain_loop(problem.starts, _keys(problem, stream), factor, jnp.asarray(steps), problem.batch_size)
    return jax.tree.map(np.asarray, final)


def _plain_torch(threads: int, problem: Problem, steps: int, stream: int) -> DeepLinearState:
    import torch

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(stream)
    layers = [
        torch.tensor(np.asarray(w)).requires_grad_() for w in np.moveaxis(np.asarray(problem.starts.layers), 1, 0)
    ]
    decoder = torch.tensor(np.asarray(problem.starts.decoder)).requires_grad_()
    x_g, y_g, y_h = (torch.tensor(np.asarray(block)).T for block in jax.tree.leaves(joint_factor(problem.args.moments)))
    optimiser = torch.optim.SGD([*layers, decoder], lr=LEARNING_RATE)
    shape = (problem.seeds, problem.batch_size, x_g.shape[0])
    for _ in range(steps):
        g, h = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        own, other = g @ x_g, g @ y_g + h @ y_h
        for layer in layers:
            own = own @ layer.mT
        with torch.no_grad():
            for layer in layers:
                other = other @ layer.mT
        loss = ((own @ decoder.mT - other) ** 2).sum() / (2 * problem.batch_size)  # seeds do not meet: a sum over them
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return DeepLinearState(np.stack([w.detach().numpy() for w in layers], 1), decoder.detach().numpy())


def routes() -> list[Route]:
    """All routes; PyTorch where it is installed."""
    found = [
        Route("plain_jax", "plain JAX, autodiff on pairs", _plain_jax, "same", "jit, fori_loop, vmap over seeds"),
        Route("population", "train, population moments", partial(_library, None), "none"),
        Route("covariances", "train, GaussianBatches", partial(_library, GaussianBatches), "same"),
        Route("wishart", "train, WishartBatches", partial(_library, WishartBatches), "own"),
    ]
    if importlib.util.find_spec("torch"):  # threads that wait for each other suffer most from other work on the machine
        for threads in sorted({1, num_cores()}):
            found.append(
                Route(
                    f"plain_torch_{threads}",
                    f"plain PyTorch, autodiff on pairs, {threads} thread{'s' if threads > 1 else ''}",
                    partial(_plain_torch, threads),
                    "own",
                    "eager, a batched product over seeds",
                )
            )
    return found
