"""Halvagal et al. 2023, "Implicit variance regularization in non-contrastive SSL": Table 1, Figures 2, 4 to 6, small networks.

Inputs are standard Gaussian, both views carry noise of standard deviation sigma, W_P = C_z (alpha = 1) of the clean inputs, so
that the eigenvalues lambda of the predictor are those of C_z. Times are gradient-flow times: learning rate x step x pace.
"""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn._checks import require_positive
from jepa_dyn.losses import TABLE_1
from jepa_dyn.papers import halvagal2023_checks as claims
from jepa_dyn.papers._figure import PAPERS, Item, in_float64, whole, with_checks
from jepa_dyn.papers.halvagal2023_alignment import fig4
from jepa_dyn.papers.halvagal2023_beyond_plots import plot_coloured_inputs, plot_phase_diagram
from jepa_dyn.papers.halvagal2023_coloured import coloured_inputs
from jepa_dyn.papers.halvagal2023_images import fig3, fig7, fig8
from jepa_dyn.papers.halvagal2023_images_plots import plot_fig3, plot_fig7, plot_fig8
from jepa_dyn.papers.halvagal2023_networks import networks_under_every_loss
from jepa_dyn.papers.halvagal2023_phases import phase_diagram
from jepa_dyn.papers.halvagal2023_plots import plot_fig2, plot_fig4, plot_fig5, plot_table1
from jepa_dyn.papers.halvagal2023_relu import fig6
from jepa_dyn.papers.halvagal2023_runs import (
    PACE,
    draw_encoders,
    expected_modes,
    saved_steps,
    spectra,
    trained_networks,
)
from jepa_dyn.papers.halvagal2023_starts import fig5

if TYPE_CHECKING:
    import xarray

VIEWS = ("clean online view", "no noise")


@in_float64
def table1(
    *,
    count: int = 3,
    outputs: int = 10,
    inputs: int = 15,
    sigma: float = 0.1,
    learning_rate: float = 0.05,
    num_steps: int = 600,
    batch_size: int = 512,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Table 1: what becomes of the eigenvalues under each of the eight losses, networks beside the exact dynamics of their modes.

    Networks descend on fresh pairs, the modes on the population. The first start is also followed by its modes with a clean online
    view, and without noise, where two of the printed predictions hold or fail.

    Args:
        count: starts, entries ~ N(0, 1 / N), >= 2.
        outputs, inputs: M >= 4 and N >= M, 10 and 15 in the paper.
        sigma: standard deviation of the noise, > 0, 0.1 in the paper.
        learning_rate: > 0 of the Euclidean rows with predictor; the others take the multiples in `halvagal2023_runs.PACE`.
        num_steps: >= 100.
        batch_size: pairs per step, >= 1.
        full: 10 starts, batches of 4096, a fifth of the learning rate and five times the steps.
        key: seed of starts and pairs.

    Returns:
        Dataset over (row, seed, time, mode): eigenvalues of C_z, ascending, `simulated` and `predicted`; `other_views` of the
        first start. `t` has a row per loss.

    Raises:
        ValueError: an option out of range.

    Source: Halvagal 2023, Table 1, section 3, appendix C.
    """
    import xarray

    count, outputs = whole("count", count, 2), whole("outputs", outputs, 4)
    inputs, num_steps = whole("inputs", inputs, outputs), whole("num_steps", num_steps, 100)
    require_positive("sigma", sigma)
    require_positive("learning_rate", learning_rate)
    if full:
        count, batch_size, learning_rate, num_steps = 10, 4096, learning_rate / 5, 5 * num_steps
    names, steps = tuple(TABLE_1), saved_steps(num_steps, 40)
    starts = draw_encoders(np.random.default_rng(key), count, outputs, inputs)
    networks = trained_networks(names, starts, sigma, steps, learning_rate, batch_size, key)
    s0, noisy = spectra(starts), 1 + sigma**2
    online = np.append(np.full(count, noisy), [1.0, 1.0])
    target = np.append(np.full(count, noisy), [noisy, 1.0])
    modes = expected_modes(names, np.concatenate([s0, s0[:1], s0[:1]]), online, target, steps, learning_rate)
    predicted = np.sort(np.stack([modes[name] for name in names]), axis=-1)
    path = ("time", "mode")
    long_name = {"long_name": "eigenvalue of C_z"}
    variables = {
        "simulated": (("row", "seed", *path), np.stack([spectra(networks[name]) for name in names]), long_name),
        "predicted": (("row", "seed", *path), predicted[:, :count], long_name),
        "other_views": (("row", "views", *path), predicted[:, count:], long_name),
    }
    times = np.array([PACE[name] for name in names])[:, None] * learning_rate * steps
    coords = {"row": list(names), "views": list(VIEWS), "mode": np.arange(1, outputs + 1)}
    coords["t"] = (("row", "time"), times, {"long_name": "time"})
    settings = {"sigma": sigma, "learning_rate": learning_rate, "batch_size": int(batch_size), "inputs": inputs}
    dataset = xarray.Dataset(variables, coords, settings)
    return with_checks(dataset, claims.table1_checks(dataset), paper=PAPERS["halvagal2023"], table="1")


@in_float64
def fig2(
    *,
    outputs: int = 10,
    inputs: int = 15,
    sigma: float = 0.1,
    learning_rate: float = 0.05,
    num_steps: int = 600,
    batch_size: int = 512,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 2: representations of a network with two outputs, eigenvalues of one with ten, as they learn with each loss.

    Args:
        outputs, inputs: M >= 2 of the network whose eigenvalues are shown, N >= M; 10 and 15 in the paper.
        sigma: standard deviation of the noise on both views, > 0, 0.1 in the paper.
        learning_rate: > 0 of the Euclidean rows with predictor; the others take the multiples in `halvagal2023_runs.PACE`.
        num_steps: >= 100.
        batch_size: pairs per step, >= 1; eight times as many with two outputs, where short embeddings make long gradients.
        full: batches of 4096, a fifth of the learning rate and five times the steps.
        key: seed of starts, points and pairs.

    Returns:
        Dataset over (row, time): eigenvalues of C_z, ascending; `representation` of 150 inputs in the network with two outputs,
        and the eigenvalues of its C_z. `t` has a row per loss.

    Raises:
        ValueError: an option out of range.

    Source: Halvagal 2023, Figure 2, section 3.
    """
    dataset = networks_under_every_loss(
        outputs=outputs,
        inputs=inputs,
        sigma=sigma,
        learning_rate=learning_rate,
        num_steps=num_steps,
        batch_size=batch_size,
        full=full,
        key=key,
    )
    return with_checks(dataset, claims.fig2_checks(dataset), paper=PAPERS["halvagal2023"], figure="2")


ITEMS = (
    Item("table1", "what becomes of the eigenvalues under each of the eight losses", table1, plot_table1),
    Item("fig2", "representations and eigenvalues of linear networks under each loss", fig2, plot_fig2),
    Item("fig3", "eigenvalues that encoders of images recruit, by loss, predictor and target", fig3, plot_fig3),
    Item("fig4", "alignment of a trained linear predictor with the eigenvectors of C_z", fig4, plot_fig4),
    Item("fig5", "where two eigenvalues end from three starts, Euclidean and cosine", fig5, plot_fig5),
    Item("fig6", "the networks of Figure 2 with a ReLU on the embeddings, beside linear ones", fig6, plot_fig2),
    Item("fig7", "eigenvalues recruited against the rate of a moving-average target, cosine losses", fig7, plot_fig7),
    Item("fig8", "eigenvalues recruited against weight decay, cosine losses", fig8, plot_fig8),
    Item(
        "phase_diagram",
        "where each loss collapses or keeps all modes, over alpha, EMA rate, weight decay and start",
        phase_diagram,
        plot_phase_diagram,
    ),
    Item(
        "coloured_inputs",
        "IsoLoss where inputs are coloured or views share noise",
        coloured_inputs,
        plot_coloured_inputs,
    ),
)
