"""Losses of non-contrastive learning with a linear predictor: distance x stop gradient x predictor x isotropy (Halvagal 2023).

With z, z' the embeddings of the two views, p = W_P z the prediction (p = z without predictor) and d a distance,

    L = d(p, SG z')        g = grad_p d,  g' = grad_z' d:     grad_z L = W_P^T g,   grad_z' L = 0, or g' without the stop gradient

An IsoLoss leaves out the last step of the chain rule: grad_z L = g. For a closed-form predictor it removes the factor lambda_m
from the speed of mode m. W_P counts as a constant in all of them. The eight rows of the paper's Table 1 are `TABLE_1`.

Source: Halvagal 2023, (3)-(6), (12)-(17), C.1-C.5; autodiff of each printed loss gives the gradients here. C.2 prints a wrong
gradient of the second branch: it is -(W_P z / |W_P z| - cos z' / |z'|) / |z'|.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jepa_dyn._checks import require_choice
from jepa_dyn.losses._rows import unit

DISTANCES = ("euclidean", "cosine")
ISO_FORMS = ("none", "straight_through", "printed", "linear")


@dataclass(frozen=True)
class RepresentationLoss:
    """Which loss. Hashable: it chooses a program.

    - `distance`: "euclidean" |p - q|^2 / 2 or "cosine" -p.q / (|p| |q|), which is 0, with gradient 0, where p or q is 0.
    - `stop_gradient`: whether the second view is held fixed.
    - `predictor`: whether there is one.
    - `iso`: how an IsoLoss is written; all forms have one gradient. "none": no IsoLoss. "straight_through":
      d(z + SG(W_P z - z), z'), of the value of the plain loss. "printed": (15), which is the straight-through form, and (17).
      "linear": SG(g).(z - z'), the second form of C.5.1, for either distance.

    Raises:
        ValueError: an unknown choice; an IsoLoss without predictor; "printed" or "linear" without stop gradient.
    """

    distance: str = "euclidean"
    stop_gradient: bool = True
    predictor: bool = True
    iso: str = "none"

    def __post_init__(self):
        require_choice("distance", self.distance, DISTANCES)
        require_choice("iso", self.iso, ISO_FORMS)
        if self.is_iso and not self.predictor:
            raise ValueError(f"Argument `iso` must be 'none' without a predictor, but is {self.iso!r}.")
        if self.iso in ("printed", "linear") and not self.stop_gradient:
            raise ValueError(f"Argument `iso` must be 'straight_through' without stop gradient, but is {self.iso!r}.")

    @property
    def is_iso(self) -> bool:
        """Whether the gradient leaves out the predictor."""
        return self.iso != "none"


TABLE_1: dict[str, RepresentationLoss] = {
    f"{distance}{suffix}": RepresentationLoss(distance, **options)
    for distance in DISTANCES
    for suffix, options in {
        "": {},
        "_no_stop_gradient": {"stop_gradient": False},
        "_no_predictor": {"predictor": False},
        "_iso": {"iso": "printed"},
    }.items()
}


def distance(kind: str, p: Float[Array, "*batch M"], q: Float[Array, "*batch M"]) -> Float[Array, "*batch"]:
    """|p - q|^2 / 2 or -p.q / (|p| |q|), row by row. Source: Halvagal 2023, section 2.1."""
    if kind == "euclidean":
        return jnp.sum((p - q) ** 2, axis=-1) / 2
    return -jnp.sum(unit(p)[0] * unit(q)[0], axis=-1)


def distance_gradients(
    kind: str, p: Float[Array, "*batch M"], q: Float[Array, "*batch M"]
) -> tuple[Float[Array, "*batch M"], Float[Array, "*batch M"]]:
    """(grad_p d, grad_q d), row by row; 0 for the cosine where p or q is 0.

    Source: Halvagal 2023, (5), (6) in p = W_P z.
    """
    if kind == "euclidean":
        return p - q, q - p
    (p_unit, p_inverse), (q_unit, q_inverse) = unit(p), unit(q)
    cosine = jnp.sum(p_unit * q_unit, axis=-1, keepdims=True)
    return -(q_unit - cosine * p_unit) * p_inverse, -(p_unit - cosine * q_unit) * q_inverse


def _prediction(loss: RepresentationLoss, first: Array, predictor: Array | None) -> Array:
    if not loss.predictor:
        return first
    if predictor is None:
        raise ValueError("Argument `predictor` must be given for a loss with a predictor, but is None.")
    return first @ predictor.T


def representation_loss(
    loss: RepresentationLoss,
    first: Float[Array, "n M"],
    second: Float[Array, "_ M"],
    predictor: Float[Array, "M M"] | None = None,
) -> Float[Array, ""]:
    """The loss as it is written, mean over the pairs, with its stop gradients: `jax.grad` of it is its gradient.

    A closed-form predictor is a constant: hand in `jax.lax.stop_gradient(closed_form_predictor(...))` where it depends on what
    one differentiates by. One that is trained by gradient is not (an IsoLoss gives it none, up to the |W_P^(1/2) z| of (17)).

    Args:
        first, second: embeddings of the two views, row i of both is one pair.
        predictor: W_P; (17) takes it to be symmetric.

    Raises:
        ValueError: embeddings of different shapes, no predictor where the loss has one.

    Source: Halvagal 2023, (3), (4), (12)-(17), C.5.1.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(
            "Arguments `first` and `second` must have one shape (row i of both is one pair), but have "
            f"{np.shape(first)} and {np.shape(second)}."
        )
    held = jax.lax.stop_gradient
    p, q = _prediction(loss, first, predictor), held(second) if loss.stop_gradient else second
    if loss.iso == "linear":
        slope, _ = distance_gradients(loss.distance, p, second)
        return jnp.mean(jnp.sum(held(slope) * (first - q), axis=-1))
    if loss.iso == "printed" and loss.distance == "cosine":
        return jnp.mean(_printed_iso_cosine(first, p, second))
    if loss.is_iso:
        p = first + held(p - first)
    return jnp.mean(distance(loss.distance, p, q))


def _printed_iso_cosine(z: Array, p: Array, second: Array) -> Array:
    """(17), row by row; |W_P^(1/2) z|^2 = z.p needs no root."""
    held = jax.lax.stop_gradient
    (p_unit, p_inverse), (goal, _) = unit(p), unit(second)
    pull = held(goal * p_inverse)
    weight = held(jnp.sum(p_unit * goal, axis=-1) * p_inverse[..., 0] ** 2)
    return -jnp.sum(z * pull, axis=-1) + weight * jnp.sum(z * p, axis=-1) / 2


def representation_gradients(
    loss: RepresentationLoss,
    first: Float[Array, "*batch M"],
    second: Float[Array, "*batch M"],
    predictor: Float[Array, "M M"] | None = None,
) -> tuple[Float[Array, "*batch M"], Float[Array, "*batch M"], Float[Array, "*batch M"]]:
    """(gradient by the first view, by the second, by the prediction) of the loss of each pair, W_P held fixed.

    The gradient by a W_P that is trained is the mean of (third)(first)^T.

    Source: Halvagal 2023, (5), (6), (8), (10), C.1, C.2 (corrected), C.3-C.5.
    """
    p = _prediction(loss, first, predictor)
    by_prediction, by_second = distance_gradients(loss.distance, p, second)
    through = loss.predictor and not loss.is_iso
    by_first = by_prediction @ predictor if through and predictor is not None else by_prediction
    return by_first, jnp.zeros_like(by_second) if loss.stop_gradient else by_second, by_prediction
