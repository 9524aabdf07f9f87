"""What Simon et al. 2023 claim about their linear model in Figures 1, 6 and 8, and what is found."""

from typing import TYPE_CHECKING

import numpy as np

from jepa_dyn.papers._figure import Check
from jepa_dyn.theory.barlow_twins_off_diagonal import late_factor

if TYPE_CHECKING:
    import xarray

MIDDLE = 1  # the start of Figure 6 among the three


def number_list(values: np.ndarray, form: str = ".3g") -> str:
    """Numbers as a text, apart by commas."""
    return ", ".join(format(float(value), form) for value in np.ravel(values))


def fig1ab_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Loss, eigenvalues and step times on photographs."""
    where = "Fig. 1 A, B"
    d, half, gammas = dataset.sizes["mode"], dataset.half_time.values, dataset.gamma.values
    ts, loss = dataset.time.values, dataset.loss.values
    # one step of size eta multiplies a small mode by 1 + 4 gamma eta, where the flow has e^(4 gamma eta)
    growth = 4 * gammas * dataset.attrs["learning_rate"]
    slower = growth / np.log1p(growth)
    errors = {
        str(name): np.abs(dataset.predicted_time.sel(reading=name).values / half - 1) for name in dataset.reading.values
    }
    exact = np.abs(dataset.predicted_time.sel(reading="(19), Gram-Schmidt").values * slower / half - 1)
    between = np.sqrt(half[1:] * half[:-1])
    plateaus = np.interp(between, ts, loss)
    missed = float(np.abs(plateaus - np.arange(d - 1, 0, -1)).max())
    rise = np.log(81) / (8 * gammas)
    separation = np.diff(half) / ((rise[1:] + rise[:-1]) / 2)
    rms = float(np.sqrt(np.mean((loss - dataset.predicted_loss.values) ** 2)))
    corrected, raw, printed, statistical = (float(errors[name].max()) for name in errors)
    return [
        Check(
            "The loss starts at d",
            "section 4.4",
            "L(0) = d, nearly",
            f"d - L = {d - loss[0]:.1e} at the first saved time",
            True,
            bool(abs(d - loss[0]) < 0.01 * d),
        ),
        Check(
            "It falls by one as each mode is learned: between two steps it is (20)",
            "(20), Fig. 1A",
            "number of τ_j > t",
            f"midway between steps at most {missed:.2g} off",
            True,
            missed < 0.3,
        ),
        Check(
            "Steps are discrete and well separated",
            where,
            "discrete, well-separated steps",
            f"distances of steps over their widths (10 to 90 %): {number_list(separation, '.1f')}",
            True,
            bool((separation > 1).all()),
            "set by the spectrum of the data: distances are ratios of eigenvalues",
        ),
        Check(
            "Eigenvalues are half grown at (16), with s_j(0) from (19) by Gram-Schmidt, within 1 %",
            "(16), (19), Fig. 1B",
            "excellent agreement; (19) corrected",
            f"off by at most {100 * float(exact.max()):.2g} %, by {100 * corrected:.2g} % without regard to the size of steps",
            True,
            float(exact.max()) < 0.01,
            "steps of η: time × x / log(1 + x), x = 4γη",
        ),
        Check(
            "The same with (19) as printed",
            "(19)",
            "u_k^T u_k / |u_k|²",
            "mode 2 is predicted never to be learned" if np.isinf(printed) else f"off by {100 * printed:.2g} %",
            False,
            printed < 0.01,
            "a number, 1, for the projector",
        ),
        Check(
            "The same with the outer products of the raw u_k in (19)",
            "(19)",
            "u_k u_k^T / |u_k|²",
            f"off by at most {100 * raw:.2g} %",
            False,
            raw < 0.01,
            "the u_k are not orthogonal",
        ),
        Check(
            "From the statistics of the start alone step times are right within 20 %",
            "(21)",
            "s_j(0) = σ (d - j + 1)^(1/2), roughly",
            f"off by at most {100 * statistical:.2g} %",
            True,
            statistical < 0.2,
            "the root mean square",
        ),
        Check(
            "The whole loss curve is that of the aligned motion",
            "Result 4.6, Fig. 1A",
            "excellent agreement",
            f"root mean square difference over log t: {rms:.2g}, of d = {d}",
            True,
            rms < 0.02 * d,
            f"|W - W*| itself only vanishes as α^{dataset.attrs['exponent']:.2f} on this spectrum",
        ),
    ]


def fig6_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Every entry of A(t) against (47), (48), as printed and corrected."""
    where = "(48), Fig. 6"
    one = dataset.isel(start=MIDDLE)
    simulated, printed, corrected = (one[name].values for name in ("simulated", "printed", "corrected"))
    gammas, d = one.gamma.values, one.sizes["row"]
    diagonal = np.arange(d)
    s, s_wanted = simulated[:, diagonal, diagonal], one.singular_value.values
    s_error = float(np.abs(s / s_wanted - 1).max())
    pairs = [(j, k) for j in range(d) for k in range(j + 1, d)]
    outer = [(j, k) for j in range(d) for k in range(d, gammas.size)]
    rows, columns = np.array(pairs).T
    late = simulated[-1, rows, columns] / printed[-1, rows, columns]
    beyond = np.array([simulated[-1, j, k] / printed[-1, j, k] for j, k in outer])
    factors = np.asarray(late_factor(gammas[rows] / gammas[columns]))
    early = gammas[columns] * s_wanted[:, columns] ** 2 < 1e-3
    before = float(np.where(early, np.abs(simulated[:, rows, columns] / printed[:, rows, columns] - 1), 0).max())
    below = simulated[-1, columns, rows] / simulated[-1, rows, columns]
    wanted_below = -np.sqrt(gammas[columns] / gammas[rows])
    off = np.ones(simulated.shape[1:], bool)
    off[diagonal, diagonal] = False
    largest = float(np.abs(simulated - corrected)[:, off].max() / np.abs(simulated[:, off]).max())
    aligned = np.zeros_like(dataset.simulated.values)
    aligned[..., diagonal, diagonal] = dataset.singular_value.values
    gaps = np.linalg.norm(dataset.simulated.values - aligned, axis=(-2, -1)).max(axis=-1)
    alphas, p = dataset.alpha.values, dataset.attrs["exponent"]
    slope = float(np.log(gaps[0] / gaps[-1]) / np.log(alphas[0] / alphas[-1]))
    return [
        Check(
            "The diagonal follows (47), the exact singular values",
            "(47), Fig. 6",
            "closely match",
            f"largest relative difference {s_error:.1e}",
            True,
            s_error < 1e-3,
        ),
        Check(
            "Above the diagonal (48) holds until mode k itself has grown",
            where,
            "a_jk(0) (s_j(t) / s_j(0))^(γ_k/γ_j)",
            f"largest relative difference while γ_k s_k² < 1e-3: {before:.1e}",
            True,
            before < 0.02,
        ),
        Check(
            "Above the diagonal (48) holds to the end for k > d",
            where,
            "a_jk(0) (s_j(t) / s_j(0))^(γ_k/γ_j)",
            f"simulated over (48) at the end: {number_list(beyond, '.4f')}",
            True,
            bool((np.abs(beyond - 1) < 0.03).all()),
        ),
        Check(
            "Above the diagonal (48) holds to the end for k <= d",
            where,
            "a_jk(0) (s_j(t) / s_j(0))^(γ_k/γ_j)",
            f"simulated over (48) at the end, jk = 12, 13, 23: {number_list(late, '.4f')}",
            False,
            bool((np.abs(late - 1) < 0.05).all()),
            "(46) drops the coupling of a_jk to a_kj, which counts once mode k has grown",
        ),
        Check(
            "It is (48) times F(γ_j/γ_k), F(g) = π^(1/2) Γ((g+1)/2) / Γ(g/2)",
            where,
            "(corrected)",
            f"{number_list(late, '.5f')}; F: {number_list(factors, '.5f')}",
            True,
            bool((np.abs(late / factors - 1) < 0.01).all()),
        ),
        Check(
            "Entries below the diagonal remain zero",
            where,
            "0 for j > k",
            f"a_kj over a_jk at the end: {number_list(below)}",
            False,
            bool((np.abs(below) < 0.05).all()),
            "of the same order as those above",
        ),
        Check(
            "They end at -(γ_k/γ_j)^(1/2) a_jk, so that C is diagonal",
            where,
            "(corrected)",
            f"{number_list(below, '.5f')}; wanted {number_list(wanted_below, '.5f')}",
            True,
            bool((np.abs(below / wanted_below - 1) < 0.01).all()),
        ),
        Check(
            "All entries beside the diagonal follow the corrected law at all times",
            where,
            "(corrected)",
            f"largest difference {largest:.1e} of the largest of them",
            True,
            largest < 0.01,
        ),
        Check(
            "All entries beside the diagonal vanish with α: |W - W*| ~ α^p, p = 1 - max γ_k/γ_j = 1/2",
            "Result 4.6, appendix C",
            "|W(t) - W*(t)| -> 0",
            f"largest |W - W*| {number_list(gaps, '.2e')} at α = {number_list(alphas, '.0e')}: p = {slope:.4f}",
            True,
            abs(slope - p) < 0.01,
            "the paper gives no rate; the largest difference is the one at the end",
        ),
    ]


def fig8_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Symmetry breaking: landscape, descent, time scales."""
    where = "appendix F, Fig. 8"
    place, loss = dataset.place.values, dataset.ssl_loss.values
    flat = [float(place[i]) for i in range(1, len(place) - 1) if (loss[i] - loss[i - 1]) * (loss[i + 1] - loss[i]) <= 0]
    extrema = sorted({round(value, 6) for value in flat})
    slope = np.gradient(loss, place)
    inside = np.abs(place) < 1.5
    speed = dataset.ssl_speed.values
    along, against = (float(np.abs(speed - sign * slope)[inside].max()) for sign in (1, -1))
    gammas, ts = dataset.gamma.values, dataset.time.values
    ssl, exact = dataset.ssl.values, dataset.ssl_exact.values
    error = float(np.abs(ssl - exact).max())
    supervised_error = float(np.abs(dataset.supervised.values - dataset.supervised_exact.values).max())
    rates, taken = [], []
    for j, gamma in enumerate(gammas):
        late = (1 - ssl[:, j] > 1e-6) & (1 - ssl[:, j] < 1e-2)
        rates.append(-np.polyfit(ts[late], np.log(1 - ssl[late, j]), 1)[0] / gamma)
        taken.append(float(np.interp(0.1, ssl[:, j], ts)))
    first = float(ssl[0, 0])
    ball = np.array([np.log(0.1 / first) / (4 * gamma) for gamma in gammas])
    ratio = np.array(taken) / ball
    half = dataset.half_time.values
    starts = dataset.start.values
    growth = float(np.polyfit(-np.log(starts), half[0], 1)[0])
    spread = float(half[1].max() / half[1].min())
    return [
        Check(
            "Two minima at ±1 and one maximum at 0",
            where,
            "Figure 8A",
            f"stationary at sbar = {number_list(np.array(extrema))}",
            True,
            extrema == [-1.0, 0.0, 1.0],
        ),
        Check(
            "sbar' = dL/dsbar",
            "(51)",
            "sbar' = dL/dsbar",
            f"largest difference at γ = 1: {along:.3g}",
            False,
            along < 0.05,
            "descent has the other sign",
        ),
        Check(
            "sbar' = -γ dL/dsbar",
            "(51)",
            "(corrected)",
            f"γ = 1: largest difference {against:.1e} (finite differences); integrated and exact over all γ {error:.1e}",
            True,
            against < 0.05 and error < 1e-6,
            "in s itself, without γ: s' = -dL/ds",
        ),
        Check(
            "To leave a ball of radius ε takes -log(ε / |sbar(0)|) / (4γ)",
            "footnote 23",
            "-log(ε/|sbar(0)|) / (4γ)",
            f"ε = 0.1: measured {number_list(np.array(taken))}, printed {number_list(-ball)}",
            False,
            bool((np.abs(ratio + 1) < 0.05).all()),
            "a negative time",
        ),
        Check(
            "To leave a ball of radius ε takes +log(ε / |sbar(0)|) / (4γ)",
            "footnote 23",
            "(corrected)",
            f"ε = 0.1: measured over that {number_list(ratio, '.4f')}",
            True,
            bool((np.abs(ratio - 1) < 0.01).all()),
        ),
        Check(
            "The minimum is approached on the time scale 1 / (4γ)",
            where,
            "τ' = 1 / (4γ)",
            f"measured rate over γ: {number_list(np.array(rates), '.3f')}",
            False,
            bool((np.abs(np.array(rates) / 4 - 1) < 0.05).all()),
            "1 / (4γ) is the e-fold of the escape",
        ),
        Check(
            "The minimum is approached on the time scale 1 / (8γ)",
            where,
            "(corrected)",
            f"measured rate over γ: {number_list(np.array(rates), '.3f')}",
            True,
            bool((np.abs(np.array(rates) / 8 - 1) < 0.05).all()),
        ),
        Check(
            "From ever smaller starts the step comes ever later, by -log sbar(0) / (4γ)",
            where,
            "τ = -log(|sbar(0)|) / (4γ)",
            f"half time grows by {growth:.6f} per factor e, γ = 1",
            True,
            abs(growth * 4 - 1) < 1e-3,
        ),
        Check(
            "A supervised mode grows at once from any start",
            where,
            "no period of slow growth",
            f"half times over starts {starts[-1]:.0e} to {starts[0]:.0e} differ by {100 * (spread - 1):.2g} %; "
            f"integrated and exact {supervised_error:.1e}",
            True,
            spread < 1.01 and supervised_error < 1e-6,
        ),
    ]
