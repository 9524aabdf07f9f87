"""`ensemble`: any system, in the caller's order, the same numbers whatever the blocks, no lane touched by its neighbour."""

import os
import subprocess
import sys
from importlib import import_module

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import PROBLEMS

from jepa_dyn import ModeParameters, Status, flows, mode_parameters
from jepa_dyn.solve import ClosedForm, ensemble
from jepa_dyn.solve._devices import block_order

TS = np.linspace(0.0, 60.0, 7)
ROUTES = [
    {"coordinate": "layer"},
    {"coordinate": "log"},
    {"coordinate": "w"},
    {"stepper": "diffrax", "coordinate": "layer"},
    {"solver": "kvaerno5", "coordinate": "log"},
]


def mixed(num_lanes, seed=0):
    """Starts and parameters of unlike cost: depths 1 to 7, rates over two decades."""
    rng = np.random.default_rng(seed)
    lam, rho = 10 ** rng.uniform(-1, 1, num_lanes), rng.uniform(0.4, 1.2, num_lanes)
    depth = rng.integers(1, 8, num_lanes).astype(float)
    return rng.uniform(0.02, 0.4, num_lanes), mode_parameters(lam, rho, depth)


def oscillator(t, y, args):
    return jnp.stack([y[1], -args * y[0]])


def blow_up(t, y, args):
    return args * y**2


class Coupled(eqx.Module):
    matrix: jax.Array

    def __call__(self, t, y, args):
        return {"x": args["rate"] * (self.matrix @ y["x"]), "n": -y["n"]}


@pytest.mark.parametrize(
    ("objective", "route"),
    [("jepa", route) for route in ROUTES] + [("mae", route) for route in ROUTES[:3]],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()),
)
def test_battery_through_every_route(objective, route):
    problems = [p for p in PROBLEMS if p.objective == objective and route["coordinate"] in p.coordinates]
    args = mode_parameters(
        np.array([p.lam for p in problems]),
        variance=np.array([p.variance for p in problems]),
        depth=np.array([p.depth for p in problems]),
        weight_decay=np.array([p.weight_decay for p in problems]),
    )
    own_ts, w0 = np.stack([p.ts for p in problems]), np.array([p.w0 for p in problems])
    result = ensemble(problems[0].flow, w0, args, own_ts, rtol=1e-9, atol=1e-13, block_size=4, **route)
    result.raise_if_failed()
    np.testing.assert_allclose(result.ys, np.stack([p.w for p in problems]), rtol=5e-6)


def test_numbers_do_not_depend_on_blocks_order_or_neighbours():
    w0, args = mixed(53)
    base = ensemble(flows.jepa, w0, args, TS, block_size=16)
    assert base.raise_if_failed().ys.shape == (53, 7)
    for change in ({"block_size": 7}, {"block_size": 64}, {"sort_key": None}, {"sort_key": "rate"}):
        other = ensemble(flows.jepa, w0, args, TS, **({"block_size": 16} | change))
        np.testing.assert_array_equal(other.ys, base.ys)
        np.testing.assert_array_equal(other.steps, base.steps)
    permutation = np.random.default_rng(1).permutation(53)
    shuffled = jax.tree.map(lambda leaf: leaf[permutation] if leaf.ndim else leaf, args)
    np.testing.assert_array_equal(
        ensemble(flows.jepa, w0[permutation], shuffled, TS, block_size=16).ys, base.ys[permutation]
    )


_TWO_DEVICES = """
import numpy as np, jax, sys
jax.config.update("jax_enable_x64", True)
from jepa_dyn.solve import ensemble
sys.path.insert(0, sys.argv[1])
from test_ensemble import TS, flows, mixed
w0, args = mixed(53)
both = ensemble(flows.jepa, w0, args, TS, block_size=8)
one = ensemble(flows.jepa, w0, args, TS, block_size=8, threads=1)
np.testing.assert_array_equal(both.ys, one.ys)
# as on accelerators
sys.modules["jepa_dyn.solve.ensemble"].runs_in_threads = lambda devices: False
assert len(jax.devices()) == 2
both = ensemble(flows.jepa, w0, args, TS, block_size=8)
np.testing.assert_array_equal(both.ys, one.ys)
stiff = ensemble(flows.jepa, w0, args, TS, block_size=8, solver="kvaerno5")
np.testing.assert_allclose(stiff.ys, one.ys, rtol=1e-5)
np.testing.assert_array_equal(both.steps, one.steps)
many = ensemble(flows.jepa, w0, args, TS, block_size=8, stepper="diffrax", sort_key="rate")
np.testing.assert_allclose(many.ys, one.ys, rtol=1e-5)
np.save(sys.argv[2], np.asarray(both.ys))
"""


@pytest.mark.slow
def test_threads_and_devices_give_the_same_bits(tmp_path):
    out = tmp_path / "ys.npy"
    here = __file__.rpartition("/")[0]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", _TWO_DEVICES, here, str(out)],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    w0, args = mixed(53)
    np.testing.assert_array_equal(
        np.load(out), ensemble(flows.jepa, w0, args, TS, block_size=16, devices=jax.devices()[:1]).ys
    )


@pytest.mark.parametrize("stepper", ["lanes", "diffrax"])
def test_a_failed_lane_touches_no_other(stepper):
    w0, args = mixed(12)
    args = args.broadcast()
    good = ensemble(flows.jepa, w0, args, TS, block_size=4, stepper=stepper)
    assert (np.asarray(good.status) == Status.ok).all()
    bad_lam = args.lam.at[5].set(jnp.nan)
    poisoned = ensemble(
        flows.jepa, w0, ModeParameters(bad_lam, *jax.tree.leaves(args)[1:]), TS, block_size=4, stepper=stepper
    )
    others = np.delete(np.arange(12), 5)
    assert poisoned.status[5] == Status.non_finite and np.isnan(poisoned.ys[5]).any()
    np.testing.assert_array_equal(poisoned.where_failed(), [5])
    np.testing.assert_array_equal(poisoned.ys[others], good.ys[others])


@pytest.mark.parametrize("stepper", ["lanes", "diffrax"])
def test_statuses(stepper):
    rate = np.array([0.1, 1.0, np.nan, 0.2])
    result = ensemble(blow_up, 1.0, rate, [0.5, 2.0], stepper=stepper, block_size=4)
    status = np.asarray(result.status)
    assert status[0] == status[3] == Status.ok and status[2] == Status.non_finite
    assert status[1] in (Status.step_underflow, Status.non_finite)
    np.testing.assert_allclose(result.ys[0], [1 / 0.95, 1 / 0.8], rtol=1e-6)
    np.testing.assert_allclose(result.ys[1, 0], 2.0, rtol=1e-6)
    assert np.isnan(result.ys[1, 1])
    few = ensemble(oscillator, np.ones((2, 2)), np.array([1e-6, 1e6]), [0.0, 10.0], stepper=stepper, max_steps=50)
    np.testing.assert_array_equal(few.status, [Status.ok, Status.max_steps])
    assert np.isnan(few.ys[1, 1]).all() and (few.ys[1, 0] == 1).all()
    late = ensemble(oscillator, np.ones((1, 2)), 1e12, [1e12 + 1], t0=1e12, stepper=stepper)
    assert late.status[0] == Status.step_underflow


def test_fast_lane_settles_and_does_not_hold_the_block():
    lam = np.append(np.ones(15), 1000.0)
    args = mode_parameters(lam, 0.8, 3.0)
    result = ensemble(flows.jepa, 0.05, args, np.linspace(0, 100, 5))
    plain = ensemble(flows.jepa, 0.05, args, np.linspace(0, 100, 5), settle=False)
    assert result.settled_time[-1] < 1.0 and np.isinf(result.settled_time[0])
    assert int(plain.steps[-1]) > 3000 > 200 > int(result.steps[-1])
    np.testing.assert_allclose(result.ys, plain.ys, rtol=1e-6)


def test_pytree_states_with_shared_arrays_in_the_flow():
    matrix = np.array([[0.0, 1.0], [-1.0, 0.0]])
    rate = np.linspace(0.5, 3.0, 9)
    y0 = {"x": np.tile([1.0, 0.0], (9, 1)), "n": 2.0}
    ts = np.array([0.0, 0.5, 2.0])
    result = ensemble(Coupled(jnp.asarray(matrix)), y0, {"rate": rate}, ts, block_size=4, rtol=1e-9)
    angle = rate[:, None] * ts
    expected = np.stack([np.cos(angle), -np.sin(angle)], axis=-1)
    np.testing.assert_allclose(result.ys["x"], expected, atol=1e-7)
    np.testing.assert_allclose(result.ys["n"], np.broadcast_to(2 * np.exp(-ts), (9, 3)), rtol=1e-7)
    faster = ensemble(Coupled(jnp.asarray(2 * matrix)), y0, {"rate": rate}, ts, block_size=4, rtol=1e-9)
    np.testing.assert_allclose(faster.ys["x"][..., 0], np.cos(2 * angle), atol=1e-7)


def test_one_lane_and_scalars():
    args = mode_parameters(1.0, 0.8, 2.0)
    result = ensemble(flows.jepa, 0.1, args, TS)
    assert result.ys.shape == (1, 7)
    np.testing.assert_allclose(ensemble(flows.jepa, np.full(3, 0.1), args, TS).ys[2], result.ys[0], rtol=1e-14)


def test_auto_coordinate():
    whole, broken = mode_parameters(1.0, 0.8, np.array([1.0, 2.0])), mode_parameters(1.0, 0.8, np.array([1.0, 2.5]))
    assert ensemble(flows.jepa, 0.1, whole, TS).method.endswith("layer")
    assert ensemble(flows.jepa, 0.1, broken, TS).method.endswith("log")
    zero = ensemble(flows.jepa, np.array([0.0, 0.1]), broken, TS)
    assert zero.method.endswith(" w") and (zero.ys[0] == 0).all()


def test_sort_key_by_user():
    w0, args = mixed(20)
    base = ensemble(flows.jepa, w0, args, TS, block_size=8)
    seen = []

    def key(y0, args, ts):
        seen.append(np.shape(y0))
        return -np.asarray(args.lam)

    np.testing.assert_array_equal(ensemble(flows.jepa, w0, args, TS, block_size=8, sort_key=key).ys, base.ys)
    assert seen == [(20,)]
    np.testing.assert_array_equal(
        ensemble(flows.jepa, w0, args, TS, block_size=8, sort_key=np.asarray(base.steps)).ys, base.ys
    )


def test_block_order_is_a_padded_permutation():
    key = np.random.default_rng(0).random(50)
    order = block_order(key, 50, 8, 2)
    assert order.size == 64 and set(order) == set(range(50))
    blocks = order.reshape(2, 4, 8)
    ends = key[blocks]
    # dealt in turn: device 0 has the 1st, 3rd, ... cheapest block
    assert ends[0, 0].max() <= ends[1, 0].min() and ends[1, 0].max() <= ends[0, 1].min()


def exponential(t, y0, args):
    return y0 * jnp.exp(-args * t)


def rate_status(y0, args):
    return jnp.where(args < 0, Status.invalid_parameter, Status.ok)


def test_closed_form():
    rate = np.array([1.0, 2.0, -1.0, np.nan, 0.5])
    system = ClosedForm(exponential, rate_status, name="exponential")
    result = ensemble(system, 2.0, rate, [1.0, 3.0], t0=1.0, block_size=2)
    good = [0, 1, 4]
    np.testing.assert_allclose(result.ys[np.array(good)], 2 * np.exp(-rate[good, None] * [0.0, 2.0]), rtol=1e-14)
    np.testing.assert_array_equal(result.status, [0, 0, Status.invalid_parameter, Status.non_finite, 0])
    assert result.method == "exponential" and (np.asarray(result.steps) == 0).all()
    own = ensemble(ClosedForm(exponential), 2.0, rate[good], np.array([[0.0, 1.0], [0.5, 1.0], [1.0, 2.0]]))
    np.testing.assert_allclose(own.ys[2], 2 * np.exp([-0.5, -1.0]), rtol=1e-14)


def test_new_numbers_never_recompile():
    traces = []

    def counted(t, y, args):
        traces.append(1)
        return -args * y

    rng = np.random.default_rng(0)
    sizes = []
    for rtol in (1e-6, 1e-7, 1e-5):
        ensemble(
            counted, rng.random(20), rng.random(20), np.sort(rng.random(5)), rtol=rtol, max_steps=int(1e9 * rtol) + 100
        )
        sizes.append(len(traces))
    assert sizes[0] > 0 and sizes[0] == sizes[1] == sizes[2]


def test_float32(float32):
    problem = PROBLEMS[1]
    result = ensemble(problem.flow, np.full(5, problem.w0), problem.args, problem.ts, rtol=3e-6)
    assert result.ys.dtype == jnp.float32 and (np.asarray(result.status) == Status.ok).all()
    np.testing.assert_allclose(result.ys[3], problem.w, rtol=5e-3)


def test_convergence_order_of_the_lane_stepper():
    # work against error over tolerances: a fifth-order method gains a factor 10^5 for ten times the steps
    errors, steps = [], []
    for rtol in (1e-5, 1e-7, 1e-9, 1e-11):
        result = ensemble(oscillator, np.array([[1.0, 0.0]]), 1.0, [30.0], rtol=rtol, atol=rtol)
        errors.append(np.abs(result.ys[0, 0] - np.array([np.cos(30), -np.sin(30)])).max())
        steps.append(int(result.steps[0]))
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert 4.5 < order < 6.5


def test_lane_interpolant_has_fourth_order():
    tableau = import_module("jepa_dyn.solve.tableau").TSIT5
    # the published coefficients have ten digits or more
    # order conditions of the continuous method: sum b_i(theta) c_i^(q-1) = theta^q / q
    nodes, theta = np.concatenate([[0.0], tableau.c]), 0.37
    weights = sum(row * theta ** (j + 1) for j, row in enumerate(tableau.dense))
    for q in range(1, 5):
        np.testing.assert_allclose(weights @ nodes ** (q - 1), theta**q / q, rtol=0, atol=1e-10)
    full = np.append(tableau.a[-1], 0.0)
    np.testing.assert_allclose(tableau.dense.sum(axis=0), full, atol=1e-9)


def test_lanes_agree_with_diffrax():
    w0, args = mixed(16, seed=3)
    options = {"rtol": 1e-10, "atol": 1e-14, "coordinate": "log"}
    lanes = ensemble(flows.mae, w0, args, TS, **options)
    other = ensemble(flows.mae, w0, args, TS, stepper="diffrax", **options)
    np.testing.assert_allclose(lanes.ys, other.ys, rtol=1e-7)


ARGS = mode_parameters(np.array([1.0, 2.0]), 0.5, 2.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y0": np.ones(3)}, "same number of lanes"),
        ({"ts": np.ones((3, 1))}, "same number of lanes"),
        ({"ts": np.ones((2, 1, 1))}, r"\(T,\) or \(lanes, T\)"),
        ({"ts": [2.0, 1.0]}, "strictly increasing"),
        ({"y0": np.array([np.nan, 0.1])}, r"`y0` must be finite, but 1 of 2 values are not, the first at index \(0,\)"),
        ({"y0": -0.1}, "`y0` must be >= 0"),
        ({"stepper": "vmap"}, "`stepper` must be one of"),
        ({"stepper": "lanes", "solver": "dopri8"}, "has Tsit5 only"),
        ({"sort_key": "pilots", "block_size": 1}, "Did you mean 'pilot'"),
        ({"sort_key": np.ones(3), "block_size": 1}, "`sort_key` must give shape"),
        ({"block_size": 0}, "`block_size`"),
        ({"max_steps": 0}, "`max_steps`"),
        ({"devices": ()}, "`devices`"),
        ({"rtol": 1e-17}, "`rtol` must be at least"),
    ],
)
def test_bad_input(change, words):
    call = {"system": flows.jepa, "y0": 0.1, "args": ARGS, "ts": TS} | change
    with pytest.raises(ValueError, match=words):
        ensemble(**call)


def test_settling_is_for_scalar_states():
    with pytest.raises(ValueError, match="`settle` must be False"):
        ensemble(oscillator, np.ones((2, 2)), 1.0, TS, settle=True)


@pytest.mark.parametrize("stepper", ["lanes", "diffrax"])
def test_a_flow_without_parameters(stepper):
    found = ensemble(_halving, np.array([1.0, 2.0, 3.0]), None, np.array([1.0]), stepper=stepper)
    np.testing.assert_allclose(found.ys[:, 0], np.exp(-1.0) * np.array([1.0, 2.0, 3.0]), rtol=1e-7)


def _halving(t, y, args):
    return -y
