"""Lanes of training: which numbers of the seeds, rates, loss, views and optimiser are one per lane, and what they are called."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jepa_dyn._checks import require, require_choice, require_nonnegative, require_positive
from jepa_dyn.losses import LOSSES, RepresentationLoss, zoo_loss
from jepa_dyn.solve.descent import hashable_optimiser
from jepa_dyn.training.joint_embedding import loss_kind
from jepa_dyn.training.step import Lane


def make_lanes(
    seeds: Any, learning_rate: Any, weight_decay: Any, init_scale: Any, momentum: Any, loss: Any, views: Any, optimiser: Any,
    dtype: Any,
) -> tuple[Lane, int | None]:  # fmt: skip
    """(what lanes differ in, every array with an axis of lanes; how many there are, None for a single run).

    Floating-point numbers of the loss and the views become arrays, so that a new value never recompiles; those of the optimiser
    stay as they are unless they are arrays.

    Raises:
        ValueError: a number out of range, arrays of different lengths or of more than one axis.
        TypeError: a loss that is no name, function or `RepresentationLoss`.
    """
    require(
        "seeds", seeds, "be whole numbers from 0 to 2^31 - 1", lambda a: (a >= 0) & (a < 2**31) & (a == np.round(a))
    )
    require_nonnegative("weight_decay", weight_decay)
    require_positive("init_scale", init_scale)
    if not callable(momentum):
        require("target_momentum", momentum, "lie between 0 and 1", lambda a: (a >= 0) & (a <= 1))
        momentum = jnp.asarray(momentum, dtype)
    rate = jnp.nan if learning_rate is None else learning_rate
    seeds = jnp.asarray(seeds, jnp.uint32)
    lane = Lane(
        seed=seeds,
        key=jax.vmap(jax.random.key)(seeds) if seeds.ndim else jax.random.key(seeds),
        learning_rate=jnp.asarray(rate, dtype),
        weight_decay=jnp.asarray(weight_decay, dtype),
        init_scale=jnp.asarray(init_scale, dtype),
        momentum=_numbers(momentum, dtype),
        loss=_numbers(resolve_loss(loss), dtype),
        views=_numbers(views, dtype),
        optimiser=_arrays(hashable_optimiser(optimiser), dtype),
    )
    sizes: dict[str, Any] = {name: np.shape(value) for name, value in named_numbers(lane).items()}
    long = {name: shape for name, shape in sizes.items() if shape}
    for name, shape in long.items():
        if len(shape) > 1 or shape[0] == 0:
            raise ValueError(f"Argument `{name}` must be a number or one per lane, but has shape {shape}.")
    if len(set(long.values())) > 1:
        listed = ", ".join(f"`{name}` has {shape[0]}" for name, shape in long.items())
        raise ValueError(f"Lane axes must agree, but {listed}.")
    count = max((shape[0] for shape in long.values()), default=None)
    arrays, rest = eqx.partition(lane, eqx.is_array)
    spread = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count or 1,)), arrays)
    return eqx.combine(spread, rest), count


def resolve_loss(loss: Any) -> Any:
    """A name of the zoo as its function; a `functools.partial` as one that compares by value.

    Raises:
        ValueError: an unknown name. TypeError: no loss.
    """
    if isinstance(loss, str):
        require_choice("loss", loss, tuple(LOSSES))
        return zoo_loss_partial(loss)
    if not callable(loss) and not isinstance(loss, RepresentationLoss):
        raise TypeError(
            "Argument `loss` must be a name of `losses.LOSSES`, a function of two arrays or a RepresentationLoss, "
            f"but has type {type(loss).__name__}."
        )
    return hashable_optimiser(loss)


def zoo_loss_partial(name: str) -> Any:
    """The loss of the zoo with its defaults."""
    return hashable_optimiser(zoo_loss(name))


def require_batch(loss: Any, size: int, name: str) -> None:
    """Raises ValueError where a batch is too small for a loss of the zoo."""
    function = loss.func if isinstance(loss, functools.partial) else loss
    for own, entry in LOSSES.items():
        if entry.function is function and size < entry.least_batch:
            raise ValueError(
                f"Argument `{name}` must be at least {entry.least_batch} for the loss {own!r}, but is {size}."
            )


def describe_loss(loss: Any) -> str:
    """For the summary of a result."""
    if isinstance(loss, RepresentationLoss):
        return f"{loss.distance} loss" + (f", iso {loss.iso}" if loss.is_iso else "")
    function = loss.func if isinstance(loss, functools.partial) else loss
    return f"{getattr(function, '__name__', type(function).__name__)} of {loss_kind(loss)}"


def named_numbers(lane: Lane) -> dict[str, Array]:
    """All numbers that lanes may differ in, by name: `learning_rate`, `loss_temperature`, `views_first_0_sigma`, ..."""
    found = {name: getattr(lane, name) for name in ("seed", "learning_rate", "weight_decay", "init_scale")}
    parts = {"target_momentum": lane.momentum, "loss": lane.loss, "views": lane.views, "optimiser": lane.optimiser}
    for name, part in parts.items():
        tree = dict(part.keywords) if isinstance(part, functools.partial) else part
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if eqx.is_array(leaf):
                own = jax.tree_util.keystr(path, simple=True, separator="_")
                found["_".join(text for text in (name, own) if text)] = leaf
    return found


def _numbers(tree: Any, dtype: Any) -> Any:
    """Floating-point numbers and arrays of them as arrays of `dtype`."""
    return _arrays(jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, float) else leaf, tree), dtype)


def _arrays(tree: Any, dtype: Any) -> Any:
    def convert(leaf: Any) -> Any:
        numeric = isinstance(leaf, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, dtype) if numeric else leaf

    return jax.tree.map(convert, tree)
