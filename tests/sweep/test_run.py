"""Sweeps: values against a plain loop, independence of blocks, labels, failures that are counted, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn.status import Status
from jepa_dyn.sweep import Grid, sweep

GRID = Grid(lam=np.linspace(0.1, 2.0, 7), rho=np.linspace(0.2, 0.9, 5))


def curve(lam, rho):
    ts = jnp.linspace(0.0, 1.0, 4)
    return {"w": ("time", lam * jnp.exp(-rho * ts), {"units": "a.u."}), "product": lam * rho}


def test_values_and_labels():
    found = sweep(curve, GRID, coords={"time": (np.linspace(0, 1, 4), {"units": "mode clock"})}, progress=False)
    assert found.w.dims == ("lam", "rho", "time") and found.w.attrs["units"] == "a.u."
    assert found.time.attrs["units"] == "mode clock"
    for lam in GRID.dims[0].axes["lam"].values:
        for rho in GRID.dims[1].axes["rho"].values:
            here = found.sel(lam=lam, rho=rho)
            np.testing.assert_allclose(here.w, lam * np.exp(-rho * np.linspace(0, 1, 4)), rtol=1e-15)
            assert here.product == lam * rho


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 16, 34, 35, 1000])
def test_independent_of_blocks(chunk_size):
    whole = sweep(curve, GRID, progress=False)
    blocks = sweep(curve, GRID, chunk_size=chunk_size, progress=False)
    np.testing.assert_allclose(blocks.w, whole.w, rtol=4e-16)
    np.testing.assert_array_equal(blocks["product"], whole["product"])


@pytest.mark.parametrize("chunk_size", [1, 4, 35])
def test_keys_are_of_the_point(chunk_size):
    key = jax.random.key(3)
    found = sweep(
        lambda lam, rho, key: {"x": jax.random.normal(key)}, GRID, key=key, chunk_size=chunk_size, progress=False
    )
    expected = [jax.random.normal(jax.random.fold_in(key, i)) for i in range(len(GRID))]
    np.testing.assert_array_equal(found.x.values.ravel(), expected)


def test_compiled_once_whatever_the_number_of_blocks():
    traces = []

    def counted(lam, rho):
        traces.append(1)
        return {"x": lam + rho}

    sweep(counted, GRID, chunk_size=4, progress=False)
    assert len(traces) == 2  # the shapes of the results, then the program


def test_memory_bounds_the_block():
    seen = []

    def wide(lam):
        return {"w": lam * jnp.arange(1000.0)}

    import jepa_dyn.sweep.kernel as kernel

    original = kernel.measured_bytes

    def watch(compiled):
        seen.append(original(compiled))
        return seen[-1]

    kernel.measured_bytes = watch
    try:
        found = sweep(wide, Grid(lam=np.linspace(0, 1, 500)), memory_bytes=200_000, progress=False)
    finally:
        kernel.measured_bytes = original
    assert 8_000 < seen[0] <= 250_000
    np.testing.assert_array_equal(found.w, np.linspace(0, 1, 500)[:, None] * np.arange(1000.0))


def test_zipped_axes_share_a_dimension():
    grid = Grid(depth=[1, 2]) * Grid.zip("feature", lam=[1.0, 2.0, 3.0], rho=[0.9, 0.5, 0.1])
    found = sweep(lambda depth, lam, rho: {"x": depth * lam + rho}, grid, progress=False)
    assert found.x.dims == ("depth", "feature") and found.rho.dims == ("feature",)
    np.testing.assert_allclose(found.x, np.outer([1, 2], [1.0, 2.0, 3.0]) + np.array([0.9, 0.5, 0.1]))


def test_constants_are_scalar_coordinates():
    found = sweep(lambda a, b: {"x": a + b}, Grid(a=[1.0, 2.0], b=0.5), progress=False)
    assert found.x.dims == ("a",) and found.b.ndim == 0 and float(found.b) == 0.5


def test_a_single_point():
    assert float(sweep(lambda a: {"x": 2 * a}, Grid(a=1.5), progress=False).x) == 3.0


def test_batched_function_runs_as_it_is():
    sizes = []

    def block(lam, rho):
        sizes.append(lam.shape)
        return {"x": np.asarray(lam) * np.asarray(rho)}

    found = sweep(block, GRID, batched=True, chunk_size=8, progress=False)
    np.testing.assert_array_equal(found.x, sweep(curve, GRID, progress=False)["product"])
    assert set(sizes) == {(8,)} and len(sizes) == 5


def test_progress_bar_counts_points(capsys, monkeypatch):
    import tqdm.std

    original = tqdm.std.tqdm.__init__
    monkeypatch.setattr(tqdm.std.tqdm, "__init__", lambda self, *a, **k: original(self, *a, **{**k, "delay": 0}))
    sweep(lambda a: {"x": a}, Grid(a=np.arange(10.0)), chunk_size=3)
    assert "10.0/10.0" in capsys.readouterr().err


def test_failures_are_counted_in_one_line():
    def fn(lam, rho):
        return {"x": jnp.sqrt(1 - lam), "status": jnp.where(rho > 0.8, Status.max_steps, Status.ok).astype(jnp.uint8)}

    with pytest.warns(UserWarning) as caught:
        found = sweep(fn, GRID, progress=False)
    (message,) = [str(w.message) for w in caught]
    bad = np.isnan(found.x) | (found.status != 0)
    assert message.startswith(f"{int(bad.sum())} of 35 points failed")
    assert "7 max_steps" in message and f"{int(np.isnan(found.x).sum())} non-finite x" in message
    assert "the first at lam=0.1, rho=0.9" in message and "\n" not in message
    assert found.status.attrs["flag_meanings"].startswith("ok max_steps") and found.status.dtype == np.uint8


def test_declared_infinity_is_a_value_but_nan_is_not():
    found = sweep(lambda a: {"t": ((), 1 / a, {"infinite_means": "never"})}, Grid(a=[0.0, 1.0]), progress=False)
    assert np.isinf(found.t[0])
    with pytest.warns(UserWarning, match="1 of 2 points failed \\(1 non-finite t\\); the first at a=0"):
        sweep(lambda a: {"t": 1 / a}, Grid(a=[0.0, 1.0]), progress=False)
    with pytest.warns(UserWarning, match="1 non-finite t"):
        sweep(lambda a: {"t": ((), a / a, {"infinite_means": "never"})}, Grid(a=[0.0, 1.0]), progress=False)


def test_float32_labels_tell_what_was_computed(float32):
    found = sweep(lambda a: {"x": a}, Grid(a=[0.1, 0.2]), progress=False)
    assert found.a.dtype == np.float32 and found.attrs["x64"] == 0
    np.testing.assert_array_equal(found.a, found.x)
    for values in ([1e-60, 1.0], [1e60, 1.0], [1.0, 1.0 + 1e-12]):
        with pytest.raises(ValueError, match="enable_x64"):
            sweep(lambda a: {"x": a}, Grid(a=values), progress=False)


@pytest.mark.parametrize(
    ("fn", "options", "error", "message"),
    [
        (lambda lam, rho: lam, {}, TypeError, "must return a dict of named arrays"),
        (lambda lam, rho: {}, {}, ValueError, "at least one named array"),
        (lambda lam: {"x": lam}, {}, TypeError, r"must take the parameters \(lam, rho\) by name, but takes \(lam\)"),
        (lambda lam, rho: {"lam": lam}, {}, ValueError, "`lam` has"),
        (lambda lam, rho: {"x": ("rho", jnp.ones(3))}, {}, ValueError, "differently from the grid"),
        (lambda lam, rho: {"x": ("t", lam)}, {}, ValueError, "one name per dimension"),
        (lambda lam, rho: {"x": ("t", lam, {}, 1)}, {}, ValueError, "tuple of 4"),
        (lambda lam, rho: {"x": ("t", jnp.ones(3)), "y": ("t", jnp.ones(4))}, {}, ValueError, "one length"),
        (curve, {"coords": {"time": [0.0, 1.0]}}, ValueError, r"shape \(4,\)"),
        (curve, {"coords": {"tim": [0.0, 1.0]}}, ValueError, "no result has `tim`"),
        (curve, {"coords": {"lam": [0.0, 1.0]}}, ValueError, "must not repeat"),
        (curve, {"chunk_size": 0}, ValueError, "must be positive"),
        (curve, {"memory_bytes": 0}, ValueError, "must be positive"),
        (lambda lam, rho: {"x": lam[:2]}, {"batched": True}, ValueError, "must have 35 points first"),
    ],
)
def test_errors_say_what_is_wrong(fn, options, error, message):
    with pytest.raises(error, match=message) as caught:
        sweep(fn, GRID, progress=False, **options)
    assert "\n" not in str(caught.value)


def test_key_clashes_with_an_axis():
    with pytest.raises(ValueError, match="axis called `key`"):
        sweep(lambda key: {"x": key}, Grid(key=[1.0]), key=jax.random.key(0))
