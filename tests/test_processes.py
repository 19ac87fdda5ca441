"""Two processes or nodes give one process's results, also when documents do not divide evenly."""

import json
import math
import os
import socket
import subprocess
import sys

import pytest

from mtp_harness.models.byte_tokenizer import byte_tokenizer

from .models.family_checkpoints import write
from .solutions_task import write_task

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

SAMPLED = ("--metadata", '{"n_samples": 2, "temperature": 0.8, "k": [1, 2]}')
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write_task(folder / "mine")
    return folder


def launchers(processes, nodes):
    """Return what starts each node's processes; nodes find each other at a free port."""
    if nodes == 1:
        return [() if processes == 1 else TORCHRUN]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    start = ("-m", "torch.distributed.run", "--nnodes", str(nodes), "--nproc_per_node", "1")
    meet = ("--master_addr", "127.0.0.1", "--master_port", port)
    return [(*start, *meet, "--node_rank", str(rank)) for rank in range(nodes)]


def evaluate(place, name, *words, processes=1, nodes=1, model_args=""):
    """Run `lm_eval` on three documents; return the results' content and the samples by task."""
    out = place / name
    command = [
        *("-m", "mtp_harness.cli", "lm_eval", "--model", "mtp"),
        *("--limit", "3", "--batch_size", "2", "--device", "cpu", "--include_path", "mine"),
        *("-o", str(out), "--log_samples", *words),
        *(("--model_args", model_args) if model_args else ()),
    ]
    own = {"ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    how = {"cwd": place, "env": os.environ | own, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen([sys.executable, *launcher, *command], **how, stdout=subprocess.DEVNULL)
        for launcher in launchers(processes, nodes)
    ]
    try:
        for process in started:
            _, err = process.communicate(timeout=500)
            assert process.returncode == 0, err[-3000:]
    finally:
        for process in started:
            process.kill()  # a node whose other one failed waits for it
    [results] = out.rglob("results_*.json")
    samples = {
        path.name.split("_2")[0].removeprefix("samples_"): sorted(
            map(json.loads, path.read_text().splitlines()), key=lambda row: row["doc_id"]
        )
        for path in out.rglob("samples_*.jsonl")
    }
    return json.loads(results.read_text()), samples


def conditioned(metrics):
    """Return perplexities as the log-likelihoods that they are the exponential of.

    Of 1e32 the exponential makes a rounding of 6e-8 in 74 nats, one of float32, 4e-6.
    """
    return {k: math.log(v) if "perplexity" in k else v for k, v in metrics.items()}


def same(one, two):
    """Compare metrics, counters of decoding, and every answer with its verdict."""
    (results, samples), (others, other_samples) = one, two
    for task, metrics in results["results"].items():
        # Standard errors are bootstrapped by rank 0 over another order of documents.
        kept = {k: v for k, v in metrics.items() if type(v) is not str and "stderr" not in k}
        theirs = {k: others["results"][task][k] for k in kept}
        assert conditioned(theirs) == pytest.approx(conditioned(kept), rel=1e-6, nan_ok=True)
        assert others["n-samples"][task] == {"original": 164, "effective": 3}
    totals, other_totals = (
        {k: v for k, v in content["config"]["mtp"]["totals"].items() if k != "timing"}
        for content in (results, others)
    )
    # A mean is summed in another order by two processes: its last bit may differ.
    mean = totals.pop("tokens_per_forward_mean")
    assert other_totals.pop("tokens_per_forward_mean") == pytest.approx(mean, rel=1e-12)
    assert totals == other_totals
    assert samples.keys() == other_samples.keys()
    for task, rows in samples.items():
        assert [row["doc_id"] for row in rows] == [0, 1, 2]
        for row, other in zip(rows, other_samples[task], strict=True):
            mine, others_own = plain(row["resps"]), plain(other["resps"])
            if task == "solutions":
                assert others_own == pytest.approx(mine, rel=1e-5)
            else:
                assert others_own == mine
            assert verdicts(row) == verdicts(other)


def plain(resps):
    """Texts as they are; of a log-likelihood, the number, whose last bits depend on the batch."""
    return [float(one[0]) if isinstance(one, list) else one for answers in resps for one in answers]


def verdicts(row):
    return [answer["verdict"]["outcome"] for answer in row.get("n_answers", [])]


@pytest.fixture(scope="module")
def alone(place):
    return evaluate(place, "alone", "--tasks", "humaneval_mtp,solutions", *SAMPLED)


@pytest.fixture(scope="module")
def together(place):
    words = ("--tasks", "humaneval_mtp,solutions", *SAMPLED)
    return evaluate(place, "together", *words, processes=2, model_args="journal=together.jsonl")


def test_sampling_with_repeats_grading_and_log_likelihoods(alone, together):
    assert together[0]["config"]["mtp"]["world_size"] == 2
    assert all(len(row["resps"][0]) == 2 for row in together[1]["humaneval_mtp"])
    same(alone, together)


def test_one_process_goes_on_with_the_journal_of_two(place, alone, together):
    assert (place / "together.jsonl.rank1").is_file()
    words = ("--tasks", "humaneval_mtp", *SAMPLED)
    again = evaluate(place, "again", *words, model_args="journal=together.jsonl")
    assert again[0]["config"]["mtp"]["totals"]["timing"]["n_answers_from_journal"] == 6
    assert [row["resps"] for row in again[1]["humaneval_mtp"]] == [
        row["resps"] for row in alone[1]["humaneval_mtp"]
    ]


@pytest.fixture(scope="module")
def hybrid(place):
    """A sequential module on a trunk of linear and full attention, with documents to read."""
    write(place / "hybrid", "qwen3_5_text", vocab_size=256, max_position_embeddings=2048)
    byte_tokenizer(2048).save_pretrained(place / "hybrid")
    texts = [{"text": f"a = {i}\n" * (3 + i), "category": "xy"[i % 2]} for i in range(5)]
    (place / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    return "pretrained=hybrid,draft_heads=3"


def test_documents_and_answers_of_a_hybrid_trunk(place, hybrid):
    """Three documents of two categories: one process has two of them, the other one."""
    metadata = json.dumps({"documents": "texts.jsonl", "n_samples": 2, "temperature": 1.0})
    words = ("--tasks", "mtp_heads,humaneval_mtp", "--metadata", metadata)
    words += ("--gen_kwargs", "max_gen_toks=12")
    one, two = (
        evaluate(place, f"hybrid{n}", *words, processes=n, model_args=hybrid) for n in (1, 2)
    )
    mine, other = (ran[0]["results"]["mtp_heads"] for ran in (one, two))
    assert {"x_accuracy_2,none", "y_accuracy_2,none", "x_chained_accuracy_3,none"} <= mine.keys()
    values = {key: value for key, value in mine.items() if isinstance(value, int | float)}
    assert {key: other[key] for key in values} == pytest.approx(values, rel=1e-5, nan_ok=True)
    told = [ran[0]["config"]["mtp"]["documents"]["mtp_heads"] for ran in (one, two)]
    assert told[0] == told[1]
    answers = [[row["resps"] for row in ran[1]["humaneval_mtp"]] for ran in (one, two)]
    assert answers[0] == answers[1] and len(answers[0]) == 3
    totals = [ran[0]["config"]["mtp"]["totals"] for ran in (one, two)]
    assert totals[0]["n_steps"] == totals[1]["n_steps"] > 0


def test_greedy_answers(place):
    words = ("--tasks", "humaneval_mtp")
    one = evaluate(place, "greedy", *words)
    same(one, evaluate(place, "greedy-together", *words, processes=2))
    nodes = evaluate(place, "nodes", *words, nodes=2)
    assert nodes[0]["config"]["mtp"]["world_size"] == 2
    same(one, nodes)


def test_answers_saved_by_two_processes_are_graded_once_each(place):
    words = ("--tasks", "humaneval_mtp", *SAMPLED, "--predict_only")
    _, samples = evaluate(place, "saved", *words, processes=2, model_args="journal=together.jsonl")
    assert [len(row["resps"][0]) for row in samples["humaneval_mtp"]] == [2, 2, 2]
