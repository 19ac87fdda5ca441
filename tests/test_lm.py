"""`MTPLM` next to the harness's own `HFLM`, which is what ordinary models and head 1 must equal."""

import copy
import json
import logging
import math
import shutil
import socket
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import lm_eval.models  # noqa: F401
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import LlamaConfig, LlamaForCausalLM

import mtp_harness.models  # noqa: F401  registers mtp_llama with the Auto classes
from mtp_harness.errors import UserError
from mtp_harness.lm import MTPLM
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.load import DEFAULT_MODEL, resolve

EXAMPLES = Path(__file__).parents[1] / "examples"
SHIPPED = resolve(DEFAULT_MODEL)
CODE = [
    "def add(a, b):\n    ",
    "import os\n\n\nclass Folder:\n    def __init__(self, path):\n        self.path = path\n\n",
    "for i in range(10):\n",
    'def mean(values):\n    """Return the mean."""\n',
    "x",
]


def asks(prompts, repeats=1, **kwargs):
    given = {"do_sample": False, "max_gen_toks": 24, "until": [], **kwargs}
    return [
        Instance("generate_until", {}, (p, copy.deepcopy(given)), i, metadata=("t", i, repeats))
        for i, p in enumerate(prompts)
    ]


def asks_likelihood(kind, arguments):
    return [Instance(kind, {}, a, i, metadata=("t", i, 1)) for i, a in enumerate(arguments)]


def first_difference(pairs):
    return max(abs(a - b) for a, b in pairs)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder with an ordinary causal LM whose weights are large enough for varied text."""
    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 3 / math.sqrt(parameter.shape[1]))
        model.lm_head.weight[128:] *= 0.1  # ASCII mostly, so that stop strings can be found
    model.save_pretrained(folder)
    byte_tokenizer(256).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def shipped():
    return MTPLM(device="cpu", batch_size=3)


@pytest.fixture(scope="module")
def shipped_hf():
    return HFLM(pretrained=SHIPPED, device="cpu", dtype="float32", backend="causal", batch_size=3)


# ---------------------------------------------------------------- an ordinary model


@pytest.mark.parametrize("batch_size", [1, 3])
def test_ordinary_model_answers_exactly_as_hf_does(plain, batch_size):
    theirs = HFLM(pretrained=plain, device="cpu", batch_size=batch_size)
    ours = MTPLM(pretrained=plain, device="cpu", batch_size=batch_size)

    pairs = [(CODE[0], "return a + b"), (CODE[1], " pass"), ("", "x"), (CODE[2], "\tä")]
    requests = asks_likelihood("loglikelihood", pairs)
    assert ours.loglikelihood(requests) == theirs.loglikelihood(requests)
    requests = asks_likelihood("loglikelihood_rolling", [(text * 9,) for text in CODE])
    assert ours.loglikelihood_rolling(requests) == theirs.loglikelihood_rolling(requests)

    free = theirs.generate_until(asks(CODE))
    stops = [[text[5:7]] for text in free]
    requests = asks(CODE) + [
        r for p, s in zip(CODE, stops, strict=True) for r in asks([p], until=s)
    ]
    expected = theirs.generate_until(copy.deepcopy(requests))
    assert ours.generate_until(copy.deepcopy(requests)) == expected
    assert len(set(expected)) == len(expected)
    for text, stop, whole in zip(expected[len(CODE) :], stops, free, strict=True):
        assert text == whole.split(stop[0])[0]


def test_ordinary_models_records_are_those_of_one_token_per_forward(plain):
    lm = MTPLM(pretrained=plain, device="cpu", batch_size=3)
    model = LlamaForCausalLM.from_pretrained(plain)
    tokenizer = byte_tokenizer(256)
    free = lm.generate_until(asks(CODE))
    requests = asks(CODE) + asks(CODE, until=[free[0][3:6], free[1][8:10]], max_gen_toks=20)
    for request, answer in zip(requests, lm.generate_until(requests), strict=True):
        prompt, kwargs = request.args
        tokens, start, ended = tokenizer(prompt).input_ids, len(prompt.encode()) + 1, "length"
        for _ in range(kwargs["max_gen_toks"]):  # plain decoding, without a cache
            with torch.no_grad():
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
            text = tokenizer.decode(tokens[start:])
            if tokens[-1] == 0 or any(stop in text for stop in kwargs["until"]):
                ended = "eos" if tokens[-1] == 0 else "stop"
                break
        record = answer.record
        assert (record.n_kept, record.ended_by) == (len(tokens) - start - 1, ended)
        assert record.n_prompt_tokens == start
        assert set(record.n_verified) <= {0} and record.n_steps == record.n_kept
        assert (record.draft_heads, record.n_truncated) == (1, 0)
        assert record.tokens_per_forward == 1.0
    totals = lm.get_model_info()["mtp"]["totals"]
    assert totals["tokens_per_forward"] == totals["tokens_per_forward_mean"] == 1.0
    assert totals["n_answers"] == 3 * len(CODE)
    assert totals["ended_by"]["stop"] >= 2


@pytest.mark.parametrize("batch_size", [1, 3])
def test_one_prompt_with_different_arguments_keeps_its_own_records(plain, batch_size):
    lm = MTPLM(pretrained=plain, device="cpu", batch_size=batch_size)
    budgets = [5, 24, 5, 11, 24, 1]
    requests = [asks([CODE[0]], max_gen_toks=budget)[0] for budget in budgets]
    answers = lm.generate_until(requests)
    assert [answer.record.n_kept + 1 for answer in answers] == budgets
    longest = answers[1]
    assert all(longest.startswith(answer.rstrip("\ufffd")) for answer in answers)


def test_arguments_that_the_harness_takes_for_equal_keep_their_records(plain):
    lm = MTPLM(pretrained=plain, device="cpu", batch_size=4)
    spellings = [
        {"until": ["#"], "max_gen_toks": 6, "do_sample": False, "temperature": 0.0},
        {"temperature": 0, "do_sample": False, "max_gen_toks": 6, "until": "#"},
    ]
    requests = [
        Instance("generate_until", {}, (prompt, kwargs), 0, metadata=("t", 0, 1))
        for kwargs in spellings
        for prompt in CODE[:2]
    ]
    answers = lm.generate_until(requests)
    assert answers[:2] == answers[2:]
    prompt_tokens = [len(prompt) + 1 for prompt in CODE[:2]]
    assert [answer.record.n_prompt_tokens for answer in answers] == prompt_tokens * 2


def test_ordinary_model_counts_truncated_prompts(plain):
    lm = MTPLM(pretrained=plain, device="cpu", max_length=40, batch_size=2)
    prompts = ["abc" * 20, "abc"]
    long, short = lm.generate_until(asks(prompts, max_gen_toks=10))
    assert (long.record.n_prompt_tokens, long.record.n_truncated) == (30, 61 - 30)
    assert (short.record.n_prompt_tokens, short.record.n_truncated) == (4, 0)
    assert lm.get_model_info()["mtp"]["totals"]["n_prompts_truncated"] == 1


def test_ordinary_model_gives_plain_answers_to_the_harness_cache(plain):
    lm = MTPLM(pretrained=plain, device="cpu")
    kept = []
    lm.cache_hook = SimpleNamespace(add_partial=lambda *entry: kept.append(entry))
    answers = lm.generate_until(asks(CODE[:2]))
    assert {prompt for _, (prompt, _), _ in kept} == set(CODE[:2])
    assert all(type(prompt) is str and type(text) is str for _, (prompt, _), text in kept)
    assert {text for *_, text in kept} == set(answers)
    assert lm.cache_hook.add_partial is not None and "_model_generate" not in vars(lm)


@pytest.mark.parametrize("which", ["plain", "shipped"])
def test_until_none_means_no_stop_strings(which, plain, shipped):
    lm = shipped if which == "shipped" else MTPLM(pretrained=plain, device="cpu")
    expected = lm.generate_until(asks(CODE[:1]))
    assert lm.generate_until(asks(CODE[:1], until=None)) == expected


@pytest.mark.parametrize("which", ["plain", "shipped"])
@pytest.mark.parametrize(
    ("kwargs", "fact"),
    [
        ({"until": 10}, "until=10, expected a text"),
        ({"max_gen_toks": "abc"}, "max_gen_toks=abc, expected a whole number"),
        ({"temperature": []}, "temperature=[], expected a number"),
        ({"max_gen_toks": 0}, "max_gen_toks=0, expected at least 1"),
        ({"max_gen_toks": 4096}, "leaves no room"),
    ],
)
def test_odd_generation_arguments_are_one_sentence(which, plain, shipped, kwargs, fact):
    lm = shipped if which == "shipped" else MTPLM(pretrained=plain, device="cpu")
    with pytest.raises(UserError) as caught:
        lm.generate_until(asks(CODE[:1], **kwargs))
    one_sentence(caught.value, "t, document 0: ", fact)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"no_such_argument": 1},
        {"do_sample": True, "temperature": 0.8, "top_k": -1},
        {"do_sample": True, "temperature": 0.0},
    ],
)
def test_what_transformers_refuses_to_generate_with_is_one_sentence(plain, kwargs):
    with pytest.raises(UserError) as caught:
        MTPLM(pretrained=plain, device="cpu").generate_until(asks(CODE[:1], **kwargs))
    one_sentence(caught.value, "transformers cannot use a generation argument", *list(kwargs)[-1:])


def test_an_ordinary_model_keeps_answers_under_the_request_s_own_arguments(plain, tmp_path):
    lm = MTPLM(pretrained=plain, device="cpu")
    kept = []
    lm.cache_hook = SimpleNamespace(add_partial=lambda *entry: kept.append(entry))
    request = asks(CODE[:1], until=None)[0]
    lm.generate_until([request])
    assert [arguments for _, arguments, _ in kept] == [request.args]


@pytest.mark.parametrize("spelling", [int, str])
def test_thinking_ends_at_a_token_s_id_as_with_hf(shipped, shipped_hf, spelling):
    space = ord(" ")
    mine = MTPLM(device="cpu", batch_size=3, think_end_token=spelling(space))
    theirs = copy.copy(shipped_hf)
    theirs.think_end_token = space
    theirs.batch_size_per_gpu = 1  # in a batch it reads on behind a row's stop string
    requests = asks(CODE, max_gen_toks=32) + asks(
        CODE[:4], max_gen_toks=48, until=["\n\n", "return"]
    )
    answers = mine.generate_until(requests)
    assert answers == theirs.generate_until(copy.deepcopy(requests))
    whole = shipped.generate_until(requests)
    assert answers != whole
    for answer, text in zip(answers, whole, strict=True):
        # Characters are counted by token only where the first token wrote the first of them.
        assert (answer.record.n_characters is None) == (" " in text or text != text.lstrip())


@pytest.mark.parametrize("which", ["plain", "shipped"])
def test_no_chat_template_is_one_sentence(which, plain, shipped):
    lm = shipped if which == "shipped" else MTPLM(pretrained=plain, device="cpu")
    assert lm.tokenizer.chat_template is None
    for ask in (
        lambda: lm.chat_template(True),
        lambda: lm.apply_chat_template([{"role": "user", "content": "x"}]),
    ):
        with pytest.raises(UserError) as caught:
            ask()
        one_sentence(caught.value, "--apply_chat_template", "no chat template", "leave the flag")


def test_thinking_with_log_likelihoods_is_one_sentence():
    lm = MTPLM(device="cpu", enable_thinking=True, think_end_token="</think>")
    with pytest.raises(UserError) as caught:
        lm.loglikelihood(asks_likelihood("loglikelihood", [("a", "b")]))
    one_sentence(caught.value, "enable_thinking=True", "(t)", "leave it out")


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{% broken", "{{ 1 + 'a' }}"])
def test_a_chat_template_that_fails_is_one_sentence(template):
    lm = MTPLM(device="cpu")
    lm.tokenizer.chat_template = "{{ messages[0].content }}"
    assert lm.apply_chat_template([{"role": "user", "content": "x"}]) == "x"
    lm.tokenizer.chat_template = template
    with pytest.raises(UserError) as caught:
        lm.apply_chat_template([{"role": "user", "content": "x"}])
    one_sentence(caught.value, "the chat template")


# ---------------------------------------------------------------- the shipped model


def test_text_of_four_heads_is_that_of_one_and_of_hf(shipped, shipped_hf):
    ntp = MTPLM(draft_heads=1, device="cpu", batch_size=2)
    requests = asks(CODE, max_gen_toks=32)
    requests += asks(CODE[:4], max_gen_toks=48, until=["\n\n", "return"])
    drafted, plain = shipped.generate_until(requests), ntp.generate_until(requests)
    assert drafted == plain == shipped_hf.generate_until(copy.deepcopy(requests))
    assert any(a.record.ended_by == "stop" for a in drafted)
    for ours, theirs in zip(drafted, plain, strict=True):
        assert (ours.record.n_kept, ours.record.ended_by) == (
            theirs.record.n_kept,
            theirs.record.ended_by,
        )
        assert ours.record.draft_heads == 4 and theirs.record.draft_heads == 1
        assert set(theirs.record.n_verified) <= {0}
    assert sum(a.record.n_steps for a in drafted) < 0.7 * sum(a.record.n_kept for a in drafted)


def test_likelihoods_are_those_of_head_1(shipped, shipped_hf):
    pairs = [(CODE[0], "return a + b"), (CODE[1], "    pass\n"), ("", "import os"), ("é", "ü")]
    requests = asks_likelihood("loglikelihood", pairs)
    ours, theirs = shipped.loglikelihood(requests), shipped_hf.loglikelihood(requests)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert first_difference(zip(*[[x for x, _ in y] for y in (ours, theirs)], strict=True)) < 1e-4
    requests = asks_likelihood("loglikelihood_rolling", [(text,) for text in CODE])
    both = [lm.loglikelihood_rolling(requests) for lm in (shipped, shipped_hf)]
    assert first_difference(zip(*both, strict=True)) < 1e-4


def test_head_1_is_named_once(caplog):
    requests = asks_likelihood("loglikelihood", [("a", "b")])
    with caplog.at_level(logging.WARNING, logger="mtp_harness.harness.log_likelihood"):
        lm = MTPLM(device="cpu")
        lm.loglikelihood(requests)
        lm.loglikelihood(requests)
        lm.loglikelihood_rolling(asks_likelihood("loglikelihood_rolling", [("ab",)]))
        assert [r.getMessage() for r in caplog.records if "BOS" not in r.getMessage()] == [
            "log-likelihoods use head 1 only; draft_heads=4 has no effect"
        ]
        caplog.clear()
        MTPLM(draft_heads=1, device="cpu").loglikelihood(requests)
    assert not caplog.records


@pytest.mark.parametrize("which", ["plain", "shipped"])
def test_a_bos_that_is_scored_after_a_bos_is_named_once(plain, which, caplog):
    arguments = {"pretrained": plain} if which == "plain" else {"draft_heads": 1}
    requests = asks_likelihood("loglikelihood_rolling", [("x = 1\n",), ("y",)])
    tokens = list(b"x = 1\n")

    def summed(read, model):  # log P of all tokens but the first, by one forward
        logits = model.next_token_logits if which == "shipped" else lambda x: model(x).logits
        with torch.no_grad():
            scores = logits(torch.tensor([read]))[0, :-1].log_softmax(-1)
        return float(scores.gather(1, torch.tensor(read[1:])[:, None]).sum())

    with caplog.at_level(logging.WARNING, logger="mtp_harness.harness.log_likelihood"):
        lm = MTPLM(device="cpu", **arguments)
        found = lm.loglikelihood_rolling(requests)
        assert lm.loglikelihood_rolling(requests) == found
        assert found[0] == pytest.approx(summed([0, 0, *tokens], lm.model), abs=1e-4)
        said = [record.getMessage() for record in caplog.records]
        assert (
            len(said) == 1 and "after another BOS" in said[0] and "add_bos_token=False" in said[0]
        )
        caplog.clear()
        without = MTPLM(device="cpu", add_bos_token=False, **arguments)
        once = without.loglikelihood_rolling(requests)
        assert once[0] == pytest.approx(summed([0, *tokens], lm.model), abs=1e-4)
        assert not caplog.records


def test_prompts_are_cut_on_the_left_as_hf_does(monkeypatch):
    theirs = HFLM(
        pretrained=SHIPPED, device="cpu", dtype="float32", backend="causal", max_length=64
    )
    ours = MTPLM(device="cpu", max_length=64)
    fed_theirs, fed_ours = [], []
    generate, make_engine = theirs._model_generate, ours._generator.engine

    def remember_context(context, **kwargs):
        fed_theirs.extend(context.tolist())
        return generate(context=context, **kwargs)

    def remember_requests(*args):
        engine = make_engine(*args)
        decode = engine.generate

        def generate(requests, on_answer):
            fed_ours.extend(r.prompt for r in requests)
            return decode(requests, on_answer)

        engine.generate = generate
        return engine

    monkeypatch.setattr(theirs, "_model_generate", remember_context)
    monkeypatch.setattr(ours._generator, "engine", remember_requests)
    prompts = [CODE[1] * 3, CODE[1][:39], CODE[1][:40]]  # 64 - 24 = 40 tokens fit, BOS is one
    answers = ours.generate_until(asks(prompts))
    assert answers == theirs.generate_until(asks(prompts))
    assert sorted(fed_ours) == sorted(fed_theirs)
    assert [a.record.n_truncated for a in answers] == [len(prompts[0]) + 1 - 40, 0, 1]
    assert [a.record.n_prompt_tokens for a in answers] == [40, 40, 40]
    assert ours.get_model_info()["mtp"]["totals"]["n_prompts_truncated"] == 2


@pytest.mark.parametrize(
    ("kwargs", "parts"),
    [
        ({"do_sample": True, "temperature": -1}, ["t, document 0", "temperature=-1", "0 (greedy)"]),
        ({"do_sample": True, "temperature": 1, "top_p": 2}, ["top_p=2", "from 0 to 1"]),
        ({"do_sample": True, "temperature": 1, "top_k": -3}, ["top_k=-3", "from 0"]),
        ({"do_sample": True, "temperature": 1, "min_p": 0.1}, ["min_p=0.1", "not understood"]),
        ({"until": ["a", ""]}, ["until=['a', '']", "empty stop string"]),
        ({"max_gen_toks": 0}, ["max_gen_toks=0", "at least 1"]),
        ({"top_k": 3, "num_beams": 2}, ["num_beams=2", "not understood"]),
        ({"max_gen_toks": 4096}, ["max_gen_toks=4096", "4096 tokens", "lower it"]),
    ],
)
def test_generation_arguments_are_refused_in_a_sentence(shipped, kwargs, parts):
    with pytest.raises(UserError) as caught:
        shipped.generate_until(asks(CODE[:1], **kwargs))
    one_sentence(caught.value, *parts)


def one_sentence(error, *parts):
    message = str(error)
    assert "\n" not in message and len(message) < 700
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"draft_head": 3}, ["draft_head=3", "did you mean draft_heads?"]),
        ({"zzz": 1}, ["zzz=1", "known: ", "draft_heads"]),
        ({"draft_heads": 9}, ["draft_heads=9", "4 heads", "1 to 4"]),
        ({"draft_heads": 0}, ["draft_heads=0", "1 to 4"]),
        ({"loader": "parallel_toy:load"}, ["parallel_toy:load", "tokenizer="]),
        ({"loader": "parallel_toy:lod", "tokenizer": DEFAULT_MODEL}, ["no lod"]),
        ({"pretrained": "./nowhere"}, ["nowhere"]),
    ],
)
def test_model_arguments_are_refused_in_a_sentence(monkeypatch, arguments, parts):
    monkeypatch.syspath_prepend(EXAMPLES)
    with pytest.raises(UserError) as caught:
        MTPLM.create_from_arg_obj(dict(arguments), {"device": "cpu"})
    one_sentence(caught.value, *parts)


def test_an_ordinary_model_has_one_head(plain):
    with pytest.raises(UserError) as caught:
        MTPLM.create_from_arg_obj({"pretrained": plain, "draft_heads": 2}, {"device": "cpu"})
    one_sentence(caught.value, "draft_heads=2", plain, "1 head")


def test_default_model_is_named_and_never_looked_up(monkeypatch):
    asked = []

    def refuse(*address):
        asked.append(address)
        raise OSError("no network in this test")

    # Without these two lines an offline switch would keep a look-up from reaching the socket.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    arguments = {}
    lm = MTPLM.create_from_arg_obj(arguments, {"device": "cpu", "batch_size": None})
    info = lm.get_model_info()
    assert arguments["pretrained"] == "mtp-bytes-n4" == info["mtp"]["pretrained"]
    assert asked == []


# ---------------------------------------------------------------- counting and reporting


@pytest.mark.parametrize("ordinary", [False, True])
def test_padding_is_answered_and_not_counted(plain, ordinary):
    lm = MTPLM(**({"pretrained": plain} if ordinary else {}), device="cpu", batch_size=2)
    first, second = asks(CODE[:2])
    answers = lm.generate_until([first, second, second, second])  # as a short rank is padded
    assert len(answers) == 4 and answers[1] == answers[2] == answers[3]
    assert lm.get_model_info()["mtp"]["totals"]["n_answers"] == 2


def test_what_the_trainer_wrote_down_is_in_the_results_unless_told_otherwise():
    names = ("label", "train_tokens", "train_step", "train_seed")
    trained = MTPLM(device="cpu").get_model_info()["mtp"]
    assert [trained[name] for name in names] == [None, 8600 * 98304, 8600, 0]
    told = MTPLM(device="cpu", train_tokens=7, label="mine").get_model_info()["mtp"]
    assert [told[name] for name in names] == ["mine", 7, 8600, 0]


def test_repeats_are_all_counted(shipped):
    before = shipped.get_model_info()["mtp"]["totals"]["n_answers"]
    (request,) = asks(CODE[:1], repeats=3)
    assert len(shipped.generate_until([request] * 6)) == 6
    assert shipped.get_model_info()["mtp"]["totals"]["n_answers"] - before == 3


def test_requests_that_no_task_made_are_answered(shipped):
    request = Instance("generate_until", {}, ("x = ", {"until": ["\n"], "max_gen_toks": 4}), 0)
    assert len(shipped.generate_until([request])) == 1


def test_an_empty_list_of_requests(shipped, plain):
    assert shipped.generate_until([]) == []
    assert MTPLM(pretrained=plain, device="cpu").generate_until([]) == []


def test_cached_answers_are_plain_strings(shipped, monkeypatch):
    kept = []
    hook = SimpleNamespace(add_partial=lambda *entry: kept.append(entry))
    monkeypatch.setattr(shipped, "cache_hook", hook)
    answers = shipped.generate_until(asks(CODE[:1]))
    assert [(type(text), text) for *_, text in kept] == [(str, answers[0])]


def test_model_info_is_plain_json_and_agrees_with_the_answers():
    lm = MTPLM(device="cpu", batch_size=2)
    answers = lm.generate_until(asks(CODE[:3], max_gen_toks=40))
    mtp = json.loads(json.dumps(lm.get_model_info()["mtp"], allow_nan=False))
    assert (mtp["n_future_tokens"], mtp["draft_heads"], mtp["heads"]) == (4, 4, "parallel")
    assert (mtp["layout"], mtp["dtype"], mtp["batch_size"]) == ("mtp_llama", "float32", 2)
    assert mtp["vocab_size"] == 256
    assert {"torch", "lm_eval", "mtp_harness"} <= set(mtp["versions"])
    assert mtp["hardware"]["threads"] == torch.get_num_threads()
    totals, records = mtp["totals"], [a.record for a in answers]
    steps = [v for r in records for v in r.n_verified]
    reached = [sum(v >= drafts for v in steps) for drafts in range(4)]
    assert totals["n_kept"] == sum(r.n_kept for r in records)
    assert totals["n_steps"] == len(steps)
    assert totals["n_steps_by_verified_drafts"] == [steps.count(v) for v in range(4)]
    assert totals["tokens_per_forward"] == totals["n_kept"] / len(steps)
    assert totals["accept_rate_prefix"] == {
        str(i): reached[i - 1] / len(steps) for i in range(2, 5)
    }
    assert list(totals["accept_rate_cond"].values()) == [b / a for a, b in pairwise(reached)]
    # No step keeps more than it verified and its bonus; the first token is not in a step.
    assert totals["n_kept"] <= sum(steps) + len(steps)
    spent = totals["timing"]
    assert spent["n_tokens"] == totals["n_kept"] + 3
    assert spent["tokens_per_s"] == pytest.approx(spent["n_tokens"] / spent["generate_s"])


def test_a_run_without_generation_has_no_totals(shipped):
    lm = MTPLM(device="cpu")
    assert lm.get_model_info()["mtp"]["totals"] == {"n_answers": 0}


def test_answers_of_one_token_leave_totals_plain_json():
    lm = MTPLM(device="cpu")
    lm.generate_until(asks(CODE[:2], max_gen_toks=1))
    totals = json.loads(json.dumps(lm.get_model_info()["mtp"], allow_nan=False))["totals"]
    assert (totals["n_answers"], totals["n_kept"], totals["n_steps"]) == (2, 0, 0)
    assert totals["tokens_per_forward"] is None


# ---------------------------------------------------------------- your own models


def test_a_loader_gets_pretrained_as_it_was_given(monkeypatch, tmp_path):
    (tmp_path / "given_pretrained.py").write_text(
        "import parallel_toy\ngiven = []\n"
        "def load(pretrained):\n    given.append(pretrained)\n    return parallel_toy.load(None)\n"
    )
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.syspath_prepend(tmp_path)
    for pretrained in ({}, {"pretrained": "any/thing at all"}):
        arguments = {"loader": "given_pretrained:load", "tokenizer": DEFAULT_MODEL, **pretrained}
        MTPLM.create_from_arg_obj(arguments, {"device": "cpu"})
        assert arguments["pretrained"]  # the results folder's name
    assert sys.modules["given_pretrained"].given == [None, "any/thing at all"]


@pytest.mark.parametrize(("toy", "heads"), [("parallel_toy", 3), ("sequential_toy", 4)])
def test_examples_decode_to_the_text_of_one_head(monkeypatch, toy, heads):
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(EXAMPLES)

    def load(**arguments):
        named = {"loader": f"{toy}:load", "tokenizer": DEFAULT_MODEL, **arguments}
        lm = MTPLM.create_from_arg_obj(named, {"device": "cpu", "batch_size": 2})
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in lm.model.parameters():
                if parameter.ndim == 2:  # large weights: text that does not settle on one byte
                    scale = 3 / math.sqrt(parameter.shape[1])
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        return lm

    drafted, ntp = load(), load(draft_heads=1)
    free = asks(CODE, max_gen_toks=40)
    answers = drafted.generate_until(free)
    assert answers == ntp.generate_until(free)
    assert len(set(answers)) == len(CODE)
    stopped = asks(CODE, max_gen_toks=40, until=[text[9:11] for text in answers])
    cut = drafted.generate_until(stopped)
    assert cut == ntp.generate_until(stopped)
    assert all(answer.record.ended_by == "stop" for answer in cut)
    settings = drafted.get_model_info()["mtp"]
    assert (settings["draft_heads"], settings["n_future_tokens"]) == (heads, heads)
    assert (settings["layout"], settings["loader"]) == ("loader", f"{toy}:load")
    assert settings["heads"] == toy.removesuffix("_toy")
    json.dumps(settings)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"draft_heads": "two"}, "draft_heads=two, expected a whole number from 1 to n, or auto"),
        ({"draft_heads": 2.5}, "draft_heads=2.5, expected a whole number"),
        ({"dtype": "foo"}, "dtype=foo, expected auto, float32"),
        ({"batch_size": 0}, "batch_size=0, expected a whole number from 1, or auto"),
        ({"pretrained": "mtp-bytes-n3"}, "did you mean mtp-bytes-n4"),
        ({"dtype": 16}, "dtype=16, expected auto, float32"),
        ({"max_length": 0}, "max_length=0, expected a whole number from 1"),
        ({"device": "foo"}, "device=foo, expected cpu, cuda"),
        ({"revision": "v2"}, "revision=v2 does not work with a checkpoint that has heads"),
        ({"mixed_precision_dtype": "bfloat16"}, "mixed_precision_dtype=bfloat16 does not work"),
        ({"attn_implementation": "flash_attention_2"}, "expected eager or sdpa"),
        ({"pretrained": 10}, "pretrained=10, expected a folder"),
        ({"loader": 10}, "loader=10, expected module:function"),
        ({"tokenizer": 10}, "tokenizer=10, expected a folder"),
        ({"journal": 10}, "journal=10, expected a file"),
        ({"draft_threshold": []}, r"draft_threshold=\[\], expected a probability"),
        ({"seed": {}}, r"seed=\{\}, expected a whole number"),
        ({"seed": 1.5}, "seed=1.5, expected a whole number"),
        ({"acceptance": 1}, "acceptance=1, expected exact"),
        ({"think_end_token": -1}, "think_end_token=-1, expected a token or its id"),
    ],
)
def test_odd_values_are_one_sentence(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        MTPLM.create_from_arg_obj(dict(arguments))


def test_none_means_the_default():
    names = ("acceptance", "backend", "batch_size", "draft_threshold", "revision", "truncation")
    lm = MTPLM.create_from_arg_obj(dict.fromkeys(names), {"device": "cpu"})
    assert lm.generate_until(asks(CODE[:1])) == MTPLM(device="cpu").generate_until(asks(CODE[:1]))


def test_training_tokens_that_yaml_gives_as_text_are_a_number():
    info = MTPLM(device="cpu", train_tokens="2e9", train_step="5").get_model_info()["mtp"]
    assert (info["train_tokens"], info["train_step"]) == (2_000_000_000, 5)
    assert type(info["train_tokens"]) is int


def test_switches_may_be_0_and_1():
    lm = MTPLM(device="cpu", truncation=0, add_bos_token=0)
    assert lm.generate_until(asks(CODE[:1]))[0].record.n_prompt_tokens == len(CODE[0])


def test_type_with_torch_in_front():
    assert MTPLM.create_from_arg_obj({"dtype": "torch.float64"}).model.dtype is torch.float64


def test_a_tokenizer_larger_than_the_model_is_one_sentence(tmp_path):
    tokenizer = byte_tokenizer(64)
    tokenizer.add_tokens(["<added>"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        MTPLM.create_from_arg_obj({"tokenizer": str(tmp_path)}, {"device": "cpu"})
    one_sentence(caught.value, "ids up to 256", DEFAULT_MODEL, "vocabulary of 256")


def test_an_ordinary_model_with_too_large_a_tokenizer_is_one_sentence(plain, tmp_path):
    tokenizer = byte_tokenizer(64)
    tokenizer.add_tokens([f"<added {i}>" for i in range(10)])
    tokenizer.save_pretrained(tmp_path)
    arguments = {"pretrained": plain, "tokenizer": str(tmp_path)}
    with pytest.raises(UserError) as caught:
        MTPLM.create_from_arg_obj(arguments, {"device": "cpu"})
    one_sentence(caught.value, "ids up to 265", plain, "vocabulary of 256")


def test_a_padding_token_without_a_row_is_never_looked_up(plain, tmp_path):
    tokenizer = byte_tokenizer(64)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(tmp_path)
    padded = MTPLM(pretrained=plain, tokenizer=str(tmp_path), device="cpu", batch_size=3)
    expected = MTPLM(pretrained=plain, device="cpu", batch_size=3)
    assert padded.generate_until(asks(CODE)) == expected.generate_until(asks(CODE))
    requests = asks_likelihood("loglikelihood", [(CODE[0], "return a + b"), (CODE[1], " pass")])
    assert padded.loglikelihood(requests) == expected.loglikelihood(requests)


@pytest.mark.parametrize("name", ["prefix_token_id", "think_end_token"])
@pytest.mark.parametrize("which", ["plain", "shipped"])
def test_a_token_s_id_beyond_the_vocabulary_is_one_sentence(plain, which, name):
    arguments = {"pretrained": plain} if which == "plain" else {}
    with pytest.raises(UserError) as caught:
        MTPLM.create_from_arg_obj({**arguments, name: 256}, {"device": "cpu"})
    one_sentence(caught.value, f"{name}=256", "vocabulary of 256")


@pytest.mark.parametrize(
    ("changes", "arguments", "fact"),
    [
        ({"num_hidden_layers": 9}, {}, "missing: model.layers."),
        ({"hidden_act": "foo"}, {}, "KeyError: 'foo'"),
        ({}, {"load_in_4bit": True}, "unexpected keyword argument 'load_in_4bit'"),
    ],
)
def test_ordinary_folders_are_refused_in_a_sentence(plain, tmp_path, changes, arguments, fact):
    folder = tmp_path / "copy"
    shutil.copytree(plain, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UserError) as caught:
        MTPLM.create_from_arg_obj({"pretrained": str(folder), **arguments}, {"device": "cpu"})
    one_sentence(caught.value, str(folder), fact)


def test_a_name_the_hub_cannot_be_asked_for_is_one_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        MTPLM.create_from_arg_obj({"pretrained": "nobody/no-such-model-anywhere"})
    assert "\n" not in str(caught.value)
