"""InfoNCE on a linear encoder: over a batch of view pairs, and its limit of many negatives on Gaussian views.

    batch      dW/dt = W M(W),   M = (1 / (N tau)) sum_ij (delta_ij - p_ij) (x'_j x_i^T + x_i x'_j^T)
               p_ij = softmax over j of x_i^T W^T W x'_j / tau:   L = -(1/N) sum_i log p_ii
    Gaussian   dW/dt = (2 / tau) W Gamma - (1 / tau^2) W (X G Y + Y G X),   G = W^T W
               L = lim (L_K - log K) = -tr(G Gamma) / tau + tr(G Y G X) / (2 tau^2)

with views of mean 0, X = E[x x^T], Y = E[x' x'^T], Gamma the symmetrised E[x' x^T]: E_x' exp(z.z' / tau) = exp(z^T W Y W^T z /
(2 tau^2)), and its logarithm is quadratic in z. M is symmetric, so the right singular vectors turn with M alone.

Each mode of commuting moments has a closed form, in `theory.info_nce`: repulsion is quadratic, so weak modes grow at their own rate
2 gamma / tau whatever the strong ones do.

Source: note on collapse, section 3.2, corrected: its equation for the eigenvalues and its gradient, which lacks the branch of the
keys, do not hold.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_finite, require_one_number, require_positive
from jepa_dyn.flows.barlow_twins import feature_cross_correlation
from jepa_dyn.moments import ViewMoments
from jepa_dyn.moments.view_moments import require_equal_views
from jepa_dyn.parameters import Leaf

_MATRIX = 2


class InfoNceArguments(eqx.Module):
    """A batch of view pairs. Build it with `info_nce_arguments`, which validates.

    - `first`, `second`: contexts x and keys x', (N, m), row i of both is one pair. `temperature`: tau > 0.
    """

    first: Float[Leaf, "*lanes N m"]
    second: Float[Leaf, "*lanes N m"]
    temperature: Float[Leaf, "*#lanes"]

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (2, 2, 0)


class GaussianInfoNceArguments(eqx.Module):
    """Second moments of Gaussian views of mean 0. Build it with `gaussian_info_nce_arguments`; `temperature`: tau > 0."""

    moments: ViewMoments
    temperature: Float[Leaf, "*#lanes"]

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (2, 2, 2, 0)


def info_nce_arguments(first: ArrayLike, second: ArrayLike, *, temperature: ArrayLike = 1.0) -> InfoNceArguments:
    """Validated `InfoNceArguments` of one batch; for lanes, `jax.vmap` this function.

    Raises:
        ValueError: views that are not matrices of one shape, empty or not finite; a temperature that is not one number > 0.
    """
    shapes = np.shape(first), np.shape(second)
    if shapes[0] != shapes[1] or len(shapes[0]) != _MATRIX or 0 in shapes[0]:
        raise ValueError(
            "Arguments `first` and `second` must have one shape (N, m) that is not empty, but have "
            f"{shapes[0]} and {shapes[1]}."
        )
    require_finite("first", first)
    require_finite("second", second)
    dtype = jnp.result_type(float, jnp.asarray(first).dtype, jnp.asarray(second).dtype)
    return InfoNceArguments(jnp.asarray(first, dtype), jnp.asarray(second, dtype), _temperature(temperature, dtype))


def gaussian_info_nce_arguments(moments: ViewMoments, *, temperature: ArrayLike = 1.0) -> GaussianInfoNceArguments:
    """Validated `GaussianInfoNceArguments` of one system; for lanes, `jax.vmap` this function.

    Raises:
        ValueError: views of different sizes; a temperature that is not one number > 0.
    """
    require_equal_views(moments)
    return GaussianInfoNceArguments(moments, _temperature(temperature, moments.xx.dtype))


def _temperature(temperature: ArrayLike, dtype: jax.typing.DTypeLike) -> Array:
    require_one_number("temperature", temperature)
    require_positive("temperature", temperature)
    return jnp.asarray(temperature, dtype)


def info_nce_generator(encoder: Float[Array, "d m"], args: InfoNceArguments) -> Float[Array, "m m"]:
    """M of dW/dt = W M, symmetric. Source: note on collapse, section 3.2, corrected."""
    z, keys = args.first @ encoder.T, args.second @ encoder.T
    shares = jax.nn.softmax(z @ keys.T / args.temperature, axis=1)
    surplus = (jnp.eye(shares.shape[0], dtype=shares.dtype) - shares) / (shares.shape[0] * args.temperature)
    pulls = args.first.T @ surplus @ args.second
    return pulls + pulls.T


def info_nce(t: ArrayLike, y: Float[Array, "d m"], args: InfoNceArguments) -> Float[Array, "d m"]:
    """dW/dt = W M(W) of the encoder W on one batch: minus the gradient of `losses.info_nce_loss`, in gradient-flow time.

    Source: note on collapse, section 3.2, corrected.
    """
    return y @ info_nce_generator(y, args)


def gaussian_info_nce(t: ArrayLike, y: Float[Array, "d m"], args: GaussianInfoNceArguments) -> Float[Array, "d m"]:
    """InfoNCE of Gaussian views with infinitely many negatives, in gradient-flow time: see the head of this file."""
    moments, tau = args.moments, args.temperature
    attraction = y @ feature_cross_correlation(moments)
    seen, other = y @ moments.xx, y @ moments.yy
    repulsion = (seen @ y.T) @ other + (other @ y.T) @ seen
    return 2 / tau * attraction - repulsion / tau**2


def gaussian_info_nce_objective(y: Float[Array, "d m"], args: GaussianInfoNceArguments) -> Float[Array, ""]:
    """lim (L_K - log K) for K -> infinity: -tr(G Gamma) / tau + tr(G Y G X) / (2 tau^2), G = W^T W; 0 at W = 0."""
    moments, tau = args.moments, args.temperature
    attraction = jnp.sum((y @ moments.yx) * y)
    return -attraction / tau + jnp.sum((y @ moments.xx @ y.T) * (y @ moments.yy @ y.T)) / (2 * tau**2)
