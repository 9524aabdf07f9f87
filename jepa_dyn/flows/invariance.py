"""Invariance alone on a linear encoder: L = E|W x - W x'|^2, dW/dt = -2 eta W S, S = E[(x - x')(x - x')^T].

W falls at the rates 2 eta s of the eigenvalues s of S: complete collapse where S > 0. Closed form in `theory.linear_collapse`.

Source: note on collapse, section 3.1.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn.moments import ViewMoments
from jepa_dyn.moments.view_moments import require_equal_views
from jepa_dyn.parameters import Leaf, checked_rates


class InvarianceArguments(eqx.Module):
    """What the flow sees of the data. Build it with `invariance_arguments`, which validates.

    - `difference`: S, (m, m), positive semidefinite. `rate`: eta >= 0, the learning rate of the note.
    """

    difference: Float[Leaf, "*lanes m m"]
    rate: Float[Leaf, "*#lanes"]

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (2, 0)


def invariance_arguments(moments: ViewMoments, *, rate: ArrayLike = 1.0) -> InvarianceArguments:
    """Validated `InvarianceArguments` of one system; for lanes, `jax.vmap` this function.

    Args:
        moments: second moments of the views, of equal size m.
        rate: eta >= 0.

    Raises:
        ValueError: views of different sizes, a rate that is negative or not finite.
    """
    require_equal_views(moments)
    return InvarianceArguments(moments.difference, **checked_rates(moments.xx.dtype, rate=rate))


def invariance(t: ArrayLike, y: Float[Array, "d m"], args: InvarianceArguments) -> Float[Array, "d m"]:
    """dW/dt = -2 eta W S of the encoder W, in gradient-flow time. Source: note on collapse, section 3.1."""
    return -2 * args.rate * y @ args.difference


def invariance_objective(y: Float[Array, "d m"], args: InvarianceArguments) -> Float[Array, ""]:
    """E|W x - W x'|^2 = tr(W S W^T). Source: note on collapse, section 3.1."""
    return jnp.sum((y @ args.difference) * y)
