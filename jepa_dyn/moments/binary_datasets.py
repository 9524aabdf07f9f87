"""Readers of the CIFAR-10, CIFAR-100 (binary and Python versions) and STL-10 (binary) folders, given by path.

Formats: https://www.cs.toronto.edu/~kriz/cifar.html and https://cs.stanford.edu/~acoates/stl10/. Nothing is downloaded.
"""

import importlib
import io
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from jepa_dyn._checks import require_choice

_CIFAR_PIXELS = 3 * 32 * 32
# version -> (bytes of labels before each image in the binary files, files of each split)
_CIFAR_BINARY: dict[str, tuple[int, dict[str, tuple[str, ...]]]] = {
    "cifar10": (1, {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}),
    "cifar100": (2, {"train": ("train.bin",), "test": ("test.bin",)}),
}
_CIFAR_PYTHON: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar10": {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    "cifar100": {"train": ("train",), "test": ("test",)},
}
_STL_FILES = {"train": "train_X.bin", "test": "test_X.bin", "unlabeled": "unlabeled_X.bin"}
_USUAL_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python", "stl10_binary")


def dataset_in(path: Path) -> tuple[Literal["cifar", "stl10"], Path] | None:
    """Which data set a folder (or its usual subfolder) holds, judged by file names; None where it is neither."""
    for folder in (path, *(path / name for name in _USUAL_FOLDERS)):
        if any((folder / name).is_file() for name in _STL_FILES.values()):
            return "stl10", folder
        if any(_cifar_files(folder, split) for split in ("train", "test")):
            return "cifar", folder
    return None


def read_cifar(
    path: str | Path, *, split: str = "train", max_images: int | None = None
) -> Float[np.ndarray, "n 32 32 3"]:
    """Images of a CIFAR-10 or CIFAR-100 folder, binary or Python version, in [0, 1], float32.

    Args:
        path: folder with `data_batch_1.bin`..., `data_batch_1`..., `train.bin` or `train`; those batches that are there are read.
        split: "train" or "test".
        max_images: read only the first ones.

    The Python version is read by an unpickler that builds numpy arrays and plain containers only: a file cannot run code.

    Raises:
        ValueError: no such files, or one that is not in the format, by name.
    """
    planes = _cifar_rows(path, split, max_images, labelled=False)[:, 1:].reshape(-1, 3, 32, 32)
    return _unit_range(planes.transpose(0, 2, 3, 1))


def read_cifar_labels(
    path: str | Path, *, split: str = "train", max_images: int | None = None
) -> Int[np.ndarray, " n"]:
    """The classes of the images of `read_cifar`: 0 to 9, or the fine ones of CIFAR-100, 0 to 99. Args, raises: as there."""
    return _cifar_rows(path, split, max_images, labelled=True)[:, 0].astype(np.int64)


def _cifar_rows(
    path: str | Path, split: str, max_images: int | None, labelled: bool
) -> UInt8[np.ndarray, "n row_bytes"]:
    """A byte with the (fine) label and the pixels of each image; without `labelled` that byte may be anything."""
    require_choice("split", split, ("train", "test"))
    files = _cifar_files(Path(path), split)
    if not files:
        raise ValueError(
            f"Argument `path` must name a folder with CIFAR files of the split {split!r}, but {str(path)!r} has none."
        )
    parts: list[np.ndarray] = []
    missing = max_images
    for file, label_bytes in files:
        python = label_bytes is None
        part = _cifar_python_rows(file, labelled) if python else _rows(file, label_bytes + _CIFAR_PIXELS, missing)
        parts.append(part[:missing, -_CIFAR_PIXELS - 1 :])
        missing = None if missing is None else missing - len(parts[-1])
        if missing == 0:
            break
    return np.concatenate(parts)


def read_stl10(
    path: str | Path, *, split: str = "train", max_images: int | None = None
) -> Float[np.ndarray, "n 96 96 3"]:
    """Images of an STL-10 binary folder, in [0, 1], float32. In the files each colour plane is stored column by column.

    Args:
        path: folder with `train_X.bin`, `test_X.bin` or `unlabeled_X.bin`.
        split: "train", "test" or "unlabeled" (100 000 images, 11 GB as float32: see `max_images`).
        max_images: read only the first ones.

    Raises:
        ValueError: no such file, or one whose size is no multiple of an image's.
    """
    require_choice("split", split, tuple(_STL_FILES))
    file = Path(path) / _STL_FILES[split]
    if not file.is_file():
        raise ValueError(
            f"Argument `path` must name a folder with the STL-10 file {file.name!r}, but {str(path)!r} has none."
        )
    columns = _rows(file, 3 * 96 * 96, max_images).reshape(-1, 3, 96, 96)  # image, colour, column, row
    return _unit_range(columns.transpose(0, 3, 2, 1))


def read_stl10_labels(
    path: str | Path, *, split: str = "train", max_images: int | None = None
) -> Int[np.ndarray, " n"]:
    """The classes of the images of `read_stl10`, 0 to 9 (1 to 10 in the files); "train" or "test".

    Raises:
        ValueError: no such file, or one that holds something else.
    """
    require_choice("split", split, ("train", "test"))
    file = Path(path) / _STL_FILES[split].replace("_X", "_y")
    if not file.is_file():
        raise ValueError(
            f"Argument `path` must name a folder with the STL-10 file {file.name!r}, but {str(path)!r} has none."
        )
    labels = np.fromfile(file, np.uint8, -1 if max_images is None else max_images)
    if not ((labels >= 1) & (labels <= 10)).all():
        raise ValueError(f"File {str(file)!r} must hold classes from 1 to 10, but does not.")
    return labels.astype(np.int64) - 1


def _cifar_files(folder: Path, split: str) -> list[tuple[Path, int | None]]:
    """Files of the split with their bytes of labels per image, None for the Python version."""
    for label_bytes, splits in _CIFAR_BINARY.values():
        if found := [folder / name for name in splits[split] if (folder / name).is_file()]:
            return [(file, label_bytes) for file in found]
    for splits in _CIFAR_PYTHON.values():
        if found := [folder / name for name in splits[split] if (folder / name).is_file()]:
            return [(file, None) for file in found]
    return []


def _rows(file: Path, row_bytes: int, count: int | None) -> UInt8[np.ndarray, "n row_bytes"]:
    size = file.stat().st_size
    if size == 0 or size % row_bytes:
        raise ValueError(
            f"File {str(file)!r} must hold a whole number of records of {row_bytes} bytes, but has {size} bytes."
        )
    available = size // row_bytes
    count = available if count is None else min(count, available)
    return np.fromfile(file, np.uint8, count * row_bytes).reshape(count, row_bytes)


def _unit_range(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images, np.float32) / np.float32(255)


def _cifar_python_rows(file: Path, labelled: bool) -> np.ndarray:
    try:
        content = _NumpyUnpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        content = {name.decode() if isinstance(name, bytes) else name: value for name, value in content.items()}
        data = content["data"]
        labels = np.asarray(content.get("fine_labels", content.get("labels")) if labelled else [0] * len(data))
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise ValueError(
            f"File {str(file)!r} cannot be read as a CIFAR batch: {error or type(error).__name__}."
        ) from error
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_CIFAR_PIXELS,):
        raise ValueError(
            f"File {str(file)!r} must hold bytes of shape (n, {_CIFAR_PIXELS}) under 'data', but does not."
        )
    if labels.shape != data.shape[:1] or labels.dtype.kind != "i" or labels.min() < 0 or labels.max() > 255:
        raise ValueError(
            f"File {str(file)!r} must hold one class per image under 'labels' or 'fine_labels', but does not."
        )
    return np.concatenate([labels[:, None].astype(np.uint8), data], axis=1)


class _NumpyUnpickler(pickle.Unpickler):
    """Builds numpy arrays, dtypes and plain containers, and refuses every other name that a pickle may ask for."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        module = module_name.replace("numpy.core", "numpy._core")  # its name before numpy 2
        if (module, global_name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, global_name)
        if (module, global_name) in {
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.numeric", "_frombuffer"),
        }:
            return getattr(importlib.import_module(module), global_name)
        if (module, global_name) == ("_codecs", "encode"):
            return _encode_latin1
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which no CIFAR batch needs")


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 of Python 3 stores bytes; any other codec is refused."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")
