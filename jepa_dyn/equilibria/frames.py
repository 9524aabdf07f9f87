"""The equation of deficient rank in a frame of its own for every complex path: regular wherever the path goes.

The chart of `reduced`, L = [1; K] and beta, has bad places that complex paths pass close to: columns whose span needs another
chart, and spans on which P = L^T L is singular, where beta grows without bound. Here L = U_0 + U_1 k with a unitary frame U =
[U_0 U_1] that is turned towards the path every few steps, and gamma = beta^-1 stands for beta. With H = X^-1, G = X^-1 Y^T,
E = beta P^-1 beta^T P gamma,

    L E + lambda H L gamma - G L = 0,    gamma^T P gamma E = P gamma.

The part of the first equation within U_0 gives E, the rest of it and the second one are solved for k and gamma, m r unknowns.
Lines are straight in (H, G, lambda), so that no X on the way is singular.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jepa_dyn.equilibria.homotopy import Member


class Divided(NamedTuple):
    """A member of the family, divided by X: H = X^-1, G = X^-1 Y^T, lambda."""

    h: Any
    g: Any
    weight_decay: Any


def divided(member: Member) -> Divided:
    """Of a member with regular X."""
    h = np.linalg.inv(np.asarray(member.xx))
    return Divided(h, h @ np.swapaxes(np.asarray(member.yx), -1, -2), np.asarray(member.weight_decay))


def residual_in_frame(vector: Array, frame: Array, member: Divided, rank: int) -> Array:
    """The equation of rank r in the unknowns (k, gamma), (m r,), complex."""
    m = frame.shape[0]
    k, gamma = vector[: (m - rank) * rank].reshape(m - rank, rank), vector[(m - rank) * rank :].reshape(rank, rank)
    span = frame[:, :rank] + frame[:, rank:] @ k
    parts = frame.conj().T @ (member.weight_decay * (member.h @ (span @ gamma)) - member.g @ span)
    e, balance = -parts[:rank], span.T @ span @ gamma
    return jnp.concatenate([(k @ e + parts[rank:]).reshape(-1), (gamma.T @ (balance @ e) - balance).reshape(-1)])


def to_frames(vectors: np.ndarray, m: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """(unknowns (paths, m r), frames) of unknowns (K, beta) of `reduced`: k = 0."""
    k, beta = _split(vectors, m, rank)
    upper = np.broadcast_to(np.eye(rank, dtype=complex), (len(k), rank, rank))
    return _framed(np.concatenate([upper, k], axis=1), np.linalg.inv(beta))


def renewed(vectors: np.ndarray, frames: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The same points in frames that are turned so that k = 0."""
    k, gamma = _split(vectors, frames.shape[-1], rank)
    return _framed(frames[..., :rank] + frames[..., rank:] @ k, gamma)


def from_frames(vectors: np.ndarray, frames: np.ndarray, rank: int) -> np.ndarray:
    """The unknowns (K, beta) of `reduced`."""
    if not len(vectors):
        return vectors
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
    turned = triangle[:, :rank] @ gamma @ np.linalg.inv(triangle[:, :rank])
    empty = np.zeros((len(span), (span.shape[1] - rank) * rank), complex)
    return np.concatenate([empty, turned.reshape(len(span), -1)], axis=1), frames
