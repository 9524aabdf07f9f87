"""JAX's number width: the global switch that a user throws, and a context for one block of code on one thread."""

from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp


def enable_x64(on: bool = True) -> None:
    """Turns JAX's 64-bit numbers on (or off) for the whole process; never done on import."""
    jax.config.update("jax_enable_x64", on)


def x64_is_on() -> bool:
    """Whether arrays made here and now may be float64."""
    return jnp.result_type(float) == jnp.float64


def x64_context(on: bool) -> AbstractContextManager:
    """64-bit numbers on or off inside a `with` block, on this thread only (JAX's context does not reach worker threads)."""
    manager = getattr(jax, "enable_x64", None)  # its place since JAX 0.8
    if manager is None:
        from jax.experimental import enable_x64 as manager  # pyright: ignore[reportAttributeAccessIssue]
    return manager(on)
