"""Pairs of views from images, in batches of bounded memory; the same key gives the same pairs whatever the batch size."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jepa_dyn.moments.view_kinds import RandomCrop, ViewKind

_WORDS = 8  # 64-bit random words per pair: two counts of the Philox generator, of which seven at most are used
_LUMINANCE = (0.299, 0.587, 0.114)  # Rec. 601
_BATCH_VALUES = 2**21  # numbers per view and batch


def view_pairs(
    images: Sequence[np.ndarray] | np.ndarray,
    num_pairs: int,
    key: int | np.integer | Array,
    views: ViewKind | None = None,
    *,
    grayscale: bool = True,
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """`num_pairs` pairs of views as two arrays (num_pairs, d), d = patch_size^2 times the number of channels.

    Each pair takes an image, all with equal probability, and a place in it, uniform over all places where both windows fit.
    Row i of both arrays is pair i, flattened over (row, column, channel).

    Args:
        images: from `load_images`, or arrays of shape (h, w), (h, w, 1) or (h, w, 3), not necessarily of one size, of floats
            (taken as they are) or bytes (divided by 255).
        num_pairs: at least 1.
        key: a seed, or a JAX key; `jax.random.key(7)` and 7 are the same. Pair i depends on `key` and i only.
        views: `RandomCrop(...)` (default), `TemporalShift(...)`, `BlockMask(...)` or a kind of your own.
        grayscale: luminance (Rec. 601) instead of colours.

    No mean is subtracted (leave that to the moments), except by `BlockMask`, see there.

    Raises:
        TypeError: `key` is no seed, or images are not numeric.
        ValueError: no images, an image too small for the windows (named by its index), not finite, or of a wrong shape.
    """
    return next(view_pair_batches(images, num_pairs, key, views, grayscale=grayscale, batch_size=max(num_pairs, 1)))


def view_pair_batches(
    images: Sequence[np.ndarray] | np.ndarray,
    num_pairs: int,
    key: int | np.integer | Array,
    views: ViewKind | None = None,
    *,
    grayscale: bool = True,
    batch_size: int | None = None,
) -> Iterator[tuple[Float[np.ndarray, "b d"], Float[np.ndarray, "b d"]]]:
    """The pairs of `view_pairs` as an iterator of batches, for `moments_from_batches`; memory is that of one batch.

    Args:
        batch_size: pairs per batch; about 2 million numbers per view where not given.
        others: as in `view_pairs`. They are checked at once, not when the first batch is asked for.
    """
    views = RandomCrop() if views is None else views
    if not isinstance(views, ViewKind):
        raise TypeError(
            f"Argument `views` must be a kind of views, e.g. RandomCrop() or BlockMask(8, 4), but has type {type(views).__name__}."
        )
    for name, value in (("num_pairs", num_pairs), ("batch_size", 1 if batch_size is None else batch_size)):
        if value < 1:
            raise ValueError(f"Argument `{name}` must be at least 1, but is {value}.")
    words = _key_words(key)
    pixels = _flatten(images, grayscale)
    _require_room(pixels, views)
    if views.centred:
        pixels = pixels._replace(values=pixels.values - _mean_colour(pixels))
    size = batch_size or max(1, _BATCH_VALUES // (views.patch_size**2 * pixels.channels))
    return _batches(pixels, views, words, num_pairs, size)


class _Pixels(NamedTuple):
    """All images in one array of pixels (total, channels), image k row by row from `starts[k]`."""

    values: np.ndarray
    starts: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    @property
    def channels(self) -> int:
        return self.values.shape[1]


def _batches(
    pixels: _Pixels, views: ViewKind, words: int, num_pairs: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, num_pairs, size):
        count = min(size, num_pairs - start)
        uniforms = _uniforms(words, start, count)
        image = (uniforms[:, 2] * len(pixels.starts)).astype(int)
        offset = views.offsets(uniforms)
        # the first window keeps the room that the second needs; (n, 2) for rows and columns
        room = np.stack([pixels.heights[image], pixels.widths[image]], axis=1) - views.patch_size - np.abs(offset) + 1
        corner = np.maximum(0, -offset) + (uniforms[:, 3:5] * room).astype(int)
        first, second = (_windows(pixels, image, place, views.patch_size) for place in (corner, corner + offset))
        x, y = views.finish(first, second, uniforms)
        yield x.reshape(count, -1), y.reshape(count, -1)


def _windows(pixels: _Pixels, image: np.ndarray, corner: np.ndarray, size: int) -> np.ndarray:
    side = np.arange(size)
    rows = corner[:, 0, None] + side
    columns = corner[:, 1, None] + side
    place = (
        pixels.starts[image][:, None, None]
        + rows[:, :, None] * pixels.widths[image][:, None, None]
        + columns[:, None, :]
    )
    return pixels.values[place]


def _uniforms(words: int, start: int, count: int) -> np.ndarray:
    """Eight uniforms on [0, 1) per pair, a pure function of the key and the pair's index (Philox is counter based)."""
    generator = np.random.Philox(key=words, counter=start * _WORDS // 4)
    raw = generator.random_raw(count * _WORDS).reshape(count, _WORDS)
    return (raw >> np.uint64(11)) * 2.0**-53


def _key_words(key: Any) -> int:
    """The 128-bit Philox key: a seed as itself, a JAX key by its data."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        if not 0 <= key < 2**64:
            raise ValueError(f"Argument `key` must be a seed between 0 and 2^64 - 1, but is {key}.")
        return int(key)
    if isinstance(key, jax.Array):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        data = np.asarray(jax.random.key_data(key) if typed else key)
        if data.dtype == np.uint32 and data.ndim == 1 and data.size in (2, 4):
            return sum(int(word) << (32 * (data.size - 1 - i)) for i, word in enumerate(data))
    raise TypeError(f"Argument `key` must be a seed (int) or one JAX key, but has type {type(key).__name__}.")


def _flatten(images: Sequence[np.ndarray] | np.ndarray, grayscale: bool) -> _Pixels:
    if len(images) == 0:
        raise ValueError("Argument `images` must hold at least one image, but is empty.")
    parts, shapes = [], []
    for index, image in enumerate(images):
        part = _one_image(image, index, grayscale)
        if parts and part.shape[2] != parts[0].shape[1]:
            raise ValueError(
                f"Argument `images` must have images of equally many channels, but image 0 has {parts[0].shape[1]} "
                f"and image {index} has {part.shape[2]}."
            )
        shapes.append(part.shape[:2])
        parts.append(part.reshape(-1, part.shape[2]))
    heights, widths = np.array(shapes).T
    starts = np.concatenate([[0], np.cumsum(heights * widths)[:-1]])
    return _Pixels(np.concatenate(parts), starts, heights, widths)


def _one_image(image: Any, index: int, grayscale: bool) -> np.ndarray:
    array = np.asarray(image)
    if array.dtype.kind not in "fu" or (array.dtype.kind == "u" and array.dtype != np.uint8):
        raise TypeError(f"Argument `images` must hold floats or bytes, but image {index} has dtype {array.dtype}.")
    array = array / np.float32(255) if array.dtype == np.uint8 else array
    array = array[:, :, None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise ValueError(
            f"Argument `images` must hold images of shape (h, w), (h, w, 1) or (h, w, 3), "
            f"but image {index} has shape {np.shape(image)}."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"Argument `images` must be finite, but image {index} holds a NaN or an infinity.")
    if grayscale and array.shape[2] == 3:
        array = (array @ np.asarray(_LUMINANCE, array.dtype))[:, :, None]
    return array


def _require_room(pixels: _Pixels, views: ViewKind) -> None:
    need = tuple(views.patch_size + reach for reach in views.reach)
    small = np.flatnonzero((pixels.heights < need[0]) | (pixels.widths < need[1]))
    if len(small):
        k = int(small[0])
        raise ValueError(
            f"Argument `images` must have at least {need[0]} x {need[1]} pixels for {views}, "
            f"but image {k} has {int(pixels.heights[k])} x {int(pixels.widths[k])}."
        )


def _mean_colour(pixels: _Pixels) -> np.ndarray:
    """Mean per channel, each image with equal weight, as pairs take them."""
    areas = (pixels.heights * pixels.widths)[:, None]
    sums = np.add.reduceat(pixels.values.astype(np.float64, copy=False), pixels.starts, axis=0)
    return (sums / areas).mean(axis=0).astype(pixels.values.dtype)
