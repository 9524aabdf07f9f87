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
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._matrix_functions import elementwise_slope, matrix_function
from jepa_dyn.flows.barlow_twins import BarlowTwinsArguments, BarlowTwinsState, embedding_cross_correlation

EigenvalueLoss = Callable[[Array, BarlowTwinsArguments], Array]


def _slope(h: EigenvalueLoss, l: Array, args: BarlowTwinsArguments) -> Array:
    return elementwise_slope(lambda v: h(v, args), l)


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
        slope = matrix_function(partial(_slope, self.h), embedding_cross_correlation(y, args), args)
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
