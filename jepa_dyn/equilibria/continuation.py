"""Branches of equilibria over a parameter: pseudo-arclength continuation through folds, folds located, stability along the way.

A branch is the curve 0 = f(x, p) in (x, p). From a point with unit tangent z' = (x', p') the next one is predicted at z + h z'
and corrected by Newton's method within the plane across the tangent (Keller 1977), which passes folds, where f_x is singular and
p' changes its sign. A fold between two points is located by Newton's method on

    f(x, p) = 0,   f_x(x, p) v = 0,   l . v = 1

(Moore, Spence 1980), which is regular at a simple fold: the parameter there comes out to rounding error.

Equilibria of siamese flows lie on O(n) orbits, where f_x is singular everywhere: continue the reduced equation in S = A^T A.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from jepa_dyn._checks import require, require_finite, require_positive
from jepa_dyn.status import MESSAGES, Status

Residual = Callable[[Any, Any, Any], Any]
_MOST_NEWTON = 12
_EASY, _HARD = 3, 6  # Newton iterations up to which the step grows, from which it shrinks
_SMALLEST_STEP = 1e-10  # relative to the first one
_FOLD_NEWTON = 25


class Branch(eqx.Module):
    """A branch of equilibria, in the order of the arclength, `num_points` of them.

    - `points`: the state's pytree with a leading axis (points,). `parameter`: (points,).
    - `eigenvalues`: of f_x at each point, (points, d), complex, by falling real part; `num_unstable`: how many have a real
      part > 0. Where f is the vector field itself that is its stability.
    - `fold_points`, `fold_parameters`: the folds met, with the leading axis (folds,).
    - `status`: `ok` where the branch left the asked range of the parameter or closed on itself, `max_steps` where `max_points` came
      first, `step_underflow` where no step however small converged (a bifurcation or the end of the branch).
    - `closed`: whether the branch came back to its start.
    """

    points: Any
    parameter: Float[np.ndarray, " points"]
    eigenvalues: Any
    num_unstable: Int[np.ndarray, " points"]
    fold_points: Any
    fold_parameters: Float[np.ndarray, " folds"]
    status: int = eqx.field(static=True)
    closed: bool = eqx.field(static=True)

    @property
    def num_points(self) -> int:
        """Number of points on the branch."""
        return len(self.parameter)

    def __str__(self) -> str:
        low, high = self.parameter.min(), self.parameter.max()
        folds = ", ".join(f"{value:.10g}" for value in self.fold_parameters) or "none"
        changes = np.flatnonzero(np.diff(self.num_unstable))
        lines = [
            f"Branch: {self.num_points} points, parameter {self.parameter[0]:.6g} -> {self.parameter[-1]:.6g}, "
            f"within [{low:.6g}, {high:.6g}]{', closed' if self.closed else ''}",
            f"  folds at   {folds}",
            f"  unstable   {self.num_unstable[0]} directions at the start, {self.num_unstable[-1]} at the end, "
            f"{len(changes)} changes",
        ]
        if self.status != Status.ok:
            lines.append(f"  status     {Status(self.status).name}: {MESSAGES[Status(self.status)]}")
        return "\n".join(lines)


class _Walk(NamedTuple):
    z: Array  # (d + 1,) state and parameter
    tangent: Array
    step: Array
    accepted: Array  # points so far
    status: Array
    closed: Array
    done: Array


def _tangent(matrix: Float[Array, "d d+1"], along: Float[Array, " d+1"]) -> Float[Array, " d+1"]:
    """Unit vector of the kernel of [f_x f_p] that points along the one before."""
    bordered = jnp.concatenate([matrix, along[None]])
    last = jnp.zeros(len(along), along.dtype).at[-1].set(1.0)
    new = jnp.linalg.solve(bordered, last)
    return new / jnp.linalg.norm(new)


def _correct(field: Callable, guess: Array, tangent: Array, tolerance: Array) -> tuple[Array, Array, Array]:
    """Newton's method on f = 0 within the plane through the guess across the tangent: (z, iterations, whether it converged)."""

    def condition(carry: tuple) -> Array:
        _, size, count = carry
        return (size > tolerance) & (count < _MOST_NEWTON)

    def iterate(carry: tuple) -> tuple:
        z, _, count = carry
        matrix = jnp.concatenate([jax.jacfwd(field)(z), tangent[None]])
        value = jnp.concatenate([field(z), jnp.dot(tangent, z - guess)[None]])
        move = jnp.linalg.solve(matrix, value)
        size = jnp.max(jnp.abs(move)) / (1 + jnp.max(jnp.abs(z)))
        return z - move, jnp.where(jnp.isfinite(size), size, jnp.inf), count + 1

    start = (guess, jnp.asarray(jnp.inf, guess.dtype), jnp.asarray(0, jnp.int32))
    z, size, count = jax.lax.while_loop(condition, iterate, start)
    return z, count, size <= tolerance


@eqx.filter_jit
def _walk(
    residual: Residual, unravel: Callable, z0: Array, args: Any, first: Array, bounds: Array, max_points: int
) -> tuple:
    """(points (max_points, d+1), tangents, how many are valid, status, closed)."""

    def field(z: Array) -> Array:
        return jax.flatten_util.ravel_pytree(residual(unravel(z[:-1]), z[-1], args))[0]

    tolerance = jnp.asarray(1e3 * jnp.finfo(z0.dtype).eps, z0.dtype)
    direction = jnp.zeros_like(z0).at[-1].set(jnp.sign(first))
    start, _, converged = _correct(field, z0, direction, tolerance)
    tangent = _tangent(jax.jacfwd(field)(start), direction)
    largest = 20 * jnp.abs(first)

    def advance(walk: _Walk, _: None) -> tuple[_Walk, tuple[Array, Array, Array]]:
        guess = walk.z + walk.step * walk.tangent
        z, count, good = _correct(field, guess, walk.tangent, tolerance)
        tangent = _tangent(jax.jacfwd(field)(z), walk.tangent)
        # a turn of more than a few degrees means that the step jumped to another branch or is too long to resolve this one
        good &= jnp.all(jnp.isfinite(tangent)) & (jnp.dot(tangent, walk.tangent) > 0.98)
        good &= jnp.linalg.norm(z - guess) < walk.step
        factor = jnp.where(good, jnp.where(count <= _EASY, 1.4, jnp.where(count >= _HARD, 0.7, 1.0)), 0.5)
        step = jnp.minimum(walk.step * factor, largest)
        outside = (z[-1] < bounds[0]) | (z[-1] > bounds[1])
        # back at the start: within half a step of it, in the direction in which it was left
        near = jnp.linalg.norm(z - start) < 0.6 * walk.step
        back = near & (walk.accepted > 3) & (jnp.dot(tangent, first_tangent) > 0.9)
        lost = step < _SMALLEST_STEP * jnp.abs(first)
        moved = _Walk(
            jnp.where(good, z, walk.z),
            jnp.where(good, tangent, walk.tangent),
            step,
            walk.accepted + good,
            jnp.where(
                good & (outside | back), Status.ok, jnp.where(lost, Status.step_underflow, Status.max_steps)
            ).astype(jnp.uint8),
            good & back,
            (good & (outside | back)) | lost,
        )
        walk = jax.tree.map(lambda new, old: jnp.where(walk.done, old, new), moved, walk)
        return walk, (walk.z, walk.tangent, walk.accepted)

    first_tangent = tangent
    none = jnp.asarray(False)
    begin = _Walk(
        start,
        tangent,
        jnp.abs(first),
        jnp.asarray(1, jnp.int32),
        jnp.asarray(jnp.where(converged, Status.max_steps, Status.step_underflow), jnp.uint8),
        none,
        ~converged,
    )
    # rejected steps cost attempts, not points
    walk, (points, tangents, counts) = jax.lax.scan(advance, begin, None, length=3 * max_points)
    return start, tangent, points, tangents, counts, walk.status, walk.closed, converged


class Fold(eqx.Module):
    """A simple fold: the state and the parameter where two equilibria meet and vanish, and the size of the last Newton step."""

    point: Any
    parameter: Float[Array, ""]
    last_move: Float[Array, ""]


def locate_fold(residual: Residual, x: Any, parameter: ArrayLike, args: Any, null: Any = None) -> Fold:
    """The fold near (x, parameter), by the system of Moore and Spence; `vmap`-able and differentiable in `args`.

    So the parameter at which an equilibrium is lost is a function of the data, with its gradient.

    Args:
        residual, args: as in `continue_branch`.
        x, parameter: a guess.
        null: guess of the direction in which f_x is singular there, of the shape of x; default the one of the smallest singular
            value of f_x at the guess.

    Returns:
        `Fold`. Its `last_move` is at rounding error where Newton's method converged, large or NaN where it did not.
    """
    dtype = jnp.result_type(float)
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), x))

    def field(z: Array, args: Any) -> Array:
        return jax.flatten_util.ravel_pytree(residual(unravel(z[:-1]), z[-1], args))[0]

    z = jnp.append(flat, jnp.asarray(parameter, dtype))
    if null is None:
        direction = jnp.linalg.svd(jax.jacfwd(field)(z, args)[:, :-1])[2][-1]
    else:
        direction = jax.flatten_util.ravel_pytree(null)[0]
    direction = jax.lax.stop_gradient(direction / jnp.linalg.norm(direction))
    d = flat.size

    def system(both: Array, args: Any) -> Array:
        z, v = both[: d + 1], both[d + 1 :]
        turned = jax.jvp(lambda z: field(z, args), (z,), (jnp.append(v, 0.0),))[1]
        return jnp.concatenate([field(z, args), turned, (jnp.dot(direction, v) - 1)[None]])

    # numbers that choose a shape or a branch stay Python's own
    held = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, args)

    def iterate(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        both, _ = carry
        move = jnp.linalg.solve(jax.jacfwd(system)(both, held), system(both, held))
        return both - move, jnp.max(jnp.abs(move))

    begin = (jax.lax.stop_gradient(jnp.concatenate([z, direction])), jnp.asarray(jnp.inf, dtype))
    both, last = jax.lax.stop_gradient(jax.lax.fori_loop(0, _FOLD_NEWTON, iterate, begin))
    # one more step, whose derivative is that of the implicit function theorem
    both = both - jnp.linalg.solve(jax.lax.stop_gradient(jax.jacfwd(system)(both, held)), system(both, args))
    return Fold(unravel(both[:d]), both[d], last)


_locate_fold = eqx.filter_jit(locate_fold)


@eqx.filter_jit
def _jacobians(residual: Residual, unravel: Callable, points: Array, args: Any) -> Array:
    def field(x: Array, parameter: Array) -> Array:
        return jax.flatten_util.ravel_pytree(residual(unravel(x), parameter, args))[0]

    return jax.vmap(jax.jacfwd(field))(points[:, :-1], points[:, -1])


def continue_branch(
    residual: Residual,
    x0: Any,
    parameter: ArrayLike,
    args: Any,
    parameter_range: tuple[float, float],
    *,
    step: float = 0.01,
    max_points: int = 400,
) -> Branch:
    """The branch of equilibria through a point near (x0, parameter), until the parameter leaves its range.

    Args:
        residual: f(x, parameter, args), zero at equilibria, of the shape of x; best a module-level function, so that another call
            does not compile again.
        x0: start near an equilibrium, an array or a pytree of arrays.
        parameter: value of the parameter there, inside the range.
        args: whatever the residual takes.
        parameter_range: (lowest, highest); the branch ends with its first point outside.
        step: first length of a step in the joint arclength of state and parameter; its sign says whether the parameter rises or
            falls at first. Steps adapt to at most 20 times that.
        max_points: points after which to stop.

    Returns:
        `Branch`.

    Raises:
        ValueError: a step of 0, a range that is empty or does not hold the parameter, a start from which Newton's method finds no
            equilibrium.

    Source: Keller 1977 (pseudo-arclength), Moore and Spence 1980 (folds).
    """
    low, high = parameter_range
    require_finite("parameter", parameter)
    require_finite("parameter_range", parameter_range)
    require("step", step, "be finite and not 0", lambda a: np.isfinite(a) & (a != 0))
    require_positive("max_points", max_points)
    if not low <= float(np.asarray(parameter)) <= high:
        raise ValueError(f"Argument `parameter` must lie in `parameter_range` = {parameter_range}, but is {parameter}.")
    dtype = jnp.result_type(float)
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), x0))
    unravel = jax.tree_util.Partial(unravel)
    z0 = jnp.append(flat, jnp.asarray(parameter, dtype))
    bounds = jnp.asarray([low, high], dtype)
    start, tangent, points, tangents, counts, status, closed, converged = _walk(
        residual, unravel, z0, args, jnp.asarray(step, dtype), bounds, max_points
    )
    if not bool(converged):
        raise ValueError(
            "Arguments `x0` and `parameter` must be near an equilibrium, but Newton's method finds none from there."
        )
    new = np.flatnonzero(np.diff(np.concatenate([[1], np.asarray(counts)])) > 0)[: max_points - 1]
    all_z = np.concatenate([np.asarray(start)[None], np.asarray(points)[new]])
    all_tangents = np.concatenate([np.asarray(tangent)[None], np.asarray(tangents)[new]])
    eigenvalues = np.linalg.eigvals(np.asarray(_jacobians(residual, unravel, jnp.asarray(all_z), args)))
    order = np.argsort(-eigenvalues.real, axis=1)
    eigenvalues = np.take_along_axis(eigenvalues, order, axis=1)
    scale = np.abs(eigenvalues).max(axis=1, keepdims=True)
    folds = _folds(residual, unravel, all_z, all_tangents, args)
    rebuild = jax.vmap(unravel)
    return Branch(
        points=jax.tree.map(np.asarray, rebuild(jnp.asarray(all_z[:, :-1]))),
        parameter=all_z[:, -1],
        eigenvalues=eigenvalues,
        num_unstable=(eigenvalues.real > 1e-12 * scale).sum(axis=1),
        fold_points=jax.tree.map(np.asarray, rebuild(jnp.asarray(folds[:, :-1]))),
        fold_parameters=folds[:, -1],
        status=int(Status.max_steps if len(all_z) >= max_points and not bool(closed) else np.asarray(status)),
        closed=bool(closed),
    )


def _folds(residual: Residual, unravel: Callable, points: np.ndarray, tangents: np.ndarray, args: Any) -> np.ndarray:
    """Every place where the parameter turns round, refined; shape (folds, d + 1)."""
    found = []
    for i in np.flatnonzero(tangents[:-1, -1] * tangents[1:, -1] < 0):
        # start from the one of the two points where the branch is steeper
        nearer = i if abs(tangents[i, -1]) < abs(tangents[i + 1, -1]) else i + 1
        null = tangents[nearer, :-1] / np.linalg.norm(tangents[nearer, :-1])
        guess = jnp.asarray(points[nearer])
        fold = _locate_fold(residual, unravel(guess[:-1]), guess[-1], args, unravel(jnp.asarray(null)))
        z = np.append(jax.flatten_util.ravel_pytree(fold.point)[0], fold.parameter)
        apart = np.linalg.norm(points[i + 1] - points[i])
        converged = np.isfinite(z).all() and float(fold.last_move) < 1e-6 * (1 + np.abs(z).max())
        # where it is no simple fold, the point itself
        found.append(z if converged and np.linalg.norm(z - points[nearer]) < 2 * apart else points[nearer])
    return np.stack(found) if found else np.zeros((0, points.shape[1]))


__all__ = ["Branch", "Fold", "continue_branch", "locate_fold"]
