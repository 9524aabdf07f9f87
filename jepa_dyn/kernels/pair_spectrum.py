"""Spectrum of the cross-correlation of view pairs through a kernel: K_Gamma = K~^(1/2) S K~^(1/2) / (2n), without any inverse.

K~ (2n, 2n) is the kernel on the stacked points [X; X'] and S swaps x_i and x'_i. With any root K~ = L L^T, L^T S L / (2n) has the
nonzero eigenvalues gamma_j of Gamma = sum_i (phi(x_i) phi(x'_i)^T + phi(x'_i) phi(x_i)^T) / (2n), and from its unit eigenvectors c_j

    values g_j(X~) = L c_j            of the eigenfunction g_j (unit norm in the kernel's space) on the 2n points
    coefficients   = S L c_j / (2n gamma_j)          g_j(x) = sum_i coefficients_i K(x~_i, x)

By Sylvester's law of inertia at most n of the gamma_j are positive and at most n negative; exactly n each where K~ is regular.

An error E of K~ moves gamma_j by at most |E| |L c_j|^2 / ((2n)^2 |gamma_j|), to first order: `uncertainties` is that for the rounding
of the number type. Ill-conditioned kernels are harmless; small eigenvalues of strongly varying features are not.

Source: Simon 2023, section 5.1, appendix B.2. Corrections: the lower left of the first block of (37) is X' X'^T X X^T, as in (23);
for X = X' K_Gamma is K~ / (2n), not K~. With the pseudo-inverse of (23) four digits are left where this keeps all.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require, require_choice, require_finite, require_not_empty
from jepa_dyn.parameters import Leaf

METHODS = ("auto", "eigh", "cholesky")
_SMALL = 500  # points up to which two full eigendecompositions cost nothing
_ROUNDINGS = 16  # relative error of a kernel and of its decomposition, in units of eps |K~|


class PairSpectrum(eqx.Module):
    """Eigenvalues and eigenfunctions of the cross-correlation of n view pairs. Build it with `pair_spectrum`, `two_encoder_spectrum`.

    - `gammas` (k,): eigenvalues of Gamma, largest first: all 2n of K_Gamma (zeros for what Gamma lacks), or the largest k asked for.
    - `values` (2n, k): eigenfunctions g_j of unit norm on the points [X; X'].
    - `uncertainties` (k,): how far the rounding of the kernel moves each eigenvalue, to first order; infinite for gamma = 0.
    """

    gammas: Float[Leaf, " k"]
    values: Float[Leaf, "points k"]
    uncertainties: Float[Leaf, " k"]

    @property
    def pairs(self) -> int:
        """n."""
        return self.values.shape[0] // 2

    @property
    def learnable(self) -> Array:
        """Which eigenvalues are positive beyond rounding: at most n, and no embedding learns more dimensions."""
        return jnp.asarray(self.gammas) > self.uncertainties

    @property
    def repeated(self) -> Array:
        """Which eigenvalues cannot be told from the next smaller one: the eigenfunctions of such a group are any basis of it. (k-1,)"""
        gammas, errors = jnp.asarray(self.gammas), jnp.asarray(self.uncertainties)
        return ~(gammas[:-1] - gammas[1:] > errors[:-1] + errors[1:])

    @property
    def coefficients(self) -> Float[Array, "k points"]:
        """g_j(x) = coefficients_j . K(X~, x); infinite for gamma = 0, which no combination of kernels gives."""
        return _swapped(jnp.asarray(self.values)).T / (2 * self.pairs * self.gammas)[:, None]


def pair_spectrum(gram: ArrayLike, count: int | None = None, *, method: str = "auto") -> PairSpectrum:
    """Spectrum of K_Gamma from the kernel on n pairs.

    Args:
        gram: K~ (2n, 2n), symmetric, positive semidefinite (singular is fine): `kernel(jnp.concatenate([x, x_prime]))`.
        count: how many of the largest eigenvalues; default all 2n.
        method: how the root of K~ is taken: "eigh", from its eigenvectors, on any device and under transformations; "cholesky", by
            pivoting Cholesky on the host in float64, which stops at the numerical rank and leaves a small problem where the kernel
            is smooth; "auto", the former under transformations and up to 500 points, else the latter.

    Raises:
        TypeError: not real numbers.
        ValueError: not a square matrix of even size, not finite, not symmetric or not positive semidefinite within rounding, a count
            outside 1 .. 2n, an unknown method.

    The dtype is that of `gram`. Signs of eigenfunctions, and bases of repeated eigenvalues, are arbitrary.
    Source: Simon 2023, (22), (23), proposition 5.1(a).
    """
    require_choice("method", method, METHODS)
    matrix = _gram("gram", gram)
    size = matrix.shape[0]
    if size % 2:
        raise ValueError(f"Argument `gram` must have an even size, points and their partners, but has shape {matrix.shape}.")
    count = _count(count, size)
    if _on_host(method, size, matrix):
        root, error = _root_by_cholesky("gram", matrix)
        gammas, values = (jnp.asarray(part, matrix.dtype) for part in _largest_on_host(root, count))
    else:
        root, error = _root_by_eigenvectors("gram", matrix)
        gammas, values = _largest(root, count)
    return PairSpectrum(gammas, values, _uncertainties(gammas, values, error))


def two_encoder_spectrum(
    gram: ArrayLike, gram_prime: ArrayLike, count: int | None = None, *, method: str = "auto"
) -> PairSpectrum:
    """Spectrum of K_Gamma of two encoders without common parameters, one per view (CLIP): K_XX' = 0.

    The eigenvalues are +- the singular values of A^T B / (2n) with A A^T = K_XX, B B^T = K_X'X': n positive, n negative.

    Args:
        gram: K_XX (n, n), the first encoder's kernel on the first views; gram_prime: K_X'X' (n, n), the second's on the second.
        count: how many of the largest eigenvalues, at most n; default all 2n.
        method: as in `pair_spectrum`.

    Raises:
        TypeError, ValueError: as `pair_spectrum`; matrices of different sizes.

    Source: Simon 2023, section 5.2.
    """
    require_choice("method", method, METHODS)
    first, second = _gram("gram", gram), _gram("gram_prime", gram_prime)
    if first.shape != second.shape:
        raise ValueError(
            f"Arguments `gram` and `gram_prime` must have one size, that of the pairs, but have shapes {first.shape}, {second.shape}."
        )
    dtype, size = jnp.result_type(first, second), 2 * len(first)
    count = _count(count, size)
    take_root = _root_by_cholesky if _on_host(method, size, first, second) else _root_by_eigenvectors
    (root, error), (root_prime, error_prime) = take_root("gram", first), take_root("gram_prime", second)
    gammas, values = _largest_of_two(jnp.asarray(root, dtype), jnp.asarray(root_prime, dtype), count)
    return PairSpectrum(gammas, values, _uncertainties(gammas, values, jnp.maximum(error, error_prime)))


def _gram(name: str, gram: ArrayLike) -> Array:
    """A symmetric matrix of floating-point numbers; without what rounding left unsymmetric."""
    shape = np.shape(gram)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"Argument `{name}` must be a square matrix, but has shape {shape}.")
    require_not_empty(name, gram)
    matrix = jnp.asarray(gram)
    if jnp.iscomplexobj(matrix):
        raise TypeError(f"Argument `{name}` must hold real numbers, but has dtype {matrix.dtype}.")
    require_finite(name, gram)
    matrix = matrix.astype(jnp.result_type(float, matrix.dtype))
    if not is_traced(matrix):
        gap, largest = float(jnp.abs(matrix - matrix.T).max()), float(jnp.abs(matrix).max())
        if largest == 0:
            raise ValueError(f"Argument `{name}` must not be zero throughout: nothing varies, nothing can be learned.")
        if gap > 8 * shape[0] * float(jnp.finfo(matrix.dtype).eps) * largest:
            raise ValueError(f"Argument `{name}` must be symmetric, but differs from its transpose by {gap:.3g}.")
    return (matrix + matrix.T) / 2


def _count(count: int | None, size: int) -> int:
    if count is None:
        return size
    require("count", count, f"be a whole number from 1 to {size}", lambda a: (a >= 1) & (a <= size) & (a == np.round(a)))
    return int(count)


def _on_host(method: str, size: int, *matrices: Array) -> bool:
    return not is_traced(*matrices) and (method == "cholesky" or (method == "auto" and size > _SMALL))


def _rounding(matrix: Array) -> Array:
    """|E|: what rounding may have done to a kernel, in its own number type."""
    return _ROUNDINGS * jnp.finfo(matrix.dtype).eps * jnp.linalg.norm(matrix)


def _refuse_indefinite(name: str, smallest: float, allowed: float) -> None:
    if smallest < -allowed:
        raise ValueError(
            f"Argument `{name}` must be positive semidefinite (it is a kernel), but has an eigenvalue below {smallest:.3g}."
        )


def _root_by_eigenvectors(name: str, matrix: Array) -> tuple[Array, Array]:
    """(L, |E|) with L L^T = K + E, L square."""
    smallest, root = _eigenvectors(matrix)
    error = _rounding(matrix)
    if not is_traced(smallest):
        _refuse_indefinite(name, float(smallest), float(error))
    return root, error


@jax.jit
def _eigenvectors(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values[0], vectors * jnp.sqrt(jnp.maximum(values, 0.0))


def _root_by_cholesky(name: str, matrix: Array) -> tuple[np.ndarray, Array]:
    """The same with as many columns as the numerical rank, by Cholesky factorisation with pivoting."""
    host, error = np.asarray(matrix, np.float64), _rounding(matrix)
    largest = np.diag(host).max()
    _refuse_indefinite(name, np.diag(host).min(), float(error))
    tolerance = _ROUNDINGS * float(jnp.finfo(matrix.dtype).eps) * largest
    factor, order, rank, _ = scipy.linalg.lapack.dpstrf(host, lower=1, tol=tolerance)
    root = np.empty((len(host), rank))
    root[order - 1] = np.tril(factor[:, :rank])
    # what is left over is as small as its diagonal says only if it is positive semidefinite: tried on a few vectors
    left = np.trace(host) - np.sum(root**2)
    probes = np.random.default_rng(0).normal(size=(len(host), 3))
    missed = np.linalg.norm(host @ probes - root @ (root.T @ probes), axis=0) / np.linalg.norm(probes, axis=0)
    allowed = float(error) + len(host) * tolerance
    _refuse_indefinite(name, -missed.max(), allowed)
    return root, error + max(left, 0.0)


@partial(jax.jit, static_argnums=1)
def _largest(root: Array, count: int) -> tuple[Array, Array]:
    """(gammas, values) of the largest eigenvalues of L^T S L / (2n)."""
    gammas, vectors = jnp.linalg.eigh(_inner(root))
    return gammas[::-1][:count], jnp.matmul(root, vectors[:, ::-1][:, :count], precision="highest")


def _largest_on_host(root: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`_largest` in float64, without the eigenvectors that were not asked for; at most as many as L has columns."""
    rank = root.shape[1]
    half = len(root) // 2
    inner = root[:half].T @ root[half:]
    inner = (inner + inner.T) / len(root)
    first = max(rank - count, 0)
    gammas, vectors = scipy.linalg.eigh(inner, subset_by_index=(first, rank - 1), overwrite_a=True, check_finite=False)
    return gammas[::-1], root @ vectors[:, ::-1]


def _inner(root: Array) -> Array:
    """L^T S L / (2n) = (L_1^T L_2 + L_2^T L_1) / (2n), with the halves of L for x and x'."""
    half = len(root) // 2
    inner = jnp.matmul(root[:half].T, root[half:], precision="highest")
    return (inner + inner.T) / len(root)


@partial(jax.jit, static_argnums=2)
def _largest_of_two(root: Array, root_prime: Array, count: int) -> tuple[Array, Array]:
    """(gammas, values) of two encoders: +-s_j of A^T B / (2n) = U diag(s) V^T, values (A u, +-B v) / 2^(1/2)."""
    left, s, right = jnp.linalg.svd(
        jnp.matmul(root.T, root_prime, precision="highest") / (2 * len(root)), full_matrices=False
    )
    parts = [jnp.matmul(root, left, precision="highest"), jnp.matmul(root_prime, right.T, precision="highest")]
    rising = jnp.concatenate([parts[0], parts[1]]) * 0.5**0.5
    falling = jnp.concatenate([parts[0], -parts[1]]) * 0.5**0.5
    gammas = jnp.concatenate([s, -s[::-1]])
    return gammas[:count], jnp.concatenate([rising, falling[:, ::-1]], axis=1)[:, :count]


@jax.jit
def _uncertainties(gammas: Array, values: Array, error: Array) -> Array:
    """|E| |L c_j|^2 / ((2n)^2 |gamma_j|), infinite for gamma = 0."""
    zero = gammas == 0
    shift = error * jnp.sum(values**2, axis=0) / (len(values) ** 2 * jnp.where(zero, 1.0, jnp.abs(gammas)))
    return jnp.where(zero, jnp.inf, shift).astype(gammas.dtype)


def _swapped(values: Array) -> Array:
    """S v: every point takes the value of its partner."""
    return jnp.roll(values, len(values) // 2, axis=0)
