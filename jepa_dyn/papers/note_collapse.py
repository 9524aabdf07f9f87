"""The note on latent prediction and collapse: its zoo of losses and mechanisms, what collapses, how, at what rate.

The mathematics is that of linear encoders (sections 3.1 to 3.3); section 3.3 in detail is `tian2021`, the losses themselves are in
`note_collapse_losses`.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require_positive
from jepa_dyn.metrics import Collapse, collapse_code
from jepa_dyn.papers import note_collapse_checks as claims
from jepa_dyn.papers._figure import PAPERS, Item, in_float64, whole, with_checks
from jepa_dyn.papers.note_collapse_losses import contrastive_limit, info_nce_theory, losses_at_collapse
from jepa_dyn.papers.note_collapse_losses_plots import (
    plot_contrastive_limit,
    plot_info_nce_theory,
    plot_losses_at_collapse,
)
from jepa_dyn.papers.note_collapse_plots import plot_collapse_zoo
from jepa_dyn.papers.note_collapse_systems import SIZE, System, systems
from jepa_dyn.solve import ensemble

if TYPE_CHECKING:
    import xarray

LONG = 200.0
TINY, EARLY = 1e-4, 0.01  # singular values of the run that shows the rate at W = 0, and the time until which
SEEN = 1e-6  # the smallest singular value that counts for the late rate; the solver's absolute tolerance is 1e-12


@in_float64
def collapse_zoo(*, count: int = 16, horizon: float = LONG, full: bool = False, key: int = 0) -> "xarray.Dataset":
    """What collapses, how, at what rate: linear encoders W (3 x 3) under each mechanism of the note, theory beside simulation.

    Every row runs from an aligned start, whose modes theory follows one by one, from a tiny one, which shows the rate at W = 0, and
    from Gaussian starts of the same size (predictors too), which need not end like the aligned one.

    Args:
        count: Gaussian starts of each row, >= 1.
        horizon: gradient-flow time, >= 200: the slowest rate is 0.05, and collapse means 1e-6 of the variance.
        full: 200 Gaussian starts.
        key: seed of the rotations, the batch of InfoNCE and the Gaussian starts.

    Returns:
        Dataset over (row, mode, time): singular values s_k(t) and their theory; the squares at the end, the rates at W = 0 and
        those of dying modes in the end, each beside its theory (NaN where theory does not say); the kind of collapse found and
        expected; how the Gaussian starts ended, by kind.

    Raises:
        ValueError: fewer than 1 start, a horizon < 200.

    Source: note on collapse, sections 3.1-3.3, 4.1-4.7.
    """
    import xarray

    count = 200 if full else whole("count", count, 1)
    require_positive("horizon", horizon)
    if horizon < LONG:
        raise ValueError(f"Argument `horizon` must be at least {LONG:g}, but is {horizon}.")
    rng = np.random.default_rng(key)
    basis, left = (np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0] for _ in range(2))
    rows = systems(basis, rng)
    ts = np.concatenate([[0.0, EARLY], np.geomspace(0.05, horizon, 60)])
    starts = rng.normal(size=(2, count, SIZE, SIZE))
    paths = [_run(row, left, starts, ts) for row in rows]
    aligned = np.stack([np.linalg.norm(path[0] @ row.basis, axis=-2) for path, row in zip(paths, rows, strict=True)])
    tiny = np.stack([np.linalg.norm(path[1] @ row.basis, axis=-2) for path, row in zip(paths, rows, strict=True)])
    squares = np.stack([np.linalg.svd(path[:, -1], compute_uv=False) ** 2 for path in paths])
    scale = np.array([np.sum(row.start**2) for row in rows])
    codes = np.asarray(collapse_code(squares, scale=scale[:, None]))
    none = np.full((len(ts), SIZE), np.nan)
    lane = ("row", "mode")
    variables = {
        "singular_value": (("row", "time", "mode"), aligned, "singular value s of the aligned start"),
        "singular_value_theory": (
            ("row", "time", "mode"),
            np.stack([none if r.path is None else r.path(ts) for r in rows]),
            "",
        ),
        "end": (lane, aligned[:, -1] ** 2, "s² at the end"),
        "end_theory": (lane, np.stack([row.ends for row in rows]), ""),
        "rate": (lane, np.log(tiny[:, 1] / tiny[:, 0]) / EARLY, "d log s / dt at W = 0"),
        "rate_theory": (lane, np.stack([row.rates for row in rows]), ""),
        "late": (lane, np.stack([_late_rates(ts, path) for path in aligned]), "d log s / dt in the end"),
        "late_theory": (lane, np.stack([row.late for row in rows]), ""),
        "code": ("row", codes[:, 0], "kind of collapse, aligned start"),
        "expected": ("row", np.array([Collapse[row.expected] for row in rows], np.uint8), "the same by theory"),
        "ends_of": (
            ("row", "kind"),
            np.stack([(codes[:, 2:] == kind).sum(1) for kind in Collapse], axis=1),
            "Gaussian starts by the kind of their end",
        ),
    }
    named = {name: (dims, values, {"long_name": text}) for name, (dims, values, text) in variables.items()}
    coords = {
        "row": np.arange(len(rows)),
        "name": ("row", [row.name for row in rows]),
        "views": ("row", [row.views for row in rows]),
        "mechanism": ("row", [row.mechanism for row in rows]),
        "kind": [kind.name for kind in Collapse],
        "mode": np.arange(SIZE),
        "time": ("time", ts, {"long_name": "gradient-flow time"}),
    }
    dataset = xarray.Dataset(named, coords)
    return with_checks(dataset, claims.zoo_checks(dataset), paper=PAPERS["note_collapse"], section="3.1-4.7")


def _run(row: System, left: np.ndarray, starts: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """W (lanes, times, 3, 3): the aligned, the tiny and the Gaussian starts."""
    sizes = np.stack([row.start, np.full(SIZE, TINY)])
    encoders = np.concatenate([(left * sizes[:, None]) @ row.basis.T, row.start[0] * starts[0]])
    predictors = np.concatenate([(left * sizes[:, None]) @ left.T, row.start[0] * starts[1]])
    y0 = jax.vmap(row.state)(jnp.asarray(encoders), jnp.asarray(predictors))
    args = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(encoders), *jnp.shape(leaf))), row.args)
    runs = ensemble(row.flow, y0, args, ts, rtol=1e-9, atol=1e-12, sort_key=None).raise_if_failed()
    return np.asarray(row.encoder(runs.ys))


def _late_rates(ts: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Slope of log s between the last two times at which s can be seen, per mode."""
    last = np.array([np.flatnonzero(one > SEEN)[-1] for one in path.T])
    mode = np.arange(path.shape[1])
    return np.log(path[last, mode] / path[last - 1, mode]) / (ts[last] - ts[last - 1])


ITEMS = (
    Item("collapse_zoo", "what collapses, how, at what rate: every mechanism of the note", collapse_zoo, plot_collapse_zoo),
    Item(
        "losses_at_collapse", "value, gradient and stability of every loss at collapse", losses_at_collapse,
        plot_losses_at_collapse,
    ),
    Item("contrastive_limit", "InfoNCE with many negatives: alignment and uniformity", contrastive_limit, plot_contrastive_limit),
    Item(
        "info_nce_theory", "InfoNCE's bound on mutual information, and its eigenvalues", info_nce_theory, plot_info_nce_theory
    ),
)  # fmt: skip
