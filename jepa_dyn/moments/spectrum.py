"""The features of view pairs: (lam, rho, direction) from general second moments, with what the diagonal picture leaves out.

Source: Littwin 2024, section 2 and assumption 4.1(1) (Sigma_xx and Sigma_yx simultaneously diagonalisable). Real moments do
not commute and Sigma_yx is not symmetric: the features here are a choice, and its defect is measured, never hidden.
"""

from typing import Literal, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require_choice
from jepa_dyn.moments.diagonalisability import DiagonalisabilityDefect, leakage, measure_defect
from jepa_dyn.moments.joint_diagonalisation import joint_basis, resolved_eigenbasis
from jepa_dyn.moments.view_moments import ViewMoments
from jepa_dyn.parameters import ModeParameters, mode_parameters

Basis = Literal["cross", "input", "joint"]
BASES: tuple[str, ...] = get_args(Basis)
_SHOWN = 8


class FeatureSpectrum(eqx.Module):
    """Features of view pairs, ordered by falling `lam`. Made by `feature_spectrum` and by the closed-form models.

    - `lam[i]` = b_i^T yx b_i, covariance of the feature between the views; `variance[i]` = b_i^T xx b_i > 0;
      `rho[i]` = lam[i] / variance[i].
    - `basis`: shape (d, k), orthonormal; column i is the direction b_i. Its component of largest modulus is positive.
    - `leakage_xx[i]` = |xx b_i - variance[i] b_i| / variance[i] and `leakage_yx[i]` = |yx b_i - lam[i] b_i| / |lam[i]|
      (infinite where only lam[i] is 0): what of the feature's drive comes from or goes to other directions. 0 for an
      exact feature; the scalar mode equations can be trusted where both are well below 1.
    - `defect`: the same for the moments as a whole, measured before any feature is left out.
    - `num_dropped`: directions left out because they have no variance within rounding (so lam = 0, rho undefined, never
      learned), or, in a closed form, because their lam is 0.
    - `num_truncated`: features left out by `num_features`.
    """

    lam: Float[Array, " k"]
    rho: Float[Array, " k"]
    variance: Float[Array, " k"]
    basis: Float[Array, "d k"]
    leakage_xx: Float[Array, " k"]
    leakage_yx: Float[Array, " k"]
    defect: DiagonalisabilityDefect
    basis_kind: str = eqx.field(static=True)
    num_dropped: int = eqx.field(static=True, default=0)
    num_truncated: int = eqx.field(static=True, default=0)

    @property
    def num_features(self) -> int:
        """Number k of features held."""
        return self.lam.shape[-1]

    def parameters(self, depth: ArrayLike = 1.0, *, weight_decay: ArrayLike = 0.0) -> ModeParameters:
        """Parameters of the scalar mode equations, one mode per feature; `depth` broadcasts against shape (k,).

        Raises:
            ValueError: as `mode_parameters`, e.g. a depth that is not > 0.
        """
        return mode_parameters(self.lam, variance=self.variance, depth=depth, weight_decay=weight_decay)

    def __str__(self) -> str:
        d, shown = self.defect, min(self.num_features, _SHOWN)
        lines = [
            f"{self.num_features} features (basis {self.basis_kind!r}, {self.num_dropped} dropped, {self.num_truncated} truncated)",
            f"defect: off-diagonal xx {float(d.off_diagonal_xx):.2g}, yx {float(d.off_diagonal_yx):.2g}; "
            f"asymmetry yx {float(d.asymmetry_yx):.2g}; commutator {float(d.commutator):.2g}",
            "   i        lam        rho   leak xx   leak yx",
        ]
        columns = [np.asarray(column) for column in (self.lam, self.rho, self.leakage_xx, self.leakage_yx)]
        lines += ["{:4d} {:10.4g} {:10.4g} {:9.2g} {:9.2g}".format(i, *(c[i] for c in columns)) for i in range(shown)]
        return "\n".join(lines + (["   ..."] if self.num_features > shown else []))


def feature_spectrum(
    moments: ViewMoments, num_features: int | None = None, *, basis: Basis | str = "cross"
) -> FeatureSpectrum:
    """Features of general moments in an orthonormal basis, with the measured defect of simultaneous diagonalisability.

    Args:
        moments: with d_y = d. Computed on the host in float64; the result has the dtype of the moments.
        num_features: how many to keep, those of largest `lam`; all that have variance where not given.
        basis: which orthonormal basis.
            "cross" (default): eigenvectors of S = (yx + yx^T)/2. From a small initialisation the encoder grows by yx alone
            (xx enters only as a mode saturates), so S sets the directions, their order and, to leading order, their times.
            "input": eigenvectors of xx (principal components), the basis of the paper's fig. 3(f).
            "joint": a minimum of the relative off-diagonal energies of xx and S together.
            All agree where the moments are simultaneously diagonal. Degenerate eigenspaces are resolved by the other matrix.
            (The generalised problem S b = rho xx b has no defect, but its basis is not orthonormal, and gradient flow is
            not covariant under changes to such a basis: it is not offered.)

    Directions whose variance is below 8 sqrt(d) eps times the largest are dropped and counted: there rho would be 0/0.
    A |lam| below 8 eps |yx| is rounding, its sign too, and is set to 0. (eps is that of the moments' dtype: with x64 off, weak
    features drown; turn it on.)

    Raises:
        TypeError: called under a JAX transformation (eigenbases of degenerate moments have no derivative).
        ValueError: views of different sizes, `num_features` not between 1 and the number of features with variance, an
            unknown `basis`, or no variance.

    Source: Littwin 2024, section 2 and assumption 4.1(1), here for moments that need not satisfy it.
    """
    require_choice("basis", basis, BASES)
    if is_traced(moments):
        raise TypeError("Argument `moments` must be concrete: call `feature_spectrum` outside of jit, vmap and grad.")
    if moments.yx.ndim != 2 or moments.yx.shape[0] != moments.yx.shape[1]:
        raise ValueError(f"Argument `moments` must have views of equal size, but `yx` has shape {moments.yx.shape}.")
    xx, yx = (np.asarray(m, np.float64) for m in (moments.xx, moments.yx))
    rounding = 8 * float(jnp.finfo(moments.xx.dtype).eps)
    columns = _columns(xx, (yx + yx.T) / 2, basis, rounding)
    variance = _quadratic_forms(xx, columns)
    lam = _quadratic_forms(yx, columns)
    lam = np.where(np.abs(lam) <= rounding * np.linalg.norm(yx), 0.0, lam)
    kept, num_available = _select(lam, variance, num_features, rounding)
    defect = measure_defect(xx, yx, columns, rounding)
    columns, variance, lam = _with_fixed_signs(columns[:, kept]), variance[kept], lam[kept]

    def leaf(value: float | np.ndarray) -> Array:
        return jnp.asarray(value, moments.xx.dtype)

    return FeatureSpectrum(
        lam=leaf(lam),
        rho=leaf(lam / variance),
        variance=leaf(variance),
        basis=leaf(columns),
        leakage_xx=leaf(leakage(xx, columns, variance)),
        leakage_yx=leaf(leakage(yx, columns, lam)),
        defect=DiagonalisabilityDefect(**{name: leaf(value) for name, value in defect.items()}),
        basis_kind=str(basis),
        num_dropped=len(xx) - num_available,
        num_truncated=num_available - len(kept),
    )


def _columns(xx: np.ndarray, symmetric: np.ndarray, basis: str, rounding: float) -> np.ndarray:
    if basis == "input":
        return resolved_eigenbasis(xx, symmetric, rounding)
    cross = resolved_eigenbasis(symmetric, xx, rounding)
    return cross if basis == "cross" else joint_basis(xx, symmetric, cross)


def _quadratic_forms(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """b_i^T M b_i for every column b_i."""
    return (columns * (matrix @ columns)).sum(axis=0)


def _select(lam: np.ndarray, variance: np.ndarray, num_features: int | None, rounding: float) -> tuple[np.ndarray, int]:
    """Indices of the features kept, by falling lam, equal ones by falling variance, and how many had variance."""
    order = np.lexsort((-variance, -lam))
    usable = order[variance[order] > rounding * np.sqrt(len(lam)) * max(variance.max(), 0.0)]
    if len(usable) == 0:
        raise ValueError("Argument `moments` must hold some variance, but `xx` has none: there is nothing to learn.")
    if num_features is None:
        return usable, len(usable)
    if not 1 <= num_features <= len(usable):
        raise ValueError(
            f"Argument `num_features` must lie between 1 and {len(usable)}, the number of directions with variance "
            f"(of {len(lam)}), but is {num_features}."
        )
    return usable[:num_features], len(usable)


def _with_fixed_signs(columns: np.ndarray) -> np.ndarray:
    """The same directions with the component of largest modulus positive, so that results do not depend on LAPACK's signs."""
    largest = columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])]
    return columns * np.where(largest < 0, -1.0, 1.0)
