"""Probes against double loops over positions and heads, and by hand."""

import itertools
import math

import pytest
import torch
from torch import nn

from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.probes.teacher_forced import (
    HeadScores,
    Walk,
    _compare,
    hits,
    read,
    score_heads,
    walk,
)

from ..decode.models_for_tests import example, random_llama

VOCAB = 10
MODELS = {
    "llama n=1": lambda: random_llama(1),
    "llama n=4 replicated": lambda: random_llama(4, replicated=True),
    "parallel toy": lambda: example("parallel_toy"),
    "sequential toy": lambda: example("sequential_toy"),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


def random_tokens(rows, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (rows, length), generator=generator)


@torch.no_grad()
def logits_at(model, tokens, t, offset):
    """Return head `offset`'s logits at t from the shortest text that it may read.

    That is tokens 0..t for the trunk, and for sequential head i further the token at t+i-1.
    """
    prefix = tokens[None, : t + 1]
    states = model.trunk(prefix)
    if not model.sequential:
        return model.logits(offset, model.head(offset, states))[0, t]
    for i in range(1, offset + 1):
        states = model.head(i, states, tokens[None, i - 1 : t + i])
    return model.logits(offset, states)[0, t]


def test_hits_are_those_of_a_double_loop(model):
    tokens = random_tokens(4, 14)
    n = model.n_future_tokens
    right = hits(model, tokens)
    assert right.shape == (4, 14, n) and right.dtype == torch.bool
    for row in range(4):
        for t in range(14):
            for offset in range(1, n + 1):
                expected = t + offset < 14 and (
                    int(logits_at(model, tokens[row], t, offset).argmax())
                    == int(tokens[row, t + offset])
                )
                assert bool(right[row, t, offset - 1]) == expected
    assert right.any(1).any(0).all(), "every head should be right somewhere, or nothing is tested"


def test_hits_of_fewer_heads_are_the_first_columns(model):
    tokens = random_tokens(2, 12)
    for k in range(1, model.n_future_tokens + 1):
        assert torch.equal(hits(model, tokens, k), hits(model, tokens)[..., :k])


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_rows_shorter_than_the_number_of_heads(model, length):
    """Offsets beyond the row are no hits; those within it are what they are in a longer row."""
    tokens = random_tokens(6, 9)
    right = hits(model, tokens[:, :length])
    longer = hits(model, tokens)
    for t in range(length):
        for offset in range(1, model.n_future_tokens + 1):
            expected = longer[:, t, offset - 1] & (t + offset < length)
            assert torch.equal(right[:, t, offset - 1], expected)


def test_scores_are_those_of_a_double_loop(model):
    """Every head is scored on the same states: those whose n targets all lie in the window."""
    n = model.n_future_tokens
    windows = [random_tokens(2, 11, seed=1), random_tokens(1, 8, seed=2)]
    scores = score_heads(read(model, window) for window in windows)
    states, correct, nats = 0, [0] * n, [0.0] * n
    drafted = {}  # whether the draft at an offset is right, where all before it are
    for window in windows:
        for row in window:
            for t in range(len(row) - n):
                states += 1
                so_far = True
                for offset in range(1, n + 1):
                    logits = logits_at(model, row, t, offset)
                    target = int(row[t + offset])
                    right = int(logits.argmax()) == target
                    correct[offset - 1] += right
                    if offset > 1 and so_far:
                        drafted.setdefault(offset, []).append(right)
                        so_far = right
                    nats[offset - 1] += float(logits.logsumexp(0) - logits[target])
    assert scores.n_states == states == 2 * (11 - n) + 8 - n
    assert scores.n_correct.tolist() == correct
    assert scores.accuracy_cond() == {i: sum(each) / len(each) for i, each in drafted.items()}
    # The loss is computed in float32, summed in float64.
    assert scores.nats.tolist() == pytest.approx(nats, rel=1e-6)
    assert scores.accuracy() == pytest.approx([c / states for c in correct], rel=1e-15)
    assert scores.bits() == pytest.approx([v / states / math.log(2) for v in nats], rel=1e-6)


class Fixed(MultiHeadModel):
    """Every head gives probabilities 1/2, 1/4, 1/8, 1/8, whatever it reads."""

    n_future_tokens = 2
    max_positions = 64

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.tensor([0.5, 0.25, 0.125, 0.125]))

    def layer_shapes(self, heads):
        return []

    def trunk(self, tokens, positions=None, cache=None):
        return tokens[..., None].float()

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        return states

    def logits(self, offset, states):
        return self.p.log().expand(*states.shape[:-1], 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_comparison_is_what_its_fields_say(dtype):
    """Whole numbers, so that many logits are equal; by definition, in float64."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-3, 4, (2, 30, 17), generator=generator).to(dtype)
    target = torch.randint(0, 17, (2, 30), generator=generator)
    found = _compare(logits, target)
    p = logits.double().softmax(-1)
    for row, t in itertools.product(range(2), range(30)):
        own, wanted = p[row, t], int(target[row, t])
        order = sorted(range(17), key=lambda i: (-float(logits[row, t, i]), i))
        one_hot = torch.nn.functional.one_hot(target[row, t], 17)
        told = [float(field[row, t]) for field in found]
        assert told == pytest.approx(
            [
                float(order[0] == wanted),
                -float(own[wanted].log()),
                order.index(wanted),
                float(own.max()),
                float((own - one_hot).square().sum()),
                order[0],
            ],
            rel=1e-6,
            abs=1e-6,
        )


def test_scores_by_hand():
    """Six tokens, n = 2: states 0..3. Offset 1 reads 1 0 2 0, offset 2 reads 0 2 0 3."""
    scores = score_heads([read(Fixed(), torch.tensor([[3, 1, 0, 2, 0, 3]]))])
    assert scores.n_states == 4
    assert scores.n_correct.tolist() == [2, 2]
    assert scores.accuracy() == [0.5, 0.5]
    # Offset 1: 2 + 1 + 3 + 1 bits; offset 2: 1 + 3 + 1 + 3 bits.
    assert scores.bits() == pytest.approx([7 / 4, 8 / 4], rel=1e-6)


def test_bits_are_over_the_tokens_that_a_head_can_say():
    """As above, but offset 2 cannot say token 2: it reads 0 . 0 3 of probabilities 1/2 .. 1/8."""

    class Narrow(Fixed):
        def logits(self, offset, states):
            found = super().logits(offset, states).clone()
            found[..., 2] = float("-inf") if offset == 2 else found[..., 2]
            return found

    scores = score_heads([read(Narrow(), torch.tensor([[3, 1, 0, 2, 0, 3]]))])
    whole = math.log2(7 / 8)  # of the probabilities that are left
    assert scores.bits() == pytest.approx([7 / 4, (1 + 1 + 3) / 3 + whole], rel=1e-6)
    assert scores.unsayable() == [0, 0.25]


def test_accuracy_and_bits_of_sums():
    nats = torch.tensor([4 * math.log(2), 8 * math.log(2)])
    scores = HeadScores(torch.tensor([3, 1]), nats, 4, torch.tensor([4, 1]), torch.tensor([4, 4]))
    assert scores.accuracy_cond() == {2: 0.25}
    assert scores.accuracy() == [0.75, 0.25]
    assert scores.bits() == pytest.approx([1.0, 2.0], rel=1e-6)


def right_at(length, taken, n=4):
    """Return hits [length, n] with `taken[t]` drafts right in front of a wrong one at state t.

    Head 1's column is False: the walk emits the true token whatever head 1 says.
    """
    right = torch.zeros(length, n, dtype=torch.bool)
    for t, count in taken.items():
        right[t, 1 : 1 + count] = True
        right[t, 2 + count :] = True  # right after a wrong one, which must not count
    return right


def test_walk_by_hand():
    """A prompt of 3 tokens and 10 more.

    State 2 (pending x3, emitted by the prefill): two drafts right, emits x4 x5 x6 -> state 5
    State 5: none right, emits x7 -> state 6;   state 6: three right, emits x8..x11 -> state 10
    State 10: three right, but only x12 is left.
    """
    right = right_at(13, {2: 2, 3: 3, 4: 3, 5: 0, 6: 3, 10: 3})
    walked = walk(right, start=2, end=13)
    assert walked == Walk(n_kept=9, n_steps=4)
    assert walked.tokens_per_forward == 9 / 4


def test_walk_over_part_of_a_row():
    right = right_at(13, {2: 2, 5: 0, 6: 3})
    assert walk(right, start=2, end=7) == (3, 1)
    assert walk(right, start=2, end=6) == (2, 1)  # the first step is cut
    assert walk(right, start=2, end=8) == (4, 2)
    assert walk(right, start=5, end=12) == (5, 2)


def test_walk_of_one_head_emits_one_token_per_step():
    assert walk(torch.ones(10, 1, dtype=torch.bool), start=0, end=10) == (8, 8)


def test_walk_without_a_step():
    walked = walk(torch.ones(5, 4, dtype=torch.bool), start=3, end=5)
    assert walked == (0, 0) and math.isnan(walked.tokens_per_forward)
