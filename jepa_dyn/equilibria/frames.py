"""The equation of deficient rank in a frame of its own for every complex path: regular wherever the path goes.

The chart of `reduced`, L = [1; K] and beta, has bad places that complex paths pass close to: columns whose span needs another
chart, and spans on which P = L^T L is singular, where beta grows without bound. Here L = U_0 + U_1 k with a unitary frame U =
[U_0 U_1] that is turned towards the path every few steps, and gamma = beta^-1 stands for beta. With E = D gamma, D = beta P^-1
beta^T P,

    X L E + lambda L gamma - Y^T L = 0,    gamma^T P gamma E = P gamma

E follows from the part of the first equation within U_0, so that k and gamma, m r unknowns, solve the rest of it and the second.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from jepa_dyn.equilibria.reduced import small_inverse


def residual_in_frame(vector: Array, frame: Array, xx: Array, yx: Array, weight_decay: ArrayLike, rank: int) -> Array:
    """The equation of rank r in the unknowns (k, gamma), (m r,), complex."""
    m = xx.shape[0]
    k, gamma = vector[: (m - rank) * rank].reshape(m - rank, rank), vector[(m - rank) * rank :].reshape(rank, rank)
    span = frame[:, :rank] + frame[:, rank:] @ k
    gram, back = span.T @ span, frame.conj().T
    left, right = back @ (xx @ span), back @ (yx.T @ span - weight_decay * (span @ gamma))
    e = small_inverse(left[:rank]) @ right[:rank]
    balance = gram @ gamma
    rest = left[rank:] @ e - right[rank:]
    return jnp.concatenate([rest.reshape(-1), (gamma.T @ (balance @ e) - balance).reshape(-1)])


def to_frames(vectors: np.ndarray, m: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """(unknowns (paths, m r), frames (paths, m, m)) of unknowns (K, beta) of `reduced`: k = 0."""
    k, beta = _split(vectors, m, rank)
    upper = np.broadcast_to(np.eye(rank, dtype=complex), (len(k), rank, rank))
    return _framed(np.concatenate([upper, k], axis=1), np.linalg.inv(beta))


def renewed(vectors: np.ndarray, frames: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The same points in frames that are turned so that k = 0."""
    k, gamma = _split(vectors, frames.shape[-1], rank)
    return _framed(frames[..., :rank] + frames[..., rank:] @ k, gamma)


def from_frames(vectors: np.ndarray, frames: np.ndarray, rank: int) -> np.ndarray:
    """The unknowns (K, beta) of `reduced`."""
    k, gamma = _split(vectors, frames.shape[-1], rank)
    span = frames[..., :rank] + frames[..., rank:] @ k
    upper = span[:, :rank]
    lower = span[:, rank:] @ np.linalg.inv(upper)
    beta = upper @ np.linalg.inv(gamma) @ np.linalg.inv(upper)  # another basis of the span turns beta with it
    return np.concatenate([lower.reshape(len(k), -1), beta.reshape(len(k), -1)], axis=1)


def _split(vectors: np.ndarray, m: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    cut = (m - rank) * rank
    return vectors[:, :cut].reshape(-1, m - rank, rank), vectors[:, cut:].reshape(-1, rank, rank)


def _framed(span: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal columns in place of a basis of the span: L = U_0 R, so gamma becomes R gamma R^-1."""
    rank = span.shape[-1]
    frames, triangle = np.linalg.qr(span, mode="complete")
    triangle = triangle[:, :rank]
    turned = triangle @ gamma @ np.linalg.inv(triangle)
    empty = np.zeros((len(span), (span.shape[1] - rank) * rank), complex)
    return np.concatenate([empty, turned.reshape(len(span), -1)], axis=1), frames
