"""A closed form as a system that `ensemble` can run: its state at time t, written for one system."""

from collections.abc import Callable
from typing import Any

import equinox as eqx


class ClosedForm(eqx.Module):
    """`state(t, y0, args) -> y`, the solution from y0 at t = 0 after the time t; one system, one time.

    `status(y0, args)`, where given, says for one system which `Status` code applies (a closed form outside its domain);
    otherwise a lane whose state is not finite gets `non_finite`.
    """

    state: Callable[[Any, Any, Any], Any]
    status: Callable[[Any, Any], Any] | None = None
    name: str = eqx.field(static=True, default="closed form")
