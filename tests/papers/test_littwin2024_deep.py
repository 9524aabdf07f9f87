"""Figures 1, 3, 5, random masking and the phase diagram: claims come out as they should, from data that others can check."""

import matplotlib

matplotlib.use("Agg")

import jax
import numpy as np
import pytest
from matplotlib import pyplot
from scipy.integrate import solve_ivp
from scipy.linalg import eigh, expm

from jepa_dyn.flows import encoder_matrix
from jepa_dyn.papers import checks, littwin2024
from jepa_dyn.papers import littwin2024_data as data
from jepa_dyn.papers import littwin2024_data_checks as data_claims
from jepa_dyn.papers import littwin2024_phases as phases
from jepa_dyn.papers import littwin2024_training as training
from jepa_dyn.status import Status


@pytest.fixture(scope="module")
def fig5():
    return littwin2024.fig5()


@pytest.fixture(scope="module")
def fig3():
    return littwin2024.fig3()


@pytest.fixture(scope="module")
def random_masking():
    return littwin2024.random_masking()


@pytest.fixture(scope="module")
def phase_diagram():
    return littwin2024.phase_diagram()


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


@pytest.mark.parametrize(
    ("name", "num_checks", "num_failing"),
    [("fig5", 7, 0), ("fig3", 7, 1), ("random_masking", 10, 4), ("phase_diagram", 7, 4)],
)
def test_every_claim_comes_out_as_expected(name, num_checks, num_failing, request):
    found = checks(request.getfixturevalue(name))
    assert [c.claim for c in found if not c.as_expected] == []
    assert len(found) == num_checks and sum(not c.expected for c in found) == num_failing
    assert all(c.note for c in found if not c.expected)


@pytest.mark.parametrize(
    ("name", "plot", "titles"),
    [
        ("fig5", littwin2024.plot_training, 12),
        ("fig3", littwin2024.plot_fig3, 8),
        ("random_masking", littwin2024.plot_random_masking, 3),
        ("phase_diagram", littwin2024.plot_phase_diagram, 6),
    ],
)
def test_drawings_hold_every_panel(name, plot, titles, request):
    axes = [ax for ax in plot(request.getfixturevalue(name)).axes if ax.get_title(loc="left")]
    assert len(axes) == titles
    assert all(ax.has_data() for ax in axes)


def test_trained_nets_start_alike_and_all_run(fig5):
    assert (fig5.status == Status.ok).all() and (fig5.failed_at == -1).all()
    start = fig5.projection.isel(step=0)
    np.testing.assert_array_equal(start, start.isel(objective=[0, 0], panel=[0] * 4).values)
    # E |W e_i|^2 = gain^(2 L), each layer multiplying the mean square by gain^2
    assert float((start**2).mean()) == pytest.approx(3.0**-5, rel=0.3)


def test_figure_1_is_two_panels_of_figure_5(fig5, monkeypatch):
    """The same law, starts and batches: only which panels are trained differs."""
    kept = {}

    def instead(lam, rho, **options):
        kept.update(lam=lam, rho=rho, options=options)
        if lam.shape[1] != 24:
            raise InterruptedError
        some = fig5.sel(panel=["together", "opposite"])
        return {name: some[name].values for name in ("projection", "status", "failed_at", "step")}

    monkeypatch.setattr(training, "_train_panels", instead)
    fig1 = littwin2024.fig1()
    np.testing.assert_array_equal(kept["rho"], fig5.rho.sel(panel=["together", "opposite"]))
    np.testing.assert_array_equal(kept["lam"], fig5.lam.sel(panel=["together", "opposite"]))
    assert kept["options"]["iterations"] == 6000 and all(c.as_expected for c in checks(fig1)) and len(checks(fig1)) == 4
    with pytest.raises(InterruptedError):
        littwin2024.fig1(full=True)
    assert kept["lam"].shape == (2, 100) and kept["options"]["iterations"] == 5000


def test_training_checks_can_fail(fig5):
    swapped = fig5.assign_coords(objective=["mae", "jepa"])
    assert sum(not c.holds for c in training._inversion(swapped)) >= 2
    assert sum(not c.holds for c in training._one_varies(swapped)) >= 1
    assert not training._all_ran(fig5.assign(status=fig5.status + 1)).holds


@pytest.mark.slow
def test_runs_past_the_stability_edge_are_flagged():
    lam = rho = np.linspace(0.5, 1, 6)[None]
    found = training._train_panels(lam, rho, iterations=200, learning_rate=30.0, gain=1.0, key=0)
    assert (found["status"] != Status.ok).all() and (found["failed_at"] >= 1).all()
    assert np.isnan(found["projection"][..., -1, :]).all()


def test_images_of_the_temporal_model_have_disjoint_supports():
    images = data.two_images()
    np.testing.assert_allclose(images @ images.T, np.eye(2), atol=1e-12)
    assert ((images != 0).sum(axis=0) == 1).all()


def test_measured_features_are_those_of_numpy(fig3):
    """lam, rho of the first run at full length, from the moments that the dataset carries, by another eigensolver."""
    last = fig3.isel(run=0, samples=-1)
    values, vectors = eigh(fig3.xx.values)
    symmetric = (fig3.yx.values + fig3.yx.values.T) / 2
    for index, image in enumerate(fig3.images.values.reshape(2, -1)):
        place = np.argmax(np.abs(vectors.T @ image))
        lam = vectors[:, place] @ symmetric @ vectors[:, place]
        assert float(last.lam[index]) == pytest.approx(lam, rel=1e-6)
        assert float(last.rho[index]) == pytest.approx(lam / values[place], rel=1e-6)


def test_temporal_checks_can_fail(fig3):
    wrong = fig3.assign(
        lam_theory=fig3.lam_theory[::-1] * 2, rho_theory=fig3.rho_theory[::-1], defect=fig3.defect * 0 + 1.0
    )
    assert {c.source for c in data_claims.temporal_checks(wrong) if not c.holds} >= {
        "eq. (19), Fig. 3(e)",
        "Fig. 3(e), caption",
        "Fig. 3(f), section 5.1",
        "section 5.1, below eq. (19)",
    }


def test_masking_example_by_hand(random_masking):
    """Every row's lam of the Gaussian example from the definition: expectation over masks, entry by entry."""
    gaussian = random_masking.sel(rows="gaussian")
    assert float(abs(random_masking.trace).max()) < 1e-14
    model = data.masking_example("gaussian", 6, 0.5, 0.3, 0.2, jax.random.key(1))
    b, s2 = np.asarray(model.loadings, float), np.asarray(model.coefficient_variance, float)
    z = sum(s * np.outer(row, row) for s, row in zip(s2, b, strict=True)) + 0.04 * np.eye(6)
    row = b[2]
    lam = sum(row[i] * row[j] * 0.3 * 0.7 * z[i, j] for i in range(6) for j in range(6) if i != j) / (row @ row)
    assert data._describe(model)["lam_row"][2] == pytest.approx(lam, rel=1e-6)
    assert gaussian.lam_row.shape == (200,)


def test_masking_checks_can_fail(random_masking):
    wrong = random_masking.assign_coords(rows=["gaussian", "orthonormal"])
    assert sum(not c.as_expected for c in data_claims.masking_checks(wrong)) >= 4


def test_turned_moments():
    for angle in (0.0, 0.7):
        law = phases.turned_moments(angle, jax.random.key(3))
        np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(law.yx)), np.sort(phases.LAM), rtol=1e-12)
        assert np.linalg.eigvalsh(law.joint).min() > 0
        assert (np.linalg.norm(law.xx @ law.yx - law.yx @ law.xx) > 1e-3) == (angle > 0)
    skew = np.array([[0.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(expm(0.3 * skew)[0], [np.cos(0.3), np.sin(0.3)], rtol=1e-12)


@pytest.mark.slow
def test_one_lane_of_the_phase_diagram_is_scipys():
    """Matrix flow of JEPA on turned moments from a mixed start, by another code: share learned and error of the times."""
    from jepa_dyn.flows import layer_mask
    from jepa_dyn.moments import feature_spectrum
    from jepa_dyn.theory import modes

    depth, eps = 2, 0.05
    law = phases.turned_moments(0.5, jax.random.key(5))
    spectrum = feature_spectrum(law)
    start = phases.mixed_start(jax.random.key(6), layer_mask(depth), 0.2, eps=eps, objective="jepa")
    found = phases._compare("jepa", [law], [spectrum], [start], depth, eps)
    xx, yx, basis = (np.asarray(m) for m in (law.xx, law.yx, spectrum.basis))
    first = np.concatenate([np.asarray(start.layers).ravel(), np.asarray(start.decoder).ravel()])

    def flow(t, y):
        w1, w2, v = y.reshape(3, 4, 4)
        encoder = w2 @ w1
        residual = v @ encoder @ xx - encoder @ yx
        return -np.stack([w2.T @ v.T @ residual, v.T @ residual @ w1.T, residual @ encoder.T]).ravel()

    parameters = spectrum.parameters(depth)
    critical = np.asarray(modes.critical_time("jepa", eps, parameters))
    limit = np.asarray(modes.fixed_point("jepa", parameters))
    ts = np.linspace(0, 3 * critical.max() / depth, 4001)
    solved = solve_ivp(flow, (0, ts[-1]), first, "DOP853", ts, rtol=1e-10, atol=1e-12).y.T.reshape(-1, 3, 4, 4)
    size = np.linalg.norm(solved[:, 1] @ solved[:, 0] @ basis, axis=1)
    times = np.array(
        [ts[np.argmax(size[:, i] >= limit[i] / 2)] if (size[:, i] >= limit[i] / 2).any() else np.inf for i in range(4)]
    )
    learned = np.isfinite(times)
    assert found["learned"][0] == learned.mean()
    assert found["amplitude_error"][0] == pytest.approx(np.abs(size[-1] / limit - 1).max(), rel=1e-4)
    error = np.expm1(np.abs(np.log(depth * times[learned] / critical[learned])).mean())
    assert found["time_error"][0] == pytest.approx(error, abs=5e-3)  # saved 200 times


def test_aligned_end_of_the_mixed_start_is_aligned():
    from jepa_dyn.flows import deep_linear_arguments, layer_mask

    mask = layer_mask(3)
    aligned = phases.mixed_start(jax.random.key(0), mask, 0.0, eps=0.1, objective="mae")
    args = deep_linear_arguments(phases.turned_moments(0.0, jax.random.key(1)), mask)
    np.testing.assert_allclose(aligned.decoder @ encoder_matrix(aligned, args), 0.1 ** (4 / 3) * np.eye(4), atol=1e-6)


def test_phase_checks_can_fail(phase_diagram):
    swapped = phase_diagram.assign_coords(objective=["mae", "jepa"])
    assert sum(not c.as_expected for c in phases.phase_checks(swapped)) >= 2
    perfect = phase_diagram.copy()
    for name, value in (("time_error", 0.0), ("order_agreement", 1.0), ("learned", 1.0)):
        perfect[name] = perfect[name] * 0 + value
    assert sum(not c.as_expected for c in phases.phase_checks(perfect)) == 4


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("fig1", {"lowest_lam": 0.0}, "Argument `lowest_lam` must lie strictly between 0 and 1"),
        ("fig5", {"lowest_rho": float("nan")}, "Argument `lowest_rho`"),
        ("fig1", {"learning_rate": -1.0}, "Argument `learning_rate` must be finite and > 0"),
        ("fig1", {"gain": 0.0}, "Argument `gain`"),
        ("fig3", {"autocorrelation_2": 1.0}, "Argument `autocorrelation_2` must lie strictly between -1 and 1"),
        ("fig3", {"noise_1": -0.1}, "Argument `noise_1`"),
        ("random_masking", {"visible_fraction": 1.0}, "Argument `visible_fraction`"),
        ("phase_diagram", {"depth": 0}, "Argument `depth` must be a whole number >= 1"),
        ("phase_diagram", {"largest_angle": 2.0}, "Argument `largest_angle`"),
        ("phase_diagram", {"eps": 0.9}, "below `fraction` of the fixed point"),
    ],
)
def test_bad_options_are_named(call, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(littwin2024, call)(**options)
