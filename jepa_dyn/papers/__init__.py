"""Figures and tables of the papers, reproduced: one module per paper, one function per figure.

`available()` lists them by name (`littwin2024.fig2`); each returns a dataset with theory and simulation side by side and
its checks (`papers.checks(dataset)`), and has a drawing.
"""

import importlib

from jepa_dyn.papers._figure import Check, Item, checks

MODULES = ("halvagal2023", "littwin2024", "note_collapse", "ponce2025", "simon2023", "tian2021")


def available() -> dict[str, Item]:
    """All figures and tables by name, in the order of the papers."""
    found = {}
    for module in MODULES:
        for item in importlib.import_module(f"jepa_dyn.papers.{module}").ITEMS:
            found[f"{module}.{item.name}"] = item
    return found


__all__ = ["Check", "Item", "available", "checks"]
