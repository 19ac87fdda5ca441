"""`tokenizer.model`: the ids of SentencePiece itself, over many kinds of text."""

import random

import pytest
import sentencepiece
import torch
from transformers import AutoTokenizer

from mtp_harness.models.checkpoints.meta import meta_tokenizer
from mtp_harness.models.checkpoints.meta_tokenizer import sentencepiece_tokenizer
from mtp_harness.models.load import load_tokenizer

from ..meta_reference import SMALL, random_weights, write

TEXTS = [
    "",
    " ",
    "   ",
    "x",
    " x",
    "  x",
    "x ",
    "x  y",
    "\n",
    "\n\n  \n",
    "\tif x:\r\n\t\treturn",
    "def f(x, y):\n    return x + 12345\n",
    "        return",
    "caf\u00e9 na\u00efve \u6f22\u5b57 \U0001f600\U0001f1e9\U0001f1ea",
    "e\u0301 \ufb01 \u00a0 \u200b \u2028",
    "\u2581 x \u2581y",
    "<s>",
    "</s> <unk> <0x0A> a</s>b",
    "[INST] <<SYS>>",
    "\x00\x01\x7f",
]


def random_texts(count=4000):
    rng = random.Random(1)
    pools = [
        "ab \n",
        "def return self x=+():",
        " \t\n_-=",
        "0123456789 .",
        "aberst ",
        "é漢😀▁<s/> ",
    ]
    for _ in range(count):
        pool = rng.choice(pools)
        yield "".join(rng.choice(pool) for _ in range(rng.randint(1, 80)))
    for _ in range(count // 4):
        yield rng.choice(" -=_#a") * rng.randint(1, 70) + rng.choice(["", "x", "\n"]) + " " * 9


@pytest.fixture(scope="module")
def both(sentencepiece_model):
    reference = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    return reference, sentencepiece_tokenizer(sentencepiece_model)


def test_ids_are_those_of_sentencepiece(both):
    reference, tokenizer = both
    for text in [*TEXTS, *random_texts()]:
        plain = reference.encode(text)
        assert tokenizer.encode(text) == [1, *plain], repr(text)
        assert tokenizer.encode(text, add_special_tokens=False) == plain, repr(text)


def test_decoding_is_that_of_sentencepiece(both):
    reference, tokenizer = both
    for text in [*TEXTS, *random_texts(1000)]:
        ids = reference.encode(text)
        assert tokenizer.decode(ids, skip_special_tokens=True) == reference.decode(ids), repr(text)
    rng = random.Random(2)
    for _ in range(1000):  # sequences that no text encodes to, as a model may write them
        ids = [rng.choice([3 + 10, rng.randrange(259, 420)]) for _ in range(rng.randint(1, 12))]
        assert tokenizer.decode(ids, skip_special_tokens=True) == reference.decode(ids), ids


def test_line_ends_survive_beside_an_incomplete_character(both):
    reference, tokenizer = both
    newline, lead = reference.piece_to_id("<0x0A>"), reference.piece_to_id("<0xE6>")
    for ids in ([newline, newline, lead], [lead, newline], [lead, lead, newline, lead]):
        assert tokenizer.decode(ids) == reference.decode(ids)
    assert tokenizer.decode([newline, newline, lead]).startswith("\n\n")


def test_bos_before_every_prompt_and_no_eos(both):
    _, tokenizer = both
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    ids = tokenizer(["a", "b c"])["input_ids"]
    assert all(row[0] == 1 and 1 not in row[1:] and 2 not in row for row in ids)
    assert len(tokenizer) == tokenizer.vocab_size == 420


def test_saved_and_loaded_by_transformers_alone(both, tmp_path):
    _, tokenizer = both
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, *random_texts(300)]:
        assert again.encode(text) == tokenizer.encode(text), repr(text)
        assert again.decode(again.encode(text)) == tokenizer.decode(tokenizer.encode(text))


def test_found_beside_the_weights_before_one_folder_up(meta_folder, sentencepiece_model):
    assert meta_tokenizer(meta_folder).encode("x") == load_tokenizer(str(meta_folder)).encode("x")
    (meta_folder / "tokenizer.model").write_bytes(b"broken")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        meta_tokenizer(meta_folder)
    (meta_folder / "tokenizer.model").write_bytes(sentencepiece_model.read_bytes())
    assert len(meta_tokenizer(meta_folder)) == 420


def test_found_from_inside_the_folder(meta_folder, monkeypatch):
    monkeypatch.chdir(meta_folder)
    assert len(load_tokenizer(".")) == 420


@pytest.mark.parametrize("content", [b"", b"x" * 50, b"version https://git-lfs.github.com/spec/v1"])
def test_broken_file_gets_one_sentence(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ValueError, match="SentencePiece model") as caught:
        sentencepiece_tokenizer(tmp_path / "tokenizer.model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [{"model_type": "unigram"}, {"user_defined_symbols": ["self"]}])
def test_other_kinds_are_refused(tmp_path, kind):
    (tmp_path / "text").write_text("def f(self): return self\n" * 20 + "abcdefghijk\n" * 5)
    settings = {"model_type": "bpe", "vocab_size": 40, "hard_vocab_limit": False, **kind}
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"),
        model_prefix=str(tmp_path / "tokenizer"),
        minloglevel=2,
        **settings,
    )
    with pytest.raises(ValueError, match="another kind, expected BPE"):
        sentencepiece_tokenizer(tmp_path / "tokenizer.model")


@pytest.mark.parametrize("vocab_size", [61, -1])
def test_more_pieces_than_the_model_has_rows(tmp_path, sentencepiece_model, vocab_size):
    folder = write(tmp_path, {**SMALL, "vocab_size": vocab_size}, random_weights(SMALL))
    (folder / "tokenizer.model").write_bytes(sentencepiece_model.read_bytes())
    with pytest.raises(ValueError, match="420 pieces but the model in .* a vocabulary of 61"):
        meta_tokenizer(folder)


def test_ids_fit_the_model(meta_folder):
    from mtp_harness.models.checkpoints.meta import load_meta

    model, tokenizer = load_meta(meta_folder), meta_tokenizer(meta_folder)
    tokens = tokenizer.encode("def f(x): return x", return_tensors="pt")
    with torch.no_grad():
        assert model.next_token_logits(tokens).shape == (*tokens.shape, 420)
