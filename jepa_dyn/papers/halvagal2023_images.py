"""Figures 3, 7 and 8 of Halvagal et al. 2023: which eigenvalues of C_z a small encoder of real images recruits, and what helps it.

The paper trains a ResNet-18 for 500 epochs and more. By default here: scikit-learn's digits, perceptrons with batch norm, sixteen
dimensions, a thousand steps; what carries over is in the checks. Readings: one optimiser for all runs, gradient descent with
momentum, where the paper takes LARS with a moving-average target and gradient descent without; targets of constant rate.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn._checks import require_nonnegative, require_positive
from jepa_dyn.papers import halvagal2023_images_checks as claims
from jepa_dyn.papers._figure import PAPERS, whole, with_checks
from jepa_dyn.papers.halvagal2023_encoders import LOSSES, PREDICTORS, recruitment

if TYPE_CHECKING:
    import xarray

DISTANCES = ("euclidean", "cosine")
COSINE = {"DirectPred": "cosine_direct", "IsoLoss": "cosine_iso"}
AVERAGED = 0.99  # the rate of the moving average in appendix D, before it rises
DECAY_OF_TRAINED = 1 / 40  # of that with a closed-form predictor: 1e-5 and 4e-4 in appendix D
MOMENTA = (0.0, 0.5, 0.9, 0.97, 0.99, 0.997)
DECAYS = (5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)


def _options(dimension: int, width: int, steps: int, batch_size: int, learning_rate: float) -> dict[str, Any]:
    """Those that all three figures share, checked."""
    require_positive("learning_rate", learning_rate)
    return {
        "dimension": whole("dimension", dimension, 4),
        "width": whole("width", width, 1),
        "steps": whole("steps", steps, 20),
        "batch_size": whole("batch_size", batch_size, 2),
        "learning_rate": learning_rate,
    }


def fig3(
    *,
    dimension: int = 16,
    width: int = 64,
    steps: int = 1000,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    weight_decay: float = 2e-3,
    path: str = "",
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 3: eigenvalues of C_z with a closed-form predictor, its IsoLoss and a trained predictor, either distance.

    Each with a target that is a moving average, as in the figure, and without, as in the paper's Table 2.

    Args:
        dimension: M >= 4, of the embedding and of what is read out.
        width: of every hidden layer, >= 1.
        steps: of training, >= 20.
        batch_size: images per step, >= 2.
        learning_rate: at its highest, > 0.
        weight_decay: >= 0, with a closed-form predictor; a fortieth of it with a trained one. 4e-4 in the paper, whose runs are
            longer.
        path: folder of CIFAR-10, CIFAR-100 or STL-10 files or of images in subfolders; by default scikit-learn's digits.
        full: the paper's ResNet-18, heads (4096 -> 256), views, batches of 256, and rates of moving averages. For a GPU; give
            `steps` and `path` as well.
        key: seed of start, batches and views, the same for all runs.

    Returns:
        Dataset over (distance, predictor, target, step, mode): eigenvalues of C_z = E[z z^T] and of W_P, correlation of the two
        views along each mode; effective rank, number recruited, accuracy of a linear readout of the encoder. A run that diverges
        has its status, and NaN from there on.

    Raises:
        ValueError: an option out of range, a path without labelled images.

    Source: Halvagal 2023, Figure 3, Table 2, section 3, appendix D.
    """
    require_nonnegative("weight_decay", weight_decay)
    axes = {"distance": list(DISTANCES), "predictor": list(PREDICTORS), "target": ["averaged", "online"]}
    losses = np.array([[[f"{one}_{two}"] * 2 for two in PREDICTORS] for one in DISTANCES])
    decays = weight_decay * np.array([1.0, 1.0, DECAY_OF_TRAINED])[:, None]
    options = _options(dimension, width, steps, batch_size, learning_rate)
    dataset = recruitment(axes, losses, np.array([AVERAGED, 0.0]), decays, **options, path=path, full=full, key=key)
    dataset.attrs |= options | {"weight_decay": weight_decay}
    return with_checks(dataset, claims.fig3_checks(dataset), paper=PAPERS["halvagal2023"], figure="3")


def fig7(
    *,
    dimension: int = 16,
    width: int = 64,
    steps: int = 1000,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    weight_decay: float = 2e-3,
    path: str = "",
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 7: eigenvalues of C_z under the cosine IsoLoss with and without a moving-average target; beside it DirectPred.

    The rate runs from 0, no moving average, to 0.997.

    Args, raises: as `fig3`.

    Returns:
        Dataset over (loss, momentum, step, mode), of the same variables as `fig3`.

    Source: Halvagal 2023, Figure 7, section 3.2.
    """
    require_nonnegative("weight_decay", weight_decay)
    axes: dict[str, Any] = {
        "loss": list(COSINE),
        "momentum": ("momentum", list(MOMENTA), {"long_name": "rate of the moving average"}),
    }
    losses = np.array([[name] * len(MOMENTA) for name in COSINE.values()])
    options = _options(dimension, width, steps, batch_size, learning_rate)
    dataset = recruitment(axes, losses, np.array(MOMENTA), weight_decay, **options, path=path, full=full, key=key)
    dataset.attrs |= options | {"weight_decay": weight_decay}
    return with_checks(dataset, claims.fig7_checks(dataset), paper=PAPERS["halvagal2023"], figure="7")


def fig8(
    *,
    dimension: int = 16,
    width: int = 64,
    steps: int = 1000,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    momentum: float = AVERAGED,
    path: str = "",
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 8: eigenvalues of C_z under the cosine loss with DirectPred and with IsoLoss, at six weight decays.

    Args:
        momentum: rate of the moving-average target, in [0, 1].

    Other args, raises: as `fig3`.

    Returns:
        Dataset over (loss, weight_decay, step, mode), of the same variables as `fig3`.

    Source: Halvagal 2023, Figure 8, section 3.2.
    """
    axes: dict[str, Any] = {
        "loss": list(COSINE),
        "weight_decay": ("weight_decay", list(DECAYS), {"long_name": "weight decay"}),
    }
    losses = np.array([[name] * len(DECAYS) for name in COSINE.values()])
    options = _options(dimension, width, steps, batch_size, learning_rate)
    dataset = recruitment(axes, losses, momentum, np.array(DECAYS), **options, path=path, full=full, key=key)
    dataset.attrs |= options | {"momentum": momentum}
    return with_checks(dataset, claims.fig8_checks(dataset), paper=PAPERS["halvagal2023"], figure="8")


__all__ = ["COSINE", "DECAYS", "DISTANCES", "LOSSES", "MOMENTA", "fig3", "fig7", "fig8"]
