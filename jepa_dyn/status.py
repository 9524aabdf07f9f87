"""What became of a trajectory: one small code per lane, never an exception inside a batch (DESIGN: "no silent wrong answer")."""

from enum import IntEnum

import numpy as np


class Status(IntEnum):
    """Outcome of one trajectory. `ok` is 0, every other value is a failure that names its cause.

    The numbers are stored in datasets: never renumber, only append.
    """

    ok = 0
    max_steps = 1
    non_finite = 2
    step_underflow = 3
    diverged = 4
    invalid_parameter = 5
    unresolved = 6


MESSAGES: dict[Status, str] = {
    Status.ok: "finished",
    Status.max_steps: "the largest allowed number of solver steps was reached; increase `max_steps` or use a stiff solver",
    Status.non_finite: "a NaN or an infinity appeared in the state",
    Status.step_underflow: "the step size fell below the spacing of floating-point numbers; use float64 or looser tolerances",
    Status.diverged: "the state left the region that the dynamics can come back from",
    Status.invalid_parameter: "a parameter lies outside the domain of the equation",
    Status.unresolved: "the result could not be decided within the precision of the number type",
}


def count_statuses(status: np.ndarray) -> dict[str, int]:
    """Counts by name, only those that occur, `ok` first: `{"ok": 998, "max_steps": 2}`."""
    codes, counts = np.unique(np.asarray(status), return_counts=True)
    return {Status(int(code)).name: int(count) for code, count in zip(codes, counts, strict=True)}
