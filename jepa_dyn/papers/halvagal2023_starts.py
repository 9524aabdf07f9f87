"""Figure 5 of Halvagal et al. 2023: where two eigenvalues end from three starts, under either distance, and what is claimed."""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn._checks import require_count, require_positive
from jepa_dyn.papers._figure import PAPERS, Check, in_float64, with_checks
from jepa_dyn.papers.halvagal2023_checks import spread
from jepa_dyn.papers.halvagal2023_runs import PACE, expected_modes, saved_steps, spectra, trained_networks

if TYPE_CHECKING:
    import xarray

LOSSES = ("euclidean", "cosine")
STARTS = np.array([[0.15, 0.6], [0.4, 1.6], [0.8, 3.2]])


@in_float64
def fig5(
    *,
    inputs: int = 15,
    sigma: float = 0.1,
    learning_rate: float = 0.01,
    num_steps: int = 900,
    batch_size: int = 4096,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 5: both eigenvalues of a network with two outputs from three starts, beside the exact dynamics of its modes.

    The eigenvalues of C_z at the start are `STARTS`, its directions random.

    Args:
        inputs: N >= 2.
        sigma: standard deviation of the noise on both views, > 0.
        learning_rate: > 0 of the Euclidean runs, five times as large for the cosine.
        num_steps: >= 100.
        batch_size: fresh pairs per step, >= 1.
        full: a fifth of the learning rate and five times the steps.
        key: seed of directions and pairs.

    Returns:
        Dataset over (distance, start, time, mode): eigenvalues of C_z, ascending, `simulated` and `predicted`. `t` has a row per
        distance.

    Raises:
        ValueError: an option out of range.

    Source: Halvagal 2023, Figure 5.
    """
    import xarray

    require_count("inputs", inputs, 2)
    require_count("num_steps", num_steps, 100)
    require_positive("sigma", sigma)
    require_positive("learning_rate", learning_rate)
    if full:
        learning_rate, num_steps = learning_rate / 5, 5 * num_steps
    rng, steps = np.random.default_rng(key), saved_steps(num_steps, 40)
    left, right = (np.stack([np.linalg.qr(rng.normal(size=(n, 2)))[0] for _ in STARTS]) for n in (2, inputs))
    starts = left * np.sqrt(STARTS)[:, None] @ right.swapaxes(1, 2)
    networks = trained_networks(LOSSES, starts, sigma, steps, learning_rate, batch_size, key)
    views = np.full(len(STARTS), 1 + sigma**2)
    modes = expected_modes(LOSSES, STARTS, views, views, steps, learning_rate)
    axes, long_name = ("distance", "start", "time", "mode"), {"long_name": "eigenvalue of C_z"}
    variables = {
        "simulated": (axes, np.stack([spectra(networks[loss]) for loss in LOSSES]), long_name),
        "predicted": (axes, np.sort(np.stack([modes[loss] for loss in LOSSES]), axis=-1), long_name),
    }
    times = np.array([PACE[loss] for loss in LOSSES])[:, None] * learning_rate * steps
    coords = {"distance": list(LOSSES), "t": (("distance", "time"), times, {"long_name": "time"})}
    settings = {"sigma": sigma, "learning_rate": learning_rate, "batch_size": int(batch_size), "inputs": int(inputs)}
    dataset = xarray.Dataset(variables, coords, settings)
    return with_checks(dataset, fig5_checks(dataset), paper=PAPERS["halvagal2023"], figure="5")


def fig5_checks(dataset: "xarray.Dataset") -> list[Check]:
    """One end for all starts under the Euclidean loss; one for each, its own mean, under the cosine."""
    networks = dataset.simulated.transpose("distance", "start", "time", "mode")
    euclidean, cosine = (networks.sel(distance=name).values for name in LOSSES)
    exact = dataset.predicted.sel(distance="cosine").transpose("start", "time", "mode").values
    ends, means = cosine[:, -1].mean(-1), cosine[:, 0].mean(-1)
    steps = np.diff(cosine.sum(-1), axis=1)
    kept = exact[:, -1].mean(-1) / exact[:, 0].mean(-1)
    gaps = np.sqrt(((dataset.simulated - dataset.predicted) ** 2).mean(("time", "mode"))).values
    return [
        Check(
            "Euclidean: both eigenvalues converge to 1 from every start",
            "Figure 5 a",
            "always converge to 1 regardless of the initialization",
            f"{euclidean[:, -1].min():.3f} to {euclidean[:, -1].max():.3f}",
            True,
            bool((np.abs(euclidean[:, -1] - 1) < 0.04).all()),
            f"exactly 1 / (1 + σ²) = {1 / (1 + dataset.attrs['sigma'] ** 2):.4f}, both views noisy",
        ),
        Check(
            "Cosine: the two converge to equal values",
            "Figure 5 b",
            "arbitrary, but equal, values",
            f"largest over smallest at most {spread(cosine[:, -1]):.3f}",
            True,
            spread(cosine[:, -1]) < 1.1,
        ),
        Check(
            "Cosine: other starts end at other values",
            "Figure 5 b",
            "arbitrary values",
            ", ".join(f"{end:.3f}" for end in ends),
            True,
            bool(np.diff(np.sort(ends)).min() > 0.1),
        ),
        Check(
            "Cosine: the common value is the mean eigenvalue of the start",
            "Figure 5 b",
            "(corrected) tr C_z(0) / M: the trace is conserved, nothing is arbitrary",
            f"on the population within {100 * np.abs(kept - 1).max():.2g} %; networks end at "
            f"{', '.join(f'{end:.3f}' for end in ends)} from means {', '.join(f'{mean:.3f}' for mean in means)}",
            True,
            bool((np.abs(kept - 1) < 0.01).all()),
        ),
        Check(
            "Cosine: steps on drawn pairs never lower the trace",
            "Figure 5 b",
            "(ours) gradients are orthogonal to W: |W - h G|² = |W|² + h² |G|²",
            f"smallest change between saved times {steps.min():.1e}, largest {steps.max():.2g}",
            True,
            bool(steps.min() > -1e-9),
            "with two outputs |G|² has no finite mean: one short embedding moves the common value of a whole run",
        ),
        Check(
            "Networks follow the exact dynamics of their modes",
            "section 3",
            "theorems 1 and 2 hold exactly",
            f"r.m.s. distance at most {gaps[0].max():.3f} (Euclidean), {gaps[1].max():.3f} (cosine)",
            True,
            bool(gaps.max() < 0.1),
        ),
    ]
