"""Every test runs in float64 unless it asks for `float32`, which is restored afterwards."""

from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)


@pytest.fixture
def float32():
    """Runs the test with x64 off, as a user does who never turned it on."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.fixture(autouse=True, scope="module")
def few_compiled_programs():
    """Forgets compiled programs when many have piled up: each holds memory mappings, of which Linux grants 65530."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
