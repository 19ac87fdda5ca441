"""What the commands share that give a study's outcome."""

import argparse
from collections.abc import Sequence

from mtp_harness.files import user_path
from mtp_harness.results.sizes import in_digits


def arguments(text: str | None, argv: Sequence[str]) -> argparse.Namespace:
    """Return `results` and `out` of a command that `text` describes; `out` is None if not given."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("results", type=user_path, help="what the study has written")
    parser.add_argument("-o", "--out", type=user_path, help="folder for the figure and its table")
    return parser.parse_args(argv)


def signed(value: float) -> str:
    """Return a difference in digits, with its sign."""
    return in_digits(value, signed=True)
