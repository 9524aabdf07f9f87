"""Where the losses of Halvagal et al. 2023 collapse, recruit all modes or diverge: over alpha, EMA rate, weight decay and start.

The paper shows single points of this diagram (Table 1, Figures 7, 8). Here the modes of a linear network on i.i.d. Gaussian inputs,
both views noisy, are integrated on the population, thousands of starts side by side. alpha = 0 is no predictor. EMA rate infinity
is no moving average: the target is the network itself. A loss without stop gradient has no target, and one class for all rates.

A cosine loss does not see how long W is, and weight decay only shortens it: a(t) e^(kappa t) moves as without decay in the time
(e^(2 kappa t) - 1) / (2 kappa) (IsoLoss: with kappa (1 + alpha) in place of kappa). So cosine runs end when that exponent is at
most 4, and their trace is taken times e^(2 kappa t): what is left is what the loss does.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from jepa_dyn._checks import require, require_choice, require_nonnegative, require_positive
from jepa_dyn._progress import progress_bar
from jepa_dyn.flows import (
    RepresentationModeArguments,
    RepresentationModes,
    representation_mode_arguments,
    representation_modes,
)
from jepa_dyn.metrics import collapse_code, recruited
from jepa_dyn.papers._figure import PAPERS, in_float64, whole, with_checks
from jepa_dyn.papers.halvagal2023_phase_checks import (
    CLASSES,
    COMPLETE,
    DIVERGED,
    UNRESOLVED,
    phase_checks,
    starting_spectra,
)
from jepa_dyn.solve import ensemble
from jepa_dyn.status import Status

if TYPE_CHECKING:
    import xarray

LOSSES = (
    "euclidean",
    "euclidean_no_stop_gradient",
    "euclidean_iso",
    "cosine",
    "cosine_no_stop_gradient",
    "cosine_iso",
)
LOST, GROWN = (
    1e-2,
    1e2,
)  # share of the largest, or of the trace, below which something is gone; growth beyond which it has diverged
MOVING = 1e-2  # change of a logarithm over the last half of a run below which something stands still
DEAD = 1e-6
MAX_STEPS = 1000  # a hundred are usual; a run that takes more is unresolved
LIFETIMES = 2.0
NODES = 20  # of the quadrature
DIMS = ("loss", "alpha", "ema_rate", "weight_decay", "anisotropy")
DEFAULT = {
    "alpha": (0.0, 0.25, 0.5, 1.0, 2.0),
    "ema_rate": (np.inf, 1.0, 0.1),
    "weight_decay": (0.0, 0.03, 0.1, 0.2, 0.3),
    "anisotropy": (1.0, 3.0, 10.0, 100.0, 1e4),
}
FULL = {
    "alpha": (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    "ema_rate": (np.inf, 3.0, 1.0, 0.3, 0.1, 0.03),
    "weight_decay": (0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.225, 0.25, 0.275, 0.3),
    "anisotropy": (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1e3, 1e4, 1e6),
}


def modes_with_target(t: ArrayLike, y: RepresentationModes, args: RepresentationModeArguments) -> RepresentationModes:
    """`representation_modes` where an infinite `ema_rate` stands for no moving average: the target moves with the encoder."""
    tied = jnp.isinf(args.ema_rate)
    finite = eqx.tree_at(lambda a: a.ema_rate, args, jnp.where(tied, 0.0, args.ema_rate))
    speed = representation_modes(t, y, finite)
    return eqx.tree_at(lambda s: s.target, speed, jnp.where(tied, speed.encoder, jnp.asarray(speed.target)))


def modes_without_target(
    t: ArrayLike, y: RepresentationModes, args: RepresentationModeArguments
) -> RepresentationModes:
    """`representation_modes`, modes below a share `DEAD` of the largest slowed down.

    Where two modes are left the cosine loss without stop gradient drives one to 0 at a speed that does not vanish with it: it dies
    in finite time, and an integrator would go back and forth across 0 for ever.
    """
    speed = representation_modes(t, y, args)
    squares = jnp.asarray(y.encoder) ** 2
    damping = squares / (squares + DEAD * jnp.max(squares))
    return eqx.tree_at(lambda s: s.encoder, speed, damping * speed.encoder)


def horizons(loss: str, alpha: np.ndarray, weight_decay: np.ndarray, time: float) -> np.ndarray:
    """When each run ends."""
    if loss.startswith("euclidean"):
        return np.full(weight_decay.shape, time)
    decay = weight_decay * ((1 + alpha) if loss.endswith("iso") else 1)
    return np.minimum(time, LIFETIMES / np.maximum(decay, LIFETIMES / time))


def run_lanes(loss: str, points: dict[str, np.ndarray], sigma: float, modes: int, time: float, nodes: int) -> dict:
    """Spectra (lanes, 3, modes) at the start, half of the time and the end, and the status of every lane."""
    has_target = not loss.endswith("no_stop_gradient")
    start = starting_spectra(points["anisotropy"], modes)
    noisy = 1 + sigma**2

    def arguments(alpha: Array, ema_rate: Array, weight_decay: Array) -> RepresentationModeArguments:
        return representation_mode_arguments(
            modes,
            loss,
            alpha=alpha,
            weight_decay=weight_decay,
            ema_rate=ema_rate,
            online=noisy,
            target=noisy,
            nodes=nodes,
        )

    rates = points["ema_rate"] if has_target else np.zeros(len(start))
    args = jax.vmap(arguments)(*(jnp.asarray(v) for v in (points["alpha"], rates, points["weight_decay"])))
    ends = horizons(loss, points["alpha"], points["weight_decay"], time)
    amplitudes = np.sqrt(start)
    runs = ensemble(
        modes_with_target if has_target else modes_without_target,
        RepresentationModes(amplitudes, target=amplitudes if has_target else None),
        args,
        ends[:, None] * np.array([0.5, 1.0]),
        rtol=1e-5,
        atol=1e-10,
        max_steps=MAX_STEPS,
    )
    later = np.asarray(runs.ys.encoder) ** 2
    return {
        "spectra": np.concatenate([start[:, None], later], axis=1),
        "ends": ends,
        "status": np.asarray(runs.status),
    }


def classify(spectra: np.ndarray, status: np.ndarray, undone: np.ndarray) -> dict[str, np.ndarray]:
    """`class`, `recruited` and `trace_ratio` of runs from their spectra (..., 3, modes) at the start, half-way and the end.

    Complete collapse: the trace has fallen below `LOST` of its start. Divergence: it has grown beyond `GROWN`, or is not finite.
    Else all modes, or a dimensional collapse, by the eigenvalues above `LOST` of the largest; unresolved where one that is lost
    still gains on the largest, one that is there still loses, or the trace falls on, by more than `MOVING` in the last half.

    Args:
        undone: (..., 2) factor on the spectra half-way and at the end.
    """
    later = spectra[..., 1:, :] * undone[..., None]
    trace = later.sum(axis=-1) / spectra[..., 0, :].sum(axis=-1)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.log(later / later.max(axis=-1, keepdims=True))
        gain = np.nan_to_num(shares[..., 1, :] - shares[..., 0, :], nan=0.0)  # both 0: gone for good
        falls = np.log(trace[..., 1] / trace[..., 0]) < -MOVING
    alive = shares[..., 1, :] > np.log(LOST)
    moving = ((~alive & (gain > MOVING)) | (alive & (gain < -MOVING))).any(axis=-1) | falls
    end, whole = later[..., 1, :], spectra[..., 0, :].sum(axis=-1)
    count = np.asarray(recruited(end, LOST))
    code = np.asarray(collapse_code(end, scale=whole, lost=LOST, share=LOST)).astype(int)  # as the first three classes
    found = np.where((moving & (code != COMPLETE)) | (status != Status.ok), UNRESOLVED, code)
    failed = (status == Status.non_finite) | (status == Status.diverged)
    found = np.where(failed | (trace[..., 1] > GROWN), DIVERGED, found)
    return {"class": found, "recruited": count, "trace_ratio": trace[..., 1]}


LABELS = {
    "class": "what becomes of the modes",
    "recruited": "eigenvalues above 1 % of the largest at the end",
    "trace_ratio": "trace of C_z at the end over that at the start",
    "status": "outcome of the integration, see jepa_dyn.Status",
    "alpha": "exponent of the predictor",
    "ema_rate": "rate of the moving-average target",
    "weight_decay": "weight decay",
    "anisotropy": "largest over smallest eigenvalue at the start",
}


@in_float64
def phase_classes(
    losses: Sequence[str],
    axes: Mapping[str, Any],
    *,
    modes: int = 4,
    sigma: float = 0.1,
    time: float = 300.0,
    progress: bool = True,
) -> "xarray.Dataset":
    """What becomes of the modes under some of `LOSSES`, at every point of the product of the axes.

    Args:
        losses: names in `LOSSES`.
        axes: values of `alpha` (>= 0, 0 is no predictor), `ema_rate` (> 0, infinity is none), `weight_decay` (>= 0), `anisotropy`
            (>= 1).
        modes: >= 2; their eigenvalues start in geometric progression with mean 1.
        sigma: standard deviation of the noise on both views, > 0.
        time: of a run, > 0; under a cosine loss with weight decay less, see the head of this file.
        progress: shows a bar.

    Returns:
        Dataset over (loss, alpha, ema_rate, weight_decay, anisotropy): `class` (an index of `CLASSES`), `recruited` eigenvalues,
        `trace_ratio` and `status`.

    Raises:
        ValueError: naming the argument.
    """
    import xarray

    modes = whole("modes", modes, 2)
    require_positive("sigma", sigma)
    require_positive("time", time)
    for loss in losses:
        require_choice("losses", loss, LOSSES)
    if set(axes) != set(DEFAULT):
        raise ValueError(f"Argument `axes` must have the keys {', '.join(DEFAULT)}, but has {', '.join(axes)}.")
    values = {name: np.atleast_1d(np.asarray(axes[name], float)) for name in DEFAULT}
    require_nonnegative("alpha", values["alpha"])
    require("ema_rate", values["ema_rate"], "be > 0 (infinity is allowed)", lambda a: a > 0)
    require_nonnegative("weight_decay", values["weight_decay"])
    require("anisotropy", values["anisotropy"], "be >= 1", lambda a: a >= 1)
    shape = tuple(one.size for one in values.values())
    mesh = dict(zip(values, np.meshgrid(*values.values(), indexing="ij"), strict=True))
    collected: dict[str, list[np.ndarray]] = {}
    for loss in progress_bar(losses, len(losses), show=progress, unit="losses"):
        # without a target all EMA rates are one
        own = mesh if not loss.endswith("no_stop_gradient") else {name: v[:, :1] for name, v in mesh.items()}
        points = {name: one.ravel() for name, one in own.items()}
        found = run_lanes(loss, points, sigma, modes, time, NODES)
        undone = np.ones((len(points["alpha"]), 2))
        if loss.startswith("cosine"):
            undone = np.exp(2 * points["weight_decay"][:, None] * found["ends"][:, None] * np.array([0.5, 1.0]))
        measured = classify(found["spectra"], found["status"], undone) | {"status": found["status"]}
        for name, one in measured.items():
            collected.setdefault(name, []).append(np.broadcast_to(one.reshape(own["alpha"].shape), shape))
    variables = {name: (DIMS, np.stack(one), {"long_name": LABELS[name]}) for name, one in collected.items()}
    coords: dict[str, Any] = {name: (name, one, {"long_name": LABELS[name]}) for name, one in values.items()}
    coords["loss"] = list(losses)
    dataset = xarray.Dataset(variables, coords, {"sigma": sigma, "modes": modes, "time": time})
    dataset["class"].attrs.update(flag_values=list(range(len(CLASSES))), flag_meanings="; ".join(CLASSES))
    return dataset


def phase_diagram(*, modes: int = 4, sigma: float = 0.1, time: float = 300.0, full: bool = False) -> "xarray.Dataset":
    """Which of the losses keeps all modes, loses some, collapses or diverges, over alpha, EMA rate, weight decay and start.

    Args:
        modes, sigma, time: as in `phase_classes`.
        full: 34848 points in place of 2250.

    Returns:
        The dataset of `phase_classes` for `LOSSES` on the axes `DEFAULT` (or `FULL`), with checks.

    Raises:
        ValueError: an option out of range.

    Source: beyond Halvagal 2023, whose Table 1 and Figures 7, 8 are points of it.
    """
    dataset = phase_classes(LOSSES, FULL if full else DEFAULT, modes=modes, sigma=sigma, time=time)
    return with_checks(
        dataset, phase_checks(dataset), paper=PAPERS["halvagal2023"], section="beyond the paper (Table 1, Figures 7, 8)"
    )
