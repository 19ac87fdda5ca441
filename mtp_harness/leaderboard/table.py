"""Runs as one table: a row for each model, a column for each metric of comparable runs.

Runs of a task whose protocols differ (`results.protocol`) never share a column. A task at several
temperatures has a table for each. `mtp-harness leaderboard` refuses other differences; the report
shows such runs in separate columns, and says how they differ.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mtp_harness.leaderboard.board import Board, Column
from mtp_harness.results.documents import Documents, load
from mtp_harness.results.find import read_each
from mtp_harness.results.protocol import Protocol, protocol_of
from mtp_harness.results.run import Model, Run
from mtp_harness.results.schema import QUALITY
from mtp_harness.scoring.bootstrap import Estimate
from mtp_harness.scoring.sample_efficiency import tokens_to_reach

SPEED = "tokens_per_s"
TIMED = re.compile(rf"{SPEED}|(speedup|tokens_per_second)_\d+")
"""Metrics that depend on the machine."""
DECODING = re.compile(
    rf"tokens_per_forward(_no_loops)?(_\d+)?|identical_\d+|{TIMED.pattern}",
)
DATA = "data_needed"
_NO_SCORE = re.compile(r".*_(low|high)90|accept_rate_.*|n_.*|looping|lossy|.*_per_forward.*|bypass")


@dataclass(frozen=True)
class Cell:
    """A run's value of a metric."""

    value: float
    interval: Estimate | None = None  # the same over documents; None if they are not known
    difference: Estimate | None = None  # to the baseline, paired by document; None without one


Cells = dict[tuple[Model, Column], Cell]


@dataclass
class Leaderboard:
    """The whole table."""

    models: list[Model]  # the rows
    cells: Cells  # without entries for what was not measured
    boards: dict[tuple[str, int], Board]  # by (task, index of the protocol)
    baseline: Model | None = None  # the row that the others are compared with
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[Column]:
        """The columns of all boards."""
        return [column for board in self.boards.values() for column in board.columns]

    def conflicts(self) -> list[str]:
        """Return a sentence for each task with runs that cannot be compared."""
        found = []
        first: dict[tuple[str, bool], Board] = {}
        for (task, _), board in self.boards.items():
            its = first.setdefault((task, board.protocol.is_greedy), board)
            if how := its.protocol.differences(board.protocol):
                found.append(
                    f"{task} of {its.runs[0].path} and of {board.runs[0].path} cannot be "
                    f"compared: {'; '.join(how)}"
                )
        return found


def build(runs: Sequence[Run], baseline: str | None = None) -> Leaderboard:
    """Return the leaderboard of runs; tasks with damaged samples are left out and reported.

    The baseline is the label or the whole name of the row that the others are compared with.

    Raises:
        ValueError: Two runs have the same row and task, or no row has the baseline's name.
    """
    boards = boards_of(runs)
    models = sorted({run.model for run in runs}, key=_order)
    _refuse_namesakes(models)
    chosen = _named(models, baseline) if baseline is not None else None
    cells: Cells = {}
    for (_, place), board in boards.items():
        columns = _columns(board, place)
        own = _cells(board, columns, chosen)
        needed = data_needed(own, columns[0]) if columns else {}
        board.columns = [column for column in columns if column.metric != DATA or needed]
        data = [column for column in board.columns if column.metric == DATA]
        own |= {(model, of): Cell(share) for of in data for model, share in needed.items()}
        cells |= own
    notes = [
        *_readings(runs),
        *_unsayable(runs),
        *_without_numbers(boards, cells),
        *_unpaired(boards, chosen),
    ]
    return Leaderboard(models, cells, boards, chosen, notes)


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
    found = [model for model in models if baseline in (model.name, model.whole_name, model.label)]
    if len(found) == 1:
        return found[0]
    rows = found or models
    raise ValueError(
        f"baseline={baseline} names {len(found) or 'no'} rows; expected one of "
        f"{', '.join(repr(model.name) for model in rows)}: write it out"
    )


def boards_of(runs: Sequence[Run]) -> dict[tuple[str, int], Board]:
    """Return runs by task and index of their protocol; damaged samples are reported and left out.

    Raises:
        ValueError: Two runs have the same model, task and protocol.
    """
    by_task: dict[str, list[Board]] = defaultdict(list)
    pairs = [(run, task) for run in runs for task in run.tasks]
    for run, task, documents in read_each(pairs, lambda pair: (*pair, _documents(*pair))):
        protocol = protocol_of(run, task, documents)
        board = next((b for b in by_task[task] if _fits(b.protocol, protocol)), None)
        if board is None:
            board = Board(task, protocol)
            by_task[task].append(board)
        elif not board.protocol.draft_rule:
            board.protocol = protocol  # the first run that drafts gives the draft rule
        if twice := next((other for other in board.runs if other.model == run.model), None):
            raise ValueError(
                f"{twice.path} and {run.path} are both {run.model.name}, {task}, done alike; "
                "expected one: name the files to use, or tell them apart by label=…"
            )
        board.runs.append(run)
        board.documents.append(documents)
    return {(task, i): b for task in sorted(by_task) for i, b in enumerate(by_task[task])}


def _fits(one: Protocol, other: Protocol) -> bool:
    return one.is_same_question(other) and not one.differences(other)


def _documents(run: Run, task: str) -> Documents | None:
    """Return a run's samples of a task; None if it logged none."""
    path = run.samples(task)
    if path is None:
        return None
    documents = load(path)
    run.require_all(task, path, documents.n_documents)
    return documents


def _columns(board: Board, place: int) -> list[Column]:
    """Return the columns of a board: quality first, then decoding, then speed."""
    better: dict[str, bool] = {}
    metrics: dict[tuple[str, str], None] = {}
    for run in board.runs:
        better |= run.told("higher_is_better", board.task) or {}
        metrics |= dict.fromkeys(run.metrics(board.task))
    known = [m for m in metrics if QUALITY.fullmatch(m[0])]
    scores = known or [m for m in metrics if m[0] in better and not _NO_SCORE.fullmatch(m[0])]
    decoding = [m for m in metrics if DECODING.fullmatch(m[0])]
    shown = [*scores, (DATA, ""), *decoding] if scores else decoding
    answers = any(m == "tokens_per_forward" for m, _ in decoding)
    if answers and any(_speed(run) is not None for run in board.runs):
        shown.append((SPEED, ""))
        better = {**better, SPEED: True}
    better = {**better, DATA: False}
    return [Column(board.task, m, f, place, better.get(m)) for m, f in shown]


def _speed(run: Run) -> float | None:
    """Return the tokens that a run decoded per second, all its tasks together."""
    timing = (run.mtp.get("totals") or {}).get("timing") or {}
    speed = timing.get("tokens_per_s")
    return float(speed) if speed is not None else None


def _cells(board: Board, columns: Sequence[Column], baseline: Model | None) -> Cells:
    base = next((i for i, run in enumerate(board.runs) if run.model == baseline), None)
    cells: Cells = {}
    for place, run in enumerate(board.runs):
        stated, speed = board.metrics(place), _speed(run)
        for column in columns:
            name = (column.metric, column.filtered)
            if column.metric == SPEED and speed is not None:
                cells[run.model, column] = Cell(speed)
            elif name in stated and TIMED.fullmatch(column.metric):
                cells[run.model, column] = Cell(stated[name])  # cells of a grid are not a sample
            elif name in stated:
                key = (place, *name)
                over = None if base in (None, place) else board.difference(key, base)
                cells[run.model, column] = Cell(stated[name], board.estimate(key), over)
    return cells


def _without_numbers(boards: Mapping[tuple[str, int], Board], cells: Cells) -> Iterator[str]:
    """Yield runs without a row in their task's table, because all its values are NaN."""
    for (task, _), board in boards.items():
        for run in board.runs if board.columns else ():
            if not any((run.model, column) in cells for column in board.columns):
                yield f"{task}: {run.model.name} has no number (NaN) of what is shown."


def _unpaired(boards: Mapping[tuple[str, int], Board], baseline: Model | None) -> Iterator[str]:
    """Yield the tasks without a difference to the baseline."""
    if baseline is None:
        return
    for (task, _), board in boards.items():
        if all(run.model != baseline for run in board.runs):
            yield f"{task}: no difference, because {baseline.name} did not run it like this."
        elif None in board.documents:
            yield f"{task}: no difference without documents; run with --log_samples."


def _readings(runs: Sequence[Run]) -> Iterator[str]:
    """Yield how sequential heads beyond the first module were read."""
    by_reading: dict[str, dict[str, None]] = defaultdict(dict)
    for run in runs:
        if run.model.n > 2 and (reading := run.mtp.get("reading")):
            by_reading[reading][run.model.label] = None
    if by_reading:
        told = "; ".join(f"{name} ({', '.join(labels)})" for name, labels in by_reading.items())
        yield f"Sequential heads from offset 3 on: {told}."


def _unsayable(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the drafters with a vocabulary smaller than the trunk's."""
    sizes = {
        run.model.label: f"{run.model.label} ({own:,} tokens)"
        for run in runs
        if (own := run.mtp.get("draft_vocabulary"))
    }
    if sizes:
        yield (
            "Bits per byte from offset 2 on are over the tokens in a drafter's vocabulary, and "
            f"cannot be compared, for: {'; '.join(sizes.values())}."
        )


def data_needed(cells: Cells, first: Column) -> dict[Model, float]:
    """Return the sample efficiency of a board, by the first of its columns.

    That is, for each family's last checkpoint: the tokens at which it reaches the score of the last
    n = 1 checkpoint of its size (within 10 %), ÷ the tokens of that checkpoint. A family is a
    model with n > 1 heads at several training tokens: with one label, or else of one size. Families
    that never reach the score, or have it at their first checkpoint, are left out.
    """
    sign = -1 if first.higher_is_better is False else 1
    scores = {model: sign * cell.value for (model, at), cell in cells.items() if at == first}
    found = {}
    for family in _families(scores):
        last = family[-1]
        alike = [m for m in scores if m.n == 1 and m.train_tokens and m.is_as_large_as(last)]
        target = max(alike, key=_tokens, default=None)
        if target is not None:
            points = [(float(_tokens(model)), scores[model]) for model in family]
            tokens = tokens_to_reach(points, scores[target])
            if tokens is not None:
                found[last] = tokens / _tokens(target)
    return found


def _families(models: Mapping[Model, float]) -> list[list[Model]]:
    """Return the checkpoints of each model, by training tokens; one k for each."""
    told = [model for model in models if model.n > 1 and model.train_tokens is not None]
    one_k = {model.text: model for model in sorted(told, key=lambda model: model.k)}
    by_label: dict[object, list[Model]] = defaultdict(list)
    by_size: dict[object, list[Model]] = defaultdict(list)
    for model in one_k.values():
        by_label[model.label, model.n, model.train_seed].append(model)
    families = []
    for family in by_label.values():
        if len(family) > 1:
            families.append(family)
        else:
            by_size[family[0].n, family[0].parameters, family[0].train_seed] += family
    return [sorted(family, key=_tokens) for family in (*families, *by_size.values())]


def _tokens(model: Model) -> int:
    return model.train_tokens or 0
