"""Plain text tables that fit the terminal."""

import shutil
import textwrap
from collections.abc import Sequence

from jepa_dyn.papers._figure import Check


def text_table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: str | None = None) -> str:
    """Columns padded to their widest cell; `align` has one of '<', '>' per column."""
    align = align or "<" * len(headers)
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)).rstrip()
        for row in [headers, *rows]
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def check_table(checks: Sequence[Check], width: int | None = None) -> str:
    """Checks as a table: whether each came out as it should, what is claimed, where, and what was measured."""
    total = min(max(width or shutil.get_terminal_size((118, 24)).columns - 1, 72), 130)
    result, source = 15, 20
    claim = (total - result - source - 6) // 2
    widths = (result, claim, source, total - result - source - claim - 6)
    blocks = [_lines(("RESULT", "CLAIM", "SOURCE", "MEASURED"), widths), ["  ".join("-" * w for w in widths)]]
    for check in checks:
        measured = check.measured + (f" [{check.note}]" if check.note else "")
        blocks.append(_lines((verdict(check), check.claim, check.source, measured), widths))
    return "\n".join(line for block in blocks for line in block)


def verdict(check: Check) -> str:
    """'ok, holds', 'ok, fails*' (the paper's statement is known to be wrong), or what came out against expectation."""
    if check.as_expected:
        return "ok, holds" if check.holds else "ok, fails*"
    return "NO, it holds" if check.holds else "NO, it fails"


def check_summary(checks: Sequence[Check]) -> str:
    """One or two lines below the table."""
    good = sum(check.as_expected for check in checks)
    wrong = sum(check.as_expected and not check.holds for check in checks)
    text = f"{good} of {len(checks)} checks came out as expected."
    return text + (f"  * {wrong} printed statements are known not to hold; see MEASURED." if wrong else "")


def _lines(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
    height = max(len(cell) for cell in wrapped)
    padded = [cell + [""] * (height - len(cell)) for cell in wrapped]
    return [
        "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in zip(*padded, strict=True)
    ]
