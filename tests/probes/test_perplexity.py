"""`mtp_perplexity` against plain loops, and against lm_eval's rolling log-likelihood."""

import logging
import math

import pytest
from lm_eval.api.instance import Instance

from . import runs

STRIDES = [(16, 16), (16, 5), (16, 1), (64, 64)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return runs.write_texts(tmp_path_factory.mktemp("texts"))


def rolling(lm, text):
    return lm.loglikelihood_rolling(
        [Instance("loglikelihood_rolling", {}, (text,), 0, metadata=("t", 0, 1))]
    )[0]


@pytest.mark.parametrize("model", [lambda: runs.tiny(3), runs.sequential_model])
@pytest.mark.parametrize(("window", "stride"), STRIDES)
def test_numbers_are_those_of_plain_loops(folder, texts, model, window, stride):
    model = model()
    n = model.n_future_tokens
    lm = runs.harness_model(model, folder, batch_size=3)
    results = runs.run(lm, "mtp_perplexity", folder=texts, window=window, stride=stride)
    found = runs.table(results, "mtp_perplexity", "by_offset")
    behind = runs.counts(results, "mtp_perplexity", "by_offset")
    by_position = runs.table(results, "mtp_perplexity", "by_position")
    (name,) = {key[0] for key in found}
    nats, positions, read, n_tokens = {}, {}, 0, 0
    for text in runs.TEXTS.values():
        # The byte tokenizer's own BOS follows the prefix token, as lm_eval has it.
        tokens, p = runs.reader(model, text, window, stride, bos=(0, 0))
        n_states = len(tokens) - 1
        n_tokens += n_states
        ends = sorted({min(n_states, window + stride * i) for i in range(n_states)})
        ends = ends[: ends.index(n_states) + 1]
        read += sum(end - max(0, end - window) for end in ends)
        for t in range(n_states):
            for i in range(1, n + 1):
                if t + i <= n_states:
                    loss = -math.log(p(t, i)[tokens[t + i]])
                    nats.setdefault(i, []).append(loss)
                    place = t - runs.start_of(t, n_states, window, stride)
                    positions.setdefault((name, i, place, "cross_entropy"), []).append(loss)
    n_bytes = sum(len(text.encode()) for text in runs.TEXTS.values())
    n_words = sum(len(text.split()) for text in ("x" + t + "x" for t in runs.TEXTS.values()))
    for i, losses in nats.items():
        mean = sum(losses) / len(losses)
        assert found[name, i, "cross_entropy"] == pytest.approx(mean, rel=2e-5)
        assert behind[name, i, "cross_entropy"] == len(losses)
        bits = mean * n_tokens / n_bytes / math.log(2)
        assert found[name, i, "bits_per_byte"] == pytest.approx(bits, rel=2e-5)
    for metric, units in (("token", n_tokens), ("byte", n_bytes), ("word", n_words)):
        expected = math.exp(sum(nats[1]) / units)
        assert found[name, 1, f"{metric}_perplexity"] == pytest.approx(expected, rel=2e-3)
    assert found[name, None, "tokens_read_per_token"] == pytest.approx(read / n_tokens)
    expected = {key: sum(losses) / len(losses) for key, losses in positions.items()}
    assert by_position == pytest.approx(expected, rel=2e-5, abs=1e-5)


@pytest.mark.parametrize("window", [16, 37, 64])
def test_at_stride_window_head_1_is_the_harness_s_rolling_log_likelihood(folder, texts, window):
    model = runs.tiny(4)
    theirs = runs.harness_model(model, folder, max_length=window)
    lm = runs.harness_model(model, folder, batch_size=3)
    results = runs.run(lm, "mtp_perplexity", folder=texts, window=window, stride=window)
    found = runs.table(results, "mtp_perplexity", "by_offset")
    (name,) = {key[0] for key in found}
    total = sum(rolling(theirs, text) for text in runs.TEXTS.values())
    n_bytes = sum(len(text.encode()) for text in runs.TEXTS.values())
    bits = -total / n_bytes / math.log(2)
    assert found[name, 1, "bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    flat = results["results"]["mtp_perplexity"]
    assert flat[f"{name}_bits_per_byte_1,none"] == pytest.approx(bits, rel=1e-5)
    byte = math.exp(-total / n_bytes)
    assert flat[f"{name}_byte_perplexity,none"] == pytest.approx(byte, rel=1e-5)


def test_it_is_so_for_the_shipped_model_and_for_every_document(texts):
    lm = runs.MTPLM(device="cpu", batch_size=2)
    results = runs.run(lm, "mtp_perplexity", folder=texts, window=4096, stride=4096)
    for sample in results["samples"]["mtp_perplexity"]:
        own = -rolling(lm, sample["doc"]["text"])
        assert sample["n_documents"]["nats"][0] == pytest.approx(own, rel=1e-5)


def test_an_ordinary_model(tmp_path, texts):
    lm = runs.MTPLM(pretrained=runs.ordinary_folder(tmp_path), device="cpu", dtype="float64")
    results = runs.run(lm, "mtp_perplexity", folder=texts, stride=64)
    found = runs.table(results, "mtp_perplexity", "by_offset")
    (name,) = {key[0] for key in found}
    assert {key[1] for key in found} == {1, None}
    total = sum(rolling(lm, text) for text in runs.TEXTS.values())
    mean = -total / sum(len(text.encode()) + 1 for text in runs.TEXTS.values())
    assert found[name, 1, "cross_entropy"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("stride", [0, 17, "a"])
def test_strides_that_no_window_has(folder, texts, stride):
    lm = runs.harness_model(runs.tiny(2), folder)
    with pytest.raises(ValueError, match=rf"mtp_perplexity.*stride={stride}, expected 1 to .* 16 "):
        runs.run(lm, "mtp_perplexity", folder=texts, window=16, stride=stride)


def test_a_context_below_the_usual_stride_needs_no_argument(folder, texts):
    """The usual stride is 256; the tiny model's context is 64."""
    lm = runs.harness_model(runs.tiny(2), folder)
    found = runs.run(lm, "mtp_perplexity", folder=texts)
    expected = runs.run(lm, "mtp_perplexity", folder=texts, stride=64)
    assert runs.table(found, "mtp_perplexity", "by_offset") == runs.table(
        expected, "mtp_perplexity", "by_offset"
    )


@pytest.mark.parametrize("task", ["mtp_heads", "mtp_perplexity"])
def test_a_text_longer_than_the_context_is_no_reason_to_warn(folder, tmp_path, caplog, task):
    texts = runs.write_texts(tmp_path, {"long.txt": "abab b = 1\n" * 30})
    lm = runs.harness_model(runs.tiny(2), folder)
    lm.tokenizer.model_max_length = 64
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)  # transformers keeps its lines from the root logger
    try:
        runs.run(lm, task, folder=texts)
    finally:
        logger.removeHandler(caplog.handler)
    assert "longer than" not in caplog.text
    assert lm.tokenizer.model_max_length == 64
