"""The note's statements about losses: their values at collapse, InfoNCE with many negatives, its bound, its eigenvalues."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn.flows import info_nce, info_nce_arguments
from jepa_dyn.losses import (
    LOSSES,
    KeyQueue,
    contrastive_limit_loss,
    moco_loss,
    mutual_information_bound,
    standardised_barlow_twins_loss,
    zoo_loss,
)
from jepa_dyn.papers import note_collapse_losses_checks as claims
from jepa_dyn.papers._figure import PAPERS, in_float64, whole, with_checks
from jepa_dyn.theory.info_nce import eigenvalue_rates, printed_eigenvalue_rates

if TYPE_CHECKING:
    import xarray

BATCH, DIM, QUEUE = 16, 5, 65536  # the queue of MoCo as the note has it
STEP = 1e-3  # away from collapse, per entry
TEMPERATURES = (0.2, 0.5, 2.0)
SIMILARITY = 0.8  # of a positive pair
TABLE = np.array([[0.4, 0.1], [0.05, 0.45]])  # p(x, c)
UNCENTRED = "standardised_barlow_twins, not centred"


def _arrays(inputs: str, first: Any, second: Any, rest: Any) -> tuple:
    """What a loss of that kind takes, from two views and one vector that fills the queue."""
    if inputs == "queue":
        return first, second, KeyQueue(jnp.broadcast_to(rest, (QUEUE, DIM)), jnp.asarray(QUEUE))
    return ([first], [second]) if inputs == "scales" else (first, second)


@in_float64
def losses_at_collapse(*, full: bool = False, key: int = 0) -> "xarray.Dataset":
    """Every loss where all embeddings are one vector: value, gradient, and what a small move does to it.

    Pairs move together, z_i = z'_i = c + step u_i, or apart, each view with its own u_i; all u ~ N(0, 1).

    Args:
        full: no difference.
        key: seed of the vector and the moves.

    Returns:
        Dataset over loss (and move): value at collapse, largest entry of the gradients by both views, change of the loss over
        step^2.

    Source: note on collapse, sections 3.1, 4.1-4.6.
    """
    import xarray

    rng = np.random.default_rng(key)
    c, u, other = (jnp.asarray(rng.normal(size=size)) for size in ((DIM,), (BATCH, DIM), (BATCH, DIM)))
    functions = {name: (zoo_loss(name), LOSSES[name].inputs) for name in LOSSES}
    functions[UNCENTRED] = (lambda a, b: standardised_barlow_twins_loss(a, b, centred=False, eps=1e-12), "views")
    found = {}
    for name, (function, inputs) in functions.items():

        def loss(first: Any, second: Any, function: Any = function, inputs: str = inputs) -> Any:
            return function(*_arrays(inputs, first, second, c))

        at, slopes = jax.jit(jax.value_and_grad(loss, (0, 1)))(*(jnp.broadcast_to(c, u.shape),) * 2)
        moved = [jax.jit(loss)(c + STEP * u, c + STEP * v) for v in (u, other)]
        steepest = max(float(jnp.abs(slope).max()) for slope in slopes)
        found[name] = (float(at), steepest, *(float(value - at) / STEP**2 for value in moved))
    table = np.array(list(found.values()))
    variables = {
        "value": ("loss", table[:, 0], {"long_name": "value at collapse"}),
        "gradient": ("loss", table[:, 1], {"long_name": "largest entry of its gradient"}),
        "change": (("loss", "move"), table[:, 2:], {"long_name": "change of the loss over step²"}),
    }
    sizes = {"batch": BATCH, "dim": DIM, "queue": QUEUE}
    dataset = xarray.Dataset(variables, {"loss": list(found), "move": ["together", "apart"]}, sizes)
    return with_checks(dataset, claims.collapse_checks(dataset), paper=PAPERS["note_collapse"], section="4.1-4.6")


@in_float64
def contrastive_limit(*, count: int = 400, full: bool = False, key: int = 0) -> "xarray.Dataset":
    """L_K - log K for more and more negatives K, beside the limit as corrected and as printed, both in closed form.

    Anchors and negatives are uniform on the sphere in three dimensions, where z.z' is uniform in [-1, 1]: E exp(z.z' / tau) =
    tau sinh(1 / tau). Positives have similarity 0.8.

    Args:
        count: anchors, >= 20.
        full: 4000 anchors.
        key: seed of the sample.

    Returns:
        Dataset over (temperature, negatives): L_K - log K, its standard error from the spread of the anchors; the limits.

    Raises:
        ValueError: fewer than 20 anchors.

    Source: note on collapse, section 2.2.
    """
    import xarray

    count = 4000 if full else whole("count", count, 20)
    rng = np.random.default_rng(key)
    sizes = np.unique(np.geomspace(1, 20000, 12).astype(int))
    anchors, negatives = (_unit(rng.normal(size=(n, 3))) for n in (count, sizes[-1]))
    aside = _unit(np.cross(anchors, rng.normal(size=anchors.shape)))
    keys = SIMILARITY * anchors + np.sqrt(1 - SIMILARITY**2) * aside
    each = jax.jit(
        jax.vmap(lambda q, k, queue, tau: moco_loss(q[None], k[None], queue, temperature=tau), (0, 0, None, None))
    )
    losses = np.zeros((len(TEMPERATURES), len(sizes), count))
    for j, size in enumerate(sizes):
        queue = KeyQueue(jnp.asarray(negatives[:size]), jnp.asarray(size))
        for i, tau in enumerate(TEMPERATURES):
            losses[i, j] = np.asarray(each(jnp.asarray(anchors), jnp.asarray(keys), queue, tau)) - np.log(size)
    tau = np.array(TEMPERATURES)
    distance = 2 - 2 * SIMILARITY

    def spread(x: np.ndarray) -> np.ndarray:
        """log E exp(-x |f - g|^2 / 2) for uniform f, g: log(sinh(x) / x) - x."""
        return np.log(np.sinh(x) / x) - x

    arrays = (jnp.asarray(v) for v in (anchors, keys, negatives))
    sampled = [contrastive_limit_loss(*values, temperature=t) for values in [tuple(arrays)] for t in TEMPERATURES]
    variables = {
        "loss": (("temperature", "negatives"), losses.mean(-1), {"long_name": "L_K - log K"}),
        "error": (("temperature", "negatives"), losses.std(-1) / np.sqrt(count)),
        "corrected": ("temperature", distance / (2 * tau) + spread(1 / tau)),
        "printed": ("temperature", distance + spread(1 / tau**2)),
        "sampled": ("temperature", np.array(sampled), {"long_name": "contrastive_limit_loss of the sample"}),
    }
    dataset = xarray.Dataset(variables, {"temperature": tau, "negatives": sizes})
    return with_checks(dataset, claims.limit_checks(dataset), paper=PAPERS["note_collapse"], section="2.2")


def _unit(z: np.ndarray) -> np.ndarray:
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


@in_float64
def info_nce_theory(*, count: int = 40, full: bool = False, key: int = 0) -> "xarray.Dataset":
    """The bound of InfoNCE on mutual information, and how the eigenvalues of W W^T move under it: printed and corrected.

    The bound is exact, summed over all batches of a binary (x, c), with the optimal critic p(x|c) / p(x). The eigenvalues are
    those of random linear encoders on random batches; the truth is autodiff of the eigenvalues along the flow.

    Args:
        count: encoders, >= 2.
        full: 1000 encoders.
        key: seed of batches and encoders.

    Returns:
        Dataset over N (bound), and over (encoder, mode): rates d lambda_k / dt true, corrected and printed.

    Raises:
        ValueError: fewer than 2 encoders.

    Source: note on collapse, sections 2.1 and 3.2.
    """
    import xarray

    count = 1000 if full else whole("count", count, 2)
    rng = np.random.default_rng(key)
    candidates = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256])
    critic = TABLE / np.outer(TABLE.sum(1), TABLE.sum(0))
    bounds = np.asarray(
        mutual_information_bound(np.array([_expected_loss(critic, int(n)) for n in candidates]), candidates)
    )

    def rates(x: Any, y: Any, w: Any, tau: Any) -> tuple:
        velocity = info_nce(0.0, w, info_nce_arguments(x, y, temperature=tau))
        values, true = jax.jvp(lambda w: jnp.linalg.eigvalsh(w @ w.T), (w,), (velocity,))
        alignment = jnp.mean(jnp.sum(((x - y) @ w.T) ** 2, axis=1))
        return true, eigenvalue_rates(w, velocity), printed_eigenvalue_rates(values, tau, x.shape[0], alignment)

    x, noise = rng.normal(size=(2, count, 16, 4))
    w, tau = 0.5 * rng.normal(size=(count, 3, 4)), rng.uniform(0.2, 2.0, count)
    found = jax.jit(jax.vmap(rates))(*(jnp.asarray(v) for v in (x, 0.8 * x + 0.4 * noise, w, tau)))
    lane = ("encoder", "mode")
    variables = {
        "bound": ("candidates", bounds, {"long_name": "log N - L"}),
        "information": ((), float(np.sum(TABLE * np.log(critic))), {"long_name": "I(x; c)"}),
        "largest_ratio": ((), float(critic.max()), {"long_name": "largest p(x|c) / p(x)"}),
        **{name: (lane, np.asarray(v)) for name, v in zip(("true", "corrected", "printed"), found, strict=True)},
    }
    dataset = xarray.Dataset(variables, {"candidates": candidates, "temperature": ("encoder", tau)})
    return with_checks(dataset, claims.info_nce_checks(dataset), paper=PAPERS["note_collapse"], section="2.1, 3.2")


def _expected_loss(critic: np.ndarray, candidates: int) -> float:
    """E of InfoNCE with that critic over all batches of a binary x: negatives are counted by a binomial law."""
    from scipy import stats

    ones = np.arange(candidates)  # how many of the N - 1 negatives are x = 1
    weights = stats.binom.pmf(ones, candidates - 1, TABLE.sum(1)[1])
    loss = 0.0
    for x, c in np.ndindex(2, 2):
        sums = critic[x, c] + ones * critic[1, c] + (candidates - 1 - ones) * critic[0, c]
        loss += float(TABLE[x, c] * np.sum(weights * np.log(sums / critic[x, c])))
    return loss
