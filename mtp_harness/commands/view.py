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
        argv: Of the command, as the next two are.
        name: As it is called.
        description: What it does.
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
    """Print lines, and write the named tuples that they show into a file where one is asked for."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if target:
        write_whole(target, json.dumps([_plain(row) for row in rows], indent=2) + "\n")


def _plain(value: Any) -> Any:
    """Return a named tuple by its names, and those in it likewise."""
    if not hasattr(value, "_asdict"):
        return value
    return {name: _plain(entry) for name, entry in value._asdict().items()}
