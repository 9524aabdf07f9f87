"""The command `jepa-dyn`: parse, call `papers/`, `predict/` or `cli_sweep/`, print, write. What is heavy is imported when needed.

Exit codes: 0 it ran and everything is as expected; 1 it ran and a check came out otherwise; 2 bad use or bad input, told in
one line on stderr; 75 a sweep was asked to stop and goes on when it is run again.
"""

import argparse
import difflib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepa_dyn import cli_sweep
from jepa_dyn.cli_arguments import Parser, count, numbers, positive, require_packages, seed

if TYPE_CHECKING:
    import xarray

    from jepa_dyn.papers import Item

EXAMPLES = """examples:
  jepa-dyn predict --out prediction                       the photographs that scikit-learn ships
  jepa-dyn predict my_photos --out prediction --depths 2,4,8
  jepa-dyn list                                           figures that can be reproduced
  jepa-dyn reproduce littwin2024.fig2 --out fig2
  jepa-dyn sweep sweep.toml --out times                   a large grid of parameters, resumable; also plan, status, show

`jepa-dyn COMMAND --help` explains each command."""

PREDICT_EXAMPLES = """examples:
  jepa-dyn predict --out prediction
  jepa-dyn predict my_photos --out prediction --view shift --patch 12 --pairs 200000
  jepa-dyn predict cifar-10-batches-bin --out prediction --colour --depths 1,2,4 --eps 1e-4

writes DIR/data.zarr (open with xarray.open_zarr) and DIR/figure.png, and prints the tables."""

REPRODUCE_EXAMPLES = """examples:
  jepa-dyn reproduce littwin2024.fig2 --out fig2
  jepa-dyn reproduce littwin2024.fig2 --out fig2 --eps 1e-4 --depth 6
  jepa-dyn reproduce littwin2024.fig4 --out fig4 --full

`jepa-dyn reproduce NAME --help` lists the options of that figure, `jepa-dyn list` the names.
writes DIR/data.zarr (open with xarray.open_zarr), DIR/figure.png and DIR/checks.json, and prints the checks.
exit code 0: every check came out as expected; 1: one did not; 2: bad use."""

LIST_EXAMPLES = """example:
  jepa-dyn list

prints one line per figure or table: its NAME for `jepa-dyn reproduce`, and what it shows."""


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("jepa-dyn", description=_DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    predict = commands.add_parser(
        "predict",
        help="which features JEPA and MAE learn first, when and how strongly, from real images",
        description="Predicts from the second moments of real view pairs which features JEPA and MAE encoders learn first.",
        epilog=PREDICT_EXAMPLES,
        formatter_class=raw,
    )
    _add_predict_arguments(predict)

    reproduce = commands.add_parser(
        "reproduce",
        help="compute a figure of a paper and check its claims",
        description="Computes a figure of a paper, theory and simulation side by side, and checks the paper's claims.",
        epilog=REPRODUCE_EXAMPLES,
        formatter_class=raw,
    )
    reproduce.add_argument("name", metavar="NAME", help="what to reproduce, e.g. littwin2024.fig2")
    reproduce.add_argument("--out", metavar="DIR", required=True, help="folder to write to; made if missing")
    reproduce.add_argument("--full", action="store_true", help="the full resolution instead of the quick one")
    reproduce.add_argument("--key", type=seed, metavar="N", help="seed of the random numbers, where there are any")
    if arguments and arguments[0] == "reproduce":
        _add_figure_options(reproduce, arguments[1:])

    commands.add_parser(
        "list",
        help="list the figures that can be reproduced",
        description="Lists the figures and tables that can be reproduced.",
        epilog=LIST_EXAMPLES,
        formatter_class=raw,
    )
    cli_sweep.add_commands(commands)
    return parser


_DESCRIPTION = (
    "Learning dynamics of joint-embedding self-supervised learning (JEPA, MAE): predictions, reproductions, sweeps."
)


def _add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "path",
        metavar="PATH",
        nargs="?",
        help="image, folder of images, or CIFAR/STL-10 folder; default: two photographs",
    )
    add("--out", metavar="DIR", required=True, help="folder to write to; made if missing")
    add(
        "--view",
        choices=("crop", "shift", "mask"),
        default="crop",
        help="how the two views of an image differ (default: crop)",
    )
    add("--patch", type=count, default=8, metavar="P", help="side of the views in pixels (default: 8)")
    add("--pairs", type=count, default=50_000, metavar="N", help="number of view pairs (default: 50000)")
    add("--colour", action="store_true", help="keep the three colours instead of the luminance")
    add("--max-images", type=count, metavar="N", help="read only the first N images")
    add(
        "--depths",
        type=numbers,
        default=(1.0, 2.0, 3.0, 5.0),
        metavar="L,L,...",
        help="encoder depths (default: 1,2,3,5)",
    )
    add("--eps", type=positive, default=1e-3, help="amplitude of every feature at initialisation (default: 1e-3)")
    add("--features", type=count, default=10, metavar="K", help="how many features to print and draw (default: 10)")
    add("--key", type=seed, default=0, metavar="N", help="seed of the view pairs (default: 0)")


def _find(name: str) -> "Item":
    """The figure of this name.

    Raises:
        ValueError: there is none; says which name is close.
    """
    from jepa_dyn.papers import available

    items = available()
    if name in items:
        return items[name]
    close = difflib.get_close_matches(name, items, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else "`jepa-dyn list` prints the names."
    raise ValueError(f"no figure or table is called {name!r}; {hint}")


def _add_figure_options(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Options of the figure that the arguments name, wherever the name stands among them."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    if not words:
        return
    from jepa_dyn.papers import available

    name = next((word for word in words if word in available()), None)
    if name is None:
        if arguments[0] == words[0]:
            _find(words[0])
        return
    group = parser.add_argument_group(f"options of {name}")
    for option, parameter in _find(name).options.items():
        flag, default = f"--{option.replace('_', '-')}", parameter.default
        text = f"default: {default or 'none' if isinstance(default, str) else format(default, 'g')}"
        group.add_argument(flag, type=type(default), default=default, help=text)


def _list() -> int:
    from jepa_dyn.papers import available

    items = available()
    width = max(len(name) for name in items)
    for name, item in items.items():
        print(f"{name:<{width}}  {item.title}")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from jepa_dyn.papers import checks
    from jepa_dyn.papers.table import check_summary, check_table

    item = _find(options.name)
    require_packages("xarray", "zarr", "matplotlib")
    out = _writable_folder(options.out)
    given = {name: getattr(options, name) for name in item.options}
    if item.takes_key:
        given["key"] = options.key or 0
    elif options.key is not None:
        print(f"note: {options.name} uses no random numbers, --key changes nothing", file=sys.stderr)
    print(f"{options.name}: {item.title}", flush=True)
    dataset = item.compute(full=options.full, **given)
    found = checks(dataset)
    _write(dataset, out)
    _draw(item.plot(dataset), out)
    (out / "checks.json").write_text(
        json.dumps([asdict(check) for check in found], indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"\n{check_table(found)}\n\n{check_summary(found)}")
    _wrote(out, "data.zarr", "figure.png", "checks.json")
    return 0 if all(check.as_expected for check in found) else 1


def _predict(options: argparse.Namespace) -> int:
    require_packages("xarray", "zarr", "matplotlib", *(("sklearn",) if options.path is None else ()), "PIL")
    out = _writable_folder(options.out)
    from jepa_dyn.moments import load_images
    from jepa_dyn.predict import plot_prediction, predict_from_images, report

    images = load_images(options.path, max_images=options.max_images)
    source = "scikit-learn's two photographs" if options.path is None else _counted(len(images), options.path)
    dataset = predict_from_images(
        images,
        views=_view(options),
        num_pairs=options.pairs,
        key=options.key,
        grayscale=not options.colour,
        depths=options.depths,
        eps=options.eps,
        source=source,
    )
    print(report(dataset, options.features))
    _write(dataset, out)
    _draw(plot_prediction(dataset, num_features=options.features), out)
    _wrote(out, "data.zarr", "figure.png")
    return 0


def _view(options: argparse.Namespace) -> Any:
    from jepa_dyn.predict import view_kind

    return view_kind(options.view, options.patch)


def _counted(count: int, path: str) -> str:
    return f"{count} image{'' if count == 1 else 's'} in {Path(path).name or path}"


def _writable_folder(path: str) -> Path:
    """The folder, made if missing; tried before any work is done.

    Raises:
        ValueError: it is a file or cannot be written to.
    """
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out must be a folder, but {str(folder)!r} is a file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to the folder {str(folder)!r}: {error.strerror or error}") from None
    return folder


def _write(dataset: "xarray.Dataset", out: Path) -> None:
    with warnings.catch_warnings():
        # zarr says that its type for texts is not part of the v3 specification yet; xarray and zarr read it back
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        dataset.to_zarr(out / "data.zarr", mode="w", zarr_format=3, consolidated=False)


def _draw(figure: Any, out: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(out / "figure.png", dpi=150)
    pyplot.close(figure)


def _wrote(out: Path, *names: str) -> None:
    print("\nwrote " + ", ".join(str(out / name) for name in names))


def _setup() -> None:
    """What a program, unlike a library, may decide: float64, and figures without a screen."""
    import jepa_dyn

    jepa_dyn.enable_x64()
    import importlib.util

    if importlib.util.find_spec("matplotlib") is not None:
        import matplotlib

        matplotlib.use("Agg")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _run(arguments: Sequence[str]) -> int:
    parser = _parser(arguments)
    options = parser.parse_args(arguments)
    if options.version:
        import jepa_dyn

        print(f"jepa-dyn {jepa_dyn.__version__}")
        return 0
    if options.command is None:
        parser.error("a command is missing: predict, reproduce, list or sweep")
    _setup()
    if options.command in cli_sweep.COMMANDS:
        return cli_sweep.run(options)
    if options.command == "list":
        return _list()
    return _reproduce(options) if options.command == "reproduce" else _predict(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments (of the process by default) and returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = " ".join(["jepa-dyn", *arguments[:1]]) if arguments and not arguments[0].startswith("-") else "jepa-dyn"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _show_warning
            return _run(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:
        # the reader, such as `head`, has seen enough; Python would complain once more when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"{command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
