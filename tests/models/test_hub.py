"""Names on the hub: what is in its cache is found there, and the network is left alone."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mtp_harness.commands.inspect import main as inspect
from mtp_harness.lm import MTPLM
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.checkpoints.ordinary_folder import ORDINARY
from mtp_harness.models.checkpoints.sequential_folder import SEQUENTIAL
from mtp_harness.models.load import detect, load_tokenizer, located, n_future_tokens, open_model
from mtp_harness.pipeline.plan import plan
from mtp_harness.pipeline.suite import read_suite

from .family_checkpoints import BASE, write

COMMITS = {"main": "1" * 40, "older": "2" * 40}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache, offline."""
    for name, value in {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": True}.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setitem(BASE, "vocab_size", 256)
    return tmp_path / "hub"


def repository(hub, name, revision="main"):
    """Return the folder of a snapshot, as downloads leave it."""
    folder = hub / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMITS[revision]
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / revision).write_text(COMMITS[revision])
    return snapshot


@pytest.fixture
def sequential(hub):
    folder = repository(hub, "some/mimo")
    write(folder, "mimo", dtype=torch.float32)
    byte_tokenizer(512).save_pretrained(folder)
    return folder


def test_a_name_is_what_its_configuration_says(hub, sequential):
    assert detect("some/mimo") is SEQUENTIAL
    assert located("some/mimo") == str(sequential)
    assert n_future_tokens(located("some/mimo")) == 4
    opened = open_model("some/mimo")
    assert opened.model.n_future_tokens == 4 and len(opened.tokenizer) == 256
    assert len(load_tokenizer("some/mimo")) == 256


def test_a_revision_of_a_name(hub, sequential):
    folder = repository(hub, "some/mimo", "older")
    write(folder, "deepseek_v3", 2, dtype=torch.float32)
    byte_tokenizer(512).save_pretrained(folder)
    assert located("some/mimo", "older") == located("some/mimo", COMMITS["older"]) == str(folder)
    model = MTPLM("some/mimo", revision="older", device="cpu")
    assert model.model.n_future_tokens == 3
    info = model.get_model_info()
    assert info["model_revision"] == "older"
    assert info["mtp"]["pretrained"] == "some/mimo" and info["mtp"]["layout"] == "sequential"
    assert (
        info["mtp"]["weights_sha256"]
        == MTPLM(str(folder), device="cpu").identity()["weights_sha256"]
    )
    with pytest.raises(ValueError, match="revision=older does not work with a checkpoint that has"):
        MTPLM(str(folder), revision="older", device="cpu")


def test_a_family_that_promises_nothing_is_known_by_its_index(hub):
    folder = repository(hub, "some/deep")
    write(folder, "deepseek_v3", shards=True, dtype=torch.float32)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_nextn_predict_layers": 0}))
    for weights in folder.glob("*.safetensors"):
        weights.unlink()  # nothing is read of them
    assert detect("some/deep") is SEQUENTIAL
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    names = {k: v for k, v in content["weight_map"].items() if not k.startswith("model.layers.4.")}
    index.write_text(json.dumps({**content, "weight_map": names}))
    assert detect("some/deep") is ORDINARY


def test_an_ordinary_name_goes_on_as_before(hub):
    folder = repository(hub, "some/llama")
    sizes = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 16, "vocab_size": 256}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(folder)
    byte_tokenizer(512).save_pretrained(folder)
    assert detect("some/llama") is ORDINARY and located("some/llama") == "some/llama"
    model = MTPLM("some/llama", device="cpu")
    assert type(model.model) is LlamaForCausalLM and model.pretrained == "some/llama"
    with pytest.raises(ValueError, match="several heads"):
        open_model("some/llama")
    with pytest.raises(ValueError, match="download the checkpoint first"):
        inspect(["some/llama"])


def test_what_cannot_be_had_is_one_sentence(hub, sequential):
    assert detect("some/absent") is ORDINARY  # transformers says why it cannot load it
    for name in ("some/absent", "some/mimo"):
        for weights in sequential.glob("*.safetensors"):
            weights.unlink()
        with pytest.raises((ValueError, OSError)) as caught:
            MTPLM.create_from_arg_obj({"pretrained": name}, {"device": "cpu"})
        assert "\n" not in str(caught.value)
    assert "some/mimo has no safetensors in this machine's cache" in str(caught.value)


def test_arguments_are_refused_before_a_checkpoint_is_fetched(hub, sequential, monkeypatch):
    def fetch(*_, **__):
        raise AssertionError("fetched")

    monkeypatch.setattr("mtp_harness.models.load.fetched", fetch)
    for argument in ({"peft": "x"}, {"draft_heads": "x"}, {"subfolder": "x"}, {"dtpye": "float32"}):
        (name,) = argument
        with pytest.raises(ValueError, match=name):
            MTPLM("some/mimo", **argument)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="parallelize=True does not work with a transformers fold"):
        MTPLM("some/mimo", parallelize=True)


def test_inspect_and_plans_take_names(hub, sequential, capsys, tmp_path):
    assert inspect(["some/mimo"]) == 0
    said = capsys.readouterr().out
    assert str(sequential) in said and "by one module" in said
    suite = tmp_path / "suite.yaml"
    model = "{label: m, model_args: {pretrained: some/mimo, draft_heads: 9}}"
    suite.write_text(f"models: [{model}]\ntasks: [mtp_heads]\n")
    with pytest.raises(ValueError, match="model m: draft_heads=9, but this checkpoint has"):
        plan(read_suite(suite), tmp_path)
