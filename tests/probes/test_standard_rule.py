"""Expected acceptance under the rule of engines, against loops and against a simulation of it."""

import math

import pytest
import torch

from mtp_harness.decode.sampling import Sampling, warp
from mtp_harness.probes.standard_rule import _same_noise, expected_walk, read_standard
from mtp_harness.probes.teacher_forced import hits, walk

from ..decode.models_for_tests import random_llama
from .test_teacher_forced import VOCAB, logits_at, random_tokens
from .test_teacher_forced import model as model  # the fixture of all kinds of heads

WARM = Sampling(temperature=0.7, top_k=6, top_p=0.95)


def same_noise(p, q):
    """The sum over pairs of tokens, as it is written."""
    found = 0.0
    for a, b in zip(p, q, strict=True):
        if a and b:
            found += 1 / math.fsum(max(c / a, d / b) for c, d in zip(p, q, strict=True))
    return found


def test_one_noise_samples_the_same_token_as_often_as_the_sampler_of_the_decoder():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 12, generator=rng) * 2
    logits[1, 3] = -torch.inf  # a token that top-k took away
    log_p, log_q = logits.log_softmax(-1)
    n = 200_000
    uniform = torch.rand(n, 12, generator=rng, dtype=torch.float64)
    noise = -(-uniform.log()).log()
    same = (log_p + noise).argmax(-1) == (log_q + noise).argmax(-1)
    share = same.double().mean().item()
    expected = same_noise(*(one.double().exp().tolist() for one in (log_p, log_q)))
    assert share == pytest.approx(expected, abs=4 * math.sqrt(share * (1 - share) / n))
    found = _same_noise(log_p[None, None], log_q[None, None])
    assert found.item() == pytest.approx(expected, abs=1e-6)
    overlap = torch.minimum(log_p, log_q).exp().sum().item()
    assert overlap / (2 - overlap) - 1e-6 <= expected <= overlap  # between known bounds


@pytest.mark.parametrize("sampling", [Sampling(1.0), WARM], ids=["plain", "warped"])
def test_acceptance_is_that_of_a_double_loop(model, sampling):
    tokens, n = random_tokens(2, 9), model.n_future_tokens
    found = read_standard(model, tokens, sampling)
    for row in range(2):
        for t in range(9):
            for offset in range(2, n + 1):
                place = row, t, offset - 2
                if t + offset >= 9:
                    assert [float(part[place]) for part in found] == [0, 0, 0, 0]
                    continue
                raw = logits_at(model, tokens[row], t, offset)
                p = logits_at(model, tokens[row], t + offset - 1, 1)
                log_p, log_q = (warp(one, sampling).double() for one in (p, raw))
                p, q = log_p.exp().tolist(), log_q.exp().tolist()
                x = int(tokens[row, t + offset])
                expected = (
                    p[int(raw.argmax())],
                    math.fsum(map(min, p, q)),
                    math.exp(min(0, float(log_q[x] - log_p[x]))) if log_p[x] > -math.inf else 0,
                    same_noise(p, q),
                )
                assert [float(part[place]) for part in found] == pytest.approx(expected, abs=1e-6)


def test_pieces_of_logits_and_tokens_that_follow_change_nothing(model, monkeypatch):
    tokens = random_tokens(2, 13)
    whole = read_standard(model, tokens, WARM)
    parts = read_standard(model, tokens[:, :9], WARM, following=tokens[:, 9:])
    monkeypatch.setattr("mtp_harness.probes.standard_rule.CHUNK", 2 * 3 * VOCAB)
    chunked = read_standard(model, tokens, WARM)
    for one, other, cut in zip(whole, chunked, parts, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one[:, :9], cut)


def test_with_certain_drafts_the_expected_walk_is_the_text_walk():
    model, tokens = random_llama(4), random_tokens(3, 30)
    tokens[:, 1:] = tokens[:, :-1]  # some drafts are right
    right = hits(model, tokens)
    for row in right:
        for start in (0, 4, 27, 28, 29):
            found = expected_walk(row[:, 1:], start, 30)
            plain = walk(row, start, 30)
            assert (found.n_kept, found.n_steps) == (plain.n_kept, pytest.approx(plain.n_steps))


def simulate(p, q, length, generator):
    """Return tokens, steps, drafts and accepted drafts by offset, of Leviathan et al.'s rule.

    p: [V, V], the next token's distribution after a token; q: [k-1, V, V], of the token that
    many places later still. The model forgets all but its last token.
    """

    def draw(weights):
        return int(torch.multinomial(weights, 1, generator=generator))

    n_drafts = len(q)
    text = [0, draw(p[0])]
    steps, drafted, accepted = 0, [0] * n_drafts, [0] * n_drafts
    while len(text) < length:
        steps += 1
        state = text[-2]
        n_useful = min(n_drafts, length - len(text) - 1)
        for i in range(n_useful):
            drafted[i] += 1
        for i in range(n_useful):
            draft, own = draw(q[i, state]), p[text[-1]]
            if float(torch.rand((), generator=generator)) < float(own[draft] / q[i, state, draft]):
                accepted[i] += 1
                text.append(draft)
                continue
            text.append(draw((own - q[i, state]).clamp(min=0)))
            break
        else:
            text.append(draw(p[text[-1]]))
    return text, steps, drafted, accepted


def test_expected_steps_are_those_of_a_simulation():
    """One long text: means over steps, and over what is expected along the very same text."""
    generator, length, n_drafts = torch.Generator().manual_seed(3), 30_000, 3
    p = torch.rand(4, 4, generator=generator).pow(2) + 0.05
    p /= p.sum(-1, keepdim=True)
    power = [torch.linalg.matrix_power(p, i + 2) for i in range(n_drafts)]
    noise = torch.rand(n_drafts, 4, 4, generator=generator)
    q = torch.stack(power) + 0.3 * noise
    q /= q.sum(-1, keepdim=True)
    text, steps, drafted, accepted = simulate(p, q, length, generator)

    given = torch.zeros(length, n_drafts)
    for t in range(length):
        for i in range(min(n_drafts, length - t - 2)):
            x = text[t + i + 2]
            given[t, i] = min(1, float(q[i, text[t], x] / p[text[t + i + 1], x]))
    found = expected_walk(given, 0, length)
    assert found.n_kept == length - 2
    assert found.n_steps == pytest.approx(steps, rel=0.01)
    assert found.n_drafted == pytest.approx(drafted, rel=0.01)
    assert found.n_accepted == pytest.approx(accepted, rel=0.03)
