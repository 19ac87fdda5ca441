"""Medusa heads: logits and drafts of every step are vLLM's."""

import numpy as np
import pytest
import torch

from mtp_harness.models.head_states import head_states
from mtp_harness.models.inspection import summarise
from mtp_harness.models.load import load_model

from .drafts import accept_as_vllm, decode_as_vllm


@pytest.fixture(scope="module", params=["medusa", "medusa_pt"])
def case(request, shared_data):
    """A trunk with heads of vLLM's or of the authors' form, and where vLLM's numbers are."""
    data = shared_data / "drafters"
    if not data.is_dir():
        pytest.skip(f"needs {data}")
    found = summarise(str(data / "trunk"), drafter=str(data / request.param))
    assert found.problems == [] and found.n_future_tokens == 4
    return load_model(str(data / "trunk"), drafter=str(data / request.param)), data / "medusa"


@torch.no_grad()
def test_logits_and_drafts_of_every_step_are_vllm_s(case, monkeypatch):
    model, place = case
    told = np.load(place / "vllm_k3.npz")
    tokens, pending = decode_as_vllm(model, told, 3, monkeypatch)
    states = [position - 1 for position in pending]
    text = torch.tensor([[*told["prompt"].tolist(), *tokens]])
    for offset, state in head_states(model, text, 4):
        if offset > 1:
            expected = torch.tensor(told["logits"][offset - 2])[: len(states)]
            found = model.logits(offset, state)[0, states]
            assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_texts_and_accepted_drafts_are_vllm_s(case):
    model, place = case
    accept_as_vllm(model, place / "runs_k3.json", 3)
