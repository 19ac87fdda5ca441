"""Two runs, BASE and CANDIDATE: differences paired by document, for `mtp-harness compare`.

A difference is the candidate's metric minus the base's. Both are pooled over the same documents,
and its 90 % interval draws those documents with replacement (`scoring.bootstrap`). Documents differ
far more than two models on one document, so the interval of the difference is much narrower than
those of the two metrics.

    code_tf_agree_2 of mtp_heads    category code, measure tf_agree, offset 2
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mtp_harness.leaderboard.board import Board
from mtp_harness.leaderboard.table import boards_of
from mtp_harness.leaderboard.text import Rows, aligned, wrapped
from mtp_harness.leaderboard.verdicts import better_or_worse
from mtp_harness.results.run import Run
from mtp_harness.results.sizes import in_digits

_MEASURES = re.compile(
    r"(?:(?P<category>.+?)_)?(?P<measure>pass@\d+(?:_sampled)?|pass_at_\d+|exact_match|acc_norm|acc|"
    r"rouge(?:1|2|L)_f1|(?:chained_)?accuracy(?:_cond)?|bits_per_byte|tf_agree|tf_prefix|"
    r"(?:text_walk_)?tokens_per_forward(?:_no_loops)?|accept_rate_(?:prefix|cond)|"
    r"(?:token|byte|word)_perplexity)(?:_(?P<offset>\d+))?"
)
_REQUIRED = re.compile(
    r"(?P<names>.*\S)\s*(?P<side>>=|<=)\s*(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*"
)

_LOWER_IS_BETTER = re.compile(r"bits_per_byte|.*perplexity")


class Row(NamedTuple):
    """One metric of both runs."""

    task: str  # with its temperature if answers were sampled
    category: str  # data set, or part of one, and the harness's filter; may be empty
    measure: str  # such as `accuracy`
    offset: int | None  # the head, or the number of heads
    base: float
    candidate: float
    low: float | None  # of the 90 % interval of the difference; None if documents are not known
    high: float | None
    n_documents: int  # 0 if they are not known
    by_document: dict[str, float | None]  # each difference; None if the document counted nothing

    @property
    def difference(self) -> float:
        """The candidate's value minus the base's."""
        return self.candidate - self.base

    @property
    def change(self) -> str:
        """`better` or `worse` if the interval excludes 0, else empty."""
        if self.low is None or self.high is None:
            return ""
        return better_or_worse(self.low, self.high, not _LOWER_IS_BETTER.fullmatch(self.measure))

    @property
    def names(self) -> list[str]:
        """What distinguishes it from other rows."""
        return [self.task, self.category, self.measure, str(self.offset or "")]


class Comparison(NamedTuple):
    """The metrics of both runs, and what only one of them has."""

    base: str  # the models
    candidate: str
    rows: list[Row]
    left_out: list[str]  # sentences
    lost: list[list[str]]  # names, as of rows, of what only the base measured


class Requirement(NamedTuple):
    """A required difference, and what was measured."""

    text: str  # as it was asked for
    row: Row
    end: float  # of the interval, on the side that must reach the number
    holds: bool


def compare(base: Sequence[Run], candidate: Sequence[Run]) -> Comparison:
    """Return the paired differences of two folders' runs, each of one model.

    Raises:
        ValueError: A folder holds several runs of a task, they have no task in common, or a task
            was done in ways that cannot be compared.
    """
    own, other = boards_of(base), boards_of(candidate)
    rows: list[Row] = []
    left_out: list[str] = []
    lost: list[list[str]] = []
    for one in own.values():
        pair = _paired(one, list(other.values()))
        if pair:
            rows += _rows(pair)
            left_out += _in_one(pair)
        else:
            left_out.append(f"{_task(one)} is in {one.runs[0].path.parent} only")
        measured = one.metrics(0).keys() - (pair.metrics(1).keys() if pair else set())
        lost += filter(None, (_names(one, *name) for name in sorted(measured)))
    for two in other.values():
        if not _paired(two, list(own.values())):
            left_out.append(f"{_task(two)} is in {two.runs[0].path.parent} only")
    if not rows:
        raise ValueError(
            f"{base[0].path.parent} and {candidate[0].path.parent} have no score of a task in "
            f"common ({'; '.join(left_out)}), expected runs of the same tasks: run them on both"
        )
    return Comparison(_model(base), _model(candidate), sorted(rows, key=_order), left_out, lost)


def _model(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(run.model.name for run in runs))


def _order(row: Row) -> tuple[str, str, str, int]:
    return (row.task, row.category, row.measure, row.offset or 0)


def _task(board: Board) -> str:
    how = board.protocol
    return board.task if how.is_greedy else f"{board.task}, temperature {how.temperature}"


def _paired(one: Board, others: Sequence[Board]) -> Board | None:
    """Return a board with both runs of a task; None if the others did not do it."""
    same = [
        two
        for two in others
        if two.task == one.task and one.protocol.is_same_question(two.protocol)
    ]
    if not same:
        return None
    for board in (one, *same):
        if len(board.runs) > 1 or len(same) > 1:
            paths = [
                str(run.path) for each in (same if len(same) > 1 else [board]) for run in each.runs
            ]
            raise ValueError(
                f"{' and '.join(paths)} are several runs of {board.task}, expected one on each "
                "side: name the files to compare"
            )
    if how := one.protocol.differences(same[0].protocol):
        raise ValueError(
            f"{one.task} of {one.runs[0].path} and of {same[0].runs[0].path} cannot be compared: "
            f"{'; '.join(how)}. Expected runs that differ in their models alone: run one again"
        )
    runs, documents = one.runs + same[0].runs, one.documents + same[0].documents
    return Board(one.task, one.protocol, [], runs, documents)


def _in_one(pair: Board) -> Iterator[str]:
    """Yield the scores of a task that only one of the two has, such as those of further heads."""
    for run, other in (pair.runs, pair.runs[::-1]):
        own, its = run.metrics(pair.task), other.metrics(pair.task)
        known = {name: value for name, value in own.items() if _MEASURES.fullmatch(name[0])}
        if only := [name[0] for name in known if name not in its]:
            yield f"{', '.join(only)} of {_task(pair)}: {run.model.name} only"
        if nothing := [name[0] for name, value in known.items() if math.isnan(value)]:
            yield f"{', '.join(nothing)} of {_task(pair)}: NaN in {run.model.name}"
    if _says_other_tokens(pair) and any(name[0].endswith("bits_per_byte_2") for name in own):
        yield (
            f"bits per byte of {_task(pair)} from offset 2 on: the drafters have vocabularies of "
            "different sizes, and such losses are over these alone"
        )


def _says_other_tokens(pair: Board) -> bool:
    """Return whether the vocabularies of the two runs' drafters differ in size."""
    one, other = (run.mtp.get("draft_vocabulary") for run in pair.runs)
    return one != other


def _names(board: Board, metric: str, filtered: str) -> list[str]:
    """Return a metric's `Row.names`; empty for a metric of another kind."""
    named = _MEASURES.fullmatch(metric)
    if named is None:
        return []
    parts = (named["category"], "" if filtered == "none" else filtered)
    return [
        *(_task(board), " ".join(filter(None, parts))),
        *(named["measure"], named["offset"] or ""),
    ]


def _rows(pair: Board) -> Iterator[Row]:
    stated, its, others = pair.metrics(0), pair.metrics(1), _says_other_tokens(pair)
    for name in stated.keys() & its.keys():
        names = _names(pair, *name)
        if not names:
            continue
        task, category, measure, offset = names
        if measure == "bits_per_byte" and int(offset or 1) > 1 and others:
            continue
        found = pair.difference((1, *name), 0)
        yield Row(
            task,
            category,
            measure,
            int(offset) if offset else None,
            stated[name],
            its[name],
            None if found is None else found.low,
            None if found is None else found.high,
            0 if found is None else min(pair.n_documents((place, *name)) for place in (0, 1)),
            {} if found is None else pair.by_document((1, *name), 0),
        )


def require(comparison: Comparison, text: str) -> list[Requirement]:
    """Return the result of a requirement, `code accuracy 2 >= -0.01`, for each row that it names.

    The words before the sign are a row's task, category, measure or offset, as the table prints
    them, in any order. `>=` is about the lower end of the difference's interval, `<=` about the
    upper end.

    Raises:
        ValueError: It is not a requirement, or names no row, a row without an interval, or a score
            that the candidate lacks: a gate must not pass because nothing was measured.
    """
    found = _REQUIRED.fullmatch(text)
    if found is None:
        raise ValueError(
            f"--require {text!r} is not a requirement, expected such as 'code accuracy 2 >= -0.01'"
        )
    words = _words([found["names"]])
    if lost := [names for names in comparison.lost if words <= _words(names)]:
        missing = "; ".join(" ".join(filter(None, one)) for one in lost)
        raise ValueError(
            f"--require {text!r} names what {comparison.candidate} lacks, expected a number of "
            f"both: {missing}; measure it, or name what both have"
        )
    named = [row for row in comparison.rows if words <= _words(row.names)]
    if not named:
        known = dict.fromkeys(" ".join(filter(None, row.names)) for row in comparison.rows)
        raise ValueError(
            f"--require {text!r} names nothing that both runs measured; expected words of "
            f"{'; '.join(known)}"
        )
    held, at_least, value = [], found["side"] == ">=", float(found["value"])
    for row in named:
        end = row.low if at_least else row.high
        if end is None:
            raise ValueError(
                f"--require {text!r}: {' '.join(filter(None, row.names))} has no interval, "
                "expected two documents of both runs or more: run with --log_samples"
            )
        held.append(Requirement(text, row, end, end >= value if at_least else end <= value))
    return held


def _words(names: Sequence[str]) -> set[str]:
    return set(re.split(r"[\s,]+", " ".join(names))) - {""}


def lines(comparison: Comparison, required: Sequence[Requirement]) -> Iterator[str]:
    """Yield the lines to print."""
    yield f"base {comparison.base}; candidate {comparison.candidate}"
    yield ""
    yield aligned(_table(comparison.rows))
    yield ""
    yield (
        "difference: candidate minus base, with its 90 % interval, paired by document; better or "
        "worse if the interval excludes 0."
    )
    yield from (wrapped(f"not compared: {one}.") for one in comparison.left_out)
    for one in required:
        said = "holds" if one.holds else "FALLS SHORT"
        which = " ".join(filter(None, one.row.names))
        yield f"require {one.text}: {said}; {which} reaches {in_digits(one.end, signed=True)}"


def _table(rows: Sequence[Row]) -> Rows:
    head = "task category measure offset base candidate difference documents".split()
    return [[*head, ""], *([*row.names, *_numbers(row)] for row in rows)]


def _numbers(row: Row) -> list[str]:
    write = in_digits
    span = ""
    if row.low is not None and row.high is not None:
        span = f" [{write(row.low, signed=True)}, {write(row.high, signed=True)}]"
    difference = f"{write(row.difference, signed=True)}{span}"
    number = str(row.n_documents or "no interval")
    return [write(row.base), write(row.candidate), difference, number, row.change]
