"""Model arguments: what no run can use is refused in a sentence, what `--model hf` takes is not."""

import inspect

import pytest
import torch
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import handle_arg_string

from mtp_harness.harness.model_args import (
    plain,
    read_arguments,
    refuse_odd_values,
    refuse_unknown,
    refuse_without_effect,
)


def refusal(call, *arguments):
    with pytest.raises(ValueError, match=r"\.$") as caught:
        call(*arguments)
    assert caught.type is ValueError
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("dtype=int8", "auto, float32, bfloat16, float16 or float64"),
        ("dtype=float8_e4m3fn", "auto, float32"),
        ("dtype=complex64", "auto, float32"),
        ("dtype=16", "auto, float32"),
        ("dtype=True", "auto, float32"),
        ("dtype=torch.int8", "auto, float32"),
        ("dtype=torch.auto", "auto, float32"),
        ("softmax_dtype=bad", "float32, bfloat16"),
        ("softmax_dtype=auto", "float32, bfloat16"),
        ("mixed_precision_dtype=zzz", "float32, bfloat16"),
        ("max_length=abc", "a whole number from 1"),
        ("max_length=0", "a whole number from 1"),
        ("max_length=-5", "a whole number from 1"),
        ("max_length=1.5", "a whole number from 1"),
        ("max_length=True", "a whole number from 1"),
        ("max_batch_size=0", "a whole number from 1"),
        ("prefix_token_id=-1", "a whole number from 0"),
        ("label=True", "a name for this checkpoint"),
        ("train_tokens=200B", "a whole number of tokens"),
        ("train_tokens=1.5", "a whole number of tokens"),
        ("train_step=-1", "a whole number from 0"),
        ("train_seed=x", "a whole number from 0"),
        ("batch_size=autox", "a whole number from 1, or auto"),
        ("batch_size=auto:", "a whole number from 1, or auto"),
        ("batch_size=auto:0", "a whole number from 1, or auto"),
        ("batch_size=0", "a whole number from 1, or auto"),
        ("batch_size=-3", "a whole number from 1, or auto"),
        ("add_bos_token=maybe", "True or False"),
        ("truncation=yes", "True or False"),
        ("backend=foo", "default or causal"),
        ("think_end_token=3.5", "a token or its id"),
        ("chat_template_args=foo", "names and values as JSON"),
    ],
)
def test_values_that_no_run_can_use(argument, expected):
    name, _, value = argument.partition("=")
    message = refusal(refuse_odd_values, None, None, {name: handle_arg_string(value)})
    assert message.startswith(f"{argument}, expected {expected}")


@pytest.mark.parametrize("draft_heads", [2.5, True, "three", "auto4"])
def test_draft_heads_that_are_no_number(draft_heads):
    assert f"draft_heads={draft_heads}, expected" in refusal(
        refuse_odd_values, draft_heads, None, {}
    )


@pytest.mark.parametrize(
    ("device", "fact"),
    [
        ("foo", "expected cpu, cuda"),
        ("", "expected cpu, cuda"),
        ("cpu:0", "expected cpu, cuda"),
        ("meta", "expected cpu, cuda"),
        ("cuda:", "expected cpu, cuda"),
        ("cuda:x", "expected cpu, cuda"),
        ("cuda:-1", "expected cpu, cuda"),
        (0, "expected cpu, cuda"),
        ("cuda", "finds no cuda device"),
        ("cuda:7", "finds no cuda device"),
        ("npu", "finds no npu device"),
    ],
)
def test_devices_that_are_not_there(monkeypatch, device, fact):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    message = refusal(refuse_odd_values, None, device, {})
    assert message.startswith(f"device={device}, ") and fact in message


def test_the_harness_own_default_runs_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    refuse_odd_values(None, EvaluatorConfig().device, {})


def test_devices_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("cpu", "cuda", "cuda:0", "cuda:1", None):
        refuse_odd_values(None, device, {})
    assert "device=cuda:7, expected cuda:0 to cuda:1" in refusal(
        refuse_odd_values, None, "cuda:7", {}
    )


def defaults():
    parameters = inspect.signature(HFLM.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        defaults(),
        {"dtype": "auto", "batch_size": "auto"},
        {"dtype": "float64", "batch_size": "8"},
        {"dtype": "torch.bfloat16", "softmax_dtype": "torch.float32", "batch_size": "auto:4"},
        {"dtype": torch.float16, "softmax_dtype": torch.float64, "batch_size": 1},
        {"add_bos_token": True, "truncation": False, "max_length": 1, "prefix_token_id": 0},
        {"attn_implementation": "eager"},
    ],
)
def test_values_that_hf_takes_pass(kwargs):
    for draft_heads in (None, 1, 4, "auto"):
        refuse_odd_values(draft_heads, None, kwargs)
    refuse_without_effect(kwargs)
    refuse_unknown(kwargs, HFLM.__init__)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"train_tokens": "2e9", "train_step": "5"}, {"train_tokens": 2 * 10**9, "train_step": 5}),
        ({"train_tokens": 2e11, "seed": "-1"}, {"train_tokens": 2 * 10**11, "seed": -1}),
        ({"draft_heads": "2", "draft_threshold": ".5"}, {"draft_heads": 2, "draft_threshold": 0.5}),
        ({"max_length": "1e3", "batch_size": "8"}, {"max_length": 1000, "batch_size": 8}),
        ({"draft_heads": "auto", "batch_size": "auto:4"}, None),
        ({"think_end_token": "10", "prefix_token_id": "0"}, None),
        ({"label": "2e9", "pretrained": "10", "tokenizer": "10"}, None),  # names
        ({"acceptance": None, "dtype": None}, {}),
    ],
)
def test_text_that_spells_a_number_is_one(given, read):
    if read is None:
        read = {k: int(v) if k.endswith(("token", "_id")) else v for k, v in given.items()}
    found = read_arguments(given)
    assert found == read
    assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in read.items()}
    refuse_odd_values(found.get("draft_heads"), None, found)


def test_types_reach_hf_in_the_form_it_understands():
    given = {"dtype": "torch.bfloat16", "softmax_dtype": torch.float32, "tokenizer": "torch.x"}
    assert plain(given) == {**given, "dtype": "bfloat16"}


@pytest.mark.parametrize(
    "argument",
    [
        "attn_implementation=flash_attention_2",
        "attn_implementation=nonsense",
        "autogptq=True",
        "backend=seq2seq",
        "delta=some/model",
        "gguf_file=m.gguf",
        "gptqmodel=True",
        "mixed_precision_dtype=bfloat16",
        "peft=some/adapter",
        "revision=step1000",
        "subfolder=inner",
        "tp_plan=auto",
        "use_fast_tokenizer=False",
    ],
)
def test_what_does_nothing_for_a_checkpoint_with_heads(argument):
    name, _, value = argument.partition("=")
    message = refusal(refuse_without_effect, {name: handle_arg_string(value)})
    assert message.startswith(
        f"{argument} does not work with a checkpoint that has heads, expected"
    )
    assert message.endswith("leave it out.")


@pytest.mark.parametrize("name", ["draft_tree", "speculative_token_tree", "medusa_choices"])
def test_trees_of_drafts_are_refused_by_name(name):
    message = refusal(refuse_unknown, {name: "(0,)"}, HFLM.__init__)
    assert message.startswith(f"{name}=(0,) asks for a tree of drafts, expected one draft per posi")


def test_unknown_arguments_list_those_that_make_sense():
    message = refusal(refuse_unknown, {"zzz": 1}, HFLM.__init__)
    assert "zzz=1; known: acceptance, add_bos_token, attn_implementation, " in message
    assert "peft" not in message and "subfolder" not in message
    with pytest.raises(ValueError, match=r"did you mean max_length\?"):
        refuse_unknown({"max_lenght": 1}, HFLM.__init__)
