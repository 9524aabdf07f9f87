"""Basin shares against a double well whose shares are a normal probability, intervals against their defining equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import beta, norm

from jepa_dyn.equilibria import UNRESOLVED, Ends, basin_shares, binomial_interval, by_flow, by_steps
from jepa_dyn.flows import siamese, siamese_arguments, siamese_state
from jepa_dyn.moments import view_moments
from jepa_dyn.status import Status

KEY = jax.random.key(0)


def double_well(t, y, depth):
    return depth * (y - y**3)


def away(t, y, args):
    """Grows without bound above 0, settles at -1 below."""
    return jnp.where(y > 0, y**3 + y, -(y + 1))


def draw(key):
    return 0.5 + jax.random.normal(key)


def side(y, args):
    return jnp.where(y > 0, 0, 1)


def rank_of_encoder(y, args):
    """Class = number of inputs that the encoder has lost."""
    values = jnp.linalg.eigvalsh(y.encoder.T @ y.encoder)
    return values.size - jnp.sum(values > 1e-6)


def test_double_well_shares_are_normal_probabilities():
    found = basin_shares(
        by_flow(double_well, 200.0), draw, 1.0, side, ("right", "left"), key=KEY, runs=4000, progress=False
    )
    want = norm.cdf(0.5)
    # 99.99 % of such samples lie within 3.9 standard errors
    assert found.shares[0, 0] == pytest.approx(want, abs=3.9 * np.sqrt(want * (1 - want) / 4000))
    assert found.trials.tolist() == [4000] and found.counts.sum() + found.diverged[0] + found.unresolved[0] == 4000
    assert found.low[0, 0] < found.shares[0, 0] < found.high[0, 0] and "right" in str(found)


def test_starts_do_not_depend_on_batches_or_points():
    one, other = (
        basin_shares(
            by_flow(double_well, 200.0), draw, 1.0, side, ("r", "l"), key=KEY, runs=300, batch_size=size, progress=False
        )
        for size in (300, 128)
    )
    np.testing.assert_array_equal(one.counts, other.counts)
    several = basin_shares(
        by_flow(double_well, 400.0), draw, jnp.array([1.0, 0.5, 2.0]), side, ("r", "l"),
        key=KEY, runs=300, over_parameters=True, progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(several.counts, np.repeat(one.counts, 3, axis=0))


def test_what_diverges_and_what_does_not_settle_is_counted_apart():
    found = basin_shares(by_flow(away, 100.0), draw, None, side, ("right", "left"), key=KEY, runs=500, progress=False)
    assert found.counts[0, 0] == 0 and found.diverged[0] > 0 and found.diverged[0] + found.counts[0, 1] == 500
    short = basin_shares(
        by_flow(double_well, 0.5), draw, 1.0, side, ("right", "left"), key=KEY, runs=100, progress=False
    )
    assert short.unresolved[0] == 100 and short.counts.sum() == 0
    nowhere = basin_shares(
        by_flow(double_well, 200.0), draw, 1.0, lambda y, a: jnp.where(y > 0, 0, UNRESOLVED), ("right",),
        key=KEY, runs=200, progress=False,
    )  # fmt: skip
    assert nowhere.unresolved[0] == 200 - nowhere.counts[0, 0] > 0


def test_sampling_stops_at_the_asked_width():
    found = basin_shares(
        by_flow(double_well, 200.0), draw, 1.0, side, ("right", "left"),
        key=KEY, runs=100_000, width=0.06, batch_size=300, progress=False,
    )  # fmt: skip
    assert found.width[0] < 0.06 and 600 <= found.trials[0] <= 1500


def test_intervals_solve_their_equations():
    count, trials, z = np.array([0, 3, 17, 20]), 20, norm.ppf(0.975)
    low, high = binomial_interval(count, trials)
    for bound in (low, high):  # Wilson: |p - count / n| = z sqrt(p (1 - p) / n)
        np.testing.assert_allclose(
            np.abs(bound - count / trials), z * np.sqrt(bound * (1 - bound) / trials), atol=1e-12
        )
    low, high = binomial_interval(count, trials, confidence=0.9, method="exact")
    np.testing.assert_allclose(low[1:], beta.ppf(0.05, count[1:], trials - count[1:] + 1), rtol=1e-8)
    np.testing.assert_allclose(high[:-1], beta.ppf(0.95, count[:-1] + 1, trials - count[:-1]), rtol=1e-8)
    assert low[0] == 0 and high[-1] == 1


@pytest.mark.slow
def test_ranks_that_a_siamese_network_keeps():
    """Dimensional collapse has a basin of positive measure: 82.2 % full rank, 16.7 % rank 1, 1.1 % zero of 1000 starts by another
    code (Euler's method); data and shares of `equilibria_generic2a` in our corrections of Ponce 2025, proposition 4.10.
    """
    law = view_moments(np.array([[1.2, 0.35], [0.35, 0.8]]), np.array([[0.95, 0.3], [-0.2, 0.7]]), 2 * np.eye(2))
    args = siamese_arguments(law, weight_decay=0.02)

    def start(key):
        a, b = jax.random.split(key)
        return siamese_state(jax.random.normal(a, (3, 2)), jax.random.normal(b, (3, 3)))

    names = ("full rank", "rank 1", "zero")
    found = basin_shares(
        by_flow(siamese, 3000.0), start, args, rank_of_encoder, names, key=KEY, runs=1500, progress=False
    )
    assert found.diverged[0] == 0 and found.unresolved[0] <= 15
    np.testing.assert_allclose(
        found.shares[0], [0.822, 0.167, 0.011], atol=0.045
    )  # 3 s.d. of the difference of two samples
    discrete = basin_shares(
        by_steps(siamese, 0.1, 20_000), start, args, rank_of_encoder, names, key=KEY, runs=300, progress=False
    )
    assert discrete.unresolved[0] + discrete.diverged[0] <= 6
    np.testing.assert_allclose(discrete.shares[0], found.shares[0], atol=0.09)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": 0}, "Argument `runs` must be a whole number >= 1"),
        ({"classes": ()}, "Argument `classes` must name at least one class"),
        ({"interval": "normal"}, "Argument `interval` must be one of 'wilson', 'exact'"),
        ({"confidence": 1.0}, "Argument `confidence`"),
        ({"width": -1.0}, "Argument `width`"),
        ({"classify": lambda y, a: 7}, "Argument `classify` must return -1 or a number below 2"),
    ],
)
def test_bad_input_is_named(change, message):
    def stay(y0, args):
        lanes = np.shape(y0)[0]
        return Ends(y0, np.full(lanes, Status.ok, np.uint8), np.ones(lanes, bool))

    given = {
        "advance": stay,
        "draw": draw,
        "args": 1.0,
        "classify": side,
        "classes": ("r", "l"),
        "key": KEY,
        "progress": False,
    }
    with pytest.raises(ValueError, match=message):
        basin_shares(**given | change)


@pytest.mark.parametrize("call", [lambda: by_flow(double_well, 0.0), lambda: by_steps(double_well, -1.0, 5)])
def test_bad_ways_to_advance_are_named(call):
    with pytest.raises(ValueError, match="must be finite and > 0"):
        call()


@pytest.mark.parametrize(("count", "trials"), [(5, 4), (-1, 4), (1, 0), (0.5, 4)])
def test_bad_counts_are_named(count, trials):
    with pytest.raises(ValueError, match=r"Argument `(count|trials)`"):
        binomial_interval(count, trials)
