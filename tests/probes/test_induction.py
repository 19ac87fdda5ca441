"""The induction probe on models whose induction is known: one that copies, and one that cannot."""

import random
import re

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn

from mtp_harness.data.corpus import prose_corpus
from mtp_harness.data.stories import Template, gap, generated_stories
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.probes.induction import (
    InductionQuestion,
    count_mentions,
    fill,
    names_for,
    score,
    tokens_per_name,
)

from ..decode.models_for_tests import random_llama

_KNOWN: dict[str, int] = {}


def pieces(text):
    """Tokens of up to three letters, a space in front included, as word-piece models have them."""
    return [
        _KNOWN.setdefault(piece, len(_KNOWN)) for piece in re.findall(r" ?[A-Za-z]{1,3}|.|\n", text)
    ]


def to_bytes(text):
    return byte_tokenizer(4096)(text, add_special_tokens=False)["input_ids"]


class Copier(MultiHeadModel):
    """Every head predicts what followed the last time the longest suffix of the text occurred.

    Head 2 goes on from head 1's prediction, and so on. Nothing is ever predicted of new text.
    """

    max_positions = 100_000

    def __init__(self, n, vocabulary):
        super().__init__()
        self.n, self.vocabulary = n, vocabulary
        self.parameter = nn.Parameter(torch.zeros(()))

    @property
    def n_future_tokens(self):
        return self.n

    def layer_shapes(self, heads):
        return []

    def trunk(self, tokens, positions=None, cache=None):
        (row,) = tokens.tolist()
        table = [self.continued(row[: t + 1]) for t in range(len(row))]
        return torch.tensor(table, dtype=torch.float64)[None]  # [1, T, n]

    def continued(self, text):
        text = list(text)
        for _ in range(self.n):
            text.append(self.following(text))
        return text[-self.n :]

    def following(self, text):
        best, found = 0, self.vocabulary - 1
        for end in range(len(text) - 1, 0, -1):
            length = 0
            while length < end and length < 8 and text[end - 1 - length] == text[-1 - length]:
                length += 1
            if length > best:
                best, found = length, text[end]
        return found

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        return states

    def logits(self, offset, states):
        return nn.functional.one_hot(states[..., offset - 1].long(), self.vocabulary).double()


TEXT = Template("tale", f"She is {gap(0)}, he is {gap(1)}. So {gap(0)} saw {gap(1)} and {gap(0)}.")


def test_names_are_two_tokens_and_begin_differently():
    assert tokens_per_name(pieces) == 2
    for seed in range(5):
        filled = fill(TEXT, pieces, None, 1000, InductionQuestion(seed, capital=True))
        spelled = {number: piece for piece, number in _KNOWN.items()}
        assert [m.end - m.start for m in filled.mentions] == [2] * 5 and not filled.n_left_out
        read = [
            "".join(spelled[t] for t in filled.tokens[m.start : m.end]) for m in filled.mentions
        ]
        a, b = filled.names
        assert read == [f" {a}", f" {b}", f" {a}", f" {b}", f" {a}"]
        assert [m.first for m in filled.mentions] == [True, True, False, False, False]
        assert filled.tokens[filled.mentions[0].start] != filled.tokens[filled.mentions[1].start]
        assert filled.text == f"She is {a}, he is {b}. So {a} saw {b} and {a}."
        assert a.istitle() and filled == fill(
            TEXT, pieces, None, 1000, InductionQuestion(seed, capital=True)
        )
    assert (
        len(
            {
                fill(TEXT, pieces, None, 1000, InductionQuestion(s, capital=True)).names[0]
                for s in range(5)
            }
        )
        == 5
    )


@pytest.mark.parametrize(("encode", "unit"), [(pieces, 2), (to_bytes, 6)])
def test_no_two_names_of_a_text_begin_with_the_same_token(encode, unit):
    for seed in range(5):
        names = names_for(12, encode, random.Random(seed), True, unit)
        assert len({encode(f"{name} is")[0] for name in names}) == 12


def test_byte_models_read_whole_names():
    assert tokens_per_name(to_bytes) == 6
    filled = fill(TEXT, to_bytes, 0, 1000, InductionQuestion(0, capital=False))
    raw = bytes(filled.tokens)
    assert raw[1:].decode() == filled.text and raw[0] == 0
    read = [raw[m.start : m.end].decode() for m in filled.mentions]
    a, b = filled.names
    assert read == [a, b, a, b, a] and len(a) == 6 and a[0] != b[0] and a.islower()


def test_names_of_a_trained_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=6000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [document.text for document in prose_corpus().documents]
    tokenizer.train_from_iterator(texts, trainer)

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    n_mentions = 0
    for story in generated_stories(5, 0, 0.8):
        filled = fill(story, encode, 1, 4096, InductionQuestion(0, capital=True))
        assert filled.tokens[0] == 1 and not filled.n_left_out
        pieces_of = [tokenizer.id_to_token(i) for i in filled.tokens]
        first = set()
        for mention in filled.mentions:
            name = "".join(pieces_of[mention.start : mention.end])
            assert name.removeprefix("Ġ") in filled.names  # Ġ: the space in front
            assert mention.end - mention.start == 2
            first.add((filled.tokens[mention.start], name))
        assert len({token for token, _ in first}) == len(filled.names) == len(first)
        n_mentions += len(filled.mentions)
    assert n_mentions > 100


def test_what_the_context_does_not_hold_is_left_out_and_counted():
    whole = fill(TEXT, pieces, 0, 1000, InductionQuestion(0, capital=True))
    cut = whole.mentions[2].end
    short = fill(TEXT, pieces, 0, cut, InductionQuestion(0, capital=True))
    assert len(short.tokens) == cut and short.mentions == whole.mentions[:3]
    assert short.n_left_out == 2


def test_a_tokenizer_without_such_names_is_refused():
    words = {}

    def whole_words(text):
        return [words.setdefault(w, len(words)) for w in re.findall(r" ?\w+|.", text)]

    with pytest.raises(ValueError, match="only 0 of 2 made-up names are 2 tokens of this"):
        fill(TEXT, whole_words, None, 100, InductionQuestion(0, capital=True))


@pytest.mark.parametrize("encode", [pieces, to_bytes])
def test_a_copying_model_knows_every_later_mention_and_no_first_one(encode):
    right, later = 0, 0
    for story in generated_stories(3, 0, 0.8):
        filled = fill(story, encode, None, 10_000, InductionQuestion(0, capital=True))
        counts = score(Copier(1, 4096), filled, "cpu")
        assert counts["first"]["right"] == [0] and counts["first"]["mentions"][0] >= 2
        right += counts["later"]["right"][0]
        later += counts["later"]["mentions"][0]
    # A copier of the longest suffix may follow another text than the name's: for letters only.
    assert right == later if encode is pieces else right > 0.8 * later


def test_counts_are_those_of_a_plain_loop():
    model = random_llama(3, vocab_size=300).eval()
    filled = fill(TEXT, to_bytes, 0, 1000, InductionQuestion(0, capital=True))
    row = torch.tensor([filled.tokens])
    with torch.no_grad():
        trunk = model.trunk(row)
        logits = [model.logits(k, model.head(k, trunk))[0] for k in (1, 2, 3)]
    expected = {part: [[0, 0] for _ in range(3)] for part in ("first", "later")}
    for mention in filled.mentions:
        for k in (1, 2, 3):
            fine = True
            for place in range(mention.start + 1, mention.end):
                fine &= int(logits[k - 1][place - k].argmax()) == filled.tokens[place]
            cell = expected["first" if mention.first else "later"][k - 1]
            cell[0] += fine
            cell[1] += 1
    counts = score(model, filled, "cpu")
    for part, cells in expected.items():
        assert [list(pair) for pair in zip(*counts[part].values(), strict=True)] == cells


def test_a_mention_counts_where_all_its_later_tokens_are_right():
    filled = fill(TEXT, to_bytes, None, 1000, InductionQuestion(0, capital=True))
    n_tokens = len(filled.tokens)
    right = torch.ones(n_tokens, 2, dtype=torch.bool)
    third = filled.mentions[2]
    right[third.start - 1, 0] = False  # its first letter: not asked for
    assert count_mentions(right, filled.mentions)["later"]["right"] == [3, 3]
    right[third.end - 2, 0] = False  # its last letter, of head 1
    assert count_mentions(right, filled.mentions)["later"]["right"] == [2, 3]
    shifted = torch.zeros_like(right)  # targets shifted by one: nothing is left
    assert count_mentions(shifted, filled.mentions)["later"]["right"] == [0, 0]


def test_heads_that_cannot_reach_a_target_are_not_asked():
    early = Template("early", f"{gap(0)} is {gap(0)}.")
    filled = fill(early, to_bytes, None, 1000, InductionQuestion(0, capital=True))
    right = torch.ones(len(filled.tokens), 4, dtype=torch.bool)
    # Letter 2 stands at position 1: heads 2 … 4 would read a state before the text.
    assert count_mentions(right, filled.mentions)["first"]["mentions"] == [1, 0, 0, 0]
