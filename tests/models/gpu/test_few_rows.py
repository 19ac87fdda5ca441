"""Kernels of steps of few tokens, against float64: on a GPU, or by Triton's interpreter."""

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: it comes with torch for GPUs")
if os.environ.get("TRITON_INTERPRET") != "1" and not torch.cuda.is_available():
    pytest.skip("neither a GPU nor Triton's interpreter", allow_module_level=True)

from mtp_harness.decode.cache import SlotCache
from mtp_harness.models.decoding_weights import signed
from mtp_harness.models.gpu import attention, few_attention, few_rows, layer
from mtp_harness.models.gpu.few_rows import Norm, Tile
from mtp_harness.models.gpu.kernels import HeadNorm
from mtp_harness.models.interface import LayerShape

from .decoders import small_decoder

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
# The interpreter's products of bfloat16 are not numbers.
TYPES = [torch.float16] if INTERPRETED else [torch.float16, torch.bfloat16]
# Of one rounding to the type, and of sums in float32.
ROUNDING = {torch.float16: 6e-4, torch.bfloat16: 5e-3}
# Widths here are not multiples of these.
SUMS, TENSOR_CORES = Tile(16, 32, 4, 2, 1), Tile(32, 64, 4, 3, 8)
WAYS = [pytest.param(n, SUMS, id=f"{n}-sums") for n in (1, 2, 3, 4)]
WAYS += [pytest.param(n, TENSOR_CORES, id=f"{n}-tensor-cores") for n in (2, 4, 5, 16)]


def randn(*shape, dtype=torch.float16, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (torch.randn(shape, generator=generator) * scale).to(DEVICE, dtype)


def check(found, expected, roundings=1):
    """Compare with float64 numbers, whose size says how exact their sums can be."""
    error = ROUNDING[found.dtype] * roundings
    scale = expected.abs().max().item()
    torch.testing.assert_close(found.double(), expected, rtol=error, atol=error * scale / 4)


@pytest.fixture
def tile():
    """Return the tile for more than one token, unless a test has others."""
    return TENSOR_CORES


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch, tile):
    monkeypatch.setattr(few_rows, "TILES", dict.fromkeys(few_rows.TILES, (SUMS, tile)))


def normed(states, weight, epsilon):
    """Return the norm as transformers rounds it, wide."""
    wide = states.double()
    wide = wide / (wide.square().mean(-1, keepdim=True) + epsilon).sqrt()
    if weight.dtype is states.dtype:
        return (weight * wide.to(states.dtype)).double()
    return (weight.double() * wide).to(states.dtype).double()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("n_tokens", "tile"), WAYS)
def test_normed_product(dtype, n_tokens, tile, bias):
    states, weight = randn(n_tokens, 104, dtype=dtype), randn(72, 104, dtype=dtype, scale=0.1)
    by, added = randn(104, dtype=dtype), randn(72, dtype=dtype) if bias else None
    found = few_rows.normed_product(states, Norm(by, 1e-5), weight, added)
    expected = normed(states, by, 1e-5) @ weight.double().t()
    check(found, expected + added.double() if bias else expected)


def test_a_norm_whose_weight_is_wider():
    states, weight, by = randn(2, 48), randn(20, 48, scale=0.1), randn(48, dtype=torch.float32)
    found = few_rows.normed_product(states, Norm(by, 1e-5), weight, None)
    check(found, normed(states, by, 1e-5) @ weight.double().t())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("n_tokens", "tile"), WAYS)
def test_gated_product(dtype, n_tokens, tile, bias):
    states, weight = randn(n_tokens, 104, dtype=dtype), randn(144, 104, dtype=dtype, scale=0.1)
    by, added = randn(104, dtype=dtype), randn(144, dtype=dtype) if bias else None
    found = few_rows.gated_product(states, Norm(by, 1e-5), weight, added)
    both = normed(states, by, 1e-5) @ weight.double().t()
    gate, up = (both + added.double() if bias else both).to(dtype).double().chunk(2, -1)
    check(found, (gate * gate.sigmoid()).to(dtype).double() * up, 3)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("n_tokens", "tile"), WAYS)
def test_summed_product(dtype, n_tokens, tile, bias):
    states, weight = randn(n_tokens, 72, dtype=dtype), randn(104, 72, dtype=dtype, scale=0.1)
    before, added = randn(n_tokens, 104, dtype=dtype), randn(104, dtype=dtype) if bias else None
    kept = before.clone()
    found = few_rows.summed_product("down", states, weight, added, before)
    product = states.double() @ weight.double().t()
    product = (product + added.double() if bias else product).to(dtype)
    check(found, product.double() + before.double(), 2)
    assert torch.equal(before, kept)


@pytest.mark.parametrize(("n_rows", "tile"), [each for each in WAYS if each.values[0] in (1, 3, 5)])
def test_the_residual_of_some_tokens(n_rows, tile):
    states, weight = randn(n_rows, 80), randn(40, 80, scale=0.1)
    before = randn(3 * n_rows, 40)
    last = torch.tensor([2, 0, 1, 1, 2][:n_rows], device=DEVICE)
    found = few_rows.summed_product("o", states, weight, None, before, last)
    product = (states.double() @ weight.double().t()).half()
    rows = torch.arange(n_rows, device=DEVICE)
    check(found, product.double() + before.view(n_rows, 3, 40)[rows, last].double(), 2)


@pytest.mark.parametrize(("n_out", "kind"), [(64, "narrow_qkv"), (65, "qkv")])
def test_weights_of_few_rows_have_another_tile(monkeypatch, n_out, kind):
    monkeypatch.setattr(few_rows, "_MULTIPROCESSORS", 1)
    monkeypatch.setattr(few_rows, "TILES", {kind: few_rows.TILES[kind]})  # no other is used
    states, weight, by = randn(2, 48), randn(n_out, 48, scale=0.1), randn(48)
    found = few_rows.normed_product(states, Norm(by, 1e-5), weight, None)
    check(found, normed(states, by, 1e-5) @ weight.double().t())


@pytest.mark.parametrize(("n_tokens", "tile"), [(1, SUMS), (4, SUMS), (4, TENSOR_CORES)])
def test_rows_do_not_depend_on_each_other(n_tokens, tile):
    states, weight, by = randn(n_tokens, 48), randn(40, 48), randn(48)
    first = few_rows.gated_product(states, Norm(by, 1e-5), weight, None)
    again = few_rows.gated_product(states, Norm(by, 1e-5), weight, None)
    states[1:] = randn(n_tokens, 48, seed=1)[1:]
    others = few_rows.gated_product(states, Norm(by, 1e-5), weight, None)
    assert torch.equal(first, again)
    assert torch.equal(first[0], others[0])


# Attention

TRASH = 90


def rotated(heads, angle, weight):
    """Return heads [..., d] normed, if there is a weight, and turned by angles [..., r / 2]."""
    if weight is not None:
        heads = normed(heads, weight, 1e-5).to(heads.dtype)
    half = angle.shape[-1]
    first, second, rest = heads.double().tensor_split((half, 2 * half), -1)
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag, rest], -1)


def attended(query, keys, values, positions, scale):
    """Return the attention of one row's queries [T, H, d] over its columns [L, H_kv, d]."""
    group = query.shape[1] // keys.shape[1]
    keys, values = (each.double().repeat_interleave(group, 1) for each in (keys, values))
    scores = torch.einsum("thd,lhd->htl", query.to(keys), keys) * scale
    columns = torch.arange(len(keys), device=keys.device)
    scores = scores.masked_fill(columns > positions[:, None], float("-inf"))
    return torch.einsum("htl,lhd->thd", scores.softmax(-1), values)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("programs", [1, 24])
@pytest.mark.parametrize("asked", ["all", "last"])
@pytest.mark.parametrize(
    ("n_heads", "n_kv_heads", "n_tokens", "norm", "part"),
    [(2, 2, 1, False, 1), (6, 2, 3, True, 1), (4, 1, 5, True, 2), (2, 1, 16, False, 2)],
)
def test_rotation_cache_and_attention(
    monkeypatch, dtype, programs, asked, n_heads, n_kv_heads, n_tokens, norm, part
):
    monkeypatch.setattr(few_attention, "PROGRAMS", programs)  # 1: no splits
    head_dim, n_rows = 16, 3
    sizes = (n_heads, n_kv_heads, n_kv_heads)
    projected = randn(n_rows * n_tokens, sum(sizes) * head_dim, dtype=dtype)
    angle = randn(n_rows * n_tokens, 1, head_dim // 2 // part, dtype=torch.float64)
    cos, sin = (each.repeat(1, 1, 2).to(dtype)[None] for each in (angle.cos(), angle.sin()))
    cos, sin = (each.flatten(0, -2) for each in signed(cos, sin))
    positions = torch.tensor([70, 2, TRASH])[:, None] + torch.arange(n_tokens)
    positions[2] = TRASH  # a row that does not live
    if n_tokens > 2:
        positions[1, 0] = positions[1, -1] = TRASH  # tokens that leave no trace
    positions = positions.to(DEVICE)
    cache = SlotCache([LayerShape(n_kv_heads, head_dim)], n_rows, TRASH, dtype, DEVICE)
    cache.at(positions, TRASH)
    keys, values = (randn(*cache.keys[0].shape, dtype=dtype, seed=i) for i in (0, 1))
    heads = HeadNorm(randn(head_dim, dtype=dtype), randn(head_dim, dtype=dtype), 1e-5)
    last = torch.tensor([n_tokens - 1, n_tokens // 2, 0], device=DEVICE)

    # The expected: new columns in their places, then every row alone.
    query, key, value = projected.view(n_rows * n_tokens, -1, head_dim).split(sizes, 1)
    query = rotated(query, angle, heads.query if norm else None).to(dtype)
    key = rotated(key, angle, heads.key if norm else None).to(dtype)
    expected_keys, expected_values = keys.clone(), values.clone()
    expected_keys.flatten(0, 1)[cache.places] = key
    expected_values.flatten(0, 1)[cache.places] = value

    # What no program may read: the new columns' old contents, and those beyond the last.
    for stored in (keys, values):
        stored.flatten(0, 1)[cache.places] = float("nan")
        stored[0, 70 + n_tokens :], stored[1, 2 + n_tokens :] = float("nan"), float("nan")
    found = few_attention.rotate_and_attend(
        projected,
        cos,
        sin,
        keys,
        values,
        cache.places,
        cache.lengths(),
        positions,
        0.3,
        norm=heads if norm else None,
        last=last if asked == "last" else None,
    )
    found = found.view(n_rows, -1, n_heads, head_dim)
    error = 3 * ROUNDING[dtype]  # of cos and sin, and of the norm
    for row, length in enumerate(cache.lengths().tolist()):
        live = positions[row] < TRASH
        places = positions[row][live]
        for stored, wanted in ((keys, expected_keys), (values, expected_values)):
            torch.testing.assert_close(
                stored[row, places], wanted[row, places], rtol=error, atol=4 * error
            )
        if not length:
            assert not found[row].any()
            continue
        of_row = query.view(n_rows, n_tokens, n_heads, head_dim)[row]
        wanted = attended(
            of_row,
            expected_keys[row, :length],
            expected_values[row, :length],
            positions[row],
            0.3,
        )
        if asked == "last":
            if live[last[row]]:
                check(found[row, 0], wanted[last[row]], 6)
        else:
            check(found[row][live], wanted[live], 6)


# Layers


@pytest.mark.parametrize("asked", ["all", "last"])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "glm4_moe"])
def test_a_layer_gives_what_it_gives_by_other_kernels(monkeypatch, name, asked):
    model = small_decoder(name).to(DEVICE).half()
    block, rotary = model.model.layers[0], model.model.rotary_emb
    states = randn(3, 3, 48)
    positions = torch.tensor([[7, 8, 9], [0, 1, 20], [20, 20, 20]], device=DEVICE)
    last = torch.tensor([1, 0, 2], device=DEVICE) if asked == "last" else None
    monkeypatch.setattr(few_attention, "PROGRAMS", 12)
    monkeypatch.setattr(attention, "_PROGRAMS", 12)
    ran, few = [], layer._run_few
    monkeypatch.setattr(layer, "_run_few", lambda *args: ran.append(args) or few(*args))
    outputs, stored = [], []
    for most in (0, 16):
        monkeypatch.setattr(few_rows, "FEW_ROWS", most)
        cache = SlotCache([LayerShape(2, 16)], 3, 20, torch.float16, DEVICE)
        for seed, each in enumerate((*cache.keys, *cache.values)):
            each.copy_(randn(*each.shape, seed=seed))
        cache.at(positions, 10)
        with torch.inference_mode():
            turned = signed(*rotary(states, position_ids=positions))
            assert layer.serves(block, states, cache)
            outputs.append(layer.run(block, states, turned, cache, last)[:2])
        stored.append(torch.stack((cache.keys[0], cache.values[0]))[:, :2, :20])
    assert len(ran) == 1
    scale = outputs[0].abs().max().item()
    torch.testing.assert_close(*outputs, rtol=0, atol=2e-3 * scale)
    torch.testing.assert_close(*stored, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("most", [0, 16])
def test_rows_may_share_their_positions(monkeypatch, most):
    monkeypatch.setattr(few_rows, "FEW_ROWS", most)
    monkeypatch.setattr(few_attention, "PROGRAMS", 1)
    monkeypatch.setattr(attention, "_PROGRAMS", 1)
    model = small_decoder("llama").to(DEVICE).half()
    block, rotary = model.model.layers[0], model.model.rotary_emb
    shared = torch.tensor([3, 4], device=DEVICE)
    outputs = []
    for positions in (shared.expand(3, -1), shared.repeat(3, 1)):
        cache = SlotCache([LayerShape(2, 16)], 3, 20, torch.float16, DEVICE)
        cache.at(positions, 10)
        states = randn(3, 2, 48)
        with torch.inference_mode():
            turned = signed(*rotary(states, position_ids=positions))
            outputs.append(layer.run(block, states, turned, cache))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("name", ["qwen3_5_text", "deepseek_v3"])
def test_layers_that_are_not_known_run_as_before(name):
    model = small_decoder(name).half()
    for block in model.model.layers:
        assert not layer._is_known(block, 1)


def test_wider_types_and_more_tokens_run_as_before(monkeypatch):
    assert few_rows.serves(randn(2, 2, 8))
    assert not few_rows.serves(randn(1, 5, 8))
    assert not few_rows.serves(randn(1, 1, 8, dtype=torch.float32))
    monkeypatch.setattr(few_rows, "FEW_ROWS", 0)
    assert not few_rows.serves(randn(1, 1, 8))
