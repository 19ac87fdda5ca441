"""Modules and their drafts are those of vLLM: fixtures made by `vllm_fixtures/make.py`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mtp_harness.decode.engine import Engine, Request
from mtp_harness.models.checkpoints.sequential_folder import load_sequential
from mtp_harness.models.head_states import head_states

from .drafts import seen_at_steps, to_text
from .vllm_fixtures.checkpoints import write_seeded

FOLDER = Path(__file__).with_name("vllm_fixtures")
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.npz"))


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory):
    """A checkpoint, read as vLLM reads it, and what vLLM made of it."""
    folder = tmp_path_factory.mktemp(request.param)
    write_seeded(folder, request.param)
    model = load_sequential(folder, torch.float32)
    model.family = model.family.as_engines_do()
    return model, dict(np.load(FOLDER / f"{request.param}.npz"))


def largest_error(found, expected):
    """Return the largest difference as a share of the largest number."""
    expected = torch.tensor(expected)
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_all_logits_of_module_1(case):
    model, told = case
    prompt, ahead = (torch.tensor(told[key])[None].long() for key in ("prompt_0", "mtp_input_ids"))
    states = dict(head_states(model, prompt, 2, ahead[:, -1:]))
    assert torch.equal(ahead[0, :-1], prompt[0, 1:])
    assert largest_error(states[1][0], told["trunk_hidden"]) < 1e-5
    assert largest_error(model.logits(2, states[2])[0], told["mtp_logits"]) < 1e-5


@torch.no_grad()
def test_logits_of_the_first_drafts(case):
    """The state passed on shows at offset 3: the text is the prompt, then vLLM's own drafts."""
    model, told = case
    prompt = torch.tensor(told["prompt_0"])[None]
    drafts = torch.tensor(told["drafts_0_k4"])[:1]
    following = torch.cat([torch.tensor(told["tokens_0"])[None, :1], drafts], 1)
    found = {
        offset: model.logits(offset, state[:, -1])
        for offset, state in head_states(model, prompt, 4, following)
    }
    for offset in (2, 3, 4):
        assert largest_error(found[offset][0], told["draft_logits"][offset - 2]) < 1e-5
    assert torch.stack([found[o][0].argmax() for o in (2, 3, 4)]).equal(drafts[0])


@pytest.mark.parametrize("k", [2, 3, 4])
def test_drafts_of_every_step(case, k, monkeypatch):
    model, told = case
    seen = seen_at_steps(monkeypatch, k - 1)
    engine = Engine(model, k, [], to_text, slots=1)
    for i in range(3):
        seen.clear()
        expected = told[f"tokens_{i}"].tolist()
        [answer] = engine.generate([Request(told[f"prompt_{i}"].tolist(), len(expected), key=i)])
        assert answer.tokens == expected
        drafted = [drafts for _, drafts in seen]
        assert drafted == told[f"drafts_{i}_k{k}"].tolist()[: len(drafted)]
        assert sum(answer.record.n_verified) > 0
