"""The comparisons of two GPUs with one, as far as they go without a GPU."""

import json
import os
import sys

import pytest

from .benchmarks import real_runs, two_gpus, two_gpus_vllm

LM_EVAL = ["-m", "mtp_harness.cli", "lm_eval"]
SHARED = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
MODEL_ARGS = '{"pretrained": "mtp-bytes-n4", "dtype": "float32"}'
SPREAD = '{"pretrained": "mtp-bytes-n4", "dtype": "float32", "parallelize": true}'
SAMPLED = ["--metadata", '{"n_samples": 3, "temperature": 0.8, "k": [1, 3]}']


def arguments(module, *words):
    return module.parser().parse_args(["-o", "out.json", *words])


@pytest.mark.parametrize(
    ("how", "kind", "words", "start", "model_args", "task", "more"),
    [
        ("one", "greedy", [], [], MODEL_ARGS, "humaneval_mtp", []),
        ("processes", "sampled", [], SHARED, MODEL_ARGS, "humaneval_mtp", SAMPLED),
        ("spread", "log-likelihood", [], [], SPREAD, "solutions", []),
        ("one", "greedy", ["--cpu"], [], MODEL_ARGS, "humaneval_mtp", ["--device", "cpu"]),
    ],
)
def test_the_commands_are_those_that_ran_on_two_gpus(
    tmp_path, how, kind, words, start, model_args, task, more
):
    """Written by hand from the runs whose results are in `benchmarks/results`."""
    assert two_gpus.command(how, kind, arguments(two_gpus, *words), tmp_path) == [
        *(sys.executable, *start, *LM_EVAL, "--model", "mtp", "--model_args", model_args),
        *("--tasks", task, "--limit", "21", "--batch_size", "8"),
        *("--include_path", f"{tmp_path}/tasks", "-o", f"{tmp_path}/{how}/{kind}", "--log_samples"),
        *more,
    ]


def test_one_process_sees_one_gpu():
    def seen(how, *words):
        return two_gpus.environment(how, arguments(two_gpus, *words)).get("CUDA_VISIBLE_DEVICES")

    assert seen("one") == "0" and seen("one", "--cpu") == ""
    assert seen("processes") == seen("spread") == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_vllm_and_two_nodes_are_started_each_on_its_gpus(tmp_path):
    tensor, nodes = (
        [
            (command, environment["CUDA_VISIBLE_DEVICES"])
            for command, environment in two_gpus_vllm.starts(name, tmp_path, tmp_path / "out", 21)
        ]
        for name in ("tensor", "nodes")
    )
    engine = {
        **{"dtype": "bfloat16", "max_model_len": 2048, "enforce_eager": True},
        **{"gpu_memory_utilization": 0.5, "trust_remote_code": True, "pretrained": str(tmp_path)},
        **{"draft_heads": 1, "tensor_parallel_size": 2},
    }
    task = [
        *("--tasks", "humaneval_mtp", "--limit", "21", "--batch_size", "8"),
        *("-o", f"{tmp_path}/out", "--log_samples", "--gen_kwargs", "max_gen_toks=64"),
    ]
    model = ["--model", "mtp-vllm", "--model_args", json.dumps(engine)]
    assert tensor == [([sys.executable, *LM_EVAL, *model, *task], "0,1")]
    meet = ["-m", "torch.distributed.run", "--nnodes", "2", "--master-addr", "127.0.0.1"]
    meet += ["--master-port", "29511", "--nproc_per_node", "1", "--node-rank"]
    model_args = '{"pretrained": "mtp-bytes-n4", "draft_heads": 4}'
    words = [*LM_EVAL, "--model", "mtp", "--model_args", model_args, *task]
    assert nodes == [([sys.executable, *meet, rank, *words], rank) for rank in ("0", "1")]


def test_a_run_needs_its_output_and_a_known_name(capsys):
    for module, words in ((two_gpus, ["--kinds", "odd"]), (two_gpus_vllm, ["--runs", "odd"])):
        assert arguments(module).limit == 21
        with pytest.raises(SystemExit):
            module.parser().parse_args([])
        with pytest.raises(SystemExit):
            arguments(module, *words)
    assert "invalid choice: 'odd'" in capsys.readouterr().err


def test_answers_are_compared_document_by_document():
    one, other = {0: [["a"]], 1: [["b"]], 2: [["c"]]}, {0: [["a"]], 1: [["d"]], 2: [["e"]]}
    assert real_runs.compared(one, other) == {
        **{"same_documents": True, "n_documents": 3, "n_differing": 2},
        "first_difference": [[["b"]], [["d"]]],
    }
    assert real_runs.compared(one, {0: [["a"]]}) == {
        **{"same_documents": False, "n_documents": 1, "n_differing": 0, "first_difference": None}
    }


def test_log_likelihoods_differ_by_nats():
    one, other = {0: [[[-1.5, True]]], 1: [[["-2", False]]]}, {0: [[[-1.5, True]]], 1: [[[-2.25]]]}
    found = two_gpus.compared("log-likelihood", one, other)
    assert found["n_differing"] == 1 and found["largest_difference_nats"] == 0.25
    assert "largest_difference_nats" not in two_gpus.compared("greedy", {}, {})


WRITES = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[1]) / "m"
out.mkdir(parents=True, exist_ok=True)
rows = [{"doc_id": i, "resps": [[f"answer {i}"]]} for i in range(2)]
(out / "samples_t_1.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
(out / "results_1.json").write_text(json.dumps({"config": {"mtp": {"world_size": 1}}}))
"""


def started(tmp_path, *programs, seconds=60):
    out = tmp_path / "out"
    starts = [([sys.executable, "-c", program, str(out)], os.environ) for program in programs]
    return real_runs.run(starts, out, tmp_path / "log", seconds)


def test_a_run_gives_its_answers_and_results(tmp_path):
    found = started(tmp_path, WRITES)
    assert found.answers == {0: [["answer 0"]], 1: [["answer 1"]]}
    assert found.content["config"]["mtp"] == {"world_size": 1} and 0 <= found.seconds < 60


def test_a_run_that_fails_or_hangs_says_so_and_ends(tmp_path):
    with pytest.raises(real_runs.Failed, match=r"ended with \[0, 3\]:\n(.|\n)*out of memory"):
        started(tmp_path, WRITES, "print('out of memory'); raise SystemExit(3)")
    with pytest.raises(real_runs.Failed, match=r"not ready after 0.5 s:\nit waits"):
        waits = "import time; print('it waits', flush=True); time.sleep(60)"
        started(tmp_path, waits, seconds=0.5)
