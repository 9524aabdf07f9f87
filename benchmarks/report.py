"""How a benchmark reports: a section of RESULTS.md, headed by when, where and with what it was measured."""

import argparse
import json
import re
import sys
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, describe, versions


def about_this_run(devices: list) -> dict[str, Any]:
    """When, at which commit, on which machine and with which versions a benchmark runs."""
    return {"date": str(date.today()), "commit": commit(), "machine": describe(devices), "versions": versions()}


def section(title: str, body: str, about: dict[str, Any]) -> str:
    """A section of RESULTS.md: what was measured, where, with which versions, at which commit."""
    where = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in about["machine"].items())
    with_what = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"## {title}\n\n{about['date']}, commit {about['commit']}. Machine: {where}. Versions: {with_what}.\n\n{body}\n"
    )


def write_section(path: Path, text: str) -> None:
    """Puts a section in place of the one with the same title, or at the end."""
    old = (
        path.read_text()
        if path.exists()
        else "# Measured results\n\nEach section is written by the command it names.\n"
    )
    title = text.splitlines()[0]
    pattern = re.compile(rf"^{re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    new = pattern.sub(lambda _: text + "\n", old) if pattern.search(old) else f"{old.rstrip()}\n\n{text}"
    path.write_text(new.rstrip() + "\n")


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Of `python -m benchmarks.NAME`, with the options that `publish` reads."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="replace this benchmark's section of a Markdown file"
    )
    return parser


def parse_command(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The options, and as `command` what was given, without where its figures are written to."""
    options = parser.parse_args(argv)
    given, written = sys.argv[1:] if argv is None else argv, ("--json", "--results")
    kept = [
        word
        for before, word in zip(["", *given], given, strict=False)
        if before not in written and not word.startswith(written)
    ]
    options.command = " ".join([parser.prog, *kept])
    return options


def publish(options: argparse.Namespace, text: str, report: dict[str, Any]) -> dict[str, Any]:
    """Prints a section and writes it and its figures where `--json` and `--results` say; returns the figures."""
    print(text)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    if options.results:
        write_section(options.results, text)
    return report
