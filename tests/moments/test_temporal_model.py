import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn.moments import (
    feature_spectrum,
    moments_from_batches,
    sample_temporal_frames,
    temporal_model,
    temporal_moments,
    temporal_pair_batches,
    temporal_spectrum,
)

IMAGES = np.array([[2.0, -1.0, 1.0, 0, 0, 0, 0], [0, 0, 0, 1.0, 1.5, 0, 0]])
GAMMA, NOISE = np.array([0.6, 0.9]), np.array([1.0, 0.5])


@pytest.fixture
def model():
    return temporal_model(IMAGES, GAMMA, NOISE, background_noise=0.3)


def test_closed_form_features_are_those_of_the_moments(model):
    """(19), (140), (141) against a numerical diagonalisation of (138), (139)."""
    exact, general = temporal_spectrum(model), feature_spectrum(temporal_moments(model))
    energy = (IMAGES**2).sum(1)
    np.testing.assert_allclose(np.sort(exact.lam), np.sort(GAMMA * energy), rtol=1e-13)
    np.testing.assert_allclose(exact.lam, general.lam[:2], rtol=1e-12)
    np.testing.assert_allclose(exact.rho, general.rho[:2], rtol=1e-12)
    np.testing.assert_allclose(exact.basis, general.basis[:, :2], atol=1e-12)
    np.testing.assert_array_equal(general.lam[2:], 0)
    assert float(general.defect.off_diagonal_xx) < 1e-14 and float(general.defect.commutator) < 1e-14
    assert exact.num_dropped == 5


def test_printed_noise_term_of_139_fails_and_the_corrected_one_holds(model):
    """The images are eigenvectors of both, but only the corrected form has the paper's own rho (141)."""
    total = (NOISE**2).sum()  # delta_ij delta_{a(i)a(j)} = delta_ij: every pixel gets the noise of all images
    printed = IMAGES.T @ IMAGES + total * np.eye(7)
    corrected = np.asarray(temporal_moments(model).xx)
    for a, image in enumerate(IMAGES):
        variance = [image @ xx @ image / (image @ image) for xx in (printed, corrected)]
        rho = GAMMA[a] * (image @ image) / (NOISE[a] ** 2 + image @ image)
        wrong, right = (GAMMA[a] * (image @ image) / v for v in variance)
        assert abs(wrong / rho - 1) > 0.02
        assert abs(right / rho - 1) < 1e-14
    pixel_noise = np.diag(corrected) - (IMAGES**2).sum(0)
    np.testing.assert_allclose(pixel_noise, [1, 1, 1, 0.25, 0.25, 0.09, 0.09], rtol=1e-12)


def test_moments_of_samples_approach_the_closed_form():
    fast = temporal_model(IMAGES, np.array([0.6, -0.4]), NOISE, background_noise=0.3)
    sampled = moments_from_batches(temporal_pair_batches(fast, jax.random.key(0), 60_000))
    exact = temporal_moments(fast)
    # standard error of a second moment: sqrt(2 variance products / samples), times the correlation time (1+g^2)/(1-g^2)
    error = 6 * np.sqrt(2 * 2.2 / 60_000) * float(exact.xx.max())
    for name in ("xx", "yx", "yy"):
        np.testing.assert_allclose(getattr(sampled, name), getattr(exact, name), atol=error)
    assert error < 0.3


def test_printed_139_is_refuted_by_the_samples(model):
    sampled = moments_from_batches(temporal_pair_batches(model, jax.random.key(1), 20_000))
    background = np.diag(sampled.xx)[5:]
    np.testing.assert_allclose(background, 0.09, rtol=0.1)  # printed: 0.09 is nowhere, every pixel has 1.25


def test_flicker_is_stationary_from_the_first_frame():
    """(137) starts at u(1) ~ N(0, 1); over many stretches the variance is the same in every frame."""
    model = temporal_model(np.eye(1), 0.9, 0.0)
    frames = jax.vmap(lambda key: sample_temporal_frames(model, key, 6)[:, 0])(
        jax.random.split(jax.random.key(3), 20_000)
    )
    np.testing.assert_allclose(np.var(frames, axis=0), 1, atol=0.06)
    lagged = np.mean(np.asarray(frames[:, :-1] * frames[:, 1:]), axis=0)
    np.testing.assert_allclose(lagged, 0.9, atol=0.06)


def test_frames_do_not_depend_on_length_or_batches(model):
    key = jax.random.key(7)
    frames = np.asarray(sample_temporal_frames(model, key, 24))
    np.testing.assert_array_equal(sample_temporal_frames(model, key, 10), frames[:10])
    for batch_size in (1, 2, 5, 7, 23, 24, 100):
        batches = list(temporal_pair_batches(model, key, 23, batch_size=batch_size))
        x, y = (np.concatenate([np.asarray(b[i]) for b in batches]) for i in (0, 1))
        np.testing.assert_allclose(x, frames[:-1], atol=1e-14)
        np.testing.assert_allclose(y, frames[1:], atol=1e-14)
    assert not np.allclose(sample_temporal_frames(model, jax.random.key(8), 24), frames)


def test_is_differentiable_and_vmappable():
    def rho(gamma):
        return temporal_spectrum(temporal_model(jnp.asarray(IMAGES), gamma, NOISE)).rho.sum()

    energy = (IMAGES**2).sum(1)
    np.testing.assert_allclose(jax.grad(rho)(jnp.asarray(GAMMA)), energy / (energy + NOISE**2), rtol=1e-13)
    assert jax.vmap(rho)(jnp.array([[0.1, 0.2], [0.3, 0.4]])).shape == (2,)


def test_float32(float32):
    model = temporal_model(IMAGES.astype(np.float32), GAMMA.astype(np.float32), 0.5)
    assert temporal_moments(model).xx.dtype == jnp.float32
    assert sample_temporal_frames(model, jax.random.key(0), 3).dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(images=np.ones(3)), "`images` must have shape"),
        (dict(images=np.zeros((0, 3))), "`images` must hold at least one value"),
        (dict(images=np.array([[1.0, np.nan], [0, 0]])), "`images` must be finite"),
        (dict(images=np.array([[1.0, 0, 0], [0, 0, 0]])), "no image that is 0 everywhere, but image 1 is"),
        (dict(images=np.array([[1.0, 1, 0], [0, 1, 1]])), r"disjoint.* pixel 1 belongs to images \[0, 1\]"),
        (dict(autocorrelation=np.array([0.5, 1.0])), "`autocorrelation` must lie strictly between -1 and 1"),
        (dict(autocorrelation=np.array([np.nan, 0.5])), "`autocorrelation` must lie strictly"),
        (dict(autocorrelation=np.ones(3) / 2), r"`autocorrelation` must have shape \(2,\)"),
        (dict(noise=np.array([-0.1, 1])), "`noise` must be finite and >= 0"),
        (dict(background_noise=-1.0), "`background_noise` must be finite and >= 0"),
        (dict(background_noise=np.ones(2)), "`background_noise` must be a scalar"),
    ],
)
def test_bad_models_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        temporal_model(**(dict(images=IMAGES, autocorrelation=GAMMA, noise=NOISE) | change))


def test_bad_counts_are_refused_at_once(model):
    with pytest.raises(ValueError, match="`num_frames` must be at least 1"):
        sample_temporal_frames(model, jax.random.key(0), 0)
    with pytest.raises(ValueError, match="`num_pairs` must be at least 1"):
        temporal_pair_batches(model, jax.random.key(0), 0)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        temporal_pair_batches(model, jax.random.key(0), 5, batch_size=0)
