"""Plain routes of `benchmarks.stepwise_kernels` at a tiny size (each run compares all of them); its rows and its table."""

import numpy as np

from benchmarks import stepwise_kernels


def test_routes_agree(monkeypatch):
    monkeypatch.setattr(stepwise_kernels, "WIDTH", 16)
    monkeypatch.setattr(stepwise_kernels, "_BLOCK", 2)
    model, x = stepwise_kernels.network("mlp"), np.random.default_rng(0).normal(size=(4, 3, 20, 20))
    found = [stepwise_kernels._tangent_kernel(route, model, x) for route in ("plain", "products")]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-10)
    points = np.random.default_rng(1).normal(size=(24, 3))
    gammas = [stepwise_kernels._learned(route, points, 1.0) for route in stepwise_kernels.EMBEDDING_ROUTES]
    for one in gammas[1:]:
        np.testing.assert_allclose(one, gammas[0], rtol=1e-8)


def test_rows_and_table(monkeypatch):
    """One row per route, each from a process of its own, and the large one without a gap."""
    answer = '{"seconds": 2.0, "first_s": 1.0, "growth_gb": 0.5, "compared": [[1.0, 2.0]]}'

    class Done:
        returncode, stdout, stderr = 0, f"noise\n{answer}\n", ""

    monkeypatch.setattr(stepwise_kernels.subprocess, "run", lambda *_, **__: Done())
    rows = stepwise_kernels.measure_tangent_kernels(1000, 100, cases=("mlp",))
    assert [(row["route"], row["pairs"], row["gap"]) for row in rows] == [
        ("plain", 100, 0.0), ("ours", 100, 0.0), ("blocks", 100, 0.0), ("products", 100, 0.0), ("ours", 1000, None),
    ]  # fmt: skip
    assert rows[-1]["ns_per_entry"] == 2e9 / 2000**2 and "compared" not in rows[0]
    assert stepwise_kernels.table(rows).count("\n") == 6
