"""Stability of siamese equilibria: the spectrum of the flow, with and without the directions along the O(n) orbit.

(A, B, C) -> (Q A, Q B Q^T, Q C) carries equilibria into equilibria, so the Jacobian has an eigenvalue 0 for each dimension of the
orbit, n(n-1)/2 - (n-r)(n-r-1)/2 at rank r. An equilibrium can only be stable as an orbit: where every eigenvalue across it has a
negative real part.

Source: Ponce 2025, definition 4.8, propositions 4.10, 4.11. Proposition 4.10 (every full-rank equilibrium is asymptotically
stable) does not hold for m > 1: `num_unstable` of generic data takes the values 0, 1, 2, 3 at m = 2.
"""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex

from jepa_dyn.flows.siamese import SiameseArguments, SiameseState, siamese


class Stability(eqx.Module):
    """Spectrum at an equilibrium of the stop-gradient flow (a state without target) or of the EMA flow (with one).

    - `eigenvalues`: all, by falling real part; `transverse`: those across the orbit.
    - `num_unstable`: eigenvalues with a real part > 0, of `transverse`, up to rounding. `orbit_dimension`: measured.
    - `stable`: whether all of `transverse` have a negative real part: the orbit attracts.
    - `speed`: largest |dy/dt|: 0 up to rounding if it is an equilibrium at all.
    """

    eigenvalues: Complex[np.ndarray, " p"]
    transverse: Complex[np.ndarray, " q"]
    num_unstable: int = eqx.field(static=True)
    orbit_dimension: int = eqx.field(static=True)
    stable: bool = eqx.field(static=True)
    speed: float = eqx.field(static=True)

    def __str__(self) -> str:
        kind = (
            "stable orbit"
            if self.stable
            else f"{self.num_unstable} unstable direction{'' if self.num_unstable == 1 else 's'}"
        )
        largest = np.max(np.real(self.transverse))
        return f"Stability: {kind}, orbit of dimension {self.orbit_dimension}, largest real part {largest:.6g}"


def orbit_dimension(outputs: int, rank: int) -> int:
    """Dimension of the O(n) orbit of an encoder of rank r <= n: n(n-1)/2 - (n-r)(n-r-1)/2."""
    rest = outputs - rank
    return outputs * (outputs - 1) // 2 - rest * (rest - 1) // 2


def _along_orbit(y: SiameseState) -> np.ndarray:
    """The directions (K A, K B - B K, K C) for a basis of the skew matrices K, as columns."""
    n = np.shape(y.encoder)[0]
    moves = []
    for i in range(n):
        for j in range(i):
            skew = np.zeros((n, n))
            skew[i, j], skew[j, i] = 1.0, -1.0
            move = SiameseState(
                skew @ np.asarray(y.encoder),
                skew @ np.asarray(y.predictor) - np.asarray(y.predictor) @ skew,
                None if y.target is None else skew @ np.asarray(y.target),
            )
            moves.append(np.asarray(jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, move))[0]))
    return np.stack(moves, axis=1) if moves else np.zeros((jax.flatten_util.ravel_pytree(y)[0].size, 0))


@eqx.filter_jit
def _speed_and_jacobian(y: SiameseState, args: SiameseArguments) -> tuple:
    flat, unravel = jax.flatten_util.ravel_pytree(y)

    def field(z: jax.Array) -> jax.Array:
        return jax.flatten_util.ravel_pytree(siamese(0.0, unravel(z), args))[0]

    return field(flat), jax.jacfwd(field)(flat)


def stability(y: SiameseState, args: SiameseArguments) -> Stability:
    """Spectrum of the siamese flow at an equilibrium of one system; the rates of `args` count."""
    y = jax.tree.map(jnp.asarray, y)
    speed, jacobian = (np.asarray(leaf) for leaf in _speed_and_jacobian(y, args))
    tangents, sizes, _ = np.linalg.svd(_along_orbit(y))
    dimension = int((sizes > 1e-8 * max(sizes.max(initial=0.0), 1e-300)).sum())
    across = tangents[:, dimension:]
    eigenvalues, transverse = (np.linalg.eigvals(matrix) for matrix in (jacobian, across.T @ jacobian @ across))
    eigenvalues, transverse = (
        values[np.argsort(-np.real(values))].astype(complex) for values in (eigenvalues, transverse)
    )
    rounding = 1e-9 * np.abs(eigenvalues).max()
    return Stability(
        eigenvalues=eigenvalues,
        transverse=transverse,
        num_unstable=int((np.real(transverse) > rounding).sum()),
        orbit_dimension=dimension,
        stable=bool((np.real(transverse) < -rounding).all()),
        speed=float(np.abs(speed).max()),
    )


__all__ = ["Stability", "orbit_dimension", "stability"]
