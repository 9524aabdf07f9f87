"""Proposition 4.10 of Ponce et al. 2025 over random data: how many equilibria there are, of which rank, how unstable.

The proposition says that every equilibrium of full rank is asymptotically stable. Here all equilibria of random data sets are
enumerated and the unstable directions of the flow across each O(n) orbit are counted.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require_count, require_positive
from jepa_dyn._progress import progress_bar
from jepa_dyn.equilibria import SiameseEquilibria, equilibrium_state, siamese_equilibria, stability
from jepa_dyn.flows import SiameseArguments, siamese_arguments
from jepa_dyn.moments import ViewMoments
from jepa_dyn.papers import ponce2025_checks as claims
from jepa_dyn.papers._figure import PAPERS, in_float64, with_checks
from jepa_dyn.papers.ponce2025_checks import PROCEDURES

if TYPE_CHECKING:
    import xarray

INPUTS = (2, 3)
MOST_UNSTABLE = 12
EMA_RATE = 0.1
_SAMPLES = 100
_AT_ONCE = 250  # data sets enumerated together


def random_moments(rng: np.random.Generator, m: int) -> tuple[np.ndarray, np.ndarray]:
    """([xx^T], [yx^T]) of 100 pairs: x normal, y = 0.6 x (1 + 0.3 N) + 0.4 normal, N a normal matrix."""
    x = rng.normal(size=(_SAMPLES, m))
    y = 0.6 * x @ (np.eye(m) + 0.3 * rng.normal(size=(m, m))) + 0.4 * rng.normal(size=x.shape)
    return x.T @ x / _SAMPLES, y.T @ x / _SAMPLES


def _lanes(data: list[tuple[np.ndarray, np.ndarray]], weight_decay: float) -> SiameseArguments:
    def one(xx: Any, yx: Any) -> SiameseArguments:
        return siamese_arguments(ViewMoments(xx, yx, jnp.eye(len(xx))), weight_decay=weight_decay, ema_rate=EMA_RATE)

    return jax.vmap(one)(*(jnp.asarray(np.stack(part)) for part in zip(*data, strict=True)))


@in_float64
def proposition_4_10(
    *, sets: int = 60, weight_decay: float = 0.02, full: bool = False, key: int = 0
) -> "xarray.Dataset":
    """Indices of all equilibria of random data sets with m = 2 and, a twentieth as many, m = 3 inputs; n = m outputs.

    Args:
        sets: data sets with two inputs, >= 10.
        weight_decay: lambda > 0.
        full: 3000 data sets, and 150 with three inputs: some ten minutes.
        key: seed of the data.

    Returns:
        Dataset: `count` of equilibria over (inputs, procedure, rank, num_unstable), and per data set the numbers of equilibria
        and of stable ones of each rank, whether the enumeration of that rank is complete, and whether the stable one of full rank
        has the largest trace.

    Raises:
        ValueError: fewer than 10 data sets, weight decay not > 0.

    Source: Ponce 2025, proposition 4.10, corollary 4.6, with our corrections.
    """
    import xarray

    require_count("sets", sets, 10)
    require_positive("weight_decay", weight_decay)
    sets = 3000 if full else int(sets)
    top = max(INPUTS)
    count = np.zeros((len(INPUTS), len(PROCEDURES), top, MOST_UNSTABLE + 1), int)
    num = np.full((len(INPUTS), sets, top), -1)
    stable = np.full((len(INPUTS), len(PROCEDURES), sets, top), -1)
    largest, complete = np.ones((len(INPUTS), sets), bool), np.ones((len(INPUTS), sets, top), bool)
    sizes = [sets if m == 2 else max(2, sets // 20) for m in INPUTS]
    blocks = [(i, first) for i in range(len(INPUTS)) for first in range(0, sizes[i], _AT_ONCE)]
    rngs = [np.random.default_rng([key, m]) for m in INPUTS]
    for i, first in progress_bar(blocks, len(blocks), unit="blocks"):
        m, last = INPUTS[i], min(first + _AT_ONCE, sizes[i])
        args = _lanes([random_moments(rngs[i], m) for _ in range(first, last)], weight_decay)
        found = siamese_equilibria(args)
        assert isinstance(found, list)
        for k, one in enumerate(found, start=first):
            own = jax.tree.map(lambda leaf, k=k - first: leaf[k], args)
            unstable = [_unstable(one, own, procedure) for procedure in PROCEDURES]
            for r in range(m):
                num[i, k, r] = len(one.ranks[r].s)
                complete[i, k, r] = one.ranks[r].complete
                for p, indices in enumerate(unstable):
                    stable[i, p, k, r] = int((indices[r] == 0).sum())
                    np.add.at(count[i, p, r], np.minimum(indices[r], MOST_UNSTABLE), 1)
            full_rank = unstable[0][-1]
            largest[i, k] = full_rank.size == 0 or full_rank[0] == 0
    variables = {
        "count": (("inputs", "procedure", "rank", "num_unstable"), count, {"long_name": "equilibria"}),
        "num_equilibria": (
            ("inputs", "set", "rank"),
            num,
            {"long_name": "equilibria, -1 where there is no such data set"},
        ),
        "num_stable": (("inputs", "procedure", "set", "rank"), stable, {"long_name": "stable orbits"}),
        "largest_is_stable": (("inputs", "set"), largest, {"long_name": "the largest trace of full rank is stable"}),
        "complete": (("inputs", "set", "rank"), complete, {"long_name": "nothing was lost, every root is proved"}),
    }
    coords = {
        "inputs": ("inputs", list(INPUTS), {"long_name": "inputs m"}),
        "procedure": list(PROCEDURES),
        "rank": np.arange(1, top + 1),
        "num_unstable": ("num_unstable", np.arange(MOST_UNSTABLE + 1), {"long_name": "unstable directions across the orbit"}),
    }  # fmt: skip
    dataset = xarray.Dataset(variables, coords, {"weight_decay": weight_decay, "ema_rate": EMA_RATE, "sets": sizes})
    return with_checks(dataset, claims.index_checks(dataset), paper=PAPERS["ponce2025"], section="4.2")


def _unstable(found: SiameseEquilibria, args: SiameseArguments, procedure: str) -> list[np.ndarray]:
    """Unstable directions of every equilibrium, by rank."""
    m = len(found.ranks)
    return [
        np.array(
            [stability(equilibrium_state(s, m, args, target=procedure == "ema"), args).num_unstable for s in one.s],
            int,
        )
        for one in found.ranks
    ]
