"""mtp_arithmetic by models that are known to be right, wrong, or right up to five operations."""

import re
from collections import Counter

import pytest
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from mtp_harness import _startup, tasks_dir
from mtp_harness.data.arithmetic import load
from mtp_harness.errors import UserError
from mtp_harness.scoring.arithmetic_task import by_operations, is_right

from ..data.test_arithmetic import value_of


class Solver(LM):
    """Answers by whole polynomials over the integers what has at most `most` operations."""

    def __init__(self, most=99, tokenize=None):
        super().__init__()
        self.most, self.seen = most, []
        if tokenize:
            self.tok_encode = tokenize

    def generate_until(self, requests, disable_tqdm=False):
        return [self.solve(*request.args) for request in requests]

    def solve(self, prompt, kwargs):
        self.seen.append((prompt, kwargs))
        question = re.fullmatch(r"(.*?)(_*)=", prompt.rpartition("\n")[2])[1]
        few = len(re.findall(r"[-+*@]", question)) <= self.most
        return f"{value_of(question)}\nand more" if few else "00001"

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def run(model, metadata, **options):
    _startup.install()
    from lm_eval.evaluator import simple_evaluate

    manager = TaskManager(include_path=tasks_dir(), include_defaults=False, metadata=metadata)
    found = simple_evaluate(
        model=model, tasks=["mtp_arithmetic"], task_manager=manager, bootstrap_iters=0, **options
    )
    flat = {k.removesuffix(",none"): v for k, v in found["results"]["mtp_arithmetic"].items()}
    return found, flat


def rows(found):
    table = found["config"]["mtp"]["tables"]["mtp_arithmetic"]["by_operations"]
    made = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    return {(r["operations"], r["pause_tokens"], r["metric"]): r for r in made}


def test_a_model_that_knows_up_to_five_operations():
    metadata = {"count": 6, "operations": [1, 5, 6], "pause_tokens": [0, 5], "seed": 4}
    model = Solver(most=5, tokenize=list)
    found, flat = run(model, metadata)
    assert [flat[f"accuracy_{m}"] for m in (1, 5, 6)] == [1, 1, 0]
    assert flat["accuracy_pause_0"] == flat["accuracy_pause_5"] == pytest.approx(2 / 3)
    assert flat["n_answers"] == 36
    table = rows(found)
    assert table[6, 5, "accuracy"]["value"] == 0 and table[5, 5, "accuracy"]["value"] == 1
    assert table[1, 0, "accuracy"]["count"] == 6
    pauses = Counter(re.search(r"(_*)=$", prompt)[1] for prompt, _ in model.seen)
    assert pauses == {"": 18, "_____": 18}
    assert {kw["do_sample"] for _, kw in model.seen} == {False}
    about = found["config"]["mtp"]["documents"]["mtp_arithmetic"]["polynomials"]
    assert about["source"] == "generated: generator 1, seed 4" and about["n_documents"] == 36


def test_a_tokenizer_that_joins_pauses_is_asked_without_them(caplog):
    joined = Solver(tokenize=lambda text: re.findall(r"[_.…# ]+|.", text))
    _, flat = run(joined, {"count": 2, "operations": 1})
    assert flat["accuracy_1"] == 1 and flat["n_answers"] == 2
    assert "accuracy_pause_5" not in flat
    assert "expressions with pause tokens are left out" in caplog.text


def test_a_pause_of_ones_own():
    whole = Solver(tokenize=lambda text: re.findall(r"<p>|.", text))
    whole.solve = lambda prompt, kwargs: whole.seen.append(prompt) or ""
    run(whole, {"count": 1, "operations": 1, "pause_tokens": 2, "pause": "<p>"})
    assert whole.seen[0].endswith("<p><p>=")


@pytest.mark.parametrize("pause", ["=", "1", "\n", "(_"])
def test_a_pause_that_is_part_of_an_expression_is_refused(pause):
    with pytest.raises(UserError, match="is part of an expression"):
        run(Solver(tokenize=list), {"count": 1, "operations": 1, "pause": pause})


def test_examples_in_the_prompt_are_other_expressions():
    model = Solver(tokenize=list)
    run(model, {"count": 3, "operations": 2, "pause_tokens": 0}, num_fewshot=3)
    for prompt, _ in model.seen:
        *shots, question = prompt.split("\n")
        assert len(shots) == 3 and question.endswith("=")
        for shot in shots:
            expression, answer = shot.split("=")
            assert value_of(expression) == answer and expression not in question


def test_every_expression_is_asked_with_every_number_of_pauses():
    test = load(count=3, operations=[1, 2])["test"]
    kinds = Counter((row["operations"], row["pause_tokens"]) for row in test)
    assert kinds == {(m, p): 3 for m in (1, 2) for p in (0, 5, 10)}
    by_pause = [[r["expression"] for r in test if r["pause_tokens"] == p] for p in (0, 5, 10)]
    assert by_pause[0] == by_pause[1] == by_pause[2]
    assert len(load(quick=True)["test"]) == 10 * 20 * 3


def test_examples_are_no_test_expressions():
    found = load(quick=True)
    examples = set(found["train"]["expression"])
    assert len(examples) == 100 and not examples & set(found["test"]["expression"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"count": 0}, "count=0, expected a whole number from 1"),
        ({"operations": "many"}, "operations=many, expected whole numbers"),
        ({"pause_tokens": [-1]}, r"pause_tokens=\[-1\], expected whole numbers"),
        ({"seed": 1.5}, "seed=1.5, expected a whole number from 0"),
    ],
)
def test_wrong_settings_end_in_a_sentence(wrong, said):
    with pytest.raises(UserError, match=said):
        run(Solver(tokenize=list), wrong)


@pytest.mark.parametrize(
    ("answer", "right"),
    [("12345", 1), (" 12345 ", 1), ("12345\n9", 1), ("123456", 0), ("1234", 0), ("\n12345", 0)],
)
def test_an_answer_is_its_first_line(answer, right):
    assert is_right(answer, "12345") == bool(right)


def test_share_of_the_commonest_value():
    answers = [
        {"operations": 1, "pause_tokens": 0, "answer": a, "right": r}
        for a, r in [("00000", 1), ("00000", 0), ("12345", 0), ("00000", 0)]
    ]
    table = by_operations(answers)
    values = {row[2]: row[3] for row in table["rows"]}
    assert values == {"accuracy": 0.25, "commonest_answer": 0.75}
