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
from jepa_dyn.papers._figure import PAPERS, in_float32, whole, with_checks
from jepa_dyn.training import (
    Crop,
    GaussianNoise,
    Standardise,
    TwoViews,
    linear_momentum,
    perceptron,
    train_networks,
)
from jepa_dyn.training.joint_embedding import Outcome

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


def procedure_loss(
    prediction: Float[Array, "n d"], own: Float[Array, "n d"], held: Float[Array, "n d"], *, plain: Float[Array, ""]
) -> Float[Array, ""]:
    """E where `plain` is 1: the goal is f_theta(y) with its gradient; F where it is 0: the goal is f_xi(y), held fixed."""
    return absolute_error(prediction, plain * own + (1 - plain) * jax.lax.stop_gradient(held))


class SiameseNetwork(eqx.Module):
    """Encoder f_theta and predictor g_psi with the moving average f_xi, trained in one direction, from x to y.

    Its statistics are (theta, psi, xi) as the last batch met them: what increments are taken from.
    """

    encoder: Any
    predictor: Any
    before: eqx.nn.StateIndex

    def moving_part(self) -> Any:
        """What xi is an average of."""
        return self.encoder

    def representation(self, x: Array, statistics: Any) -> Array:
        """What the probe reads out."""
        return self.encoder(x)

    def objective(self, loss: Any, statistics: Any, target: Any, memory: Any, views: Any) -> tuple[Array, Outcome]:
        """The loss of a batch, and the parameters that it met."""
        z, own = (jax.vmap(self.encoder)(view) for view in views)
        held = jax.vmap(target.network)(views[1])
        value = loss(jax.vmap(self.predictor)(z), own, held)
        now = jax.lax.stop_gradient((_flat(self.encoder), _flat(self.predictor), _flat(target.network)))
        # a copy, because Equinox makes a state useless once it has been changed
        met = jax.tree.map(lambda leaf: leaf, statistics).set(self.before, now)
        return value, Outcome((z, own), met, target.statistics, memory)


def _flat(module: Any) -> Array:
    return ravel_pytree(eqx.filter(module, eqx.is_inexact_array))[0]


def siamese_network(key: Array, *, inputs: int) -> SiameseNetwork:
    """Encoder and predictor, each a perceptron with one hidden layer."""
    first, second = jax.random.split(key)
    encoder = in_float32(perceptron(first, inputs, OUTPUTS, widths=(WIDTH,)))
    predictor = in_float32(perceptron(second, OUTPUTS, OUTPUTS, widths=(OUTPUTS,)))
    return SiameseNetwork(encoder, predictor, eqx.nn.StateIndex((_flat(encoder), _flat(predictor), _flat(encoder))))


def _observed(network: SiameseNetwork, statistics: Any, views: Any) -> dict[str, Array]:
    """E, lengths of the last steps of theta and psi, and of theta_t - xi_(t-1), which 1 - alpha_t makes the step of xi."""
    x, y = (jax.vmap(network.encoder)(view) for view in views)
    theta, psi, xi = statistics.get(network.before)
    return {
        "E": absolute_error(jax.vmap(network.predictor)(x), y),
        "encoder_increment": jnp.linalg.norm(_flat(network.encoder) - theta),
        "predictor_increment": jnp.linalg.norm(_flat(network.predictor) - psi),
        "gap": jnp.linalg.norm(_flat(network.encoder) - xi),
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
        path: folder of CIFAR-10, CIFAR-100 or STL-10 files, which have test images; "": scikit-learn's digits.
        full: ten times the steps with a tenth of the learning rate, and the paper's alpha.
        key: first seed.

    Returns:
        Dataset over (procedure, seed, step): E, F, lengths of the last steps of theta, psi, xi, accuracy of a linear probe on
        images that were not trained on, effective rank of the embeddings. xi is theta but for EMA.

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
    saved = np.unique(np.linspace(0, total, 101).astype(int))
    # one lane per procedure and seed; SG is EMA with alpha = 0, and so are, with no use of xi, the lanes of the plain gradient
    ends = np.repeat([[0.0, 0.0, first_momentum], [0.0, 0.0, last_momentum]], count, axis=1)
    drawn = int(key) + np.arange(count)
    run = train_networks(
        jax.tree_util.Partial(siamese_network, inputs=side**2 * images.shape[3]),
        images,
        partial(procedure_loss, plain=jnp.repeat(jnp.array([1.0, 0.0, 0.0]), count)),
        total,
        views=TwoViews(change),
        seeds=np.tile(drawn, len(PROCEDURES)),
        batch_size=batch,
        learning_rate=learning_rate,
        optimiser=partial(optax.adamw, weight_decay=weight_decay),
        target_momentum=linear_momentum(*ends, steps=total),
        log_every=saved.tolist(),
        observe=_observed,
        labels=labels,
        test=test,
        progress=True,
    )
    logs = {name: np.array(values, float) for name, values in run.ys.items()}
    logs["F"] = logs["loss"]
    alphas = np.stack([jax.vmap(linear_momentum(*own, steps=total))(jnp.asarray(saved)) for own in ends.T])
    logs["target_increment"] = logs["gap"] * (1 - alphas)
    logs["effective_rank"] = np.asarray(effective_rank_of_eigenvalues(logs["covariance_eigenvalues"]))
    for name in ("encoder_increment", "predictor_increment", "target_increment"):
        logs[name][:, 0] = np.nan  # no step has been taken
    place = ("procedure", "seed", "step")
    variables: dict[str, Any] = {
        name: (place, logs[name].reshape(len(PROCEDURES), count, -1), {"long_name": text})
        for name, text in OBSERVED.items()
    }
    status = np.asarray(run.status).reshape(len(PROCEDURES), count)
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
