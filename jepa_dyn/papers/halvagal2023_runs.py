"""The rows of Table 1 of Halvagal et al. 2023 side by side: networks trained on drawn pairs, and the exact dynamics of their modes.

All rows are one system, so that they compile together and see the same batches. Each has a pace of its own, the factor on its
learning rate: without predictor everything takes times of order 1 / sigma^2, and cosine gradients are as short as embeddings long.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn.flows import (
    RepresentationModeArguments,
    RepresentationModes,
    RepresentationState,
    representation,
    representation_arguments,
    representation_mode_arguments,
    representation_modes,
)
from jepa_dyn.losses import TABLE_1
from jepa_dyn.moments import PairBatches, PairSample, ViewMoments, additive_noise_moments
from jepa_dyn.parameters import Leaf
from jepa_dyn.solve import train

PACE = {name: 1.0 if name.startswith("euclidean") else 5.0 for name in TABLE_1}
PACE |= {"euclidean_no_predictor": 10.0, "cosine_no_predictor": 10.0, "cosine_no_stop_gradient": 2.5}
NODES = 24  # of the quadrature: errors up to 1e-3 of the largest speed over nine decades, less than what batches add


class Encoders(eqx.Module):
    """Weights of every row by name: W (M, N), or the amplitudes (M,) of its modes."""

    rows: dict[str, Float[Leaf, "..."]]
    axes: int = eqx.field(static=True)

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (self.axes,) * len(self.rows)


class DataOfRows(eqx.Module):
    """What all networks learn from: the law, or a batch of pairs. The predictor is C_z, alpha = 1.

    `clean` (N, N) is E[x x^T] of the inputs before noise, and C_z that of the clean inputs; None takes C_z of the batch's first
    view. `relu`: rectified units, which need `clean` None.
    """

    moments: ViewMoments | PairSample
    clean: Float[Leaf, "*lanes N N"] | None
    relu: bool = eqx.field(static=True, default=False)

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        data = (2, 2) if isinstance(self.moments, PairSample) else (2, 2, 2)
        return (*data, *((2,) * (self.clean is not None)))


class ModesOfRows(eqx.Module):
    """`RepresentationModeArguments` of every row by name."""

    rows: dict[str, RepresentationModeArguments]

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return tuple(ndim for name in sorted(self.rows) for ndim in self.rows[name].leaf_ndims)


def network_rows(t: ArrayLike, y: Encoders, args: DataOfRows) -> Encoders:
    """The flow of every row on one batch."""
    speeds = {}
    for name, w in y.rows.items():
        own = representation_arguments(args.moments, name, correlation=args.clean, relu=args.relu, drawn=True)
        speeds[name] = PACE[name] * representation(t, RepresentationState(w), own).encoder
    return Encoders(speeds, y.axes)


def mode_rows(t: ArrayLike, y: Encoders, args: ModesOfRows) -> Encoders:
    """The flow of the modes of every row."""
    return Encoders(
        {
            name: PACE[name] * representation_modes(t, RepresentationModes(a), args.rows[name]).encoder
            for name, a in y.rows.items()
        },
        y.axes,
    )


def _weights(y: Encoders, args: DataOfRows | ModesOfRows) -> dict[str, Array]:
    return y.rows


def spectra(weights: np.ndarray) -> np.ndarray:
    """Eigenvalues of W W^T, ascending: (..., M, N) -> (..., M)."""
    return np.linalg.eigvalsh(weights @ weights.swapaxes(-1, -2))


def draw_encoders(rng: np.random.Generator, count: int, outputs: int, inputs: int) -> np.ndarray:
    """Entries ~ N(0, 1 / N), so that tr C_z is about M."""
    return rng.normal(size=(count, outputs, inputs)) / np.sqrt(inputs)


def saved_steps(total: int, count: int) -> np.ndarray:
    """Up to `count` + 1 numbers of steps from 0 to `total`, denser at the start, where modes are fastest."""
    return np.unique(np.ceil(total * (np.arange(count + 1) / count) ** 2).astype(int))


def trained_networks(
    names: Sequence[str],
    starts: np.ndarray,
    sigma: float,
    steps: np.ndarray,
    learning_rate: float,
    batch_size: int,
    key: int,
    *,
    relu: bool = False,
) -> dict[str, np.ndarray]:
    """W of every row, (runs, times, M, N), by gradient descent on fresh Gaussian pairs, both views noisy; one key per run.

    C_z is W W^T, that of the clean inputs; with rectified units that of the batch.
    """
    inputs = np.eye(starts.shape[-1])
    data = DataOfRows(additive_noise_moments(inputs, sigma), None if relu else jnp.asarray(inputs), relu)
    return networks_on(data, names, starts, steps, learning_rate, batch_size, key)


def networks_on(
    data: DataOfRows,
    names: Sequence[str],
    starts: np.ndarray,
    steps: np.ndarray,
    learning_rate: float,
    batch_size: int,
    key: int,
) -> dict[str, np.ndarray]:
    """`trained_networks` on any law, or one per run."""
    runs = train(
        network_rows,
        Encoders(dict.fromkeys(names, jnp.asarray(starts)), 2),
        data,
        steps,
        learning_rate=learning_rate,
        batches=PairBatches(batch_size),
        key=jax.random.split(jax.random.key(key), len(starts)),
        observe=_weights,
    )
    return {name: np.asarray(w) for name, w in runs.raise_if_failed().ys.items()}


def expected_modes(
    names: Sequence[str],
    s0: np.ndarray,
    online: ArrayLike,
    target: ArrayLike,
    steps: np.ndarray,
    learning_rate: float,
    *,
    cross: ArrayLike = 1.0,
    correlation: ArrayLike = 1.0,
) -> dict[str, np.ndarray]:
    """Eigenvalues of C_z of every row, (lanes, times, M), by gradient descent on the population, from s0 (lanes, M).

    Args:
        online, target, cross, correlation: moments of the two views and of what C_z is taken of, one per lane, or (lanes, M).
    """
    lanes, modes = s0.shape
    named = {"online": online, "target": target, "cross": cross, "correlation": correlation}
    moments = {name: _by_lane(value, lanes) for name, value in named.items()}

    def of_row(name: str) -> RepresentationModeArguments:
        def one(own: dict[str, Array]) -> RepresentationModeArguments:
            return representation_mode_arguments(modes, name, nodes=NODES, **own)

        return jax.vmap(one)(moments)

    scale = np.asarray(moments["correlation"]).reshape(lanes, 1, -1)
    amplitudes = jnp.asarray(np.sqrt(s0 / scale[:, 0]))
    runs = train(
        mode_rows,
        Encoders(dict.fromkeys(names, amplitudes), 1),
        ModesOfRows({name: of_row(name) for name in names}),
        steps,
        learning_rate=learning_rate,
        observe=_weights,
    )
    return {name: scale * np.asarray(a) ** 2 for name, a in runs.raise_if_failed().ys.items()}


def _by_lane(value: ArrayLike, lanes: int) -> Array:
    array = jnp.asarray(value, float)
    return jnp.broadcast_to(array, (lanes, *array.shape[1:]))
