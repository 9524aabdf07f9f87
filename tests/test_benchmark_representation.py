"""The benchmark of non-contrastive losses at a tiny size: loops against the library's gradients, rows, reports, targets."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import representation
from benchmarks import representation_routes as routes
from jepa_dyn.losses import TABLE_1, representation_loss


@pytest.mark.parametrize("name", TABLE_1)
def test_gradients_by_hand_are_those_of_the_loss(name):
    rng = np.random.default_rng(0)
    w, x, y = rng.normal(size=(3, 4)), rng.normal(size=(6, 4)), rng.normal(size=(6, 4))

    def loss(w):
        predictor = jax.lax.stop_gradient(w @ w.T) if TABLE_1[name].predictor else None
        return representation_loss(TABLE_1[name], x @ w.T, y @ w.T, predictor)

    np.testing.assert_allclose(routes._slope(name, w, x, y), jax.grad(loss)(jnp.asarray(w)), atol=1e-12)


@pytest.mark.parametrize("name", TABLE_1)
def test_torch_loss_has_the_gradient_of_the_loss(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    w, x, y = (torch.tensor(rng.normal(size=size)) for size in ((3, 4), (6, 4), (6, 4)))
    w.requires_grad_()
    routes._torch_loss(torch, name, x @ w.T, y @ w.T, w).backward()
    wanted = routes._slope(name, w.detach().numpy(), x.numpy(), y.numpy())
    np.testing.assert_allclose(w.grad.numpy(), wanted, atol=1e-12)


@pytest.mark.slow
def test_routes_agree(tmp_path):
    results = tmp_path / "RESULTS.md"
    options = ["--quick", "--runs", "4", "--loop-runs", "2", "--accuracy", "0.1", "--repeats", "1"]
    report = representation.main([*options, "--json", str(tmp_path / "out.json"), "--results", str(results)])
    rows = {(row["loss"], row["route"]): row for row in report["rows"]}
    assert {route for _, route in rows} >= {"numpy", "jax", "train", "ours"} and len({loss for loss, _ in rows}) == 2
    # the few runs of a loop scatter, more so with so small networks
    assert all(row["error"] < (0.3 if row["loop"] else 0.1) and row["rate"] > 0 for row in rows.values())
    assert all(row["error"] < 0.03 for row in rows.values() if row["route"] == "ours")
    text = results.read_text()
    assert text.count("## Non-contrastive losses\n") == 1 and str(tmp_path) not in text
    assert f"`python -m benchmarks.representation {' '.join(options)}`" in text
    assert json.loads((tmp_path / "out.json").read_text())["verdicts"] == []


def test_errors_and_settings():
    reference = np.ones((2, 3, 2))
    found = reference.copy()
    found[0, 1, 0], found[1, 2, 1] = 1.5, np.nan
    np.testing.assert_array_equal(routes.errors(found, 2 * reference), [0.5, np.inf])
    weights = np.stack([np.diag([2.0, 1.0]), np.full((2, 2), np.nan)])
    np.testing.assert_allclose(routes.spectra(weights), [[1.0, 4.0], [np.nan, np.nan]])
    assert routes.make_problem("cosine", 3, 2, 4).first(2).starts.shape == (2, 2, 4)
    np.testing.assert_array_equal(
        routes.make_problem("cosine", 3, 2, 4).starts[:2], routes.make_problem("euclidean", 2, 2, 4).starts
    )


def test_tables_and_targets():
    def rows(loss, ours, torch, meets=True):
        common = {"loss": loss, "steps": 40, "pairs": 16, "first_s": 0.5, "error": 0.01, "meets": meets}
        return [
            common | {"route": "torch", "describe": "torch loop", "loop": True, "rate": torch},
            common | {"route": "ours", "describe": "ours", "loop": False, "rate": ours},
        ]

    problems = [rows("euclidean", 1000.0, 1.0), rows("cosine", 300.0, 1.0)]
    whole, each = representation.verdicts(problems)
    assert whole.endswith("462 x: reached") and each.endswith("300 x for the slowest, cosine: reached")
    missed = representation.verdicts([*problems, rows("cosine_iso", 20.0, 1.0)])
    assert [line.rsplit(" ", 1)[1] for line in missed] == ["MISSED", "MISSED"]
    assert representation.verdicts([rows("cosine", 300.0, 1.0, meets=False)])[0].endswith("MISSED")
    cells = representation.table(problems).splitlines()[2]
    assert cells == "| euclidean | 40 | 16 | 1 | 1.0e-02 | 1e+03 | 1.0e-02 | 1,000 | 0.50 |"
