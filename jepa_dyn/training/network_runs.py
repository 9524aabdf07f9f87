"""What training of networks returns: `TrainingRuns` with the networks, their statistics, and their targets."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn.solve.training_result import TrainingRuns
from jepa_dyn.training.layers import BATCH_AXIS


class NetworkRuns(TrainingRuns):
    """Runs of `train_networks`: `TrainingRuns` (printable, `to_xarray()`, `raise_if_failed()`) whose `final` are the networks.

    - `ys`: what was logged, by name; see `observation.observe_run`.
    - `final`: the networks, every array with an axis of lanes where there are lanes; `lane(i)` is one of them.
    - `statistics`: of their batches, for networks that carry any (`equinox.nn.State`).
    - `target`, `target_statistics`: the moving average, None without one.
    - `args`: the numbers of each lane by name; coordinates of `to_xarray()`.
    """

    statistics: Any = eqx.field(kw_only=True)
    target: Any = eqx.field(kw_only=True)
    target_statistics: Any = eqx.field(kw_only=True)

    def lane(self, number: int) -> tuple[Any, Any]:
        """(network, statistics) of one lane."""
        if np.ndim(self.status) == 0:
            return self.final, self.statistics
        return jax.tree.map(lambda leaf: leaf[number] if eqx.is_array(leaf) else leaf, (self.final, self.statistics))

    def representations(self, views: ArrayLike) -> Float[Array, "*lanes n r"]:
        """What the encoders make of flat views (n, m), with statistics of training where a network carries any."""
        arrays, rest = eqx.partition(eqx.nn.inference_mode(self.final), eqx.is_array)
        rows = jnp.asarray(views, self.learning_rate.dtype)
        if np.ndim(self.status) == 0:
            return _representations(arrays, rest, self.statistics, rows)
        return jax.vmap(_representations, (0, None, 0, None))(arrays, rest, self.statistics, rows)


def _representations(arrays: Any, rest: Any, statistics: Any, rows: Array) -> Array:
    network = eqx.combine(arrays, rest)
    return jax.vmap(network.representation, (0, None), axis_name=BATCH_AXIS)(rows, statistics)
