"""What networks are trained on: images that views are taken of at every step, or pairs of views as they are."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jepa_dyn._checks import require, require_count, require_finite
from jepa_dyn.training.view_pipelines import Views, require_images


class ImageData(eqx.Module):
    """Images (N, h, w, c) on the device; `batch_size` None is all of them at every step."""

    images: Float[Array, "N h w c"]
    batch_size: int | None = eqx.field(static=True)

    def batch(self, key: Array, views: Views) -> tuple[Any, ...]:
        """The views of one step: images drawn with replacement, all equally likely."""
        if self.batch_size is None:
            return self.spread(key, views, len(self.images))
        keys = jax.random.split(key, self.batch_size + 1)
        return jax.vmap(views)(keys[1:], self.images[_drawn(keys[0], self.batch_size, len(self.images))])

    def spread(self, key: Array, views: Views, count: int) -> tuple[Any, ...]:
        """Views of `count` images (all, where there are fewer), evenly spread over the whole."""
        images = self.images[spread_indices(len(self.images), count)]
        return jax.vmap(views)(jax.random.split(key, len(images)), images)


class PairData(eqx.Module):
    """Pairs of views (N, m), row i of both is one pair."""

    x: Float[Array, "N m"]
    y: Float[Array, "N m"]
    batch_size: int | None = eqx.field(static=True)

    def batch(self, key: Array, views: Any) -> tuple[Array, Array]:
        """The pairs of one step, drawn with replacement."""
        if self.batch_size is None:
            return self.x, self.y
        chosen = _drawn(key, self.batch_size, len(self.x))
        return self.x[chosen], self.y[chosen]

    def spread(self, key: Array, views: Any, count: int) -> tuple[Array, Array]:
        """`count` pairs (all, where there are fewer), evenly spread over the whole."""
        chosen = spread_indices(len(self.x), count)
        return self.x[chosen], self.y[chosen]


def spread_indices(total: int, count: int) -> np.ndarray:
    """`count` indices below `total`, evenly spread."""
    count = min(count, total)
    return np.arange(count) * total // count


def _drawn(key: Array, count: int, total: int) -> Int[Array, " count"]:
    """Indices below `total`, equally likely up to total / 2^32; `randint` would draw twice the bits."""
    return (jax.random.bits(key, (count,), jnp.uint32) % jnp.uint32(total)).astype(jnp.int32)


def training_data(images: Any, views: Any, batch_size: int | None, dtype: Any) -> ImageData | PairData:
    """The data of a run, checked.

    Raises:
        ValueError, TypeError: images or pairs that are none, images too small for the views, a batch size below 1.
    """
    if batch_size is not None:
        require_count("batch_size", batch_size)
    if views is None:
        if not isinstance(images, tuple | list) or len(images) != 2:
            raise ValueError("Argument `images` must be a pair (x, y) of arrays (N, m) where `views` is None.")
        x, y = (jnp.asarray(rows, dtype) for rows in images)
        if x.ndim != 2 or x.shape != y.shape or x.size == 0:
            raise ValueError(f"Argument `images` must be two arrays of one shape (N, m), but has {x.shape}, {y.shape}.")
        require_finite("images", x)
        require_finite("images", y)
        return PairData(x, y, batch_size)
    if not isinstance(views, Views):
        raise TypeError(
            "Argument `views` must be views such as TwoViews, with `plain` and `shape_of`, or None, "
            f"but has type {type(views).__name__}."
        )
    array = require_images(images)
    views.shape_of(array.shape[1:])
    return ImageData(jnp.asarray(array, dtype), batch_size)


class ProbeData(NamedTuple):
    """Images (or views) and labels that a linear probe is fitted to and judged on."""

    train: Float[Array, "n ..."]
    train_labels: Int[Array, " n"]
    test: Float[Array, "k ..."]
    test_labels: Int[Array, " k"]
    classes: int
    ridge: Array


def probe_data(
    images: Any, labels: Any, test: tuple[Any, Any] | None, samples: int, ridge: Any, as_rows: bool, dtype: Any
) -> ProbeData:
    """At most `samples` images to fit to and as many to judge on, evenly spread; without `test` every fourth image is one of these.

    Raises:
        ValueError: labels that are not one whole number >= 0 per image, or of one class only; no image to judge on.
    """
    require_count("probe_samples", samples)
    require("ridge", ridge, "be finite and > 0", lambda a: np.isfinite(a) & (a > 0))
    rows = np.asarray(images[0] if as_rows else require_images(images))
    labels = _labels("labels", labels, len(rows))
    if test is None:
        judged = np.arange(len(rows)) % 4 == 3
        parts = rows[~judged], labels[~judged], rows[judged], labels[judged]
    else:
        other = np.asarray(test[0]) if as_rows else require_images(test[0])
        parts = rows, labels, other, _labels("test", test[1], len(other))
    if len(parts[2]) == 0 or len(parts[0]) == 0:
        raise ValueError(
            f"Argument `labels` must belong to at least 4 images where `test` is None, but to {len(rows)}."
        )
    classes = int(max(parts[1].max(), parts[3].max())) + 1
    if classes < 2:
        raise ValueError("Argument `labels` must hold at least two classes, but holds one.")
    fit, judge = (spread_indices(len(part), samples) for part in (parts[0], parts[2]))
    return ProbeData(
        jnp.asarray(parts[0][fit], dtype),
        jnp.asarray(parts[1][fit], jnp.int32),
        jnp.asarray(parts[2][judge], dtype),
        jnp.asarray(parts[3][judge], jnp.int32),
        classes,
        jnp.asarray(ridge, dtype),
    )


def _labels(name: str, labels: Any, count: int) -> np.ndarray:
    found = np.asarray(labels)
    if found.shape != (count,):
        raise ValueError(f"Argument `{name}` must have one label per image, ({count},), but has shape {found.shape}.")
    require(name, found, "be whole numbers >= 0", lambda a: (a >= 0) & (a == np.round(a)))
    return found.astype(np.int64)
