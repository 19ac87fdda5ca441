"""`mtp_heads`: accuracy, loss and calibration of every head on real text.

Head i at t is scored on the token at t+i. All heads are scored on the same states: those whose n
targets all lie in the document. Confidence is the largest probability in float32 at temperature 1.

    cross_entropy      nats per token; marginal: only head 1's is that of a language model. Over the
                       tokens that the head can predict, as is bits_per_byte
    unsayable          share of the tokens outside the vocabulary of a drafter with a smaller one:
                       their loss is infinite, and they count as wrong everywhere else
    brier              sum over the vocabulary of (p - 1 if it is the token)^2, between 0 and 2
    calibration_error  sum over 15 equal bins of confidence, of |right answers - confidence|, over
                       tokens: bins are pooled over all documents before the difference is taken
    tf_agree           head i at t predicts what head 1 predicts at t+i-1
    tf_prefix          so do all of heads 2..i
    accuracy_cond      accuracy over the states where heads 2..i-1 are all right, as in decoding,
                       where a draft counts after verified ones (`accept_rate_cond`)
    same_walk          with `on`: share of answers whose text walk has the counters of the decoder
    effective_horizon  the largest offset with an accuracy of at least .5; 0 if there is none

A single module that drafts repeatedly is read as it decodes (`config.mtp.reading` is `reused`). In
addition, from offset 3 on, metrics that begin with `chained_` read it as its training losses do:
head i reads state i-1 at the same position. At offsets 1 and 2 both readings are equal.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mtp_harness.probes.head_logprobs import TextQuestion, TextReading, sums_by
from mtp_harness.probes.pooled import Measured, column, ratio_cells, statistic_cell
from mtp_harness.probes.task import ProbeTask, Table
from mtp_harness.probes.teacher_forced import finite, right_up_to
from mtp_harness.results.long_table import Cell
from mtp_harness.scoring.bits_per_byte import bits_per_byte, pooled_bits_per_byte

N_BINS = 15
USEFUL = 0.5
"""Accuracy from which `effective_horizon` counts an offset."""

DECODED = ("decoded_kept", "decoded_steps", "n_decoded", "n_same_walk")
"""Counters of answers that an earlier run decoded; only `on` gives any."""

MEANS = {
    "accuracy": "right",
    "accuracy_5": "right_5",
    "accuracy_20": "right_20",
    "cross_entropy": "nats",
    "confidence": "confidence",
    "brier": "brier",
}
"""Metrics that are sums over states divided by their number, and the names of the sums."""


def measure(reading: TextReading) -> Measured:
    """Return the sums of one text; lists are by offset."""
    n, heads = reading.n, reading.heads
    common = reading.has_target().all(-1)  # [N]: states with all n targets
    right, rank = heads.right[common], heads.rank[common]
    again = reading.chained.right[common]  # [N, n-2] or [N, 0]
    agree, prefix = agreement(reading)
    nats, said = finite(heads.nats[common])
    chained_nats, chained_said = finite(reading.chained.nats[common])
    walked = reading.walk()
    return Measured(
        n=n,
        n_tokens=reading.n_scored,
        n_tokens_read=reading.n_tokens_read,
        n_states=int(common.sum()),
        right=right.sum(0).tolist(),
        right_up_to=right_up_to(right),
        right_5=(rank < 5).sum(0).tolist(),
        right_20=(rank < 20).sum(0).tolist(),
        nats=nats.sum(0).tolist(),
        n_said=said.sum(0).tolist(),
        confidence=heads.confidence[common].double().sum(0).tolist(),
        brier=heads.brier[common].double().sum(0).tolist(),
        chained_right=again.sum(0).tolist(),
        chained_right_up_to=right_up_to(torch.cat([right[:, :2], again], 1))[2:],
        chained_nats=chained_nats.sum(0).tolist(),
        chained_said=chained_said.sum(0).tolist(),
        agree=agree[common].sum(0).tolist(),
        prefix=prefix[common].sum(0).tolist(),
        bins=[in_bins(heads.confidence[common, i], right[:, i]) for i in range(n)],
        walk_kept=walked.n_kept,
        walk_steps=walked.n_steps,
        **_as_decoded(reading),
    )


def _as_decoded(reading: TextReading) -> dict[str, int]:
    """Return the counters of the run that decoded this answer, and whether the walk agrees.

    The walk uses the heads that drafted. All are 0 if there is nothing to compare.
    """
    record = reading.encoded.decoded
    if record is None or record.draft_heads > reading.n:
        return dict.fromkeys(DECODED, 0)
    same = reading.walk(record.draft_heads) == (record.n_kept, record.n_steps)
    return dict(zip(DECODED, (record.n_kept, record.n_steps, 1, int(same)), strict=True))


def agreement(reading: TextReading) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `tf_agree` and `tf_prefix` of every state, bool [N, n].

    There is no agreement if the state t+i-1 is beyond the text.
    """
    predicted = reading.heads.predicted  # [N, n]
    agree = torch.zeros_like(reading.heads.right)
    for i in range(reading.n):
        own = predicted[: max(0, len(predicted) - i), i]
        agree[: len(own), i] = own == predicted[i:, 0]
    return agree, agree.long().cumprod(-1).bool()


def in_bins(confidence: torch.Tensor, right: torch.Tensor) -> list[list[float]]:
    """Return count, summed confidence and right answers of each bin, [N_BINS, 3]."""
    place = (confidence * N_BINS).long().clamp(max=N_BINS - 1)
    each = torch.stack([torch.ones_like(confidence), confidence, right.float()], 1)
    return sums_by(place, each, N_BINS)


def _by_offset(some: Sequence[Measured]) -> Iterator[Cell]:
    n = some[0]["n"]
    places = [(offset,) for offset in range(1, n + 1)]
    states = column(some, "n_states")[:, None]  # [P, 1]
    said = column(some, "n_said")  # [P, n]
    for metric, name in MEANS.items():
        yield from ratio_cells(
            places, metric, column(some, name), said if name == "nats" else states
        )
    if (said < states).any():
        yield from ratio_cells(places, "unsayable", states - said, states)
    yield from _chained(some, states)
    run = column(some, "right_up_to")
    yield from ratio_cells(places[1:], "accuracy_cond", run[:, 1:], run[:, :-1])
    for metric, name in (("tf_agree", "agree"), ("tf_prefix", "prefix")):
        yield from ratio_cells(places[1:], metric, column(some, name)[:, 1:], states)
    nats, size = column(some, "nats"), [column(some, name) for name in ("n_tokens", "n_bytes")]
    bins = column(some, "bins").reshape(len(some), n, -1)
    count = states.sum()
    for i, place in enumerate(places):
        sums = (nats[:, i], said[:, i], *size)
        yield statistic_cell(place, "bits_per_byte", sums, bits_per_byte, said[:, i].sum())
        yield statistic_cell(place, "calibration_error", (bins[:, i],), calibration_error, count)
    known = (column(some, "right"), states)
    yield statistic_cell((None,), "effective_horizon", known, horizon, count)
    kept, steps = (column(some, name)[:, None] for name in ("walk_kept", "walk_steps"))
    yield from ratio_cells([(None,)], "text_walk_tokens_per_forward", kept, steps)
    kept, steps, count, same = (column(some, name)[:, None] for name in DECODED)
    yield from ratio_cells([(None,)], "decoded_tokens_per_forward", kept, steps)
    yield from ratio_cells([(None,)], "same_walk", same, count)


def _chained(some: Sequence[Measured], states: NDArray[np.float64]) -> Iterator[Cell]:
    """Yield the chained reading of one module from offset 3 on; nothing for other models."""
    names = ("chained_right", "chained_right_up_to", "chained_nats", "chained_said")
    right, run, nats, said = (column(some, name) for name in names)
    if not right.size:
        return
    places = [(offset,) for offset in range(3, 3 + right.shape[1])]
    before = np.concatenate([column(some, "right_up_to")[:, 1:2], run[:, :-1]], 1)
    yield from ratio_cells(places, "chained_accuracy", right, states)
    yield from ratio_cells(places, "chained_accuracy_cond", run, before)
    yield from ratio_cells(places, "chained_cross_entropy", nats, said)


def _reliability(some: Sequence[Measured]) -> Iterator[Cell]:
    n = some[0]["n"]
    places = [(i + 1, b + 1) for i in range(n) for b in range(N_BINS)]
    bins = column(some, "bins").reshape(len(some), n * N_BINS, 3)
    count, confidence, right = np.moveaxis(bins, -1, 0)
    yield from ratio_cells(places, "confidence", confidence, count)
    yield from ratio_cells(places, "accuracy", right, count)


def calibration_error(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the expected calibration error [...] of bins laid out flat, [..., N_BINS * 3]."""
    count, confidence, right = np.moveaxis(means.reshape(*means.shape[:-1], N_BINS, 3), -1, 0)
    with np.errstate(invalid="ignore"):  # a replicate may have no state
        error: NDArray[np.float64] = np.abs(right - confidence).sum(-1) / count.sum(-1)
    return error


def horizon(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the effective horizon [...] of right answers by offset and states, [..., n+1]."""
    known = means[..., :-1] >= USEFUL * means[..., -1:]
    offsets: NDArray[np.float64] = (known * np.arange(1.0, known.shape[-1] + 1)).max(-1)
    return np.where(means[..., -1] > 0, offsets, np.nan)  # no state, no horizon


def pooled_horizon(values: Sequence[Sequence[float]]) -> float:
    """Aggregate (right answers by offset, states) of documents as the effective horizon."""
    return float(horizon(np.sum(np.array(values, dtype=np.float64), axis=0)))


class HeadsTask(ProbeTask):
    """See the module docstring."""

    request_type = "head_logprobs"
    OPTIONS = frozenset({"window"})
    POOLS = {"effective_horizon": pooled_horizon, "bits_per_byte": pooled_bits_per_byte}
    TABLES = {
        "by_offset": Table(("offset",), _by_offset),
        "reliability": Table(("offset", "bin"), _reliability),
    }

    def question(self, doc: dict[str, Any]) -> TextQuestion:
        """Return the question: windows as long as the context, none overlapping."""
        return TextQuestion(measure, window=self.window, chained=True, kind=doc["kind"])

    def values(self, measured: Measured) -> dict[str, Sequence[float]]:
        """Return what every head knows by offset, and the text walk."""
        found: dict[str, Sequence[float]] = {}
        right, states = measured["right"], measured["n_states"]
        size = (measured["n_tokens"], measured["n_bytes"])
        for i in range(measured["n"]):
            found[f"accuracy_{i + 1}"] = (right[i], states)
            found[f"bits_per_byte_{i + 1}"] = (measured["nats"][i], measured["n_said"][i], *size)
            if i:
                found[f"tf_agree_{i + 1}"] = (measured["agree"][i], states)
            if i > 1:  # at offset 2 it is the accuracy
                run = measured["right_up_to"]
                found[f"accuracy_cond_{i + 1}"] = (run[i], run[i - 1])
        for offset, count in enumerate(measured["chained_right"], 3):
            found[f"chained_accuracy_{offset}"] = (count, states)
        walked = (measured["walk_kept"], measured["walk_steps"])
        found["text_walk_tokens_per_forward"] = walked
        found["effective_horizon"] = [*right, states]
        if self.options.get("on"):
            kept, steps, count, same = (measured[name] for name in DECODED)
            found["decoded_tokens_per_forward"] = (kept, steps)
            found["same_walk"] = (same, count)
        return found
