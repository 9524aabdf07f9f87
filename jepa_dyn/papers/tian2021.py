"""Tian et al. 2021, "Understanding self-supervised learning dynamics without contrastive pairs", as a note on collapse sums it up.

What is tested is the note's section 3.3, "Why invariance alone collapses", not the paper. In its letters the online encoder is W,
the predictor P, the target Wbar, A = E[x x^T], C = E[x x+^T]; here they are encoder, predictor, target, `moments.xx` and
`moments.yx` transposed, its step size is 2 eta = 1, and T = C^T A^-1 is the best linear prediction of x+ from x.
Everything at n = m = 3.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require_nonnegative, require_positive
from jepa_dyn.equilibria import square_root_fixed_point
from jepa_dyn.flows import SiameseArguments, SiameseState, siamese, siamese_arguments, siamese_gradient
from jepa_dyn.metrics import predictor_imbalance
from jepa_dyn.moments import ViewMoments
from jepa_dyn.papers import tian2021_checks as claims
from jepa_dyn.papers._figure import PAPERS, Item, in_float64, whole, with_checks
from jepa_dyn.papers.tian2021_plots import plot_ablations, plot_rank_at_end, plot_stationary_points
from jepa_dyn.solve import ensemble

if TYPE_CHECKING:
    import xarray

SIZE = 3
KINDS = ("commuting, C symmetric", "commuting, C normal", "T normal", "C symmetric", "generic")
FORMULAS = ("T^T T", "printed")
STATES = ("W = 0", "W = P = 0, target held", "any invertible W", "balanced root")
STARTS = ("Gaussian", "balanced, P random", "balanced, P > 0", "P = 1, W small")
DECAYS = ("no weight decay", "weight decay")
ARMS = ("both", "both, EMA target", "no predictor", "no stop gradient")
VIEWS = ("noisy", "identical")
COLLAPSED = 1e-3  # an eigenvalue of W^T W below this counts as gone; the data are of unit size


def _rotation(rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]


def _invertible(rng: np.random.Generator, count: int) -> np.ndarray:
    """Matrices with singular values in [0.5, 2]."""
    return np.stack([(_rotation(rng) * rng.uniform(0.5, 2.0, SIZE)) @ _rotation(rng) for _ in range(count)])


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)) @ vectors.T


def _printed(a: np.ndarray, c: np.ndarray) -> np.ndarray:
    """C^T A^-1 C A^-1, the note's W^T W."""
    return c.mT @ np.linalg.solve(a, c) @ np.linalg.inv(a)


_roots = jax.jit(jax.vmap(square_root_fixed_point))


def _turning(rng: np.random.Generator, size: float) -> np.ndarray:
    """A normal matrix that is not symmetric, in the coordinate axes: a scaled rotation of two of them beside a number."""
    angle, radius, rest = rng.uniform(0.4, 1.2), *rng.uniform(0.4, 1.0, 2)
    turn = radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return size * np.block([[turn, np.zeros((2, 1))], [np.zeros((1, 2)), rest]])


def draw_views(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(A, C) of two views of equal law: C = A^(1/2) M^T A^(1/2) with singular values of M, the correlations, below 1.

    Kinds as in `KINDS`: A and C commute and C is symmetric, or normal only (A has a double eigenvalue, C turns its plane);
    T = C^T A^-1 is normal but A and C do not commute; C is symmetric and positive definite, as where both views are drawn alike;
    none of these.
    """
    basis, variances = _rotation(rng), rng.uniform(0.5, 1.5, SIZE)
    correlations = rng.uniform(0.3, 0.95, SIZE)
    if kind == "commuting, C normal":
        variances[1] = variances[0]
    a = (basis * variances) @ basis.T
    half = _root(a)
    if kind == "T normal":
        other = _rotation(rng)
        return a, a @ (other @ _turning(rng, 0.55) @ other.T).T  # |A^-1/2 T A^1/2| <= 3^(1/2) |T| < 1
    if kind == "commuting, C symmetric":
        m = (basis * correlations) @ basis.T
    elif kind == "commuting, C normal":
        m = basis @ _turning(rng, 0.95) @ basis.T
    else:
        left = _rotation(rng)
        m = (left * correlations) @ (left if kind == "C symmetric" else _rotation(rng)).T
    return a, half @ m.T @ half


def draw_start(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(W, P) at the start. Kinds as in `STARTS`; balanced means P^T P = W W^T; otherwise all entries are ~ N(0, 1)."""
    w, p, turn = rng.normal(size=(SIZE, SIZE)), rng.normal(size=(SIZE, SIZE)), _rotation(rng)
    if kind == "P = 1, W small":
        return 0.1 * w, np.eye(SIZE)
    if kind == "Gaussian":
        return w, p
    positive = _root(w @ w.T)
    return w, (positive if kind == "balanced, P > 0" else turn @ positive)


def _lanes(a: np.ndarray, c: np.ndarray, weight_decay: np.ndarray | None = None, **rates: float) -> SiameseArguments:
    """Arguments of one lane per data set."""

    def one(a: Any, c: Any, decay: Any) -> SiameseArguments:
        return siamese_arguments(ViewMoments(a, c.T, a), weight_decay=decay, **rates)

    decays = np.zeros(len(a)) if weight_decay is None else weight_decay
    return jax.vmap(one)(*(jnp.asarray(values) for values in (a, c, decays)))


def _arrays(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    first, second = zip(*pairs, strict=True)
    return np.stack(first), np.stack(second)


@in_float64
def stationary_points(*, seeds: int = 20, full: bool = False, key: int = 0) -> "xarray.Dataset":
    """Where the flow stands still without weight decay, and what W^T W is there.

    With T = C^T A^-1 every invertible W is stationary beside P = W T W^-1. Balance, P^T P = W W^T, which the flow keeps, leaves one
    positive definite S = W^T W: the root of S^2 = T^T S T. The print has C^T A^-1 C A^-1.

    Args:
        seeds: data sets of each kind, >= 2.
        full: 200 data sets of each kind.
        key: seed of the data.

    Returns:
        Dataset over (kind, seed): relative distance of each formula from the root, by which it misses the root's equation, how far
        the printed one is from symmetric; speed of the flow, residual of P W A = Wbar C^T and imbalance at four kinds of states.

    Raises:
        ValueError: fewer than 2 seeds.

    Source: note on collapse, section 3.3; Ponce 2025, lemma 6.2, for the root.
    """
    import xarray

    seeds = 200 if full else whole("seeds", seeds, 2)
    rng = np.random.default_rng(key)
    a, c = _arrays(draw_views(kind, rng) for kind in KINDS for _ in range(seeds))
    t = c.mT @ np.linalg.inv(a)
    s = np.asarray(_roots(t))
    formulas = {"T^T T": t.mT @ t, "printed": _printed(a, c)}
    shape = (len(KINDS), seeds)

    def by_kind(values: np.ndarray) -> np.ndarray:
        return np.asarray(values).reshape(shape)

    def size(matrices: Any) -> np.ndarray:
        return np.linalg.norm(np.asarray(matrices), axis=(-2, -1))

    def misses(x: np.ndarray) -> np.ndarray:
        return by_kind(size(x @ x - t.mT @ x @ t) / size(x @ x))

    printed = formulas["printed"]
    states = _stationary_states(rng, t, s)
    speed, residual, imbalance = (
        np.stack([by_kind(one) for one in values]) for values in zip(*(_at(y, a, c) for y in states), strict=True)
    )
    w, target = _invertible(rng, len(a)), rng.normal(size=a.shape)
    best = target @ c.mT @ w.mT @ np.linalg.inv(w @ a @ w.mT)
    at_best = jax.vmap(siamese, (None, 0, 0))(0.0, SiameseState(w, best, target), _lanes(a, c))
    pair, triple, state = ("kind", "seed"), ("formula", "kind", "seed"), ("state", "kind", "seed")
    variables = {
        "distance": (triple, np.stack([by_kind(size(formulas[f] - s) / size(s)) for f in FORMULAS])),
        "miss": (triple, np.stack([misses(formulas[f]) for f in FORMULAS])),
        "root_miss": (pair, misses(s)),
        "asymmetry": (pair, by_kind(size(printed - printed.mT) / size(printed))),
        "speed": (state, speed),
        "residual": (state, residual),
        "imbalance": (state, imbalance),
        "best_predictor_speed": (pair, by_kind(size(at_best.predictor))),
        "spread": (pair, by_kind(size(states[2].encoder.mT @ states[2].encoder - s) / size(s))),
        "num_positive": (pair, by_kind((np.linalg.eigvalsh(s) > 0).sum(-1))),
    }
    labels = {
        "distance": "relative distance from the root S",
        "miss": "|X² - TᵀX T| / |X²| of each formula",
        "root_miss": "|S² - TᵀS T| / |S²|",
        "asymmetry": "|X - Xᵀ| / |X| of the printed formula",
        "speed": "largest rate of change of W or P",
        "residual": "|P W A - W̄ Cᵀ|",
        "imbalance": "|P^T P - W W^T|",
        "best_predictor_speed": "|dP/dt| at the printed P*",
        "spread": "relative distance of WᵀW from the root, any invertible W",
        "num_positive": "positive eigenvalues of S",
    }
    named = {name: (dims, values, {"long_name": labels[name]}) for name, (dims, values) in variables.items()}
    coords = {"kind": list(KINDS), "seed": np.arange(seeds), "formula": list(FORMULAS), "state": list(STATES)}
    dataset = xarray.Dataset(named, coords)
    return with_checks(dataset, claims.stationary_checks(dataset), paper=PAPERS["tian2021"], section="3.3")


def _stationary_states(rng: np.random.Generator, t: np.ndarray, s: np.ndarray) -> list[SiameseState]:
    """One state per data set for each of `STATES`."""
    none, any_w, any_p = np.zeros_like(t), _invertible(rng, len(t)), rng.normal(size=t.shape)
    half = np.stack([_root(one) for one in s])

    def invertible(w: np.ndarray) -> SiameseState:
        return SiameseState(w, w @ t @ np.linalg.inv(w), w)

    return [SiameseState(none, any_p, none), SiameseState(none, none, any_w), invertible(any_w), invertible(half)]


def _at(y: SiameseState, a: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Speed of the flow (targets do not move), residual of the stationary condition, imbalance; one number per lane."""
    rate = jax.vmap(siamese, (None, 0, 0))(0.0, y, _lanes(a, c))
    speed = np.maximum(*(np.abs(np.asarray(leaf)).max((-2, -1)) for leaf in (rate.encoder, rate.predictor)))
    left = y.predictor @ y.encoder @ a - y.target @ c.mT
    uneven = np.asarray(jax.vmap(predictor_imbalance)(y))
    return speed, *(np.linalg.norm(np.asarray(one), axis=(-2, -1)) for one in (left, uneven))


@in_float64
def rank_at_end(
    *, count: int = 50, weight_decay: float = 0.01, horizon: float = 2000.0, full: bool = False, key: int = 0
) -> "xarray.Dataset":
    """The rank of W^T W at the end of the stop-gradient flow with C of full rank, and as one direction loses its correlation.

    Args:
        count: starts of each kind, each with data of its own, >= 5.
        weight_decay: of the runs that have one, > 0.
        horizon: flow time, > 0. A run whose rank differs at half time counts as unresolved.
        full: 500 starts.
        key: seed of data and starts.

    Returns:
        Dataset: number of runs by (data, start, decay, rank) with the eigenvalues of W^T W of each; distance of balanced ends from
        the root and from the printed formula; the smallest eigenvalues of C and W^T W over the correlation q of one direction
        between views that are identical in all others, from starts that are balanced with P > 0.

    Raises:
        ValueError: fewer than 5 starts, `weight_decay` or `horizon` not > 0.

    Source: note on collapse, section 3.3 (per-eigenmode result, condition 3).
    """
    import xarray

    count = 500 if full else whole("count", count, 5)
    require_positive("weight_decay", weight_decay)
    require_positive("horizon", horizon)
    data, decays = ("C symmetric", "generic"), (0.0, float(weight_decay))
    rng = np.random.default_rng(key)
    drawn = [(draw_views(kind, rng), draw_start(start, rng)) for kind in data for start in STARTS for _ in range(count)]
    similarity = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0])
    runs = min(count, 20)
    mixed = [(_one_direction(q, rng), draw_start("balanced, P > 0", rng)) for q in similarity for _ in range(runs)]
    all_sizes, ends = _ends(drawn + mixed, decays, horizon)
    sizes, smallest = all_sizes[:, : len(drawn)], all_sizes[:, len(drawn) :, 1].min(-1)
    shape = (len(decays), len(data), len(STARTS), count)
    eigenvalues = sizes[:, :, 1].reshape(*shape, SIZE)
    early, late = ((sizes[:, :, k] > COLLAPSED).sum(-1).reshape(shape) for k in (0, 1))
    rank = np.where(early == late, late, -1)
    a, c = _arrays(views for views, _ in drawn)
    t = c.mT @ np.linalg.inv(a)
    wanted = {"root": np.asarray(_roots(t)), "printed": _printed(a, c)}
    found = ends[0, : len(drawn)].mT @ ends[0, : len(drawn)]  # without weight decay
    gaps = [
        np.linalg.norm(found - x, axis=(1, 2)) / np.linalg.norm(wanted["root"], axis=(1, 2)) for x in wanted.values()
    ]
    lanes = ("decay", "data", "start", "run")
    variables = {
        "rank": (lanes, rank, {"long_name": "rank of WᵀW at the end, -1 unresolved"}),
        "eigenvalue": ((*lanes, "mode"), eigenvalues, {"long_name": "eigenvalues of WᵀW at the end"}),
        "gap": (
            ("formula", *lanes[1:]),
            np.stack(gaps).reshape(2, *shape[1:]),
            {"long_name": "relative distance of WᵀW"},
        ),
        "smallest_c": (
            ("similarity", "trial"),
            np.array([np.linalg.svd(c, compute_uv=False)[-1] for (_, c), _ in mixed]).reshape(-1, runs),
            {"long_name": "smallest singular value of C"},
        ),
        "smallest_w": (
            ("decay", "similarity", "trial"),
            smallest.reshape(2, -1, runs),
            {"long_name": "smallest eigenvalue of WᵀW at the end"},
        ),
    }
    coords = {
        "decay": list(DECAYS),
        "data": list(data),
        "start": list(STARTS),
        "formula": list(wanted),
        "similarity": ("similarity", similarity, {"long_name": "correlation q of one direction between the views"}),
    }
    dataset = xarray.Dataset(variables, coords, {"weight_decay": decays[1], "horizon": horizon, "level": COLLAPSED})
    return with_checks(dataset, claims.rank_checks(dataset), paper=PAPERS["tian2021"], section="3.3")


def _one_direction(q: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(A, C) of views that agree in all directions but one, where their correlation is q."""
    a, _ = draw_views("generic", rng)
    basis, half = _rotation(rng), _root(a)
    return a, half @ (basis * np.array([q, 1.0, 1.0])) @ basis.T @ half


def _ends(drawn: list, decays: tuple[float, ...], horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of W^T W over (decay, draw, half time and end, mode), falling; W at the end over (decay, draw)."""
    (a, c), (w, p) = (_arrays(list(pairs) * len(decays)) for pairs in zip(*drawn, strict=True))
    args = _lanes(a, c, np.repeat(decays, len(drawn)))
    y0, ts = SiameseState(jnp.asarray(w), jnp.asarray(p)), [horizon / 2, horizon]
    runs = ensemble(siamese, y0, args, ts, rtol=1e-8, atol=1e-11, sort_key=None).raise_if_failed()
    encoders = np.asarray(runs.ys.encoder).reshape(len(decays), len(drawn), 2, SIZE, SIZE)
    return np.linalg.svd(encoders, compute_uv=False) ** 2, encoders[:, :, 1]


@in_float64
def ablations(
    *,
    count: int = 40,
    weight_decay: float = 0.01,
    ema_rate: float = 0.1,
    horizon: float = 1000.0,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """The size of W over time with predictor and stop gradient, and with one of them taken away.

    Without predictor P = 1 is held: dW/dt = -W (A - C^T). Without stop gradient the flow descends on E|P W x - W x+|^2 / 2, where
    d|W|^2/dt <= -2 (sigma + lambda) |W|^2 with sigma the smallest eigenvalue of E[x+ x+^T] - C^T A^-1 C, weight decay or not.

    Args:
        count: starts, all entries of W and P ~ N(0, 1), each with data of its own ("C symmetric"), >= 5.
        weight_decay: of the runs that have one, > 0.
        ema_rate: of the run with a target, which starts at W, >= 0.
        horizon: flow time, > 0.
        full: 400 starts.
        key: seed of data and starts.

    Returns:
        Dataset over (arm, views, decay, run, time): |W|^2; the eigenvalues of W^T W at the end; the bound of each run.

    Raises:
        ValueError: fewer than 5 starts, `weight_decay` or `horizon` not > 0, `ema_rate` < 0.

    Source: note on collapse, section 3.3 (conditions 1 and 2); Ponce 2025, lemma 4.3, for the bound at sigma = 0.
    """
    import xarray

    count = 400 if full else whole("count", count, 5)
    require_positive("weight_decay", weight_decay)
    require_positive("horizon", horizon)
    require_nonnegative("ema_rate", ema_rate)
    decays, rng = (0.0, float(weight_decay)), np.random.default_rng(key)
    own, noisy = _arrays(draw_views("C symmetric", rng) for _ in range(count))
    start = _arrays(draw_start("Gaussian", rng) for _ in range(count))
    # lanes over (views, decay, run)
    a, w, p = (np.tile(values, (len(VIEWS) * len(decays), 1, 1)) for values in (own, *start))
    c = np.concatenate([noisy, noisy, own, own])
    decay = np.tile(np.repeat(decays, count), len(VIEWS))
    ts = np.concatenate([[0.0], np.geomspace(1e-2, horizon, 80)])

    def run(flow: Any, y0: SiameseState, **rates: float) -> np.ndarray:
        y0, args = jax.tree.map(jnp.asarray, y0), _lanes(a, c, decay, **rates)
        runs = ensemble(flow, y0, args, ts, rtol=1e-8, atol=1e-11, sort_key=None).raise_if_failed()
        sizes = np.linalg.svd(np.asarray(runs.ys.encoder), compute_uv=False) ** 2
        return sizes.reshape(len(VIEWS), len(decays), count, len(ts), SIZE)

    identity = np.broadcast_to(np.eye(SIZE), p.shape)
    sizes = {
        "both": run(siamese, SiameseState(w, p)),
        "both, EMA target": run(siamese, SiameseState(w, p, w), ema_rate=ema_rate),
        "no predictor": run(siamese, SiameseState(w, identity), predictor_rate=0.0),
        "no stop gradient": run(siamese_gradient, SiameseState(w, p)),
    }
    squares = np.stack([sizes[arm].sum(-1) for arm in ARMS])
    # no predictor: A - C is symmetric here; no stop gradient: what x does not tell of x+
    lost = {"no predictor": a - c, "no stop gradient": a - c.mT @ np.linalg.solve(a, c)}
    rates = {arm: np.linalg.eigvalsh(matrix)[:, 0] + decay for arm, matrix in lost.items()}
    slowest = np.stack([np.reshape(rates[arm], (len(VIEWS), len(decays), count)) for arm in rates])
    lane = ("arm", "views", "decay", "run")
    variables = {
        "square": ((*lane, "time"), squares, {"long_name": "|W|²"}),
        "eigenvalue": ((*lane, "mode"), np.stack([sizes[arm][..., -1, :] for arm in ARMS])),
        "slowest": (("removed", *lane[1:]), slowest, {"long_name": "proved rate of decay of |W|"}),
    }
    coords = {"arm": list(ARMS), "removed": list(rates), "views": list(VIEWS), "decay": list(DECAYS)}
    coords["time"] = ("time", ts, {"long_name": "flow time"})
    settings = {"weight_decay": decays[1], "ema_rate": ema_rate, "level": COLLAPSED}
    dataset = xarray.Dataset(variables, coords, settings)
    return with_checks(dataset, claims.ablation_checks(dataset), paper=PAPERS["tian2021"], section="3.3")


ITEMS = (
    Item("stationary_points", "what W^T W is where the flow stands still", stationary_points, plot_stationary_points),
    Item("rank_at_end", "which rank is left at the end of the flow, C of full rank", rank_at_end, plot_rank_at_end),
    Item("ablations", "without predictor, without stop gradient, with both", ablations, plot_ablations),
)
