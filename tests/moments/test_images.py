import sys

import numpy as np
import pytest
from PIL import Image

from jepa_dyn.moments import load_images, photographs, read_folder, read_image

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_photographs_of_scikit_learn():
    images = load_images()
    assert [image.shape for image in images] == [(427, 640, 3)] * 2
    for image in images:
        assert image.dtype == np.float32 and image.min() >= 0 and 0.9 < image.max() <= 1 and image.std() > 0.1
    assert len(load_images(max_images=1)) == 1


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tiff", "gif"])
def test_reads_what_was_written(tmp_path, suffix):
    colours = RGB // 128 * 255 if suffix == "gif" else RGB  # few enough colours for a palette
    Image.fromarray(colours).save(tmp_path / f"a.{suffix}")
    (image,) = load_images(tmp_path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(np.round(image * 255), colours)
    np.testing.assert_array_equal(load_images(tmp_path / f"a.{suffix}")[0], image)


def test_jpeg_is_close(tmp_path):
    smooth = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[..., 0], smooth / 255, atol=0.05)


def test_greys_alpha_and_sixteen_bits_become_rgb(tmp_path):
    grey16 = np.array([[0, 65535], [32768, 256]], np.uint16)
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey8.png")
    Image.fromarray(np.dstack([RGB, RGB[..., :1]])).save(tmp_path / "alpha.png")
    np.testing.assert_allclose(
        read_image(tmp_path / "grey16.png"), np.repeat(grey16[..., None] / 65535, 3, -1), atol=1e-6
    )
    np.testing.assert_allclose(read_image(tmp_path / "grey8.png"), np.repeat(RGB[..., :1] / 255, 3, -1), atol=1e-6)
    np.testing.assert_allclose(read_image(tmp_path / "alpha.png"), RGB / 255, atol=1e-6)


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(read_image(tmp_path / "turned.png"), np.rot90(RGB, -1) / 255, atol=1e-6)


def test_folders_are_read_in_order_with_subfolders(tmp_path):
    (tmp_path / "b").mkdir()
    for level, name in enumerate(("a.png", "b/c.png", "d.png")):
        Image.fromarray(np.full((2, 2, 3), level, np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    images = read_folder(tmp_path)
    assert [round(float(image[0, 0, 0]) * 255) for image in images] == [0, 1, 2]
    assert len(load_images(str(tmp_path), max_images=2)) == 2


def test_unreadable_files_are_named(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("this is no image")
    with pytest.raises(ValueError, match=r"Image file '.*text\.png' cannot be read"):
        load_images(tmp_path)
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"Image file '.*cut\.png' cannot be read"):
        load_images(tmp_path / "cut.png")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"Image file '.*empty\.jpg' cannot be read"):
        read_image(tmp_path / "empty.jpg")


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"'.*nowhere' does not exist"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no file ending in \.png, \.jpg.* and no CIFAR or STL-10"):
        load_images(tmp_path)
    with pytest.raises(ValueError, match="existing folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="`max_images` must be at least 1"):
        load_images(tmp_path, max_images=0)


@pytest.mark.parametrize(
    ("module", "call"),
    [("PIL.Image", lambda p: read_image(p / "a.png")), ("sklearn.datasets", lambda p: photographs())],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, module, call):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module.split('.')[0]}.*jepa_dyn\[images\]"):
        call(tmp_path)
