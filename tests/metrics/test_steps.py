"""Learning steps on synthetic staircases whose times, levels and order are known, with noise, gaps and failures."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from jepa_dyn import metrics

SIZE = 400
TIMES = np.array([1.0, 2.5, 5.0, 12.0])
WIDTHS = np.array([0.05, 0.1, 0.2, 0.6])  # of each rise: 2 log 3 widths from 1/4 to 3/4
GRIDS = {
    "even": np.linspace(0.0, 20.0, SIZE),
    "log": np.geomspace(0.01, 20.0, SIZE),
    "random": np.sort(np.random.default_rng(3).uniform(0.0, 20.0, SIZE)),
}
MODES = 7


def detect_steps(ts, paths, **options):
    """Of paths filled up with modes of zeros, so that all tests share one compiled program."""
    filled = np.concatenate([paths, np.zeros((*paths.shape[:-1], MODES - paths.shape[-1]))], axis=-1)
    found = metrics.detect_steps(ts, filled, **options)
    gaps = found.gaps[..., : paths.shape[-1] - 1]
    return SimpleNamespace(
        **{f.name: np.asarray(getattr(found, f.name))[..., : paths.shape[-1]] for f in fields(found)},
        gaps=np.asarray(gaps), count=np.asarray(found.count), num_separate=np.asarray(found.num_separate),
    )  # fmt: skip


def logistic(ts, times=TIMES, widths=WIDTHS):
    return 1 / (1 + np.exp(-np.clip((ts[:, None] - times) / widths, -500, 500)))


@pytest.mark.parametrize("name", GRIDS)
def test_times_of_logistic_rises_on_any_grid(name):
    ts = GRIDS[name]
    found = detect_steps(ts, logistic(ts), level=1.0)
    spacing = np.diff(ts).max()
    assert int(found.count) == 4 == int(found.num_separate)
    assert np.all((found.earliest <= TIMES) & (found.latest >= TIMES))
    assert np.all((found.earliest <= found.times) & (found.times <= found.latest))
    assert np.all(np.asarray(found.latest) - np.asarray(found.earliest) <= spacing * (1 + 1e-12))
    np.testing.assert_allclose(found.times, TIMES, atol=spacing / 2)
    rise = WIDTHS * np.log(3)
    np.testing.assert_allclose(found.ends, TIMES + rise, atol=spacing / 2)
    np.testing.assert_allclose(found.starts, TIMES - rise, atol=spacing / 2)
    np.testing.assert_allclose(found.gaps, np.diff(TIMES) - rise[1:] - rise[:-1], atol=spacing)
    np.testing.assert_allclose(found.before, 0, atol=0.01)
    np.testing.assert_allclose(found.after, 1, atol=0.02)


@pytest.mark.parametrize("seed", range(8))
def test_noise_below_a_quarter_of_the_level_neither_makes_nor_hides_a_step(seed):
    """The measured time is wrong at most by the time that the path needs for the size of the noise."""
    rng, noise = np.random.default_rng(seed), 0.2
    ts = GRIDS["even"]
    clean = logistic(ts)
    found = detect_steps(ts, clean + rng.uniform(-noise, noise, clean.shape), level=1.0)
    assert int(found.count) == 4
    reach = WIDTHS * np.log((0.5 + noise) / (0.5 - noise)) + np.diff(ts).max()
    assert np.all(np.abs(found.times - TIMES) <= reach)
    assert np.all((found.earliest <= found.times) & (found.times <= found.latest))
    np.testing.assert_allclose(found.after, 1, atol=0.1)
    np.testing.assert_allclose(found.before, 0, atol=0.1)


def test_own_levels_and_modes_that_are_not_learned():
    """Levels 3, 0.5, 1 are learned; a mode still growing, one on its way up in a straight line and one far too small are not."""
    ts = GRIDS["even"]
    rises = logistic(ts, np.array([2.0, 4.0, 8.0]), np.array([0.1, 0.2, 0.3])) * np.array([3.0, 0.5, 1.0])
    growing = np.exp(ts - 20.0)
    noise = 0.01 * logistic(ts, np.array([5.0]), np.array([0.1]))[:, 0]
    paths = np.column_stack([rises, growing, ts / 20, noise])
    found = detect_steps(ts, paths)
    assert int(found.count) == 3
    np.testing.assert_allclose(found.times[:3], [2, 4, 8], atol=0.03)
    np.testing.assert_allclose(found.after[:3], [3, 0.5, 1], rtol=1e-2)
    assert np.isposinf(found.times[3:]).all() and np.isnan(found.after[3:]).all()
    assert int(detect_steps(ts, paths, floor=0.0).count) == 4
    # a level given beforehand counts what has reached 3/4 of it, still growing or not
    np.testing.assert_array_equal(
        np.isfinite(detect_steps(ts, paths, level=1.0).times), [True, False, True, True, True, False]
    )


def test_paths_that_cross_keep_count_and_times_when_sorted():
    """A slow mode that starts earlier is overtaken below 1/2: the sorted paths are nobody's, the times are the same."""
    ts = GRIDS["even"]
    labelled = np.column_stack(
        [
            1 / (1 + np.exp(-(ts - 6.0) / 1.5)),
            1 / (1 + np.exp(-np.clip((ts - 5.0) / 0.05, -500, 500))),
            1 / (1 + np.exp(-(ts - 8.0) / 0.8)),
        ]
    )
    assert (np.diff(np.sign(labelled[:, 0] - labelled[:, 1])) != 0).sum() >= 1
    by_label = detect_steps(ts, labelled, level=1.0)
    by_size = detect_steps(ts, -np.sort(-labelled, axis=1), level=1.0)
    np.testing.assert_allclose(by_size.times, np.sort(by_label.times), atol=np.diff(ts).max())
    assert int(by_size.count) == 3 and int(by_label.num_separate) < 3  # the slow rise lasts as long as the others


def test_paths_that_start_high_fall_back_or_fail():
    ts = np.arange(SIZE, dtype=float)
    step = (ts >= 100).astype(float)
    spike, collapse = np.where((ts > 50) & (ts < 60), 1.0, step * (ts > 200)), np.where(ts > 300, 0.0, step)
    failed = np.where(ts > 150, np.nan, step)
    paths = np.column_stack([np.ones(SIZE), step, spike, collapse, failed, np.full(SIZE, np.nan), np.zeros(SIZE)])
    found = detect_steps(ts, paths, level=1.0)
    np.testing.assert_array_equal(found.times, [-np.inf, 99.5, 200.5, np.inf, 99.5, np.inf, np.inf])
    np.testing.assert_array_equal(found.earliest[1:3], [99, 200])
    np.testing.assert_array_equal(found.latest[1:3], [100, 201])
    np.testing.assert_array_equal(found.after[[0, 1, 4]], 1.0)
    assert int(found.count) == 3
    own = detect_steps(ts, paths)
    np.testing.assert_array_equal(own.times, found.times)


def test_rises_together_are_not_separate():
    ts = GRIDS["even"]
    found = detect_steps(ts, logistic(ts, np.array([5.0, 5.1, 9.0]), np.array([0.2, 0.2, 0.1])), level=1.0)
    assert int(found.count) == 3 and int(found.num_separate) == 2
    assert found.gaps[0] < 0 < found.gaps[1]


def test_between_saves_far_apart_on_a_steep_rise_logarithms_interpolate_exactly():
    ts = np.linspace(0.0, 2.0 * (SIZE - 1), SIZE)
    paths = np.minimum(np.exp(np.minimum(3.0 * (ts[:, None] - 7.0), 0.0)), 1.0)
    found = detect_steps(ts, paths, level=1.0, log=True)
    # between t = 6 and t = 8 the logarithm is taken to rise from -3 to 0
    np.testing.assert_allclose(found.times, 6 + 2 * (3 + np.log(0.5)) / 3, rtol=1e-12)


def test_batches():
    ts = GRIDS["even"]
    found = detect_steps(ts, np.stack([logistic(ts), logistic(ts, TIMES + 0.5)]), level=1.0)
    assert found.times.shape == (2, 4) and found.count.shape == (2,) and found.gaps.shape == (2, 3)
    np.testing.assert_array_equal(found.times[0], detect_steps(ts, logistic(ts), level=1.0).times)
    np.testing.assert_allclose(found.times[1] - found.times[0], 0.5, atol=2e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ts": np.array([0.0, 2.0, 1.0])}, "`ts` must be strictly increasing"),
        ({"paths": np.zeros((4, 1))}, "must have shapes"),
        ({"paths": np.zeros(3)}, "must have shapes"),
        ({"low": 0.6}, "0 < low < 1/2 < high <= 1"),
        ({"high": 0.5}, "0 < low < 1/2 < high <= 1"),
        ({"level": 0.0}, "`level` must be finite and > 0"),
        ({"level": np.ones(3)}, "must broadcast together"),
        ({"floor": 1.0}, "`floor` must lie in"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    options = {"ts": np.arange(3.0), "paths": np.zeros((3, 2))} | change
    with pytest.raises(ValueError, match=message):
        metrics.detect_steps(options.pop("ts"), options.pop("paths"), **options)
