"""Medusa heads: logits and drafts of every step are vLLM's."""

import json

import numpy as np
import pytest
import torch

from mtp_harness.decode import step
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.models.head_states import head_states
from mtp_harness.models.inspection import summarise
from mtp_harness.models.load import load_model


def to_text(tokens):
    return "".join(map(chr, tokens))


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
    told, drafted, plain = np.load(place / "vllm_k3.npz"), [], step.step

    def spy(batch, *rest):
        first = int(batch.pending[0])
        drafted.append((first - 1, batch.text[0, first + 1 : first + 4].tolist()))
        return plain(batch, *rest)

    monkeypatch.setattr(step, "step", spy)
    asked = Request(told["prompt"].tolist(), len(told["output"]))
    [answer] = Engine(model, 4, [], to_text, slots=1).generate([asked])
    assert answer.tokens == told["output"].tolist()
    states, drafts = zip(*drafted, strict=True)
    assert len(drafts) > 10 and list(drafts) == told["drafts"].tolist()[: len(drafts)]
    text = torch.tensor([[*told["prompt"].tolist(), *answer.tokens]])
    for offset, state in head_states(model, text, 4):
        if offset > 1:
            expected = torch.tensor(told["logits"][offset - 2])[: len(states)]
            found = model.logits(offset, state)[0, list(states)]
            assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_texts_and_accepted_drafts_are_vllm_s(case):
    model, place = case
    runs = json.loads((place / "runs_k3.json").read_text())
    asked = [Request(run["prompt"], len(run["tokens"]), key=i) for i, run in enumerate(runs)]
    answers = Engine(model, 4, [], to_text, slots=4).generate(asked)
    for answer, run in zip(answers, runs, strict=True):
        assert answer.tokens == run["tokens"]
        assert list(answer.record.n_verified)[:-1] == run["per_step_accepted"][:-1]
    assert sum(sum(answer.record.n_verified) for answer in answers) > 10
