"""Figure 4 of Halvagal et al. 2023: a linear predictor trained by gradient descent beside the eigenvectors of C_z."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require_count, require_nonnegative, require_positive
from jepa_dyn.flows import RepresentationState, representation, representation_arguments
from jepa_dyn.metrics import predictor_alignment
from jepa_dyn.moments import PairBatches, additive_noise_moments
from jepa_dyn.papers import halvagal2023_checks as claims
from jepa_dyn.papers._figure import PAPERS, in_float64, with_checks
from jepa_dyn.papers.halvagal2023_runs import PACE, draw_encoders, saved_steps, spectra
from jepa_dyn.solve import train

if TYPE_CHECKING:
    import xarray

LOSSES = ("euclidean", "cosine")


@in_float64
def fig4(
    *,
    count: int = 3,
    outputs: int = 10,
    inputs: int = 15,
    sigma: float = 0.1,
    weight_decay: float = 0.01,
    learning_rate: float = 0.05,
    num_steps: int = 2400,
    batch_size: int = 256,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 4: cos(u_m, W_P u_m) for the eigenvectors u_m of C_z while encoder and linear predictor learn by gradient descent.

    The paper trains a ResNet-18 on photographs; here a linear encoder learns from Gaussian inputs, C_z is that of the clean ones.

    Args:
        count: starts, >= 2; entries of W ~ N(0, 1 / N), of W_P ~ N(0, 1 / M).
        outputs, inputs: M >= 2 and N >= M.
        sigma: standard deviation of the noise on both views, > 0.
        weight_decay: of encoder and predictor, >= 0.
        learning_rate: > 0 of the Euclidean run, five times as large for the cosine.
        num_steps: >= 100.
        batch_size: fresh pairs per step, >= 1.
        full: 10 starts, batches of 2048, a fifth of the learning rate and five times the steps.
        key: seed of starts and pairs.

    Returns:
        Dataset over (distance, seed, time, mode), modes by falling eigenvalue of C_z: `alignment`, `eigenvalue`. `t` has a row per
        distance.

    Raises:
        ValueError: an option out of range.

    Source: Halvagal 2023, Figure 4; Tian 2021 for the measure.
    """
    import xarray

    for name, value, smallest in (("count", count, 2), ("outputs", outputs, 2), ("inputs", inputs, outputs)):
        require_count(name, value, smallest)
    require_count("num_steps", num_steps, 100)
    require_positive("sigma", sigma)
    require_positive("learning_rate", learning_rate)
    require_nonnegative("weight_decay", weight_decay)
    if full:
        count, batch_size, learning_rate, num_steps = 10, 2048, learning_rate / 5, 5 * num_steps
    rng, steps = np.random.default_rng(key), saved_steps(num_steps, 40)
    encoders = draw_encoders(rng, count, outputs, inputs)
    start = RepresentationState(jnp.asarray(encoders), jnp.asarray(draw_encoders(rng, count, outputs, outputs)))
    law, keys = additive_noise_moments(np.eye(inputs), sigma), jax.random.split(jax.random.key(key), count)
    aligned = jax.vmap(jax.vmap(predictor_alignment))
    found: dict[str, list[np.ndarray]] = {"alignment": [], "eigenvalue": []}
    for loss in LOSSES:
        args = representation_arguments(law, loss, weight_decay=weight_decay, drawn=True)
        rate = PACE[loss] * learning_rate
        runs = train(
            representation, start, args, steps, learning_rate=rate, batches=PairBatches(batch_size), key=keys
        ).raise_if_failed()
        w = np.asarray(runs.ys.encoder)
        found["alignment"].append(np.asarray(aligned(w @ w.swapaxes(-1, -2), runs.ys.predictor)))
        found["eigenvalue"].append(spectra(w)[..., ::-1])
    names = {"alignment": "cos(u, W_P u)", "eigenvalue": "eigenvalue of C_z"}
    axes = ("distance", "seed", "time", "mode")
    variables = {name: (axes, np.stack(found[name]), {"long_name": names[name]}) for name in found}
    times = np.array([PACE[loss] for loss in LOSSES])[:, None] * learning_rate * steps
    coords = {"distance": list(LOSSES), "mode": np.arange(1, outputs + 1)}
    coords["t"] = (("distance", "time"), times, {"long_name": "time"})
    settings = {"sigma": sigma, "weight_decay": weight_decay, "learning_rate": learning_rate, "inputs": int(inputs)}
    dataset = xarray.Dataset(variables, coords, settings)
    return with_checks(dataset, claims.fig4_checks(dataset), paper=PAPERS["halvagal2023"], figure="4")
