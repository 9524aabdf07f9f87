"""Ponce et al. 2025, "Dual perspectives on non-contrastive self-supervised learning": the experiments of section 4.3, m = 1.

One input, rho = [xx], tau = [yx] (the print has [yy]), n = 2 outputs: equilibria are the origin and two circles of radii r1 < r2.
"Time steps" of the paper have no size: here a run of the algorithms takes steps of a learning rate that is an option, and the
continuous flows are integrated until they stand still.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jepa_dyn._checks import require_count, require_positive
from jepa_dyn._progress import progress_bar
from jepa_dyn.equilibria import binomial_interval, by_flow, by_steps, one_feature_roots
from jepa_dyn.flows import SiameseArguments, SiameseState, siamese, siamese_arguments, siamese_objective
from jepa_dyn.moments import ViewMoments, view_moments
from jepa_dyn.papers import ponce2025_checks as claims
from jepa_dyn.papers._figure import PAPERS, Item, in_float64, with_checks
from jepa_dyn.papers.ponce2025_checks import PROCEDURES
from jepa_dyn.papers.ponce2025_equilibria import proposition_4_10
from jepa_dyn.papers.ponce2025_images import fig2
from jepa_dyn.papers.ponce2025_images_plots import plot_fig2
from jepa_dyn.papers.ponce2025_plots import plot_fig3, plot_fig4, plot_proposition_4_10, plot_trials
from jepa_dyn.solve import train
from jepa_dyn.status import Status

if TYPE_CHECKING:
    import xarray

OUTPUTS = 2
# (name, conditioned on Delta >= 0, flow or learning rate of the algorithm, 1 - alpha or a schedule, C0 = A0); SG has None for alpha
VARIANTS: tuple[tuple[str, bool, float | None, float | str | None, bool], ...] = (
    ("SG flow, all draws", False, None, None, True),
    ("SG flow", True, None, None, True),
    ("EMA flow, 1-α = 0.1, C0 independent", True, None, 0.1, False),
    ("EMA flow, 1-α = 0.1", True, None, 0.1, True),
    ("EMA flow, 1-α = 0.03", True, None, 0.03, True),
    ("EMA flow, 1-α = 0.01", True, None, 0.01, True),
    ("SG steps of 0.1", True, 0.1, None, True),
    ("SG steps of 1", True, 1.0, None, True),
    ("EMA steps of 0.1, α = 0.9", True, 0.1, 0.1, True),
    ("EMA steps of 0.1, α = 0.99", True, 0.1, 0.01, True),
    ("EMA steps of 0.1, α = 0.9 + 0.1 t/T", True, 0.1, "schedule", True),
)
ENDS = ("S2", "origin", "S1", "diverged", "unresolved")


def draw_parameters(
    rng: np.random.Generator, count: int, conditioned: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rho, tau, lambda) as footnote 4 says: uniform in [0, 3], [-1, 1], [0.01, 0.1]; on request only draws with Delta >= 0."""
    kept: list[np.ndarray] = []
    while sum(len(one) for one in kept) < count:
        draws = rng.uniform([0, -1, 0.01], [3, 1, 0.1], (count, 3))
        kept.append(draws[draws[:, 1] ** 2 >= 4 * draws[:, 0] * draws[:, 2]] if conditioned else draws)
    rho, tau, lam = np.concatenate(kept)[:count].T
    return rho, tau, lam


def _lanes(rho: np.ndarray, tau: np.ndarray, lam: np.ndarray, ema_rate: float) -> SiameseArguments:
    """Arguments of one lane per draw; E[y y^T] = tau^2 / rho + 1 is possible and does not matter to SG and EMA."""

    def one(rho: Any, tau: Any, lam: Any) -> SiameseArguments:
        law = ViewMoments(*(jnp.reshape(value, (1, 1)) for value in (rho, tau, tau**2 / rho + 1)))
        return siamese_arguments(law, weight_decay=lam, ema_rate=ema_rate)

    return jax.vmap(one)(*(jnp.asarray(values) for values in (rho, tau, lam)))


def _starts(rng: np.random.Generator, count: int, ema: bool, same: bool) -> SiameseState:
    """All coordinates ~ N(0, 1)."""
    a, b, c = (rng.normal(size=(count, OUTPUTS, columns)) for columns in (1, OUTPUTS, 1))
    return SiameseState(jnp.asarray(a), jnp.asarray(b), jnp.asarray(a if same else c) if ema else None)


@in_float64
def trials(*, count: int = 1000, horizon: float = 2000.0, full: bool = False, key: int = 0) -> "xarray.Dataset":
    """The trials of section 4.3 in eleven readings: which share of random starts ends on the outer circle S2.

    The paper leaves open whether draws without nonzero equilibria (Delta < 0, more than half) count, whether time is continuous,
    how large steps are, what alpha is and where C starts.

    Args:
        count: trials per reading, >= 10.
        horizon: flow time after which runs stop, > 0: flows earlier where they stand still, algorithms after horizon / step steps
            (twice as many with the schedule). What has not settled by then is counted as unresolved.
        full: 10,000 trials, as in the paper.
        key: seed of parameters and starts; all readings of one kind of draw share them.

    Returns:
        Dataset over (variant, end): counts, shares with Wilson's 95 % intervals, beside the printed 82.0 % (SG) and 92.8 % (EMA).

    Raises:
        ValueError: fewer than 10 trials, a horizon that is not > 0.

    Source: Ponce 2025, section 4.3, footnote 4, proposition 4.11.
    """
    import xarray

    require_count("count", count, 10)
    require_positive("horizon", horizon)
    count = 10_000 if full else int(count)
    counts = np.zeros((len(VARIANTS), len(ENDS)), int)
    for row, variant in progress_bar(enumerate(VARIANTS), len(VARIANTS), unit="readings"):
        counts[row] = trial_ends(variant, count, horizon, key)
    low, high = binomial_interval(counts, count)
    dims = ("variant", "end")
    variables = {
        "count": (dims, counts, {"long_name": "trials"}),
        "share": (dims, counts / count, {"long_name": "share of trials"}),
        "low": (dims, low, {"long_name": "lower end of the 95 % interval"}),
        "high": (dims, high, {"long_name": "upper end of the 95 % interval"}),
    }
    coords = {"variant": [name for name, *_ in VARIANTS], "end": list(ENDS)}
    rho, tau, lam = draw_parameters(np.random.default_rng(key), 1_000_000, False)
    possible = float((tau**2 >= 4 * rho * lam).mean())
    dataset = xarray.Dataset(variables, coords, {"trials": count, "share_with_equilibria": possible})
    return with_checks(dataset, claims.trial_checks(dataset), paper=PAPERS["ponce2025"], section="4.3")


def trial_ends(variant: tuple, count: int, horizon: float, key: int) -> np.ndarray:
    """Counts of one reading, in the order of `ENDS`."""
    _, conditioned, step, rate, same = variant
    rng = np.random.default_rng(key)
    rho, tau, lam = draw_parameters(rng, count, conditioned)
    y0 = _starts(rng, count, rate is not None, same)
    if step is None:
        advance = by_flow(siamese, horizon)
        args = _lanes(rho, tau, lam, 0.0 if rate is None else float(rate))
    else:
        steps = max(1, round((2 if rate == "schedule" else 1) * horizon / step))
        momentum = optax.linear_schedule(0.9, 1.0, steps) if rate == "schedule" else None if rate is None else 1 - rate
        advance = by_steps(siamese, step, steps, settled_speed=1e-6, target_momentum=momentum)
        args = _lanes(rho, tau, lam, 0.0)
    ends = advance(y0, args)
    small, large, _ = (np.asarray(a) for a in one_feature_roots(rho, tau, lam))
    size = np.linalg.norm(np.asarray(ends.y.encoder)[:, :, 0], axis=1)
    good = ends.status == Status.ok
    with np.errstate(invalid="ignore"):
        outer = good & (np.abs(size / large - 1) < 0.02)
        # slow runs pass near S1: only those that stand on it count, and only where S2 is not next to it
        inner = good & ~outer & ends.settled & (np.abs(size / small - 1) < 1e-3) & (large > 1.1 * small)
    origin = good & ~outer & ~inner & (size < 0.5 * np.where(np.isnan(small), np.inf, small)) & ends.settled
    rest = good & ~outer & ~inner & ~origin
    diverged = np.isin(ends.status, (Status.diverged, Status.non_finite))
    return np.array([outer.sum(), origin.sum(), inner.sum(), diverged.sum(), (rest | (~good & ~diverged)).sum()])


@in_float64
def fig3(
    *,
    rho: float = 3.0,
    tau: float = 2.0,
    weight_decay: float = 0.1,
    step: float = 0.1,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 3: paths of SG and of EMA (alpha = 0.9 + 0.1 t / T) in the plane of a, from random starts.

    Args:
        rho, tau, weight_decay: of the data, with Delta = tau^2 - 4 rho lambda > 0.
        step: learning rate; T is 300 / step.
        full: 100 starts instead of 15.
        key: seed of the starts.

    Returns:
        Dataset over (procedure, run, step): a, B, c, and the objectives E and F of Figure 4; radii r1, r2.

    Raises:
        ValueError: rho, weight_decay or step not > 0, or Delta <= 0.

    Source: Ponce 2025, Figures 3 and 4, section 4.3.
    """
    dataset = _paths(rho, tau, weight_decay, step, 100 if full else 15, key)
    return with_checks(dataset, claims.path_checks(dataset), paper=PAPERS["ponce2025"], figure="3")


@in_float64
def fig4(
    *,
    rho: float = 3.0,
    tau: float = 2.0,
    weight_decay: float = 0.1,
    step: float = 0.1,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 4: E along paths of SG, E and F along paths of EMA: neither is minimised.

    Arguments, result and errors: as `fig3`.

    Source: Ponce 2025, Figure 4, section 4.3, proposition 3.1.
    """
    dataset = _paths(rho, tau, weight_decay, step, 100 if full else 15, key)
    return with_checks(dataset, claims.objective_checks(dataset), paper=PAPERS["ponce2025"], figure="4")


def _observed(y: SiameseState, args: SiameseArguments) -> dict[str, Any]:
    plain = SiameseState(y.encoder, y.predictor)
    return {
        "a": y.encoder[:, 0],
        "B": y.predictor,
        "c": (y.encoder if y.target is None else y.target)[:, 0],
        "E": siamese_objective(plain, args),
        "F": siamese_objective(y, args),
    }


def _paths(rho: float, tau: float, weight_decay: float, step: float, runs: int, key: int) -> "xarray.Dataset":
    import xarray

    for name, value in (("rho", rho), ("weight_decay", weight_decay), ("step", step)):
        require_positive(name, value)
    small, large, delta = one_feature_roots(rho, tau, weight_decay)
    if not float(delta) > 0:
        raise ValueError(
            f"Arguments `rho`, `tau`, `weight_decay` must have tau^2 > 4 rho weight_decay, but Delta is {float(delta):.3g}."
        )
    law = view_moments(np.array([[rho]]), np.array([[tau]]), np.array([[tau**2 / rho + 1]]))
    args = siamese_arguments(law, weight_decay=weight_decay)
    total = round(300 / step)
    steps = np.unique(np.round(np.geomspace(1, total + 1, 200)).astype(int) - 1)
    start = _starts(np.random.default_rng(key), runs, True, True)
    found: dict[str, list[np.ndarray]] = {}
    for procedure in PROCEDURES:
        ema = procedure == "ema"
        y0 = start if ema else SiameseState(start.encoder, start.predictor)
        momentum = optax.linear_schedule(0.9, 1.0, total) if ema else None
        run = train(siamese, y0, args, steps, learning_rate=step, target_momentum=momentum, observe=_observed)
        for name, values in {**run.ys, "status": run.status}.items():
            found.setdefault(name, []).append(np.asarray(values))
    path = ("procedure", "run", "step")
    dims = {"a": (*path, "output"), "B": (*path, "output", "input"), "c": (*path, "output"), "E": path, "F": path}
    labels = {"a": "encoder a", "B": "predictor B", "c": "target c", "E": "objective E", "F": "objective F"}
    variables = {name: (dims[name], np.stack(found[name]), {"long_name": labels[name]}) for name in dims}
    variables["status"] = (path[:2], np.stack(found["status"]), {"long_name": "outcome, see jepa_dyn.Status"})
    coords = {"procedure": list(PROCEDURES), "step": ("step", steps, {"long_name": "steps of the algorithm"})}
    settings = {"rho": rho, "tau": tau, "weight_decay": weight_decay, "learning_rate": step}
    return xarray.Dataset(variables, coords, settings | {"r1": float(small), "r2": float(large)})


ITEMS = (
    Item("fig2", "plain gradient, SG and EMA on digits: objectives, increments, probe accuracy", fig2, plot_fig2),
    Item("fig3", "paths of SG and EMA in the plane of a: two circles and the origin", fig3, plot_fig3),
    Item("fig4", "E and F along paths: neither procedure minimises them", fig4, plot_fig4),
    Item("trials", "the 10,000 trials in eleven readings: shares that end on the outer circle", trials, plot_trials),
    Item(
        "proposition_4_10", "all equilibria of random data: most are saddles", proposition_4_10, plot_proposition_4_10
    ),
)
