"""Nothing differs in float64; elsewhere a difference is a near tie where rounding explains it."""

from dataclasses import replace

import pytest
import torch

from mtp_harness.decode import compare
from mtp_harness.decode.cache import SlotCache
from mtp_harness.decode.compare import Comparison, Decoded, Difference, Verifier, logits_along
from mtp_harness.decode.engine import Request
from mtp_harness.models.interface import MultiHeadModel

from .models_for_tests import example, hybrid, letters, plain_greedy, prompts, random_llama

pytestmark = pytest.mark.usefixtures("float64_throughout")

LENGTH = 40
MODELS = {
    "llama n=1": lambda: random_llama(1),
    "llama n=2": lambda: random_llama(2, replicated=True),
    "llama n=4": lambda: random_llama(4),
    "sequential toy": lambda: example("sequential_toy"),
}
# Longer than any k: a forward of k tokens is then one of decoding, not a prompt's.
PROMPTS = [[7, 1, 2, 3, 4, 5], *[[1, 2, 3, 4, 5, *prompt] for prompt in prompts(3, 10)]]


def verifier(model, until=(), eos=()):
    return Verifier(model, [Request(p, LENGTH, until) for p in PROMPTS], eos, letters)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_nothing_differs_in_float64(build):
    model = build()
    plain = [plain_greedy(model, prompt, LENGTH) for prompt in PROMPTS]
    for until, eos in [((), ()), ((letters(plain[0][10:13]),), (plain[1][7],))]:
        check = verifier(model, until, eos)
        ntp = check.run(1, 1)
        for k in range(1, model.n_future_tokens + 1):
            for batch in (1, 3):
                found = check.compare(ntp, check.run(k, batch))
                assert found.differences == ()
                assert found.n_tokens == sum(len(answer.tokens) for answer in ntp.answers)
                assert (found.draft_heads, found.batch, found.ntp_batch) == (k, batch, 1)
                assert found.counts == {
                    "answers": 4,
                    "tokens": found.n_tokens,
                    "identical": 4,
                    "near_ties": 0,
                    "errors": 0,
                }


@pytest.mark.parametrize("build", [lambda: random_llama(4), lambda: hybrid("qwen3_5_text")])
@pytest.mark.parametrize("width", [1, 3, None])
@pytest.mark.parametrize("n_prompt", [1, 2, 6])
def test_logits_are_those_of_a_forward_without_cache(build, width, n_prompt):
    """At the right positions, whether or not the width divides the answer."""
    model = build()
    text = PROMPTS[0] + plain_greedy(model, PROMPTS[0], 11)
    with torch.no_grad():
        expected = model.next_token_logits(torch.tensor([text]))[0, n_prompt - 1 : -1]
    found = logits_along(model, text, n_prompt, width, 2)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


# Answers that were tampered with


@pytest.fixture(scope="module")
def honest():
    check = verifier(random_llama(4))
    return check, check.run(1, 2), check.run(4, 2)


def tampered(run, prompt, tokens):
    answers = [*run.answers]
    answers[prompt] = answers[prompt]._replace(tokens=tokens)
    return run._replace(answers=answers)


def wrong(token):
    return (token + 1) % 10


def test_a_wrong_token_is_an_error_and_the_rest_is_compared_all_the_same(honest):
    check, ntp, run = honest
    tokens = run.answers[2].tokens
    # What follows a wrong token means nothing: here it is wrong throughout.
    bad = tampered(run, 2, tokens[:17] + [wrong(token) for token in tokens[17:]])
    found = check.compare(ntp, bad)
    [one] = found.differences
    assert (one.prompt, one.position) == (2, 17)
    assert (one.ntp, one.other) == (tokens[17], wrong(tokens[17]))
    assert not one.near_tie
    assert found.n_tokens == 4 * LENGTH
    assert found.counts["identical"] == 3 and found.counts["errors"] == 1
    logits = logits_along(check.model, PROMPTS[2] + tokens, len(PROMPTS[2]), None, 1)[17]
    assert one.gap == pytest.approx(float(logits[one.ntp] - logits[one.other]))
    assert one.logit_difference < 1e-12 and one.rounding < 1e-12


@pytest.mark.parametrize("position", [0, LENGTH - 1])
def test_a_wrong_token_at_either_end_is_found(honest, position):
    check, ntp, run = honest
    tokens = [*run.answers[1].tokens]
    tokens[position] = wrong(tokens[position])
    [one] = check.compare(ntp, tampered(run, 1, tokens)).differences
    assert (one.prompt, one.position, one.near_tie) == (1, position, False)


def test_an_answer_that_ends_early_or_late_is_an_error(honest):
    check, ntp, run = honest
    tokens = run.answers[0].tokens
    early = check.compare(ntp, tampered(run, 0, tokens[:30]))
    assert early.differences == (Difference(0, 30, tokens[30], None),)
    late = check.compare(ntp, tampered(run, 0, [*tokens, 5]))
    assert late.differences == (Difference(0, LENGTH, None, 5),)
    for found in (early, late):
        assert found.counts["errors"] == 1 and found.n_tokens == 4 * LENGTH


# Models whose k-token forward gives something else


class Wobbly(MultiHeadModel):
    """Moves one token's logit of head 1 in forwards of some lengths."""

    n_future_tokens = 0  # set per instance
    max_positions = 4096

    def __init__(self, model, token, size, affected):
        super().__init__()
        self.model, self.affected = model, affected
        self.n_future_tokens = model.n_future_tokens
        self.moved = size * torch.nn.functional.one_hot(torch.tensor(token), 10)
        self.length = 0

    def layer_shapes(self, heads):
        return self.model.layer_shapes(heads)

    def trunk(self, tokens, positions=None, cache=None):
        self.length = tokens.shape[1]
        return self.model.trunk(tokens, positions, cache)

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        return self.model.head(offset, states, tokens, positions, cache)

    def logits(self, offset, states):
        logits = self.model.logits(offset, states)
        return logits + self.moved if offset == 1 and self.affected(self.length) else logits


def closest_call(model):
    """Return where NTP's choice is closest: (prompt, position, second token, gap)."""
    found = []
    for prompt, tokens in enumerate(PROMPTS):
        answer = plain_greedy(model, tokens, LENGTH)
        logits = logits_along(model, tokens + answer, len(tokens), 1, 1)
        best, token = logits.topk(2)
        gap, position = (best[:, 0] - best[:, 1]).min(0)
        found.append((float(gap), prompt, int(position), int(token[position, 1])))
    gap, prompt, position, second = min(found)
    assert 0 < position < LENGTH - 1
    return prompt, position, second, gap


def compare_wobbly(size, affected):
    model = random_llama(4)
    prompt, position, second, gap = closest_call(model)
    check = verifier(Wobbly(model, second, size * gap, affected))
    ntp = check.run(1, 2)
    assert ntp.answers[prompt].tokens == plain_greedy(model, PROMPTS[prompt], LENGTH)
    return check.compare(ntp, check.run(4, 2)), (prompt, position, second, gap)


def test_a_flip_within_rounding_is_a_near_tie():
    """All forwards but those of 1 token are 1.5 gaps off for the runner-up."""
    found, (prompt, position, second, gap) = compare_wobbly(1.5, lambda length: length > 1)
    [one] = found.differences
    assert (one.prompt, one.position, one.other) == (prompt, position, second)
    assert one.gap == pytest.approx(gap)
    assert one.logit_difference == pytest.approx(1.5 * gap) == one.rounding
    assert one.near_tie
    assert found.counts["near_ties"] == 1 and found.counts["errors"] == 0
    assert found.n_tokens == 4 * LENGTH


def test_a_wrong_k_token_forward_does_not_excuse_itself():
    """The same flip, but only forwards of k tokens are off: rounding it is not."""
    found, (prompt, position, _, _) = compare_wobbly(1.5, lambda length: length == 4)
    [one] = found.differences
    assert (one.prompt, one.position, one.near_tie) == (prompt, position, False)
    assert one.gap < 2 * one.logit_difference and one.rounding < 1e-12
    assert replace(one, rounding=one.logit_difference).near_tie  # by the first condition alone


def test_k_token_forwards_beyond_a_tie_are_errors_and_followed_only_so_far(monkeypatch):
    monkeypatch.setattr(compare, "MAX_DIFFERENCES", 5)
    found, _ = compare_wobbly(1e9, lambda length: length == 4)
    assert found.counts["errors"] == len(found.differences) > 5
    per_prompt = [sum(d.prompt == p for d in found.differences) for p in range(4)]
    assert max(per_prompt) == 5
    # Where following ended, the last difference is the last token that counts.
    compared = [
        max(d.position for d in found.differences if d.prompt == p) + 1 if count == 5 else LENGTH
        for p, count in enumerate(per_prompt)
    ]
    assert found.n_tokens == sum(compared) < 4 * LENGTH


def drop_column(monkeypatch, column, length):
    """Let calls of `length` tokens lose what they write to a column of the cache."""
    at = SlotCache.at

    def broken(self, positions, width):
        lost = (positions == column) & (positions.shape[1] == length)
        at(self, torch.where(lost, self.trash, positions), width)

    monkeypatch.setattr(SlotCache, "at", broken)


def test_a_cache_that_drops_a_column_gives_errors(monkeypatch):
    check = verifier(random_llama(4))
    drop_column(monkeypatch, 14, 4)
    found = check.compare(check.run(1, 2), check.run(4, 2))
    assert found.counts["errors"] > 0


def test_near_tie_needs_both_conditions():
    def near(gap, moved, rounding):
        return Difference(0, 0, 1, 2, gap, moved, rounding).near_tie

    assert near(2.0, 1.0, 0.25) and near(0.0, 0.0, 0.0)
    assert not near(2.1, 1.0, 0.25)
    assert not near(2.0, 1.0, 0.24)
    assert not Difference(0, 0, 1, None).near_tie


def test_counts_are_of_answers_and_of_differences():
    tie = Difference(1, 3, 1, 2, 0.0, 0.0, 0.0)
    error = Difference(1, 5, 1, 2, 1.0, 0.0, 0.0)
    found = Comparison(4, 8, 8, 3, 70, (tie, error))
    assert found.counts == {
        "answers": 3,
        "tokens": 70,
        "identical": 2,
        "near_ties": 1,
        "errors": 1,
    }
    assert Decoded(1, 8, []).answers == []
