"""A checkpoint with a sequential module through the front door: `--model mtp` loads its heads."""

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mtp_harness import tasks_dir
from mtp_harness.commands.inspect import main as inspect
from mtp_harness.lm import MTPLM
from mtp_harness.models.load import detect

from .models.family_checkpoints import write


@pytest.fixture(scope="module")
def folder(shared_data):
    found = shared_data / "families" / "vllm" / "glm4_moe"
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


def test_inspect_says_what_the_module_is(folder, capsys):
    assert inspect([folder]) == 0
    said = capsys.readouterr().out
    assert "n = 4 (offsets 1 to 4), by one module on a trunk of 2 layers" in said
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


def test_heads_and_answers_in_one_run(folder):
    found = simple_evaluate(
        model="mtp",
        model_args={"pretrained": folder},
        tasks=["mtp_heads", "humaneval_mtp"],
        task_manager=TaskManager(include_path=tasks_dir(), include_defaults=False),
        metadata={"quick": True},
        limit=1,
        gen_kwargs="max_gen_toks=16",
        device="cpu",
        predict_only=False,
    )
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
