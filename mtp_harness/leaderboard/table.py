"""Runs as one table: a row for each model, a column for each metric of comparable runs.

Runs of a task whose protocols differ never share a column. `mtp-harness leaderboard` refuses them;
the report shows them in columns of their own, and says how they differ.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from mtp_harness.leaderboard.efficiency import data_needed
from mtp_harness.leaderboard.scores import Key, Scores
from mtp_harness.results.documents import Documents, load
from mtp_harness.results.find import read_each
from mtp_harness.results.protocol import Protocol, protocol_of
from mtp_harness.results.run import Model, Run
from mtp_harness.scoring.bootstrap import Estimate

QUALITY = re.compile(
    r"pass(@|_at_)\d+(_sampled)?|exact_match|acc(_norm)?|rouge(1|2|L)_f1"
    r"|(\w+_)?(accuracy|bits_per_byte|tf_agree|effective_horizon|perplexity|text_walk_\w+)(_\d+)?"
)
SPEED = "tokens_per_s"
TIMED = rf"{SPEED}|(speedup|tokens_per_second)_\d+"
DECODING = re.compile(rf"tokens_per_forward(_no_loops)?(_\d+)?|identical_\d+|{TIMED}")
DATA = "data_needed"
_NO_SCORE = re.compile(r".*_(low|high)90|accept_rate_.*|n_.*|looping|lossy|.*_per_forward.*|bypass")


def is_timed(metric: str) -> bool:
    """Return whether a metric depends on the machine."""
    return re.fullmatch(TIMED, metric) is not None


class Column(NamedTuple):
    """One metric of one task, under one protocol.

    Attributes:
        task: Name of the task.
        metric: As the harness names it; `SPEED` for what the run decoded in its time.
        filtered: The harness's filter.
        protocol: Place of the protocol among the task's.
        higher_is_better: None where nothing says so.
    """

    task: str
    metric: str
    filtered: str
    protocol: int
    higher_is_better: bool | None


@dataclass(frozen=True)
class Cell:
    """What a run measured.

    Attributes:
        value: Of the metric.
        interval: The same with its 90 % interval over documents; None where documents are unknown.
        difference: To the baseline, paired by document; None for the baseline and without one.
    """

    value: float
    interval: Estimate | None = None
    difference: Estimate | None = None


@dataclass
class Board:
    """One task under one protocol, and the runs that did it so."""

    task: str
    protocol: Protocol
    runs: list[tuple[Run, Documents | None]]

    def metrics(self, place: int) -> dict[tuple[str, str], float]:
        """Return what the run at a place states, by (metric, filter); nothing that is NaN."""
        stated = self.runs[place][0].metrics(self.task)
        return {name: value for name, value in stated.items() if value == value}

    @cached_property
    def scores(self) -> Scores:
        """The replicates of all its runs."""
        stated, scores = {}, {}
        for place, (_, documents) in enumerate(self.runs):
            for (metric, filtered), value in self.metrics(place).items():
                key = Key(place, metric, filtered)
                stated[key] = value
                if documents and (metric, filtered) in documents.scores:
                    scores[key] = documents.scores[metric, filtered]
        return Scores(scores, stated)


@dataclass
class Leaderboard:
    """The whole table.

    Attributes:
        models: The rows.
        columns: In order: by task, protocol, and what a reader looks for first.
        cells: By (row, column); absent where nothing was measured.
        boards: The runs behind each (task, place of the protocol).
        baseline: The row that differences are over; None without one.
    """

    models: list[Model]
    columns: list[Column]
    cells: dict[tuple[Model, Column], Cell]
    boards: dict[tuple[str, int], Board]
    baseline: Model | None = None
    notes: list[str] = field(default_factory=list)

    def conflicts(self) -> list[str]:
        """Return how the runs of a task differ that cannot be compared, one sentence each."""
        found = []
        for (task, place), board in self.boards.items():
            if place:
                first = self.boards[task, 0]
                how = first.protocol.differences(board.protocol)
                found.append(
                    f"{task} of {first.runs[0][0].path} and of {board.runs[0][0].path} cannot be "
                    f"compared: {'; '.join(how)}"
                )
        return found


def build(runs: Sequence[Run], baseline: str | None = None) -> Leaderboard:
    """Return the leaderboard of runs; where samples are damaged, their task is left out and named.

    Args:
        runs: In any order.
        baseline: Label or whole name of the row that differences are over.

    Raises:
        ValueError: Two runs are one row's for one task, or no row is called like the baseline.
    """
    boards = _boards(runs)
    models = sorted({run.model for run in runs}, key=_order)
    _refuse_namesakes(models)
    chosen = _named(models, baseline) if baseline is not None else None
    columns: list[Column] = []
    cells: dict[tuple[Model, Column], Cell] = {}
    for (_, place), board in boards.items():
        found = _columns(board, place)
        cells |= _cells(board, found, chosen)
        needed = _data_needed(found, cells)
        cells |= needed
        columns += [column for column in found if column.metric != DATA or needed]
    notes = [] if chosen is None else _unpaired(boards, cells, chosen)
    return Leaderboard(models, columns, cells, boards, chosen, notes)


def _refuse_namesakes(models: Sequence[Model]) -> None:
    for one, other in pairwise(sorted(models, key=lambda model: model.name)):
        if one.name == other.name:
            raise ValueError(
                f"two models are called {one.name} (n = {one.n} and {other.n}; {one.parameters} "
                f"and {other.parameters} parameters), expected one: tell them apart by label=…"
            )


def _order(model: Model) -> tuple[object, ...]:
    told = (model.train_tokens, model.train_step, model.train_seed)
    return (model.label, model.n, *(-1 if value is None else value for value in told), model.k)


def _named(models: Sequence[Model], baseline: str) -> Model:
    found = [model for model in models if baseline in (model.name, model.label)]
    if len(found) == 1:
        return found[0]
    rows = found or models
    raise ValueError(
        f"baseline={baseline} names {len(found) or 'no'} rows; expected one of "
        f"{', '.join(repr(model.name) for model in rows)}: write it out"
    )


def _boards(runs: Sequence[Run]) -> dict[tuple[str, int], Board]:
    by_task: dict[str, list[Board]] = defaultdict(list)
    pairs = [(run, task) for run in runs for task in run.tasks]
    for run, task, documents in read_each(pairs, lambda pair: (*pair, _documents(*pair))):
        protocol = protocol_of(run, task, documents)
        board = next((b for b in by_task[task] if _fits(b, protocol)), None)
        if board is None:
            board = Board(task, protocol, [])
            by_task[task].append(board)
        elif not board.protocol.draft_rule:
            board.protocol = protocol  # the first run that drafts says by what rule
        _refuse_twice(board, run)
        board.runs.append((run, documents))
    return {(task, i): b for task in sorted(by_task) for i, b in enumerate(by_task[task])}


def _documents(run: Run, task: str) -> Documents | None:
    """Return what a run's samples say of its documents; None where it logged none.

    Raises:
        ValueError: They are damaged, or not those of the results file.
    """
    path = run.samples(task)
    if path is None:
        return None
    documents = load(path)
    run.require_all(task, path, documents.n_documents)
    return documents


def _fits(board: Board, protocol: Protocol) -> bool:
    return not board.protocol.differences(protocol)


def _refuse_twice(board: Board, run: Run) -> None:
    for other, _ in board.runs:
        if other.model == run.model:
            raise ValueError(
                f"{other.path} and {run.path} are both {run.model.name}, {board.task}, done alike; "
                "expected one: name the files to use, or tell them apart by label=…"
            )


def _columns(board: Board, place: int) -> list[Column]:
    """Return the columns of a board: quality first, then decoding, then speed."""
    better: dict[str, bool] = {}
    metrics: dict[tuple[str, str], None] = {}
    for run, _ in board.runs:
        better |= (run.content.get("higher_is_better") or {}).get(board.task) or {}
        metrics |= dict.fromkeys(run.metrics(board.task))
    known = [m for m in metrics if QUALITY.fullmatch(m[0])]
    scores = known or [m for m in metrics if m[0] in better and not _NO_SCORE.fullmatch(m[0])]
    decoding = [m for m in metrics if DECODING.fullmatch(m[0])]
    shown = [*scores, (DATA, ""), *decoding] if scores else decoding
    better = {**better, DATA: False}
    answers = any(m == "tokens_per_forward" for m, _ in decoding)
    if answers and any(_speed(run) is not None for run, _ in board.runs):
        shown.append((SPEED, ""))
        better = {**better, SPEED: True}
    return [Column(board.task, m, f, place, better.get(m)) for m, f in shown]


def _speed(run: Run) -> float | None:
    """Return the tokens that a run decoded per second, all its tasks together."""
    timing = (run.mtp.get("totals") or {}).get("timing") or {}
    speed = timing.get("tokens_per_s")
    return float(speed) if speed is not None else None


def _cells(
    board: Board, columns: Sequence[Column], baseline: Model | None
) -> dict[tuple[Model, Column], Cell]:
    base = next((i for i, (run, _) in enumerate(board.runs) if run.model == baseline), None)
    cells: dict[tuple[Model, Column], Cell] = {}
    for place, (run, _) in enumerate(board.runs):
        stated = board.metrics(place)
        for column in columns:
            name = (column.metric, column.filtered)
            if name in stated and is_timed(column.metric):  # cells of a grid are no sample of one
                cells[run.model, column] = Cell(stated[name])
            elif name in stated:
                key = Key(place, *name)
                over = None if base in (None, place) else Key(base, *name)
                difference = None if over is None else board.scores.difference(key, over)
                cells[run.model, column] = Cell(
                    stated[name], board.scores.estimate(key), difference
                )
    for run, _ in board.runs:
        speed = _speed(run)
        for column in columns:
            if column.metric == SPEED and speed is not None:
                cells[run.model, column] = Cell(speed)
    return cells


def _data_needed(
    columns: Sequence[Column], cells: Mapping[tuple[Model, Column], Cell]
) -> dict[tuple[Model, Column], Cell]:
    """Return the sample efficiency of a board, by the first of its metrics."""
    place = next((i for i, column in enumerate(columns) if column.metric == DATA), None)
    if place is None:
        return {}
    first = columns[0]
    scores = {model: cell.value for (model, column), cell in cells.items() if column == first}
    needed = data_needed(scores, first.higher_is_better is not False)
    return {(model, columns[place]): Cell(share) for model, share in needed.items()}


def _unpaired(
    boards: dict[tuple[str, int], Board],
    cells: dict[tuple[Model, Column], Cell],
    baseline: Model,
) -> list[str]:
    """Say for which tasks there is no difference to the baseline."""
    notes = []
    for (task, _), board in boards.items():
        if all(run.model != baseline for run, _ in board.runs):
            notes.append(f"{task}: no difference, {baseline.name} did not run it like this.")
        elif any(documents is None for _, documents in board.runs):
            notes.append(f"{task}: no difference without documents; run with --log_samples.")
    return notes
