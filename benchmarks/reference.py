"""What is right, from mpmath alone: the modes' time integral in elementary functions, inverted at 34 digits.

With y = (w / w_inf)^r, n = 2/r - 1 and z = logit y the equation is dz/ds = y^n, so that s = F(y) - F(y0) with

    JEPA, n = 2L - 1:              F(y) = z - sum_{j=1..n} y^-j / j
    MAE, n = (L-1)/(L+1), v = y^(1/q), q = L+1, p = L-1:
                                   F(y) = - q v^-p / p - sum_j e^(2 pi i j (q-p) / q) log(1 - e^(-2 pi i j / q) v)

Nothing of the package is used here.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.problem import Batch

WELL_CONDITIONED = 100.0  # dlog(w)/dlog(t) up to which an error is one of the method rather than of the question


@dataclass(frozen=True)
class Reference:
    """States (lanes, times) of the first lanes and the condition number of w with respect to t there."""

    states: np.ndarray
    condition: np.ndarray


def exact_states(batch: Batch) -> Reference:
    """The reference of all lanes of a (small) batch, whose numbers are taken as exact."""
    import mpmath

    states, condition = np.empty(batch.ts.shape), np.empty(batch.ts.shape)
    with mpmath.workdps(34):
        for lane in range(batch.num_lanes):
            states[lane], condition[lane] = _one_lane(mpmath, batch, lane)
    return Reference(states, condition)


def time_integral(mp, objective: str, depth: int, z):
    """F at y = 1 / (1 + e^-z), up to a constant. `mp` is the module mpmath."""
    y = 1 / (1 + mp.exp(-z))
    if objective == "jepa":
        total, inverse = mp.mpf(0), 1 / y
        for j in range(2 * depth - 1, 0, -1):
            total = (total + mp.mpf(1) / j) * inverse
        return z - total
    q, p = depth + 1, depth - 1
    v = mp.root(y, q)
    # the term j = 0, log(1 - v), through 1 - y, which does not cancel near y = 1
    one_minus_v = mp.exp(-z) * y / sum(v**j for j in range(q))
    total = mp.log(one_minus_v)
    for j in range(1, q):
        total += mp.expjpi(mp.mpf(2) * j * (q - p) / q) * mp.log(1 - mp.expjpi(mp.mpf(-2) * j / q) * v)
    return -mp.re(total) - (q * v**-p / p if p else -mp.log(y))


def _one_lane(mp, batch: Batch, lane: int) -> tuple[list[float], list[float]]:
    lam, variance, eps = (mp.mpf(float(a[lane])) for a in (batch.lam, batch.variance, batch.eps))
    depth = int(batch.depth[lane])
    r = mp.mpf(1) / depth + (batch.objective == "mae")
    n, rho = 2 / r - 1, lam / variance
    rate = r * lam * rho**n
    y0 = eps**r / rho
    z = mp.log(y0 / (1 - y0))
    start = time_integral(mp, batch.objective, depth, z)
    states, condition = [], []
    for t in map(float, batch.ts[lane]):
        target = start + rate * mp.mpf(t)
        # F is increasing and concave in z and the last point lies before this one: Newton's iteration climbs monotonically
        for _ in range(500):
            y = 1 / (1 + mp.exp(-z))
            step = (target - time_integral(mp, batch.objective, depth, z)) * y**n
            z += step
            if abs(step) < mp.mpf(10) ** -20 * (1 + abs(z)):
                break
        else:
            raise RuntimeError(f"The reference of lane {lane} did not converge at t = {t}.")
        y = 1 / (1 + mp.exp(-z))
        states.append(float((rho * y) ** (1 / r)) if t > 0 else float(eps))
        condition.append(float(t * rate * y**n * (1 - y) / r))
    return states, condition


def integrated_states(batch: Batch, lane: int) -> np.ndarray:
    """One lane by scipy's DOP853 in log w at its tightest tolerance: a second witness, not used for the errors."""
    from scipy.integrate import solve_ivp

    lam, variance, r = float(batch.lam[lane]), float(batch.variance[lane]), 1 / float(batch.depth[lane])
    r += batch.objective == "mae"
    times = batch.ts[lane].astype(float)
    solution = solve_ivp(
        lambda t, u: lam * np.exp((2 - r) * u) - variance * np.exp(2 * u),
        (0.0, times[-1]),
        [np.log(float(batch.eps[lane]))],
        method="DOP853",
        t_eval=times,
        rtol=1e-13,
        atol=1e-14,
    )
    return np.exp(solution.y[0])


def errors(states: np.ndarray, reference: Reference) -> dict[str, float | int]:
    """Relative errors in w on the lanes that the reference has and the method ran; NaN in, infinite error out."""
    lanes = min(len(states), len(reference.states))
    right, condition = reference.states[:lanes], reference.condition[:lanes]
    relative = np.abs(np.asarray(states[:lanes], float) - right) / right
    relative = np.where(np.isfinite(relative), relative, np.inf)
    well = condition <= WELL_CONDITIONED
    return {
        "max_well_conditioned": float(relative[well].max()),
        "max": float(relative.max()),
        "median": float(np.median(relative)),
        "max_per_condition": float((relative / np.maximum(condition, 1)).max()),
        "checked_lanes": lanes,
        "well_conditioned_share": float(well.mean()),
    }
