"""Every test runs in float64 unless it asks for `float32`, which is restored afterwards."""

import importlib.util
import mmap
import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)

_OLDER_EMITTERS = "--xla_cpu_use_fusion_emitters=false"


def _compile_quickly():
    """Asks XLA for its older code generator on CPUs: the suite mostly compiles, and this one takes two thirds of the time.

    A flag that XLA does not know stops the process, so the library is searched for it. Workers and notebooks inherit it.
    """
    spec = importlib.util.find_spec("jaxlib")
    library = Path(spec.origin).parent / "libjax_common.so" if spec and spec.origin else None
    if library is None or not library.exists() or _OLDER_EMITTERS in os.environ.get("XLA_FLAGS", ""):
        return
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_OLDER_EMITTERS[2:].removesuffix("=false").encode()) >= 0:
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_OLDER_EMITTERS}".strip()


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
