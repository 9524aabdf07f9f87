"""Spectrum of the cross-correlation of view pairs through a kernel: K_Gamma = K~^(1/2) S K~^(1/2) / (2n), without any inverse.

K~ (2n, 2n) is the kernel on the stacked points [X; X'] and S swaps x_i and x'_i. With any root K~ = L L^T, L^T S L / (2n) has the
nonzero eigenvalues gamma_j of Gamma = sum_i (phi(x_i) phi(x'_i)^T + phi(x'_i) phi(x_i)^T) / (2n), its unit eigenvectors c_j give

    values g_j(X~) = L c_j            of the eigenfunction g_j (unit norm in the kernel's space) on the 2n points
    coefficients   = S L c_j / (2n gamma_j)          g_j(x) = sum_i coefficients_i K(x~_i, x)

By Sylvester's law of inertia at most n of the gamma_j are positive and at most n negative; exactly n each where K~ is regular.

An error E of K~ moves gamma_j by at most |E| |L c_j|^2 / ((2n)^2 |gamma_j|), to first order: `uncertainties` is that for rounding
in the number type of K~. Ill-conditioned kernels are harmless; small correlations of strongly varying features are not.

Source: Simon 2023, section 5.1, appendix B.2. Corrections: the lower left of the first block of (37) is X' X'^T X X^T, as in (23);
for X = X' K_Gamma is K~ / (2n), not K~. With the pseudo-inverse of (23) four digits are left where this keeps all.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import is_traced, require, require_choice, require_finite, require_not_empty
from jepa_dyn.kernels._large_matrices import largest_pairs, pivoted_root
from jepa_dyn.parameters import Leaf

METHODS = ("auto", "eigh", "cholesky")
_SMALL = 500  # points up to which two full eigendecompositions cost nothing
_ROUNDINGS = 16  # relative error of a kernel and of its decomposition, in units of eps |K~|


class PairSpectrum(eqx.Module):
    """Eigenvalues and eigenfunctions of the cross-correlation of n view pairs, from `pair_spectrum` or `two_encoder_spectrum`.

    - `gammas` (k,): eigenvalues of K_Gamma, largest first: all, or as many as asked for; fewer where K~ has a smaller rank.
    - `values` (2n, k): eigenfunctions g_j of unit norm on the points [X; X'].
    - `uncertainties` (k,): how far the rounding of the kernel may move each eigenvalue.
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
        """Which eigenvalues cannot be told from the next smaller one: the eigenfunctions of such a group are any basis of it.

        One fewer than the eigenvalues.
        """
        gammas, errors = jnp.asarray(self.gammas), jnp.asarray(self.uncertainties)
        return ~(gammas[:-1] - gammas[1:] > errors[:-1] + errors[1:])

    @property
    def coefficients(self) -> Float[Array, "k points"]:
        """g_j(x) = coefficients_j . K(X~, x); infinite for gamma = 0, which no combination of kernels gives."""
        return swapped(jnp.asarray(self.values)).T / (2 * self.pairs * self.gammas)[:, None]


def pair_spectrum(gram: ArrayLike, count: int | None = None, *, method: str = "auto") -> PairSpectrum:
    """Spectrum of K_Gamma from the kernel on n pairs.

    Args:
        gram: K~ (2n, 2n), symmetric, positive semidefinite (singular is fine): `kernel(jnp.concatenate([x, x_prime]))`.
        count: how many of the largest eigenvalues; default all 2n.
        method: how the root of K~ is taken: "eigh", from its eigenvectors, on any device and under transformations; "cholesky", by
            pivoting Cholesky on the host in float64, which stops at the numerical rank, and then only the eigenvalues asked for;
            "auto", the former under transformations and up to 500 points, else the latter.

    Raises:
        TypeError: not real numbers.
        ValueError: not a square matrix of even size, not finite, zero, not symmetric or not positive semidefinite within rounding;
            a count outside 1 .. 2n; an unknown method.

    The dtype is that of `gram`. Signs of eigenfunctions, and bases of repeated eigenvalues, are arbitrary.
    Source: Simon 2023, (22), (23), proposition 5.1(a).
    """
    require_choice("method", method, METHODS)
    matrix = _gram("gram", gram)
    size = matrix.shape[0]
    if size % 2:
        raise ValueError(
            f"Argument `gram` must have an even size, points and their partners, but has shape {matrix.shape}."
        )
    count = _count(count, size)
    if _on_host(method, size, matrix):
        root, error = _root_by_cholesky("gram", matrix)
        gammas, values = (jnp.asarray(part, matrix.dtype) for part in largest_pairs(root, count))
        return PairSpectrum(gammas, values, _uncertainties(gammas, values, jnp.asarray(error, matrix.dtype)))
    spectrum, smallest, error = _by_eigenvectors(matrix, count)
    _refuse_indefinite("gram", smallest, error)
    return spectrum


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
            "Arguments `gram` and `gram_prime` must have one size, the number of pairs, "
            f"but have shapes {first.shape} and {second.shape}."
        )
    dtype, size = jnp.result_type(first, second), 2 * first.shape[0]
    count, names = _count(count, size), ("gram", "gram_prime")
    if _on_host(method, size, first, second):
        roots, errors = zip(*(map(_root_by_cholesky, names, (first, second))), strict=True)
        return _of_two([jnp.asarray(root, dtype) for root in roots], jnp.asarray(max(errors), dtype), count)
    spectrum, smallest, errors = _two_by_eigenvectors(first.astype(dtype), second.astype(dtype), count)
    for one in zip(names, smallest, errors, strict=True):
        _refuse_indefinite(*one)
    return spectrum


def _gram(name: str, gram: ArrayLike) -> Array:
    """A symmetric matrix of floating-point numbers."""
    shape = np.shape(gram)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"Argument `{name}` must be a square matrix, but has shape {shape}.")
    require_not_empty(name, gram)
    matrix = gram if isinstance(gram, jax.Array) else jnp.asarray(gram)
    if jnp.iscomplexobj(matrix):
        raise TypeError(f"Argument `{name}` must hold real numbers, but has dtype {matrix.dtype}.")
    require_finite(name, gram)
    dtype = jnp.result_type(float, matrix.dtype)
    if not is_traced(matrix):
        host = np.asarray(matrix)
        gap, largest = np.abs(host - host.T).max(), np.abs(host).max()
        if largest == 0:
            raise ValueError(f"Argument `{name}` must not be zero throughout: nothing varies, nothing can be learned.")
        if gap > 8 * shape[0] * float(jnp.finfo(dtype).eps) * largest:
            raise ValueError(f"Argument `{name}` must be symmetric, but differs from its transpose by {gap:.3g}.")
    return matrix.astype(dtype)


def _count(count: int | None, size: int) -> int:
    if count is None:
        return size
    require(
        "count", count, f"be a whole number from 1 to {size}", lambda a: (a >= 1) & (a <= size) & (a == np.round(a))
    )
    return int(count)


def _on_host(method: str, size: int, *matrices: Array) -> bool:
    return not is_traced(*matrices) and (method == "cholesky" or (method == "auto" and size > _SMALL))


def _refuse_indefinite(name: str, smallest: Any, error: Any) -> None:
    """`error`: how far rounding may have moved an eigenvalue."""
    if not is_traced(smallest) and float(smallest) < -float(error):
        raise ValueError(
            f"Argument `{name}` must be positive semidefinite (it is a kernel), "
            f"but has an eigenvalue of about {float(smallest):.2g}."
        )


def _root_by_eigenvectors(matrix: Array) -> tuple[Array, Array, Array]:
    """(L, smallest eigenvalue, |E|) with L L^T = K + E, L square."""
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    error = _ROUNDINGS * jnp.finfo(matrix.dtype).eps * jnp.linalg.norm(matrix)
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0)), values[0], error


def _root_by_cholesky(name: str, matrix: Array) -> tuple[np.ndarray, float]:
    """(L, |E|) with as many columns as the numerical rank, in float64.

    Raises:
        ValueError: K is not positive semidefinite within rounding.
    """
    host, rounding = np.asarray(matrix, np.float64), _ROUNDINGS * float(jnp.finfo(matrix.dtype).eps)
    host = (host + host.T) / 2
    error, tolerance = rounding * float(np.linalg.norm(host)), rounding * np.diag(host).max()
    _refuse_indefinite(name, np.diag(host).min(), error)
    root, left, missed = pivoted_root(host, tolerance)
    _refuse_indefinite(name, -missed, error + len(host) * tolerance)
    return root, error + left


@partial(jax.jit, static_argnums=1)
def _by_eigenvectors(matrix: Array, count: int) -> tuple[PairSpectrum, Array, Array]:
    """The spectrum, the smallest eigenvalue of K~ and how far it may be off."""
    root, smallest, error = _root_by_eigenvectors(matrix)
    half = len(root) // 2
    inner = jnp.matmul(root[:half].T, root[half:], precision="highest")
    gammas, vectors = jnp.linalg.eigh((inner + inner.T) / len(root))
    gammas, vectors = gammas[::-1][:count], vectors[:, ::-1][:, :count]
    values = jnp.matmul(root, vectors, precision="highest")
    return PairSpectrum(gammas, values, _uncertainties(gammas, values, error)), smallest, error


@partial(jax.jit, static_argnums=2)
def _two_by_eigenvectors(first: Array, second: Array, count: int) -> tuple[PairSpectrum, list[Array], list[Array]]:
    """The spectrum of two encoders, the smallest eigenvalues of their kernels and how far they may be off."""
    (root, least, error), (other, other_least, other_error) = map(_root_by_eigenvectors, (first, second))
    spectrum = _of_two([root, other], jnp.maximum(error, other_error), count)
    return spectrum, [least, other_least], [error, other_error]


@partial(jax.jit, static_argnums=2)
def _of_two(roots: list[Array], error: Array, count: int) -> PairSpectrum:
    """gammas +-s_j of A^T B / (2n) = U diag(s) V^T, values (A u, +-B v) / 2^(1/2)."""
    a, b = roots
    left, s, right = jnp.linalg.svd(jnp.matmul(a.T, b, precision="highest") / (2 * len(a)), full_matrices=False)
    first, second = jnp.matmul(a, left, precision="highest"), jnp.matmul(b, right.T, precision="highest")
    rising, falling = (jnp.concatenate([first, sign * second]) * 0.5**0.5 for sign in (1, -1))
    gammas = jnp.concatenate([s, -s[::-1]])[:count]
    values = jnp.concatenate([rising, falling[:, ::-1]], axis=1)[:, :count]
    return PairSpectrum(gammas, values, _uncertainties(gammas, values, error))


@jax.jit
def _uncertainties(gammas: Array, values: Array, error: Array) -> Array:
    """|E| |v|^2 / ((2n)^2 |gamma|), at most |E|^(1/2) |v| / (2n), where that ends to hold; at least |E| / (2n), for v = 0."""
    error = error / len(values)
    shift = jnp.sqrt(error) * jnp.sqrt(jnp.mean(values**2, axis=0))
    first_order = shift * (shift / jnp.where(gammas == 0, 1.0, jnp.abs(gammas)))
    return jnp.maximum(jnp.where(jnp.abs(gammas) > shift, first_order, shift), error)


def swapped(values: Array) -> Array:
    """S v: every point takes the value of its partner."""
    return jnp.roll(values, len(values) // 2, axis=0)
