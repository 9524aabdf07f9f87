"""The sweep commands: what they write and print, exit codes, every mistake told with its key."""

import json
import os
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from jepa_dyn import cli
from jepa_dyn.cli_sweep.config import read_config
from jepa_dyn.cli_sweep.models import SHIPPED
from jepa_dyn.cli_sweep.slurm import slurm_script
from jepa_dyn.sweep import open_sweep, status, sweep, verify
from jepa_dyn.theory import barlow_twins, direct_pred
from tests.sweep.test_store import files

CONFIG = """
function = "critical_time"
[axes]
lam = { geomspace = [0.1, 10.0, 6], description = "covariance" }
rho = { linspace = [0.3, 0.9, 5] }
[constants]
depth = 2.0
[run]
chunk_size = 10
threads = 1
"""
SLOW = """
import jax, jax.numpy as jnp
def slow(a):
    return {"x": jax.lax.fori_loop(0, 2_000_000, lambda i, x: x + jnp.sin(x) * 1e-4, a)}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(CONFIG)
    return path


def one_line(capsys):
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "Traceback" not in text, text
    return text


@pytest.mark.parametrize("command", ["sweep", "plan", "status", "verify", "show", "slurm"])
def test_help_has_examples(command, capsys):
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "example" in text and f"jepa-dyn {command} " in text


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from jepa_dyn import cli; cli.main(['sweep', '--help']); "
        "print([m for m in ('xarray', 'zarr', 'matplotlib', 'sklearn', 'PIL', 'diffrax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_from_plan_to_figure(config, tmp_path, capsys):
    out = tmp_path / "times"
    assert cli.main(["plan", str(config)]) == 0
    text = capsys.readouterr().out
    assert "points    30" in text and "blocks    3 of 10 points" in text and "480 B before compression" in text
    assert not out.exists()

    assert cli.main(["sweep", str(config), "--out", str(out), "--no-progress"]) == 0
    text = capsys.readouterr()
    assert text.err == "" and "critical_time  lam 6 x rho 5" in text.out and f"wrote {out}" in text.out
    found = open_sweep(out)
    assert (
        found.lam.attrs == {"long_name": "covariance"}
        and found.critical_time.attrs["infinite_means"] == "never learned"
    )

    assert cli.main(["status", str(out)]) == 0 and "30 of 30" in capsys.readouterr().out
    assert cli.main(["verify", str(out)]) == 0 and "3 finished blocks, none damaged" in capsys.readouterr().out
    figure = tmp_path / "map.png"
    assert cli.main(["show", str(out), "--variable", "fixed_point", "--figure", str(figure)]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG") and "fixed_point    lam 6 x rho 5" in capsys.readouterr().out
    assert cli.main(["show", str(out), "--at", "lam=9"]) == 0 and (tmp_path / "times.png").exists()

    assert cli.main(["sweep", str(config), "--out", str(out)]) == 2
    assert "already: resume continues it, force starts anew" in one_line(capsys)
    assert cli.main(["sweep", str(config), "--out", str(out), "--resume", "--set", "constants.depth=3.0"]) == 2
    assert "constant `depth` (2.0, now 3.0)" in one_line(capsys)
    assert cli.main(["sweep", str(config), "--out", str(out), "--force", "--no-progress"]) == 0
    assert files(tmp_path / "times-2") == files(out)

    manifest = json.loads((out / "zarr.json").read_text())["attributes"]["jepa_dyn_sweep"]
    assert set(manifest) == {"sweep", "setting", "begun", "about", "layout"} and manifest["setting"]["jax"]
    assert manifest["sweep"]["grid"]["depth"] == {"constant": 2.0}

    (out / "fixed_point" / "c.2.0").write_bytes(b"")
    assert cli.main(["verify", str(out)]) == 1 and "block 2: fixed_point: empty" in capsys.readouterr().out
    assert cli.main(["verify", str(out), "--repair"]) == 1
    assert cli.main(["status", str(out)]) == 1 and "66.7% done" in capsys.readouterr().out
    assert cli.main(["sweep", str(config), "--out", str(out), "--resume", "--no-progress"]) == 0
    assert verify(out) == {} and files(tmp_path / "times-2") == files(out)


FUNCTION = 'function = "critical_time"\n'
AXES = "[axes]\nlam = [1.0]\nrho = [0.5]\n"
MODES = 'function = "jepa"\n'
MISTAKES = [
    ("axes = { lam = [1.0] }", "function: must name what is computed"),
    ('function = "critical_tim"', "did you mean 'critical_time'?"),
    ('function = "nothing_here:f"', "no module 'nothing_here'"),
    ('function = "math:nothing"', "module 'math' has no 'nothing'"),
    (FUNCTION + "[axes]\nlam = [1.0]", "axes: 'critical_time' needs rho as well"),
    (FUNCTION + AXES + "lambda = [1.0]", "axes.lambda: is no parameter of 'critical_time'; did you mean 'lam'?"),
    (FUNCTION + "[axes]\nlam = { linspac = [0, 1, 2] }", "axes.lam.linspac: unknown key; did you mean 'linspace'?"),
    (FUNCTION + "[axes]\nlam = { linspace = [0, 1] }", "axes.lam.linspace: must be [first, last, how many]"),
    (FUNCTION + "[axes]\nlam = { geomspace = [0, 1, 3] }", "axes.lam.geomspace: must have ends of one sign"),
    (FUNCTION + "[axes]\nlam = { linspace = [0, 1, 2.5] }", "a whole number >= 1, but ends with 2.5"),
    (FUNCTION + "[axes]\nlam = []", "axes.lam: Axis `values` must hold at least one value"),
    (FUNCTION + AXES + 'objective = ["jape"]', "axes.objective: must be one of 'jepa', 'mae', but is 'jape'"),
    (FUNCTION + "[axis]\nlam = [1.0]", "axis: unknown key; did you mean 'axes'?"),
    (FUNCTION + "times = [1.0]\n" + AXES, "times: 'critical_time' takes no times"),
    (FUNCTION + "key = 1\n" + AXES, "key: 'critical_time' draws no random numbers"),
    (MODES + AXES, "times: 'jepa' needs times"),
    (MODES + "times = [2.0, 1.0]\n" + AXES, "times: must be finite, >= 0 and increasing"),
    (FUNCTION + "[zip.f]\nlam = [1.0, 2.0]\nrho = [0.5]", "zip.f: Zipped axes must have the same length"),
    (FUNCTION + '[draws]\npoints = 10\ndesign = "halton"', "draws.design: must be one of 'sobol', 'uniform'"),
    (FUNCTION + "[draws]\npoints = 10\n[draws.ranges]\nlam = { log = [-1, 1] }", "draws.ranges.lam: Argument `low`"),
    (FUNCTION + AXES + '[reduce]\nover = ["draw"]', "reduce.over: 'draw' is no dimension; it has lam, rho"),
    (FUNCTION + AXES + '[reduce]\nover = ["lam"]\ntime = ["median"]', "reduce.time: must be of mean"),
    (FUNCTION + AXES + '[run]\nmemory = "lots"', 'run.memory: must be a size such as "256MB"'),
    (FUNCTION + AXES + "[run]\nchunk = 3", "run.chunk: unknown key; did you mean 'chunk_size'?"),
    (FUNCTION + "[constants]\nlam = [1.0]", "constants.lam: must be one number or text"),
    ('function = "littwin2024.fig2"\n' + AXES, "axes.lam: is no parameter of 'littwin2024.fig2'; it has eps, depth"),
    ("function = ", "is not TOML"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_every_mistake_has_its_key(text, message, tmp_path, capsys):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert cli.main(["plan", str(path)]) == 2
    told = one_line(capsys)
    assert message in told and told.startswith("jepa-dyn plan: error: ") and str(path) in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "none.toml", "--out", "x"], "cannot read the configuration 'none.toml'"),
        (["sweep", "{config}", "--out", "x", "--set", "run.threads"], "--set must be KEY=VALUE"),
        (["sweep", "{config}", "--out", "x", "--set", "function.a=1"], "'function' is no table"),
        (["sweep", "{config}", "--out", "{config}"], "something else is there"),
        (["sweep", "{config}", "--out", "x", "--worker", "2/2"], "must be RANK/WORLD with 0 <= RANK < WORLD"),
        (["sweep", "{config}", "--out", "x", "--processes", "2", "--worker", "0/2"], "leave out --worker"),
        (["status", "nowhere"], "no sweep is stored in 'nowhere'"),
        (["verify", "nowhere"], "no sweep is stored in 'nowhere'"),
        (["show", "nowhere"], "no sweep is stored in 'nowhere'"),
        (["slurm", "{config}", "--out", "x", "--set", "slurm.time=4 hours"], "time must be plain text without spaces"),
        (["slurm", "{config}", "--out", "x", "--set", "slurm.array=0"], "slurm.array: must be a whole number >= 1"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(arguments, message, config, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main([argument.format(config=config) for argument in arguments]) == 2
    assert message in one_line(capsys)


def test_all_tables_together(tmp_path):
    path = tmp_path / "all.toml"
    path.write_text(
        'function = "mine:count"\nkey = 7\ntimes = [0.0, 1.0]\noutputs = ["x", "status"]\n'
        "[zip.pair]\na = [1.0, 2.0]\nb = { values = [3, 4], units = 'm' }\n"
        "[axes]\nkind = ['up', 'down']\nn = { values = [1, 2], static = true }\n"
        "[draws]\npoints = 5\ndesign = 'uniform'\nkey = 2\ndim = 'sample'\n[draws.ranges]\nc = { log = [1e-3, 1] }\nd = [0, 1]\n"
        "[constants]\ne = 0.5\n[reduce]\nover = 'sample'\nx = ['mean', { quantiles = [0.5], low = 0, high = 9, bins = 7 }]\n"
    )
    with pytest.raises(ValueError, match=r"reduce\.over: must be a list of names"):
        (tmp_path / "mine.py").write_text("def count(times, key, **parameters): pass\n")
        read_config(path)
    found = read_config(path, ["reduce.over=['sample']", "run.memory='2MiB'"])
    assert found.grid.dim_names == ("pair", "kind", "n", "sample") and found.grid.shape == (2, 2, 2, 5)
    assert found.grid.static_names == ("kind", "n") and found.grid.point(0)["e"] == 0.5
    assert found.key == 7 and list(found.times) == [0.0, 1.0] and found.run["memory"] == 2 * 2**20
    assert found.reduce.over == ("sample",) and found.outputs == ("x", "status")
    assert found.arguments()["coords"]["time"] is found.times


def test_a_figure_of_a_paper_over_its_options(tmp_path, monkeypatch):
    path = tmp_path / "figure.toml"
    path.write_text('function = "littwin2024.fig2"\noutputs = ["rho"]\n[axes]\neps = [1e-4, 1e-3]\n')
    found = read_config(path)
    assert found.model.batched and found.arguments()["chunk_size"] == 1
    with pytest.raises(ValueError, match=r"axes\.esp: is no parameter of 'littwin2024\.fig2'; did you mean 'eps'"):
        read_config(path, ["axes.esp=[1.0]"])


MODELS = {
    "jepa": {"lam": [0.5, 1.0], "rho": [0.5], "times": [1.0, 40.0]},
    "mae": {"lam": [0.5, 1.0], "rho": [0.5], "times": [1.0, 40.0]},
    "jepa_exact": {"lam": [0.5, 1.0], "rho": [0.5], "times": [1.0, 40.0]},
    "mae_exact": {"lam": [0.5, 1.0], "rho": [0.5], "times": [1.0, 40.0]},
    "critical_time": {"lam": [0.5, 1.0], "rho": [0.5]},
    "barlow_twins": {"gamma": [-1.0, 0.5], "times": [1.0, 4.0]},
    "direct_pred": {"lam0": [0.1, 2.0], "times": [1.0, 4.0]},
    "siamese": {"weight_decay": [0.01, 0.3], "steps": 400},
    "deep_linear": {"covariance": [0.2, 0.8], "times": [1.0, 2000.0]},
}


def test_every_model_has_a_case():
    assert MODELS.keys() == SHIPPED.keys()
    assert all(model.title for model in SHIPPED.values())


def run_model(name, folder):
    """A model that ships, over its small grid, by way of a configuration."""
    given, path = MODELS[name], folder / f"{name}.toml"
    axes = "".join(f"{key} = {value}\n" for key, value in given.items() if isinstance(value, list) and key != "times")
    rest = "".join(f"{key} = {value}\n" for key, value in given.items() if not isinstance(value, list))
    times = f"times = {given['times']}\n" if "times" in given else ""
    path.write_text(f'function = "{name}"\n{times}[axes]\n{axes}[constants]\n{rest}')
    config = read_config(path)
    return sweep(config.function, config.grid, **config.arguments() | {"threads": 1}, progress=False)


@pytest.mark.slow
def test_closed_forms_that_ship(tmp_path):
    s = run_model("barlow_twins", tmp_path)
    np.testing.assert_allclose(s.s.sel(gamma=0.5), barlow_twins.singular_value(jnp.array([1.0, 4.0]), 1e-3, 0.5))
    lam = direct_pred.predictor_eigenvalue(jnp.array([1.0, 4.0]), 2.0)
    np.testing.assert_allclose(run_model("direct_pred", tmp_path).lam.sel(lam0=2.0), lam)


@pytest.mark.slow
def test_integrated_models_that_ship(tmp_path):
    time = run_model("critical_time", tmp_path)
    np.testing.assert_allclose(time.fixed_point, 0.5)
    # the mode of twice the covariance at the same rho is learned in half the time
    np.testing.assert_allclose(time.critical_time.sel(lam=0.5), 2 * time.critical_time.sel(lam=1.0), rtol=1e-12)
    for objective in ("jepa", "mae"):
        exact = run_model(f"{objective}_exact", tmp_path)
        np.testing.assert_allclose(run_model(objective, tmp_path).w, exact.w, rtol=1e-5)
    end = run_model("siamese", tmp_path)
    sizes = end.singular_values.max("feature").values
    assert (end.status == 0).all() and sizes[0] > 10 * sizes[1]  # strong weight decay collapses
    final = run_model("deep_linear", tmp_path).singular_values.sel(time=2000.0)
    # rho = 0.8, learned, and 0.2, not yet
    assert final[1, 0] == pytest.approx(0.8**2, rel=0.2) and final[0, 0] < 0.1


def test_slurm_script_goes_on_until_it_is_done(tmp_path):
    """The script with a sweep and a scontrol of our own in its PATH."""
    script = tmp_path / "job.sh"
    script.write_text(slurm_script(tmp_path / "a b.toml", "out", {"array": 3, "setup": "echo ready"}, ["a.b=1"]))
    said = tmp_path / "said"
    for name, body in {
        "jepa-dyn": f'echo "$@" >> {said}\ntrap "sleep 0.3; exit 75" TERM\nfor i in $(seq 100); do sleep 0.1; done\nexit 3',
        "scontrol": f'echo "scontrol $@" >> {said}',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    ids = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_JOB_ID": "9"}
    job = subprocess.Popen(
        ["bash", str(script)], env=os.environ | ids | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, stdout=-3
    )
    until(said.exists)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=20) == 75
    told = said.read_text().splitlines()
    assert (
        told[0].endswith("a b.toml --out out --resume --no-progress --set a.b=1 --worker 2/3")
        and told[1] == "scontrol requeue 9_2"
    )
    text = script.read_text()
    assert "#SBATCH --array=0-2\n" in text and "#SBATCH --signal=B:TERM@120\n" in text and "#SBATCH --requeue" in text


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def start(folder, *arguments):
    words = [
        sys.executable,
        "-m",
        "jepa_dyn.cli",
        "sweep",
        str(folder / "slow.toml"),
        "--out",
        str(folder / "out"),
        "--no-progress",
    ]
    return subprocess.Popen([*words, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def slow(tmp_path):
    (tmp_path / "slowly.py").write_text(SLOW)
    axes = "[axes]\na = { linspace = [0.0, 1.0, 40] }\n[run]\nchunk_size = 2\nthreads = 1\n"
    (tmp_path / "slow.toml").write_text(f'function = "slowly:slow"\n{axes}')
    return tmp_path


def blocks(folder):
    return status(folder / "out").finished_blocks if (folder / "out").exists() else 0


@pytest.mark.slow
def test_two_processes_and_one_that_dies(slow):
    parent = start(slow, "--processes", "2")
    until(lambda: blocks(slow) >= 2)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    out, err = parent.communicate(timeout=120)
    assert parent.returncode == 0, err
    assert "process" in err and "died of signal 9; the others did its part" in err and "wrote" in out
    config = read_config(slow / "slow.toml")
    alone = sweep(config.function, config.grid, **config.arguments(), store=slow / "alone", progress=False)
    assert files(slow / "out") == files(slow / "alone") and not np.isnan(alone.x).any()


@pytest.mark.slow
def test_processes_drain_together(slow):
    parent = start(slow, "--processes", "2")
    until(lambda: blocks(slow) >= 2)
    parent.send_signal(signal.SIGTERM)
    _, err = parent.communicate(timeout=120)
    assert parent.returncode == 75, err
    assert 2 <= blocks(slow) < 20 and verify(slow / "out") == {}


@pytest.mark.slow
def test_jax_distributed_gives_the_ranks(slow):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = ["--resume", "--distributed", "--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id"]
    workers = [start(slow, *common, str(i)) for i in range(2)]
    until(lambda: blocks(slow) >= 3)
    workers[0].kill()  # rank 0, whose death would take the others with it if they still talked
    workers[0].communicate()
    out, err = workers[1].communicate(timeout=120)
    assert workers[1].returncode == 0, err
    assert "wrote" in out and status(slow / "out").complete
