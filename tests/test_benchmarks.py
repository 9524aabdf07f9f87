"""The benchmarks at a tiny size: the reference of the modes against a second witness, rows, reports."""

import json

import numpy as np
import pytest

from benchmarks import deep_linear, modes, siamese, siamese_branches, stepwise, sweep, sweep_reliability, training
from benchmarks.method import Method, Prepared
from benchmarks.problem import make_batch
from benchmarks.reference import exact_states, integrated_states


@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_reference_against_scipy(objective):
    batch = make_batch(objective, 6, "float64")
    reference = exact_states(batch)
    for lane in range(batch.num_lanes):
        # DOP853 at 1e-14 in log w, whose errors grow with the condition number of w
        error = np.abs(integrated_states(batch, lane) / reference.states[lane] - 1)
        assert np.all(error < 1e-11 * (1 + reference.condition[lane]))


def test_first_lanes_of_a_large_batch_are_a_small_batch():
    small, large = make_batch("jepa", 5, "float32"), make_batch("jepa", 9, "float32")
    np.testing.assert_array_equal(large.first(5).ts, small.ts)


def test_report(tmp_path, capsys):
    results = tmp_path / "RESULTS.md"
    results.write_text("# Measured results\n\n## Scalar modes\n\nold\n\n## Another\n\nkept\n")
    options = ["--n", "24", "--checked", "4", "--repeats", "1", "--peers", "diffrax_log", "scipy"]
    modes.main([*options, "--json", str(tmp_path / "out.json"), "--results", str(results)])
    text = results.read_text()
    assert "old" not in text and "kept" in text and text.count("## Scalar modes") == 1
    assert "`python -m benchmarks.modes --n 24 --checked 4 --repeats 1 --peers diffrax_log scipy`" in text
    assert "jepa_dyn exact, table" in capsys.readouterr().out
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["about"]) == {"date", "commit", "machine", "versions"}
    rows = {row["method"]: row for row in report["rows"]}
    assert set(rows) == {"exact_table", "exact_polish", "ensemble", "diffrax_log", "scipy"}
    limits = {"exact_table": 1e-10, "exact_polish": 1e-12, "ensemble": 1e-5, "diffrax_log": 1e-4, "scipy": 1e-4}
    for name, row in rows.items():
        assert row["failed"] == 0 and row["lanes"] == 24 and row["checked_lanes"] == 4
        assert row["max_well_conditioned"] < limits[name]
        assert row["rate"] == pytest.approx(24 / row["host_s"])


def test_method_that_gives_up_has_a_line_and_no_row(monkeypatch):
    def give_up():
        raise RuntimeError

    monkeypatch.setattr(
        modes, "choose_methods", lambda options: [Method("bad", "bad peer", lambda batch: Prepared(give_up))]
    )
    rows, refused = modes.measure("jepa", "float64", 3, modes.parse(["--checked", "2", "--repeats", "1"]))
    assert rows == [] and refused == ["bad peer gave up on 3 lanes: RuntimeError"]


def test_command_names_no_file():
    given = ["--n", "5", "--json", "/a/b.json", "--quick", "--results=c.md"]
    assert modes.parse(given).command == "python -m benchmarks.modes --n 5 --quick"


def test_targets_are_judged_at_every_tolerance():
    def row(method, rate, error, failed=0):
        return {"objective": "jepa", "dtype": "float64", "batch": 100_000, "method": method, "describe": method, "rate": rate,
                "max_well_conditioned": error, "failed": failed, "compile_s": 0.5}  # fmt: skip

    exact, tight, loose = (
        row("exact_table", 1e6, 1e-11),
        row("diffrax_w", 9e3, 1e-7, 2),
        row("diffrax_w_loose", 2e4, 1e-5),
    )
    lines = modes.verdicts([exact, tight, loose])
    assert len(lines) == 3
    assert "111 x" in lines[0] and lines[0].endswith("reached (2 of its lanes failed)")
    assert "50 x" in lines[1] and lines[1].endswith("MISSED")
    worse = modes.verdicts([row("exact_table", 1e6, 1e-6), tight])[0]
    assert "WORSE: MISSED" in worse


def test_memory_is_that_of_another_process():
    found = modes.peak_memory(1000)
    assert found["result_gb"] == 1000 * 64 * 8 / 1e9
    assert 0.05 < found["peak_gb"] < 4


def test_unknown_peer():
    with pytest.raises(SystemExit, match="nothing: not installed or unknown"):
        modes.main(["--peers", "nothing", "--n", "2"])


@pytest.mark.slow
def test_routes_of_deep_linear_training_agree(tmp_path):
    results = tmp_path / "RESULTS.md"
    options = ["--quick", "--repeats", "1", "--json", str(tmp_path / "out.json"), "--results", str(results)]
    deep_linear.main(options)
    report = json.loads((tmp_path / "out.json").read_text())
    rows = {row["route"]: row for row in report["rows"]}
    assert {"plain_jax", "population", "covariances", "wishart"} <= set(rows)
    assert all(row["agrees"] for row in rows.values())
    assert rows["wishart"]["gap"] > 0.01  # its own samples: a gap that the scatter explains, not none
    assert all(row["loss"] < 0.3 * report["loss_at_start"] for row in rows.values())
    assert results.read_text().count("## Deep linear training\n") == 1


@pytest.mark.parametrize(
    ("draws", "found", "agrees"),
    [("same", 1e-6, True), ("same", 1e-3, False), ("own", 0.1, True), ("own", 0.13, False), ("none", 0.1, False)],
)
def test_gap_that_the_samples_explain(draws, found, agrees):
    assert deep_linear._agrees(draws, found, scatter=0.1) is agrees


@pytest.mark.slow
def test_routes_of_siamese_networks_agree(tmp_path):
    results = tmp_path / "RESULTS.md"
    options = ["--quick", "--repeats", "1", "--json", str(tmp_path / "out.json"), "--results", str(results)]
    siamese.main(options)
    report = json.loads((tmp_path / "out.json").read_text())
    for kind in ("steps", "flow"):
        assert {"plain", "ours"} <= {row["route"] for row in report["rows"] if row["kind"] == kind}
    assert all(row["agrees"] for row in report["rows"] + report["branches"])
    assert report["branches"][0]["fold_error"] < 1e-14
    text = results.read_text()
    assert text.count("## Siamese networks\n") == 1
    assert "`python -m benchmarks.siamese --quick --repeats 1`" in text and str(tmp_path) not in text


def test_fold_of_two_features_against_the_library():
    case = siamese_branches.cases()[2]
    found = siamese_branches.branch_routes()[0][0].run(case, siamese.POINTS)
    assert np.abs(found.folds - case.fold).min() < 1e-12


def test_targets_of_siamese_networks():
    def row(route, seconds, runs=100_000, agrees=True):
        return {"kind": "steps", "n": 2, "runs": 100_000, "dtype": "float64", "ema": False, "route": route, "describe": route,
                "own_runs": runs, "turns_s": [seconds], "agrees": agrees}  # fmt: skip

    trials = [{"describe": "all", "trials": 10_000, "second_s": 11.0}]
    lines = siamese.verdicts([row("ours", 1.0), row("plain", 3.0), row("c_1_2", 0.2)], trials)
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["reached", "MISSED", "MISSED"]
    wrong = siamese.verdicts([row("ours", 1.0, agrees=False), row("plain", 3.0)], [])
    assert wrong[0].endswith("MISSED")


@pytest.mark.slow
def test_routes_of_stepwise_learning_agree(tmp_path):
    results = tmp_path / "RESULTS.md"
    options = ["--quick", "--repeats", "1", "--steps", "40", "--fast-steps", "60"]
    report = stepwise.main([*options, "--json", str(tmp_path / "out.json"), "--results", str(results)])
    rows = report["rows"]
    assert {"plain", "plain_gamma", "train", "ours"} <= {row["route"] for row in rows}
    assert all(row["agrees"] and row["moved"] > 0.5 for row in rows)
    assert {row["steps"] for row in rows if row["route"] == "ours"} == {60}
    text = results.read_text()
    assert text.count("## Stepwise learning\n") == 1 and str(tmp_path) not in text
    assert "`python -m benchmarks.stepwise --quick --repeats 1 --steps 40 --fast-steps 60`" in text
    assert json.loads((tmp_path / "out.json").read_text())["growth"] == []


def test_tables_and_targets_of_stepwise_learning():
    def row(route, times, agrees=True):
        sizes = {"n": 5, "m": 12, "d": 3, "dtype": "float64", "route": route, "describe": route, "steps": 10}
        times_of = {"rate": 10 * times, "times_plain": times, "setup_s": 0.1, "pays_after": None, "first_s": 0.2}
        return {**sizes, **times_of, "gap": 1e-15, "agrees": agrees}

    rows = [row("plain", 1.0), row("plain_gamma", 2.0), row("ours", 40.0)]
    assert [line.rsplit(" ", 1)[1] for line in stepwise.verdicts(rows)] == ["reached"]
    assert stepwise.verdicts([row("ours", 9.0)])[0].endswith("MISSED")
    assert stepwise.verdicts([row("ours", 40.0, agrees=False)])[0].endswith("MISSED")
    assert (
        stepwise.growth_table([rows]).splitlines()[2]
        == "| 5 | 12 | 3 | 100,000 | 50,000 | 2,500 | 40 | 0.1 | 1.0e-15 | yes |"
    )


def test_memory_of_stepwise_learning_is_that_of_another_process():
    assert 0.05e9 < stepwise.peak_memory(None, stepwise.QUICK) < 4e9
    row = {"route": "ours", "n": 6, "m": 12, "d": 3, "peak": 2_000_000}
    assert stepwise.memory_table([row]).splitlines()[2] == "| ours | 6 | 12 | 3 | 2 |"


@pytest.mark.slow
def test_routes_of_training_agree(tmp_path):
    results = tmp_path / "RESULTS.md"
    options = ["--quick", "--repeats", "1", "--json", str(tmp_path / "out.json"), "--results", str(results)]
    report = training.main(options)
    assert {"turn", "lanes", "plain"} <= {row["route"] for row in report["rows"]}
    assert all(row["agrees"] and row["peak"] is None for row in report["rows"])
    text = results.read_text()
    assert text.count("## Training of networks\n") == 1 and str(tmp_path) not in text
    assert "`python -m benchmarks.training --quick --repeats 1`" in text
    assert json.loads((tmp_path / "out.json").read_text())["tracking"][0]["runs"] == 4


def test_targets_of_training():
    def row(times, agrees=True):
        return {"kind": "small perceptron", "runs": 64, "route": "lanes", "times_in_turn": times, "agrees": agrees}

    tracking = [{"kind": "ResNet", "runs": 64, "overhead": share} for share in (0.05, 0.2)]
    lines = training.verdicts([row(6.0), row(4.0), row(6.0, agrees=False), row(9.0) | {"runs": 8}], tracking)
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["reached", "MISSED", "MISSED", "reached", "MISSED"]


@pytest.mark.slow
def test_sweeps_are_measured(tmp_path):
    results = tmp_path / "RESULTS.md"
    sweep.main(["--quick", "--results", str(results), "--json", str(tmp_path / "out.json")])
    report = json.loads((tmp_path / "out.json").read_text())
    # the same points whoever computed them, each block on disk
    checks = [turn[name]["check"] for row in report["overhead"] for turn in row["turns"] for name in turn]
    assert len(set(checks)) == 1 and report["first"][0]["blocks"] > 1
    assert {row["case"] for row in report["scaling"]} == {
        "one device, thread and process", "2 threads", "2 host devices", "2 processes",
    }  # fmt: skip
    text = results.read_text()
    assert (
        text.count("## Sweeps\n") == 1 and "`python -m benchmarks.sweep --quick`" in text and str(tmp_path) not in text
    )


def test_targets_of_sweeps():
    overhead = [
        {"points": 10, "chunk_s": 0.6, "store_overhead": 0.09},
        {"points": 20, "chunk_s": 0.4, "store_overhead": 9.0},
    ]
    memory = [
        {"points": n, "reduce": flag, "peak_mb": mb}
        for n, flag, mb in ((1, False, 100), (2, False, 130), (1, True, 90))
    ]
    found = {
        "overhead": overhead,
        "first": [{"points": 10, "first_s": 2.5}],
        "memory": memory,
        "scaling": [{"case": "one", "times": 1.0}, {"case": "2 threads", "times": 1.8}],
    }
    judged = [line.rsplit(" ", 1)[1] for line in sweep.verdicts(found)]
    assert judged == ["reached", "MISSED", "MISSED", "reached", "reached"]


@pytest.mark.slow
def test_sweeps_survive(tmp_path):
    report = sweep_reliability.main(["--kills", "3", "--models", "barlow_twins", "--json", str(tmp_path / "out.json")])
    assert report["good"], report["findings"]
    (killed, *_) = report["findings"]
    assert killed["found"].startswith("3 kills") and killed["found"].endswith("0 ended with other bytes")


def test_digits_that_numbers_share():
    one = np.array([1.0, np.nan, np.inf, 0.0])
    assert sweep_reliability.shared_digits(one, one.copy()) == np.inf
    assert sweep_reliability.shared_digits(one, np.array([1.0 + 1e-12, np.nan, np.inf, 0.0])) == pytest.approx(
        12, abs=0.1
    )
    assert sweep_reliability.shared_digits(one, np.array([1.0, 1.0, np.inf, 0.0])) == 0
