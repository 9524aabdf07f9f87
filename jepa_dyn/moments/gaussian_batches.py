"""Second moments of a batch of Gaussian view pairs, drawn directly: all that a linear net sees of the batch, without the batch.

For n pairs (x, y) ~ N(0, joint), n times the matrix of second moments is Wishart. With A A^T = joint and A block lower triangular,

    n [[xx, yx^T], [yx, yy]] = (A T)(A T)^T,    T_ii^2 ~ chi^2(n - i),  T_ij ~ N(0, 1) for i > j,  T_ij = 0 for j >= n  (i from 0)

(Bartlett's decomposition; the last clause makes it right for n below the dimension, where the matrix is singular: T is the
triangular factor of a Gaussian (D, n) matrix). xx and yx need the first d columns of T only, so they cost O(d^3) whatever n.

Source: Bartlett 1933; Littwin 2024, figs 1, 5 train on such batches.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from jepa_dyn._checks import require_count
from jepa_dyn.moments.view_moments import ViewMoments


class JointFactor(eqx.Module):
    """Blocks of A = [[x, 0], [yx, yy]] with A A^T = [[xx, yx^T], [yx, yy]]; singular moments allowed. Made by `joint_factor`."""

    x: Float[Array, "d d"]
    yx: Float[Array, "d_y d"]
    yy: Float[Array, "d_y d_y"]


def joint_factor(moments: ViewMoments) -> JointFactor:
    """x = xx^(1/2), yx = Sigma_yx xx^(+1/2), yy = (yy - Sigma_yx xx^+ Sigma_xy)^(1/2): y given x is Gaussian with that covariance.

    Directions of x whose variance is below 8 d eps of the largest count as absent.
    """
    values, vectors = jnp.linalg.eigh(moments.xx)
    tolerance = 8 * values.shape[-1] * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    present = values > tolerance
    root = jnp.where(present, jnp.sqrt(jnp.where(present, values, 1.0)), 0.0)
    inverse = jnp.where(present, 1 / jnp.where(present, root, 1.0), 0.0)
    x = (vectors * root) @ vectors.T
    yx = moments.yx @ ((vectors * inverse) @ vectors.T)
    rest = moments.yy - yx @ yx.T
    values, vectors = jnp.linalg.eigh((rest + rest.T) / 2)
    return JointFactor(x, yx, (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T)


def draw_moments(key: PRNGKeyArray, factor: JointFactor, batch_size: ArrayLike) -> ViewMoments:
    """Raw second moments (sums of outer products / n) of n = `batch_size` pairs, in law exactly, without drawing the pairs.

    `batch_size` >= 1 may be traced and mapped over, and may lie below the dimension. Parts that are not used are not computed
    inside a jitted function. Nothing is validated.
    """
    d, d_y, dtype = factor.x.shape[0], factor.yy.shape[0], factor.x.dtype
    n = jnp.asarray(batch_size, dtype)
    keys = jax.random.split(key, 5)

    def triangle(gaussian_key: Array, chi_key: Array, size: int, first: int) -> Array:
        column = first + jnp.arange(size, dtype=dtype)
        freedom = jnp.maximum(n - column, 0.5)  # columns past n are cut below
        diagonal = jnp.sqrt(2 * jax.random.gamma(chi_key, freedom / 2, dtype=dtype))
        lower = jnp.tril(jax.random.normal(gaussian_key, (size, size), dtype), -1)
        return jnp.where(column < n, lower + jnp.diag(diagonal), 0.0)

    t_x = triangle(keys[0], keys[1], d, 0)
    t_yx = jnp.where(jnp.arange(d) < n, jax.random.normal(keys[2], (d_y, d), dtype), 0.0)
    t_yy = triangle(keys[3], keys[4], d_y, d)
    x, y = factor.x @ t_x, factor.yx @ t_x + factor.yy @ t_yx
    own = factor.yy @ t_yy
    return ViewMoments(xx=x @ x.T / n, yx=y @ x.T / n, yy=(y @ y.T + own @ own.T) / n)


def _normals(key: Array, factor: JointFactor, batch_size: int) -> tuple[Array, Array]:
    keys = jax.random.split(key)
    g = jax.random.normal(keys[0], (batch_size, factor.x.shape[0]), factor.x.dtype)
    return g, jax.random.normal(keys[1], (batch_size, factor.yy.shape[0]), factor.x.dtype)


def draw_pairs(
    key: PRNGKeyArray, factor: JointFactor, batch_size: int
) -> tuple[Float[Array, "n d"], Float[Array, "n d_y"]]:
    """n Gaussian pairs, one per row: x = A_x g, y = A_yx g + A_yy h."""
    g, h = _normals(key, factor, batch_size)
    return g @ factor.x.T, g @ factor.yx.T + h @ factor.yy.T


def draw_pair_moments(key: PRNGKeyArray, factor: JointFactor, batch_size: int) -> ViewMoments:
    """`batch_moments` of the same `draw_pairs`, with g and h contracted before they are turned into x and y: fewer products."""
    g, h = _normals(key, factor, batch_size)
    gg, hg, hh = g.T @ g / batch_size, h.T @ g / batch_size, h.T @ h / batch_size
    y_g = factor.yx @ gg + factor.yy @ hg
    y_h = factor.yx @ hg.T + factor.yy @ hh
    xx, yx, yy = factor.x @ gg @ factor.x.T, y_g @ factor.x.T, y_g @ factor.yx.T + y_h @ factor.yy.T
    return ViewMoments(xx=(xx + xx.T) / 2, yx=yx, yy=(yy + yy.T) / 2)


def batch_moments(x: Float[Array, "n d"], y: Float[Array, "n d_y"]) -> ViewMoments:
    """Raw second moments of one batch of pairs (no mean is taken off): what one gradient step of a linear net sees."""
    n = x.shape[0]
    return ViewMoments(xx=x.T @ x / n, yx=y.T @ x / n, yy=y.T @ y / n)


class WishartBatches(eqx.Module):
    """A source of batches for `solve.train`: moments of `batch_size` Gaussian pairs by `draw_moments`.

    The size may be mapped over.
    """

    batch_size: Int[Any, "*lanes"]

    def __init__(self, batch_size: ArrayLike):
        self.batch_size = jnp.asarray(_checked_size(batch_size), jnp.int32)

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (0,)

    def prepare(self, moments: ViewMoments) -> JointFactor:
        """What is computed once per run."""
        return joint_factor(moments)

    def draw(self, key: PRNGKeyArray, prepared: JointFactor) -> ViewMoments:
        """Moments of the next batch."""
        return draw_moments(key, prepared, self.batch_size)


class GaussianBatches(eqx.Module):
    """A source of batches for `solve.train`: draws `batch_size` Gaussian pairs and contracts them; same law as `WishartBatches`."""

    batch_size: int = eqx.field(static=True)

    def __init__(self, batch_size: ArrayLike):
        self.batch_size = int(np.asarray(_checked_size(batch_size)))

    def prepare(self, moments: ViewMoments) -> JointFactor:
        """What is computed once per run."""
        return joint_factor(moments)

    def draw(self, key: PRNGKeyArray, prepared: JointFactor) -> ViewMoments:
        """Moments of the next batch."""
        return draw_pair_moments(key, prepared, self.batch_size)


def _checked_size(batch_size: Any) -> Any:
    require_count("batch_size", batch_size)
    return batch_size
