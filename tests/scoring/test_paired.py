"""Paired pass@1: HumanEval's own solutions against wrong ones."""

from mtp_harness.data.humaneval import read_problems
from mtp_harness.decode.engine import Answer, Request
from mtp_harness.sandbox import Grader, Verdict
from mtp_harness.scoring.paired import Score, Scorer

PROBLEMS = read_problems()[:4]
REQUESTS = [Request(list(one["prompt"].encode()), 500, ("\ndef", "\n#")) for one in PROBLEMS]
RIGHT = [one["canonical_solution"] for one in PROBLEMS]
WRONG = ["    return None\n"] * 4


def to_text(tokens):
    return bytes(tokens).decode()


def answers(*texts):
    return [Answer(list(text.encode()), None) for text in texts]


def test_wins_and_losses_are_pairs():
    with Grader(workers=1) as grader:
        scorer = Scorer(grader, PROBLEMS, REQUESTS, to_text)
        ntp = answers(RIGHT[0], RIGHT[1], WRONG[2], WRONG[3])
        # What follows a stop string does not count.
        other = answers(RIGHT[0] + "\ndef broken(", WRONG[1], RIGHT[2], WRONG[3])
        assert scorer.score(ntp, other) == Score(4, ntp_passed=2, passed=2, wins=1, losses=1)
        assert scorer.score(ntp, ntp) == Score(4, 2, 2, 0, 0)


class Judge:
    """Passes what says so; cannot judge what says nothing; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def grade(self, programs):
        self.asked += [program.name for program in programs]
        outcomes = {"+": "pass", "-": "fail", "?": "error"}
        return [Verdict(outcomes[p.code[-1]], "", "", 0.0) for p in programs]


def test_equal_answers_are_graded_once():
    judge = Judge()
    scorer = Scorer(judge, PROBLEMS, REQUESTS, to_text)
    scorer.score(answers("+", "+", "-", "-"), answers("+", "-", "-", "+"))
    names = [one["task_id"] for one in PROBLEMS]
    assert sorted(judge.asked) == sorted([*names, names[1], names[3]])
    scorer.score(answers("+", "+", "-", "-"), answers("+", "-", "-", "+"))
    assert len(judge.asked) == 6


def test_pairs_that_cannot_be_judged_do_not_count():
    scorer = Scorer(Judge(), PROBLEMS, REQUESTS, to_text)
    found = scorer.score(answers("?", "+", "+", "-"), answers("+", "?", "+", "+"))
    assert found == Score(2, ntp_passed=1, passed=2, wins=1, losses=0)
