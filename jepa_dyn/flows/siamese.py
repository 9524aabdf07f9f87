"""Linear siamese networks: encoder A, predictor B, target C under stop gradient, EMA target and plain gradient (Ponce 2025).

With R = B A [xx^T] - C [yx^T], the flows in gradient-flow time are

    stop gradient   C = A:   dA/dt = -mu (B^T R + lambda A),   dB/dt = -nu (R A^T + lambda B)
    EMA             the same, and dC/dt = gamma (A - C)
    plain gradient  of E(A, B) = E|B A x - A y|^2 / 2 + lambda (|A|^2 + |B|^2) / 2: dA/dt gains -mu (A [yy^T] - B A [xy^T])

E and F are the objectives with C = A moving and with C held fixed: grad_A E = grad_A F + A [yy^T] - B A [xy^T].

Per mode: with commuting moments and A = U diag(a) V^T, B = U diag(b) U^T, C = U diag(c) V^T, V their eigenvectors, each (a, b, c)
follows this flow at n = m = 1 with the mode's own rho and tau: Tian's reduction is the 1 x 1 case, not another flow.

Sizes: A, C (n, m), B (n, n), any n and m. An encoder of one layer is also `flows.deep_linear` with L = 1; here the matrices keep
their sizes, lanes stay small, and the plain gradient is offered.

Source: Ponce 2025, eqs (1), (2), (4), (5), (11), (26)-(28); Tian 2021 for the per-mode reductions. The print uses one letter alpha
in (4) and in (5): with steps mu = nu = h the limit needs 1 - alpha_(4) = h (1 - alpha_(5)), here h gamma.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jepa_dyn._checks import require_finite
from jepa_dyn.flows._products import product
from jepa_dyn.moments import ViewMoments
from jepa_dyn.moments.view_moments import require_equal_views
from jepa_dyn.parameters import Leaf, checked_rates


class SiameseState(eqx.Module):
    """Weights of a linear siamese network. Build it with `siamese_state`, or fill it by hand.

    - `encoder` = A, shape (n, m). `predictor` = B, shape (n, n).
    - `target` = C, shape (n, m), follows the encoder by an exponential moving average; None is the stop gradient, C = A.
    """

    encoder: Float[Leaf, "*lanes n m"]
    predictor: Float[Leaf, "*lanes n n"]
    target: Float[Leaf, "*lanes n m"] | None = None

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (2, 2) if self.target is None else (2, 2, 2)

    @property
    def tracked(self) -> Leaf:
        """What the target follows."""
        return self.encoder


class SiameseArguments(eqx.Module):
    """What a linear siamese network is trained on and how. Build it with `siamese_arguments`, which validates.

    - `moments`: second moments of the view pairs, any.
    - `weight_decay`: lambda >= 0, of encoder and predictor.
    - `encoder_rate`, `predictor_rate`: mu, nu >= 0, factors on dA/dt and dB/dt, weight decay included (as in (4)).
    - `ema_rate`: gamma >= 0 per unit of flow time; only used where the state has a target.
    """

    moments: ViewMoments
    weight_decay: Float[Leaf, "*#lanes"]
    encoder_rate: Float[Leaf, "*#lanes"]
    predictor_rate: Float[Leaf, "*#lanes"]
    ema_rate: Float[Leaf, "*#lanes"]

    @property
    def leaf_ndims(self) -> tuple[int, ...]:
        """Axes of each leaf of one system; a leaf with one more holds lanes."""
        return (2, 2, 2, 0, 0, 0, 0)


def siamese_arguments(
    moments: ViewMoments,
    *,
    weight_decay: ArrayLike = 0.0,
    encoder_rate: ArrayLike = 1.0,
    predictor_rate: ArrayLike = 1.0,
    ema_rate: ArrayLike = 0.0,
) -> SiameseArguments:
    """Validated `SiameseArguments` of one system, in the dtype of the moments; for lanes, `jax.vmap` this function.

    Args:
        moments: second moments of the views, of equal size m.
        weight_decay, encoder_rate, predictor_rate, ema_rate: numbers >= 0, see `SiameseArguments`.

    Raises:
        ValueError: views of different sizes, a negative or not finite number, more than one number.
    """
    require_equal_views(moments)
    rates = checked_rates(
        moments.xx.dtype,
        weight_decay=weight_decay,
        encoder_rate=encoder_rate,
        predictor_rate=predictor_rate,
        ema_rate=ema_rate,
    )
    return SiameseArguments(moments, **rates)


def siamese_state(encoder: ArrayLike, predictor: ArrayLike, target: ArrayLike | None = None) -> SiameseState:
    """Validated state of one system: encoder (n, m), predictor (n, n), target (n, m) or None for the stop gradient.

    Raises:
        ValueError: not matrices, not finite, sizes that do not fit.
    """
    named: dict[str, Any] = {"encoder": encoder, "predictor": predictor}
    if target is not None:
        named["target"] = target
    for name, matrix in named.items():
        if np.ndim(matrix) != 2:
            raise ValueError(f"Argument `{name}` must be a matrix, but has shape {np.shape(matrix)}.")
        require_finite(name, matrix)
    n, m = np.shape(encoder)
    wanted = {"encoder": (n, m), "predictor": (n, n), "target": (n, m)}
    for name, matrix in named.items():
        if np.shape(matrix) != wanted[name]:
            raise ValueError(
                f"Argument `{name}` must have shape {wanted[name]} beside an encoder of shape {(n, m)}, "
                f"but has shape {np.shape(matrix)}."
            )
    dtype = jnp.result_type(float, *(jnp.asarray(matrix).dtype for matrix in named.values()))
    return SiameseState(**{name: jnp.asarray(matrix, dtype) for name, matrix in named.items()})


def _target(y: SiameseState) -> Array:
    return jnp.asarray(y.encoder if y.target is None else y.target)


def residual(y: SiameseState, args: SiameseArguments) -> Float[Array, "n m"]:
    """R = B A [xx^T] - C [yx^T]. Source: Ponce 2025, lemma 4.1."""
    encoder, predictor = jnp.asarray(y.encoder), jnp.asarray(y.predictor)
    return product(predictor, product(encoder, args.moments.xx)) - product(_target(y), args.moments.yx)


def siamese(t: ArrayLike, y: SiameseState, args: SiameseArguments) -> SiameseState:
    """Stop-gradient flow (a state without target) or EMA flow (with one), in gradient-flow time.

    Source: Ponce 2025, (5), with a rate of its own for each group.
    """
    r = residual(y, args)
    return SiameseState(
        encoder=-args.encoder_rate * (product(jnp.asarray(y.predictor).T, r) + args.weight_decay * y.encoder),
        predictor=-args.predictor_rate * (product(r, jnp.asarray(y.encoder).T) + args.weight_decay * y.predictor),
        target=None if y.target is None else args.ema_rate * (y.encoder - y.target),
    )


def siamese_gradient(t: ArrayLike, y: SiameseState, args: SiameseArguments) -> SiameseState:
    """Gradient flow of E itself, the target moving with the encoder; a state without target. Collapses (lemma 4.3).

    Source: Ponce 2025, (1), (11), proof of proposition 3.1. The print says after lemma 4.3 that B may then assume any value: for
    lambda > 0 it goes to 0 as well.
    """
    if y.target is not None:
        raise ValueError("Argument `y` must have no target: the plain gradient moves both branches at once.")
    held = siamese(t, y, args)
    both = y.encoder @ args.moments.yy - y.predictor @ (y.encoder @ args.moments.yx.T)
    return SiameseState(held.encoder - args.encoder_rate * both, held.predictor)


def siamese_objective(y: SiameseState, args: SiameseArguments) -> Float[Array, ""]:
    """F = E|B A x - C y|^2 / 2 + lambda (|A|^2 + |B|^2) / 2; without a target it is E.

    Source: Ponce 2025, (1), (2), section 3.2.
    """
    prediction, goal, moments = y.predictor @ y.encoder, _target(y), args.moments
    loss = (
        jnp.sum((prediction @ moments.xx) * prediction) / 2
        - jnp.sum((goal @ moments.yx) * prediction)
        + jnp.sum((goal @ moments.yy) * goal) / 2
    )
    return loss + args.weight_decay * (jnp.sum(y.encoder**2) + jnp.sum(y.predictor**2)) / 2
