"""Small networks on real images for Halvagal et al. 2023: all losses, target rates and weight decays as lanes of one program.

A lane has one loss of `LOSSES`. All are computed for every lane and weighted by 1 and 0, which costs products of a few embeddings
and saves a compilation for each. A target without moving average is one of rate 0, which is the online network.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike

from jepa_dyn.losses import TABLE_1, RepresentationLoss, representation_loss
from jepa_dyn.losses.predictor import predictor_eigenvalues
from jepa_dyn.metrics import effective_rank_of_eigenvalues, recruited
from jepa_dyn.moments.images import load_labelled_images
from jepa_dyn.training import (
    ColourJitter,
    Crop,
    DirectPredictor,
    Flip,
    GaussianNoise,
    Greyscale,
    JointEmbedding,
    MomentumSchedule,
    NetworkRuns,
    ResizedCrop,
    TwoViews,
    perceptron,
    residual_network,
    train_networks,
)
from jepa_dyn.training.joint_embedding import Memory, Outcome, Target
from jepa_dyn.training.layers import over_views
from jepa_dyn.training.view_pipelines import require_images

if TYPE_CHECKING:
    import xarray

PREDICTORS = ("direct", "iso", "trained")
# closed-form predictor, the same with its IsoLoss, and a perceptron that is trained by gradient, as in BYOL
LOSSES: dict[str, RepresentationLoss] = {
    f"{distance}_{predictor}": loss
    for distance in ("euclidean", "cosine")
    for predictor, loss in zip(
        PREDICTORS,
        (TABLE_1[distance], TABLE_1[f"{distance}_iso"], RepresentationLoss(distance, predictor=False)),
        strict=True,
    )
}
EXPONENT = 0.5  # of DirectPred
PAPER_DIMENSION = 256


class LossOfLane(eqx.Module):
    """sum_k weight_k L_k over `LOSSES`."""

    weights: dict[str, Any]

    def __call__(self, z: Array, goal: Array, matrix: Array, prediction: Array) -> Array:
        total = jnp.zeros((), z.dtype)
        for name, weight in self.weights.items():
            closed = LOSSES[name].predictor
            total = total + weight * representation_loss(LOSSES[name], z if closed else prediction, goal, matrix)
        return total


class TwoPredictors(JointEmbedding):
    """A `JointEmbedding` with a closed-form predictor and a trained one, both directions, its target a moving average."""

    trained: Any = None

    def objective(
        self, loss: LossOfLane, statistics: Any, target: Target | None, memory: Memory, views: tuple[Any, ...]
    ) -> tuple[Array, Outcome]:
        """The loss of a batch of views, and what it leaves behind."""
        x, y = views
        assert target is not None
        z, other, statistics = over_views(self.trunk, x, y, statistics)
        *found, target_statistics = over_views(target.network, x, y, target.statistics)
        first, second = jax.lax.stop_gradient(tuple(found))
        matrix, memory = self._matrix(loss, (z, other), memory)
        p, q, statistics = over_views(self.trained, z, other, statistics)
        value = (loss(z, second, matrix, p) + loss(other, first, matrix, q)) / 2
        return value, Outcome((z, other), statistics, target_statistics, memory)

    def hidden_layers(self, x: Array, statistics: Any) -> dict[str, Array]:
        """None is looked at."""
        return {}


@dataclass(frozen=True)
class Networks:
    """Which network: sizes of the small one, or those of the paper. Called with a key, and compared by value.

    - `shape`: of a view, (height, width, channels). `dimension`: M, of the embedding.
    - `width`: of every hidden layer; the representation has `dimension` numbers.
    - `memory`: momentum of the estimate of C_z.
    - `paper`: a ResNet-18 and heads of 4096 hidden units instead.
    """

    shape: tuple[int, int, int]
    dimension: int
    width: int
    memory: float
    paper: bool = False

    def __call__(self, key: Array) -> TwoPredictors:
        first, second, third = jax.random.split(key, 3)
        d, inputs, width = self.dimension, int(np.prod(self.shape)), 4096 if self.paper else self.width
        if self.paper:
            encoder, outputs = (
                residual_network(first, self.shape, channels=(64, 128, 256, 512), blocks=2, norm="batch"),
                512,
            )
        else:
            encoder, outputs = perceptron(first, inputs, d, widths=(width,), norm="batch", bias=False), d
        projector = perceptron(second, outputs, d, widths=(width,), norm="batch", bias=False)
        trained = perceptron(third, d, d, widths=(width,), norm="batch", bias=False)
        closed = DirectPredictor(EXPONENT, self.memory)
        return TwoPredictors(encoder, projector, closed, target="ema", trained=trained)


def spectrum(network: TwoPredictors, statistics: Any, views: tuple[Array, Array]) -> dict[str, Array]:
    """Eigenvalues s_m of C_z = E[z z^T], descending, and rho_m = u_m^T E[z z'^T] u_m / s_m, 0 where s_m is rounding."""
    z, other, _ = over_views(network.trunk, *views, statistics)
    _, sizes, axes = jnp.linalg.svd(jnp.concatenate([z, other]), full_matrices=False)
    values = sizes**2 / (2 * len(z))
    shared = jnp.mean((z @ axes.T) * (other @ axes.T), axis=0)
    seen = sizes > len(sizes) * jnp.finfo(sizes.dtype).eps * sizes[0]
    return {"eigenvalue": values, "view_correlation": jnp.where(seen, shared / jnp.where(seen, values, 1.0), 0.0)}


def warmed_up(rate: Array, steps: Array) -> optax.GradientTransformation:
    """Gradient descent with momentum 0.9; its rate rises over the first twentieth and falls along half a cosine to 0."""

    def rate_at(step: ArrayLike) -> Array:
        done = jnp.asarray(step, rate.dtype) / steps
        return rate * jnp.minimum(1.0, 20 * done) * (1 + jnp.cos(jnp.pi * done)) / 2

    return optax.sgd(rate_at, momentum=0.9)


def views_of(shape: tuple[int, ...], paper: bool) -> TwoViews:
    """The changes of SimCLR for colour images or at the paper's scale; windows of 3/4 of the side with noise for small greys."""
    if paper or shape[2] == 3:
        return TwoViews((ResizedCrop(shape[0]), Flip(), ColourJitter(0.4, 0.4, 0.2, 0.1), Greyscale()))
    return TwoViews((Crop(3 * shape[0] // 4), GaussianNoise(0.1)))


def train_lanes(
    losses: np.ndarray,
    momentum: ArrayLike,
    weight_decay: ArrayLike,
    *,
    path: str,
    dimension: int,
    width: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    full: bool,
    key: int,
) -> NetworkRuns:
    """One run for each loss of an array of names; momenta and decays broadcast against it. All see the same batches."""
    images, labels = load_labelled_images(path or None)
    pixels = require_images(images)
    pixels = (pixels - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))
    views = views_of(pixels.shape[1:], full)
    momenta, decays = (np.broadcast_to(value, losses.shape).ravel() for value in (momentum, weight_decay))
    networks = Networks(
        views.shape_of(pixels.shape[1:]), PAPER_DIMENSION if full else dimension, width, 0.998 if full else 0.99, full
    )
    return train_networks(
        networks,
        pixels,
        LossOfLane({name: (losses.ravel() == name).astype(np.float32) for name in LOSSES}),
        steps,
        views=views,
        seeds=key,
        batch_size=256 if full else batch_size,
        learning_rate=learning_rate,
        optimiser=jax.tree_util.Partial(warmed_up, steps=np.float32(steps)),
        weight_decay=decays,
        target_momentum=MomentumSchedule(momenta, np.where(full & (momenta > 0), 1.0, momenta), steps),
        log_every=max(1, steps // 40),
        spectrum_samples=max(512, 4 * networks.dimension),
        observe=spectrum,
        labels=labels,
        progress=True,
    )


def recruitment(
    axes: dict[str, Any], losses: np.ndarray, momentum: ArrayLike, weight_decay: ArrayLike, **options: Any
) -> "xarray.Dataset":
    """`train_lanes` as a dataset: `axes` are the coordinates of the grid that `losses` lies on.

    `predictor_eigenvalue` are those of W_P, from the running estimate of C_z; of a trained predictor that is not used they are NaN.
    """
    import xarray

    runs = train_lanes(losses, momentum, weight_decay, **options)
    grid = tuple(axes)

    def laid_out(name: str) -> np.ndarray:
        found = np.asarray(runs.ys[name], float)
        return found.reshape(*losses.shape, *found.shape[1:])

    closed = np.array([LOSSES[name].predictor for name in losses.ravel()]).reshape(*losses.shape, 1, 1)
    eigenvalues = laid_out("eigenvalue")
    counts = np.where(np.isfinite(eigenvalues).all(-1), np.asarray(recruited(eigenvalues)), np.nan)
    predictor = np.asarray(predictor_eigenvalues(laid_out("correlation_eigenvalues"), EXPONENT))
    path, series = (*grid, "step", "mode"), (*grid, "step")
    variables = {
        "eigenvalue": (path, eigenvalues, {"long_name": "eigenvalue of C_z"}),
        "view_correlation": (
            path,
            laid_out("view_correlation"),
            {"long_name": "correlation of the views along a mode"},
        ),
        "predictor_eigenvalue": (path, np.where(closed, predictor, np.nan), {"long_name": "eigenvalue of W_P"}),
        "effective_rank": (
            series,
            np.asarray(effective_rank_of_eigenvalues(eigenvalues)),
            {"long_name": "effective rank"},
        ),
        "recruited": (
            series,
            counts,
            {"long_name": "eigenvalues above 1/10 of the largest"},
        ),
        "probe_accuracy": (series, laid_out("probe_accuracy"), {"long_name": "accuracy of a linear readout"}),
        "status": (grid, np.asarray(runs.status).reshape(losses.shape), {"long_name": "outcome, see jepa_dyn.Status"}),
    }
    coords = axes | {
        "step": ("step", np.asarray(runs.ts).astype(int), {"long_name": "training step"}),
        "mode": np.arange(1, eigenvalues.shape[-1] + 1),
    }
    return xarray.Dataset(variables, coords)
