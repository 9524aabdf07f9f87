"""`integrate`: every mode in every variable by every kind of solver, events, dense output, settling, statuses, bad input."""

from importlib import import_module

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import EACH, PROBLEMS

from jepa_dyn import ModeParameters, Status, flows, mode_parameters
from jepa_dyn.solve import FailedTrajectories, integrate

TS = np.linspace(0.0, 10.0, 5)


def oscillator(t, y, args):
    return jnp.stack([y[1], -args * y[0]])


def blow_up(t, y, args):
    return y**2


def linear(t, y, args):
    return {"a": -args["rate"] * y["a"], "b": y["a"]}


def hold(t, y, args):
    return 0.0 * y + args


@pytest.mark.parametrize(("problem", "coordinate"), EACH, ids=lambda x: getattr(x, "name", x))
def test_against_dop853(problem, coordinate):
    result = integrate(
        problem.flow,
        problem.w0,
        problem.args,
        problem.ts,
        coordinate=coordinate,
        rtol=1e-9,
        atol=1e-13,
        solver="dopri8",
    )
    result.raise_if_failed()
    np.testing.assert_allclose(result.ys, problem.w, rtol=1e-6)


@pytest.mark.parametrize(
    ("solver", "coordinate"),
    [
        ("tsit5", "w"),
        ("tsit5", "layer"),
        ("dopri5", "logit"),
        ("kvaerno3", "log"),
        ("kvaerno4", "layer"),
        ("kvaerno5", "w"),
    ],
)
def test_every_solver(solver, coordinate):
    problem = PROBLEMS[1]
    result = integrate(
        problem.flow, problem.w0, problem.args, problem.ts, coordinate=coordinate, solver=solver, rtol=1e-8
    )
    assert result.status == Status.ok
    np.testing.assert_allclose(result.ys, problem.w, rtol=2e-5)


def test_tighter_tolerance_is_more_accurate():
    problem = PROBLEMS[1]
    errors = []
    for rtol in (1e-5, 1e-7, 1e-9, 1e-11):
        ys = integrate(problem.flow, problem.w0, problem.args, problem.ts, rtol=rtol, atol=1e-14, solver="dopri8").ys
        errors.append(np.abs(np.asarray(ys) / problem.w - 1).max())
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 1e-8


def test_zero_start_and_start_at_the_fixed_point_stay():
    args = mode_parameters(1.0, 0.5, 2.0)
    for w0 in (0.0, 0.25):
        for settle in (False, True):
            result = integrate(flows.jepa, w0, args, TS, settle=settle)
            assert result.status == Status.ok
            np.testing.assert_allclose(result.ys, w0, atol=1e-12)


def test_decay_to_zero_in_finite_time_is_absorbed():
    # JEPA, L = 2/5, variance 0: dw/dt = -w^(1/2), w = (sqrt(w0) - t/2)^2 until it is 0 at t = 2 sqrt(w0)
    args = mode_parameters(-1.0, variance=0.0, depth=0.4)
    result = integrate(flows.jepa, 0.25, args, [0.5, 0.9, 1.5, 10.0])
    assert result.status == Status.ok
    np.testing.assert_allclose(result.ys, [0.0625, 0.0025, 0, 0], atol=1e-7)


def test_pytree_state_and_start_time():
    result = integrate(linear, {"a": 1.0, "b": 0.0}, {"rate": 0.5}, [2.0, 4.0], t0=2.0)
    np.testing.assert_allclose(result.ys["a"], [1, np.exp(-1)], rtol=1e-7)
    np.testing.assert_allclose(result.ys["b"], [0, 2 - 2 * np.exp(-1)], rtol=1e-7, atol=1e-12)


def test_single_save_at_the_start():
    result = integrate(hold, 1.5, 1.0, [0.0])
    np.testing.assert_allclose(result.ys, [1.5])
    assert result.status == Status.ok


# ---- events ----------------------------------------------------------------------------------------------------------


def displacement(t, y, args):
    return y[0]


def never(t, y, args):
    return y[0] + 5


def test_events_record_every_crossing_and_go_on():
    result = integrate(
        oscillator,
        jnp.array([1.0, 0.0]),
        4.0,
        [7.0],
        events={"zero": displacement, "never": never},
        rtol=1e-10,
        atol=1e-12,
    )
    expected = np.pi / 4 + np.arange(4) * np.pi / 2  # cos 2t = 0
    crossings = result.crossings
    assert crossings.names == ("zero", "never")
    np.testing.assert_array_equal(crossings.count, [4, 0])
    np.testing.assert_allclose(crossings["zero"][:4], expected, rtol=1e-8)
    np.testing.assert_array_equal(crossings.direction[0], [-1, 1, -1, 1, 0, 0, 0, 0])
    assert np.isinf(crossings["zero"][4:]).all() and np.isinf(crossings["never"]).all()
    np.testing.assert_allclose(result.ys[-1], [np.cos(14), -2 * np.sin(14)], atol=1e-8)


def test_events_beyond_capacity_are_counted():
    result = integrate(oscillator, jnp.array([1.0, 0.0]), 4.0, [7.0], events=displacement, capacity=2)
    assert result.crossings.count[0] == 4
    np.testing.assert_allclose(result.crossings["event"], [np.pi / 4, 3 * np.pi / 4], rtol=1e-6)


def half_height(t, w, args):
    return w - 0.5 * args.rho**args.depth


@pytest.mark.parametrize("coordinate", ["log", "layer"])
def test_half_time_of_eq_81(coordinate):
    # CORRECTIONS A.3: lam = 1, rho = .8, eps = .05, L = 3: half height at 189.329; here from eq. (72) itself
    args = mode_parameters(1.0, 0.8, 3.0)

    def primitive(psi):
        return np.log(psi / (1 - psi)) - sum(1 / (m * psi**m) for m in range(1, 6))

    expected = (primitive(0.5 ** (1 / 3)) - primitive(0.05 ** (1 / 3) / 0.8)) / (0.8**5 / 3)
    assert abs(expected - 189.329) < 1e-3
    result = integrate(
        flows.jepa, 0.05, args, [250.0], coordinate=coordinate, events=half_height, rtol=1e-11, atol=1e-15
    )
    assert result.crossings.count[0] == 1
    np.testing.assert_allclose(result.crossings["event"][0], expected, rtol=2e-9)


def test_events_with_a_stiff_solver_and_settled_lane():
    args = mode_parameters(1000.0, 0.8, 1.0)
    result = integrate(flows.jepa, 0.05, args, [5.0], events=half_height, solver="kvaerno5", settle=True)
    primitive = lambda y: np.log(y / (1 - y)) - 1 / y  # noqa: E731
    expected = (primitive(0.5) - primitive(0.05 / 0.8)) / 800
    np.testing.assert_allclose(result.crossings["event"][0], expected, rtol=1e-4)
    assert result.settled_time < 0.2


# ---- dense output ----------------------------------------------------------------------------------------------------


def test_dense_output():
    result = integrate(oscillator, jnp.array([1.0, 0.0]), 1.0, [3.0], dense=True, rtol=1e-9)
    times = np.linspace(0, 3, 50)
    np.testing.assert_allclose(result.evaluate(times)[:, 0], np.cos(times), atol=1e-6)
    assert result.evaluate(1.0).shape == (2,)
    assert np.isnan(result.evaluate(3.1)).all() and np.isnan(result.evaluate(-0.1)).all()
    with pytest.raises(ValueError, match="dense=True"):
        integrate(oscillator, jnp.array([1.0, 0.0]), 1.0, [3.0]).evaluate(1.0)


def test_dense_output_in_a_coordinate_is_in_w():
    problem = PROBLEMS[1]
    result = integrate(problem.flow, problem.w0, problem.args, [problem.end], coordinate="logit", dense=True)
    np.testing.assert_allclose(result.evaluate(problem.ts), problem.w, rtol=1e-5)


# ---- settling --------------------------------------------------------------------------------------------------------


def test_settled_lane_stops_early_and_is_right():
    coordinate = "layer"
    args = mode_parameters(1000.0, 0.8, 3.0)
    ts = np.geomspace(0.01, 50.0, 12)
    plain = integrate(flows.jepa, 0.05, args, ts, coordinate=coordinate)
    settled = integrate(flows.jepa, 0.05, args, ts, coordinate=coordinate, settle=True)
    assert settled.status == Status.ok and settled.settled_time < 1.0 and np.isinf(plain.settled_time)
    assert settled.steps < 0.1 * plain.steps
    np.testing.assert_allclose(settled.ys, plain.ys, rtol=1e-6)
    np.testing.assert_allclose(settled.ys[-1], 0.8**3, rtol=2e-8)


@pytest.mark.parametrize("w0", [1e-3, 1e-6, 1e-12])
def test_no_false_settling_on_the_plateau(w0):
    args = mode_parameters(1.0, 0.8, 2.0)
    result = integrate(flows.jepa, w0, args, [1e3], coordinate="log", settle=True)
    assert np.isinf(result.settled_time)
    escape = 2 / (3 * w0**1.5)  # eq. (13), leading order
    late = integrate(flows.jepa, w0, args, [10 * escape], coordinate="log", settle=True)
    if w0 > 1e-10:
        np.testing.assert_allclose(late.ys, 0.64, rtol=1e-6)
    else:
        # the escape takes a time of order 1 at t* = 7e17, where float64 cannot tell t from t + 100: said, not guessed
        assert late.status == Status.step_underflow and np.isnan(late.ys).all()


# ---- statuses --------------------------------------------------------------------------------------------------------


def test_status_max_steps():
    result = integrate(flows.jepa, 0.05, mode_parameters(1000.0, 0.8, 3.0), [0.0, 50.0], max_steps=20)
    assert result.status == Status.max_steps
    assert result.ys[0] == 0.05 and np.isnan(result.ys[1])
    with pytest.raises(FailedTrajectories, match=r"max_steps.*lam=1000"):
        result.raise_if_failed()


def test_status_of_a_blow_up():
    result = integrate(blow_up, 1.0, None, [0.5, 2.0])
    assert result.status in (Status.step_underflow, Status.non_finite)
    np.testing.assert_allclose(result.ys[0], 2.0, rtol=1e-6)
    assert np.isnan(result.ys[1])


def test_status_step_underflow():
    # a step of 1e-6 cannot be told from t = 1e12
    result = integrate(oscillator, jnp.array([1.0, 0.0]), 1e12, [1e12 + 1.0], t0=1e12)
    assert result.status == Status.step_underflow


@pytest.mark.parametrize(
    ("lam", "rho", "w0"), [(0.30186259676, 0.52062854193, 0.041182278766), (1.28217944, 0.74484348, 0.00288952)]
)
def test_a_step_that_overflows_is_shortened(lam, rho, w0):
    # found among 1e5 lanes: plain diffrax tries a step whose stages overflow in log w, and repeats it until max_steps
    args = mode_parameters(lam, rho, 1.0)
    result = integrate(flows.jepa_log, np.log(w0), args, [300.0], rtol=1e-7, atol=1e-7, max_steps=500)
    assert result.status == Status.ok
    np.testing.assert_allclose(np.exp(result.ys), rho, rtol=1e-5)


def test_status_non_finite():
    result = integrate(hold, 1.0, jnp.nan, TS)
    assert result.status == Status.non_finite
    bad = ModeParameters(jnp.asarray(jnp.nan), *(jnp.asarray(1.0),) * 3)
    assert integrate(flows.jepa, 0.1, bad, TS).status == Status.non_finite


def test_status_invalid_start_under_vmap():
    starts = jnp.array([0.1, -0.1])
    status = jax.vmap(lambda w0: integrate(flows.jepa, w0, mode_parameters(1.0, 0.5), TS).status)(starts)
    np.testing.assert_array_equal(status, [Status.ok, Status.invalid_parameter])


# ---- transformations -------------------------------------------------------------------------------------------------


def test_vmap_and_jit_equal_one_by_one():
    lams = jnp.array([0.5, 1.0, 2.0])

    def final(lam):
        return integrate(flows.mae, 0.05, mode_parameters(lam, 0.8, 2.0), TS, coordinate="log").ys[-1]

    single = [final(lam) for lam in lams]
    np.testing.assert_allclose(jax.vmap(final)(lams), single, rtol=1e-13)
    np.testing.assert_allclose(jax.jit(final)(lams[0]), single[0], rtol=1e-13)


def test_gradient_against_a_difference():
    def final(lam):
        return integrate(flows.jepa, 0.1, mode_parameters(lam, 0.8, 2.0), [40.0], rtol=1e-10, atol=1e-13).ys[-1]

    step = 1e-5
    difference = (final(1.0 + step) - final(1.0 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(final)(1.0), difference, rtol=1e-5)


def test_new_numbers_never_recompile():
    traces = []

    def counted(t, y, args):
        traces.append(1)
        return -args * y

    def solve(rtol, atol, rate, y0, end):
        return integrate(counted, y0, rate, np.linspace(0, end, 4), rtol=rtol, atol=atol)

    solve(1e-6, 1e-9, 1.0, 1.0, 2.0)
    first = len(traces)
    for rtol, atol, rate, y0, end in ((1e-7, 1e-10, 2.0, 0.5, 3.0), (1e-4, 1e-8, 0.1, 1, 1)):
        solve(rtol, atol, rate, y0, end)
    assert first > 0 and len(traces) == first


def test_new_mode_parameters_never_recompile(monkeypatch):
    module, traces = import_module("jepa_dyn.solve.integrate"), []

    def counted(*args, **kwargs):
        traces.append(1)
        return module.solve_lane(*args, **kwargs)

    monkeypatch.setattr(module, "_solve_jitted", eqx.filter_jit(counted))
    for lam, depth in ((1.0, 2.0), (2.0, 3.0), (0.3, 2.0)):
        integrate(flows.jepa, 0.1, mode_parameters(lam, 0.5, depth), TS, coordinate="layer")
    assert len(traces) == 1
    integrate(flows.jepa, 0.1, mode_parameters(1.0, 0.5, 2.0), TS, coordinate="log")
    assert len(traces) == 2


# ---- float32 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coordinate", ["w", "layer"])
def test_float32(float32, coordinate):
    problem = PROBLEMS[1]
    result = integrate(problem.flow, problem.w0, problem.args, problem.ts, coordinate=coordinate, rtol=3e-6)
    assert result.status == Status.ok and result.ys.dtype == jnp.float32
    np.testing.assert_allclose(result.ys, problem.w, rtol=5e-3)


# ---- bad input -------------------------------------------------------------------------------------------------------

ARGS = mode_parameters(1.0, 0.5, 2.0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"ts": [1.0, 0.5]}, ValueError, "strictly increasing"),
        ({"ts": [-1.0, 0.5]}, ValueError, "`ts` must be finite and >= 0"),
        ({"ts": [0.5, np.nan]}, ValueError, "`ts` must be finite"),
        ({"ts": []}, ValueError, "`ts` must hold at least one value"),
        ({"ts": [[1.0, 2.0]]}, ValueError, r"`ts` must have shape \(T,\)"),
        ({"ts": [1.0], "t0": 2.0}, ValueError, "before t0"),
        ({"y0": np.nan}, ValueError, "`y0` must be finite"),
        ({"y0": np.zeros(0)}, ValueError, "`y0` must hold"),
        ({"y0": -0.1}, ValueError, "`y0` must be >= 0"),
        ({"y0": np.ones(3)}, ValueError, "use `ensemble`"),
        ({"args": 3.0}, TypeError, "ModeParameters"),
        ({"flow": 3.0}, TypeError, "flow"),
        ({"solver": "tsit6"}, ValueError, "Did you mean 'tsit5'"),
        ({"solver": 5}, TypeError, "solver"),
        ({"rtol": 1e-16}, ValueError, "`rtol` must be at least 2.2e-15"),
        ({"rtol": np.array([1e-5, 1e-6])}, ValueError, "single numbers"),
        ({"atol": 0.0}, ValueError, "`atol` must be finite and > 0"),
        ({"max_steps": 0}, ValueError, "`max_steps`"),
        ({"capacity": 0}, ValueError, "`capacity`"),
        ({"coordinate": "logarithm"}, ValueError, "`coordinate` must be one of"),
        ({"coordinate": "log", "y0": 0.0}, ValueError, "`y0` must be finite and > 0"),
        ({"coordinate": "logit", "y0": 0.3}, ValueError, "below the fixed point"),
        ({"coordinate": "logit", "args": mode_parameters(-1.0, -0.5)}, ValueError, "`args.lam`"),
        ({"coordinate": "layer", "args": mode_parameters(1.0, 0.5, 2.5)}, ValueError, "whole number"),
        ({"events": 3.0}, TypeError, "events"),
    ],
)
def test_bad_input(change, error, words):
    call = {"flow": flows.jepa, "y0": 0.1, "args": ARGS, "ts": TS} | change
    with pytest.raises(error, match=words):
        integrate(**call)


def test_coordinates_and_settling_are_for_scalar_modes():
    with pytest.raises(ValueError, match="`coordinate` must be None"):
        integrate(oscillator, jnp.ones(2), 1.0, TS, coordinate="log")
    with pytest.raises(ValueError, match="`settle` must be False"):
        integrate(oscillator, jnp.ones(2), 1.0, TS, settle=True)
