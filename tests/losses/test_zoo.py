"""The loss zoo against plain numpy: values, gradients by finite differences, collapse, edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jepa_dyn.losses import (
    LOSSES,
    KeyQueue,
    byol_loss,
    contrastive_limit_loss,
    enqueue,
    info_nce_loss,
    jepa_loss,
    key_queue,
    mae_loss,
    moco_loss,
    mutual_information_bound,
    nt_xent_loss,
    simsiam_loss,
    standardised_barlow_twins_loss,
    symmetrised,
    uniformity_loss,
    vicreg_loss,
    zoo_loss,
)

N, D, K = 4, 3, 5
HIDDEN = np.arange(N * D).reshape(N, D) % 3 > 0
WEIGHTS = np.array([0.5, 2.0])


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def picked(scores, positive, tau):
    """-log softmax of the positive, row by row, as the definition has it."""
    return np.mean(
        [-np.log(np.exp(p / tau) / sum(np.exp(s / tau) for s in row)) for row, p in zip(scores, positive, strict=True)]
    )


def nt_xent(a, b, tau=0.5):
    rows, n = unit(np.concatenate([a, b])), len(a)
    scores = [[rows[i] @ rows[k] for k in range(2 * n) if k != i] for i in range(2 * n)]
    return picked(scores, [rows[i] @ rows[(i + n) % (2 * n)] for i in range(2 * n)], tau)


def vicreg(a, b, lam=25.0, mu=25.0, nu=1.0, gamma=1.0, eps=1e-4, branches=2):
    total = lam * np.mean(np.sum((a - b) ** 2, axis=1))
    for z in (a, b)[:branches]:
        c = np.cov(z.T, ddof=1)
        total += mu / D * sum(max(0, gamma - np.sqrt(np.var(z[:, j], ddof=1) + eps)) for j in range(D))
        total += nu / D * sum(c[i, j] ** 2 for i in range(D) for j in range(D) if i != j)
    return total


def off_identity(c, weight):
    return sum((c[i, j] - 1) ** 2 if i == j else weight * c[i, j] ** 2 for i in range(D) for j in range(D))


def standardised(a, b, weight=5e-3, centred=True, eps=1e-5):
    a, b = ((z - z.mean(0) if centred else z) for z in (a, b))
    sizes = np.sqrt((a**2).mean(0) + eps), np.sqrt((b**2).mean(0) + eps)
    return off_identity(
        np.array([[np.mean(a[:, i] * b[:, j]) / sizes[0][i] / sizes[1][j] for j in range(D)] for i in range(D)]), weight
    )


def uniformity(z, t=2.0):
    z = unit(z)
    return np.log(np.mean([np.exp(-t * np.sum((z[i] - z[j]) ** 2)) for i in range(len(z)) for j in range(i)]))


def alignment(a, b, power=2.0):
    return np.mean(np.linalg.norm(unit(a) - unit(b), axis=1) ** power)


def contrastive_limit(a, b, tau=1.0):
    spread = [np.log(np.mean([np.exp(-np.sum((x - y) ** 2) / (2 * tau)) for y in unit(b)])) for x in unit(a)]
    return alignment(a, b) / (2 * tau) + np.mean(spread)


def moco(q, k, queue, tau=0.07):
    q, k, queue = unit(q), unit(k), unit(queue)
    positive = np.sum(q * k, axis=1)
    return picked([[p, *(queue @ row)] for p, row in zip(positive, q, strict=True)], positive, tau)


def cosine(p, q):
    return np.mean(np.sum(unit(p) * unit(q), axis=-1))


PLAIN = {
    "invariance": (lambda a, b: np.mean(np.sum((a - b) ** 2, axis=1)), {}),
    "alignment": (lambda a, b: alignment(a, b, 3.0), {"power": 3.0}),
    "alignment_uniformity": (
        lambda a, b: 0.7 * alignment(a, b) + 0.3 * (uniformity(a, 1.5) + uniformity(b, 1.5)) / 2,
        {"alignment_weight": 0.7, "uniformity_weight": 0.3, "sharpness": 1.5},
    ),
    "contrastive_limit": (lambda a, b: contrastive_limit(a, b, 0.4), {"temperature": 0.4}),
    "info_nce": (lambda a, b: picked(a @ b.T, np.sum(a * b, 1), 0.8), {"temperature": 0.8}),
    "nt_xent": (nt_xent, {}),
    "vicreg": (vicreg, {}),
    "barlow_twins": (lambda a, b: off_identity((a.T @ b + b.T @ a) / (2 * N), 0.3), {"off_diagonal_weight": 0.3}),
    "standardised_barlow_twins": (standardised, {}),
    "moco": (moco, {}),
    "byol": (lambda p, q: 2 - 2 * cosine(p, q), {}),
    "simsiam": (lambda p, q: -cosine(p, q), {}),
    "jepa": (
        lambda p, q: sum(w * np.mean(np.sum((x - y) ** 2, -1)) for w, x, y in zip(WEIGHTS, p, q, strict=True)),
        {"weights": WEIGHTS},
    ),
    "mae": (lambda p, q: np.mean((p - q)[HIDDEN] ** 2), {"hidden": jnp.asarray(HIDDEN)}),
}
FIXED_TARGET = ("moco", "byol", "simsiam", "jepa", "mae")


def arrays(name, seed=0):
    """What the loss takes, in numpy: (differentiated, other, rest)."""
    rng = np.random.default_rng(seed)
    a, b, q = rng.normal(size=(N, D)), rng.normal(size=(N, D)), rng.normal(size=(K, D))
    if LOSSES[name].inputs == "queue":
        return a, a + 0.5 * b, (q,)
    if LOSSES[name].inputs == "scales":
        return np.stack([a, b]), np.stack([b, a + 0.3]), ()
    return a, a + 0.5 * b, ()


def called(name, **options):
    """The loss of arrays alone, the queue as an array."""
    loss = zoo_loss(name, **options)
    return lambda a, b, *rest: loss(a, b, *(KeyQueue(q, jnp.asarray(len(q))) for q in rest))


def slope(function, x, h=1e-5):
    """Central differences of a numpy function."""
    found = np.zeros(x.shape)
    for i in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[i] = h
        found[i] = (function(x + step) - function(x - step)) / (2 * h)
    return found


@pytest.fixture(scope="module")
def programs():
    return {name: jax.jit(jax.value_and_grad(called(name, **options), (0, 1))) for name, (_, options) in PLAIN.items()}


def test_every_loss_has_a_formula_here():
    assert set(PLAIN) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradients_are_those_of_the_formula(name, programs):
    plain, (a, b, rest) = PLAIN[name][0], arrays(name)
    value, (by_first, by_second) = programs[name](a, b, *rest)
    np.testing.assert_allclose(value, plain(a, b, *rest), rtol=1e-13)
    # central differences at 1e-5: error about 1e-10 of the third derivative
    np.testing.assert_allclose(by_first, slope(lambda x: plain(x, b, *rest), a), rtol=1e-7, atol=1e-7)
    if name in FIXED_TARGET:
        assert not np.any(by_second)
    else:
        np.testing.assert_allclose(by_second, slope(lambda x: plain(a, x, *rest), b), rtol=1e-7, atol=1e-7)


AT_COLLAPSE = {
    "info_nce": np.log(N), "nt_xent": np.log(2 * N - 1), "moco": np.log(K + 1), "vicreg": 2 * 25 * 0.99, "simsiam": -1.0,
    "standardised_barlow_twins": D,
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "barlow_twins"])
def test_complete_collapse_is_stationary(name, programs):
    """Exactly so along an axis, where no rounding mixes the dimensions, and at 0; up to rounding for any vector."""
    a, b, rest = arrays(name)
    for c in (np.array([2.0, 0.0, 0.0]), np.array([0.3, -1.2, 0.7]), np.zeros(D)):
        value, slopes = programs[name](c + 0 * a, c + 0 * b, *(c + 0 * q for q in rest))
        expected = 0.0 if name == "simsiam" and not c.any() else AT_COLLAPSE.get(name, 0.0)
        np.testing.assert_allclose(value, expected, rtol=1e-14, atol=1e-15)
        assert max(np.abs(s).max() for s in slopes) <= (1e-15 if c.all() else 0.0)


def test_barlow_twins_at_collapse(programs):
    """Without centring C = c c^T: the gradient vanishes at zeros alone; divided by the norms the value is weight d (d - 1)."""
    a, b, _ = arrays("barlow_twins")
    value, slopes = programs["barlow_twins"](0 * a, 0 * b)
    assert value == D and not np.any(slopes[0])
    assert np.abs(programs["barlow_twins"](0 * a + 2, 0 * b + 2)[1][0]).max() > 1
    c = np.array([0.5, -1.5, 2.0]) + 0 * a
    found = standardised_barlow_twins_loss(jnp.asarray(c), jnp.asarray(c), centred=False, eps=1e-20)
    np.testing.assert_allclose(found, 5e-3 * D * (D - 1), rtol=1e-13)


def test_collapse_is_unstable_where_rows_repel(programs):
    """Stationary, but the loss falls in every direction that keeps pairs together: no minimum."""
    rng = np.random.default_rng(1)
    move = 1e-3 * rng.normal(size=(N, D))
    c = np.array([0.3, -1.2, 0.7]) + move
    for name in ("info_nce", "nt_xent", "vicreg", "alignment_uniformity", "contrastive_limit"):
        collapsed = 0.0 if name in ("alignment_uniformity", "contrastive_limit") else AT_COLLAPSE[name]
        assert programs[name](c, c)[0] < collapsed - 1e-8


TEMPERED = jax.jit(jax.value_and_grad(lambda a, b, tau: info_nce_loss(a, b, temperature=tau)))
TEMPERED_NT_XENT = jax.jit(jax.value_and_grad(lambda a, b, tau: nt_xent_loss(a, b, temperature=tau)))


@pytest.mark.parametrize("tau", [1e-30, 1e-3, 1e3, 1e30])
def test_temperatures_far_from_one(tau):
    """tau -> 0: the gap to the best candidate over tau; tau -> infinity: the logarithm of the number of candidates."""
    a, b, _ = arrays("info_nce")
    scores = a @ b.T
    gap = np.mean(scores.max(1) - np.diag(scores)) / tau
    value, by_first = TEMPERED(a, b, tau)
    np.testing.assert_allclose(value, gap if tau < 1 else np.log(N), rtol=1e-2 if tau == 1e-3 else 3e-3)
    assert np.all(np.isfinite(by_first))
    found, by_first = TEMPERED_NT_XENT(a, b, tau)
    assert np.isfinite(found) and (tau < 1 or abs(found - np.log(2 * N - 1)) < 3 / tau + 1e-14)
    assert np.all(np.isfinite(by_first))


def several(names, a, b):
    """Values and gradients by the first view of several losses, in one program."""
    slopes = {name: jax.value_and_grad(called(name)) for name in names}
    return jax.jit(lambda a, b: {name: slope(a, b) for name, slope in slopes.items()})(a, b)


def test_a_batch_of_one_has_no_negatives():
    one, other = np.array([[1.0, 2.0, -1.0]]), np.array([[0.5, 2.0, 0.0]])
    found = several(("info_nce", "nt_xent", "standardised_barlow_twins"), one, other)
    for name, (value, by_first) in found.items():
        assert value == (D if name == "standardised_barlow_twins" else 0) and not np.any(by_first)
    for loss in (vicreg_loss, lambda x, _: uniformity_loss(x)):
        with pytest.raises(ValueError, match="a batch of at least 2"):
            loss(jnp.asarray(one), jnp.asarray(other))


def test_embeddings_wider_than_the_batch():
    """Values of the definitions, and nothing NaN: the covariance is singular."""
    a, b = np.random.default_rng(2).normal(size=(2, 2, 7))
    found = several(("vicreg", "standardised_barlow_twins", "nt_xent"), a, b)
    assert all(np.isfinite(value) and np.all(np.isfinite(by_first)) for value, by_first in found.values())
    np.testing.assert_allclose(found["nt_xent"][0], nt_xent(a, b), rtol=1e-13)


@pytest.mark.parametrize("name", ["nt_xent", "moco", "byol", "simsiam", "alignment_uniformity"])
def test_rows_of_zeros_under_a_cosine(name, programs):
    """Similarity 0 to all, no gradient; huge and tiny rows neither overflow nor vanish."""
    a, b, rest = arrays(name)
    sizes = np.logspace(-200, 200, N)[:, None]
    value = programs[name](a, b, *rest)[0]
    np.testing.assert_allclose(programs[name](a * sizes, b / sizes, *rest)[0], value, rtol=1e-13)
    a[0] = 0
    value, (by_first, by_second) = programs[name](a, b, *rest)
    assert np.isfinite(value) and not np.any(by_first[0])
    assert np.all(np.isfinite(by_first)) and np.all(np.isfinite(by_second))
    if name == "byol":
        np.testing.assert_allclose(value, (1 + (N - 1) * (2 - 2 * cosine(a[1:], b[1:]))) / N, rtol=1e-13)


def test_queue_is_first_in_first_out():
    keys = jnp.arange(10.0).reshape(5, 2)
    queue = key_queue(3, 2)
    assert queue.filled == 0 and queue.keys.shape == (3, 2)
    queue = enqueue(queue, keys[:2])
    np.testing.assert_array_equal(queue.keys, [*keys[:2], [0, 0]])
    assert queue.filled == 2
    after = enqueue(queue, keys[2:4])
    np.testing.assert_array_equal(after.keys, [keys[2], keys[3], keys[0]])
    assert after.filled == 3 and queue.filled == 2
    np.testing.assert_array_equal(enqueue(queue, keys).keys, keys[:3])  # a batch larger than the queue


def test_only_what_the_queue_holds_is_a_candidate():
    q, k, (rest,) = arrays("moco")
    slope_by_query = jax.jit(jax.value_and_grad(moco_loss))
    queue = KeyQueue(jnp.zeros((9, D)), jnp.asarray(0))
    for empty in (queue, key_queue(0, D)):
        value, by_query = slope_by_query(q, k, empty)
        assert value == 0 and not np.any(by_query)
    filled = KeyQueue(queue.keys.at[:K].set(rest), jnp.asarray(K))
    np.testing.assert_allclose(slope_by_query(q, k, filled)[0], moco(q, k, rest), rtol=1e-13)
    assert enqueue(key_queue(0, D), jnp.asarray(k)).filled == 0


def test_no_gradient_passes_the_queue():
    q, k, rest = (jnp.asarray(v) for v in (*arrays("moco")[:2], arrays("moco")[2][0]))
    by_queue = jax.jit(jax.grad(lambda keys: moco_loss(q, k, enqueue(KeyQueue(keys, jnp.asarray(K)), keys))))(rest)
    assert not np.any(by_queue)


@pytest.mark.parametrize("name", ["byol", "jepa"])
def test_without_stop_gradient_the_target_is_pulled_too(name):
    """They are symmetric in prediction and target but for the stop gradient, which one function of the module applies."""
    a, b, _ = arrays(name)
    plain = PLAIN[name]
    held = called(name, **plain[1], stop_gradient=False)
    found = jax.grad(held, 1)(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(found, slope(lambda x: plain[0](a, x), b), rtol=1e-7, atol=1e-7)


def test_both_directions():
    a, b, _ = (jnp.asarray(v) for v in (*arrays("byol")[:2], 0))
    c, e = 2 * a + b, a - b
    expected = (2 - 2 * cosine(a, e)) + (2 - 2 * cosine(b, c))
    np.testing.assert_allclose(symmetrised(byol_loss, (a, b), (c, e)), expected, rtol=1e-13)
    weight = LOSSES["simsiam"].direction_weight
    np.testing.assert_allclose(symmetrised(simsiam_loss, (a, b), (c, e), weight=weight), expected / 4 - 1, rtol=1e-12)


def test_jepa_scales_may_differ_and_mae_may_hide_nothing():
    rng = np.random.default_rng(3)
    sizes = [(4, 2), (4, 6, 3), (4, 1, 5)]
    p, q = ([jnp.asarray(rng.normal(size=size)) for size in sizes] for _ in range(2))
    np.testing.assert_allclose(
        jepa_loss(p, q), sum(np.mean(np.sum((x - y) ** 2, -1)) for x, y in zip(p, q, strict=True)), rtol=1e-13
    )
    value, by_image = jax.value_and_grad(mae_loss)(p[0], q[0], hidden=jnp.zeros((4, 1), bool))
    assert value == 0 and not np.any(by_image)


def test_mutual_information_bound_holds_and_tightens():
    """All (context, candidates) of a table p(x, c) enumerated, with the optimal critic p(x|c) / p(x)."""
    table = np.array([[0.4, 0.1], [0.05, 0.45]])
    px, pc = table.sum(1), table.sum(0)
    information = np.sum(table * np.log(table / np.outer(px, pc)))
    critic = table / np.outer(px, pc)
    bounds = []
    for n in (1, 2, 4, 16, 64):
        loss = 0.0
        for x, c in np.ndindex(2, 2):
            ones = np.arange(n)  # how many of the n - 1 negatives are x = 1
            weights = stats.binom.pmf(ones, n - 1, px[1])
            sums = critic[x, c] + ones * critic[1, c] + (n - 1 - ones) * critic[0, c]
            loss += table[x, c] * np.sum(weights * -np.log(critic[x, c] / sums))
        bounds.append(float(mutual_information_bound(loss, n)))
    assert abs(bounds[0]) < 1e-15 and np.all(np.diff(bounds) > 0) and bounds[-1] < information < bounds[-1] + 0.02
    np.testing.assert_allclose(mutual_information_bound(0.0, 7), np.log(7))


def test_contrastive_limit_is_the_limit_of_many_negatives():
    """One anchor, negatives drawn from two points: the mean over all draws of K is a sum over a binomial law."""
    anchor, positive, points = np.array([[1.0, 0.0]]), np.array([[0.8, 0.6]]), np.array([[0.0, 1.0], [-0.6, 0.8]])
    tau = 0.3
    limit = float(contrastive_limit_loss(*(jnp.asarray(v) for v in (anchor, positive, points)), temperature=tau))
    gaps = []
    for k in (500, 1000, 2000):
        firsts = np.arange(k + 1)
        total = (
            np.exp(anchor @ positive.T / tau)
            + firsts * np.exp(anchor @ points[0] / tau)
            + (k - firsts) * np.exp(anchor @ points[1] / tau)
        )
        losses = np.log(total[0]) - anchor[0] @ positive[0] / tau - np.log(k)
        gaps.append(np.sum(stats.binom.pmf(firsts, k, 0.5) * losses) - limit)
    assert abs(2 * gaps[2] - gaps[1]) < 0.02 * gaps[2]
    np.testing.assert_allclose([gaps[0] / gaps[1], gaps[1] / gaps[2]], 2.0, rtol=2e-2)  # error of order 1 / K
    a, b, _ = (jnp.asarray(v) for v in (*arrays("info_nce")[:2], 0))
    whole = info_nce_loss(a, b, temperature=tau, normalise=True) - np.log(N)
    np.testing.assert_allclose(contrastive_limit_loss(a, b, temperature=tau), whole, rtol=1e-12)


def test_variants_of_vicreg():
    a, b, _ = (jnp.asarray(v) for v in (*arrays("vicreg")[:2], 0))
    found = vicreg_loss(
        a, b, invariance_weight=1.0, variance_weight=2.0, covariance_weight=3.0, target_std=1.4, branches=1
    )
    np.testing.assert_allclose(found, vicreg(np.asarray(a), np.asarray(b), 1.0, 2.0, 3.0, 1.4, branches=1), rtol=1e-13)


@pytest.mark.parametrize("name", ["vicreg"])
def test_losses_keep_float32_and_map_over_seeds(name):
    a, b, _ = arrays(name)
    lanes = (jnp.asarray(np.stack(pair), jnp.float32) for pair in ((a, b), (b, a)))
    found = jax.jit(jax.vmap(called(name)))(*lanes)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [PLAIN[name][0](a, b), PLAIN[name][0](b, a)], rtol=3e-6)


A = jnp.ones((4, 3))
BAD = [
    (lambda: info_nce_loss(A, A[:2]), r"one shape \(batch, dim\).*\(4, 3\) and \(2, 3\)"),
    (lambda: nt_xent_loss(A[:0], A[:0]), "a batch of at least 1"),
    (lambda: nt_xent_loss(A, A, temperature=0.0), "`temperature` must be finite and > 0"),
    (lambda: byol_loss(A, A.T), r"`prediction` and `target` must have one shape"),
    (lambda: vicreg_loss(A, A, eps=0.0), "`eps`"),
    (lambda: vicreg_loss(A, A, branches=3), "`branches` must be 1 or 2, but is 3"),
    (lambda: vicreg_loss(A, A, covariance_weight=-1.0), "`covariance_weight`"),
    (lambda: moco_loss(A, A, key_queue(2, 4)), "`queue` must hold keys of dim 3, but has dim 4"),
    (lambda: enqueue(key_queue(2, 4), A), r"`keys` must have shape \(batch, 4\)"),
    (lambda: key_queue(-1, 4), "`size` must be a whole number >= 0"),
    (lambda: jepa_loss([A], [A, A]), "equally many, at least one, but are 1 and 2"),
    (lambda: jepa_loss([], []), "at least one"),
    (lambda: jepa_loss([A], [A], weights=WEIGHTS), r"`weights` must have shape \(1,\)"),
    (lambda: mae_loss(A, A, hidden=jnp.ones((5, 3), bool)), r"`hidden` must broadcast to shape \(4, 3\)"),
    (lambda: contrastive_limit_loss(A, A, A.T), r"`negatives` must have shape \(N, 3\)"),
    (lambda: mutual_information_bound(0.0, 0.5), "`num_candidates` must be a whole number"),
    (lambda: zoo_loss("simclr"), "must be one of"),
    (lambda: zoo_loss("nt_xent", temprature=1.0), "Did you mean 'temperature'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
