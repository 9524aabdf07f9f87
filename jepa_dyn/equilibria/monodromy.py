"""All solutions of a generic member of the family from one of them, by loops in the space of the data.

The solutions of the equation of one rank over all members form one irreducible variety: for any K and Z the members that they
solve are a linear space of one dimension. So the solutions of one member are permuted transitively by loops of members, and
loops from what is known find the rest. The number at which to stop is known from elsewhere (`GENERIC_COUNTS`).

    python -m jepa_dyn.equilibria.monodromy     writes the file of start solutions again; rank 3 of m = 4 takes most of the time

Source: Duff, Hill, Jensen, Lee, Leykin, Sommars 2019, Solving polynomial systems via homotopy continuation and monodromy.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._precision import x64_context
from jepa_dyn._progress import progress_bar
from jepa_dyn.equilibria.homotopy import Member, one_of_few
from jepa_dyn.equilibria.parameter_homotopy import STARTS, carried, merge, random_member
from jepa_dyn.equilibria.reduced import GENERIC_COUNTS, chart_of_map, rank_residual

_MOST_LOOPS = 60


def seeded_member(rng: np.random.Generator, m: int, rank: int) -> tuple[Member, np.ndarray]:
    """A random member and one of its solutions (unknowns,): G is drawn and Y solved for, in (X G G^T + lambda - Y^T G) L = 0."""
    xx, other, weight_decay = (np.asarray(leaf) for leaf in random_member(rng, m))
    span, core = (rng.normal(size=s) + 1j * rng.normal(size=s) for s in ((m, rank), (rank, rank)))
    span = span @ np.linalg.inv(span[:rank])
    g = span @ core @ span.T / np.linalg.norm(span, 2) ** 2
    image = g @ span
    pseudo = np.linalg.pinv(image)
    yx = ((xx @ g @ g.T + weight_decay * np.eye(m)) @ span @ pseudo + other @ (np.eye(m) - image @ pseudo)).T
    return Member(*(jnp.asarray(leaf) for leaf in (xx, yx, weight_decay))), chart_of_map(g, span, rank)


def all_solutions(m: int, rank: int, seed: int = 0) -> tuple[Member, np.ndarray]:
    """A generic member and its solutions (`GENERIC_COUNTS`, unknowns).

    Raises:
        RuntimeError: some were not found.
    """
    with x64_context(True):
        rng = np.random.default_rng(seed)
        seeded, first = seeded_member(rng, m, rank)
        assert np.abs(rank_residual(jnp.asarray(first), *seeded, rank)).max() < 1e-9
        wanted = GENERIC_COUNTS[m, rank]
        base, found = seeded, np.zeros((0, len(first)), complex)
        while not len(found):  # a member that is random in all its parts has no large solutions; a path may be lost
            base = random_member(rng, m)
            found = carried(seeded, base, first[None], rank, rng, 1)
        for _ in range(_MOST_LOOPS):
            if len(found) == wanted:
                return base, np.array([polished(one, base, rank) for one in found])
            ends, stop = found, base
            for goal in (random_member(rng, m), random_member(rng, m), base):
                ends, stop = carried(stop, goal, ends, rank, rng, one_of_few(len(ends), 16, 72, wanted)), goal
            found = merge(found, ends)
        raise RuntimeError(f"m = {m}, rank {rank}: {len(found)} of {wanted} solutions were found.")


def polished(vector: np.ndarray, member: Member, rank: int) -> np.ndarray:
    """A solution to rounding error, by Newton's method in its own unknowns."""
    for _ in range(4):
        slope = jax.jacfwd(lambda v: rank_residual(v, *member, rank), holomorphic=True)(jnp.asarray(vector))
        vector = vector - np.linalg.solve(
            np.asarray(slope), np.asarray(rank_residual(jnp.asarray(vector), *member, rank))
        )
    return vector


def main() -> None:
    """Writes the file that `parameter_homotopy` reads."""
    wanted = [(m, rank) for m, rank in GENERIC_COUNTS if rank > 1 or m == 1]  # rank 1 is an eigenvalue problem
    arrays = {}
    for m, rank in progress_bar(wanted, len(wanted), unit="systems"):
        base, found = all_solutions(m, rank)
        name = f"m{m}_rank{rank}"
        arrays |= {f"{name}_{field}": np.asarray(leaf) for field, leaf in base._asdict().items()}
        arrays[f"{name}_solutions"] = found
    np.savez_compressed(STARTS, **arrays)


if __name__ == "__main__":
    main()
