"""From vLLM's numbers of one answer to a `DecodeRecord`, counted as our own decoder counts.

An answer has two sources. Outputs: how many tokens each engine step emitted. Metrics, at the end:
how many drafts each step verified (`per_step_accepted`) of how many (`per_step_drafted`).

    outputs                1    4    2    1    2         the prefill's token first
    per_step_accepted           3    1         3         no entry for a step without a draft
    per_step_drafted            3    3         3
    our n_verified              3    1    0    3         one entry for each step after the prefill
    our n_drafted               3    3    0    3

- The prefill is not a step, in both counts.
- A step without a draft (the end of the context is near, or the request was preempted) counts as a
  step with 0 drafts.
- The last step's 3 verified drafts would give 4 tokens; EOS or the budget has cut the output to 2.
  Both count drafts before the cut and tokens after it.
- An answer that ends at a stop string has no metrics: vLLM looks for these strings outside of the
  engine, and then aborts the request. But its outputs are whole, also the last one, so a step of m
  tokens verified m - 1 drafts. A method with a fixed number of drafts makes all of them in every
  step, as far as the context has room: a step that starts with t tokens drafts at most
  `max_length` - t - 1.

Source: vLLM 0.32, `v1/core/sched/scheduler.py` and `v1/engine/output_processor.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.records import DecodeRecord, is_looping
from mtp_harness.decode.sampling import Sampling

REJECTION_RULE = (
    "rejection sampling: a draft is accepted with the probability that keeps the distribution of "
    "the text"
)
"""vLLM's rule when tokens are sampled; it differs from ours, so acceptance is not comparable."""


@dataclass(frozen=True)
class Heard:
    """vLLM's numbers of one answer.

    Attributes:
        n_prompt: tokens of the prompt, as it was fed.
        tokens: ids up to the one that ended the answer.
        finish_reason: `stop` or `length`.
        stop_reason: the stop string, or the id of a token other than EOS, that ended it.
        sizes: tokens of each output, before a stop string cuts the last one; empty without drafts.
        accepted: `per_step_accepted`; None without metrics.
        drafted: `per_step_drafted`; None without metrics.
        seconds: wall time from the first token to the end.
    """

    n_prompt: int
    tokens: tuple[int, ...]
    finish_reason: str
    stop_reason: str | int | None
    sizes: tuple[int, ...] = ()
    accepted: tuple[int, ...] | None = None
    drafted: tuple[int, ...] | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Setting:
    """What is the same for all answers of an engine: k, its context, and its rows."""

    draft_heads: int
    max_length: int
    batch_size: int


def record_of(heard: Heard, setting: Setting, greedy: bool, n_truncated: int = 0) -> DecodeRecord:
    """Return the decode record of an answer.

    Raises:
        ValueError: vLLM's numbers contradict each other.
    """
    k = setting.draft_heads
    steps = [*steps_of(heard, setting)]
    drafted = tuple(made for _, made in steps)
    return DecodeRecord(
        n_prompt_tokens=heard.n_prompt,
        n_truncated=n_truncated,
        draft_heads=k,
        draft_rule=Rule().describe(Sampling()) if greedy or k == 1 else REJECTION_RULE,
        n_kept=len(heard.tokens) - 1,
        n_verified=tuple(verified for verified, _ in steps),
        n_drafted=None if drafted == (k - 1,) * len(drafted) else drafted,
        ended_by=_ended_by(heard),
        looping=is_looping([*heard.tokens]),
        batch_size=setting.batch_size,
        prefill_s=None,
        decode_s=heard.seconds,
        tokens=heard.tokens,
    )


def steps_of(heard: Heard, setting: Setting) -> Iterator[tuple[int, int]]:
    """Yield verified drafts and drafts of each step after the prefill; see the module.

    Raises:
        ValueError: vLLM's numbers contradict each other.
    """
    if setting.draft_heads == 1:
        yield from [(0, 0)] * (len(heard.tokens) - 1)
        return
    if not heard.sizes or heard.sizes[0] != 1 or sum(heard.sizes) < len(heard.tokens):
        raise _contradiction(heard)
    if heard.accepted is None or heard.drafted is None:
        yield from _without_metrics(heard, setting)
        return
    told = list(zip(heard.accepted, heard.drafted, strict=True))
    for index, size in enumerate(heard.sizes[1:], 2):
        last = index == len(heard.sizes)
        if told and (size == told[0][0] + 1 or (last and size <= told[0][0] + 1)):
            yield told.pop(0)
        elif size == 1:
            yield 0, 0
        else:
            raise _contradiction(heard)
    if told:
        raise _contradiction(heard)


def _without_metrics(heard: Heard, setting: Setting) -> Iterator[tuple[int, int]]:
    n_tokens = heard.n_prompt + heard.sizes[0]
    for size in heard.sizes[1:]:
        drafted = max(0, min(setting.draft_heads, setting.max_length - n_tokens) - 1)
        if size > drafted + 1:
            raise _contradiction(heard)
        yield size - 1, drafted
        n_tokens += size


def _ended_by(heard: Heard) -> str:
    if heard.finish_reason == "length":
        return "length"
    return "stop" if isinstance(heard.stop_reason, str) else "eos"


def _contradiction(heard: Heard) -> ValueError:
    return ValueError(
        f"vLLM's numbers of an answer of {len(heard.tokens)} tokens contradict each other (outputs "
        f"{_listed(heard.sizes)}; verified drafts {_listed(heard.accepted)}), expected one output "
        "for the prefill and one for each step: use vLLM 0.32, or draft_heads=1."
    )


def _listed(values: Sequence[int] | None) -> str:
    return "none" if values is None else ", ".join(map(str, values[:20]))
