"""Study 4: do models with several heads solve more polynomial problems than models with one?

    python figures/studies/arithmetic.py RESULTS [-o FOLDER]

RESULTS is WORK/results of `arithmetic.sh`, or where its results were brought in. Prints accuracy by
n and seed, the differences, the outcome by the rule in README.md, and what it cost. `-o` also
writes `arithmetic.json`, if that or RESULTS has the records of trainings. The figure is `fig_8`.

A model's accuracy is its share of right answers over 1 to 5 operations, which are equally many. A
difference is that with n heads minus that with one, of the same seed; its 90 % interval is
Student's t over seeds. 6 to 10 operations are shown beside it and decide nothing.
"""

import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import records
from outcome_command import arguments, signed
from scipy.stats import t as student

from mtp_harness.leaderboard.text import aligned, spanned
from mtp_harness.leaderboard.verdicts import Verdict
from mtp_harness.results.sizes import in_digits
from mtp_harness.results.tidy import Results, read_runs, table
from mtp_harness.scoring.bootstrap import LEVEL, Estimate

NAME, TASK = "arithmetic", "mtp_arithmetic"
HEADS, SEEDS = (1, 2, 4), (0, 1, 2)
INSIDE, BEYOND = range(1, 6), range(6, 11)
"""Numbers of operations in training, and beyond it."""

Accuracies = Mapping[tuple[int, int], float]
"""By n and seed."""


def accuracies(results: Results, operations: range) -> dict[tuple[int, int], float]:
    """Return each model's accuracy over some numbers of operations.

    Raises:
        ValueError: A model was measured twice, or without some of the numbers, or with unequally
            many expressions of each.
    """
    rows = table(results, TASK, "by_operations", "accuracy")
    rows = rows[(rows["pause_tokens"] == 0) & rows["operations"].isin(operations)]
    found: dict[tuple[int, int], float] = {}
    for (n, seed), own in rows.groupby(["n", "train_seed"]):
        if sorted(own["operations"]) != list(operations) or own["count"].nunique() != 1:
            raise ValueError(
                f"n = {n}, seed {seed} has operations {sorted(own['operations'])} in "
                f"{', '.join(sorted(set(own['file'])))}, expected each of {operations[0]} to "
                f"{operations[-1]} once, with equally many expressions: measure it once, whole"
            )
        found[int(n), int(seed)] = float(own["value"].mean())
    return found


def interval(values: Sequence[float]) -> Estimate:
    """Return the mean with its 90 % interval by Student's t; at least two values."""
    mean, spread = statistics.mean(values), statistics.stdev(values)
    half = float(student.ppf((1 + LEVEL) / 2, len(values) - 1)) * spread / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def differences(found: Accuracies, n: int) -> list[float]:
    """Return accuracy with n heads minus that with one, by seed."""
    seeds = [seed for own, seed in sorted(found) if own == n and (1, seed) in found]
    return [found[n, seed] - found[1, seed] for seed in seeds]


def verdict(gaps: Iterable[Estimate]) -> Verdict:
    """Return the outcome by the rule, from the differences of n = 2 and n = 4."""
    gaps = list(gaps)
    if all(gap.low > 0 for gap in gaps):
        return "agree"
    return "disagree" if any(gap.high < 0 for gap in gaps) else "inconclusive"


def outcome(found: Accuracies) -> str:
    """Return the outcome in words."""
    lacking = sorted(set(product(HEADS, SEEDS)) - set(found))
    if lacking:
        n, seed = lacking[0]
        return f"unfinished: {len(lacking)} models are missing, first n = {n}, seed {seed}"
    return verdict(interval(differences(found, n)) for n in HEADS[1:])


def lines(found: Accuracies) -> str:
    """Return accuracies and differences as a table of text."""
    text = [["n", "accuracy", "by seed", "difference, 90 % over seeds", "by seed"]]
    for n in sorted({n for n, _ in found}):
        own = [value for (heads, _), value in sorted(found.items()) if heads == n]
        gaps = differences(found, n) if n > 1 else []
        said = spanned(interval(gaps), signed) if len(gaps) > 1 else ""
        text.append(
            [
                str(n),
                in_digits(statistics.mean(own)),
                ", ".join(map(in_digits, own)),
                said,
                ", ".join(map(signed, gaps)),
            ]
        )
    return aligned(text)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    given = arguments(__doc__, argv)
    results = read_runs([given.results])
    shown = {f"{some[0]} to {some[-1]}": accuracies(results, some) for some in (INSIDE, BEYOND)}
    inside, _ = shown.values()
    for named, found in shown.items():
        sys.stdout.write(f"{named} operations\n{lines(found)}\n\n")
    said = outcome(inside)
    sys.stdout.write(f"outcome: {said}\n{records.cost(given.results)}")
    if given.out:
        told = {named: lines(found).split("\n") for named, found in shown.items()}
        records.write(given.out / f"{NAME}.json", given.results, {"outcome": said, **told})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
