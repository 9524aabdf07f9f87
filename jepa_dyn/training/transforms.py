"""Random changes of one image on the device, pure functions of (key, image): crops, flips, noise, colours, hidden patches.

A transform is an `equinox.Module` called as `transform(key, image) -> image` on (height, width, channels). `plain(image)` is what
it does without chance, for features that are read out, and `shape_of(shape)` the shape that it makes, or a ValueError where an
image is too small. Its floating-point numbers may be arrays of one number per lane of `train_networks`; sizes choose a program.
"""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from jepa_dyn._checks import require, require_count, require_nonnegative

Shape = tuple[int, int, int]
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # Rec. 601
# from RGB to YIQ, where a hue is an angle in the plane of I and Q
_YIQ = np.array([_LUMINANCE, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@runtime_checkable
class Transform(Protocol):
    """What views are made of."""

    def __call__(self, key: Array, image: Array) -> Array: ...

    def plain(self, image: Array) -> Array: ...

    def shape_of(self, shape: Shape) -> Shape: ...


class _Chance(eqx.Module):
    """A transform that keeps the shape and does nothing without chance."""

    def plain(self, image: Array) -> Array:
        return image

    def shape_of(self, shape: Shape) -> Shape:
        return shape


class Crop(eqx.Module):
    """A square window of `size` pixels, its place uniform; without chance the middle."""

    size: int = eqx.field(static=True)

    def __post_init__(self):
        require_count("size", self.size)

    def __call__(self, key: Array, image: Float[Array, "h w c"]) -> Float[Array, "size size c"]:
        return self._window(image, random_corner(key, image.shape, (self.size, self.size)))

    def plain(self, image: Array) -> Array:
        return self._window(image, jnp.array([(side - self.size) // 2 for side in image.shape[:2]]))

    def _window(self, image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(
            image, (corner[0], corner[1], jnp.zeros_like(corner[0])), (self.size, self.size, image.shape[2])
        )

    def shape_of(self, shape: Shape) -> Shape:
        if min(shape[:2]) < self.size:
            raise ValueError(
                f"Argument `images` must have at least {self.size} x {self.size} pixels for {self}, "
                f"but has {shape[0]} x {shape[1]}."
            )
        return self.size, self.size, shape[2]


class ResizedCrop(eqx.Module):
    """A window of random area and aspect, resized (linearly, with antialiasing) to `size` x `size`; without chance the whole image.

    - `area`: least and largest share of the image's area, uniform between. `aspect`: least and largest ratio of width and height,
      uniform in the logarithm. A window that would be larger than the image is cut down to it.
    """

    size: int = eqx.field(static=True)
    area: tuple[float, float] = eqx.field(static=True, default=(0.2, 1.0))
    aspect: tuple[float, float] = eqx.field(static=True, default=(3 / 4, 4 / 3))

    def __post_init__(self):
        require_count("size", self.size)
        for name, bounds, most in (("area", self.area, 1.0), ("aspect", self.aspect, np.inf)):
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= most:
                raise ValueError(f"Argument `{name}` must be 0 < least <= largest <= {most:g}, but is {bounds}.")

    def __call__(self, key: Array, image: Float[Array, "h w c"]) -> Float[Array, "size size c"]:
        drawn = jax.random.uniform(key, (4,), image.dtype)
        sides = jnp.array(image.shape[:2], image.dtype)
        low, high = self.area
        area = (low + (high - low) * drawn[0]) * sides[0] * sides[1]
        low, high = np.log(self.aspect)
        ratio = jnp.exp(jnp.asarray(low + (high - low) * drawn[1], image.dtype))
        window = jnp.minimum(jnp.sqrt(jnp.stack([area / ratio, area * ratio])), sides)
        corner = drawn[2:] * (sides - window)
        return self._resized(image, corner, window)

    def plain(self, image: Array) -> Array:
        sides = jnp.array(image.shape[:2], image.dtype)
        return self._resized(image, jnp.zeros_like(sides), sides)

    def _resized(self, image: Array, corner: Array, window: Array) -> Array:
        scale = self.size / window
        shape = (self.size, self.size, image.shape[2])
        return jax.image.scale_and_translate(image, shape, (0, 1), scale, -corner * scale, "linear")

    def shape_of(self, shape: Shape) -> Shape:
        return self.size, self.size, shape[2]


class Flip(_Chance):
    """Left and right exchanged, with this probability."""

    probability: ArrayLike = 0.5

    def __post_init__(self):
        _require_probability("probability", self.probability)

    def __call__(self, key: Array, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        return jnp.where(jax.random.bernoulli(key, self.probability), image[:, ::-1], image)


class GaussianNoise(_Chance):
    """Independent Gaussian noise of standard deviation `sigma` on every number."""

    sigma: ArrayLike = 0.1

    def __post_init__(self):
        require_nonnegative("sigma", self.sigma)

    def __call__(self, key: Array, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        return image + jnp.asarray(self.sigma, image.dtype) * jax.random.normal(key, image.shape, image.dtype)


class ColourJitter(_Chance):
    """Brightness, contrast, saturation and hue changed at random, in this order; nothing is clipped.

    Each factor is uniform on 1 +- its strength; `hue` turns the colours by up to this share of a full circle either way. Saturation
    and hue leave images of one channel as they are. Together they are done with `probability`.
    """

    brightness: ArrayLike = 0.4
    contrast: ArrayLike = 0.4
    saturation: ArrayLike = 0.2
    hue: ArrayLike = 0.1
    probability: ArrayLike = 0.8

    def __post_init__(self):
        for name in ("brightness", "contrast", "saturation", "hue"):
            _require_probability(name, getattr(self, name))
        _require_probability("probability", self.probability)

    def __call__(self, key: Array, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        drawn = jax.random.uniform(key, (5,), image.dtype)
        by = 2 * drawn - 1
        changed = image * (1 + self.brightness * by[0])
        middle = jnp.mean(_grey(changed))
        changed = middle + (changed - middle) * (1 + self.contrast * by[1])
        if image.shape[2] == 3:
            grey = _grey(changed)
            changed = _turned(
                grey + (changed - grey) * (1 + self.saturation * by[2]), 2 * jnp.pi * jnp.asarray(self.hue) * by[3]
            )
        return jnp.where(drawn[4] < self.probability, changed.astype(image.dtype), image)


class Greyscale(_Chance):
    """All channels replaced by the luminance (Rec. 601), with this probability."""

    probability: ArrayLike = 0.2

    def __post_init__(self):
        _require_probability("probability", self.probability)

    def __call__(self, key: Array, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        grey = jnp.broadcast_to(_grey(image), image.shape).astype(image.dtype)
        return jnp.where(jax.random.bernoulli(key, self.probability), grey, image)


class Standardise(_Chance):
    """(image - mean) / deviation, the same for all pixels and channels; it is no chance."""

    mean: ArrayLike
    deviation: ArrayLike

    def __call__(self, key: Array, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        return self.plain(image)

    def plain(self, image: Array) -> Array:
        return (image - jnp.asarray(self.mean, image.dtype)) / jnp.asarray(self.deviation, image.dtype)


def random_corner(key: Array, whole: tuple[int, ...], part: tuple[int, int]) -> Int[Array, "2"]:
    """Row and column of the first corner of a window, uniform over all places where it fits."""
    room = np.array([side - own + 1 for side, own in zip(whole[:2], part, strict=True)], np.int32)
    return (jax.random.uniform(key, (2,), jnp.float32) * room).astype(jnp.int32)


def _grey(image: Array) -> Array:
    if image.shape[2] != 3:
        return jnp.mean(image, axis=2, keepdims=True)
    return (image @ jnp.asarray(_LUMINANCE, image.dtype))[..., None]


def _turned(image: Array, angle: Array) -> Array:
    """Colours turned by an angle in the plane of I and Q."""
    forward, back = (jnp.asarray(matrix, image.dtype) for matrix in (_YIQ, np.linalg.inv(_YIQ)))
    c, s = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.array([[1, 0, 0], [0, c, -s], [0, s, c]], image.dtype)
    return image @ (back @ turn @ forward).T


def _require_probability(name: str, value: ArrayLike) -> None:
    require(name, value, "lie between 0 and 1", lambda a: (a >= 0) & (a <= 1))
