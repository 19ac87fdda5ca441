"""Two GPUs against one: two processes that share the documents, and one model on both.

    python -m tests.benchmarks.two_gpus -o two_gpus.json
    python -m tests.benchmarks.two_gpus -o two_gpus.json --pretrained /ckpt/7B_200B_4 --limit 30

Runs, each a real process, `lm_eval` on HumanEval, greedy and sampled with repeats, and on a
log-likelihood task made of HumanEval's own solutions:

    one         one process, one GPU (CUDA_VISIBLE_DEVICES=0)
    processes   torchrun --nproc_per_node 2 -m mtp_harness.cli lm_eval …
    spread      one process, parallelize=True

An odd limit divides unevenly between two processes. The JSON says for each run whether its answers
are those of `one`, how many differ, the metrics, where the model was, and how long it took. Texts
should not differ (in float32 but for near ties, in float64 at all); log-likelihoods may in their
last bits, because processes make other batches. `--cpu` runs `one` and `processes` without a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import real_runs
from tests.solutions_task import write_task

SAMPLED = '{"n_samples": 3, "temperature": 0.8, "k": [1, 3]}'
KINDS = {
    "greedy": ("humaneval_mtp", []),
    "sampled": ("humaneval_mtp", ["--metadata", SAMPLED]),
    "log-likelihood": ("solutions", []),
}


def command(how, kind, given, folder):
    """Return the command of a run."""
    task, more = KINDS[kind]
    model_args = {"pretrained": given.pretrained, "dtype": given.dtype}
    if how == "spread":
        model_args["parallelize"] = True
    start = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    return [
        *(sys.executable, *(start if how == "processes" else ())),
        *("-m", "mtp_harness.cli", "lm_eval"),
        *("--model", "mtp", "--model_args", json.dumps(model_args)),
        *("--tasks", task, "--limit", str(given.limit), "--batch_size", str(given.batch_size)),
        *("--include_path", str(folder / "tasks"), "-o", str(folder / how / kind)),
        *("--log_samples", *more, *(["--device", "cpu"] if given.cpu else [])),
    ]


def environment(how, given):
    """Return the environment of a run."""
    own = {"HF_HUB_OFFLINE": "1"}
    if given.cpu:
        own |= {"ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    elif how == "one":
        own |= {"CUDA_VISIBLE_DEVICES": "0"}
    return os.environ | own


def run(how, kind, given, folder):
    """Return a run's answers, and what the report says of it."""
    start = command(how, kind, given, folder), environment(how, given)
    try:
        found = real_runs.run([start], folder / how / kind, folder / "log")
    except real_runs.Failed as error:
        raise SystemExit(f"{how}, {kind} {error}") from error
    mtp, metrics = found.mtp, found.content["results"][KINDS[kind][0]]
    return found.answers, {
        "metrics": {k: v for k, v in metrics.items() if isinstance(v, float)},
        "devices": mtp.get("devices"),
        "world_size": mtp["world_size"],
        "hardware": mtp["hardware"],
        "versions": mtp["versions"],
        "tokens_per_s": (mtp["totals"].get("timing") or {}).get("tokens_per_s"),
        "process_s": found.seconds,
    }


def compared(kind, one, other):
    """Return how many answers differ; of log-likelihoods, by how much at most, too."""
    found = real_runs.compared(one, other)
    if kind == "log-likelihood":
        common = one.keys() & other.keys()
        found["largest_difference_nats"] = max(
            abs(float(one[doc][0][0][0]) - float(other[doc][0][0][0])) for doc in common
        )
    return found


def parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pretrained", default="mtp-bytes-n4")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--limit", type=int, default=21)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--cpu", action="store_true")
    return parser


def main():
    """Run all, and write the report after each kind."""
    given = parser().parse_args()
    ways = ["one", "processes"] if given.cpu else ["one", "processes", "spread"]
    report = {"arguments": {k: str(v) for k, v in vars(given).items()}, "runs": {}}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_task(folder / "tasks")
        for kind in given.kinds:
            answers, runs = {}, {}
            for how in ways:
                answers[how], runs[how] = run(how, kind, given, folder)
                if how != "one":
                    same = compared(kind, answers["one"], answers[how])
                    runs[how]["against_one"] = same
                    print(kind, how, json.dumps(same | {"first_difference": None}))
            report["runs"][kind] = runs
            given.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
