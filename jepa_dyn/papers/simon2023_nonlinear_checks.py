"""What Simon et al. 2023 claim about networks that are not linear (Figure 2 A, B, appendices D.1, E), and what is found."""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn.papers._figure import Check

if TYPE_CHECKING:
    import xarray


def fig2ab_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Steps of the eigenvalues and of the loss, their times beside the theory, what becomes of the kernel."""
    d, settings = dataset.sizes["mode"], dataset.attrs
    times = dataset.step_time.values
    count = int(np.isfinite(times).sum())
    levels = dataset.plateau_level.values
    off = np.abs(levels - np.round(levels)).max(initial=0.0)
    ratios = times / dataset.predicted_time.values
    away = {
        kernel: np.abs(np.log(ratio[np.isfinite(ratio)]))
        for kernel, ratio in zip(dataset.kernel.values, ratios, strict=True)
    }
    typical = {kernel: float(np.expm1(np.median(gap))) if gap.size else np.inf for kernel, gap in away.items()}
    worst = float(np.expm1(away["initial"].max())) if count else np.inf
    aligned = dataset.alignment.to_series()
    rank = float(dataset.effective_rank[-1])
    literal = settings["largest_with_all_scaled"]
    return [
        Check(
            "Eigenvalues of C rise from near 0 to 1 in steps, one for each dimension of the embedding",
            "Fig. 2 B, section 6",
            f"stepwise, {d} modes",
            f"{count} of {d} rise, {settings['separate_steps']} of them after a plateau; effective rank at the end {rank:.2f}",
            True,
            count == d and float(np.abs(dataset.eigenvalue[-1].values - 1).max()) < 0.1,
        ),
        Check(
            "The loss falls from d to 0 as a staircase with plateaus at whole numbers",
            "Fig. 2 A, (20)",
            "L = number of modes that wait",
            f"plateaus at {', '.join(f'{level:.2f}' for level in levels)}",
            True,
            levels.size >= max(2, d // 2) and float(off) < 0.15 and abs(float(dataset.loss[0]) - d) < 0.01,
            "steps close in time share one drop",
        ),
        Check(
            "The NTK at the start predicts when each mode is learned: within 10 % (median), 25 % (worst)",
            "section 6: a wide network should train as its kernel says",
            "times (16)",
            f"median error {100 * typical['initial']:.0f} %, largest {100 * worst:.0f} %",
            True,
            typical["initial"] < 0.1 and worst < 0.25,
            "start s_j(0) = R_jj of the embeddings at t = 0",
        ),
        Check(
            "The learned functions span what the NTK at the start says: alignment above 0.95",
            "proposition 5.1",
            "embeddings known up to a rotation",
            f"alignment {aligned['initial']:.3f}; from the NTK at the end {aligned['final']:.3f}",
            True,
            bool(aligned["initial"] > 0.95),
        ),
        Check(
            "The NTK remains roughly fixed: its norm changes by less than 10 %",
            "section 6",
            "fairly wide, so we expect its NTK to remain roughly fixed",
            f"norm x {settings['kernel_growth']:.2f} at width {settings['width']}",
            False,
            abs(settings["kernel_growth"] - 1) < 0.1,
            "it grows with the readout, and did not need to stay: see the next check",
        ),
        Check(
            "The NTK keeps its shape: cosine of start and end above 0.97",
            "(corrected)",
            "",
            f"cosine {settings['kernel_cosine']:.4f}",
            True,
            settings["kernel_cosine"] > 0.97,
        ),
        Check(
            "With all weights scaled by the printed α the modes are learned",
            "appendix D.1",
            "weights are scaled upon initialization by α = 0.0001, 7000 epochs at η = 0.0001",
            f"largest eigenvalue up to the printed t = 0.7: {literal:.1e}, of 1",
            False,
            literal > 0.5,
            "the NTK of two scaled layers is of order α²; here α scales the readout alone",
        ),
    ]


def appendix_e_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Alignments beside chance and beside each other; what the measure's printed bounds are worth."""
    d, points = dataset.attrs["dimension"], 2 * dataset.attrs["pairs"]
    final, top, initial, chance = (dataset.alignment.sel(prediction=name).values for name in dataset.prediction.values)
    random = dataset.random.values
    error = float(random.std() / np.sqrt(random.size))
    mean = float(random.mean())
    highest, learned = float(dataset.alignment.max()), float(dataset.eigenvalue.min())

    def text(values: np.ndarray) -> str:
        return "; ".join(
            f"{name}: "
            + ", ".join(f"{value:.2f} {kind}" for value, kind in zip(row, dataset.points.values, strict=True))
            for name, row in zip(dataset.network.values, values, strict=True)
        )

    where, gain = "appendix E, table 1", final - initial  # columns: training pairs, fresh pairs
    return [
        Check(
            "Embeddings lie in the span predicted from the NTK after training, far more than by chance: above 0.5",
            where,
            "0.615 (ResNet-50, Barlow Twins, fresh pairs), by chance 0.025",
            f"{text(final)}; by chance {float(chance.max()):.2f}; smallest eigenvalue of C at the end {learned:.2f}",
            True,
            bool((final > 0.5).all()) and learned > 0.9,
            "all modes are learned",
        ),
        Check(
            "The top d eigenvectors of that NTK do similarly well: above 0.5",
            where,
            "0.510",
            text(top),
            True,
            bool((top > 0.5).all()),
        ),
        Check(
            "The NTK after training predicts better than that before on the training pairs, and on fresh ones no worse by 0.02",
            "section 6, section 7",
            "agreement with the initial NTK is poor",
            f"before: {text(initial)}",
            True,
            bool((gain[:, 0] > 0).all() and (gain > -0.02).all()),
            "all parameters are small at the start, so that the kernel has to form",
        ),
        Check(
            "Two networks learn similar functions: alignment of their embeddings above twice chance",
            "appendix E, table 2",
            "0.40 to 0.50 between losses of one network, by chance 0.025",
            ", ".join(
                f"{value:.2f} {kind}" for value, kind in zip(dataset.between.values, dataset.points.values, strict=True)
            ),
            True,
            bool((dataset.between.values > 2 * float(chance.max())).all()),
        ),
        Check(
            "The largest alignment is d",
            "appendix E",
            f"d = {d}",
            f"largest found {highest:.3f}, of equal subspaces 1",
            False,
            highest > 1 + 1e-9,
            "its definition has the factor 1/d",
        ),
        Check(
            "Random subspaces have a mean alignment of d²/2n",
            "appendix E",
            f"d²/2n = {d**2 / points:.3g}",
            f"{mean:.4f} ± {error:.4f}",
            False,
            abs(mean - d**2 / points) < 5 * error,
        ),
        Check(
            "Random subspaces have a mean alignment of d/2n",
            "(corrected); tables 1, 2: 0.025 = 50/2000",
            f"d/2n = {d / points:.3g}",
            f"{mean:.4f} ± {error:.4f}",
            True,
            abs(mean - d / points) < 5 * error,
        ),
    ]
