"""A model of the harness shared by several processes, on the CPU, too.

The evaluator pads short ranks by repeating a rank's last request, so answers beyond `repeats` are
dropped before anything counts them.
"""

import atexit
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


class RankedLM(HFLM):  # type: ignore[misc]
    """`HFLM` with ranks on the CPU, and without answers to padding."""

    def __init__(self, **kwargs: Any) -> None:
        """Load the model as `HFLM` does, which sets ranks on GPUs only."""
        super().__init__(**kwargs)
        self._asked: list[Instance] = []
        self._probed: dict[str, list[dict[str, Any]]] = {}
        accelerator = getattr(self, "accelerator", None)
        if accelerator is not None:
            self._rank = accelerator.process_index
            self._world_size = accelerator.num_processes
            if self._world_size > 1:
                # A process that ends while the group's threads run may be aborted.
                atexit.register(accelerator.end_training)

    def barrier(self) -> None:
        """Wait for all processes; the evaluator calls this after it has stored the answers.

        First, answers to padding requests are dropped: later they look like a document's
        own.
        """
        for request in self._asked:
            del request.resps[request.repeats :]
        self._asked.clear()
        super().barrier()

    def _note(self, requests: list[Instance]) -> None:
        if self.world_size > 1:
            self._asked += [request for request in requests if request.repeats]

    def _answer(
        self, requests: list[Instance], answer: Callable[[list[Instance]], list[Any]]
    ) -> list[Any]:
        """Answer a rank's own requests once, and give its padding requests the same answers."""
        self._note(requests)
        own: list[Instance] = []
        places: dict[int, list[int]] = {}
        index: list[int] = []
        seen: Counter[int] = Counter()
        for request in requests:
            key, repeats = id(request), request.repeats or len(requests)  # None: not from a task
            if seen[key] < repeats:
                places.setdefault(key, []).append(len(own))
                own.append(request)
            index.append(places[key][seen[key] % repeats])
            seen[key] += 1
        answers = answer(own)
        return [answers[place] for place in index]

    def agree(self, mine: Any) -> Any:
        """Return rank 0's value in every process."""
        if self.world_size == 1:
            return mine
        box = [mine]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]


def answered_by(name: str, answer: Callable[[Any, list[Instance], bool], list[Any]]) -> Any:
    """Return the method that answers a probe's requests, and records each rank's work in a call.

    Args:
        name: the type of the requests.
        answer: takes the model, this rank's requests (each once), and whether to hide the bar;
            returns one answer each.
    """

    def method(lm: RankedLM, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        def answered(own: list[Instance]) -> list[Any]:
            began = time.perf_counter()
            answers = answer(lm, own, disable_tqdm or lm.rank != 0)
            spent = {"n_requests": len(own), "wall_s": time.perf_counter() - began}
            lm._probed.setdefault(name, []).extend(lm.gather_object(spent) or [])
            return answers

        return lm._answer(requests, answered)

    return method
