"""Orthonormal bases for two symmetric matrices at once: eigenbases with degeneracies resolved, and the joint optimum.

Source: the Jacobi angles of Cardoso and Souloumiac 1996, in the round-robin order that rotates d/2 disjoint pairs at a time.
"""

import itertools

import numpy as np
from jaxtyping import Float

_MAX_SWEEPS = 100
_LEAST_GAIN = 1e-3  # of a sweep; on photographs later sweeps gain some 1e-4 together and cost most of the time


def resolved_eigenbasis(
    first: Float[np.ndarray, "d d"], second: Float[np.ndarray, "d d"], tolerance: float
) -> Float[np.ndarray, "d d"]:
    """Orthonormal eigenvectors (columns) of the symmetric `first`; where its eigenvalues coincide, those of `second` inside.

    Eigenvalues within `tolerance` |first| of each other (Frobenius norm) count as equal: any basis of their common eigenspace
    serves `first`, so the one that diagonalises `second` there is taken.
    """
    values, vectors = np.linalg.eigh(first)
    for start, stop in itertools.pairwise(_group_edges(values, tolerance * float(np.linalg.norm(first)))):
        if stop - start > 1:
            block = vectors[:, start:stop]
            vectors[:, start:stop] = block @ np.linalg.eigh(block.T @ second @ block)[1]
    return vectors


def _group_edges(values: np.ndarray, width: float) -> list[int]:
    """Edges of groups of rising values, none wider than `width` (a chain of small gaps is not one group)."""
    edges = [0]
    while edges[-1] < len(values):
        edges.append(int(np.searchsorted(values, values[edges[-1]] + width, side="right")))
    return edges


def joint_basis(
    first: Float[np.ndarray, "d d"], second: Float[np.ndarray, "d d"], start: Float[np.ndarray, "d d"]
) -> Float[np.ndarray, "d d"]:
    """Orthonormal columns that minimise off(first)/|first|^2 + off(second)/|second|^2, off = sum of squared off-diagonals.

    Both matrices symmetric. Zero exactly where they commute; else a local minimum, reached by descent from the orthonormal
    `start`, stopped when a sweep gains less than 0.1 %. Cost: some 5 to 10 sweeps of O(d^3).
    """
    norms = [np.linalg.norm(m) for m in (first, second)]
    stack = np.stack([start.T @ m @ start / norm for m, norm in zip((first, second), norms, strict=True) if norm > 0])
    basis = start.copy()
    floor = (len(basis) * np.finfo(float).eps) ** 2
    before = _off_energy(stack)
    for _ in range(_MAX_SWEEPS):
        for p, q in _round_robin(len(basis)):
            _rotate(stack, basis, p, q)
        after = _off_energy(stack)
        if after <= floor or before - after <= _LEAST_GAIN * before:
            break
        before = after
    return basis


def _off_energy(stack: np.ndarray) -> float:
    diagonal = np.diagonal(stack, axis1=1, axis2=2)
    off = stack.copy()
    index = np.arange(stack.shape[1])
    off[:, index, index] -= diagonal
    return float((off**2).sum())


def _round_robin(d: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """All pairs p < q of range(d), in rounds of disjoint pairs, as in a tournament."""
    players = list(range(d)) + ([-1] if d % 2 else [])  # -1 sits the round out
    rounds = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        pairs = [
            (min(a, b), max(a, b))
            for a, b in zip(players[:half], players[: half - 1 : -1], strict=True)
            if min(a, b) >= 0
        ]
        if pairs:
            p, q = np.array(pairs).T
            rounds.append((p, q))
        players = [players[0], players[-1], *players[1:-1]]
    return rounds


def _rotate(stack: np.ndarray, basis: np.ndarray, p: np.ndarray, q: np.ndarray) -> None:
    """The best rotation in each plane (p_i, q_i), applied in place; the planes are disjoint, so they do not interact."""
    difference = stack[:, p, p] - stack[:, q, q]
    twice = 2 * stack[:, p, q]
    on = (difference**2 - twice**2).sum(axis=0)
    off = 2 * (difference * twice).sum(axis=0)
    angle = 0.5 * np.arctan2(off, on + np.hypot(on, off))
    c, s = np.cos(angle), np.sin(angle)
    upper, lower = stack[:, p, :], stack[:, q, :]
    stack[:, p, :], stack[:, q, :] = c[:, None] * upper + s[:, None] * lower, c[:, None] * lower - s[:, None] * upper
    for matrix in (stack, basis):
        left, right = matrix[..., p], matrix[..., q]
        matrix[..., p], matrix[..., q] = c * left + s * right, c * right - s * left
