"""The SLURM script of a sweep: an array of jobs that share a store, are asked to stop before their time is up, and go on."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DRAIN_SECONDS = 120
_PLAIN = re.compile(r"[\w@%+=:,./-]+")


def slurm_script(config: Path, out: str, settings: Mapping[str, Any], changes: Sequence[str] = ()) -> str:
    """The script as a text, for `sbatch`.

    Raises:
        ValueError: a setting that would break a line of it.
    """
    jobs = settings.get("array", 1)
    directives = {
        "job-name": Path(out).name or "sweep",
        "array": f"0-{jobs - 1}",
        "time": settings.get("time", "04:00:00"),
        "cpus-per-task": settings.get("cpus", 4),
        "signal": f"B:TERM@{DRAIN_SECONDS}",
        "output": f"{out}.%a.log",
        "partition": settings.get("partition"),
        "account": settings.get("account"),
        "mem": settings.get("memory"),
        "gpus-per-task": settings.get("gpus") or None,
    }
    for name, value in directives.items():
        if value is not None and not _PLAIN.fullmatch(str(value)):
            raise ValueError(f"slurm: {name} must be plain text without spaces for an #SBATCH line, but is {value!r}")
    head = [f"#SBATCH --{name}={value}" for name, value in directives.items() if value is not None]
    words = ["jepa-dyn", "sweep", str(config), "--out", out, "--resume", "--no-progress"]
    words += [word for change in changes for word in ("--set", change)]
    command = shlex.join(words)
    setup = str(settings.get("setup", "")).strip()
    return "\n".join([
        "#!/bin/bash",
        *head,
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "",
        f"# {DRAIN_SECONDS} s before the time limit, and when the job is preempted, the sweep is asked to stop: it finishes the",
        "# blocks that it has begun and exits with 75, which puts the job back into the queue. Any job may also simply die.",
        *([setup, ""] if setup else []),
        f'{command} --worker "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" &',
        "child=$!",
        "trap 'kill -TERM \"$child\"' TERM",
        'wait "$child"; code=$?',
        '# the signal ends the wait, not the sweep',
        'while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done',
        'if [ "$code" -eq 75 ]; then',
        '    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
        "fi",
        'exit "$code"',
        "",
    ])  # fmt: skip
