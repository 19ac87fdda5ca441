"""No test of a checkpoint may reach for the network; tokenizers are trained once."""

import random
import socket

import pytest
import sentencepiece

from .meta_reference import SMALL, random_weights, write


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse every connection, and fail the test even if the refusal was swallowed."""
    tried = []

    def refuse(self, address, *_):
        tried.append(address)
        raise OSError(f"a test tried to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **_: refuse(None, a))
    yield tried
    assert not tried


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory):
    """Train a BPE model as Llama's: bytes for what is unknown, spaces kept, digits apart."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    rng = random.Random(0)
    words = "def return self if not in for the value error print None import class x y = += ( ) :"
    lines = (
        " " * rng.choice([0, 0, 4, 8, 12])
        + " ".join(rng.choice(words.split()) for _ in range(rng.randint(1, 12)))
        + str(rng.randint(0, 999))
        for _ in range(3000)
    )
    (folder / "text.txt").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


@pytest.fixture
def meta_folder(tmp_path, sentencepiece_model):
    """A sound release: `root/7B_4` with params.json and weights, the tokenizer one folder up."""
    params = {**SMALL, "vocab_size": 420}
    folder = write(tmp_path / "root" / "7B_4", params, random_weights(params))
    (tmp_path / "root" / "tokenizer.model").write_bytes(sentencepiece_model.read_bytes())
    return folder
