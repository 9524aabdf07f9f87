"""A sweep on disk: a Zarr v3 group, written chunk by chunk, that survives being killed at any moment.

One block of points is one chunk of every variable, so no two writers share a file. A block is written in this order: its results
and its summary, all forced to the disk, then its chunk of the mask `finished`, which alone says that it is there. A chunk is
written beside its place and renamed into it (zarr's `LocalStore`), with a checksum, so it is whole or absent. Nothing is locked:
two writers of one block write the same bytes.

    zarr.json          the manifest, in the attribute `jepa_dyn_sweep`
    NAME/              results and coordinates
    finished/          mask over the points; one file c.I.J... per finished block
    block_summary/     per block: seconds, when it was finished, points, failures by kind
"""

import contextlib
import errno
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_dyn.sweep.boxes import Boxes

MANIFEST = "jepa_dyn_sweep"
TIMES = ("seconds", "finished at")
_OLD_SECONDS = 3600.0


class StoreError(OSError):
    """The folder of a sweep cannot be used: one line that says why and what is left."""


@dataclass(frozen=True)
class Variable:
    """One array of a store. `leading` dimensions are those of the blocks, the rest one chunk long."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: Any
    fill: Any
    attrs: Mapping[str, Any]


@contextlib.contextmanager
def texts_allowed():
    """zarr says that its type for texts is not part of the v3 specification yet; xarray and zarr read it back."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        yield


class Store:
    """An open store. `space` are its blocks: boxes over the dimensions that all results share."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]):
        import zarr

        self.folder, self.manifest = folder, manifest
        layout = manifest["layout"]
        self.space = Boxes(tuple(layout["shape"]), tuple(layout["chunks"]))
        self._group = zarr.open_group(folder, mode="r+", zarr_format=3, use_consolidated=False)
        self._arrays: dict[str, Any] = {}

    # -- making and opening

    @classmethod
    def create(
        cls, folder: Path, manifest: Mapping[str, Any], coords: Mapping[str, tuple], variables: Mapping[str, Variable]
    ) -> bool:
        """Builds an empty store under another name and renames it into place; False where another process was first.

        Raises:
            StoreError: the folder cannot be written to.
        """
        import xarray
        import zarr

        skeleton = folder.with_name(f".{folder.name}.{os.getpid()}.init")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            for left in (skeleton, *_old(folder.parent.glob(f".{folder.name}.*.init"))):
                shutil.rmtree(left, ignore_errors=True)
            with texts_allowed():
                dataset = xarray.Dataset(coords=coords)
                dataset.to_zarr(skeleton, mode="w-", zarr_format=3, consolidated=False)
                group = zarr.open_group(skeleton, mode="r+", zarr_format=3, use_consolidated=False)
                own = [name for name, one in variables.items() if one.attrs.get("is_coordinate")]
                names = " ".join([*(name for name in map(str, dataset.coords) if name not in dataset.dims), *own])
                group.update_attributes({MANIFEST: manifest} | ({"coordinates": names} if names else {}))
                for name, one in variables.items():
                    _create_array(group, name, one)
            _force(file for file in skeleton.rglob("*") if file.is_file())
            try:
                os.rename(skeleton, folder)
            except OSError:
                if (folder / "zarr.json").exists():
                    return False
                raise
            _force([folder.parent])
            return True
        except OSError as error:
            raise StoreError(f"cannot make the store {str(folder)!r}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(skeleton, ignore_errors=True)

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """An existing store.

        Raises:
            StoreError: there is none.
        """
        found = read_manifest(folder)
        if found is None:
            raise StoreError(f"no sweep is stored in {str(folder)!r}")
        return cls(folder, found)

    # -- blocks

    def array(self, name: str) -> Any:
        """A zarr array that keeps chunks which hold nothing but the fill value: otherwise an all-NaN block would be dropped."""
        if name not in self._arrays:
            import zarr

            with zarr.config.set({"array.write_empty_chunks": True}):  # read when an array is opened
                self._arrays[name] = self._group[name]
        return self._arrays[name]

    def _file(self, name: str, place: Iterable[int]) -> Path:
        return self.folder / name / ".".join(["c", *map(str, place)])

    def _files(self, number: int) -> dict[str, Path]:
        """The file of each variable that a block writes, its marker not among them."""
        place = self.space.place(number)
        layout = self.manifest["layout"]
        files = {name: self._file(name, (*place, *(0,) * own)) for name, own in layout["variables"].items()}
        for name, dim in self._lines(place):
            files[name] = self._file(name, (place[dim],))
        return files | {"block_summary": self._file("block_summary", (number, 0))}

    def _lines(self, place: tuple[int, ...]) -> list[tuple[str, int]]:
        """Coordinates of random draws, which the first block of each row writes: (name, dimension)."""
        lines = self.manifest["layout"]["lines"].items()
        return [(name, dim) for name, dim in lines if not any(at for i, at in enumerate(place) if i != dim)]

    def marker(self, number: int) -> Path:
        return self._file("finished", self.space.place(number))

    def is_finished(self, number: int) -> bool:
        with contextlib.suppress(OSError):
            return self.marker(number).stat().st_size > 0
        return False

    def finished(self) -> np.ndarray:
        """Whether each block is finished, from one listing of a folder."""
        done = np.zeros(len(self.space), bool)
        counts = self.space.counts
        try:
            entries = list(os.scandir(self.folder / "finished"))
        except OSError as error:
            raise StoreError(f"cannot read the store {str(self.folder)!r}: {error.strerror or error}") from None
        for entry in entries:
            head, *parts = entry.name.split(".")
            if head == "c" and len(parts) == len(counts) and all(part.isdecimal() for part in parts):
                place = [int(part) for part in parts]
                done[int(np.ravel_multi_index(place, counts)) if counts else 0] = entry.stat().st_size > 0
        return done

    def write(
        self, number: int, values: Mapping[str, np.ndarray], lines: Mapping[str, np.ndarray], summary: list[float]
    ) -> None:
        """Stores a block and then marks it as finished.

        Raises:
            StoreError: it cannot; nothing that was finished is touched, and the block counts as missing.
        """
        region, place = self.space.region(number), self.space.place(number)
        files = self._files(number)
        try:
            self._require_there()
            for name, value in values.items():
                self.array(name)[region] = value
            for name, dim in self._lines(place):
                self.array(name)[region[dim]] = lines[name]
            self.array("block_summary")[number] = np.array(summary)
            _force(files.values())
            _force({file.parent for file in files.values()})
            self._require_there()
            self.array("finished")[region] = True
            _force([self.marker(number), self.folder / "finished"])
        except OSError as error:
            raise StoreError(self._why(error)) from None

    def _require_there(self) -> None:
        # zarr would make the folders again, without what says what is in them
        if not (self.folder / "zarr.json").exists():
            raise FileNotFoundError(2, "the folder has vanished")

    def _why(self, error: OSError) -> str:
        reason = error.strerror or str(error)
        if not (self.folder / "zarr.json").exists():
            return f"the store {str(self.folder)!r} has vanished while the sweep ran"
        kept = int(self.finished().sum())
        return f"cannot write to the store {str(self.folder)!r}: {reason}; its {kept} finished blocks are intact"

    def problems(self, number: int) -> list[str]:
        """What is wrong with a finished block: a file missing, empty, or not what its checksum says."""
        region = self.space.region(number)
        names = {"finished": self.marker(number)} | self._files(number)
        lines = dict(self._lines(self.space.place(number)))
        found = []
        for name, file in names.items():
            if not file.exists() or file.stat().st_size == 0:
                found.append(f"{name}: {'empty' if file.exists() else 'missing'}")
                continue
            where = number if name == "block_summary" else region[lines[name]] if name in lines else region
            try:
                self.array(name)[where]
            except Exception as error:  # a damaged chunk can fail in any of zarr's codecs
                found.append(f"{name}: damaged ({type(error).__name__})")
        return found

    def discard(self, number: int) -> None:
        """Takes a block away, its mark first: it counts as missing then.

        Only for damaged blocks, and nowhere else is anything removed: another worker may be writing the same block.
        """
        for file in (self.marker(number), *self._files(number).values()):
            file.unlink(missing_ok=True)

    def summaries(self, numbers: np.ndarray) -> np.ndarray:
        """Rows of `block_summary` of these blocks.

        Raises:
            StoreError: one is damaged.
        """
        try:
            return np.asarray(self.array("block_summary")[:])[numbers]
        except Exception as error:  # a damaged chunk can fail in any of zarr's codecs
            raise StoreError(
                f"a summary in the store {str(self.folder)!r} is damaged ({type(error).__name__}): verify says which, and "
                "continuing the sweep computes its block again"
            ) from None

    def remove_leftovers(self) -> int:
        """Removes half-written files of processes that died; a young one may belong to a process that lives."""
        left = _old(path for path in self.folder.glob("*/*.partial"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


def _old(paths: Iterable[Path]) -> list[Path]:
    """Those that nobody has touched for an hour."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _OLD_SECONDS:
                found.append(path)
    return found


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the sweep in this folder; None where there is none."""
    import json

    try:
        attributes = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        return attributes[MANIFEST]
    except (FileNotFoundError, NotADirectoryError, KeyError, ValueError):
        return None


def _create_array(group: Any, name: str, one: Variable) -> None:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    group.create_array(
        name,
        shape=one.shape,
        chunks=one.chunks,
        dtype=one.dtype,
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        fill_value=one.fill,
        attributes={key: value for key, value in one.attrs.items() if key != "is_coordinate"},
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=one.dims,
    )


def _force(paths: Iterable[Path]) -> None:
    """Waits until files and folders are on the disk; some network drives know no such thing, which is let pass."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(handle)
