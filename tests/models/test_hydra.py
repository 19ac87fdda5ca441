"""Hydra heads: logits and drafts are those of the authors' code."""

import json
import shutil

import numpy as np
import pytest
import torch

from mtp_harness.decode.engine import Engine, Request
from mtp_harness.models.head_states import head_states
from mtp_harness.models.inspection import summarise
from mtp_harness.models.load import load_model

from .drafts import seen_at_steps, to_text


@pytest.fixture(scope="module")
def data(shared_data):
    folder = shared_data / "drafters"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


@pytest.fixture(scope="module")
def case(data):
    """A trunk with heads, and what the authors' code makes of a text."""
    found = summarise(str(data / "trunk"), drafter=str(data / "hydra"))
    assert found.problems == [] and found.n_future_tokens == 4
    model = load_model(str(data / "trunk"), drafter=str(data / "hydra"))
    return model, np.load(data / "hydra" / "authors.npz")


@torch.no_grad()
def test_logits_of_every_head_are_the_authors(case):
    model, told = case
    for offset, state in head_states(model, torch.tensor(told["tokens"])[None], 4):
        if offset == 1:
            expected, found = torch.tensor(told["hidden_post_norm"]), state[0]
        else:
            expected = torch.tensor(told[f"logits{offset - 2}"])
            found = model.logits(offset, state)[0, : len(expected)]
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@torch.no_grad()
def test_drafts_are_the_authors(case):
    """Each head's own choice at a position, with the drafts before it in between."""
    model, told = case
    tokens = told["tokens"].tolist()
    for t, drafts in zip(told["anchors"].tolist(), told["drafts"].tolist(), strict=True):
        following = torch.tensor([[tokens[t + 1], *drafts]])
        read = head_states(model, torch.tensor([tokens[: t + 1]]), 4, following)
        chosen = [int(model.logits(k, state)[0, -1].argmax()) for k, state in read if k > 1]
        assert chosen == drafts


def test_the_decoder_drafts_as_a_plain_loop_does(case, data, monkeypatch):
    """At every step of texts that are the trunk's own greedy ones."""
    model, _ = case
    seen = seen_at_steps(monkeypatch, 3)
    run = json.loads((data / "trunk" / "runs_k0.json").read_text())[0]
    [answer] = Engine(model, 4, [], to_text, slots=1).generate([Request(run["prompt"], 40)])
    assert answer.tokens == run["tokens"][:40]
    text = run["prompt"] + answer.tokens
    assert len(seen) > 10
    for pending, drafts in seen:
        following = torch.tensor([[text[pending], *drafts]])
        read = head_states(model, torch.tensor([text[:pending]]), 4, following)
        with torch.no_grad():
            chosen = [int(model.logits(k, state)[0, -1].argmax()) for k, state in read if k > 1]
        assert chosen == drafts


WRONG = {
    "hydra_num_layers": (3, r"missing: 0\.layers\.2"),
    "hydra_num_heads": (0, "hydra_num_heads is 0, expected a number from 1 to 64"),
    "hydra_head_arch": ("prefix-mlp", "is a Hydra drafter with prefix-mlp heads, which is not"),
    "grounded_heads": (False, "grounded_heads is False, expected True"),
    "hidden_state_offset": (1, "hidden_state_offset is 1, expected 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_read_is_one_sentence(data, tmp_path, name):
    drafter = tmp_path / "drafter"
    shutil.copytree(data / "hydra", drafter)
    config, (value, message) = drafter / "config.json", WRONG[name]
    config.write_text(json.dumps(json.loads(config.read_text()) | {name: value}))
    with pytest.raises(ValueError, match=message) as caught:
        load_model(str(data / "trunk"), drafter=str(drafter))
    assert "\n" not in str(caught.value)
