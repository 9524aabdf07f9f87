"""The floors of ARCHITECTURE.md: imports go down, never up; theory and flows do not know each other."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jepa_dyn

PACKAGE = Path(jepa_dyn.__file__).parent
FLOORS = {
    "parameters": 0, "status": 0, "_checks": 0, "_precision": 0, "_progress": 0, "_programs": 0, "_matrix_functions": 0,
    "moments": 1, "flows": 1, "losses": 1,
    "theory": 2, "metrics": 2, "kernels": 2,
    "solve": 3, "equilibria": 3, "training": 3,
    "sweep": 4, "plots": 4,
    "papers": 5, "predict": 5,
    "cli": 6, "cli_sweep": 6, "cli_arguments": 6,
}  # fmt: skip
SIBLINGS_ALLOWED = {
    ("predict", "papers"), ("parameters", "_checks"), ("flows", "moments"), ("flows", "losses"), ("equilibria", "solve"),
    ("kernels", "theory"), ("training", "solve"), ("cli", "cli_sweep"), ("cli", "cli_arguments"), ("cli_sweep", "cli_arguments"),
}  # fmt: skip
FORBIDDEN = {("theory", "flows"), ("flows", "theory"), ("sweep", "theory"), ("plots", "theory")}


def _imports(path: Path) -> set[str]:
    """Second part of every `jepa_dyn.X` that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("jepa_dyn.")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "jepa_dyn":
                names |= {alias.name for alias in node.names}
            elif (node.module or "").startswith("jepa_dyn."):
                names.add(node.module.split(".")[1])
    return names


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = _part(path)
    for other in _imports(path) & FLOORS.keys():
        assert (own, other) not in FORBIDDEN, f"{own} must not import {other}"
        down = FLOORS[other] < FLOORS[own] or other == own or (own, other) in SIBLINGS_ALLOWED
        assert down, f"{path}: floor {FLOORS[own]} imports {other} of floor {FLOORS[other]}"


def test_every_part_has_a_floor():
    assert {_part(path) for path in SOURCES} == FLOORS.keys()


def test_integration_uses_no_theory():
    for path in (PACKAGE / "solve").glob("*.py"):
        if path.name != "exact.py":
            assert "theory" not in _imports(path), f"{path} must stay an independent witness"


def test_files_stay_short():
    for path in SOURCES:
        assert path.read_text().count("\n") <= 420, f"{path}: two ideas in one file?"


def test_architecture_names_every_file():
    text = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
    missing = [str(p.relative_to(PACKAGE)) for p in SOURCES if not re.search(rf"\b{re.escape(p.stem)}\b", text)]
    assert not missing, missing


def test_import_changes_nothing_and_stays_light():
    code = (
        "import jax, sys; before = jax.config.jax_enable_x64; import jepa_dyn; import jepa_dyn.solve, jepa_dyn.theory;"
        "assert jax.config.jax_enable_x64 == before;"
        "heavy = {'xarray', 'zarr', 'matplotlib', 'sklearn', 'PIL', 'tqdm'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
