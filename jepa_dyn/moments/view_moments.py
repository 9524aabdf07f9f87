"""Second moments of view pairs: all that a linear encoder ever sees of its data.

Source: Littwin 2024, section 2 (Sigma_xx = E[x x^T], Sigma_yx = E[y x^T]).
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import (
    is_traced,
    require_finite,
    require_nonnegative,
    require_not_empty,
)
from jepa_dyn.parameters import mode_parameters


class ViewMoments(eqx.Module):
    """Second moments of a pair of views (x, y). Build it with `view_moments`, which validates.

    - `xx` = E[x x^T], shape (d, d), symmetric, positive semidefinite.
    - `yx` = E[y x^T], shape (d_y, d); rows belong to y. Not symmetric in general, even where d_y = d.
    - `yy` = E[y y^T], shape (d_y, d_y), symmetric, positive semidefinite.

    Units: (data units)^2. All leaves are float arrays of one dtype, so that a batch of moments may be mapped with `jax.vmap`.

    Source: Littwin 2024, section 2; `yy` is not needed by its flows, but by losses and by Barlow Twins.
    """

    xx: Float[Array, "d d"]
    yx: Float[Array, "d_y d"]
    yy: Float[Array, "d_y d_y"]

    @property
    def joint(self) -> Array:
        """The moments of the stacked vector (x, y): [[xx, yx^T], [yx, yy]], shape (d + d_y, d + d_y)."""
        return jnp.block([[self.xx, self.yx.T], [self.yx, self.yy]])

    @property
    def difference(self) -> Array:
        """E[(x - y)(x - y)^T] = xx + yy - yx - yx^T of views of equal size: what the augmentation does, (d, d)."""
        return self.xx + self.yy - self.yx - self.yx.T

    def swapped(self) -> "ViewMoments":
        """The moments of (y, x): the views exchange their roles."""
        return ViewMoments(xx=self.yy, yx=self.yx.T, yy=self.xx)

    def symmetrised(self) -> "ViewMoments":
        """The moments of a data set that holds every pair in both orders: xx = yy, and `yx` becomes symmetric.

        Raises:
            ValueError: the views have different numbers of components.
        """
        if self.yx.shape[0] != self.yx.shape[1]:
            raise ValueError(
                f"Views must have equally many components to be exchanged, but `yx` has shape {self.yx.shape}."
            )
        mean, cross = (self.xx + self.yy) / 2, (self.yx + self.yx.T) / 2
        return ViewMoments(xx=mean, yx=cross, yy=mean)


def view_moments(xx: ArrayLike, yx: ArrayLike, yy: ArrayLike | None = None) -> ViewMoments:
    """Validated `ViewMoments`.

    Args:
        xx: E[x x^T], shape (d, d).
        yx: E[y x^T], shape (d_y, d).
        yy: E[y y^T], shape (d_y, d_y); where it is not given, the views are taken to be equally distributed, yy = xx.

    The dtype is that of the inputs (float64 only where x64 is on). "Within rounding" below means 8 n eps of that dtype,
    relative to the largest variance, n = d + d_y. Tracers are not checked except for their shapes.

    Raises:
        TypeError: an argument is not real and numeric.
        ValueError: empty, not finite, shapes that disagree, `xx` or `yy` not symmetric or not positive semidefinite within
            rounding, all variances zero (constant data), or a joint matrix [[xx, yx^T], [yx, yy]] that is not positive
            semidefinite, which no data can have.
    """
    if yy is None and np.ndim(yx) == 2 and np.shape(yx)[0] != np.shape(yx)[1]:
        raise ValueError(
            f"Argument `yy` must be given where the views have different numbers of components (`yx` has shape {np.shape(yx)})."
        )
    named: dict[str, Any] = {"xx": xx, "yx": yx, "yy": xx if yy is None else yy}
    for name, value in named.items():
        _require_real_matrix(name, value)
    d_y, d = np.shape(yx)
    for name, size in (("xx", d), ("yy", d_y)):
        if np.shape(named[name]) != (size, size):
            raise ValueError(
                f"Argument `{name}` must have shape {(size, size)}, because `yx` has shape {(d_y, d)}, "
                f"but has shape {np.shape(named[name])}."
            )
    dtype = jnp.result_type(float) if not _float_dtypes(named) else jnp.result_type(*_float_dtypes(named))
    if not is_traced(xx, yx, yy):
        named = _checked_on_host(named, float(jnp.finfo(dtype).eps))
    return ViewMoments(**{name: jnp.asarray(value, dtype) for name, value in named.items()})


def require_equal_views(moments: ViewMoments) -> None:
    """Views that one encoder can see: of equal size.

    Raises:
        ValueError: they differ.
    """
    if moments.yx.shape[-1] != moments.yx.shape[-2]:
        raise ValueError(
            f"Argument `moments` must have views of equal size (one encoder sees both), but `yx` has shape {moments.yx.shape}."
        )


def moments_from_spectrum(
    lam: ArrayLike,
    rho: ArrayLike | None = None,
    *,
    variance: ArrayLike | None = None,
    basis: ArrayLike | None = None,
) -> ViewMoments:
    """Moments whose features are given: xx = B diag(variance) B^T, yx = B diag(lam) B^T, exactly simultaneously diagonal.

    yy = B diag(v) B^T with v = variance * max(1, rho^2): equally distributed views (yy = xx) where |rho| <= 1; where
    |rho| > 1, no views of equal variance exist, and v is the smallest possible variance, lam^2 / variance, which belongs
    to a y that is a function of x without noise.

    Args:
        lam: covariances of the d features between the views, shape (d,) or a scalar (d = 1); any sign.
        rho: regression coefficients lam / variance; nonzero, with the sign of `lam`. Give exactly one of `rho`, `variance`.
        variance: variances of the features in x, >= 0, and > 0 where lam is not 0.
        basis: orthogonal (d, d), the features are its COLUMNS; the coordinate axes where it is not given.

    Raises:
        ValueError: values out of range, shapes that disagree, a `basis` that is not orthogonal, zero variance throughout.
    """
    parameters = mode_parameters(lam, rho, variance=variance).broadcast()
    if len(parameters.shape) > 1:
        raise ValueError(f"Argument `lam` must be a list of features, shape (d,), but the shape is {parameters.shape}.")
    lam_array, var = jnp.atleast_1d(parameters.lam), jnp.atleast_1d(parameters.variance)
    if not is_traced(lam_array, var) and bool(jnp.any((var == 0) & (lam_array != 0))):
        index = int(jnp.argmax((var == 0) & (lam_array != 0)))
        raise ValueError(f"Argument `variance` must be > 0 where `lam` is not 0, but is 0 at index {index}.")
    safe = jnp.where(var > 0, var, 1)
    var_y = jnp.where(jnp.abs(lam_array) > var, lam_array * (lam_array / safe), var)
    columns = _orthogonal_basis(basis, lam_array)
    xx, yx, yy = ((columns * values) @ columns.T for values in (var, lam_array, var_y))
    return view_moments((xx + xx.T) / 2, (yx + yx.T) / 2, (yy + yy.T) / 2)


def _orthogonal_basis(basis: ArrayLike | None, lam: Array) -> Array:
    d = lam.shape[0]
    if basis is None:
        return jnp.eye(d, dtype=lam.dtype)
    if np.shape(basis) != (d, d):
        raise ValueError(
            f"Argument `basis` must have shape {(d, d)}, one column per feature, but has shape {np.shape(basis)}."
        )
    require_finite("basis", basis)
    columns = jnp.asarray(basis, lam.dtype)
    if not is_traced(columns):
        worst = float(jnp.max(jnp.abs(columns.T @ columns - jnp.eye(d, dtype=lam.dtype))))
        if worst > 64 * d * float(jnp.finfo(lam.dtype).eps):
            raise ValueError(f"Argument `basis` must be orthogonal, but basis^T basis differs from 1 by {worst:.3g}.")
    return columns


def _require_real_matrix(name: str, value: Any) -> None:
    if np.ndim(value) != 2:
        raise ValueError(f"Argument `{name}` must be a matrix, but has shape {np.shape(value)}.")
    require_not_empty(name, value)
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    if jnp.issubdtype(dtype, np.complexfloating):
        raise TypeError(f"Argument `{name}` must be real, but has dtype {dtype}.")
    require_finite(name, value)


def _float_dtypes(named: dict[str, Any]) -> list[Any]:
    dtypes = (jnp.asarray(value).dtype for value in named.values())
    return [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]


def _checked_on_host(named: dict[str, Any], eps: float) -> dict[str, np.ndarray]:
    """The three matrices in float64, `xx` and `yy` exactly symmetric, after all checks of values."""
    host = {name: np.asarray(value, np.float64) for name, value in named.items()}
    tolerance = 8 * sum(host["yx"].shape) * eps
    for name in ("xx", "yy"):
        host[name] = _checked_covariance(name, host[name], tolerance)
    xx, yx, yy = host["xx"], host["yx"], host["yy"]
    # each view in its own units, so that one view's rounding is not judged by the other's size
    scale_x, scale_y = (1 / np.sqrt(np.diag(m).max()) for m in (xx, yy))
    joint = np.block(
        [[xx * scale_x**2, yx.T * (scale_x * scale_y)], [yx * (scale_x * scale_y), yy * scale_y**2]],
    )
    if not _is_psd(joint, tolerance):
        raise ValueError(
            "Arguments `xx`, `yx`, `yy` must form a positive semidefinite joint matrix [[xx, yx^T], [yx, yy]] (else some "
            "component of x and some component of y would correlate by more than 1), but its smallest eigenvalue is "
            f"{np.linalg.eigvalsh(joint)[0]:.3g} with the largest variance of either view scaled to 1."
        )
    return host


def _checked_covariance(name: str, matrix: np.ndarray, tolerance: float) -> np.ndarray:
    largest = np.abs(matrix).max()
    gap = np.abs(matrix - matrix.T)
    if gap.max() > tolerance * largest:
        i, j = (int(k) for k in np.unravel_index(gap.argmax(), gap.shape))
        raise ValueError(
            f"Argument `{name}` must be symmetric, but {name}[{i}, {j}] = {matrix[i, j]:.6g} "
            f"and {name}[{j}, {i}] = {matrix[j, i]:.6g}."
        )
    variances = np.diag(matrix)
    if (variances < -tolerance * largest).any():
        require_nonnegative(f"diag({name})", variances, "variances")
    if variances.max() <= 0:
        raise ValueError(
            f"Argument `{name}` must hold some variance, but every variance is 0: the data is constant, there is nothing to learn."
        )
    symmetric = (matrix + matrix.T) / 2
    if not _is_psd(symmetric / variances.max(), tolerance):
        raise ValueError(
            f"Argument `{name}` must be positive semidefinite (it is a covariance), but its smallest eigenvalue is "
            f"{np.linalg.eigvalsh(symmetric)[0]:.3g}."
        )
    return symmetric


def _is_psd(matrix: np.ndarray, tolerance: float) -> bool:
    """Smallest eigenvalue > -tolerance, by a Cholesky factorisation: some 20 times cheaper than the eigenvalues."""
    try:
        np.linalg.cholesky(matrix + tolerance * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True
