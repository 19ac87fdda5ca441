"""PEFT adapters: a folder with one is named as such, and merging as the sentence says works."""

import json
import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mtp_harness.commands import inspect
from mtp_harness.errors import UserError
from mtp_harness.lm import MTPLM
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.load import detect, load_model, load_tokenizer, resolve

peft = pytest.importorskip("peft", reason="needs peft, which lm-eval[hf] brings")

BASE = resolve("mtp-bytes-n4")


def adapter_of(model, folder):
    """Save an adapter with random weights of a model's attention; return the adapted model."""
    torch.manual_seed(0)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False
    )
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(folder)
    return adapted


@pytest.fixture(scope="module")
def of_heads(tmp_path_factory):
    """An adapter of a model with four heads; and the logits of all heads with it."""
    folder = tmp_path_factory.mktemp("adapters") / "of_heads"
    model = load_model(BASE, torch.float32)
    model.name_or_path = BASE
    adapted = adapter_of(model, folder)
    return folder, all_logits(adapted.get_base_model())


def all_logits(model):
    tokens = torch.tensor([list(b"\0def add(a, b):\n    return a + b\n")])
    with torch.no_grad():
        states = model.trunk(tokens)
        return torch.stack([model.logits(k, model.head(k, states)) for k in range(1, 5)])


def test_an_adapter_s_folder_is_named_as_one(of_heads, tmp_path):
    folder, _ = of_heads
    with pytest.raises(UserError) as caught:
        MTPLM.create_from_arg_obj({"pretrained": str(folder)}, {"device": "cpu"})
    message = str(caught.value)
    assert f"{folder} holds a PEFT adapter of {BASE}, expected a checkpoint" in message
    assert "merge_and_unload" in message and "\n" not in message
    for ask in (detect, load_model, lambda path: inspect.main([path])):
        with pytest.raises(ValueError, match="holds a PEFT adapter"):
            ask(str(folder))
    shutil.copytree(folder, tmp_path / "with config")  # as training leaves it
    shutil.copy(f"{BASE}/config.json", tmp_path / "with config")
    with pytest.raises(ValueError, match="holds a PEFT adapter"):
        detect(str(tmp_path / "with config"))
    (tmp_path / "with config" / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="holds a PEFT adapter, expected"):
        detect(str(tmp_path / "with config"))


def test_merged_as_the_sentence_says_it_is_a_checkpoint_with_all_heads(of_heads, tmp_path):
    folder, expected = of_heads
    merged = peft.AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    merged.merge_and_unload().save_pretrained(tmp_path)
    load_tokenizer(BASE).save_pretrained(tmp_path)
    assert inspect.main([str(tmp_path)]) == 0
    loaded = load_model(str(tmp_path))
    assert torch.allclose(all_logits(loaded), expected, atol=1e-3)
    plain = all_logits(load_model(BASE, torch.float32))
    for head, unchanged in zip(expected, plain, strict=True):  # the adapter reaches every head
        assert not torch.allclose(head, unchanged, atol=1e-3)
    assert MTPLM(pretrained=str(tmp_path), device="cpu").decoder().k == 4


def test_an_ordinary_model_takes_its_adapter_as_the_sentence_says(tmp_path):
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    byte_tokenizer(256).save_pretrained(tmp_path / "base")
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    adapted = adapter_of(base, tmp_path / "adapter").eval()
    with pytest.raises(UserError, match=f"pretrained={tmp_path}/base,peft={tmp_path}/adapter"):
        MTPLM.create_from_arg_obj({"pretrained": str(tmp_path / "adapter")}, {"device": "cpu"})
    arguments = {"pretrained": str(tmp_path / "base"), "peft": str(tmp_path / "adapter")}
    lm = MTPLM.create_from_arg_obj(arguments, {"device": "cpu"})
    tokens = torch.tensor([list(b"x = 1\n")])
    with torch.no_grad():
        assert torch.allclose(lm.model(tokens).logits, adapted(tokens).logits, atol=1e-5)
    recorded = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert recorded["base_model_name_or_path"] == f"{tmp_path}/base"
