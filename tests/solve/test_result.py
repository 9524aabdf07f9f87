"""`Trajectories`: what it prints, what it refuses, how it becomes an xarray.Dataset."""

import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn import Status, flows, mode_parameters
from jepa_dyn.solve import FailedTrajectories, Trajectories, ensemble, integrate


def hand_made(status=(0, 1, 2), lam=(1.0, 2.0, 3.0)):
    lanes = len(status)
    return Trajectories(
        ts=jnp.arange(4.0),
        ys=jnp.ones((lanes, 4)),
        status=jnp.asarray(status, jnp.uint8),
        steps=jnp.arange(10, 10 + lanes, dtype=jnp.int32),
        rejected=jnp.zeros(lanes, jnp.int32),
        settled_time=jnp.asarray([1.0] + [jnp.inf] * (lanes - 1)),
        y0=jnp.full(lanes, 0.1),
        args=mode_parameters(jnp.asarray(lam), variance=1.0, depth=2.0),
        method="by hand",
    )


def test_summary_says_what_matters():
    text = repr(hand_made())
    for words in (
        "3 lanes x 4 times",
        "float64",
        "0.096 kB",
        "by hand",
        "mean 11.0, max 12",
        "ok 1",
        "max_steps 1",
        "2 FAILED",
    ):
        assert words in text
    assert "1 lanes reached" in text
    assert "FAILED" not in repr(hand_made((0, 0)))


def test_failures_are_listed_with_their_parameters():
    result = hand_made()
    np.testing.assert_array_equal(result.where_failed(), [1, 2])
    with pytest.raises(FailedTrajectories) as caught:
        result.raise_if_failed(show=1)
    text = str(caught.value)
    assert "2 of 3" in text and "lane 1: max_steps" in text and "lam=2" in text and "y0=0.1" in text
    assert "depth=2" in text and "1 more" in text and "lane 2" not in text
    good = hand_made((0, 0), (1.0, 2.0))
    assert good.raise_if_failed() is good


def test_dataset_is_labelled():
    data = hand_made().to_xarray()
    assert data["w"].dims == ("lane", "time") and data["status"].dims == ("lane",)
    np.testing.assert_array_equal(data["lam"], [1, 2, 3])
    assert data["lam"].dims == ("lane",) and float(data["depth"]) == 2.0
    assert data["time"].attrs["units"] == "mode clock"
    flags = dict(zip(data["status"].attrs["flag_values"], data["status"].attrs["flag_meanings"].split(), strict=True))
    assert flags == {int(status): status.name for status in Status}
    assert data.attrs == {"method": "by hand", "failed": 2}
    assert "xarray" in hand_made()._repr_html_()


def test_dataset_of_one_system_with_events():
    args = mode_parameters(1.0, 0.5, 1.0)
    result = integrate(flows.jepa, 0.1, args, np.arange(3.0), events={"tenth": lambda t, w, args: w - 0.11})
    data = result.to_xarray()
    assert data["w"].dims == ("time",) and float(data["lam"]) == 1.0
    assert data["crossing_time"].sel(event="tenth").dims == ("crossing",)
    assert int(data["crossing_count"][0]) == 1


def decay(t, y, args):
    return {"level": -args * y["level"], "pair": 0 * y["pair"]}


def test_dataset_of_a_pytree_with_own_times():
    y0 = {"level": np.ones(2), "pair": np.ones((2, 3))}
    result = ensemble(decay, y0, np.array([1.0, 2.0]), np.array([[0.0, 1.0], [0.0, 2.0]]))
    data = result.to_xarray()
    assert data["level"].dims == ("lane", "time") and data["pair"].dims == ("lane", "time", "pair_0")
    assert data["t"].dims == ("lane", "time")
    np.testing.assert_allclose(data["level"][:, 1], np.exp([-1, -4]), rtol=1e-6)
