"""Which of our tasks `--model mtp-vllm` runs is known before anything is imported or loaded."""

import sys
from types import SimpleNamespace

import pytest
from lm_eval.tasks._index import Kind

from mtp_harness.errors import UserError
from mtp_harness.harness.checks import check_before_load
from mtp_harness.harness.task_index import our_index

INDEX = our_index()
TASKS = sorted(name for name, entry in INDEX.items() if entry.kind in (Kind.TASK, Kind.PY_TASK))
NOT_IN_VLLM = {
    *("mtp_heads", "mtp_positions", "mtp_perplexity", "mtp_solutions", "mtp_acceptance"),
    *("mtp_induction", "mtp_drafts", "mtp_long_context"),
}


@pytest.fixture
def check(monkeypatch):
    """Checks tasks for `mtp-vllm`; its module cannot be imported, as where vLLM is absent."""
    monkeypatch.setitem(sys.modules, "mtp_harness.vllm", None)

    def checked(*tasks, model_args="pretrained=/nowhere", metadata=None):
        manager = SimpleNamespace(task_index=INDEX)
        check_before_load(
            model="mtp-vllm",
            tasks=tasks,
            task_manager=manager,
            confirm_run_unsafe_code=True,
            model_args=model_args,
            metadata=metadata,
        )

    return checked


def test_all_that_is_listed_here_is_a_task():
    assert set(TASKS) > NOT_IN_VLLM


@pytest.mark.parametrize("task", TASKS)
def test_a_task_that_vllm_cannot_do_is_refused_before_anything_is_imported(check, task):
    if task not in NOT_IN_VLLM:
        return check(task)
    with pytest.raises(UserError, match=f"--model mtp-vllm cannot run {task}, .* --model mtp, or"):
        check(task)


def test_a_group_is_refused_once_with_all_the_tasks_that_vllm_cannot_do(check):
    names = "mtp_heads, mtp_positions, mtp_perplexity, mtp_solutions, mtp_induction"
    with pytest.raises(UserError, match=f"cannot run {names}, which"):
        check("mtp_probes", "humaneval_mtp")


@pytest.mark.parametrize("model_args", ["method=ngram,draft_heads=3", {"method": "ngram"}])
def test_drafts_of_any_number_cannot_be_compared_by_k(check, model_args):
    check("mtp_speed", "humaneval_mtp", model_args=model_args)
    with pytest.raises(UserError, match="method=ngram with mtp_speculative, expected another meth"):
        check("mtp_speed", "mtp_speculative", model_args=model_args)


@pytest.mark.parametrize("task", ["mtp_speed", "mtp_speculative"])
def test_probes_ask_one_engine(check, task):
    check(task, model_args="data_parallel_size=1,tensor_parallel_size=2")
    check("humaneval_mtp", model_args="data_parallel_size=2")
    with pytest.raises(UserError, match=f"data_parallel_size=2 with {task}, expected 1"):
        check(task, "humaneval_mtp", model_args="data_parallel_size=2")


def test_speed_has_no_baseline_in_vllm(check):
    with pytest.raises(UserError, match="baseline=b with mtp_speed, expected none"):
        check("mtp_speed", metadata={"baseline": "b"})
