"""The recipe of `mtp-bytes-qwen`: what it trains is a checkpoint in Qwen3.5's layout."""

import json

import pytest
import torch
from safetensors import safe_open

from mtp_harness.models.load import load_model
from mtp_harness.training.recipe import Recipe

from ..scripts import EXAMPLES, script

RELEASED = {  # of a release of Qwen3.5, but for the block's own
    "mtp.fc.weight",
    "mtp.norm.weight",
    "mtp.pre_fc_norm_embedding.weight",
    "mtp.pre_fc_norm_hidden.weight",
}


def recipe():
    return script(EXAMPLES / "hybrid_training.py")


def test_what_is_saved_is_loaded_equal(tmp_path):
    module = recipe()
    model = module.build(Recipe(steps=1, context=64), layers=4, width=64)
    tokens = torch.arange(12)[None]
    before = {name: p.detach().bfloat16() for name, p in model.named_parameters()}
    module.save(model, tmp_path)
    loaded = load_model(str(tmp_path))
    assert {name for name, _ in loaded.named_parameters()} == set(before)
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert loaded.reused and loaded.n_future_tokens == 4
    assert torch.isfinite(loaded.next_token_logits(tokens)).all()
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        keys = {key for key in file.keys() if key.startswith("mtp.")}
    assert RELEASED < keys and all(key.startswith("mtp.layers.0.") for key in keys - RELEASED)
    assert json.loads((tmp_path / "config.json").read_text())["mtp_num_hidden_layers"] == 1


@pytest.mark.slow
def test_the_recipe_trains(tmp_path):
    text = tmp_path / "text"
    text.write_bytes(b"def double(x):\n    return 2 * x\n\n" * 100)
    out = tmp_path / "out"
    options = ["--data", str(text), "--steps", "3", "--context", "16", "--save-every", "2"]
    recipe().main([str(out), *options])
    record = json.loads((out / "training.json").read_text())
    assert record["parameters"] < 4.5e6 and record["curve"][-1]["step"] == 3
    assert len(record["curve"][-1]["loss_nats"]) == 4 and not (out / "state.pt").exists()
    assert load_model(str(out)).reused
