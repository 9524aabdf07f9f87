"""Photographs in, prediction out: view pairs, their moments, their features."""

import json
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_dyn._checks import require_choice
from jepa_dyn.moments.pairs import moments_from_batches
from jepa_dyn.moments.spectrum import Basis, FeatureSpectrum, feature_spectrum
from jepa_dyn.moments.view_kinds import VIEW_KINDS, ViewKind
from jepa_dyn.moments.views import view_pair_batches
from jepa_dyn.predict.core import DEFAULT_DEPTHS, DEFAULT_EPS, predict

if TYPE_CHECKING:
    import xarray

DEFAULT_PATCH = 8
DEFAULT_PAIRS = 50_000
# below this many pairs per pixel the sampling noise of the moments moves rho and the order of weak features
PAIRS_PER_PIXEL = 10


def view_kind(name: str, patch_size: int = DEFAULT_PATCH) -> ViewKind:
    """The kind of views of this name ("crop", "shift" or "mask") with its usual settings at this patch size.

    Raises:
        ValueError: an unknown name or a patch that is too small.
    """
    require_choice("view", name, tuple(VIEW_KINDS))
    if name == "mask":
        # target "crop": a hidden block and what surrounds it are complements and share little but their mean
        return VIEW_KINDS["mask"](patch_size=patch_size, block_size=max(1, patch_size // 2), target="crop")  # pyright: ignore[reportCallIssue]
    return VIEW_KINDS[name](patch_size=patch_size)


def spectrum_of_images(
    images: Sequence[np.ndarray] | np.ndarray,
    *,
    views: ViewKind | str = "crop",
    num_pairs: int = DEFAULT_PAIRS,
    key: Any = 0,
    grayscale: bool = True,
    basis: Basis = "cross",
) -> FeatureSpectrum:
    """Features of the view pairs of images; pairs stream through in bounded memory.

    Args:
        images: from `moments.load_images`, or arrays of shape (h, w) or (h, w, 3).
        views: kind of views or its name, see `moments.views`.
        num_pairs: at least as many as a view has pixels; ten times as many for trustworthy features (else it warns).
        key: seed or JAX key.
        grayscale: luminance instead of colours.
        basis: see `moments.feature_spectrum`.

    Raises:
        ValueError: too few pairs, images too small or constant, an unknown view.
    """
    kind = view_kind(views) if isinstance(views, str) else views
    batches = view_pair_batches(images, num_pairs, key, kind, grayscale=grayscale)
    channels = 1 if grayscale else _channels(images)
    pixels = kind.patch_size**2 * channels
    if num_pairs < pixels:
        raise ValueError(
            f"Argument `num_pairs` must be at least {pixels}, the number of pixels of a view, because fewer pairs leave "
            f"features undetermined, but is {num_pairs}."
        )
    if num_pairs < PAIRS_PER_PIXEL * pixels:
        warnings.warn(
            f"{num_pairs} pairs for {pixels} pixels are few: the order of weak features is sampling noise; "
            f"take {PAIRS_PER_PIXEL * pixels} or more.",
            stacklevel=2,
        )
    return feature_spectrum(moments_from_batches(batches), basis=basis)


def predict_from_images(
    images: Sequence[np.ndarray] | np.ndarray,
    *,
    views: ViewKind | str = "crop",
    num_pairs: int = DEFAULT_PAIRS,
    key: Any = 0,
    grayscale: bool = True,
    basis: Basis = "cross",
    depths: Sequence[float | int] | np.ndarray = DEFAULT_DEPTHS,
    eps: float = DEFAULT_EPS,
    source: str = "",
) -> "xarray.Dataset":
    """What `predict` says about the features of images; arguments as in `spectrum_of_images` and `predict`.

    `source` names the images in tables and figures.

    Raises:
        ValueError: as `spectrum_of_images` and `predict`.
    """
    kind = view_kind(views) if isinstance(views, str) else views
    spectrum = spectrum_of_images(images, views=kind, num_pairs=num_pairs, key=key, grayscale=grayscale, basis=basis)
    shape = [kind.patch_size, kind.patch_size] + ([] if grayscale else [_channels(images)])
    what = f"{num_pairs} pairs of {kind.patch_size}x{kind.patch_size} views of {source or f'{len(images)} images'}"
    return predict(spectrum, depths=depths, eps=eps).assign_attrs(
        source=what, views=repr(kind), num_pairs=num_pairs, view_shape=json.dumps(shape)
    )


def _channels(images: Sequence[np.ndarray] | np.ndarray) -> int:
    return images[0].shape[2] if np.ndim(images[0]) == 3 else 1
