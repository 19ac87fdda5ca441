"""What goes into which slot, and what happens when memory runs out."""

import gc
import logging
import random
import weakref
from types import SimpleNamespace

import pytest
import torch

from mtp_harness.decode import slots as slots_module
from mtp_harness.decode import step as step_module
from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.cache import SlotCache, bytes_per_slot
from mtp_harness.decode.engine import Engine, OutOfSlots, Request
from mtp_harness.decode.memory import fitting_slots
from mtp_harness.decode.sampling import Sampling
from mtp_harness.decode.scheduler import Scheduler
from mtp_harness.decode.slots import Slots

from .models_for_tests import (
    Alphabet,
    example,
    hybrid,
    letters,
    plain_greedy,
    prompts,
    random_llama,
    unsure,
)

pytestmark = pytest.mark.usefixtures("float64_throughout")


@pytest.fixture
def calls(monkeypatch):
    """Record prefills (prompts), shares (slots) and steps (rows, tokens)."""
    seen = {"fill": [], "share": [], "step": []}
    fill, share, step = Slots.fill, Slots.share, Slots.step

    def remember_fill(self, slots, given):
        seen["fill"].append([tuple(prompt) for prompt in given])
        return fill(self, slots, given)

    def remember_share(self, source, targets, length):
        seen["share"].append((source, list(targets)))
        return share(self, source, targets, length)

    def remember_step(self, n_tokens, width):
        seen["step"].append(((self.pending < self.limit).sum().item(), n_tokens))
        return step(self, n_tokens, width)

    monkeypatch.setattr(Slots, "fill", remember_fill)
    monkeypatch.setattr(Slots, "share", remember_share)
    monkeypatch.setattr(Slots, "step", remember_step)
    return seen


MODELS = {
    "llama": lambda: random_llama(4),
    "replicated": lambda: random_llama(4, replicated=True),
    "sequential": lambda: unsure(example("sequential_toy")),
    "hybrid": lambda: unsure(hybrid("qwen3_5_text")),
}


def decode(model, k, requests, **settings):
    return Engine(model, k, [], letters, **settings).generate(requests)


def test_a_row_that_ends_makes_room_at_once(calls):
    # In two slots, NTP: budgets 9 and 3, then 4, then 2. The long row runs 8 steps; beside it run
    # 2, 3 and 1 steps, and then nothing.
    requests = [Request([1, 1], 9), Request([1, 2], 3), Request([2], 4), Request([3], 2)]
    answers = decode(Alphabet(), 1, requests, slots=2)
    assert [len(answer.tokens) for answer in answers] == [9, 3, 4, 2]
    assert [rows for rows, _ in calls["step"]] == [2] * 6 + [1] * 2


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("name", ["llama", "sequential", "hybrid"])
def test_repeats_of_a_prompt_share_its_prefill(calls, name, slots):
    """Also those that begin after a row with this prompt has gone on, or beside one that does."""
    model = MODELS[name]()
    distinct = [[3], [5, 2], *prompts(2, 10)]
    repeated = [
        Request(prompt, 3 + 2 * repeat, sampling=Sampling(1.0), key=7 * place + repeat)
        for repeat in range(5)
        for place, prompt in enumerate(distinct)
    ]
    random.Random(0).shuffle(repeated)
    alone = [decode(model, 1, [request])[0].tokens for request in repeated]
    for seen in calls.values():
        seen.clear()
    answers = decode(model, model.n_future_tokens, repeated, slots=slots)
    assert [answer.tokens for answer in answers] == alone
    filled = [prompt for batch in calls["fill"] for prompt in batch]
    assert sorted(filled) == sorted(map(tuple, distinct))
    assert slots == 1 or calls["share"]


def test_long_prompts_are_prefilled_in_parts(monkeypatch, calls):
    monkeypatch.setattr("mtp_harness.decode.scheduler.PREFILL_TOKENS", 50)
    model, asked = random_llama(2), [[1] * 20, [2] * 19, [3] * 30, [4] * 70, [5] * 9]
    answers = decode(model, 2, [Request(prompt, 4) for prompt in asked])
    assert [a.tokens for a in answers] == [plain_greedy(model, p, 4) for p in asked]
    # Longest first; rows times the longest stay within 50, a single long prompt aside.
    assert [[len(p) for p in batch] for batch in calls["fill"]] == [[70], [30], [20, 19], [9]]


def test_answers_are_handed_on_as_they_end():
    order = []
    requests = [Request([1], 9), Request([2], 2), Request([3], 5)]
    answers = Engine(Alphabet(), 1, [], letters, slots=3).generate(
        requests, lambda index, answer: order.append((index, answer))
    )
    assert [index for index, _ in order] == [1, 2, 0]
    assert [answer for _, answer in sorted(order)] == answers


# Steps launched ahead, as CUDA graphs are: each reads as few columns as one can


class Ahead:
    """What stands for a graph without a GPU."""

    def __init__(self, slots, width):
        self.slots, self.width = slots, width

    def replay(self):
        return self.slots.step(self.slots.k, self.width)


@pytest.mark.parametrize(("slots", "rule"), [(1, Rule()), (3, Rule(draft_threshold=0.3))])
@pytest.mark.parametrize("name", ["llama", "sequential", "hybrid"])
def test_steps_launched_ahead_change_neither_text_nor_records(monkeypatch, name, slots, rule):
    model = MODELS[name]()
    generator = random.Random(1)
    requests = [Request(prompt, generator.randrange(1, 30)) for prompt in prompts(7, 10)]
    fewest, graph = [], Scheduler._graph

    def graphs(slots, columns):
        fewest.append(columns)
        return {width: Ahead(slots, width) for width in range(columns, slots.cache.trash + 1)}

    def chosen(scheduler, columns):
        assert columns >= fewest[-1], "a graph was left out that a step needs"
        return graph(scheduler, columns)

    for k in (1, model.n_future_tokens):
        expected = decode(model, k, requests, slots=slots, rule=rule)
        with monkeypatch.context() as patch:
            patch.setattr(Slots, "graphs", graphs)
            patch.setattr(Scheduler, "_graph", chosen)
            found = decode(model, k, requests, slots=slots, rule=rule)
        assert fewest[-1] > min(len(request.prompt) for request in requests)
        for one, other in zip(found, expected, strict=True):
            assert one.tokens == other.tokens
            assert one.record.n_verified == other.record.n_verified
            assert one.record.rejected == other.record.rejected


@pytest.mark.parametrize(
    ("fewest", "widths"),
    [
        (512, [512, 1024, 2048, 3000]),
        (513, [1024, 2048, 3000]),
        (2048, [2048, 3000]),
        (2049, [3000]),
    ],
)
def test_graphs_are_those_that_steps_can_need(monkeypatch, fewest, widths):
    """Widths double from 512; rows have 3000 columns."""
    made = []

    class Graph:
        def __init__(self, step, other=None):
            step()
            made.append(other)

    monkeypatch.setattr(slots_module, "StepGraph", Graph)
    slots = Slots(MODELS["llama"](), 2, Rule(), Sampling(), 1, 3000)
    slots.device = SimpleNamespace(type="cuda")
    found = slots.graphs(fewest)
    assert sorted(found) == widths
    assert made[0] is None and {*made[1:]} <= {found[3000]}, "all share the memory of the widest"


# Memory


@pytest.mark.parametrize("name", ["llama", "hybrid"])
def test_memory_is_known_before_the_run(monkeypatch, name):
    made = []
    build = SlotCache.__init__
    monkeypatch.setattr(
        SlotCache, "__init__", lambda self, *args: (build(self, *args), made.append(self))[0]
    )
    model = MODELS[name]()
    for k in (1, 3):
        requests = [Request([1] * 17, 4), Request([2], 30)]
        engine = Engine(model, k, [], letters, slots=2)
        memory = engine.memory(requests, 2)
        engine.generate(requests)
        states = [held for of_layer in made[-1].states.values() for held in of_layer]
        allocated = sum(t.nbytes for t in (*made[-1].keys, *made[-1].values, *states))
        assert bool(states) == (name == "hybrid")
        assert memory == (2, 31 + k, allocated)
        assert allocated == 2 * bytes_per_slot(model.layer_shapes(k), 31 + k, torch.float64)


class Full:
    """Runs out of memory as soon as more than `most` rows are in one call."""

    def __init__(self, trunk, most, error):
        self.trunk, self.most, self.error = trunk, most, error
        self.n_failures = 0

    def __call__(self, tokens, positions=None, cache=None):
        if len(tokens) > self.most and tokens.shape[1] < 6:  # in steps, not in the first prefill
            self.n_failures += 1
            raise self.error
        return self.trunk(tokens, positions, cache)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
)
def test_out_of_memory_halves_the_slots_and_loses_no_answer(monkeypatch, caplog, error):
    model = random_llama(3)
    asked = [p + [1] * 6 for p in prompts(9, 10)]
    requests = [Request(p, 3 + i, key=i) for i, p in enumerate(asked)]
    plain = [plain_greedy(model, r.prompt, r.max_new_tokens) for r in requests]
    full = Full(model.trunk, 2, error)
    monkeypatch.setattr(model, "trunk", full)
    seen = []
    with caplog.at_level(logging.WARNING):
        answers = Engine(model, 3, [], letters, slots=9).generate(
            requests, lambda index, _: seen.append(index)
        )
    assert [answer.tokens for answer in answers] == plain
    assert sorted(seen) == list(range(9))
    assert full.n_failures == 2
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "out of memory with 9 slots; continuing with 4",
        "out of memory with 4 slots; continuing with 2",
    ]


def test_one_row_that_does_not_fit_is_a_sentence(monkeypatch):
    model = random_llama(2)
    monkeypatch.setattr(model, "trunk", Full(model.trunk, 0, torch.OutOfMemoryError()))
    with pytest.raises(OutOfSlots, match="not enough memory for one row.*lower max_gen_toks"):
        decode(model, 2, [Request([1], 5)], slots=4)


def test_other_errors_are_passed_on(monkeypatch):
    model = random_llama(2)
    monkeypatch.setattr(model, "trunk", Full(model.trunk, 0, RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        decode(model, 2, [Request([1], 5)], slots=4)


def test_auto_takes_the_slots_that_fit(monkeypatch):
    engine = Engine(random_llama(4), 4, [], letters)
    requests = [Request([1] * 10, 20)] * 50
    one = engine.memory(requests, 1).cache_bytes + 16 * 16 * 10
    for n_slots in (1, 7, 33):
        free = int(one * (n_slots + 0.5) / 0.8)
        monkeypatch.setattr("mtp_harness.decode.memory._free_bytes", lambda device, f=free: f)
        assert fitting_slots(engine, requests, 64) == n_slots
    assert fitting_slots(engine, requests, 5) == 5
    assert fitting_slots(engine, requests[:3], 64) == 3
    monkeypatch.setattr("mtp_harness.decode.memory._free_bytes", lambda device: 0)
    assert fitting_slots(engine, requests, 64) == 1


# Rules


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)])
def test_a_draft_threshold_changes_the_work_and_not_the_text(calls, name, sampling):
    model, asked = MODELS[name](), prompts(5, 10)
    requests = [Request(p, 24, sampling=sampling, key=i) for i, p in enumerate(asked)]
    ntp = decode(model, 1, requests)
    widths = []
    for threshold in (0.0, 0.25, 0.5, 0.999):
        calls["step"].clear()
        answers = decode(model, 4, requests, slots=3, rule=Rule(threshold))
        assert [a.tokens for a in answers] == [a.tokens for a in ntp]
        drafted = [n for a in answers for n in a.record.n_drafted or (3,) * a.record.n_steps]
        verified = [n for a in answers for n in a.record.n_verified]
        assert all(v <= d for v, d in zip(verified, drafted, strict=True))
        widths.append((sum(drafted), sum(n for _, n in calls["step"])))
        assert ("below probability" in answers[0].record.draft_rule) == (threshold > 0)
    assert widths == sorted(widths, reverse=True) and len(set(widths)) > 2


def test_no_draft_is_an_ntp_step(calls):
    model = random_llama(4)
    [answer] = decode(model, 4, [Request([3, 1], 10)], rule=Rule(0.9999999))
    assert answer.record.n_drafted == (0,) * 9
    assert calls["step"] == [(1, 1)] * 9


def test_threshold_is_compared_with_the_probability_of_each_draft():
    """By hand: drafts go on while their probabilities are .9 .8, and stop at .2, or at the end."""
    from mtp_harness.decode.acceptance import count_confident

    p = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.2, 0.8]], [[0.9, 0.1], [0.8, 0.2], [0.8, 0.2]]])
    drafts = torch.tensor([[0, 1, 0], [0, 0, 0]])
    assert count_confident(drafts, p.log(), 0.5).tolist() == [2, 3]
    assert count_confident(drafts, p.log(), 0.85).tolist() == [1, 1]
    assert count_confident(drafts, p.log(), 0.95).tolist() == [0, 0]


@pytest.mark.parametrize("name", MODELS)
def test_unverified_drafts_are_all_taken_and_labelled(name):
    model, asked = MODELS[name](), prompts(4, 10)
    requests = [Request(prompt, 13) for prompt in asked]
    lossy = decode(model, 4, requests, rule=Rule(verify=False))
    for answer in lossy:
        assert answer.record.n_verified == (3, 3, 3)
        assert answer.record.tokens_per_forward == 4
        assert answer.record.lossless is False
        assert answer.record.draft_rule.startswith("LOSSY")
    assert [a.tokens for a in lossy] != [a.tokens for a in decode(model, 4, requests)]


def test_unverified_text_is_what_the_heads_write():
    """By a plain loop: every head writes its token, and the next state is that of the last."""
    model, prompt = random_llama(4), [3, 1, 4]
    [answer] = decode(model, 4, [Request(prompt, 13)], rule=Rule(verify=False))
    text = list(prompt)
    with torch.no_grad():
        while len(text) < len(prompt) + 13:
            z = model.trunk(torch.tensor([text]))
            text += [int(model.logits(i, model.head(i, z))[0, -1].argmax()) for i in (1, 2, 3, 4)]
    assert answer.tokens == text[len(prompt) : len(prompt) + 13]


def test_right_drafts_taken_unverified_are_the_models_text():
    [answer] = decode(Alphabet(), 4, [Request([10], 21)], rule=Rule(verify=False))
    assert answer.tokens == list(range(11, 32))


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 3])
def test_a_threshold_that_is_no_probability(threshold):
    with pytest.raises(ValueError, match=f"draft_threshold={threshold}, expected a probability"):
        Rule(threshold)


@pytest.mark.parametrize("kind", ["llama", "sequential", "hybrid"])
def test_the_cache_is_freed_as_soon_as_the_answers_are_there(kind, monkeypatch):
    """Not when Python next looks for circles: on a GPU the next run would find no memory."""
    caches = []

    class Watched(SlotCache):
        def __init__(self, *args):
            super().__init__(*args)
            caches.append(weakref.ref(self))

    monkeypatch.setattr(step_module, "SlotCache", Watched)
    engine = Engine(MODELS[kind](), 3, [], letters, slots=2)
    gc.disable()
    try:
        engine.generate([Request(prompt, 6) for prompt in ([1, 2, 3], [4, 5])])
        assert len(caches) == 1 and caches[0]() is None
    finally:
        gc.enable()
