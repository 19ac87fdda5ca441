"""Decoding with k heads: test number one is that the text is NTP's, token for token."""

import random

import pytest
import torch

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.drafters.parallel import ParallelDrafter
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.models.head_states import head_states
from mtp_harness.models.load import load_model
from mtp_harness.probes.teacher_forced import hits, walk

from .models_for_tests import (
    Alphabet,
    LearnedPositions,
    Scripted,
    cut,
    example,
    hybrid,
    letters,
    long_sequential_toy,
    plain_greedy,
    prompts,
    random_llama,
)

pytestmark = pytest.mark.usefixtures("float64_throughout")

VOCAB = 10
LONGEST = 26
MODELS = {
    "llama n=1": lambda: random_llama(1),
    "llama n=2 replicated": lambda: random_llama(2, replicated=True),
    "llama n=4": lambda: random_llama(4),
    "llama n=4 replicated": lambda: random_llama(4, seed=3, replicated=True),
    "parallel toy": lambda: example("parallel_toy"),
    "sequential toy": lambda: example("sequential_toy"),
    "qwen3_5, one module": lambda: hybrid("qwen3_5_text"),
    "qwen3_next, two modules": lambda: hybrid("qwen3_next", 2),
}


class Case:
    """A model, prompts, and what plain decoding makes of them."""

    def __init__(self, model, asked, length):
        self.model, self.prompts, self.length = model, asked, length
        self.plain = [plain_greedy(model, prompt, length) for prompt in asked]
        self.texts = [p + a for p, a in zip(asked, self.plain, strict=True)]


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    # The shortest prompts there are come first: 1 and 2 tokens, fewer than heads.
    asked = [[3], [5, 2], *prompts(5, VOCAB)]
    return Case(MODELS[request.param](), asked, LONGEST)


def decode(model, k, requests, slots=None, eos=(), to_text=letters, rule=None):
    return Engine(model, k, eos, to_text, slots=slots, rule=rule).generate(requests)


def n_verified(answers):
    return sum(sum(answer.record.n_verified) for answer in answers)


# Test number one


@pytest.mark.parametrize("slots", [1, 3, 7])
def test_text_is_plain_decodings(case, slots):
    requests = [Request(prompt, case.length) for prompt in case.prompts]
    verified = 0
    for k in range(1, case.model.n_future_tokens + 1):
        answers = decode(case.model, k, requests, slots)
        assert [answer.tokens for answer in answers] == case.plain
        verified += n_verified(answers)
    assert verified > 0 or case.model.n_future_tokens == 1


def random_rules(case, rng):
    """Return a request per prompt with a budget and stop strings of its own, and EOS ids."""
    requests = []
    for prompt, plain in zip(case.prompts, case.plain, strict=True):
        starts = [rng.randrange(case.length - 3) for _ in range(rng.randrange(3))]
        until = [letters(plain[at : at + rng.randint(1, 3)]) for at in starts]
        until += [letters(rng.choices(range(VOCAB), k=rng.randint(1, 3)))] * rng.randrange(2)
        budget = rng.choice([1, 2, rng.randint(3, case.length), case.length])
        requests.append(Request(prompt, budget, tuple(until)))
    return requests, rng.sample(range(VOCAB), rng.choice([0, 0, 1, 2]))


def assert_ends_like_plain(case, requests, eos, answers):
    for request, plain, answer in zip(requests, case.plain, answers, strict=True):
        tokens, why = cut(plain, eos, request.until, request.max_new_tokens, letters)
        assert (answer.tokens, answer.record.ended_by) == (tokens, why)
        assert answer.record.n_kept == len(tokens) - 1
        # The answer ends in its last step, neither before nor after it.
        emitted = [1 + verified for verified in answer.record.n_verified]
        assert sum(emitted[:-1]) < len(tokens) - 1 <= sum(emitted) or emitted == []


def test_stops_eos_and_budgets_end_where_plain_decoding_does(case):
    rng = random.Random(0)
    endings = set()
    for _ in range(5):
        requests, eos = random_rules(case, rng)
        for k in range(1, case.model.n_future_tokens + 1):
            answers = decode(case.model, k, requests, eos=eos)
            assert_ends_like_plain(case, requests, eos, answers)
            endings |= {answer.record.ended_by for answer in answers}
    assert endings == {"eos", "stop", "length"}


@pytest.fixture(scope="module")
def shipped():
    code = [
        "def fibonacci(n):\n    if n < 2:\n        return n\n    return ",
        "import os\n\n\nclass Path:\n    def __init__(self, name):\n        self.",
        "for i in range(10):\n    ",
    ]
    model = load_model("mtp-bytes-n4", torch.float64)
    return Case(model, [[0, *text.encode()] for text in code], 44)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_text_of_the_trained_model_is_plain_decodings(shipped, k):
    requests = [Request(prompt, shipped.length) for prompt in shipped.prompts]
    answers = decode(shipped.model, k, requests, eos=[], to_text=bytes_to_text)
    assert [answer.tokens for answer in answers] == shipped.plain
    if k > 1:  # trained drafts are right much more often than by chance
        assert n_verified(answers) > sum(answer.record.n_steps for answer in answers) / 3


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_trained_model_ends_where_plain_decoding_does(shipped, k):
    # Stops and EOS that occur in the plain text, inside drafts too, and budgets of every length.
    for budget in (1, 2, 3, 5, 8, 21, 44):
        for stop, eos in (("\n", []), ("n(", []), ("", [ord(")")]), (" ret", [ord("\n")])):
            requests = [Request(prompt, budget, (stop,)) for prompt in shipped.prompts]
            answers = decode(shipped.model, k, requests, eos=eos, to_text=bytes_to_text)
            for answer, plain in zip(answers, shipped.plain, strict=True):
                length = next(
                    n
                    for n in range(1, budget + 1)
                    if n == budget
                    or plain[n - 1] in eos
                    or (stop and stop in bytes_to_text(plain[:n]))
                )
                assert answer.tokens == plain[:length]


def bytes_to_text(tokens):
    return bytes(tokens).decode("latin-1")


# Counters


def test_walk_over_the_greedy_text_reproduces_the_counters(case):
    for k in range(1, case.model.n_future_tokens + 1):
        for budget in (2, 11, case.length):
            requests = [Request(prompt, budget) for prompt in case.prompts]
            assert_walk_agrees(case.model, k, requests)


@pytest.mark.parametrize("k", [2, 4])
def test_walk_reproduces_the_counters_of_the_trained_model(shipped, k):
    assert_walk_agrees(shipped.model, k, [Request(prompt, 40) for prompt in shipped.prompts])


def assert_walk_agrees(model, k, requests):
    for request, answer in zip(requests, decode(model, k, requests), strict=True):
        text = request.prompt + answer.tokens
        right = hits(model, torch.tensor([text]), k)[0]
        walked = walk(right, len(request.prompt) - 1, len(text))
        assert walked == (answer.record.n_kept, answer.record.n_steps)


def test_ntp_gives_exactly_one_token_per_forward(case):
    for answer in decode(case.model, 1, [Request(prompt, 9) for prompt in case.prompts]):
        assert answer.record.n_verified == (0,) * 8
        assert answer.record.tokens_per_forward == 1.0


def test_drafts_that_are_always_right_give_k_tokens_per_forward():
    for k in (1, 2, 3, 4):
        [answer] = decode(Alphabet(), k, [Request([10], 1 + 5 * k)])
        assert answer.tokens == list(range(11, 12 + 5 * k))
        assert answer.record.n_verified == (k - 1,) * 5
        assert answer.record.tokens_per_forward == k


def test_a_cut_step_counts_as_a_step_but_not_its_dropped_tokens():
    # 1 from the prefill, 4 + 4 + 4 from three steps, of which the budget of 11 keeps 10.
    [answer] = decode(Alphabet(), 4, [Request([10], 11)])
    assert answer.tokens == list(range(11, 22))
    assert answer.record.n_verified == (3, 3, 3)
    assert answer.record.tokens_per_forward == 10 / 3


def test_drafts_that_are_always_wrong_change_nothing(case):
    n = case.model.n_future_tokens
    model = Scripted(case.model, case.prompts, case.texts, lambda row, position: 0)
    answers = decode(model, n, [Request(prompt, case.length) for prompt in case.prompts])
    assert [answer.tokens for answer in answers] == case.plain
    assert all(answer.record.n_verified == (0,) * (case.length - 1) for answer in answers)


def test_record_holds_what_was_asked():
    [answer] = decode(Alphabet(), 3, [Request([1, 2, 3], 4, n_truncated=5)])
    record = answer.record
    assert (record.n_prompt_tokens, record.n_truncated, record.draft_heads) == (3, 5, 3)
    assert record.batch_size == 1 and not record.looping
    assert record.prefill_s >= 0 and record.decode_s >= 0


# The cache


def scripts(k):
    """Return wanted counts: each constant one, and counts that change by row and position."""
    constant = [lambda row, position, v=v: v for v in range(k)]
    return [*constant, lambda row, position: (5 * row + position * position + position // 3) % k]


def test_cache_equals_no_cache_after_every_number_of_verified_drafts(case):
    """All heads' logits in decoding are those of a forward without cache on the same text.

    At position t the text is known up to t+1; sequential head i further reads the drafts of heads
    2..i-1 at t, right or wrong.
    """
    for k in range(1, case.model.n_future_tokens + 1):
        for wanted in scripts(k):
            assert_cache_equals_no_cache(case, k, wanted)


def test_cache_equals_no_cache_where_drafts_are_longer_than_prompts():
    """Of 6 sequential heads, the last one's states are provisional for 4 positions."""
    case = Case(long_sequential_toy(6), [[3], [5, 2], [1] * 3, [4] * 7], 24)
    for wanted in scripts(6):
        assert_cache_equals_no_cache(case, 6, wanted)


def assert_cache_equals_no_cache(case, k, wanted):
    asked = [0, 1, 3]
    chosen = [[what[i] for i in asked] for what in (case.prompts, case.texts)]
    model = Scripted(case.model, *chosen, wanted)
    answers = decode(model, k, [Request(case.prompts[i], 16) for i in asked])
    assert [answer.tokens for answer in answers] == [case.plain[i][:16] for i in asked]
    for row, answer in enumerate(answers):
        assert_wanted_were_verified(model, row, answer, k)
        assert_logits_are_uncached(model, row, answer, k)


def assert_wanted_were_verified(model, row, answer, k):
    stand = answer.record.n_prompt_tokens - 1
    rejected = []
    for verified in answer.record.n_verified:
        assert verified == min(model.wanted(row, stand), k - 1)
        rejected += [model.draft(row, stand, offset) for offset in range(verified + 2, k + 1)]
        stand += verified + 1
    assert list(answer.record.rejected) == rejected


def assert_logits_are_uncached(model, row, answer, k):
    prompt = answer.record.n_prompt_tokens
    text = model.texts[row]
    stands = [prompt - 1]
    for verified in answer.record.n_verified[:-1]:  # the last step's drafts may leave the text
        stands.append(stands[-1] + verified + 1)
    for position in range(prompt - 1, stands[-1] + 1):
        known = text[: position + 2]
        drafted = [model.draft(row, position, offset) for offset in range(2, k)]
        with torch.no_grad():
            tokens = torch.tensor([known + drafted])
            for offset, states in head_states(model.model, tokens, k):
                if offset > 1 and position not in stands:
                    continue
                expected = model.model.logits(offset, states[0, position])
                torch.testing.assert_close(
                    model.seen[row, position, offset], expected, rtol=0, atol=1e-9
                )


# Where an answer ends. The model writes the alphabet; from "a" with k = 4 it emits
# b | cdef | ghij | ..., the prefill's token and then four per step.

A = [ord("a")]


def alphabet(k=4, budget=20, until=(), eos=()):
    ids = [ord(letter) for letter in eos]
    [answer] = decode(Alphabet(), k, [Request(A, budget, tuple(until))], None, ids, bytes_to_text)
    record = answer.record
    return bytes_to_text(answer.tokens), record.n_kept, record.n_steps, record.ended_by


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"until": ["d"]}, ("bcd", 2, 1, "stop")),  # inside a draft
        ({"until": ["de"]}, ("bcde", 3, 1, "stop")),  # over two tokens of a draft
        ({"until": ["bc"]}, ("bc", 1, 1, "stop")),  # begun by the prefill
        ({"until": ["efgh"]}, ("bcdefgh", 6, 2, "stop")),  # over two steps
        ({"until": ["efghijk"]}, ("bcdefghijk", 9, 3, "stop")),  # over three steps
        ({"until": ["f"]}, ("bcdef", 4, 1, "stop")),  # the bonus token
        ({"until": ["b"]}, ("b", 0, 0, "stop")),  # the prefill alone
        ({"until": ["hi", "x", "ef", "fg"]}, ("bcdef", 4, 1, "stop")),  # the first to be complete
        ({"until": ["ab"], "budget": 3}, ("bcd", 2, 1, "length")),  # the prompt does not count
        ({"until": ["", "c"]}, ("bc", 1, 1, "stop")),  # empty ones are ignored
        ({"eos": "d"}, ("bcd", 2, 1, "eos")),
        ({"eos": "f"}, ("bcdef", 4, 1, "eos")),
        ({"eos": "b"}, ("b", 0, 0, "eos")),
        ({"eos": "zh"}, ("bcdefgh", 6, 2, "eos")),
        ({"eos": "a", "budget": 2}, ("bc", 1, 1, "length")),  # in the prompt it ends nothing
        ({"eos": "d", "until": ["c"]}, ("bc", 1, 1, "stop")),
        ({"eos": "c", "until": ["d"]}, ("bc", 1, 1, "eos")),
        ({"eos": "d", "until": ["cd"]}, ("bcd", 2, 1, "eos")),  # at the same token
        ({"budget": 1}, ("b", 0, 0, "length")),
        ({"budget": 2}, ("bc", 1, 1, "length")),
        ({"budget": 4}, ("bcde", 3, 1, "length")),
        ({"budget": 5}, ("bcdef", 4, 1, "length")),
        ({"budget": 6}, ("bcdefg", 5, 2, "length")),
        ({"budget": 3, "until": ["d"]}, ("bcd", 2, 1, "stop")),  # at the same token
        ({"budget": 3, "eos": "d"}, ("bcd", 2, 1, "eos")),
        ({"budget": 3, "until": ["e"], "eos": "e"}, ("bcd", 2, 1, "length")),  # just beyond
    ],
)
def test_where_an_answer_ends(rules, expected):
    assert alphabet(**rules) == expected
    text, n_kept, _, ended_by = expected
    assert alphabet(1, **rules) == (text, n_kept, n_kept, ended_by)


# Rows of one batch


def mixed(case):
    """Return requests of very different lengths, budgets and stops."""
    rng = random.Random(7)
    long = rng.choices(range(1, VOCAB), k=60)
    budgets = [1, 26, 3, 17, 2, 26, 8]
    requests = [Request(p, b) for p, b in zip(case.prompts, budgets, strict=True)]
    requests += [Request(long, 5), Request(long[:1], 25)]
    requests[3] = Request(requests[3].prompt, 17, (letters(case.plain[3][4:6]),))
    return requests


def what(answer):
    record = answer.record
    return answer.tokens, record.n_verified, record.n_kept, record.ended_by


def test_rows_of_a_batch_give_what_they_give_alone_in_any_order(case):
    requests = mixed(case)
    for k in {1, min(3, case.model.n_future_tokens), case.model.n_future_tokens}:
        alone = [what(a) for a in decode(case.model, k, requests, slots=1)]
        together = [what(a) for a in decode(case.model, k, requests)]
        assert together == alone
        order = random.Random(k).sample(range(len(requests)), len(requests))
        shuffled = decode(case.model, k, [requests[i] for i in order], slots=6)
        assert [what(a) for a in shuffled] == [alone[i] for i in order]


def test_equal_prompts_give_equal_answers(case):
    k = case.model.n_future_tokens
    first, second = decode(case.model, k, [Request(case.prompts[2], 12)] * 2)
    assert what(first) == what(second)


# Choice of k


@pytest.mark.parametrize("k", [0, -1, 5])
def test_draft_heads_out_of_range(k):
    expected = f"^draft_heads={k}, but this checkpoint has 4 heads; choose 1 to 4\\.$"
    with pytest.raises(ValueError, match=expected):
        Engine(Alphabet(), k, [], letters)


def test_draft_heads_of_a_model_with_one_head():
    with pytest.raises(ValueError, match="^draft_heads=2, but .* has 1 head; choose 1\\.$"):
        Engine(random_llama(1), 2, [], letters)


class OneHeadOnly:
    """Counts the calls of each head and refuses those beyond `k`."""

    def __init__(self, head, k):
        self.head, self.k = head, k

    def __call__(self, offset, *args, **kwargs):
        assert offset <= self.k, f"head {offset} was run with draft_heads={self.k}"
        return self.head(offset, *args, **kwargs)


def test_heads_beyond_k_never_run(case, monkeypatch):
    for k in range(1, case.model.n_future_tokens + 1):
        with monkeypatch.context() as patch:
            patch.setattr(case.model, "head", OneHeadOnly(case.model.head, k))
            patch.setattr(case.model, "logits", OneHeadOnly(case.model.logits, k))
            decode(case.model, k, [Request(prompt, 5) for prompt in case.prompts])


@pytest.mark.parametrize("most", [5, 6, 12])
def test_heads_of_small_steps_run_at_once_and_draft_the_same(monkeypatch, most):
    """Steps of three rows have 3, 6, 9 or 12 tokens, because unsure drafts are not made."""
    model, ran = random_llama(4), []
    requests = [Request(prompt, 24) for prompt in prompts(5, VOCAB)]
    rule = Rule(draft_threshold=0.9)
    expected = decode(model, 4, requests, slots=3, rule=rule)
    assert [one.tokens for one in expected] == [
        plain_greedy(model, request.prompt, 24) for request in requests
    ]
    head, begin = type(model).head, ParallelDrafter.__init__

    def count(model, offset, states, tokens=None, positions=None, cache=None):
        if not cache.in_prompts and offset > 1:
            ran.append(positions.numel())
        return head(model, offset, states, tokens, positions, cache)

    def at_once(drafter, batch):
        begin(drafter, batch)
        assert drafter.at_once == 0, "on a CPU, heads 2..k run on one token alone"
        drafter.at_once = most

    monkeypatch.setattr(type(model), "head", count)
    monkeypatch.setattr(ParallelDrafter, "__init__", at_once)
    found = decode(model, 4, requests, slots=3, rule=rule)
    assert {*ran} == {size for size in (3, 6, 9, 12) if size <= most}
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        assert one.record.n_verified == other.record.n_verified
        assert one.record.n_drafted == other.record.n_drafted


def test_cache_is_no_larger_than_the_heads_need(case, monkeypatch):
    asked = []
    shapes = case.model.layer_shapes
    monkeypatch.setattr(
        case.model, "layer_shapes", lambda heads: asked.append(heads) or shapes(heads)
    )
    decode(case.model, 1, [Request(case.prompts[0], 3)])
    assert set(asked) == {1}


# The context's end


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_model_is_asked_for_no_position_beyond_its_context(k):
    """Drafts beyond the budget, padding and ended rows have none of their own."""
    model, asked = LearnedPositions(), [[3] * 32, [5, 2]]
    answers = decode(model, k, [Request(prompt, 32) for prompt in asked])
    assert [a.tokens for a in answers] == [plain_greedy(model, prompt, 32) for prompt in asked]
