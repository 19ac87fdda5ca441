"""`--model mtp-vllm` itself, against our own engine on the same checkpoint: `make test-vllm`."""

import copy
import json

import pytest

pytest.importorskip("vllm", reason="needs vLLM: make test-vllm")

from lm_eval.api.instance import Instance

from mtp_harness.decode.records import Generation
from mtp_harness.decode.vllm_counts import REJECTION_RULE
from mtp_harness.errors import UserError
from mtp_harness.lm import MTPLM
from mtp_harness.vllm import MTPVLLM

from .decode.vllm_counts.requests import CONTEXT, write_checkpoint

PROMPTS = ["def add", "Once upon", "x = [1, 2"]
ENGINE = {"dtype": "float32", "enforce_eager": True, "max_model_len": CONTEXT, "max_num_seqs": 4}


def asks(repeats=1, **kwargs):
    given = {"do_sample": False, "max_gen_toks": 30, "until": [], **kwargs}
    return [
        instance
        for i, prompt in enumerate(PROMPTS)
        for instance in [
            Instance(
                "generate_until",
                {},
                (prompt, copy.deepcopy(given)),
                0,
                metadata=("t", i, repeats),
            )
        ]
        * repeats
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("glm")
    write_checkpoint(found, "glm4_moe")
    return str(found)


@pytest.fixture(scope="module")
def vllm(folder, tmp_path_factory):
    journal = tmp_path_factory.mktemp("journal") / "j"
    return MTPVLLM(folder, draft_heads=4, seed=3, journal=str(journal), **ENGINE)


@pytest.fixture(scope="module")
def ours(folder):
    lm = MTPLM(folder, device="cpu", draft_heads=4, dtype="float32", max_length=CONTEXT)
    lm.model.family = lm.model.family.as_engines_do()
    return lm


@pytest.mark.parametrize("until", [[], ["e"], ["ab", "n"]])
def test_greedy_answers_have_the_records_of_our_own_engine(vllm, ours, until):
    requests = asks(until=until)
    for found, expected in zip(
        vllm.generate_until(requests), ours.generate_until(requests), strict=True
    ):
        assert isinstance(found, Generation)
        for name in ("tokens", "n_verified", "n_drafted", "n_kept", "ended_by", "n_prompt_tokens"):
            assert getattr(found.record, name) == getattr(expected.record, name), name


def test_samples_differ_by_repeat_and_say_their_rule(vllm):
    found = vllm.generate_until(asks(repeats=3, do_sample=True, temperature=1.0))
    assert len({str.__str__(one) for one in found[:3]}) == 3
    assert {one.record.draft_rule for one in found} == {REJECTION_RULE}


def test_a_journal_answers_what_it_holds(vllm, monkeypatch):
    if vllm._journal is not None:
        vllm._journal.close()
    vllm._journal = None
    requests = asks(max_gen_toks=9)
    first = vllm.generate_until(requests)
    vllm._journal.close()
    vllm._journal = None
    monkeypatch.setattr(vllm, "_model_generate", lambda requests, **_: requests or [])
    again = vllm.generate_until(requests)
    assert again == first and [a.record for a in again] == [a.record for a in first]


def test_log_likelihoods_are_head_1_s(vllm, ours):
    pairs = [("def add", "(a, b)"), ("x = ", "[1]")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    found, expected = vllm.loglikelihood(requests), ours.loglikelihood(requests)
    for (a, greedy), (b, expected_greedy) in zip(found, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-3) and greedy == expected_greedy


def test_results_name_the_engine(vllm):
    vllm.generate_until(asks())
    mtp = vllm.get_model_info()["mtp"]
    assert mtp["engine"]["name"] == "vllm" and mtp["engine"]["version"].startswith("0.32")
    assert (mtp["draft_heads"], mtp["n_future_tokens"], mtp["dtype"]) == (4, 4, "float32")
    assert mtp["totals"]["n_steps"] > 0 and json.dumps(mtp)


def test_odd_generation_arguments_are_one_sentence(vllm):
    with pytest.raises(UserError, match="t, document 0: .*odd"):
        vllm.generate_until(asks(odd=1))
    with pytest.raises(UserError, match="leaves no room for a prompt in a context of 64 tokens"):
        vllm.generate_until(asks(max_gen_toks=64))


def test_ntp_writes_the_same_text(vllm, folder):
    ntp = MTPVLLM(folder, draft_heads=1, **ENGINE)
    found, expected = ntp.generate_until(asks()), vllm.generate_until(asks())
    assert found == expected
    assert all(one.record.tokens_per_forward == 1.0 for one in found)


@pytest.mark.parametrize(
    ("changed", "arguments", "sentence"),
    [
        ({"architectures": ["OddForCausalLM"]}, {}, "vLLM .* cannot load .*OddForCausalLM"),
        ({"num_nextn_predict_layers": 0}, {"draft_heads": 2}, "promises no MTP module"),
        ({}, {"gpu_memory_utilisation": 0.5}, "cannot load .*gpu_memory_utilisation"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(tmp_path, changed, arguments, sentence):
    write_checkpoint(tmp_path, "glm4_moe")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises((UserError, ValueError), match=sentence):
        MTPVLLM(str(tmp_path), **{**ENGINE, **arguments})
