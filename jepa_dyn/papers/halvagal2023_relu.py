"""Figure 6 of Halvagal et al. 2023: the networks of Figure 2 with a ReLU, beside linear ones, and what is claimed.

The linear prediction starts from the eigenvalues of the ReLU network and runs at half the speed: a rectified unit passes on half of
the gradient, so that its tangent kernel at the start is half the linear one.
"""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn.papers._figure import PAPERS, Check, in_float64, whole, with_checks
from jepa_dyn.papers.halvagal2023_checks import arrival, spread
from jepa_dyn.papers.halvagal2023_networks import networks_under_every_loss
from jepa_dyn.papers.halvagal2023_runs import expected_modes

if TYPE_CHECKING:
    import xarray

KERNEL_SHARE = 0.5  # of the tangent kernel of a linear network that a rectified one has


@in_float64
def fig6(
    *,
    outputs: int = 10,
    inputs: int = 15,
    sigma: float = 0.1,
    learning_rate: float = 0.025,
    num_steps: int = 1600,
    batch_size: int = 256,
    full: bool = False,
    key: int = 0,
) -> "xarray.Dataset":
    """Figure 6: Figure 2 with z = max(W x, 0), beside what the modes of a linear network do from the same eigenvalues.

    Args: as `fig2`, with outputs >= 4.

    Returns:
        The dataset of `fig2` with `predicted`, `predicted_of_two`: eigenvalues of the linear modes, at half the speed.

    Raises:
        ValueError: an option out of range.

    Source: Halvagal 2023, Figure 6.
    """
    dataset = networks_under_every_loss(
        outputs=whole("outputs", outputs, 4),
        inputs=inputs,
        sigma=sigma,
        learning_rate=learning_rate,
        num_steps=num_steps,
        batch_size=batch_size,
        full=full,
        key=key,
        relu=True,
    )
    names, steps, views = tuple(dataset.row.values), dataset.step.values, np.full(1, 1 + sigma**2)
    found = {}
    for name, own in (("predicted", "eigenvalue"), ("predicted_of_two", "eigenvalue_of_two")):
        start = dataset[own].isel(time=0, row=0).values[None]
        rate = KERNEL_SHARE * dataset.attrs["learning_rate"]
        modes = expected_modes(names, np.maximum(start, 0), views, views, steps, rate)
        values = np.sort(np.stack([modes[row][0] for row in names]), axis=-1)
        found[name] = (dataset[own].dims, values, {"long_name": "eigenvalue of C_z of a linear network"})
    dataset = dataset.assign(found)
    return with_checks(dataset, fig6_checks(dataset), paper=PAPERS["halvagal2023"], figure="6")


def fig6_checks(dataset: "xarray.Dataset") -> list[Check]:
    """What Figure 2 shows, once more with a ReLU; and what a ReLU changes."""
    where = "Figure 6"
    names = dataset.row.values
    many, two = (
        {row: dataset[name].sel(row=row).values for row in names} for name in ("eigenvalue", "eigenvalue_of_two")
    )
    linear = {row: dataset.predicted.sel(row=row).values for row in names}
    t = {row: dataset.t.sel(row=row).values for row in names}

    def kept(row: str) -> float:
        """Smallest eigenvalue at the end over that at the start."""
        return float(many[row][-1].min() / many[row][0].min())

    def trace(paths: dict[str, np.ndarray], row: str) -> float:
        return float(paths[row][-1].sum() / paths[row][0].sum())

    rich, poor = "cosine_no_stop_gradient", "euclidean_no_predictor"
    gone = max(float(paths["euclidean_no_stop_gradient"][-1].max()) for paths in (many, two))
    thin = [float(paths[rich][-1].min() / paths[rich][-1].max()) for paths in (many, two)]
    slow = [[spread(paths["cosine_no_predictor"][i]) for i in (0, -1)] for paths in (many, two)]
    equal = ("euclidean", "cosine", "euclidean_iso")
    pairs = {row: spread(two[row][-1]) for row in equal}
    plain = {row: kept(row) for row in equal[:2]}
    iso = {row: kept(row) for row in ("euclidean_iso", "cosine_iso")}
    ends = {row: spread(many[row][-1]) for row in (*equal, "cosine_iso")}
    bulk = spread(many["euclidean_iso"][-1][:-1])
    arrivals = [arrival(t[row], many[row][None, :, :-1]) for row in equal[::2]]
    decay = -np.log(trace(linear, poor))
    gaps = [_gap(dataset, row, "eigenvalue_of_two", "predicted_of_two") for row in equal]
    return [
        Check(
            "Euclidean without stop gradient: all eigenvalues collapse",
            where,
            "as Figure 2 a, top",
            f"largest {gone:.1e}, with two outputs and with {dataset.sizes['mode']}",
            True,
            gone < 0.01,
        ),
        Check(
            "Cosine without stop gradient: eigenvalues diverge",
            where,
            "as Figure 2 a, bottom",
            f"trace times {trace(many, rich):.3f}, with two outputs {trace(two, rich):.3f}",
            False,
            bool((many[rich][-1] > 10 * many[rich][0]).all()),
            "gradients are orthogonal to W with a ReLU too: z = max(W x, 0) is as scale-invariant",
        ),
        Check(
            "Cosine without stop gradient: the rank collapses",
            where,
            "(corrected) as the linear network does",
            f"smallest over largest eigenvalue {thin[0]:.1g}, with two outputs {thin[1]:.1g}",
            True,
            thin[0] < 0.01,
        ),
        Check(
            "Euclidean without predictor: the trace decays as that of the linear network",
            where,
            "(corrected) as Figure 2 b, top: by noise alone",
            f"to {trace(many, poor):.2g} of the start, linear {trace(linear, poor):.2g}",
            True,
            bool(trace(many, poor) < 0.95 and abs(np.log(trace(many, poor) / trace(linear, poor))) < decay / 4),
        ),
        Check(
            "Cosine without predictor: eigenvalues slowly approach one another",
            where,
            "as Figure 2 b, bottom",
            f"largest over smallest {slow[0][0]:.3g} -> {slow[0][1]:.3g}, with two outputs {slow[1][0]:.3g} -> {slow[1][1]:.3g}",
            True,
            all(end < start for start, end in slow),
        ),
        Check(
            "Two outputs: eigenvalues converge to equal values",
            where,
            "as Figure 2 c, d",
            "largest over smallest " + ", ".join(f"{row} {value:.3f}" for row, value in pairs.items()),
            True,
            max(pairs.values()) < 1.35,
            "two rectified outputs can be uncorrelated: of opposite weights",
        ),
        Check(
            f"{dataset.sizes['mode']} outputs: eigenvalues converge to equal values",
            where,
            "as Figure 2 c, d",
            "largest over smallest " + ", ".join(f"{row} {value:.3g}" for row, value in ends.items()),
            False,
            max(ends.values()) < 1.35,
            "impossible: outputs >= 0 are correlated, but for opposite weights; C_z has one large eigenvalue along their mean",
        ),
        Check(
            "BYOL / SimSiam, Euclidean and cosine: no eigenvalue is lost",
            where,
            "as Figure 2 c",
            "smallest eigenvalue times " + ", ".join(f"{row} {value:.2g}" for row, value in plain.items()),
            False,
            min(plain.values()) > 1,
            "small modes die where a linear network recruits them",
        ),
        Check(
            "IsoLoss, Euclidean and cosine: no eigenvalue is lost",
            where,
            "as Figure 2 d",
            "smallest eigenvalue times " + ", ".join(f"{row} {value:.2g}" for row, value in iso.items()),
            True,
            min(iso.values()) > 1,
        ),
        Check(
            "Euclidean IsoLoss: all eigenvalues but the largest become equal, sooner than without",
            where,
            "(ours) as Figure 2 d, beside the mean",
            f"largest over smallest of the rest {bulk:.3f}; within 10 % of their mean at the end from t = {arrivals[1]:.3g} on, "
            f"without IsoLoss {'never' if np.isinf(arrivals[0]) else f'{arrivals[0]:.3g}'}",
            True,
            bool(bulk < 1.2 and arrivals[1] < arrivals[0]),
        ),
        Check(
            "Two outputs: the linear modes at half the speed are a prediction",
            where,
            "(ours) a rectified unit passes on half of the gradient",
            "r.m.s. distance of the eigenvalues "
            + ", ".join(f"{row} {gap:.2f}" for row, gap in zip(equal, gaps, strict=True)),
            True,
            max(gaps) < 0.35,
        ),
    ]


def _gap(dataset: "xarray.Dataset", row: str, found: str, predicted: str) -> float:
    """R.m.s. distance over times and modes."""
    one = dataset.sel(row=row)
    return float(np.sqrt(((one[found] - one[predicted]) ** 2).mean()))
