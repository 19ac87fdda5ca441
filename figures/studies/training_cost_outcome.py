"""Study 1: do n heads cost no training time and no memory, by the rule in README.md?

    python figures/studies/training_cost_outcome.py RESULTS [-o FOLDER]

RESULTS is what `training_cost.py` wrote. `-o` also writes table S5 of these times beside the
paper's, `table_s5.csv` and `table_s5.png`.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from outcome_command import arguments

from mtp_harness.figures.figure import draw
from mtp_harness.figures.training_figures import FIGURES
from mtp_harness.files import write_whole
from mtp_harness.leaderboard.text import aligned, spanned
from mtp_harness.leaderboard.verdicts import Verdict
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.tidy import Results, frame
from mtp_harness.scoring.bootstrap import Estimate, estimate

DECIDE, WAY = (2, 4), "head by head"
MOST_TIME, MOST_MEMORY, FAR_MEMORY = 1.05, 1.05, 1.25
"""Of n = 1's: agreement ends above the first two, disagreement on memory begins above the last."""


class Cost(NamedTuple):
    """What a step costs, as multiples of n = 1 head by head."""

    time: Estimate
    memory: float
    step_s: float
    added_bytes: int


def costs(content: dict[str, Any]) -> dict[tuple[int, str], Cost]:
    """Return the cost by n and way, from what `training_cost.py` wrote on a GPU."""
    runs = {(run["n"], run["way"]): run["repeats"] for run in content["runs"]}
    base = runs[1, WAY]
    most = max(its["added_bytes"] for its in base)
    found = {}
    for key, repeats in runs.items():
        pairs = zip(repeats, base, strict=True)
        ratios = [own["step_s"] / its["step_s"] for own, its in pairs]
        added = max(own["added_bytes"] for own in repeats)
        seconds = sum(own["step_s"] for own in repeats) / len(repeats)
        found[key] = Cost(estimate(ratios), added / most, seconds, added)
    return found


def verdict(found: dict[tuple[int, str], Cost]) -> Verdict:
    """Return the outcome by the rule."""
    decide = [found[n, WAY] for n in DECIDE]
    if any(one.time.low > MOST_TIME or one.memory > FAR_MEMORY for one in decide):
        return "disagree"
    cheap = all(one.time.high <= MOST_TIME and one.memory <= MOST_MEMORY for one in decide)
    return "agree" if cheap else "inconclusive"


def lines(found: dict[tuple[int, str], Cost]) -> str:
    """Return the costs as a table of text."""
    text = [["n", "backward", "s a step", "time over n = 1", "GiB added", "over n = 1"]]
    for (n, way), one in found.items():
        time = spanned(one.time, "{:.3f}".format)
        added = f"{one.added_bytes / 2**30:.1f}"
        text.append([str(n), way, f"{one.step_s:.3f}", time, added, f"{one.memory:.2f}"])
    return aligned(text)


def write_table(content: dict[str, Any], path: Path, folder: Path) -> None:
    """Write table S5: the times of a file, and the paper's."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    told = {
        "source": "run",
        "label": "ours, 0.37B",
        "parameters": content["parameters"]["1"],
        "task": "training",
    }
    told |= {"metric": "training time over n = 1", "run": sha256}
    told |= {"hardware": content["hardware"]["gpu"], "count": len(content["runs"][0]["repeats"])}
    found = {n: one.time._asdict() for (n, way), one in costs(content).items() if way == WAY}
    rows = frame([told | {"n": n} | time for n, time in found.items()])
    run = {"config": {"mtp": {"hardware": content["hardware"]}}, "configs": {}, "results": {}}
    files = {sha256: ResultFile(path, path.name, sha256, run)}
    [table] = [one for one in FIGURES if one.name == "table_s5"]
    shown = draw(replace(table, select=lambda _: rows), Results(rows, files, []), paper=True)
    write_whole(folder / "table_s5.csv", shown.csv)
    write_whole(folder / "table_s5.png", shown.pictures["png"])


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    given = arguments(__doc__, argv)
    content = json.loads(given.results.read_text(encoding="utf-8"))
    if "gpu" not in content["hardware"]:
        said = f"{given.results} was measured on a CPU, which counts no memory: use a GPU\n"
        sys.stderr.write(said)
        sys.exit(2)
    found = costs(content)
    sys.stdout.write(f"{lines(found)}\n\noutcome: {verdict(found)}\n")
    if given.out:
        write_table(content, given.results, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
