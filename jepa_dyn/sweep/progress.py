"""A progress bar on the host, one tick per block: free, and it never enters a compiled program."""

import importlib.util
from collections.abc import Iterable, Iterator


def progress_bar(bounds: Iterable[tuple[int, int]], total: int, show: bool) -> Iterator[tuple[int, int]]:
    """Yields the blocks' bounds while a bar counts points; silent without tqdm and where half a second is enough."""
    if not show or importlib.util.find_spec("tqdm") is None:
        yield from bounds
        return
    # tqdm.auto warns in a notebook that lacks ipywidgets; the plain bar works there too
    if importlib.util.find_spec("ipywidgets") is None:
        from tqdm.std import tqdm
    else:
        from tqdm.auto import tqdm
    with tqdm(total=total, unit=" points", unit_scale=True, delay=0.5) as bar:
        for start, stop in bounds:
            yield start, stop
            bar.update(stop - start)
