"""What traced programs are made of, and which of them threads may run at once."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn import _programs
from jepa_dyn._programs import bears_threads, bytes_computed, operations
from jepa_dyn.solve.ensemble import ensemble
from jepa_dyn.sweep import Grid
from jepa_dyn.sweep.kernel import MappedKernel

SQUARE = jnp.eye(4)


def _deep(matrix):
    """An eigendecomposition in one branch of a condition in a loop in a compiled, mapped program."""

    def body(_, x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x + jnp.linalg.eigvalsh(x)[0], lambda x: x, x)

    return jax.vmap(jax.jit(lambda x: jax.lax.fori_loop(0, 3, body, x)))(matrix[None])


def _solves(matrix):
    return jnp.linalg.solve(matrix, matrix) + jnp.linalg.qr(matrix)[0]


def _jaxpr(function):
    return jax.make_jaxpr(function)(SQUARE).jaxpr


@pytest.fixture
def affected(monkeypatch):
    monkeypatch.setattr(_programs, "_MENDED_IN", (99, 0))


def test_operations_of_inner_programs_are_found():
    names = {one.primitive.name for one in operations(_jaxpr(_deep))}
    assert "eigh" in names and not names & {"while", "scan", "cond", "jit", "pjit"}


@pytest.mark.parametrize("function", [_deep, jnp.linalg.pinv, lambda x: jnp.linalg.norm(x, 2)])
def test_spectra_are_not_for_threads_where_jaxlib_may_hang(function, affected, monkeypatch):
    assert not bears_threads(_jaxpr(function))
    monkeypatch.setattr(_programs, "_MENDED_IN", (0, 1))
    assert bears_threads(_jaxpr(function))


def test_other_factorisations_are(affected):
    assert bears_threads(_jaxpr(_solves)) and bears_threads(_jaxpr(jnp.linalg.cholesky))


def test_bytes_are_those_of_every_result():
    def two(x):
        return jax.jit(lambda x: jnp.sin(x) + x)(x)

    assert bytes_computed(_jaxpr(two)) == 2 * SQUARE.nbytes


def test_sweeps_of_spectra_run_on_one_thread(affected):
    grid = Grid(a=np.linspace(0, 1, 8))
    assert MappedKernel(lambda a: {"v": jnp.linalg.eigvalsh(a * SQUARE)[0]}, grid, threads=2).threads == 1
    assert MappedKernel(lambda a: {"v": jnp.sin(a)}, grid, threads=2).threads == 2


def test_ensembles_of_flows_with_spectra_run_on_one_thread(affected, monkeypatch):
    from jepa_dyn.solve import _devices

    pools = []
    real = _devices.ThreadPoolExecutor
    monkeypatch.setattr(_devices, "ThreadPoolExecutor", lambda workers: pools.append(workers) or real(workers))

    def spectral(t, y, args):
        return -args * jnp.linalg.eigvalsh(y * SQUARE)[0]

    def plain(t, y, args):
        return -args * y

    starts = np.linspace(0.5, 1.0, 64)
    ends = []
    for flow, threads in ((spectral, 0), (plain, 1)):
        found = ensemble(flow, starts, 1.0, [1.0], threads=2, block_size=16, coordinate=None, sort_key=None)
        ends.append(np.asarray(found.ys)[:, 0])
        assert len(pools) == threads
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-4)  # one flow written twice, float32


@pytest.mark.slow
def test_training_with_spectra_on_threads_ends():
    """With jaxlib 0.10.2 two threads of it waited for each other for ever, at the first call."""
    code = (
        "import numpy as np\n"
        "from benchmarks.training_networks_routes import make_problem, tracked\n"
        "print(tracked(make_problem('small perceptron'), np.arange(64), 2000).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.startswith("(64,")
