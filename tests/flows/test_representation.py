"""Non-contrastive dynamics at three levels - pairs of embeddings, modes, networks - against autodiff, scipy and one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jepa_dyn.flows import (
    RepresentationModes,
    RepresentationState,
    correlation_eigenvalues,
    mode_predictor,
    modes_of_network,
    representation,
    representation_arguments,
    representation_correlation,
    representation_error,
    representation_mode_arguments,
    representation_modes,
    representation_pair_arguments,
    representation_pairs,
    representation_predictor,
    representation_state,
    siamese,
    siamese_arguments,
    siamese_state,
    tangent_kernel,
)
from jepa_dyn.losses import TABLE_1, closed_form_predictor, representation_loss
from jepa_dyn.moments import (
    PairBatches,
    additive_noise_moments,
    moments_from_pairs,
    noisy_pairs,
    pair_sample,
    view_moments,
)
from jepa_dyn.solve import train
from jepa_dyn.status import Status

EUCLIDEAN = [name for name in TABLE_1 if name.startswith("euclidean")]
COSINE = [name for name in TABLE_1 if name.startswith("cosine")]
N, M, SIGMA = 5, 3, 0.5


def sample(n=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, N)) @ (np.eye(N) + 0.3 * rng.normal(size=(N, N)))
    return pair_sample(x, x + 0.4 * rng.normal(size=(n, N)))


def encoder(m=M, n=N, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(m, n)) / np.sqrt(n))


def network_loss(weights, args, predictor):
    """The loss as printed, as a function of the weights, W_P held."""

    def embed(x):
        z = x @ weights.T
        return jax.nn.relu(z) if args.relu else z

    return representation_loss(args.loss, embed(args.moments.x), embed(args.moments.y), predictor)


@pytest.mark.parametrize(
    ("name", "relu"),
    [(name, False) for name in TABLE_1]
    + [(name, True) for name in ("euclidean", "cosine_iso", "cosine_no_stop_gradient")],
)
def test_network_follows_the_gradient_of_the_loss(name, relu):
    args = representation_arguments(sample(), name, alpha=0.5, weight_decay=0.07, relu=relu)
    y = representation_state(encoder())
    z = np.maximum(args.moments.x @ y.encoder.T, 0 if relu else -np.inf)
    predictor = closed_form_predictor(z.T @ z / 40, 0.5)
    np.testing.assert_allclose(representation_correlation(y, args), z.T @ z / 40, atol=1e-13)
    slope = jax.grad(network_loss)(y.encoder, args, predictor)
    flow = representation(0.0, y, args)
    np.testing.assert_allclose(flow.encoder, -slope - 0.07 * y.encoder, atol=1e-13)


@pytest.mark.parametrize("name", TABLE_1)
def test_embeddings_move_as_those_of_the_network(name):
    """With K = X X^T / n the flow of the embeddings is that of the network, seen in its outputs, at every state."""
    pairs, loss, w = sample(), TABLE_1[name], encoder()
    args = representation_arguments(pairs, loss, alpha=0.5, weight_decay=0.07)
    speed = representation(0.0, representation_state(w), args).encoder
    own = representation_pair_arguments(tangent_kernel(pairs.x, pairs.y), loss, alpha=0.5, weight_decay=0.07)
    z = jnp.stack([pairs.x @ w.T, pairs.y @ w.T])
    np.testing.assert_allclose(
        representation_pairs(0.0, z, own), jnp.stack([pairs.x @ speed.T, pairs.y @ speed.T]), atol=1e-13
    )


def test_pairs_by_themselves_are_equations_8_and_10():
    """A kernel of one entry moves the first views alone, with D held fixed."""
    rng = np.random.default_rng(3)
    z, lam = rng.normal(size=(2, 4, M)), np.array([1.4, 0.6, 0.2])
    first, second = z
    held = {"predictor": np.diag(lam), "weight_decay": 0.0}
    kernel = np.array([[1.0, 0.0], [0.0, 0.0]])
    euclidean = representation_pair_arguments(kernel, TABLE_1["euclidean"], **held)
    speed = representation_pairs(0.0, jnp.asarray(z), euclidean)
    np.testing.assert_allclose(speed[0], lam * (second - lam * first), atol=1e-14)
    np.testing.assert_array_equal(speed[1], 0)
    cosine = representation_pair_arguments(kernel, TABLE_1["cosine"], **held)
    speed = representation_pairs(0.0, jnp.asarray(z), cosine)[0]
    for row in range(4):
        a, b = first[row], second[row]
        for m in range(M):
            total = sum(lam[k] * (lam[k] * a[k] ** 2 * b[m] - lam[m] * a[m] * a[k] * b[k]) for k in range(M) if k != m)
            want = lam[m] / (np.linalg.norm(lam * a) ** 3 * np.linalg.norm(b)) * total
            assert float(speed[row, m]) == pytest.approx(want, rel=1e-12, abs=1e-14)
    one = representation_pairs(0.0, jnp.asarray(z[:, :1]), cosine)
    np.testing.assert_allclose(one[0], speed[:1], atol=1e-14)


@pytest.mark.parametrize("name", EUCLIDEAN)
def test_moments_are_all_that_a_euclidean_loss_sees(name):
    pairs = sample()
    options = {"alpha": 0.5, "weight_decay": 0.07, "correlation": 2 * np.eye(N)}
    moments = moments_from_pairs(pairs.x, pairs.y, center=False)
    y = representation_state(encoder())
    by_pairs = representation(0.0, y, representation_arguments(pairs, TABLE_1[name], **options))
    by_moments = representation(0.0, y, representation_arguments(moments, TABLE_1[name], **options))
    np.testing.assert_allclose(by_pairs.encoder, by_moments.encoder, atol=1e-13)


@pytest.mark.parametrize("target", [False, True])
def test_trained_predictor_is_the_siamese_network(target):
    """Euclidean loss, W_P trained by gradient: `flows.siamese`, with its rates; from the sample and from its moments."""
    rng, pairs = np.random.default_rng(2), sample()
    moments = moments_from_pairs(pairs.x, pairs.y, center=False)
    w, predictor, other = encoder(), rng.normal(size=(M, M)), encoder(seed=9) if target else None
    rates = {"weight_decay": 0.05, "predictor_rate": 3.0, "ema_rate": 0.4}
    want = siamese(0.0, siamese_state(w, predictor, other), siamese_arguments(moments, **rates))
    for data in (pairs, moments):
        args = representation_arguments(data, TABLE_1["euclidean"], **rates)
        flow = representation(0.0, representation_state(w, predictor, other), args)
        np.testing.assert_allclose(flow.encoder, want.encoder, atol=1e-13)
        np.testing.assert_allclose(flow.predictor, want.predictor, atol=1e-13)
        if target:
            np.testing.assert_allclose(flow.target, want.target, atol=1e-13)


def population(name, *, sigma=SIGMA, covariance=None, **options):
    covariance = np.eye(N) if covariance is None else covariance
    moments = additive_noise_moments(covariance, sigma)
    if covariance is not None and np.any(covariance - np.diag(np.diag(covariance))):
        moments = view_moments((1 + sigma**2) * covariance, covariance)
    return representation_arguments(moments, TABLE_1[name], correlation=covariance, **options)


@pytest.mark.parametrize("name", TABLE_1)
def test_modes_are_the_network_on_isotropic_data(name):
    """At one state: the speed of W is U diag(speed of a) V^T; the eigenvalues of C_z move as `correlation_eigenvalues` says."""
    args = population(name, alpha=0.5, weight_decay=0.02)
    y = representation_state(encoder())
    modes, own, left, right = modes_of_network(y, args)
    flow, reduced = representation(0.0, y, args).encoder, representation_modes(0.0, modes, own).encoder
    np.testing.assert_allclose(left @ jnp.diag(reduced) @ right.T, flow, atol=1e-12)
    s = modes.encoder**2
    np.testing.assert_allclose(correlation_eigenvalues(0.0, s, own), 2 * modes.encoder * reduced, atol=1e-12)
    np.testing.assert_allclose(
        np.sort(mode_predictor(modes, own)), np.linalg.eigvalsh(representation_predictor(y, args)), atol=1e-12
    )


@pytest.mark.parametrize("name", COSINE)
def test_quadrature_is_the_mean_over_many_pairs(name):
    """The population gradient of the cosine rows on correlated data, within five standard errors of 6e4 Gaussian pairs."""
    root = np.eye(N) + 0.3 * np.random.default_rng(6).normal(size=(N, N))
    covariance = root @ root.T
    args = population(name, covariance=covariance, alpha=0.5)
    y = representation_state(encoder())
    rng = np.random.default_rng(7)
    clean, noise = (rng.normal(size=(2, 60_000, N))[0] @ root.T, SIGMA * rng.normal(size=(2, 60_000, N)) @ root.T)
    drawn = pair_sample(clean + noise[0], clean + noise[1])
    sampled = representation_arguments(drawn, TABLE_1[name], correlation=covariance, alpha=0.5)
    gap = representation(0.0, y, args).encoder - representation(0.0, y, sampled).encoder
    error = np.asarray(representation_error(y, sampled))
    assert (np.abs(gap) < 5 * error).all() and error.max() < 0.02
    assert 0.3 < np.sqrt(np.mean((gap / error) ** 2)) < 2


def path_of(speed, start, ts):
    """By DOP853; the flow's own speed at every call."""
    solved = solve_ivp(lambda t, z: np.asarray(speed(z)), (0, ts[-1]), start, "DOP853", ts, rtol=1e-8, atol=1e-10)
    assert solved.success
    return solved.y.T


def test_noise_shifts_the_limit():
    """Both views noisy: the Euclidean network rests at lambda = 1 / (1 + sigma^2) (print: 1), whatever alpha."""
    turn, _, rows = np.linalg.svd(encoder(), full_matrices=False)
    for name in ("euclidean", "euclidean_iso"):
        for alpha in (0.5, 1.0):
            weights = turn @ rows * (1 + SIGMA**2) ** (-0.5 / alpha)
            at_rest = representation(0.0, RepresentationState(jnp.asarray(weights)), population(name, alpha=alpha))
            np.testing.assert_allclose(at_rest.encoder, 0, atol=1e-14)


@pytest.mark.parametrize("name", COSINE)
def test_what_the_cosine_conserves(name):
    """tr C_z is constant but under IsoLoss, where it grows; without stop gradient the rank collapses at constant trace."""
    args = representation_mode_arguments(4, name, online=1.04, target=1.04, alpha=0.5)
    start = np.array([2.0, 1.0, 0.5, 0.3])
    field = jax.jit(correlation_eigenvalues)
    path = path_of(lambda s: field(0.0, jnp.asarray(s), args), start, np.array([0.0, 5.0, 60.0]))
    traces, last = np.sum(path, axis=1), path[-1]
    spread = last.max() / last.min()
    if name == "cosine_iso":
        assert (np.diff(traces) > 0.01).all()
    else:
        np.testing.assert_allclose(traces, traces[0], rtol=1e-7)
    if name == "cosine_no_stop_gradient":
        assert last.min() < 0.01 * last.max()
    elif name == "cosine_no_predictor":
        assert 1.5 < spread < start.max() / start.min()  # equal values, at rates of order sigma^2
    else:
        np.testing.assert_allclose(last, traces[-1] / 4, rtol=0.01)


@pytest.mark.parametrize("clean_online", [False, True])
def test_speeds_of_the_euclidean_rows(clean_online):
    """Table 1 with its noise. (12) vanishes at 1 without it: semi-stable. (13) is 0 only where the online view is clean."""
    s, both = np.array([0.3, 1.0, 2.2]), 0.0 if clean_online else SIGMA**2
    want = {
        "euclidean": s * (1 - (1 + both) * s),
        "euclidean_iso": 1 - (1 + both) * s,
        "euclidean_no_stop_gradient": -((1 - s) ** 2 + SIGMA**2 + both * s**2),
        "euclidean_no_predictor": -both * np.ones(3),
    }
    for name, rate in want.items():
        args = representation_mode_arguments(3, name, online=1 + both, target=1 + SIGMA**2)
        np.testing.assert_allclose(correlation_eigenvalues(0.0, jnp.asarray(s), args), 2 * s * rate, atol=1e-14)


def test_reduced_networks_with_target_and_estimate():
    """W' and the moving average of C_z begin in the vectors of W and stay in them: descent on modes is descent on the network."""
    args = population("euclidean", alpha=0.5, weight_decay=0.01, ema_rate=0.3, correlation_rate=0.5)
    w = encoder()
    y = representation_state(w, target=w, correlation=w @ w.T)
    modes, own, left, right = modes_of_network(y, args)
    whole = train(representation, y, args, [60], learning_rate=0.1).final
    small = train(representation_modes, modes, own, [60], learning_rate=0.1).final
    np.testing.assert_allclose(left @ jnp.diag(small.encoder) @ right.T, whole.encoder, atol=1e-12)
    np.testing.assert_allclose(left @ jnp.diag(small.target) @ right.T, whole.target, atol=1e-12)
    np.testing.assert_allclose(left @ jnp.diag(small.correlation) @ left.T, whole.correlation, atol=1e-12)
    assert np.abs(whole.target - whole.encoder).max() > 1e-3


def test_estimate_of_the_correlation_is_its_moving_average():
    """tau = 1 - h rho, of C_z before the step, as DirectPred keeps it; a plain loop of numpy."""
    pairs = sample()
    args = representation_arguments(pairs, TABLE_1["cosine"], alpha=1.0, correlation_rate=2.0)
    w = np.asarray(encoder())
    c = np.eye(M)
    final = train(representation, representation_state(w, correlation=c), args, [3], learning_rate=0.05).final
    for _ in range(3):
        z, other = pairs.x @ w.T, pairs.y @ w.T
        p = z @ c
        size, far = np.linalg.norm(p, axis=1, keepdims=True), np.linalg.norm(other, axis=1, keepdims=True)
        slope = -(other / far - np.sum(p * other, axis=1, keepdims=True) / (size**2 * far) * p) / size
        w, c = w - 0.05 * (slope @ c).T @ pairs.x / 40, 0.9 * c + 0.1 * z.T @ z / 40
    np.testing.assert_allclose(final.encoder, w, atol=1e-12)
    np.testing.assert_allclose(final.correlation, c, atol=1e-12)


def test_lanes_on_fresh_batches():
    """Many starts, one law, pairs drawn anew at every step: each lane is a plain loop. The pairs have the moments of the law."""
    law, source, key = additive_noise_moments(np.eye(N), SIGMA), PairBatches(40), jax.random.key(0)
    args = representation_arguments(law, "cosine_iso", drawn=True)
    starts = jnp.stack([encoder(seed=seed) for seed in range(2)])
    many = train(representation, RepresentationState(starts), args, [3], learning_rate=0.1, batches=source, key=key)
    assert (np.asarray(many.status) == Status.ok).all()
    for w, final in zip(starts, many.final.encoder, strict=True):
        for step in range(3):
            pairs = source.draw(jax.random.fold_in(key, step), source.prepare(law))
            now = representation_arguments(pairs, "cosine_iso")
            w = w + 0.1 * representation(0.0, RepresentationState(w), now).encoder
        np.testing.assert_allclose(final, w, rtol=1e-10)
    many_pairs = PairBatches(40_000)
    drawn = many_pairs.draw(key, many_pairs.prepare(law))
    np.testing.assert_allclose(drawn.y.T @ drawn.x / 40_000, law.yx, atol=5 * 1.4 / 200)
    np.testing.assert_allclose(drawn.y.T @ drawn.y / 40_000, law.yy, atol=5 * 1.8 / 200)


@pytest.mark.parametrize("name", TABLE_1)
def test_edges_stay_finite(name):
    """W = 0, rank one, one pair, no noise: defined, and zero stays zero. M > N in one row of each distance."""
    wide = [encoder(7, N)] if name in ("euclidean", "cosine_no_stop_gradient") else []
    rows = [representation_arguments(sample(1), name, alpha=0.5)]
    if name in COSINE:
        rows.append(population(name, sigma=0.0, alpha=0.5))
    for weights in (jnp.zeros((M, N)), jnp.outer(jnp.arange(1.0, 4.0), jnp.ones(N)), *wide):
        for args in rows:
            speed = np.asarray(representation(0.0, RepresentationState(weights), args).encoder)
            assert np.isfinite(speed).all() and (weights.any() or not speed.any())


@pytest.mark.parametrize("name", ["euclidean", "cosine"])
def test_alpha_zero_is_no_predictor(name):
    y, data = representation_state(encoder()), sample()
    flow = representation(0.0, y, representation_arguments(data, TABLE_1[name], alpha=0.0))
    plain = representation(0.0, y, representation_arguments(data, TABLE_1[f"{name}_no_predictor"]))
    np.testing.assert_allclose(flow.encoder, plain.encoder, atol=1e-13)


@pytest.mark.parametrize("name", TABLE_1)
def test_numbers_stay_of_the_type_that_they_are(name):
    """float32 in, float32 out, while x64 is on."""
    w = encoder().astype(jnp.float32)
    pairs = pair_sample(*(np.asarray(view, np.float32) for view in (sample().x, sample().y)))
    state = RepresentationState(w, target=w if TABLE_1[name].stop_gradient else None, correlation=w @ w.T)
    args = representation_arguments(pairs, name, alpha=0.5, ema_rate=0.1, correlation_rate=0.1)
    modes = representation_mode_arguments(M, name, online=np.ones(M, np.float32), alpha=0.5)
    z, own = jnp.stack([pairs.x @ w.T, pairs.y @ w.T]), representation_pair_arguments(np.eye(2, dtype=np.float32), name)
    for flow, y, arguments in (
        (representation, state, args),
        (representation_modes, RepresentationModes(w[:, 0]), modes),
        (correlation_eigenvalues, w[:, 0] ** 2, modes),
        (representation_pairs, z, own),
    ):
        speeds = jax.eval_shape(lambda y, a, flow=flow: flow(0.0, y, a), y, arguments)
        assert {leaf.dtype for leaf in jax.tree.leaves(speeds)} == {jnp.dtype(jnp.float32)}


def test_antithetic_noise_cancels_what_is_odd():
    drawn = noisy_pairs(jax.random.key(0), np.eye(N), 0.3, antithetic=True)
    np.testing.assert_allclose(drawn.x[:N] + drawn.x[N:], 2 * np.eye(N), atol=1e-15)
    clean = noisy_pairs(jax.random.key(0), np.eye(N), 0.3, clean_online=True)
    np.testing.assert_array_equal(clean.x, np.eye(N))
    assert np.abs(clean.y - np.eye(N)).max() > 0.1
    moments = additive_noise_moments(np.eye(2), 0.5, clean_online=True)
    np.testing.assert_allclose(
        np.stack([moments.xx, moments.yx, moments.yy]), np.array([1, 1, 1.25])[:, None, None] * np.eye(2)
    )


LAW = additive_noise_moments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: representation_arguments(sample(), TABLE_1["euclidean"], alpha=-1.0),
            "Argument `alpha` must be finite",
        ),
        (lambda: representation_arguments(sample(), TABLE_1["euclidean"], ema_rate=-1.0), "Argument `ema_rate`"),
        (lambda: representation_arguments(sample(), TABLE_1["euclidean"], nodes=3), "Argument `nodes`"),
        (
            lambda: representation_arguments(sample(), "cosin"),
            "Argument `loss` must be one of .* Did you mean 'cosine'",
        ),
        (lambda: representation_arguments(LAW(np.eye(2), 0.1), TABLE_1["cosine"], relu=True), "Argument `relu`"),
        (
            lambda: representation_arguments(LAW(np.diag([1.0, 2.0]), 0.1), TABLE_1["cosine"]),
            "must be multiples of one matrix under a cosine loss, but `yx`",
        ),
        (lambda: representation_state(np.eye(2), np.eye(2), correlation=np.eye(2)), "beside a trained `predictor`"),
        (lambda: representation_state(np.eye(2), target=np.eye(3)), "Argument `target` must have shape"),
        (lambda: representation_mode_arguments(2, TABLE_1["cosine"], cross=1.5), "cross\\^2 <= online target"),
        (lambda: representation_mode_arguments(0, TABLE_1["cosine"]), "Argument `num_modes`"),
        (lambda: representation_pair_arguments(np.eye(3), TABLE_1["cosine"]), "square matrix of even size"),
        (lambda: pair_sample(np.ones((2, 2)), np.ones((3, 2))), "with one n"),
        (lambda: additive_noise_moments(np.eye(2), -0.1), "Argument `sigma`"),
        (
            lambda: modes_of_network(
                representation_state(np.eye(2)), representation_arguments(sample(), TABLE_1["euclidean"])
            ),
            "a sample or ReLU has no modes",
        ),
        (
            lambda: representation(
                0.0, representation_state(encoder(), target=encoder()), population("euclidean_no_stop_gradient")
            ),
            "must have no target without stop gradient",
        ),
        (
            lambda: representation(0.0, representation_state(encoder(), target=encoder()), population("cosine")),
            "must hold an encoder only",
        ),
        (
            lambda: representation_modes(
                0.0,
                RepresentationModes(jnp.ones(2), predictor=jnp.ones(2)),
                representation_mode_arguments(2, TABLE_1["euclidean_iso"]),
            ),
            "must have no trained predictor",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
