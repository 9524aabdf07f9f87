"""Tangent kernels of networks on image pairs and embeddings of many points through a kernel: time and memory.

Every route runs in a process of its own, whose peak memory is then its own: `seconds` is the second call, `first_s` what the first
took more (compilation), `growth_gb` by how much the process has grown over what it had before the first call, the result included.
`gap` is the largest difference from the plain route, relative to the largest entry: of the tangent kernel of the first inputs, of
the largest eigenvalues. Plain routes that would not fit run on fewer pairs; `ns per entry` is what compares.

    from benchmarks.stepwise_kernels import measure_embeddings, measure_tangent_kernels, table
"""

import json
import subprocess
import sys
from functools import partial
from time import perf_counter
from typing import Any

SIDE, WIDTH, OUTPUTS = 20, 2048, 10  # Simon 2023, appendix D.1
_COMPARED, _DIMENSION, _COMPONENTS = 8, 10, 20
_BLOCK = 50  # inputs, where a plain route goes block by block

TANGENT_ROUTES = {
    "plain": "jacrev of all inputs, one matmul",
    "ours": "jepa_dyn empirical_ntk",
    "blocks": "gradients of 50 by 50 inputs, matmul",
    "products": "vjp of 50 inputs, jvp of all, per block",
}
EMBEDDING_ROUTES = {
    "plain": "numpy: K~^(-1/2) Z K~^(-1/2), pseudo-inverse, as printed",
    "eigh": "jepa_dyn pair_spectrum, eigenvectors",
    "ours": "jepa_dyn pair_spectrum, as it chooses",
}


def network(kind: str) -> Any:
    """One hidden layer of 2048 ("mlp"), or two small convolutions and a readout ("conv")."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), 3)
    if kind == "mlp":
        return eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), eqx.nn.MLP(3 * SIDE**2, OUTPUTS, WIDTH, 1, key=keys[0])])
    relu = eqx.nn.Lambda(jax.nn.relu)
    return eqx.nn.Sequential([
        eqx.nn.Conv2d(3, 32, 3, 2, key=keys[0]), relu, eqx.nn.Conv2d(32, 64, 3, 2, key=keys[1]), relu,
        eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(64 * 16, OUTPUTS, key=keys[2]),
    ])  # fmt: skip


def _tangent_kernel(route: str, model: Any, x: Any) -> Any:
    """(2n, 2n) of the scaled mean of the outputs."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    from jepa_dyn import kernels

    if route == "ours":
        return kernels.empirical_ntk(model, x)
    leaves, fixed = eqx.partition(model, eqx.is_inexact_array)
    start, unflatten = ravel_pytree(leaves)

    def scalar(parameters: Any, one: Any) -> Any:
        return jnp.sum(eqx.combine(unflatten(parameters), fixed)(one)) / OUTPUTS**0.5

    if route == "plain":
        jacobian = jax.jit(lambda p: jax.jacrev(lambda q: jax.vmap(partial(scalar, q))(x))(p))(start)
        return jacobian @ jacobian.T
    gradients = jax.jit(jax.vmap(jax.grad(scalar), (None, 0)))
    parts = [x[k : k + _BLOCK] for k in range(0, len(x), _BLOCK)]
    if route == "blocks":
        across = jax.jit(lambda a, b: a @ b.T)
        rows = []
        for i, one in enumerate(parts):
            own = gradients(start, one)
            rows.append([across(own, gradients(start, other)) if j >= i else None for j, other in enumerate(parts)])
        return jnp.block(
            [[rows[i][j] if j >= i else rows[j][i].T for j in range(len(parts))] for i in range(len(parts))]
        )
    along = jax.jit(
        jax.vmap(lambda tangent: jax.jvp(lambda p: jax.vmap(partial(scalar, p))(x), (start,), (tangent,))[1])
    )
    return jnp.concatenate([along(gradients(start, one)) for one in parts]).T


def _learned(route: str, points: Any, length: float) -> Any:
    """The largest eigenvalues, on the way to the embeddings of all points in ten dimensions."""
    import numpy as np

    from jepa_dyn import kernels

    if route != "plain":
        method = "eigh" if route == "eigh" else "auto"
        spectrum = kernels.pair_spectrum(kernels.RBF(length)(points), _DIMENSION + 1, method=method)
        model = kernels.kernel_barlow_twins(spectrum, _DIMENSION, scale=1e-3)
        model.embed_training_points().block_until_ready()
        return model.motion.gammas
    squares = (points**2).sum(1)
    gram = np.exp((2 * points @ points.T - squares[:, None] - squares) / (2 * length**2))
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-15 * len(gram) * values[-1]
    inverse = (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T
    inner = inverse @ (gram @ np.roll(gram, len(gram) // 2, axis=0)) @ inverse / len(gram)
    gammas, b = np.linalg.eigh((inner + inner.T) / 2)
    gammas, b = gammas[::-1][:_DIMENSION], b[:, ::-1][:, :_DIMENSION]
    embedded = gram @ (inverse @ b) / np.sqrt(gammas)
    assert np.isfinite(embedded).all()
    return gammas


def _work(task: dict[str, Any]) -> dict[str, Any]:
    """What a worker process measures."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks.machine import peak_resident_bytes

    rng = np.random.default_rng(0)
    if task["what"] == "tangent kernel":
        model = network(task["case"])
        shared = rng.normal(size=(task["pairs"], 3, SIDE, SIDE))
        x = jnp.asarray(np.concatenate([shared + rng.normal(size=shared.shape) for _ in range(2)]), jnp.float32)
        call = partial(_tangent_kernel, task["route"], model, x)
    else:
        jax.config.update("jax_enable_x64", True)
        shared = rng.normal(size=(task["pairs"], _COMPONENTS)) * 2.0 ** -(np.arange(_COMPONENTS) / 2)
        points = np.concatenate([shared + 0.1 * rng.normal(size=shared.shape) for _ in range(2)])
        call = partial(_learned, task["route"], points, task["case"])
    jax.block_until_ready(jnp.ones(2) @ jnp.ones(2))
    before, seconds = peak_resident_bytes(), []
    for _ in range(2):
        start = perf_counter()
        result = jax.block_until_ready(call())
        seconds.append(perf_counter() - start)
    growth = peak_resident_bytes() - before
    compared = np.asarray(result)[:_COMPARED, :_COMPARED] if np.ndim(result) == 2 else np.asarray(result)
    return {
        "seconds": seconds[1], "first_s": seconds[0] - seconds[1], "growth_gb": growth / 1e9, "compared": compared.tolist()
    }  # fmt: skip


def _rows(what: str, case: Any, routes: dict[str, str], pairs: dict[str, int]) -> list[dict[str, Any]]:
    """One row per route, each measured in its own process, compared with the first."""
    import numpy as np

    rows: list[dict[str, Any]] = []
    for route, describe in routes.items():
        task = {"what": what, "case": case, "route": route, "pairs": pairs[route]}
        print(f"{what}, {case}, {route}, {task['pairs']} pairs", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.stepwise_kernels", json.dumps(task)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        rows.append(task | {"describe": describe} | json.loads(done.stdout.splitlines()[-1]))
    for row in rows:
        row["ns_per_entry"] = 1e9 * row["seconds"] / (2 * row["pairs"]) ** 2
    for row in rows:
        base, own = (np.asarray(one["compared"]) for one in (rows[0], row))
        row["gap"] = float(np.abs(own - base).max() / np.abs(base).max())
    for row in rows:
        del row["compared"]
    return rows


def measure_tangent_kernels(
    pairs: int = 1000,
    plain_pairs: int = 100,
    cases: tuple[str, ...] = ("mlp", "conv"),
    routes: tuple[str, ...] | None = None,
) -> list[dict[str, Any]]:
    """Tangent kernels of both networks on image pairs; all but ours on `plain_pairs` of them, which is what fits.

    The inputs compared are the same whatever the number of pairs only where all routes have the same: `gap` is taken there.
    """
    chosen = {name: TANGENT_ROUTES[name] for name in routes or TANGENT_ROUTES}
    rows = []
    for case in cases:
        rows += _rows("tangent kernel", case, chosen, dict.fromkeys(chosen, plain_pairs))
        if "ours" in chosen and pairs != plain_pairs:
            rows += [
                {**row, "gap": None} for row in _rows("tangent kernel", case, {"ours": chosen["ours"]}, {"ours": pairs})
            ]
    return rows


def measure_embeddings(
    points: int = 5000, lengths: tuple[float, ...] = (1.0, 3.0), routes: tuple[str, ...] | None = None
) -> list[dict[str, Any]]:
    """Embeddings in 10 dimensions through Gaussian kernels of several lengths, float64."""
    chosen = {name: EMBEDDING_ROUTES[name] for name in routes or EMBEDDING_ROUTES}
    return [row for length in lengths for row in _rows("embedding", length, chosen, dict.fromkeys(chosen, points // 2))]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| route | case | pairs | s | ns per entry | first s | growth GB | gap |", "|---|---|" + "---:|" * 6]
    for row in rows:
        gap = "" if row["gap"] is None else f"{row['gap']:.1e}"
        lines.append(
            f"| {row['describe']} | {row['case']} | {row['pairs']:,} | {row['seconds']:.3g} | {row['ns_per_entry']:.3g} "
            f"| {row['first_s']:.2f} | {row['growth_gb']:.2f} | {gap} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))
