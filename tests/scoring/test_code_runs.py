"""The code tasks run by the harness: samples, groups, chat templates, grading errors."""

import json
from collections import Counter
from itertools import combinations, product

import lm_eval.models  # noqa: F401
import numpy as np
import pytest
from lm_eval.api.model import LM

from mtp_harness import _startup, tasks_dir
from mtp_harness.commands.grade import main as grade
from mtp_harness.commands.passk import main as passk
from mtp_harness.errors import UserError
from mtp_harness.sandbox import Verdict
from mtp_harness.sandbox.types import MECHANISMS
from mtp_harness.scoring import code_task
from mtp_harness.scoring.code_task import refuse_errors
from mtp_harness.scoring.programs import BENCHMARKS

from ..data.code_fixtures import write_all


class Canned(LM):
    """Gives the i-th answer to a prompt that a function of prompt and i returns."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.asked = []
        self.seen = Counter()

    def generate_until(self, requests, disable_tqdm=False):
        found = []
        for request in requests:
            prompt, kwargs = request.args
            self.asked.append((prompt, kwargs))
            found.append(self.answer(prompt, self.seen[prompt]))
            self.seen[prompt] += 1
        return found

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


class Chatty(Canned):
    tokenizer_name = "chatty"

    def apply_chat_template(self, history, add_generation_prompt=True):
        turns = "".join(f"<{turn['role']}>{turn['content']}" for turn in history)
        return turns + ("<assistant>" if add_generation_prompt else "")

    def chat_template(self, chat_template=False):
        return "chatty"


@pytest.fixture
def run(tmp_path, monkeypatch):
    _startup.install()
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    write_all(tmp_path)
    monkeypatch.setenv("MTP_HARNESS_DATA", str(tmp_path))

    def call(model, task, metadata=None, **options):
        manager = TaskManager(
            include_path=tasks_dir(), include_defaults=False, metadata=metadata or {}
        )
        options = {"bootstrap_iters": 0, "confirm_run_unsafe_code": True} | options
        found = simple_evaluate(model=model, tasks=[task], task_manager=manager, **options)
        table = found["results"].get(task, {})
        return found, {name.removesuffix(",none"): value for name, value in table.items()}

    return call


def solution(prompt):
    number = prompt.rpartition("assert add_")[2].split("(")[0]
    return f"def add_{number}(a, b):\n    return a + b\n" if number.isdigit() else "pass\n"


def test_samples_of_a_problem_give_pass_at_k(run):
    # Of 5 answers, problem 11 gets 1 right, 12 gets 3, and 13 none.
    def answer(prompt, i):
        right = i < 1 if "add_11(" in prompt.rpartition("[BEGIN]")[0][-200:] else i < 3
        return solution(prompt) if right else "def f(): pass\n"

    metadata = {"n_samples": 5, "temperature": 0.8, "k": [1, 2, 5]}
    model = Canned(answer)
    found, table = run(model, "mbpp_mtp", metadata)
    for k in (1, 2, 5):
        expected = []
        for right in (1, 3, 0):
            subsets = list(combinations([i < right for i in range(5)], k))
            expected.append(sum(map(any, subsets)) / len(subsets))
        mean = sum(expected) / 3
        name = f"pass@{k}_sampled"
        assert table[name] == pytest.approx(mean)
        assert table[f"{name}_low90"] <= mean <= table[f"{name}_high90"]
    # Of the 27 resamples only one (3.7 %) is above two times problem 12 and once problem 11.
    assert table["pass@1_sampled_high90"] == pytest.approx((0.6 * 2 + 0.2) / 3)
    assert "pass@1" not in table
    assert {(kw["do_sample"], kw["temperature"]) for _, kw in model.asked} == {(True, 0.8)}
    assert table["n_answers"] == 15 == len(model.asked)
    samples = found["samples"]["mbpp_mtp"]
    assert [len(sample["n_answers"]) for sample in samples] == [5, 5, 5]
    rules = [a["verdict"]["rule"] for sample in samples for a in sample["n_answers"]]
    assert Counter(rules) == {"values": 10, "objects": 5}


def test_greedy_and_sampled_pass_at_1_have_different_names(run):
    _, greedy = run(Canned(lambda prompt, i: solution(prompt)), "mbpp_mtp")
    assert greedy["pass@1"] == pytest.approx(2 / 3) and "pass@1_sampled" not in greedy
    assert greedy["exact_match"] == 0.0  # the references import math
    _, sampled = run(
        Canned(lambda prompt, i: solution(prompt)),
        "mbpp_mtp",
        gen_kwargs={"do_sample": True, "temperature": 0.5},
    )
    assert sampled["pass@1_sampled"] == pytest.approx(2 / 3) and "pass@1" not in sampled


def test_exact_match_is_with_the_reference(run):
    def answer(prompt, i):
        return "import math\n\n" + solution(prompt)

    _, table = run(Canned(answer), "mbpp_mtp")
    assert table["exact_match"] == pytest.approx(2 / 3)


def test_three_shots_then_the_problem(run):
    model = Canned(lambda prompt, i: "")
    run(model, "mbpp_mtp", limit=1)
    ((prompt, kwargs),) = model.asked
    head, *parts = prompt.split("You are an expert Python programmer")
    assert head == "" and len(parts) == 4
    for number, part in zip((2, 3, 4), parts, strict=False):
        assert "return a + b\n[DONE]\n\n" in part and f"def add_{number}(a, b)" in part
    assert prompt.endswith("assert add_11(0, 0) == 0\n[BEGIN]\n")
    assert kwargs["until"][0] == "[DONE]"
    model = Canned(lambda prompt, i: "")
    found, _ = run(model, "mbpp_mtp", limit=1, num_fewshot=0)
    assert model.asked[0][0].count("[BEGIN]") == 1
    assert found["n-shot"]["mbpp_mtp"] == 0


@pytest.mark.parametrize(("task", "pass_at_1"), [("apps_mtp", 0.5), ("codecontests_mtp", 1.0)])
def test_scripts_are_graded(run, task, pass_at_1):
    code = "print(sum(map(int, input().split())))\n"
    found, table = run(Canned(lambda prompt, i: code), task)
    assert table["pass@1"] == table["exact_match"] == pass_at_1
    assert found["configs"][task]["metadata"]["grading"]["limits"]["wall_s"] >= 4


def test_annotation_of_the_paper_stands_in_the_prompt(run):
    for metadata, there in (({}, False), ({"reward": "correct"}, True)):
        model = Canned(lambda prompt, i: "")
        run(model, "codecontests_mtp", metadata)
        assert model.asked[0][0].startswith('"""\ncorrect\n') is there


def test_what_was_in_force_stands_in_the_results(run):
    found, _ = run(Canned(lambda prompt, i: solution(prompt)), "mbpp_mtp")
    grading = found["configs"]["mbpp_mtp"]["metadata"]["grading"]
    assert json.loads(json.dumps(grading)) == grading
    assert grading["isolation"]["mechanism"] in MECHANISMS
    assert grading["limits"]["wall_s"] == BENCHMARKS["mbpp"].limits.wall_s


def test_instruct_model_is_asked_and_answers_in_a_fence(run):
    def answer(prompt, i):
        code = prompt.partition("```python\n")[2].rpartition("```")[0]
        return f"Sure:\n```python\n{code}    return [1.0]\n```\nDone.\n"

    model = Chatty(answer)
    found, table = run(model, "humaneval_mtp", limit=1, apply_chat_template=True)
    ((prompt, kwargs),) = model.asked
    assert prompt.startswith("<user>Complete the following Python function.")
    assert prompt.endswith("```<assistant>")
    assert kwargs["until"] == []
    chatty = Chatty(lambda prompt, i: "")
    run(chatty, "mbpp_mtp", limit=1, apply_chat_template=True)
    assert chatty.asked[0][1]["until"] == ["[DONE]"]
    verdict = found["samples"]["humaneval_mtp"][0]["n_answers"][0]["verdict"]
    assert (verdict["outcome"], verdict["kind"]) == ("fail", "wrong_answer")  # it ran
    assert table["pass@1"] == 0


def test_predict_only_runs_no_program(run, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a grader was made")

    monkeypatch.setattr(code_task, "Grader", refuse)
    found, _ = run(
        Canned(lambda prompt, i: f"answer {i}"),
        "mbpp_mtp",
        {"n_samples": 2, "temperature": 1.0},
        predict_only=True,
    )
    assert [s["filtered_resps"] for s in found["samples"]["mbpp_mtp"]] == [
        [["answer 0", "answer 1"]]
    ] * 3


def test_sampling_that_cannot_be_scored_is_one_sentence(run):
    with pytest.raises(UserError, match="mbpp_mtp: k=10 with n_samples=5"):
        run(Canned(None), "mbpp_mtp", {"n_samples": 5, "temperature": 1.0, "k": [10]})


@pytest.fixture
def save(run, tmp_path):
    """Run a task and save its samples as the harness's command line does."""
    from lm_eval.loggers import EvaluationTracker

    def call(model_name, answer, task, metadata=None, **options):
        found, table = run(Canned(answer), task, metadata, **options)
        tracker = EvaluationTracker(output_path=str(tmp_path / "results"))
        tracker.general_config_tracker.model_name_sanitized = model_name
        # The tracker names files by the second, and tasks here do not say their temperature.
        tracker.date_id = f"2026-01-01T00-00-0{len(list(tmp_path.rglob('samples_*')))}.000000"
        tracker.save_results_samples(task, found["samples"][task])
        return table

    return call


def test_saved_samples_are_graded_later_with_the_same_scores(save, tmp_path, capsys):
    def answer(prompt, i):
        return solution(prompt) if i % 3 == 0 else "def f(): pass\n"

    metadata = {"n_samples": 10, "temperature": 0.4, "k": [1, 10]}
    table = save("one", answer, "mbpp_mtp", metadata)
    save("two", answer, "mbpp_mtp", metadata, predict_only=True, confirm_run_unsafe_code=False)
    (path,) = (tmp_path / "results" / "two").glob("*.jsonl")
    with pytest.raises(ValueError, match="answers without verdicts: run `mtp-harness grade"):
        passk([str(path)])
    assert grade([str(path), "--confirm_run_unsafe_code"]) == 0
    shown = capsys.readouterr().out
    assert "30 answers to 3 problems, 0 grading errors" in shown
    assert f"pass@1_sampled       {table['pass@1_sampled']:.3f}" in shown
    assert f"pass@10_sampled      {table['pass@10_sampled']:.3f}" in shown
    both = [json.loads(line) for line in path.with_suffix(".graded.jsonl").open()]
    assert [row["pass@10_sampled"] for row in both] == [1.0, 1.0, 0.0]
    assert [len(row["n_answers"]) for row in both] == [10, 10, 10]
    # A folder gives the graded copy, not the file it came from, and so one model's row.
    assert passk([str(tmp_path / "results" / "two"), "--k", "1"]) == 0
    assert capsys.readouterr().out.startswith("two  mbpp_mtp  pass@1  0.267 [")


def test_oracle_and_honest_temperature_come_from_result_files(save, tmp_path, capsys):
    # Right answers of 4 to problems 11 and 12, by model and temperature; 13 is never right.
    right = {
        "weak": {0.1: (2, 0), 0.2: (0, 1), 0.8: (1, 1)},
        "good": {0.1: (4, 1), 0.2: (1, 1), 0.8: (2, 2)},
    }
    for model, temperatures in right.items():
        for t, (first, second) in temperatures.items():

            def answer(prompt, i, first=first, second=second):
                number = prompt.rpartition("assert add_")[2].split("(")[0]
                return solution(prompt) if i < {"11": first, "12": second}.get(number, 0) else ""

            save(model, answer, "mbpp_mtp", {"n_samples": 4, "temperature": t, "k": [1, 4]})
    out = tmp_path / "table.json"
    results = str(tmp_path / "results")
    assert passk([results, "--k", "1,4", "--baseline", "weak", "--json", str(out)]) == 0
    rows = {(row["model"], row["k"]): row for row in json.loads(out.read_text())}
    assert set(rows) == {("weak", 1), ("weak", 4), ("good", 1), ("good", 4)}
    one = rows["good", 1]
    assert one["temperatures"] == [0.1, 0.2, 0.8]
    assert (one["best"], one["score"]["value"]) == (0.1, pytest.approx(5 / 12))
    assert one["gain"]["value"] == pytest.approx(5 / 12 - 2 / 12)
    # All resamples of three problems, the best temperature chosen in each.
    scores = np.array([[4, 1, 2], [1, 1, 2], [0, 0, 0]]) / 4
    draws = np.array(list(product(range(3), repeat=3)))
    exact = np.quantile(scores[draws].mean(axis=1).max(axis=1), [0.05, 0.95])
    assert (one["score"]["low"], one["score"]["high"]) == pytest.approx(tuple(exact))
    # Honest: chosen on one of three problems (all alike for 13: the lowest), scored on two.
    by_hand = [
        (1 / 4 + 0) / 2,  # chosen on 11: T = .1
        (2 / 4 + 0) / 2,  # chosen on 12: T = .8
        (4 / 4 + 1 / 4) / 2,  # chosen on 13, where all are alike: the lowest, T = .1
    ]
    assert one["honest"] == pytest.approx(np.mean(by_hand), abs=0.05)
    assert rows["good", 4]["score"]["value"] == pytest.approx(2 / 3)
    assert rows["weak", 4]["best"] == 0.8 and rows["weak", 4]["gain"] is None
    assert "good  mbpp_mtp  pass@1  0.417 [" in capsys.readouterr().out
    assert passk([results, "--k", "9"]) == 0
    assert capsys.readouterr().out.startswith("pass@9 is left out: no task has 9 judged answers")
    with pytest.raises(ValueError, match="baseline=none; expected one of good, weak"):
        passk([results, "--baseline", "none"])


def test_two_files_for_one_cell_are_refused(save, tmp_path):
    for _ in range(2):
        save("one", lambda prompt, i: "", "mbpp_mtp", {"n_samples": 2, "temperature": 0.1})
    with pytest.raises(ValueError, match="are both one, mbpp_mtp at temperature 0.1"):
        passk([str(tmp_path / "results")])


def test_places_without_samples_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no .*nowhere: give samples"):
        grade([str(tmp_path / "nowhere")])
    odd = tmp_path / "answers.jsonl"
    odd.write_text("{}\n")
    with pytest.raises(ValueError, match="does not say its task"):
        grade([str(odd)])
    with pytest.raises(ValueError, match="gsm8k is not a benchmark of programs"):
        grade([str(odd), "--task", "gsm8k"])


def test_more_than_one_percent_of_grading_errors_fails_the_run():
    fine, broken = Verdict("pass", "", "", 0.0), Verdict("error", "grader", "lost", 0.0)
    refuse_errors([fine] * 99 + [broken], "t")
    with pytest.raises(UserError, match="t: 2 of 100 answers could not be graded.*lost"):
        refuse_errors([fine] * 98 + [broken] * 2, "t")


def test_paper_cells_are_200_samples_at_four_temperatures(run, monkeypatch):
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=tasks_dir(), include_defaults=False)
    cells = {}
    for group in manager.load("mtp_paper_code")["groups"].values():
        for task in group.get_all_tasks():
            config = task.config
            cells[config.task] = (
                config.repeats,
                config.generation_kwargs["temperature"],
                config.generation_kwargs["do_sample"],
                task.ks,
            )
    assert cells == {
        f"{name}_mtp_t{t}": (200, t, True, (1, 10, 100))
        for name in ("humaneval", "mbpp", "apps")
        for t in (0.1, 0.2, 0.4, 0.8)
    }


# Shots and the context


class Short(Canned):
    """A model whose tokens are characters."""

    def __init__(self, answer, max_length):
        super().__init__(answer)
        self.max_length = max_length

    def tok_encode(self, text):
        return list(text)


def shots_of(model):
    return {prompt.count("[BEGIN]") - 1 for prompt, _ in model.asked}


def test_shots_are_left_out_where_the_context_does_not_hold_them(run):
    roomy = Short(lambda prompt, i: "pass\n", 10**6)
    run(roomy, "mbpp_mtp")
    assert shots_of(roomy) == {3}
    longest = max(len(prompt) for prompt, _ in roomy.asked)
    for spare, shots in ((0, 3), (-1, 0)):
        model = Short(lambda prompt, i: "pass\n", longest + 512 + spare)
        found, _ = run(model, "mbpp_mtp")
        assert shots_of(model) == {shots}
        assert found["n-shot"]["mbpp_mtp"] == shots
        why = found["configs"]["mbpp_mtp"]["metadata"].get("num_fewshot", "")
        assert (f"3 shots take up to {longest} tokens, and {longest - 1} are free" in why) == (
            shots == 0
        )


def test_shots_that_were_asked_for_stay(run):
    model = Short(lambda prompt, i: "pass\n", 600)
    found, _ = run(model, "mbpp_mtp", num_fewshot=2)
    assert shots_of(model) == {2} and found["n-shot"]["mbpp_mtp"] == 2


def test_models_that_do_not_tell_their_context_get_the_shots(run):
    model = Canned(lambda prompt, i: "pass\n")
    run(model, "mbpp_mtp")
    assert shots_of(model) == {3}
