"""`draft_heads=auto`: measures every k on the requests themselves, and keeps the fastest."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mtp_harness.decode.engine import Engine, Request

TOKENS = 48
"""New tokens per request in one measurement."""


def fastest_draft_heads(
    make_engine: Callable[[int], Engine], n: int, requests: Sequence[Request], slots: int
) -> dict[str, Any]:
    """Return the k that decodes the most tokens per second here, and the measurements.

    Every k decodes the beginning of the same answers, once to warm up and then twice, in turn
    (1 … n, n … 1). The fastest k depends on the machine, the batch and the text. As many
    requests are used as there are slots, at least one.
    """
    chosen = [requests[i * len(requests) // slots] for i in range(min(slots, len(requests)))]
    sample = [replace(r, max_new_tokens=min(TOKENS, r.max_new_tokens)) for r in chosen]
    seconds = dict.fromkeys(range(1, n + 1), 0.0)
    tokens = dict.fromkeys(seconds, 0)
    for k in seconds:
        make_engine(k).generate([replace(request, max_new_tokens=4) for request in sample])
    for k in [*seconds, *reversed(seconds)]:
        began = time.perf_counter()
        answers = make_engine(k).generate(sample)
        seconds[k] += time.perf_counter() - began
        tokens[k] += sum(len(answer.tokens) for answer in answers)
    speeds = {k: tokens[k] / seconds[k] for k in seconds}
    return {
        "draft_heads": max(speeds, key=lambda k: speeds[k]),
        "tokens_per_s": speeds,
        "n_requests": len(sample),
        "note": "machine-dependent: measured on this machine, batch size and text",
    }
