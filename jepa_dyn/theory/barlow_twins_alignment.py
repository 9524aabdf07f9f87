"""From any small start to an aligned one: what a linear Barlow Twins model learns, when, how well that is predicted (Simon 2023).

In the eigenbasis of Gamma, W(0) Gamma^(<=m)T = Q R with R upper triangular. For small W(0) the encoder follows the aligned motion

    W*(t) = Q diag(s(t)) Gamma^(<=k),   s_j(0) = R_jj,   k = min(d, m)

up to an error of order alpha^p, p = `alignment_exponent`: mode j only grows in the directions that no earlier mode fills.

Source: Simon 2023, definitions 4.4, 4.5, Result 4.6, (19), (21), appendix C. Corrections:
- (19) prints u_k^T u_k, a number, for the projector; with the outer products of the raw u_k it is wrong too from the third mode on.
  Right is Gram-Schmidt: s_j(0) = |u_j - sum_{k<j} q_k q_k^T u_j| = R_jj, q_k orthonormal.
- Definition 4.4 has the factorisation unique where M is of full rank; it takes more, that the leading square block of M is regular:
  [[0, 1, 0], [0, 0, 1]] has full rank and many. Result 4.6 asks for just that, "W~_0 Gamma^(<=d)T full rank" (the T is missing).
- Appendix C starts W* at A(alpha W~_0), which is right for diagonal Gamma only; Result 4.6 has it right.
- (21) is the root mean square, and sigma the standard deviation of W(0).
Here d may exceed m, and Gamma may have eigenvalues <= 0: those modes never leave their start.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import (
    is_traced,
    require_count,
    require_finite,
    require_not_empty,
    require_positive,
    require_representable,
)
from jepa_dyn.parameters import Leaf
from jepa_dyn.theory.barlow_twins import (
    aligned_loss,
    critical_time,
    mode_state,
    prepare,
    require_times,
)


class CrossCorrelationSpectrum(eqx.Module):
    """Eigenvalues `gammas` (m,) of Gamma, largest first, and its eigenvectors as the ROWS of `features` (m, m)."""

    gammas: Float[Leaf, " m"]
    features: Float[Leaf, "m m"]


def cross_correlation_spectrum(gamma: ArrayLike) -> CrossCorrelationSpectrum:
    """Eigenvalues and Gamma^(<=m) of a symmetric Gamma (m, m).

    Raises:
        ValueError: not a square matrix, not finite, not symmetric within rounding.

    The signs of the rows, and the rows within an eigenspace of dimension > 1, are arbitrary.
    Source: Simon 2023, below (6).
    """
    shape = np.shape(gamma)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"Argument `gamma` must be a square matrix, but has shape {shape}.")
    require_not_empty("gamma", gamma)
    require_finite("gamma", gamma)
    matrix = jnp.asarray(gamma, jnp.result_type(float, jnp.asarray(gamma).dtype))
    require_representable("gamma", gamma, matrix.dtype)
    if not is_traced(matrix):
        gap, largest = float(jnp.abs(matrix - matrix.T).max()), float(jnp.abs(matrix).max())
        if gap > 8 * shape[0] * float(jnp.finfo(matrix.dtype).eps) * largest:
            raise ValueError(f"Argument `gamma` must be symmetric, but gamma - gamma^T reaches {gap:.3g}.")
    return _spectrum(matrix)


@jax.jit
def _spectrum(matrix: Array) -> CrossCorrelationSpectrum:
    values, columns = jnp.linalg.eigh((matrix + matrix.T) / 2)
    return CrossCorrelationSpectrum(values[::-1], columns.T[::-1])


def _matrix(name: str, value: ArrayLike) -> Array:
    if np.ndim(value) != 2:
        raise ValueError(f"Argument `{name}` must be a matrix, but has shape {np.shape(value)}.")
    require_not_empty(name, value)
    require_finite(name, value)
    matrix = jnp.asarray(value, jnp.result_type(float, jnp.asarray(value).dtype))
    require_representable(name, value, matrix.dtype)
    return matrix


@jax.jit
def _qr(matrix: Array) -> tuple[Array, Array]:
    """Q (a, k), R (k, b) with a nonnegative diagonal; LAPACK leaves its sign open."""
    scale = jnp.max(jnp.abs(matrix))
    scale = jnp.where(scale > 0, scale, 1.0)  # squares of numbers of 1e-30 would underflow in float32
    q, r = jnp.linalg.qr(matrix / scale)
    signs = jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0).astype(matrix.dtype)
    return q * signs, jnp.triu(signs[:, None] * r) * scale


def unique_qr(matrix: ArrayLike) -> tuple[Float[Array, "a k"], Float[Array, "k b"]]:
    """M = Q R with orthonormal columns of Q (a, k), R (k, b) upper triangular, R_jj > 0, k = min(a, b).

    Raises:
        ValueError: not a matrix, not finite, or its first k columns dependent within rounding: then Q is not determined. Under a
            transformation nothing is raised, and Q is one of many.

    Source: Simon 2023, definition 4.4, with the condition corrected (see above); for a > b, only the k columns of Q that matter.
    """
    matrix = _matrix("matrix", matrix)
    q, r = _qr(matrix)
    _require_independent("matrix", r, matrix, "columns")
    return q, r


def _require_independent(name: str, r: Array, matrix: Array, what: str) -> None:
    if is_traced(r, matrix):
        return
    k = r.shape[0]
    columns = np.asarray(matrix[:, :k], np.float64)
    scale = np.abs(columns).max() or 1.0  # squares must stay in range
    lengths = np.linalg.norm(columns / scale, axis=0)
    shares = np.abs(np.diagonal(np.asarray(r, np.float64))) / scale / np.where(lengths > 0, lengths, 1.0)
    worst = int(np.argmin(shares))
    if shares[worst] <= 8 * max(matrix.shape) * float(jnp.finfo(matrix.dtype).eps):
        raise ValueError(
            f"Argument `{name}` must have its first {k} {what} linearly independent (else no factorisation is unique), "
            f"but number {worst} (from 0) depends on those before it: its own share is {shares[worst]:.3g}."
        )


def alignment_transformation(matrix: ArrayLike) -> Float[Array, "a b"]:
    """A(M) = Q diag(R): the upper triangle of R set to zero.

    Raises:
        ValueError: as `unique_qr`.

    Source: Simon 2023, definition 4.5.
    """
    q, r = unique_qr(matrix)
    k = r.shape[0]
    return jnp.zeros_like(q, shape=(q.shape[0], r.shape[1])).at[:, :k].set(q * jnp.diagonal(r))


class SmallStart(eqx.Module):
    """W(0) in the eigenbasis of Gamma: W(0) = `left` `amplitudes` `features`; build it with `small_start`.

    - `left` = Q (d, k), orthonormal columns, k = min(d, m): which embedding direction learns feature j.
    - `amplitudes` = R (k, m), upper triangular, R_jj > 0: A(0) of (43).
    - `gammas` (m,), `features` (m, m): the spectrum of Gamma.
    """

    left: Float[Leaf, "d k"]
    amplitudes: Float[Leaf, "k m"]
    gammas: Float[Leaf, " m"]
    features: Float[Leaf, "m m"]

    @property
    def singular_values(self) -> Array:
        """Effective initial singular values s_j(0) = R_jj, (k,)."""
        return jnp.diagonal(jnp.asarray(self.amplitudes))

    @property
    def aligned(self) -> "AlignedMotion":
        """The aligned motion that Result 4.6 lets W(t) follow."""
        k = self.left.shape[1]
        return AlignedMotion(self.left, self.singular_values, self.gammas[:k], self.features[:k])


def small_start(encoder: ArrayLike, gamma: ArrayLike) -> SmallStart:
    """The triangular form (43) of a start W(0) = `encoder`, from which Result 4.6 and the off-diagonal dynamics follow.

    Args:
        encoder: W(0) (d, m), of any size; it should be small, see `alignment_exponent`.
        gamma: Gamma (m, m), symmetric.

    Raises:
        ValueError: shapes that do not fit; not finite; a number that the number type rounds to 0; repeated eigenvalues > 0 among
            the first k + 1, where the eigenbasis, and with it Q and R, is not determined (pick a basis and use `aligned_start`);
            a start without a component along one of the top k features. Repeated eigenvalues <= 0 do no harm.

    Source: Simon 2023, (43), Result 4.6.
    """
    matrix, spectrum = _matrix("encoder", encoder), cross_correlation_spectrum(gamma)
    m = spectrum.gammas.shape[0]
    if matrix.shape[1] != m:
        raise ValueError(
            f"Argument `encoder` must have {m} columns, the size of `gamma`, but has shape {matrix.shape}."
        )
    dtype = jnp.result_type(matrix, spectrum.gammas)
    k = min(matrix.shape[0], m)
    _require_distinct(np.asarray(spectrum.gammas, np.float64) if not is_traced(spectrum) else None, k, dtype)
    turned = matrix.astype(dtype) @ spectrum.features.T
    q, r = _qr(turned)
    _require_independent("encoder", r, turned, "components along the features")
    return SmallStart(q, r, spectrum.gammas, spectrum.features)


def _require_distinct(gammas: np.ndarray | None, k: int, dtype: np.dtype) -> None:
    if gammas is None:
        return
    smallest = 8 * gammas.size * float(jnp.finfo(dtype).eps) * np.abs(gammas).max()
    for j in range(min(k, gammas.size - 1)):
        if gammas[j] > smallest and gammas[j] - gammas[j + 1] <= smallest:
            raise ValueError(
                "Argument `gamma` must have distinct eigenvalues where they are learned (else its eigenbasis is not determined), "
                f"but eigenvalues {j} and {j + 1} (from 0) are {gammas[j]:.6g} and {gammas[j + 1]:.6g}."
            )


def effective_singular_values(encoder: ArrayLike, gamma: ArrayLike) -> Float[Array, " k"]:
    """s_j(0) = R_jj, the length of W(0) v_j outside the span of W(0) v_1 .. W(0) v_{j-1}; k = min(d, m) of them.

    Args, raises: as `small_start`. Source: Simon 2023, (19), corrected.
    """
    return small_start(encoder, gamma).singular_values


def alignment_exponent(gammas: ArrayLike, dimension: int) -> Float[Array, ""]:
    """p of sup_t |W(t) - W*(t)|_F ~ alpha^p for W(0) = alpha W~_0: 1 - max gamma_k / gamma_j over j <= d, k > j with gamma_j > 0.

    k runs to m, beyond d. The largest error is the one at the end: it does not decay in t. p = 1 where no such ratio is positive;
    p = 0, no convergence, for repeated eigenvalues. Small gaps make the approach slow: gammas .5, .45 give alpha^0.1.

    Args:
        gammas: all eigenvalues of Gamma, in any order; those beyond d count too.
        dimension: d, size of the embedding.

    Raises:
        ValueError: not a list, not finite, dimension < 1.

    Source: Simon 2023, (48), Result 4.6, which gives no rate.
    """
    if np.ndim(gammas) != 1:
        raise ValueError(f"Argument `gammas` must be a list, but has shape {np.shape(gammas)}.")
    require_count("dimension", dimension)
    return _alignment_exponent(*prepare({}, gammas=gammas), int(dimension))


@partial(jax.jit, static_argnums=1)
def _alignment_exponent(gammas: Array, dimension: int) -> Array:
    values = jnp.sort(gammas)[::-1]
    above, below = values[:-1][:dimension], values[1:][:dimension]
    ratios = jnp.where(above > 0, below / jnp.where(above > 0, above, 1.0), 0.0)
    return 1 - jnp.max(ratios, initial=0.0)


class AlignedMotion(eqx.Module):
    """The exact solution from an aligned start: W(t) = `left` diag(s(t)) `features`, proposition 4.1.

    - `left` (d, k) orthonormal columns, `start` = s(0) (k,), `gammas` (k,), `features` (k, m) orthonormal eigenvectors as rows.

    Times may be numbers or arrays of any shape; values get the shape of the times and then their own. Build it with
    `aligned_start` (any eigenvectors, any d) or `small_start(...).aligned`.
    """

    left: Float[Leaf, "d k"]
    start: Float[Leaf, " k"]
    gammas: Float[Leaf, " k"]
    features: Float[Leaf, "k m"]

    def singular_values(self, t: ArrayLike) -> Float[Array, "... k"]:
        """s_j(t). Source: Simon 2023, (10)."""
        require_times(t)
        start = jnp.asarray(self.start)
        return _singular_values(jnp.asarray(t, start.dtype), start, jnp.asarray(self.gammas))

    def eigenvalues(self, t: ArrayLike) -> Float[Array, "... k"]:
        """Eigenvalues gamma_j s_j^2 of C that are not 0 for lack of features. Source: Simon 2023, below (14)."""
        return self.gammas * self.singular_values(t) ** 2

    def encoder(self, t: ArrayLike) -> Float[Array, "... d m"]:
        """W(t). Source: Simon 2023, (9)."""
        return _rotated(jnp.asarray(self.left), self.singular_values(t), jnp.asarray(self.features))

    def loss(self, t: ArrayLike) -> Float[Array, "..."]:
        """|C - I|^2, with 1 for every embedding dimension that has no feature. Source: Simon 2023, (14)."""
        return aligned_loss(t, self.start, self.gammas, self.left.shape[0])

    def critical_times(self, fraction: ArrayLike = 0.5) -> Float[Array, " k"]:
        """When each eigenvalue of C reaches `fraction`; infinite for gamma <= 0. Source: Simon 2023, (16), exact."""
        return critical_time(self.start, self.gammas, fraction)


@jax.jit
def _singular_values(t: Array, start: Array, gammas: Array) -> Array:
    return mode_state(t[..., None], start, gammas)


@jax.jit
def _rotated(left: Array, s: Array, features: Array) -> Array:
    return jnp.einsum("dk,...k,km->...dm", left, s, features)


def aligned_start(
    gamma: ArrayLike,
    s0: ArrayLike,
    *,
    left: ArrayLike | None = None,
    modes: tuple[int, ...] | None = None,
) -> AlignedMotion:
    """Proposition 4.1: the motion from W(0) = U diag(s0) times chosen eigenvectors of Gamma.

    Args:
        gamma: Gamma (m, m), symmetric; repeated eigenvalues are allowed, any eigenbasis then gives a solution.
        s0: k singular values, > 0.
        left: orthonormal columns (d, k); default the unit matrix, d = k.
        modes: which eigenvectors, counted from 0 at the largest eigenvalue, each at most once; default the top k.

    Raises:
        ValueError: shapes that do not fit, s0 <= 0, columns of `left` that are not orthonormal, modes out of range or repeated.

    Source: Simon 2023, (7)-(9), footnote 7.
    """
    spectrum = cross_correlation_spectrum(gamma)
    if np.ndim(s0) != 1:
        raise ValueError(f"Argument `s0` must be a list, but has shape {np.shape(s0)}.")
    require_not_empty("s0", s0)
    require_positive("s0", s0, "a mode at 0 stays there")
    k, m = np.shape(s0)[0], spectrum.gammas.shape[0]
    chosen = tuple(range(k)) if modes is None else tuple(int(j) for j in modes)
    if len(chosen) != k or len(set(chosen)) != k or not all(0 <= j < m for j in chosen):
        raise ValueError(f"Argument `modes` must name {k} different eigenvectors from 0 to {m - 1}, but is {chosen}.")
    dtype = spectrum.gammas.dtype
    require_representable("s0", s0, dtype)
    columns = jnp.eye(k, dtype=dtype) if left is None else _matrix("left", left).astype(dtype)
    if columns.shape[1] != k:
        raise ValueError(f"Argument `left` must have {k} columns, one per mode, but has shape {columns.shape}.")
    if not is_traced(columns):
        worst = float(jnp.abs(columns.T @ columns - jnp.eye(k, dtype=dtype)).max())
        if worst > 64 * columns.shape[0] * float(jnp.finfo(dtype).eps):
            raise ValueError(
                f"Argument `left` must have orthonormal columns, but left^T left differs from 1 by {worst:.3g}."
            )
    index = jnp.asarray(chosen)
    return AlignedMotion(columns, jnp.asarray(s0, dtype), spectrum.gammas[index], spectrum.features[index])


def _degrees(sigma: ArrayLike, dimension: int, features: int | None) -> tuple[Array, Array]:
    """(sigma, d - j + 1 for j = 1 .. min(d, m))."""
    for name, value in (("dimension", dimension), ("features", dimension if features is None else features)):
        require_count(name, value)
    (sigma,) = prepare({"sigma": sigma})
    count = int(dimension) if features is None else min(int(dimension), int(features))
    return sigma[..., None], int(dimension) - jnp.arange(count, dtype=sigma.dtype)


def rms_singular_values(sigma: ArrayLike, dimension: int, features: int | None = None) -> Float[Array, "... k"]:
    """Root mean square of s_j(0) over W(0) with independent normal entries: sigma (d - j + 1)^(1/2), j = 1 .. min(d, m).

    Args:
        sigma: standard deviation of the entries of W(0), > 0.
        dimension: d, size of the embedding.
        features: m, default at least d.

    Raises:
        ValueError: sigma not > 0, sizes < 1.

    Source: Simon 2023, (21), which prints "approximately": as a root mean square it is exact.
    """
    sigma, degrees = _degrees(sigma, dimension, features)
    return sigma * jnp.sqrt(degrees)


def mean_singular_values(sigma: ArrayLike, dimension: int, features: int | None = None) -> Float[Array, "... k"]:
    """Mean of the same: sigma 2^(1/2) Gamma((c + 1) / 2) / Gamma(c / 2) with c = d - j + 1, the mean of a chi distribution.

    Args, raises: as `rms_singular_values`. For the last mode 20 % below the root mean square.
    """
    sigma, degrees = _degrees(sigma, dimension, features)
    log_ratio = jax.lax.lgamma((degrees + 1) / 2) - jax.lax.lgamma(degrees / 2)
    return sigma * jnp.sqrt(jnp.asarray(2.0, degrees.dtype)) * jnp.exp(log_ratio)
