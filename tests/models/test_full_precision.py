"""Half precision rounds weights, but neither rotary frequencies nor the routing bias of experts."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from mtp_harness.lm import MTPLM
from mtp_harness.models.load import load_model, open_model

from .byte_families import write_bytes


def exact_parts(model):
    """Return frequencies and routing biases by name."""
    parts = ("inv_freq", "e_score_correction_bias")
    return {name: one for name, one in model.named_buffers() if name.endswith(parts)}


@pytest.mark.parametrize(
    "given",
    [
        {"pretrained": "mtp-bytes-n4"},
        {"pretrained": "mtp-bytes-qwen"},
        {"pretrained": "mtp-bytes-n1", "drafter": "mtp-bytes-n1-eagle3"},
    ],
)
def test_the_front_door_keeps_frequencies(given):
    expected = exact_parts(open_model(**given, dtype=torch.float32).model)
    loaded = {
        "lm_eval": MTPLM(**given, dtype="bfloat16", device="cpu").model,
        "open_model": open_model(**given, dtype=torch.bfloat16).model,
    }
    for model in loaded.values():
        assert model.dtype is torch.bfloat16
        found = exact_parts(model)
        assert found.keys() == expected.keys() and found
        for name, one in expected.items():
            assert one.dtype is torch.float32
            assert torch.equal(found[name], one)


@pytest.mark.parametrize("family", ["glm4_moe", "deepseek_v3"])
def test_trunk_and_modules_keep_the_routing_bias(tmp_path, family):
    folder = write_bytes(tmp_path, family, 1, range(97, 100))
    whole, half = (load_model(folder, dtype) for dtype in (torch.float32, torch.bfloat16))
    with torch.no_grad():
        for model in (whole, half):
            for number, one in enumerate(exact_parts(model).values()):
                one.fill_(0.1 + number)
    for model in (half, half.half(), whole.to("cpu", torch.bfloat16)):
        found = exact_parts(model)
        assert any(name.startswith("modules_") for name in found)
        for number, one in enumerate(found.values()):
            assert torch.equal(one, torch.full_like(one, 0.1 + number, dtype=torch.float32))


@pytest.mark.parametrize(
    "family", ["glm4_moe", "deepseek_v3", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"]
)
def test_a_converted_model_is_transformers_own_of_that_type(tmp_path, family):
    folder = write_bytes(tmp_path, family)
    ours = load_model(folder, torch.float32).to(dtype=torch.bfloat16)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    tokens = torch.randint(256, (2, 60), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours.next_token_logits(tokens), theirs(tokens).logits)
