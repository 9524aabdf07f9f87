"""A progress bar on the host, one tick per block: free, and it never enters a compiled program."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def _one(item: object) -> int:
    return 1


def progress_bar(
    items: Iterable[T], total: int, *, show: bool = True, weight: Callable[[T], int] = _one, unit: str = "steps"
) -> Iterator[T]:
    """Yields the items while a bar counts their weights; silent without tqdm and where half a second is enough."""
    with progress_meter(total, show=show, unit=unit) as tick:
        for item in items:
            yield item
            tick(weight(item))


@contextmanager
def progress_meter(
    total: int, *, show: bool = True, unit: str = "steps", done: int = 0
) -> Iterator[Callable[[int], object]]:
    """A bar with rate and time left; yields the function that moves it on. `done` of the total were done before."""
    if not show or importlib.util.find_spec("tqdm") is None:
        yield lambda amount: None
        return
    # tqdm.auto warns in a notebook that lacks ipywidgets; the plain bar works there too
    if importlib.util.find_spec("ipywidgets") is None:
        from tqdm.std import tqdm
    else:
        from tqdm.auto import tqdm
    with tqdm(total=total, initial=done, unit=f" {unit}", unit_scale=True, delay=0.5) as bar:
        yield bar.update
