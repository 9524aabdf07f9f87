"""Figures 3, 4 and 5 of Simon et al. 2023 in kind: the spectra of small networks trained with three losses on photographs.

The paper trains ResNet-50 on STL-10; here a perceptron, or a small ResNet on request, sees windows of the photographs that
scikit-learn ships, or images by path. The losses, their options and what is drawn are the paper's: eigenvalues of C for Barlow
Twins (of standardised embeddings where its loss standardises them), of the centred covariance for SimCLR (NT-Xent) and VICReg and
for all hidden representations (appendix D.4). The three losses are lanes of one program, on the same images and views.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jepa_dyn._checks import require_choice, require_positive
from jepa_dyn.losses import (
    barlow_twins_loss,
    nt_xent_loss,
    standardised_barlow_twins_loss,
    vicreg_loss,
)
from jepa_dyn.metrics import (
    covariance_eigenvalues,
    cross_correlation_eigenvalues,
    detect_steps,
    effective_rank_of_eigenvalues,
)
from jepa_dyn.moments import load_images
from jepa_dyn.papers import simon2023_images_checks as claims
from jepa_dyn.papers._figure import PAPERS, in_float32, in_float64, whole, with_checks
from jepa_dyn.training import (
    ColourJitter,
    Crop,
    Flip,
    JointEmbedding,
    NetworkRuns,
    Standardise,
    TwoViews,
    perceptron,
    residual_network,
    train_networks,
)

if TYPE_CHECKING:
    import xarray

LOSSES = ("Barlow Twins", "SimCLR", "VICReg")
NETWORKS = ("perceptron", "residual")
TEMPERATURE, OFF_DIAGONAL_WEIGHT = 0.2, 0.0051  # appendix D.2
WINDOW, VIEW = 12, 2 / 3  # side of a window in pixels, of a view in sides of the image
JITTER = (0.2, 0.2, 0.1, 0.05)
WIDTH, REPRESENTATION = 128, 64


class Setting(NamedTuple):
    """How the three losses start and move, in the order of `LOSSES`: factor on all parameters, learning rate."""

    scales: tuple[float, ...]
    rates: tuple[float, ...]


SMALL = Setting((0.7, 0.4, 0.8), (7e-4, 1e-3, 6e-4))
STANDARD = Setting((1.0, 1.0, 1.0), (2.0, 2.0, 2.0))


def small_start_loss(
    first: Float[Array, "n d"],
    second: Float[Array, "n d"],
    *,
    barlow: Float[Array, ""],
    simclr: Float[Array, ""],
    vicreg: Float[Array, ""],
) -> Float[Array, ""]:
    """Barlow Twins without normalisation and with lambda = 1, NT-Xent and VICReg, weighed: one weight is 1, the others are 0."""
    own = barlow_twins_loss(first, second)
    return barlow * own + _others(first, second, simclr, vicreg)


def standard_loss(
    first: Float[Array, "n d"],
    second: Float[Array, "n d"],
    *,
    barlow: Float[Array, ""],
    simclr: Float[Array, ""],
    vicreg: Float[Array, ""],
) -> Float[Array, ""]:
    """The same with Barlow Twins as published: standardised embeddings, lambda = 0.0051."""
    own = standardised_barlow_twins_loss(first, second, off_diagonal_weight=OFF_DIAGONAL_WEIGHT)
    return barlow * own + _others(first, second, simclr, vicreg)


def _others(first: Array, second: Array, simclr: Array, vicreg: Array) -> Array:
    return simclr * nt_xent_loss(first, second, temperature=TEMPERATURE) + vicreg * vicreg_loss(first, second)


def image_windows(path: str, count: int, key: int) -> np.ndarray:
    """(count, h, w, 3) colour images: windows of 12 x 12 pixels of photographs, or small images of one size as they are."""
    images = load_images(path or None)
    if isinstance(images, np.ndarray) and path:
        return images[:count]
    rng = np.random.default_rng(key)
    found = []
    for number in range(count):
        image = images[number % len(images)]
        row, column = (int(rng.integers(extent - WINDOW + 1)) for extent in image.shape[:2])
        found.append(image[row : row + WINDOW, column : column + WINDOW])
    return np.stack(found)


def embedding_network(key: Array, *, side: int, dimension: int, network: str) -> JointEmbedding:
    """Encoder and a projector with one hidden layer."""
    first, second = jax.random.split(key)
    if network == "residual":
        encoder: Any = residual_network(first, (side, side, 3), outputs=REPRESENTATION)
    else:
        encoder = perceptron(first, 3 * side**2, REPRESENTATION, widths=(WIDTH,))
    projector = perceptron(second, REPRESENTATION, dimension, widths=(REPRESENTATION,))
    return JointEmbedding(in_float32(encoder), in_float32(projector))


def _standardised_spectrum(network: JointEmbedding, statistics: Any, views: Any) -> dict[str, Array]:
    """Eigenvalues of C of the embeddings as the standardised loss sees them, beside those of their covariance."""
    both = [jax.vmap(network.trunk)(view) for view in views]
    scaled = [(z - jnp.mean(z, axis=0)) / jnp.sqrt(jnp.var(z, axis=0) + 1e-5) for z in both]
    return {
        "eigenvalues": cross_correlation_eigenvalues(*scaled),
        "covariance_eigenvalues": covariance_eigenvalues(jnp.concatenate(both)),
    }


def _trained(
    loss: Any, setting: Setting, steps: int, log_every: np.ndarray, options: dict[str, Any], **more: Any
) -> NetworkRuns:
    """One lane per loss, with the same start up to its scale and the same views."""
    network, path = options["network"], options["path"]
    require_choice("network", network, NETWORKS)
    require_positive("learning_rate", options["learning_rate"])
    images = image_windows(path, whole("images", options["images"], 2), options["key"])
    side = round(VIEW * min(images.shape[1:3]))
    views = TwoViews(
        (Crop(side), ColourJitter(*JITTER), Standardise(float(images.mean()), float(images.std())), Flip())
    )
    weights = dict(zip(("barlow", "simclr", "vicreg"), np.eye(len(LOSSES)), strict=True))
    return train_networks(
        jax.tree_util.Partial(
            embedding_network, side=side, dimension=whole("dimension", options["dimension"], 2), network=network
        ),
        images,
        partial(loss, **weights),
        steps,
        views=views,
        seeds=options["key"],
        batch_size=whole("batch_size", options["batch_size"], 2),
        learning_rate=options["learning_rate"] * np.array(setting.rates),
        init_scale=np.array(setting.scales),
        log_every=log_every.tolist(),
        spectrum_samples=512,
        progress=True,
        **more,
    )


def _own_spectra(run: NetworkRuns) -> np.ndarray:
    """(loss, step, mode): of C for Barlow Twins, of the covariance for the others."""
    values = np.array(run.ys["covariance_eigenvalues"], float)
    values[0] = np.asarray(run.ys["eigenvalues"][0], float)
    return values


def _times(
    setting: Setting, saved: np.ndarray, learning_rate: float
) -> tuple[tuple[str, str], np.ndarray, dict[str, str]]:
    rates = learning_rate * np.array(setting.rates)
    return ("loss", "step"), rates[:, None] * saved, {"long_name": "time t = learning rate × step"}


def growth(ts: np.ndarray, values: np.ndarray, floor: float) -> Any:
    """`detect_steps` with every mode's own level, its median over the last tenth of the run; below `floor` x the largest: none."""
    last = np.nan_to_num(np.median(values[ts >= 0.9 * ts[-1]], axis=0))
    level = np.maximum(last, floor * last.max())
    # a run that failed has no level, and no step either
    return detect_steps(ts, values, level=np.where(level > 0, level, 1.0), log=True)


@in_float64
def fig5(
    *,
    steps: int = 3000,
    dimension: int = 16,
    batch_size: int = 128,
    learning_rate: float = 1.0,
    images: int = 2000,
    network: str = "perceptron",
    path: str = "",
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 5 in kind: eigenvalues of embeddings and of hidden representations from a small start, for three losses.

    Its upper row is also what Figures 1 C, D and 2 C to F show.

    Args:
        steps: of gradient descent with momentum 0.9.
        dimension: d, size of the embedding.
        batch_size: images per step; of each two views. The paper's are 64 (Barlow Twins) and 256.
        learning_rate: factor > 0 on the rates of the three losses, `SMALL`.
        images: how many windows of photographs, or of the images of `path`.
        network: "perceptron" or "residual", a small ResNet (fifty times as slow).
        path: image, folder, CIFAR or STL-10; "": scikit-learn's two photographs.
        full: five times the steps at a third of the rates.
        key: seed of windows, start and views.

    Returns:
        Dataset over (loss, step, mode): eigenvalues of the embeddings and the largest ones of the encoder's output, effective
            ranks, loss; when the eigenvalues of the embeddings start to rise, are half grown, and have risen.

    Raises:
        ValueError: an option out of range, an unknown network, a path that holds no images.

    Source: Simon 2023, Figure 5, section 6, appendices D.2, D.4.
    """
    import xarray

    total, rate = whole("steps", steps, 20) * (5 if full else 1), learning_rate / (3 if full else 1)
    require_positive("learning_rate", learning_rate)
    early = np.round(np.geomspace(1, total + 1, 100)).astype(int) - 1
    saved = np.unique(np.r_[early, np.linspace(0, total, 150).astype(int)])
    options = {
        "network": network, "path": path, "images": images, "dimension": dimension, "batch_size": batch_size, "key": key,
        "learning_rate": rate,
    }  # fmt: skip
    run = _trained(small_start_loss, SMALL, total, saved, options, optimiser=partial(optax.sgd, momentum=0.9))
    values, hidden = _own_spectra(run), np.asarray(run.ys["hidden_representation"], float)[..., : 2 * dimension]
    found = [growth(saved, one, claims.FLOOR) for one in values]
    series = ("loss", "step")
    variables = {
        "eigenvalue": ((*series, "mode"), values, {"long_name": "eigenvalue of the embeddings"}),
        "hidden_eigenvalue": (
            (*series, "hidden_mode"),
            hidden,
            {"long_name": "eigenvalue of the hidden representation"},
        ),
        "loss_value": (series, np.asarray(run.ys["loss"], float), {"long_name": "loss"}),
        "effective_rank": (series, np.asarray(effective_rank_of_eigenvalues(values)), {"long_name": "effective rank"}),
        "hidden_rank": (series, np.asarray(effective_rank_of_eigenvalues(hidden)), {"long_name": "effective rank"}),
        "status": ("loss", np.asarray(run.status), {"long_name": "outcome, see jepa_dyn.Status"}),
    }
    for name in ("times", "starts", "ends"):
        rows = np.stack([np.asarray(getattr(one, name)) for one in found])
        variables[f"step_{name}"] = (("loss", "mode"), rows, {"long_name": "steps of the optimiser"})
    coords = {
        "loss": list(LOSSES), "step": ("step", saved, {"long_name": "steps of the optimiser"}), "time": _times(SMALL, saved, rate),
        "mode": np.arange(1, dimension + 1), "hidden_mode": np.arange(1, hidden.shape[-1] + 1),
        "init_scale": ("loss", list(SMALL.scales)),
    }  # fmt: skip
    attrs = {
        "network": network,
        "images": images,
        "batch_size": batch_size,
        "data": path or "windows of two photographs",
    }
    dataset = xarray.Dataset(variables, coords, attrs)
    return with_checks(dataset, claims.fig5_checks(dataset), paper=PAPERS["simon2023"], figure="5, in kind")


def _standard_runs(steps: int, full: bool, **options: Any) -> "xarray.Dataset":
    """What Figures 3 and 4 are drawn from: spectra from a usual start, and the level between the grown and the others."""
    import xarray

    total, rate = whole("steps", steps, 20) * (5 if full else 1), options["learning_rate"]
    saved = np.unique(np.linspace(0, total, 161).astype(int))
    more = {"optimiser": partial(optax.lars, momentum=0.9), "spectra": False, "observe": _standardised_spectrum}
    run = _trained(standard_loss, STANDARD, total, saved, options, **more)
    values = _own_spectra(run)
    bands = [claims.bands(one[len(saved) // 4 :]) for one in values]
    thresholds = np.array([band.threshold for band in bands])
    variables = {
        "eigenvalue": (("loss", "step", "mode"), values, {"long_name": "eigenvalue of the embeddings"}),
        "loss_value": (("loss", "step"), np.asarray(run.ys["loss"], float), {"long_name": "loss"}),
        "grown": (("loss", "step"), (values > thresholds[:, None, None]).sum(-1), {"long_name": "eigenvalues above the threshold"}),
        "threshold": ("loss", thresholds, {"long_name": "threshold between the bands"}),
        "valley": ("loss", [band.valley for band in bands], {"long_name": "density at the threshold over that of the lower peak"}),
        "status": ("loss", np.asarray(run.status), {"long_name": "outcome, see jepa_dyn.Status"}),
    }  # fmt: skip
    coords = {
        "loss": list(LOSSES), "step": ("step", saved, {"long_name": "steps of the optimiser"}),
        "time": _times(STANDARD, saved, rate), "mode": np.arange(1, values.shape[-1] + 1),
    }  # fmt: skip
    attrs = {name: options[name] for name in ("network", "images", "batch_size", "dimension")}
    return xarray.Dataset(variables, coords, attrs | {"data": options["path"] or "windows of two photographs"})


@in_float64
def fig3(
    *,
    steps: int = 2000,
    dimension: int = 24,
    batch_size: int = 128,
    learning_rate: float = 1.0,
    images: int = 2000,
    network: str = "perceptron",
    path: str = "",
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 3 in kind: eigenvalues of the embeddings from a usual start, for three losses, and the level between two bands.

    LARS for all three losses; the threshold is where the histogram of the logarithms of all eigenvalues after the first quarter of
    the run is emptiest between two peaks.

    Args:
        steps: of LARS with momentum 0.9.
        dimension: d, size of the embedding; the paper's are 512 (Barlow Twins) and 128 (VICReg).
        batch_size: images per step.
        learning_rate: factor > 0 on the rates of the three losses, `STANDARD`.
        images: how many windows of photographs, or of the images of `path`.
        network: "perceptron" or "residual", a small ResNet (fifty times as slow).
        path: image, folder, CIFAR or STL-10; "": scikit-learn's two photographs.
        full: five times the steps.
        key: seed of windows, start and views.

    Returns:
        Dataset over (loss, step, mode): eigenvalues of the embeddings, how many are above the threshold of their loss, loss.

    Raises:
        ValueError: an option out of range, an unknown network, a path that holds no images.

    Source: Simon 2023, Figure 3, section 6, appendices D.2, D.4.
    """
    dataset = _standard_runs(
        steps, full, network=network, path=path, images=images, dimension=dimension, batch_size=batch_size,
        learning_rate=learning_rate, key=key,
    )  # fmt: skip
    return with_checks(dataset, claims.fig3_checks(dataset), paper=PAPERS["simon2023"], figure="3, in kind")


@in_float64
def fig4(
    *,
    steps: int = 2000,
    dimension: int = 24,
    batch_size: int = 128,
    learning_rate: float = 1.0,
    images: int = 2000,
    network: str = "perceptron",
    path: str = "",
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 4 in kind: histograms of the eigenvalues of Figure 3 along training. Arguments, result, errors: as `fig3`.

    Source: Simon 2023, Figure 4, section 6.
    """
    dataset = _standard_runs(
        steps, full, network=network, path=path, images=images, dimension=dimension, batch_size=batch_size,
        learning_rate=learning_rate, key=key,
    )  # fmt: skip
    return with_checks(dataset, claims.fig4_checks(dataset), paper=PAPERS["simon2023"], figure="4, in kind")
