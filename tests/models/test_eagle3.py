"""EAGLE-3 drafters: logits and drafts of every step are those of vLLM and of speculators."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mtp_harness.commands.inspect import main as inspect
from mtp_harness.commands.measure import main as measure_command
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.models.head_states import head_states
from mtp_harness.models.inspection import summarise
from mtp_harness.models.load import load_model, n_future_tokens
from mtp_harness.probes.encoding import Encoded
from mtp_harness.probes.head_logprobs import TextReading
from mtp_harness.probes.heads import _by_offset, measure
from mtp_harness.probes.teacher_forced import Reading, read_both

from .drafts import accept_as_vllm, decode_as_vllm, to_text
from .family_checkpoints import in_float64, write

FOLDERS = {"eagle3": 3, "eagle3_taps": 2, "spec_eagle3": 3, "spec_eagle3_nbr": 3}
"""And how many tokens vLLM drafted at most."""


@pytest.fixture(scope="module")
def data(shared_data):
    folder = shared_data / "drafters"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


@pytest.fixture(scope="module", params=FOLDERS)
def case(request, data):
    """A trunk with a drafter, its folder, and how many drafts were made."""
    model = load_model(str(data / "trunk"), drafter=str(data / request.param))
    return model, data / request.param, FOLDERS[request.param]


def test_a_pickled_file_holds_the_same(data):
    """`eagle3_bin` has the weights of `eagle3` in the form of its authors."""
    one, other = (
        load_model(str(data / "trunk"), drafter=str(data / name)).state_dict()
        for name in ("eagle3", "eagle3_bin")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def error(model, logits, expected):
    """Return the largest difference in the drafter's vocabulary, as a share of the largest."""
    expected = torch.tensor(expected)
    assert torch.isinf(logits).sum(-1).eq(logits.shape[-1] - expected.shape[-1]).all()
    return float((logits[..., model.ids] - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_logits_of_every_drafting_step_are_vllm_s(case):
    model, place, n_drafts = case
    told = np.load(place / f"vllm_k{n_drafts}.npz")
    following = np.concatenate([told["output"][:1], told["drafts"][0]])
    prompt, following = (torch.tensor(ids)[None] for ids in (told["prompt"], following))
    states = dict(head_states(model, prompt, 1 + n_drafts, following))
    assert error(model, model.logits(2, states[2])[0], told["prefill_logits"]) < 1e-5
    for i in range(1, n_drafts):
        assert (
            error(model, model.logits(2 + i, states[2 + i])[:, -1], told[f"step{i}_logits"]) < 1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize("name", ["spec_eagle3", "spec_eagle3_nbr"])
def test_teacher_forced_logits_are_those_of_speculators(data, name):
    model = load_model(str(data / "trunk"), drafter=str(data / name))
    told = np.load(data / name / "speculators.npz")
    tokens = torch.tensor(told["tokens"])[None]
    for offset, state in head_states(model, tokens[:, :-1], 4, tokens[:, -1:]):
        if offset > 1:
            assert error(model, model.logits(offset, state)[0], told["logits"][offset - 2]) < 1e-5


def test_drafts_of_every_step_are_vllm_s(case, monkeypatch):
    model, place, n_drafts = case
    decode_as_vllm(model, np.load(place / f"vllm_k{n_drafts}.npz"), n_drafts, monkeypatch)


def test_texts_and_accepted_drafts_are_vllm_s(case):
    model, place, n_drafts = case
    accept_as_vllm(model, place / f"runs_k{n_drafts}.json", n_drafts)


WIDTH, HEADS, DIM, WIDE, VOCABULARY, DRAFTS = 64, 4, 16, 96, 200, 120
SWITCHES = ("norm_before_residual", "norm_before_fc", "fc_norm", "norm_output")


def write_eagle3(folder, taps, **switches):
    """Write a random drafter of two layers as speculators would; return its tensors."""
    torch.manual_seed(5)
    narrow = 2 * DIM
    shapes = {"fc.weight": (WIDTH, len(taps) * WIDTH), "norm.weight": (WIDTH,)}
    shapes |= {"lm_head.weight": (DRAFTS, WIDTH), "layers.0.hidden_norm.weight": (WIDTH,)}
    for i in (0, 1):
        at, read = f"layers.{i}.", WIDTH * (2 - i)
        shapes |= {f"{at}self_attn.{p}_norm.weight": (DIM,) for p in "qk"}
        shapes |= {f"{at}self_attn.{p}_proj.weight": (narrow, read) for p in "kv"}
        shapes |= {f"{at}self_attn.q_proj.weight": (WIDTH, read)}
        shapes |= {f"{at}self_attn.o_proj.weight": (WIDTH, WIDTH)}
        shapes |= {f"{at}mlp.{p}_proj.weight": (WIDE, WIDTH) for p in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj.weight": (WIDTH, WIDE)}
        shapes |= {f"{at}{p}_layernorm.weight": (WIDTH,) for p in ("input", "post_attention")}
    if switches.get("norm_before_fc"):
        shapes["input_norm.weight"] = (len(taps) * WIDTH,)
    if switches.get("fc_norm"):
        shapes |= {f"fc_norm.{i}.weight": (WIDTH,) for i in range(len(taps))}
    tensors = {
        key: 1 + 0.2 * torch.randn(shape) if len(shape) == 1 else 0.15 * torch.randn(shape)
        for key, shape in shapes.items()
    }
    ids = torch.randperm(VOCABULARY)[:DRAFTS].sort().values
    said = torch.zeros(VOCABULARY, dtype=torch.bool)
    said[ids] = True
    layer = {"model_type": "qwen3", "vocab_size": VOCABULARY, "hidden_size": WIDTH}
    layer |= {"num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": 2}
    layer |= {"head_dim": DIM, "intermediate_size": WIDE, "rms_norm_eps": 1e-6}
    layer |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    content = {"speculators_model_type": "eagle3", "transformer_layer_config": layer}
    content |= {"eagle_aux_hidden_state_layer_ids": taps, **dict.fromkeys(SWITCHES, False)}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(content | switches))
    tables = {"d2t": ids - torch.arange(DRAFTS), "t2d": said}
    save_file(tensors | tables, folder / "model.safetensors")
    return {key: tensor.double() for key, tensor in tensors.items()}, ids


def rms(x, weight):
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def turned(x):
    """Rotate [T, heads, d] by the positions 0..T-1."""
    angle = torch.arange(len(x))[:, None] / 10000.0 ** (torch.arange(0, DIM, 2) / DIM)
    cos, sin = (f(angle.double())[:, None] for f in (torch.cos, torch.sin))
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attended(w, at, x):
    """Return causal attention over rows [T, .] of one layer."""
    q, k, v = ((x @ w[f"{at}self_attn.{p}_proj.weight"].T).view(len(x), -1, DIM) for p in "qkv")
    q, k = (turned(rms(y, w[f"{at}self_attn.{p}_norm.weight"])) for y, p in ((q, "q"), (k, "k")))
    out = torch.zeros_like(q)
    for t in range(len(x)):
        for h in range(HEADS):
            share = (k[: t + 1, h // 2] @ q[t, h] / math.sqrt(DIM)).softmax(0)
            out[t, h] = share @ v[: t + 1, h // 2]
    return out.flatten(1) @ w[f"{at}self_attn.o_proj.weight"].T


def plain_rows(w, switches, embeddings, states):
    """Return what the drafter makes of rows at the positions 0.., before its last norm."""
    normed = rms(states, w["layers.0.hidden_norm.weight"])
    both = torch.cat([rms(embeddings, w["layers.0.input_layernorm.weight"]), normed], -1)
    x = attended(w, "layers.0.", both) + (
        normed if switches.get("norm_before_residual") else states
    )
    for i in (0, 1):
        at = f"layers.{i}."
        if i:
            x = x + attended(w, at, rms(x, w[f"{at}input_layernorm.weight"]))
        y = rms(x, w[f"{at}post_attention_layernorm.weight"])
        gate, up = (y @ w[f"{at}mlp.{p}_proj.weight"].T for p in ("gate", "up"))
        x = x + (gate * gate.sigmoid() * up) @ w[f"{at}mlp.down_proj.weight"].T
    return x


@pytest.mark.parametrize("switches", [(), SWITCHES[:2], SWITCHES[2:]], ids=str)
@torch.no_grad()
def test_a_drafter_on_a_hybrid_trunk_is_a_plain_loop_over_rows(tmp_path, switches):
    """Chains of 3 from every position; taps are transformers' hidden states."""
    switches, taps = dict.fromkeys(switches, True), [0, 2, 4]
    with in_float64():
        main, _ = write(tmp_path / "trunk", "qwen3_5_text")
        w, ids = write_eagle3(tmp_path / "drafter", taps, **switches)
        tokens = torch.randint(VOCABULARY, (1, 9))
        inputs = []
        main.model.norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        seen = [*main(tokens[:, :6], output_hidden_states=True).hidden_states[:4], inputs[0]]
        model = load_model(str(tmp_path / "trunk"), drafter=str(tmp_path / "drafter"))
        read = head_states(model, tokens[:, :6], 4, tokens[:, 6:])
        found = {k: model.logits(k, state)[0] for k, state in read}
    read = torch.cat([seen[tap][0] for tap in taps], -1)
    if "norm_before_fc" in switches:
        read = rms(read, w["input_norm.weight"])
    if "fc_norm" in switches:
        parts = zip(read.chunk(3, -1), range(3), strict=True)
        read = torch.cat([rms(part, w[f"fc_norm.{i}.weight"]) for part, i in parts], -1)
    fused, table = read @ w["fc.weight"].T, main.get_input_embeddings().weight
    for t in range(6):
        states = fused[: t + 1]
        for offset in (2, 3, 4):
            last = plain_rows(w, switches, table[tokens[0, 1 : len(states) + 1]], states)[-1:]
            normed = rms(last, w["norm.weight"])
            states = torch.cat([states, normed if "norm_output" in switches else last])
            expected = torch.full((VOCABULARY,), -math.inf).double()
            expected[ids] = (normed @ w["lm_head.weight"].T)[0]
            assert torch.allclose(found[offset][t], expected, atol=1e-5)


def test_the_text_on_a_hybrid_trunk_is_that_of_plain_decoding(tmp_path):
    prompts = [[1, 19, 1, 25, 7], [3], [9, 9, 4, 2, 8, 30, 31]]
    with in_float64():
        main, _ = write(tmp_path / "trunk", "qwen3_5_text")
        write_eagle3(tmp_path / "drafter", [1, 2, 4])
        model = load_model(str(tmp_path / "trunk"), heads=5, drafter=str(tmp_path / "drafter"))
        asked = [Request(prompt, 16, key=i) for i, prompt in enumerate(prompts)]
        for k in (1, 2, 5):
            answers = Engine(model, k, [], to_text, slots=2).generate(asked)
            for prompt, answer in zip(prompts, answers, strict=True):
                text = torch.tensor([[*prompt, *answer.tokens]])
                with torch.no_grad():
                    choices = main(text).logits[0].argmax(-1).tolist()
                assert choices[len(prompt) - 1 : -1] == answer.tokens


WRONG = {
    "missing": r"missing: fc\.weight; name another",
    "left over": r"unexpected: odd\.weight",
    "width": r"wrong shape: fc\.weight is \[64, 128\], expected \[64, 192\]",
    "packed": r"not stored as plain floating-point numbers: fc\.weight",
    "vocabulary": "vocab_size is 100 in its config.json, expected 512, the trunk's",
    "t2d": r"t2d is \[400\], expected \[512\]",
    "t2d says": "t2d names other tokens than d2t",
    "d2t": "d2t leads to ids from 0 to 1219, expected different ones below 512",
    "taps": r"layer_ids is \[2, 4, 9\], expected different numbers from 0 to 8",
    "twice": r"layer_ids is \[2, 2, 5\], expected different numbers",
    "kind": "its layer is of model_type mamba, expected llama or qwen3",
    "residual": "does not say norm_before_residual",
    "target": r"drafts for Qwen3ForCausalLM \(trunk\), and .* is LlamaForCausalLM",
    "no layers": "use_aux_hidden_state is false",
}


@pytest.mark.parametrize("damage", WRONG)
def test_what_does_not_fit_is_one_sentence_before_weights_load(data, tmp_path, monkeypatch, damage):
    trunk, drafter = str(data / "trunk"), tmp_path / "drafter"
    shutil.copytree(data / "spec_eagle3", drafter)
    path, config = drafter / "model.safetensors", drafter / "config.json"
    tensors, content = load_file(path), json.loads(config.read_text())
    if damage == "missing":
        del tensors["fc.weight"]
    elif damage == "left over":
        tensors["odd.weight"] = torch.zeros(2)
    elif damage == "width":
        tensors["fc.weight"] = torch.zeros(64, 128)
    elif damage == "packed":
        tensors["fc.weight"] = torch.zeros(64, 192, dtype=torch.int32)
    elif damage == "vocabulary":
        content["transformer_layer_config"]["vocab_size"] = 100
    elif damage == "t2d":
        tensors["t2d"] = tensors["t2d"][:400].clone()
    elif damage == "t2d says":
        tensors["t2d"][tensors["d2t"][0]] = False
    elif damage == "d2t":
        tensors["d2t"][:] = 900
        tensors["d2t"][0] = 0
    elif damage in ("taps", "twice"):
        content["eagle_aux_hidden_state_layer_ids"] = [2, 4, 9] if damage == "taps" else [2, 2, 5]
    elif damage == "kind":
        content["transformer_layer_config"]["model_type"] = "mamba"
    elif damage == "residual":
        del content["norm_before_residual"]
    elif damage == "target":
        content["speculators_config"]["verifier"]["architectures"] = ["Qwen3ForCausalLM"]
    elif damage == "no layers":
        content["eagle_config"] = {"use_aux_hidden_state": False}
    save_file(tensors, path)
    config.write_text(json.dumps(content))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    with pytest.raises(ValueError, match=WRONG[damage]) as caught:
        load_model(trunk, drafter=str(drafter))
    assert "\n" not in str(caught.value)
    problems = summarise(trunk, drafter=str(drafter)).problems
    assert any(str(caught.value) == problem for problem in problems)


def test_a_sound_drafter_has_no_problems(data):
    found = summarise(str(data / "trunk"), drafter=str(data / "eagle3_bin"))
    assert found.problems == [] and found.n_future_tokens == 4 and found.layout == "eagle3"
    assert n_future_tokens(str(data / "trunk"), 8, str(data / "eagle3")) == 8


def test_inspect_says_what_it_is_and_counts_no_tables(data, capsys):
    assert inspect([str(data / "trunk"), "--drafter", str(data / "eagle3")]) == 0
    said = capsys.readouterr().out
    assert "n = 4 (offsets 1 to 4), by one module on a trunk of 8 layers" in said
    model = load_model(str(data / "trunk"), drafter=str(data / "eagle3"))
    total = sum(one.numel() for one in model.parameters())
    own = sum(one.numel() for one in model.drafter.parameters())
    assert f"parameters    {total:,}\n" in said and f"of the drafter: {own:,}\n" in said


def test_so_many_heads_as_are_asked_for(data):
    place, drafter = str(data / "trunk"), str(data / "eagle3")
    for heads in (2, 3, 8):
        assert load_model(place, heads=heads, drafter=drafter).n_future_tokens == heads
    assert load_model(place, heads=2, drafter=str(data / "medusa")).n_future_tokens == 4


def test_measure_says_what_the_drafter_cannot_say(data, capsys, tmp_path):
    tokenizer, out = str(data / "trunk"), tmp_path / "card.json"
    small = "--windows 1 --window 32 --prompts 1 --prompt-tokens 8 --new-tokens 4 --trials 1"
    asked = [tokenizer, "--drafter", str(data / "eagle3"), *small.split(), "-o", str(out)]
    assert measure_command(asked) == 0
    said, heads = capsys.readouterr().out, json.loads(out.read_text())["heads"]
    # This tokenizer knows no word of the text: all of it is one token, which the drafter lacks.
    assert heads["unsayable"] == [0, 1, 1, 1] and heads["bits_per_token"][1:] == [None] * 3
    assert "  tokens it cannot draft" in said and " inf" not in said


def test_a_short_trunk_has_no_default_taps(data, tmp_path):
    shutil.copytree(data / "eagle3", tmp_path / "drafter")
    with pytest.raises(ValueError, match="no default for a trunk of 3 layers"):
        load_model(str(data / "trunk_q3"), drafter=str(tmp_path / "drafter"))


@torch.no_grad()
def test_what_a_drafter_cannot_say_is_wrong_and_its_loss_is_apart(data):
    """Sums of `mtp_heads` by plain loops over the logits."""
    model = load_model(str(data / "trunk"), drafter=str(data / "eagle3"))
    run = json.loads((data / "trunk" / "runs_k0.json").read_text())[0]
    tokens = torch.tensor([[*run["prompt"], *run["tokens"]][:60]])
    states, length = dict(head_states(model, tokens, 4)), 60 - 4
    encoded = Encoded(tokens[0], torch.arange(60) > 0, torch.zeros(60, dtype=torch.int64), "")
    read = [Reading(*(part[0, :59] for part in one)) for one in read_both(model, tokens)]
    found = measure(TextReading(encoded, *read, position=torch.arange(59)))
    for offset in (1, 2, 3, 4):
        right, nats, said = 0, 0.0, 0
        for t in range(length):
            logits, target = model.logits(offset, states[offset])[0, t], int(tokens[0, t + offset])
            right += int(logits.argmax()) == target
            if offset == 1 or target in model.ids.tolist():
                said += 1
                nats += math.log(float(logits.double().exp().sum())) - float(logits[target])
        index = offset - 1
        assert (found["right"][index], found["n_said"][index]) == (right, said)
        assert found["nats"][index] == pytest.approx(nats, rel=1e-5)
        assert said == length if offset == 1 else 0 < said < length
    assert found["right"][0] > 40 and found["right"][1] > 0
    table = {(c.place, c.metric): c.value for c in _by_offset([found | {"n_bytes": 60}])}
    assert table[(2,), "unsayable"] == pytest.approx(1 - found["n_said"][1] / length)
    assert table[(2,), "cross_entropy"] == pytest.approx(found["nats"][1] / found["n_said"][1])
    assert table[(1,), "unsayable"] == 0
