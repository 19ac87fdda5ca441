"""A checkpoint with a sequential module through the front door: `--model mtp` loads its heads."""

import json
import re

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from mtp_harness import tasks_dir
from mtp_harness.commands.inspect import main as inspect
from mtp_harness.commands.verify import main as verify
from mtp_harness.lm import MTPLM
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.load import detect, load_model, n_future_tokens

from .models.byte_families import write_bytes
from .models.family_checkpoints import write

HYBRID = ("qwen3_5_text", "qwen3_next")
LONG = {"max_position_embeddings": 2048}  # mtp_heads reads 1,024 tokens at once


@pytest.fixture(scope="module", params=["glm4_moe", *HYBRID])
def folder(request, tmp_path_factory):
    """One of vLLM's fixtures, or a random checkpoint on a trunk of linear and full attention."""
    if request.param in HYBRID:
        found = tmp_path_factory.mktemp(request.param)
        write(found, request.param, dtype=torch.float32, vocab_size=256, **LONG)
        byte_tokenizer(2048).save_pretrained(found)
        return str(found)
    found = request.getfixturevalue("shared_data") / "families" / "vllm" / request.param
    if not found.is_dir():
        pytest.skip(f"needs {found}")
    return str(found)


@pytest.mark.parametrize(
    ("family", "modules", "n"),
    [("deepseek_v3", 1, 4), ("mimo", 1, 4), ("qwen3_next", 1, 4), ("qwen3_5_text", 2, 3)],
)
def test_folders_of_families_are_recognised(tmp_path, family, modules, n):
    write(tmp_path, family, modules, dtype=torch.float32)
    found = detect(str(tmp_path))
    assert (found.name, found.n_future_tokens(tmp_path)) == ("sequential", n)


@pytest.mark.parametrize(
    ("modules", "most", "n_of"),
    [(1, 8, {None: 4, 1: 4, 4: 4, 5: 5, 8: 8}), (2, 3, {None: 3, 1: 3, 3: 3})],
)
def test_so_many_heads_as_are_asked_for(tmp_path, monkeypatch, modules, most, n_of):
    folder = write_bytes(tmp_path, "glm4_moe", modules)
    for heads, n in n_of.items():
        assert n_future_tokens(folder, heads) == n
        exactly = heads if heads and modules == 1 else n
        assert load_model(folder, heads=heads).n_future_tokens == exactly
    # Runs with fewer drafts are of the same model.
    assert MTPLM(folder, device="cpu", draft_heads=2).model.n_future_tokens == n_of[None]
    lm = MTPLM(folder, device="cpu", draft_heads=most)
    assert lm.model.n_future_tokens == lm.decoder().k == most
    assert lm.get_model_info()["mtp"]["n_future_tokens"] == most
    at_most = "at most " if modules == 1 else ""
    refused = f"draft_heads={most + 1}, but this checkpoint has {at_most}{most} heads; "
    refused += f"choose 1 to {most}."
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)  # reads weights
    for asking in (
        lambda: MTPLM(folder, device="cpu", draft_heads=most + 1),
        lambda: verify([folder, "--draft-heads", str(most + 1), "--device", "cpu"]),
    ):
        with pytest.raises(ValueError) as caught:
            asking()
        assert str(caught.value) == refused


def test_inspect_says_what_the_module_is(folder, capsys):
    assert inspect([folder]) == 0
    said = capsys.readouterr().out
    assert re.search(r"n = 4 \(offsets 1 to 4\), by one module on a trunk of [24] layers", said)
    assert "transformers folder with sequential modules" in said


def test_log_likelihoods_are_those_of_hf(folder):
    texts = [("", "def f(x):"), ("import os", "\nprint(os)"), ("a b", " c d e f")]
    asked = [
        Instance("loglikelihood", {}, pair, i, metadata=("t", i, 1)) for i, pair in enumerate(texts)
    ]
    ours = MTPLM(folder, device="cpu", batch_size=2).loglikelihood(asked)
    theirs = HFLM(folder, device="cpu", batch_size=2, dtype="float32").loglikelihood(asked)
    for (mine, greedy), (other, same) in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, abs=1e-5) and greedy == same


def evaluate(folder, tasks, metadata, n_tokens=16, **model_args):
    """Run the harness on a document of each task."""
    return simple_evaluate(
        model="mtp",
        model_args={"pretrained": folder, **model_args},
        tasks=tasks,
        task_manager=TaskManager(
            include_path=tasks_dir(), include_defaults=False, metadata=metadata
        ),
        metadata=metadata,
        limit=1,
        gen_kwargs=f"max_gen_toks={n_tokens}",
        device="cpu",
        predict_only=False,
    )


def test_heads_and_answers_in_one_run(folder):
    found = evaluate(folder, ["mtp_heads", "humaneval_mtp"], {"quick": True})
    heads, answers = (found["results"][task] for task in ("mtp_heads", "humaneval_mtp"))
    assert {f"code_accuracy_{offset},none" for offset in range(1, 5)} <= heads.keys()
    assert answers["tokens_per_forward,none"] >= 1
    told = found["config"]["mtp"]
    assert (told["layout"], told["heads"], told["reading"]) == (
        "sequential",
        "sequential",
        "reused",
    )
    assert told["n_future_tokens"] == told["draft_heads"] == 4


def test_sampled_repeats_are_the_same_text_for_every_k_and_from_a_journal(folder, tmp_path):
    """With a threshold, with the fastest k, and where half of the answers are there already."""
    journal, four = tmp_path / "whole", {"n_samples": 4, "temperature": 1.0, "k": [1]}

    def texts(**model_args):
        found = evaluate(folder, ["humaneval_mtp"], four, 12, **model_args)
        [samples] = found["samples"].values()
        return [str(text) for sample in samples for text in sample["resps"][0]]

    plain = texts(draft_heads=1)
    assert len(plain) > 1
    assert texts(draft_heads=4, draft_threshold=0.1) == texts(draft_heads="auto") == plain
    assert texts(draft_heads=4, journal=str(journal)) == plain
    lines = journal.read_text().splitlines(keepends=True)
    half = tmp_path / "half"
    half.write_text("".join(lines[:3]))  # the header and two answers
    assert texts(draft_heads=4, journal=str(half)) == plain
    assert len(lines) == len(half.read_text().splitlines()) == 5


def test_verify_finds_no_error(folder, tmp_path):
    short = ["--prompts", "3", "--new-tokens", "12", "--batch", "1,3", "-o", str(tmp_path / "v")]
    assert verify([folder, *short]) == 0
    compared = json.loads((tmp_path / "v").read_text())["comparisons"]
    assert len(compared) == 7 and sum(row["errors"] for row in compared) == 0


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    """A tokenizer of ASCII, for fixtures that have none: their vocabulary is of 200 tokens."""
    known = Tokenizer(WordLevel({chr(i): i for i in range(128)}, unk_token="?"))
    known.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    folder = tmp_path_factory.mktemp("characters")
    PreTrainedTokenizerFast(tokenizer_object=known, eos_token="\0").save_pretrained(folder)
    return str(folder)


FIXTURES = ["vllm/glm4_moe", "vllm/qwen3_5_full", "deepseek_v3", "glm4_moe", "qwen3_5"]


@pytest.mark.parametrize("name", FIXTURES)
def test_verify_finds_no_error_in_the_families_fixtures(shared_data, characters, capsys, name):
    folder = shared_data / "families" / name
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    given = [str(folder), "--prompts", "2", "--new-tokens", "6", "--batch", "2"]
    own = () if (folder / "tokenizer.json").is_file() else ("--tokenizer", characters)
    assert verify([*given, "--draft-heads", "2,4", "--device", "cpu", *own]) == 0
    assert "identical: all " in capsys.readouterr().out
    if own:
        with pytest.raises(ValueError, match="the tokenizer in .* fetch it .*or pass tokenizer="):
            verify(given)
