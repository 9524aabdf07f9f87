"""The rows of the collapse zoo: linear encoders of one data set under one mechanism each, with what theory says of them.

All views have commuting moments, A = V diag(rho) V^T in both and C = V diag(c) V^T between them, and all aligned starts are
W = U diag(s) V^T with predictor U diag(s) U^T, so that each direction v_k is a mode of its own. `s_k` below is |W v_k|.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn import theory
from jepa_dyn.flows import (
    SiameseState,
    barlow_twins,
    barlow_twins_arguments,
    gaussian_info_nce,
    gaussian_info_nce_arguments,
    info_nce,
    info_nce_arguments,
    invariance,
    invariance_arguments,
    siamese,
    siamese_arguments,
    siamese_gradient,
)
from jepa_dyn.flows.barlow_twins import BarlowTwinsState
from jepa_dyn.moments import ViewMoments, view_moments
from jepa_dyn.theory import info_nce as info_nce_theory
from jepa_dyn.theory.barlow_twins import singular_value
from jepa_dyn.theory.linear_collapse import siamese_mode

SIZE = 3
VARIANCES = np.array([1.5, 1.2, 0.8])
CORRELATIONS = {
    "noisy": np.array([0.9, 0.6, 0.3]),
    "one direction shared": np.array([1.0, 0.6, 0.3]),
    "one direction reversed": np.array([0.9, 0.6, -0.3]),
}
TEMPERATURE, BATCH, WEIGHT_DECAY, EMA_RATE = 0.5, 32, 0.05, 0.5
LARGE, SMALL = 0.2, 0.03  # singular values of the aligned starts
# VICReg: lambda, mu, gamma, eps. So large a gamma that no hinge closes: there the flow would slide along a kink
VICREG = (0.3, 1.0, 10.0, 1e-3)
NAN = np.full(SIZE, np.nan)


@dataclass(frozen=True)
class System:
    """One row: a mechanism on one kind of views.

    - `flow`, `args`: what is integrated. `state(W, P)`: its start from an encoder and a predictor; `encoder(ys)`: W of a state.
    - `basis`: V. `rates`: d log s_k / dt at W = 0. `ends`: s_k^2 at the end of the aligned run, NaN where theory does not say.
    - `late`: d log s_k / dt of the modes that die, in the end; NaN for the others and where theory has a bound alone.
    - `path(t)`: s_k(t) of the aligned run, (times, modes), or None. `expected`: kind of collapse.
    """

    name: str
    views: str
    mechanism: str
    expected: str
    flow: Callable
    args: Any
    state: Callable[[Any, Any], Any]
    encoder: Callable[[Any], Any]
    basis: np.ndarray
    start: np.ndarray
    rates: np.ndarray
    ends: np.ndarray
    late: np.ndarray
    path: Callable[[np.ndarray], np.ndarray] | None = None


def vicreg_objective(w: jax.Array, args: tuple) -> jax.Array:
    """VICReg of a linear encoder on views of equal law, in the population; its weights as in `losses.vicreg_loss` and `VICREG`."""
    moments, covariance_weight = args
    invariance_weight, variance_weight, target, eps = VICREG
    covariance = w @ moments.xx @ w.T
    variances = jnp.diagonal(covariance)
    hinge = jnp.sum(jnp.maximum(target - jnp.sqrt(variances + eps), 0)) / w.shape[0]
    redundancy = jnp.sum((covariance - jnp.diag(variances)) ** 2) / w.shape[0]
    closeness = jnp.sum((w @ moments.difference) * w)
    return invariance_weight * closeness + 2 * variance_weight * hinge + 2 * covariance_weight * redundancy


def vicreg(t: Any, y: jax.Array, args: tuple) -> jax.Array:
    """Its gradient flow."""
    return -jax.grad(vicreg_objective)(y, args)


def _itself(w: Any, p: Any) -> Any:
    return w


def _own(ys: Any) -> Any:
    return ys


def _trained(ys: SiameseState | BarlowTwinsState) -> Any:
    return ys.encoder


def _pair(w: Any, p: Any) -> SiameseState:
    return SiameseState(w, p)


def _pair_and_target(w: Any, p: Any) -> SiameseState:
    return SiameseState(w, p, w)


def _without_predictor(w: Any, p: Any) -> SiameseState:
    return SiameseState(w, jnp.eye(p.shape[-1], dtype=p.dtype))


def _barlow_state(w: Any, p: Any) -> BarlowTwinsState:
    return BarlowTwinsState(w)


def moments_of(views: str, basis: np.ndarray) -> ViewMoments:
    """The views of that kind in the basis V."""
    xx = (basis * VARIANCES) @ basis.T
    yx = (basis * (VARIANCES * CORRELATIONS[views])) @ basis.T
    return view_moments((xx + xx.T) / 2, (yx + yx.T) / 2)


def draw_batch(moments: ViewMoments, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`BATCH` view pairs, Gaussian but for their mean and second moments, which are made those of the population."""
    drawn = rng.normal(size=(BATCH, 2 * SIZE))
    drawn -= drawn.mean(0)
    white = np.linalg.solve(np.linalg.cholesky(drawn.T @ drawn / BATCH), drawn.T).T
    both = white @ np.linalg.cholesky(np.asarray(moments.joint)).T
    return both[:, :SIZE], both[:, SIZE:]


def _larger_root(c: np.ndarray) -> np.ndarray:
    """Singular value of a mode kept under weight decay: the larger root of c a - rho a^2 = lambda, 0 where there is none."""
    square = c**2 - 4 * VARIANCES * WEIGHT_DECAY
    return np.where(square > 0, (c + np.sqrt(np.maximum(square, 0))) / (2 * VARIANCES), 0.0)


def _negative(rates: Any) -> np.ndarray:
    """The rates of those that die."""
    return np.where(np.asarray(rates) < 0, rates, np.nan)


def systems(basis: np.ndarray, rng: np.random.Generator) -> list[System]:
    """All rows, in the order of the note."""
    data = {views: moments_of(views, basis) for views in CORRELATIONS}
    c = {views: VARIANCES * correlations for views, correlations in CORRELATIONS.items()}
    rho, noisy = VARIANCES, c["noisy"]
    large, small = np.full(SIZE, LARGE), np.full(SIZE, SMALL)
    found = []

    def add(name: str, views: str, mechanism: str, expected: str, flow: Any, args: Any, **rest: Any) -> None:
        filled = {"state": _itself, "encoder": _own, "basis": basis, "start": large, "late": NAN} | rest
        found.append(System(name, views, mechanism, expected, flow, args, **filled))

    for views, expected in (("noisy", "complete"), ("one direction shared", "dimensional")):
        fall = 4 * (rho - c[views])  # 2 s_k, S = 2 (A - C)
        add(
            "invariance alone", views, "none", expected, invariance, invariance_arguments(data[views]), rates=-fall,
            ends=np.where(fall > 0, 0.0, LARGE**2), late=np.where(fall > 0, -fall, np.nan),
            path=lambda t, fall=fall: LARGE * np.exp(-fall * t[:, None]),
        )  # fmt: skip
    add(
        "no predictor", "noisy", "stop gradient", "complete", siamese,
        siamese_arguments(data["noisy"], predictor_rate=0.0), state=_without_predictor, encoder=_trained,
        rates=noisy - rho, late=noisy - rho, ends=0 * rho, path=lambda t: LARGE * np.exp((noisy - rho) * t[:, None]),
    )  # fmt: skip
    add(
        "no stop gradient", "noisy", "predictor", "complete", siamese_gradient, siamese_arguments(data["noisy"]),
        state=_pair, encoder=_trained, rates=-rho, ends=0 * rho,
    )  # fmt: skip
    add(
        "BYOL/SimSiam: predictor, stop gradient", "noisy", "predictor, stop gradient", "none", siamese,
        siamese_arguments(data["noisy"]), state=_pair, encoder=_trained, rates=0 * rho, ends=(noisy / rho) ** 2,
        path=lambda t: np.asarray(theory.state("jepa", t[:, None], LARGE, siamese_mode(rho, noisy))),
    )  # fmt: skip
    add(
        "BYOL: with EMA target", "noisy", "predictor, EMA target", "none", siamese,
        siamese_arguments(data["noisy"], ema_rate=EMA_RATE), state=_pair_and_target, encoder=_trained, rates=0 * rho,
        ends=(noisy / rho) ** 2,
    )  # fmt: skip
    decayed = siamese_arguments(data["noisy"], weight_decay=WEIGHT_DECAY)
    for start, expected, ends in ((large, "dimensional", _larger_root(noisy) ** 2), (small, "complete", 0 * rho)):
        add(
            f"SimSiam, weight decay, from {start[0]:g}", "noisy", "predictor, stop gradient", expected, siamese, decayed,
            state=_pair, encoder=_trained, start=start, rates=np.full(SIZE, -WEIGHT_DECAY), ends=ends,
            late=np.where(ends == 0, -WEIGHT_DECAY, np.nan),
        )  # fmt: skip
    for views, expected in (("noisy", "none"), ("one direction reversed", "dimensional")):
        modes = info_nce_theory.gaussian_mode(c[views], rho, temperature=TEMPERATURE)
        add(
            "SimCLR/MoCo: InfoNCE, Gaussian limit", views, "negatives", expected, gaussian_info_nce,
            gaussian_info_nce_arguments(data[views], temperature=TEMPERATURE), rates=np.asarray(modes.lam),
            ends=np.asarray(theory.fixed_point("mae", modes)) ** 2, late=_negative(modes.lam),
            path=lambda t, modes=modes: np.asarray(theory.state("mae", t[:, None], LARGE, modes)),
        )  # fmt: skip
    first, second = draw_batch(data["noisy"], rng)
    generator = info_nce_theory.small_start_generator(jnp.asarray(first), jnp.asarray(second), TEMPERATURE)
    values, own = np.linalg.eigh(np.asarray(generator))
    add(
        f"SimCLR/MoCo: InfoNCE, batch of {BATCH}", "noisy", "negatives", "none", info_nce,
        info_nce_arguments(first, second, temperature=TEMPERATURE), basis=own[:, ::-1], rates=values[::-1], ends=NAN,
    )  # fmt: skip
    for views, expected in (("noisy", "none"), ("one direction reversed", "dimensional")):
        gamma = c[views]
        add(
            "Barlow Twins", views, "decorrelation", expected, barlow_twins, barlow_twins_arguments(data[views]),
            state=_barlow_state, encoder=_trained, rates=4 * gamma, late=_negative(4 * gamma),
            ends=np.where(gamma > 0, 1 / np.abs(gamma), 0.0),
            path=lambda t, gamma=gamma: np.asarray(singular_value(t[:, None], LARGE, gamma)),
        )  # fmt: skip
    weight, push, _, eps = VICREG
    correlations = CORRELATIONS["noisy"]
    variances = (push / (2 * SIZE * weight * (1 - correlations))) ** 2 - eps  # where the hinge balances invariance
    strongest = np.arange(SIZE) == correlations.argmax()
    for name, covariance_weight, expected, ends in (
        ("VICReg without covariance term", 0.0, "dimensional", np.where(strongest, SIZE * variances / rho, 0.0)),
        ("VICReg", 1.0, "none", variances / rho),
    ):
        dying = 4 * weight * rho * (correlations - correlations.max())
        add(
            name, "noisy", "variance hinge" if covariance_weight == 0 else "variance hinge, decorrelation", expected, vicreg,
            (data["noisy"], jnp.asarray(covariance_weight)), ends=ends,
            rates=2 * push / (SIZE * np.sqrt(eps)) * rho - 4 * weight * (rho - noisy),
            late=np.where(ends == 0, dying, np.nan),
        )  # fmt: skip
    return found
