"""Data models of Littwin et al. 2024: Figure 3 (temporal model, appendix C.2) and random masking (appendix C.1)."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jepa_dyn._checks import require, require_fraction, require_nonnegative
from jepa_dyn._progress import progress_bar
from jepa_dyn.moments import (
    feature_spectrum,
    gaussian_rows,
    masking_moments,
    masking_spectrum,
    moments_from_pairs,
    orthonormal_rows,
    random_masking_model,
    sample_temporal_frames,
    sparse_variances,
    temporal_model,
    temporal_moments,
    temporal_spectrum,
)
from jepa_dyn.moments.random_masking import RandomMaskingModel, data_covariance
from jepa_dyn.papers import littwin2024_data_checks as claims
from jepa_dyn.papers._figure import PAPERS, in_float64, with_checks

if TYPE_CHECKING:
    import xarray

ROWS = {"orthonormal": orthonormal_rows, "gaussian": gaussian_rows}
SIDE = 8  # of the square images of the temporal model
NUM_RUNS = 10


def two_images(side: int = SIDE) -> np.ndarray:
    """Two images of unit norm with disjoint supports, shape (2, side^2): a disc on the left half and a bar on the right."""
    row, column = np.indices((side, side))
    left = np.hypot(row - (side - 1) / 2, column - (side / 2 - 1) / 2)
    images = np.stack([np.exp(-(left**2) / 4) * (column < side // 2), 1.0 * (column >= side // 2) * (row % 2 == 0)])
    # noise belongs to the whole half, so that no pixel is zero within it
    images[1] += 0.2 * (column >= side // 2)
    flat = images.reshape(2, -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


@in_float64
def fig3(
    *,
    autocorrelation_1: float = 0.99,
    autocorrelation_2: float = 0.95,
    noise_1: float = 1.0,
    noise_2: float = 0.5,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 3: two flickering images; features of the closed form and of samples, over the number of samples.

    Args:
        autocorrelation_1, autocorrelation_2: gamma of the flicker of each image, strictly between -1 and 1.
        noise_1, noise_2: standard deviation of the pixel noise on each image, >= 0.
        full: up to 500,000 samples, as in the paper, instead of 50,000; 10 runs either way.
        key: seed of the frames.

    Returns:
        Dataset over (run, samples, image): lam and rho measured in the eigenbasis of the empirical covariance (each image is
        given the eigenvector that overlaps most with it), the closed form (19), the mean squared off-diagonal element of the
        empirical correlation in that basis, the overlaps, and the moments of the first run.

    Raises:
        ValueError: an option outside its range.

    Source: Littwin 2024, Figure 3, eqs (18), (19), (134)-(141), with our correction of (139).
    """
    import xarray

    require("autocorrelation_1", autocorrelation_1, "lie strictly between -1 and 1", lambda a: np.abs(a) < 1)
    require("autocorrelation_2", autocorrelation_2, "lie strictly between -1 and 1", lambda a: np.abs(a) < 1)
    require_nonnegative("noise_1", noise_1)
    require_nonnegative("noise_2", noise_2)
    gamma, noise = np.array([autocorrelation_1, autocorrelation_2]), np.array([noise_1, noise_2])
    images = two_images()
    model = temporal_model(images, gamma, noise)
    decades = np.arange(2, 6) if full else np.arange(2, 5)
    samples = np.unique(np.r_[10**decades, 3 * 10 ** decades[:-1], 5 * 10 ** decades[-1]])
    lam, rho, overlap = (np.empty((NUM_RUNS, samples.size, 2)) for _ in range(3))
    defect = np.empty((NUM_RUNS, samples.size))
    shown: list[Any] = []
    for run in progress_bar(range(NUM_RUNS), NUM_RUNS, unit="runs"):
        frames = np.asarray(sample_temporal_frames(model, jax.random.key(key * NUM_RUNS + run), int(samples[-1]) + 1))
        moments = [moments_from_pairs(frames[:count], frames[1 : count + 1], center=False) for count in samples]
        for i, one in enumerate(moments):
            found = feature_spectrum(one, basis="input")
            shares = np.abs(np.asarray(found.basis).T @ images.T)  # (feature, image)
            owner = shares.argmax(axis=0)
            lam[run, i], rho[run, i] = np.asarray(found.lam)[owner], np.asarray(found.rho)[owner]
            overlap[run, i] = shares.max(axis=0)
            defect[run, i] = float(found.defect.mean_square_off_diagonal)
        if run == 0:
            shown = [moments[-1], frames[:300] @ images.T]
    first, flicker = shown
    exact, truth = temporal_spectrum(model), temporal_moments(model)
    place = np.abs(np.asarray(exact.basis).T @ images.T).argmax(axis=0)
    per_image, per_run = ("run", "samples", "image"), ("run", "samples")
    variables = {
        "lam": (per_image, lam, {"long_name": "covariance λ"}),
        "rho": (per_image, rho, {"long_name": "regression coefficient ρ"}),
        "overlap": (per_image, overlap, {"long_name": "overlap of the eigenvector with its image"}),
        "defect": (per_run, defect, {"long_name": "mean squared off-diagonal element", "units": "λ²"}),
        "lam_theory": ("image", np.asarray(exact.lam)[place], {"long_name": "covariance λ, closed form (19)"}),
        "rho_theory": (
            "image",
            np.asarray(exact.rho)[place],
            {"long_name": "regression coefficient ρ, closed form (19)"},
        ),
        "flicker": (("frame", "image"), flicker, {"long_name": "projection of a frame on its image"}),
        "images": (("image", "row", "column"), images.reshape(2, SIDE, SIDE)),
        "xx": (("pixel", "pixel_other"), np.asarray(first.xx), {"long_name": "empirical covariance"}),
        "yx": (("pixel", "pixel_other"), np.asarray(first.yx), {"long_name": "empirical correlation"}),
        "xx_theory": (("pixel", "pixel_other"), np.asarray(truth.xx)),
    }
    coords = {
        "samples": ("samples", samples, {"long_name": "number of samples T"}),
        "autocorrelation": ("image", gamma),
        "noise": ("image", noise),
    }
    dataset = xarray.Dataset(variables, coords)
    return with_checks(dataset, claims.temporal_checks(dataset), paper=PAPERS["littwin2024"], figure="3")


def masking_example(
    kind: str, d: int, gamma: float, visible_fraction: float, noise: float, key: Any
) -> RandomMaskingModel:
    """d factors in d components, gamma-sparse variances in [0.5, 4]; `kind` says how the rows of the loadings are drawn."""
    row_key, variance_key = jax.random.split(key)
    variances = sparse_variances(variance_key, d, gamma)
    return random_masking_model(ROWS[kind](row_key, d, d), variances, visible_fraction, noise)


@in_float64
def random_masking(
    *, visible_fraction: float = 0.5, noise: float = 0.3, full: bool = False, key: int = 0
) -> "xarray.Dataset":
    """Random masking (appendix C.1): theorem C.1 for orthonormal and for Gaussian rows of B, and what it leaves out.

    Args:
        visible_fraction: f, in (0, 1).
        noise: sigma_eps >= 0.
        full: up to d = 800 instead of 200, 3 models of each kind either way.
        key: seed of the models.

    Returns:
        Dataset over (rows, gamma, d, model): relative errors of (124), (125), the commutator of the two moments, the trace of
        Sigma_xy, how many features have lam < 0; and of one model of each kind at gamma = 1/2 lam and variance of every row.

    Raises:
        ValueError: an option outside its range.

    Source: Littwin 2024, eqs (122)-(133), theorem C.1, with our corrections (orthonormal rows).
    """
    import xarray

    require_fraction("visible_fraction", visible_fraction)
    require_nonnegative("noise", noise)
    gammas, models = np.array([1.0, 0.5, 0.1]), 3
    sizes = np.array([50, 100, 200, 400, 800] if full else [50, 100, 200])
    shape = (len(ROWS), gammas.size, sizes.size, models)
    names = ("error_lam", "error_variance", "shift_lam", "commutator", "trace", "num_negative", "error_131")
    found = {name: np.empty(shape) for name in names}
    example: dict[str, list[np.ndarray]] = {"lam_row": [], "lam_printed": [], "second_moment": []}
    for index in progress_bar(np.ndindex(shape), int(np.prod(shape)), unit="models"):
        kind, gamma, d = list(ROWS)[index[0]], float(gammas[index[1]]), int(sizes[index[2]])
        model_key = jax.random.fold_in(jax.random.key(key), int(np.ravel_multi_index(index[1:], shape[1:])))
        model = masking_example(kind, d, gamma, visible_fraction, noise, model_key)
        values = _describe(model)
        for name in names:
            found[name][index] = values[name]
        if gamma == 0.5 and index[2] == sizes.size - 1 and index[3] == 0:
            for name, listed in example.items():
                listed.append(values[name])
    dims = ("rows", "gamma", "d", "model")
    labels = {
        "error_lam": "relative error of λ, eq. (125), rms over the active rows",
        "error_variance": "relative error of σ², eq. (124), rms over the active rows",
        "shift_lam": "mean of λ minus eq. (125), over f(1-f)<s²>",
        "commutator": "commutator of Σxx and Σyx, relative",
        "trace": "trace of Σyx over its norm",
        "num_negative": "features with λ < 0",
        "error_131": "relative error of the second equality of (131)",
    }
    variables: dict[str, Any] = {name: (dims, found[name], {"long_name": labels[name]}) for name in names}
    variables |= {name: (("rows", "factor"), np.stack(listed)) for name, listed in example.items()}
    coords = {"rows": list(ROWS), "gamma": gammas, "d": ("d", sizes, {"long_name": "number of components d"})}
    dataset = xarray.Dataset(variables, coords, {"visible_fraction": visible_fraction, "noise": noise})
    small = [
        masking_example("orthonormal", 30, 0.5, f, noise, jax.random.key(key))
        for f in (visible_fraction, 0.1, 0.3, 0.7, 0.9)
    ]
    made = [*claims.masking_checks(dataset), *claims.masking_order_checks(small, jax.random.key(key + 1))]
    return with_checks(dataset, made, paper=PAPERS["littwin2024"], section="C.1")


def _describe(model: RandomMaskingModel) -> dict[str, Any]:
    """All figures of one model, see `random_masking`."""
    b, s2, sigma = (np.asarray(a) for a in (model.loadings, model.coefficient_variance, model.noise))
    f, d = float(model.visible_fraction), b.shape[1]
    # what (124), (125) say whatever B is: they are those of orthonormal rows
    printed = masking_spectrum(random_masking_model(np.eye(d), s2, f, sigma))
    moments = masking_moments(model)
    yx = np.asarray(moments.yx)
    norm = (b**2).sum(axis=1)
    lam, variance = (np.einsum("ki,ij,kj->k", b, np.asarray(m), b) / norm for m in (yx, moments.xx))
    spectrum, covariance, active = feature_spectrum(moments), np.asarray(data_covariance(model)), s2 > 0
    second = (b.T * (s2 + sigma**2)) @ b
    return {
        "error_lam": _relative_rms(lam, np.asarray(printed.lam), active),
        "error_variance": _relative_rms(variance, np.asarray(printed.variance), active),
        "shift_lam": (lam - np.asarray(printed.lam)).mean() / (f * (1 - f) * s2.mean()),
        "commutator": float(spectrum.defect.commutator),
        "trace": np.trace(yx) / np.linalg.norm(yx),
        "num_negative": (np.asarray(spectrum.lam) < 0).sum(),
        "error_131": np.linalg.norm(second - covariance) / np.linalg.norm(covariance),
        "lam_row": lam,
        "lam_printed": np.asarray(printed.lam),
        "second_moment": s2,
    }


def _relative_rms(found: np.ndarray, printed: np.ndarray, rows: np.ndarray) -> float:
    """Root mean square difference over that of the values, on some rows."""
    return float(np.linalg.norm((found - printed)[rows]) / np.linalg.norm(printed[rows]))
