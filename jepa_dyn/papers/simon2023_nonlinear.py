"""Networks that are not linear in Simon et al. 2023: Figure 2 A, B and the alignments of appendix E, on small networks.

Encoders are trained full-batch on pairs of crops of photographs with the Barlow Twins loss, from a small start. Their steps and
their embeddings are held against what the kernel theory makes of their own neural tangent kernel (NTK), at the start and at the
end.

Readings. Appendix D.1 scales "weights" by alpha = 1e-4: with all of them scaled the NTK is of order alpha^2 and nothing moves
within the printed steps, so alpha scales the readout here. What a pixel is the paper does not say: here each colour has mean 0
and variance 1 over all views.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jepa_dyn._checks import require_positive
from jepa_dyn.kernels import empirical_ntk, pair_spectrum
from jepa_dyn.losses import barlow_twins_loss
from jepa_dyn.metrics import (
    chance_alignment,
    detect_steps,
    effective_rank_of_eigenvalues,
    find_plateaus,
    subspace_alignment,
)
from jepa_dyn.papers import simon2023_nonlinear_checks as claims
from jepa_dyn.papers._figure import PAPERS, in_float64, whole, with_checks
from jepa_dyn.papers.simon2023_data import photograph_pairs
from jepa_dyn.solve import TrainingRuns
from jepa_dyn.training import (
    convolutional_encoder,
    embed_pairs,
    in_coordinates,
    one_hidden_layer_encoder,
    scale_parameters,
    tangent_kernel_prediction,
    train_full_batch,
)

if TYPE_CHECKING:
    import xarray

KERNELS = ("initial", "final")
PRINTED_TIME = 7000 * 1e-4  # epochs x learning rate of appendix D.1
TIME = {"long_name": "time t = learning rate x step"}
# of appendix E: scale of all parameters at the start, learning rate; chosen so that all modes are learned in the default steps
NETWORKS = {"perceptron": (0.3, 5e-4), "convolutional": (0.6, 2e-4)}
PREDICTIONS = ("theory, final NTK", "top of the final NTK", "theory, initial NTK", "chance")
WIDTH = 256
RANDOM_SUBSPACES = 200


def standardised_pairs(pairs: int, patch_size: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """`photograph_pairs`, every colour with mean 0 and variance 1."""
    both = np.stack(photograph_pairs(pairs, patch_size, key)).astype(float)
    pixels = both.reshape(-1, 3)
    first, second = ((pixels - pixels.mean(axis=0)) / pixels.std(axis=0)).reshape(both.shape)
    return first, second


def _saved(steps: int) -> np.ndarray:
    """Steps to log at: even in the logarithm early, even later on."""
    early = np.round(np.geomspace(1, steps + 1, 200)).astype(int) - 1
    return np.unique(np.r_[early, np.linspace(0, steps, 250).astype(int)])


def _cast(encoder: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, encoder)


def _trained(encoder: Any, pairs: tuple[Any, Any], steps: np.ndarray, rate: float, optimiser: Any) -> TrainingRuns:
    """A run in float32, whose steps take half the time."""
    options: dict[str, Any] = {"learning_rate": rate, "optimiser": optimiser, "progress": True}
    return train_full_batch(_cast(encoder, jnp.float32), *pairs, barlow_twins_loss, steps, **options)


_embed_pairs = eqx.filter_jit(embed_pairs)


def _embedded(encoder: Any, pairs: tuple[Any, Any]) -> np.ndarray:
    """Embeddings (2n, d) of both views."""
    return np.concatenate([np.asarray(z) for z in _embed_pairs(encoder, *(jnp.asarray(one) for one in pairs))])


@in_float64
def fig2ab(
    *,
    pairs: int = 50,
    patch_size: int = 20,
    dimension: int = 10,
    width: int = 2048,
    alpha: float = 1e-4,
    learning_rate: float = 3e-4,
    horizon: float = 1.1,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 2 A, B: loss and eigenvalues of C while a perceptron with one hidden layer trains, beside the theory from its NTK.

    Sizes are those of the paper. Its learning rate and number of steps, 1e-4 and 7000, end here when half of the modes are learned.

    Args:
        pairs: n >= 2 d, pairs of crops.
        patch_size: side of the crops; m = 3 patch_size^2.
        dimension: d, size of the embedding.
        width: hidden units.
        alpha: scale of the readout at the start, > 0; beside it a run with all parameters times alpha, up to the printed time.
        learning_rate: of full-batch gradient descent, > 0.
        horizon: length of the run in units of the last time of a step that the NTK at the start predicts, > 0.
        full: a third of the learning rate, three times the steps.
        key: seed of crops and start.

    Returns:
        Dataset over (time, mode) and (kernel, ...): eigenvalues of C, loss, effective rank; the steps found in them with start and
        end, the plateaus of the loss; the same predicted from the NTK at the start and at the end; how far the NTK has grown and
        changed its shape.

    Raises:
        ValueError: an option out of range; more dimensions than the kernel has positive eigenvalues.

    Source: Simon 2023, Figure 2 A, B, section 6, appendix D.1.
    """
    import xarray

    for name, value in {"patch_size": patch_size, "width": width, "dimension": dimension}.items():
        whole(name, value, 2)
    whole("pairs", pairs, 2 * dimension)
    for name, value in {"alpha": alpha, "learning_rate": learning_rate, "horizon": horizon}.items():
        require_positive(name, value)
    rate = learning_rate / 3 if full else learning_rate
    views = standardised_pairs(pairs, patch_size, key)
    basis = np.linalg.qr(np.concatenate(views).T)[
        0
    ]  # the views span 2n of the m dimensions, the same run costs less there
    held = (views[0] @ basis, views[1] @ basis)
    plain = in_coordinates(one_hidden_layer_encoder(jax.random.key(key), basis.shape[0], dimension, width=width), basis)
    start = eqx.tree_at(lambda e: e.readout, plain, scale_parameters(plain.readout, alpha))
    before = tangent_kernel_prediction(start, *held)
    saved = _saved(max(20, round(horizon * float(before.motion.critical_times().max()) / rate)))
    run = _trained(start, held, saved, rate, optax.sgd)
    run.raise_if_failed()
    short = np.unique(np.linspace(0, max(1, round(PRINTED_TIME / rate)), 20).astype(int))
    literal = _trained(scale_parameters(plain, alpha), held, short, rate, optax.sgd)
    ts, values = rate * saved, np.asarray(run.ys["eigenvalues"], float)
    end = _cast(run.final, jnp.float64)
    found = detect_steps(ts, values, level=1.0, log=True)
    flat = find_plateaus(ts[1:], np.asarray(run.ys["loss"], float)[1:], band=0.4, log_time=True)
    models = [before, tangent_kernel_prediction(end, *held, start=start)]
    paths = [model.trajectory(ts) for model in models]
    kernels = [np.asarray(empirical_ntk(e, np.concatenate(held), output="trace")) for e in (start, end)]
    sizes = [float(np.linalg.norm(one)) for one in kernels]
    series, predicted = ("time", "mode"), ("kernel", "mode")

    def by_size(values: Any) -> np.ndarray:
        return -np.sort(-np.asarray(values), axis=-1)

    variables = {
        "eigenvalue": (series, values, {"long_name": "eigenvalue of C"}),
        "loss": ("time", np.asarray(run.ys["loss"], float), {"long_name": "loss"}),
        "effective_rank": ("time", np.asarray(effective_rank_of_eigenvalues(values)), {"long_name": "effective rank of C"}),
        "step_time": ("mode", np.asarray(found.times), TIME),
        "step_start": ("mode", np.asarray(found.starts), TIME),
        "step_end": ("mode", np.asarray(found.ends), TIME),
        "predicted_eigenvalue": (("kernel", *series), np.stack([by_size(path.eigenvalues) for path in paths])),
        "predicted_loss": (("kernel", "time"), np.stack([np.asarray(path.loss) for path in paths])),
        "predicted_time": (predicted, np.stack([np.sort(model.motion.critical_times()) for model in models]), TIME),
        "gamma": (predicted, np.stack([np.asarray(model.motion.gammas) for model in models])),
        "alignment": ("kernel", [float(subspace_alignment(_embedded(end, held), model.values)) for model in models]),
        "plateau_level": ("plateau", flat.levels, {"long_name": "level of the loss"}),
        "plateau_start": ("plateau", flat.starts, TIME),
        "plateau_end": ("plateau", flat.ends, TIME),
    }  # fmt: skip
    coords = {"time": ("time", ts, TIME), "mode": np.arange(1, dimension + 1), "kernel": list(KERNELS)}
    attrs = {
        "pairs": pairs,
        "inputs": basis.shape[0],
        "width": width,
        "alpha": alpha,
        "learning_rate": rate,
        "steps": int(saved[-1]),
        "largest_with_all_scaled": float(np.nanmax(np.asarray(literal.ys["eigenvalues"]))),
        "separate_steps": int(found.num_separate),
        "kernel_growth": sizes[1] / sizes[0],
        "kernel_cosine": float(np.sum(kernels[0] * kernels[1]) / (sizes[0] * sizes[1])),
    }
    dataset = xarray.Dataset(variables, coords, attrs)
    return with_checks(dataset, claims.fig2ab_checks(dataset), paper=PAPERS["simon2023"], figure="2 A, B")


def _networks(patch_size: int, dimension: int, key: int) -> dict[str, Any]:
    """The networks of appendix E at their starts: all parameters scaled, which here changes their kernels as they learn."""
    shape, starts = (patch_size, patch_size, 3), jax.random.split(jax.random.key(key), len(NETWORKS))
    made: dict[str, Callable[[Array], Any]] = {
        "perceptron": lambda one: one_hidden_layer_encoder(one, int(np.prod(shape)), dimension, width=WIDTH),
        "convolutional": lambda one: convolutional_encoder(one, shape, dimension),
    }
    return {
        name: scale_parameters(made[name](one), NETWORKS[name][0]) for name, one in zip(NETWORKS, starts, strict=True)
    }


@in_float64
def appendix_e(
    *, pairs: int = 50, patch_size: int = 12, dimension: int = 10, steps: int = 6000, full: bool = False, key: int = 0
) -> "xarray.Dataset":
    """Appendix E: how much of what two small networks learn is the span that the theory predicts from their NTK.

    A perceptron and a convolutional network train full-batch by gradient descent with momentum 0.9 until all modes are learned.

    Args:
        pairs: n >= 2 d, pairs of crops to train on, and as many fresh ones.
        patch_size: side of the crops.
        dimension: d, size of the embedding.
        steps: of gradient descent.
        full: three times the pairs, twice the steps.
        key: seed of crops and starts.

    Returns:
        Dataset over (network, points, prediction): alignment of the embeddings with each prediction, both taken on the training
        pairs or, as in the paper, on fresh ones; `between`: of the embeddings of the two networks; `random`: of random subspaces.

    Raises:
        ValueError: an option out of range; more dimensions than a kernel has positive eigenvalues.

    Source: Simon 2023, appendix E, tables 1 and 2, with our correction of the largest and of the random alignment.
    """
    import xarray

    for name, value in {"patch_size": patch_size, "dimension": dimension, "steps": steps}.items():
        whole(name, value, 2)
    whole("pairs", pairs, 2 * dimension)
    n, saved = (3 * pairs, _saved(2 * steps)) if full else (pairs, _saved(steps))
    first, second = standardised_pairs(2 * n, patch_size, key)
    points = {"training": (first[:n], second[:n]), "fresh": (first[n:], second[n:])}
    optimiser = partial(optax.sgd, momentum=0.9)
    rows, embeddings, eigenvalues = [], [], []
    for name, start in _networks(patch_size, dimension, key).items():
        run = _trained(start, points["training"], saved, NETWORKS[name][1], optimiser)
        run.raise_if_failed()
        end = _cast(run.final, jnp.float64)
        embeddings.append([_embedded(end, one) for one in points.values()])
        eigenvalues.append(np.asarray(run.ys["eigenvalues"], float)[-1])
        rows.append([_alignments(start, end, one) for one in points.values()])
    chance = chance_alignment(dimension, 2 * n)
    rng = np.random.default_rng(key)
    drawn = subspace_alignment(*rng.normal(size=(2, RANDOM_SUBSPACES, 2 * n, dimension)))
    place = ("network", "points", "prediction")
    between = [float(subspace_alignment(a, b)) for a, b in zip(*embeddings, strict=True)]
    variables = {
        "alignment": (place, np.array([[[*values, chance] for values in row] for row in rows])),
        "between": ("points", between, {"long_name": "alignment of the embeddings of the two networks"}),
        "random": ("draw", np.asarray(drawn), {"long_name": "alignment of random subspaces"}),
        "eigenvalue": (("network", "mode"), np.stack(eigenvalues), {"long_name": "eigenvalue of C at the end"}),
    }
    coords = {"network": list(NETWORKS), "points": list(points), "prediction": list(PREDICTIONS)}
    attrs = {"pairs": n, "dimension": dimension, "patch_size": patch_size, "steps": int(saved[-1])}
    dataset = xarray.Dataset(variables, coords, attrs)
    return with_checks(dataset, claims.appendix_e_checks(dataset), paper=PAPERS["simon2023"], section="E")


def _alignments(start: Any, end: Any, pairs: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Alignment of the embeddings at the end with each of `PREDICTIONS` but chance, on these pairs; the NTK is the paper's."""
    learned, stacked = _embedded(end, pairs), np.concatenate(pairs)
    dimension = learned.shape[1]
    initial, final = (np.asarray(empirical_ntk(network, stacked)) for network in (start, end))
    spans = (
        pair_spectrum(final, dimension).values,
        np.linalg.eigh(final)[1][:, -dimension:],
        pair_spectrum(initial, dimension).values,
    )
    return [float(subspace_alignment(learned, span)) for span in spans]
