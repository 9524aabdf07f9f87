"""Blocks in turn: while one is computed, the one before is fetched from the device and taken care of by one other thread."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from jepa_dyn.sweep.kernel import Parts

DRAINED = 75  # EX_TEMPFAIL of sysexits.h: what asks a batch system to run the job again


class SweepDrained(SystemExit):
    """A sweep was asked to stop (SIGTERM): what it had begun is stored, the rest is left to the next run. Exit code 75."""

    def __init__(self, message: str):
        super().__init__(DRAINED)
        self.message = message

    def __str__(self) -> str:
        return self.message


@contextmanager
def draining():
    """An event that SIGTERM sets instead of ending the process; the main thread's handler is put back afterwards."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def run_blocks(
    numbers: Iterable[int],
    start: Callable[[int], Callable[[], Parts]],
    take: Callable[[int, Parts, float], None],
    stop: threading.Event | None = None,
) -> None:
    """Starts every block and hands its results and its seconds to `take`, in order, on a thread of its own.

    At most two blocks are alive. An error of either side stops the other after the block that it is at. Where `stop` is set no
    further block is begun.
    """

    def finish(number: int, fetch: Callable[[], Parts], begun: float) -> None:
        parts = fetch()
        for part in parts:
            _wait(part)
        take(number, parts, perf_counter() - begun)

    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="sweep-writer") as writer:
        for number in numbers:
            if stop is not None and stop.is_set():
                break
            begun = perf_counter()
            waiting.append(writer.submit(finish, number, start(number), begun))
            while len(waiting) > 1:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()


def _wait(part: dict[str, Any]) -> None:
    """So that the seconds of a block are those of its computation, whoever waited for it."""
    for value in part.values():
        if hasattr(value, "block_until_ready"):
            value.block_until_ready()
