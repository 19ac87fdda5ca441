"""What the commands that print tables share: arguments, rows as JSON, rows by k."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtp_harness.commands.arguments import Parser
from mtp_harness.files import write_whole


def parse(
    argv: Sequence[str], name: str, description: str, files: str, example: str, **options: str
) -> argparse.Namespace:
    """Return the arguments of a command that reads results and can write its rows into a file.

    Args:
        argv: The command's arguments.
        name: Its name.
        description: What it does.
        files: What it reads, such as `results_….json`.
        example: Arguments for the example in its help.
        options: Its own options that take a text, each with its help.
    """
    parser = Parser(name, description, example)
    parser.results(files)
    for option, about in options.items():
        parser.add_argument(f"--{option}", help=about)
    about = "write the rows into this file, too (default: to the screen alone)"
    parser.path("--json", metavar="FILE", about=about)
    return parser.parse_args(argv)


def show(lines: Iterable[str], rows: Iterable[Any], target: Path | None) -> None:
    """Print lines; if a file is asked for, write the named tuples that they show into it."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if target:
        write_whole(target, json.dumps([_plain(row) for row in rows], indent=2) + "\n")


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def by_k(rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Return lines with a label and a cell for each k or head."""
    return "\n".join(f"{label:<34}{''.join(f'{c:>10}' for c in cells)}" for label, cells in rows)


def decoding_rows(
    measured: Mapping[int, Mapping[str, Any]], what: str
) -> Iterator[tuple[str, Any]]:
    """Yield the timings of `model_card.measure_decoding`, by k."""
    rows = measured.values()
    trials = len(measured[1]["wall_s_trials"])
    yield f"tokens/s, {what}", [f"{row['tokens_per_s']:.0f}" for row in rows]
    ranges = [row["tokens_per_s_range"] for row in rows]
    yield f"  lowest to highest of {trials} trials", [f"{a:.0f}-{b:.0f}" for a, b in ranges]
    yield "  speedup over k = 1", [f"{row['speedup']:.2f}" for row in rows]


def acceptance_rows(measured: Mapping[int, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the counts of `model_card.measure_decoding`, by k."""
    rows = measured.values()
    yield "heads used, k", map(str, measured)
    yield "tokens per forward, all answers", [f"{row['tokens_per_forward']:.3f}" for row in rows]
    without = [row["tokens_per_forward_no_loops"] for row in rows]
    label = f"  without the {measured[1]['n_looping']} that loop"
    yield label, ["-" if one is None else f"{one:.3f}" for one in without]


def _plain(value: Any) -> Any:
    """Return a named tuple as a dict, also those inside it."""
    if not hasattr(value, "_asdict"):
        return value
    return {name: _plain(entry) for name, entry in value._asdict().items()}
