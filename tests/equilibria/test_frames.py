"""The chart of complex paths: the same points as the unknowns of `reduced`, and regular where those are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn._precision import x64_context
from jepa_dyn.equilibria.frames import Divided, divided, from_frames, num_framed, renewed, residual_in_frame, to_frames
from jepa_dyn.equilibria.parameter_homotopy import generic_member

SYSTEMS = [(3, 2), (4, 2), (4, 3)]


def split(vectors, m, rank):
    return vectors[:, : m * rank].reshape(-1, m, rank), vectors[:, m * rank :].reshape(-1, rank, rank)


def residuals(vectors, frames, member, rank):
    """Of every point, (paths, m r + r^2)."""
    one = jax.vmap(lambda vector, frame: residual_in_frame(vector, frame, divided(member), rank))
    return np.asarray(one(jnp.asarray(vectors), jnp.asarray(frames)))


@pytest.mark.parametrize(("m", "rank"), SYSTEMS)
def test_there_and_back(m, rank):
    """Known solutions are zeros of as many equations as unknowns; W is orthonormal and W^T W diagonal, ascending."""
    with x64_context(True):
        member, known = generic_member(m, rank)
        vectors, frames = to_frames(known, m, rank)
        assert vectors.shape == (len(known), num_framed(m, rank)) and frames.shape == (len(known), m, rank)
        size = 1 + np.abs(vectors).max(axis=1)
        gap = residuals(vectors, frames, member, rank)
        assert gap.shape == vectors.shape
        assert (np.abs(gap).max(axis=1) < 1e-13 * size**3).all()  # its terms are cubic
        size = 1 + np.abs(known).max(axis=1)
        assert (np.abs(from_frames(vectors, m, rank) - known).max(axis=1) < 1e-11 * size**2).all()
        w, _ = split(vectors, m, rank)
        np.testing.assert_allclose(np.swapaxes(w.conj(), 1, 2) @ w, np.tile(np.eye(rank), (len(w), 1, 1)), atol=1e-13)
        gram = np.swapaxes(w, 1, 2) @ w
        sigma = np.einsum("pii->pi", gram)
        np.testing.assert_allclose(gram, sigma[:, :, None] * np.eye(rank), atol=1e-13)
        assert (np.diff(sigma.real, axis=1) >= -1e-13).all() and np.abs(sigma.imag).max() < 1e-13


@pytest.mark.parametrize(("m", "rank"), SYSTEMS)
def test_the_equation_does_not_depend_on_the_frame(m, rank):
    """Columns of any length: the slices of that frame do not hold, all other equations do; `renewed` leads back."""
    with x64_context(True):
        member, known = generic_member(m, rank)
        vectors, frames = to_frames(known, m, rank)
        w, b = split(vectors, m, rank)
        rng = np.random.default_rng(0)
        c = np.exp(0.1 * (rng.normal(size=(len(w), rank)) + 1j * rng.normal(size=(len(w), rank))))
        sigma = np.einsum("pij,pij->pj", w, w)

        def ratios(sigma):
            return np.where(np.triu(np.ones((rank, rank)), 1) > 0, sigma[:, :, None] / sigma[:, None, :], 1.0)

        # C^-1 beta C, divided by the ratios of what sigma is now
        beta = b * np.swapaxes(ratios(sigma), 1, 2) * c[:, None, :] / c[:, :, None]
        moved = np.concatenate(
            [
                (w * c[:, None, :]).reshape(len(w), -1),
                (beta / np.swapaxes(ratios(sigma * c**2), 1, 2)).reshape(len(w), -1),
            ],
            axis=1,
        )
        gap = residuals(moved, frames, member, rank)
        cut = m * rank + rank * (rank - 1) // 2
        size = 1 + np.abs(moved).max(axis=1)
        assert (np.abs(gap[:, :cut]).max(axis=1) < 1e-13 * size**3).all() and np.abs(gap[:, cut:]).max() > 0.1
        again, own = renewed(moved, m, rank)
        assert (np.abs(residuals(again, own, member, rank)).max(axis=1) < 1e-12 * size**3).all()
        size = 1 + np.abs(known).max(axis=1)
        assert (np.abs(from_frames(again, m, rank) - known).max(axis=1) < 1e-10 * size**2).all()


@pytest.mark.parametrize("rank", [2, 3])
def test_regular_where_the_span_is_isotropic(rank):
    """w_1^T w_1 = 1e-3 .. 1e-12 at W and b of order 1: the Jacobian has a limit, and its least singular value one above 0."""
    m, rng = 4, np.random.default_rng(rank)
    with x64_context(True):
        h, other, b = (rng.normal(size=s) + 1j * rng.normal(size=s) for s in ((m, m), (m, m), (rank, rank)))
        least = []
        for small in (1e-3, 1e-6, 1e-9, 1e-12):
            w = np.eye(m, rank, dtype=complex)
            w[:, 0] = np.sqrt([(1 + small) / 2, 0, 0, 0]) + 1j * np.sqrt([0, 0, 0, (1 - small) / 2])
            upper = np.triu(np.ones((rank, rank)), 1) > 0
            sigma = np.einsum("ij,ij->j", w, w)
            r = np.where(upper, sigma[:, None] / sigma[None, :], 1.0)
            beta, back = b * r.T, (b * r).T
            pseudo = np.linalg.pinv(w @ beta)
            g = (w @ beta @ back + 0.2 * h @ w) @ pseudo + other @ (np.eye(m) - w @ beta @ pseudo)
            point, member = jnp.asarray(np.concatenate([w.ravel(), b.ravel()])), Divided(h, g, 0.2)
            # rounding times the size of 1 / beta
            assert np.abs(residual_in_frame(point, jnp.asarray(w), member, rank)).max() < 1e-11
            slope = jax.jacfwd(
                lambda v, w=w, member=member: residual_in_frame(v, jnp.asarray(w), member, rank), holomorphic=True
            )(point)
            least.append(np.linalg.svd(np.asarray(slope), compute_uv=False)[-1])
        assert least[-1] > 1e-3 and least[-1] == pytest.approx(least[-2], rel=1e-3)
