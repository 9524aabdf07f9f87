"""The common part of the figures: checks go through a dataset unharmed, the list is complete, tables say what came out."""

import jax
import numpy as np
import pytest
import xarray

from jepa_dyn.papers import Check, available, checks
from jepa_dyn.papers._figure import in_float64, with_checks
from jepa_dyn.papers.table import check_summary, check_table, text_table, verdict

HOLDS = Check("a", "eq. (1)", "x = 1", "1.0", True, True)
MISPRINT = Check("b", "eq. (2)", "x = 2", "3.0", False, False, "misprint")
BROKEN = Check("c", "eq. (3)", "x = 3", "4.0", True, False)
REVIVED = Check("d", "eq. (4)", "x = 4", "4.0", False, True)


def test_checks_survive_the_dataset():
    dataset = with_checks(xarray.Dataset(), [HOLDS, MISPRINT], figure="1")
    assert checks(dataset) == [HOLDS, MISPRINT] and dataset.attrs["figure"] == "1"
    with pytest.raises(ValueError, match="carries no checks"):
        checks(xarray.Dataset())


def test_verdicts():
    assert [c.as_expected for c in (HOLDS, MISPRINT, BROKEN, REVIVED)] == [True, True, False, False]
    assert [verdict(c) for c in (HOLDS, MISPRINT, BROKEN, REVIVED)] == [
        "ok, holds",
        "ok, fails*",
        "NO, it fails",
        "NO, it holds",
    ]
    assert check_summary([HOLDS, BROKEN]) == "1 of 2 checks came out as expected."
    assert "1 printed statements are known not to hold" in check_summary([HOLDS, MISPRINT])


@pytest.mark.parametrize("width", [60, 100, 300])
def test_table_fits_and_keeps_every_word(width):
    claim = "a claim of many words " * 8
    text = check_table([Check(claim, "eq. (1)", "p", "measured " * 9, True, True, "a note")], width)
    assert max(len(line) for line in text.splitlines()) <= max(min(width, 130), 72)
    assert text.count("claim") == 8 and text.count("measured") == 9 and "note]" in text


def test_text_table_aligns():
    assert text_table(["n", "value"], [["a", "1"], ["bb", "10"]], "<>").splitlines() == [
        "n   value",
        "--  -----",
        "a       1",
        "bb     10",
    ]


def test_list_names_module_and_figure():
    items = available()
    assert {"littwin2024.fig2", "littwin2024.fig4"} <= set(items)
    for name, item in items.items():
        assert name.endswith(f".{item.name}") and item.title and "full" not in item.options


def test_float64_is_put_back(float32):
    seen = in_float64(lambda: jax.numpy.zeros(()).dtype)()
    assert seen == np.float64 and jax.numpy.zeros(()).dtype == np.float32

    def fails():
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError):
        in_float64(fails)()
    assert not jax.config.jax_enable_x64
