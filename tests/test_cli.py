"""The command: what it prints and writes, its exit codes, one line for every mistake."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray
from PIL import Image

import jepa_dyn
from jepa_dyn import cli, papers

PREDICT = ["predict", "--pairs", "700", "--depths", "1,5"]


@pytest.fixture
def folder(tmp_path):
    """A folder with two small smooth images."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rough = np.cumsum(np.cumsum(np.random.default_rng(1).normal(size=(2, 40, 50)), axis=1), axis=2)
    for number, one in enumerate(rough):
        grey = (255 * (one - one.min()) / np.ptp(one)).astype(np.uint8)
        Image.fromarray(grey).save(photos / f"{number}.png")
    return photos


def one_line(capsys):
    """The one line on stderr; nothing else was said there."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "Traceback" not in text, text
    return text


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jepa-dyn {jepa_dyn.__version__}\n"


@pytest.mark.parametrize("command", [[], ["predict"], ["reproduce"], ["list"]])
def test_help_has_examples(command, capsys):
    assert cli.main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "example" in text and " ".join(["jepa-dyn", *command]) in text


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from jepa_dyn import cli; cli.main(['predict', '--help']); "
        "print([m for m in ('xarray', 'zarr', 'matplotlib', 'sklearn', 'PIL', 'diffrax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_list_is_the_registry(capsys):
    assert cli.main(["list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == list(papers.available())


def test_predict_writes_what_it_prints(folder, tmp_path, capsys):
    out = tmp_path / "made" / "here"
    assert cli.main([*PREDICT, str(folder), "--out", str(out), "--features", "4"]) == 0
    text = capsys.readouterr()
    assert text.err == ""
    assert "700 pairs of 8x8 views of 2 images in photos" in text.out and "Depth L = 5" in text.out
    assert "Diagonalisability defect" in text.out and str(out / "figure.png") in text.out
    data = xarray.open_zarr(out / "data.zarr", consolidated=False).load()
    assert data.depth.values.tolist() == [1, 5] and data.critical_time.dtype == np.float64
    with Image.open(out / "figure.png") as figure:
        assert figure.size[0] > 1000
    row = text.out.split("Depth L = 1")[1].splitlines()[4].split()
    assert float(row[1]) == pytest.approx(float(data.lam[0]), rel=5e-3)


def test_predict_repeats_itself_and_overwrites(folder, tmp_path, capsys):
    out, printed = tmp_path / "out", []
    for key in ("3", "3", "4"):
        assert cli.main([*PREDICT, str(folder), "--out", str(out), "--key", key]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


def test_predict_warns_in_one_line(folder, tmp_path, capsys):
    assert cli.main(["predict", str(folder), "--out", str(tmp_path / "o"), "--pairs", "64", "--depths", "1"]) == 0
    assert one_line(capsys).startswith("warning: 64 pairs for 64 pixels are few")


@pytest.fixture
def small_figure(monkeypatch):
    """A figure that costs nothing, in the place of the real ones."""
    from matplotlib import pyplot

    from jepa_dyn.papers._figure import Check, Item, with_checks

    seen = {}

    def compute(*, eps: float = 0.5, full: bool = False):
        seen.update(eps=eps, full=full)
        checks = [Check("claim", "eq. (1)", "p", "m", True, eps == 0.5)]
        return with_checks(xarray.Dataset({"x": ("name", [1.0]), "y": ("t", [np.nan])}, {"name": ["jepa"]}), checks)

    item = Item("fig1", "a title", compute, lambda dataset: pyplot.figure())
    monkeypatch.setattr(papers, "available", lambda: {"paper2024.fig1": item})
    return item, seen


def test_reproduce_writes_its_three_files(small_figure, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["reproduce", "paper2024.fig1", "--out", str(out)]) == 0
    assert "1 of 1 checks came out as expected." in capsys.readouterr().out
    assert json.loads((out / "checks.json").read_text()) == [
        {
            "claim": "claim",
            "source": "eq. (1)",
            "printed": "p",
            "measured": "m",
            "expected": True,
            "holds": True,
            "note": "",
        }
    ]
    data = xarray.open_zarr(out / "data.zarr", consolidated=False)
    assert data.name.values.tolist() == ["jepa"] and np.isnan(data.y.values).all()
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_reproduce_exits_1_where_a_check_differs(small_figure, tmp_path, capsys):
    assert cli.main(["reproduce", "--out", str(tmp_path), "paper2024.fig1", "--eps", "0.25", "--full"]) == 1
    assert "NO, it fails" in capsys.readouterr().out and small_figure[1] == {"eps": 0.25, "full": True}


def test_key_is_told_to_be_useless_or_is_passed(small_figure, tmp_path, capsys, monkeypatch):
    assert cli.main(["reproduce", "paper2024.fig1", "--out", str(tmp_path), "--key", "3"]) == 0
    assert "--key changes nothing" in one_line(capsys)
    keys = []

    def random(*, key: int = 0, full: bool = False):
        keys.append(key)
        return small_figure[0].compute()

    monkeypatch.setattr(papers, "available", lambda: {"paper2024.fig1": replace(small_figure[0], compute=random)})
    assert cli.main(["reproduce", "paper2024.fig1", "--out", str(tmp_path), "--key", "3"]) == 0
    assert keys == [3]


def test_help_of_a_figure_lists_its_options(capsys):
    assert cli.main(["reproduce", "littwin2024.fig2", "--help"]) == 0
    text = capsys.readouterr().out
    assert "options of littwin2024.fig2" in text and "--depth" in text and "default: 0.001" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a command is missing"),
        (["forsee"], "invalid choice: 'forsee'"),
        (["predict"], "--out"),
        (["predict", "{tmp}/none", "--out", "{tmp}/o"], "does not exist"),
        (["predict", "{tmp}/empty", "--out", "{tmp}/o"], "holds images"),
        (["predict", "{tmp}/broken", "--out", "{tmp}/o"], "broken.png' cannot be read"),
        (["predict", "{tmp}/grey", "--out", "{tmp}/o", "--pairs", "900"], "variance"),
        (["predict", "{tmp}/grey", "--out", "{tmp}/o", "--pairs", "1"], "must be at least 64"),
        (["predict", "{tmp}/grey", "--out", "{tmp}/o", "--patch", "50"], "52 x 52 pixels"),
        (["predict", "--out", "{tmp}/o", "--pairs", "0"], "--pairs: must be a whole number >= 1"),
        (["predict", "--out", "{tmp}/o", "--pairs", "many"], "--pairs"),
        (["predict", "--out", "{tmp}/o", "--eps", "nan"], "--eps: must be a number > 0"),
        (["predict", "--out", "{tmp}/o", "--eps", "0"], "--eps"),
        (["predict", "--out", "{tmp}/o", "--depths", "1,,2"], "--depths"),
        (["predict", "--out", "{tmp}/o", "--depths", "2,2"], "must not repeat"),
        (["predict", "--out", "{tmp}/o", "--depths", "-1"], "--depths"),
        (["predict", "--out", "{tmp}/o", "--view", "blur"], "--view"),
        (["predict", "--out", "{tmp}/o", "--key", "-1"], "--key"),
        (["predict", "--out", "{tmp}/file"], "is a file"),
        (["predict", "--out", "{tmp}/file/deeper"], "cannot write to the folder"),
        (["reproduce"], "NAME"),
        (["reproduce", "littwin2024.fig22", "--out", "{tmp}/o"], "did you mean 'littwin2024.fig2'?"),
        (["reproduce", "--out", "{tmp}/o", "xyz"], "no figure or table is called 'xyz'; `jepa-dyn list`"),
        (
            ["reproduce", "littwin2024.fig2", "--out", "{tmp}/o", "--eps", "2"],
            "`eps` must lie strictly between 0 and 1",
        ),
        (["reproduce", "littwin2024.fig2", "--out", "{tmp}/o", "--nonsense", "2"], "--nonsense"),
        (["reproduce", "littwin2024.fig2", "--out", "{tmp}/file"], "is a file"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    for name in ("empty", "broken", "grey"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "broken" / "broken.png").write_bytes(b"no image")
    Image.fromarray(np.full((40, 40), 128, np.uint8)).save(tmp_path / "grey" / "grey.png")
    assert cli.main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    text = one_line(capsys)
    assert message in text and text.startswith("jepa-dyn")


def test_missing_package_is_told_before_any_work(monkeypatch, tmp_path, capsys):
    import importlib.util

    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "zarr" else original(name, *a))
    for arguments in (["predict"], ["reproduce", "littwin2024.fig2"]):
        assert cli.main([*arguments, "--out", str(tmp_path / "o")]) == 2
        assert "needs zarr, not installed here: pip install 'jepa_dyn[all]'" in one_line(capsys)
    assert not (tmp_path / "o").exists()


def test_interruption_and_own_faults(monkeypatch, capsys, tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_list", interrupted)
    assert cli.main(["list"]) == 130 and "interrupted" in one_line(capsys)

    def fault():
        raise AttributeError("a fault of ours is not bad input")

    monkeypatch.setattr(cli, "_list", fault)
    with pytest.raises(AttributeError):
        cli.main(["list"])


def test_a_reader_that_has_seen_enough():
    command = f"{sys.executable} -m jepa_dyn.cli predict --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: jepa-dyn predict") and "Error" not in done.stderr
