"""A process that runs cells of one model, one after the other: imports and weights load once.

    suite ─ {"arguments": […], "log": FILE, …} ─▶ this process    a line on stdin for each cell
          ◀───────────── finished ──────────────                  a line on stdout when it has ended

A cell's output goes to its log. A cell that fails ends the process, as it ends `lm_eval`, so that
it cannot affect another cell.
"""

import gc
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch


def main() -> None:
    """Run cells until there are no more."""
    asked, said = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # programs that are started here read nothing
    for line in asked:
        cell = json.loads(line)
        log = os.open(cell["log"], os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        _run(cell["arguments"], cell["of_harness"])
        sys.stdout.flush()  # into this cell's log
        said.write("finished\n")
        said.flush()


def _run(arguments: list[str], of_harness: bool) -> None:
    """Run one `lm_eval`, and keep nothing of it but the weights and the task index."""
    # Imported late, so that what starting prints, or why it fails, is in the first cell's log.
    from mtp_harness import _startup
    from mtp_harness.models import kept

    _startup.install()
    kept.keep()
    import torch
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm_eval", *arguments]  # the harness reads its arguments from here only
    with index_read_once(of_harness):
        cli_evaluate()
    gc.collect()
    torch.cuda.empty_cache()  # of a GPU that is in use; nothing happens without one


_indexes: dict[tuple[Path, ...], dict[str, Any]] = {}


@contextmanager
def index_read_once(of_harness: bool) -> Iterator[None]:
    """Make the harness read each index of tasks once in a process, its own only for its own tasks.

    Its own covers 14,000 files, which takes longer than most cells.
    """
    import lm_eval.tasks
    from lm_eval.tasks._index import TaskIndex

    build, own = TaskIndex.build, Path(lm_eval.tasks.__file__).parent

    def once(paths: Iterable[Path], **how: Any) -> dict[str, Any]:
        asked = tuple(path for path in paths if of_harness or path != own)
        if asked not in _indexes:
            _indexes[asked] = build(asked, **how)
        return _indexes[asked]

    with patch.object(TaskIndex, "build", staticmethod(once)):
        yield


if __name__ == "__main__":
    main()
