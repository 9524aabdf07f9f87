"""What all kinds of discrete training ask of their arguments: optimiser, learning rate, bound, saved steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jepa_dyn._checks import is_traced, require, require_not_empty, require_positive

DIVERGED_ABOVE = 1e6


def check_optimiser(optimiser: Any, learning_rate: Any, diverged_above: Any) -> None:
    """A function of a learning rate with one, or a ready optax transformation without; a bound > 0.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    ready = isinstance(optimiser, optax.GradientTransformation)
    if not ready and not callable(optimiser):
        raise TypeError(
            "Argument `optimiser` must be a function of a learning rate or an optax transformation, "
            f"but has type {type(optimiser).__name__}."
        )
    if ready != (learning_rate is None):
        raise ValueError(
            "Argument `learning_rate` must be given with a function such as `optax.sgd`, and left out with a ready "
            "optax transformation, which already has one."
        )
    if learning_rate is not None:
        require_not_empty("learning_rate", learning_rate)
        require_positive("learning_rate", learning_rate)
        if np.ndim(learning_rate) > 1:
            raise ValueError(
                f"Argument `learning_rate` must be a number or one per lane, but has shape {np.shape(learning_rate)}."
            )
    require("diverged_above", diverged_above, "be > 0", lambda a: a > 0)


def checked_steps(steps: Any) -> Array:
    """Numbers of steps to save at as an integer array.

    Raises:
        ValueError: not a list of whole numbers >= 0 that increases.
    """
    if np.ndim(steps) != 1:
        raise ValueError(f"Argument `steps` must have shape (T,), but has shape {np.shape(steps)}.")
    require_not_empty("steps", steps)
    require("steps", steps, "be whole numbers >= 0", lambda a: (a >= 0) & (a == np.round(a)))
    if not is_traced(steps) and not (np.diff(np.asarray(steps, float)) > 0).all():
        raise ValueError("Argument `steps` must be strictly increasing.")
    return jnp.asarray(steps, jnp.int32)


def optimiser_name(optimiser: Any) -> str:
    """For the summary of a result: `sgd`."""
    named = optimiser.func if isinstance(optimiser, jax.tree_util.Partial) else optimiser
    return getattr(named, "__name__", type(named).__name__)
