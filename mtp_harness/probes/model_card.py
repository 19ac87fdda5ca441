"""The numbers of the model cards: accuracy and loss of each head, and the speed of decoding."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import isnan
from statistics import median
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mtp_harness.decode.engine import Answer, Engine, Request
from mtp_harness.decode.records import Acceptance
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.text import end_ids, shown
from mtp_harness.probes.teacher_forced import Reading, Walk, read, score_heads, walk

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def measure_heads(model: MultiHeadModel, text: Tensor) -> dict[str, Any]:
    """Return accuracy and bits per offset, and the text walk with heads 1..k for every k.

    `accuracy_cond` is over states where all earlier drafts are right. Sequential heads have a
    `reading`. With a drafter of a smaller vocabulary, bits are over the tokens that it can predict
    (None if there are none), and `unsayable` is the share of the others.

    Args:
        model: in eval mode.
        text: windows of tokens, int64 [N, T].
    """
    n, length = model.n_future_tokens, text.shape[1]
    walks = {k: Walk(0, 0) for k in range(1, n + 1)}

    def read_and_walk() -> Iterator[Reading]:
        for row in text:
            reading = read(model, row[None].to(model.device))
            right = reading.right[0].cpu()  # [T, n]
            for k, so_far in walks.items():
                here = walk(right[:, :k], start=min(512, length // 2), end=length)
                walks[k] = Walk(so_far.n_kept + here.n_kept, so_far.n_steps + here.n_steps)
            yield reading

    scores = score_heads(read_and_walk())  # one window in memory at a time
    return {
        "n_windows": len(text),
        "window_tokens": length,
        "n_states": scores.n_states,
        **({"reading": model.reading} if model.sequential else {}),
        "accuracy": scores.accuracy(),
        "accuracy_cond": scores.accuracy_cond(),
        "bits_per_token": [None if isnan(bits) else bits for bits in scores.bits()],
        **({"unsayable": scores.unsayable()} if any(scores.unsayable()) else {}),
        "text_walk_tokens_per_forward": {k: w.tokens_per_forward for k, w in walks.items()},
    }


def measure_decoding(
    model: MultiHeadModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    batch: int,
    trials: int,
) -> tuple[dict[str, Any], list[Answer]]:
    """Decode the requests with every k; return the measurements, and NTP's answers.

    Every k is timed on the same requests after a short run, one k after the other in each trial.
    Wall time includes the prefill; its median is reported together with all trials.
    """
    warm_up = [Request(request.prompt, 8) for request in requests[:batch]]
    ks = range(1, model.n_future_tokens + 1)
    to_text = shown(tokenizer)
    engines = {k: Engine(model, k, end_ids(model, tokenizer), to_text, slots=batch) for k in ks}
    for engine in engines.values():
        engine.generate(warm_up)
    answers: dict[int, list[Answer]] = {}
    seconds: dict[int, list[float]] = {k: [] for k in ks}
    for _ in range(trials):
        for k, engine in engines.items():
            began = time.perf_counter()
            answers[k] = engine.generate(requests)
            seconds[k].append(time.perf_counter() - began)
    by_k = {k: _summary(answers[k], answers[1], seconds[k]) for k in ks}
    for k in ks:
        ratios = [one / other for one, other in zip(seconds[1], seconds[k], strict=True)]
        by_k[k]["speedup"] = median(ratios)
    return {"n_prompts": len(requests), "batch_size": batch, "by_k": by_k}, answers[1]


def _summary(answers: list[Answer], ntp: list[Answer], seconds: list[float]) -> dict[str, Any]:
    records = [answer.record for answer in answers]
    n_tokens = sum(len(answer.tokens) for answer in answers)
    not_looping = [record for record in records if not record.looping]
    pooled = Acceptance.pool(records)
    without_loops = Acceptance.pool(not_looping).tokens_per_forward if not_looping else None
    return {
        "identical_to_ntp": sum(a.tokens == b.tokens for a, b in zip(answers, ntp, strict=True)),
        "n_looping": len(records) - len(not_looping),
        "tokens_per_forward": pooled.tokens_per_forward,
        "tokens_per_forward_no_loops": without_loops,
        "accept_rate_prefix": pooled.accept_rate_prefix(),
        "wall_s": median(seconds),
        "wall_s_trials": seconds,
        "tokens_per_s": n_tokens / median(seconds),
        "tokens_per_s_range": [n_tokens / max(seconds), n_tokens / min(seconds)],
    }
