"""Batches by closed form: every route gives the exact inverse's numbers, in the caller's order, with a status per lane."""

import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn import Status, mode_parameters
from jepa_dyn.solve import exact as exact_module
from jepa_dyn.solve.exact import exact
from jepa_dyn.theory import critical_time, fixed_point, state


def _mixed(count: int, seed: int = 0):
    """Growing, shrinking and decaying lanes, whole and broken depths, shuffled."""
    rng = np.random.default_rng(seed)
    lam = rng.choice([1.0, 0.3, -0.5, 0.0], count, p=[0.5, 0.3, 0.1, 0.1])
    variance, depth = rng.uniform(1.1, 2, count), rng.choice([0.4, 1.0, 2.0, 2.7, 3.0], count)
    return rng.uniform(0.01, 0.9, count), mode_parameters(lam, variance=variance, depth=depth)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize(("method", "tolerance"), [("table", 1e-9), ("polish", 1e-11)])
def test_mixed_batch_equals_the_exact_inverse(objective, method, tolerance):
    """The tolerance is the method's error in log w times the largest condition number here, about 50."""
    w0, args = _mixed(300)
    ts = np.linspace(0, 40, 9)
    result = exact(objective, w0, args, ts, method=method)
    column = mode_parameters(args.lam[:, None], variance=args.variance[:, None], depth=args.depth[:, None])
    expected = np.asarray(state(objective, ts, w0[:, None], column))
    np.testing.assert_allclose(result.ys, expected, rtol=tolerance, atol=1e-300)
    assert (np.asarray(result.status) == Status.ok).all() and result.raise_if_failed() is result
    np.testing.assert_array_equal(result.ys[:, 0], w0)


def test_one_system_and_times_per_lane():
    one = exact("jepa", 0.01, mode_parameters(1.0, 0.8, 2.0), np.array([0.0, 50.0, 500.0]))
    assert one.ys.shape == (3,) and one.status.shape == ()
    args = mode_parameters(1.0, jnp.array([0.5, 0.9]), 2.0)
    ends = np.asarray(critical_time("jepa", 1e-3, args))
    own = exact("jepa", 1e-3, args, ends[:, None] * np.array([0.5, 1.0]), method="polish")
    np.testing.assert_allclose(own.ys[:, 1], 0.5 * fixed_point("jepa", args), rtol=1e-8)


def test_blocks_and_threads_change_nothing_but_rounding(monkeypatch):
    """Vector units treat the end of a block apart, and Newton stops when the slowest lane of a block does: 13 digits."""
    w0, args = _mixed(500, 1)
    ts = np.linspace(0, 30, 5)
    whole = exact("mae", w0, args, ts).ys
    monkeypatch.setattr(exact_module, "_CPU_BLOCK_BYTES", 5 * 8 * 33)
    np.testing.assert_allclose(exact("mae", w0, args, ts).ys, whole, rtol=1e-13)


def test_new_values_do_not_recompile():
    args = mode_parameters(jnp.linspace(0.5, 1, 40), 0.8, 3.0)
    exact("jepa", 1e-3, args, np.linspace(0, 10, 7))
    before = exact_module._evaluate._cache_size()
    for lam in (0.9, 1.1):
        exact("jepa", 1.1e-3, mode_parameters(jnp.linspace(0.5, lam, 40), 0.81, 3.0), np.linspace(0, 9, 7))
    assert exact_module._evaluate._cache_size() == before


def test_unresolvable_transitions_are_flagged():
    """JEPA L = 2 from 1e-12: the transition is narrower than the spacing of the times; far from it all is right."""
    args = mode_parameters(1.0, jnp.array([0.9, 0.9]), 2.0)
    t = float(critical_time("jepa", 1e-12, mode_parameters(1.0, 0.9, 2.0)))
    result = exact("jepa", jnp.array([1e-12, 1e-3]), args, np.array([0.5 * t, t, 2 * t]))
    assert list(np.asarray(result.status)) == [Status.unresolved, Status.ok]
    far = exact("jepa", 1e-12, mode_parameters(1.0, 0.9, 2.0), np.array([0.5 * t, 2 * t]))
    assert far.status == Status.ok
    np.testing.assert_allclose(far.ys[1], 0.81, rtol=1e-12)


def test_polish_resolves_what_the_table_flags():
    """JEPA L = 2 from 1e-8, with a condition number of 1e12 at the transition: the table owns up, the polish holds 4 digits."""
    args = mode_parameters(1.0, 0.9, 2.0)
    t = float(critical_time("jepa", 1e-8, args))
    ts = np.array([0.5 * t, t, 2 * t])
    assert exact("jepa", 1e-8, args, ts).status == Status.unresolved
    polished = exact("jepa", 1e-8, args, ts, method="polish")
    assert polished.status == Status.ok
    np.testing.assert_allclose(polished.ys, state("jepa", ts, 1e-8, args), rtol=2e-3)
    np.testing.assert_allclose(polished.ys[1], 0.405, rtol=2e-3)  # half of rho^L


def test_float32(float32):
    args = mode_parameters(jnp.float32(1.0), jnp.linspace(0.5, 0.9, 5, dtype=jnp.float32), 2.0)
    ts = jnp.linspace(0, 400, 9, dtype=jnp.float32)
    w = exact("jepa", jnp.float32(0.05), args, ts).ys
    assert w.dtype == np.float32
    expected = state("jepa", ts, jnp.float32(0.05), mode_parameters(1.0, args.rho[:, None], 2.0))
    np.testing.assert_allclose(w, expected, rtol=3e-4)


def test_float32_inputs_keep_a_float64_phase_where_x64_is_on():
    args = mode_parameters(np.float32(1.0), np.float32(0.75), np.float32(2.0))
    ts = np.linspace(0, 300, 7, dtype=np.float32)
    w = exact("jepa", np.float32(0.0625), args, ts, method="polish").ys
    assert w.dtype == np.float32
    double = mode_parameters(float(args.lam), variance=float(args.variance), depth=2.0)
    np.testing.assert_allclose(w, state("jepa", ts.astype(float), 0.0625, double), rtol=2e-7)


@pytest.mark.parametrize(("change", "message"), [
    ({"w0": 0.0}, "`w0` must be finite and > 0"),
    ({"w0": np.array([])}, "`w0` must hold at least one value"),
    ({"ts": [1.0, 1.0]}, "`ts` must be strictly increasing"),
    ({"ts": [-1.0, 1.0]}, "`ts` must be finite and >= 0"),
    ({"ts": [0.0, np.nan]}, "`ts` must be finite"),
    ({"ts": np.zeros((3, 0))}, "`ts` must hold at least one value"),
    ({"ts": np.linspace(0, 1, 6).reshape(3, 2)}, "`ts` must have shape"),
    ({"method": "tabel"}, "Did you mean 'table'"),
    ({"args": mode_parameters(1.0, 0.8, 2.0, weight_decay=0.1)}, "`weight_decay` must be 0"),
    ({"args": mode_parameters(1.0, variance=0.0, depth=2.0)}, "`variance` must be finite and > 0"),
])  # fmt: skip
def test_bad_input(change, message):
    call = {
        "w0": np.array([0.1, 0.1]),
        "args": mode_parameters(1.0, 0.8, 2.0),
        "ts": np.array([0.0, 1.0]),
        "method": "table",
    } | change
    if isinstance(call["ts"], list):
        call["ts"] = np.array(call["ts"])
    with pytest.raises(ValueError, match=message):
        exact("jepa", **call)
