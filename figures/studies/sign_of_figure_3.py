"""Study 3: does the cost of several heads, in bits per byte of code, fall as models grow?

    python figures/studies/sign_of_figure_3.py RESULTS [-o FOLDER]

RESULTS is WORK/results of `sign_of_figure_3.sh`, or where its results were brought in. Prints the
differences, the outcome by the rule in README.md, and what it cost. `-o` also writes
`sign_of_figure_3.csv` and `.png`, and a `.json`, if that or RESULTS has the records of trainings.

A difference is bits per byte with n heads minus that with n = 1, of head 1, over all problems of
HumanEval and MBPP together (sum of bits ÷ sum of bytes), for models with the same seed; then the
mean over seeds. Its 90 % interval draws problems with replacement, the same ones for both models
and all seeds. Each benchmark alone, and n = 2, are shown beside it and decide nothing.
"""

import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import records
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from outcome_command import arguments, signed

from mtp_harness.figures import words
from mtp_harness.figures.figure import Figure, draw
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.rows import plain
from mtp_harness.figures.style import GREY, Style
from mtp_harness.files import write_whole
from mtp_harness.leaderboard.text import aligned, spanned
from mtp_harness.leaderboard.verdicts import Verdict
from mtp_harness.results.documents import load
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.sizes import in_digits
from mtp_harness.results.tidy import Results, frame, read_runs, table
from mtp_harness.scoring.bits_per_byte import bits_per_byte
from mtp_harness.scoring.bootstrap import Estimate, estimate

NAME, TASK = "sign_of_figure_3", "mtp_solutions"
SIZES, HEADS, SEEDS = ("1M", "15M", "100M"), (1, 2, 4), (0, 1)
DECIDES = 4
"""The n of the rule."""

BOTH = "HumanEval and MBPP"
DATA_SETS: dict[str, tuple[str, ...]] = {
    BOTH: ("humaneval", "mbpp"),
    "humaneval": ("humaneval",),
    "mbpp": ("mbpp",),
}
"""What bits per byte are pooled over, the rule's first."""

Sums = dict[str, NDArray[np.float64]]
"""Head 1's nats, scored tokens, tokens and bytes of each problem, [P, 4], by benchmark."""


class Key(NamedTuple):
    """A model of the study."""

    size: str
    n: int
    seed: int


def read(results: Results) -> dict[Key, ResultFile]:
    """Return the results file of each model that was measured.

    Raises:
        ValueError: A model was measured twice, or a label is not one of the study's.
    """
    found: dict[Key, ResultFile] = {}
    for file in (one for one in results.files.values() if TASK in one.tasks):
        size, between, n = str(file.mtp.get("label")).removeprefix("bytes-").partition("-n")
        if not between or not n.isdigit():
            raise ValueError(
                f"{file.path} is of {file.mtp.get('label')}, which is no model of this study "
                f"(bytes-SIZE-nN): give the results of {NAME}.sh"
            )
        key = Key(size, int(n), int(file.mtp["train_seed"]))
        if key in found:
            raise ValueError(
                f"{file.path} and {found[key].path} measured the same model: remove one"
            )
        found[key] = file
    return found


def missing(keys: Iterable[Key]) -> list[Key]:
    """Return the models of the study that are not there."""
    return sorted(set(map(Key._make, product(SIZES, HEADS, SEEDS))) - set(keys))


def sums_of(files: dict[Key, ResultFile]) -> dict[Key, Sums]:
    """Return each model's sums over problems, all in the same order.

    Raises:
        ValueError: Samples are missing, or the models did not read the same problems.
    """
    found: dict[Key, Sums] = {}
    read_by: dict[str, ResultFile] = {}
    for key, file in files.items():
        path = file.samples(TASK)
        if path is None:
            raise ValueError(f"{file.path} has no samples: run again with --log_samples")
        documents = load(path)
        read_by.setdefault(documents.documents, file)
        found[key] = {
            name: np.array([one for _, one in sorted(scores.items())])
            for name in DATA_SETS[BOTH]
            if (scores := documents.scores.get((f"{name}_bits_per_byte_1", "none")))
        }
    if len(read_by) > 1:
        paths = " and ".join(str(file.path) for file in read_by.values())
        raise ValueError(f"{paths} read different problems: measure all models on the same ones")
    return found


def bits(sums: Sums, data_set: str) -> NDArray[np.float64]:
    """Return the four sums of each problem over the benchmarks of a data set, [P, 4]."""
    return np.array([sums[name] for name in DATA_SETS[data_set]]).sum(axis=0)


def difference(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Estimate:
    """Return the difference in bits per byte, its mean over seeds, with its interval.

    Args:
        pairs: for each seed the sums [P, 4] with n heads and with one.
    """
    scores = np.concatenate([one for pair in pairs for one in pair], axis=1)  # [P, seeds * 2 * 4]
    return estimate(scores, lambda means: by_seed(means).mean(axis=-1))


def by_seed(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the difference of each seed, [R, seeds], from means [R, seeds * 2 * 4]."""
    each = bits_per_byte(means.reshape(len(means), -1, 2, 4))  # [R, seeds, 2]
    return each[..., 0] - each[..., 1]


def differences(results: Results) -> pd.DataFrame:
    """Return the differences as rows of the tidy table, by size, n and data set.

    A row without a seed has the mean over seeds and its interval; the rows with one are the seeds'.
    """
    files = read(results)
    sums = sums_of(files)
    measured = table(results, TASK, "by_offset", "bits_per_byte")
    rows: list[dict[str, Any]] = []
    for size, n, data_set in product(_by_size(files), HEADS, DATA_SETS):
        seeds = sorted(key.seed for key in files if key[:2] == (size, n))
        seeds = [seed for seed in seeds if Key(size, 1, seed) in files]
        there = sums[Key(size, 1, seeds[0])] if seeds else {}
        if n == 1 or not seeds or not set(DATA_SETS[data_set]) <= set(there):
            continue
        pairs = [
            (bits(sums[Key(size, n, seed)], data_set), bits(sums[Key(size, 1, seed)], data_set))
            for seed in seeds
        ]
        runs = [[files[Key(size, own, seed)].sha256 for own in (n, 1)] for seed in seeds]
        first = plain(measured[measured["run"] == runs[0][0]].iloc[0])
        told = (
            first
            | {"data_set": data_set, "label": f"bytes-{size}"}
            | dict.fromkeys(("documents", "file"))
        )
        told |= {"metric": "bits per byte above n = 1"}
        every = [one for files_of in runs for one in files_of]
        for seed, pair, files_of in zip(seeds, pairs, runs, strict=True):
            (value,) = by_seed(np.concatenate([one.mean(axis=0) for one in pair])[None])[0]
            gap = Estimate(value, np.nan, np.nan)
            rows.append(told | _ends(gap, [pair], seed, files_of))
        rows.append(told | _ends(difference(pairs), pairs, None, every))
    return frame(rows)


def _by_size(files: dict[Key, ResultFile]) -> list[str]:
    """Return the names of the sizes, the smallest first."""
    parameters = {
        key.size: int(file.content["config"]["model_num_parameters"]) for key, file in files.items()
    }
    return sorted(parameters, key=lambda size: parameters[size])


def _ends(gap: Estimate, pairs: Sequence[Any], seed: int | None, runs: list[str]) -> dict[str, Any]:
    base = np.mean([bits_per_byte(its.sum(axis=0)) for _, its in pairs])
    known = {name: None if np.isnan(end) else end for name, end in gap._asdict().items()}
    count = int((pairs[0][0][:, -1] > 0).sum())
    told = {"baseline_value": float(base), "train_seed": seed, "count": count}
    return known | told | {"run": " ".join(runs)}


def verdict(gaps: Sequence[Estimate]) -> Verdict:
    """Return the outcome by the rule, from the differences of n = 4, the smallest model's first."""
    steps = list(pairwise(gap.value for gap in gaps))
    falls, rises = all(b < a for a, b in steps), all(b > a for a, b in steps)
    if gaps[0].low > 0 and falls:
        return "agree"
    return "disagree" if gaps[0].high < 0 or rises else "inconclusive"


BESIDE = 1.2
"""Where the dots of seeds are, by size of model."""


class BySize(Lines):
    """Differences by model size: lines through the means, and beside them a dot for each seed."""

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table."""
        means = shown["train_seed"].isna()
        super().__call__(canvas, shown[means], style)
        panels = [name for name in self.order if (shown["data_set"] == name).any()]
        for axes, name in zip(canvas.axes, panels, strict=True):
            axes.axhline(0, color=GREY, linewidth=0.6)
            for n, dots in shown[~means & (shown["data_set"] == name)].groupby("n"):
                at, value = (dots[column].astype(float) for column in (self.x, "value"))
                axes.plot(BESIDE * at, value, ".", color=style.colour(int(n)), markersize=4)


FIGURE = Figure(
    NAME,
    "What n heads cost a model's next token, by model size. Head 1's bits per byte of reference "
    "solutions, minus those of n = 1 with as many parameters and the same text: above 0 is a loss. "
    "Small dots beside the means: the seeds.",
    differences,
    BySize(
        "parameters",
        told=(),
        columns="data_set",
        order=tuple(DATA_SETS),
        log_x=True,
        share_y="all",
        ylabel="bits per byte above n = 1",
    ),
    f"`sh figures/studies/{NAME}.sh`",
)


def outcome(rows: pd.DataFrame, lacking: Sequence[Key]) -> str:
    """Return the outcome in words; `lacking` are models that are still to be trained."""
    if lacking:
        return f"unfinished: {len(lacking)} models are missing, first {lacking[0].size}, n = " + (
            f"{lacking[0].n}, seed {lacking[0].seed}"
        )
    decide = (rows["data_set"] == BOTH) & (rows["n"] == DECIDES) & rows["train_seed"].isna()
    return verdict([_estimate(row) for _, row in rows[decide].iterrows()])


def _estimate(row: Any) -> Estimate:
    return Estimate(*(float(row[name]) for name in Estimate._fields))


def lines(rows: pd.DataFrame) -> str:
    """Return the differences as a table of text."""
    head = ["size", "n", "solutions", "n = 1", "difference, 90 % over problems", "by seed"]
    text = [head]
    for (label, n, data_set), own in rows.groupby(["label", "n", "data_set"], sort=False):
        mean, seeds = own[own["train_seed"].isna()].iloc[0], own[own["train_seed"].notna()]
        size, said = label.removeprefix("bytes-"), words.entry("data_set", data_set)
        base, gap = in_digits(mean["baseline_value"]), spanned(_estimate(mean), signed)
        text.append([size, str(n), said, base, gap, ", ".join(map(signed, seeds["value"]))])
    return aligned(text)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    given = arguments(__doc__, argv)
    results = read_runs([given.results])
    rows = FIGURE.show(results, paper=False).table
    said = outcome(rows, missing(read(results)))
    sys.stdout.write(f"{lines(rows)}\n\noutcome: {said}\n{records.cost(given.results)}")
    if given.out:
        shown = draw(FIGURE, results)
        write_whole(given.out / f"{NAME}.csv", shown.csv)
        write_whole(given.out / f"{NAME}.png", shown.pictures["png"])
        told = {"outcome": said, "differences": lines(rows).split("\n")}
        records.write(given.out / f"{NAME}.json", given.results, told)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
