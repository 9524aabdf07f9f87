"""Notebooks run from top to bottom (quickly), are kept with small outputs, and match their text twins."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 300_000

# in a process of its own, so that neither side sees the other's settings and warnings
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
"""


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == sorted(path.stem for path in FOLDER.glob("*.py")) != []


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(tmp_path)],
        env=os.environ | {"JEPA_DYN_FAST": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_text_twin_has_the_same_cells(path):
    twin = jupytext.read(path.with_suffix(".py"))
    ours = [(cell["cell_type"], "".join(cell["source"])) for cell in cells(path)]
    assert ours == [(cell["cell_type"], cell["source"]) for cell in twin.cells]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_small(path):
    assert path.stat().st_size <= MAX_BYTES
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs)
    pictures = 0
    for kind, value in (pair for output in outputs for pair in output.get("data", {}).items()):
        assert kind in ("image/png", "text/plain")
        if kind == "image/png":
            pictures += 1
            assert base64.b64decode("".join(value)).startswith(b"\x89PNG")
    assert pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_first_cell_installs_only_where_needed_and_sets_x64(path):
    first = next("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code")
    assert 'find_spec("jepa_dyn") is None' in first and "enable_x64()" in first
    install = first[first.index("subprocess.check_call") :].splitlines()[0]
    assert "jepa_dyn[all]" in install and "jax" not in install.replace("jepa", "")
