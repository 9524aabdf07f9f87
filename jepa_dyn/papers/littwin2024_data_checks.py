"""What Littwin et al. 2024 claim about their two data models (Figure 3, appendix C), and what is found."""

import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jepa_dyn.moments import (
    feature_spectrum,
    masking_moments,
    masking_spectrum,
    moments_from_pairs,
    sample_masking_pairs,
)
from jepa_dyn.moments.random_masking import RandomMaskingModel
from jepa_dyn.papers._figure import Check
from jepa_dyn.parameters import mode_parameters
from jepa_dyn.solve.exact import exact
from jepa_dyn.theory import modes as theory

if TYPE_CHECKING:
    import xarray

_EPS, _DEPTH = 1e-3, 5.0  # start and depth at which critical times are compared


def _fitted_power(x: np.ndarray, y: np.ndarray) -> float:
    """Exponent of y ~ x^p by least squares in the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def temporal_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Features (19), diagonalisability, the noise of (139), and what JEPA and MAE make of the two images."""
    most = dataset.isel(samples=-1)
    count = int(dataset.samples[-1])
    made = []
    for name, symbol in (("lam", "λ"), ("rho", "ρ")):
        mean, spread, want = most[name].mean("run"), most[name].std("run", ddof=1), most[f"{name}_theory"]
        away = abs(mean - want) / spread
        made.append(
            Check(
                f"Measured {symbol} agrees with the closed form within the 2 s.d. of the runs",
                "eq. (19), Fig. 3(e)",
                ", ".join(f"{float(value):.4f}" for value in want),
                ", ".join(f"{float(m):.4f} ± {float(s):.4f}" for m, s in zip(mean, spread, strict=True))
                + f" at T = {count:,}",
                True,
                bool((away < 2).all()),
            )
        )
    theory_lam, theory_rho = dataset.lam_theory.values, dataset.rho_theory.values
    crossed = bool(theory_lam[0] > theory_lam[1]) and bool(theory_rho[0] < theory_rho[1])
    power = _fitted_power(dataset.samples.values, dataset.defect.mean("run").values)
    made += [
        Check(
            "From image 1 to image 2 λ falls while ρ rises",
            "Fig. 3(e), caption",
            "less noise on image 2",
            f"λ {theory_lam[0]:.3f} -> {theory_lam[1]:.3f}, ρ {theory_rho[0]:.3f} -> {theory_rho[1]:.3f}",
            True,
            crossed,
        ),
        Check(
            "Empirical moments become simultaneously diagonal",
            "Fig. 3(f), section 5.1",
            "mean squared off-diagonal element falls with T",
            f"falls as T^{power:.2f}",
            True,
            -1.2 < power < -0.8,
            "sampling noise: 1/T",
        ),
        *_noise_of_139(dataset),
        *_inverted_order(theory_lam, theory_rho),
    ]
    return made


def _noise_of_139(dataset: "xarray.Dataset") -> list[Check]:
    images = dataset.images.values.reshape(2, -1)
    noise = dataset.noise.values**2
    signal = images.T @ images
    printed = signal + noise.sum() * np.eye(signal.shape[0])
    error, own = (float(abs(dataset.xx - matrix).max()) for matrix in (printed, dataset.xx_theory))
    count = int(dataset.samples[-1])
    return [
        Check(
            "Covariance of a frame, as printed",
            "eq. (139)",
            "noise term δ_ij δ_a(i)a(j): sum of all σ_a² on every pixel",
            f"largest difference from {count:,} samples: {error:.3f}",
            False,
            error < 0.1,
            "misprint: pixel i has the noise of its own image",
        ),
        Check(
            "Covariance of a frame, corrected",
            "eq. (139)",
            "(corrected) δ_ij σ_a(i)²",
            f"largest difference from {count:,} samples: {own:.3f}",
            True,
            own < 0.1,
        ),
    ]


def _inverted_order(lam: np.ndarray, rho: np.ndarray) -> list[Check]:
    args = mode_parameters(lam, rho, _DEPTH)
    jepa, mae = (np.asarray(theory.critical_time(objective, _EPS, args)) for objective in ("jepa", "mae"))
    return [
        Check(
            "JEPA learns the noisy image later than the clean one, MAE does not",
            "section 5.1, below eq. (19)",
            "JEPAs can be slower to learn noisy features in a way that MAEs are not",
            f"t* of images 1, 2: JEPA {jepa[0]:.4g}, {jepa[1]:.4g}; MAE {mae[0]:.4g}, {mae[1]:.4g} (L = 5, eps = 1e-3)",
            True,
            bool(jepa[0] > jepa[1]) and bool(mae[0] <= mae[1] * 1.05),
            "image 1 has the larger λ and the smaller ρ",
        )
    ]


def masking_checks(dataset: "xarray.Dataset") -> list[Check]:
    """Theorem C.1 where its rows are orthonormal and where they are Gaussian, and what it leaves out."""
    dense = dataset.sel(gamma=1.0)
    sizes = dataset.d.values
    errors = {kind: dataset.error_lam.sel(rows=kind).mean("model") for kind in dataset.rows.values}
    powers = {kind: _fitted_power(sizes, errors[kind].sel(gamma=1.0).values) for kind in errors}
    commuting = {kind: _fitted_power(sizes, dense.commutator.sel(rows=kind).mean("model").values) for kind in errors}
    shift = float(dense.shift_lam.sel(rows="gaussian").isel(d=-1).mean())
    last = {kind: float(errors[kind].sel(gamma=1.0).isel(d=-1)) for kind in errors}
    second = {kind: float(dense.error_131.sel(rows=kind).isel(d=-1).mean()) for kind in errors}
    trace = float(abs(dataset.trace).max())
    negative = float(dataset.num_negative.min())
    d = int(sizes[-1])
    return [
        Check(
            "Theorem C.1 holds for Gaussian rows, B_ki ~ N(0, 1/d)",
            "eqs (124), (125)",
            "λ_i = f(1-f)(E[s_i²] - <s²>)",
            f"rms error of λ {last['gaussian']:.2f} at d = {d}, ~ d^{powers['gaussian']:.2f}",
            False,
            last["gaussian"] < 0.1 and powers["gaussian"] < -0.3,
            "the rows are not orthogonal: b_k Z b_k^T / |b_k|² = E[s_k²] + <s²> + ...",
        ),
        Check(
            "Theorem C.1 holds for orthonormal rows, with an error that vanishes as d grows",
            "eqs (124), (125)",
            "(corrected) B B^T = 1",
            f"rms error of λ {last['orthonormal']:.3f} at d = {d}, ~ d^{powers['orthonormal']:.2f}",
            True,
            last["orthonormal"] < 0.1 and powers["orthonormal"] < -0.3,
        ),
        Check(
            "Gaussian rows: λ is larger than (125) by f(1-f)<s²> on average",
            "eq. (125)",
            "(corrected) mean shift f(1-f)<s²>",
            f"{shift:.3f} of it at d = {d}, all factors active",
            True,
            abs(shift - 1) < 0.1,
        ),
        Check(
            "Second equality: B^T Σ^s B + σ² = B^T (Σ^s + σ²) B, Gaussian rows",
            "eq. (131)",
            "for B_ki ~ N(0, 1/d)",
            f"relative difference {second['gaussian']:.2g}",
            False,
            second["gaussian"] < 1e-3,
            "needs B^T B = 1",
        ),
        Check(
            "Second equality, orthonormal rows",
            "eq. (131)",
            "(corrected) B^T B = 1",
            f"relative difference {second['orthonormal']:.1e}",
            True,
            second["orthonormal"] < 1e-10,
        ),
        Check(
            "The moments become simultaneously diagonal as d grows, for either kind of rows",
            "theorem C.1",
            "simultaneously diagonalisable",
            ", ".join(f"{kind}: commutator ~ d^{power:.2f}" for kind, power in commuting.items()),
            True,
            all(power < -0.3 for power in commuting.values()),
            "in the basis B only where B is orthonormal, else in that of E[z z^T]",
        ),
        Check(
            "Σyx can be positive definite under random masking",
            "assumption 4.1(1)",
            "the theory asks for it",
            f"|tr Σyx| <= {trace:.0e} |Σyx|; at least {negative:.0f} negative eigenvalues in every model",
            False,
            trace > 1e-10 or negative == 0,
            "m_i (1 - m_i) = 0: the diagonal of Σyx vanishes whatever the data, so the λ_i sum to 0",
        ),
    ]


def masking_order_checks(models: list[RandomMaskingModel], key: Any) -> list[Check]:
    """The order over masking ratios, features of lam < 0, and the moments against samples.

    `models` differ in their masking ratio alone and have orthonormal rows.
    """
    model, orders = models[0], []
    for one in models:
        printed = masking_spectrum(one)
        learned = np.asarray(printed.lam) > 0
        args = mode_parameters(printed.lam[learned], variance=printed.variance[learned], depth=3.0)
        orders += [np.argsort(np.asarray(theory.critical_time(objective, 1e-6, args))) for objective in ("jepa", "mae")]
    same = all(np.array_equal(order, orders[0]) for order in orders)
    spectrum = feature_spectrum(masking_moments(model))
    lost = np.asarray(spectrum.lam) < 0
    args = mode_parameters(np.asarray(spectrum.lam)[lost], variance=np.asarray(spectrum.variance)[lost], depth=3.0)
    late = 1e6 / np.abs(np.asarray(spectrum.lam)[lost]).min()
    ends = np.concatenate([exact(o, 1e-2, args, np.array([late])).ys[:, 0] for o in ("jepa", "mae")])  # pyright: ignore[reportArgumentType]
    x, y = sample_masking_pairs(model, key, 40_000)
    sampled, truth = moments_from_pairs(x, y, center=False), masking_moments(model)
    # standard error of one entry of a second moment of n Gaussian-like samples is at most sqrt(3) variance / sqrt(n)
    noise = math.sqrt(3 / 40_000) * float(np.max(np.diag(np.asarray(truth.xx))))
    pairs = zip(jax.tree.leaves(sampled), jax.tree.leaves(truth), strict=True)
    worst = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)
    return [
        Check(
            "The order of learning does not depend on the masking ratio",
            "below eq. (126)",
            "order independent of f, timing and amplitude are not",
            f"{len(models)} masking ratios, JEPA and MAE, L = 3: {'one order' if same else 'several orders'}",
            True,
            same,
            "among factors with λ > 0; both λ and ρ rise with E[s_k²]",
        ),
        Check(
            "All parameters in a sparse basis are learned in the end",
            "below eq. (126)",
            "all eventually be learned",
            f"{int(lost.sum())} of {spectrum.num_features} features have λ < 0 and fall from 1e-2 to at most {ends.max():.1e}",
            False,
            bool(ends.min() > 1e-2),
            "factors with E[s_k²] < <s²> have λ < 0 and decay to 0",
        ),
        Check(
            "Moments of masked views agree with samples",
            "eqs (127)-(130)",
            "f² Z + f(1-f) Diag Z and its siblings",
            f"largest difference {worst:.4f} from 40,000 pairs",
            True,
            worst < 6 * noise,
            "6 standard errors of the noisiest entry",
        ),
    ]
