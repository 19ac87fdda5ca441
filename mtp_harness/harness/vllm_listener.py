"""Listens to vLLM's engine: how many tokens each step emitted, and when an answer ends.

vLLM keeps no numbers of a request that ended at a stop string. Every output of the engine passes
through `LLMEngine.output_processor`, which cuts it at stop strings: during a call of `generate` the
listener stands before it, and sees the outputs whole. This works whether the engine runs in the
same process or in another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from mtp_harness.decode.vllm_counts import Heard


@dataclass
class _Request:
    """What was heard of a request so far."""

    index: int
    sizes: list[int] = field(default_factory=list)
    began: float = 0.0


class Listener:
    """Listens to one call of `LLM.generate`."""

    def __init__(self, engine: Any, keep: Callable[[int, Any, Heard], None]) -> None:
        """Prepare to listen.

        Args:
            engine: vLLM's `LLMEngine`.
            keep: takes the index of a prompt, vLLM's `RequestOutput` and what was heard, as soon as
                an answer is complete.
        """
        self.processor, self.keep = engine.output_processor, keep
        self.requests: dict[str, _Request] = {}

    def __enter__(self) -> Self:
        """Put the listener before the processor."""
        self.process = self.processor.process_outputs
        self.processor.process_outputs = self._hear
        return self

    def __exit__(self, *_: object) -> None:
        """Undo what entering did."""
        del self.processor.process_outputs  # the instance's; the class's is visible again

    def _hear(self, outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        states = self.processor.request_states
        if not self.requests:  # `generate` adds all requests, in order, before its first step
            names = sorted((state.external_req_id for state in states.values()), key=int)
            self.requests = {name: _Request(index) for index, name in enumerate(names)}
        now = time.perf_counter()
        for output in outputs:
            state = states.get(output.request_id)  # None: aborted meanwhile
            if state is not None and output.new_token_ids:
                request = self.requests[state.external_req_id]
                request.sizes.append(len(output.new_token_ids))
                request.began = request.began or now
        made = self.process(outputs, *args, **kwargs)
        for ended in made.request_outputs:
            if ended.finished:
                request = self.requests[ended.request_id]
                seconds = time.perf_counter() - request.began
                self.keep(request.index, ended, heard_of(ended, request.sizes, seconds))
        return made


def heard_of(output: Any, sizes: list[int], seconds: float) -> Heard:
    """Return the content of vLLM's `RequestOutput`, and what was heard of its steps."""
    answer = output.outputs[0]
    metrics = getattr(answer, "spec_decode_metrics", None)
    told = metrics.to_dict() if metrics is not None else None
    # `to_dict` leaves out lists without entries: the prefill's token ended the answer.
    names = ("per_step_accepted", "per_step_drafted")
    accepted, drafted = (tuple(told.get(n, ())) if told is not None else None for n in names)
    return Heard(
        n_prompt=len(output.prompt_token_ids),
        tokens=tuple(answer.token_ids),
        finish_reason=str(answer.finish_reason),
        stop_reason=answer.stop_reason,
        sizes=tuple(sizes),
        accepted=accepted,
        drafted=drafted,
        seconds=seconds,
    )
