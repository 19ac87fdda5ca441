"""`mtp-vllm` on two GPUs against one, and `mtp` on two "nodes" of one GPU each against one.

    python -m tests.benchmarks.two_gpus_vllm -o two_gpus_vllm.json

Runs, each a real `lm_eval` on HumanEval, greedy, 64 new tokens a problem:

    one       mtp-vllm on one GPU, k = 1           a seeded checkpoint of MiMo's kind (two layers,
    tensor    tensor_parallel_size=2, k = 1        one module), which accepts what it will
    drafts    tensor_parallel_size=2, k = 4
    alone     mtp, k = 4, one GPU                  mtp-bytes-n4
    nodes     the same by two `torchrun`, --nnodes 2

The JSON says how many answers of `tensor` and `drafts` differ from those of `one`, of `nodes` from
those of `alone`, and how long each took.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

from tests.benchmarks import real_runs
from tests.decode.vllm_counts import requests

CONTEXT = 2048
ENGINE = {"dtype": "bfloat16", "max_model_len": CONTEXT, "enforce_eager": True}
ENGINE |= {"gpu_memory_utilization": 0.5, "trust_remote_code": True}
RUNS = {
    "one": ("mtp-vllm", {"draft_heads": 1}, "0"),
    "tensor": ("mtp-vllm", {"draft_heads": 1, "tensor_parallel_size": 2}, "0,1"),
    "drafts": ("mtp-vllm", {"draft_heads": 4, "tensor_parallel_size": 2}, "0,1"),
    "alone": ("mtp", {"pretrained": "mtp-bytes-n4", "draft_heads": 4}, "0"),
    "nodes": ("mtp", {"pretrained": "mtp-bytes-n4", "draft_heads": 4}, "0,1"),
}
AGAINST = {"tensor": "one", "drafts": "one", "nodes": "alone"}


def starts(name, folder, out, limit):
    """Return what to start at once: (command, environment)."""
    model, model_args, gpus = RUNS[name]
    if model == "mtp-vllm":
        model_args = ENGINE | {"pretrained": str(folder)} | model_args
    words = [
        *("-m", "mtp_harness.cli", "lm_eval", "--model", model),
        *("--model_args", json.dumps(model_args), "--tasks", "humaneval_mtp"),
        *("--limit", str(limit), "--batch_size", "8", "-o", str(out), "--log_samples"),
        *("--gen_kwargs", "max_gen_toks=64"),
    ]
    own = os.environ | {"HF_HUB_OFFLINE": "1"}
    if name != "nodes":
        return [([sys.executable, *words], own | {"CUDA_VISIBLE_DEVICES": gpus})]
    meet = ["-m", "torch.distributed.run", "--nnodes", "2", "--master-addr", "127.0.0.1"]
    meet += ["--master-port", "29511", "--nproc_per_node", "1", "--node-rank"]
    return [
        ([sys.executable, *meet, rank, *words], own | {"CUDA_VISIBLE_DEVICES": rank})
        for rank in gpus.split(",")
    ]


def run(name, folder, place, given):
    """Return one run's answers and facts, or why it failed; its output is in a log beside them."""
    out, log = place / name, given.output.with_name(f"{name}.log")
    try:
        found = real_runs.run(starts(name, folder, out, given.limit), out, log, given.seconds)
    except real_runs.Failed as error:
        return None, {"failed": str(error)}
    facts = {key: found.mtp.get(key) for key in ("engine", "hardware", "totals")}
    return found.answers, {"process_s": found.seconds, **facts}


def parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=150, help="for each run")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    return parser


def write_mimo(folder):
    """Write a seeded checkpoint of MiMo's kind, for prompts and answers of HumanEval's length."""
    folder.mkdir()
    with mock.patch.object(requests, "CONTEXT", CONTEXT):
        requests.write_checkpoint(folder, "mimo")
    path = folder / "config.json"
    content = json.loads(path.read_text()) | {"max_position_embeddings": CONTEXT}
    path.write_text(json.dumps(content))


def main():
    """Run all, and write the report after each."""
    given = parser().parse_args()
    given.output.parent.mkdir(parents=True, exist_ok=True)
    answers, report = {}, {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_mimo(folder := place / "mimo")
        for one in given.runs:
            answers[one], report[one] = run(one, folder, place, given)
            other = answers.get(AGAINST.get(one))
            if answers[one] and other:
                same = real_runs.compared(other, answers[one])
                report[one] |= {key: same[key] for key in ("n_differing", "n_documents")}
            given.output.write_text(json.dumps(report, indent=1) + "\n")
            print(one, json.dumps(report[one])[:1500], flush=True)


if __name__ == "__main__":
    main()
