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
from jepa_dyn.equilibria.reduced import chart_of, gram_of, rank_residual
from jepa_dyn.equilibria.siamese import equilibrium_state
from jepa_dyn.equilibria.stability import stability
from jepa_dyn.flows.siamese import SiameseArguments

PARAMETERS = ("weight_decay", "encoder_rate", "predictor_rate", "ema_rate")
Along = Callable[[SiameseArguments, Any], SiameseArguments]


class SiameseBranch(eqx.Module):
    """A branch of equilibria S = A^T A of one rank.

    - `s`: (points, m, m); `parameter`: (points,). `fold_s`, `fold_parameters`: where equilibria meet and vanish.
    - `num_unstable`: (points,) directions across the orbit in which the flow leaves; `largest`: (points,) largest eigenvalue
      across it, by real part.
    - `branch`: that of the reduced equation, with its status; its own eigenvalues are not the flow's.
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
    m = len(s)
    values = np.linalg.eigvalsh(s)
    rank = int((values > 1e-10 * max(values[-1], 0.0)).sum()) if values[-1] > 0 else 0
    require("s", rank, "be of rank 1 at least", lambda a: a >= 1)
    with x64_context(True):
        # the chart of a deficient rank in the frame of the start: regular until the span of V has turned by 90 degrees
        turn = np.eye(m) if rank == m else np.linalg.eigh(s)[1][:, ::-1].T
        turned = _Turned(move, rank, jnp.asarray(turn))
        first = turned(args, start)
        xx, yx, decay = (np.asarray(a, np.float64) for a in (first.moments.xx, first.moments.yx, first.weight_decay))
        x0 = chart_of(turn @ s @ turn.T, xx, yx, float(decay), rank)
        branch = continue_branch(
            _residual, x0, start, (turned, args), parameter_range, step=step, max_points=max_points
        )
        grams, folds = (
            np.array([turn.T @ np.asarray(gram_of(jnp.asarray(x), m, rank)) @ turn for x in points]).reshape(-1, m, m)
            for points in (branch.points, branch.fold_points)
        )
        spectra = []
        for gram, value in zip(grams, branch.parameter, strict=True):
            here = move(args, value)
            spectra.append(stability(equilibrium_state(gram, outputs or m, here, target=target), here))
    return SiameseBranch(
        s=grams,
        parameter=branch.parameter,
        num_unstable=np.array([one.num_unstable for one in spectra]),
        largest=np.array([one.transverse[0] for one in spectra]),
        fold_s=folds,
        fold_parameters=branch.fold_parameters,
        branch=branch,
    )


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
