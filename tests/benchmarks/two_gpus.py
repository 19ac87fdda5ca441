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
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.solutions_task import write_task

SAMPLED = '{"n_samples": 3, "temperature": 0.8, "k": [1, 3]}'
KINDS = {
    "greedy": ("humaneval_mtp", []),
    "sampled": ("humaneval_mtp", ["--metadata", SAMPLED]),
    "log-likelihood": ("solutions", []),
}


def command(how, given):
    lm_eval = ["-m", "mtp_harness.cli", "lm_eval"]
    if how == "processes":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone"] + [
            *("--nproc_per_node", "2", *lm_eval)
        ]
    return [sys.executable, *lm_eval]


def environment(how, given):
    own = {"HF_HUB_OFFLINE": "1"}
    if given.cpu:
        own |= {"ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    elif how == "one":
        own |= {"CUDA_VISIBLE_DEVICES": "0"}
    return os.environ | own


def run(how, kind, given, folder):
    task, more = KINDS[kind]
    model_args = {"pretrained": given.pretrained, "dtype": given.dtype}
    if how == "spread":
        model_args["parallelize"] = True
    out = folder / how / kind
    words = [
        *(*command(how, given), "--model", "mtp", "--model_args", json.dumps(model_args)),
        *("--tasks", task, "--limit", str(given.limit), "--batch_size", str(given.batch_size)),
        *("--include_path", str(folder / "tasks"), "-o", str(out), "--log_samples", *more),
        *(["--device", "cpu"] if given.cpu else []),
    ]
    began = time.perf_counter()
    done = subprocess.run(words, env=environment(how, given), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{how}, {kind} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    took = time.perf_counter() - began
    [results] = out.rglob("results_*.json")
    [samples] = out.rglob("samples_*.jsonl")
    content = json.loads(results.read_text())
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    mtp = content["config"]["mtp"]
    return {
        "answers": {row["doc_id"]: row["resps"] for row in rows},
        "metrics": {k: v for k, v in content["results"][task].items() if isinstance(v, float)},
        "devices": mtp.get("devices"),
        "world_size": mtp["world_size"],
        "hardware": mtp["hardware"],
        "versions": mtp["versions"],
        "tokens_per_s": (mtp["totals"].get("timing") or {}).get("tokens_per_s"),
        "process_s": round(took, 1),
    }


def compared(kind, one, other):
    """How many answers differ; of log-likelihoods, by how much at most, too."""
    same_documents = one["answers"].keys() == other["answers"].keys()
    common = one["answers"].keys() & other["answers"].keys()
    pairs = [(one["answers"][doc], other["answers"][doc]) for doc in sorted(common)]
    found = {
        "same_documents": same_documents,
        "n_documents": len(common),
        "n_differing": sum(a != b for a, b in pairs),
        "first_difference": next(([a, b] for a, b in pairs if a != b), None),
    }
    if kind == "log-likelihood":
        found["largest_difference_nats"] = max(
            abs(float(a[0][0][0]) - float(b[0][0][0])) for a, b in pairs
        )
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pretrained", default="mtp-bytes-n4")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--limit", type=int, default=21)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args()
    ways = ["one", "processes"] if given.cpu else ["one", "processes", "spread"]
    report = {"arguments": {k: str(v) for k, v in vars(given).items()}, "runs": {}}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_task(folder / "tasks")
        for kind in given.kinds:
            runs = {how: run(how, kind, given, folder) for how in ways}
            for how, one in runs.items():
                if how != "one":
                    one["against_one"] = compared(kind, runs["one"], one)
                    print(kind, how, json.dumps(one["against_one"] | {"first_difference": None}))
            for one in runs.values():
                del one["answers"]
            report["runs"][kind] = runs
            given.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
