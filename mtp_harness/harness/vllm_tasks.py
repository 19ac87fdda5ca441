"""Which of our tasks vLLM can do, and with which arguments, by what the tasks say of themselves.

Importing the model's class imports vLLM, which takes long, and starting it takes a minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtp_harness.errors import UserError
from mtp_harness.harness.task_index import RequestedTask, listed


def refuse_in_vllm(
    requested: Sequence[RequestedTask], arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Refuse tasks that `--model mtp-vllm` cannot do.

    Args:
        requested: the tasks of the run.
        arguments: of the model.
        options: of the tasks (`--metadata`).

    Raises:
        UserError: One sentence that says what to do instead.
    """
    asking = [
        (one.name, request_type, getattr(one.task_class, "IN_VLLM", False))
        for one in requested
        if (request_type := getattr(one.task_class, "request_type", None))
    ]
    if names := [name for name, _, in_vllm in asking if not in_vllm]:
        raise UserError(
            f"--model mtp-vllm cannot run {listed(names)}, which need this package's own engine: "
            "run them with --model mtp, or measure acceptance with mtp_speculative and speed with "
            "mtp_speed, which run in vLLM, too."
        )
    copies = arguments.get("data_parallel_size") or 1
    if asking and str(copies) != "1":
        raise UserError(
            f"data_parallel_size={copies} with {listed(name for name, *_ in asking)}, expected 1: "
            "one engine is asked, so leave it out."
        )
    by_k = [name for name, request_type, _ in asking if request_type == "speculative"]
    if by_k and arguments.get("method") == "ngram":
        raise UserError(
            f"method=ngram with {listed(by_k)}, expected another method: it drafts another number "
            "of tokens in every step, so measure its speed with mtp_speed."
        )
    timed = [name for name, request_type, _ in asking if request_type == "speed"]
    if timed and options.get("baseline"):
        raise UserError(
            f"baseline={options['baseline']} with {listed(timed)}, expected none: --model mtp-vllm "
            "holds one model, so leave it out, and compare two runs."
        )
