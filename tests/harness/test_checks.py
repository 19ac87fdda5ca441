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

    def checked(*tasks):
        manager = SimpleNamespace(task_index=INDEX)
        check_before_load(
            model="mtp-vllm",
            tasks=tasks,
            task_manager=manager,
            confirm_run_unsafe_code=True,
            model_args="pretrained=/nowhere",
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
