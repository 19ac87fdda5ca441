"""What the commands that print tables of scores share: their arguments, and their rows as JSON."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mtp_harness.files import user_path, write_whole


def parse(
    argv: Sequence[str], name: str, description: str, files: str, **options: str
) -> argparse.Namespace:
    """Return the arguments of a command that reads results and can write its rows into a file.

    Args:
        argv: Of the command.
        name: Of the command.
        description: Of the command.
        files: What it reads, such as `results_….json`.
        options: Its own options that take a text, each with its help.
    """
    parser = argparse.ArgumentParser(prog=f"mtp-harness {name}", description=description)
    parser.add_argument("results", nargs="+", help=f"{files} files, or folders of them")
    for option, about in options.items():
        parser.add_argument(f"--{option}", help=about)
    parser.add_argument("--json", type=user_path, help="write the rows into this file, too")
    return parser.parse_args(argv)


def show(lines: Iterable[str], rows: Iterable[Any], target: Path | None) -> None:
    """Print lines, and write the rows that they show into a file where one is asked for.

    Args:
        lines: The text.
        rows: Named tuples; estimates in them become JSON as named tuples do.
        target: The file.
    """
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if target:
        plain = [{name: _plain(value) for name, value in row._asdict().items()} for row in rows]
        write_whole(target, json.dumps(plain, indent=2) + "\n")


def _plain(value: Any) -> Any:
    return value._asdict() if hasattr(value, "_asdict") else value
