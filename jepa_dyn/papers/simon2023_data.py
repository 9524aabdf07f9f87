"""What the linear models of Simon et al. 2023 are trained on here: crops of photographs, starts, and what is observed."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require, require_positive
from jepa_dyn.flows import (
    BarlowTwinsArguments,
    BarlowTwinsState,
    barlow_twins_state,
    embedding_cross_correlation,
)
from jepa_dyn.metrics import crossing_times
from jepa_dyn.moments import EigenbasisMoments, RandomCrop, eigenbasis_from_pairs, photographs, view_pairs
from jepa_dyn.papers._figure import whole
from jepa_dyn.theory.barlow_twins_alignment import SmallStart, small_start


def first_crossings(ts: np.ndarray, series: np.ndarray, level: float) -> np.ndarray:
    """`metrics.crossing_times` of (..., time, mode) series, as numpy."""
    return np.asarray(crossing_times(ts, series, level))


def photograph_pairs(pairs: int, patch_size: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays (pairs, 3 patch_size^2) of colour crops of scikit-learn's photographs, values in [0, 1].

    Two independent crops of 20 x 20 pixels of a CIFAR image of 32 x 32 lie 5.3 pixels apart in rows and in columns (root mean
    square); ours, uniform up to 9, 5.5.
    """
    size = whole("patch_size", patch_size, 2)
    views = RandomCrop(size, max_offset=round(0.45 * size))
    return view_pairs(photographs(), whole("pairs", pairs, 2), key, views, grayscale=False)


class Problem(NamedTuple):
    """Moments in the eigenbasis of Gamma, its eigenvectors as rows, W(0), and W(0) in that basis, in triangular form."""

    moments: EigenbasisMoments
    features: np.ndarray
    y0: BarlowTwinsState
    start: SmallStart


def photograph_problem(pairs: int, patch_size: int, dimension: int, alpha: float, key: int) -> Problem:
    """Raw moments of `photograph_pairs`, and W(0) of `dimension` rows with independent entries ~ N(0, alpha^2).

    Raises:
        ValueError: sizes too small, alpha not > 0, more dimensions than half the eigenvalues of Gamma, of which half may be
            negative.
    """
    require_positive("alpha", alpha)
    whole("dimension", dimension, 2)
    x, y = photograph_pairs(pairs, patch_size, key)
    most = min(2 * len(x), x.shape[1]) // 2
    require("dimension", dimension, f"be at most {most} with these pairs", lambda a: a <= most)
    moments = eigenbasis_from_pairs(x, y)
    assert moments.columns is not None
    y0 = barlow_twins_state(alpha * np.random.default_rng([key, 1]).normal(size=(int(dimension), x.shape[1])))
    start = small_start(y0.encoder @ moments.columns, moments.in_basis.gamma)
    return Problem(moments, np.asarray(moments.columns).T, y0, start)


def correlation_eigenvalues(y: BarlowTwinsState, args: BarlowTwinsArguments) -> Any:
    """Eigenvalues of C, largest first."""
    return jnp.linalg.eigvalsh(embedding_cross_correlation(y, args))[::-1]
