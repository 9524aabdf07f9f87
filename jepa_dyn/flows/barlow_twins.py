"""Barlow Twins on a linear encoder: L = |C - I|^2, C = W Gamma W^T, with an off-diagonal weight, preconditioned (Simon 2023).

Gamma = (E[y x^T] + E[x y^T]) / 2 is the symmetrised cross-covariance of the views: raw second moments, of any sign of eigenvalue.
In gradient-flow time

    dW/dt = -4 (C - I) W Gamma                                                        weight 1, (6)
    dW/dt = -4 [weight (C - I) + (1 - weight) (diag C - I)] W Gamma                   any weight of the off-diagonal terms
    dW/dt = -4 (W S W^T + ridge I)^-1 (C - I) W Gamma,  S = (E[x x^T] + E[y y^T]) / 2    preconditioned, (52)

Sizes: W (d, m), any d and m. With d > m, or fewer than d positive eigenvalues of Gamma, the loss cannot reach 0.
Losses of the eigenvalues of C, as in appendix G of the paper, are in `spectral_losses`; closed forms in `theory.barlow_twins`.

Source: Simon 2023, eqs (1)-(6), (52). Above (1) the print has f(x) = W X for W x. The factor 4 is kept everywhere; only appendix C
of the paper absorbs it (its clock is 4 t). (52) as printed sums over the 2n embeddings of a batch of n pairs where W S W^T is
their mean: the printed alpha is 2n ridge and the printed time 2n t.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import (
    is_traced,
    require,
    require_finite,
    require_nonnegative,
    require_not_empty,
    require_one_number,
    require_positive,
    require_representable,
)
from jepa_dyn.moments import EigenbasisMoments, ViewMoments, moments_from_pairs, view_moments
from jepa_dyn.moments.view_moments import require_equal_views
from jepa_dyn.parameters import Leaf


class BarlowTwinsState(eqx.Module):
    """Weights of a linear encoder: `encoder` = W, shape (d, m). Build it with `barlow_twins_state`, or fill it by hand."""

    encoder: Float[Leaf, "*lanes d m"]

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (2,)


class BarlowTwinsArguments(eqx.Module):
    """What a linear Barlow Twins model is trained on and how. Build it with `barlow_twins_arguments`, which validates.

    - `moments`: second moments of the view pairs, as matrices or in the eigenbasis of `gamma`, their symmetrised cross-covariance,
      which is all that the flows see of them but for the preconditioned one.
    - `off_diagonal_weight`: lambda >= 0 of the original Barlow Twins loss, sum_i (C_ii - 1)^2 + lambda sum_{i != j} C_ij^2.
      Only `barlow_twins` knows it; 1 is the loss of Simon 2023.
    - `ridge`: alpha > 0 of `barlow_twins_preconditioned`.
    - `kink_width`: k >= 0 of `barlow_twins_sharp`, the |eigenvalue| below which its kink at zero is rounded off.
    - `upper_slope`: epsilon >= 0 of `barlow_twins_smooth`, with which its g falls above 1.
    """

    moments: ViewMoments | EigenbasisMoments
    off_diagonal_weight: Float[Leaf, "*#lanes"]
    ridge: Float[Leaf, "*#lanes"]
    kink_width: Float[Leaf, "*#lanes"]
    upper_slope: Float[Leaf, "*#lanes"]

    @property
    def gamma(self) -> Array:
        """Gamma, shape (m, m): see `feature_cross_correlation`."""
        return feature_cross_correlation(self.moments)

    def correlated(self, encoder: Float[Array, "d m"]) -> Float[Array, "d m"]:
        """W Gamma."""
        return self.moments.correlated(encoder) if isinstance(self.moments, EigenbasisMoments) else encoder @ self.gamma

    def spread(self, encoder: Float[Array, "d m"]) -> Float[Array, "d d"]:
        """W S W^T."""
        if isinstance(self.moments, EigenbasisMoments):
            return self.moments.spread(encoder)
        return encoder @ ((self.moments.xx + self.moments.yy) / 2) @ encoder.T

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        own = self.moments.leaf_ndims if isinstance(self.moments, EigenbasisMoments) else (2, 2, 2)
        return (*own, 0, 0, 0, 0)


def feature_cross_correlation(moments: ViewMoments | EigenbasisMoments) -> Float[Array, "*lanes m m"]:
    """Gamma = (yx + yx^T) / 2: the cross-covariance of the views, symmetrised.

    Source: Simon 2023, (4): Gamma = sum_i (x_i x'_i^T + x'_i x_i^T) / (2n).
    """
    if isinstance(moments, EigenbasisMoments):
        return moments.gamma
    return (moments.yx + jnp.swapaxes(moments.yx, -1, -2)) / 2


def barlow_twins_arguments(
    moments: ViewMoments | EigenbasisMoments,
    *,
    off_diagonal_weight: ArrayLike = 1.0,
    ridge: ArrayLike = 1.0,
    kink_width: ArrayLike = 0.0,
    upper_slope: ArrayLike = 0.0,
) -> BarlowTwinsArguments:
    """Validated `BarlowTwinsArguments` of one system, in the dtype of the moments; for lanes, `jax.vmap` this function.

    Args:
        moments: second moments of the views, of equal size m. Simon's are not centred: `moments_from_pairs(x, y, center=False)`,
            or, without m x m matrices where pairs are few, `eigenbasis_from_pairs(x, y)`.
        off_diagonal_weight, kink_width, upper_slope: numbers >= 0, see `BarlowTwinsArguments`.
        ridge: number > 0.

    Raises:
        ValueError: views of different sizes, a number out of range, more than one number.
    """
    if isinstance(moments, ViewMoments):
        require_equal_views(moments)
    dtype = moments.xx.dtype if isinstance(moments, ViewMoments) else moments.gammas.dtype
    named: dict[str, Any] = {"off_diagonal_weight": off_diagonal_weight, "ridge": ridge, "kink_width": kink_width}
    named["upper_slope"] = upper_slope
    for name, value in named.items():
        require_one_number(name, value)
        (require_positive if name == "ridge" else require_nonnegative)(name, value)
        require_representable(name, value, dtype)
    return BarlowTwinsArguments(moments, **{name: jnp.asarray(value, dtype) for name, value in named.items()})


def barlow_twins_arguments_from_pairs(x: ArrayLike, y: ArrayLike, **options: ArrayLike) -> BarlowTwinsArguments:
    """`barlow_twins_arguments` of the pairs (x[i], y[i]), both of shape (n, m): raw second moments, not centred, as in the paper.

    Args:
        x, y: the views, row i of both is one pair.
        options: as in `barlow_twins_arguments`.

    Raises:
        TypeError, ValueError: as `moments_from_pairs` and `barlow_twins_arguments`.

    Source: Simon 2023, (2), (4).
    """
    return barlow_twins_arguments(moments_from_pairs(x, y, center=False), **options)


def barlow_twins_arguments_from_gamma(gamma: ArrayLike, **options: ArrayLike) -> BarlowTwinsArguments:
    """`barlow_twins_arguments` for a given Gamma, any symmetric (m, m): all that the flows but the preconditioned one see.

    The moments are xx = yy = |Gamma| (its eigenvalues in modulus), the smallest that views with this Gamma can have.

    Raises:
        ValueError: not a symmetric, finite matrix that is not 0; or as `barlow_twins_arguments`.
    """
    shape = np.shape(gamma)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"Argument `gamma` must be a square matrix, but has shape {shape}.")
    require_not_empty("gamma", gamma)
    require_finite("gamma", gamma)
    dtype = jnp.result_type(float, jnp.asarray(gamma).dtype)
    require_representable("gamma", gamma, dtype)
    matrix = jnp.asarray(gamma, dtype)
    if not is_traced(matrix):
        largest, gap = float(jnp.abs(matrix).max()), float(jnp.abs(matrix - matrix.T).max())
        require("gamma", largest, "not be 0 throughout (nothing moves)", lambda a: a > 0)
        if gap > 8 * shape[0] * float(jnp.finfo(dtype).eps) * largest:
            raise ValueError(f"Argument `gamma` must be symmetric, but gamma - gamma^T reaches {gap:.3g}.")
    symmetric = (matrix + matrix.T) / 2
    values, columns = jnp.linalg.eigh(symmetric)
    modulus = (columns * jnp.abs(values)) @ columns.T
    return barlow_twins_arguments(view_moments((modulus + modulus.T) / 2, symmetric), **options)


def barlow_twins_state(encoder: ArrayLike) -> BarlowTwinsState:
    """Validated state of one system: encoder W (d, m).

    Raises:
        ValueError: not a matrix, not finite, or so small that the number type would round it to 0, where nothing ever moves
            (float32 ends at 1e-38).
    """
    if np.ndim(encoder) != 2:
        raise ValueError(f"Argument `encoder` must be a matrix, but has shape {np.shape(encoder)}.")
    require_not_empty("encoder", encoder)
    require_finite("encoder", encoder)
    dtype = jnp.result_type(float, jnp.asarray(encoder).dtype)
    require_representable("encoder", encoder, dtype)
    return BarlowTwinsState(jnp.asarray(encoder, dtype))


def embedding_cross_correlation(y: BarlowTwinsState, args: BarlowTwinsArguments) -> Float[Array, "d d"]:
    """C = W Gamma W^T, exactly symmetric. Source: Simon 2023, (2), (4)."""
    c = args.correlated(y.encoder) @ y.encoder.T
    return (c + c.T) / 2


def barlow_twins_loss(y: BarlowTwinsState, args: BarlowTwinsArguments) -> Float[Array, ""]:
    """sum_i (C_ii - 1)^2 + weight sum_{i != j} C_ij^2. Source: Simon 2023, (1), (5), and Zbontar 2021 for the weight."""
    c = embedding_cross_correlation(y, args)
    gap = jnp.diagonal(c) - 1
    return jnp.sum(gap**2) + args.off_diagonal_weight * (jnp.sum(c**2) - jnp.sum(jnp.diagonal(c) ** 2))


def barlow_twins(t: ArrayLike, y: BarlowTwinsState, args: BarlowTwinsArguments) -> BarlowTwinsState:
    """dW/dt = -4 [weight (C - I) + (1 - weight) (diag C - I)] W Gamma: gradient flow of `barlow_twins_loss`.

    Weight 1 is (6), which any rotation W -> U W leaves as it is. With another weight only permutations and signs of the rows
    do: the aligned solution (10) then needs U to be one of them. At weight 0 every row learns the same top feature.

    Source: Simon 2023, (3), (6).
    """
    moved = args.correlated(y.encoder)
    c = moved @ y.encoder.T
    identity = jnp.eye(c.shape[0], dtype=c.dtype)
    weight = args.off_diagonal_weight
    force = weight * (c - identity) + (1 - weight) * (jnp.diag(jnp.diagonal(c)) - identity)
    return BarlowTwinsState(-4 * (force @ moved))


def barlow_twins_preconditioned(t: ArrayLike, y: BarlowTwinsState, args: BarlowTwinsArguments) -> BarlowTwinsState:
    """dW/dt = -4 (W S W^T + ridge I)^-1 (C - I) W Gamma: the gradient divided by the covariance of the embeddings.

    Small embedding directions gain speed, up to the factor 1 / ridge. The off-diagonal weight is 1 here.
    Equilibria are those of (6). Not a gradient flow in the Euclidean metric.

    Source: Simon 2023, (52), per pair: see the head of this file for the factor 2n.
    """
    moved, spread = args.correlated(y.encoder), args.spread(y.encoder)
    identity = jnp.eye(spread.shape[0], dtype=spread.dtype)
    force = (moved @ y.encoder.T - identity) @ moved
    factor = jax.scipy.linalg.cho_factor((spread + spread.T) / 2 + args.ridge * identity)
    return BarlowTwinsState(-4 * jax.scipy.linalg.cho_solve(factor, force))
