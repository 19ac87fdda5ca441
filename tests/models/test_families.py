"""Sequential families: what loads, and that its numbers are those of vLLM and of transformers."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, masking_utils
from transformers.modeling_layers import MtpModel

from mtp_harness.decode.cache import SlotCache
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.checkpoints.layout import Summary
from mtp_harness.models.checkpoints.sequential_folder import SEQUENTIAL, load_sequential
from mtp_harness.models.families import FAMILIES, promised
from mtp_harness.models.head_states import head_states
from mtp_harness.models.inspection import summarise
from mtp_harness.models.load import detect, load_tokenizer

from .family_checkpoints import BASE, CONFIGS, QWEN, write

EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}


@pytest.fixture(scope="module")
def fixtures(shared_data):
    folder = shared_data / "families"
    if not folder.is_dir():
        pytest.skip(f"needs the checkpoints in {folder}")
    return folder


def text(rows, length, seed=0):
    return torch.randint(0, 200, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def masks(monkeypatch):
    """The masks that torch's attention is given."""
    found, attention = [], torch.nn.functional.scaled_dot_product_attention

    def noted(*args, attn_mask=None, **others):
        found.append(attn_mask)
        return attention(*args, attn_mask=attn_mask, **others)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    return found


def assert_equal_weights(model, main, made):
    """Compare every parameter and buffer of a loaded checkpoint with those that were written."""
    found, expected = model.modules_.layers.state_dict(), made.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    found, expected = model.main.state_dict(), main.state_dict()
    assert torch.equal(model.norm.weight, expected.pop("model.norm.weight"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("single_experts", [True, False], ids=["single experts", "joined experts"])
@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("family", CONFIGS)
def test_every_parameter_loads_equal(tmp_path, family, n, shards, single_experts):
    main, made = write(tmp_path, family, n, single_experts, shards, torch.float32)
    stored = {key for file in tmp_path.glob("*.safetensors") for key in load_file(file)}
    assert any("experts.0.gate_proj" in key for key in stored) == (
        single_experts and family not in ("mimo", "qwen3_5_text")
    )
    model = load_sequential(tmp_path)
    assert_equal_weights(model, main, made)
    assert model.reused == (n == 1) and model.n_future_tokens == (4 if n == 1 else 1 + n)


@pytest.mark.parametrize("family", CONFIGS)
def test_tied_embeddings_load_equal(tmp_path, family):
    """Small members of the families have no unembedding of their own."""
    tied = {"tie_word_embeddings": True}
    main, made = write(tmp_path, family, dtype=torch.float32, **tied)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    model = load_sequential(tmp_path)
    assert_equal_weights(model, main, made)
    assert model.main.lm_head.weight is model.main.get_input_embeddings().weight


@pytest.mark.parametrize("name", ["glm4_moe", "qwen3_5_full"])
@torch.no_grad()
def test_the_logits_of_module_1_are_vllm_s(fixtures, name):
    told = np.load(fixtures / "vllm" / f"{name}.npz")
    model = load_sequential(fixtures / "vllm" / name, torch.float32)
    model.family = model.family.as_engines_do()
    prompt, ahead = (torch.tensor(told[key])[None].long() for key in ("prompt", "mtp_input_ids"))
    states = dict(head_states(model, prompt, 2, ahead[:, -1:]))
    expected = torch.tensor(told["mtp_logits"])
    assert torch.equal(ahead[0, :-1], prompt[0, 1:])
    assert (model.logits(2, states[2])[0] - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (states[1][0] - torch.tensor(told["trunk_hidden"])).abs().max() < 1e-5 * states[1].max()
    swapped = model.modules_.config
    swapped.mtp_hidden_states_first = not swapped.mtp_hidden_states_first
    wrong = model.logits(2, dict(head_states(model, prompt, 2, ahead[:, -1:]))[2])[0]
    assert (wrong - expected).abs().max() > 0.1


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_a_reused_module_is_read_as_a_plain_loop_reads_it(
    tmp_path, in_float64, monkeypatch, family
):
    monkeypatch.setattr("mtp_harness.models.head_states.PIECE", 5)  # 12 tokens in three pieces
    write(tmp_path, family)
    model = load_sequential(tmp_path, heads=4, **EAGER)
    tokens = text(2, 12)
    states = dict(head_states(model, tokens))
    first = states[1]
    for row in range(2):
        for t in range(12 - 4):
            for offset, expected in one_by_one(model, tokens[row], first[row], t, 4):
                assert (states[offset][row, t] - expected).abs().max() < 1e-10


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_prompts_are_read_without_a_mask_as_they_are_alone(
    tmp_path, in_float64, masks, family, kind
):
    """With a mask of all pairs of tokens, one prompt of 32k tokens takes 2 GB more in bfloat16."""
    write(tmp_path, family)
    kinds = {"attn_implementation": kind, "experts_implementation": "eager"}
    model, tokens, lengths = load_sequential(tmp_path, **kinds), text(2, 9), [9, 4]
    alone = [head_states(model, tokens[row : row + 1, : lengths[row]], 2) for row in range(2)]
    alone = [dict(states) for states in alone]
    masks.clear()
    cache = SlotCache(model.layer_shapes(2), 2, 12, torch.float64, torch.device("cpu"))
    columns = torch.arange(9).expand(2, 9)
    cache.fill(
        torch.tensor([1, 0]), torch.where(columns < torch.tensor(lengths)[:, None], columns, 12)
    )
    first = model.head(1, model.trunk(tokens, columns, cache), None, columns, cache)
    second = model.head(2, first, torch.nn.functional.pad(tokens[:, 1:], (0, 1)), columns, cache)
    for row, length in enumerate(lengths):  # module 1 reads no true token after a prompt's last
        assert (first[row, :length] - alone[row][1][0]).abs().max() < 1e-10
        assert (second[row, : length - 1] - alone[row][2][0, :-1]).abs().max() < 1e-10
    assert bool(masks) == (kind == "sdpa") and all(mask is None for mask in masks)


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_texts_are_read_without_a_mask_also_while_a_graph_is_captured(
    tmp_path, monkeypatch, masks, family
):
    """transformers makes a mask then, and none before: compiled blocks would compile again."""
    write(tmp_path, family)
    kinds = {"attn_implementation": "sdpa", "experts_implementation": "eager"}
    model, tokens = load_sequential(tmp_path, **kinds), text(2, 9)
    expected = dict(head_states(model, tokens, 2))
    masks.clear()
    monkeypatch.setattr(masking_utils, "is_tracing", lambda *_: True)
    states = dict(head_states(model, tokens, 2))
    assert masks and all(mask is None for mask in masks)
    assert all(torch.equal(states[offset], expected[offset]) for offset in (1, 2))


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_module_1_is_the_formula_of_its_family(tmp_path, in_float64, family):
    """From the weights by hand; only the block is transformers' (MiMo: no other oracle here)."""
    main, made = write(tmp_path, family)
    base, layer, tokens, before = main.get_decoder(), made[0], text(2, 9), []
    hook = base.norm.register_forward_pre_hook(lambda _, given: before.append(given[0]))
    normed = base(tokens).last_hidden_state
    hook.remove()

    def rms(states, weight):
        scale = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + main.config.rms_norm_eps)
        return states * scale * (weight + (1 if family in QWEN else 0))

    ahead = torch.nn.functional.pad(tokens[:, 1:], (0, 1))
    embedding = rms(main.get_input_embeddings().weight[ahead], layer.enorm.weight)
    state = rms(before[0] if family == "mimo" else normed, layer.hnorm.weight)
    both = [state, embedding] if family == "mimo" else [embedding, state]
    positions = torch.arange(9).expand(2, 9)
    grids = positions.expand(3, 2, 9) if family.startswith("qwen3_5") else positions
    lowest = torch.finfo(torch.float64).min
    out = layer.mtp_block(
        torch.cat(both, -1) @ layer.eh_proj.weight.T,
        attention_mask=torch.full((9, 9), lowest, dtype=torch.float64).triu(1)[None, None],
        position_embeddings=base.rotary_emb(embedding, grids),
        position_ids=positions,
    )
    expected = main.lm_head(rms(out, layer.post_norm.weight))
    model = load_sequential(tmp_path, **EAGER)
    found = model.logits(2, dict(head_states(model, tokens, 2))[2])
    assert (found - expected).abs().max() < 1e-12


class Growing:
    """Keys and values of one row, token after token."""

    mask = None

    def __init__(self):
        self.held = {}

    def update(self, key, value, layer_idx, *_):
        if layer_idx in self.held:
            keys, values = self.held[layer_idx]
            key, value = torch.cat([keys, key], 2), torch.cat([values, value], 2)
        self.held[layer_idx] = key, value
        return key, value


def one_by_one(model, tokens, first, t, k):
    """Yield what a decoder's module makes at t: token by token, one cache, positions that go on."""
    cache, layer = Growing(), model.modules_.layers[0]

    def call(token, state, at):
        position = torch.tensor([[at]])
        embedding = model.main.get_input_embeddings()(token[None, None])
        made = layer(
            embedding,
            state[None, None],
            position_embeddings=model._rotary(embedding, position),
            attention_mask=None,  # one token sees all that is there
            position_ids=position,
            past_key_values=cache,
        )
        return layer.post_norm(made)[0, 0]

    for s in range(t + 1):
        state = call(tokens[s + 1], first[s], s)
    yield 2, state
    for offset in range(3, k + 1):
        state = call(tokens[t + offset - 1], state, t + offset - 2)
        yield offset, state


@torch.no_grad()
def test_chained_modules_are_transformers_own(tmp_path, in_float64):
    if not hasattr(MtpModel, "forward_layer"):
        pytest.skip("this transformers runs no module by itself: 5.23 does")
    main, made = write(tmp_path, "deepseek_v3", 2)
    model = load_sequential(tmp_path, **EAGER)
    theirs = MtpModel(main, 2).double().eval()
    theirs.layers.load_state_dict(made.state_dict())
    tokens = text(2, 12)
    states = main.model(tokens).last_hidden_state
    for offset, found in head_states(model, tokens):
        if offset > 1:
            ahead = torch.nn.functional.pad(tokens, (0, offset - 1))[:, offset - 1 :]
            positions = torch.arange(1, 13).expand(2, 12)
            states = theirs.forward_layer(offset - 2, states, positions, None, input_ids=ahead)
        assert (found - states).abs().max() < 1e-12
    one = load_sequential(tmp_path, heads=3, **EAGER)
    one.reused = True  # module 1 alone
    chained, reused = (dict(head_states(one, tokens, chained=way)) for way in (True, False))
    assert torch.equal(chained[2], reused[2])
    assert (chained[3] - reused[3])[:, :-3].abs().max() > 0.01


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_the_trunk_is_transformers_own(tmp_path, family):
    main, _ = write(tmp_path, family, dtype=torch.float32)
    model = load_sequential(tmp_path, **EAGER)
    tokens = text(3, 14)
    assert torch.equal(model.next_token_logits(tokens), main(tokens).logits)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_a_row_of_a_ragged_batch_is_the_row_alone(tmp_path, in_float64, family, side, attention):
    """Right padding is what the harness has, and causality takes care of it."""
    main, _ = write(tmp_path, family)
    model = load_sequential(tmp_path, **{**EAGER, "attn_implementation": attention})
    rows = [text(1, length, seed=length) for length in (3, 14, 9)]
    pads = [(14 - row.shape[1], 0) if side == "left" else (0, 14 - row.shape[1]) for row in rows]
    tokens = torch.cat(
        [torch.nn.functional.pad(row, pad, value=7) for row, pad in zip(rows, pads, strict=True)]
    )
    left = torch.tensor(pads)[:, :1]
    positions = torch.arange(14) - left if side == "left" else None
    first = model.head(1, model.trunk(tokens, positions))
    second = model.head(2, first, tokens.roll(-1, 1), positions)
    for i, row in enumerate(rows):
        here = slice(pads[i][0], pads[i][0] + row.shape[1])
        assert (model.logits(1, first[i, here]) - main(row).logits[0]).abs().max() < 1e-11
        bare = model.head(2, model.head(1, model.trunk(row)), row.roll(-1, 1))
        assert (second[i, here] - bare[0])[:-1].abs().max() < 1e-11  # the last reads another token


WITHOUT = {
    "absent": "promises 1 module and the weights hold none .keys such as model.layers.4.eh_proj.w",
    "fewer": "promises 2 modules and the weights hold 1",
    "missing": "missing: model.layers.4.eh_proj.weight; fetch",
    "left over": "unexpected: model.layers.4.odd.weight",
    "shape": r"wrong shape: model.layers.4.enorm.weight is \[3\], expected \[64\]",
    "experts": "missing: model.layers.4.mlp.experts.1.gate_proj.weight, model.layers.4.mlp.ex",
    "trunk experts": "missing: model.layers.2.mlp.experts.3.up_proj.weight; fetch",
    "uneven experts": "of another shape: model.layers.4.mlp.experts.1.gate_proj.weight; fetch",
    "uneven trunk experts": "of another shape: model.layers.2.mlp.experts.0.up_proj.weight; fetch",
    "FP8": r"not plain floating-point numbers .model.layers.4.eh_proj.weight\)",
    "packed": r"not plain floating-point numbers .model.layers.4.mlp.experts.0.up_proj.qweight\)",
    "FP8 trunk": r"floating-point numbers \(model.layers.0.mlp.up_proj.weight\), expected a quan",
    "stray head": "tie_word_embeddings is true, and the weights hold an lm_head.weight other than",
    "own head": "shared_head.head.weight is not the trunk's own",
    "dedicated": "mtp_use_dedicated_embeddings is true",
    "depth": "num_hidden_layers is None, expected the number of the trunk's layers",
    "trunk missing": "missing: model.layers.1.input_layernorm.weight",
    "trunk left over": "unexpected: model.layers.1.odd.weight",
    "trunk shape": r"wrong shape: model.norm.weight is \[3\], expected \[64\]",
}


@pytest.mark.parametrize("damage", WITHOUT)
def test_what_is_wrong_is_one_sentence(tmp_path, monkeypatch, damage):
    """Said by `inspect` and by loading, before weights are loaded."""
    main, _ = write(tmp_path, "glm4_moe", dtype=torch.float32)
    at = f"model.layers.{main.config.num_hidden_layers}."
    path, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    tensors, content = load_file(path), json.loads(config.read_text())
    if damage == "absent":
        tensors = {key: one for key, one in tensors.items() if not key.startswith(at)}
    elif damage == "fewer":
        content["num_nextn_predict_layers"] = 2
    elif damage == "missing":
        del tensors[at + "eh_proj.weight"]
    elif damage == "left over":
        tensors[at + "odd.weight"] = torch.zeros(2)
    elif damage == "shape":
        tensors[at + "enorm.weight"] = torch.zeros(3)
    elif damage == "experts":
        for part in ("gate_proj", "down_proj"):
            del tensors[at + f"mlp.experts.1.{part}.weight"]
    elif damage == "trunk experts":
        del tensors["model.layers.2.mlp.experts.3.up_proj.weight"]
    elif damage == "uneven experts":
        tensors[at + "mlp.experts.1.gate_proj.weight"] = torch.zeros(31, 64)
    elif damage == "uneven trunk experts":
        tensors["model.layers.2.mlp.experts.0.up_proj.weight"] = torch.zeros(32, 63)
    elif damage == "FP8 trunk":
        tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(96, 64).to(torch.float8_e4m3fn)
    elif damage == "stray head":
        content["tie_word_embeddings"] = True
    elif damage == "FP8":
        tensors[at + "eh_proj.weight"] = torch.zeros(64, 128, dtype=torch.float8_e4m3fn)
    elif damage == "packed":
        name = at + "mlp.experts.0.up_proj."
        del tensors[name + "weight"]
        tensors[name + "qweight"] = torch.zeros(8, 64, dtype=torch.int32)
    elif damage == "own head":
        tensors[at + "shared_head.head.weight"] = torch.zeros(200, 64)
    elif damage == "dedicated":
        content["mtp_use_dedicated_embeddings"] = True
    elif damage == "depth":
        del content["num_hidden_layers"]
    elif damage == "trunk missing":
        del tensors["model.layers.1.input_layernorm.weight"]
    elif damage == "trunk left over":
        tensors["model.layers.1.odd.weight"] = torch.zeros(2)
    elif damage == "trunk shape":
        tensors["model.norm.weight"] = torch.zeros(3)
    save_file(tensors, path, metadata={"format": "pt"})
    config.write_text(json.dumps(content))

    def refuse(*_, **__):
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(ValueError, match=WITHOUT[damage]) as caught:
        load_sequential(tmp_path)
    assert "\n" not in str(caught.value)
    assert detect(str(tmp_path)).name == "sequential"
    said = [found for found in summarise(str(tmp_path)).problems if "tokenizer" not in found]
    assert len(said) == 1 and re.search(WITHOUT[damage].removesuffix("; fetch"), said[0])


def test_inspect_counts_what_all_modules_share_once(tmp_path):
    main, made = write(tmp_path, "qwen3_5_text", 2, dtype=torch.float32)
    config = tmp_path / "config.json"
    content = json.loads(config.read_text())
    tensors = load_file(tmp_path / "model.safetensors")
    found = summarise_as_sequential(tmp_path)
    assert found.problems == [] and found.modules == 2 and found.n_future_tokens == 3
    blocks = sum(one.numel() for layer in made for one in layer.mtp_block.parameters())
    parts = (made[0].eh_proj, made[0].enorm, made[0].hnorm, made[0].post_norm)
    shared = sum(one.numel() for part in parts for one in part.parameters())
    assert f"parameters of modules: {blocks + shared:,}" in found.notes
    del tensors["mtp.fc.weight"], tensors["mtp.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (problem,) = summarise_as_sequential(tmp_path).problems
    assert "missing: mtp.fc.weight, mtp.layers.1.mlp.up_proj.weight;" in problem
    config.write_text(json.dumps({**content, "mtp_num_hidden_layers": 3}))
    assert "promises 3 modules" in summarise_as_sequential(tmp_path).problems[0]


def summarise_as_sequential(folder):
    """As `inspect`, whether or not trunks of this kind are detected as sequential."""
    summary = Summary(path=str(folder), layout=SEQUENTIAL.name)
    SEQUENTIAL.describe(summary, folder)
    return summary


@pytest.mark.parametrize("family", CONFIGS)
def test_the_key_of_a_weight_is_the_way_back(tmp_path, family):
    main, made = write(tmp_path, family, 2, False)
    row, n_trunk = FAMILIES[family], main.config.num_hidden_layers
    found = {
        row.key(k, name, n_trunk): one
        for k, layer in enumerate(made)
        for name, one in layer.state_dict().items()
    }
    written = load_file(tmp_path / "model.safetensors")
    assert found and all(torch.equal(written[key], one) for key, one in found.items())


@torch.no_grad()
def test_a_trunk_in_fp8_loads_where_transformers_loads_it(tmp_path, monkeypatch):
    """On the CPU transformers unpacks it; the modules are plain, and stay as they are stored."""
    monkeypatch.setitem(BASE, "hidden_size", 128)
    main, made = write(tmp_path, "mimo", dtype=torch.bfloat16)
    tensors, weights = load_file(tmp_path / "model.safetensors"), dict(main.named_parameters())
    for key in [key for key in tensors if key.startswith("model.layers.") and "proj.w" in key]:
        scale = tensors[key].float().abs().max() / torch.finfo(torch.float8_e4m3fn).max
        tensors[key] = (tensors[key] / scale).to(torch.float8_e4m3fn)
        tensors[f"{key}_scale_inv"] = scale.reshape(1, 1)  # one block
        weights[key].copy_(tensors[key].float() * scale)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = tmp_path / "config.json"
    packing = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [128] * 2,
    }
    content = json.loads(config.read_text()) | {"quantization_config": packing}
    config.write_text(json.dumps(content))
    assert "quantised" in "".join(summarise(str(tmp_path)).notes)
    model = load_sequential(tmp_path)
    found = model.modules_.layers.state_dict()
    assert all(torch.equal(found[name], one) for name, one in made.state_dict().items())
    assert not hasattr(model.modules_.config, "quantization_config")  # a GPU would pack them
    unpacked = dict(model.main.named_parameters()) | {"model.norm.weight": model.norm.weight}
    if torch.cuda.is_available():  # it keeps them packed, and says nothing of one that is missing
        return
    assert all(torch.equal(unpacked[name], one) for name, one in weights.items())
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing: model.layers.0.mlp.up_proj.weight"):
        load_sequential(tmp_path)


@pytest.mark.parametrize("kind", ["Qwen3_5", "Qwen3_5Moe"])
def test_a_checkpoint_with_a_vision_tower_gives_its_text_model(tmp_path, kind):
    name = {"Qwen3_5": "qwen3_5", "Qwen3_5Moe": "qwen3_5_moe"}[kind]
    main, made = write(tmp_path, f"{name}_text", dtype=torch.float32)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    whole = {
        "model_type": name,
        "architectures": [f"{kind}ForConditionalGeneration"],
        "text_config": content,
        "vision_config": {"model_type": name, "depth": 1},
    }
    path.write_text(json.dumps(whole))
    weights = tmp_path / "model.safetensors"
    tensors = {
        key.replace("model.", "model.language_model.", 1): one
        for key, one in load_file(weights).items()
    }
    tensors["model.visual.patch_embed.proj.weight"] = torch.zeros(2, 2)
    save_file(tensors, weights, metadata={"format": "pt"})
    model = load_sequential(tmp_path, **EAGER)
    tokens = text(2, 9)
    assert torch.equal(model.next_token_logits(tokens), main(tokens).logits)
    assert_equal_weights(model, main, made)
    assert summarise(str(tmp_path)).trunk_layers == len(main.model.layers)


def links_as_the_cache_of_the_hub(folder, blobs):
    """Put a folder's files where the hub's cache has them, and links in their place."""
    blobs.mkdir()
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / f"{i:064x}")
        path.symlink_to(f"../{blobs.name}/{i:064x}")


def test_links_as_in_the_cache_of_the_hub_load_and_a_broken_one_is_named(tmp_path):
    folder = tmp_path / "snapshot"
    main, made = write(folder, "mimo", dtype=torch.float32, shards=True)
    links_as_the_cache_of_the_hub(folder, tmp_path / "blobs")
    assert_equal_weights(load_sequential(folder), main, made)
    shard = folder / "model-00002-of-00002.safetensors"
    whole = shard.read_bytes()
    shard.resolve().write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="model-00002-of-00002.safetensors is truncated"):
        load_sequential(folder)
    shard.resolve().unlink()
    with pytest.raises(FileNotFoundError, match="has no model-00002-of-00002.safetensors, exp"):
        load_sequential(folder)


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    """Without its files transformers makes an empty one of the model's type."""
    write(tmp_path, "qwen3_5_text", dtype=torch.float32)
    with pytest.raises(ValueError, match="has no vocabulary, expected tokenizer.json"):
        load_tokenizer(str(tmp_path))
    byte_tokenizer(512).save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).encode("a")[-1] == ord("a")


def test_the_harness_s_own_way_to_the_trunk_gives_the_same(tmp_path):
    """`--model hf` loads the folder without a word about the modules: same logits, by AutoModel."""
    write(tmp_path, "glm4_moe", dtype=torch.float32)
    model = load_sequential(tmp_path, **EAGER)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, **EAGER).eval()
    tokens = text(1, 9)
    with torch.no_grad():
        assert torch.equal(model.next_token_logits(tokens), theirs(tokens).logits)


@pytest.mark.parametrize(
    ("content", "modules"),
    [
        ({}, None),
        ({"num_nextn_predict_layers": None}, None),
        ({"num_nextn_predict_layers": 0}, 0),
        ({"num_nextn_predict_layers": 0, "num_mtp_layers": 3}, 3),
        ({"text_config": {"mtp_num_hidden_layers": 1}}, 1),
        ({"text_config": {"mtp_num_hidden_layers": 0}}, 0),
    ],
)
def test_a_configuration_that_says_0_modules_is_not_one_that_says_nothing(content, modules):
    assert promised(content) == modules


def test_each_row_has_a_checkpoint_here():
    """A family is a row and a fixture: see `family_checkpoints.CONFIGS`."""
    assert FAMILIES.keys() - {"qwen3_5", "qwen3_5_moe"} == CONFIGS.keys()
