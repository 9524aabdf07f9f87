"""Views of one image on the device, pure functions of (key, image): two views, hidden patches, block masks as in I-JEPA.

Views are flat, in the order (row, column, channel), whatever the network makes of them. `views(key, image)` is mapped over a batch
inside the training step, so a run needs no other memory than its images.
"""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jepa_dyn._checks import require_count
from jepa_dyn.training.transforms import Shape, Transform, random_corner


@runtime_checkable
class Views(Protocol):
    """What `train_networks` asks of a way to take views."""

    def __call__(self, key: Array, image: Array) -> tuple[Any, ...]: ...

    def plain(self, image: Array) -> Array: ...

    def shape_of(self, shape: Shape) -> Shape: ...


def _through(transforms: tuple[Transform, ...], key: Array, image: Array) -> Array:
    keys = [key] if len(transforms) == 1 else jax.random.split(key, len(transforms))
    for own, transform in zip(keys, transforms, strict=False):
        image = transform(own, image)
    return image


def _plain(transforms: tuple[Transform, ...], image: Array) -> Array:
    for transform in transforms:
        image = transform.plain(image)
    return image


def _shape(transforms: tuple[Transform, ...], shape: Shape) -> Shape:
    for transform in transforms:
        shape = transform.shape_of(shape)
    return shape


class TwoViews(eqx.Module):
    """(x, y): the image through `shared`, then independently through `first` and through `second`.

    `second` None is `first`. `plain(image)`, what features are read out from, is `shared` and `first` without chance.
    """

    first: tuple[Any, ...]
    second: tuple[Any, ...] | None = None
    shared: tuple[Any, ...] = ()

    def __call__(self, key: Array, image: Float[Array, "h w c"]) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        keys = jax.random.split(key, 3)
        image = _through(self.shared, keys[2], image)
        if self.second is None:
            x, y = jax.vmap(lambda own: _through(self.first, own, image))(keys[:2])
        else:
            x, y = _through(self.first, keys[0], image), _through(self.second, keys[1], image)
        return x.reshape(-1), y.reshape(-1)

    def plain(self, image: Float[Array, "h w c"]) -> Float[Array, " m"]:
        return _plain((*self.shared, *self.first), image).reshape(-1)

    def shape_of(self, shape: Shape) -> Shape:
        found = _shape((*self.shared, *self.first), shape)
        other = found if self.second is None else _shape((*self.shared, *self.second), shape)
        if other != found:
            raise ValueError(f"Argument `views` must make views of one shape, but makes {found} and {other}.")
        return found


class HiddenPatches(eqx.Module):
    """(x, y, hidden): y the image through `transforms`, x the same with random patches set to 0, hidden (m,) says where.

    round(`fraction` x patches) patches of `patch_size` pixels a side are hidden, all choices equally likely: the views of a masked
    autoencoder (He 2022), whose loss counts what is hidden.
    """

    patch_size: int = eqx.field(static=True)
    fraction: float = eqx.field(static=True, default=0.75)
    transforms: tuple[Any, ...] = ()

    def __post_init__(self):
        require_count("patch_size", self.patch_size)
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"Argument `fraction` must lie between 0 and 1, but is {self.fraction}.")

    def __call__(
        self, key: Array, image: Float[Array, "h w c"]
    ) -> tuple[Float[Array, " m"], Float[Array, " m"], Bool[Array, " m"]]:
        first, second = jax.random.split(key)
        y = _through(self.transforms, first, image)
        rows, columns = (side // self.patch_size for side in y.shape[:2])
        count = round(self.fraction * rows * columns)
        grid = (jax.random.permutation(second, rows * columns) < count).reshape(rows, columns)
        hidden = jnp.repeat(jnp.repeat(grid, self.patch_size, axis=0), self.patch_size, axis=1)[:, :, None]
        x, hidden = jnp.where(hidden, 0, y), jnp.broadcast_to(hidden, y.shape)
        return x.reshape(-1), y.reshape(-1), hidden.reshape(-1)

    def plain(self, image: Float[Array, "h w c"]) -> Float[Array, " m"]:
        return _plain(self.transforms, image).reshape(-1)

    def shape_of(self, shape: Shape) -> Shape:
        found = _shape(self.transforms, shape)
        require_whole_patches(found, self.patch_size)
        return found


class BlockMasks(eqx.Module):
    """(x, visible, targets): the image through `transforms`, its visible patches, and K target blocks of patches to predict.

    Patches have `patch_size` pixels a side and are numbered row by row. Target k is a block of `blocks[k]` = (rows, columns) of
    them, its place uniform; targets may overlap. The context is a block of `context` (rows, columns), without all targets:
    `visible` (T,) says which patches are in it. `targets` are the numbers of the patches of each block.

    Sizes are fixed, so that shapes are: I-JEPA draws one size per batch (targets of 0.15 to 0.2 of the image, aspect 0.75 to 1.5, a
    context of 0.85 to 1). Where targets cover the whole context, nothing is visible and the predictor sees places only.

    Source: Assran 2023, section 3; note on collapse, section 5.1.
    """

    patch_size: int = eqx.field(static=True)
    blocks: tuple[tuple[int, int], ...] = eqx.field(static=True)
    context: tuple[int, int] = eqx.field(static=True)
    transforms: tuple[Any, ...] = ()

    def __post_init__(self):
        require_count("patch_size", self.patch_size)
        if not self.blocks:
            raise ValueError("Argument `blocks` must hold at least one (rows, columns), but is empty.")
        require_count("blocks", self.blocks)
        require_count("context", self.context)

    def __call__(
        self, key: Array, image: Float[Array, "h w c"]
    ) -> tuple[Float[Array, " m"], Bool[Array, " T"], tuple[Int[Array, " t"], ...]]:
        keys = jax.random.split(key, len(self.blocks) + 2)
        image = _through(self.transforms, keys[0], image)
        grid = tuple(side // self.patch_size for side in image.shape[:2])
        context = _block(keys[1], grid, self.context)
        targets = tuple(_block(own, grid, size) for own, size in zip(keys[2:], self.blocks, strict=True))
        visible = jnp.zeros(grid[0] * grid[1], bool).at[context].set(True).at[jnp.concatenate(targets)].set(False)
        return image.reshape(-1), visible, targets

    def plain(self, image: Float[Array, "h w c"]) -> Float[Array, " m"]:
        return _plain(self.transforms, image).reshape(-1)

    def shape_of(self, shape: Shape) -> Shape:
        found = _shape(self.transforms, shape)
        require_whole_patches(found, self.patch_size)
        grid = tuple(side // self.patch_size for side in found[:2])
        for name, size in (("context", self.context), *(("blocks", block) for block in self.blocks)):
            if len(size) != 2 or size[0] > grid[0] or size[1] > grid[1]:
                raise ValueError(f"Argument `{name}` must be (rows, columns) within {grid} patches, but has {size}.")
        return found


def _block(key: Array, grid: tuple[int, ...], size: tuple[int, int]) -> Array:
    """Numbers of the patches of a block at a random place."""
    corner = random_corner(key, grid, size)
    rows, columns = corner[0] + jnp.arange(size[0]), corner[1] + jnp.arange(size[1])
    return (rows[:, None] * grid[1] + columns).reshape(-1)


def require_whole_patches(shape: Shape, patch_size: int) -> None:
    """Raises ValueError unless a view is made of whole patches."""
    if shape[0] % patch_size or shape[1] % patch_size:
        raise ValueError(
            f"Argument `patch_size` must divide the view of {shape[0]} x {shape[1]} pixels, but is {patch_size}."
        )


def require_images(images: Any) -> np.ndarray:
    """Images as floats (N, h, w, c); greys (N, h, w) get a channel, bytes are divided by 255.

    Raises:
        ValueError: images of different sizes, none, not finite, or with other than 1 or 3 channels.
        TypeError: neither floats nor bytes.
    """
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise ValueError(f"Argument `images` must hold images of one size, but: {error}.") from None
    if array.dtype == object:
        raise ValueError("Argument `images` must hold images of one size, but they differ.")
    if array.dtype == np.uint8:
        array = array / np.float32(255)
    if array.dtype.kind != "f":
        raise TypeError(f"Argument `images` must hold floats or bytes, but has dtype {array.dtype}.")
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape:
        raise ValueError(
            f"Argument `images` must have shape (N, h, w), (N, h, w, 1) or (N, h, w, 3), but has shape {np.shape(images)}."
        )
    if not np.isfinite(array).all():
        raise ValueError("Argument `images` must be finite, but holds a NaN or an infinity.")
    return array
