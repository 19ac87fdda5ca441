"""Which layout is it, and whose affair: paths never become names on the hub."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from mtp_harness.commands import inspect, measure, verify
from mtp_harness.lm import MTPLM
from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM, load
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.checkpoints.layout import Layout
from mtp_harness.models.checkpoints.tokenizer_folder import check_vocabulary
from mtp_harness.models.convert import convert
from mtp_harness.models.head_states import head_states
from mtp_harness.models.inspection import summarise
from mtp_harness.models.load import (
    DEFAULT_MODEL,
    META,
    MTP_LLAMA,
    ORDINARY,
    SHIPPED_DRAFTERS,
    SHIPPED_MODELS,
    detect,
    is_local,
    load_model,
    load_tokenizer,
    n_future_tokens,
    open_model,
    resolve,
)

from ..decode.vllm_counts.requests import write_checkpoint

TINY = {
    "vocab_size": 256,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.fixture
def ours(tmp_path):
    folder = tmp_path / "ours"
    MTPLlamaForCausalLM(MTPLlamaConfig(**TINY, n_future_tokens=2)).save_pretrained(folder)
    return folder


@pytest.fixture
def plain(tmp_path):
    LlamaForCausalLM(LlamaConfig(**TINY)).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def refusal(error, call, *arguments, **named):
    with pytest.raises(error) as caught:
        call(*arguments, **named)
    assert caught.type is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def offline(monkeypatch):
    """The hub's own switch: names are looked for in the cache alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_layouts_are_told_apart(meta_folder, ours, plain, offline):
    assert detect(str(meta_folder)) is META
    assert detect(str(ours)) is MTP_LLAMA
    assert detect(str(plain)) is ORDINARY
    assert detect("EleutherAI/pythia-70m") is ORDINARY
    assert detect("gpt2") is ORDINARY


def test_config_json_decides_where_both_layouts_lie_together(plain):
    (plain / "params.json").write_text("{}")
    (plain / "consolidated.00.pth").write_bytes(b"")
    assert detect(str(plain)) is ORDINARY


def test_models_of_both_layouts_load(meta_folder, ours, plain, offline):
    assert load_model(str(meta_folder)).n_future_tokens == 4
    assert load_model(str(ours)).n_future_tokens == 2
    assert "ordinary causal language model" in refusal(ValueError, load_model, str(plain))
    for name in ("EleutherAI/pythia-70m", "nope"):
        assert f"{name} is neither a folder here nor" in refusal(ValueError, load_model, name)


@pytest.mark.parametrize(
    "name",
    ["/nowhere/ckpt", "./ckpt", "../ckpt", ".", "a/b/c", "ckpt/", "~/ckpt-that-is-not-there"],
)
def test_what_looks_like_a_path_is_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_local(name)
    for call in (detect, load_model, load_tokenizer):
        message = refusal(FileNotFoundError, call, name)
        assert "does not exist" in message or "is empty" in message


def test_what_exists_is_a_path(tmp_path, monkeypatch, ours):
    monkeypatch.chdir(tmp_path)
    assert is_local("ours") and detect("ours") is MTP_LLAMA
    assert not is_local("org/ours") and not is_local("other")


def test_a_model_too_large_for_its_device_is_one_sentence(monkeypatch, ours):
    def full(self, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 468.00 MiB. GPU 0 has")

    monkeypatch.setattr("mtp_harness.models.MTPLlamaForCausalLM.to", full)
    opened = {"tokenizer": byte_tokenizer(64), "device": "cpu"}
    said = refusal(ValueError, open_model, str(ours), **opened)
    assert said.startswith("the free memory of cpu does not hold ") and ": give a " in said


def test_an_ordinary_model_too_large_for_its_device_is_one_sentence(monkeypatch, plain):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 468.00 MiB. GPU 0 has")

    byte_tokenizer(64).save_pretrained(plain)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    said = refusal(ValueError, MTPLM, str(plain), device="cpu")
    assert said.startswith("the free memory of cpu does not hold ") and ": give a " in said


def test_a_file_is_no_checkpoint(meta_folder):
    path = meta_folder / "consolidated.pth"
    for call in (detect, load_model, load_tokenizer):
        message = refusal(ValueError, call, str(path))
        assert "is a file" in message and str(meta_folder) in message


def test_an_empty_folder(tmp_path):
    assert "is empty" in refusal(FileNotFoundError, detect, str(tmp_path))


def test_a_folder_without_a_checkpoint_names_those_inside(meta_folder, tmp_path):
    message = refusal(ValueError, detect, str(meta_folder.parent))
    assert "holds no checkpoint" in message and "7B_4" in message
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    assert "check the path" in refusal(ValueError, detect, str(tmp_path / "other"))


def test_shipped_names_are_folders_of_the_package_and_never_of_the_hub():
    assert DEFAULT_MODEL == "mtp-bytes-n4" and set(SHIPPED_MODELS) == {
        DEFAULT_MODEL,
        "mtp-bytes-n1",
        "mtp-bytes-qwen",
    }
    for name in SHIPPED_MODELS:
        folder = resolve(name)
        assert folder.endswith(f"mtp_harness/models/reference/{name}")
        assert is_local(name)
    assert resolve("gpt2") == "gpt2" and resolve("./mtp-bytes-n4") == "./mtp-bytes-n4"


@pytest.mark.parametrize("name", SHIPPED_DRAFTERS)
def test_shipped_drafters_know_what_their_trunk_will_say(name):
    """Head 2 says the token after the next, far more often than the commonest byte would be."""
    assert (Path(resolve(name)) / "model.safetensors").stat().st_size < 1e6
    trunk = name.rsplit("-", 1)[0]
    model = load_model(trunk, drafter=name)
    assert model.n_future_tokens == n_future_tokens(trunk, drafter=name) == 4
    text = Path(os.__file__).read_bytes()[2000:4000]
    tokens = torch.tensor(list(text))[None]
    with torch.no_grad():
        found = {
            offset: model.logits(offset, state) for offset, state in head_states(model, tokens)
        }
    alone = load_model(trunk).next_token_logits(tokens)
    assert torch.allclose(found[1], alone, atol=1e-4)  # the trunk is as it was
    right = [float((found[k][0, :-k].argmax(-1) == tokens[0, k:]).float().mean()) for k in (1, 2)]
    commonest = float(tokens[0].bincount().max()) / tokens.numel()
    assert right[0] > 0.6 and right[1] > 1.5 * commonest, (right, commonest)


def test_names_near_those_of_shipped_drafters():
    message = refusal(ValueError, detect, "mtp-bytes-n1", drafter="mtp-bytes-n1-eagle")
    assert "did you mean mtp-bytes-n1-eagle3?" in message
    for call in (detect, load_model, load_tokenizer):
        message = refusal(ValueError, call, "mtp-bytes-n1-medusa")
        assert "pretrained=mtp-bytes-n1,drafter=mtp-bytes-n1-medusa" in message
    message = refusal(ValueError, load_model, "mtp-bytes-n4", drafter="mtp-bytes-n1-medusa")
    assert "n_future_tokens is 4, expected 1" in message


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_loading_a_model_with_heads_draws_no_bar(name, capfd):
    load_model(name)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_the_first_bytes_of_a_text_cost_less_than_8_bits_in_every_head(name):
    """After BOS alone; a head that knows nothing pays 8 bits. Modules read the opening itself."""
    openings = [path.read_bytes()[:4] for path in Path(os.__file__).parent.glob("*.py")]
    assert len(openings) > 100
    model = load_model(name)
    with torch.no_grad():
        trunk = model.trunk(torch.zeros(1, 1, dtype=torch.long))
        for offset in range(1, 2 if model.sequential else model.n_future_tokens + 1):
            logits = model.logits(offset, model.head(offset, trunk)).flatten().double()
            bits = -logits.log_softmax(-1) / math.log(2)
            cost = sum(bits[opening[offset - 1]] for opening in openings) / len(openings)
            assert cost < 7, f"head {offset}: {cost} bits"


def test_a_shipped_model_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr("mtp_harness.models.load._SHIPPED_FOLDER", tmp_path)
    for call in (detect, load_model, load_tokenizer):
        message = refusal(FileNotFoundError, call, DEFAULT_MODEL)
        assert DEFAULT_MODEL in message and "reinstall" in message


def test_tokenizer_of_a_folder(ours, sentencepiece_model):
    assert "no tokenizer" in refusal(FileNotFoundError, load_tokenizer, str(ours))
    (ours / "tokenizer.model").write_bytes(sentencepiece_model.read_bytes())
    assert len(load_tokenizer(str(ours))) == 420  # raw, as from Meta
    byte_tokenizer(64).save_pretrained(ours)
    assert load_tokenizer(str(ours)).encode("ab") == [0, 97, 98]
    (ours / "tokenizer.json").write_text("{}")
    assert "no entry 'model'" in refusal(ValueError, load_tokenizer, str(ours))
    (ours / "tokenizer.json").write_text('{"model": {}}')
    assert "cannot be loaded" in refusal(ValueError, load_tokenizer, str(ours))


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"model": 3}'])
def test_tokenizer_that_is_none(ours, text):
    byte_tokenizer(64).save_pretrained(ours)
    (ours / "tokenizer.json").write_text(text)
    message = refusal(ValueError, load_tokenizer, str(ours))
    assert "tokenizer.json" in message and ("no entry 'model'" in message or "JSON" in message)


def test_tokenizer_alone_in_a_folder(tmp_path, sentencepiece_model):
    byte_tokenizer(64).save_pretrained(tmp_path / "bytes")
    assert load_tokenizer(str(tmp_path / "bytes")).encode("ab", add_special_tokens=False) == [
        97,
        98,
    ]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "tokenizer.model").write_bytes(sentencepiece_model.read_bytes())
    assert len(load_tokenizer(str(tmp_path / "raw"))) == 420
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "README.md").write_text("x")
    assert "holds no checkpoint" in refusal(ValueError, load_tokenizer, str(tmp_path / "x"))


def test_nobody_is_asked_to_run_the_code_that_comes_with_a_checkpoint(tmp_path, monkeypatch):
    """MiMo's configuration names a class of its own; neither layers nor tokenizer need it."""
    write_checkpoint(tmp_path, "mimo")
    asked = []
    monkeypatch.setattr("builtins.input", lambda *question: asked.append(question) or "y")
    assert load_tokenizer(str(tmp_path))("ab")["input_ids"] == [0, 97, 98]
    assert not asked


def test_a_broken_config_is_not_blamed_on_the_tokenizer(ours, plain):
    for folder in (ours, plain):
        byte_tokenizer(64).save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "use_cache": "x"}))
        assert "use_cache" in refusal(ValueError, load_tokenizer, str(folder))
        (problem,) = [p for p in summarise(str(folder)).problems if "use_cache" in p]
        assert "config.json" in problem and "tokenizer" not in problem


def test_tokenizer_larger_than_the_model():
    tokenizer = byte_tokenizer(64)
    check_vocabulary(tokenizer, 256, "it")
    message = refusal(ValueError, check_vocabulary, tokenizer, 255, "my model")
    assert "ids up to 255 but my model has a vocabulary of 255, expected ids below" in message
    tokenizer.add_tokens(["<added>"])
    assert "up to 256" in refusal(ValueError, check_vocabulary, tokenizer, 256, "it")
    check_vocabulary(tokenizer, 257, "it")


def test_tokenizer_of_an_ordinary_model(plain):
    byte_tokenizer(64).save_pretrained(plain)
    expected = AutoTokenizer.from_pretrained(plain).encode("ab")
    assert load_tokenizer(str(plain)).encode("ab") == expected


def test_commands_that_load_both_refuse_a_tokenizer_larger_than_the_model(tmp_path):
    shutil.copytree(resolve("mtp-bytes-n4"), tmp_path / "copy")
    tokenizer = load_tokenizer("mtp-bytes-n4")
    tokenizer.add_tokens(["<added>"])
    tokenizer.save_pretrained(tmp_path / "copy")
    folder = str(tmp_path / "copy")
    for command in (lambda: open_model(folder), lambda: verify.main([folder])):
        with pytest.raises(ValueError, match="ids up to 256 but .* a vocabulary of 256"):
            command()
    with pytest.raises(ValueError, match="ids up to 256 but"):
        measure.main([folder, "--windows", "1", "--prompts", "1"])
    model, tokenizer = open_model("mtp-bytes-n4")
    assert (model.n_future_tokens, len(tokenizer)) == (4, 256)


def test_a_new_layout_is_one_record(tmp_path, monkeypatch, capsys):
    def make(folder, dtype):
        model = MTPLlamaForCausalLM(MTPLlamaConfig(**TINY, n_future_tokens=2)).eval()
        return model.to(dtype or torch.bfloat16)

    def describe(summary, folder):
        summary.architecture, summary.n_future_tokens = "Toy", 2
        summary.notes.append((folder / "toy.txt").read_text())

    toy = Layout(
        name="toy",
        title="one file, toy.txt",
        recognises=lambda folder: (folder / "toy.txt").is_file(),
        n_future_tokens=lambda folder: 2,
        tokenizer=lambda folder: byte_tokenizer(64),
        describe=describe,
        load=make,
    )
    (tmp_path / "toy.txt").write_text("a note")
    folder = str(tmp_path)
    assert "holds no checkpoint" in refusal(ValueError, detect, folder)
    monkeypatch.setattr(load, "LAYOUTS", (*load.LAYOUTS, toy))
    assert detect(folder) is toy and n_future_tokens(folder) == 2
    assert open_model(folder).model.dtype is torch.bfloat16
    assert open_model(folder, dtype=torch.float32).model.dtype is torch.float32
    assert MTPLM(pretrained=folder, device="cpu").identity()["layout"] == "toy"
    assert inspect.main([folder]) == 0
    said = capsys.readouterr().out
    assert "layout        one file, toy.txt" in said and "n = 2 (offsets 1 to 2)\n" in said
    assert "a note" in said and "(256 tokens)" in said
    with pytest.raises(ValueError, match="expected Meta's layout"):
        convert(tmp_path, tmp_path / "out")
