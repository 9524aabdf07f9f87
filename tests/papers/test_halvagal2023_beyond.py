"""Beyond Halvagal 2023: the phase diagram and coloured inputs, their parts by hand, their claims both ways at small sizes."""

import matplotlib

matplotlib.use("Agg")

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from matplotlib import pyplot

from jepa_dyn.flows import RepresentationModes, representation_mode_arguments, representation_modes
from jepa_dyn.papers import checks, halvagal2023
from jepa_dyn.papers.halvagal2023_coloured import (
    DATA,
    ROWS,
    coloured_checks,
    growth_ratio,
    last_arrival,
    laws,
    starting_eigenvalues,
)
from jepa_dyn.papers.halvagal2023_phase_checks import CLASSES, phase_checks, predicted_recruits, starting_spectra
from jepa_dyn.papers.halvagal2023_phases import (
    classify,
    horizons,
    modes_with_target,
    modes_without_target,
    phase_classes,
)
from jepa_dyn.status import Status

A = jnp.asarray([0.3, -0.8, 1.4])


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


def mode_arguments(loss, ema_rate=0.0, weight_decay=0.0):
    args = representation_mode_arguments(
        3, loss, alpha=0.5, weight_decay=weight_decay, online=1.01, target=1.01, nodes=16
    )
    return eqx.tree_at(lambda a: a.ema_rate, args, jnp.asarray(ema_rate))


def test_an_infinite_ema_rate_is_no_moving_average():
    plain = representation_modes(0.0, RepresentationModes(A), mode_arguments("cosine"))
    tied = modes_with_target(0.0, RepresentationModes(A, target=A), mode_arguments("cosine", np.inf))
    np.testing.assert_allclose(tied.encoder, plain.encoder, rtol=1e-12)
    np.testing.assert_array_equal(tied.target, tied.encoder)
    y = RepresentationModes(A, target=0.5 * A)
    followed = modes_with_target(0.0, y, mode_arguments("cosine", 0.2))
    np.testing.assert_allclose(followed.target, 0.1 * A, rtol=1e-12)
    np.testing.assert_array_equal(followed.encoder, representation_modes(0.0, y, mode_arguments("cosine", 0.2)).encoder)


@pytest.mark.parametrize(("loss", "power"), [("cosine", -1), ("cosine_no_stop_gradient", -1), ("cosine_iso", -2)])
def test_under_a_cosine_weight_decay_only_changes_the_clock(loss, power):
    """Speeds scale as |W|^power (IsoLoss: -1 - 2 alpha), so that a e^(kappa t) moves as without decay in another time."""
    args = mode_arguments(loss)
    speed, scaled = (representation_modes(0.0, RepresentationModes(c * A), args).encoder for c in (1.0, 1e-3))
    np.testing.assert_allclose(scaled, 1e-3**power * speed, rtol=1e-9)
    decaying = representation_modes(0.0, RepresentationModes(A), mode_arguments(loss, weight_decay=0.3)).encoder
    np.testing.assert_allclose(decaying, speed - 0.3 * A, rtol=1e-12)


def test_dead_modes_are_slowed_and_no_others():
    y = RepresentationModes(jnp.asarray([1e-5, 0.1, 1.0]))
    args = mode_arguments("cosine_no_stop_gradient")
    slowed, speed = modes_without_target(0.0, y, args).encoder, representation_modes(0.0, y, args).encoder
    np.testing.assert_allclose(slowed / speed, [1e-4, 1.0, 1.0], rtol=2e-4)


def test_classes():
    """One run of each kind, spectra at the start, half-way and the end."""
    runs = {
        "all modes": [[0.01, 1.99], [0.8, 1.0], [1.0, 1.0]],
        "dimensional collapse": [[0.5, 1.5], [1e-4, 1.5], [1e-4, 1.5]],
        "complete collapse": [[0.5, 1.5], [0.01, 0.05], [1e-4, 1e-3]],
        "diverged": [[0.5, 1.5], [10.0, 10.0], [150.0, 150.0]],
        "unresolved": [[0.01, 1.5], [1e-3, 1.0], [5e-3, 1.0]],
    }
    more = {
        "unresolved": [[0.5, 1.5], [0.5, 1.0], [0.1, 1.0]],  # one that is there loses
        "dimensional collapse": [[0.5, 1.5], [0.0, 1.5], [0.0, 1.5]],  # gone for good
    }
    for own in (runs, more):
        spectra = np.array(list(own.values()))
        found = classify(spectra, np.full(len(own), Status.ok), np.ones((len(own), 2)))
        assert [CLASSES[code] for code in found["class"]] == list(own)
    spectra = np.array([runs["all modes"], runs["all modes"], [[1.0, 1.0], [0.1, 0.1], [0.01, 0.01]]])
    undone = np.array([[1.0, 1.0], [1.0, 1.0], [10.0, 100.0]])
    found = classify(spectra, np.array([Status.max_steps, Status.non_finite, Status.ok]), undone)
    assert [CLASSES[code] for code in found["class"]] == ["unresolved", "diverged", "all modes"]
    np.testing.assert_allclose(found["trace_ratio"][-1], 1.0)
    np.testing.assert_array_equal(found["recruited"], 2)


def test_starts_and_ends_of_the_diagram():
    np.testing.assert_allclose(starting_spectra(np.array([1.0, 9.0]), 3), [[1, 1, 1], [3 / 13, 9 / 13, 27 / 13]])
    decay, alpha = np.array([0.0, 0.1]), np.array([1.0, 1.0])
    np.testing.assert_array_equal(horizons("euclidean", alpha, decay, 300.0), [300, 300])
    np.testing.assert_allclose(horizons("cosine", alpha, decay, 300.0), [300, 20])
    np.testing.assert_allclose(horizons("cosine_iso", alpha, decay, 300.0), [300, 10])


AXES = {"alpha": (0.0, 1.0), "ema_rate": (np.inf, 0.3), "weight_decay": (0.0, 0.2, 0.3), "anisotropy": (1.0, 10.0, 1e4)}


@pytest.fixture(scope="module")
def euclidean():
    return phase_classes(("euclidean",), AXES, modes=3, progress=False)


@pytest.fixture(scope="module")
def diagram(euclidean):
    """All losses: the Euclidean one as it was found, the others as theory and the full diagram have them."""
    one = euclidean.isel(loss=0, drop=True)
    kind, count = one["class"], one.recruited
    every, spread = 0 * kind, (one.anisotropy >= 3) & (one.alpha > 0)
    far = (one.anisotropy > 1e3) & (one.alpha > 0)
    with_alpha = one.alpha > 0
    classes = {
        "euclidean": kind,
        "euclidean_no_stop_gradient": every + 2,
        "euclidean_iso": xarray.where(with_alpha, every, 2),
        "cosine": xarray.where(far, 4, every),
        "cosine_no_stop_gradient": xarray.where(spread, 1, every),
        "cosine_iso": every,
    }
    counts = {loss: xarray.where(code == 1, 1, 3) for loss, code in classes.items()} | {"euclidean": count}
    names = xarray.IndexVariable("loss", list(classes))
    joined = {
        "class": xarray.concat(list(classes.values()), names),
        "recruited": xarray.concat(list(counts.values()), names),
    }
    return xarray.Dataset(joined, attrs=euclidean.attrs).assign(trace_ratio=1.0 + 0 * joined["class"])


def test_euclidean_phases(euclidean):
    """Who is recruited, by the roots of lambda - 1.01 lambda^2 = kappa from numpy; without predictor all decay."""
    assert (euclidean.status == Status.ok).all()
    start = starting_spectra(euclidean.anisotropy.values, 3)
    roots = [np.roots([-1.01, 1.0, -decay]) for decay in euclidean.weight_decay.values]
    smaller = [root.real.min() if np.isreal(root).all() else np.inf for root in roots]
    wanted = (start > np.array(smaller)[:, None, None]).sum(axis=-1)
    np.testing.assert_array_equal(predicted_recruits(euclidean, False)[1], wanted)
    assert (predicted_recruits(euclidean, True)[1] == 3).all()
    kind, count = (euclidean[name].isel(loss=0, alpha=1).values for name in ("class", "recruited"))
    for code, found in zip(kind, count, strict=True):
        names = np.array(CLASSES)[code]
        assert ((names == "unresolved") | (np.where(names == "complete collapse", 0, found) == wanted)).all()
        assert (names[0] == ["all modes", "all modes", "unresolved"]).all() and (names[2] == "complete collapse").all()
    still = euclidean["class"].isel(loss=0, alpha=0, ema_rate=0).values
    assert (still == CLASSES.index("complete collapse")).all()


def test_checks_of_the_phase_diagram(diagram):
    found = phase_checks(diagram)
    assert [c.claim for c in found if not c.as_expected] == []
    assert len(found) == 12 and sum(not c.expected for c in found) == 4
    assert len([ax for ax in halvagal2023.plot_phase_diagram(diagram).axes if ax.images]) == 12
    swapped = diagram.assign_coords(loss=np.roll(diagram.loss.values, 1))
    assert sum(not c.as_expected for c in phase_checks(swapped)) >= 5
    lost = diagram.assign({"class": 0 * diagram["class"] + 2, "recruited": 0 * diagram.recruited})
    assert sum(not c.as_expected for c in phase_checks(lost)) >= 4
    by_decay = diagram.assign(
        recruited=diagram.recruited - (diagram.weight_decay > 0.1), trace_ratio=2 * diagram.trace_ratio
    )
    assert sum(not c.as_expected for c in phase_checks(by_decay)) >= 3


def test_laws_and_starts_of_coloured_inputs():
    law = laws(4, 0.5, 8.0, 0.6)
    np.testing.assert_allclose(law["clean"].mean(axis=1), 1)
    assert law["clean"][1].max() / law["clean"][1].min() == pytest.approx(8)
    np.testing.assert_allclose(
        law["view"] - law["clean"], 0.25 * np.stack([np.ones(4)] * 2 + [law["clean"][2], np.ones(4)])
    )
    np.testing.assert_allclose((law["cross"] - law["clean"])[[0, 3]], [[0] * 4, [0.15] * 4])
    for size in (3, 4, 6, 8, 9):
        assert sorted(starting_eigenvalues(size)) == pytest.approx(np.geomspace(0.03, 1.5, size))


def test_what_is_measured_of_rows_and_data():
    t = np.array([[0.0, 0.5, 1.0, 2.0]])
    modes = np.stack([0.02 * np.exp(2.0 * t[0]), 0.05 * np.exp(1.0 * t[0]), np.array([0.5, 0.8, 0.9, 1.0])], axis=-1)
    modes[-1] = [1.1, 1.05, 1.0]
    assert growth_ratio(t, modes[None, None])[0, 0] == pytest.approx(2.0)
    assert last_arrival(t, modes[None, None])[0, 0] == 2.0
    assert last_arrival(t, np.broadcast_to(modes[-1], (1, 1, 4, 3)))[0, 0] == 0.0
    assert np.isnan(growth_ratio(t, modes[None, None, :, 2:])).all()


@pytest.fixture(scope="module")
def coloured():
    return halvagal2023.coloured_inputs(size=4, batch_size=256)


@pytest.mark.slow
def test_coloured_inputs(coloured):
    found = checks(coloured)
    assert [c.claim for c in found if not c.as_expected] == []
    assert len(found) == 8 and sum(not c.expected for c in found) == 2
    # Euclidean modes by the scalar map of each amplitude, all steps
    law, s0 = laws(4, 0.3, 10.0, 0.9), starting_eigenvalues(4)
    for row in ROWS[:2]:
        for k, kind in enumerate(DATA):
            clean, view, cross = (law[name][k] for name in ("clean", "view", "cross"))
            a = np.sqrt(s0 / clean)
            for _ in range(1200):
                gain = clean * a**2
                a = a + 0.05 * (1 if row.endswith("iso") else gain) * (cross * a - view * gain * a)
            one = coloured.sel(row=row, data=kind)
            np.testing.assert_allclose(one.modes.values[-1], clean * a**2, rtol=1e-8)
            np.testing.assert_allclose(one.modes.values[0], s0, rtol=1e-12)
    # the network's first spectrum is that of its weights
    start = np.random.default_rng(0).normal(size=(1, 4, 4))[0] / 2
    wanted = [np.linalg.eigvalsh(start * clean @ start.T) for clean in law["clean"]]
    np.testing.assert_allclose(coloured.network.isel(time=0, row=0).values, wanted, rtol=1e-9)
    axes = halvagal2023.plot_coloured_inputs(coloured).axes
    assert len([ax for ax in axes if ax.get_title(loc="left") and ax.has_data()]) == 16
    still = coloured.assign(growth_ratio=0 * coloured.growth_ratio + 1, end_ratio=0 * coloured.end_ratio + 1)
    assert sum(not c.as_expected for c in coloured_checks(still)) >= 4


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("phase_diagram", {"modes": 1}, "Argument `modes` must be a whole number >= 2"),
        ("phase_diagram", {"time": 0.0}, "Argument `time` must be finite and > 0"),
        ("coloured_inputs", {"colour": 1.0}, "Argument `colour` must be > 1"),
        ("coloured_inputs", {"shared": 1.5}, "Argument `shared`"),
        ("coloured_inputs", {"size": 2}, "Argument `size` must be a whole number >= 3"),
    ],
)
def test_bad_options_are_named(call, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(halvagal2023, call)(**options)


@pytest.mark.parametrize(
    ("losses", "axes", "message"),
    [
        (("euclid",), AXES, "Argument `losses` must be one of"),
        (("cosine",), AXES | {"ema_rate": [0.0]}, "Argument `ema_rate` must be > 0"),
        (("cosine",), AXES | {"anisotropy": 0.5}, "Argument `anisotropy` must be >= 1"),
        (("cosine",), AXES | {"alpha": -1.0}, "Argument `alpha` must be finite and >= 0"),
        (("cosine",), AXES | {"depth": 2.0}, "Argument `axes` must have the keys alpha"),
    ],
)
def test_bad_axes_are_named(losses, axes, message):
    with pytest.raises(ValueError, match=message):
        phase_classes(losses, axes)
