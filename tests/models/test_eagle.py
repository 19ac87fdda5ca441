"""EAGLE drafters: logits and drafts of every step are vLLM's, with a bias those of the authors."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mtp_harness.models.head_states import head_states
from mtp_harness.models.inspection import summarise
from mtp_harness.models.load import load_model

from .drafts import accept_as_vllm, decode_as_vllm


@pytest.fixture(scope="module")
def data(shared_data):
    folder = shared_data / "drafters"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


@pytest.fixture(scope="module")
def model(data):
    found = summarise(str(data / "trunk"), drafter=str(data / "eagle1"))
    assert found.problems == [] and (found.n_future_tokens, found.modules) == (4, 1)
    return load_model(str(data / "trunk"), drafter=str(data / "eagle1"))


def alike(found, expected):
    expected = torch.tensor(expected)
    return float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("n_drafts", [1, 2, 3])
def test_logits_and_drafts_of_every_step_are_vllm_s(model, data, monkeypatch, n_drafts):
    told = np.load(data / "eagle1" / f"vllm_k{n_drafts}.npz")
    following = np.concatenate([told["output"][:1], told["drafts"][0]])
    prompt, following = (torch.tensor(ids)[None] for ids in (told["prompt"], following))
    states = dict(head_states(model, prompt, 1 + n_drafts, following))
    assert alike(model.logits(2, states[2])[0], told["prefill_logits"])
    for i in range(1, n_drafts):
        assert alike(model.logits(2 + i, states[2 + i])[:, -1], told[f"step{i}_logits"])
    decode_as_vllm(model, told, n_drafts, monkeypatch)


@pytest.mark.parametrize("n_drafts", [1, 2, 3])
def test_texts_and_accepted_drafts_are_vllm_s(model, data, n_drafts):
    accept_as_vllm(model, data / "eagle1" / f"runs_k{n_drafts}.json", n_drafts)


@torch.no_grad()
def test_a_bias_in_the_file_is_used_whatever_the_configuration_says(data):
    """The fixture's says that it has no bias; its logits are those of the authors' code."""
    model = load_model(str(data / "trunk"), drafter=str(data / "eagle1_bias"))
    told = np.load(data / "eagle1_bias" / "authors.npz")
    prompt = torch.tensor(told["prompt"])[None]
    following = torch.tensor([int(told["next_token"]), *told["drafts"].tolist()])[None]
    states = dict(head_states(model, prompt, 4, following))
    assert alike(states[1][0], told["hidden_post_norm"])
    assert alike(model.logits(2, states[2])[0], told["logits"])
    for i, expected in enumerate(told["walk_logits"]):
        logits = model.logits(2 + i, states[2 + i])[0, -1]
        assert alike(logits, expected) and int(logits.argmax()) == told["drafts"][i]


WRONG = {
    "missing": r"missing: layers\.0\.mlp\.up_proj\.weight; name another",
    "left over": r"unexpected: layers\.0\.input_layernorm\.weight",
    "vocabulary": "vocab_size is 100 in its config.json, expected 512, the trunk's",
    "width": "hidden_size is 32 and the trunk's 64",
    "speculators": "is a drafter of speculators of the kind eagle, which is not read here",
}


@pytest.mark.parametrize("damage", WRONG)
def test_what_does_not_fit_is_one_sentence(data, tmp_path, damage):
    drafter = tmp_path / "drafter"
    shutil.copytree(data / "eagle1", drafter)
    path, config = drafter / "model.safetensors", drafter / "config.json"
    tensors, content = load_file(path), json.loads(config.read_text())
    if damage == "missing":
        del tensors["layers.0.mlp.up_proj.weight"]
    elif damage == "left over":
        tensors["layers.0.input_layernorm.weight"] = torch.ones(64)
    content |= {
        "vocabulary": {"vocab_size": 100},
        "width": {"hidden_size": 32},
        "speculators": {"speculators_model_type": "eagle"},
    }.get(damage, {})
    save_file(tensors, path)
    config.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=WRONG[damage]) as caught:
        load_model(str(data / "trunk"), drafter=str(drafter))
    assert "\n" not in str(caught.value)
