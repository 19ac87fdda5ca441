"""`Stopping` against the definition: the shortest prefix that ends the answer."""

import random

import pytest

from mtp_harness.decode.stopping import Stopping

from .models_for_tests import cut, letters


def feed(tokens, sizes, stopping):
    """Give `tokens` to `stopping` in steps of these sizes; return the answer and what ended it."""
    before = []
    for size in sizes:
        new = tokens[len(before) : len(before) + size]
        ending = stopping.end(before, new)
        if ending.ended_by:
            return before + new[: ending.n_kept], ending.ended_by
        assert ending.n_kept == len(new)
        before += new
    raise AssertionError("nothing ended the answer")


def latin(tokens):
    return bytes(tokens).decode("latin-1")


def utf8(tokens):
    """Decode bytes as a tokenizer does: half a character becomes U+FFFD."""
    return bytes(tokens).decode("utf-8", errors="replace")


WORDS = ["", "x", "ab", "ab\n", "  ", "def ", "é", "€a", "\n\n"]


def words(tokens):
    """Tokens of several characters, and one (0) that decodes to nothing."""
    return "".join(WORDS[token] for token in tokens)


def text_of_bytes(rng, length):
    return list("".join(rng.choices("ab\né€𝄞", k=length)).encode())[:length]


def text_of_ids(size):
    return lambda rng, length: rng.choices(range(1, size), k=length)


KINDS = {
    "letters": (letters, text_of_ids(4)),
    "latin-1 bytes": (latin, text_of_bytes),
    "utf-8 bytes": (utf8, text_of_bytes),
    "words": (words, text_of_ids(len(WORDS))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ends_at_the_shortest_prefix(kind):
    to_text, make = KINDS[kind]
    rng = random.Random(0)
    endings = set()
    for _ in range(400):
        tokens = make(rng, 30)
        whole = to_text(tokens).replace("\ufffd", "")
        starts = [rng.randrange(len(whole)) for _ in range(rng.randrange(4))]
        until = [whole[at : at + rng.randint(1, 12)] for at in starts]
        eos = rng.sample(tokens, rng.choice([0, 0, 1]))
        budget = rng.randint(1, 30)
        sizes = [1] + [rng.randint(1, 5) for _ in range(30)]
        expected = cut(tokens, eos, until, budget, to_text)
        assert feed(tokens, sizes, Stopping(eos, until, budget, to_text)) == expected
        endings.add(expected[1])
    assert endings == {"eos", "stop", "length"}


def test_sees_a_stop_string_however_many_steps_ago_it_began():
    for length in range(1, 40):
        tokens = list(range(length + 10))
        stopping = Stopping([], [latin(tokens[4 : 4 + length])], 100, latin)
        assert feed(tokens, [1] * 60, stopping) == (tokens[: 4 + length], "stop")


def test_keeps_the_whole_token_that_completes_a_stop_string():
    # "ab\n" holds the stop string's end in its middle; the caller cuts the text, not the tokens.
    assert feed([1, 3, 1], [3], Stopping([], ["xa"], 9, words)) == ([1, 3], "stop")


def test_empty_stop_strings_are_ignored():
    assert feed([1, 2, 3], [3], Stopping([], [""], 3, letters)) == ([1, 2, 3], "length")


def test_text_is_not_decoded_without_stop_strings():
    def never(tokens):
        raise AssertionError("decoded for nothing")

    assert feed([1, 2, 3], [2, 1], Stopping([9], [], 3, never)) == ([1, 2, 3], "length")


def test_goes_on_until_something_ends_it():
    ending = Stopping([9], ["zz"], 10, letters).end([1, 2], [3, 4])
    assert ending == (2, "")
