"""Applies `results.protocol` to the rows of a figure: may they stand side by side?"""

from collections.abc import Iterator

import pandas as pd

from mtp_harness.results.protocol import Protocol, protocol_of
from mtp_harness.results.samples import family_of
from mtp_harness.results.tidy import Results


def refuse_differences(own: pd.DataFrame, results: Results) -> None:
    """Refuse rows of runs whose ways of doing a task cannot be compared.

    Raises:
        ValueError: There are such rows.
    """
    first: dict[tuple[str, bool], tuple[str, Protocol]] = {}
    for name, task, protocol in _protocols(own, results):
        other, its = first.setdefault((task, protocol.is_greedy), (name, protocol))
        if how := its.differences(protocol):
            raise ValueError(
                f"its runs of {task} cannot be compared ({'; '.join(how)}: {other} and {name}), "
                "expected runs that differ in their models alone: run again, or leave some out"
            )


def _protocols(own: pd.DataFrame, results: Results) -> Iterator[tuple[str, str, Protocol]]:
    """Yield file, family of tasks and protocol of each run behind rows."""
    for _, one in own[["run", "task"]].drop_duplicates().iterrows():
        if pd.isna(one["run"]):
            continue
        named = str(one["task"]).split("+")
        for file in (results.files[run] for run in one["run"].split()):
            for task in file.tasks:
                if family_of(task) in named:
                    yield file.name, family_of(task), protocol_of(file, task)
