"""View pairs for the tests of kernels, and what the linear model says about them."""

import numpy as np


def views(seed, pairs, m, noise=0.5):
    """Stacked points [X; X'] of correlated views."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(pairs, m)) * 2.0 ** -np.arange(m)
    return np.concatenate([x, x + noise * rng.normal(size=(pairs, m))])


def gamma_of(points):
    """Gamma (m, m) of the linear model, Simon 2023, (4)."""
    x, other = np.split(points, 2)
    return (x.T @ other + other.T @ x) / len(points)
