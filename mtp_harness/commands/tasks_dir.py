"""`mtp-harness tasks-dir`: the folder with our task YAMLs, for `lm_eval --include_path`."""

import argparse
import sys
from collections.abc import Sequence

from mtp_harness import tasks_dir


def main(argv: Sequence[str]) -> int:
    """Run the command; it takes no arguments but `--help`."""
    argparse.ArgumentParser(
        prog="mtp-harness tasks-dir",
        description="Print the folder with the task YAMLs.",
        epilog='example: lm_eval --include_path "$(mtp-harness tasks-dir)" --tasks humaneval_mtp …',
    ).parse_args(argv)
    sys.stdout.write(f"{tasks_dir()}\n")
    return 0
