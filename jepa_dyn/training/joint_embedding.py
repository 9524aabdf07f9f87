"""Two branches on two views: encoder, projector, predictor, and a target: the other branch, a moving average of it, or the input.

    z = projector(encoder(x)),   prediction p = predictor(z),   target q = z', of the same or averaged weights, or x'

A predictor is any network, or `DirectPredictor`, the closed form of a moving average of the correlation of the embeddings.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_dyn._checks import require_choice
from jepa_dyn.losses import LOSSES, RepresentationLoss, enqueue, key_queue, representation_loss
from jepa_dyn.losses.predictor import predictor_matrix
from jepa_dyn.training.layers import apply_layer, over_views
from jepa_dyn.training.networks import StagedNetwork

TARGETS = ("online", "stop_gradient", "ema", "input")


class Target(NamedTuple):
    """The moving average of a network, with statistics of its own."""

    network: Any
    statistics: Any


class Memory(NamedTuple):
    """What a run remembers of earlier batches: the correlation for `DirectPredictor`, a queue of keys for MoCo."""

    correlation: Any = None
    queue: Any = None


class Outcome(NamedTuple):
    """What a loss was computed from and leaves behind: embeddings of both views, statistics of both branches, memory."""

    embeddings: tuple[Array, Array]
    statistics: Any
    target_statistics: Any
    memory: Memory


class DirectPredictor(eqx.Module):
    """The closed-form predictor W_P = U diag(s^exponent) U^T of the correlation U diag(s) U^T of the embeddings.

    The correlation is E[z z^T], not centred, of both views; it moves C <- momentum C + (1 - momentum) C_batch before it is used,
    from that of the first evaluation pairs on. exponent 1/2 is DirectPred, 1 DirectCopy. `ridge` times the largest eigenvalue is
    added to the diagonal of W_P; DirectPred's own programme does so, the papers here do not.

    Source: Halvagal 2023, (1), appendix D (momentum 0.998); Tian 2021.
    """

    exponent: float = eqx.field(static=True, default=0.5)
    momentum: float = eqx.field(static=True, default=0.998)
    ridge: float = eqx.field(static=True, default=0.0)

    def __post_init__(self):
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"Argument `momentum` must lie between 0 and 1, but is {self.momentum}.")
        for name in ("exponent", "ridge"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"Argument `{name}` must be finite and >= 0, but is {getattr(self, name)}.")

    def matrix(self, correlation: Float[Array, "d d"]) -> Float[Array, "d d"]:
        """W_P, held fixed."""
        exponent = None if self.exponent == 1 else jnp.asarray(self.exponent, correlation.dtype)
        matrix = predictor_matrix(correlation, exponent)
        if self.ridge:
            matrix = matrix + self.ridge * jnp.linalg.norm(matrix, 2) * jnp.eye(len(matrix), dtype=matrix.dtype)
        return jax.lax.stop_gradient(matrix)


class JointEmbedding(eqx.Module):
    """Encoder, projector and predictor, and how the two views are held against each other.

    - `encoder`: any module from a flat view (m,) to a representation, with its statistics where it carries some (see `layers`).
    - `projector`: from the representation to the embedding z; None: z is the representation.
    - `predictor`: from z to the prediction; None: the prediction is z. With target "input" the decoder.
    - `target`: "online": the other embedding, with its gradient (a loss of the zoo may still hold it fixed); "stop_gradient";
      "ema": of the moving average of encoder and projector; "input": the other view itself, as in a masked autoencoder.
    - `symmetric`: take the loss in both directions, from x to y and from y to x. For losses of "views" without a predictor and with
      target "online" there is one direction only; those with a queue or target "input" go from x to y.
    - `queue_size`: of the queue of a loss that has one (MoCo).
    """

    encoder: Any
    projector: Any = None
    predictor: Any = None
    target: str = eqx.field(static=True, default="online")
    symmetric: bool = eqx.field(static=True, default=True)
    queue_size: int = eqx.field(static=True, default=0)

    def __post_init__(self):
        require_choice("target", self.target, TARGETS)
        if self.target == "input" and self.predictor is None:
            raise ValueError("Argument `predictor` must be the decoder where the target is 'input', but is None.")

    @property
    def trunk(self) -> StagedNetwork:
        """Encoder and projector: what a target is an average of."""
        parts = (self.encoder,) if self.projector is None else (self.encoder, self.projector)
        return StagedNetwork(parts, ("representation", "embedding")[-len(parts) :])

    def moving_part(self) -> Any:
        """The part whose moving average is the target; None where there is none."""
        return self.trunk if self.target == "ema" else None

    def representation(self, x: Array, statistics: Any) -> Array:
        """What a probe reads out: the encoder's output for one view."""
        return apply_layer(self.encoder, x, statistics)[0]

    def hidden_layers(self, x: Array, statistics: Any) -> dict[str, Array]:
        """Hidden layers of encoder and projector for one view, and between them the representation."""
        found = _hidden_layers(self.encoder, x, statistics)
        if self.projector is None:
            return found
        middle, statistics = apply_layer(self.encoder, x, statistics)
        inner = {
            f"projector_{name}": value for name, value in _hidden_layers(self.projector, middle, statistics).items()
        }
        return found | {"representation": middle} | inner

    def first_memory(self, statistics: Any, views: tuple[Any, ...]) -> Memory:
        """What a run starts with: an empty queue, and for `DirectPredictor` the correlation of these views."""
        z, other, _ = over_views(self.trunk, views[0], views[1], statistics)
        known = correlation((z, other)) if isinstance(self.predictor, DirectPredictor) else None
        return Memory(known, key_queue(self.queue_size, z.shape[1], z.dtype))

    def objective(
        self, loss: Any, statistics: Any, target: Target | None, memory: Memory, views: tuple[Any, ...]
    ) -> tuple[Array, Outcome]:
        """The loss of a batch of views, and what it leaves behind."""
        x, y, *hidden = views
        apart = not self.symmetric or self.target == "input" or loss_kind(loss) == "queue"
        z, other, statistics = over_views(self.trunk, x, y, statistics, apart)
        if target is None:
            goals, target_statistics = (z, other), None
            if self.target == "stop_gradient":
                goals = jax.lax.stop_gradient(goals)
        else:
            *found, target_statistics = over_views(target.network, x, y, target.statistics, apart)
            goals = jax.lax.stop_gradient(tuple(found))
        matrix, memory = self._matrix(loss, (z, other), memory)
        predictions = (z, other)
        if isinstance(loss, RepresentationLoss):  # which applies the predictor itself
            pass
        elif isinstance(self.predictor, DirectPredictor):
            predictions = (z @ matrix.T, other @ matrix.T)
        elif self.predictor is not None:
            *predictions, statistics = over_views(self.predictor, z, other, statistics, apart)
        value, memory = self._value(loss, predictions, goals, matrix, memory, (y, *hidden))
        return value, Outcome((z, other), statistics, target_statistics, memory)

    def _value(
        self,
        loss: Any,
        predictions: Any,
        goals: Any,
        matrix: Any,
        memory: Memory,
        inputs: Any,
    ) -> tuple[Array, Memory]:
        """(the loss, memory): of predictions and goals of both views, or the second view itself and what of it was hidden."""
        kind = loss_kind(loss)
        if self.target == "input":
            options = {"hidden": inputs[1]} if kind == "pixels" and len(inputs) > 1 else {}
            return loss(predictions[0], inputs[0], **options), memory
        if kind == "queue":
            value = loss(predictions[0], goals[1], memory.queue)
            return value, memory._replace(queue=enqueue(memory.queue, goals[1]))
        call = _in_one_direction(loss, kind, matrix)
        value = call(predictions[0], goals[1])
        plain = self.target == "online" and self.predictor is None
        both_at_once = kind == "views" and plain and not isinstance(loss, RepresentationLoss)
        if self.symmetric and not both_at_once:
            value = direction_weight(loss) * (value + call(predictions[1], goals[0]))
        return value, memory

    def _matrix(self, loss: Any, embeddings: tuple[Array, Array], memory: Memory) -> tuple[Any, Memory]:
        """(W_P where the predictor is a matrix that is asked for, memory)."""
        if isinstance(self.predictor, DirectPredictor):
            now = correlation(embeddings)
            if memory.correlation is not None:
                momentum = self.predictor.momentum
                now = momentum * memory.correlation + (1 - momentum) * now
            return self.predictor.matrix(now), memory._replace(correlation=now)
        if isinstance(loss, RepresentationLoss) and loss.predictor:
            return linear_weight(self.predictor), memory
        return None, memory


def correlation(embeddings: tuple[Array, Array]) -> Float[Array, "d d"]:
    """E[z z^T] over the embeddings of both views, held fixed."""
    both = jax.lax.stop_gradient(jnp.concatenate(embeddings))
    return both.T @ both / len(both)


def linear_weight(predictor: Any) -> Array:
    """W of a linear predictor without bias.

    Raises:
        ValueError: anything else.
    """
    stages = predictor.stages if isinstance(predictor, StagedNetwork) else ()
    stage = getattr(stages[0], "linear", None) if len(stages) == 1 else predictor
    if not isinstance(stage, eqx.nn.Linear) or stage.bias is not None:
        raise ValueError(
            "Argument `predictor` must be a `DirectPredictor` or linear without bias for a RepresentationLoss with a predictor, "
            f"but is {type(predictor).__name__}."
        )
    return stage.weight


def _hidden_layers(network: Any, x: Array, statistics: Any) -> dict[str, Array]:
    return network.hidden_layers(x, statistics) if hasattr(network, "hidden_layers") else {}


def _in_one_direction(loss: Any, kind: str, matrix: Any) -> Callable[[Array, Array], Array]:
    if isinstance(loss, RepresentationLoss):
        return lambda prediction, goal: representation_loss(loss, prediction, goal, matrix)
    if kind == "scales":
        return lambda prediction, goal: loss((prediction,), (goal,))
    return loss


def _function(loss: Any) -> Any:
    return loss.func if isinstance(loss, functools.partial) else loss


def loss_kind(loss: Any) -> str:
    """What a loss takes, a key of `losses.zoo.INPUTS`; one that is not of the zoo takes two arrays: "views"."""
    return next((entry.inputs for entry in LOSSES.values() if entry.function is _function(loss)), "views")


def direction_weight(loss: Any) -> float:
    """Of each of the two directions: that of the zoo for its losses of a prediction, else 1/2, which makes it a mean."""
    weights = [
        entry.direction_weight
        for entry in LOSSES.values()
        if entry.function is _function(loss) and entry.inputs == "prediction"
    ]
    return weights[0] if weights else 0.5


__all__ = [
    "TARGETS",
    "DirectPredictor",
    "JointEmbedding",
    "Memory",
    "Outcome",
    "Target",
    "direction_weight",
    "loss_kind",
]
