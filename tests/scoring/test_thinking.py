"""What a model thinks before it answers counts in no task, and unfinished thinking is counted."""

import json

import lm_eval.models  # noqa: F401
import pytest

from mtp_harness import _startup, tasks_dir
from mtp_harness.commands.grade import main as grade
from mtp_harness.data import docstrings, humaneval
from mtp_harness.decode.records import DecodeRecord, Generation
from mtp_harness.scoring.thinking import opens_thinking, without_thinking

from ..data.code_fixtures import SUM_SCRIPT, write_all
from ..data.text_fixtures import GSM8K, library, write_texts
from .test_code_runs import Chatty, solution


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("<think>a draft</think>answer", "answer"),
        ("<think>\na draft\n</think>\n\n    return 1\n", "    return 1\n"),
        ("\n<think>\r\na draft\r\n</think>\r\n\r\nanswer", "answer"),
        ("a draft that the prompt opened</think>\nanswer", "answer"),
        ("<think>one</think>first<think>two</think>answer", "answer"),
        ("<think></think>", ""),
        ("answer", "answer"),
        ("\n\nanswer\n", "\n\nanswer\n"),
        ("", ""),
        ('s.replace("<think>", "")\n', 's.replace("<think>", "")\n'),
        ("# the tag `<think>` opens\n", "# the tag `<think>` opens\n"),
    ],
)
def test_everything_up_to_the_last_closing_tag_goes(answer, final):
    found = without_thinking(answer, opened=False)
    assert (str(found), found.truncated) == (final, False)


@pytest.mark.parametrize(
    ("answer", "opened"),
    [
        ("<think>a draft", False),
        ("Well. <think>\na draft", False),
        ("<think>one</think>first\n<think>two", False),
        ("a draft", True),
        ("", True),
        ("<think>a draft", True),
        ("a draft</think>first <think>two", True),
    ],
)
def test_a_block_that_never_closes_is_an_empty_answer(answer, opened):
    found = without_thinking(answer, opened)
    assert (str(found), found.truncated) == ("", True)


def test_prompts_that_open_a_block():
    assert opens_thinking("<assistant><think>\n") and opens_thinking("<think>")
    assert not opens_thinking("What does <think> do?") and not opens_thinking("a<think>\n</think>")
    assert not opens_thinking(["<think>"])


# ---------------------------------------------------------------- through the harness


class Opening(Chatty):
    """A model whose chat template opens the block, as DeepSeek-R1's does."""

    def apply_chat_template(self, history, add_generation_prompt=True):
        return super().apply_chat_template(history, add_generation_prompt) + "<think>\n"


class Cutting(Opening):
    """A model that has cut off its thinking, as the harness's own do with `think_end_token`."""

    think_end_token = "</think>"


@pytest.fixture
def run(tmp_path, monkeypatch):
    _startup.install()
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    write_all(tmp_path)
    monkeypatch.setenv("MTP_HARNESS_DATA", str(write_texts(tmp_path)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(docstrings, "code_corpus", library)

    def call(model, task, **options):
        metadata = options.pop("metadata", {})
        manager = TaskManager(include_path=tasks_dir(), include_defaults=False, metadata=metadata)
        options = {"bootstrap_iters": 0, "confirm_run_unsafe_code": True} | options
        found = simple_evaluate(model=model, tasks=[task], task_manager=manager, **options)
        table = {k.removesuffix(",none"): v for k, v in found["results"][task].items()}
        return found["samples"][task], table

    return call


def canonical(prompt):
    row = next(row for row in humaneval.read_problems() if row["prompt"] in prompt)
    return f"```python\n{row['prompt']}{row['canonical_solution']}```\n"


def number(prompt):
    (row,) = (row for row in GSM8K if row["question"] in prompt.rpartition("Q: ")[2])
    return f"The answer is {row['answer'].rpartition('#### ')[2]}."


RIGHT = {
    "humaneval_mtp": (canonical, "```python\ndef f(): pass\n```\n"),
    "mbpp_mtp": (solution, "```python\ndef f(): pass\n```\n"),
    "apps_mtp": (lambda prompt: SUM_SCRIPT, "```python\nprint('a draft')\n```\n"),
    "codecontests_mtp": (lambda prompt: SUM_SCRIPT, "```python\nprint('a draft')\n```\n"),
    "gsm8k_mtp": (number, "The answer is 12345."),
}


@pytest.mark.parametrize(("task", "chat"), [("mbpp_mtp", False), *((task, True) for task in RIGHT)])
def test_no_task_of_right_and_wrong_answers_reads_a_draft(run, task, chat):
    right, wrong = RIGHT[task]

    def answer(prompt, i):
        mine = right(prompt)
        opens = "" if chat else "<think>\n"
        return [
            f"{opens}{wrong}\n</think>\n\n{mine}",
            f"<think>{wrong}</think>{wrong}</think>\n{mine}",
            f"{opens}{mine}",  # the budget ends inside the thinking
            f"{wrong}</think>\n{mine}" if chat else mine,
        ][i]

    model = (Opening if chat else Chatty)(answer)
    metadata = {"n_samples": 4, "temperature": 0.5}
    samples, table = run(model, task, metadata=metadata, limit=1, apply_chat_template=chat)
    assert table["pass@1_sampled"] == 3 / 4
    assert table["n_truncated_answers"] == samples[0]["n_truncated_answers"] == 1
    assert samples[0]["filtered_resps"][0][2] == ""
    assert samples[0]["resps"][0][2].endswith(right(samples[0]["arguments"][0][0]))


@pytest.mark.parametrize(("task", "chat"), [("xsum_mtp", False), ("docstring_mtp", True)])
def test_no_summary_holds_a_draft(run, task, chat):
    opens = "" if chat else "<think>"
    asked = []

    def answer(prompt, i):
        asked.append(prompt)
        mine = f"summary {len(asked)}"
        return f"{opens}{mine}" + ("" if len(asked) == 2 else f" draft</think>\n{mine}")

    model = (Opening if chat else Chatty)(answer)
    samples, table = run(model, task, limit=3, apply_chat_template=chat)
    assert [sample["filtered_resps"] for sample in samples] == [
        [["summary 1"]],
        [[""]],
        [["summary 3"]],
    ]
    assert table["n_truncated_answers"] == table["empty_answers"] == 1


def test_a_model_that_cuts_its_thinking_off_gave_answers(run):
    task, right = "mbpp_mtp", solution

    def record(ended_by, n_characters):
        return DecodeRecord(
            9, 0, 1, "greedy", 3, (0,) * 3, ended_by, False, 1, 0.1, 0.2, n_characters=n_characters
        )

    def answer(prompt, i):
        mine = right(prompt)
        return [
            mine,
            Generation(mine, record("eos", None)),  # cut: its tokens are not the text's
            Generation(mine, record("length", None)),
            Generation(mine, record("length", (len(mine), 0, 0, 0))),  # nothing to cut
            f"<think>{mine}",
        ][i]

    metadata = {"n_samples": 5, "temperature": 0.5}
    samples, table = run(
        Cutting(answer), task, metadata=metadata, limit=1, apply_chat_template=True
    )
    assert (table["pass@1_sampled"], table["n_truncated_answers"]) == (3 / 5, 2)
    assert [one["decode"] is None for one in samples[0]["n_answers"]] == [True, *[False] * 3, True]


# ---------------------------------------------------------------- saved answers


def saved(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    return path


@pytest.fixture
def graded(tmp_path, capsys):
    def call(rows):
        path = tmp_path / "model" / "samples_mbpp_mtp_2026-01-31T12-00-00.jsonl"
        assert grade([str(saved(path, rows)), "--confirm_run_unsafe_code"]) == 0
        copy = path.with_suffix(".graded.jsonl")
        read = [json.loads(line) for line in copy.read_text().splitlines()]
        outcomes = [a["verdict"]["outcome"] for row in read for a in row["n_answers"]]
        counts = [row["n_truncated_answers"] for row in read]
        return outcomes, counts, capsys.readouterr().out

    return call


def answers_of_one_problem(run, model):
    metadata = {"n_samples": 3, "temperature": 0.5}
    samples, table = run(
        model, "mbpp_mtp", metadata=metadata, limit=1, predict_only=True, apply_chat_template=True
    )
    return samples, table


def test_grade_reads_no_draft_in_saved_answers(run, graded):
    def answer(prompt, i):
        mine = solution(prompt)
        return [f"def f(): pass\n</think>\n{mine}", mine, f"<think>{mine}"][i]

    samples, table = answers_of_one_problem(run, Opening(answer))
    assert table["n_truncated_answers"] == 2 and "pass@1_sampled" not in table
    outcomes, counts, shown = graded(samples)
    assert (outcomes, counts) == (["pass", "fail", "fail"], [2])
    assert "2 answers end inside <think> and count as empty\n" in shown
    # Samples of others do not count them, and theirs are read by the same rule.
    others = [{k: v for k, v in row.items() if k != "n_truncated_answers"} for row in samples]
    for row in others:
        row["filtered_resps"] = row["resps"]
    assert graded(others)[:2] == (["pass", "fail", "fail"], [2])


def test_grade_keeps_answers_whose_thinking_the_model_cut_off(run, graded):
    samples, table = answers_of_one_problem(run, Cutting(lambda prompt, i: solution(prompt)))
    assert table["n_truncated_answers"] == 0
    outcomes, counts, shown = graded(samples)
    assert (outcomes, counts) == (["pass"] * 3, [0])
    assert "<think>" not in shown
