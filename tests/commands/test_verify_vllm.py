"""Two engines side by side; here another `Engine` stands for vLLM (`tests/test_vllm.py` has it)."""

import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest
import torch

from mtp_harness.commands import verify as cli_verify
from mtp_harness.commands.verify_vllm import (
    ITS_OWN,
    OURS,
    EngineVerifier,
    as_json,
    as_lines,
    compare_engines,
    ending,
    starter,
)
from mtp_harness.decode.compare import Verifier
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.errors import UserError
from mtp_harness.models.load import open_model

from ..models.byte_families import write_bytes

NAMES = "abcd"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_bytes(
        tmp_path_factory.mktemp("mimo"), "mimo", letters=range(97, 103), dtype=torch.float64
    )
    return open_model(folder, dtype=torch.float64).model


def compare(model, change, new_tokens=16):
    requests = [Request([0, 97, 98 + i], new_tokens) for i in range(4)]
    mine = (model, requests, [0], lambda ids: bytes(ids).decode("latin-1"))
    ended = []

    def start(k):
        engine = Engine(model, k, [0], mine[3])
        return lambda some: change(k, engine.generate(some)), lambda: ended.append(k)

    found = [*compare_engines(EngineVerifier(*mine), Verifier(*mine), [2, 3], 4, start)]
    assert ended == [1, 2, 3]
    return found


def test_equal_engines_write_equal_text_and_accept_as_often(model):
    found = compare(model, lambda k, answers: answers)
    assert [[pair.against for pair in both.pairs] for both in found] == [
        [OURS],
        [OURS, ITS_OWN],
        [OURS, ITS_OWN],
    ]
    for both in found:
        assert all(pair.comparison.counts["identical"] == 4 for pair in both.pairs)
        assert len(both.acceptance) == both.draft_heads - 1
        assert all(ours == its for ours, its in both.acceptance)
    assert as_json(found[2])["accept_rate_prefix"][1]["offset"] == 3
    lines = [*as_lines(found[1], NAMES)]
    assert lines[0] == "\nk = 2, vLLM with 1 draft a step"
    assert lines[1].startswith(
        f"  against {OURS}: 4 of 4 answers are identical; in 64 tokens 0 near"
    )
    assert lines[-1].startswith("    2        ") and "apart" not in lines[-1]
    assert ending(found) == "\nthe texts are the same, or differ by rounding alone (near ties)"


def test_a_wrong_token_is_an_error_and_not_a_near_tie(model):
    def wrong(k, answers):
        if k == 2 and len(answers) == 4:
            answers[1].tokens[5] = 255
        return answers

    plain, broken, _ = compare(model, wrong)
    assert plain.pairs[0].comparison.counts["errors"] == 0
    for pair in broken.pairs:
        [difference] = pair.comparison.differences
        assert (difference.prompt, difference.position, difference.other) == (1, 5, 255)
        assert not difference.near_tie
    assert any("ERROR: b, token 5: 255, not" in line for line in as_lines(broken, NAMES))
    assert "than rounding explains, only with drafts" in ending([plain, broken])


def test_other_acceptance_is_shown_with_its_interval(model):
    def better(k, answers):
        for answer in answers:
            object.__setattr__(answer.record, "n_verified", (k - 1,) * answer.record.n_steps)
        return answers

    *_, last = compare(model, better)
    [*_, first, _] = as_lines(last, NAMES)
    assert first.endswith("1.000 [1.000, 1.000]   the intervals do not overlap")
    assert "do not accept drafts equally often (k = 3)" in ending([last])


def test_answers_that_the_prefill_ends_say_nothing_about_acceptance(model):
    *_, last = found = compare(model, lambda k, answers: answers, new_tokens=1)
    assert [*as_lines(last, NAMES)][-1].endswith(" no drafts")
    assert ending(found).endswith("differ by rounding alone (near ties)")
    assert as_json(last)["accept_rate_prefix"][0]["vllm"] == [None, None, None]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "mtp-bytes-n4 has none .* leave --engine out"),
        (["mtp-bytes-n1"], "mtp-bytes-n1 has none .* leave --engine out"),
        (["--loader", "m:f", "--tokenizer", "t"], "m:f has none"),
        (["mtp-bytes-qwen", "--drafter", "d"], "--drafter d does not work with --engine vllm, .*"),
    ],
)
def test_what_vllm_would_not_read_alike_is_refused_before_anything_loads(
    monkeypatch, words, sentence
):
    """vLLM would draft with the checkpoint's own modules, and we with the drafter."""
    monkeypatch.setitem(sys.modules, "mtp_harness.vllm", ModuleType("vllm"))
    monkeypatch.setattr(cli_verify, "open_from_options", None)
    with pytest.raises(ValueError, match=sentence):
        cli_verify.main([*words, "--engine", "vllm"])


def test_vllm_gets_a_share_of_what_our_model_leaves_of_a_gpu(monkeypatch):
    given = []

    class Engine:
        def __init__(self, pretrained, **how):
            given.append((pretrained, how))

    monkeypatch.setitem(sys.modules, "mtp_harness.vllm", SimpleNamespace(MTPVLLM=Engine))
    start = starter("m", {"dtype": "bfloat16"})
    start(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (50, 200))
    start(3)
    # A configuration may not count the modules that its weights hold.
    plain = {"dtype": "bfloat16", "method": "mtp"}
    assert given[0] == ("m", plain | {"draft_heads": 2})
    share = given[1][1].pop("gpu_memory_utilization")
    assert share == pytest.approx(0.225) and given[1] == ("m", plain | {"draft_heads": 3})


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_nothing_is_loaded_first():
    with pytest.raises(UserError, match="needs vLLM"):
        cli_verify.main(["/no/such/checkpoint", "--engine", "vllm"])
