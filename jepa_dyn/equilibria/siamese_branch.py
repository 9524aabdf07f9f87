"""Branches of siamese equilibria over a parameter, with the stability of the whole flow along them.

The branch is that of the reduced equation of the equilibrium's rank, which is regular where the flow's own Jacobian has the zero
eigenvalues of the O(n) orbit; the number of unstable directions is that of the flow, across the orbit (`stability`).

Source: Ponce 2025, (6), proposition 4.11, with our corrections.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, Int

from jepa_dyn._checks import require, require_choice
from jepa_dyn._precision import x64_context
from jepa_dyn.equilibria.continuation import Branch, continue_branch
from jepa_dyn.equilibria.reduced import chart_of, gram_of, numerical_rank, rank_residual, split_chart
from jepa_dyn.equilibria.siamese import equilibrium_state
from jepa_dyn.equilibria.stability import stability
from jepa_dyn.flows.siamese import SiameseArguments

PARAMETERS = ("weight_decay", "encoder_rate", "predictor_rate", "ema_rate")
Along = Callable[[SiameseArguments, Any], SiameseArguments]
_TURNED = 2.0  # tangent of the angle by which the span of S turns before it gets a new chart


class SiameseBranch(eqx.Module):
    """A branch of equilibria S = A^T A of one rank.

    - `s`: (points, m, m); `parameter`: (points,). `fold_s`, `fold_parameters`: where equilibria meet and vanish.
    - `num_unstable`: (points,) directions across the orbit in which the flow leaves; `largest`: (points,) largest eigenvalue
      across it, by real part.
    - `branch`: that of the reduced equation, its points S, with its status; its own eigenvalues are not the flow's.
    """

    s: Float[np.ndarray, "points m m"]
    parameter: Float[np.ndarray, " points"]
    num_unstable: Int[np.ndarray, " points"]
    largest: Complex[np.ndarray, " points"]
    fold_s: Float[np.ndarray, "folds m m"]
    fold_parameters: Float[np.ndarray, " folds"]
    branch: Branch

    def __str__(self) -> str:
        changes = np.flatnonzero(np.diff(self.num_unstable))
        text = ", ".join(
            f"{self.num_unstable[i]} -> {self.num_unstable[i + 1]} near {self.parameter[i]:.6g}" for i in changes
        )
        start = f"unstable directions of the flow: {self.num_unstable[0]} at the start"
        return f"Siamese{self.branch}\n  {start}; {text or 'no change'}"


def _named(name: str) -> Along:
    def along(args: SiameseArguments, value: Any) -> SiameseArguments:
        return eqx.tree_at(lambda one: getattr(one, name), args, jnp.asarray(value))

    return along


_ALONG = {name: _named(name) for name in PARAMETERS}  # kept, so that another call does not compile again


def _residual(vector: Array, parameter: Array, given: tuple) -> Array:
    along, args = given
    moved, rank = along(args, parameter), along.rank
    # with the sign of the flow: of one feature, the stable root has the negative derivative
    return -rank_residual(vector, moved.moments.xx, moved.moments.yx, moved.weight_decay, rank)


def siamese_branch(
    args: SiameseArguments,
    s: ArrayLike,
    parameter_range: tuple[float, float],
    *,
    along: str | Along = "weight_decay",
    start: float | None = None,
    outputs: int | None = None,
    target: bool = False,
    step: float = 0.01,
    max_points: int = 400,
) -> SiameseBranch:
    """The branch of an equilibrium over a parameter, through its folds, in float64.

    Args:
        args: of one system, weight decay > 0.
        s: (m, m), an equilibrium of `args`, from `siamese_equilibria`, not 0.
        parameter_range: the branch ends with its first point outside.
        along: a name of `PARAMETERS`, or a function (args, parameter) -> args, e.g. a direction in moment space.
        start: value of the parameter at which `s` is the equilibrium; needed with a function, else that of `args`.
        outputs: n; default m.
        target: whether the stability is that of the EMA flow.
        step, max_points: as in `continue_branch`.

    Raises:
        ValueError: an unknown name, a function without `start`, S of rank 0, and as `continue_branch`.
    """
    if callable(along):
        if start is None:
            raise ValueError("Argument `start` must be given where `along` is a function.")
        move = along
    else:
        require_choice("along", along, PARAMETERS)
        move = _ALONG[along]
        start = float(np.asarray(getattr(args, along))) if start is None else start
    s = np.asarray(s, np.float64)
    rank = numerical_rank(np.linalg.eigvalsh(s))
    require("s", rank, "be of rank 1 at least", lambda a: a >= 1)
    with x64_context(True):
        branch = _in_charts(move, args, s, rank, start, parameter_range, step, max_points)
        spectra = []
        for gram, value in zip(branch.points, branch.parameter, strict=True):
            here = move(args, value)
            spectra.append(stability(equilibrium_state(gram, outputs or len(s), here, target=target), here))
    return SiameseBranch(
        s=branch.points,
        parameter=branch.parameter,
        num_unstable=np.array([one.num_unstable for one in spectra]),
        largest=np.array([one.transverse[0] for one in spectra]),
        fold_s=branch.fold_points,
        fold_parameters=branch.fold_parameters,
        branch=branch,
    )


def _in_charts(
    move: Along,
    args: SiameseArguments,
    s: np.ndarray,
    rank: int,
    start: float,
    bounds: tuple[float, float],
    step: float,
    most: int,
) -> Branch:
    """The branch, its points as S, piece by piece: a new chart wherever the span of S has turned far from the axes of the last."""
    pieces, num_points = [], 0
    while True:
        piece, whole = _in_one_chart(move, args, s, rank, start, bounds, step, most - num_points)
        pieces.append(piece)
        num_points += piece.num_points
        if whole or piece.num_points < 3 or num_points >= most:
            break
        # the next piece begins where this one was cut, and goes on in the same direction
        s, start = piece.points[-1], float(piece.parameter[-1])
        step = float(np.copysign(step, piece.parameter[-1] - piece.parameter[-2]))
        if not min(bounds) <= start <= max(bounds):
            break

    def joined(name: str) -> np.ndarray:
        parts = [np.asarray(getattr(piece, name)) for piece in pieces]
        twice = 0 if name.startswith("fold") else 1
        return np.concatenate([parts[0], *(part[twice:] for part in parts[1:])])

    names = ("points", "parameter", "eigenvalues", "num_unstable", "fold_points", "fold_parameters")
    return Branch(*map(joined, names), status=pieces[-1].status, closed=len(pieces) == 1 and pieces[0].closed)


def _in_one_chart(
    move: Along,
    args: SiameseArguments,
    s: np.ndarray,
    rank: int,
    start: float,
    bounds: tuple[float, float],
    step: float,
    most: int,
) -> tuple[Branch, bool]:
    """(the branch up to where its span has turned by `_TURNED`, whether that is all of it)."""
    m = len(s)
    # the chart of a deficient rank in the frame of the start: regular until the span of V has turned by 90 degrees
    turn = np.eye(m) if rank == m else np.linalg.eigh(s)[1][:, ::-1].T
    turned = _Turned(move, rank, jnp.asarray(turn))
    first = turned(args, start)
    xx, yx, decay = (np.asarray(a, np.float64) for a in (first.moments.xx, first.moments.yx, first.weight_decay))
    x0 = chart_of(turn @ s @ turn.T, xx, yx, float(decay), rank)
    branch = continue_branch(_residual, x0, start, (turned, args), bounds, step=step, max_points=most)

    def far(points: np.ndarray) -> np.ndarray:
        if rank == m:
            return np.zeros(len(points), bool)
        return np.array([np.abs(split_chart(jnp.asarray(x), m, rank)[0]).max() > _TURNED for x in points], bool)

    def grams(points: np.ndarray) -> np.ndarray:
        return np.array([turn.T @ np.asarray(gram_of(jnp.asarray(x), m, rank)) @ turn for x in points]).reshape(
            -1, m, m
        )

    beyond = far(branch.points)
    end = int(np.argmax(beyond)) + 1 if beyond.any() else branch.num_points
    here = ~far(branch.fold_points)
    piece = Branch(
        points=grams(branch.points[:end]),
        parameter=branch.parameter[:end],
        eigenvalues=branch.eigenvalues[:end],
        num_unstable=branch.num_unstable[:end],
        fold_points=grams(branch.fold_points[here]),
        fold_parameters=branch.fold_parameters[here],
        status=branch.status,
        closed=branch.closed,
    )
    return piece, not beyond.any()


class _Turned(eqx.Module):
    """`along`, in turned coordinates of the inputs."""

    along: Along = eqx.field(static=True)
    rank: int = eqx.field(static=True)
    turn: Array

    def __call__(self, args: SiameseArguments, value: Any) -> SiameseArguments:
        moved = self.along(args, value)
        return eqx.tree_at(
            lambda one: (one.moments.xx, one.moments.yx),
            moved,
            tuple(self.turn @ matrix @ self.turn.T for matrix in (moved.moments.xx, moved.moments.yx)),
        )


__all__ = ["PARAMETERS", "SiameseBranch", "siamese_branch"]
