"""The summarisation tasks run by the harness, their numbers computed again by other means."""

import json
import sys
from collections import Counter
from itertools import product

import lm_eval.models  # noqa: F401
import numpy as np
import pytest
from lm_eval.api.model import LM

from mtp_harness import _startup, tasks_dir
from mtp_harness.data import docstrings
from mtp_harness.decode.records import DecodeRecord, Generation
from mtp_harness.errors import UserError
from mtp_harness.scoring import rouge
from mtp_harness.scoring.rouge import SCORES

from ..data.code_fixtures import write
from ..data.text_fixtures import ENGLISH, SUMMARIES, articles, library, summaries, write_texts

TASKS = [f"{name}_mtp" for name in SUMMARIES]


class Canned(LM):
    """Gives each prompt the answer that a function of it returns, as an instruct model if asked."""

    tokenizer_name = "canned"

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.asked = []

    def generate_until(self, requests, disable_tqdm=False):
        self.asked += [request.args for request in requests]
        return [self.answer(request.args[0]) for request in requests]

    def apply_chat_template(self, history, add_generation_prompt=True):
        turns = "".join(f"<{turn['role']}>{turn['content']}" for turn in history)
        return turns + ("<assistant>" if add_generation_prompt else "")

    def chat_template(self, chat_template=False):
        return "canned"

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


@pytest.fixture
def run(tmp_path, monkeypatch):
    _startup.install()
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("MTP_HARNESS_DATA", str(write_texts(tmp_path)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(docstrings, "code_corpus", library)  # the real one takes seconds to parse

    def call(model, tasks, metadata=None, **options):
        manager = TaskManager(
            include_path=tasks_dir(), include_defaults=False, metadata=metadata or {}
        )
        options = {"bootstrap_iters": 0} | options
        found = simple_evaluate(model=model, tasks=tasks, task_manager=manager, **options)
        return found, {
            task: {name.removesuffix(",none"): value for name, value in table.items()}
            for task, table in found["results"].items()
        }

    return call


def record(n_verified, n_truncated=0):
    n_kept = sum(v + 1 for v in n_verified)
    return DecodeRecord(9, n_truncated, 4, "greedy", n_kept, n_verified, "stop", False, 1, 0.1, 0.2)


def references():
    return {text: reference for _, _, rows in SUMMARIES.values() for text, reference in rows}


# ---------------------------------------------------------------- scores


def test_reference_summaries_score_1_in_all_eight(run):
    known = references()

    def answer(prompt):
        return next(known[text] for text in known if text in prompt)

    _, tables = run(Canned(answer), ["mtp_summarization"])
    assert set(TASKS) <= set(tables)
    for task in TASKS:
        table = tables[task]
        assert [table[name] for name in SCORES if "unicode" in name] == [1] * 15
        assert table["empty_answers_unicode"] == table["empty_references_unicode"] == 0
        without_ascii = {"pn_summary_mtp": 2, "wikisummary_mtp": 2, "thaisum_mtp": 2}.get(task, 0)
        assert table["empty_references"] == table["empty_answers"] == without_ascii
        score = 0 if without_ascii else 1
        assert [table[name] for name in SCORES if "unicode" not in name] == [score] * 15
        assert "truncated_prompts" not in table and "tokens_per_forward" not in table


def test_means_and_intervals_are_over_documents(run):
    # Of three documents one is answered in full, one by a word of five, and one by nothing.
    given = iter([ENGLISH[0][1], "barked", "…"])
    found, tables = run(Canned(lambda prompt: next(given)), ["samsum_mtp"])
    table = tables["samsum_mtp"]
    f1 = np.array([1, 2 * 1 * (1 / 5) / (1 + 1 / 5), 0])
    assert table["rouge1_f1"] == pytest.approx(f1.mean())
    assert table["rouge1_precision"] == pytest.approx((1 + 1 + 0) / 3)
    assert table["rouge1_recall"] == pytest.approx((1 + 1 / 5 + 0) / 3)
    exact = np.quantile(f1[np.array(list(product(range(3), repeat=3)))].mean(axis=1), [0.05, 0.95])
    ends = [table["rouge1_f1_low90"], table["rouge1_f1_high90"]]
    assert ends == pytest.approx(exact)  # of 27 resamples none is near a quantile of the other
    assert (table["empty_answers"], table["empty_references"]) == (1, 0)
    samples = found["samples"]["samsum_mtp"]
    assert [sample["rouge1_f1"] for sample in samples] == pytest.approx(f1)
    assert [sample["empty_answers"] for sample in samples] == [0, 0, 1]


def test_records_are_pooled_and_truncated_prompts_counted(run):
    given = iter(
        [
            Generation("The cat sat.", record((3, 1), n_truncated=7)),
            Generation("A dog.", record((0, 0, 2))),
            Generation("Rain.", record((1,), n_truncated=1)),
        ]
    )
    found, tables = run(Canned(lambda prompt: next(given)), ["xsum_mtp"])
    table = tables["xsum_mtp"]
    assert table["truncated_prompts"] == 2
    assert table["tokens_per_forward"] == pytest.approx((6 + 5 + 2) / (2 + 3 + 1))
    assert table["tokens_per_forward_mean"] == pytest.approx((6 / 2 + 5 / 3 + 2) / 3)
    assert table["accept_rate_prefix_2"] == pytest.approx(4 / 6)
    assert table["accept_rate_cond_3"] == pytest.approx(2 / 4)
    assert table["n_answers"] == 3
    decoded = [sample["n_answers"][0]["decode"] for sample in found["samples"]["xsum_mtp"]]
    assert [one["n_truncated"] for one in decoded] == [7, 0, 1]


def test_predict_only_scores_nothing(run):
    found, tables = run(Canned(lambda prompt: "a"), ["xsum_mtp"], predict_only=True)
    assert not any(name.startswith("rouge") for name in tables["xsum_mtp"])
    assert [sample["filtered_resps"] for sample in found["samples"]["xsum_mtp"]] == [[["a"]]] * 3


# ---------------------------------------------------------------- prompts


def test_zero_shot_prompt_ends_where_the_summary_begins(run):
    model = Canned(lambda prompt: "x")
    found, _ = run(model, ["cnn_dailymail_mtp", "orangesum_mtp"])
    prompts = [prompt for prompt, _ in model.asked]
    assert prompts[0] == f"Article: {ENGLISH[0][0]}\n\nSummary:"
    assert prompts[3].endswith("\n\nRésumé :")
    assert {tuple(kwargs["until"]) for _, kwargs in model.asked} == {("\n\n",)}
    config = found["configs"]["cnn_dailymail_mtp"]["metadata"]
    assert config["protocol"] == "0-shot"
    documents = config["documents"]["cnn_dailymail"]
    assert documents["n_documents"] == 3
    assert documents["source"] == "test.jsonl, 3 of the test split's 11490 documents"
    assert documents["bytes"] == sum(len(a.encode()) + len(b.encode()) for a, b in ENGLISH)


def test_a_document_is_never_its_own_example(run):
    model = Canned(lambda prompt: "x")
    found, tables = run(model, ["xsum_mtp"], num_fewshot=2)
    for (prompt, _), (document, reference) in zip(model.asked, ENGLISH, strict=True):
        assert prompt.count(document) == 1 and reference not in prompt
        others = [pair for pair in ENGLISH if pair[0] != document]
        shots = "".join(f"Article: {a}\n\nSummary: {b}\n\n" for a, b in others)
        assert prompt == f"{shots}Article: {document}\n\nSummary:"
    assert "never its own example" in found["configs"]["xsum_mtp"]["metadata"]["shots"]
    assert found["configs"]["xsum_mtp"]["metadata"]["protocol"] == "2-shot"
    assert found["n-shot"]["xsum_mtp"] == 2


@pytest.mark.parametrize(("splits", "used"), [(["train"], "train"), (["train", "validation"], "v")])
def test_examples_are_from_another_split_where_there_is_one(run, tmp_path, splits, used):
    for split in splits:
        rows = [{"document": f"{split} {i}", "summary": f"{split[0]} {i}"} for i in range(100)]
        write(tmp_path / "xsum" / f"{split}.jsonl", rows)
    model = Canned(lambda prompt: "x")
    found, _ = run(model, ["xsum_mtp"], num_fewshot=1)
    name = "validation" if used == "v" else "train"
    expected = f"Article: {name} 0\n\nSummary: {name[0]} 0\n\nArticle: {ENGLISH[0][0]}\n\nSummary:"
    assert model.asked[0][0] == expected
    assert found["configs"]["xsum_mtp"]["metadata"]["shots"] == f"the first of {name}"


def test_an_instruct_model_is_asked_and_ends_its_turn_by_itself(run):
    model = Canned(lambda prompt: "x")
    found, _ = run(
        model,
        ["xsum_mtp"],
        apply_chat_template=True,
        num_fewshot=1,
        fewshot_as_multiturn=True,
    )
    prompt, kwargs = model.asked[0]
    (one, two), (document, _) = ENGLISH[1], ENGLISH[0]
    ask = "Summarize the following news article in one sentence. Answer with the summary only."
    turns = f"<user>{ask}\n\n{one}<assistant>{two}<user>{ask}\n\n{document}<assistant>"
    assert prompt.replace("<assistant> ", "<assistant>") == turns
    assert kwargs["until"] == []
    assert found["configs"]["xsum_mtp"]["metadata"]["protocol"] == "1-shot, chat template"


def test_docstrings_are_opened_for_a_base_model_and_asked_of_an_instruct_model(run):
    model = Canned(lambda prompt: "x")
    run(model, ["docstring_mtp"], limit=1)
    prompt, kwargs = model.asked.pop()
    assert kwargs["until"] == ["\n", '"""']
    parts = prompt.split("\n\n\n")
    functions, opened = parts[::2], parts[1::2]
    one, _, asked = functions
    assert all(text.startswith("def f") and text.endswith("return b") for text in functions)
    number = one.partition("a = ")[2].partition("\n")[0]
    assert opened[0] == f'def f{number}():\n    """Return the number {number}."""'
    assert opened[2] == asked.partition("\n")[0] + '\n    """'
    run(model, ["docstring_mtp"], limit=1, apply_chat_template=True, fewshot_as_multiturn=True)
    prompt, kwargs = model.asked.pop()
    turns = prompt.replace("<assistant> ", "<assistant>").split("<user>")[1:]
    assert [turn.count('"""') for turn in turns] == [0, 0, 0] and kwargs["until"] == []
    assert turns[0].endswith(f"{one}<assistant>Return the number {number}.")


# ---------------------------------------------------------------- refused


def test_an_empty_reference_ends_the_run_in_one_sentence(run, tmp_path):
    rows = summaries("xsum")
    rows[1]["summary"] = " "
    write(tmp_path / "xsum" / "test.jsonl", rows)
    with pytest.raises(UserError, match="xsum_mtp: row 2 of XSum has an empty summary") as e:
        run(Canned(lambda prompt: "x"), ["xsum_mtp"])
    assert "\n" not in str(e.value)


def test_missing_documents_end_the_run_in_one_sentence(run, tmp_path):
    (tmp_path / "xsum" / "test.jsonl").unlink()
    with pytest.raises(UserError, match="xsum_mtp: no XSum: looked in") as caught:
        run(Canned(lambda prompt: "x"), ["xsum_mtp"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("task", "most"), [("xsum_mtp", 2), ("docstring_mtp", 16)])
def test_more_examples_than_there_are_documents_are_refused(run, task, most):
    with pytest.raises(UserError, match=f"{task}: num_fewshot=17, expected at most {most}"):
        run(Canned(lambda prompt: "x"), [task], num_fewshot=17, limit=1)


def test_a_missing_scorer_ends_the_run_in_one_sentence(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    rouge._scorer.cache_clear()
    with pytest.raises(UserError, match="^xsum_mtp: ROUGE needs the package rouge-score"):
        run(Canned(lambda prompt: "x"), ["xsum_mtp"])
    rouge._scorer.cache_clear()


# ---------------------------------------------------------------- real models


def test_real_articles_through_the_shipped_model(run, shared_data):
    metadata = {"data_dir": str(shared_data)}
    found, tables = run(
        "mtp",
        ["cnn_dailymail_mtp"],
        metadata,
        limit=3,
        model_args={"device": "cpu", "max_length": 1500},
        gen_kwargs={"max_gen_toks": 24},
    )
    table, rows = tables["cnn_dailymail_mtp"], articles(shared_data)
    sizes = [len(f"Article: {row['article']}\n\nSummary:".encode()) for row in rows[:3]]
    assert table["truncated_prompts"] == sum(size > 1500 - 24 for size in sizes) == 2
    assert found["config"]["mtp"]["totals"]["n_prompts_truncated"] == 2
    assert 1 <= table["tokens_per_forward"] <= 4
    samples = found["samples"]["cnn_dailymail_mtp"]
    answers = [sample["resps"][0][0] for sample in samples]
    for row, answer, sample in zip(rows, answers, samples, strict=False):
        tokens = [
            Counter(
                "".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split()
            )
            for text in (answer, row["highlights"])
        ]
        shared, n = (tokens[0] & tokens[1]).total(), tokens[0].total()
        assert sample["rouge1_precision"] == pytest.approx(shared / max(n, 1))
    json.dumps(found["samples"], default=str)


def test_the_same_task_with_the_harness_own_model(run, tmp_path):
    from ..test_packaging import save_tiny_llama

    save_tiny_llama(tmp_path / "llama")
    model_args = {"pretrained": str(tmp_path / "llama"), "max_length": 256}
    options = {"model_args": model_args, "device": "cpu", "gen_kwargs": {"max_gen_toks": 8}}
    _, tables = run("hf", ["xsum_mtp", "docstring_mtp"], limit=2, **options)
    for table in tables.values():
        assert 0 <= table["rougeL_f1"] <= 1
        assert "tokens_per_forward" not in table and "truncated_prompts" not in table
    _, again = run("mtp", ["xsum_mtp"], limit=2, **options)
    same = {name: tables["xsum_mtp"][name] for name in SCORES}
    assert same == {name: again["xsum_mtp"][name] for name in SCORES}
    assert again["xsum_mtp"]["tokens_per_forward"] == 1
