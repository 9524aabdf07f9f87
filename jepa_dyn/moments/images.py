"""Images to take views of: the photographs that scikit-learn ships, or any folder of image files.

Pillow and scikit-learn are imported only when a function that needs them is called (`pip install "jepa_dyn[images]"`).
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Float

from jepa_dyn.moments.binary_datasets import dataset_in, read_cifar, read_stl10

SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
Images = Sequence[Float[np.ndarray, "_ _ 3"]] | Float[np.ndarray, "_ _ _ 3"]


def load_images(path: str | Path | None = None, *, split: str = "train", max_images: int | None = None) -> Images:
    """Images with values in [0, 1], float32, RGB: a list of (h, w, 3) arrays, or one array (n, h, w, 3) where all are alike.

    Args:
        path: None: scikit-learn's two photographs. A file: that image. A folder: recognised as CIFAR-10, CIFAR-100 (binary or
            Python version) or STL-10 (binary) by the names of its files, else every image file in it and below it, by name.
        split: "train", "test" or (STL-10) "unlabeled"; only for those data sets.
        max_images: read only the first ones.

    Raises:
        ValueError: a path that does not exist, no images in it, an unreadable file, a split that is not there.
        ImportError: a package of the `images` extra is missing.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f"Argument `max_images` must be at least 1, but is {max_images}.")
    if path is None:
        return photographs()[:max_images]
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"Argument `path` must name an existing file or folder, but {str(path)!r} does not exist.")
    if path.is_file():
        return [read_image(path)]
    found = dataset_in(path)
    if found is not None:
        kind, folder = found
        reader = read_stl10 if kind == "stl10" else read_cifar
        return reader(folder, split=split, max_images=max_images)
    return read_folder(path, max_images=max_images)


def photographs() -> list[Float[np.ndarray, "_ _ 3"]]:
    """The two photographs that scikit-learn ships (a Chinese temple, a flower), each (427, 640, 3), in [0, 1], float32."""
    loaded = _extra("sklearn.datasets").load_sample_images()
    return [np.asarray(image, np.float32) / 255 for image in loaded.images]


def read_folder(path: str | Path, *, max_images: int | None = None) -> list[Float[np.ndarray, "_ _ 3"]]:
    """All image files in a folder and below it, in the order of their names; files with other suffixes are passed over.

    Raises:
        ValueError: not a folder, no file with one of `SUFFIXES`, or a file that cannot be read, by name.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"Argument `path` must name an existing folder, but {str(path)!r} is none.")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise ValueError(
            f"Argument `path` must name a folder that holds images, but {str(path)!r} has no file ending in "
            f"{', '.join(SUFFIXES)}, and no CIFAR or STL-10 files."
        )
    return [read_image(file) for file in files[:max_images]]


def read_image(path: str | Path) -> Float[np.ndarray, "_ _ 3"]:
    """One image file as RGB in [0, 1], float32, turned upright; transparency is dropped, of an animation the first frame taken.

    Raises:
        ValueError: the file cannot be read as an image.
    """
    pil, operations = _extra("PIL.Image"), _extra("PIL.ImageOps")
    try:
        with pil.open(path) as opened:
            image = operations.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16-bit greys, which `convert` would clip at 255
                grey = np.asarray(image, np.float32) / 65535
                return np.repeat(np.clip(grey, 0, 1)[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"), np.float32) / 255
    except (OSError, SyntaxError, ValueError, EOFError, pil.DecompressionBombError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"Image file {str(path)!r} cannot be read: {reason}.") from error


def _extra(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'Reading images needs {module.split(".")[0]}, which is not installed: pip install "jepa_dyn[images]".'
        ) from error
