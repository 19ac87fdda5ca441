"""Meta's layout: logits of all heads against a float64 oracle, shards, types, tolerated extras."""

import json

import pytest
import torch

from mtp_harness.decode.cache import SlotCache
from mtp_harness.models.checkpoints.meta import load_meta

from ..meta_reference import SMALL, ffn_width, logits, random_weights, write

TOLERANCE = 1e-5
TOKENS = [5, 60, 0, 17, 17, 3, 42, 8, 30, 1, 2, 59, 11, 28, 33, 9, 50, 21, 7, 7, 7, 44, 13]
NO_GQA = {"n_kv_heads": None}


def params_for(n, **changes):
    return {**SMALL, "n_future_tokens": n, "n_layers": n + 2, **changes}


@torch.no_grad()
def run(model, tokens, positions=None, cache=None):
    """All heads' logits through trunk, head and logits: [T, n, V], or [B, T, n, V] of rows."""
    rows = torch.tensor(tokens)
    batch = rows if rows.dim() == 2 else rows[None]
    trunk = model.trunk(batch, positions, cache)
    heads = range(1, model.n_future_tokens + 1)
    states = {k: model.head(k, trunk, positions=positions, cache=cache) for k in heads}
    result = torch.stack([model.logits(k, states[k]) for k in heads], 2)
    return result if rows.dim() == 2 else result[0]


def run_in_pieces(model, texts, pieces):
    """Feed each text to its own row of one cache, in pieces of its own sizes; [B, T, n, V]."""
    length, n_rows = len(texts[0]), len(texts)
    shapes = model.layer_shapes(model.n_future_tokens)
    cache = SlotCache(shapes, n_rows, length, torch.float32, torch.device("cpu"))
    results, starts = [[] for _ in texts], [0] * n_rows
    for counts in zip(*pieces, strict=True):
        tokens = [[0] * max(counts) for _ in texts]
        positions = torch.full((n_rows, max(counts)), cache.trash)
        for row, (text, start, count) in enumerate(zip(texts, starts, counts, strict=True)):
            tokens[row][:count] = text[start : start + count]
            positions[row, :count] = torch.arange(start, start + count)
        cache.at(positions, length)
        logits = run(model, tokens, positions, cache)
        for row, count in enumerate(counts):
            results[row].append(logits[row, :count])
            starts[row] += count
    assert starts == [length] * n_rows
    return torch.stack([torch.cat(parts) for parts in results])


@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize("changes", [{}, NO_GQA, {"n_kv_heads": 1}], ids=["gqa", "mha", "mqa"])
def test_logits_of_all_heads_agree_with_the_oracle(tmp_path, n, changes):
    params = params_for(n, **changes)
    weights = random_weights(params, seed=n)
    model = load_meta(write(tmp_path / "m", params, weights))
    expected = logits(params, weights, TOKENS)
    assert expected.shape == (len(TOKENS), n, params["vocab_size"])
    assert 0.3 < expected.std() < 3  # of the order of one, or the tolerance says nothing
    assert model.n_future_tokens == n and not model.training
    assert (run(model, TOKENS).double() - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("n", [1, 4, 8])
@pytest.mark.parametrize("changes", [{}, NO_GQA], ids=["gqa", "mha"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_cached_logits_agree_with_the_oracle(tmp_path, n, changes, attention):
    params = params_for(n, **changes)
    weights = random_weights(params, seed=n)
    model = load_meta(write(tmp_path / "m", params, weights))
    model.set_attn_implementation(attention)
    texts = [TOKENS, TOKENS[::-1]]
    result = run_in_pieces(model, texts, [(7, 1, 4, 1, 10), (4, 4, 1, 12, 2)])
    for text, row in zip(texts, result, strict=True):
        assert (row.double() - logits(params, weights, text)).abs().max() < TOLERANCE


def test_eager_attention_is_causal_without_a_cache(tmp_path):
    params = params_for(2)
    weights = random_weights(params)
    model = load_meta(write(tmp_path / "m", params, weights))
    model.set_attn_implementation("eager")
    expected = logits(params, weights, TOKENS)
    assert (run(model, TOKENS).double() - expected).abs().max() < TOLERANCE


def test_next_token_path_of_transformers_is_head_one(tmp_path):
    params = params_for(4)
    weights = random_weights(params)
    model = load_meta(write(tmp_path / "m", params, weights))
    with torch.no_grad():
        result = model(torch.tensor([TOKENS])).logits[0].double()
    assert (result - logits(params, weights, TOKENS)[:, 0]).abs().max() < TOLERANCE


def test_every_block_matters_to_the_oracle():
    """Heads differ from each other: otherwise their order would not be tested."""
    params = params_for(4)
    expected = logits(params, random_weights(params), TOKENS)
    for i in range(4):
        for j in range(i):
            assert (expected[:, i] - expected[:, j]).abs().max() > 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 500.0},
        {"ffn_dim_multiplier": 1.3},
        {"multiple_of": 40},
        {"norm_eps": 0.1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_of_params_json_are_obeyed(tmp_path, changes):
    params = params_for(2, **changes)
    weights = random_weights(params)
    model = load_meta(write(tmp_path / "m", params, weights))
    expected = logits(params, weights, TOKENS)
    assert (run(model, TOKENS).double() - expected).abs().max() < TOLERANCE
    default = params_for(2)
    if ffn_width(params) == ffn_width(default):  # the setting is visible in the logits
        assert (logits(default, weights, TOKENS) - expected).abs().max() > 0.01


def test_defaults_are_those_of_the_release(tmp_path):
    params = {k: SMALL[k] for k in ("dim", "n_heads", "n_layers", "multiple_of", "vocab_size")}
    weights = random_weights(params)
    assert "extra_heads.0.attention.wq.weight" not in weights
    del params["vocab_size"]
    model = load_meta(write(tmp_path / "m", params, weights))
    assert model.n_future_tokens == 1 and model.config.vocab_size == SMALL["vocab_size"]
    assert model.max_positions == 4096
    assert (
        run(model, TOKENS).double()[:, 0] - logits(params, weights, TOKENS)[:, 0]
    ).abs().max() < TOLERANCE


def test_release_shape_of_the_7b_models():
    """7B_1T_4: 28 trunk layers, 29 under `layers.`, 3 extra heads, 6,738,415,616 parameters."""
    from mtp_harness.models.checkpoints.meta_params import MetaParams

    params = MetaParams(n_future_tokens=4, vocab_size=32000, n_kv_heads=32)
    shapes = params.shapes(32000)
    assert params.ffn_width == 11008
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 6_738_415_616
    assert shapes["layers.28.attention.wq.weight"] == (4096, 4096)
    assert shapes["extra_heads.2.feed_forward.w2.weight"] == (4096, 11008)
    assert "layers.29.attention.wq.weight" not in shapes
    assert "extra_heads.3.attention.wq.weight" not in shapes


@pytest.mark.parametrize("n_shards", [2, 4])
@pytest.mark.parametrize("embedding_dim", [0, 1])
def test_shards_give_the_unsharded_model(tmp_path, n_shards, embedding_dim):
    params = params_for(4, vocab_size=64, n_kv_heads=4)
    weights = random_weights(params)
    whole = load_meta(write(tmp_path / "whole", params, weights))
    # V = 64 rows over 2 or 4 shards: the width alone tells how embeddings are split.
    folder = write(tmp_path / "shards", params, weights, n_shards, embedding_dim)
    sharded = load_meta(folder)
    assert len(list(folder.glob("*.pth"))) == n_shards
    for name, tensor in whole.state_dict().items():
        assert torch.equal(sharded.state_dict()[name], tensor), name


def test_vocabulary_of_shards_without_vocab_size(tmp_path):
    for dim in (0, 1):
        params = params_for(2, vocab_size=64)
        weights = random_weights(params)
        unsized = {**params, "vocab_size": -1}
        model = load_meta(write(tmp_path / f"m{dim}", unsized, weights, 2, dim))
        assert model.config.vocab_size == 64


def test_dtype_is_as_stored_or_as_asked(tmp_path):
    params = params_for(2)
    weights = {name: t.bfloat16() for name, t in random_weights(params).items()}
    folder = write(tmp_path / "m", params, weights)
    assert {p.dtype for p in load_meta(folder).parameters()} == {torch.bfloat16}
    model = load_meta(folder, torch.float32)
    assert model.dtype == model.config.dtype == torch.float32
    wide = {name: tensor.float() for name, tensor in weights.items()}
    expected = logits(params, wide, TOKENS)
    assert (run(model, TOKENS).double() - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("way", ["loaded", "converted", "moved"])
def test_rotary_frequencies_stay_exact_in_bfloat16(tmp_path, way):
    params = params_for(2)
    folder = write(tmp_path / "m", params, random_weights(params))
    model = load_meta(folder, torch.bfloat16 if way == "loaded" else None)
    if way != "loaded":
        model = model.bfloat16() if way == "converted" else model.to("cpu", torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    expected = 10000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    for buffer in model.model.rotary_emb.buffers():
        assert buffer.dtype == torch.float32
        assert (buffer.double() - expected).abs().max() < 1e-7


def test_mixed_types_become_the_commonest(tmp_path):
    params = params_for(2)
    weights = {n: t if "norm" in n else t.half() for n, t in random_weights(params).items()}
    model = load_meta(write(tmp_path / "m", params, weights))
    assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_runtime_keys_and_rope_table_are_tolerated(tmp_path):
    params = params_for(2)
    weights = random_weights(params)
    folder = write(tmp_path / "m", params, weights)
    extra = {**params, "max_seq_len": 512, "max_batch_size": 8}
    (folder / "params.json").write_text(json.dumps(extra))
    torch.save({**weights, "rope.freqs": torch.ones(4)}, folder / "consolidated.pth")
    model = load_meta(folder)
    assert model.max_positions == 512
    expected = logits(params, weights, TOKENS)
    assert (run(model, TOKENS).double() - expected).abs().max() < TOLERANCE
