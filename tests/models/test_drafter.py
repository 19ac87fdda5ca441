"""`drafter=`: modules from elsewhere on a trunk, which are exactly those of a joined checkpoint."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mtp_harness.commands.inspect import main as inspect
from mtp_harness.commands.verify import main as verify
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.lm import MTPLM
from mtp_harness.models.head_states import head_states
from mtp_harness.models.load import detect, load_model, n_future_tokens
from mtp_harness.results.label import labels_of, model_of

from .byte_families import write_bytes
from .family_checkpoints import keys_of, layers, trunk, write

TEXT = torch.tensor([[3, 14, 15, 92, 65, 35, 89, 79]])


def split(folder, family, into):
    """Take the modules out of a checkpoint; return the trunk's folder and the modules' tensors."""
    tensors = load_file(folder / "model.safetensors")
    own = keys_of(family, trunk(family), layers(trunk(family), family, 2), True).keys()
    shutil.copytree(folder, into)
    modules = {key: tensor for key, tensor in tensors.items() if key in own}
    rest = {key: tensor for key, tensor in tensors.items() if key not in own}
    save_file(rest, into / "model.safetensors", metadata={"format": "pt"})
    assert modules and rest
    return into, modules


def logits_of(model, heads=3):
    with torch.no_grad():
        return [model.logits(offset, state) for offset, state in head_states(model, TEXT, heads)]


@pytest.mark.parametrize(
    ("family", "n"), [("qwen3_5_text", 1), ("qwen3_5_text", 2), ("glm4_moe", 1), ("mimo", 1)]
)
def test_modules_given_apart_are_those_of_the_joined_checkpoint(tmp_path, family, n):
    """Bit for bit, on a stripped trunk and on one that has other modules of its own."""
    joined, other = tmp_path / "joined", tmp_path / "other"
    write(joined, family, n, dtype=torch.float32)
    stripped, modules = split(joined, family, tmp_path / "stripped")
    for form in ("folder", "finetuned"):
        (tmp_path / form).mkdir()
    file = tmp_path / "stitched.safetensors"
    save_file(modules, file)
    shutil.copy(file, tmp_path / "finetuned" / "mtp.safetensors")
    shutil.copy(file, tmp_path / "folder" / "model.safetensors")
    shutil.copytree(joined, other)
    tensors = load_file(other / "model.safetensors")
    changed = {k: t + 1 if k in modules and t.dim() > 1 else t for k, t in tensors.items()}
    save_file(changed, other / "model.safetensors", metadata={"format": "pt"})
    whole = load_model(str(joined))
    expected, weights = logits_of(whole), dict(whole.named_parameters())
    pairs = [(stripped, file), (stripped, tmp_path / "finetuned"), (other, tmp_path / "folder")]
    for place, drafter in pairs:
        found = load_model(str(place), drafter=str(drafter))
        assert dict(found.named_parameters()).keys() == weights.keys()
        assert all(torch.equal(one, weights[key]) for key, one in found.named_parameters())
        assert all(map(torch.equal, logits_of(found), expected))
        assert n_future_tokens(str(place), drafter=str(drafter)) == whole.n_future_tokens


@pytest.fixture
def pair(tmp_path):
    """A checkpoint over bytes, and another module for its trunk."""
    folder = write_bytes(tmp_path / "base", "glm4_moe", letters=b"abc")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    at = "model.layers.4."
    torch.manual_seed(7)
    tuned = {
        key: tensor + 0.3 * torch.randn_like(tensor) * ("norm" not in key)
        for key, tensor in tensors.items()
        if key.startswith(at) and "embed_tokens" not in key and "shared_head.head" not in key
    }
    save_file(tuned, tmp_path / "tuned.safetensors")
    return folder, str(tmp_path / "tuned.safetensors")


def test_another_module_drafts_otherwise_and_the_text_stays(pair):
    folder, drafter = pair
    asked = [Request([97, 98, i], 24, key=i) for i in range(97, 103)]
    answers = {
        place: Engine(load_model(folder, drafter=place), 4, [], bytes_of, slots=3).generate(asked)
        for place in (None, drafter)
    }
    texts = {place: [one.tokens for one in found] for place, found in answers.items()}
    drafts = {p: [list(one.record.n_verified) for one in found] for p, found in answers.items()}
    assert texts[None] == texts[drafter]
    assert drafts[None] != drafts[drafter] and any(map(sum, drafts[drafter]))


def bytes_of(tokens):
    return bytes(tokens).decode("latin-1")


def test_results_and_journals_tell_two_modules_of_a_trunk_apart(pair, tmp_path):
    folder, drafter = pair
    runs = [MTPLM(folder, device="cpu"), MTPLM(folder, device="cpu", drafter=drafter)]
    base, tuned = (lm.get_model_info()["mtp"] for lm in runs)
    assert "drafter" not in base and tuned["drafter"] == drafter
    digest = hashlib.sha256((tmp_path / "tuned.safetensors").read_bytes()).hexdigest()
    assert tuned["drafter_sha256"] == digest
    assert base["weights_sha256"] == tuned["weights_sha256"]
    models = [model_of({"config": {"mtp": mtp}}) for mtp in (base, tuned)]
    assert [labels_of(models)[model] for model in models] == ["base", "base + tuned.safetensors"]
    assert runs[0]._owner() != runs[1]._owner()
    settings = [lm.decoder()._journal_settings() for lm in runs]
    assert settings[0].items() ^ settings[1].items() >= {("drafter", drafter)}


def test_commands_take_a_drafter(pair, tmp_path, capsys):
    folder, drafter = pair
    assert inspect([folder, "--drafter", drafter]) == 0
    assert f"drafter       {drafter}" in capsys.readouterr().out
    short = ["--prompts", "1", "--new-tokens", "4", "--batch", "1", "--draft-heads", "3"]
    out = tmp_path / "verified"
    assert verify([folder, "--drafter", drafter, *short, "-o", str(out)]) == 0
    assert json.loads(out.read_text())["drafter"] == drafter


@torch.no_grad()
def test_a_folder_of_speculators_is_read_as_speculators_reads_it(shared_data):
    """Its training reads every step at the same positions: the chained reading."""
    data = shared_data / "drafters"
    if not data.is_dir():
        pytest.skip(f"needs {data}")
    told = np.load(data / "spec_mtp" / "speculators.npz")
    model = load_model(str(data / "trunk_q3"), drafter=str(data / "spec_mtp"))
    expected, tokens = torch.tensor(told["logits"]), torch.tensor(told["tokens"])
    for offset, state in head_states(model, tokens, 4, chained=True):
        if offset > 1:
            found = model.logits(offset, state)[:, : expected.shape[2]]
            error = (found - expected[offset - 2]).abs().max()
            assert float(error) < 1e-5 * float(expected.abs().max())


WRONG = {
    "missing": r"missing: model\.layers\.4\.eh_proj\.weight; name another drafter",
    "left over": r"holds more than modules .*unexpected: model\.embed_tokens\.weight",
    "odd": r"unexpected: model\.layers\.4\.odd\.weight; name another drafter",
    "width": r"wrong shape: model\.layers\.4\.enorm\.weight is \[3\], expected \[64\]",
    "family": r"no module of glm4_moe .*mtp\.fc\.weight and 1 more \(the layout of qwen3_5\)",
    "packed": r"not plain floating-point numbers .*eh_proj",
    "head": "shared_head.head.weight is not the trunk's own",
    "no safetensors": "is truncated or no safetensors file",
    "dflash": "is a drafter of speculators of the kind dflash, which is not read here",
    "assistant": r"is an assistant model \(gemma4_assistant\)",
    "target": r"drafts for LlamaForCausalLM \(big\), and .* is Glm4MoeForCausalLM",
    "text": "is not a safetensors file, expected one, or the folder",
    "nothing": "does not exist, expected the file or folder of a drafter",
    "loader": "expected one of them: a loader",
    "trunk": "model_type is gpt2, expected a trunk that a drafter can stand on",
    "window": "sliding_window is 16, expected layers that see the whole text",
}


@pytest.mark.parametrize("damage", WRONG)
def test_what_does_not_fit_is_one_sentence_before_weights_load(pair, tmp_path, damage, monkeypatch):
    (folder, file), more = pair, {}
    tensors, content, drafter = load_file(file), {}, file
    at, config = "model.layers.4.", tmp_path / "base" / "config.json"
    if damage == "missing":
        del tensors[at + "eh_proj.weight"]
    elif damage == "left over":
        tensors["model.embed_tokens.weight"] = torch.zeros(256, 64)
    elif damage == "odd":
        tensors[at + "odd.weight"] = torch.zeros(2)
    elif damage == "width":
        tensors[at + "enorm.weight"] = torch.zeros(3)
    elif damage == "family":
        tensors = {"mtp.fc.weight": torch.zeros(64, 128), "mtp.layers.0.x": torch.zeros(2)}
    elif damage == "packed":
        tensors[at + "eh_proj.weight"] = torch.zeros(64, 128, dtype=torch.float8_e4m3fn)
    elif damage == "head":
        tensors[at + "shared_head.head.weight"] = torch.zeros(256, 64)
    elif damage in ("dflash", "assistant", "target"):
        verifier = {"architectures": ["LlamaForCausalLM"], "name_or_path": "big"}
        content = {
            "dflash": {"speculators_model_type": "dflash"},
            "assistant": {"model_type": "gemma4_assistant"},
            "target": {
                "speculators_model_type": "mtp",
                "speculators_config": {"verifier": verifier},
            },
        }[damage]
        drafter = str(tmp_path / "made")
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "config.json").write_text(json.dumps(content))
        save_file(tensors, tmp_path / "made" / "model.safetensors")
    elif damage == "loader":
        more = {"loader": "a:b", "tokenizer": folder}
    elif damage in ("trunk", "window"):
        said = {"model_type": "gpt2"}
        if damage == "window":
            said = {"sliding_window": 16, "use_sliding_window": True}
        config.write_text(json.dumps(json.loads(config.read_text()) | said))
    save_file(tensors, file)
    if damage == "no safetensors":
        (tmp_path / "tuned.safetensors").write_text("no weights")
    elif damage in ("text", "nothing"):
        drafter = str(tmp_path / f"{damage}.txt")
        if damage == "text":
            (tmp_path / "text.txt").write_text("x")

    def refuse(*_, **__):
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr("mtp_harness.models.load.load_with", lambda *_: refuse)
    with pytest.raises((ValueError, FileNotFoundError), match=WRONG[damage]) as caught:
        MTPLM(folder, device="cpu", drafter=drafter, **more)
    assert "\n" not in str(caught.value)


def test_a_stripped_trunk_alone_is_what_it_was(pair, tmp_path):
    stripped, _ = split(tmp_path / "base", "glm4_moe", tmp_path / "stripped")
    assert detect(str(stripped)).name == "sequential"
    with pytest.raises(ValueError, match="promises 1 module and the weights hold none"):
        load_model(str(stripped))
