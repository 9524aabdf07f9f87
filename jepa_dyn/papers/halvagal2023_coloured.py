"""What is left of the claims for IsoLoss (Halvagal et al. 2023) where inputs are coloured, or the noise of the views correlated.

Theorems 1 and 2 are for inputs of covariance 1 and independent noise on the views. Here four kinds of data, in N = M dimensions:

    x = s + sigma xi,  y = s + sigma xi',   s ~ N(0, diag(G)),  xi, xi' ~ N(0, diag(C)),  E[xi xi'^T] = r diag(C)

    i.i.d.           G = C = 1, r = 0
    white noise      G in geometric progression with mean 1, C = 1
    coloured noise   G as before, C = G
    shared noise     G = C = 1, r > 0

Modes are aligned with the inputs (V = 1), exactly; networks start from Gaussian weights. Under the Euclidean losses a mode obeys
dlambda/dt = 2 lambda^2 (yx - xx lambda), IsoLoss 2 lambda (yx - xx lambda), with yx = G + r sigma^2 C, xx = G + sigma^2 C: each in
closed form (`theory.predictor_eigenvalue`), at a pace of its own, and with a limit of its own where C is not G.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require, require_fraction, require_positive
from jepa_dyn.moments import ViewMoments
from jepa_dyn.papers._figure import PAPERS, Check, in_float64, whole, with_checks
from jepa_dyn.papers.halvagal2023_runs import (
    PACE,
    DataOfRows,
    draw_encoders,
    expected_modes,
    networks_on,
    saved_steps,
)
from jepa_dyn.theory.direct_pred import predictor_eigenvalue

if TYPE_CHECKING:
    import xarray

ROWS = ("euclidean", "euclidean_iso", "cosine", "cosine_iso")
DATA = ("i.i.d.", "white noise", "coloured noise", "shared noise")
SPAN = (0.03, 1.5)  # of the eigenvalues at the start
EARLY = 0.5  # time over which growth is measured
SMALL = 0.25  # of its end, below which a mode starts to be counted as growing


def laws(size: int, sigma: float, colour: float, shared: float) -> dict[str, np.ndarray]:
    """Variances in every input direction of each kind of data, (kind, size): clean input, either view, and between the views."""
    white, tinted = np.ones(size), colour ** np.linspace(0.5, -0.5, size)
    tinted = tinted / tinted.mean()
    clean, noise = np.stack([white, tinted, tinted, white]), np.stack([white, white, tinted, white])
    overlap = np.array([0.0, 0.0, 0.0, shared])[:, None]
    return {"clean": clean, "view": clean + sigma**2 * noise, "cross": clean + overlap * sigma**2 * noise}


def starting_eigenvalues(size: int) -> np.ndarray:
    """Of C_z, in geometric progression, dealt to the directions so that large ones do not meet large variances."""
    stride = next(k for k in range(max(2, size // 2 - 1), size + 2) if np.gcd(k, size) == 1)
    return np.geomspace(*SPAN, size)[np.arange(size) * stride % size]


def largest_over_smallest(values: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    return values.max(axis=-1) / values.min(axis=-1)


def growth_ratio(t: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """(row, data): log growth until `EARLY` of the fastest over that of the slowest mode that starts small beside its end."""
    places = [int(np.searchsorted(times, EARLY)) for times in t]
    grown = np.stack([np.log(path[:, k] / path[:, 0]) for path, k in zip(paths, places, strict=True)])
    small = paths[:, :, 0] < SMALL * paths[:, :, -1]
    known = small.sum(axis=-1) > 1  # else there is nothing to compare
    fastest = np.where(small, grown, -np.inf).max(axis=-1)
    slowest = np.where(small, grown, np.inf).min(axis=-1)
    return np.where(known, fastest, np.nan) / np.where(known, slowest, 1.0)


def last_arrival(t: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """(row, data): when the last eigenvalue has come within 10 % of its end for good."""
    away = np.any(np.abs(paths / paths[..., -1:, :] - 1) > 0.1, axis=-1, keepdims=True)[..., 0]
    last = np.where(away.any(axis=-1), away.shape[-1] - 1 - np.argmax(away[..., ::-1], axis=-1), -1)
    return np.take_along_axis(t, last + 1, axis=-1)


@in_float64
def coloured_inputs(
    *,
    size: int = 8,
    sigma: float = 0.3,
    colour: float = 10.0,
    shared: float = 0.9,
    learning_rate: float = 0.05,
    num_steps: int = 1200,
    batch_size: int = 1024,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Rates and limits of all modes under four losses on four kinds of data, beside the closed forms.

    Args:
        size: N = M >= 3.
        sigma: standard deviation of the noise on both views, > 0.
        colour: largest over smallest variance of the coloured inputs, > 1.
        shared: correlation of the noise on the two views where it is shared, in (0, 1).
        learning_rate: > 0 of the Euclidean rows, five times as large for the cosine.
        num_steps: >= 100.
        batch_size: fresh pairs per step of the networks, >= 1.
        full: batches of 8192, a fifth of the learning rate and five times the steps.
        key: seed of the networks' weights and pairs.

    Returns:
        Dataset over (row, data, time, mode): eigenvalues of C_z of `modes` aligned with the inputs, `theory` of the Euclidean rows
        (NaN for the others), of `network`s (ascending); over (row, data): `growth_ratio`, `theory_growth_ratio`, `last_arrival`,
        `end_ratio` of the modes, `network_arrival`, `network_end_ratio`; `limit` (data, mode) of the Euclidean modes.

    Raises:
        ValueError: an option out of range.

    Source: Halvagal 2023, (9), (16), (17), section 2.4, beyond "Gaussian i.i.d. inputs".
    """
    import xarray

    size, num_steps = whole("size", size, 3), whole("num_steps", num_steps, 100)
    require_positive("sigma", sigma)
    require_positive("learning_rate", learning_rate)
    require("colour", colour, "be > 1", lambda a: a > 1)
    require_fraction("shared", shared)
    if full:
        batch_size, learning_rate, num_steps = 8192, learning_rate / 5, 5 * num_steps
    law, s0 = laws(size, sigma, colour, shared), starting_eigenvalues(size)
    steps = saved_steps(num_steps, 120)
    t = np.array([PACE[row] for row in ROWS])[:, None] * learning_rate * steps
    found = expected_modes(
        ROWS,
        np.tile(s0, (len(DATA), 1)),
        law["view"],
        law["view"],
        steps,
        learning_rate,
        cross=law["cross"],
        correlation=law["clean"],
    )
    modes = np.stack([found[row] for row in ROWS])
    theory = np.full_like(modes, np.nan)
    for i, row in enumerate(ROWS[:2]):
        theory[i] = predictor_eigenvalue(
            t[i][:, None], s0, online=law["view"][:, None], cross=law["cross"][:, None], iso=row.endswith("iso")
        )
    networks = trained(law, size, steps, learning_rate, batch_size, key)
    path, both = ("row", "data", "time", "mode"), ("row", "data")
    long_name = {"long_name": "eigenvalue of C_z"}
    variables: dict[str, Any] = {
        "modes": (path, modes, long_name),
        "theory": (path, theory, long_name),
        "network": (path, networks, long_name),
        "growth_ratio": (both, growth_ratio(t, modes)),
        "theory_growth_ratio": (both, growth_ratio(t, theory)),
        "last_arrival": (both, last_arrival(t, modes)),
        "network_arrival": (both, last_arrival(t, networks)),
        "end_ratio": (both, largest_over_smallest(modes[:, :, -1])),
        "network_end_ratio": (both, largest_over_smallest(networks[:, :, -1])),
        "limit": (("data", "mode"), law["cross"] / law["view"], {"long_name": "limit of a Euclidean mode"}),
        "variance": (("data", "mode"), law["clean"], {"long_name": "variance of the clean input"}),
    }
    coords = {"row": list(ROWS), "data": list(DATA), "t": (("row", "time"), t, {"long_name": "time"})}
    settings = {"sigma": sigma, "colour": colour, "shared": shared, "learning_rate": learning_rate}
    dataset = xarray.Dataset(variables, coords, settings | {"batch_size": int(batch_size)})
    return with_checks(
        dataset, coloured_checks(dataset), paper=PAPERS["halvagal2023"], section="2.4, beyond i.i.d. inputs"
    )


def trained(
    law: dict[str, np.ndarray], size: int, steps: np.ndarray, learning_rate: float, batch_size: int, key: int
) -> np.ndarray:
    """Eigenvalues of C_z (row, data, time, mode), ascending, of networks from one Gaussian start on drawn pairs of each law."""

    def diagonal(values: np.ndarray) -> np.ndarray:
        return values[:, :, None] * np.eye(size)

    view, cross, clean = (jnp.asarray(diagonal(law[name])) for name in ("view", "cross", "clean"))
    start = draw_encoders(np.random.default_rng(key), 1, size, size)
    runs = networks_on(
        DataOfRows(jax.vmap(ViewMoments)(view, cross, view), clean),
        ROWS,
        np.tile(start, (len(DATA), 1, 1)),
        steps,
        learning_rate,
        batch_size,
        key,
    )
    roots = np.sqrt(law["clean"])[:, None, None, :]
    return np.stack([np.linalg.svd(runs[row] * roots, compute_uv=False)[..., ::-1] ** 2 for row in ROWS])


def coloured_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Each claim for IsoLoss on each kind of data."""
    iso, plain, tinted = ("euclidean_iso", "cosine_iso"), ("euclidean", "cosine"), DATA[1:3]

    def listed(name: str, rows: Sequence[str], data: Sequence[str]) -> str:
        one = dataset[name]
        return "; ".join(
            f"{kind}: " + ", ".join(f"{row} {float(one.sel(row=row, data=kind)):.3g}" for row in rows) for kind in data
        )

    def of(name: str, rows: Sequence[str], data: Sequence[str]) -> np.ndarray:
        return dataset[name].sel(row=list(rows), data=list(data)).values

    euclidean = ROWS[:2]
    exact = of("growth_ratio", euclidean, DATA) / of("theory_growth_ratio", euclidean, DATA)
    limits = dataset.modes.sel(row=ROWS[1]).isel(time=-1) / dataset.limit
    sooner = {name: (of(name, iso, DATA), of(name, plain, DATA)) for name in ("last_arrival", "network_arrival")}
    shared = float(dataset.limit.sel(data=DATA[3]).mean())
    where = "section 2.4"
    return [
        Check(
            "i.i.d. inputs: small modes grow at one rate under IsoLoss, at rates in the ratio of their λ without",
            where,
            "equalised convergence rates",
            "fastest over slowest of those that start small: " + listed("growth_ratio", ROWS, DATA[:1]),
            True,
            bool((of("growth_ratio", iso, DATA[:1]) < 1.5).all() and (of("growth_ratio", plain, DATA[:1]) > 2).all()),
        ),
        Check(
            "Coloured inputs: small modes grow at one rate under IsoLoss",
            where,
            "equalised convergence rates (proved for i.i.d. inputs)",
            listed("growth_ratio", iso, tinted),
            False,
            bool((of("growth_ratio", iso, tinted) < 1.5).all()),
            "every rate has the variance of the mode's input as a factor, which no loss of the embeddings can see",
        ),
        Check(
            "Euclidean: the ratios of growth are those of the closed forms with xx, yx of each mode",
            "(9), (16)",
            "(ours) dλ/dt = 2 λ² (yx - xx λ), IsoLoss 2 λ (yx - xx λ)",
            f"measured over theory {exact.min():.3f} to {exact.max():.3f}",
            True,
            bool((np.abs(exact - 1) < 0.1).all()),
            "steps of gradient descent beside the flow",
        ),
        Check(
            "IsoLoss: the last mode arrives sooner, whatever the data, under both distances; in networks too",
            where,
            "faster initial learning",
            "; ".join(
                f"{'modes' if name == 'last_arrival' else 'networks'} {(slow / fast).min():.2g} to {(slow / fast).max():.2g} "
                "times as soon"
                for name, (fast, slow) in sooner.items()
            ),
            True,
            all((fast < slow).all() for fast, slow in sooner.values()),
            "networks under the plain losses have often not arrived at the end of the run",
        ),
        Check(
            "Coloured inputs in white noise: all eigenvalues become equal",
            where,
            "isotropic representations",
            "largest over smallest at the end: " + listed("end_ratio", ROWS, DATA[1:2]),
            False,
            bool((of("end_ratio", ROWS, DATA[1:2]) < 1.1).all()),
            "IsoLoss does not change the limits, only the way there",
        ),
        Check(
            "Euclidean: each mode ends at yx / xx = (G + r σ² C) / (G + σ² C)",
            "(9), (16)",
            "(corrected) 1 / (1 + σ²) for i.i.d. inputs",
            f"IsoLoss, over theory {float(limits.min()):.4f} to {float(limits.max()):.4f}",
            True,
            bool((np.abs(limits - 1) < 1e-3).all()),
        ),
        Check(
            "Noise of the colour of the inputs, or shared by the views: all eigenvalues become equal",
            where,
            "isotropic representations",
            listed("end_ratio", ROWS, DATA[2:]),
            True,
            bool((of("end_ratio", ROWS, DATA[2:]) < 1.05).all()),
            f"shared noise only moves the limit, to {shared:.3f}: the views cannot tell it from signal",
        ),
        Check(
            "Networks from a Gaussian start: IsoLoss recruits all modes on all data",
            "section 3.2",
            "IsoLoss promotes eigenvalue recruitment",
            "largest over smallest at the end: " + listed("network_end_ratio", ROWS, DATA),
            True,
            bool((of("network_end_ratio", iso, DATA) < 2).all()),
        ),
    ]
