"""What discrete training returns: `Trajectories` counted in optimiser steps, with the step at which a run diverged."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jepa_dyn._checks import is_traced
from jepa_dyn.parameters import Leaf
from jepa_dyn.solve.descent import Run
from jepa_dyn.solve.result import Trajectories
from jepa_dyn.status import count_statuses

if TYPE_CHECKING:
    import xarray


class TrainingRuns(Trajectories):
    """Runs of an optimiser: `Trajectories` whose `ts` are step numbers and whose `ys` are the observed quantities.

    A run that diverged or became NaN has status `diverged` or `non_finite`, NaN in all `ys` from that step on, and:

    - `failed_at`: the first step (1 = the first update) after which the state was not acceptable; -1 where there was none.
    - `final`: the state after the last step; of a failed run, the last acceptable state.
    - `learning_rate`: per run; NaN where the optimiser was given ready-made. `flow_times` = steps x learning rate.
    """

    failed_at: Int[Array, "*lanes"] = eqx.field(kw_only=True)
    final: Any = eqx.field(kw_only=True)
    learning_rate: Float[Leaf, "*#lanes"] = eqx.field(kw_only=True)

    @property
    def flow_times(self) -> Float[Array, "*lanes times"]:
        """Saved steps times the learning rate: for plain gradient descent the time of the gradient flow."""
        return jnp.asarray(self.learning_rate)[..., None] * jnp.asarray(self.ts)

    def _lane_values(self, lane: int) -> dict[str, str]:
        failed, rate = np.asarray(self.failed_at).reshape(-1), np.asarray(self.learning_rate).reshape(-1)
        own = {"failed_at": str(failed[lane]), "learning_rate": f"{rate[lane if rate.size > 1 else 0]:.6g}"}
        return own | super()._lane_values(lane)

    def summary(self) -> str:
        """A few lines: method, runs x saved steps, learning rates, statuses, the first divergence."""
        if is_traced(self.status):
            return f"TrainingRuns({self.method}, traced)"
        ts, rates = np.asarray(self.ts), np.asarray(self.learning_rate)
        lines = [f"TrainingRuns: {self.num_lanes} runs x {self.num_times} saved steps, the last {ts.max():.0f}"]
        lines.append(f"  method    {self.method}")
        if np.isfinite(rates).all() and rates.size:
            shown = f"{rates.min():.3g}" if rates.min() == rates.max() else f"{rates.min():.3g} to {rates.max():.3g}"
            lines.append(f"  learning rate {shown}")
        if self.num_lanes:
            counts = ", ".join(f"{name} {n}" for name, n in count_statuses(np.asarray(self.status)).items())
            bad = self.where_failed()
            failed = np.asarray(self.failed_at).reshape(-1)
            where = f"  ({bad.size} FAILED, the first at step {failed[bad].min()}, see `failed_at`)" if bad.size else ""
            lines.append(f"  status    {counts}{where}")
        return "\n".join(lines)

    def to_xarray(self) -> "xarray.Dataset":
        """As `Trajectories.to_xarray`, with dimension `step` for `time`, and `failed_at`, `learning_rate`, `depth`, `flow_time`.

        Needs xarray (`pip install "jepa_dyn[sweep]"`).
        """
        if np.ndim(self.ts) > 1 and (np.asarray(self.ts) == np.asarray(self.ts)[0]).all():
            # runs made under `vmap` each carry the steps that they share
            return eqx.tree_at(lambda runs: runs.ts, self, jnp.asarray(self.ts)[0]).to_xarray()
        data = super().to_xarray().drop_vars(["settled_time", "rejected"]).rename({"time": "step"})
        lanes = () if np.ndim(self.status) == 0 else ("lane",)
        data = data.assign_coords(step=("step", np.asarray(self.ts).astype(np.int64), {"long_name": "optimiser steps"}))
        data["steps"].attrs["long_name"] = "optimiser steps done in acceptable states"
        data["failed_at"] = (lanes, np.asarray(self.failed_at), {"long_name": "first step that failed, -1 if none"})
        depth = getattr(self.args, "depth", None)
        for name, value in (("learning_rate", self.learning_rate), ("depth", depth)):
            if value is not None and name not in data.coords:
                array = np.asarray(value)
                data = data.assign_coords({name: (lanes if array.ndim else (), array)})
        times = np.asarray(self.flow_times)
        return data.assign_coords(flow_time=((*(lanes if times.ndim > 1 else ()), "step"), times))


def training_runs(saved: Array, ys: Any, run: Run, y0: Any, args: Any, rate: Array, method: str) -> TrainingRuns:
    """The result of runs that were saved after `saved` steps and now stand at `run`."""
    done = jnp.where(run.failed_at >= 0, jnp.maximum(run.failed_at - 1, 0), saved[-1]).astype(jnp.int32)
    return TrainingRuns(
        ts=saved.astype(rate.dtype),
        ys=ys,
        status=run.status,
        steps=done,
        rejected=jnp.zeros_like(done),
        settled_time=jnp.full(done.shape, jnp.inf, rate.dtype),
        y0=y0,
        args=args,
        method=method,
        time_unit="optimiser steps",
        failed_at=run.failed_at,
        final=run.y,
        learning_rate=rate,
    )
