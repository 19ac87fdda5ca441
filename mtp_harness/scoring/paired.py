"""pass@1 of two ways of decoding the same prompts, pair by pair: wins and losses."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mtp_harness.decode.engine import Answer, Request
from mtp_harness.decode.stopping import continuation_text
from mtp_harness.sandbox import Grader
from mtp_harness.scoring.programs import BENCHMARKS

Problem = dict[str, str]


class Score(NamedTuple):
    """pass@1 of two sets of answers to the same problems, pair by pair."""

    n_pairs: int  # both answers were judged
    ntp_passed: int
    passed: int
    wins: int  # passed where NTP's failed
    losses: int


class Scorer:
    """Grades answers, equal answers to one problem once."""

    def __init__(
        self,
        grader: Grader,
        problems: Sequence[Problem],
        requests: Sequence[Request],
        to_text: Callable[[list[int]], str],
    ) -> None:
        """Store problems and their requests, in the same order."""
        self.grader, self.problems, self.requests = grader, problems, requests
        self.to_text = to_text
        self._verdicts: dict[tuple[int, str], bool | None] = {}  # None: could not be judged

    def score(self, ntp: Sequence[Answer], answers: Sequence[Answer]) -> Score:
        """Compare the answers' pass@1 with that of NTP's answers."""
        judged = zip(self._passed(ntp), self._passed(answers), strict=True)
        pairs = [(a, b) for a, b in judged if a is not None and b is not None]
        return Score(
            len(pairs),
            sum(a for a, _ in pairs),
            sum(b for _, b in pairs),
            sum(b and not a for a, b in pairs),
            sum(a and not b for a, b in pairs),
        )

    def _passed(self, answers: Sequence[Answer]) -> list[bool | None]:
        texts = [self._text(i, answer.tokens) for i, answer in enumerate(answers)]
        new = [one for one in enumerate(texts) if one not in self._verdicts]
        program = BENCHMARKS["humaneval"].program
        verdicts = self.grader.grade([program(self.problems[i], text) for i, text in new])
        for one, verdict in zip(new, verdicts, strict=True):
            judged = verdict.outcome != "error"
            self._verdicts[one] = verdict.outcome == "pass" if judged else None
        return [self._verdicts[one] for one in enumerate(texts)]

    def _text(self, index: int, tokens: list[int]) -> str:
        request = self.requests[index]
        text = continuation_text(self.to_text, request.prompt[-1], tokens)
        for stop in request.until:
            text = text.split(stop)[0]
        return text
