"""Views that are one sample plus noise, x = s + sigma xi and y = s + sigma xi': their moments, samples and batches of pairs.

Second moments are all that a linear network with a Euclidean loss sees; a cosine loss or a nonlinear network needs the pairs.

Source: Halvagal 2023, section 2 and figure 2 (s standard Gaussian). The paper's limits lambda = 1 hold where only the target view
is noisy; with noise on both they shift by sigma^2.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, PRNGKeyArray

from jepa_dyn._checks import require_count, require_finite, require_nonnegative, require_not_empty, require_one_number
from jepa_dyn.moments.gaussian_batches import JointFactor, draw_pairs, joint_factor
from jepa_dyn.moments.view_moments import ViewMoments, view_moments
from jepa_dyn.parameters import Leaf


class PairSample(eqx.Module):
    """A sample of view pairs (x[i], y[i]), one per row, to train on as it stands. Build it with `pair_sample`, or by drawing."""

    x: Float[Leaf, "*lanes n d"]
    y: Float[Leaf, "*lanes n d_y"]


def pair_sample(x: ArrayLike, y: ArrayLike) -> PairSample:
    """Validated `PairSample` of arrays (n, d), (n, d_y), n >= 1.

    Raises:
        ValueError: not matrices with equally many rows, empty, not finite.
    """
    if np.ndim(x) != 2 or np.ndim(y) != 2 or np.shape(x)[0] != np.shape(y)[0]:
        raise ValueError(
            "Arguments `x` and `y` must have shapes (n, d) and (n, d_y) with one n, but have "
            f"{np.shape(x)} and {np.shape(y)}."
        )
    named: dict[str, Any] = {"x": x, "y": y}
    for name, value in named.items():
        require_not_empty(name, value)
        require_finite(name, value)
    dtype = jnp.result_type(float, jnp.asarray(x).dtype, jnp.asarray(y).dtype)
    return PairSample(jnp.asarray(x, dtype), jnp.asarray(y, dtype))


def additive_noise_moments(covariance: ArrayLike, sigma: ArrayLike, *, clean_online: bool = False) -> ViewMoments:
    """Moments of x = s + sigma xi, y = s + sigma xi': yx = covariance, xx and yy that plus sigma^2.

    Args:
        covariance: E[s s^T], (d, d), symmetric and positive semidefinite; `np.eye(d)` in the paper.
        sigma: standard deviation of the noise, >= 0; at 0 both views are the sample itself.
        clean_online: x = s, only the target view y is noisy.

    Raises:
        ValueError: as `view_moments`; sigma not one number >= 0.
    """
    _require_sigma(sigma)
    moments = view_moments(covariance, covariance)
    noise = jnp.asarray(sigma, moments.xx.dtype) ** 2 * jnp.eye(moments.xx.shape[0], dtype=moments.xx.dtype)
    return ViewMoments(moments.xx if clean_online else moments.xx + noise, moments.yx, moments.yy + noise)


def noisy_pairs(
    key: PRNGKeyArray, samples: ArrayLike, sigma: ArrayLike, *, clean_online: bool = False, antithetic: bool = False
) -> PairSample:
    """A noisy pair for every sample: x = s + sigma xi, y = s + sigma xi'.

    Args:
        key: random key.
        samples: s, one per row, (n, d).
        sigma, clean_online: as in `additive_noise_moments`.
        antithetic: every sample gives two pairs, of noise (xi, xi') and (-xi, -xi'), 2n in all: whatever is odd in the noise
            cancels, of which a finite sample keeps O(sigma / sqrt n) otherwise, more than the O(sigma^2) of a loss without
            predictor.

    Raises:
        ValueError: samples that are not a finite matrix; sigma not one number >= 0.
    """
    _require_sigma(sigma)
    clean = pair_sample(samples, samples).x
    keys = jax.random.split(key)
    noise = [jnp.asarray(sigma, clean.dtype) * jax.random.normal(k, clean.shape, clean.dtype) for k in keys]
    if clean_online:
        noise[0] = jnp.zeros_like(clean)
    if antithetic:
        clean, noise = jnp.concatenate([clean, clean]), [jnp.concatenate([one, -one]) for one in noise]
    return PairSample(clean + noise[0], clean + noise[1])


class PairBatches(eqx.Module):
    """A source of batches for `solve.train`: `batch_size` fresh Gaussian pairs of the moments in `args.moments`, as
    `PairSample`."""

    batch_size: int = eqx.field(static=True)

    def __init__(self, batch_size: ArrayLike):
        require_count("batch_size", batch_size)
        self.batch_size = int(np.asarray(batch_size))

    def prepare(self, moments: ViewMoments) -> JointFactor:
        """What is computed once per run."""
        return joint_factor(moments)

    def draw(self, key: PRNGKeyArray, prepared: JointFactor) -> PairSample:
        """The next batch."""
        return PairSample(*draw_pairs(key, prepared, self.batch_size))


def _require_sigma(sigma: Any) -> None:
    require_one_number("sigma", sigma)
    require_nonnegative("sigma", sigma)
