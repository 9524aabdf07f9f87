"""The temporal model: flickering images in noise, views are consecutive frames. Moments, features and samples in closed form.

Source: Littwin 2024, eqs (18), (19), (134)-(141), with our correction of (139).
"""

from collections.abc import Iterator
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from jepa_dyn._checks import is_traced, require, require_finite, require_nonnegative, require_not_empty
from jepa_dyn.moments.diagonalisability import DiagonalisabilityDefect
from jepa_dyn.moments.spectrum import FeatureSpectrum
from jepa_dyn.moments.view_moments import ViewMoments


class TemporalModel(eqx.Module):
    """Frames z^t_i = sum_a u^a(t) v^a_i + xi^t_i (134), views x = z^t, y = z^(t+1). Build it with `temporal_model`.

    - `images`: v^a, shape (m, d), with disjoint supports.
    - `autocorrelation`: gamma_a of the flicker u^a, shape (m,), E[u^a(t) u^a(t+1)], |gamma_a| < 1; one frame is one unit of time.
    - `noise`: standard deviation sigma_a of the white noise on each pixel of image a, shape (m,).
    - `background_noise`: the same on pixels that belong to no image.
    """

    images: Float[Array, "m d"]
    autocorrelation: Float[Array, " m"]
    noise: Float[Array, " m"]
    background_noise: Float[Array, ""]

    @property
    def pixel_noise(self) -> Float[Array, " d"]:
        """Standard deviation of the noise per pixel, sigma_{a(i)}, shape (d,)."""
        support = self.images != 0
        owned = jnp.sum(jnp.where(support, self.noise[:, None], 0), axis=0)
        return jnp.where(jnp.any(support, axis=0), owned, self.background_noise)


def temporal_model(
    images: ArrayLike, autocorrelation: ArrayLike, noise: ArrayLike, background_noise: ArrayLike = 0.0
) -> TemporalModel:
    """Validated `TemporalModel`.

    Args:
        images: shape (m, d) with m <= d, none of them 0 everywhere, no pixel nonzero in two of them.
        autocorrelation: gamma_a, shape (m,) or scalar, strictly between -1 and 1; lam_a has its sign.
        noise: sigma_a >= 0, shape (m,) or scalar.
        background_noise: >= 0.

    Raises:
        ValueError: out of range, not finite, shapes that disagree, images that overlap or vanish.
    """
    if np.ndim(images) != 2:
        raise ValueError(f"Argument `images` must have shape (images, pixels), but has shape {np.shape(images)}.")
    require_not_empty("images", images)
    require_finite("images", images)
    require("autocorrelation", autocorrelation, "lie strictly between -1 and 1", lambda a: np.abs(a) < 1)
    require_nonnegative("noise", noise)
    require_nonnegative("background_noise", background_noise)
    m = np.shape(images)[0]
    for name, value in (("autocorrelation", autocorrelation), ("noise", noise)):
        if np.shape(value) not in ((), (1,), (m,)):
            raise ValueError(
                f"Argument `{name}` must have shape ({m},), one per image, or be a scalar, but has shape {np.shape(value)}."
            )
    if np.shape(background_noise) != ():
        raise ValueError(f"Argument `background_noise` must be a scalar, but has shape {np.shape(background_noise)}.")
    if not is_traced(images):
        _require_disjoint(np.asarray(images))
    array = jnp.asarray(images)
    dtype = array.dtype if jnp.issubdtype(array.dtype, jnp.floating) else jnp.result_type(float)
    gamma, sigma, background = (jnp.asarray(a, dtype) for a in (autocorrelation, noise, background_noise))
    images_array = array.astype(dtype)
    return TemporalModel(images_array, jnp.broadcast_to(gamma, (m,)), jnp.broadcast_to(sigma, (m,)), background)


def temporal_moments(model: TemporalModel) -> ViewMoments:
    """Exact moments of two consecutive frames, stationary: xx = yy, yx symmetric.

    xx = sum_a v^a v^aT + diag(sigma_{a(i)}^2),  yx = sum_a gamma_a v^a v^aT.

    Source: Littwin 2024, (138) and (139). The print of (139) has delta_ij delta_{a(i)a(j)}, which puts sum_a sigma_a^2 on every
    pixel; the noise of pixel i is that of its own image, delta_ij sigma_{a(i)}^2.
    """
    v = model.images
    xx = v.T @ v + jnp.diag(model.pixel_noise**2)
    yx = (v.T * model.autocorrelation) @ v
    return ViewMoments(xx=xx, yx=(yx + yx.T) / 2, yy=xx)


def temporal_spectrum(model: TemporalModel) -> FeatureSpectrum:
    """Exact features, one per image, ordered by falling lam: directions v^a / |v^a|, and

    lam_a = gamma_a |v^a|^2,  rho_a = gamma_a |v^a|^2 / (sigma_a^2 + |v^a|^2).

    The other d - m directions have lam = 0 (140) and are counted in `num_dropped`. The defects are 0: the noise is uniform
    on each support, so every v^a is an eigenvector of both moments.

    Source: Littwin 2024, (19), (140), (141).
    """
    energy = jnp.sum(model.images**2, axis=1)
    lam, variance = model.autocorrelation * energy, model.noise**2 + energy
    order = jnp.argsort(-lam)
    basis = (model.images / jnp.sqrt(energy)[:, None])[order].T
    zeros, zero = jnp.zeros_like(lam), jnp.zeros((), lam.dtype)
    return FeatureSpectrum(
        lam=lam[order],
        rho=(lam / variance)[order],
        variance=variance[order],
        basis=basis * jnp.sign(basis[jnp.argmax(jnp.abs(basis), axis=0), jnp.arange(basis.shape[1])]),
        leakage_xx=zeros,
        leakage_yx=zeros,
        defect=DiagonalisabilityDefect(zero, zero, zero, zero, zero),
        basis_kind="closed form",
        num_dropped=model.images.shape[1] - model.images.shape[0],
    )


def sample_temporal_frames(model: TemporalModel, key: PRNGKeyArray, num_frames: int) -> Float[Array, "t d"]:
    """One stretch of `num_frames` consecutive frames, started in the stationary law, shape (num_frames, d).

    u^a(1) ~ N(0, 1),  u^a(t+1) = gamma_a u^a(t) + sqrt(1 - gamma_a^2) eta^a_t. Frame t uses `fold_in(key, t)`: a longer stretch
    begins with the shorter one. Neighbouring frames are correlated: the effective number of samples is smaller than num_frames
    by about (1 - gamma^2) / (1 + gamma^2).

    Source: Littwin 2024, (134)-(137).
    """
    if num_frames < 1:
        raise ValueError(f"Argument `num_frames` must be at least 1, but is {num_frames}.")
    return _frames(model, key, _first_flicker(model, key), 0, num_frames)[0]


def temporal_pair_batches(
    model: TemporalModel, key: PRNGKeyArray, num_pairs: int, *, batch_size: int = 8192
) -> Iterator[tuple[Float[Array, "b d"], Float[Array, "b d"]]]:
    """Pairs (z^t, z^(t+1)) of one stretch, t = 0 .. num_pairs - 1, in batches for `moments_from_batches`.

    The pairs are those of `sample_temporal_frames(model, key, num_pairs + 1)` whatever the batch size.

    Raises:
        ValueError: `num_pairs` or `batch_size` below 1.
    """
    for name, value in (("num_pairs", num_pairs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"Argument `{name}` must be at least 1, but is {value}.")
    return _pair_batches(model, key, num_pairs, min(batch_size, num_pairs))


def _pair_batches(model: TemporalModel, key: PRNGKeyArray, num_pairs: int, size: int) -> Iterator[tuple[Array, Array]]:
    flicker, previous = _first_flicker(model, key), None
    for start in range(0, num_pairs + 1, size):
        frames, flicker = _frames(model, key, flicker, start, size)  # one shape, so one compilation; the surplus is cut
        frames = frames[: num_pairs + 1 - start]
        joined = frames if previous is None else jnp.concatenate([previous, frames])
        if len(joined) > 1:
            yield joined[:-1], joined[1:]
        previous = joined[-1:]


def _first_flicker(model: TemporalModel, key: PRNGKeyArray) -> Array:
    return jax.random.normal(jax.random.fold_in(key, 0), model.noise.shape, model.images.dtype)


@partial(jax.jit, static_argnums=4)
def _frames(
    model: TemporalModel, key: PRNGKeyArray, flicker: Array, start: int | Array, count: int
) -> tuple[Array, Array]:
    """Frames start .. start + count - 1, given u(start); also u(start + count)."""
    gamma, sigma = model.autocorrelation, model.pixel_noise

    def step(u: Array, t: Array) -> tuple[Array, Array]:
        drive_key, noise_key = jax.random.split(jax.random.fold_in(key, t + 1))
        drive = jax.random.normal(drive_key, u.shape, u.dtype)
        frame = u @ model.images + sigma * jax.random.normal(noise_key, sigma.shape, u.dtype)
        return gamma * u + jnp.sqrt(1 - gamma**2) * drive, frame

    following, frames = jax.lax.scan(step, flicker, start + jnp.arange(count))
    return frames, following


def _require_disjoint(images: np.ndarray) -> None:
    support = images != 0
    empty = np.flatnonzero(~support.any(axis=1))
    if len(empty):
        raise ValueError(f"Argument `images` must hold no image that is 0 everywhere, but image {int(empty[0])} is.")
    shared = np.flatnonzero(support.sum(axis=0) > 1)
    if len(shared):
        owners = [int(a) for a in np.flatnonzero(support[:, shared[0]])]
        raise ValueError(
            f"Argument `images` must have disjoint supports (else the v^a need not be features), but pixel {int(shared[0])} "
            f"belongs to images {owners}."
        )
