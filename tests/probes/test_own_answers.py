"""Heads along a model's own answers: the text walk has the decoder's counters."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable

from mtp_harness import _startup, tasks_dir
from mtp_harness.errors import UserError
from mtp_harness.lm import MTPLM
from mtp_harness.models.byte_tokenizer import byte_tokenizer

from ..models import family_checkpoints
from . import runs

PROMPTS = ["ab = (a)\n", "(b) a =", "a", "1\n(ab", "b = 1 (a) " * 9]
"""The last one is longer than the tiny models' context leaves room for."""


def family(monkeypatch, folder, name, n):
    """Write a small sequential checkpoint over bytes."""
    monkeypatch.setitem(family_checkpoints.BASE, "vocab_size", 256)
    family_checkpoints.write(folder, name, n=n)
    byte_tokenizer(512).save_pretrained(folder)
    lm = MTPLM(pretrained=str(folder), device="cpu", batch_size=2)  # experts know no float64
    runs.narrow(lm.model, lm.model.main.lm_head)
    return lm


def answered(lm, tmp_path, draft_heads=None, until=("b)", "\n\n"), **sampling):
    """Let a model answer, and write what `lm_eval --log_samples` writes of it."""
    kwargs = {"until": list(until), "max_gen_toks": 24, "do_sample": bool(sampling), **sampling}
    lm._generator.k = draft_heads or lm.model.n_future_tokens
    asked = [
        Instance("generate_until", {}, (text, kwargs), 0, metadata=("t", i, 1))
        for i, text in enumerate(PROMPTS)
    ]
    answers = lm.generate_until(asked)
    lm._records.clear()  # its results tell of one k, and here each call has its own
    lines = [
        {
            "doc_id": i,
            "arguments": {"gen_args_0": {"arg_0": text, "arg_1": kwargs}},
            "resps": [[str.__str__(answer)]],
            "n_answers": [{"decode": answer.record.as_dict()}],
        }
        for i, (text, answer) in enumerate(zip(PROMPTS, answers, strict=True))
    ]
    return write(tmp_path, lines), [answer.record for answer in answers]


def write(tmp_path, lines, name="samples_mine_2026-01-31T12-00-00.000000.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def lines_of(place):
    return [json.loads(line) for line in Path(place).read_text().splitlines()]


def own_table(results):
    values = runs.table(results, "mtp_heads", "by_offset")
    assert {key[0] for key in values} == {"mine"}
    return {(metric, offset): value for (_, offset, metric), value in values.items()}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Build each once."""
    made, monkeypatch = {}, pytest.MonkeyPatch()

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name.replace(" ", ""))
            if name == "parallel":
                model = runs.save(runs.tiny(4), folder)
                made[name] = MTPLM(pretrained=model, device="cpu", batch_size=2, dtype="float64")
            else:
                made[name] = family(monkeypatch, folder, *name.split()[:1], int(name.split()[1]))
        return made[name]

    yield get
    monkeypatch.undo()


WALKED = [
    *itertools.product(["parallel", "glm4_moe 1", "mimo 1", "deepseek_v3 2"], [None, 2, 1]),
    *[("qwen3_5_text 1", None), ("qwen3_5_text 1", 3), ("qwen3_next 2", None)],
]


@pytest.mark.parametrize(("name", "draft_heads"), WALKED)
def test_the_walk_along_greedy_text_has_the_decoders_counters(models, tmp_path, name, draft_heads):
    lm = models(name)
    place, records = answered(lm, tmp_path, draft_heads)
    assert {record.ended_by for record in records} >= {"length"}
    if draft_heads != 1:
        assert sum(r.n_kept for r in records) > sum(r.n_steps for r in records), "drafts are right"
    results = runs.run(lm, "mtp_heads", on=place)
    kept, steps = sum(r.n_kept for r in records), sum(r.n_steps for r in records)
    found = own_table(results)
    assert found["same_walk", None] == 1
    assert found["decoded_tokens_per_forward", None] == kept / steps
    if draft_heads is None:
        assert found["text_walk_tokens_per_forward", None] == kept / steps
        assert (
            runs.counts(results, "mtp_heads", "by_offset")[
                "mine", None, "text_walk_tokens_per_forward"
            ]
            == steps
        )
    assert found["accuracy", 1] == 1, "greedy text is head 1's"
    told = results["config"]["mtp"]["documents"]["mtp_heads"]["mine"]
    assert told["encoded"] == {"the samples' tokens": len(PROMPTS)}
    flat = results["results"]["mtp_heads"]
    assert flat["mine_same_walk,none"] == 1
    assert flat["mine_decoded_tokens_per_forward,none"] == pytest.approx(kept / steps)


def test_other_counters_than_the_decoders_are_told(models, tmp_path):
    place, _ = answered(models("parallel"), tmp_path)
    lines = lines_of(place)
    lines[0]["n_answers"][0]["decode"]["n_kept"] += 1
    found = own_table(runs.run(models("parallel"), "mtp_heads", on=write(tmp_path, lines)))
    assert found["same_walk", None] == 1 - 1 / len(PROMPTS)


def test_sampled_answers_are_read_and_not_compared(models, tmp_path):
    place, _ = answered(models("parallel"), tmp_path, temperature=1.0)
    results = runs.run(models("parallel"), "mtp_heads", on=place)
    found = own_table(results)
    assert ("same_walk", None) not in found and 0 < found["accuracy", 1] < 1
    assert results["results"]["mtp_heads"]["mine_same_walk,none"] != 1  # NaN: nothing compares


def test_text_without_recorded_tokens_is_encoded_again_and_counted(models, tmp_path):
    lm = models("parallel")
    place, _ = answered(lm, tmp_path, until=())
    recorded = own_table(runs.run(lm, "mtp_heads", on=place))
    original, lines = lines_of(place), lines_of(place)
    lines[0]["n_answers"][0]["decode"]["tokens"] = None
    lines[1]["resps"] = [["what another tokenizer would give"]]
    results = runs.run(lm, "mtp_heads", on=write(tmp_path, lines))
    told = results["config"]["mtp"]["documents"]["mtp_heads"]["mine"]
    assert told["encoded"] == {
        "the samples' text, encoded again": 2,
        "the samples' tokens": len(PROMPTS) - 2,
    }
    whole = [{**line, "n_answers": None} for line in original[:4]]  # whose prompts were not cut
    again = own_table(runs.run(lm, "mtp_heads", on=write(tmp_path, whole)))
    assert again["accuracy", 1] == 1 == recorded["accuracy", 1]


def test_several_answers_to_a_prompt_and_empty_ones(models, tmp_path):
    place, _ = answered(models("parallel"), tmp_path)
    lines = lines_of(place)[:2]
    for line in lines:
        line["resps"], line["n_answers"] = [["ab", "", "b("]], None
    results = runs.run(models("parallel"), "mtp_heads", on=write(tmp_path, lines))
    told = results["config"]["mtp"]["documents"]["mtp_heads"]["mine"]
    assert told["n_documents"] == 4
    assert told["source"] == "samples of mine (2 of 6 answers are empty and left out)"
    assert runs.run(models("parallel"), "mtp_perplexity", on=place)["results"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (None, "no such file, expected samples_….jsonl of a run with --log_samples"),
        ([1], "is not a sample, expected what lm_eval --log_samples writes"),
        (
            {"arguments": {"gen_args_0": {"arg_0": "a", "arg_1": " b"}}, "resps": [[[-1.0, True]]]},
            "holds no generated answer, expected the samples of a task that generates",
        ),
        (
            {"arguments": [["a", {"until": []}]], "resps": [[""]]},
            "holds no answer with text, expected some",
        ),
    ],
)
def test_what_is_no_samples_file_is_one_sentence(models, tmp_path, line, said):
    place = str(tmp_path / "nothing.jsonl") if line is None else write(tmp_path, [line])
    with pytest.raises(UserError, match=f"mtp_heads: .*{said}") as caught:
        runs.run(models("parallel"), "mtp_heads", on=place)
    assert "\n" not in str(caught.value)


def test_the_shipped_model_along_what_humaneval_recorded(tmp_path):
    _startup.install()
    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False)
    lm = MTPLM(pretrained="mtp-bytes-n4", device="cpu", batch_size=3)
    ran = simple_evaluate(
        lm,
        tasks=["humaneval_mtp"],
        task_manager=manager,
        limit=3,
        gen_kwargs="max_gen_toks=48",
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = ran["samples"]["humaneval_mtp"]
    path = tmp_path / "samples_mine_2026-01-31T12-00-00.000000.jsonl"
    path.write_text(
        "".join(json.dumps(one, default=handle_non_serializable) + "\n" for one in samples)
    )
    found = own_table(runs.run(lm, "mtp_heads", on=str(path)))
    decoded = [one["n_answers"][0]["decode"] for one in samples]
    assert any(one["ended_by"] == "stop" for one in decoded)
    kept, steps = sum(d["n_kept"] for d in decoded), sum(len(d["n_verified"]) for d in decoded)
    assert found["same_walk", None] == 1
    assert found["text_walk_tokens_per_forward", None] == kept / steps > 2
    assert ran["results"]["humaneval_mtp"]["tokens_per_forward,none"] == kept / steps
    assert torch.get_num_threads() == 1
