"""`mtp-harness inspect`: what it finds, all problems at once, and whether heads are plausible."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from mtp_harness.commands import inspect as inspect_module
from mtp_harness.commands.inspect import main
from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM, MultiHeadModel
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.load import SHIPPED_MODELS, resolve
from mtp_harness.models.plausibility import default_text, probe_heads

from ..models.conftest import no_network  # noqa: F401  no test here may reach for the network
from ..models.meta_reference import SMALL, random_weights, write

TINY = {
    "vocab_size": 256,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 700,
}


@pytest.fixture
def folder(tmp_path):
    """A sound byte model with n = 3 and one unembedding per head."""
    config = MTPLlamaConfig(**TINY, n_future_tokens=3, replicated_unembeddings=True)
    MTPLlamaForCausalLM(config).save_pretrained(tmp_path / "m")
    byte_tokenizer(700).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def report(capsys, *arguments):
    status = main([*map(str, arguments), "--json"])
    content = json.loads(capsys.readouterr().out)
    assert status == (0 if content["ok"] else 1)
    return content


def test_meta_release(meta_folder, capsys):
    found = report(capsys, meta_folder)
    assert found["ok"] and found["problems"] == []
    assert (found["layout"], found["n_future_tokens"], found["trunk_layers"]) == ("meta", 4, 2)
    assert (found["width"], found["ffn_width"], found["vocabulary"]) == (32, 96, 420)
    assert (found["attention_heads"], found["kv_heads"], found["context"]) == (4, 2, 4096)
    block = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 96 + 2 * 32  # wq wo, wk wv, w1 w2 w3, norms
    assert found["parameters"] == {
        "embedding": 420 * 32,
        "trunk": 2 * block,
        "heads": [block] * 4,
        "norm": 32,
        "unembedding": 420 * 32,
        "total": 6 * block + 2 * 420 * 32 + 32,
    }
    assert found["stored_bytes"] == {"float32": 4 * found["parameters"]["total"]}
    assert found["files"] == ["consolidated.pth"]
    assert found["tokenizer"] == f"{meta_folder.parent / 'tokenizer.model'} (420 tokens)"


def test_folder_of_ours(folder, capsys):
    found = report(capsys, folder)
    assert found["ok"] and found["layout"] == "mtp_llama"
    assert (found["n_future_tokens"], found["trunk_layers"]) == (3, 2)
    block = 2 * 16 * 16 + 2 * 8 * 16 + 3 * 16 * 24 + 2 * 16
    assert found["parameters"]["heads"] == [block, block + 256 * 16, block + 256 * 16]
    assert found["parameters"]["trunk"] == 2 * block
    parts = {k: v for k, v in found["parameters"].items() if k not in ("total", "heads")}
    total = sum(parts.values()) + sum(found["parameters"]["heads"])
    assert found["parameters"]["total"] == total
    model = MTPLlamaForCausalLM.from_pretrained(folder)
    assert total == sum(p.numel() for p in model.parameters())
    assert "tokenizer.json (256 tokens)" in found["tokenizer"]


def test_text_for_people(folder, meta_folder, capsys):
    assert main([str(folder)]) == main([str(meta_folder)]) == 0
    said = capsys.readouterr().out
    assert "n = 3 (offsets 1 to 3), one layer each on a trunk of 2 layers" in said
    assert "n = 4 (offsets 1 to 4), one layer each on a trunk of 2 layers" in said
    assert said.count("no problems found") == 2
    rows = [line for line in said.splitlines() if line.startswith("  ")]
    assert {line[:16].rstrip().islower() for line in rows} == {True}  # labels, then one column
    assert {line[15] for line in rows} == {" "} and all(line[16] != " " for line in rows)


def test_all_problems_of_a_release_at_once(tmp_path, capsys):
    weights = random_weights(SMALL)
    weights["layers.0.attention.wv.weight"][1, 1] = float("nan")
    weights["extra_heads.2.ffn_norm.weight"][0] = float("inf")
    weights["norm.weight"] = torch.ones(31)
    weights["norm.bias"] = torch.ones(32)
    del weights["layers.2.attention.wo.weight"]
    folder = write(tmp_path / "m", {**SMALL, "n_future_tokens": 3}, weights)
    found = report(capsys, folder)
    assert found["not_finite"] == ["layers.0.attention.wv.weight", "extra_heads.2.ffn_norm.weight"]
    assert found["wrong_shapes"] == ["norm.weight is [31], expected [32]"]
    assert "layers.2.attention.wo.weight" in found["missing"]
    assert "norm.bias" in found["unexpected"]
    assert "extra_heads.2.attention.wq.weight" in found["unexpected"]
    text = " | ".join(found["problems"])
    for fact in (
        "n_future_tokens=3",
        "no tokenizer.model",
        "NaN",
        "missing",
        "unexpected",
        "shape",
    ):
        assert fact in text
    assert main([str(folder)]) == 1
    said = capsys.readouterr().out
    assert f"{len(found['problems'])} problem(s):" in said


def test_release_without_params_is_still_described(meta_folder, capsys):
    (meta_folder / "params.json").write_text('{"dims": 3}')
    found = report(capsys, meta_folder)
    assert any("dims (near dim)" in problem for problem in found["problems"])
    assert found["stored_bytes"] and found["n_future_tokens"] is None


def test_all_problems_of_a_folder_at_once(folder, capsys):
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][0] = float("nan")
    weights["spare"] = torch.ones(2)
    weights["model.norm.weight"] = torch.ones(15)
    del weights["extra_lm_heads.1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    found = report(capsys, folder)
    assert found["missing"] == ["extra_lm_heads.1.weight"] and found["unexpected"] == ["spare"]
    assert found["wrong_shapes"] == ["model.norm.weight is [15], expected [16]"]
    assert found["not_finite"] == ["lm_head.weight"] and found["tokenizer"] is None
    assert len(found["problems"]) == 5


def test_keys_without_a_number_are_unexpected_like_others(folder, capsys):
    path = folder / "model.safetensors"
    odd = {"extra_heads.x.weight": torch.zeros(2), "model.layers.y.weight": torch.zeros(2)}
    save_file(load_file(path) | odd, path, metadata={"format": "pt"})
    assert report(capsys, folder)["unexpected"] == ["extra_heads.x.weight", "model.layers.y.weight"]


def test_truncated_weights_and_bad_config_are_both_said(folder, capsys):
    (folder / "model.safetensors").write_bytes(b"x" * 9)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_future_tokens": 9}))
    problems = report(capsys, folder)["problems"]
    assert any("truncated" in p for p in problems) and any(
        "n_future_tokens=9" in p for p in problems
    )


def test_ordinary_model(tmp_path, capsys):
    LlamaForCausalLM(LlamaConfig(**TINY)).save_pretrained(tmp_path)
    byte_tokenizer(700).save_pretrained(tmp_path)
    found = report(capsys, tmp_path)
    assert found["ok"] and found["layout"] == "transformers"
    assert (found["n_future_tokens"], found["architecture"]) == (1, "LlamaForCausalLM")
    assert found["parameters"]["total"] > 0
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_nextn_predict_layers": 1}))
    assert "not loaded: n = 1" in report(capsys, tmp_path, "--probe")["notes"][0]


def test_tokenizer_larger_than_the_model(folder, meta_folder, capsys):
    tokenizer = byte_tokenizer(700)
    tokenizer.add_tokens(["<added>"])
    tokenizer.save_pretrained(folder)
    (problem,) = report(capsys, folder)["problems"]
    assert "ids up to 256 but the model has a vocabulary of 256" in problem
    params = json.loads((meta_folder / "params.json").read_text())
    (meta_folder / "params.json").write_text(json.dumps({**params, "vocab_size": 419}))
    problems = report(capsys, meta_folder)["problems"]
    assert any("420 pieces" in problem and "vocabulary of 419" in problem for problem in problems)


def test_padding_token_beyond_an_ordinary_models_vocabulary_is_a_note(tmp_path, capsys):
    LlamaForCausalLM(LlamaConfig(**TINY)).save_pretrained(tmp_path)
    tokenizer = byte_tokenizer(700)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(tmp_path)
    found = report(capsys, tmp_path)
    assert found["ok"] and "padding token has the id 256" in found["notes"][0]


def test_a_tokenizer_larger_than_an_ordinary_model_is_a_problem(tmp_path, capsys):
    LlamaForCausalLM(LlamaConfig(**TINY)).save_pretrained(tmp_path)
    tokenizer = byte_tokenizer(700)
    tokenizer.add_tokens([f"<added {i}>" for i in range(10)])
    tokenizer.save_pretrained(tmp_path)
    (problem,) = report(capsys, tmp_path)["problems"]
    assert "ids up to 265 but the model has a vocabulary of 256" in problem


def test_one_broken_params_json_is_one_problem(meta_folder, capsys):
    (meta_folder / "params.json").write_text("{")
    problems = report(capsys, meta_folder)["problems"]
    assert len(problems) == 1 and "params.json is not valid JSON" in problems[0]


@pytest.mark.parametrize("layers", [7, 10**8])
def test_unknown_vocabulary_is_left_out(meta_folder, capsys, layers):
    params = json.loads((meta_folder / "params.json").read_text())
    changes = {"vocab_size": -1, "n_layers": layers}
    (meta_folder / "params.json").write_text(json.dumps({**params, **changes}))
    found = report(capsys, meta_folder)
    assert found["vocabulary"] == (420 if layers == 7 else None)
    assert len([p for p in found["problems"] if "vocabulary" in p]) == 0


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "does not exist"),
        (b"\xff\xfe\x00", "is not UTF-8 text (invalid start byte at byte 0)"),
    ],
)
def test_text_to_probe_with_that_is_none(folder, tmp_path, capsys, content, fact):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        main([str(folder), "--probe", str(path)])
    assert str(caught.value).startswith(f"{path} {fact}") and "Errno" not in str(caught.value)


def test_nothing_to_inspect(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        main([str(tmp_path / "absent")])
    with pytest.raises(ValueError, match="not a folder here"):
        main(["some/name"])


class Oracle(MultiHeadModel):
    """Knows the text: head k answers the token at t + offsets[k-1], wrong every third time."""

    n_future_tokens = max_positions = None

    def __init__(self, text, offsets, wrong_every=3):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.text, self.offsets, self.wrong_every = text, offsets, wrong_every
        self.n_future_tokens, self.max_positions = len(offsets), 10**6

    def layer_shapes(self, heads):
        return []

    def trunk(self, tokens, positions=None, cache=None):
        return torch.arange(tokens.shape[1])[None, :, None].float()  # the state is the position

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        return states

    def logits(self, offset, states):
        where = states[..., 0].long() + self.offsets[offset - 1]
        answer = self.text[where.clamp(max=len(self.text) - 1)]
        wrong = (torch.arange(len(answer)) + 1) % self.wrong_every == 0
        answer = torch.where(wrong, (answer + 1) % 256, answer)
        return torch.nn.functional.one_hot(answer, 256).float()


@pytest.mark.parametrize(
    ("offsets", "doubted"),
    [([1, 2, 3, 4], []), ([1, 3, 2, 4], [2, 3]), ([2, 3, 4, 5], [1, 2, 3, 4]), ([1, 2, 2, 4], [3])],
)
def test_heads_out_of_order_are_doubted(offsets, doubted):
    tokenizer = byte_tokenizer(10**6)
    text = torch.tensor(tokenizer.encode(default_text()))
    probes = probe_heads(Oracle(text, offsets), tokenizer, default_text())
    assert [p.offset for p in probes if p.doubt()] == doubted
    assert all("offset" in p.doubt() for p in probes if p.doubt())
    for probe in probes:
        if probe.offset not in doubted:
            assert probe.accuracy == pytest.approx(2 / 3, abs=0.01) and probe.shifted < 0.4


def test_perfect_heads_are_doubted():
    tokenizer = byte_tokenizer(10**6)
    text = torch.tensor(tokenizer.encode(default_text()))
    probes = probe_heads(Oracle(text, [1, 2], wrong_every=10**9), tokenizer, default_text())
    assert all("always right" in probe.doubt() for probe in probes)


def test_probe_of_an_untrained_model_doubts_every_head(folder, capsys, tmp_path):
    found = report(capsys, folder, "--probe")
    assert not found["ok"] and [p["offset"] for p in found["probe"]] == [1, 2, 3]
    assert all(p["doubt"] for p in found["probe"]) and len(found["problems"]) == 3
    (tmp_path / "text").write_text("another text, of my own choice: " * 9)
    assert main([str(folder), "--probe", str(tmp_path / "text")]) == 1
    said = capsys.readouterr().out
    assert "top-1 accuracy over" in said
    assert "heads are out of order" in said and "trained too little for this test" in said
    (tmp_path / "text").write_text("a")
    with pytest.raises(ValueError, match="name a longer one"):
        main([str(folder), "--probe", str(tmp_path / "text")])


def test_plausible_heads_pass(folder, capsys, monkeypatch):
    tokens = torch.tensor(byte_tokenizer(700).encode(default_text()))
    oracle = Oracle(tokens, [1, 2, 3])
    opened = (oracle, byte_tokenizer(700))
    monkeypatch.setattr(inspect_module, "open_from_options", lambda arguments: opened)
    found = report(capsys, folder, "--probe")
    assert found["ok"] and all(p["doubt"] is None for p in found["probe"])


def test_broken_weights_are_not_probed(folder, capsys):
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = report(capsys, folder, "--probe")
    assert found["probe"] == [] and "not probed" in found["notes"][0]


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_shipped_models_are_sound_and_plausible(name, capsys):
    if not Path(resolve(name)).is_dir():
        pytest.skip(f"{name} is not in this checkout")
    found = report(capsys, name, "--probe")
    assert found["ok"] and found["n_future_tokens"] == (1 if name == "mtp-bytes-n1" else 4)
    assert len(found["probe"]) == found["n_future_tokens"]
