"""What the linear models of Simon et al. 2023 are trained on here: crops of photographs, starts, and what is observed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require, require_positive
from jepa_dyn.flows import (
    BarlowTwinsArguments,
    BarlowTwinsState,
    barlow_twins_arguments,
    barlow_twins_state,
    embedding_cross_correlation,
)
from jepa_dyn.metrics import crossing_times
from jepa_dyn.moments import RandomCrop, eigenbasis_from_pairs, photographs, view_pairs
from jepa_dyn.theory.barlow_twins_alignment import SmallStart, small_start

_crossing_times = jax.jit(crossing_times)  # one program in place of one per operation


def first_crossings(ts: np.ndarray, series: np.ndarray, level: float) -> np.ndarray:
    """`metrics.crossing_times` of (..., time, mode) series, as numpy."""
    return np.asarray(_crossing_times(ts, series, level))


def require_whole(name: str, value: Any, least: int) -> int:
    """The value as an int, if it is a whole number of at least `least`."""
    require(name, value, f"be a whole number >= {least}", lambda a: (a >= least) & (a == np.round(a)))
    return int(value)


def photograph_pairs(pairs: int, patch_size: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays (pairs, 3 patch_size^2) of colour crops of scikit-learn's photographs, values in [0, 1].

    Two independent crops of 20 x 20 pixels of a CIFAR image of 32 x 32 lie 5.3 pixels apart in rows and in columns (root mean
    square); ours, uniform up to 9, 5.5.
    """
    size = require_whole("patch_size", patch_size, 2)
    views = RandomCrop(size, max_offset=round(0.45 * size))
    return view_pairs(photographs(), require_whole("pairs", pairs, 2), key, views, grayscale=False)


def photograph_arguments(pairs: int, patch_size: int, key: int, **options: float) -> BarlowTwinsArguments:
    """Raw moments of `photograph_pairs` in the eigenbasis of Gamma; `options` as in `barlow_twins_arguments`."""
    return barlow_twins_arguments(eigenbasis_from_pairs(*photograph_pairs(pairs, patch_size, key)), **options)


def gaussian_start(dimension: int, args: BarlowTwinsArguments, alpha: float, key: int) -> BarlowTwinsState:
    """W(0) of `dimension` rows with independent entries ~ N(0, alpha^2).

    Raises:
        ValueError: alpha not > 0; more dimensions than half the eigenvalues of Gamma, of which half may be negative.
    """
    require_positive("alpha", alpha)
    inputs, features = args.moments.columns.shape
    require_whole("dimension", dimension, 2)
    require("dimension", dimension, f"be at most {features // 2} with these pairs", lambda a: a <= features // 2)
    return barlow_twins_state(alpha * np.random.default_rng([key, 1]).normal(size=(int(dimension), inputs)))


def start_in_basis(y0: BarlowTwinsState, args: BarlowTwinsArguments) -> SmallStart:
    """The triangular form of a start, in the eigenbasis of Gamma."""
    return small_start(y0.encoder @ args.moments.columns, args.moments.in_basis.gamma)


def correlation_eigenvalues(y: BarlowTwinsState, args: BarlowTwinsArguments) -> Any:
    """Eigenvalues of C, largest first."""
    return jnp.linalg.eigvalsh(embedding_cross_correlation(y, args))[::-1]
