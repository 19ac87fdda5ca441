"""Sampled text: the same for every k, and distributed as plain sampling is."""

import itertools
import math
import random

import pytest
import torch
from scipy import stats

from mtp_harness.decode import step as step_module
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.sampling import Sampling, choose, gumbel, row_key, warp
from mtp_harness.models.load import load_model

from .models_for_tests import Timetable, example, hybrid, letters, prompts, random_llama, unsure

pytestmark = pytest.mark.usefixtures("float64_throughout")

SETTINGS = [
    Sampling(0.7),
    Sampling(1.5),
    Sampling(1.0, top_k=3),
    Sampling(1.0, top_p=0.8),
    Sampling(1.2, top_k=4, top_p=0.7),
]
MODELS = {
    "llama n=4": lambda vocab: random_llama(4, vocab_size=vocab),
    "llama n=3 replicated": lambda vocab: random_llama(3, 1, vocab, replicated=True),
    "parallel toy": lambda vocab: unsure(example("parallel_toy", vocab)),
    "sequential toy": lambda vocab: unsure(example("sequential_toy", vocab)),
    "qwen3_5, two modules": lambda vocab: unsure(hybrid("qwen3_5_text", 2, vocab)),
}


def asked(model_prompts, sampling, budget, repeats=1, seed=0):
    return [
        Request(prompt, budget, sampling=sampling, key=row_key(seed, "t", document, repeat))
        for document, prompt in enumerate(model_prompts)
        for repeat in range(repeats)
    ]


def decode(model, k, requests, slots=None, to_text=letters):
    return Engine(model, k, [], to_text, slots=slots).generate(requests)


@torch.no_grad()
def plain_sampling(model, request):
    """Sample by the definition: the whole prefix through head 1, no cache, one token at a time."""
    tokens = list(request.prompt)
    for _ in range(request.max_new_tokens):
        logits = model.next_token_logits(torch.tensor([tokens]))[:, -1:]
        noise = gumbel(torch.tensor([request.key]), torch.tensor([[len(tokens)]]), logits.shape[-1])
        tokens.append(int((warp(logits, request.sampling) + noise).argmax()))
    return tokens[len(request.prompt) :]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sampling", SETTINGS[::2])
def test_text_is_plain_samplings_for_every_k_slots_and_order(name, sampling):
    model = MODELS[name](10)
    requests = asked([[3], [5, 2], *prompts(3, 10)], sampling, 20, repeats=2)
    plain = [plain_sampling(model, request) for request in requests]
    assert len(set(map(tuple, plain))) == len(plain)  # repeats differ
    verified = 0
    for k in range(1, model.n_future_tokens + 1):
        for slots in (1, 3, len(requests)):
            order = random.Random(slots).sample(range(len(requests)), len(requests))
            answers = decode(model, k, [requests[i] for i in order], slots)
            assert [answer.tokens for answer in answers] == [plain[i] for i in order]
            verified += sum(sum(answer.record.n_verified) for answer in answers)
    assert verified > 0


def test_text_of_the_trained_model_is_the_same_for_every_k():
    model = load_model("mtp-bytes-n4", torch.float64)
    code = [[0, *b"def mean(values):\n    return "], [0, *b"import os\n\n\nclass Path:\n    "]]
    requests = asked(code, Sampling(0.8, top_p=0.95), 60, repeats=3)
    ntp = decode(model, 1, requests, to_text=lambda ids: bytes(ids).decode("latin-1"))
    for k, slots in ((2, 6), (3, 1), (4, 4)):
        answers = decode(model, k, requests, slots, lambda ids: bytes(ids).decode("latin-1"))
        assert [a.tokens for a in answers] == [a.tokens for a in ntp]
        steps = sum(answer.record.n_steps for answer in answers)
        assert sum(sum(a.record.n_verified) for a in answers) > steps / 3


# The distribution


@torch.no_grad()
def exact_distribution(model, prompt, sampling, length, vocab):
    """Return the probability of every answer of `length` tokens, by enumeration."""
    found = {(): 1.0}
    for _ in range(length):
        longer = {}
        for answer, probability in found.items():
            logits = model.next_token_logits(torch.tensor([[*prompt, *answer]]))[0, -1]
            for token, log_p in enumerate(warp(logits, sampling).tolist()):
                if log_p > -100:
                    longer[(*answer, token)] = probability * math.exp(log_p)
        found = longer
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert len(found) <= vocab**length
    return found


def p_value(expected, samples):
    """Return the chi-squared p-value of samples; cells that are expected rarely are pooled."""
    if not set(samples) <= set(expected):
        return 0.0
    counts = {answer: 0 for answer in expected}
    for answer in samples:
        counts[answer] += 1
    often = [a for a, p in expected.items() if p * len(samples) >= 5]
    cells = [(counts[a], expected[a] * len(samples)) for a in often]
    rest = (len(samples) - sum(c for c, _ in cells), len(samples) - sum(e for _, e in cells))
    cells += [rest] if rest[1] > 1e-6 else []
    return stats.chisquare(*map(list, zip(*cells, strict=True))).pvalue


def sampled(model, k, sampling, count=3000, key=row_key):
    prompt, length = [3, 1], 4
    requests = [
        Request(prompt, length, sampling=sampling, key=key(0, "t", 0, repeat))
        for repeat in range(count)
    ]
    answers = decode(model, k, requests, 600)
    return prompt, length, [tuple(answer.tokens) for answer in answers]


@pytest.mark.parametrize("sampling", SETTINGS)
@pytest.mark.parametrize("k", [1, 3])
def test_joint_distribution_of_k_plus_1_tokens_is_exact(k, sampling):
    model = random_llama(3, vocab_size=5)
    prompt, length, samples = sampled(model, k, sampling)
    assert p_value(exact_distribution(model, prompt, sampling, length, 5), samples) > 1e-3


def one_noise_for_all_repeats(seed, task, document, repeat):
    return row_key(seed, task, document, 0)


def top_p_without_renormalisation(logits, sampling, keys, positions):
    """Cut by the probabilities from before top-k."""
    cut = warp(logits, Sampling(sampling.temperature, top_p=sampling.top_p))
    kept = warp(logits, Sampling(sampling.temperature, top_k=sampling.top_k))
    scores = kept.masked_fill(cut == float("-inf"), float("-inf")).log_softmax(-1)
    return (scores + gumbel(keys, positions, logits.shape[-1])).argmax(-1)


def test_the_distribution_test_notices_mistakes(monkeypatch):
    model, sampling = random_llama(3, vocab_size=5), Sampling(2.5, top_k=3, top_p=0.7)
    prompt, length, samples = sampled(model, 3, sampling)
    exact = exact_distribution(model, prompt, sampling, length, 5)
    assert p_value(exact, samples) > 1e-3
    assert p_value(exact, sampled(model, 3, sampling, key=one_noise_for_all_repeats)[2]) < 1e-6
    monkeypatch.setattr(step_module, "choose", top_p_without_renormalisation)
    assert p_value(exact, sampled(model, 3, sampling)[2]) < 1e-6


# The drafts


def unwarped_drafts(logits, sampling, keys, positions):
    """Warp head 1's choices, of k positions, and leave the k - 1 drafts as they are."""
    own = sampling if logits.shape[1] in (1, 4) else Sampling(1.0)
    return choose(logits, own, keys, positions)


@pytest.mark.parametrize("sampling", SETTINGS)
def test_drafts_from_the_true_distribution_are_always_verified(sampling):
    for answer in decode(Timetable(), 4, asked([[1], [2, 3]], sampling, 41, repeats=3)):
        assert answer.record.n_verified == (3,) * 10


def test_that_test_notices_drafts_that_are_not_warped(monkeypatch):
    monkeypatch.setattr(step_module, "choose", unwarped_drafts)
    requests = asked([[1], [2, 3]], Sampling(0.4), 41, repeats=3)
    verified = [a.record.n_verified for a in decode(Timetable(), 4, requests)]
    assert any(min(steps) < 3 for steps in verified)


def test_greedy_and_sampled_requests_share_a_run():
    model = random_llama(4)
    greedy = [Request(prompt, 12) for prompt in prompts(3, 10)]
    requests = [*greedy, *asked(prompts(2, 10), Sampling(1.1), 12), *greedy[:1]]
    mixed = decode(model, 4, requests, 2)
    for request, answer in itertools.islice(zip(requests, mixed, strict=True), 6):
        assert decode(model, 1, [request])[0].tokens == answer.tokens
        assert ("same noise" in answer.record.draft_rule) == (not request.sampling.greedy)
