"""The byte tokenizer next to Python's own bytes."""

import json
import os
import random
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from mtp_harness.models.byte_tokenizer import byte_tokenizer, printable_bytes
from mtp_harness.models.load import SHIPPED_MODELS, resolve

TEXTS = [
    "",
    " ",
    "def f(x):\n\treturn x  # two  spaces\r\n",
    "naïve café – “quoted” …",
    "日本語のテキスト",
    "العربية עברית ไทย हिन्दी",
    "👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \ufeff\u200b\u00ad\x7f\x1f",
    "<s></s><|endoftext|>[PAD]",
    "".join(map(chr, range(1, 256))),
    "\ud7ff\ue000\uffff\U00010000\U0010ffff",
]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(128)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_the_bytes_after_bos(tokenizer, text):
    assert tokenizer(text).input_ids == [0, *text.encode()]
    assert tokenizer(text, add_special_tokens=False).input_ids == [*text.encode()]
    assert tokenizer.decode([0, *text.encode()], skip_special_tokens=True) == text
    assert tokenizer.decode([*text.encode(), 0], skip_special_tokens=False) == text + "\0"


def test_all_of_unicode(tokenizer):
    rng = random.Random(4)
    for _ in range(40):
        points = [rng.randrange(1, 0x110000) for _ in range(60)]
        text = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
        assert tokenizer(text).input_ids == [0, *text.encode()]


def test_every_byte_has_its_value_as_id(tokenizer):
    characters = printable_bytes()
    assert len(tokenizer) == tokenizer.vocab_size == 256 == len(set(characters))
    for value in range(1, 256):
        assert tokenizer.convert_tokens_to_ids(characters[value]) == value
        assert tokenizer.decode([value]) == bytes([value]).decode(errors="replace")
    specials = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert specials == (0, 0, 0)


def test_broken_utf8_is_decoded_as_python_does(tokenizer):
    rng = random.Random(9)
    lead = [0xC3, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x91, 0xA9, 0xED, 0xA0, 0xC0, 0xFF]
    for _ in range(300):
        raw = bytes(rng.choice([rng.randrange(1, 256), rng.choice(lead)]) for _ in range(12))
        assert tokenizer.decode([*raw]) == raw.decode(errors="replace")


def test_pairs_and_padding(tokenizer):
    assert tokenizer("ab", "c").input_ids == [0, *b"abc"]
    batch = tokenizer(["ab", "c"], padding=True, padding_side="left")
    assert batch.input_ids == [[0, *b"ab"], [0, 0, *b"c"]]
    assert batch.attention_mask == [[1, 1, 1], [0, 1, 1]]
    assert tokenizer.model_max_length == 128


def test_saved_tokenizers_are_this_one(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for folder in (tmp_path, *(resolve(name) for name in SHIPPED_MODELS)):
        loaded = AutoTokenizer.from_pretrained(folder)
        for text in TEXTS:
            assert loaded(text).input_ids == [0, *text.encode()]
            assert loaded.decode(loaded(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.slow
def test_auto_tokenizer_needs_nothing_of_ours(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    script = (
        "import json, sys; from transformers import AutoTokenizer;"
        "t = AutoTokenizer.from_pretrained(sys.argv[1]);"
        "text = json.loads(sys.argv[2]); ids = t(text).input_ids;"
        "ours = [m for m in sys.modules if m.startswith('mtp_harness.models')];"
        "print(json.dumps([ids, t.decode(ids, skip_special_tokens=True), ours]))"
    )
    text = TEXTS[6] + TEXTS[2]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), json.dumps(text)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "MTP_HARNESS_NO_AUTOLOAD": "1", "HF_HUB_OFFLINE": "1"},
        timeout=120,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [[0, *text.encode()], text, []]
