"""How far second moments are from being diagonal together: the assumption of the scalar modes, measured.

Source: Littwin 2024, assumption 4.1(1) and fig. 3(f).
"""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from jepa_dyn.moments.joint_diagonalisation import resolved_eigenbasis


class DiagonalisabilityDefect(eqx.Module):
    """How far the moments are from being diagonal in one orthonormal basis; all zero where the theory is exact.

    With A = xx, C = yx, S = (C + C^T)/2, |.| the Frobenius norm, off(M) the matrix M without its diagonal, B the basis:

    - `off_diagonal_xx` = |off(B^T A B)| / |A|, in [0, 1].
    - `off_diagonal_yx` = |off(B^T C B)| / |C|, in [0, 1]; contains the antisymmetric part.
    - `asymmetry_yx` = |C - C^T| / (2 |C|), in [0, 1]; the same in every basis.
    - `commutator` = |A C - C A| / (sqrt(2) |A| |C|), in [0, 1]; the same in every basis.
    - `mean_square_off_diagonal`: mean square of the off-diagonal elements of U^T S U, U the eigenbasis of A, in units of
      lam^2: the measure of Littwin 2024, fig. 3(f), whichever basis was asked for.

    A matrix C = 0 is diagonal in every basis: its relative defects are 0. The norms are ruled by the strongest features;
    `FeatureSpectrum.leakage_xx` and `leakage_yx` tell it for each feature.
    """

    off_diagonal_xx: Float[Array, ""]
    off_diagonal_yx: Float[Array, ""]
    asymmetry_yx: Float[Array, ""]
    commutator: Float[Array, ""]
    mean_square_off_diagonal: Float[Array, ""]


def measure_defect(
    xx: Float[np.ndarray, "d d"], yx: Float[np.ndarray, "d d"], basis: Float[np.ndarray, "d d"], tolerance: float
) -> dict[str, float]:
    """The fields of `DiagonalisabilityDefect` by name, on the host; `tolerance` as in `resolved_eigenbasis`."""
    norm_x, norm_y = np.linalg.norm(xx), np.linalg.norm(yx)
    principal = resolved_eigenbasis(xx, (yx + yx.T) / 2, tolerance)
    d = len(xx)
    return {
        "off_diagonal_xx": _ratio(np.linalg.norm(_off(basis.T @ xx @ basis)), norm_x),
        "off_diagonal_yx": _ratio(np.linalg.norm(_off(basis.T @ yx @ basis)), norm_y),
        "asymmetry_yx": _ratio(np.linalg.norm(yx - yx.T) / 2, norm_y),
        "commutator": _ratio(np.linalg.norm(xx @ yx - yx @ xx) / np.sqrt(2), norm_x * norm_y),
        "mean_square_off_diagonal": float(
            (_off(principal.T @ ((yx + yx.T) / 2) @ principal) ** 2).sum() / max(1, d * (d - 1))
        ),
    }


def leakage(
    matrix: Float[np.ndarray, "d d"], columns: Float[np.ndarray, "d k"], values: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """|M b_i - m_i b_i| / |m_i| for each column b_i: 0 for an eigenvector, infinite where only m_i is 0, 0 where both are."""
    residual = np.linalg.norm(matrix @ columns - columns * values, axis=0)
    rounding = 8 * np.finfo(float).eps * np.linalg.norm(matrix)
    residual = np.where(residual <= rounding, 0.0, residual)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(residual == 0, 0.0, residual / np.abs(values))


def _off(matrix: np.ndarray) -> np.ndarray:
    return matrix - np.diag(np.diag(matrix))


def _ratio(value: float | np.floating, norm: float | np.floating) -> float:
    return float(value / norm) if norm > 0 else 0.0
