"""Every test runs in float64 unless it asks for `float32`, which is restored afterwards."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)


@pytest.fixture
def float32():
    """Runs the test with x64 off, as a user does who never turned it on."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)
