import itertools
import tracemalloc
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_dyn.moments import MomentAccumulator, moments_from_batches, moments_from_pairs, pairs


def exact_moments(x, y, ddof=0):
    """In integers: all values are multiples of the last bit of the smallest, so that sums of products are exact."""
    x, y = (np.asarray(z).astype(np.float64) for z in (x, y))
    z = np.concatenate([x, y], axis=1)
    shift = max(Fraction(v).denominator for v in z.ravel().tolist())
    rows = np.array([[int(Fraction(v) * shift) for v in row] for row in z.tolist()], dtype=object)
    n, total = len(rows), rows.sum(axis=0)
    scatter = n * (rows.T @ rows) - np.outer(total, total)  # n^2 shift^2 times the covariance
    exact = np.array([[float(Fraction(int(v), n * (n - ddof) * shift**2)) for v in row] for row in scatter])
    d = x.shape[1]
    return [exact[:d, :d], exact[d:, :d], exact[d:, d:]]


def correlated_pairs(n, d, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    return x.astype(dtype), (0.7 * x + rng.normal(size=(n, d))).astype(dtype)


def assert_moments(moments, expected, rtol):
    for got, want in zip((moments.xx, moments.yx, moments.yy), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=rtol * np.abs(want).max())


@pytest.mark.parametrize(
    ("offset", "dtype", "rtol"),
    [(0.0, np.float64, 1e-14), (1e6, np.float64, 1e-14), (1e12, np.float64, 1e-14), (1e6, np.float32, 1e-14)],
)
def test_a_large_common_offset_costs_no_digits(offset, dtype, rtol):
    x, y = correlated_pairs(400, 4)
    x, y = (x + offset).astype(dtype), (y - offset).astype(dtype)
    assert_moments(moments_from_pairs(x, y), exact_moments(x, y), rtol)


def test_the_offset_test_can_fail():
    """The textbook formula E[x x^T] - m m^T loses all digits there."""
    x, y = (z + 1e12 for z in correlated_pairs(400, 4))
    naive = x.T @ x / len(x) - np.outer(x.mean(0), x.mean(0))
    assert np.abs(naive / exact_moments(x, y)[0] - 1).max() > 0.1


def test_a_first_row_far_from_the_rest_is_no_harm():
    x, y = correlated_pairs(300, 3)
    x[0] += 1e8
    assert_moments(moments_from_pairs(x, y), exact_moments(x, y), 1e-13)


@settings(deadline=None, max_examples=40)
@given(
    cuts=st.lists(st.integers(0, 200), max_size=6),
    offset=st.floats(-1e6, 1e6),
    chunk=st.sampled_from([1, 200, 2**20]),
)
def test_any_partition_into_batches_gives_the_same(cuts, offset, chunk):
    x, y = (z + offset for z in correlated_pairs(200, 3))
    edges = sorted({0, 200, *cuts})
    expected = exact_moments(x, y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_CHUNK_BYTES", chunk)
        batches = ((x[a:b], y[a:b]) for a, b in itertools.pairwise(edges))
        assert_moments(moments_from_batches(batches), expected, 1e-12)
        parts = [MomentAccumulator().update(x[a:b], y[a:b]) for a, b in itertools.pairwise(edges)]
        merged = MomentAccumulator()
        for part in reversed(parts):
            merged.merge(part)
        assert merged.count == 200
        np.testing.assert_allclose(merged.mean_x, x.mean(0), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(merged.mean_y, y.mean(0), rtol=1e-13, atol=1e-13)
        assert_moments(merged.moments(), expected, 1e-12)


def test_raw_moments_and_the_unbiased_estimate():
    x, y = (z + 2 for z in correlated_pairs(40, 3))
    raw = moments_from_pairs(x, y, center=False)
    np.testing.assert_allclose(raw.yx, y.T @ x / 40, rtol=1e-13)
    np.testing.assert_allclose(raw.xx, x.T @ x / 40, rtol=1e-13)
    np.testing.assert_allclose(moments_from_pairs(x, y, ddof=1).xx, np.cov(x.T), rtol=1e-13)
    for arguments in (dict(ddof=2), dict(ddof=1, center=False)):
        with pytest.raises(ValueError, match="`ddof` must be 0"):
            moments_from_pairs(x, y, **arguments)


def test_views_of_different_sizes_and_kinds_of_numbers():
    x = np.arange(12, dtype=np.uint8).reshape(6, 2) ** 2
    y = jnp.arange(6.0)[:, None] % 3
    moments = moments_from_pairs(x, y)
    assert moments.yx.shape == (1, 2)
    assert_moments(moments, exact_moments(x, np.asarray(y)), 1e-14)
    half = jnp.asarray(np.random.default_rng(0).normal(size=(30, 2)), jnp.bfloat16)
    assert_moments(moments_from_pairs(half, half), exact_moments(half, half), 1e-14)


def test_without_x64_sums_still_run_in_double(float32):
    x, y = (z + np.float32(1e6) for z in correlated_pairs(400, 3, dtype=np.float32))
    moments = moments_from_pairs(x, y)
    assert moments.xx.dtype == jnp.float32
    assert_moments(moments, exact_moments(x, y), 1e-7)
    with pytest.raises(ValueError, match=r"must fit into float32.*turn x64 on"):
        moments_from_pairs(x * np.float32(1e22), y)


def test_values_whose_squares_overflow_are_refused():
    x, y = correlated_pairs(10, 2)
    with pytest.raises(ValueError, match=r"must fit into float64.*rescale"):
        moments_from_pairs(x * 1e200, y)


def test_memory_is_bounded_for_streams_and_for_arrays_on_disk(tmp_path):
    n, d = 120_000, 40
    data = np.lib.format.open_memmap(tmp_path / "pairs.npy", "w+", np.float32, (n, 2 * d))
    rng = np.random.default_rng(0)
    for start in range(0, n, 10_000):
        data[start : start + 10_000] = rng.normal(size=(10_000, 2 * d))
    data.flush()
    on_disk = np.load(tmp_path / "pairs.npy", mmap_mode="r")
    in_memory = 8 * n * 2 * d  # 77 MB in float64

    tracemalloc.start()
    from_disk = moments_from_pairs(on_disk[:, :d], on_disk[:, d:])
    peak_disk = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    streamed = moments_from_batches((data[i : i + 5000, :d], data[i : i + 5000, d:]) for i in range(0, n, 5000))
    peak_stream = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_disk < 0.15 * in_memory
    assert peak_stream < 0.15 * in_memory
    assert_moments(streamed, [np.asarray(m) for m in (from_disk.xx, from_disk.yx, from_disk.yy)], 1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_named_by_its_row_in_the_stream(bad):
    x, y = correlated_pairs(100, 3)
    y[57, 1] = bad
    accumulator = MomentAccumulator().update(x[:40], y[:40])
    before = accumulator.moments()
    with pytest.raises(ValueError, match=rf"`y` must be finite, but holds {bad} in row 57, component 1"):
        accumulator.update(x[40:], y[40:])
    assert accumulator.count == 40
    np.testing.assert_array_equal(accumulator.moments().joint, before.joint)


def test_the_row_is_right_in_later_chunks_too(monkeypatch):
    monkeypatch.setattr(pairs, "_CHUNK_BYTES", 8 * 6 * 7)
    x, y = correlated_pairs(100, 3)
    x[93, 2] = np.nan
    with pytest.raises(ValueError, match="`x` must be finite, but holds nan in row 93, component 2"):
        moments_from_pairs(x, y)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2)), ValueError, "at least two pairs, but there are none"),
        (np.ones((1, 2)), np.ones((1, 2)), ValueError, "only one"),
        (np.ones((5, 2)), np.ones((4, 2)), ValueError, "equally many rows.* 5 and 4"),
        (np.ones(5), np.ones(5), ValueError, r"`x` must have shape \(pairs, components\)"),
        (np.ones((5, 2)), np.ones((5, 2, 2)), ValueError, r"`y` must have shape .*y.reshape\(len\(y\), -1\)"),
        (np.ones((5, 0)), np.ones((5, 2)), ValueError, "`x` must have at least one component"),
        (np.ones((5, 2)) * 0.1, np.eye(5)[:, :2], ValueError, "`x` must vary, but all 5 rows are equal"),
        (np.eye(5)[:, :2], np.full((5, 2), 1e300), ValueError, "`y` must vary"),
        (np.ones((5, 2), complex), np.ones((5, 2)), TypeError, "`x` must hold real numbers"),
        (np.full((5, 2), "a"), np.ones((5, 2)), TypeError, "`x` must hold real numbers"),
    ],
)
def test_bad_pairs_are_refused(x, y, error, message):
    with pytest.raises(error, match=message):
        moments_from_pairs(x, y)


def test_bad_streams_are_refused():
    x, y = correlated_pairs(10, 3)
    with pytest.raises(ValueError, match="there are none"):
        moments_from_batches([])
    with pytest.raises(TypeError, match="item 1 is of type ndarray"):
        moments_from_batches([(x, y), x])
    with pytest.raises(ValueError, match="3 and 3 columns like the pairs before, but have 2 and 3"):
        moments_from_batches([(x, y), (x[:, :2], y)])
    with pytest.raises(ValueError, match="`other` must hold views of 3 and 3"):
        MomentAccumulator().update(x, y).merge(MomentAccumulator().update(x[:, :1], y))


def test_empty_batches_in_between_are_nothing():
    x, y = correlated_pairs(10, 3)
    moments = moments_from_batches([(x[:0], y[:0]), (x[:4], y[:4]), (x[:0], y[:0]), (x[4:], y[4:])])
    assert_moments(moments, exact_moments(x, y), 1e-14)


def test_single_rows_as_batches():
    x, y = correlated_pairs(20, 3)
    assert_moments(moments_from_batches((x[i : i + 1], y[i : i + 1]) for i in range(20)), exact_moments(x, y), 1e-13)
