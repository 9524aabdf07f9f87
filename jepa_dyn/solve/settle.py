"""Has a scalar state arrived at its fixed point? Decided by the vector field alone, scale-free in time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def has_settled(
    speed: Callable[[Array], Array], y: Float[Array, ""], rtol: Float[Array, ""], atol: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether the estimated distance left, |f|^3 / (-f Jf) = |f / f'|, is below rtol |y| + atol while the speed decays (f Jf < 0).

    f = 0 exactly is settled as well. Unchanged by f -> c f, so that a small-initialisation plateau, where f' > 0, never fires.
    Only for autonomous flows of one number: a matrix flow that passes near a saddle decays for a while and would be caught.
    """
    # |f| < |f'| tol is the same test without the cube, which underflows in float32
    f, slope = jax.jvp(speed, (y,), (jnp.ones_like(y),))
    return ((slope < 0) & (jnp.abs(f) < -slope * (rtol * jnp.abs(y) + atol))) | (f == 0)
