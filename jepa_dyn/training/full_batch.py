"""Full-batch training of any encoder on view pairs: any loss of the embeddings, any optax optimiser, spectra logged on a schedule.

    theta <- theta - learning rate x gradient of loss(Z, Z'),    Z = f_theta(x_1 .. x_n), Z' = f_theta(x'_1 .. x'_n)

The steps are those of `solve.train`, with the gradient of the loss in place of a flow: the same optimisers, the same clock
t = steps x learning rate, the same statuses.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require_finite, require_not_empty
from jepa_dyn._progress import progress_bar
from jepa_dyn.metrics.embedding_spectra import cross_correlation_eigenvalues
from jepa_dyn.solve._tolerances import state_dtype
from jepa_dyn.solve._training_arguments import DIVERGED_ABOVE, check_optimiser, checked_steps, optimiser_name
from jepa_dyn.solve.descent import Run, Task, begin, hashable_optimiser, observed, step
from jepa_dyn.solve.training_result import TrainingRuns, training_runs

Loss = Callable[[Any, Any], Any]
Observe = Callable[[Any, Array, Array], dict[str, Any]]
_CHUNK = 16  # saves per call of the compiled program, which so does not depend on how many there are


def embed_pairs(
    encoder: Callable, x: Float[Array, "n m"], y: Float[Array, "n m"]
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """(Z, Z'): embeddings of both views of n pairs, in one pass of all 2n."""
    both = jax.vmap(encoder)(jnp.concatenate([x, y]))
    return both[: x.shape[0]], both[x.shape[0] :]


def embedding_spectrum(encoder: Callable, x: Float[Array, "n m"], y: Float[Array, "n m"]) -> dict[str, Array]:
    """The default of `observe`: `eigenvalues` (d,) of the cross-correlation C of the embeddings, largest first."""
    return {"eigenvalues": cross_correlation_eigenvalues(*embed_pairs(encoder, x, y))}


def train_full_batch(
    encoder: Any,
    x: ArrayLike,
    y: ArrayLike,
    loss: Loss,
    steps: ArrayLike | Sequence[Any],
    *,
    learning_rate: ArrayLike | None = None,
    optimiser: Any = optax.sgd,
    observe: Observe = embedding_spectrum,
    diverged_above: ArrayLike = DIVERGED_ABOVE,
    progress: bool = False,
) -> TrainingRuns:
    """Trains an encoder on all pairs at once and logs the loss and what `observe` returns at the saved steps.

    One run; for many, `equinox.filter_vmap` over keys, encoders or learning rates:
    `filter_vmap(lambda key: train_full_batch(one_hidden_layer_encoder(key, m, d), x, y, loss, steps, learning_rate=0.1))(keys)`.

    Args:
        encoder: any `equinox.Module` that maps one view (m,) to its embedding (d,); its inexact arrays are trained.
        x, y: (n, m) the views, row i of both is one pair; taken in the dtype of the encoder.
        loss: (Z, Z') -> number, for example `losses.barlow_twins_loss`. A module-level function, or a `functools.partial` of one
            with numbers, is compiled once.
        steps: (T,) numbers of steps after which to log, whole, >= 0, increasing; the last is the length of the run.
        learning_rate, optimiser: as in `solve.train`.
        observe: (encoder, x, y) -> dict of arrays, logged beside `loss`.
        diverged_above: a run whose largest parameter exceeds this is flagged `diverged` at that step; NaN is `non_finite`.
        progress: shows a bar.

    Returns:
        `TrainingRuns`: `ts` the steps, `ys` a dict of `loss` (T,) and of what was observed (T, ...), NaN from the step at which a
        run failed; `status`, `failed_at`; `final` the encoder after the last step (of a failed run, the last acceptable one); `y0`
        its parameters at the start. `flow_times` = steps x learning rate.

    Raises:
        ValueError, TypeError: a bad argument, before tracing. A run that diverges is flagged, never raised.
    """
    check_optimiser(optimiser, learning_rate, diverged_above)
    saved = checked_steps(steps)
    parameters, rest = eqx.partition(encoder, eqx.is_inexact_array)
    if not callable(encoder) or not jax.tree.leaves(parameters):
        raise TypeError(
            f"Argument `encoder` must be a callable equinox.Module with parameters, but has type {type(encoder).__name__}."
        )
    for path, leaf in jax.tree_util.tree_flatten_with_path(parameters)[0]:
        require_finite("encoder" + jax.tree_util.keystr(path), leaf)
    dtype = state_dtype(parameters)
    x, y = _views(x, y, dtype)
    problem = _Problem(x, y, rest, hashable_optimiser(loss))
    _require_number(problem, parameters)
    rate = jnp.asarray(jnp.nan if learning_rate is None else learning_rate, dtype)
    task = Task(_descent, hashable_optimiser(optimiser), problem, rate, jnp.asarray(diverged_above, dtype))
    run, ys = _train(task, hashable_optimiser(observe), parameters, np.asarray(saved), progress)
    final = Run(eqx.combine(run.y, rest), run.memory, run.status, run.failed_at)
    return training_runs(saved, ys, final, parameters, None, rate, f"{optimiser_name(task.optimiser)}, full batch")


class _Problem(eqx.Module):
    """What a run is trained on: the pairs, the encoder without its parameters, the loss."""

    x: Array
    y: Array
    rest: Any
    loss: Loss


def _loss(parameters: Any, problem: _Problem) -> Array:
    return problem.loss(*embed_pairs(eqx.combine(parameters, problem.rest), problem.x, problem.y))


def _descent(t: Any, parameters: Any, problem: _Problem) -> Any:
    """The gradient flow of the loss: what `solve.descent` calls a flow."""
    return jax.tree.map(jnp.negative, jax.grad(_loss)(parameters, problem))


def _train(task: Task, observe: Observe, parameters: Any, saved: np.ndarray, progress: bool) -> tuple[Run, Any]:
    """The run after the last step, and what was logged."""
    ends = np.stack([np.concatenate([[0], saved[:-1]]), saved], axis=1).astype(np.int32)
    run, logged = _begin(task, parameters), []
    chunks = [ends[first : first + _CHUNK] for first in range(0, len(ends), _CHUNK)]
    for chunk in progress_bar(chunks, int(saved[-1]), show=progress, weight=lambda one: int(one[-1, 1] - one[0, 0])):
        # filled up with stretches of no step
        filled = np.concatenate([chunk, np.full((_CHUNK - len(chunk), 2), chunk[-1, 1], np.int32)])
        run, values = _advance(task, observe, run, jnp.asarray(filled))
        if progress and not is_traced(values):
            jax.block_until_ready(values)
        logged.append(values)
    return run, jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(saved)], *logged)


_begin = eqx.filter_jit(begin)


@eqx.filter_jit
def _advance(task: Task, observe: Observe, run: Run, ends: Array) -> tuple[Run, Any]:
    def log(parameters: Any, problem: _Problem) -> dict[str, Any]:
        encoder = eqx.combine(parameters, problem.rest)
        return {"loss": _loss(parameters, problem)} | observe(encoder, problem.x, problem.y)

    def segment(run: Run, bounds: Array) -> tuple[Run, Any]:
        run = jax.lax.fori_loop(bounds[0], bounds[1], lambda number, run: step(task, run, number, None), run)
        return run, observed(task, run, log)

    return jax.lax.scan(segment, run, ends)


def _views(x: ArrayLike, y: ArrayLike, dtype: np.dtype) -> tuple[Array, Array]:
    x, y = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(
            f"Arguments `x` and `y` must have one shape (n, m), one pair per row, but have {x.shape}, {y.shape}."
        )
    for name, value in (("x", x), ("y", y)):
        require_not_empty(name, value)
        require_finite(name, value)
    return x, y


def _require_number(problem: _Problem, parameters: Any) -> None:
    found = eqx.filter_eval_shape(_loss, parameters, problem)
    if getattr(found, "shape", None) != ():
        raise ValueError(f"Argument `loss` must return one number, but returns {found}.")
