"""VICReg: invariance of the pairs, a hinge on the standard deviation of every dimension, decorrelation of the dimensions.

    L = lambda E|z - z'|^2 + mu sum_Z v(Z) + nu sum_Z c(Z),    Z over the branches
    v(Z) = (1/d) sum_j max(0, gamma - sqrt(Var(Z_j) + eps)),   c(Z) = (1/d) sum_{i != j} Cov(Z)_ij^2

Variances and covariances divide by N - 1, eps is inside the root, and both branches have a variance and a covariance term.

Source: Bardes 2022, (1)-(6), as in the note on collapse, section 4.2, which leaves the second branch out. The authors' programme
differs from their paper: it divides the invariance by d as well and takes the mean of the two v instead of their sum.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_nonnegative, require_positive
from jepa_dyn.losses._rows import require_pairs
from jepa_dyn.losses.invariance import invariance_loss


def vicreg_loss(
    first: Float[Array, "n d"],
    second: Float[Array, "_ _"],
    *,
    invariance_weight: ArrayLike = 25.0,
    variance_weight: ArrayLike = 25.0,
    covariance_weight: ArrayLike = 1.0,
    target_std: ArrayLike = 1.0,
    eps: ArrayLike = 1e-4,
    branches: int = 2,
) -> Float[Array, ""]:
    """The loss of the head of this file. At complete collapse branches x mu max(0, gamma - sqrt(eps)), with gradient 0.

    Args:
        first, second: embeddings of the two views, row i of both is one pair, at least 2 pairs.
        invariance_weight, variance_weight, covariance_weight: lambda, mu, nu >= 0.
        target_std: gamma > 0. eps: > 0, inside the root, so that the gradient is finite at variance 0.
        branches: 2, or 1 for variance and covariance of the first view alone, as the note has it.

    Raises:
        ValueError: shapes that differ, fewer than 2 pairs, a number out of range.

    Source: Bardes 2022, (1)-(6); note on collapse, section 4.2.
    """
    require_pairs(first, second, 2, "an unbiased variance needs two")
    for name, weight in (
        ("invariance_weight", invariance_weight),
        ("variance_weight", variance_weight),
        ("covariance_weight", covariance_weight),
    ):
        require_nonnegative(name, weight)
    require_positive("target_std", target_std)
    require_positive("eps", eps)
    if branches not in (1, 2):
        raise ValueError(f"Argument `branches` must be 1 or 2, but is {branches!r}.")
    n, d = first.shape
    loss = jnp.asarray(invariance_weight * invariance_loss(first, second))
    for z in (first, second)[:branches]:
        centred = z - jnp.mean(z, axis=0)
        covariance = centred.T @ centred / (n - 1)
        variances = jnp.diagonal(covariance)
        hinge = jnp.sum(jnp.maximum(target_std - jnp.sqrt(variances + eps), 0)) / d
        redundancy = jnp.sum((covariance - jnp.diag(variances)) ** 2) / d
        loss = loss + variance_weight * hinge + covariance_weight * redundancy
    return loss
