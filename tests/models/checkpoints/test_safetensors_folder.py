"""Folders of this package's layout: strict both ways, where transformers only warns."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM
from mtp_harness.models.checkpoints.safetensors_folder import load_folder
from mtp_harness.models.inspection import summarise
from mtp_harness.models.load import load_model

CONFIG = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "n_future_tokens": 3,
    "max_position_embeddings": 64,
}


@pytest.fixture(params=[False, True], ids=["shared", "replicated"])
def saved(request, tmp_path):
    """A saved model, with one unembedding or one per head, and the model."""
    torch.manual_seed(0)
    model = MTPLlamaForCausalLM(MTPLlamaConfig(**CONFIG, replicated_unembeddings=request.param))
    model.save_pretrained(tmp_path / "m")
    return tmp_path / "m", model


@pytest.fixture
def folder(tmp_path):
    MTPLlamaForCausalLM(MTPLlamaConfig(**CONFIG)).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def refusal(error, folder, dtype=None):
    with pytest.raises(error) as caught:
        load_folder(folder, dtype)
    assert caught.type is error
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700, message
    return message


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_what_was_saved_is_loaded(saved):
    folder, model = saved
    for loaded in (load_folder(folder), load_model(str(folder))):
        assert not loaded.training and loaded.n_future_tokens == 3
        assert loaded.state_dict().keys() == model.state_dict().keys()
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name


def test_dtype_is_as_stored_or_as_asked(saved):
    folder, model = saved
    model.bfloat16().save_pretrained(folder)
    assert {p.dtype for p in load_folder(folder).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in load_folder(folder, torch.float32).parameters()} == {torch.float32}


def test_stored_type_wins_over_a_stale_config(folder):
    edit_config(folder, dtype="float16")
    assert load_folder(folder).dtype == torch.float32


def test_several_files(saved, tmp_path):
    _, model = saved
    model.save_pretrained(tmp_path / "s", max_shard_size="20KB")
    files = sorted((tmp_path / "s").glob("*.safetensors"))
    assert len(files) > 2
    loaded = load_folder(tmp_path / "s")
    assert all(torch.equal(loaded.state_dict()[n], t) for n, t in model.state_dict().items())
    files[1].unlink()
    assert files[1].name in refusal(FileNotFoundError, tmp_path / "s")


def test_missing_key_that_transformers_would_fill_with_random_numbers(folder):
    edit_weights(folder, lambda w: w.pop("extra_heads.1.mlp.up_proj.weight"))
    AutoModelForCausalLM.from_pretrained(folder)  # it does not mind
    assert "missing: extra_heads.1.mlp.up_proj.weight" in refusal(ValueError, folder)


def test_unexpected_key_that_transformers_would_drop(folder):
    edit_weights(folder, lambda w: w.update({"extra_heads.2.norm.weight": torch.ones(3)}))
    assert "unexpected: extra_heads.2.norm.weight" in refusal(ValueError, folder)


def test_wrong_shape(folder):
    edit_weights(folder, lambda w: w.update({"lm_head.weight": torch.zeros(60, 32)}))
    assert "lm_head.weight is [60, 32], expected [61, 32]" in refusal(ValueError, folder)


@pytest.mark.parametrize(("n", "kind"), [(2, "unexpected"), (4, "missing"), (1, "unexpected")])
def test_head_count_that_contradicts_the_weights(folder, n, kind):
    edit_config(folder, n_future_tokens=n)
    assert f"{kind}: " in refusal(ValueError, folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_name_the_tensor(folder, value):
    edit_weights(folder, lambda w: w["model.layers.1.mlp.up_proj.weight"][2].fill_(value))
    message = refusal(ValueError, folder)
    assert "NaN or infinity" in message and "model.layers.1.mlp.up_proj.weight" in message


def test_integers_are_no_weights(folder):
    edit_weights(folder, lambda w: w.update({"model.norm.weight": torch.ones(32).to(torch.int8)}))
    assert "not stored as plain floating-point numbers: model.norm" in refusal(ValueError, folder)


@pytest.mark.parametrize("size", [0, 5, 300, 5000, -1])
def test_truncated_file(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "truncated" in refusal(ValueError, folder)


def test_lfs_pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in refusal(ValueError, folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "neither model.safetensors nor" in refusal(FileNotFoundError, folder)


@pytest.mark.parametrize("index", ["{}", "[]", "{", '{"weight_map": [1]}'])
def test_broken_index(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    assert "index.json" in refusal(ValueError, folder)


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"n_future_tokens": 5}, "expected 1 to 4"),
        ({"n_future_tokens": 0}, "n_future_tokens=0"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"vocab_size": -1}, "vocab_size=-1, expected a positive integer"),
        ({"hidden_size": -192}, "hidden_size=-192"),
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
        ({"num_key_value_heads": 0}, "num_key_value_heads=0"),
        ({"num_key_value_heads": 3}, "num_attention_heads=4 with num_key_value_heads=3"),
        ({"num_attention_heads": True}, "num_attention_heads=True"),
        ({"head_dim": 7}, "head_dim=7, expected an even one"),
        ({"max_position_embeddings": 0}, "max_position_embeddings=0"),
        ({"n_future_tokens": "3"}, "n_future_tokens='3'"),
        ({"rms_norm_eps": -1}, "rms_norm_eps=-1, expected a positive number"),
        ({"rope_theta": -5}, "rope_theta=-5, expected a positive number"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": -5}}, "rope_theta=-5"),
        ({"rope_parameters": {"rope_type": "nonsense", "rope_theta": 1e4}}, "nonsense"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "factor"),
        ({"rope_parameters": 3}, "rope_parameters"),
        ({"hidden_act": "foo"}, "foo"),
        ({"pad_token_id": 10**6}, "Padding_idx"),
        ({"hidden_size": 10**15}, "expected [16, 1000000000000000]"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "(gptq), expected plain"),
        ({"quantization_config": {"load_in_8bit": True}}, "expected plain weights"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers=10000000 but the weights hold 48"),
    ],
)
def test_config_that_describes_no_model(folder, changes, fact):
    edit_config(folder, **changes)
    message = refusal(ValueError, folder)
    assert "config.json" in message and fact in message
    problems = summarise(str(folder)).problems
    assert any(fact in problem for problem in problems), problems


def test_config_of_another_model(folder):
    edit_config(folder, model_type="llama")
    assert "config.json says model_type='llama'" in refusal(ValueError, folder)


def test_config_missing_or_malformed(folder):
    (folder / "config.json").write_text("{")
    assert "not valid JSON" in refusal(ValueError, folder)
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(FileNotFoundError, folder)
