"""What every solver returns: trajectories with their statuses, printable and convertible to xarray."""

import itertools
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, UInt8

from jepa_dyn._checks import is_traced
from jepa_dyn.parameters import Leaf, ModeParameters
from jepa_dyn.status import MESSAGES, Status, count_statuses

if TYPE_CHECKING:
    import xarray


class FailedTrajectories(RuntimeError):
    """Raised by `Trajectories.raise_if_failed`: some trajectories did not finish."""


class Crossings(eqx.Module):
    """When user functions g(t, y, args) passed through zero. Unused slots hold time +inf and direction 0.

    - `times`: ascending, one row per event.
    - `direction`: +1 where g rose through zero, -1 where it fell.
    - `count`: how many crossings there were; more than the capacity means that the later ones were not kept.
    - `names`: the rows.
    """

    times: Float[Array, "*lanes events capacity"]
    direction: Int[Array, "*lanes events capacity"]
    count: Int[Array, "*lanes events"]
    names: tuple[str, ...] = eqx.field(static=True)

    def __getitem__(self, name: str) -> Float[Array, "*lanes capacity"]:
        """Crossing times of one event by name."""
        return self.times[..., self.names.index(name), :]


class Trajectories(eqx.Module):
    """Trajectories at the saved times: lanes first, then time, then the state's own axes. One system has no lane axis.

    - `ts`: saved times, shared or one row per lane.
    - `ys`: the state (array or pytree) at `ts`. A failed lane holds NaN after the point that it reached.
    - `status`: one `Status` code per lane.
    - `steps`: solver steps tried per lane, rejected ones included; `rejected`: those.
    - `settled_time`: when the settle test found the lane at its fixed point; +inf where it did not or was off.
    - `y0`, `args`: start and parameters as given. `method`: solver and coordinate. `time_unit`: which clock.
    - `crossings`, `interpolation`: what `integrate` adds on request.
    """

    ts: Float[Leaf, "*#lanes times"]
    ys: PyTree[Leaf]
    status: UInt8[Array, "*lanes"]
    steps: Int[Array, "*lanes"]
    rejected: Int[Array, "*lanes"]
    settled_time: Float[Array, "*lanes"]
    y0: Any
    args: Any
    method: str = eqx.field(static=True)
    time_unit: str = eqx.field(static=True, default="mode clock")
    crossings: Crossings | None = None
    interpolation: Any = None

    @property
    def num_lanes(self) -> int:
        return int(np.prod(np.shape(self.status)))

    @property
    def num_times(self) -> int:
        return int(np.shape(self.ts)[-1])

    def evaluate(self, t: Any) -> Any:
        """State at any time between the start and the last saved time, of one system solved with `dense=True`.

        Raises:
            ValueError: the solve was not dense.
        """
        if self.interpolation is None:
            raise ValueError("Only trajectories solved with `dense=True` can be evaluated between the saved times.")
        return self.interpolation.evaluate(t)

    def where_failed(self) -> np.ndarray:
        """Indices of the lanes whose status is not ok."""
        return np.flatnonzero(np.asarray(self.status).reshape(-1) != Status.ok)

    def raise_if_failed(self, show: int = 5) -> "Trajectories":
        """These trajectories, if every lane finished.

        Raises:
            FailedTrajectories: otherwise; lists the first `show` bad lanes with cause, start and parameters.
        """
        bad = self.where_failed()
        if bad.size == 0:
            return self
        codes = np.asarray(self.status).reshape(-1)
        lines = [f"{bad.size} of {self.num_lanes} trajectories failed ({self.method}): {count_statuses(codes)}"]
        for lane in bad[:show]:
            status = Status(int(codes[lane]))
            values = ", ".join(f"{k}={v}" for k, v in self._lane_values(int(lane)).items())
            lines.append(f"  lane {lane}: {status.name} ({MESSAGES[status]}); {values}")
        if bad.size > show:
            lines.append(f"  ... and {bad.size - show} more; `where_failed()` lists them all")
        raise FailedTrajectories("\n".join(lines))

    def _lane_values(self, lane: int) -> dict[str, str]:
        values = {}
        for path, leaf in jax.tree_util.tree_flatten_with_path({"y0": self.y0, "args": self.args})[0]:
            array = np.asarray(leaf)
            per_lane = np.ndim(self.status) > 0 and array.ndim > 0 and array.shape[0] == self.num_lanes
            value = array[lane] if per_lane else array
            name = jax.tree_util.keystr(path, simple=True, separator=".").removeprefix("args.")
            values[name] = f"{value:.6g}" if value.ndim == 0 else f"array{value.shape}"
        return values

    def summary(self) -> str:
        """A few lines: method, lanes x times, dtype, memory, steps, statuses."""
        if is_traced(self.status):
            return f"Trajectories({self.method}, traced)"
        leaves = jax.tree.leaves(self.ys)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        unit = next(u for u, limit in (("kB", 1e6), ("MB", 1e9), ("GB", np.inf)) if size < limit)
        scale = {"kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
        dtypes = "/".join(sorted({str(leaf.dtype) for leaf in leaves}))
        lines = [f"Trajectories: {self.num_lanes} lanes x {self.num_times} times, {dtypes}, {size / scale:.3g} {unit}"]
        lines.append(f"  method    {self.method}; time in {self.time_unit}")
        if self.num_lanes:
            steps, rejected = np.asarray(self.steps), np.asarray(self.rejected)
            if steps.max() > 0:
                lines.append(f"  steps     mean {steps.mean():.1f}, max {steps.max()}; rejected {rejected.mean():.1f}")
            settled = np.isfinite(np.asarray(self.settled_time)).sum()
            if settled:
                lines.append(f"  settled   {settled} lanes reached their fixed point before the end")
            failed = self.where_failed().size
            counts = ", ".join(f"{name} {n}" for name, n in count_statuses(np.asarray(self.status)).items())
            lines.append(f"  status    {counts}" + (f"  ({failed} FAILED, see where_failed())" if failed else ""))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return self.to_xarray()._repr_html_()

    def to_xarray(self) -> "xarray.Dataset":
        """An `xarray.Dataset`: dimensions `lane`, `time` and the state's own; parameters as coordinates along `lane`.

        A state that is one array is called `w` (scalar modes) or `y`; the leaves of a pytree carry their own names. Times that
        differ between lanes become the coordinate `t` (lane, time). The status carries its meanings (`flag_meanings`).
        Needs xarray (`pip install "jepa_dyn[sweep]"`).
        """
        import xarray

        ts, status = np.asarray(self.ts), np.asarray(self.status)
        lanes = () if status.ndim == 0 else ("lane",)
        shared = ts.ndim == 1
        clock = {"units": self.time_unit, "long_name": "time"}
        coords: dict[str, Any] = {"time" if shared else "t": ((() if shared else lanes) + ("time",), ts, clock)}
        if lanes:
            coords["lane"] = np.arange(self.num_lanes)
        data: dict[str, Any] = {}
        named = jax.tree_util.tree_flatten_with_path(self.ys)[0]
        default = "w" if isinstance(self.args, ModeParameters) else "y"
        for path, leaf in named:
            name = jax.tree_util.keystr(path, simple=True, separator=".") or default
            own = tuple(f"{name}_{axis}" for axis in range(leaf.ndim - len(lanes) - 1))
            data[name] = ((*lanes, "time", *own), np.asarray(leaf))
        meanings = {"flag_values": [int(s) for s in Status], "flag_meanings": " ".join(s.name for s in Status)}
        data["status"] = (lanes, status, meanings)
        data["steps"] = (lanes, np.asarray(self.steps), {"long_name": "solver steps tried"})
        data["rejected"] = (lanes, np.asarray(self.rejected), {"long_name": "solver steps rejected"})
        data["settled_time"] = (lanes, np.asarray(self.settled_time), clock)
        if self.crossings is not None:
            rows = (*lanes, "event", "crossing")
            coords["event"] = list(self.crossings.names)
            data["crossing_time"] = (rows, np.asarray(self.crossings.times), clock)
            data["crossing_direction"] = (rows, np.asarray(self.crossings.direction))
            data["crossing_count"] = ((*lanes, "event"), np.asarray(self.crossings.count))
        for name, value in itertools.chain(_named("", self.args), _named("y0", self.y0)):
            if name in coords or name in data:
                name = f"args.{name}"
            if value.ndim == 0:
                coords[name] = value
            elif lanes and value.ndim == 1 and value.shape[0] == self.num_lanes:
                coords[name] = (lanes, value)
        return xarray.Dataset(data, coords, {"method": self.method, "failed": int(self.where_failed().size)})


def _named(prefix: str, tree: Any) -> list[tuple[str, np.ndarray]]:
    """Numeric leaves of a tree by dotted name."""
    named = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, jax.Array | np.ndarray | int | float):
            own = jax.tree_util.keystr(path, simple=True, separator=".")
            named.append((".".join(part for part in (prefix, own) if part) or "args", np.asarray(leaf)))
    return named
