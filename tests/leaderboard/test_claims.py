"""The claims: verdicts by hand, and claims as data."""

import re
import tomllib
from pathlib import Path

import pytest

import mtp_harness.leaderboard.claims as claims_module
from mtp_harness.leaderboard import runs
from mtp_harness.leaderboard.claims import NO_NUMBER, decreases, judge, pool, reaches, side
from mtp_harness.leaderboard.table import build
from mtp_harness.scoring.bootstrap import Estimate

from .result_files import write_run

DATA = tomllib.loads(Path(claims_module.__file__).with_name("claims.toml").read_text())["claim"]


@pytest.mark.parametrize(
    ("low", "high", "direction", "verdict"),
    [
        (0.1, 0.3, "higher", "agree"),
        (-0.1, 0.3, "higher", "inconclusive"),
        (-0.3, -0.1, "higher", "disagree"),
        (0.0, 0.0, "higher", "inconclusive"),
        (-0.3, -0.1, "lower", "agree"),
        (0.1, 0.3, "lower", "disagree"),
        (0.0, 0.2, "not lower", "agree"),
        (-0.1, 0.2, "not lower", "inconclusive"),
        (-0.2, -0.1, "not lower", "disagree"),
        (-0.04, 0.05, "equal", "agree"),
        (-0.04, 0.06, "equal", "inconclusive"),
        (0.06, 0.07, "equal", "disagree"),
        (-0.07, -0.06, "equal", "disagree"),
    ],
)
def test_side_of_a_difference(low, high, direction, verdict):
    assert side(Estimate((low + high) / 2, low, high), direction, margin=0.05) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(3.0, 3.2, "agree"), (2.9, 3.1, "inconclusive"), (2.5, 2.9, "disagree")],
)
def test_reaching_three(low, high, verdict):
    assert reaches(low, high, 3.0) == verdict


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ([(0.7, 0.8), (0.5, 0.6), (0.3, 0.4)], "agree"),
        ([(0.7, 0.8), (0.5, 0.75), (0.3, 0.4)], "inconclusive"),
        ([(0.7, 0.8), (0.3, 0.4), (0.5, 0.6)], "disagree"),
        ([(0.7, 0.8)], "inconclusive"),
    ],
)
def test_decreasing(intervals, verdict):
    assert decreases(intervals) == verdict


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        (["agree", "agree"], "agree"),
        (["agree", "inconclusive"], "inconclusive"),
        (["disagree", "inconclusive"], "disagree"),
        (["agree", "disagree"], "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_several_findings(verdicts, verdict):
    assert pool(verdicts) == verdict


def judged(folder, start):
    [found] = [j for j in judge(build(runs.find([str(folder)]))) if j.claim.startswith(start)]
    return found


def heads_table(*intervals):
    rows = [
        ["code", i, "accuracy", (low + high) / 2, low, high, 100]
        for i, (low, high) in enumerate(intervals, 1)
    ]
    columns = ["data_set", "offset", "metric", "value", "low", "high", "count"]
    return {"by_offset": {"columns": columns, "rows": rows}}


def test_small_models_are_worse(tmp_path):
    write_run(tmp_path / "a", "one", n=1, k=1, scores={"pass@1": [1.0] * 30})
    write_run(tmp_path / "b", "four", k=4, scores={"pass@1": [0.0] * 30})
    write_run(tmp_path / "c", "four", k=2, scores={"pass@1": [0.0] * 30})
    found = judged(tmp_path, "Small models are worse")
    assert found.verdict == "agree"
    assert len(found.findings) == 1  # one pair: k does not change the text
    assert "-1 [-1, -1]" in found.measured
    assert "four, k=4, 4M parameters against one, 4M parameters" in found.measured
    assert not judged(tmp_path, "Large models").findings


def test_mean_over_choice_tasks(tmp_path):
    # Four heads are better at one task and worse at two: on average a sixth of a point worse.
    for task, one, four in (("copa", 0.5, 1.0), ("piqa", 1.0, 0.5), ("hellaswag", 1.0, 0.5)):
        for name, n, value in (("one", 1, one), ("four", 4, four)):
            scores = {"acc": [value] * 8}
            if task == "piqa":  # its normalised accuracy counts
                scores = {"acc": [0.0] * 8, "acc_norm": [value] * 8}
            write_run(tmp_path / task / name, name, task, scores, n=n, k=n, generation=False)
    found = judged(tmp_path, "On choice tasks, four heads")
    assert [finding.verdict for finding in found.findings] == ["agree"]
    assert found.measured.startswith("mean of 3 tasks -0.1667 [-0.1667, -0.1667]")


@pytest.mark.parametrize(
    "other",
    [{"parameters": 5_000_000}, {"mtp": {"train_tokens": 10}}, {"mtp": {"train_seed": 3}}],
    ids=["parameters", "tokens", "seed"],
)
def test_models_that_are_no_pair(tmp_path, other):
    write_run(tmp_path / "a", "one", n=1, k=1, **other)
    write_run(tmp_path / "b", "four", k=4)
    assert not judged(tmp_path, "Small models are worse").findings


def test_two_and_a_half_of_three_drafts(tmp_path):
    for name, kept, verdict in (("a", 36, "agree"), ("b", 30, "disagree")):
        scores = {"tokens_per_forward_no_loops": [(kept, 10)] * 20}
        write_run(tmp_path / name, scores=scores)
        assert judged(tmp_path / name, "On code, 2.5").verdict == verdict
    write_run(tmp_path / "k", k=2, scores={"tokens_per_forward_no_loops": [(36, 10)] * 20})
    assert not judged(tmp_path / "k", "On code, 2.5").findings  # the claim is about four heads


def test_speedup_of_the_best_cell_and_of_the_largest_batch(tmp_path):
    columns = "model batch prompt_tokens k metric value low high count".split()
    rows = [
        ["self", 1, 512, 4, "speedup", 3.4, None, None, 10],
        ["self", 16, 512, 4, "speedup", 1.5, 1.4, 1.6, 10],
        ["n1", 16, 512, 1, "speedup", 9.0, None, None, 10],
        ["self", 16, 512, 2, "tokens_per_second", 900.0, None, None, 10],
    ]
    tables = {"by_cell": {"columns": columns, "rows": rows}}
    write_run(tmp_path, task="mtp_speed", scores={"speedup": [1.0]}, tables=tables)
    best = judged(tmp_path, "With all four heads")
    assert best.verdict == "agree"
    assert "3.40 at batch 1, prompt_tokens 512, k 4" in best.measured
    assert judged(tmp_path, "The speedup lasts").verdict == "disagree"


def test_nearer_heads_are_the_plans_claim_without_a_number(tmp_path):
    tables = heads_table((0.7, 0.8), (0.5, 0.6))
    write_run(tmp_path, task="mtp_heads", scores={"accuracy_1": [0.75]}, tables=tables)
    found = judged(tmp_path, "Nearer heads")
    assert found.verdict == "agree"
    assert found.printed == NO_NUMBER
    assert "plan" in found.source
    assert "accuracy on code 0.750, 0.550" in found.measured


def test_no_other_claim_lacks_a_number():
    assert [c["claim"] for c in DATA if not c["printed"]] == ["Nearer heads are more accurate"]


@pytest.mark.parametrize("claim", DATA, ids=[claim["claim"][:40] for claim in DATA])
def test_claims_are_whole(claim):
    assert {"claim", "source", "setting", "printed", "rule", "needs"} <= claim.keys()
    assert claim["source"]
    if claim["rule"] != "none":
        re.compile(claim["tasks"])
        re.compile(claim["metrics"])
    rule_needs = {"difference": "direction", "equal": "margin", "at_least": "value"}
    assert rule_needs.get(claim["rule"], "claim") in claim
    assert claim["rule"] in {*rule_needs, "decreasing", "none"}


def test_claim_that_no_run_speaks_to_says_what_is_needed(tmp_path):
    write_run(tmp_path)
    found = judged(tmp_path, "At 13B, four heads solve 12")
    assert (found.verdict, found.findings) == ("inconclusive", ())
    assert found.measured.startswith("needs humaneval_mtp of 13B models")


def test_induction_is_judged_by_the_stories(tmp_path):
    for n, right in ((1, 20), (2, 90)):
        scores = {"stories_accuracy": [(right, 100)] * 9, "code_accuracy": [(50, 100)] * 9}
        own = {"scores": scores, "n": n, "k": n, "generation": False}
        write_run(tmp_path / str(n), f"n{n}", "mtp_induction", **own)
    board = build(runs.find([str(tmp_path)]))
    (found,) = [one for one in judge(board) if "learn induction far better" in one.claim]
    assert found.verdict == "agree"
