"""Coordinates of the normal form: three kinds of orbit, one equation dz/ds = y(z)^n.

With y = (w / w_scale)^r every scalar mode is one of

    grow    lam > 0, y < 1   dy/ds =  y^(1+n) (1 - y)    z = logit y            in (-inf, inf)   y = 1 / (1 + e^-z)
    shrink  lam > 0, y > 1   dy/ds = -y^(1+n) (y - 1)    z = log(y / (y - 1))   in (0, inf)      y = 1 / (1 - e^-z)
    decay   lam < 0, y > 0   dy/ds = -y^(1+n) (1 + y)    z = log(1 + 1 / y)     in (0, inf)      y = 1 / (e^z - 1)

and in all three dz/ds = y^n, so z grows without bound while y arrives. z resolves both ends: 1 - y is never formed.
Everything is a function of x = log y, because y itself leaves the range of floating-point numbers.

Source: the substitutions of Littwin 2024, eqs (80), (98), joined into one (see `normal_form`); the shrink branch replaces
eqs (12), (81), (90), which print E/(1+E) < 1 there, and the decay branch is not in the paper.
"""

from types import ModuleType

import jax.numpy as jnp
import numpy as np
from jax.nn import softplus
from jaxtyping import Array, Float, Int

from jepa_dyn.parameters import Leaf

GROW, SHRINK, DECAY = 0, 1, 2
Branch = Int[Array, "..."] | int


def select(
    branch: Branch, grow: Float[Array, "..."], shrink: Float[Array, "..."], decay: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The value that belongs to each lane's branch; a branch known in Python leaves the others out of the program."""
    if isinstance(branch, int):
        return (grow, shrink, decay)[branch]
    return jnp.where(branch == GROW, grow, jnp.where(branch == SHRINK, shrink, decay))


def namespace(x: Leaf) -> ModuleType:
    """numpy for its arrays, else jax.numpy: tables are built by the same formulas without compiling anything."""
    return np if isinstance(x, np.ndarray) else jnp


def log_one_minus_exp(x: Float[Leaf, "..."]) -> Float[Leaf, "..."]:
    """log(1 - e^x) for x < 0, accurate at both ends."""
    xp = namespace(x)
    near = x > -0.7
    return xp.where(near, xp.log(-xp.expm1(xp.where(near, x, -1.0))), xp.log1p(-xp.exp(xp.where(near, -1.0, x))))


def clip_to_branch(x: Float[Array, "..."], branch: Branch) -> tuple[Array, Array, Array]:
    """x three times, each safe to use in one branch: < 0 for grow, > 0 for shrink, any for decay."""
    tiny = jnp.finfo(x.dtype).tiny
    return (
        jnp.where(branch == GROW, jnp.minimum(x, -tiny), -1.0),
        jnp.where(branch == SHRINK, jnp.maximum(x, tiny), 1.0),
        x,
    )


def z_from_log_y(x: Float[Array, "..."], branch: Branch) -> Float[Array, "..."]:
    """Coordinate z of the state y = e^x."""
    below, above, any_x = clip_to_branch(x, branch)
    return select(branch, below - log_one_minus_exp(below), -log_one_minus_exp(-above), softplus(-any_x))


def log_y_from_z(z: Float[Array, "..."], branch: Branch) -> Float[Array, "..."]:
    """x = log y of the coordinate z."""
    positive = jnp.where(branch == GROW, 1.0, jnp.maximum(z, jnp.finfo(z.dtype).tiny))
    log_gap = log_one_minus_exp(-positive)
    return select(branch, -softplus(-z), -log_gap, -(positive + log_gap))


def speed_factor(x: Float[Array, "..."], branch: Branch) -> Float[Array, "..."]:
    """dx/dz: 1 - y for grow and shrink, -(1 + y) for decay."""
    return jnp.where(branch == DECAY, -(1 + jnp.exp(x)), -jnp.expm1(jnp.where(branch == DECAY, -1.0, x)))
