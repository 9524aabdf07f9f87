"""Roots of large positive semidefinite matrices, and the largest eigenvalues of L^T S L: on the host, in float64.

For 10 eigenvalues of a kernel on 5,000 points (two cores): two full eigendecompositions 24 s; pivoted Cholesky and block iteration
(LOBPCG) 5 s, of which 4 for the former, with eigenvalues alike to rounding; LAPACK's subset of eigenvectors in its place 15 s.
The iteration finds repeated eigenvalues, as its block is wider than what is asked for; LAPACK takes over where it has not converged
"""

import warnings

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

_LARGE = 1500  # rank from which on iterating pays
_ITERATIONS, _WIDER, _RESIDUAL = 100, 8, 1e-12
_POWERS = 6  # of a random vector, for the size of the largest eigenvalue


def pivoted_root(matrix: np.ndarray, tolerance: float) -> tuple[np.ndarray, float, float]:
    """(L, left, missed) of K = L L^T + rest, by Cholesky factorisation with pivoting until no pivot is above `tolerance`.

    L (N, rank); `left` is the trace of the rest, a bound of its size where K is positive semidefinite; `missed` is the size of the
    rest on random vectors, which is not small where K is not.
    """
    (factorise,) = scipy.linalg.get_lapack_funcs(("pstrf",), (matrix,))
    factor, order, rank, _ = factorise(matrix, lower=1, tol=tolerance)
    root = np.empty((len(matrix), rank))
    root[order - 1] = np.tril(factor[:, :rank])
    left = max(float(np.trace(matrix) - np.sum(root**2)), 0.0)
    probes = np.random.default_rng(0).normal(size=(len(matrix), 3))
    rest = matrix @ probes - root @ (root.T @ probes)
    return root, left, float((np.linalg.norm(rest, axis=0) / np.linalg.norm(probes, axis=0)).max())


def largest_pairs(root: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(eigenvalues, L c) of the `count` largest eigenvalues of L^T S L / N, or of as many as L has columns; S swaps the halves."""
    rank = root.shape[1]
    found = _by_iteration(root, count) if rank > _LARGE and count <= rank // 50 else None
    values, vectors = _by_lapack(root, min(count, rank)) if found is None else found
    return values, root @ vectors


def _by_lapack(root: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    half, rank = len(root) // 2, root.shape[1]
    inner = root[:half].T @ root[half:]
    inner = (inner + inner.T) / len(root)
    part = None if count == rank else (rank - count, rank - 1)
    values, vectors = scipy.linalg.eigh(inner, overwrite_a=True, check_finite=False, subset_by_index=part)
    return values[::-1], vectors[:, ::-1]


def _by_iteration(root: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """None where the residuals are not at rounding after all iterations."""
    half, rank = len(root) // 2, root.shape[1]

    def apply(block: np.ndarray) -> np.ndarray:
        return root.T @ np.roll(root @ block, half, axis=0) / len(root)

    start = np.random.default_rng(0).normal(size=(rank, count + _WIDER))
    vector, size = start[:, :1], 1.0
    for _ in range(_POWERS):
        vector = apply(vector / np.linalg.norm(vector))
        size = float(np.linalg.norm(vector))
    with warnings.catch_warnings():  # of residuals, which are judged below
        warnings.simplefilter("ignore", UserWarning)
        values, vectors = scipy.sparse.linalg.lobpcg(
            apply, start, largest=True, tol=_RESIDUAL * size, maxiter=_ITERATIONS
        )
    order = np.argsort(-values)[:count]
    values, vectors = values[order], vectors[:, order]
    residual = np.linalg.norm(apply(vectors) - vectors * values, axis=0).max()
    return (values, vectors) if residual <= 10 * _RESIDUAL * size else None
