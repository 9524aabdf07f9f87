"""Prediction: known spectra give known orders; what is not learned is said; real images run through; errors are plain."""

import matplotlib

matplotlib.use("Agg")

import warnings

import numpy as np
import pytest
from matplotlib import pyplot
from scipy.integrate import quad

from jepa_dyn.moments import feature_spectrum, moments_from_spectrum
from jepa_dyn.predict import (
    defect_sentence,
    plot_prediction,
    predict,
    predict_from_images,
    report,
    spectrum_of_images,
    swapped_pairs,
    view_kind,
)

LAM = np.array([1.0, 0.98, 0.5, 0.1, -0.2])
RHO = np.array([0.5, 0.95, 0.8, 0.05, -0.5])


@pytest.fixture(scope="module")
def known():
    return predict(feature_spectrum(moments_from_spectrum(LAM, RHO)), depths=(1, 2, 5), eps=1e-3)


@pytest.fixture(scope="module")
def images():
    """Smooth random images: a white field summed along rows and columns."""
    field = np.random.default_rng(0).normal(size=(3, 60, 80))
    rough = np.cumsum(np.cumsum(field, axis=1), axis=2)
    return (rough - rough.min()) / np.ptp(rough)


@pytest.fixture(autouse=True)
def figures_close():
    yield
    pyplot.close("all")


def test_features_are_those_given(known):
    np.testing.assert_allclose(known.lam, LAM, rtol=1e-12)
    np.testing.assert_allclose(known.rho, RHO, rtol=1e-12)
    assert known.feature.values.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_strength_is_the_papers_fixed_point(known, depth):
    one = known.sel(depth=depth)
    np.testing.assert_allclose(one.strength.sel(objective="jepa")[:4], RHO[:4] ** depth, rtol=1e-12)
    np.testing.assert_allclose(one.strength.sel(objective="mae")[:4], RHO[:4] ** (depth / (depth + 1)), rtol=1e-12)
    assert (one.strength[:, 4] == 0).all()


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_critical_time_is_the_quadrature(known, objective, depth):
    power = (3 if objective == "jepa" else 2) - 1 / depth
    for k in range(3):
        one = known.sel(objective=objective, depth=depth).isel(feature=k)

        def slowness(u, k=k):
            return 1 / (LAM[k] * np.exp((power - 1) * u) - LAM[k] / RHO[k] * np.exp(2 * u))

        expected = quad(slowness, np.log(1e-3), np.log(float(one.strength) / 2), epsrel=1e-10, limit=200)[0]
        assert float(one.critical_time) == pytest.approx(expected, rel=1e-8)
        assert float(one.critical_flow_time) == pytest.approx(expected / depth, rel=1e-8)


def test_outcomes(known):
    meanings = known.outcome.attrs["flag_meanings"].split()
    jepa = known.outcome.sel(objective="jepa").values
    assert [meanings[code] for code in jepa[2]] == ["learned", "learned", "learned", "starts_above", "never_learned"]
    assert np.isinf(known.critical_time[:, :, 4]).all() and (known.order[:, :, 4] == 0).all()
    above = known.sel(objective="jepa", depth=5).isel(feature=3)
    assert float(above.strength) / 2 < 1e-3 and above.critical_time == 0 and above.order == 0


def test_order_is_inverted_by_depth_for_jepa_only(known):
    """rho = 0.5 and 0.95 at nearly equal lambda: JEPA swaps them once it is deep, MAE never."""
    assert known.order.sel(objective="mae").values[:, :2].tolist() == [[1, 2]] * 3
    assert known.order.sel(objective="jepa").values[:, :2].tolist() == [[1, 2], [2, 1], [2, 1]]
    assert swapped_pairs(known, 1) == [] and swapped_pairs(known, 5) == [(2, 1)]
    assert known.swapped_pairs.values.tolist() == [0, 1, 1] and known.learned_pairs.values.tolist() == [6, 6, 3]


def test_curves_cross_half_at_the_critical_time(known):
    for objective in known.objective.values:
        one = known.sel(objective=objective, depth=2).isel(feature=1)
        crossing = np.interp(float(one.strength) / 2, one.w, one.time)
        assert crossing == pytest.approx(float(one.critical_time), rel=0.05)
    assert np.isnan(known.w[:, :, 4]).all() and np.isnan(known.w.sel(objective="jepa", depth=5)[3]).all()


def test_report_says_it_in_words(known):
    text = report(known)
    assert "JEPA and MAE swap 1 of 3 pairs of features (33.3%); JEPA, unlike MAE, learns 2 before 1 (marked *)." in text
    assert "JEPA and MAE learn all features in the same order (6 pairs compared)." in text
    assert "never learned (1 features)" in text and "starts above (1 features" in text
    assert max(len(line) for line in text.splitlines()) <= 120
    rows = [line.split() for line in text.split("Depth L = 5")[1].splitlines()[4:9]]
    assert rows[0][:2] == ["1", "*"] and rows[0][5] == "2" and rows[2][1] == "0.5" and rows[2][4] == "3"
    assert "none of them among the 1 shown" in report(known, 1)


@pytest.mark.parametrize(
    ("defect", "words"), [(0.01, "hardly mix"), (0.2, "trust clear gaps"), (0.5, "a tendency only")]
)
def test_defect_is_told_plainly(known, defect, words):
    said = defect_sentence(known.assign_attrs(defect_off_diagonal_yx=defect))
    assert words in said and f"{defect:.1%} of Sigma_yx" in said


def test_nothing_is_learned():
    found = predict(
        feature_spectrum(moments_from_spectrum(np.array([-0.5, -1.0]), np.array([-0.5, -0.9]))), depths=(2,)
    )
    assert np.isinf(found.critical_time).all() and "no order to compare" in report(found)
    plot_prediction(found)


def test_figure_shows_the_order(known):
    figure = plot_prediction(known)
    numbers = [ax.get_title() for ax in figure.axes if ax.get_title() and len(ax.get_title()) == 1]
    assert numbers == ["2", "1", "3", "1", "2", "3", "4"]  # JEPA, then MAE, at depth 5
    with pytest.raises(ValueError, match="must be one of"):
        plot_prediction(known, depth=4)


@pytest.mark.parametrize("view", ["crop", "shift", "mask"])
def test_images_run_through(images, view):
    found = predict_from_images(images, views=view, num_pairs=2000, depths=(1, 3))
    assert found.sizes["input"] == 64 and found.lam[0] > 0
    assert found.attrs["view_shape"] == "[8, 8]" and "2000 pairs of 8x8" in report(found)
    plot_prediction(found, num_features=4)


def test_colour_images_run_through(images):
    colour = np.stack([images, images[::-1], 1 - images], axis=-1)
    found = predict_from_images(colour, views=view_kind("crop", 4), num_pairs=1000, grayscale=False, depths=(1,))
    assert found.attrs["view_shape"] == "[4, 4, 3]"
    plot_prediction(found, num_features=3)


def test_key_decides_the_pairs(images):
    first, again, other = (spectrum_of_images(images, num_pairs=1000, key=key).lam for key in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_few_pairs_warn_and_fewer_are_refused(images):
    with pytest.warns(UserWarning, match="100 pairs for 64 pixels are few"):
        spectrum_of_images(images, num_pairs=100)
    for num_pairs in (1, 63):
        with pytest.raises(ValueError, match="`num_pairs` must be at least 64"):
            spectrum_of_images(images, num_pairs=num_pairs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: spectrum_of_images(np.full((2, 30, 30), 0.5), num_pairs=1000), "variance"),
        (lambda i: spectrum_of_images(i, views="crops"), "Did you mean 'crop'"),
        (lambda i: spectrum_of_images(i, views=view_kind("crop", 70), num_pairs=50_000), "at least 72 x 72 pixels"),
        (lambda i: view_kind("mask", 1), "patch_size"),
        (lambda i: predict_from_images(i, num_pairs=1000, depths=()), "`depths`"),
        (lambda i: predict_from_images(i, num_pairs=1000, depths=(1, 1)), "must not repeat"),
        (lambda i: predict_from_images(i, num_pairs=1000, depths=(0,)), "`depths`"),
        (lambda i: predict_from_images(i, num_pairs=1000, eps=0.0), "`eps`"),
    ],
)
def test_errors_are_plain(images, call, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(ValueError, match=message):
            call(images)
