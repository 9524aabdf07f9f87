"""The mode flows: hand values, fixed points, and every coordinate held to the chain rule by autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_dyn import ModeParameters, flows, mode_parameters
from jepa_dyn.flows.layer_modes import depth_power
from jepa_dyn.flows.log_modes import logit_from_w, w_from_logit

FLOWS = {"jepa": flows.jepa, "mae": flows.mae}
LOG = {"jepa": flows.jepa_log, "mae": flows.mae_log}
LOGIT = {"jepa": flows.jepa_logit, "mae": flows.mae_logit}
LAYER = {"jepa": flows.jepa_layer, "mae": flows.mae_layer}
ORDER = {"jepa": flows.jepa_order, "mae": flows.mae_order}


def close(a, b, rtol=1e-12, atol=0.0):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def test_values_by_hand():
    args = mode_parameters(2.0, variance=3.0, depth=2.0, weight_decay=0.5)
    w = 0.25  # w^(5/2) = 1/32, w^(3/2) = 1/8, w^3 = 1/64
    close(flows.jepa(0.0, jnp.asarray(w), args), 2 / 32 - 3 / 64 - 0.125)
    close(flows.mae(0.0, jnp.asarray(w), args), 2 / 8 - 3 / 64 - 0.125)


@pytest.mark.parametrize("name", FLOWS)
def test_fixed_point_of_eq_9(name):
    rho, depth = 0.7, 3.0
    args = mode_parameters(1.3, rho, depth)
    fixed = rho**depth if name == "jepa" else rho ** (depth / (depth + 1))
    close(FLOWS[name](0.0, jnp.asarray(fixed), args), 0.0, atol=1e-15)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("depth", [0.2, 1 / 3, 0.4, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("lam", [-1.0, 0.0, 1.0])
def test_zero_stays_and_its_derivative_is_finite(name, depth, lam):
    args = mode_parameters(lam, variance=1.0, depth=depth)
    assert float(FLOWS[name](0.0, jnp.asarray(0.0), args)) == 0.0
    assert np.isfinite(jax.grad(lambda w: FLOWS[name](0.0, w, args))(0.0))


@pytest.mark.parametrize("name", FLOWS)
def test_nan_is_not_masked_and_below_zero_is_absorbed(name):
    args = mode_parameters(1.0, 0.5, 2.0)
    assert np.isnan(FLOWS[name](0.0, jnp.asarray(jnp.nan), args))
    assert float(FLOWS[name](0.0, jnp.asarray(-1e-9), args)) == 0.0
    bad = ModeParameters(jnp.asarray(jnp.nan), *(jnp.asarray(1.0),) * 3)
    assert np.isnan(FLOWS[name](0.0, jnp.asarray(0.1), bad))


@pytest.mark.parametrize("name", FLOWS)
@settings(max_examples=60, deadline=None)
@given(
    log_w=st.floats(-20, 2),
    lam=st.floats(-3, 3),
    variance=st.floats(0, 5),
    depth=st.floats(0.3, 30),
    decay=st.floats(0, 2),
)
def test_log_is_the_chain_rule(name, log_w, lam, variance, depth, decay):
    args = mode_parameters(lam, variance=variance, depth=depth, weight_decay=decay)
    w = jnp.exp(jnp.asarray(log_w))
    speed = FLOWS[name](0.0, w, args)
    _, expected = jax.jvp(jnp.log, (w,), (speed,))
    scale = abs(lam) * w ** (2 - ORDER[name](args)) + variance * w**2 + decay
    # tiny: dw/dt itself may underflow, where d log w / dt does not
    close(LOG[name](0.0, jnp.log(w), args), expected, rtol=1e-9, atol=1e-12 * float(scale) + 1e-290)


@pytest.mark.parametrize("name", FLOWS)
@settings(max_examples=60, deadline=None)
@given(share=st.floats(1e-3, 0.999), lam=st.floats(0.01, 10), rho=st.floats(0.05, 3), depth=st.floats(0.3, 20))
def test_logit_is_the_chain_rule(name, share, lam, rho, depth):
    args = mode_parameters(lam, rho, depth)
    order = ORDER[name](args)
    w = (rho * jnp.asarray(share)) ** (1 / order)
    z, expected = jax.jvp(lambda w: logit_from_w(w, order, args), (w,), (FLOWS[name](0.0, w, args),))
    close(LOGIT[name](0.0, z, args), expected, rtol=1e-9)
    close(w_from_logit(z, order, args), w, rtol=1e-10)
    # the normal form: dz/dt = k y^n
    n = 2 / order - 1
    close(LOGIT[name](0.0, z, args), order * lam * rho**n * share**n, rtol=1e-9)


@pytest.mark.parametrize("name", FLOWS)
@settings(max_examples=60, deadline=None)
@given(
    v=st.floats(0.01, 1.5),
    lam=st.floats(-3, 3),
    variance=st.floats(0, 5),
    depth=st.integers(1, 31),
    decay=st.floats(0, 2),
)
def test_layer_is_the_chain_rule(name, v, lam, variance, depth, decay):
    args = mode_parameters(lam, variance=variance, depth=float(depth), weight_decay=decay)
    ready = flows.layer_parameters(args, 5)
    w, v = jnp.asarray(v) ** depth, jnp.asarray(v)
    _, expected = jax.jvp(lambda w: w ** (1 / depth), (w,), (FLOWS[name](0.0, w, args),))
    terms = lam * w ** (3 - ORDER[name](args)), variance * w**3, decay * w
    scale = float(sum(abs(term) for term in terms) * v / w)
    # 1e-250: with lam below about 1e-180 the terms in w underflow where those in v do not
    close(LAYER[name](0.0, v, ready), expected, rtol=1e-9, atol=1e-11 * scale + 1e-250)


def test_layer_psi_form_of_eq_71():
    lam, rho, depth, psi = 1.3, 0.7, 4.0, 0.6
    ready = flows.layer_parameters(mode_parameters(lam, rho, depth), 3)
    k = lam * rho ** (2 * depth - 1) / depth
    close(flows.jepa_layer(0.0, jnp.asarray(rho * psi), ready) / rho, k * psi ** (2 * depth) * (1 - psi))


def test_powers_by_squaring_of_mixed_depths():
    depths = jnp.arange(1.0, 16.0)
    bits = flows.layer_parameters(mode_parameters(1.0, 0.5, depths), 4).bits
    close(depth_power(jnp.full(15, 0.9), bits), 0.9 ** np.arange(1, 16), rtol=1e-14)


@pytest.mark.parametrize("depth", [0.5, 2.5, 8.0])
def test_depth_that_the_layer_form_cannot_hold_is_nan(depth):
    ready = flows.layer_parameters(mode_parameters(1.0, 0.5, depth), 3)
    assert np.isnan(flows.jepa_layer(0.0, jnp.asarray(0.5), ready))


@pytest.mark.parametrize("name", FLOWS)
def test_logit_far_out_neither_overflows_nor_underflows(name):
    args = mode_parameters(1.0, 1e-6, 30.0)  # rho^n alone underflows for JEPA
    value = LOGIT[name](0.0, jnp.asarray([-50.0, 0.0, 800.0]), args)
    assert np.isfinite(value).all()
    plateau = mode_parameters(1.0, 1e8, 25.0)
    z = jnp.asarray(-18.0)
    n = 49.0 if name == "jepa" else 24 / 26
    expected = np.exp(np.log(float(ORDER[name](plateau))) + n * (np.log(1e8) - np.log1p(np.exp(18.0))))
    close(LOGIT[name](0.0, z, plateau), expected, rtol=1e-10)


@pytest.mark.parametrize("name", FLOWS)
def test_batch_equals_one_by_one_and_dtype_follows(name):
    w = jnp.asarray([0.1, 0.2, 0.3], jnp.float32)
    args = mode_parameters(
        jnp.asarray([1.0, -1.0, 2.0], jnp.float32), variance=jnp.float32(1.0), depth=jnp.float32(2.0)
    )
    together = FLOWS[name](0.0, w, args)
    assert together.dtype == jnp.float32
    single = [FLOWS[name](0.0, w[i], ModeParameters(args.lam[i], *jax.tree.leaves(args)[1:])) for i in range(3)]
    close(together, single, rtol=1e-6)
