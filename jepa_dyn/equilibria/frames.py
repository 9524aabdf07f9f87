"""The equation of deficient rank in a frame of its own for every complex path: regular wherever the path goes.

The chart of `reduced`, L = [1; K] and beta, has bad places that complex paths pass close to: columns whose span needs another
chart, and spans that are nearly isotropic, on which P = L^T L is singular and entries of beta grow without bound. Here the span
has the basis W (m, r) of Autonne and Takagi: w_i^T w_j = 0 for i != j, transposed and not conjugated, so that P = diag(sigma), and
orthonormal for the Hermitian product, with |sigma_1| <= |sigma_2| <= ... <= 1. Then, multiplied by X^-1 = H, with G = X^-1 Y^T,

    W beta P^-1 beta^T P + lambda H W - G W beta = 0,    beta = b * R^T,    P^-1 beta^T P = (b * R)^T,

the products * entry by entry, with R_jk = sigma_j / sigma_k for j < k and 1 else. Where sigma_1 goes to 0, w_1 spans the radical,
which beta keeps: beta_j1 = b_j1 sigma_1 / sigma_j vanishes, and the equation has a limit in W and b, for no 1 / sigma_1 is left.
(The ratio of two sigma that vanish together has no limit, which is rarer by one equation.) What stays badly scaled are solutions
that are large themselves, b nearly of rank one with entries of 1e3 and more: there steps are short, and rounding may end them.

The unknowns W and b are m r + r^2, as many as the equation above (m r), w_i^T w_j = 0, r (r - 1) / 2, and the linear slices that
fix the basis: with the frame U, which is W as it was when it was last renewed, u_i^H w_i = 1 and u_j^H w_k = R_jk u_k^H w_j for
j < k. The turns W -> W (1 + e) that keep W^T W diagonal have e_kj = -R_jk e_jk, so the slices cut all of them, also where two
sigma are equal. Members on the way are combinations of (H, G, lambda), so that no X on the way is singular.
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


def num_framed(m: int, rank: int) -> int:
    """Unknowns (W, b)."""
    return m * rank + rank * rank


def residual_in_frame(vector: Array, frame: Array, member: Divided, rank: int) -> Array:
    """The equation of rank r in the unknowns (W, b), (m r + r^2,), complex; the frame is (m, r)."""
    w, b = _split(vector, frame.shape[0], rank)
    gram, inner = w.T @ w, frame.conj().T @ w
    ratios = _ratios(jnp.diagonal(gram))
    beta = b * ratios.T
    image = w @ (beta @ (b * ratios).T) + member.weight_decay * (member.h @ w) - member.g @ (w @ beta)
    j, k = np.triu_indices(rank, 1)
    slices = inner[j, k] - ratios[j, k] * inner[k, j]
    return jnp.concatenate([image.reshape(-1), gram[j, k], jnp.diagonal(inner) - 1, slices])


def to_frames(vectors: np.ndarray, m: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """(unknowns (paths, m r + r^2), frames (paths, m, r)) of unknowns (K, beta) of `reduced`."""
    cut = (m - rank) * rank
    k, beta = vectors[:, :cut].reshape(-1, m - rank, rank), vectors[:, cut:].reshape(-1, rank, rank)
    upper = np.broadcast_to(np.eye(rank, dtype=complex), (len(k), rank, rank))
    return _framed(np.concatenate([upper, k], axis=1), beta)


def renewed(vectors: np.ndarray, m: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The same points in frames of their own: W orthonormal, sigma sorted."""
    return _framed(*_span_and_beta(vectors, m, rank))


def from_frames(vectors: np.ndarray, m: int, rank: int) -> np.ndarray:
    """The unknowns (K, beta) of `reduced`, (paths, m r)."""
    span, beta = _span_and_beta(vectors, m, rank)
    upper = span[:, :rank]
    lower, turned = span[:, rank:] @ np.linalg.inv(upper), upper @ beta @ np.linalg.inv(upper)
    return np.concatenate([lower.reshape(len(span), -1), turned.reshape(len(span), -1)], axis=1)


def _split(vectors: Any, m: int, rank: int) -> tuple[Any, Any]:
    lead, cut = vectors.shape[:-1], m * rank
    return vectors[..., :cut].reshape(*lead, m, rank), vectors[..., cut:].reshape(*lead, rank, rank)


def _ratios(sigma: Any) -> Any:
    """R (..., r, r)."""
    upper = np.triu(np.ones((sigma.shape[-1],) * 2, bool), 1)
    xp = np if isinstance(sigma, np.ndarray) else jnp
    return xp.where(upper, sigma[..., :, None] / xp.where(upper, sigma[..., None, :], 1.0), 1.0)


def _span_and_beta(vectors: np.ndarray, m: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """W, and beta in the basis W."""
    w, b = _split(vectors, m, rank)
    return w, b * np.swapaxes(_ratios(np.einsum("pij,pij->pj", w, w)), 1, 2)


def _framed(span: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unknowns, and W as frame, of any basis of the span and beta in it: W = span C, so beta becomes C^-1 beta C."""
    rank = span.shape[-1]
    unitary, triangle = np.linalg.qr(span)
    takagi = _takagi(np.swapaxes(unitary, 1, 2) @ unitary)
    w = unitary @ takagi
    inverse = np.swapaxes(takagi.conj(), 1, 2) @ triangle
    turned = inverse @ beta @ np.linalg.inv(inverse)
    b = turned / np.swapaxes(_ratios(np.einsum("pij,pij->pj", w, w)), 1, 2)
    return np.concatenate([w.reshape(len(w), -1), b.reshape(len(w), rank * rank)], axis=1), w


def _takagi(symmetric: np.ndarray) -> np.ndarray:
    """Unitary Z (paths, r, r) with Z^T P Z diagonal, >= 0 and ascending, of complex symmetric P.

    P z = s conj(z), z = x - i y: (x, y) is a real eigenvector of [[Re P, Im P], [Im P, -Re P]] for s, (-y, x) one for -s.
    """
    rank = symmetric.shape[-1]
    real, imag = np.real(symmetric), np.imag(symmetric)
    doubled = np.block([[real, imag], [imag, -real]])
    vectors = np.linalg.eigh(doubled)[1][..., rank:]
    return vectors[:, :rank] - 1j * vectors[:, rank:]
