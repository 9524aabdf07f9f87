"""One sweep by several processes on one machine: started, watched, asked to stop, made up for where they die."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_dyn._progress import progress_meter
from jepa_dyn.sweep.pipeline import DRAINED
from jepa_dyn.sweep.store import Store, read_manifest

_LOOK_SECONDS = 0.2


def run_processes(words: Sequence[str], folder: Path, count: int, *, progress: bool) -> int:
    """Runs `words --worker I/COUNT` in `count` processes until all have ended; returns the exit code of the whole.

    0 where the store is complete, even if processes died on the way; 75 where one was asked to stop; else that of one that failed.
    """
    told = [tempfile.TemporaryFile() for _ in range(count)]  # one speaks while they run, the others only if they fail
    children = [
        subprocess.Popen(
            [*words, "--worker", f"{i}/{count}"],
            stdout=subprocess.DEVNULL,
            stderr=None if i == 0 else told[i],
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        for i in range(count)
    ]
    asked = []

    def forward(*_: object) -> None:
        asked.append(True)
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        _watch(children, folder, progress)
    except KeyboardInterrupt:
        forward()
        for child in children:
            child.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return _outcome(children, told, folder, bool(asked))


def _watch(children: Sequence[subprocess.Popen], folder: Path, progress: bool) -> None:
    """Waits for all of them, with one bar for the store that they share."""
    while read_manifest(folder) is None and any(child.poll() is None for child in children):
        time.sleep(_LOOK_SECONDS)
    if read_manifest(folder) is None:
        for child in children:
            child.wait()
        return
    store = Store.open(folder)
    sizes = [store.space.valid_points(number) for number in range(len(store.space))]
    seen = done = 0
    with progress_meter(sum(sizes), show=progress, unit="points") as tick:
        while any(child.poll() is None for child in children):
            time.sleep(_LOOK_SECONDS)
            if not (folder / "finished").exists():  # vanished: the workers say so
                continue
            done = sum(size for size, there in zip(sizes, store.finished(), strict=True) if there)
            tick(done - seen)
            seen = done


def _outcome(children: Sequence[subprocess.Popen], told: Sequence[Any], folder: Path, asked: bool) -> int:
    codes = [child.wait() for child in children]
    complete = read_manifest(folder) is not None and bool(Store.open(folder).finished().all())
    for i, code in enumerate(codes):
        if code < 0 and not asked:
            rest = "the others did its part" if complete else "run it again to continue"
            print(f"warning: process {i} died of signal {-code}; {rest}", file=sys.stderr)
        elif code not in (0, DRAINED):
            told[i].seek(0)
            sys.stderr.write(told[i].read().decode(errors="replace"))
    if complete:
        return 0
    if asked or DRAINED in codes:
        return DRAINED
    return next((code for code in codes if code > 0), 1)
