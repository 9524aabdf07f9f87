"""Ways to take two views of one image: which window each shows, and what is hidden in it.

A view kind is a small frozen dataclass that turns random numbers into windows, and
windows into views. One of your own needs the members of `ViewKind`, nothing is registered.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from jepa_dyn._checks import require_choice


@runtime_checkable
class ViewKind(Protocol):
    """What `view_pairs` asks of a kind of views."""

    @property
    def patch_size(self) -> int:
        """Side p of both square windows, in pixels."""
        ...

    @property
    def reach(self) -> tuple[int, int]:
        """Largest displacement between the windows, (rows, columns): what an image must have beyond p."""
        ...

    @property
    def centred(self) -> bool:
        """Whether the mean colour of all images is subtracted first, so that a hidden pixel, 0, is no contrast."""
        ...

    def offsets(self, uniforms: Float[np.ndarray, "n 8"]) -> Int[np.ndarray, "n 2"]:
        """Displacement of the second window from the first, per pair, from the first two columns of uniforms on [0, 1)."""
        ...

    def finish(
        self,
        first: Float[np.ndarray, "n p p c"],
        second: Float[np.ndarray, "n p p c"],
        uniforms: Float[np.ndarray, "n 8"],
    ) -> tuple[Float[np.ndarray, "n p p c"], Float[np.ndarray, "n p p c"]]:
        """The views from the windows, e.g. with parts hidden, from the last two columns of uniforms."""
        ...


def _require_integer(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ValueError(f"Argument `{name}` must be an integer >= {low}, but is {value!r}.")


@dataclass(frozen=True)
class RandomCrop:
    """Two crops of the same image near each other: the displacement is uniform on {-max_offset..max_offset}^2.

    The pair and its reverse are equally likely, so yx of the population is symmetric and yy = xx.
    """

    patch_size: int = 8
    max_offset: int = 2

    def __post_init__(self) -> None:
        _require_integer("patch_size", self.patch_size, 1)
        _require_integer("max_offset", self.max_offset, 0)

    @property
    def reach(self) -> tuple[int, int]:
        return self.max_offset, self.max_offset

    @property
    def centred(self) -> bool:
        return False

    def offsets(self, uniforms: Float[np.ndarray, "n 8"]) -> Int[np.ndarray, "n 2"]:
        return _below(uniforms[:, :2], 2 * self.max_offset + 1) - self.max_offset

    def finish(
        self,
        first: Float[np.ndarray, "n p p c"],
        second: Float[np.ndarray, "n p p c"],
        uniforms: Float[np.ndarray, "n 8"],
    ) -> tuple[Float[np.ndarray, "n p p c"], Float[np.ndarray, "n p p c"]]:
        return first, second


@dataclass(frozen=True)
class TemporalShift:
    """Two consecutive frames of a panning camera: y shows the window of x moved by `displacement` = (rows, columns).

    - direction "fixed": always that way; yx is not symmetric, as time has a direction.
    - "either": that way or the opposite, each with probability 1/2; yx of the population is symmetric.
    - "any": turned by a multiple of 90 degrees, each with probability 1/4; symmetric too.
    """

    patch_size: int = 8
    displacement: tuple[int, ...] = (0, 2)
    direction: Literal["fixed", "either", "any"] | str = "fixed"

    def __post_init__(self) -> None:
        _require_integer("patch_size", self.patch_size, 1)
        if len(self.displacement) != 2 or not all(isinstance(part, int | np.integer) for part in self.displacement):
            raise ValueError(
                f"Argument `displacement` must be two integers (rows, columns), but is {self.displacement!r}."
            )
        require_choice("direction", self.direction, ("fixed", "either", "any"))

    @property
    def reach(self) -> tuple[int, int]:
        rows, columns = abs(self.displacement[0]), abs(self.displacement[1])
        longest = max(rows, columns)
        return (longest, longest) if self.direction == "any" else (rows, columns)

    @property
    def centred(self) -> bool:
        return False

    def offsets(self, uniforms: Float[np.ndarray, "n 8"]) -> Int[np.ndarray, "n 2"]:
        rows, columns = self.displacement
        turned = np.array([(rows, columns), (-rows, -columns), (-columns, rows), (columns, -rows)])
        return turned[_below(uniforms[:, 0], {"fixed": 1, "either": 2, "any": 4}[self.direction])]

    def finish(
        self,
        first: Float[np.ndarray, "n p p c"],
        second: Float[np.ndarray, "n p p c"],
        uniforms: Float[np.ndarray, "n 8"],
    ) -> tuple[Float[np.ndarray, "n p p c"], Float[np.ndarray, "n p p c"]]:
        return first, second


@dataclass(frozen=True)
class BlockMask:
    """One crop, a square block of it hidden: x is the crop with the block hidden; y is

    - target "block": the block, everything around it hidden (predict what is hidden; x and y are complements, as in
      Littwin 2024, (123), so the trace of E[y x^T] is 0 and, up to the centring, the lam of all features sum to 0);
    - target "crop": the whole crop.

    The block's place is uniform: with placement "overhang" (default) over all places where it meets the crop, so that each
    pixel is hidden equally often and E[y x^T] inherits the symmetry of the images; with "inside" over the places inside
    the crop, so that pixels near its edge are hidden less often and E[y x^T] is far from symmetric.
    Hidden pixels are 0, and pixels are taken relative to the mean colour of all images: hiding shows that colour, not black.
    """

    patch_size: int = 8
    block_size: int = 4
    target: Literal["block", "crop"] | str = "block"
    placement: Literal["overhang", "inside"] | str = "overhang"

    def __post_init__(self) -> None:
        _require_integer("patch_size", self.patch_size, 2)
        _require_integer("block_size", self.block_size, 1)
        if self.block_size >= self.patch_size:
            raise ValueError(
                f"Argument `block_size` must be smaller than `patch_size` = {self.patch_size}, but is {self.block_size}."
            )
        require_choice("target", self.target, ("block", "crop"))
        require_choice("placement", self.placement, ("overhang", "inside"))

    @property
    def reach(self) -> tuple[int, int]:
        return 0, 0

    @property
    def centred(self) -> bool:
        return True

    def offsets(self, uniforms: Float[np.ndarray, "n 8"]) -> Int[np.ndarray, "n 2"]:
        return np.zeros((len(uniforms), 2), int)

    def finish(
        self,
        first: Float[np.ndarray, "n p p c"],
        second: Float[np.ndarray, "n p p c"],
        uniforms: Float[np.ndarray, "n 8"],
    ) -> tuple[Float[np.ndarray, "n p p c"], Float[np.ndarray, "n p p c"]]:
        beyond = self.block_size - 1 if self.placement == "overhang" else 0
        corner = _below(uniforms[:, -2:], self.patch_size - self.block_size + 1 + 2 * beyond) - beyond
        inside = (np.arange(self.patch_size) >= corner[..., None]) & (
            np.arange(self.patch_size) < corner[..., None] + self.block_size
        )  # (n, row or column, p)
        block = (inside[:, 0, :, None] & inside[:, 1, None, :])[..., None]
        return np.where(block, 0, first), second if self.target == "crop" else np.where(block, second, 0)


VIEW_KINDS: dict[str, type[RandomCrop] | type[TemporalShift] | type[BlockMask]] = {
    "crop": RandomCrop,
    "shift": TemporalShift,
    "mask": BlockMask,
}


def _below(uniforms: np.ndarray, count: int) -> np.ndarray:
    """Uniform integers in 0 .. count - 1 from uniforms on [0, 1)."""
    return (uniforms * count).astype(int)
