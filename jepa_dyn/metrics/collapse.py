"""Collapse of a spectrum as one small code per lane: none, dimensional, complete.

With eigenvalues x of the covariance of embeddings and a scale, the total variance that counts as whole,

    complete      sum x <= lost x scale                    nothing varies any more
    dimensional   not so, and some x <= share x max x      they vary in fewer dimensions than they have
    none          otherwise

The thresholds are arguments. What a path of spectra did from its start to its end is `spectrum_outcome`.

Source: note on collapse, sections 3.1, 3.2, which ask for zeros and for "<<"; the thresholds are ours.
"""

from enum import IntEnum

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, UInt8

from jepa_dyn._checks import is_traced, require_broadcastable, require_fraction, require_nonnegative
from jepa_dyn.metrics.embedding_spectra import covariance_eigenvalues

LOST, SHARE = 1e-6, 1e-3
_MATRIX = 2


class Collapse(IntEnum):
    """Kind of collapse of one spectrum. Stored in datasets: never renumber, only append."""

    none = 0
    dimensional = 1
    complete = 2
    unknown = 3  # a spectrum with NaN or infinity


def collapse_code(
    eigenvalues: ArrayLike, *, scale: ArrayLike = 1.0, lost: ArrayLike = LOST, share: ArrayLike = SHARE
) -> UInt8[Array, "*batch"]:
    """`Collapse` of every spectrum, (..., d) -> (...): see the head of this file.

    Args:
        eigenvalues: (..., d) of covariances, >= 0 up to rounding. Only those that could be alive: of N samples no more than N - 1
            are, of an encoder of m inputs no more than m.
        scale: total variance that counts as whole, for example the one at the start of the run; broadcasts against (...).
        lost: share of the scale at or below which nothing is left, in (0, 1).
        share: share of the largest eigenvalue at or below which a dimension is lost, in (0, 1).

    Raises:
        ValueError: no axis of eigenvalues, a threshold not in (0, 1), a negative scale, shapes that do not broadcast.
    """
    spectrum = jnp.asarray(eigenvalues)
    if spectrum.ndim == 0 or spectrum.shape[-1] == 0:
        raise ValueError(
            f"Argument `eigenvalues` must have shape (..., d) with d >= 1, but has shape {spectrum.shape}."
        )
    require_fraction("lost", lost)
    require_fraction("share", share)
    require_nonnegative("scale", scale)
    require_broadcastable(eigenvalues=spectrum[..., 0], scale=scale)
    return _collapse_code(spectrum, jnp.asarray(scale), jnp.asarray(lost), jnp.asarray(share))


@jax.jit
def _collapse_code(spectrum: Array, scale: Array, lost: Array, share: Array) -> Array:
    known = jnp.all(jnp.isfinite(spectrum), axis=-1) & jnp.isfinite(scale)
    gone = jnp.sum(spectrum, axis=-1) <= lost * scale
    thin = jnp.min(spectrum, axis=-1) <= share * jnp.max(spectrum, axis=-1)
    found = jnp.where(gone, Collapse.complete, jnp.where(thin, Collapse.dimensional, Collapse.none))
    return jnp.where(known, found, Collapse.unknown).astype(jnp.uint8)


def embedding_collapse(
    embeddings: Float[Array, "N d"],
    *,
    scale: ArrayLike | None = None,
    lost: ArrayLike = LOST,
    share: ArrayLike = SHARE,
) -> UInt8[Array, ""]:
    """`Collapse` of the embeddings of N >= 2 samples: `collapse_code` of the largest min(N - 1, d) eigenvalues of their covariance.

    Args:
        embeddings: (N, d), one row per sample.
        scale: by default the mean square of the embeddings, mean included, so that constant embeddings of any length have
            collapsed completely. It does not see an encoder that shrinks to 0 in all dimensions alike: give it the variance at
            the start for that.
        lost, share: as in `collapse_code`.

    Raises:
        ValueError: not a matrix of at least 2 rows, a threshold or scale out of range.
    """
    shape = np.shape(embeddings)
    if len(shape) != _MATRIX or shape[0] < _MATRIX or shape[1] == 0:
        raise ValueError(f"Argument `embeddings` must have shape (N, d) with N >= 2, d >= 1, but has shape {shape}.")
    spectrum = covariance_eigenvalues(embeddings)[: min(shape[0] - 1, shape[1])]
    whole = jnp.mean(jnp.sum(embeddings**2, axis=1)) if scale is None else scale
    if not is_traced(whole) and not np.all(np.isfinite(np.asarray(whole))):
        whole = jnp.zeros(())  # the spectrum says unknown
    return collapse_code(spectrum, scale=whole, lost=lost, share=share)
