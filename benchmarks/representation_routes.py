"""Ways to follow the eigenvalues of C_z under the losses of Halvagal 2023: the library's modes, and the loops one writes.

All take the weights of many linear networks to the eigenvalues of C_z = W W^T at the saved times of the gradient flow on the
population: numpy in, numpy out. The loops draw fresh pairs at every step,

    x = s + sigma xi,  y = s + sigma xi',   z = W x, z' = W y,   p = W W^T z held,   W -= h grad_W mean L(p, z')

and differentiate by autodiff, but for numpy's. Their steps have an error of the order of h, their batches one of
(h / batch)^(1/2): `choose_settings` finds the longest steps and the smallest batches that are as good as was asked.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jepa_dyn.flows import RepresentationModes, representation_mode_arguments, representation_modes
from jepa_dyn.losses import TABLE_1, representation_loss
from jepa_dyn.solve import ensemble, train

SIGMA = 0.1
SAVES = 20
# about where Table 1 ends; without stop gradient before rank 1, where drawn gradients have no finite variance
HORIZONS = {name: 150.0 if name.startswith("cosine") else 30.0 for name in TABLE_1}
HORIZONS |= {"euclidean_no_predictor": 150.0, "cosine_no_stop_gradient": 20.0}
# (relative and absolute tolerance, nodes): errors well below what is asked
LOOSE, TIGHT = (1e-3, 1e-5, 16), (1e-10, 1e-13, 64)
_STEPS_PER_SAVE = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200)
_BATCHES = tuple(2**k for k in range(4, 18))


class Settings(NamedTuple):
    """Of the loops: steps between saved times, pairs per step, and whether they are as good as was asked."""

    steps_per_save: int
    batch: int
    meets: bool


class Problem(NamedTuple):
    """One loss, W(0) of all runs (runs, M, N), entries ~ N(0, 1 / N)."""

    loss: str
    starts: np.ndarray

    def first(self, runs: int) -> "Problem":
        return Problem(self.loss, self.starts[:runs])

    @property
    def times(self) -> np.ndarray:
        return HORIZONS[self.loss] * np.arange(SAVES + 1) / SAVES


def make_problem(loss: str, runs: int, outputs: int, inputs: int) -> Problem:
    """Starts are the same for all losses, and for fewer runs the first of them."""
    draws = [np.random.default_rng([0, run]).normal(size=(outputs, inputs)) for run in range(runs)]
    return Problem(loss, np.stack(draws) / np.sqrt(inputs))


def spectra(weights: np.ndarray) -> np.ndarray:
    """Eigenvalues of W W^T, ascending; NaN where a loop has diverged."""
    finite = np.isfinite(weights).all(axis=(-2, -1), keepdims=True)
    values = np.linalg.svd(np.where(finite, weights, 0.0), compute_uv=False)[..., ::-1] ** 2
    return np.where(finite[..., 0], values, np.nan)


def errors(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Per run: largest distance of an eigenvalue from the reference at any saved time, over the mean eigenvalue at the start."""
    gap = np.abs(found - reference).max(axis=(1, 2)) / reference[:, 0].mean(axis=-1)
    return np.where(np.isfinite(gap), gap, np.inf)


def modes_of(problem: Problem, tolerances: tuple[float, float, int]) -> np.ndarray:
    """The flow of the modes, integrated: the library's way, and the reference where tolerances are tight."""
    rtol, atol, nodes = tolerances
    modes = problem.starts.shape[1]
    noisy = 1 + SIGMA**2
    one = representation_mode_arguments(modes, problem.loss, online=noisy, target=noisy, nodes=nodes)
    lanes = len(problem.starts)
    args = jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf), (lanes, *np.shape(leaf))), one)
    amplitudes = np.linalg.svd(problem.starts, compute_uv=False)
    runs = ensemble(
        representation_modes,
        RepresentationModes(amplitudes),
        args,
        problem.times,
        rtol=rtol,
        atol=atol,
        sort_key=None,
        threads=1,
    )
    return np.sort(np.asarray(runs.raise_if_failed().ys.encoder) ** 2, axis=-1)


def _amplitudes(y: Any, args: Any) -> Any:
    return y.encoder


def descended_modes(problem: Problem, settings: Settings) -> np.ndarray:
    """The modes by steps of gradient descent on the population: what the loops do, without their noise."""
    modes, noisy = problem.starts.shape[1], 1 + SIGMA**2
    steps = settings.steps_per_save * np.arange(SAVES + 1)
    runs = train(
        representation_modes,
        RepresentationModes(jnp.asarray(np.linalg.svd(problem.starts, compute_uv=False))),
        representation_mode_arguments(modes, problem.loss, online=noisy, target=noisy, nodes=LOOSE[2]),
        steps,
        learning_rate=HORIZONS[problem.loss] / steps[-1],
        observe=_amplitudes,
        threads=1,
    )
    return np.sort(np.asarray(runs.ys) ** 2, axis=-1)


def _loss(w: Any, x: Any, y: Any, loss: Any) -> Any:
    predictor = jax.lax.stop_gradient(w @ w.T)
    return representation_loss(loss, x @ w.T, y @ w.T, predictor if loss.predictor else None)


@partial(jax.jit, static_argnames=("loss", "batch"))
def _plain_jax_run(w: Any, key: Any, rate: Any, per_save: Any, loss: Any, batch: int) -> Any:
    optimiser = optax.sgd(rate)

    def one_step(number: Any, carry: tuple) -> tuple:
        w, memory = carry
        clean, *noise = jax.random.normal(jax.random.fold_in(key, number), (3, batch, w.shape[1]), w.dtype)
        x, y = (clean + SIGMA * one for one in noise)
        updates, memory = optimiser.update(jax.grad(_loss)(w, x, y, loss), memory)
        return optax.apply_updates(w, updates), memory

    def segment(carry: tuple, number: Any) -> tuple:
        carry = jax.lax.fori_loop(number * per_save, (number + 1) * per_save, one_step, carry)
        return carry, carry[0]

    _, saved = jax.lax.scan(segment, (w, optimiser.init(w)), jnp.arange(SAVES))
    return jnp.concatenate([w[None], saved])


def plain_jax(problem: Problem, settings: Settings, stream: int = 0) -> np.ndarray:
    """One run after another, jitted: autodiff on fresh pairs."""
    rate = HORIZONS[problem.loss] / (SAVES * settings.steps_per_save)
    paths = [
        _plain_jax_run(
            jnp.asarray(start, jnp.float32), jax.random.fold_in(jax.random.key(stream), run), jnp.float32(rate),
            settings.steps_per_save, TABLE_1[problem.loss], settings.batch,
        )
        for run, start in enumerate(problem.starts)
    ]  # fmt: skip
    return spectra(np.asarray(jnp.stack(paths), np.float64))


def _torch_loss(torch: Any, name: str, z: Any, other: Any, w: Any) -> Any:
    """Mean over the pairs, (3), (4), (12)-(17), as one writes them."""
    if not name.endswith("no_stop_gradient"):
        other = other.detach()
    p = z if name.endswith("no_predictor") else z @ (w @ w.T).detach()
    if name == "cosine_iso":
        size, far = p.norm(dim=1).detach(), other.norm(dim=1)
        weight = (p * other).sum(1).detach() / (size**3 * far)
        return (-(z * other).sum(1) / (size * far) + weight * (z * p).sum(1) / 2).mean()
    if name.endswith("iso"):
        p = z + (p - z).detach()
    if name.startswith("cosine"):
        return -torch.nn.functional.cosine_similarity(p, other).mean()
    return ((p - other) ** 2).sum(1).mean() / 2


def plain_torch(problem: Problem, settings: Settings, stream: int = 0) -> np.ndarray:
    """One run after another, eager: autodiff on fresh pairs, one thread."""
    import torch

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(stream)
    rate = HORIZONS[problem.loss] / (SAVES * settings.steps_per_save)
    paths = []
    for start in problem.starts:
        w = torch.tensor(start, dtype=torch.float32).requires_grad_()
        optimiser = torch.optim.SGD([w], lr=rate)
        saved = [start]
        for step in range(1, SAVES * settings.steps_per_save + 1):
            clean, first, second = torch.randn(3, settings.batch, start.shape[1], generator=generator)
            z, other = (clean + SIGMA * first) @ w.T, (clean + SIGMA * second) @ w.T
            loss = _torch_loss(torch, problem.loss, z, other, w)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step % settings.steps_per_save == 0:
                saved.append(w.detach().numpy().astype(np.float64))
        paths.append(np.stack(saved))
    return spectra(np.stack(paths))


def _slope(name: str, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient by W of the mean loss, by hand."""
    z, other = x @ w.T, y @ w.T
    c = w @ w.T
    p = z if name.endswith("no_predictor") else z @ c
    if name.startswith("euclidean"):
        by_p, by_other = p - other, other - p
    else:
        size, far = (np.linalg.norm(v, axis=1, keepdims=True) for v in (p, other))
        p, other = p / size, other / far
        cosine = np.sum(p * other, axis=1, keepdims=True)
        by_p, by_other = (cosine * p - other) / size, (cosine * other - p) / far
    by_z = by_p if name.endswith(("no_predictor", "iso")) else by_p @ c
    total = by_z.T @ x + (by_other.T @ y if name.endswith("no_stop_gradient") else 0)
    return total / len(x)


def plain_numpy(problem: Problem, settings: Settings, stream: int = 0) -> np.ndarray:
    """One run after another: gradients by hand on fresh pairs, float32."""
    rng = np.random.default_rng(stream)
    rate = np.float32(HORIZONS[problem.loss] / (SAVES * settings.steps_per_save))
    paths = []
    for start in problem.starts:
        w, saved = start.astype(np.float32), [start]
        for step in range(1, SAVES * settings.steps_per_save + 1):
            clean, first, second = rng.standard_normal((3, settings.batch, w.shape[1]), np.float32)
            w = w - rate * _slope(
                problem.loss, w, clean + np.float32(SIGMA) * first, clean + np.float32(SIGMA) * second
            )
            if step % settings.steps_per_save == 0:
                saved.append(w.astype(np.float64))
        paths.append(np.stack(saved))
    return spectra(np.stack(paths))


def choose_settings(problem: Problem, reference: np.ndarray, accuracy: float, largest: int) -> Settings:
    """The longest steps whose own error is at most half of the accuracy, then the smallest batch with which the median run of the
    JAX loop meets it; up to `largest` pairs.
    """
    per_save = _STEPS_PER_SAVE[-1]
    for candidate in _STEPS_PER_SAVE:
        if np.median(errors(descended_modes(problem, Settings(candidate, 0, False)), reference)) <= accuracy / 2:
            per_save = candidate
            break
    batches = [batch for batch in _BATCHES if batch <= largest]
    for batch in batches:
        settings = Settings(per_save, batch, True)
        if np.median(errors(plain_jax(problem, settings), reference)) <= accuracy:
            return settings
    return Settings(per_save, batches[-1], False)


@dataclass(frozen=True)
class Route:
    """One row of a table: `run(problem, settings)` gives eigenvalues (runs, times, M).

    - `loop`: draws pairs, one run after another; such routes are timed on `loop_runs` runs. `most`: runs of the others.
    """

    name: str
    describe: str
    run: Callable[[Problem, Settings], np.ndarray]
    loop: bool = False
    most: int | None = None

    def runs(self, options: Any) -> int:
        """How many runs a turn takes."""
        return options.loop_runs if self.loop else min(options.runs, self.most or options.runs)


def routes() -> list[Route]:
    """All routes; PyTorch where it is installed."""
    found = [
        Route("numpy", "numpy loop, gradients by hand", plain_numpy, True),
        Route("jax", "plain JAX loop, autodiff, jit", plain_jax, True),
        Route("train", "jepa_dyn modes, steps of the same length", descended_modes, most=64),
        Route("ours", "jepa_dyn modes, ensemble", lambda problem, _: modes_of(problem, LOOSE)),
    ]
    if importlib.util.find_spec("torch"):
        found.insert(0, Route("torch", "plain PyTorch loop, autodiff", plain_torch, True))
    return found
