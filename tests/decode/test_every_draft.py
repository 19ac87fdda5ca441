"""Every draft behind a greedy text, against decoding and against forwards without a cache."""

import pytest
import torch

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.every_draft import every_draft, walk

from .models_for_tests import example, hybrid, letters, prompts, random_llama

pytestmark = pytest.mark.usefixtures("float64_throughout")

MODELS = {
    "parallel": lambda: random_llama(4),
    "chained": lambda: example("sequential_toy"),
    "one module, linear layers": lambda: hybrid("qwen3_5_text"),
}
THRESHOLDS = (0.0, 0.15, 0.3, 0.5, 0.8)


def asked():
    """Requests that end in different ways and places."""
    budgets = (30, 21, 9, 1)
    some = [Request(*one) for one in zip(prompts(4, 10), budgets, strict=True)]
    return [*some, Request(some[0].prompt, 30, until=("dd", "c"))]


@pytest.mark.parametrize("kind", MODELS)
def test_the_walk_is_what_decoding_does_at_every_k_and_threshold(kind):
    model, requests = MODELS[kind](), asked()
    n = model.n_future_tokens
    found = every_draft(Engine(model, n, [3], letters), requests)
    n_stopped = n_verified = 0
    for k in range(2, n + 1):
        for threshold in THRESHOLDS:
            engine = Engine(model, k, [3], letters, slots=2, rule=Rule(threshold))
            for own, answer in zip(found, engine.generate(requests), strict=True):
                record, steps = answer.record, walk(own, k, threshold)
                assert own.tokens.tolist() == answer.tokens
                full = (k - 1,) * len(steps)
                assert tuple(one.n_drafted for one in steps) == (record.n_drafted or full)
                verified = [one.n_verified for one in steps]
                assert verified[:-1] == list(record.n_verified[:-1])  # the last may be cut
                assert all(a <= b for a, b in zip(verified, record.n_verified, strict=True))
                n_stopped += (record.n_drafted or full) != full
                n_verified += sum(verified)
    assert n_stopped > 2 and n_verified > 2  # there was something to tell apart


def test_drafts_confidence_and_entropy_are_those_of_forwards_without_a_cache():
    model = random_llama(4)
    (request,) = [Request(prompts(1, 10)[0], 12)]
    (found,) = every_draft(Engine(model, 4, [], letters), [request])
    text = request.prompt + found.tokens.tolist()
    for behind in range(11):
        with torch.no_grad():
            trunk = model.trunk(torch.tensor([text[: len(request.prompt) + behind]]))
            before = [model.logits(i, model.head(i, trunk))[0, -1].softmax(-1) for i in (2, 3, 4)]
            here = model.trunk(torch.tensor([text[: len(request.prompt) + behind + 1]]))
            p = model.logits(1, model.head(1, here))[0, -1].softmax(-1)
        assert found.drafts[behind].tolist() == [int(one.argmax()) for one in before]
        assert found.confidence[behind].tolist() == pytest.approx(
            [float(one.max()) for one in before], abs=1e-6
        )
        bits = -sum(float(one) * float(one.log2()) for one in p if one > 0)
        assert float(found.entropy[behind]) == pytest.approx(bits, abs=1e-5)
