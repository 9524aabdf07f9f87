"""Figure 2 of Ponce et al. 2025 in kind: plain gradient, SG and EMA on images, E and F, parameter increments, probe accuracy.

    E(theta, psi) = E_xy |g_psi(f_theta(x)) - f_theta(y)|_1 / n,    F(theta, psi, xi) the same with f_xi(y)

A perceptron on the digits that scikit-learn ships, or on labelled images by path, where the paper has V-JEPA on videos: the
procedures, the absolute error, the optimiser (AdamW, constant rate) and the line of alpha are the paper's; data, networks and the
number of steps are small. The regulariser is left out of E and F, as in the paper.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jepa_dyn._checks import require, require_nonnegative, require_positive
from jepa_dyn.metrics import effective_rank_of_eigenvalues
from jepa_dyn.moments import load_labelled_images
from jepa_dyn.papers import ponce2025_images_checks as claims
from jepa_dyn.papers._figure import PAPERS, whole, with_checks
from jepa_dyn.training import (
    Crop,
    GaussianNoise,
    JointEmbedding,
    MomentumSchedule,
    Standardise,
    TwoViews,
    linear_momentum,
    perceptron,
    train_networks,
)

if TYPE_CHECKING:
    import xarray

PROCEDURES = ("gradient", "sg", "ema")
WIDTH, OUTPUTS = 128, 64
CROP, NOISE = 0.75, 0.3  # side of a view in sides of the image, noise in standard deviations of the pixels
OBSERVED = {
    "E": "objective E",
    "F": "objective F",
    "encoder_increment": "length of the last step of θ",
    "predictor_increment": "length of the last step of ψ",
    "target_increment": "length of the last step of ξ",
    "probe_accuracy": "accuracy of a linear probe",
    "effective_rank": "effective rank of the embeddings",
}


def absolute_error(prediction: Float[Array, "n d"], target: Float[Array, "n d"]) -> Float[Array, ""]:
    """Mean absolute difference, with whatever gradients its arguments carry: l of (1), (2)."""
    return jnp.mean(jnp.abs(prediction - target))


class Remembering(eqx.Module):
    """A network that carries, as its statistics, the parameters that its last batch met: what increments are taken from."""

    network: JointEmbedding
    before: eqx.nn.StateIndex

    def moving_part(self) -> Any:
        return self.network.moving_part()

    def representation(self, x: Array, statistics: Any) -> Array:
        return self.network.representation(x, statistics)

    def objective(self, loss: Any, statistics: Any, target: Any, memory: Any, views: Any) -> tuple[Array, Any]:
        """The loss of the network, which is trained as if nothing were remembered."""
        value, outcome = self.network.objective(loss, statistics, target, memory, views)
        encoder, predictor = _parameters(self.network)
        goal = encoder if target is None else _flat(target.network)
        now = jax.lax.stop_gradient((encoder, predictor, goal))
        # a copy, because Equinox makes a state useless once it has been changed
        statistics = jax.tree.map(lambda leaf: leaf, outcome.statistics)
        return value, outcome._replace(statistics=statistics.set(self.before, now))


def _flat(module: Any) -> Array:
    return ravel_pytree(eqx.filter(module, eqx.is_inexact_array))[0]


def _parameters(network: JointEmbedding) -> tuple[Array, Array]:
    """(theta, psi)."""
    return _flat(network.trunk), _flat(network.predictor)


def siamese_network(key: Array, *, inputs: int, target: str) -> Remembering:
    """Encoder and predictor, each a perceptron with one hidden layer; one direction, from x to y, as in (1)."""
    first, second = jax.random.split(key)
    encoder = perceptron(first, inputs, OUTPUTS, widths=(WIDTH,))
    predictor = perceptron(second, OUTPUTS, OUTPUTS, widths=(OUTPUTS,))
    network = JointEmbedding(encoder, predictor=predictor, target=target, symmetric=False)
    theta, psi = _parameters(network)
    return Remembering(network, eqx.nn.StateIndex((theta, psi, theta)))


def _observed(network: Remembering, statistics: Any, views: Any) -> dict[str, Array]:
    """E, lengths of the last steps of theta and psi, and theta_t - xi_(t-1), which (1 - alpha_t) makes the step of xi."""
    own = network.network
    x, y = (jax.vmap(own.trunk)(view) for view in views)
    theta, psi = _parameters(own)
    before = statistics.get(network.before)
    return {
        "E": absolute_error(jax.vmap(own.predictor)(x), y),
        "encoder_increment": jnp.linalg.norm(theta - before[0]),
        "predictor_increment": jnp.linalg.norm(psi - before[1]),
        "gap": jnp.linalg.norm(theta - before[2]),
    }


def fig2(
    *,
    steps: int = 3000,
    seeds: int = 2,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.1,
    first_momentum: float = 0.99,
    last_momentum: float = 0.999,
    batch_size: int = 64,
    path: str = "",
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 2 in kind: E and F, increments and probe accuracy along training by plain gradient, SG and EMA.

    Args:
        steps: of the optimiser; the paper's run is of 300,000.
        seeds: runs of each procedure.
        learning_rate, weight_decay: of AdamW, > 0 and >= 0; the paper's are 1e-4 and 0.1.
        first_momentum, last_momentum: alpha of EMA rises from one to the other along a line, in [0, 1); the paper's are 0.998 and
            0.9996 over many more steps.
        batch_size: images per step, >= 2; the paper's is 1024.
        path: folder of labelled images (CIFAR-10, CIFAR-100, STL-10, or one subfolder per class); "": scikit-learn's digits.
        full: ten times the steps with a tenth of the learning rate, and the paper's alpha.
        key: first seed.

    Returns:
        Dataset over (procedure, seed, step): E, F, lengths of the last steps of theta, psi, xi, accuracy of a linear probe on
        images that were not trained on, effective rank of the embeddings. xi of the plain gradient is NaN, of SG it is theta.

    Raises:
        ValueError: an option out of range; a path that holds no labelled images.

    Source: Ponce 2025, Figure 2, section 3.3; lemma 4.3 for the plain gradient.
    """
    import xarray

    count = whole("seeds", seeds, 1)
    total, batch = whole("steps", steps, 20), whole("batch_size", batch_size, 2)
    require_positive("learning_rate", learning_rate)
    require_nonnegative("weight_decay", weight_decay)
    for name, value in (("first_momentum", first_momentum), ("last_momentum", last_momentum)):
        require(name, value, "lie in [0, 1)", lambda a: (a >= 0) & (a < 1))
    if full:
        total, learning_rate, first_momentum, last_momentum = 10 * total, learning_rate / 10, 0.998, 0.9996
    (images, labels), test = (load_labelled_images(path or None, split=split) for split in ("train", "test"))
    images = np.asarray(images)
    side = max(1, round(CROP * min(images.shape[1:3])))
    change = (Standardise(float(images.mean()), float(images.std())), Crop(side), GaussianNoise(NOISE))
    saved = np.unique(np.linspace(0, total, 121).astype(int))
    options = {
        "views": TwoViews(change), "batch_size": batch, "learning_rate": learning_rate, "log_every": saved, "observe": _observed,
        "optimiser": partial(optax.adamw, weight_decay=weight_decay), "labels": labels, "test": test, "progress": True,
    }  # fmt: skip
    inputs, drawn = side**2 * images.shape[3], int(key) + np.arange(count)
    # SG is EMA with alpha = 0, so that both are lanes of one program
    ends = np.repeat([[0.0, first_momentum], [0.0, last_momentum]], count, axis=1)
    schedule = linear_momentum(*ends, steps=total)
    found = [
        train_networks(
            partial(siamese_network, inputs=inputs, target=target),
            images,
            absolute_error,
            total,
            seeds=np.tile(drawn, copies),
            target_momentum=momentum,
            **options,
        )
        for target, copies, momentum in (("online", 1, 0.0), ("ema", 2, schedule))
    ]
    logs = {name: np.concatenate([np.asarray(run.ys[name], float) for run in found]) for name in found[0].ys}
    logs["target_increment"] = logs.pop("gap") * (1 - _momenta(schedule, saved, count))
    logs["F"] = np.where(np.isnan(logs["target_increment"]), np.nan, logs["loss"])
    logs["effective_rank"] = np.asarray(effective_rank_of_eigenvalues(logs["covariance_eigenvalues"]))
    for name in ("encoder_increment", "predictor_increment", "target_increment"):
        logs[name][:, 0] = np.nan  # no step has been taken
    place = ("procedure", "seed", "step")
    variables = {
        name: (place, logs[name].reshape(len(PROCEDURES), count, -1), {"long_name": text})
        for name, text in OBSERVED.items()
    }
    status = np.concatenate([np.asarray(run.status) for run in found]).reshape(len(PROCEDURES), count)
    variables["status"] = (place[:2], status, {"long_name": "outcome, see jepa_dyn.Status"})
    coords = {
        "procedure": list(PROCEDURES),
        "seed": drawn,
        "step": ("step", saved, {"long_name": "steps of the optimiser"}),
    }
    frequencies = np.bincount(np.asarray(test[1])) / len(test[1])
    attrs = {
        "learning_rate": learning_rate, "weight_decay": weight_decay, "batch_size": batch, "images": len(images),
        "alpha": [first_momentum, last_momentum], "most_frequent_class": float(frequencies.max()),
        "data": path or "scikit-learn's digits",
    }  # fmt: skip
    dataset = xarray.Dataset(variables, coords, attrs)
    return with_checks(dataset, claims.fig2_checks(dataset), paper=PAPERS["ponce2025"], figure="2, in kind")


def _momenta(schedule: MomentumSchedule, saved: np.ndarray, count: int) -> np.ndarray:
    """alpha_t of every lane at the saved steps; NaN for the plain gradient, which has no xi."""
    rest = np.asarray(jax.vmap(schedule)(jnp.asarray(saved))).T
    return np.concatenate([np.full((count, len(saved)), np.nan), rest])
