"""Networks with two and with many outputs under every loss of Halvagal et al. 2023, linear (Figure 2) or ReLU (Figure 6)."""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn._checks import require_positive
from jepa_dyn.kernels import ArcCosine
from jepa_dyn.losses import TABLE_1
from jepa_dyn.papers._figure import whole
from jepa_dyn.papers.halvagal2023_runs import PACE, draw_encoders, saved_steps, spectra, trained_networks

if TYPE_CHECKING:
    import xarray

TWO_EIGENVALUES = (0.3, 1.7)  # of W W^T at the start, in the network with two outputs


def representations(weights: np.ndarray, points: np.ndarray, relu: bool = False) -> np.ndarray:
    """z = W x or max(W x, 0) of every point, for every W: (..., M, N), (n, N) -> (..., n, M)."""
    z = points @ weights.swapaxes(-1, -2)
    return np.maximum(z, 0) if relu else z


def rectified_spectra(weights: np.ndarray) -> np.ndarray:
    """Eigenvalues of E[z z^T], z = max(W x, 0), x standard Gaussian, ascending: (..., M, N) -> (..., M).

    The correlation of two units is half the arc-cosine kernel of degree 1 of their weights.
    """
    kernel = ArcCosine(1)
    matrices = [np.asarray(kernel(one)) / 2 for one in weights.reshape(-1, *weights.shape[-2:])]
    return np.linalg.eigvalsh(np.stack(matrices)).reshape(weights.shape[:-1])


def networks_under_every_loss(
    *,
    outputs: int,
    inputs: int,
    sigma: float,
    learning_rate: float,
    num_steps: int,
    batch_size: int,
    full: bool,
    key: int,
    relu: bool = False,
) -> "xarray.Dataset":
    """Dataset over (row, time): `eigenvalue` of C_z with `outputs` outputs; `representation`, `eigenvalue_of_two` with two.

    Where units are rectified the weights are 2^(1/2) times as large, which gives C_z the trace of the linear network's.

    Raises:
        ValueError: an option out of range.
    """
    import xarray

    outputs, num_steps = whole("outputs", outputs, 2), whole("num_steps", num_steps, 100)
    inputs = whole("inputs", inputs, outputs)
    require_positive("sigma", sigma)
    require_positive("learning_rate", learning_rate)
    if full:
        batch_size, learning_rate, num_steps = 4096, learning_rate / 5, 5 * num_steps
    names, steps, rng = tuple(TABLE_1), saved_steps(num_steps, 40), np.random.default_rng(key)
    columns, rows = (np.linalg.qr(rng.normal(size=(size, 2)))[0] for size in (2, inputs))
    starts = draw_encoders(rng, 1, outputs, inputs), (columns * np.sqrt(TWO_EIGENVALUES) @ rows.T)[None]
    many, two = (
        trained_networks(names, start * (2**0.5 if relu else 1), sigma, steps, learning_rate, pairs, key, relu=relu)
        for start, pairs in zip(starts, (batch_size, 8 * batch_size), strict=True)
    )
    points, measured = rng.normal(size=(150, inputs)), rectified_spectra if relu else spectra
    long_name = {"long_name": "eigenvalue of C_z"}

    def stacked(measure, runs: dict[str, np.ndarray]) -> np.ndarray:
        return np.stack([measure(runs[name][0]) for name in names])

    shown = stacked(lambda weights: representations(weights, points, relu), two)
    variables = {
        "eigenvalue": (("row", "time", "mode"), stacked(measured, many), long_name),
        "representation": (("row", "time", "point", "output"), shown, {"long_name": "representation z"}),
        "eigenvalue_of_two": (("row", "time", "output"), stacked(measured, two), long_name),
    }
    times = np.array([PACE[name] for name in names])[:, None] * learning_rate * steps
    coords = {
        "row": list(names),
        "t": (("row", "time"), times, {"long_name": "time"}),
        "step": ("time", steps, {"long_name": "steps of gradient descent"}),
    }
    settings = {"sigma": sigma, "learning_rate": learning_rate, "batch_size": int(batch_size), "inputs": inputs}
    return xarray.Dataset(variables, coords, settings)
