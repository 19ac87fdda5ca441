"""Runs cells, one process after the other; what fails is reported and the rest goes on."""

import fcntl
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mtp_harness.pipeline.cell import LOG_FILE, Cell
from mtp_harness.pipeline.results import Results, complete_results, remove_results
from mtp_harness.sandbox.linux import die_with_parent

N_LAST_LINES = 3
"""Of a failed cell's log, on the screen."""


class Outcome(NamedTuple):
    """What became of a cell: its results, or one sentence and the last lines of its log."""

    cell: Cell
    results: Results | None
    failure: str = ""


def run_cells(cells: Sequence[Cell], say: Callable[[str], None]) -> list[Outcome]:
    """Run what is not finished yet, in order.

    Args:
        cells: of one suite.
        say: gets a line when a cell begins and one when it ends.

    Raises:
        ValueError: a cell's folder belongs to other settings; nothing has run then.
    """
    found = [cell.finished() for cell in cells]
    outcomes = []
    for number, (cell, results) in enumerate(zip(cells, found, strict=True), 1):
        name = f"[{number:>{len(str(len(cells)))}}/{len(cells)}] {cell.label}  {cell.task}"
        if results is not None:
            say(f"{name}  finished before")
            outcomes.append(Outcome(cell, results))
            continue
        say(f"{name}  running, {cell.folder / LOG_FILE}")
        began = time.monotonic()
        outcome = run_cell(cell)
        took = duration(time.monotonic() - began)
        say(f"{name}  {'FAILED' if outcome.failure else 'finished'} after {took}")
        if outcome.failure:
            say(outcome.failure)
        outcomes.append(outcome)
    return outcomes


def run_cell(cell: Cell) -> Outcome:
    """Run one cell to its end."""
    cell.begin()
    remove_results(cell.folder)
    log = cell.folder / LOG_FILE
    with log.open("w", encoding="utf-8") as file:
        file.write(f"{shlex.join(cell.command())}\n")
        file.flush()
        # Without this, a killed suite leaves a process behind that holds the cell's journal.
        process = subprocess.Popen(
            cell.command(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )
        status = process.wait()
    results = complete_results(cell.folder, cell.task)
    if status == 0 and results is not None:
        return Outcome(cell, results)
    ended = f"ended with status {status}" if status else "wrote no complete results"
    lines = "".join(f"\n    {line}" for line in last_lines(log))
    return Outcome(cell, None, f"  lm_eval {ended}; {log} ends:{lines}")


def last_lines(log: Path, n: int = N_LAST_LINES) -> list[str]:
    """Return a log's last lines that say something; of a progress bar, its last state."""
    text = log.read_bytes().decode(errors="replace")
    shown = (line.rstrip().rsplit("\r", 1)[-1] for line in text.split("\n"))
    lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line) for line in shown if line.strip()]
    return lines[-n:]


def duration(seconds: float) -> str:
    """Return a time as one reads it: `9 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def only_one(output: Path) -> Iterator[None]:
    """Keep other suites out of an output folder.

    Raises:
        ValueError: one is in it already.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{output} is in use by another suite: wait for it, or choose another folder"
            ) from None
        yield
