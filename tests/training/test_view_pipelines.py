"""Transforms and views: what each does to an image, against numpy; that chance is uniform; that too small an image is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn.training import (
    BlockMasks,
    ColourJitter,
    Crop,
    Flip,
    GaussianNoise,
    Greyscale,
    HiddenPatches,
    MomentumSchedule,
    ResizedCrop,
    Standardise,
    TwoViews,
    cosine_momentum,
    linear_momentum,
)
from jepa_dyn.training.view_pipelines import require_images

KEYS = jax.random.split(jax.random.key(0), 400)
RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.uniform(size=(5, 7, 3)))


@eqx.filter_jit
def drawn(views, image):
    return jax.vmap(views, (0, None))(KEYS, image)


def many(transform, image=IMAGE):
    """400 draws; one program for all numbers of a transform."""
    return np.asarray(drawn(jax.tree.map(jnp.asarray, transform), image))


def test_crops_are_windows_at_all_places_equally_often():
    found = many(Crop(3))
    image = np.asarray(IMAGE)
    places = {image[i : i + 3, j : j + 3].tobytes(): (i, j) for i in range(3) for j in range(5)}
    counts = np.zeros((3, 5))
    for window in found:
        counts[places[window.tobytes()]] += 1
    # chi squared of 14 degrees of freedom: above 36 with probability 1e-3
    assert ((counts - 400 / 15) ** 2 / (400 / 15)).sum() < 36
    np.testing.assert_array_equal(Crop(3).plain(IMAGE), image[1:4, 2:5])


def test_resized_crops_of_the_whole_image_are_the_image():
    square = IMAGE[:, :5]
    np.testing.assert_allclose(jax.jit(ResizedCrop(5).plain)(square), square, atol=1e-12)
    found = many(ResizedCrop(5, area=(1.0, 1.0), aspect=(1.0, 1.0)), square)
    np.testing.assert_allclose(found, np.broadcast_to(square, found.shape), atol=1e-12)
    # a ramp stays a ramp: of window w it spans w, less at the borders of the interpolation
    ramp = jnp.broadcast_to(jnp.arange(20.0)[:, None, None], (20, 20, 1))
    slopes = np.diff(many(ResizedCrop(10, area=(0.25, 1.0), aspect=(1.0, 1.0)), ramp)[:, 3:7, 5, 0], axis=1)
    assert slopes.std(axis=1).max() < 0.15 and 0.95 < slopes.min() and slopes.max() < 2.1
    assert 1.4 < slopes.mean() < 1.7  # E sqrt(area) = 14 / 18 of 2


def test_flips_noise_and_greys():
    flipped = many(Flip(0.25))
    is_flipped = (flipped == np.asarray(IMAGE)[:, ::-1]).all((1, 2, 3))
    assert (is_flipped | (flipped == np.asarray(IMAGE)).all((1, 2, 3))).all()
    assert 0.15 < is_flipped.mean() < 0.36  # 5 deviations
    noise = many(GaussianNoise(0.5)) - np.asarray(IMAGE)
    assert abs(noise.mean()) < 0.5 * 5 / np.sqrt(noise.size) and abs(noise.std() / 0.5 - 1) < 5 / np.sqrt(
        2 * noise.size
    )
    grey = np.asarray(Greyscale(1.0)(KEYS[0], IMAGE))
    np.testing.assert_allclose(grey[..., 0], np.asarray(IMAGE) @ [0.299, 0.587, 0.114], rtol=1e-12)
    assert (grey[..., 1] == grey[..., 0]).all()
    scaled = Standardise(0.5, 2.0)
    np.testing.assert_allclose(scaled(KEYS[0], IMAGE), (np.asarray(IMAGE) - 0.5) / 2, rtol=1e-12)
    np.testing.assert_allclose(scaled.plain(IMAGE), scaled(KEYS[1], IMAGE))
    np.testing.assert_array_equal(GaussianNoise(0.5).plain(IMAGE), IMAGE)


def test_colours():
    luminance = np.array([0.299, 0.587, 0.114])
    bright = many(ColourJitter(0.5, 0.0, 0.0, 0.0, 1.0)) / np.asarray(IMAGE)
    assert (np.ptp(bright, axis=(1, 2, 3)) < 1e-12).all() and 0.5 <= bright.min() < 0.55 and 1.45 < bright.max() <= 1.5
    contrast = many(ColourJitter(0.0, 0.5, 0.0, 0.0, 1.0))
    np.testing.assert_allclose((contrast @ luminance).mean((1, 2)), (np.asarray(IMAGE) @ luminance).mean(), rtol=1e-10)
    # saturation and hue leave the luminance, hue also the length of the colour in the plane of I and Q
    for jitter in (ColourJitter(0.0, 0.0, 0.5, 0.0, 1.0), ColourJitter(0.0, 0.0, 0.0, 0.5, 1.0)):
        found = many(jitter)
        np.testing.assert_allclose(
            found @ luminance, np.broadcast_to(np.asarray(IMAGE) @ luminance, (400, 5, 7)), rtol=1e-9
        )
        assert np.abs(found - np.asarray(IMAGE)).max() > 0.05
    chroma = np.array([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    np.testing.assert_allclose(
        np.linalg.norm(found @ chroma.T, axis=-1)[7], np.linalg.norm(np.asarray(IMAGE) @ chroma.T, axis=-1), rtol=1e-9
    )
    assert (many(ColourJitter(probability=0.0)) == np.asarray(IMAGE)).all()
    grey = jnp.asarray(RNG.uniform(size=(4, 4, 1)))
    assert ColourJitter(probability=1.0)(KEYS[0], grey).shape == (4, 4, 1)


def test_two_views_share_what_is_shared_and_nothing_else():
    views = TwoViews((GaussianNoise(1.0),), shared=(Crop(3),))
    x, y = (np.asarray(part) for part in drawn(views, jnp.zeros((5, 7, 1))))
    assert x.shape == y.shape == (400, 9)
    assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 5 / np.sqrt(x.size)
    clean = TwoViews((Crop(3),), (Standardise(0.0, 2.0),), shared=(Crop(3),))
    x, y = (np.asarray(part) for part in drawn(clean, IMAGE))
    np.testing.assert_allclose(y, x / 2, rtol=1e-12)  # one crop for both
    np.testing.assert_array_equal(clean.plain(IMAGE), np.asarray(IMAGE)[1:4, 2:5].ravel())
    assert clean.shape_of((5, 7, 3)) == (3, 3, 3)


def test_hidden_patches():
    views = HiddenPatches(2, 0.75)
    x, y, hidden = (np.asarray(part) for part in drawn(views, IMAGE[:4, :6]))
    np.testing.assert_array_equal(y, np.broadcast_to(np.asarray(IMAGE)[:4, :6].ravel(), y.shape))
    np.testing.assert_array_equal(x, np.where(hidden, 0, y))
    grid = hidden.reshape(400, 2, 2, 3, 2, 3).all((2, 4, 5))
    assert (grid == hidden.reshape(400, 2, 2, 3, 2, 3).any((2, 4, 5))).all()  # whole patches
    assert (grid.sum((1, 2)) == 4).all()  # round(0.75 x 6): half to even
    assert np.abs(grid.mean(0) - 4 / 6).max() < 5 * np.sqrt(2 / 9 / 400)


def test_block_masks():
    masks = BlockMasks(1, ((1, 2), (2, 1)), (3, 4))
    x, visible, targets = drawn(masks, IMAGE[:4, :6])
    visible, first, second = np.asarray(visible).reshape(-1, 4, 6), *(np.asarray(part) for part in targets)
    assert x.shape == (400, 72)
    np.testing.assert_array_equal(first[:, 1] - first[:, 0], 1)
    np.testing.assert_array_equal(second[:, 1] - second[:, 0], 6)
    assert (first % 6 < 6).all() and (first[:, 0] % 6 < 5).all() and second.max() < 24
    counts = np.bincount(first[:, 0], minlength=24).reshape(4, 6)[:, :5]
    assert ((counts - 20) ** 2 / 20).sum() < 44  # chi squared, 19 degrees of freedom
    for one, blocks in zip(visible, np.concatenate([first, second], axis=1), strict=True):
        assert not one.ravel()[blocks].any() and 8 <= one.sum() <= 12
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        assert np.ptp(rows) < 3 and np.ptp(columns) < 4


def test_schedules():
    cosine, line = cosine_momentum(0.9, 1.0, 100), linear_momentum(0.9, 1.0, 100)
    assert float(cosine(0)) == pytest.approx(0.9) and float(cosine(100)) == 1.0 == float(cosine(1000))
    assert float(cosine(25)) == pytest.approx(1 - 0.1 * (np.cos(np.pi / 4) + 1) / 2)
    assert float(line(25)) == pytest.approx(0.925) and float(line(101)) == 1.0
    lanes = jax.vmap(lambda start: MomentumSchedule(start, 1.0, 10, "linear")(5.0))(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(lanes, [0.5, 0.75])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TwoViews((Crop(6),)).shape_of((5, 7, 1)), "at least 6 x 6 pixels for .*, but has 5 x 7"),
        (lambda: TwoViews((Crop(3),), (Crop(2),)).shape_of((5, 7, 1)), "views of one shape, but makes"),
        (lambda: HiddenPatches(2).shape_of((5, 4, 1)), "`patch_size` must divide the view of 5 x 4"),
        (lambda: HiddenPatches(2, 1.5), "`fraction` must lie between 0 and 1"),
        (lambda: BlockMasks(2, ((3, 1),), (2, 2)).shape_of((4, 4, 1)), "`blocks` must be \\(rows, columns\\) within"),
        (lambda: BlockMasks(2, (), (2, 2)), "`blocks` must hold at least one"),
        (lambda: Crop(0), "`size` must be a whole number >= 1"),
        (lambda: Flip(1.5), "`probability` must lie between 0 and 1"),
        (lambda: GaussianNoise(-1.0), "`sigma` must be finite and >= 0"),
        (lambda: ResizedCrop(4, area=(0.5, 0.2)), "`area` must be 0 < least <= largest <= 1"),
        (lambda: cosine_momentum(1.5, 1.0, 10), "`start` must lie between 0 and 1"),
        (lambda: require_images([np.zeros((2, 2)), np.zeros((3, 3))]), "must hold images of one size"),
        (lambda: require_images(np.zeros((2, 4, 4, 2))), "`images` must have shape"),
        (lambda: require_images(np.full((1, 2, 2), np.nan)), "`images` must be finite"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
