"""A branch of siamese equilibria over the weight decay, through its fold: the library's continuation beside JaxCont's.

Both follow F(S) = 0 (`equilibria.reduced`) in the entries of S from the same start, for the same number of points, with the same
first and longest step, and Newton's method at the same tolerance. m = 1 folds at tau^2 / (4 rho); the fold of m = 2, whose
moments do not commute, is known from mpmath.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn.equilibria import continue_branch
from jepa_dyn.equilibria.reduced import packed_residual

START, FIRST, LONGEST = 0.05, 0.002, 0.04
TOLERANCE = 1e3 * float(np.finfo(np.float64).eps)  # of `continue_branch`, whose longest step is 20 times the first


class Case(NamedTuple):
    """Moments, the entries of the larger S at the weight decay `START` (a guess), and the weight decay of the fold."""

    xx: np.ndarray
    yx: np.ndarray
    guess: np.ndarray
    fold: float


class Found(NamedTuple):
    """What a route found: how many points, their largest residual, and the folds."""

    points: int
    residual: float
    folds: np.ndarray


@dataclass(frozen=True)
class BranchRoute:
    """One row of the table."""

    name: str
    describe: str
    run: Callable[[Case, int], Found]
    note: str = ""


def residual(entries: Any, weight_decay: Any, args: tuple) -> Any:
    """F(S) in the entries of S."""
    return packed_residual(entries, *args, weight_decay)


def cases() -> dict[int, Case]:
    """m = 1 and m = 2."""
    rho, tau = 1.5, 0.8
    larger = (tau + (tau**2 - 4 * rho * START) ** 0.5) / (2 * rho)
    one = Case(np.array([[rho]]), np.array([[tau]]), np.array([larger**2]), tau**2 / (4 * rho))
    xx, yx = np.array([[1.2, 0.2], [0.2, 0.9]]), np.array([[0.9, 0.15], [0.05, 0.7]])
    # near the S of the mean of the moments' eigenvalues; both routes correct it before they start
    radii = [(t + (t**2 - 4 * r * START) ** 0.5) / (2 * r) for r, t in zip(np.diag(xx), np.diag(yx), strict=True)]
    guess = np.array([radii[0] ** 2, 0.0, radii[1] ** 2])
    return {1: one, 2: Case(xx, yx, guess, fold_of_two(xx, yx, guess))}


def fold_of_two(xx: np.ndarray, yx: np.ndarray, guess: np.ndarray) -> float:
    """Where the branch of m = 2 turns round, to 30 digits: F = 0 and det dF/dS = 0 by mpmath, from a coarse walk of its own."""
    import mpmath
    import scipy.optimize

    x, y = mpmath.matrix(xx.tolist()), mpmath.matrix(yx.tolist())

    def field(a: Any, b: Any, c: Any, decay: Any) -> list[Any]:
        s = mpmath.matrix([[a, b], [b, c]])
        shifted = x * s + decay * mpmath.eye(2)
        f = shifted * shifted.T - y.T * s * y
        return [f[0, 0], f[0, 1], f[1, 1]]

    def plain(values: np.ndarray, decay: float) -> np.ndarray:
        return np.array([float(f) for f in field(*map(float, values), decay)])

    at, decay, step = np.array([guess[0], guess[1], guess[2]]), START, 0.002
    while step > 1e-5:  # natural continuation up to where Newton's method finds nothing any more
        found = scipy.optimize.root(plain, at, (decay + step,))
        if found.success and np.abs(found.x - at).max() < 0.2:
            at, decay = found.x, decay + step
        else:
            step /= 2

    def system(a: Any, b: Any, c: Any, decay: Any) -> list[Any]:
        h, columns = mpmath.mpf(10) ** -20, []
        for place in range(3):  # quadratic in S: central differences are exact
            up, down = [a, b, c], [a, b, c]
            up[place], down[place] = up[place] + h, down[place] - h
            ends = zip(field(*up, decay), field(*down, decay), strict=True)
            columns.append([(p - q) / (2 * h) for p, q in ends])
        return [*field(a, b, c, decay), mpmath.det(mpmath.matrix(columns))]

    with mpmath.workdps(50):
        return float(mpmath.findroot(system, (*at, decay), tol=1e-30)[3])


@jax.jit
def _residuals(points: jax.Array, parameter: jax.Array, args: tuple) -> jax.Array:
    return jnp.abs(jax.vmap(residual, (0, 0, None))(points, parameter, args)).max()


def _found(points: Any, parameter: Any, case: Case, folds: Any) -> Found:
    largest = float(_residuals(jnp.asarray(points), jnp.asarray(parameter), (case.xx, case.yx)))
    return Found(len(points), largest, np.asarray(folds, float))


def _ours(case: Case, points: int) -> Found:
    args, everywhere = (case.xx, case.yx), (-1e6, 1e6)
    branch = continue_branch(residual, case.guess, START, args, everywhere, step=FIRST, max_points=points)
    return _found(branch.points, branch.parameter, case, branch.fold_parameters)


def _jaxcont(case: Case, points: int) -> Found:
    import jaxcont

    problem = jaxcont.bif_problem(residual, jnp.asarray(case.guess), START, args=(case.xx, case.yx))
    settings = jaxcont.ContinuationPar(ds=FIRST, ds_max=LONGEST, max_steps=points - 1, newton_tol=TOLERANCE)
    result = jaxcont.continuation(problem, p_span=(START, 1e6), settings=settings, events=[jaxcont.Fold()])
    return _found(result.branch.states, result.branch.params, case, [event.p for event in result.events])


def _jaxcont_walk(case: Case, points: int) -> Found:
    from jaxcont.core.scan_continuation import pseudo_arclength_scan

    numbers = (START, 1e6, FIRST, 1e-5, LONGEST, TOLERANCE)
    result = pseudo_arclength_scan(_field(case), jnp.asarray(case.guess), *map(jnp.asarray, numbers), points - 1,
                                   jnp.asarray(20))  # fmt: skip
    count = int(result.n_valid)
    return _found(result.states[:count], result.params[:count], case, [])


_FIELDS: dict[int, Callable] = {}


def _field(case: Case) -> Callable:
    """F of a case as one function object, so that a second call does not compile again."""
    return _FIELDS.setdefault(len(case.xx), partial(_closed, (case.xx, case.yx)))


def _closed(args: tuple, entries: Any, weight_decay: Any) -> Any:
    return residual(entries, weight_decay, args)


def branch_routes() -> tuple[list[BranchRoute], list[str]]:
    """The routes, and what is to be said about those without a row."""
    found = [BranchRoute("ours", "jepa_dyn continue_branch", _ours, "points, stability, folds")]
    if importlib.util.find_spec("jaxcont") is None:
        return found, ["JaxCont is not installed (`pip install jaxcont`)"]
    whole = (
        "points, stability, folds, of which it drops those within two first steps of another's parameter; compiles anew in each "
        "call, its loop being keyed by a function made per call"
    )
    walk = "its `pseudo_arclength_scan`, compiled once: points and tangents, neither stability nor folds"
    return [
        *found,
        BranchRoute("jaxcont", "JaxCont continuation", _jaxcont, whole),
        BranchRoute("jaxcont_walk", "JaxCont, loop alone", _jaxcont_walk, walk),
    ], []


__all__ = ["BranchRoute", "Case", "Found", "branch_routes", "cases", "fold_of_two"]
