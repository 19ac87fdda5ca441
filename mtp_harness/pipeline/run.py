"""Runs cells, one process after the other; a failure is reported and the other cells run."""

import fcntl
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from mtp_harness.pipeline.cell import LOG_FILE, Cell
from mtp_harness.pipeline.estimate import about
from mtp_harness.pipeline.results import complete_results, remove_results
from mtp_harness.results.result_file import ResultFile
from mtp_harness.sandbox.linux import die_with_parent

N_LAST_LINES = 3
"""Lines of a failed cell's log on the screen."""


class Outcome(NamedTuple):
    """The outcome of a cell: its results, or one sentence and the last lines of its log."""

    cell: Cell
    results: ResultFile | None
    failure: str = ""


class Process(AbstractContextManager["Process"]):
    """A process that runs cells; it starts with the first one, and again after a failed one."""

    def __init__(self) -> None:
        self._worker: subprocess.Popen[str] | None = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let it end, and wait for that: the next process may need its memory."""
        if self._worker is not None:
            assert self._worker.stdin is not None
            self._worker.stdin.close()
            if kind is not None:  # interrupted: its cell resumes when the suite is started again
                self._worker.kill()
            self._worker.wait()

    def run(self, cell: Cell) -> int:
        """Run a cell; return 0, or the status that the process ended with."""
        if self._worker is not None and self._worker.poll() is not None:
            self._worker = None  # it died after its last cell had finished
        # Without `die_with_parent`, a killed suite leaves a process behind that holds the cell's
        # journal.
        worker = self._worker = self._worker or subprocess.Popen(
            [sys.executable, "-m", "mtp_harness.pipeline.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
            text=True,
        )
        assert worker.stdin is not None and worker.stdout is not None
        asked = {
            "arguments": cell.arguments(),
            "of_harness": cell.of_harness,
            "log": str((cell.folder / LOG_FILE).absolute()),
        }
        with suppress(BrokenPipeError):  # it has just died: no line will come back
            worker.stdin.write(json.dumps(asked) + "\n")
            worker.stdin.flush()
        if worker.stdout.readline():
            return 0
        self._worker = None
        return worker.wait() or 1


def processes(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return cells by the process that they share, those with their own process last.

    So no process holds a model while another one measures speed.
    """
    shared: dict[str, list[Cell]] = {}
    own = []
    for cell in cells:
        if cell.process is None:
            own.append([cell])
        else:
            shared.setdefault(cell.process, []).append(cell)
    return [*shared.values(), *own]


def run_cells(cells: Sequence[Cell], say: Callable[[str], None]) -> list[Outcome]:
    """Run the cells that are not finished yet, model by model.

    Args:
        cells: of one suite.
        say: gets a line when a cell begins and one when it ends.

    Returns:
        The outcomes, in the order of the cells.

    Raises:
        ValueError: a cell's folder belongs to other settings; nothing has run.
    """
    names = _names(cells)
    outcomes = {}
    for cell in cells:
        if results := cell.finished():
            outcomes[cell.folder] = Outcome(cell, results)
    for folder in outcomes:
        say(f"{names[folder]}  finished before")
    todo = processes([c for c in cells if c.folder not in outcomes and not c.given_by])
    say(_announced(cells, len(outcomes), todo))
    for some in todo:
        with Process() as process:
            for cell in some:
                outcomes[cell.folder] = _reported(cell, process, names[cell.folder], say)
    for cell in cells:
        if cell.folder not in outcomes and (giver := cell.given_by):
            say(f"{names[cell.folder]}  same results as {giver.label}: draft_heads has no effect")
            outcomes[cell.folder] = outcomes[giver.folder]._replace(cell=cell)
    return [outcomes[cell.folder] for cell in cells]


def _announced(cells: Sequence[Cell], n_finished: int, todo: Sequence[Sequence[Cell]]) -> str:
    """Return a line that says what will run, and about how long."""
    n_todo = sum(map(len, todo))
    n_given = len(cells) - n_finished - n_todo
    parts = [f"{n_finished} finished before"] if n_finished else []
    parts += [f"{n_given} with the results of another"] if n_given else []
    parts += [f"{n_todo} to run in {len(todo)} process{'es' * (len(todo) != 1)}"]
    seconds = about(todo)
    if todo:
        known = "how long is not known for such models and tasks"
        parts += [known if seconds is None else f"about {duration(seconds)} on 2 idle cores"]
    return f"{len(cells)} cell{'s' * (len(cells) != 1)}: {', '.join(parts)}"


def _reported(cell: Cell, process: Process, name: str, say: Callable[[str], None]) -> Outcome:
    """Run one cell and say so."""
    say(f"{name}  running, {cell.folder / LOG_FILE}")
    began = time.monotonic()
    outcome = run_cell(cell, process)
    took = duration(time.monotonic() - began)
    say(f"{name}  {'FAILED' if outcome.failure else 'finished'} after {took}")
    if outcome.failure:
        say(outcome.failure)
    return outcome


def _names(cells: Sequence[Cell]) -> dict[Path, str]:
    """Return each cell's name on the screen."""
    width = len(str(len(cells)))
    return {
        cell.folder: f"[{number:>{width}}/{len(cells)}] {cell.label}  {cell.task}"
        for number, cell in enumerate(cells, 1)
    }


def run_cell(cell: Cell, process: Process) -> Outcome:
    """Run one cell to its end."""
    cell.begin()
    remove_results(cell.folder)
    log = cell.folder / LOG_FILE
    log.write_text(f"{shlex.join(cell.command())}\n", encoding="utf-8")
    status = process.run(cell)
    results = complete_results(cell.folder, cell.task)
    if status == 0 and results is not None:
        return Outcome(cell, results)
    ended = f"ended with status {status}" if status else "wrote no complete results"
    lines = "".join(f"\n    {line}" for line in last_lines(log))
    return Outcome(cell, None, f"  lm_eval {ended}; {log} ends:{lines}")


def last_lines(log: Path, n: int = N_LAST_LINES) -> list[str]:
    """Return a log's last lines that are not empty; of a progress bar, its last state."""
    text = log.read_bytes().decode(errors="replace")
    shown = (line.rstrip().rsplit("\r", 1)[-1] for line in text.split("\n"))
    lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line) for line in shown if line.strip()]
    return lines[-n:]


def duration(seconds: float) -> str:
    """Return a time for people: `9 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def only_one(output: Path) -> Iterator[None]:
    """Lock an output folder against other suites.

    Raises:
        ValueError: another suite uses it.
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
