"""Has a state arrived? A scalar one by how far its fixed point still is, scale-free in time; any other by its speed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jepa_dyn._checks import require_positive
from jepa_dyn.solve._tolerances import state_dtype


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


def stands_still(slope: Any, y: Any, speed: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether max |dy/dt| < speed (1 + max |y|), over all numbers of a state.

    For autonomous flows of any size, whose clock says which speed is small. It fires as well on a path that comes within some
    `speed` / (rate of escape) of a saddle.
    """

    def largest(tree: Any) -> Array:
        return jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]).max()

    return largest(slope) < speed * (1 + largest(y))


def arrival(flow: Callable, settle: Float[Array, ""] | None) -> Callable[..., Bool[Array, ""]]:
    """The test that stops a lane, of (t, y, slope, args, rtol, atol): by speed where one is given, else `has_settled`."""
    if settle is None:
        return lambda t, y, slope, args, rtol, atol: has_settled(lambda v: flow(t, v, args), y, rtol, atol)
    return lambda t, y, slope, args, rtol, atol: stands_still(slope, y, settle)


def resolve_settle(settle: Any, y0: Any, *, one_number: bool) -> tuple[bool, Array | None]:
    """(whether lanes stop, by which speed; None is the test for one number), from what the caller gave.

    Raises:
        ValueError: True for a state of several numbers, a speed that is not > 0.
    """
    if isinstance(settle, bool | np.bool_):
        if settle and not one_number:
            raise ValueError(
                "Argument `settle` must be False or a speed unless the state is one number: matrix flows pass near saddles."
            )
        return bool(settle), None
    require_positive("settle", settle)
    return True, jnp.asarray(settle, state_dtype(y0))
