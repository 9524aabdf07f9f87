"""Tests of whole figures are slow: their fixtures, named as the figures are, run what a reader would."""

from pathlib import Path

import pytest

from jepa_dyn.papers import available


def pytest_collection_modifyitems(items):
    figures = {name.split(".")[1] for name in available()}
    for item in items:
        asked = set(item.fixturenames)
        # one that takes `request` is parametrised over figures
        if Path(__file__).parent in item.path.parents and (asked & figures or "request" in asked):
            item.add_marker(pytest.mark.slow)
