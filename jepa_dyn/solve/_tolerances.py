"""Tolerances by number type: rounding sets the smallest that can be met."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jepa_dyn._checks import is_traced, require

_RTOL_IN_EPS = {8: 4.5e7, 4: 80.0}  # float64: 1e-8, float32: 1e-5


def state_dtype(y0: Any) -> np.dtype:
    """Common floating dtype of the leaves of a state."""
    dtype = jnp.result_type(*(jnp.asarray(leaf) for leaf in jax.tree.leaves(y0)))
    return np.dtype(dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float))


def resolve_tolerances(rtol: Any, atol: Any, dtype: np.dtype) -> tuple[Array, Array]:
    """(rtol, atol) as arrays of `dtype`; None gives the default: float64 (1e-8, 1e-12), float32 (1e-5, 1e-9).

    Raises:
        ValueError: rtol is below 10 times the spacing of the number type at 1, or atol is not > 0.
    """
    eps = float(jnp.finfo(dtype).eps)
    if rtol is None:
        rtol = min(_RTOL_IN_EPS.get(dtype.itemsize, 80.0) * eps, 1e-2)
    if atol is None:
        atol = np.asarray(rtol) * 1e-4 if not is_traced(rtol) else rtol * 1e-4
    if np.shape(rtol) or np.shape(atol):
        raise ValueError(
            f"Arguments `rtol` and `atol` must be single numbers, but have shapes {np.shape(rtol)} and {np.shape(atol)}."
        )
    smallest = 10 * eps
    require(
        "rtol", rtol, f"be at least {smallest:.1e} and below 1 in {dtype.name}", lambda a: (a >= smallest) & (a < 1)
    )
    require("atol", atol, "be finite and > 0", lambda a: np.isfinite(a) & (a > 0))
    return jnp.asarray(rtol, dtype), jnp.asarray(atol, dtype)
