"""GSM8K: final answers, prompts, samples."""

import json
import re
from itertools import combinations

import pytest
from lm_eval.filters.extraction import RegexFilter

from mtp_harness import _startup
from mtp_harness.commands.passk import main as passk
from mtp_harness.data import gsm8k
from mtp_harness.scoring.gsm8k_task import judge

from ..data.text_fixtures import GSM8K, write_texts
from .test_code_runs import Canned


@pytest.fixture
def run(tmp_path, monkeypatch):
    _startup.install()
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from mtp_harness import tasks_dir

    monkeypatch.setenv("MTP_HARNESS_DATA", str(write_texts(tmp_path)))

    def call(model, task, metadata=None, **options):
        manager = TaskManager(
            include_path=tasks_dir(), include_defaults=False, metadata=metadata or {}
        )
        options = {"bootstrap_iters": 0} | options
        found = simple_evaluate(model=model, tasks=[task], task_manager=manager, **options)
        table = found["results"][task]
        return found, {name.removesuffix(",none"): value for name, value in table.items()}

    return call


# ---------------------------------------------------------------- one answer


@pytest.mark.parametrize(
    ("answer", "reference", "outcome", "given"),
    [
        (" 3 + 4 = 7. The answer is 7.\n\n", "7", "pass", "7"),
        ("The answer is $3,000.", "3,000", "pass", "$3,000"),
        ("The answer is 3000.00 dollars", "3,000", "pass", "3000.00"),
        ("So the answer is: -3", "-3", "pass", "-3"),
        ("The answer is -$3.", "-3", "pass", "-$3"),
        ("The answer is .5", "0.50", "pass", ".5"),
        ("The answer is 3", "-3", "fail", "3"),
        ("The answer is 8. The answer is 7.", "7", "fail", "8"),  # the first counts
        ("7", "7", "fail", None),
        ("The answer is seven", "7", "fail", None),
        ("", "7", "fail", None),
    ],
)
def test_final_answer(answer, reference, outcome, given):
    assert judge(reference, answer) == (outcome, given)


def test_final_answers_are_read_as_the_harness_reads_them():
    harness = RegexFilter(r"The answer is (\-?[0-9\.\,]+).")
    for example in gsm8k.shots():
        (theirs,) = harness.apply([[example["target"]]], [{}])[0]
        assert judge(theirs, example["target"]).outcome == "pass"


@pytest.mark.parametrize("text", ["", "seven", "1.2.3", "-", "$", "3 4"])
def test_what_is_no_number(text):
    assert gsm8k.value_of(text) is None


# ---------------------------------------------------------------- documents


def test_documents(tmp_path):
    rows = gsm8k.load(str(write_texts(tmp_path)))["test"]
    assert rows["final"][:] == ["7", "3,000", "-3"]
    assert rows["target"][0] == "3+4=<<3+4=7>>7"


def test_a_worked_answer_without_a_number_is_refused(tmp_path):
    path = tmp_path / "gsm8k" / "test.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps({"question": "?", "answer": "none"}))
    with pytest.raises(ValueError, match="row 1 of GSM8K has the answer .*ends in #### and a num"):
        gsm8k.load(str(tmp_path))


# ---------------------------------------------------------------- through the harness


def final(prompt):
    """The right answer to the last question of a prompt."""
    for row in GSM8K:
        if prompt.rpartition("Q: ")[2].startswith(row["question"]):
            return row["answer"].rpartition("#### ")[2]
    raise AssertionError(prompt)


def test_prompt_is_that_of_the_harness_with_eight_examples(run):
    model = Canned(lambda prompt, i: f" The answer is {final(prompt)}.")
    found, table = run(model, "gsm8k_mtp")
    assert (table["pass@1"], table["no_final_answer"], table["n_answers"]) == (1, 0, 3)
    prompt, kwargs = model.asked[0]
    assert len(re.findall("^Q: ", prompt, re.MULTILINE)) == 9
    assert prompt.count("The answer is") == 8
    assert prompt.endswith(f"\n\nQ: {GSM8K[0]['question']}\nA:")
    assert kwargs["until"] == ["Q:"] and kwargs["do_sample"] is False
    assert "n_grading_errors" not in table
    assert found["n-shot"]["gsm8k_mtp"] == 8
    documents = found["configs"]["gsm8k_mtp"]["metadata"]["documents"]["gsm8k"]
    assert (documents["n_documents"], documents["source"]) == (3, "test.jsonl")


def test_the_papers_cell_samples_200_answers(run):
    # Of 200 answers the three problems get 3, 0 and 200 right; 50 of the second say nothing.
    right = {"7": 3, "3,000": 0, "-3": 200}

    def answer(prompt, i):
        value = final(prompt)
        if i < right[value]:
            return f"The answer is {value}."
        return "" if value == "3,000" and i < 50 else "The answer is 12345."

    model = Canned(answer)
    found, table = run(model, "gsm8k_mtp_t0.6")
    assert list(found["configs"]["gsm8k_mtp_t0.6"]["metadata"]["documents"]) == ["gsm8k"]
    assert table["n_answers"] == 600 == len(model.asked)
    assert {(kw["temperature"], kw["top_p"]) for _, kw in model.asked} == {(0.6, 0.95)}
    # 3 of 200 right: pass@10 is the chance that 10 drawn without replacement hold one of them.
    none = (190 * 189 * 188) / (200 * 199 * 198)
    assert table["pass@1_sampled"] == pytest.approx((3 / 200 + 0 + 1) / 3)
    assert table["pass@10_sampled"] == pytest.approx((1 - none + 0 + 1) / 3)
    assert table["pass@100_sampled_low90"] <= table["pass@100_sampled"]
    assert table["no_final_answer"] == 50


def test_temperatures_are_read_back_by_passk(run, tmp_path, capsys):
    for task, right in (("gsm8k_mtp_t0.2", 1), ("gsm8k_mtp_t1.4", 2)):
        found, _ = run(
            Canned(
                lambda prompt, i, right=right: (
                    f"The answer is {final(prompt)}" if i < right else "?"
                )
            ),
            task,
            {"n_samples": 4, "k": [1, 2]},
        )
        path = tmp_path / "out" / "model" / f"samples_{task}_2026-01-31T12-00-00.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = found["samples"][task]
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    assert passk([str(tmp_path / "out"), "--k", "1,2"]) == 0
    first, second, *about = capsys.readouterr().out.splitlines()
    pairs = list(combinations([True, True, False, False], 2))
    expected = sum(map(any, pairs)) / len(pairs)
    assert "gsm8k_mtp  pass@1  0.500" in first and "at T=1.4 (oracle of 0.2, 1.4)" in first
    assert f"gsm8k_mtp  pass@2  {expected:.3f}" in second and "oracle" in " ".join(about)
