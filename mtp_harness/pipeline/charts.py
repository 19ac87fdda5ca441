"""Figures of results: `mtp-harness figures`, in a process of its own."""

import subprocess
import sys
from pathlib import Path

_LONGEST = 300
"""Characters of an error that are passed on."""


def draw(results: Path, charts: Path) -> list[Path]:
    """Draw every figure that the results below a folder allow.

    Args:
        results: folder, read with all that is below it.
        charts: folder for the figures.

    Returns:
        What was written, sorted.

    Raises:
        ValueError: the figures could not be drawn.
    """
    command = [sys.executable, "-m", "mtp_harness.cli", "figures", str(results), "-o", str(charts)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ValueError(f"`mtp-harness figures {results}` ended with: {said[:_LONGEST]}")
    return sorted(path for path in charts.rglob("*") if path.is_file())
