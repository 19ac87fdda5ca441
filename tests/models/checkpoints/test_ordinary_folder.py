"""Folders of ordinary models: what transformers would trip over is said, what it loads is not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.checkpoints.ordinary_folder import asking_transformers, check_ordinary
from mtp_harness.models.inspection import summarise

LLAMA = {
    "vocab_size": 256,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
GPT2 = {"vocab_size": 256, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}


@pytest.fixture
def folder(tmp_path):
    LlamaForCausalLM(LlamaConfig(**LLAMA)).save_pretrained(tmp_path / "m")
    byte_tokenizer(700).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def assert_refused(folder, error, *facts):
    with pytest.raises(error) as caught:
        check_ordinary(folder)
    assert caught.type is error
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700, message
    problems = " | ".join(summarise(str(folder)).problems)
    assert str(folder) in message or "config.json" in message
    for fact in facts:
        assert fact in message and fact in problems, (fact, message, problems)


def assert_sound(folder):
    check_ordinary(folder)
    assert not [p for p in summarise(str(folder)).problems if "tokenizer" not in p]


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"hidden_act": "foo"}, "'foo'"),
        ({"vocab_size": -1}, "negative dimension"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"model_type": "nonsense"}, "nonsense"),
        ({"num_hidden_layers": 4}, "missing: model.layers.3."),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers=10000000 but the weights hold 30"),
        ({"intermediate_size": 32}, "down_proj.weight is [16, 24], expected [16, 32]"),
    ],
)
def test_config_that_contradicts_the_weights(folder, changes, fact):
    edit_config(folder, **changes)
    assert_refused(folder, ValueError, fact)


def test_an_empty_config(folder):
    (folder / "config.json").write_text("{}")
    assert_refused(folder, ValueError, "describes no model that can be built", "model_type")


@pytest.mark.parametrize("size", [0, 5, 200, 5000])
def test_truncated_weights(folder, size):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:size])
    assert_refused(folder, ValueError, "model.safetensors", "fetch it again")


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"x")
    assert_refused(folder, FileNotFoundError, "has no weights")


def test_weights_are_a_link_to_nothing(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "lost")
    assert_refused(folder, FileNotFoundError, "model.safetensors")


def test_one_of_several_files_is_missing(folder):
    weights = load_file(folder / "model.safetensors")
    index = {"weight_map": {name: "a.safetensors" for name in weights}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    assert_refused(folder, FileNotFoundError, "a.safetensors")
    save_file(weights, folder / "a.safetensors", metadata={"format": "pt"})
    assert_sound(folder)


@pytest.mark.parametrize(
    "model",
    [
        lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
        lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
        lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA, tie_word_embeddings=True)),
        lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
        lambda: MixtralForCausalLM(MixtralConfig(**LLAMA, num_local_experts=3)),
        lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)).to(torch.bfloat16),
        lambda: T5ForConditionalGeneration(T5Config(vocab_size=256, d_model=16, num_layers=1)),
    ],
    ids=["llama", "tied", "qwen2", "gpt2", "mixtral", "bfloat16", "seq2seq"],
)
def test_what_transformers_saved_is_sound(tmp_path, model):
    model().save_pretrained(tmp_path / "m")
    assert_sound(tmp_path / "m")


def test_weights_that_transformers_renames_or_leaves_out_are_sound(tmp_path):
    GPT2LMHeadModel(GPT2Config(**GPT2)).save_pretrained(tmp_path / "m")

    def as_published(weights):  # without the prefix, with the masks of old
        for name in list(weights):
            weights[name.removeprefix("transformer.")] = weights.pop(name)
        weights["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)

    edit_weights(tmp_path / "m", as_published)
    assert_sound(tmp_path / "m")
    AutoModelForCausalLM.from_pretrained(tmp_path / "m")


def test_a_model_without_its_unembedding_is_refused(tmp_path):
    LlamaModel(LlamaConfig(**LLAMA)).save_pretrained(tmp_path / "m")
    assert_refused(tmp_path / "m", ValueError, "missing: lm_head.weight")


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModelForCausalLM": "mine.Mine"}, "model_type": "mine"},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    ],
    ids=["own code", "quantised"],
)
def test_what_is_not_known_is_not_refused(folder, changes):
    edit_config(folder, **changes)
    assert_sound(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.fp16.safetensors", "m.gguf"])
def test_weights_in_other_files_are_left_to_transformers(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    assert_sound(folder)
    assert any("not looked at" in note for note in summarise(str(folder)).notes)


@pytest.mark.parametrize("error", [TypeError("a\nb"), KeyError("x"), ImportError("no gptq")])
def test_what_transformers_trips_over_is_a_sentence(error):
    with (
        pytest.raises(ValueError, match="fails to load my/model") as caught,
        asking_transformers("my/model"),
    ):
        raise error
    assert type(error).__name__ in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [ValueError("its own words"), OSError("no such model")])
def test_what_transformers_refuses_by_itself_stays(error):
    with pytest.raises(type(error)) as caught, asking_transformers("my/model"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("names", "shown"), [(3, "3"), ("Mine", "Mine"), ([1], "1"), ([], "llama"), (None, "llama")]
)
def test_odd_names_of_architectures_are_shown(folder, names, shown):
    edit_config(folder, architectures=names)
    assert summarise(str(folder)).architecture == shown


def test_nothing_is_printed(folder, capfd, caplog):
    edit_config(folder, num_hidden_layers=4)
    with pytest.raises(ValueError, match=r"missing: model\.layers\.3"):
        check_ordinary(folder)
    assert capfd.readouterr() == ("", "") and not caplog.records
