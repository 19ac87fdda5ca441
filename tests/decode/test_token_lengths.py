"""Characters per token, against tokenizers whose tokens' texts are known."""

import pytest

from mtp_harness.decode.token_lengths import TokenLengths
from mtp_harness.models.byte_tokenizer import byte_tokenizer

WORDS = ["", "x", "ab", "  ", "def ", "é", "\n\n"]


def words(tokens):
    return "".join(WORDS[token] for token in tokens)


def sentencepiece(tokens):
    """As SentencePiece decodes: the space in front of the first word is lost."""
    return "".join(f" {WORDS[token]}" for token in tokens)[1:]


def utf8(tokens):
    return bytes(tokens).decode("utf-8", errors="replace")


def test_words():
    assert TokenLengths(words)(1, [2, 0, 4, 5, 6]) == (2, 0, 4, 1, 2)


def test_space_in_front_of_a_word_is_its_own():
    assert TokenLengths(sentencepiece)(1, [2, 4]) == (3, 5)
    assert TokenLengths(sentencepiece).text_alone(1, 4) == " def "


def test_character_of_several_bytes_belongs_to_the_last():
    text = "aé€𝄞b"
    expected = [n for c in text for n in [0] * (len(c.encode()) - 1) + [1]]
    assert TokenLengths(utf8)(65, list(text.encode())) == tuple(expected)


def test_bytes_that_are_no_character():
    # Python shows an unfinished sequence of two bytes as one U+FFFD, and a lone 0xFF as another.
    tokens = [97, 0xE2, 0x82, 0xFF, 98]
    assert utf8(tokens) == "a��b"
    assert TokenLengths(utf8)(65, tokens) == (1, 1, 0, 1, 1)


def test_prompt_that_ends_inside_a_character():
    first, *rest = "é!".encode()
    lengths = TokenLengths(utf8)(first, rest)
    assert lengths is None or sum(lengths) == len("é!")


@pytest.mark.parametrize("text", ["def f(x):\n    return x", "สวัสดี\nخلاصه", "x = 'é' # 𝄞"])
def test_real_byte_tokenizer(text):
    tokenizer = byte_tokenizer(4096)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    lengths = TokenLengths(tokenizer.decode)(ord("x"), tokens)
    written, at = [], 0
    for n in lengths:
        written.append(text[at : at + n])
        at += n
    assert "".join(written) == text
    done = b""
    for token, piece in zip(tokens, written, strict=True):
        done += bytes([token])
        if piece:  # a character is written where its bytes are complete
            assert done.decode().endswith(piece)
            done = b""
    assert not done


def test_tokens_that_do_not_add_up_are_not_guessed():
    assert TokenLengths(lambda tokens: "long" if len(tokens) > 2 else "")(1, [2, 3, 4]) is None
