"""Second moments of view pairs in the eigenbasis of their symmetrised cross-correlation: few numbers a row, never m x m.

With Phi = [x; y] the 2n views of n pairs as rows, and J = [[0, I], [I, 0]] the exchange of the views,

    Gamma = (E[y x^T] + E[x y^T]) / 2 = Phi^T J Phi / (2n),      S = (E[x x^T] + E[y y^T]) / 2 = Phi^T Phi / (2n)

act within the span of the views only, of dimension r <= min(m, 2n). There Gamma = V diag(gammas) V^T, V (m, r) orthonormal. An
encoder that trains on (Gamma, S) keeps its part outside the span and moves W V, whose product with Gamma costs d r, not d m^2.

Source: Simon 2023, (4), for Gamma; Phi, J as in its (22), (23).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_finite
from jepa_dyn.moments.pairs import as_rows, moments_from_pairs, require_in_range
from jepa_dyn.moments.view_moments import ViewMoments, require_equal_views
from jepa_dyn.parameters import Leaf


class EigenbasisMoments(eqx.Module):
    """Gamma and S in the span of the views; build it with `eigenbasis` or `eigenbasis_from_pairs`.

    - `gammas` (r,): eigenvalues of Gamma in the span, largest first, of any sign.
    - `covariance` (r, r): V^T S V.
    - `columns` (m, r): V, orthonormal eigenvectors; None where encoders are given in the basis, as W V (see `in_basis`).
    """

    gammas: Float[Leaf, "*lanes r"]
    covariance: Float[Leaf, "*lanes r r"]
    columns: Float[Leaf, "*lanes m r"] | None

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (1, 2) if self.columns is None else (1, 2, 2)

    @property
    def gamma(self) -> Float[Array, "*lanes m m"]:
        """Gamma as a matrix: (m, m), or (r, r) where encoders are given in the basis."""
        if self.columns is None:
            return self.gammas[..., None] * jnp.eye(self.gammas.shape[-1], dtype=self.gammas.dtype)
        return (self.columns * self.gammas[..., None, :]) @ jnp.swapaxes(self.columns, -1, -2)

    @property
    def in_basis(self) -> "EigenbasisMoments":
        """The same moments as seen by encoders that are given as W V."""
        return EigenbasisMoments(self.gammas, self.covariance, None)

    def correlated(self, encoder: Float[Array, "d m"]) -> Float[Array, "d m"]:
        """W Gamma, at the cost of d m r, or of d r in the basis."""
        if self.columns is None:
            return encoder * self.gammas
        return ((encoder @ self.columns) * self.gammas) @ self.columns.T

    def spread(self, encoder: Float[Array, "d m"]) -> Float[Array, "d d"]:
        """W S W^T."""
        held = encoder if self.columns is None else encoder @ self.columns
        return held @ self.covariance @ held.T


def eigenbasis(moments: ViewMoments) -> EigenbasisMoments:
    """Moments in the eigenbasis of their Gamma, r = m. Costs one symmetric eigenvalue problem of size m.

    Args:
        moments: of views of equal size m; its leaves may have leading lane axes.

    Raises:
        ValueError: views of different sizes.
    """
    require_equal_views(moments)
    return _eigenbasis(moments)


@jax.jit
def _eigenbasis(moments: ViewMoments) -> EigenbasisMoments:
    gamma = (moments.yx + jnp.swapaxes(moments.yx, -1, -2)) / 2
    values, columns = jnp.linalg.eigh(gamma)
    columns = columns[..., ::-1]
    covariance = jnp.swapaxes(columns, -1, -2) @ ((moments.xx + moments.yy) / 2) @ columns
    return EigenbasisMoments(values[..., ::-1], (covariance + jnp.swapaxes(covariance, -1, -2)) / 2, columns)


def eigenbasis_from_pairs(x: ArrayLike, y: ArrayLike) -> EigenbasisMoments:
    """Raw moments, not centred, of the pairs (x[i], y[i]) in the eigenbasis of their Gamma, r = min(m, 2n).

    With 2n < m no m x m matrix is formed: memory is O(m n), the eigenvalue problem has size 2n. Sums run on the host in float64.

    Args:
        x, y: (n, m), row i of both is one pair, n >= 2.

    Raises:
        TypeError, ValueError: not two real, finite matrices of one shape; fewer than two pairs; moments out of the range of the
            number type.
    """
    x, y = as_rows("x", x), as_rows("y", y)
    if x.shape != y.shape:
        raise ValueError(
            f"Arguments `x` and `y` must have one shape (one encoder sees both), but have {x.shape} and {y.shape}."
        )
    count, size = x.shape
    if count < 2 or 2 * count >= size:
        return eigenbasis(moments_from_pairs(x, y, center=False))
    for name, rows in (("x", x), ("y", y)):
        require_finite(name, rows)
    # Phi^T = Q R with Q (m, 2n): in the basis Q the moments are R J R^T / (2n) and R R^T / (2n)
    q, r = np.linalg.qr(np.concatenate([x, y]).astype(np.float64).T)
    cross = r[:, :count] @ r[:, count:].T
    values, turn = np.linalg.eigh((cross + cross.T) / (2 * count))
    turn = turn[:, ::-1]
    held = turn.T @ r
    covariance = held @ held.T / (2 * count)
    require_in_range(covariance)
    return EigenbasisMoments(*(jnp.asarray(one, float) for one in (values[::-1], covariance, q @ turn)))
