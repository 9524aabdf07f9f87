"""Random masking of a sparse linear model: views are complementary random masks of one sample.

Source: Littwin 2024, eqs (122)-(133), with our corrections: the closed form (124)-(126) is that of ORTHONORMAL rows of B, not
of Gaussian rows, and the second equality of (131) holds only where B^T B = 1.
"""

from collections.abc import Iterator
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from jepa_dyn._checks import (
    is_traced,
    require,
    require_finite,
    require_fraction,
    require_nonnegative,
    require_not_empty,
)
from jepa_dyn.moments.view_moments import ViewMoments


class RandomMaskingModel(eqx.Module):
    """z_i = sum_k s_k B_ki + eta_i (122); x_i = m_i z_i, y_i = (1 - m_i) z_i, m_i = 1 with probability f (123).

    Build it with `random_masking_model`.

    - `loadings`: B, shape (k, d); row k is the direction of factor k.
    - `coefficient_variance`: E[s_k^2], shape (k,); independent factors of mean 0.
    - `visible_fraction`: f, strictly between 0 and 1.
    - `noise`: sigma_eps, standard deviation of eta_i.
    """

    loadings: Float[Array, "k d"]
    coefficient_variance: Float[Array, " k"]
    visible_fraction: Float[Array, ""]
    noise: Float[Array, ""]


def random_masking_model(
    loadings: ArrayLike, coefficient_variance: ArrayLike, visible_fraction: ArrayLike = 0.5, noise: ArrayLike = 0.0
) -> RandomMaskingModel:
    """Validated `RandomMaskingModel`; any `loadings`, see `orthonormal_rows` and `gaussian_rows`.

    Raises:
        ValueError: out of range, not finite, shapes that disagree, or no variance at all.
    """
    if np.ndim(loadings) != 2:
        raise ValueError(
            f"Argument `loadings` must have shape (factors, components), but has shape {np.shape(loadings)}."
        )
    require_not_empty("loadings", loadings)
    require_finite("loadings", loadings)
    require_nonnegative("coefficient_variance", coefficient_variance, "it is E[s_k^2]")
    require_fraction("visible_fraction", visible_fraction)
    require_nonnegative("noise", noise)
    k = np.shape(loadings)[0]
    if np.shape(coefficient_variance) not in ((), (1,), (k,)):
        raise ValueError(
            f"Argument `coefficient_variance` must have shape ({k},), one per row of `loadings`, or be a scalar, "
            f"but has shape {np.shape(coefficient_variance)}."
        )
    for name, value in (("visible_fraction", visible_fraction), ("noise", noise)):
        if np.shape(value) != ():
            raise ValueError(f"Argument `{name}` must be a scalar, but has shape {np.shape(value)}.")
    array = jnp.asarray(loadings)
    dtype = array.dtype if jnp.issubdtype(array.dtype, jnp.floating) else jnp.result_type(float)
    model = RandomMaskingModel(
        loadings=array.astype(dtype),
        coefficient_variance=jnp.broadcast_to(jnp.asarray(coefficient_variance, dtype), (k,)),
        visible_fraction=jnp.asarray(visible_fraction, dtype),
        noise=jnp.asarray(noise, dtype),
    )
    if not is_traced(model) and not bool(jnp.any(data_covariance(model) != 0)):
        raise ValueError(
            "Arguments `loadings`, `coefficient_variance` and `noise` must give some variance, but give none."
        )
    return model


def data_covariance(model: RandomMaskingModel) -> Float[Array, "d d"]:
    """E[z z^T] = B^T diag(E[s^2]) B + sigma_eps^2 1, for any B.

    Source: Littwin 2024, (131), first equality; the second, B^T (Sigma^s + sigma_eps^2) B, needs B^T B = 1.
    """
    b = model.loadings
    return (b.T * model.coefficient_variance) @ b + model.noise**2 * jnp.eye(b.shape[1], dtype=b.dtype)


def masking_moments(model: RandomMaskingModel) -> ViewMoments:
    """Exact population moments for any loadings; with Z = E[z z^T], D = Diag(Z):

    xx = f^2 Z + f(1-f) D,  yx = f(1-f) (Z - D),  yy = (1-f)^2 Z + f(1-f) D.

    The trace of yx is 0 whatever the data, so the lam of all features sum to 0: some are negative, or all are 0.

    Source: Littwin 2024, (128)-(130).
    """
    f = model.visible_fraction
    z = data_covariance(model)
    z = (z + z.T) / 2
    diagonal = jnp.diag(jnp.diag(z))
    mixed = f * (1 - f)
    return ViewMoments(
        xx=f**2 * z + mixed * diagonal, yx=mixed * (z - diagonal), yy=(1 - f) ** 2 * z + mixed * diagonal
    )


class MaskingSpectrum(eqx.Module):
    """Asymptotic features of random masking, one per row of the loadings, in the order of the rows."""

    lam: Float[Array, " k"]
    rho: Float[Array, " k"]
    variance: Float[Array, " k"]


def masking_spectrum(model: RandomMaskingModel) -> MaskingSpectrum:
    """Features along the rows b_k of ORTHONORMAL loadings, to leading order in large d:

    lam_k = f(1-f) (E[s_k^2] - <s^2>),  variance_k = f^2 E[s_k^2] + f sigma_eps^2 + f(1-f) <s^2>,  rho_k = lam_k / variance_k,

    <s^2> = (1/d) sum_k E[s_k^2]. The error is O(d^(-1/2)) for generic orthonormal rows (the diagonal of E[z z^T] fluctuates
    about its mean). For the exact features, and for any other loadings, use `feature_spectrum(masking_moments(model))`.

    Raises:
        ValueError: the rows are not orthonormal. The print claims the formulas for B_ki ~ N(0, 1/d); there
            b_k^T B^T diag(E[s^2]) B b_k = E[s_k^2] + <s^2> + ..., and lam is off by f(1-f) <s^2> at every d.

    Source: Littwin 2024, (124)-(126), with that correction.
    """
    b, s2, f = model.loadings, model.coefficient_variance, model.visible_fraction
    k, d = b.shape
    if not is_traced(b):
        worst = float(jnp.max(jnp.abs(b @ b.T - jnp.eye(k, dtype=b.dtype))))
        if worst > 64 * d * float(jnp.finfo(b.dtype).eps):
            raise ValueError(
                f"Argument `model` must have orthonormal rows of loadings, but B B^T differs from 1 by {worst:.3g}: "
                "use feature_spectrum(masking_moments(model))."
            )
    mean = jnp.sum(s2) / d
    lam = f * (1 - f) * (s2 - mean)
    variance = f**2 * s2 + f * model.noise**2 + f * (1 - f) * mean
    return MaskingSpectrum(lam=lam, rho=lam / variance, variance=variance)


def orthonormal_rows(key: PRNGKeyArray, num_rows: int, d: int) -> Float[Array, "k d"]:
    """Random orthonormal rows (Haar measure), shape (num_rows, d), num_rows <= d."""
    if not 1 <= num_rows <= d:
        raise ValueError(f"Argument `num_rows` must lie between 1 and d = {d}, but is {num_rows}.")
    q, r = jnp.linalg.qr(jax.random.normal(key, (d, num_rows)))
    return (q * jnp.sign(jnp.diag(r))).T  # LAPACK's signs are not random: this makes the law uniform


def gaussian_rows(key: PRNGKeyArray, num_rows: int, d: int) -> Float[Array, "k d"]:
    """Independent entries B_ki ~ N(0, 1/d), shape (num_rows, d)."""
    if num_rows < 1 or d < 1:
        raise ValueError(f"Arguments `num_rows` and `d` must be at least 1, but are {num_rows} and {d}.")
    return jax.random.normal(key, (num_rows, d)) / jnp.sqrt(d)


def sparse_variances(
    key: PRNGKeyArray, num_rows: int, gamma: float, low: float = 0.5, high: float = 4.0
) -> Float[Array, " k"]:
    """gamma-sparse E[s_k^2]: round(gamma num_rows) random entries ~ U(low, high), the others 0 (text above (133)).

    Raises:
        ValueError: `gamma` not in (0, 1], not 0 <= low <= high, or gamma num_rows rounds to 0.
    """
    require("gamma", gamma, "lie in (0, 1]", lambda a: (a > 0) & (a <= 1))
    if not 0 <= low <= high < np.inf:
        raise ValueError(f"Arguments `low` and `high` must satisfy 0 <= low <= high, but are {low} and {high}.")
    active = round(gamma * num_rows)
    if active < 1:
        raise ValueError(f"Argument `gamma` must leave at least one of {num_rows} factors active, but is {gamma}.")
    value_key, place_key = jax.random.split(key)
    values = jax.random.uniform(value_key, (active,), minval=low, maxval=high)
    return jnp.zeros(num_rows, values.dtype).at[jax.random.permutation(place_key, num_rows)[:active]].set(values)


def masking_pair_batches(
    model: RandomMaskingModel, key: PRNGKeyArray, num_pairs: int, *, batch_size: int = 8192
) -> Iterator[tuple[Float[Array, "b d"], Float[Array, "b d"]]]:
    """Independent pairs of masked views in batches: Gaussian factors s_k ~ N(0, E[s_k^2]), Gaussian noise, Bernoulli(f) masks.

    Pair i uses `fold_in(key, i)`: the pairs do not depend on the batch size.

    Raises:
        ValueError: `num_pairs` or `batch_size` below 1.
    """
    for name, value in (("num_pairs", num_pairs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"Argument `{name}` must be at least 1, but is {value}.")
    return _batches(model, key, num_pairs, min(batch_size, num_pairs))


def sample_masking_pairs(
    model: RandomMaskingModel, key: PRNGKeyArray, num_pairs: int
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """The pairs of `masking_pair_batches` at once, two arrays of shape (num_pairs, d)."""
    return next(masking_pair_batches(model, key, num_pairs, batch_size=num_pairs))


def _batches(model: RandomMaskingModel, key: PRNGKeyArray, num_pairs: int, size: int) -> Iterator[tuple[Array, Array]]:
    for start in range(0, num_pairs, size):
        x, y = _draw(model, key, start, size)  # one shape, so one compilation; the surplus is cut
        yield x[: num_pairs - start], y[: num_pairs - start]


@partial(jax.jit, static_argnums=3)
def _draw(model: RandomMaskingModel, key: PRNGKeyArray, start: int | Array, count: int) -> tuple[Array, Array]:
    b = model.loadings

    def one(index: Array) -> tuple[Array, Array, Array]:
        keys = jax.random.split(jax.random.fold_in(key, index), 3)
        s = jnp.sqrt(model.coefficient_variance) * jax.random.normal(keys[0], b.shape[:1], b.dtype)
        eta = model.noise * jax.random.normal(keys[1], b.shape[1:], b.dtype)
        return s, eta, jax.random.bernoulli(keys[2], model.visible_fraction, b.shape[1:])

    s, eta, mask = jax.vmap(one)(start + jnp.arange(count))
    z = s @ b + eta
    return jnp.where(mask, z, 0), jnp.where(mask, 0, z)
