"""One module that drafts on by itself: plain decoding's text, and transformers' own accepts."""

import json

import pytest
import torch

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.sampling import Sampling
from mtp_harness.models.checkpoints.sequential_folder import load_sequential
from mtp_harness.probes.teacher_forced import hits, walk

from ..models.family_checkpoints import QWEN, write

pytestmark = pytest.mark.usefixtures("float64_throughout")

EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}
PROMPTS = [[1, 19, 1, 25, 7], [3], [9, 9, 4, 2, 8, 30, 31], [1, 19, 1, 25, 7]]


def to_text(tokens):
    return "".join(map(chr, tokens))


@pytest.fixture(scope="module", params=["deepseek_v3", "glm4_moe", "mimo", *QWEN])
def checkpoint(request, tmp_path_factory):
    """A random checkpoint, its trunk as transformers has it, and a text for each prompt."""
    folder = tmp_path_factory.mktemp(request.param)
    main, _ = write(folder, request.param, dtype=torch.float64)
    texts = []
    with torch.no_grad():
        for prompt in PROMPTS:
            tokens = list(prompt)
            for _ in range(24):
                tokens.append(int(main(torch.tensor([tokens])).logits[0, -1].argmax()))
            texts.append(tokens[len(prompt) :])
    return folder, texts


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_the_text_is_that_of_plain_decoding(checkpoint, k, slots):
    folder, texts = checkpoint
    model = load_sequential(folder, heads=6, **EAGER)
    asked = [Request(prompt, 24, key=i) for i, prompt in enumerate(PROMPTS)]
    answers = Engine(model, k, [], to_text, slots=slots).generate(asked)
    assert [answer.tokens for answer in answers] == texts


def test_sampled_text_is_the_same_for_every_k_and_threshold(checkpoint):
    folder, _ = checkpoint
    model = load_sequential(folder, heads=4, **EAGER)
    found = []
    for k, rule in ((1, Rule()), (2, Rule()), (4, Rule()), (4, Rule(draft_threshold=0.02))):
        asked = [
            Request(prompt, 24, key=i, sampling=Sampling(0.9, 0, 1.0))
            for i, prompt in enumerate(PROMPTS)
        ]
        answers = Engine(model, k, [], to_text, slots=3, rule=rule).generate(asked)
        found.append([answer.tokens for answer in answers])
    assert found[0] == found[1] == found[2] == found[3]


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
