"""All probes with a tokenizer whose tokens are several bytes: a BPE over the standard library."""

import inspect
import json
import math
import os

import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from mtp_harness.lm import MTPLM

from . import runs

VOCAB, N, CONTEXT = 400, 3, 1024


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bpe")
    trained = ByteLevelBPETokenizer()
    source = [inspect.getsource(module) for module in (json, os, inspect)]
    trained.train_from_iterator(source, vocab_size=VOCAB, special_tokens=["<s>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        bos_token="<s>",
        eos_token="<s>",
        pad_token="<s>",
        model_max_length=CONTEXT,
    )
    runs.llama(N, VOCAB, replicated=False, context=CONTEXT).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return MTPLM(pretrained=str(folder), device="cpu", batch_size=2)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return runs.write_texts(tmp_path_factory.mktemp("texts"))


def plain_sums(lm):
    """Return nats and states by offset, tokens and bytes, by plain loops over float64 logits."""
    nats, n_states, n_tokens, n_bytes = dict.fromkeys(range(1, N + 1), 0.0), 0, 0, 0
    model = lm.model.double()
    for text in runs.TEXTS.values():
        tokens = [0, *lm.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids]
        n_tokens, n_bytes = n_tokens + len(tokens) - 1, n_bytes + len(text.encode())
        for t in range(len(tokens) - N):
            n_states += 1
            for i in nats:
                logits = runs.plain_logits(model, tokens, 0, t, i)
                nats[i] -= math.log(runs.softmax(logits)[tokens[t + i]])
    model.float()
    return nats, n_states, n_tokens, n_bytes


def test_loss_of_every_head_and_its_bits_per_byte(lm, texts):
    nats, n_states, n_tokens, n_bytes = plain_sums(lm)
    assert n_tokens < 0.9 * n_bytes, "tokens should be of several bytes"
    found = runs.table(runs.run(lm, "mtp_heads", folder=texts), "mtp_heads", "by_offset")
    (name,) = {key[0] for key in found}
    for i in range(1, N + 1):
        per_token = nats[i] / n_states
        assert found[name, i, "cross_entropy"] == pytest.approx(per_token, rel=2e-5)
        # A head's mean is taken for the text's first tokens, which it cannot reach.
        bits = per_token * n_tokens / n_bytes / math.log(2)
        assert found[name, i, "bits_per_byte"] == pytest.approx(bits, rel=2e-5)


def test_tokens_over_two_classes_are_counted(lm, texts):
    results = runs.run(lm, "mtp_positions", folder=texts)
    found = runs.table(results, "mtp_positions", "by_class")
    assert any(key[2] == "identifier" for key in found)
    assert not any(key[3] == "first" for key in found), "first bytes are those of byte models"


def test_all_probes_run(lm):
    results = runs.run(lm, "mtp_probes", quick=True, max_bytes=4000, n_texts=2, new_tokens=8)
    tables = results["config"]["mtp"]["tables"]
    assert set(tables) >= {"mtp_heads", "mtp_positions", "mtp_perplexity", "mtp_speculative"}
    assert set(tables) >= {"mtp_solutions", "mtp_speed", "mtp_induction"}
    drafted = results["results"]["mtp_speculative"]
    for k in range(2, N + 1):
        assert drafted[f"identical_{k},none"] == 1
        assert 1 <= drafted[f"tokens_per_forward_{k},none"] <= k
