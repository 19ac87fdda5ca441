"""The claims: verdicts by hand, and claims as data."""

import re
import tomllib
from pathlib import Path

import pytest

import mtp_harness.leaderboard.claims as claims_module
from mtp_harness.leaderboard.claims import NO_NUMBER, UNPAIRED, judge
from mtp_harness.leaderboard.table import build
from mtp_harness.leaderboard.verdicts import decreases, grows, pool, reaches, side
from mtp_harness.results import run
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
    ("low", "high", "verdict"),
    [
        (0.05, 0.3, "agree"),
        (0.2, 0.3, "agree"),
        (-0.05, 0.3, "inconclusive"),
        (0.05, 0.1, "disagree"),  # a gain, but less than was said
        (-0.3, -0.1, "disagree"),
    ],
)
def test_growing_by_17_percent(low, high, verdict):
    assert grows(Estimate((low + high) / 2, low, high), 0.17) == verdict


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


SMALL, SEVEN = {"parameters": 300_000_000}, {"parameters": 7_000_000_000}
GPU = {"hardware": {"gpu": "a GPU"}}


def judged(folder, start):
    [found] = [j for j in judge(build(run.find([str(folder)]))) if j.claim.startswith(start)]
    return found


def heads_table(*intervals):
    rows = [
        ["code", i, "accuracy", (low + high) / 2, low, high, 100]
        for i, (low, high) in enumerate(intervals, 1)
    ]
    columns = ["data_set", "offset", "metric", "value", "low", "high", "count"]
    return {"by_offset": {"columns": columns, "rows": rows}}


def test_small_models_are_worse(tmp_path):
    write_run(tmp_path / "a", "one", n=1, k=1, scores={"pass@1": [1.0] * 30}, **SMALL)
    for k in (4, 2):
        write_run(tmp_path / str(k), "four", k=k, scores={"pass@1": [0.0] * 30}, **SMALL)
    found = judged(tmp_path, "Small models are worse")
    assert found.verdict == "agree"
    assert len(found.findings) == 1  # one pair: k does not change the text
    assert "-1 [-1, -1]" in found.measured
    assert "four, k=4, 300M parameters against one, 300M parameters" in found.measured
    assert not judged(tmp_path, "Large models").findings


def test_mean_over_choice_tasks(tmp_path):
    # Four heads are better at one task, worse at two and alike at four: on average 1/14 worse.
    others = [(name, 0.5, 0.5) for name in "arc_challenge nq_open social_iqa triviaqa".split()]
    changed = [("copa", 0.5, 1.0), ("piqa", 1.0, 0.5), ("hellaswag", 1.0, 0.5)]
    for task, one, four in (*changed, *others):
        if task == "triviaqa":
            found = judged(tmp_path, "On choice tasks, four heads")
            assert found.verdict == "inconclusive"
            assert found.measured.startswith("no mean without triviaqa (")
        for name, n, value in (("one", 1, one), ("four", 4, four)):
            scores = {"acc": [value] * 30}
            if task == "piqa":  # its normalised accuracy counts
                scores = {"acc": [0.0] * 30, "acc_norm": [value] * 30}
            own = {"n": n, "k": n, "generation": False, **SEVEN}
            write_run(tmp_path / task / name, name, task, scores, **own)
    found = judged(tmp_path, "On choice tasks, four heads")
    assert [finding.verdict for finding in found.findings] == ["agree"]
    assert found.measured.startswith("mean of 7 tasks -0.07143 [-0.07143, -0.07143]")


@pytest.mark.parametrize(
    "other",
    [{"parameters": 400_000_000}, {"mtp": {"train_tokens": 10}}, {"mtp": {"train_seed": 3}}],
    ids=["parameters", "tokens", "seed"],
)
def test_models_that_are_no_pair(tmp_path, other):
    write_run(tmp_path / "a", "one", n=1, k=1, **(SMALL | other))
    write_run(tmp_path / "b", "four", k=4, **SMALL)
    assert not judged(tmp_path, "Small models are worse").findings


def test_two_and_a_half_of_three_drafts(tmp_path):
    for name, kept, verdict in (("a", 36, "agree"), ("b", 30, "disagree")):
        scores = {"tokens_per_forward_no_loops": [(kept, 10)] * 30}
        write_run(tmp_path / name, scores=scores, **SEVEN)
        assert judged(tmp_path / name, "On code, 2.5").verdict == verdict
    write_run(tmp_path / "k", k=2, scores={"tokens_per_forward_no_loops": [(36, 10)] * 30}, **SEVEN)
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
    own = {"scores": {"speedup": [1.0]}, "tables": tables, "mtp": GPU, **SEVEN}
    write_run(tmp_path, task="mtp_speed", **own)
    best = judged(tmp_path, "With all four heads")
    assert best.verdict == "agree"
    assert "3.40 at batch 1, prompt_tokens 512, k 4" in best.measured
    assert judged(tmp_path, "The speedup lasts").verdict == "disagree"


def test_nearer_heads_are_the_plans_claim_without_a_number(tmp_path):
    tables = heads_table((0.7, 0.8), (0.5, 0.6))
    read = {"documents": {"mtp_heads": {"code": {"n_documents": 30}}}}
    own = {"scores": {"accuracy_1": [0.75]}, "tables": tables}
    write_run(tmp_path, task="mtp_heads", **own, mtp=read)
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
    rule_needs = {
        "difference": "direction",
        "equal": "margin",
        "at_least": "value",
        "more_by": "value",
    }
    assert rule_needs.get(claim["rule"], "claim") in claim
    assert claim["rule"] in {*rule_needs, "decreasing", "none"}


def test_claim_that_no_run_speaks_to_says_what_is_needed(tmp_path):
    write_run(tmp_path)
    found = judged(tmp_path, "At 13B, four heads solve 12")
    assert (found.verdict, found.findings) == ("not comparable", ())
    assert found.measured == "4M parameters, the claim is about 11.5B to 14.5B"
    found = judged(tmp_path, "On APPS")
    assert (found.verdict, found.findings) == ("not measured", ())
    assert found.measured.startswith("needs apps_mtp of 7B models")


def test_induction_is_judged_by_the_stories(tmp_path):
    for n, right in ((1, 20), (2, 90)):
        scores = {"stories_accuracy": [(right, 100)] * 30, "code_accuracy": [(50, 100)] * 30}
        own = {"scores": scores, "n": n, "k": n, "generation": False}
        write_run(tmp_path / str(n), f"n{n}", "mtp_induction", **own)
    board = build(run.find([str(tmp_path)]))
    (found,) = [one for one in judge(board) if "learn induction far better" in one.claim]
    assert found.verdict == "agree"


LARGE = {"parameters": 13_000_000_000}
BASE = [0.1, 0.2, 0.4, 0.0, 0.3] * 8


def write_pair(folder, task, base, own, n=4, **more):
    write_run(folder / task / "one", "one", task, {"pass@1": base}, n=1, k=1, **more)
    write_run(folder / task / "several", "several", task, {"pass@1": own}, n=n, k=n, **more)


def test_a_relative_gain_is_judged_by_its_size(tmp_path):
    # A constant factor is the gain of every replicate, however much the scores themselves differ.
    for name, factor, verdict in (("a", 1.25, "agree"), ("b", 1.0625, "disagree")):
        write_pair(tmp_path / name, "mbpp_mtp", BASE, [factor * b for b in BASE], **LARGE)
        found = judged(tmp_path / name, "At 13B, four heads solve 17 %")
        assert found.verdict == verdict
        gain = f"{100 * (factor - 1):+.3g}"
        assert f"mbpp_mtp pass@1 {gain} % [{gain}, {gain}]" in found.measured
    mixed = [1.4 * b if i % 2 else b for i, b in enumerate(BASE)]  # a gain, its size unsure
    write_pair(tmp_path / "c", "mbpp_mtp", BASE, mixed, **LARGE)
    assert judged(tmp_path / "c", "At 13B, four heads solve 17 %").verdict == "agree"


def test_the_mean_of_relative_gains(tmp_path):
    write_pair(tmp_path, "humaneval_mtp", BASE, [1.125 * b for b in BASE], **LARGE)
    write_pair(tmp_path, "mbpp_mtp", BASE, [1.375 * b for b in BASE], **LARGE)
    found = judged(tmp_path, "Four heads solve around 15 %")
    assert found.verdict == "agree"
    assert found.measured.startswith("mean of 2 tasks +25 % [+25, +25]")


def test_a_gain_over_nothing(tmp_path):
    nothing, some = [0.0] * 30, [0.0, 1.0] * 15
    write_pair(tmp_path / "a", "mbpp_mtp", nothing, nothing, **LARGE)
    found = judged(tmp_path / "a", "At 13B, four heads solve 17 %")
    assert found.verdict == "inconclusive"
    assert found.measured.startswith("mbpp_mtp pass@1: 0 against 0 (several")
    write_pair(tmp_path / "b", "mbpp_mtp", nothing, some, **LARGE)
    found = judged(tmp_path / "b", "At 13B, four heads solve 17 %")
    assert (found.verdict, "pass@1: a share of 0" in found.measured) == ("inconclusive", True)
    # One document in thirty: a third of the replicates have none of it.
    write_pair(tmp_path / "c", "mbpp_mtp", [1.0, *[0.0] * 29], [1.0, 1.0, *[0.0] * 28], **LARGE)
    found = judged(tmp_path / "c", "At 13B, four heads solve 17 %")
    assert "+100 % [+0, +inf]" in found.measured


@pytest.mark.parametrize(
    ("vocab_size", "its", "is_judged"),
    [(256, 256, True), (32_000, 32_000, False), (None, None, False), (256, 32_000, False)],
)
def test_byte_level_models_are_told_by_their_vocabulary(tmp_path, vocab_size, its, is_judged):
    more = {"scores": {"pass@1": [2 * b for b in BASE]}, "mtp": {"vocab_size": vocab_size}} | SEVEN
    write_run(tmp_path / "a", "eight", "mbpp_mtp", n=8, k=8, **more)
    base = {"scores": {"pass@1": BASE}, "mtp": {"vocab_size": its}} | SEVEN
    write_run(tmp_path / "b", "one", "mbpp_mtp", n=1, k=1, **base)
    found = judged(tmp_path, "Byte-level models with eight heads solve 67 %")
    assert bool(found.findings) == is_judged


def test_runs_without_samples_are_told_of_and_have_no_say(tmp_path):
    write_pair(tmp_path / "a", "mbpp_mtp", BASE, [2 * b for b in BASE], samples=False, **SMALL)
    found = judged(tmp_path / "a", "Small models are worse")
    assert found.verdict == "inconclusive"
    assert found.measured.startswith(f"mbpp_mtp: {UNPAIRED} (several, 300M parameters")
    write_pair(tmp_path / "a", "humaneval_mtp", BASE, [0.5 * b for b in BASE], **SMALL)
    found = judged(tmp_path / "a", "Small models are worse")
    assert found.verdict == "agree"  # by the task with documents
    assert UNPAIRED in found.measured


def test_speed_on_text_is_that_of_prose_over_one_head(tmp_path):
    columns = "category k metric value low high count".split()
    rows = [
        ["prose", 1, "tokens_per_second", 100.0, None, None, 9],
        ["prose", 2, "tokens_per_second", 190.0, None, None, 9],
        ["prose", 4, "tokens_per_second", 290.0, None, None, 9],
        ["code", 1, "tokens_per_second", 100.0, None, None, 9],
        ["code", 4, "tokens_per_second", 400.0, None, None, 9],
    ]
    tables = {"by_k": {"columns": columns, "rows": rows}}
    own = {"scores": {"looping": [0.0]}, "tables": tables, **SEVEN}
    write_run(tmp_path / "cpu", task="mtp_speculative", **own)
    found = judged(tmp_path / "cpu", "On text, four heads decode 2.7")
    assert (found.verdict, found.findings) == ("not comparable", ())
    write_run(tmp_path, task="mtp_speculative", **own, mtp=GPU, stamp="2026-01-02T03-04-05.000002")
    (tmp_path / "cpu/results_2026-01-02T03-04-05.000001.json").unlink()
    found = judged(tmp_path, "On text, four heads decode 2.7")
    assert found.verdict == "agree"
    assert (
        "tokens_per_second (prefill included) over k = 1 2.90 at category prose, k 4"
        in found.measured
    )


def test_every_claim_of_the_paper_is_there():
    """The headline claims, by what the paper prints of each."""
    printed = " ".join(claim["claim"] + " " + claim["printed"] for claim in DATA)
    for figure in (
        "12 %", "17 %", "15 %", "3.05", "2.74", "2.5 of 3", "6.39", "67 %", "20 %", "1.7 times",
        "twice as fast", "+3.8, +2.1, +3.2", "+1.2, +3.7, +4.1", "+0.7, +3.0, +5.3", "+2.4", "+3.2",
        "1.22", "+0.51", "50.9", "51.5", "21.4", "30.7", "2.9 against 3.7", ".340", ".469", "48.4",
    ):  # fmt: skip
        assert figure in printed


@pytest.mark.parametrize("acceptance", ["all", "synthetic"])
def test_drafts_that_nobody_verified_speak_to_no_claim(tmp_path, acceptance):
    scores = {"tokens_per_forward_no_loops": [(40, 10)] * 30}
    write_run(tmp_path, "a", scores=scores, mtp={"acceptance": acceptance}, **SEVEN)
    assert not judged(tmp_path, "On code, 2.5").findings
    (model,) = build(run.find([str(tmp_path)])).models
    assert (
        model.name
        == f"a, lossy ({'unverified' if acceptance == 'all' else 'synthetic acceptance'})"
    )


def test_unknown_training_is_not_the_same_at_other_steps(tmp_path):
    write_run(tmp_path / "a", "one", n=1, k=1, mtp={"train_step": 500}, **SMALL)
    write_run(tmp_path / "b", "four", mtp={"train_step": 8600}, **SMALL)
    assert not judged(tmp_path, "Small models are worse").findings


def test_one_document_is_no_sample(tmp_path):
    write_pair(tmp_path, "mbpp_mtp", [1.0], [0.0], **SMALL)
    found = judged(tmp_path, "Small models are worse")
    assert found.verdict == "inconclusive"
    assert UNPAIRED in found.measured


def test_four_documents_agree_with_nothing(tmp_path):
    for n_documents, verdict in ((4, "inconclusive"), (29, "inconclusive"), (30, "agree")):
        folder = tmp_path / str(n_documents)
        write_pair(folder, "mbpp_mtp", [1.0] * n_documents, [0.0] * n_documents, **SMALL)
        found = judged(folder, "Small models are worse")
        assert found.verdict == verdict
        assert (f"on {n_documents} documents, expected 30" in found.measured) == (
            verdict != "agree"
        )


def test_tables_with_unknown_values_are_judged_by_the_others(tmp_path):
    tables = heads_table((0.7, 0.8), (0.5, 0.6), (0.3, 0.4))
    tables["by_offset"]["rows"][2][3:] = [None] * 4
    write_run(tmp_path, task="mtp_heads", scores={"accuracy_1": [0.75]}, tables=tables)
    assert (
        "accuracy on code 0.750, 0.550 on 0 documents, expected 30 ("
        in judged(tmp_path, "Nearer heads").measured
    )
    bare = {"by_offset": {"columns": ["offset", "metric", "value"], "rows": [[1, "accuracy", 0.5]]}}
    write_run(tmp_path / "b", "b", "mtp_heads", {"accuracy_1": [0.5]}, tables=bare)
    judge(build(run.find([str(tmp_path / "b")])))


def test_nothing_against_nothing_is_no_evidence(tmp_path):
    large = {"parameters": 3_000_000_000}
    write_pair(tmp_path, "humaneval_mtp", [0.0] * 20, [0.0] * 20, **large)
    found = judged(tmp_path, "Large models are no worse")
    assert found.verdict == "inconclusive"
    assert found.measured.startswith("humaneval_mtp pass@1: 0 against 0 (")


def test_a_small_gain_is_not_far_better(tmp_path):
    for name, right, verdict in (("a", 26, "disagree"), ("b", 40, "agree")):
        for n, known in ((1, 25), (2, right)):
            scores = {"stories_accuracy": [(known, 100)] * 30}
            own = {"scores": scores, "n": n, "k": n, "generation": False}
            write_run(tmp_path / name / str(n), f"n{n}", "mtp_induction", **own)
        assert judged(tmp_path / name, "Up to 30M parameters").verdict == verdict


def test_times_that_are_not_numbers_have_no_say(tmp_path):
    columns = "batch prompt_tokens k metric value low high count".split()
    rows = [[1, 64, 4, "speedup", float("nan"), None, None, 3]]
    tables = {"by_cell": {"columns": columns, "rows": rows}}
    own = {"scores": {"speedup": [1.0]}, "tables": tables, "mtp": GPU, **SEVEN}
    write_run(tmp_path, task="mtp_speed", **own)
    assert not judged(tmp_path, "With all four heads").findings
