"""Blocks as decoding runs them: transformers' numbers, and weights that stay the user's."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from mtp_harness.decode.cache import SlotCache
from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM
from mtp_harness.models.decoding_weights import joined
from mtp_harness.models.interface import LayerShape
from mtp_harness.models.llama.blocks import run_block_at, run_blocks
from mtp_harness.models.llama.cached_block import attend
from mtp_harness.models.load import load_model

HEADS = [(4, 4), (4, 2), (6, 1)]


def block_and_rotary(n_heads, n_kv_heads, bias=False, dtype=torch.float64):
    config = LlamaConfig(
        hidden_size=48,
        intermediate_size=40,
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads,
        head_dim=8,
        attention_bias=bias,
        mlp_bias=bias,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    block = LlamaDecoderLayer(config, 0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return block.to(dtype).eval(), LlamaRotaryEmbedding(config)


def new_cache(n_kv_heads, rows, dtype=torch.float64):
    return SlotCache([LayerShape(n_kv_heads, 8)], rows, 30, dtype, torch.device("cpu"))


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), HEADS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_rows_at_their_own_positions_give_what_transformers_gives(
    n_heads, n_kv_heads, bias, dtype, error
):
    # transformers' norm rounds to float32 whatever it is given, hence 1e-6 for float64.
    block, rotary = block_and_rotary(n_heads, n_kv_heads, bias, dtype)
    states = torch.randn(3, 20, 48, dtype=dtype)
    with torch.no_grad():
        expected = run_blocks([copy.deepcopy(block)], states, rotary, None, None)
        cache, prompts = new_cache(n_kv_heads, 3, dtype), torch.tensor([5, 9, 1])
        columns = torch.arange(9).expand(3, -1)
        padded = torch.where(columns < prompts[:, None], columns, cache.trash)
        cache.fill(torch.arange(3), padded)
        out = run_blocks([block], states[:, :9], rotary, padded, cache)
        for row, length in enumerate(prompts.tolist()):
            torch.testing.assert_close(
                out[row, :length], expected[row, :length], rtol=0, atol=error
            )
        positions = prompts[:, None] + torch.arange(4)
        cache.at(positions, 14)
        window = states[torch.arange(3)[:, None], positions]
        out = run_blocks([block], window, rotary, positions, cache)
    wanted = expected[torch.arange(3)[:, None], positions]
    torch.testing.assert_close(out, wanted, rtol=0, atol=error)


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), HEADS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("prompt", [False, True])
def test_one_token_asks_and_the_cache_gets_all(n_heads, n_kv_heads, bias, prompt):
    block, rotary = block_and_rotary(n_heads, n_kv_heads, bias)
    states, last = torch.randn(3, 9, 48, dtype=torch.float64), torch.tensor([2, 0, 3])
    caches = [new_cache(n_kv_heads, 3) for _ in range(2)]
    with torch.no_grad():
        expected = run_blocks([copy.deepcopy(block)], states, rotary, None, None)
        first = 0 if prompt else 5
        positions = torch.arange(first, first + 4).expand(3, -1)
        outputs = []
        for cache in caches:
            before = torch.arange(5).expand(3, -1)
            cache.fill(torch.arange(3), before)
            run_blocks([block], states[:, :5], rotary, before, cache)
            if prompt:
                cache.fill(torch.arange(3), positions)
            else:
                cache.at(positions, 9)
            window = states[:, first : first + 4]
            if cache is caches[0]:
                out = run_blocks([block], window, rotary, positions, cache)
                outputs.append(out[torch.arange(3), last][:, None])
            else:
                outputs.append(run_block_at(block, window, rotary, positions, cache, last))
    wanted = expected[torch.arange(3), first + last][:, None]
    for out in outputs:
        torch.testing.assert_close(out, wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-12)
    stored = [[*cache.keys, *cache.values] for cache in caches]
    for whole, alone in zip(*stored, strict=True):
        assert whole[:, :5].abs().min() > 0
        torch.testing.assert_close(alone, whole, rtol=0, atol=1e-12)


# The user's weights


def tiny(bias=False):
    config = MTPLlamaConfig(
        vocab_size=10,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        n_future_tokens=2,
        attention_bias=bias,
        mlp_bias=bias,
    )
    torch.manual_seed(0)
    return MTPLlamaForCausalLM(config).eval()


@torch.inference_mode()
def decode_once(model):
    cache = SlotCache(model.layer_shapes(2), 1, 8, model.dtype, torch.device("cpu"))
    positions = torch.arange(3)[None]
    cache.fill(torch.tensor([0]), positions)
    return model.trunk(torch.tensor([[1, 2, 3]]), positions, cache)


def test_joining_weights_changes_none_and_holds_none_twice():
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decode_once(model)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    attention = model.model.layers[0].self_attn
    weights = joined(attention, "q_proj", "k_proj", "v_proj")
    assert attention.k_proj.weight.data_ptr() > attention.q_proj.weight.data_ptr()
    assert weights.weight.data_ptr() == attention.q_proj.weight.data_ptr()


@pytest.mark.parametrize("bias", [False, True])
def test_a_model_that_has_decoded_can_be_trained_moved_and_saved(tmp_path, bias):
    model = tiny(bias)
    first = decode_once(model)
    loss = model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    trained = decode_once(model)
    assert not torch.allclose(first, trained)
    torch.testing.assert_close(trained, model.trunk(torch.tensor([[1, 2, 3]])).detach())
    model.double()
    torch.testing.assert_close(decode_once(model), trained.double(), rtol=0, atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), torch.float64).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_prompt_holds_no_scores_of_all_pairs_on_a_gpu():
    query = torch.randn(1, 4096, 8, 64, device="cuda")
    keys, values = torch.randn(2, 1, 2, 4096, 64, device="cuda")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seen = attend(query, keys, values, SimpleNamespace(in_prompts=True), 0.125, None)
    assert torch.cuda.max_memory_allocated() - before < 2**27  # all scores: 2 ** 29 bytes
    wide = [each.double().repeat_interleave(4, 1) for each in (keys, values)]
    expected = scaled_dot_product_attention(
        query.double().transpose(1, 2), *wide, is_causal=True, scale=0.125
    )
    expected = expected.transpose(1, 2).flatten(2)
    torch.testing.assert_close(seen.double(), expected, rtol=1e-4, atol=1e-4)
