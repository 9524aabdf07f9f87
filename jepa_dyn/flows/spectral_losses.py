"""Barlow Twins with a loss of one's own on the eigenvalues of C: L = sum h(eig C), dW/dt = -2 h'(C) W Gamma (Simon 2023, app. G).

    squared      h = (1 - l)^2                                             `barlow_twins.barlow_twins`, without eigenvalues
    sharp        h = (g(l) - 1)^2,  g = sign(l) |l|^(1/2)                  a kink at zero: no plateau
    smooth       h = (g(l) - 1)^2,  g = min(l, 1 + upper_slope (1 - l))    flat above 1: a large step does not bounce
    quartic      h = (1 - l)^4                                             no curvature at the minimum

h' acts on the eigenvalues of C. Its derivative is exact at repeated ones too (divided differences, not that of the eigenvectors),
which implicit solvers need: at the end all learned eigenvalues are 1.

Source: Simon 2023, G.2, G.3. The print leaves out the square, |g(C) - I|_F; by its own (1) and figure 9 the square is meant.
Without it the path is the same and only the clock differs: dt' = 2 |g(C) - I|_F dt, so the minimum is reached at a finite t'.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn.flows.barlow_twins import BarlowTwinsArguments, BarlowTwinsState, embedding_cross_correlation

EigenvalueLoss = Callable[[Array, BarlowTwinsArguments], Array]


def _elementwise_slope(function: Callable[[Array], Array], x: Array) -> Array:
    return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _slope_of_matrix(h: EigenvalueLoss, c: Array, args: BarlowTwinsArguments) -> Array:
    """h'(C) for a symmetric C."""
    values, columns = jnp.linalg.eigh(c)
    return (columns * _elementwise_slope(lambda l: h(l, args), values)) @ columns.T


@_slope_of_matrix.defjvp
def _slope_of_matrix_jvp(h, primals, tangents):
    """Daleckii and Krein: in the eigenbasis, dh'(C)_ij = dC_ij times the divided difference of h' between l_i and l_j."""
    (c, args), (c_dot, args_dot) = primals, tangents
    values, columns = jnp.linalg.eigh(c)

    def slope(l: Array) -> Array:
        return _elementwise_slope(lambda v: h(v, args), l)

    left, right = values[:, None], values[None, :]
    gap = left - right
    # below the square root of the precision the derivative in the middle is the better difference
    near = jnp.abs(gap) <= jnp.sqrt(jnp.finfo(c.dtype).eps) * (jnp.abs(left) + jnp.abs(right))
    rises = (slope(values)[:, None] - slope(values)[None, :]) / jnp.where(near, 1.0, gap)
    divided = jnp.where(near, _elementwise_slope(slope, (left + right) / 2), rises)
    turned = divided * (columns.T @ c_dot @ columns)
    by_args = jax.jvp(lambda a: _elementwise_slope(lambda l: h(l, a), values), (args,), (args_dot,))[1]
    value = (columns * slope(values)) @ columns.T
    return value, columns @ (turned + jnp.diag(by_args)) @ columns.T


class SpectralFlow(eqx.Module):
    """The gradient flow of L = sum h(eig C): a flow f(t, y, args) for any solver, one program per h.

    `h(l, args) -> array of the shape of l` acts on each eigenvalue alone and is written in jax.numpy; it must be a function at
    module level, since two equal ones share a compiled program. Its slope is taken by autodiff: at a kink that is the slope of the
    branch that `jnp.where` takes.

    `loss(y, args)` is L. An eigenvalue of C moves under an aligned start as dl/dt = -4 gamma l h'(l).
    """

    h: EigenvalueLoss = eqx.field(static=True)

    def __call__(self, t: ArrayLike, y: BarlowTwinsState, args: BarlowTwinsArguments) -> BarlowTwinsState:
        """-2 h'(C) W Gamma."""
        slope = _slope_of_matrix(self.h, embedding_cross_correlation(y, args), args)
        return BarlowTwinsState(-2 * (slope @ args.correlated(y.encoder)))

    def loss(self, y: BarlowTwinsState, args: BarlowTwinsArguments) -> Float[Array, ""]:
        """sum h(eig C)."""
        return jnp.sum(self.h(jnp.linalg.eigvalsh(embedding_cross_correlation(y, args)), args))


def _rounded_root(l: Array, width: Array) -> Array:
    """g = l / (l^2 + k^2)^(1/4): sign(l) |l|^(1/2) for k = 0, with slope k^-1/2 at zero else; 0 with slope 0 at l = k = 0."""
    at_kink = (l == 0) & (width == 0)
    # hypot keeps the squares of tiny eigenvalues from underflowing
    size = jnp.hypot(jnp.where(at_kink, 1.0, l), width)
    return jnp.where(at_kink, 0.0, l / jnp.sqrt(size))


def _sharp(l: Array, args: BarlowTwinsArguments) -> Array:
    return (_rounded_root(l, jnp.asarray(args.kink_width)) - 1) ** 2


def _smooth(l: Array, args: BarlowTwinsArguments) -> Array:
    g = jnp.where(l <= 1, l, 1 + args.upper_slope * (1 - l))
    return (g - 1) ** 2


def _quartic(l: Array, args: BarlowTwinsArguments) -> Array:
    return (1 - l) ** 4


barlow_twins_sharp = SpectralFlow(_sharp)
"""g = sign(l) |l|^(1/2): every feature with gamma > 0 leaves zero with speed 2 gamma^(1/2), whatever its start.

A feature with gamma < 0 reaches 0 in the finite time log(1 + |gamma|^(1/2) s(0)) / (2 |gamma|), where the field jumps and explicit
solvers grind: give `kink_width` > 0 where Gamma has negative eigenvalues or d > m (an eigenvalue 0 of C, of which rounding makes
+-1e-17). Exactly at zero, with k = 0, the force is taken as 0.
Source: Simon 2023, G.2, footnote 26 (solvable: `theory.barlow_twins_variants.sharp_singular_value`).
"""

barlow_twins_smooth = SpectralFlow(_smooth)
"""g = min(l, 1 + epsilon (1 - l)), epsilon = `upper_slope`: from below it moves as (6), from above epsilon^2 times slower.

Gradient descent overshoots and, for epsilon = 0, stays above. Source: Simon 2023, G.3.
"""

barlow_twins_quartic = SpectralFlow(_quartic)
"""h = (1 - l)^4: leaves zero twice as fast as (6), approaches the minimum as 1 - l ~ (32 gamma t)^(-1/2).

Source: Simon 2023, G.3.
"""
