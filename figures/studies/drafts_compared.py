"""Study 2: which kind of heads drafts better, by the rule of README.md, for each width.

    python figures/studies/drafts_compared.py WORK/results [-o FOLDER]

FOLDER gets `fig_drafts_compared.png` and `.csv`. Two kinds are compared on the documents of both,
paired, with 90 % intervals over documents (`scoring.bootstrap`):

    tokens_per_forward              k = 4, prompts that neither continues in a loop: decides
    text_walk_tokens_per_forward    on real texts
    bits_per_byte                   of head 1, on the same texts

A seed is compared once all kinds are measured; what is missing is counted, and the first is named.
"""

import csv
import io
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import records
from numpy.typing import NDArray
from outcome_command import arguments, signed

from mtp_harness.figures.differences import Difference, draw
from mtp_harness.files import write_whole
from mtp_harness.leaderboard.text import aligned, spanned
from mtp_harness.results import documents, run
from mtp_harness.results.run import Run
from mtp_harness.results.sizes import in_digits
from mtp_harness.scoring.bits_per_byte import bits_per_byte
from mtp_harness.scoring.bootstrap import Estimate, estimate

KINDS = ("parallel", "chained", "reused")
WIDTHS, SEEDS = (192, 384), (0, 1)
SETS = ("code", "prose")
"""Of documents of `mtp_heads`."""

SPECULATIVE, HEADS, SPEED = "mtp_speculative", "mtp_heads", "mtp_speed"
LOOPING = "looping"
ALL_HEADS = 4

Sums = Mapping[str, tuple[float, ...]]
"""By document."""

Found = Mapping[tuple[str, int, int, str], Run]
"""By kind, width, seed and task."""


def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return quotients [...] of sums [..., 2]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: NDArray[np.float64] = sums[..., 0] / sums[..., 1]
    return quotient


class Measure(NamedTuple):
    """What is compared: the sum of some metrics of a task, and how documents are pooled."""

    task: str
    metrics: tuple[str, ...]
    pool: Callable[[NDArray[np.float64]], NDArray[np.float64]]  # sums [..., C] to values [...]


DECIDES = "tokens_per_forward"
MEASURES = {
    DECIDES: Measure(SPECULATIVE, (f"{DECIDES}_{ALL_HEADS}",), ratio),
    f"text_walk_{DECIDES}": Measure(HEADS, tuple(f"{s}_text_walk_{DECIDES}" for s in SETS), ratio),
    "bits_per_byte": Measure(HEADS, tuple(f"{s}_bits_per_byte_1" for s in SETS), bits_per_byte),
}


class Row(NamedTuple):
    """A line of the table: a value of one kind, or a difference of two (`kind` minus `base`)."""

    width: int
    seed: int
    kind: str
    base: str
    measure: str
    at: str  # the data set and the offset, or the batch size
    value: float
    low: float = math.nan  # of accuracies no interval is given
    high: float = math.nan
    n_documents: int = 0

    @property
    def estimate(self) -> Estimate:
        """The value with its interval."""
        return Estimate(self.value, self.low, self.high)


def read(folder: Path) -> Found:
    """Return the runs of a folder.

    Raises:
        FileNotFoundError: it holds none.
        ValueError: a model measured a task twice, or is not one of this study.
    """
    found: dict[tuple[str, int, int, str], Run] = {}
    for one in run.find([str(folder)]):
        kind, _, width = one.model.label.rpartition("-")
        if kind not in KINDS or not width.isdigit() or one.model.train_seed is None:
            raise ValueError(
                f"{one.path} is of {one.model.whole_name}, expected a label such as parallel-192 "
                "and a seed: name a folder with this study's results alone"
            )
        for task in one.tasks:
            key = (kind, int(width), one.model.train_seed, task)
            if key in found:
                raise ValueError(
                    f"{found[key].path} and {one.path} both measured {task}, expected one: remove "
                    "the other"
                )
            found[key] = one
    return found


def sums_of(one: Run, measure: Measure) -> Sums:
    """Return a measure's sums by document; answers that loop are left out."""
    scores = _documents(one, measure.task).scores
    looping = scores.get((LOOPING, "none"), {})
    each = [scores[metric, "none"] for metric in measure.metrics]
    return {
        name: tuple(map(sum, zip(*(one[name] for one in each), strict=True)))
        for name in each[0]
        if name not in looping or looping[name][0] == 0
    }


def _documents(one: Run, task: str) -> documents.Documents:
    path = one.samples(task)
    if path is None:
        raise ValueError(f"{one.path} has no samples of {task}: run with --log_samples")
    return documents.load(path)


def pooled(measure: Measure, *sums: Sums) -> tuple[Estimate, int]:
    """Return a measure of one run, or of the second minus the first; and of how many documents.

    Of two runs only those documents count that both have.
    """
    names = sorted(set.intersection(*(set(one) for one in sums)))
    parts = [np.array([one[name] for name in names]) for one in sums]  # each [P, C]
    if not names:
        return Estimate(math.nan, math.nan, math.nan), 0

    def difference(means: NDArray[np.float64]) -> NDArray[np.float64]:
        *base, last = (measure.pool(part) for part in np.split(means, len(parts), axis=-1))
        return last - base[0] if base else last

    return estimate(np.hstack(parts), difference), len(names)


def outcome(differences: Sequence[Estimate], base: str, candidate: str) -> str:
    """Return which of two kinds drafts better; one difference for each seed."""
    if all(one.low > 0 for one in differences):
        return f"{candidate} drafts better"
    if all(one.high < 0 for one in differences):
        return f"{base} drafts better"
    return "inconclusive"


def rows_of(found: Found, width: int) -> Iterator[Row]:
    """Yield the values and differences of a width, of the seeds that are complete.

    Raises:
        ValueError: two models read other documents.
    """
    for seed in complete(found, width):
        for name, measure in MEASURES.items():
            runs = {kind: found[kind, width, seed, measure.task] for kind in KINDS}
            _refuse_others(list(runs.values()), measure.task)
            sums = {kind: sums_of(one, measure) for kind, one in runs.items()}
            for kind in KINDS:
                yield _row((width, seed, kind, "", name), *pooled(measure, sums[kind]))
            for base, kind in combinations(KINDS, 2):
                both = pooled(measure, sums[base], sums[kind])
                yield _row((width, seed, kind, base, name), *both)
        for kind in KINDS:
            yield from _other_rows(found, (kind, width, seed))


def _row(place: tuple[int, int, str, str, str], one: Estimate, n_documents: int) -> Row:
    return Row(*place, "", *one, n_documents)


def _refuse_others(runs: Sequence[Run], task: str) -> None:
    first = _documents(runs[0], task)
    for one in runs[1:]:
        if _documents(one, task).documents != first.documents:
            raise ValueError(
                f"{one.path} and {runs[0].path} read other documents of {task}, expected the "
                "same: measure both on one machine"
            )


def _other_rows(found: Found, model: tuple[str, int, int]) -> Iterator[Row]:
    """Yield accuracies by offset, in both readings, and speedups by batch size."""
    kind, width, seed = model
    place = (width, seed, kind, "")
    metrics = found[*model, HEADS].metrics(HEADS)
    names = ("accuracy", "accuracy_cond", "chained_accuracy")
    for name, data_set, offset in product(names, SETS, range(1, ALL_HEADS + 1)):
        value = metrics.get((f"{data_set}_{name}_{offset}", "none"))
        if value is not None:
            yield Row(*place, name, f"{data_set}, offset {offset}", value)
    timed = found.get((*model, SPEED))
    for cell in timed.table(SPEED, "by_cell", "speedup") if timed else ():
        if cell["k"] == ALL_HEADS:
            ends = (cell["value"], cell["low"], cell["high"])
            yield Row(*place, "speedup", f"batch {cell['batch']}", *ends)


def missing(
    found: Found,
    width: int,
    seeds: Sequence[int] = SEEDS,
    tasks: Sequence[str] = (SPECULATIVE, HEADS, SPEED),
) -> list[str]:
    """Return in words what of a width was not measured; speed is, with the first seed alone."""
    return [
        f"{task} of {kind}-{width}, seed {seed}"
        for seed, kind, task in product(seeds, KINDS, tasks)
        if (kind, width, seed, task) not in found and not (task == SPEED and seed != SEEDS[0])
    ]


def complete(found: Found, width: int) -> list[int]:
    """Return the seeds of a width of which all was measured but perhaps speed."""
    return [seed for seed in SEEDS if not missing(found, width, [seed], (SPECULATIVE, HEADS))]


def report(found: Found, rows: Mapping[int, Sequence[Row]]) -> Iterator[str]:
    """Yield the lines to print."""
    for width, own in rows.items():
        seeds = complete(found, width)
        yield f"width {width}"
        yield aligned(_table(found, own))
        yield "Accuracies: modules read the true bytes in between, and parallel heads do not."
        for base, kind in combinations(KINDS, 2):
            pair = {(r.measure, r.seed): r for r in own if (r.base, r.kind) == (base, kind)}
            decides = [pair[DECIDES, seed].estimate for seed in seeds]
            if len(seeds) == len(SEEDS):
                said = outcome(decides, base, kind)
                yield f"outcome of width {width}, {kind} minus {base}: {said}"
            else:
                yield f"{kind} minus {base}, undecided"
            for name in MEASURES:
                each = (pair[name, seed] for seed in seeds)
                of = f"seed{'s' * (len(seeds) > 1)} {' and '.join(map(str, seeds))}"
                yield f"  {name}, {of} (documents): {', '.join(map(_said, each))}"
        yield ""


def _said(row: Row) -> str:
    if not row.n_documents:
        return "no document: one of the two always loops"
    return f"{spanned(row.estimate, signed)} ({row.n_documents})"


def _table(found: Found, rows: Sequence[Row]) -> list[list[str]]:
    """Return a line for each model."""
    columns = {name: (name, "") for name in MEASURES}
    columns |= {at: ("accuracy", at) for at in (f"code, offset {i + 1}" for i in range(ALL_HEADS))}
    columns |= {f"speedup, {at}": ("speedup", at) for at in ("batch 1", "batch 16")}
    lines = [["kind", "seed", "parameters", *columns]]
    for model in product(KINDS, complete(found, rows[0].width)):
        own = {(r.measure, r.at): r.value for r in rows if (r.kind, r.seed) == model and not r.base}
        values = [in_digits(own[key]) if key in own else "" for key in columns.values()]
        kind, seed = model
        parameters = found[kind, rows[0].width, seed, HEADS].model.parameters
        lines.append([kind, str(seed), f"{parameters:,}", *values])
    return lines


def write(rows: Sequence[Row], folder: Path) -> None:
    """Write the table, and the differences as a figure."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Row._fields)
    table.writerows([_plain(entry) for entry in row] for row in rows)
    write_whole(folder / "fig_drafts_compared.csv", text.getvalue())
    differences = [
        Difference(
            row.measure,
            f"{row.kind} minus {row.base}, width {row.width}, seed {row.seed} ({row.n_documents})",
            *row.estimate,
        )
        for row in sorted(rows, key=lambda row: (row.width, row.base, row.kind, row.seed))
        if row.base and row.n_documents
    ]
    title = "Three kinds of heads: paired differences (number of documents), 90 % intervals"
    write_whole(folder / "fig_drafts_compared.png", draw(differences, title, "png"))


def _plain(entry: Any) -> Any:
    if not isinstance(entry, float):
        return entry
    return "" if math.isnan(entry) else f"{entry:.10g}"


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    given = arguments(__doc__, argv)
    found = read(given.results)
    measured = {width for _, width, _, _ in found}
    widths = sorted(measured | set(WIDTHS) if measured & set(WIDTHS) else measured)
    rows = {width: list(rows_of(found, width)) for width in widths if complete(found, width)}
    sys.stdout.write("".join(f"{line}\n" for line in report(found, rows)))
    if lacks := [what for width in widths for what in missing(found, width)]:
        sys.stdout.write(
            f"outcome: unfinished: {len(lacks)} measurements are missing, first {lacks[0]}\n"
        )
    sys.stdout.write(records.cost(given.results))
    if given.out and rows:
        write([row for own in rows.values() for row in own], given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
