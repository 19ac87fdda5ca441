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
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

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


def words(name, folder, out, limit):
    """Return the command of lm_eval without the interpreter."""
    model, model_args, _ = RUNS[name]
    if model == "mtp-vllm":
        model_args = ENGINE | {"pretrained": str(folder)} | model_args
    return [
        *("-m", "mtp_harness.cli", "lm_eval", "--model", model),
        *("--model_args", json.dumps(model_args), "--tasks", "humaneval_mtp"),
        *("--limit", str(limit), "--batch_size", "8", "-o", str(out), "--log_samples"),
        *("--gen_kwargs", "max_gen_toks=64"),
    ]


def commands(name, given):
    """Return what to start at once: (command, environment)."""
    _, _, gpus = RUNS[name]
    own = os.environ | {"HF_HUB_OFFLINE": "1"}
    if name != "nodes":
        return [([sys.executable, *given], own | {"CUDA_VISIBLE_DEVICES": gpus})]
    start = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--master-addr"]
    start += ["127.0.0.1", "--master-port", "29511", "--nproc_per_node", "1", "--node-rank"]
    return [([*start, str(i), *given], own | {"CUDA_VISIBLE_DEVICES": str(i)}) for i in range(2)]


def run(name, folder, place, given):
    """Return one run's answers and facts, or why it failed; its output is in a log beside them."""
    out, log = place / name, given.output.with_name(f"{name}.log")
    began = time.perf_counter()
    with log.open("w") as said:
        started = [
            subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            for command, env in commands(name, words(name, folder, out, given.limit))
        ]
        until = time.monotonic() + given.seconds
        try:
            ended = [one.wait(timeout=max(1, until - time.monotonic())) for one in started]
        except subprocess.TimeoutExpired:
            for one in started:
                one.terminate()
            return {"failed": f"not ready after {given.seconds} s", "log": tail(log)}
    if any(ended):
        return {"failed": f"ended with {ended}", "log": tail(log)}
    [results], [samples] = out.rglob("results_*.json"), out.rglob("samples_*.jsonl")
    mtp = json.loads(results.read_text())["config"]["mtp"]
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    return {
        "answers": {row["doc_id"]: row["resps"] for row in rows},
        "process_s": round(time.perf_counter() - began, 1),
        "engine": mtp.get("engine"),
        "hardware": mtp.get("hardware"),
        "totals": mtp.get("totals"),
    }


def tail(log):
    return log.read_text(errors="replace")[-3000:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=150, help="for each run")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    given = parser.parse_args()
    given.output.parent.mkdir(parents=True, exist_ok=True)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (folder := place / "mimo").mkdir()
        with mock.patch.object(requests, "CONTEXT", CONTEXT):
            requests.write_checkpoint(folder, "mimo")
        path = folder / "config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": CONTEXT})
        )
        for one in given.runs:
            found[one] = run(one, folder, place, given)
            other = found.get(AGAINST.get(one, ""), {})
            if "answers" in found[one] and "answers" in other:
                pairs = [
                    (found[one]["answers"][doc], text) for doc, text in other["answers"].items()
                ]
                found[one]["n_differing"] = sum(own != its for own, its in pairs)
                found[one]["n_documents"] = len(pairs)
            kept = {k: {n: v for n, v in r.items() if n != "answers"} for k, r in found.items()}
            given.output.write_text(json.dumps(kept, indent=1) + "\n")
            print(one, json.dumps(kept[one])[:1500], flush=True)


if __name__ == "__main__":
    main()
