"""Whole runs of the probes that decode and that look for names: ordinary models, two processes."""

import pytest
import torch
from lm_eval.tasks import TaskManager
from transformers import LlamaConfig, LlamaForCausalLM

from mtp_harness import _startup, tasks_dir
from mtp_harness.errors import UserError
from mtp_harness.lm import MTPLM
from mtp_harness.models.byte_tokenizer import byte_tokenizer

from . import runs


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """An ordinary causal LM, as an `MTPLM`."""
    folder = tmp_path_factory.mktemp("ordinary")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer(2048).save_pretrained(folder)
    return MTPLM(pretrained=str(folder), device="cpu")


def run(model, task, metadata, limit=None):
    _startup.install()
    from lm_eval.evaluator import simple_evaluate

    manager = TaskManager(include_path=tasks_dir(), include_defaults=False, metadata=metadata)
    arguments = {"device": "cpu"} if isinstance(model, str) else None
    return simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=[task],
        task_manager=manager,
        limit=limit,
        bootstrap_iters=0,
    )


def table(mtp, task, name):
    found = mtp["tables"][task][name]
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


@pytest.mark.parametrize("task", ["mtp_speculative", "mtp_speed"])
def test_an_ordinary_model_has_no_heads_to_decode_with(ordinary, task):
    with pytest.raises(UserError, match="is an ordinary causal language model, which transformers"):
        run(ordinary, task, {"quick": True}, limit=1)


def test_an_ordinary_model_has_one_offset(ordinary):
    found = run(ordinary, "mtp_induction", {"quick": True}, limit=2)
    rows = table(found["config"]["mtp"], "mtp_induction", "by_data_set")
    assert {row["offset"] for row in rows} == {None, 1}


def test_another_model_than_ours_is_told_what_the_task_needs():
    with pytest.raises(UserError, match="mtp_speed sends speed requests, which the model 'hf'"):
        run("hf", "mtp_speed", {"quick": True})


def test_names_are_read_and_counted_in_a_real_run():
    found = run("mtp", "mtp_induction", {"n_texts": 2, "seed": 5, "density": 1.0})
    mtp, flat = found["config"]["mtp"], found["results"]["mtp_induction"]
    rows = {
        (r["data_set"], r["offset"], r["metric"]): r
        for r in table(mtp, "mtp_induction", "by_data_set")
    }
    assert {offset for _, offset, _ in rows} == {None, 1, 2, 3, 4}
    for data_set in ("stories", "code"):
        accuracy = rows[data_set, 1, "accuracy"]
        samples = [
            s["n_documents"]
            for s in found["samples"]["mtp_induction"]
            if s["doc"]["data_set"] == data_set
        ]
        right = sum(s["later"]["right"][0] for s in samples)
        assert accuracy["count"] == sum(s["later"]["mentions"][0] for s in samples) > 10
        assert accuracy["value"] == pytest.approx(right / accuracy["count"])
        assert flat[f"{data_set}_accuracy,none"] == pytest.approx(accuracy["value"])
        assert rows[data_set, None, "name_tokens"]["value"] == 6  # a byte model
        # A trained model copies what it has read, and cannot know what it has not.
        assert accuracy["value"] > 0.5
        assert rows[data_set, 1, "accuracy_first_mention"]["value"] < 0.2
    source = mtp["documents"]["mtp_induction"]["stories"]["source"]
    assert source == "generated: grammar 1, seed 5, density 1.0"


def test_stories_of_ones_own(tmp_path):
    (tmp_path / "a.txt").write_text(
        "Once there was Lily. Then Tom met Lily, and Lily met Tom. So Tom and Lily went home."
    )
    found = run("mtp", "mtp_induction", {"stories": str(tmp_path), "n_texts": 1}, limit=1)
    rows = table(found["config"]["mtp"], "mtp_induction", "by_data_set")
    counts = {r["metric"]: r["count"] for r in rows if r["offset"] == 1}
    assert counts == {"accuracy": 5, "accuracy_first_mention": 2}
    with pytest.raises(UserError, match="mtp_induction: .*holds no .txt file"):
        run("mtp", "mtp_induction", {"stories": str(tasks_dir())})


@pytest.mark.slow
def test_two_processes_give_one_processes_numbers(tmp_path):
    words = ["--limit", "6", "--batch_size", "2"]
    words += ["--tasks", "mtp_speculative,mtp_induction,mtp_arithmetic"]
    words += ["--metadata", '{"quick": true, "new_tokens": 24}']
    one, both = (f["config"]["mtp"] for f in runs.by_one_and_by_two(tmp_path, words))
    for task in ("speculative", "induction"):
        assert [r["n_requests"] for r in one["probes"][task]] == [6]
        assert [r["n_requests"] for r in both["probes"][task]] == [3, 3]
    assert one["documents"] == both["documents"]
    for task, tables in one["tables"].items():
        for name in tables:
            mine, theirs = (table(mtp, task, name) for mtp in (one, both))
            timed = ("seconds", "tokens_per_second")
            assert [r for r in mine if r["metric"] not in timed] == [
                r for r in theirs if r["metric"] not in timed
            ]
