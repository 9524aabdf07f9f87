"""Images to take views of: the photographs that scikit-learn ships, or any folder of image files.

Pillow and scikit-learn are imported only when a function that needs them is called (`pip install "jepa_dyn[images]"`).
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jepa_dyn._checks import require_choice
from jepa_dyn.moments.binary_datasets import (
    dataset_in,
    read_cifar,
    read_cifar_labels,
    read_stl10,
    read_stl10_labels,
)

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


def load_labelled_images(
    path: str | Path | None = None, *, split: str = "train", max_images: int | None = None
) -> tuple[Images | Float[np.ndarray, "_ _ _ 1"], Int[np.ndarray, " n"]]:
    """(images, their classes 0, 1, ...): images as `load_images` has them, of digits (n, 8, 8, 1).

    Args:
        path: None: the 1797 digits that scikit-learn ships, of which every fifth is "test" and the others "train". A folder of
            CIFAR-10, CIFAR-100 or STL-10 files; or one whose subfolders hold the images of one class each, in the order of names.
        split: "train" or "test"; of a folder of image files there is "train" only.
        max_images: read only the first ones.

    Raises:
        ValueError: a path that does not exist, no labels in it, a split that is not there. ImportError: as `load_images`.
    """
    require_choice("split", split, ("train", "test"))
    if max_images is not None and max_images < 1:
        raise ValueError(f"Argument `max_images` must be at least 1, but is {max_images}.")
    if path is None:
        found = _extra("sklearn.datasets").load_digits()
        chosen = np.flatnonzero((np.arange(len(found.target)) % 5 == 4) == (split == "test"))[:max_images]
        return np.asarray(found.images[chosen, :, :, None] / 16, np.float32), found.target[chosen].astype(np.int64)
    images = load_images(path, split=split, max_images=max_images)
    known = dataset_in(Path(path).expanduser())
    if known is not None:
        reader = read_stl10_labels if known[0] == "stl10" else read_cifar_labels
        return images, reader(known[1], split=split, max_images=max_images)
    folder = Path(path).expanduser()
    classes: Any = [file.relative_to(folder).parts[:-1] for file in _image_files(folder)] if folder.is_dir() else [()]
    if split != "train" or not all(classes):
        raise ValueError(
            f"Argument `path` must name a folder with CIFAR or STL-10 files, or with a subfolder for each class and split 'train', "
            f"but is {str(path)!r} and the split {split!r}."
        )
    names = sorted({parts[0] for parts in classes})
    return images, np.array([names.index(parts[0]) for parts in classes[:max_images]])


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
    files = _image_files(path)
    if not files:
        raise ValueError(
            f"Argument `path` must name a folder that holds images, but {str(path)!r} has no file ending in "
            f"{', '.join(SUFFIXES)}, and no CIFAR or STL-10 files."
        )
    return [read_image(file) for file in files[:max_images]]


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())


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
