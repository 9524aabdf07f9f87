"""What is logged of a run: loss, spectra of embeddings and hidden layers, a linear probe, the length of the last step.

The probe is ridge regression to the labels in closed form, solved anew at every logged step. Beside a classifier that is trained
along, it costs nothing in the steps between, has no learning rate to tune, and is what the features of that very step allow,
however fast they move; a classifier trained along lags behind them.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jepa_dyn.metrics.embedding_spectra import covariance_eigenvalues, cross_correlation_eigenvalues
from jepa_dyn.status import Status
from jepa_dyn.training.image_data import ProbeData
from jepa_dyn.training.layers import BATCH_AXIS
from jepa_dyn.training.step import Lane, NetworkRun, Setup, network_of, objective


def observe_run(
    setup: Setup, lane: Lane, probe: ProbeData | None, own: Callable | None, spectra: bool, run: NetworkRun, views: Any
) -> dict[str, Array]:
    """Everything that is logged of these views, NaN where the run has failed.

    - `loss`, `increment`, `parameter_norm`.
    - `eigenvalues`: of the cross-correlation of the embeddings; `covariance_eigenvalues`: of their covariance over both views.
    - `hidden_NAME`: eigenvalues of the covariance of a hidden layer over the first views.
    - `correlation_eigenvalues`: of what a `DirectPredictor` is made of.
    - `probe_accuracy`, `probe_train_accuracy`.
    - what `own(network, statistics, views)` returns.
    """
    network = network_of(setup, run)
    loss, outcome = objective(setup, lane, run, views, run.parameters)
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(run.parameters)))
    found = {"loss": loss, "increment": run.increment, "parameter_norm": norm}
    if spectra:
        found |= _spectra(network, outcome.embeddings, views[0], run)
    if probe is not None:
        found |= _probe(setup, lane, network, probe, run)
    if own is not None:
        found |= own(network, run.statistics, views)
    alive = run.status == Status.ok
    return {name: _blank(value, alive) for name, value in found.items()}


def _blank(value: Any, alive: Array) -> Array:
    value = jnp.asarray(value)
    value = value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.result_type(float))
    return jnp.where(alive, value, jnp.nan)


def _spectra(network: Any, embeddings: tuple[Array, Array], x: Array, run: NetworkRun) -> dict[str, Array]:
    found = {
        "eigenvalues": cross_correlation_eigenvalues(*embeddings),
        "covariance_eigenvalues": covariance_eigenvalues(jnp.concatenate(embeddings)),
    }
    if run.memory.correlation is not None:
        found["correlation_eigenvalues"] = jnp.linalg.eigvalsh(run.memory.correlation)[::-1]
    if hasattr(network, "hidden_layers"):
        layers = jax.vmap(network.hidden_layers, (0, None), axis_name=BATCH_AXIS)(x, run.statistics)
        found |= {f"hidden_{name}": covariance_eigenvalues(value) for name, value in layers.items()}
    return found


def _probe(setup: Setup, lane: Lane, network: Any, probe: ProbeData, run: NetworkRun) -> dict[str, Array]:
    still = eqx.nn.inference_mode(network)

    def features(samples: Array) -> Array:
        rows = samples if lane.views is None else jax.vmap(lane.views.plain)(samples)
        return jax.vmap(still.representation, (0, None), axis_name=BATCH_AXIS)(rows, run.statistics)

    train, test = features(probe.train), features(probe.test)
    scores = ridge_scores(train, probe.train_labels, jnp.concatenate([train, test]), probe.classes, probe.ridge)
    hits = jnp.argmax(scores, axis=1) == jnp.concatenate([probe.train_labels, probe.test_labels])
    accuracies = jnp.mean(hits[: len(train)]), jnp.mean(hits[len(train) :])
    return {"probe_train_accuracy": accuracies[0], "probe_accuracy": accuracies[1]}


def ridge_scores(
    features: Float[Array, "n r"], labels: Int[Array, " n"], at: Float[Array, "k r"], classes: int, ridge: Array
) -> Float[Array, "k classes"]:
    """Scores of the classes at other features: ridge regression to one-hot labels, both centred.

    The penalty is `ridge` times the largest mean square of a direction at most, the trace of the covariance, and so knows no scale;
    features that are all equal score every class by its frequency. Solved in the smaller of samples and features.
    """
    mean = jnp.mean(features, axis=0)
    goals = jax.nn.one_hot(labels, classes, dtype=features.dtype)
    share = jnp.mean(goals, axis=0)
    centred, other = features - mean, at - mean
    size = jnp.sqrt(jnp.mean(jnp.sum(centred**2, axis=1)))
    size = jnp.where(size == 0, 1.0, size)
    centred, other, goals = centred / size, other / size, goals - share
    n, r = centred.shape
    if n < r:
        weights = _solve(centred @ centred.T / n, ridge, goals / n)
        return other @ (centred.T @ weights) + share
    return other @ _solve(centred.T @ centred / n, ridge, centred.T @ goals / n) + share


def _solve(gram: Array, ridge: Array, right: Array) -> Array:
    regular = gram + ridge * jnp.eye(len(gram), dtype=gram.dtype)
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(regular), right)
