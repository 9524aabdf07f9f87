"""Every test runs in float64 unless it asks for `float32`, which is restored afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)

# drawn anew on a developer's machine; CI of one commit always says the same
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

_OLDER_EMITTERS = "--xla_cpu_use_fusion_emitters=false"


def _compile_quickly():
    """Asks XLA for its older code generator on CPUs: the suite mostly compiles, and this one takes two thirds of the time.

    A flag that XLA does not know stops the process (from JAX 0.12 on), so another process tries it first. Workers and
    notebooks inherit it.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _OLDER_EMITTERS not in flags:
        with_it = os.environ | {"XLA_FLAGS": f"{flags} {_OLDER_EMITTERS}".strip()}
        tried = [sys.executable, "-c", "import jax; jax.devices()"]
        if subprocess.run(tried, env=with_it, capture_output=True).returncode == 0:
            os.environ.update(with_it)


_compile_quickly()


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
