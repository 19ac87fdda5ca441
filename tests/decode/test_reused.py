"""Which drafts are accepted: as transformers' own `generate(use_mtp=True)` has it, and a walk."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.generation.candidate_generator import MTPCandidateGenerator

from mtp_harness.decode.engine import Engine, Request
from mtp_harness.models.checkpoints.sequential_folder import load_sequential
from mtp_harness.probes.teacher_forced import hits, walk

from ..models.family_checkpoints import write

pytestmark = pytest.mark.usefixtures("float64_throughout")

EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}
PROMPTS = [[1, 19, 1, 25, 7], [9, 9, 4, 2, 8, 30, 31], [3, 5]]


def to_text(tokens):
    return "".join(map(chr, tokens))


@pytest.fixture(scope="module", params=["deepseek_v3", "glm4_moe"])
def trained(request, shared_data):
    """A briefly trained checkpoint, and what transformers' `generate(use_mtp=True)` gave."""
    folder = shared_data / "families" / request.param
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    runs = json.loads((folder / "expected.json").read_text())["runs"]["float32"]
    return load_sequential(folder, torch.float32, **EAGER), runs


@pytest.mark.parametrize("slots", [1, 4])
def test_accepted_drafts_are_those_of_transformers(trained, slots):
    model, runs = trained
    asked = [Request(run["prompt"], 32, key=i) for i, run in enumerate(runs)]
    answers = Engine(model, 2, [], to_text, slots=slots).generate(asked)
    for answer, run in zip(answers, runs, strict=True):
        assert answer.tokens == run["tokens"]
        theirs = [step["accepted"] for step in run["steps"][1:]]  # the first is the prompt's
        ours = list(answer.record.n_verified)
        assert ours[:-1] == theirs[:-1]  # the last is cut by the budget: they count what it left
    assert sum(sum(answer.record.n_verified) for answer in answers) > 20


def repeating(module, of):
    """Let trunk and modules say what comes after a token much alike, so that drafts are right."""
    if of == "trunk":
        module.get_input_embeddings().weight.data *= 12
        return
    for layer in module:
        weight = layer.eh_proj.weight.data
        weight *= 0.4
        weight[:, : len(weight)].add_(torch.eye(len(weight)))  # the embedding's half


def theirs(main, n, prompt, budget, monkeypatch):
    """Return transformers' tokens, and how many drafts each of its steps had right."""
    # Its classes leave out the layers of the modules of released sizes alone.
    first = main.config.num_hidden_layers
    main._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{first + i}\." for i in range(n)]
    starts, own = [], MTPCandidateGenerator.get_candidates

    def spy(self, input_ids, **others):
        starts.append(input_ids.shape[1])
        return own(self, input_ids, **others)

    monkeypatch.setattr(MTPCandidateGenerator, "get_candidates", spy)
    given = torch.tensor([prompt])
    settings = {"max_new_tokens": budget, "do_sample": False, "eos_token_id": None, "use_mtp": True}
    found = main.generate(given, attention_mask=torch.ones_like(given), **settings)
    ends = [*starts[1:], len(prompt) + budget]
    accepted = [end - start - 1 for start, end in zip(starts, ends, strict=True)]
    return found[0, len(prompt) :].tolist(), accepted


@pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe"])
@torch.no_grad()
def test_accepted_drafts_of_two_modules_are_those_of_transformers(tmp_path, monkeypatch, family):
    write(tmp_path, family, 2, fill=repeating, num_hidden_layers=2)
    main = AutoModelForCausalLM.from_pretrained(tmp_path, **EAGER).eval()
    model, seen = load_sequential(tmp_path, **EAGER), set()
    for prompt in PROMPTS:  # of as many tokens as modules at least, or transformers fails
        tokens, accepted = theirs(main, 2, prompt, 20, monkeypatch)
        [answer] = Engine(model, 3, [], to_text).generate([Request(prompt, 20)])
        assert answer.tokens == tokens
        assert list(answer.record.n_verified)[:-1] == accepted[1:-1]  # the first is the prompt's
        seen |= {*answer.record.n_verified}
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_walk_over_its_own_text_gives_the_decoder_s_counters(trained, k):
    model, runs = trained
    asked = [Request(run["prompt"], 32, key=i) for i, run in enumerate(runs)]
    for answer, run in zip(
        Engine(model, k, [], to_text, slots=4).generate(asked), runs, strict=True
    ):
        text = [*run["prompt"], *answer.tokens]
        right = hits(model, torch.tensor([text]), k)[0]
        counted = walk(right, len(run["prompt"]) - 1, len(text))
        assert counted.n_steps == len(answer.record.n_verified)
        assert counted.n_kept == answer.record.n_kept


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_trained_module_on_a_hybrid_trunk(shared_data, k, slots):
    """The text is that of transformers' `generate`; the accepts are those of a plain prototype."""
    folder = shared_data / "families" / "qwen3_5"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    told = json.loads((folder / "expected.json").read_text())
    model = load_sequential(folder, torch.float32, **EAGER)
    asked = [Request(run["prompt"], 32, key=i) for i, run in enumerate(told["greedy"])]
    answers = Engine(model, k, [], to_text, slots=slots).generate(asked)
    assert [answer.tokens for answer in answers] == [run["tokens"] for run in told["greedy"]]
    steps = told["prototype_speculative"][str(k)]["accepted_per_step_and_row"]
    for row, answer in enumerate(answers):
        assert list(answer.record.n_verified) == [step[row] for step in steps if step[row] >= 0]
