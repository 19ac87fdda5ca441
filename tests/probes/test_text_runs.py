"""Whole runs of the probes that read text: two processes, other models, flags that do not fit."""

import json

import pytest

from mtp_harness.errors import UserError
from mtp_harness.harness.checks import check_before_load

from . import runs

TASKS = ["mtp_heads", "mtp_positions", "mtp_perplexity"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return runs.write_texts(tmp_path_factory.mktemp("texts"))


@pytest.mark.parametrize("task", [*TASKS, "mtp_solutions"])
def test_another_model_than_ours_is_told_what_the_task_needs(task):
    with pytest.raises(UserError, match=rf"{task} sends head_logprobs requests, .*'hf' .*mtp"):
        check_before_load(model="hf", tasks=[task])


def test_predictions_alone_are_refused(texts):
    from lm_eval.tasks import TaskManager

    from mtp_harness import tasks_dir

    manager = TaskManager(
        include_path=str(tasks_dir()), include_defaults=False, metadata={"folder": texts}
    )
    (task,) = manager.load(["mtp_heads"])["tasks"].values()
    with pytest.raises(UserError, match="mtp_heads generates no text .*predict_only"):
        task.override_metric("bypass")


def test_what_was_read_and_how_the_checkpoint_is_called(tmp_path, texts):
    lm = runs.harness_model(
        runs.tiny(2), tmp_path, label="small", train_tokens=2e9, train_step=7, train_seed=0
    )
    mtp = runs.run(lm, "mtp_heads", folder=texts)["config"]["mtp"]
    assert (mtp["schema"], mtp["label"]) == (1, "small")
    assert [mtp[f"train_{name}"] for name in ("tokens", "step", "seed")] == [2_000_000_000, 7, 0]
    (read,) = mtp["documents"]["mtp_heads"].values()
    assert read["n_documents"] == len(runs.TEXTS)
    assert read["bytes"] == sum(len(text.encode()) for text in runs.TEXTS.values())
    again = runs.run(lm, "mtp_heads", folder=texts)["config"]["mtp"]["documents"]["mtp_heads"]
    assert list(again.values()) == [read]
    json.dumps(mtp, allow_nan=False)


def test_padding_is_answered_and_not_read_again(tmp_path):
    from lm_eval.api.instance import Instance

    from mtp_harness.probes.head_logprobs import TextQuestion
    from mtp_harness.probes.heads import measure

    lm = runs.harness_model(runs.tiny(2), tmp_path)
    first, second = (
        Instance("head_logprobs", {}, (text, TextQuestion(measure)), 0, metadata=("t", i, 1))
        for i, text in enumerate(["ab = 1\n", "(a)\n"])
    )
    answers = lm.head_logprobs([first, second, second, second])  # as a short rank is padded
    assert answers[1] == answers[2] == answers[3] != answers[0]
    spent = lm.get_model_info()["mtp"]["probes"]["head_logprobs"]
    assert [one["n_requests"] for one in spent] == [2]


@pytest.mark.slow
def test_two_processes_give_one_processes_numbers(tmp_path, texts):
    model = runs.save(runs.tiny(4).float(), tmp_path / "model")
    words = ["--model_args", f"pretrained={model}", "--batch_size", "2", "--tasks", ",".join(TASKS)]
    words += ["--metadata", json.dumps({"folder": texts, "window": 16}), "--log_samples"]
    one, both = found = runs.by_one_and_by_two(tmp_path, words)
    share = len(runs.TEXTS) * len(TASKS)
    read = [[r["n_requests"] for r in f["config"]["mtp"]["probes"]["head_logprobs"]] for f in found]
    assert read == [[share], [share // 2, share // 2]]
    mine, theirs = (f["config"]["mtp"] for f in found)
    assert mine["documents"] == theirs["documents"]
    # Other rows beside a row move the last bits of its float32 numbers.
    ours, wanted = leaves(theirs["tables"]), leaves(mine["tables"])
    numbers = {path: value for path, value in wanted.items() if isinstance(value, float)}
    assert {path: ours[path] for path in numbers} == pytest.approx(numbers, rel=1e-5, abs=1e-6)
    assert ours | numbers == wanted
    assert one["n-samples"] == both["n-samples"]


def leaves(value, path=""):
    """Return JSON as one flat dictionary."""
    if not isinstance(value, dict | list):
        return {path: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, one in parts for k, v in leaves(one, f"{path}/{key}").items()}
