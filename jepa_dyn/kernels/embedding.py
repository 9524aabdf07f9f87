"""Barlow Twins through a kernel: what it learns, when, and embeddings f(x, t) of any point in closed form (Simon 2023, section 5).

With gamma_j and eigenfunctions g_j from `pair_spectrum`, the model trained from a small start is

    f(x, t) = U diag(s(t)) [g_1(x) .. g_d(x)]^T,      ds_j/dt = 4 gamma_j s_j (1 - gamma_j s_j^2),      s_j(inf) = gamma_j^(-1/2)

the aligned motion of `theory.barlow_twins_alignment`, its features given by g_j(x) = sum_i coefficients_ji K(x~_i, x).
At t = inf it is the top spectral solution, of least norm among all embeddings of loss zero. Times are gradient-flow times.

Source: Simon 2023, proposition 5.1, (38)-(42), without inverse: for K~^(-1/2) b_j stands S K~^(1/2) b_j / (2n gamma_j).
Corrections: in (41) Gamma^(<=d) is to be transposed; s_j(0) is R_jj of a QR factorisation, not (19) as printed.
"""

import warnings
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, UInt8

from jepa_dyn._checks import (
    is_traced,
    require_count,
    require_finite,
    require_one_number,
    require_positive,
    require_representable,
)
from jepa_dyn.kernels._points import product
from jepa_dyn.kernels.spectrum import PairSpectrum, pair_spectrum
from jepa_dyn.parameters import Leaf
from jepa_dyn.status import Status
from jepa_dyn.theory.barlow_twins_alignment import AlignedMotion, rms_singular_values, unique_qr


class EmbeddingTrajectory(eqx.Module):
    """Modes of the embedding at the times `ts` (of any shape).

    - `singular_values` s_j, `eigenvalues` gamma_j s_j^2 of the cross-correlation C of the embeddings; `loss` = |C - I|^2.
    - `status`: per time and mode; `unresolved` where s_j or gamma_j s_j^2 is below the smallest number of the type: the eigenvalue
      is NaN there, not 0. `invalid_parameter` where s_j(0) <= 0 or gamma_j is not positive beyond rounding: lanes of a batch only.
    """

    ts: Float[Array, "..."]
    singular_values: Float[Array, "... d"]
    eigenvalues: Float[Array, "... d"]
    loss: Float[Array, "..."]
    status: UInt8[Array, "... d"]


class KernelBarlowTwins(eqx.Module):
    """A Barlow Twins model with a fixed kernel, trained from a small start. Build it with `kernel_barlow_twins`.

    - `motion`: U, s(0), gammas, and as `features` the coefficients (d, 2n) of the eigenfunctions; its `encoder(t)` are the
      coefficients of f(., t), its `critical_times()` say when each mode is learned.
    - `values` (2n, d): the eigenfunctions on the training points.
    - `repeated` (d,): which gamma_j cannot be told from the next: eigenfunctions of such a group are an arbitrary basis of it.
    - `learnable` (d,): which gamma_j are positive beyond rounding: all of them, but for lanes under a transformation.
    """

    motion: AlignedMotion
    values: Float[Leaf, "points d"]
    repeated: Bool[Leaf, " d"]
    learnable: Bool[Leaf, " d"]

    def eigenfunctions(self, rows: ArrayLike, *, encoder: int | None = None) -> Float[Array, "N d"]:
        """g_j(x) of any points.

        Args:
            rows: K(x, X~) (N, 2n), the kernel between these points and the training points [X; X'].
            encoder: with two encoders, 0 or 1 says whose points these are; `rows` is then (N, n), K(x, X) or K'(x', X').

        Raises:
            ValueError: a matrix of other width, not finite, another encoder.

        Source: Simon 2023, (33), (39).
        """
        coefficients = jnp.asarray(self.motion.features)
        if encoder is not None:
            if encoder not in (0, 1):
                raise ValueError(f"Argument `encoder` must be 0 or 1, but is {encoder!r}.")
            half = coefficients.shape[1] // 2
            coefficients = coefficients[:, encoder * half : (encoder + 1) * half]
        if np.ndim(rows) != 2 or np.shape(rows)[1] != coefficients.shape[1]:
            raise ValueError(
                f"Argument `rows` must have one column for each of {coefficients.shape[1]} training points, "
                f"but has shape {np.shape(rows)}."
            )
        require_finite("rows", rows)
        return _product(jnp.asarray(rows, coefficients.dtype), coefficients)

    def embed(self, rows: ArrayLike, t: ArrayLike = np.inf, *, encoder: int | None = None) -> Float[Array, "... N d"]:
        """f(x, t) of any points, by default at the end of training.

        Args:
            rows, encoder: as in `eigenfunctions`.
            t: times >= 0 of any shape, which comes first in the answer.

        What is below the smallest number of the type is 0 here; the statuses of `trajectory` name such modes.

        Raises:
            ValueError: as `eigenfunctions`; t < 0.

        Source: Simon 2023, (24), (40).
        """
        return _embedded(self.eigenfunctions(rows, encoder=encoder), self.motion.singular_values(t), self.motion.left)

    def embed_training_points(self, t: ArrayLike = np.inf) -> Float[Array, "... points d"]:
        """f(x, t) on [X; X'], to rounding, whatever the condition of the kernel. Source: Simon 2023, (49)."""
        return _embedded(jnp.asarray(self.values), self.motion.singular_values(t), self.motion.left)

    def trajectory(self, t: ArrayLike) -> EmbeddingTrajectory:
        """Singular values, eigenvalues, loss and status at the times t >= 0. Source: Simon 2023, (10), (14), proposition 5.1."""
        s = self.motion.singular_values(t)
        eigenvalues, status = _resolved(s, self.motion.start, self.motion.gammas, self.learnable)
        return EmbeddingTrajectory(jnp.asarray(t, s.dtype), s, eigenvalues, self.motion.loss(t), status)


_product = jax.jit(product)


@jax.jit
def _embedded(functions: Array, s: Array, left: Array) -> Array:
    return jnp.matmul(functions * s[..., None, :], left.T, precision="highest")


@jax.jit
def _resolved(s: Array, start: Array, gammas: Array, learnable: Array) -> tuple[Array, Array]:
    """(eigenvalues, statuses)."""
    eigenvalues, tiny = gammas * s**2, jnp.finfo(s.dtype).tiny
    seen = (s >= tiny) & (eigenvalues >= tiny)
    status = jnp.where(seen, Status.ok, Status.unresolved)
    status = jnp.where(learnable & (start > 0), status, Status.invalid_parameter)
    return jnp.where(status == Status.ok, eigenvalues, jnp.nan), status.astype(jnp.uint8)


def kernel_barlow_twins(
    gram: ArrayLike | PairSpectrum,
    dimension: int,
    *,
    scale: ArrayLike | None = None,
    initial: ArrayLike | None = None,
) -> KernelBarlowTwins:
    """The Barlow Twins model of a kernel, trained from a small start on n pairs.

    Args:
        gram: the kernel K~ (2n, 2n) on the stacked points [X; X'], or the spectrum of it: from `pair_spectrum` with more than
            `dimension` eigenvalues, or from `two_encoder_spectrum`.
        dimension: d, size of the embedding.
        scale: the start is random: standard deviation of the entries of W(0), f(x, 0) = W(0) phi(x). s_j(0) is then the root mean
            square over such starts, and U the unit matrix.
        initial: the start is this one: f(x~_i, 0) (2n, d) on the training points, small. Exactly one of both.

    Raises:
        ValueError: more dimensions than eigenvalues that are positive beyond rounding (at most n), with the reason; no or two
            starts; scale <= 0; `initial` of another shape, not finite, without a component along one of the modes, or with repeated
            eigenvalues among the first d + 1, for which U and s(0) are not determined. Under a transformation only shapes are
            checked, and `trajectory` has statuses.

    Warns:
        UserWarning: gamma_d is repeated beyond d: which of these eigenfunctions are learned is arbitrary.

    Source: Simon 2023, (21), (40), (42).
    """
    require_count("dimension", dimension)
    if (scale is None) == (initial is None):
        raise ValueError(
            "Exactly one of the arguments `scale` and `initial` must be given, which say how training starts."
        )
    d = int(dimension)
    top, coefficients, repeated = _top(_spectrum(gram, d), d)
    if initial is not None:
        left, start = _from_initial(initial, coefficients, repeated)
    else:
        assert scale is not None
        left, start = _typical(scale, d, coefficients.dtype)
        if not is_traced(repeated) and bool(np.asarray(repeated)[-1]):
            warnings.warn(
                f"Eigenvalue {d} of K_Gamma, {float(top.gammas[-1]):.6g}, cannot be told from the next one within rounding: which "
                "of their eigenfunctions are learned is arbitrary.",
                stacklevel=2,
            )
    return KernelBarlowTwins(AlignedMotion(left, start, top.gammas, coefficients), top.values, repeated, top.learnable)


@partial(jax.jit, static_argnums=1)
def _top(spectrum: PairSpectrum, d: int) -> tuple[PairSpectrum, Array, Array]:
    """(the d largest eigenvalues, coefficients of their eigenfunctions, which of them cannot be told from the next)."""
    top = PairSpectrum(*(part[..., :d] for part in (spectrum.gammas, spectrum.values, spectrum.uncertainties)))
    known = spectrum.repeated[:d]
    return top, top.coefficients, jnp.concatenate([known, jnp.zeros(d - known.shape[0], bool)])


def _spectrum(gram: ArrayLike | PairSpectrum, d: int) -> PairSpectrum:
    """The spectrum, one eigenvalue beyond d where there is one, after the checks of d."""
    given = isinstance(gram, PairSpectrum)
    shape = np.shape(gram.values if given else gram)
    if len(shape) == 2 and d > shape[0] // 2:
        raise ValueError(
            f"Argument `dimension` must be <= {shape[0] // 2}, the number of pairs, but is {d}: K_Gamma has no more positive "
            "eigenvalues than pairs (Sylvester's law of inertia), and a dimension without one is never learned."
        )
    spectrum = gram if given else pair_spectrum(gram, d + 1)
    if is_traced(spectrum):
        return spectrum
    gammas = np.asarray(spectrum.gammas)
    learnable = int(np.cumprod(gammas > np.asarray(spectrum.uncertainties)).sum())
    if d > learnable:
        wider = " (float64 resolves more)" if gammas.dtype == np.float32 else ""
        next_one = gammas[learnable] if learnable < gammas.size else 0.0
        raise ValueError(
            f"Argument `dimension` must be <= {learnable}, the number of eigenvalues of K_Gamma that are positive beyond rounding"
            f"{wider}, but is {d}: the next one is {next_one:.3g}, and a dimension without one is never learned."
        )
    return spectrum


def _typical(scale: ArrayLike, d: int, dtype: np.dtype) -> tuple[Array, Array]:
    """(U, s(0)) of a random start."""
    require_positive("scale", scale)
    require_representable("scale", scale, dtype)
    require_one_number("scale", scale)
    return jnp.eye(d, dtype=dtype), rms_singular_values(jnp.asarray(scale, dtype), d)


def _from_initial(initial: ArrayLike, coefficients: Array, repeated: Array) -> tuple[Array, Array]:
    """(U, s(0)) of f(., 0): with W(0) g_j = sum_i coefficients_ji f(x~_i, 0) as columns, Q and the diagonal of R of their QR."""
    d, points = coefficients.shape
    if np.shape(initial) != (points, d):
        raise ValueError(f"Argument `initial` must have shape {(points, d)}, but has shape {np.shape(initial)}.")
    require_finite("initial", initial)
    require_representable("initial", initial, coefficients.dtype)
    if not is_traced(repeated) and np.asarray(repeated).any():
        j = int(np.argmax(repeated)) + 1
        raise ValueError(
            f"Argument `initial` must come with distinct eigenvalues of K_Gamma, but gamma_{j} and gamma_{j + 1} are equal within "
            "rounding: their eigenfunctions, and with them Q and R, are not determined. Give `scale` for a typical start instead."
        )
    try:
        left, triangle = unique_qr(_product(jnp.asarray(initial, coefficients.dtype).T, coefficients))
    except ValueError as error:
        raise ValueError(f"Argument `initial` must have components along all of the top {d} modes: {error}") from None
    return left, jnp.diagonal(triangle)
