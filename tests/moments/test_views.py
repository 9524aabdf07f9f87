import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_dyn.moments import (
    VIEW_KINDS,
    BlockMask,
    RandomCrop,
    TemporalShift,
    feature_spectrum,
    moments_from_batches,
    photographs,
    view_pair_batches,
    view_pairs,
)

KINDS = [
    RandomCrop(3, 2),
    RandomCrop(4, 0),
    TemporalShift(3, (0, 2)),
    TemporalShift(3, (-1, 2), "either"),
    TemporalShift(3, (1, 2), "any"),
    BlockMask(4, 2),
    BlockMask(4, 2, "crop", "inside"),
]


def labelled(shapes):
    """Images whose pixels are all different, so that a window tells where it was taken."""
    images, start = [], 0
    for shape in shapes:
        images.append(np.arange(start, start + np.prod(shape), dtype=float).reshape(shape))
        start += 1000
    return images


def places(views, size, widths):
    """(image, row, column) of the windows in `labelled` images, after a check that they are whole windows."""
    windows = views.reshape(len(views), size, size)
    image = (windows[:, 0, 0] // 1000).astype(int)
    width = np.asarray(widths)[image]
    inside = windows[:, 0, 0] - 1000 * image
    grid = np.arange(size)
    expected = windows[:, :1, :1] + grid[:, None] * width[:, None, None] + grid
    np.testing.assert_array_equal(windows, expected)
    return np.stack([image, inside // width, inside % width], axis=1).astype(int)


@pytest.mark.parametrize(("max_offset", "size"), [(2, 3), (0, 3), (1, 5)])
def test_random_crops_are_windows_at_every_allowed_displacement(max_offset, size):
    images = labelled([(8, 11), (9, 7)])
    x, y = view_pairs(images, 20_000, 0, RandomCrop(size, max_offset))
    first, second = places(x, size, [11, 7]), places(y, size, [11, 7])
    np.testing.assert_array_equal(first[:, 0], second[:, 0])
    offsets = second[:, 1:] - first[:, 1:]
    side = 2 * max_offset + 1
    values, counts = np.unique(offsets, axis=0, return_counts=True)
    assert len(values) == side**2 and np.abs(values).max() == max_offset
    np.testing.assert_allclose(counts / 20_000, 1 / side**2, atol=0.015)
    np.testing.assert_allclose(np.bincount(first[:, 0]) / 20_000, 0.5, atol=0.02)
    for image, (h, w) in enumerate([(8, 11), (9, 7)]):
        corners = np.concatenate([first[first[:, 0] == image], second[second[:, 0] == image]])[:, 1:]
        assert corners.min(axis=0).tolist() == [0, 0] and corners.max(axis=0).tolist() == [h - size, w - size]


def test_places_are_uniform_given_the_displacement():
    x, _ = view_pairs(labelled([(6, 7)]), 30_000, 1, TemporalShift(3, (1, 2)))
    first = places(x, 3, [7])
    _, counts = np.unique(first[:, 1:], axis=0, return_counts=True)
    assert len(counts) == (6 - 3 - 1 + 1) * (7 - 3 - 2 + 1)
    np.testing.assert_allclose(counts / 30_000, 1 / 9, atol=0.01)


@pytest.mark.parametrize(
    ("views", "allowed"),
    [
        (TemporalShift(3, (1, -2)), {(1, -2)}),
        (TemporalShift(3, (1, -2), "either"), {(1, -2), (-1, 2)}),
        (TemporalShift(3, (1, -2), "any"), {(1, -2), (-1, 2), (2, 1), (-2, -1)}),
        (TemporalShift(3, (0, 0)), {(0, 0)}),
    ],
)
def test_temporal_shifts_pan_that_way(views, allowed):
    x, y = view_pairs(labelled([(9, 9)]), 2000, 0, views)
    offsets = (places(y, 3, [9]) - places(x, 3, [9]))[:, 1:]
    found, counts = np.unique(offsets, axis=0, return_counts=True)
    assert {tuple(v) for v in found.tolist()} == allowed
    np.testing.assert_allclose(counts / 2000, 1 / len(allowed), atol=0.05)


@pytest.mark.parametrize("placement", ["overhang", "inside"])
def test_block_masks_hide_one_block(placement):
    image = np.random.default_rng(0).uniform(1, 2, (12, 12))
    x, y = view_pairs([image], 4000, 0, BlockMask(5, 2, placement=placement))
    _, crop = view_pairs([image], 4000, 0, BlockMask(5, 2, "crop", placement))
    np.testing.assert_allclose(x + y, crop)
    np.testing.assert_array_equal(x * y, 0)
    hidden = (x == 0).reshape(-1, 5, 5)
    np.testing.assert_array_equal(hidden, (y != 0).reshape(-1, 5, 5))
    rows, columns = hidden.any(axis=2), hidden.any(axis=1)
    np.testing.assert_array_equal(hidden, rows[:, :, None] & columns[:, None, :])
    extents = set(rows.sum(axis=1).tolist())
    assert extents == ({2} if placement == "inside" else {1, 2})
    assert (np.abs(np.diff(rows, axis=1)).sum(axis=1) <= 2).all()  # one connected run of rows
    often = hidden.mean(axis=0)
    if placement == "overhang":
        np.testing.assert_allclose(often, (2 / 6) ** 2, atol=0.035)
    else:
        assert often[2, 2] > 3 * often[0, 0]


def test_hidden_is_the_mean_colour():
    images = [np.full((8, 8, 3), [0.1, 0.2, 0.3]), np.full((6, 10, 3), [0.5, 0.6, 0.7])]
    x, y = view_pairs(images, 50, 0, BlockMask(4, 2, "crop"), grayscale=False)
    np.testing.assert_allclose(np.abs(y), 0.2, atol=1e-12)  # each image lies 0.2 from the mean of both
    assert (x == 0).any()


@settings(deadline=None, max_examples=30)
@given(
    views=st.sampled_from(KINDS),
    num_pairs=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 2**64 - 1),
    grayscale=st.booleans(),
)
def test_pairs_depend_on_key_and_index_only(views, num_pairs, batch_size, seed, grayscale):
    images = [image[..., None] * [1.0, 2.0, 3.0] for image in labelled([(8, 9), (10, 8)])]
    x, y = view_pairs(images, num_pairs, seed, views, grayscale=grayscale)
    assert x.shape == y.shape == (num_pairs, views.patch_size**2 * (1 if grayscale else 3))
    batches = list(view_pair_batches(images, num_pairs, seed, views, grayscale=grayscale, batch_size=batch_size))
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), x)
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), y)
    longer, _ = view_pairs(images, num_pairs + 3, seed, views, grayscale=grayscale)
    np.testing.assert_array_equal(longer[:num_pairs], x)


def test_seeds_and_jax_keys_agree_and_differ_from_others():
    images = labelled([(20, 20)])
    x = view_pairs(images, 50, 7)[0]
    for same in (np.int64(7), jax.random.key(7), jax.random.PRNGKey(7)):
        np.testing.assert_array_equal(view_pairs(images, 50, same)[0], x)
    for other in (8, jax.random.key(8), jax.random.fold_in(jax.random.key(7), 1), jax.random.key(7, impl="rbg")):
        assert (view_pairs(images, 50, other)[0] != x).any()


def test_the_numbers_of_a_seed_are_kept():
    """Published results name a seed: these places must not change with a version."""
    x, y = view_pairs(labelled([(25, 40)]), 4, 0, RandomCrop(4, 2))
    got = np.concatenate([places(x, 4, [40])[:, 1:], places(y, 4, [40])[:, 1:]], axis=1)
    np.testing.assert_array_equal(got, [[13, 19, 11, 18], [3, 22, 2, 20], [10, 7, 9, 5], [20, 16, 21, 15]])


def test_bytes_greys_and_one_channel():
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    expected = view_pairs([levels / np.float32(255)], 20, 0, RandomCrop(5, 1))[0]
    assert expected.dtype == np.float32
    for same in ([levels], levels[None], [levels[..., None]]):
        np.testing.assert_array_equal(view_pairs(same, 20, 0, RandomCrop(5, 1))[0], expected)
    colours = np.zeros((8, 8, 3))
    colours[..., 1] = 1.0
    np.testing.assert_allclose(view_pairs([colours], 3, 0, RandomCrop(4, 1))[0], 0.587)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "at least one image"),
        ([np.zeros((9, 9)), np.zeros((9, 6))], ValueError, "at least 7 x 7 pixels for RandomCrop.*image 1 has 9 x 6"),
        ([np.zeros((9, 9, 2))], ValueError, r"shape \(h, w\).* image 0 has shape \(9, 9, 2\)"),
        ([np.zeros(9)], ValueError, "image 0 has shape"),
        ([np.zeros((0, 9))], ValueError, "image 0 has shape"),
        ([np.full((9, 9), np.nan)], ValueError, "image 0 holds a NaN"),
        ([np.zeros((9, 9), int)], TypeError, "floats or bytes, but image 0 has dtype int64"),
    ],
)
def test_bad_images_are_refused_at_once(images, error, message):
    with pytest.raises(error, match=message):
        view_pair_batches(images, 5, 0, RandomCrop(5, 2))


def test_channels_must_agree_where_colours_are_kept():
    mixed = [np.zeros((9, 9)), np.zeros((9, 9, 3))]
    with pytest.raises(ValueError, match="image 0 has 1 and image 1 has 3"):
        view_pairs(mixed, 5, 0, RandomCrop(5, 2), grayscale=False)
    assert view_pairs(mixed, 5, 0, RandomCrop(5, 2))[0].shape == (5, 25)


def test_bad_counts_and_keys_are_refused():
    images = [np.zeros((9, 9))]
    for arguments in (dict(num_pairs=0), dict(num_pairs=-1), dict(num_pairs=5, batch_size=0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            view_pair_batches(images, key=0, views=RandomCrop(3, 1), **arguments)
    for bad in (-1, 2**64):
        with pytest.raises(ValueError, match="`key` must be a seed between 0"):
            view_pairs(images, 5, bad, RandomCrop(3, 1))
    for bad in (True, jax.random.split(jax.random.key(0), 3), np.float64(1.0)):
        with pytest.raises(TypeError):
            view_pairs(images, 5, bad, RandomCrop(3, 1))
    with pytest.raises(TypeError):
        view_pairs(images, 5, 0, "crop")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrop(0), "`patch_size` must be an integer >= 1"),
        (lambda: RandomCrop(4, -1), "`max_offset` must be an integer >= 0"),
        (lambda: TemporalShift(4, (1, 2, 3)), "`displacement` must be two integers"),
        (lambda: TemporalShift(4, (0, 1), "left"), "`direction` must be one of"),
        (lambda: BlockMask(4, 4), "`block_size` must be smaller than `patch_size` = 4"),
        (lambda: BlockMask(4, 0), "`block_size` must be an integer >= 1"),
        (lambda: BlockMask(4, 2, "blok"), "Did you mean 'block'"),
        (lambda: BlockMask(4, 2, "block", "outside"), "`placement` must be one of"),
    ],
)
def test_bad_kinds_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_constant_images_give_a_clear_error():
    with pytest.raises(ValueError, match="constant data has zero variance"):
        moments_from_batches(view_pair_batches([np.full((20, 20), 0.3)], 100, 0))


def defect_of(views, num_pairs=40_000):
    moments = moments_from_batches(view_pair_batches(photographs(), num_pairs, 0, views))
    return feature_spectrum(moments)


def test_photographs_are_nearly_simultaneously_diagonal():
    """What was measured on the photographs, 8 x 8 grey: bounds on the defects, for each kind of views."""
    crop, shift, mask = (defect_of(kind()) for kind in VIEW_KINDS.values())
    either, inside = defect_of(TemporalShift(direction="either")), defect_of(BlockMask(placement="inside"))
    assert float(crop.defect.off_diagonal_xx) < 0.01 and float(crop.defect.asymmetry_yx) < 0.005
    assert (np.asarray(crop.leakage_xx[:4]) < 0.2).all()
    assert 5 * float(either.defect.asymmetry_yx) < float(shift.defect.asymmetry_yx) < 0.05  # time has a direction
    assert float(mask.defect.off_diagonal_xx) < 0.15 < 0.3 < float(inside.defect.off_diagonal_xx)
    assert float(mask.defect.asymmetry_yx) < 0.05 < 0.3 < float(inside.defect.asymmetry_yx)
    assert abs(float(mask.lam.sum())) < 1e-3 * float(mask.lam[0])  # complementary masks: trace 0 up to the centring
    assert 0.98 < float(crop.rho[0]) < 1 and float(crop.lam[0]) > 10 * float(crop.lam[1])
