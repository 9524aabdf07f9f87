"""Plateaus of synthetic staircases with known levels and times: up, down, noisy, smooth, over decades of time."""

import numpy as np
import pytest

from jepa_dyn.metrics import find_plateaus

TS = np.linspace(0.0, 10.0, 501)
EDGES = np.array([1.0, 3.0, 3.6, 7.0])
LEVELS = np.array([5.0, 4.0, 3.0, 1.5, 0.5])


def staircase(ts, levels=LEVELS, edges=EDGES, width=0.0):
    heights = np.diff(levels)
    if width == 0:
        return levels[0] + ((ts[:, None] >= edges) * heights).sum(axis=1)
    return levels[0] + (heights / (1 + np.exp(-np.clip((ts[:, None] - edges) / width, -500, 500)))).sum(axis=1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sign", [1, -1])
def test_noisy_staircases(seed, sign):
    noise = np.random.default_rng(seed).uniform(-0.15, 0.15, TS.size)
    found = find_plateaus(TS, sign * (staircase(TS) + noise), band=0.35)
    np.testing.assert_allclose(found.levels, sign * LEVELS, atol=0.08)
    np.testing.assert_allclose(found.step_times, EDGES, atol=0.02)
    np.testing.assert_allclose(found.step_heights, sign * np.diff(LEVELS), atol=0.15)
    np.testing.assert_allclose(found.starts[1:], EDGES, atol=0.04)
    assert found.starts[0] == 0 and found.ends[-1] == 10 and np.all(found.starts[1:] > found.ends[:-1])


def test_smooth_rises_are_no_plateaus():
    found = find_plateaus(TS, staircase(TS, width=0.05), band=0.3)
    np.testing.assert_allclose(found.levels, LEVELS, atol=0.05)
    np.testing.assert_allclose(found.step_times, EDGES, atol=0.03)


def test_decades_of_time():
    ts = np.geomspace(1e-3, 1e3, 600)
    edges = np.array([1e-2, 1.0, 50.0])
    found = find_plateaus(ts, staircase(ts, np.arange(4.0), edges), band=0.5, shortest=1.0, log_time=True)
    np.testing.assert_allclose(found.levels, np.arange(4.0))
    np.testing.assert_allclose(found.step_times, edges, rtol=0.03)


def test_ends_of_what_can_be_seen():
    flat = find_plateaus(TS, np.full(TS.size, 2.0), band=0.1)
    np.testing.assert_array_equal(flat.levels, [2.0])
    assert flat.step_times.size == flat.step_heights.size == 0 and (flat.starts[0], flat.ends[0]) == (0, 10)
    assert find_plateaus(TS, TS, band=0.5).levels.size == 0
    slow = find_plateaus(TS, staircase(TS, np.array([2.0, 1.0, 0.0]), np.array([2.0, 6.5]), width=0.3), band=0.3)
    np.testing.assert_allclose(slow.levels, [2, 1, 0], atol=0.05)
    failed = find_plateaus(TS, np.where(TS > 5, np.nan, staircase(TS)), band=0.3)
    np.testing.assert_allclose(failed.levels, LEVELS[:4])
    assert find_plateaus(TS, np.full(TS.size, np.inf), band=0.3).levels.size == 0
    # steps lower than the band are none
    assert find_plateaus(TS, staircase(TS), band=2.0).levels.size < LEVELS.size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": np.zeros((3, 1))}, "must both have shape"),
        ({"ts": np.array([0.0, 0.0, 1.0])}, "`ts` must be strictly increasing"),
        ({"band": 0.0}, "`band` must be finite and > 0"),
        ({"shortest": -1.0}, "`shortest` must be finite and >= 0"),
        ({"log_time": True}, "`ts` must be finite and > 0"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    options = {"ts": np.arange(3.0), "path": np.zeros(3), "band": 0.1} | change
    with pytest.raises(ValueError, match=message):
        find_plateaus(options.pop("ts"), options.pop("path"), **options)
