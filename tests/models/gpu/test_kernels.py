"""The GPU's kernels, run by Triton's interpreter on the CPU, against plain float64 arithmetic."""

import copy
import os

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

pytest.importorskip("triton", reason="Triton is not installed: it comes with torch for GPUs")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("a GPU is here: its kernels are not interpreted", allow_module_level=True)

from mtp_harness.decode.cache import SlotCache
from mtp_harness.models.decoding_weights import rotation
from mtp_harness.models.gpu import attention, layer, serve
from mtp_harness.models.gpu.kernels import add_norm, add_parts, rotate_and_store, silu_times
from mtp_harness.models.gpu.kernels import rotation as rotated_by_kernel
from mtp_harness.models.gpu.split_product import halves
from mtp_harness.models.head_states import reused_states, tokens_ahead
from mtp_harness.models.interface import LayerShape
from mtp_harness.models.llama.blocks import run_blocks
from mtp_harness.models.llama.cached_block import run_cached_block
from mtp_harness.models.load import open_model

from .decoders import TrunkOnly, small_decoder


@pytest.mark.parametrize("width", [64, 100])
@pytest.mark.parametrize("n_parts", [0, 1, 2])
def test_add_norm(width, n_parts):
    torch.manual_seed(0)
    states, weight = torch.randn(3, width), torch.rand(width)
    updates = torch.randn(n_parts, 3, width) if n_parts else None
    before = states.clone()
    total, normed = add_norm(states, updates, weight, 1e-5)
    wide = before.double() + (0 if updates is None else updates.double().sum(0))
    torch.testing.assert_close(total.double(), wide, rtol=1e-6, atol=1e-6)
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    torch.testing.assert_close(normed.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(states, before)


@pytest.mark.parametrize("width", [64, 1500])
def test_add_parts(width):
    torch.manual_seed(0)
    states, parts = torch.randn(3, width), torch.randn(2, 3, width)
    expected = states.double() + parts[0].double() + parts[1].double()
    assert add_parts(states, parts) is states
    torch.testing.assert_close(states.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_norm_is_one_kernel_unless_somebody_listens(monkeypatch):
    monkeypatch.setattr(serve, "_on_gpu", lambda states: True)
    norm, states = LlamaRMSNorm(48), torch.randn(2, 3, 48)
    ran, run, heard = [], layer.norm, []
    monkeypatch.setattr(layer, "norm", lambda *args: ran.append(args) or run(*args))
    expected = norm(states)
    assert torch.equal(serve.normed(norm, states), expected) and not ran  # it may be trained
    with torch.inference_mode():
        torch.testing.assert_close(serve.normed(norm, states), expected)
        assert len(ran) == 1
        norm.register_forward_hook(lambda *_: heard.append(1))
        torch.testing.assert_close(serve.normed(norm, states), expected)
    assert len(ran) == len(heard) == 1


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize(("half", "scaling"), [(8, 1.0), (5, 0.5)])
def test_rotation(half, scaling, negated):
    frequencies = 10000.0 ** -(torch.arange(half) / half)
    positions = torch.tensor([[0, 1, 4095], [32767, 7, 2]]).t()  # not contiguous
    cos, sin = rotated_by_kernel(frequencies, scaling, positions, torch.float32, negated=negated)
    # The angle is a float32 product, as transformers has it; the rest is exact.
    angle = (positions[..., None].float() * frequencies).double()
    torch.testing.assert_close(cos.double(), angle.cos().repeat(1, 1, 2) * scaling)
    halves = angle.sin() * (-1 if negated else 1), angle.sin()
    torch.testing.assert_close(sin.double(), torch.cat(halves, -1) * scaling)


ROTARY = {
    "default": {"rope_type": "default", "rope_theta": 1e4},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
        "original_max_position_embeddings": 64,
    },
}


def check_rotary(monkeypatch, rotary, dtype, served):
    """Compare what it gives with the kernel and without; fail if the kernel runs for others."""
    monkeypatch.setattr(serve, "_on_gpu", lambda states: True)
    positions, states = torch.tensor([[0, 3, 255], [1, 2, 200]]), torch.empty(1, dtype=dtype)
    assert layer.knows_rotary(rotary, states) == served
    if hasattr(rotary, "mrope_section"):  # positions in a grid: of the text, downwards, across
        positions = positions.expand(3, -1, -1)
    expected = rotary(states, position_ids=positions)
    ran, run = [], layer.rotated
    monkeypatch.setattr(layer, "rotated", lambda *a, **k: ran.append(a) or run(*a, **k))
    serve.serve_rotary(rotary)
    found = rotary(states, position_ids=positions)
    torch.testing.assert_close(found, expected)
    assert found[0].dtype is dtype and len(ran) == served


@pytest.mark.parametrize("kind", ROTARY)
def test_a_served_rotary_gives_what_transformers_gives(monkeypatch, kind):
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 256}
    rotary = LlamaRotaryEmbedding(LlamaConfig(**sizes, rope_parameters=ROTARY[kind]))
    changes = kind in ("dynamic", "longrope")  # its frequencies, with the length
    check_rotary(monkeypatch, rotary, torch.float32, not changes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize(
    "name",
    ["llama", "mistral", "qwen2", "qwen3", "glm4_moe", "deepseek_v3", "qwen3_next", "qwen3_5_text"],
)
def test_every_familys_rotary_gives_what_transformers_gives(monkeypatch, name, dtype):
    rotary = small_decoder(name).model.rotary_emb
    served = dtype is torch.float16 and name != "qwen3_5_text"
    check_rotary(monkeypatch, rotary, dtype, served)


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(4, 4), (6, 2)])
def test_rotate_and_store(n_heads, n_kv_heads):
    torch.manual_seed(0)
    n_tokens, head_dim, columns = 5, 16, 12
    qkv = torch.randn(n_tokens, (n_heads + 2 * n_kv_heads) * head_dim)
    angle = torch.rand(n_tokens, head_dim // 2) * 6
    cos, sin = angle.cos().repeat(1, 2), torch.cat([-angle.sin(), angle.sin()], 1)
    keys, values = (torch.full((columns, n_kv_heads, head_dim), 7.0) for _ in range(2))
    places = torch.tensor([3, 0, 11, 4, 7])
    query = rotate_and_store(qkv, cos, sin, places, keys, values, n_heads)

    def turned(token, head):
        """Return the pairs (i, i + d/2) as complex numbers, turned."""
        x = qkv[token].view(-1, head_dim)[head].double()
        half = head_dim // 2
        z = (
            torch.complex(x[:half], x[half:])
            * torch.polar(torch.ones(half), angle[token]).cdouble()
        )
        return torch.cat([z.real, z.imag]).float()

    untouched = set(range(columns)) - set(places.tolist())
    assert all((stored[list(untouched)] == 7).all() for stored in (keys, values))
    for token, place in enumerate(places.tolist()):
        heads = qkv[token].view(-1, head_dim)
        for head in range(n_heads):
            torch.testing.assert_close(query[token, head], turned(token, head))
        for head in range(n_kv_heads):
            torch.testing.assert_close(keys[place, head], turned(token, n_heads + head))
            assert torch.equal(values[place, head], heads[n_heads + n_kv_heads + head])


@pytest.mark.parametrize("width", [7, 1500])
def test_silu_times(width):
    torch.manual_seed(0)
    gate_up = torch.randn(3, 2 * width)
    gate, up = gate_up.double().chunk(2, -1)
    expected = gate * torch.sigmoid(gate) * up
    out = silu_times(gate_up)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("n_rows", "n_tokens", "n_heads", "n_kv_heads"), [(1, 1, 2, 2), (1, 4, 8, 2), (3, 3, 4, 2)]
)
@pytest.mark.parametrize("programs", [1, 264])
def test_attention_over_rows_of_any_length(
    monkeypatch, n_rows, n_tokens, n_heads, n_kv_heads, programs
):
    monkeypatch.setattr(attention, "_PROGRAMS", programs)  # 1: no splits
    torch.manual_seed(0)
    columns, head_dim = 150, 16
    query = torch.randn(n_rows, n_tokens, n_heads, head_dim)
    keys, values = (torch.randn(n_rows, columns, n_kv_heads, head_dim) for _ in range(2))
    first = torch.tensor([140, 3, 70])[:n_rows]
    positions = first[:, None] + torch.arange(n_tokens)
    lengths = positions.amax(1) + 1
    if n_rows > 1:
        lengths[1] = 0  # a row that does not live
    keys[:, 145:], values[:, 145:] = float("nan"), float("nan")  # beyond what any row may read
    out = attention.attend_rows(query, keys, values, lengths, positions, 0.3)
    clean = [stored.nan_to_num().double().transpose(1, 2) for stored in (keys, values)]
    mask = torch.arange(columns) <= positions[:, None, :, None]
    expected = scaled_dot_product_attention(
        query.double().transpose(1, 2), *clean, attn_mask=mask, scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    if n_rows > 1:
        expected[1] = 0
    torch.testing.assert_close(out.double(), expected.flatten(2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("head_dim", "dtype", "n_queries", "columns"),
    [(16, torch.float32, 16, 64), (128, torch.float32, 64, 64), (256, torch.bfloat16, 64, 64)]
    + [(256, torch.float32, 16, 32), (256, torch.bfloat16, 128, 16), (4096, torch.float32, 16, 16)],
)
def test_what_a_program_reads_at_a_time_fits(head_dim, dtype, n_queries, columns):
    # Of a multiprocessor's 232,448 bytes, 64 columns of 256 numbers asked for 283,000 in float32
    # (Qwen3.5), and for 262,144 in bfloat16 with 128 queries (windows of 14 tokens, groups of 8).
    keys = torch.zeros(1, 1, 1, head_dim, dtype=dtype)
    assert attention.fitting(64, keys, n_queries) == columns


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("last", [None, [1, 0, 2]])
@pytest.mark.parametrize("product", ["whole", "narrow", "split"])
def test_a_block_gives_what_it_gives_without_kernels(monkeypatch, bias, last, product):
    monkeypatch.setattr(layer, "is_narrow", lambda states, weight: product == "narrow")
    split = []
    if product == "split":
        monkeypatch.setattr(layer, "splits", lambda states, weight, bias: bias is None)
        monkeypatch.setattr(layer, "halves", lambda *args: split.append(1) or halves(*args))
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=48,
        intermediate_size=40,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        attention_bias=bias,
        mlp_bias=bias,
    )
    block, rotary = LlamaDecoderLayer(config, 0).eval(), LlamaRotaryEmbedding(config)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(0, parameter.shape[-1] ** -0.5)
    states = torch.randn(3, 3, 48)
    before = states.clone()
    last = None if last is None else torch.tensor(last)
    outputs, caches = [], []
    for kernels in (False, True):
        cache = SlotCache([LayerShape(2, 16)], 3, 20, torch.float32, torch.device("cpu"))
        generator = torch.Generator().manual_seed(1)
        for stored in (*cache.keys, *cache.values):
            stored.normal_(generator=generator)
        positions = torch.tensor([[7, 8, 9], [0, 1, 2], [20, 20, 20]])  # the third row is dead
        cache.at(positions, 10)
        rotated_by = rotation(rotary, states, positions)
        with torch.inference_mode():
            if kernels:
                assert layer.serves(block, states, cache)
                arguments = (block, states, rotated_by, cache, last)
                out = layer.run(*arguments)
            else:
                out = run_cached_block(block, states, rotated_by, cache, last)
        outputs.append(out[:2])
        caches.append([stored[:2] for stored in (*cache.keys, *cache.values)])
    assert len(split) == (2 if product == "split" and not bias else 0)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
    for kernels, plain in zip(*caches, strict=True):
        torch.testing.assert_close(kernels[:, :20], plain[:, :20], rtol=1e-5, atol=1e-5)
    assert torch.equal(states, before)


def test_prompts_of_unequal_length_give_what_they_give_alone_without_kernels():
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 40, "head_dim": 16}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)
    config._attn_implementation = "sdpa"
    block, rotary = LlamaDecoderLayer(config, 0).eval(), LlamaRotaryEmbedding(config)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(0, parameter.shape[-1] ** -0.5)
    exact = copy.deepcopy(block).double()
    states, lengths, slots = torch.randn(2, 7, 48), [7, 4], torch.tensor([2, 0])
    cache = SlotCache([LayerShape(2, 16)], 3, 20, torch.float32, torch.device("cpu"))
    for stored in (*cache.keys, *cache.values):
        stored.fill_(9)
    columns = torch.arange(7)
    positions = torch.where(columns < torch.tensor(lengths)[:, None], columns, 20)
    cache.fill(slots, positions)
    with torch.inference_mode():
        assert layer.serves(block, states, cache)
        found = layer.run(block, states, rotation(rotary, states, positions), cache)
        for row, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
            alone = states[row : row + 1, :length].double()
            expected = run_blocks([exact], alone, rotary, None, None)
            torch.testing.assert_close(found[row : row + 1, :length].double(), expected)
            normed = exact.input_layernorm(alone)[0]
            values = exact.self_attn.v_proj(normed).view(length, 2, 16)
            torch.testing.assert_close(cache.values[0][slot, :length].double(), values)
            kept = cache.keys[0][slot], cache.values[0][slot]
            assert all((each[length:20] == 9).all() for each in kept)
    assert all((each[1] == 9).all() for each in (*cache.keys, *cache.values))


# Layers of transformers, with the kernels and without


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen2", "qwen3", "glm4_moe", "qwen3_5_text", "deepseek_v3"]
)
@pytest.mark.parametrize("split", [False, True])
def test_a_layer_of_transformers_gives_what_it_gives_without_kernels(monkeypatch, name, split):
    if split:
        monkeypatch.setattr(layer, "splits", lambda states, weight, bias: bias is None)
    model = TrunkOnly(small_decoder(name))
    states = []
    served = []
    run = layer.run
    monkeypatch.setattr(layer, "run", lambda *a, **k: served.append(a[0]) or run(*a, **k))
    for kernels in (False, True):
        monkeypatch.setattr(serve, "_on_gpu", lambda tensor, yes=kernels: yes)
        cache = SlotCache(model.trunk_shapes(), 3, 20, torch.float32, torch.device("cpu"))
        prompts = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0], [9, 10, 0, 0, 0]])
        places = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 20, 20], [0, 1, 20, 20, 20]])
        window = torch.tensor([[5, 6, 7], [3, 4, 5], [20, 20, 20]])  # the third row is dead
        with torch.inference_mode():
            cache.fill(torch.arange(3), places)
            states.append(model.trunk(prompts, places, cache))
            for n in (3, 2):  # a second window, after the first token of the one before
                here = window[:, :n].contiguous()
                cache.at(here, 12)
                found = model.trunk(torch.tensor([[3, 1, 2]] * 3)[:, :n], here, cache)
                cache.keep(torch.tensor([1, 2, 0]))
                states.append(found[:2])
                window = torch.where(window == 20, 20, window + torch.tensor([[1], [2], [0]]))
    assert len(served) == 3 * len(model.base.layers)
    scale = states[0].abs().max()
    for kernels, plain in zip(states[3:], states[:3], strict=True):
        torch.testing.assert_close(kernels / scale, plain / scale, rtol=0, atol=2e-5)


@pytest.mark.parametrize("window", [False, True])
def test_training_is_not_served(monkeypatch, window):
    model = TrunkOnly(small_decoder("llama"))
    monkeypatch.setattr(serve, "_on_gpu", lambda tensor: True)
    monkeypatch.setattr(layer, "run", None)
    cache = SlotCache(model.trunk_shapes(), 1, 20, torch.float32, torch.device("cpu"))
    tokens, places = torch.tensor([[1, 2, 3]]), torch.tensor([[0, 1, 2]])
    (cache.at(places, 3) if window else cache.fill(torch.arange(1), places))
    model.trunk(tokens, places, cache).sum().backward()
    assert model.base.layers[0].mlp.up_proj.weight.grad.abs().max() > 0


def test_evaluations_of_a_reused_module_are_not_served(monkeypatch):
    model = open_model("mtp-bytes-qwen", dtype=torch.float32).model
    tokens = torch.tensor([[100, 101, 102, 97, 98]])

    def states():
        with torch.no_grad():
            first = model.head(1, model.trunk(tokens))
            ahead = tokens_ahead(tokens, None)
            return [state for _, state in reused_states(model, first, ahead, 4)]

    expected = states()
    monkeypatch.setattr(serve, "_on_gpu", lambda tensor: True)
    for found, plain in zip(states(), expected, strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


def test_a_norm_of_half_precision_rounds_as_transformers_does():
    ours, given = [], torch.randn(3, 48, generator=torch.Generator().manual_seed(0)).half()
    for name in ("qwen3", "qwen3_5_text"):
        norm = small_decoder(name).model.norm.half()
        ours.append(layer.norm(norm, given))
        assert torch.equal(ours[-1], norm(given))


def test_states_of_one_token_of_several_rows_are_no_matter():
    given = torch.randn(3, 5, 48, generator=torch.Generator().manual_seed(0))
    norm = small_decoder("qwen3").model.norm
    for states in (given[:, 4:], given[:, 2], given[:, ::2]):
        torch.testing.assert_close(layer.norm(norm, states), norm(states))
