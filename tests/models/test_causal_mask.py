"""Where torch's attention would hold all scores, models get a mask, and give what they gave."""

from types import SimpleNamespace

import pytest
import torch

from mtp_harness.models import causal_mask, trunk
from mtp_harness.models.head_states import head_states
from mtp_harness.models.llama import blocks
from mtp_harness.models.load import load_model, open_model

from .byte_families import write_bytes

TOKENS = torch.arange(97, 121).view(2, 12)
CUDA = torch.device("cuda")


def config(n_kv_heads=2, attention="sdpa"):
    heads = {"num_attention_heads": 4, "num_key_value_heads": n_kv_heads}
    return SimpleNamespace(**heads, _attn_implementation=attention)


def test_when_all_scores_are_held(monkeypatch):
    holds = causal_mask.holds_all_scores
    assert holds(config(), CUDA, torch.float32)
    assert not holds(config(n_kv_heads=4), CUDA, torch.float32)
    assert not holds(config(attention="flash_attention_2"), CUDA, torch.float32)
    assert not holds(config(), CUDA, torch.bfloat16)
    assert not holds(config(), CUDA, torch.float64)
    assert not holds(config(), torch.device("cpu"), torch.float32)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    assert not holds(config(), CUDA, torch.float32)


def test_each_token_sees_itself_and_earlier_ones():
    mask = causal_mask.causal_mask(3, torch.device("cpu"), torch.float32)
    assert (mask == 0).tolist() == [[[[True, False, False], [True, True, False], [True] * 3]]]
    assert mask.min() == torch.finfo(torch.float32).min


def model_of(name, tmp_path):
    if name in ("mtp-bytes-n4", "mtp-bytes-qwen"):
        return open_model(name, dtype=torch.float32).model
    if name == "eagle3":
        return open_model("mtp-bytes-n1", dtype=torch.float32, drafter="mtp-bytes-n1-eagle3").model
    return load_model(write_bytes(tmp_path, name, n=2), torch.float32)


@pytest.mark.parametrize("name", ["mtp-bytes-n4", "mtp-bytes-qwen", "eagle3"])
@pytest.mark.parametrize("chained", [False, True])
def test_a_mask_changes_no_state_of_shipped_models(monkeypatch, tmp_path, name, chained):
    same_with_a_mask(monkeypatch, model_of(name, tmp_path), chained)


@pytest.mark.parametrize("name", ["mimo", "deepseek_v3", "qwen3_5_text", "qwen3_next", "glm4_moe"])
def test_a_mask_changes_no_state_of_families(monkeypatch, tmp_path, name):
    same_with_a_mask(monkeypatch, model_of(name, tmp_path), chained=False)


@torch.inference_mode()
def same_with_a_mask(monkeypatch, model, chained):
    made = []

    def make(*given):
        made.append(causal_mask.causal_mask(*given))
        return made[-1]

    def states():
        return [state for _, state in head_states(model, TOKENS, chained=chained)]

    for module in (trunk, blocks):
        monkeypatch.setattr(module, "causal_mask", make)
    expected = states()
    others = len(made)  # of modules that run with a cache of their own
    for module in (trunk, blocks):
        monkeypatch.setattr(module, "holds_all_scores", lambda *_: True)
    found = states()
    assert len(made) > others and len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", ["mtp-bytes-n4", "mtp-bytes-qwen", "mimo"])
@torch.inference_mode()
def test_scoring_in_float32_holds_no_scores_of_all_pairs_on_a_gpu(tmp_path, name):
    model = model_of(name, tmp_path).to("cuda")
    settings = model.config
    assert settings.num_attention_heads != settings.num_key_value_heads
    tokens = torch.randint(97, 120, (4, 4096), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in head_states(model, tokens):
        pass
    all_scores = 4 * settings.num_attention_heads * 4096**2 * 4
    assert torch.cuda.max_memory_allocated() - before < all_scores
