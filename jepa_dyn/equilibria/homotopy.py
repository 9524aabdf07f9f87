"""All complex solutions of the reduced equation, by following paths from a system whose solutions are known.

Total degree: from s_k^2 = c_k to F(S) = 0 along gamma t G + (1 - t) F, t from 1 to 0, 2^(m(m+1)/2) paths; with a random complex
gamma every isolated solution is the end of a path. F is made homogeneous and cut by a random plane, so that paths to infinity end
too. Most do (X S S X = 0 has nonzero complex symmetric solutions): 2, 6, 24 of 2, 8, 64 are finite at m = 1, 2, 3.

Parameter: once a generic complex member of the family is solved, its finite solutions lead to those of any other member along a
line in (X, Y, lambda): 6 paths in place of 8, 24 in place of 64, and many data sets at once.

Source: Sommese and Wampler 2005, The numerical solution of systems of polynomials, chapters 2, 7, 8; Ponce 2025, corollary 4.6.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jepa_dyn._precision import x64_context
from jepa_dyn.equilibria.reduced import num_entries, packed_residual, symmetric

FINITE, AT_INFINITY, FAILED = 0, 1, 2
_END, _MARK = 1e-10, 1e-3  # of t: where tracking stops, and where |s_0| is noted for the growth towards infinity
_MOST_STEPS = 4000
_MOST_TRIES = 4
_GENERIC_SEED = 20250


class Paths(NamedTuple):
    """Ends of the paths: solutions (paths, m, m) complex, NaN where not finite, outcome (paths,), and all that was tried.

    `outcome` is FINITE, AT_INFINITY or FAILED; `tries` the number of random choices it took to have none fail.
    """

    solutions: np.ndarray
    outcome: np.ndarray
    tries: int


class _Data(NamedTuple):
    """One member of the family: X, Y complex (m, m), lambda."""

    xx: Any
    yx: Any
    weight_decay: Any


class _Choice(NamedTuple):
    """Random numbers of one homotopy: the plane, gamma, and c_k of the start system."""

    plane: Array
    gamma: Array
    c: Array


def _homogeneous(z: Array, data: _Data) -> Array:
    """F at z = (entries of S, s_0)."""
    return packed_residual(z[:-1], data.xx, data.yx, data.weight_decay, z[-1])


def _total_degree(z: Array, t: Array, data: _Data, choice: _Choice) -> Array:
    start = z[:-1] ** 2 - choice.c * z[-1] ** 2
    return choice.gamma * t * start + (1 - t) * _homogeneous(z, data)


def _between(z: Array, t: Array, data: tuple[_Data, _Data], choice: _Choice) -> Array:
    return _homogeneous(z, jax.tree.map(lambda end, begin: t * begin + (1 - t) * end, *data))


class _Path(NamedTuple):
    z: Array
    t: Array
    step: Array
    attempts: Array
    marked: Array  # |s_0| / |z| when t passed _MARK


def _bordered(system: Callable, z: Array, t: Array, plane: Array) -> Array:
    """The Jacobian in z with the plane as its last row: square."""
    return jnp.concatenate([jax.jacfwd(lambda z: system(z, t), holomorphic=True)(z), plane[None]])


def _newton(system: Callable, z: Array, t: Array, plane: Array) -> Array:
    return jnp.linalg.solve(_bordered(system, z, t, plane), jnp.append(system(z, t), plane @ z - 1))


def _speed(system: Callable, z: Array, t: Array, plane: Array) -> Array:
    by_t = jax.jvp(lambda t: system(z, t), (t,), (jnp.ones_like(t),))[1]
    return -jnp.linalg.solve(_bordered(system, z, t, plane), jnp.append(by_t, 0.0))


def _follow(homotopy: Callable, z0: Array, data: Any, choice: _Choice, caution: Array) -> tuple[Array, Array]:
    """One path from t = 1: (end in the plane, FINITE / AT_INFINITY / FAILED). Runge-Kutta predictor, three Newton iterations."""

    def system(z: Array, t: Array) -> Array:
        return homotopy(z, t, data, choice)

    plane = choice.plane

    def condition(path: _Path) -> Array:
        return (path.t > _END) & (path.attempts < _MOST_STEPS) & (path.step > 1e-14 * path.t)

    def advance(path: _Path) -> _Path:
        step = jnp.minimum(path.step, 0.5 * path.t)
        t = path.t - step
        k1 = _speed(system, path.z, path.t, plane)
        k2 = _speed(system, path.z - step / 2 * k1, path.t - step / 2, plane)
        k3 = _speed(system, path.z - step / 2 * k2, path.t - step / 2, plane)
        k4 = _speed(system, path.z - step * k3, t, plane)
        z = path.z - step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        moves = []
        for _ in range(3):
            move = _newton(system, z, t, plane)
            z, moves = z - move, [*moves, jnp.linalg.norm(move)]
        size = jnp.linalg.norm(z)
        # a prediction that has to be moved far may have been caught by a neighbouring path
        good = (moves[0] < caution * size) & (moves[2] < 1e-9 * size) & jnp.all(jnp.isfinite(z))
        passed = good & (path.t > _MARK) & (t <= _MARK)
        return _Path(
            jnp.where(good, z, path.z),
            jnp.where(good, t, path.t),
            jnp.where(good, step * jnp.where(moves[0] < 0.1 * caution * size, 2.0, 1.1), step / 2),
            path.attempts + 1,
            jnp.where(passed, jnp.abs(z[-1]) / size, path.marked),
        )

    z0 = z0 / (plane @ z0)
    one = jnp.ones((), z0.real.dtype)
    begin = _Path(z0, one, 0.05 * one, jnp.asarray(0, jnp.int32), one)
    path = jax.lax.while_loop(condition, advance, begin)
    arrived = path.t <= _END
    zero = jnp.zeros_like(one)
    z, last = path.z, zero
    for _ in range(12):
        move = _newton(system, z, zero, plane)
        z, last = z - move, jnp.linalg.norm(move)
    size = jnp.linalg.norm(z)
    share = jnp.abs(path.z[-1]) / jnp.linalg.norm(path.z)
    growth = jnp.log(path.marked / share) / jnp.log(_MARK / jnp.minimum(path.t, 0.1 * _MARK))  # s_0 ~ t^growth
    regular = jnp.isfinite(size) & (last < 1e-10 * size) & (jnp.linalg.norm(z - path.z) < 1e-3 * size)
    # Newton's method converges fast at regular ends only; a regular end in the plane s_0 = 0 would be at infinity all the same
    finite = arrived & regular & (jnp.abs(z[-1]) > 1e-6 * size)
    # the other ends at infinity are singular: the corrector may stall before them, where s_0 has all but vanished
    lost = ~finite & (path.t < 0.1 * _MARK) & (growth > 0.1) & (share < 1e-3)
    return z, jnp.where(finite, FINITE, jnp.where(lost, AT_INFINITY, FAILED))


@partial(jax.jit, static_argnames="homotopy")
def _follow_all(homotopy: Callable, starts: Array, data: Any, choice: _Choice, caution: Array) -> tuple[Array, Array]:
    return jax.vmap(lambda z0: _follow(homotopy, z0, data, choice, caution))(starts)


@partial(jax.jit, static_argnames="homotopy")
def _follow_sets(homotopy: Callable, starts: Array, data: Any, choice: _Choice, caution: Array) -> tuple[Array, Array]:
    """Of many members of the family, (sets, paths)."""
    begin = data[1]

    def one_set(end: _Data) -> tuple[Array, Array]:
        return jax.vmap(lambda z0: _follow(homotopy, z0, (end, begin), choice, caution))(starts)

    return jax.vmap(one_set)(data[0])


def _draw_choice(rng: np.random.Generator, count: int) -> _Choice:
    unit = np.exp(2j * np.pi * rng.random(count + 1))
    plane = rng.normal(size=count + 1) + 1j * rng.normal(size=count + 1)
    return _Choice(jnp.asarray(plane), jnp.asarray(unit[0]), jnp.asarray(unit[1:]))


def _affine(z: np.ndarray, outcome: np.ndarray, m: int) -> np.ndarray:
    """The matrices of the finite ends, NaN for the others."""
    finite = (outcome == FINITE)[..., None]
    last = np.where(finite, z[..., -1:], 1.0)
    return np.asarray(symmetric(jnp.asarray(np.where(finite, z[..., :-1] / last, np.nan)), m))


def _scale(xx: np.ndarray, yx: np.ndarray, weight_decay: float) -> float:
    """A typical size of S, by which it is divided: |X| |S| ~ |Y| |S|^(1/2), or |X| |S| ~ lambda where that is larger."""
    size = np.linalg.norm(xx, 2)
    return float(max((np.linalg.norm(yx, 2) / size) ** 2, weight_decay / size))


def _family(xx: np.ndarray, yx: np.ndarray, weight_decay: float) -> tuple[_Data, float]:
    """The member with its solutions of order 1 and its coefficients too, and the factor of the solutions."""
    factor = _scale(xx, yx, weight_decay)
    size = np.linalg.norm(xx, 2) * factor
    data = _Data(xx * factor / size, yx * np.sqrt(factor) / size, weight_decay / size)
    return _Data(*(jnp.asarray(leaf, complex) for leaf in data)), factor


def _repeated(z: np.ndarray, outcome: np.ndarray) -> bool:
    """Whether two paths ended at one regular solution, which shows that one of them had jumped."""
    ends = (z / np.linalg.norm(z, axis=1, keepdims=True))[outcome == FINITE]
    overlaps = np.abs(ends @ ends.conj().T) - np.eye(len(ends))
    return bool((overlaps > 1 - 1e-12).any())


def _solve(data: _Data, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """(ends of all paths in projective coordinates, their outcomes, tries) of one member, real or complex."""
    count = num_entries(data.xx.shape[0])
    signs = 1 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    best: tuple[np.ndarray, np.ndarray, int] | None = None
    for attempt in range(_MOST_TRIES):
        choice = _draw_choice(rng, count)
        starts = np.concatenate([signs * np.sqrt(np.asarray(choice.c)), np.ones((2**count, 1))], axis=1)
        caution = jnp.asarray(1e-3 * 0.2**attempt)
        z, outcome = (
            np.asarray(leaf) for leaf in _follow_all(_total_degree, jnp.asarray(starts), data, choice, caution)
        )
        if best is None or (outcome == FAILED).sum() < (best[1] == FAILED).sum():
            best = z, outcome, attempt + 1
        if not (outcome == FAILED).any() and not _repeated(z, outcome):
            return z, outcome, attempt + 1
    assert best is not None
    return best


def solve_total_degree(xx: np.ndarray, yx: np.ndarray, weight_decay: float, seed: int = 0) -> Paths:
    """All solutions by the total degree homotopy; every one of the 2^(m(m+1)/2) paths has an outcome.

    Where a path fails, or two paths end at one solution, all are followed again with other random numbers and more caution, at most
    4 times; what still fails is said in `outcome`.
    """
    with x64_context(True):
        data, factor = _family(np.asarray(xx, float), np.asarray(yx, float), float(weight_decay))
        z, outcome, tries = _solve(data, np.random.default_rng(seed))
        return Paths(factor * _affine(z, outcome, len(xx)), outcome, tries)


@lru_cache(maxsize=8)
def _generic(m: int) -> tuple[_Data, np.ndarray]:
    """A generic complex member and its finite solutions as starts (solutions, entries + 1)."""
    rng = np.random.default_rng(_GENERIC_SEED + m)

    def matrix() -> np.ndarray:
        return (rng.normal(size=(m, m)) + 1j * rng.normal(size=(m, m))) / np.sqrt(2 * m)

    root = matrix()
    data = _Data(*(jnp.asarray(leaf, complex) for leaf in (root @ root.T + np.eye(m), matrix(), 0.3 * np.exp(0.7j))))
    z, outcome, _ = _solve(data, rng)
    ends = z[outcome == FINITE]
    return data, ends / ends[:, -1:]


def solve_by_parameter(xx: np.ndarray, yx: np.ndarray, weight_decay: np.ndarray, seed: int = 0) -> Paths:
    """All solutions of many data sets, arrays with a leading axis (sets,), from those of a generic member; (sets, paths).

    Sets with a path that fails or meets another are solved again by the total degree homotopy, whose finite solutions come first.
    """
    m = xx.shape[-1]
    with x64_context(True):
        members, factors = zip(*(_family(*one) for one in zip(xx, yx, weight_decay, strict=True)), strict=True)
        begin, starts = _generic(m)
        stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        choice = _draw_choice(np.random.default_rng(seed), num_entries(m))
        z, outcome = (
            np.array(leaf)
            for leaf in _follow_sets(_between, jnp.asarray(starts), (stack, begin), choice, jnp.asarray(1e-3))
        )
        tries = 1
        for i in range(len(xx)):
            if (outcome[i] == FAILED).any() or _repeated(z[i], outcome[i]):
                again, ends, own = _solve(members[i], np.random.default_rng(seed + 1))
                order = np.argsort(ends, kind="stable")[: len(starts)]
                z[i], outcome[i], tries = again[order], ends[order], max(tries, own)
        return Paths(np.asarray(factors)[:, None, None, None] * _affine(z, outcome, m), outcome, tries)


__all__ = ["AT_INFINITY", "FAILED", "FINITE", "Paths", "solve_by_parameter", "solve_total_degree"]
