"""Parameters of the scalar mode equations, shared by the flows and by the closed forms that mirror them.

They live below both, because `flows/` and `theory/` never import each other.
"""

from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import (
    is_traced,
    require,
    require_broadcastable,
    require_finite,
    require_nonnegative,
    require_not_empty,
    require_one_number,
    require_positive,
)

OBJECTIVES = ("jepa", "mae")
OBJECTIVE_NAMES = {"jepa": "JEPA", "mae": "MAE"}
if TYPE_CHECKING:
    Objective = Literal["jepa", "mae"]
    Leaf = Any
else:
    # at run time any string, so that an unknown one meets our own message and not that of a type checker
    Objective = str
    # host code keeps numpy leaves in the same classes
    Leaf = Array | np.ndarray


def checked_rates(dtype: Any, **rates: ArrayLike) -> dict[str, Array]:
    """Rates of a flow of one system, one number >= 0 each, as arrays.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in rates.items():
        require_one_number(name, value)
        require_nonnegative(name, value)
    return {name: jnp.asarray(value, dtype) for name, value in rates.items()}


class ModeParameters(eqx.Module):
    """One feature of the data as one depth of encoder sees it. Build it with `mode_parameters`, which validates.

    The leaves broadcast against each other; any of them may be mapped over with `jax.vmap`.

    - `lam`: covariance of the feature between the two views, an eigenvalue of Sigma_yx; any sign.
    - `variance`: sigma^2, the eigenvalue of Sigma_xx, >= 0. `rho = lam / variance` is the regression coefficient.
    - `depth`: number L of encoder layers, any real number > 0.
    - `weight_decay`: kappa >= 0 in the clock of the mode equations, dw/dt = ... - kappa w.

    Source: Littwin 2024, section 2 (lambda_i, sigma_i^2, rho_i) and eqs (7), (8).
    """

    lam: Float[Leaf, "*#batch"]
    variance: Float[Leaf, "*#batch"]
    depth: Float[Leaf, "*#batch"]
    weight_decay: Float[Leaf, "*#batch"]

    @property
    def rho(self) -> Array:
        """Regression coefficient lam / variance."""
        return self.lam / self.variance

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of the leaves."""
        return jnp.broadcast_shapes(*(jnp.shape(leaf) for leaf in self._leaves()))

    def broadcast(self) -> "ModeParameters":
        """The same parameters with every leaf of the common shape."""
        return ModeParameters(*(jnp.broadcast_to(leaf, self.shape) for leaf in self._leaves()))

    def _leaves(self) -> tuple[Array, Array, Array, Array]:
        return (self.lam, self.variance, self.depth, self.weight_decay)


def mode_parameters(
    lam: ArrayLike,
    rho: ArrayLike | None = None,
    depth: ArrayLike = 1.0,
    *,
    variance: ArrayLike | None = None,
    weight_decay: ArrayLike = 0.0,
) -> ModeParameters:
    """Validated `ModeParameters` from (lam, rho) or from (lam, variance).

    Args:
        lam: covariance of the feature between the views; any sign.
        rho: regression coefficient lam / variance; must have the sign of `lam`, because a variance is not negative.
            A feature with lam = 0 has rho = 0 whatever its variance: give `variance` there.
        depth: number of encoder layers, > 0, need not be an integer.
        variance: variance of the feature in the first view, >= 0; give exactly one of `rho` and `variance`.
        weight_decay: >= 0.

    All arguments broadcast. The dtype is that of the inputs (float64 only where x64 is on).

    Raises:
        ValueError: a value is not finite or out of range, shapes disagree, or not exactly one of rho and variance is given.
    """
    if (rho is None) == (variance is None):
        raise ValueError("Exactly one of the arguments `rho` and `variance` must be given.")
    named = {"lam": lam, "depth": depth, "weight_decay": weight_decay}
    named |= {"rho": rho} if variance is None else {"variance": variance}
    for name, value in named.items():
        require_not_empty(name, value)
        require_finite(name, value)
    require_broadcastable(**named)
    require_positive("depth", depth, "an encoder has some depth")
    require_nonnegative("weight_decay", weight_decay)
    dtype = jnp.result_type(float, *(jnp.asarray(v).dtype for v in named.values() if not isinstance(v, int | float)))
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    if variance is None:
        require(
            "rho",
            rho,
            "not be 0 (a feature with lam = 0 is described by its `variance`, given instead of `rho`)",
            lambda a: a != 0,
        )
        lam_array, rho_array = jnp.asarray(lam, dtype), jnp.asarray(rho, dtype)
        if not is_traced(lam, rho):
            require(
                "rho",
                jnp.broadcast_to(rho_array, jnp.broadcast_shapes(lam_array.shape, rho_array.shape)),
                "have the sign of `lam` (rho = lam / variance)",
                lambda a: a * jnp.asarray(lam_array) >= 0,
            )
        variance = lam_array / rho_array
    else:
        require_nonnegative("variance", variance, "a variance cannot be negative")
    return ModeParameters(
        *(jnp.asarray(leaf, dtype) for leaf in (lam, variance, depth, weight_decay)),
    )
