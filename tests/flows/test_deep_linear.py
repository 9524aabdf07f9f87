"""Deep linear flows: autodiff, the scalar modes on the aligned start, conservation, padding, masks and the edges of the domain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jepa_dyn import flows, mode_parameters
from jepa_dyn.flows import (
    DeepLinearState,
    aligned_initialisation,
    deep_linear_arguments,
    deep_linear_state,
    encoder_matrix,
    gaussian_initialisation,
    layer_mask,
    target_matrix,
    with_target,
)
from jepa_dyn.metrics import imbalance, projections
from jepa_dyn.moments import moments_from_spectrum, view_moments
from jepa_dyn.solve import ensemble, integrate
from jepa_dyn.theory import modes

D, DEPTHS = 4, 5
LAM, RHO = np.array([1.0, 0.8, 0.5, 0.3]), np.array([0.5, 0.6, 0.8, 0.9])
FLOWS = {"jepa": flows.deep_jepa, "mae": flows.deep_mae}
LOSSES = {"jepa": flows.deep_jepa_loss, "mae": flows.deep_mae_loss}
KEY = jax.random.key(3)


def generic_moments(seed=0, d=D, d_y=D, rank=None):
    """Moments of random pairs: yx not symmetric, nothing commutes; of lower rank on request."""
    z = np.random.default_rng(seed).normal(size=(rank or 40, d + d_y))
    x, y = z[:, :d], z[:, d:] + z[:, :1] * 0.7
    y[:, : min(d, d_y)] += 0.5 * x[:, : min(d, d_y)]
    return view_moments(*(jnp.asarray(m) / len(z) for m in (x.T @ x, y.T @ x, y.T @ y)))


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("target", [False, True])
def test_hand_written_gradients_are_those_of_autodiff(objective, target):
    mask = jnp.array([True, False, True, True, False])
    args = deep_linear_arguments(
        generic_moments(), mask, weight_decay=0.3, encoder_rate=0.7, decoder_rate=1.3, ema_rate=0.4
    )
    y = gaussian_initialisation(KEY, mask, D)
    if target:
        y = DeepLinearState(y.layers, y.decoder, jax.random.normal(jax.random.key(8), y.layers.shape))
    speed = FLOWS[objective](0.0, y, args)
    gradient = jax.grad(LOSSES[objective])(y, args)
    on = mask[:, None, None]
    np.testing.assert_allclose(speed.layers, -0.7 * gradient.layers - jnp.where(on, 0.3 * y.layers, 0), atol=1e-13)
    np.testing.assert_allclose(speed.decoder, -1.3 * gradient.decoder - 0.3 * y.decoder, atol=1e-13)
    np.testing.assert_array_equal(speed.layers[1], 0)
    if target:
        np.testing.assert_allclose(speed.target, jnp.where(on, 0.4 * (y.layers - y.target), 0))
        assert not np.any(gradient.target)  # the target is stopped


def test_losses_are_means_over_pairs():
    """The moments' form of both losses against the residuals of the pairs themselves; views of unequal size for MAE."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    w, v = rng.normal(size=(3, 3)), rng.normal(size=(2, 3))
    moments = view_moments(x.T @ x / 30, y.T @ x / 30, y.T @ y / 30)
    value = flows.deep_mae_loss(deep_linear_state([w], v), deep_linear_arguments(moments, layer_mask(1)))
    np.testing.assert_allclose(value, 0.5 * ((x @ w.T @ v.T - y) ** 2).sum(1).mean(), rtol=1e-13)
    y, v = rng.normal(size=(30, 3)), rng.normal(size=(3, 3))
    moments = view_moments(x.T @ x / 30, y.T @ x / 30, y.T @ y / 30)
    value = flows.deep_jepa_loss(deep_linear_state([w], v), deep_linear_arguments(moments, layer_mask(1)))
    np.testing.assert_allclose(value, 0.5 * ((x @ w.T @ v.T - y @ w.T) ** 2).sum(1).mean(), rtol=1e-13)


def aligned_lanes(objective, moments, eps=0.1, **options):
    def one(depth):
        mask = layer_mask(depth, DEPTHS)
        start = aligned_initialisation(KEY, mask, D, eps=eps, objective=objective, **options)
        return start, deep_linear_arguments(moments, mask)

    return jax.jit(jax.vmap(one))(jnp.arange(1, DEPTHS + 1))


def lane_projections(result, basis=None):
    return projections(jax.jit(jax.vmap(jax.vmap(encoder_matrix, (0, None))))(result.ys, result.args), basis)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_aligned_start_follows_the_exact_modes_in_their_clock(objective):
    """Theorem 4.2 for L = 1..5 in one program, in a rotated basis, with t_mode = L t_flow.

    A second set of lanes has signs in the decoder, of the kind that assumption 4.1(3) as printed allows: features of sign -1
    are not learned but follow a' = -a^(2L) (lam + a variance) (JEPA), a' = -a^L (lam + a^(L+1) variance) (MAE), w = a^L.
    """
    basis, signs = flows.haar_orthogonal(jax.random.key(5), D), np.array([1.0, -1.0, 1.0, -1.0])
    moments = moments_from_spectrum(LAM, RHO, basis=basis)
    lanes = [aligned_lanes(objective, moments, **extra) for extra in ({}, {"signs": signs, "basis": basis})]
    y0, args = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *lanes)
    ts = np.linspace(0.0, 40.0, 9)
    result = ensemble(FLOWS[objective], y0, args, ts, rtol=1e-11, atol=1e-14, sort_key=None).raise_if_failed()
    assert result.time_unit == "the system's own time"  # gradient-flow time, not the modes' clock
    held = lane_projections(result, basis)
    depth = np.arange(1.0, DEPTHS + 1)[:, None, None]
    clock = modes.mode_time(ts[None, :, None], depth)
    mode = mode_parameters(LAM, RHO, depth)
    expected = modes.state(objective, clock, 0.1, mode)
    np.testing.assert_allclose(held[:DEPTHS], expected, rtol=1e-8)
    # the clock matters: in flow time the deeper nets are far off
    wrong = modes.state(objective, np.broadcast_to(ts[None, :, None], clock.shape), 0.1, mode)
    assert np.max(np.abs(np.asarray(expected / wrong)[1:] - 1)) > 0.5
    early = slice(0, 5)  # the same instability grows in the features beside those of sign -1
    np.testing.assert_allclose(held[DEPTHS:, early, ::2], expected[:, early, ::2], rtol=1e-7)
    for L in range(1, DEPTHS + 1):
        for i in (1, 3):
            variance, power = LAM[i] / RHO[i], (2 * L, 1) if objective == "jepa" else (L, L + 1)
            solved = solve_ivp(
                lambda t, a, lam=LAM[i], v=variance, p=power: -(a ** p[0]) * (lam + a ** p[1] * v),
                (0, 40), [0.1 ** (1 / L)], "DOP853", ts, rtol=1e-12, atol=1e-14,
            )  # fmt: skip
            exact = solved.y[0] ** L
            seen = exact > 1e-7  # below (MAE, L = 1) rounding breaks the symmetry and the mode escapes
            assert seen.sum() >= 4
            np.testing.assert_allclose(held[DEPTHS + L - 1, seen, i], exact[seen], rtol=1e-5)


def test_weight_decay_is_that_of_the_modes():
    y0, args = aligned_lanes("jepa", moments_from_spectrum(LAM, RHO), eps=0.3)
    lane = jax.tree.map(lambda leaf: leaf[2], (y0, args))
    args = deep_linear_arguments(lane[1].moments, lane[1].layer_mask, weight_decay=0.01)
    result = integrate(flows.deep_jepa, lane[0], args, [10.0], rtol=1e-10).raise_if_failed()
    mode = mode_parameters(LAM, RHO, 3.0, weight_decay=0.01)
    one = jax.jit(jax.vmap(lambda own: integrate(flows.jepa, 0.3, own, jnp.array([30.0]), rtol=1e-10).ys[0]))
    expected = one(mode.broadcast())
    final = jax.tree.map(lambda leaf: leaf[-1], result.ys)
    np.testing.assert_allclose(projections(encoder_matrix(final, args)), expected, rtol=1e-7)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_the_flow_conserves_the_imbalance(objective):
    """Lemma B.1 for generic moments, start and mask; with weight decay the imbalance shrinks as e^(-2 kappa t)."""
    mask = jnp.array([True, True, False, True])
    y0 = gaussian_initialisation(KEY, mask, D)
    for decay in (0.0, 0.2):
        args = deep_linear_arguments(generic_moments(), mask, weight_decay=decay)
        solved = integrate(FLOWS[objective], y0, args, [2.0], rtol=1e-11, atol=1e-13).raise_if_failed()
        before, after = imbalance(y0, args), imbalance(jax.tree.map(lambda leaf: leaf[0], solved.ys), args)
        assert np.abs(before).max() > 0.5
        np.testing.assert_allclose(after, before * np.exp(-4 * decay), atol=1e-9)


def test_masked_layers_and_padding_do_not_matter():
    """The same net as (3, 2) matrices, with masked layers full of numbers in between, and padded wider."""
    rng = np.random.default_rng(2)
    moments = generic_moments(d=3, d_y=3)
    first, second, v = rng.normal(size=(2, 3)), rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    plain = deep_linear_state([first, second], v)
    assert plain.layers.shape == (2, 3, 3)
    wide = jnp.pad(plain.layers, ((0, 0), (0, 2), (0, 2)))
    noise = jnp.full((5, 5), 7.0)
    padded = DeepLinearState(jnp.stack([wide[0], noise, wide[1]]), jnp.pad(plain.decoder, ((0, 2), (0, 2))))
    args = deep_linear_arguments(moments, layer_mask(2))
    args_wide = deep_linear_arguments(moments, jnp.array([True, False, True]))
    a, b = flows.deep_jepa(0.0, plain, args), flows.deep_jepa(0.0, padded, args_wide)
    np.testing.assert_allclose(b.layers[0][:3, :3], a.layers[0], rtol=1e-13)
    np.testing.assert_allclose(b.layers[2][:3, :3], a.layers[1], rtol=1e-13)
    np.testing.assert_array_equal(b.layers[1], 0)
    np.testing.assert_array_equal(b.layers[0][2:], 0)  # units that do not exist stay away
    np.testing.assert_array_equal(b.decoder[2:], 0)
    w = np.asarray(second @ first)
    np.testing.assert_allclose(encoder_matrix(padded, args_wide)[:2], w, rtol=1e-13)
    np.testing.assert_allclose(-a.decoder[:2, :2], (v @ w @ moments.xx - w @ moments.yx) @ w.T, rtol=1e-12)


def test_all_layers_off_is_linear_regression():
    """The encoder is the identity: the decoder goes to the regression of y on x, in JEPA as in MAE; the layers rest."""
    args = deep_linear_arguments(generic_moments(), layer_mask(0, 2))
    y0 = gaussian_initialisation(KEY, args.layer_mask, D)
    final = integrate(flows.deep_jepa, y0, args, [200.0], rtol=1e-10).raise_if_failed().ys
    np.testing.assert_allclose(final.decoder[0] @ args.moments.xx, args.moments.yx, atol=1e-8)
    np.testing.assert_array_equal(final.layers[0], y0.layers)
    jepa, mae = (flow(0.0, y0, args).decoder for flow in FLOWS.values())
    np.testing.assert_allclose(jepa, mae, atol=1e-14)
    assert int(args.depth) == 0


def test_one_dimension_one_layer():
    moments = moments_from_spectrum(0.5, 0.8)
    args = deep_linear_arguments(moments, layer_mask(1))
    y = deep_linear_state([np.full((1, 1), 0.3)], np.full((1, 1), 0.3))
    speed = flows.deep_jepa(0.0, y, args)
    expected = flows.jepa(0.0, jnp.asarray(0.3), mode_parameters(0.5, 0.8, 1.0))
    np.testing.assert_allclose([speed.layers[0, 0, 0], speed.decoder[0, 0]], expected, rtol=1e-13)


def test_features_without_covariance_or_variance():
    """lam = 0 decays as the exact mode; a direction without variance has no gradient through its own column."""
    lam, variance = np.array([1.0, 0.0, 0.0, 0.4]), np.array([1.5, 1.2, 0.0, 0.5])
    mask = layer_mask(2)
    args = deep_linear_arguments(moments_from_spectrum(lam, variance=variance), mask)
    y0 = aligned_initialisation(KEY, mask, D, eps=0.3, objective="jepa")
    final = integrate(flows.deep_jepa, y0, args, [6.0], rtol=1e-11, atol=1e-14).raise_if_failed().ys
    held = projections(encoder_matrix(jax.tree.map(lambda leaf: leaf[0], final), args))
    decayed = 0.3 / np.sqrt(1 + 2 * variance[1] * 0.3**2 * 12.0)  # dw/dt = -variance w^3 in the mode clock, t = 2 * 6
    np.testing.assert_allclose(held[1], decayed, rtol=1e-8)
    np.testing.assert_allclose(held[2], 0.3, rtol=1e-12)


def test_rank_deficient_generic_moments_give_a_finite_flow():
    moments = generic_moments(seed=4, rank=3)
    assert np.linalg.matrix_rank(moments.xx) == 3
    args = deep_linear_arguments(moments, layer_mask(2))
    y0 = gaussian_initialisation(KEY, args.layer_mask, D)
    null = jnp.asarray(np.linalg.svd(moments.xx)[2][-1])
    final = integrate(flows.deep_mae, y0, args, [300.0], rtol=1e-9).raise_if_failed().ys
    first = final.layers[0, 0]
    np.testing.assert_allclose(first @ null, y0.layers[0] @ null, atol=1e-9)  # what the data never shows does not move
    last = jax.tree.map(lambda leaf: leaf[0], final)
    np.testing.assert_allclose(last.decoder @ encoder_matrix(last, args) @ moments.xx, moments.yx, atol=1e-4)


def test_a_fast_moving_average_is_the_stopped_gradient():
    moments = generic_moments()
    mask = layer_mask(2)
    y0 = gaussian_initialisation(KEY, mask, D, gain=0.8)
    plain = integrate(flows.deep_jepa, y0, deep_linear_arguments(moments, mask), [1.0], rtol=1e-9).ys
    gaps = []
    for rate in (200.0, 400.0):
        args = deep_linear_arguments(moments, mask, ema_rate=rate)
        moved = integrate(flows.deep_jepa, with_target(y0), args, [1.0], rtol=1e-9).ys
        gaps.append(float(jnp.abs(moved.layers - plain.layers).max()))
    assert gaps[0] < 2e-2
    np.testing.assert_allclose(gaps[0] / gaps[1], 2.0, rtol=0.05)  # first order in 1 / rate
    moved = DeepLinearState(y0.layers, y0.decoder, 2 * y0.layers)
    args = deep_linear_arguments(moments, mask)
    np.testing.assert_allclose(target_matrix(moved, args), 4 * encoder_matrix(y0, args))
    np.testing.assert_allclose(target_matrix(y0, args), encoder_matrix(y0, args))


def unequal_views():
    return deep_linear_arguments(generic_moments(d_y=3), layer_mask(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: layer_mask(3, 2), "`depth` must be a whole number between 0 and `max_depth` = 2"),
        (lambda m: layer_mask(1.5, 2), "`depth` must be a whole number"),
        (lambda m: layer_mask(np.array([1, 2])), "`max_depth` must be given"),
        (lambda m: layer_mask(np.array([1, 2]), 2), "`depth` must be one number"),
        (lambda m: deep_linear_arguments(m, np.array([1.0])), "`layer_mask` must be booleans"),
        (lambda m: deep_linear_arguments(m, layer_mask(1), weight_decay=-1.0), "`weight_decay` must be finite and >= 0"),
        (lambda m: deep_linear_arguments(m, layer_mask(1), ema_rate=np.ones(1)), "`ema_rate` must be one number"),
        (lambda m: deep_linear_state([np.eye(2), np.ones((2, 3))], np.eye(2)), r"`layers\[1\]` must have 2 columns"),
        (lambda m: deep_linear_state([np.eye(2)], np.ones((2, 3))), "`decoder` must have 2 columns"),
        (lambda m: deep_linear_state(np.eye(2), np.eye(2)), r"`layers\[0\]` must be a matrix"),
        (lambda m: deep_linear_state([np.eye(2) * np.nan], np.eye(2)), r"`layers\[0\]` must be finite"),
        (lambda m: deep_linear_state([np.eye(2)], np.eye(2), max_depth=0), "`max_depth` must be at least"),
        (
            lambda m: flows.deep_jepa(0.0, deep_linear_state([np.eye(4)], np.eye(4)), unequal_views()),
            "views of equal size",
        ),
        (
            lambda m: flows.deep_mae(0.0, deep_linear_state([np.eye(2)], np.eye(2)), deep_linear_arguments(m, layer_mask(1))),
            "does not fit the width 2",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(generic_moments())
