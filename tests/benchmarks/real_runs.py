"""Real runs of `lm_eval`, for comparisons: started, read, and compared answer by answer."""

import json
import subprocess
import time
from typing import Any, NamedTuple

SHOWN = 3000
"""Characters at the end of a failed run's output."""


class Failed(Exception):
    """A run that did not end, or not well; with the end of what it wrote."""


class Run(NamedTuple):
    """A finished run: the content of its results, the answers by document, and how long it took."""

    content: dict[str, Any]
    answers: dict[int, Any]
    seconds: float

    @property
    def mtp(self):
        """What the results say of the model and the machine."""
        return self.content["config"]["mtp"]


def run(starts, out, log, seconds=None):
    """Start (command, environment) pairs at once, wait for all, and read what they wrote.

    Args:
        starts: the pairs.
        out: the folder that the results and samples are written into.
        log: a file for what the processes say.
        seconds: how long they may take; None: as long as they like.

    Raises:
        Failed: a process ended with an error, or took longer.
    """
    began = time.perf_counter()
    with log.open("w") as said:
        to = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said}
        started = [subprocess.Popen(command, env=env, **to) for command, env in starts]
        try:
            for one in started:
                left = None if seconds is None else began + seconds - time.perf_counter()
                one.wait(left)
        except subprocess.TimeoutExpired:
            raise Failed(f"not ready after {seconds} s:\n{_end(log)}") from None
        finally:
            for one in started:
                one.terminate()  # has no effect on one that has ended
    ended = [one.returncode for one in started]
    if any(ended):
        raise Failed(f"ended with {ended}:\n{_end(log)}")
    took = time.perf_counter() - began
    [results], [samples] = out.rglob("results_*.json"), out.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    answers = {row["doc_id"]: row["resps"] for row in rows}
    return Run(json.loads(results.read_text()), answers, round(took, 1))


def _end(log):
    return log.read_text(errors="replace")[-SHOWN:]


def compared(one, other):
    """Return how many answers of two runs differ, of the documents that both have."""
    common = sorted(one.keys() & other.keys())
    pairs = [(one[document], other[document]) for document in common]
    return {
        "same_documents": one.keys() == other.keys(),
        "n_documents": len(pairs),
        "n_differing": sum(a != b for a, b in pairs),
        "first_difference": next(([a, b] for a, b in pairs if a != b), None),
    }
