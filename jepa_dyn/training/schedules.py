"""The momentum alpha of a moving-average target over the steps: target <- alpha target + (1 - alpha) online after each of them."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require, require_choice, require_count

KINDS = ("linear", "cosine")


class MomentumSchedule(eqx.Module):
    """alpha after step t = 1, 2, ...: from `start` to `end` over `steps` steps and `end` from then on.

    "linear": start + (end - start) s with s = t / steps. "cosine": end - (end - start) (1 + cos(pi s)) / 2, for end = 1 the
    schedule of BYOL (Grill 2020). A constant alpha needs no schedule. `start` and `end` may be arrays, one number per lane.
    """

    start: Any
    end: Any = 1.0
    steps: Any = 1
    kind: str = eqx.field(static=True, default="cosine")

    def __post_init__(self):
        require_choice("kind", self.kind, KINDS)
        require_count("steps", self.steps)
        for name in ("start", "end"):
            require(name, getattr(self, name), "lie between 0 and 1", lambda a: (a >= 0) & (a <= 1))

    def __call__(self, t: ArrayLike) -> Float[Array, ""]:
        done = jnp.clip(jnp.asarray(t, float) / self.steps, 0.0, 1.0)
        left = (1 + jnp.cos(jnp.pi * done)) / 2 if self.kind == "cosine" else 1 - done
        return self.end - (self.end - self.start) * left


def cosine_momentum(start: ArrayLike, end: ArrayLike, steps: ArrayLike) -> MomentumSchedule:
    """`MomentumSchedule` along half a cosine. Source: Grill 2020; Halvagal 2023, appendix D, from 0.99 to 1."""
    return MomentumSchedule(start, end, steps, "cosine")


def linear_momentum(start: ArrayLike, end: ArrayLike, steps: ArrayLike) -> MomentumSchedule:
    """`MomentumSchedule` along a line, as in I-JEPA (Assran 2023), from 0.996 to 1."""
    return MomentumSchedule(start, end, steps, "linear")
