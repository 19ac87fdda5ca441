"""`mtp_perplexity`: how well a text is predicted, in a window that slides over it.

    token_perplexity = exp(nats / tokens)     byte_perplexity = exp(nats / bytes)
    word_perplexity  = exp(nats / words)      bits_per_byte   = nats / bytes / ln 2

Tokens, bytes and words are those of lm_eval's rolling log-likelihood, words split at white space.
At stride = window (`--metadata stride`) head 1's nats are its numbers. A smaller stride gives every
token more of what stands before it, and reads the text window / stride times.

Head i scores all tokens that it can reach, x[i]..x[N]. Its cross-entropy is marginal: it has not
seen the i-1 tokens in between. So only head 1 has a perplexity.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtp_harness.probes.head_logprobs import TextQuestion, TextReading
from mtp_harness.probes.heads import window_of
from mtp_harness.probes.measured import Measured
from mtp_harness.probes.pooled import (
    by_data_set,
    column,
    ratio_cells,
    statistic_cell,
)
from mtp_harness.probes.positions import BOUND, EDGES, bucket_of
from mtp_harness.probes.task import ProbeTask
from mtp_harness.results.long_table import Cell, long_table
from mtp_harness.scoring.bits_per_byte import bits_per_byte, pooled_bits_per_byte
from mtp_harness.scoring.decoding import MAX_OFFSET, ratio_of_sums

STRIDE = 256
QUICK_STRIDE = 512

UNITS = {"token_perplexity": "n_tokens", "byte_perplexity": "n_bytes", "word_perplexity": "n_words"}
"""Perplexities, and what they are per."""


def measure(reading: TextReading, text: str) -> Measured:
    """Return the sums of one text; lists are by offset, those of groups [G, 2n]: nats, tokens."""
    mask = reading.has_target()  # [N, n]
    nats = torch.where(mask, reading.heads.nats, 0).double()
    values = torch.cat([nats, mask.double()], 1)  # [N, 2n]
    low = reading.position < BOUND
    return Measured(
        n=reading.n,
        n_tokens=len(reading.tokens) - reading.first_target,
        n_tokens_read=reading.n_tokens_read,
        n_words=len(re.split(r"\s+", text)),
        nats=nats.sum(0).tolist(),
        n_scored=mask.sum(0).tolist(),
        positions=_by(reading.position[low], values[low], BOUND),
        buckets=_by(bucket_of(reading.position), values, len(EDGES) - 1),
    )


def _by(group: Tensor, values: Tensor, n_groups: int) -> list[list[float]]:
    """Return the sums of values [N, C] by group [N], [n_groups, C]."""
    sums = torch.zeros(n_groups, values.shape[1], dtype=torch.float64)
    found: list[list[float]] = sums.index_add_(0, group, values).tolist()
    return found


class PerplexityTask(ProbeTask):
    """See the module docstring."""

    request_type = "head_logprobs"
    OPTIONS = frozenset({"window", "stride"})

    def question(self, doc: dict[str, Any]) -> TextQuestion:
        """Return the question: windows that slide by `stride`, 256 tokens unless told."""
        return TextQuestion(
            partial(measure, text=doc["text"]),
            window=window_of(self.options),
            stride=self.options.get("stride"),
            usual_stride=QUICK_STRIDE if self.options.get("quick") else STRIDE,
            as_rolling=True,
        )

    def metrics(self, doc: dict[str, Any], measured: Measured) -> dict[str, Any]:
        """Return head 1's perplexities, bits per byte by offset, and the cost, by data set."""
        found: dict[str, Any] = {}
        size = (measured["n_tokens"], measured["n_bytes"])
        for data_set in self.data_sets:
            own = data_set == measured["data_set"]
            for metric, unit in UNITS.items():
                pair = (measured["nats"][0], measured[unit])
                found[f"{data_set}_{metric}"] = pair if own else (0, 0)
            for i in range(measured["n"]):
                bits = (measured["nats"][i], measured["n_scored"][i], *size)
                found[f"{data_set}_bits_per_byte_{i + 1}"] = bits if own else (0, 0, 0, 0)
            own_bits = float(bits_per_byte(np.array([measured["nats"][0], size[0], *size])))
            found[f"{data_set}_bits_per_byte_1_mean"] = (own_bits, 1) if own else (0, 0)
            read = (measured["n_tokens_read"], measured["n_tokens"])
            found[f"{data_set}_tokens_read_per_token"] = read if own else (0, 0)
        return found

    def aggregations(self) -> dict[str, Callable[[list[Any]], float]]:
        """Return how perplexities and bits are pooled."""
        rules: dict[str, Callable[[list[Any]], float]] = {}
        for data_set in self.data_sets:
            rules |= {f"{data_set}_{metric}": pooled_perplexity for metric in UNITS}
            for i in range(1, MAX_OFFSET + 1):
                rules[f"{data_set}_bits_per_byte_{i}"] = pooled_bits_per_byte
        return rules

    def tables(self, documents: list[Measured]) -> dict[str, dict[str, list[Any]]]:
        """Return `by_offset`, `by_position` and `by_bucket`."""
        whole: list[Cell] = []
        positions: list[Cell] = []
        buckets: list[Cell] = []
        for data_set, some in by_data_set(documents):
            whole += _by_offset(data_set, some)
            positions += _by_group([(data_set, p) for p in range(BOUND)], some, "positions")
            places = [(data_set, begin, end - 1) for begin, end in pairwise(EDGES)]
            buckets += _by_group(places, some, "buckets")
        return {
            "by_offset": long_table(("data_set", "offset"), whole),
            "by_position": long_table(("data_set", "offset", "position"), positions),
            "by_bucket": long_table(
                ("data_set", "offset", "position_from", "position_to"), buckets
            ),
        }


def _by_offset(data_set: str, some: Sequence[Measured]) -> Iterator[Cell]:
    places = [(data_set, offset) for offset in range(1, some[0]["n"] + 1)]
    nats, scored = column(some, "nats"), column(some, "n_scored")  # [P, n]
    size = [column(some, name) for name in ("n_tokens", "n_bytes")]
    yield from ratio_cells(places, "cross_entropy", nats, scored)
    for i, place in enumerate(places):
        sums = (nats[:, i], scored[:, i], *size)
        yield statistic_cell(place, "bits_per_byte", sums, bits_per_byte, scored[:, i].sum())
    for metric, unit in UNITS.items():
        sums = (nats[:, 0], column(some, unit))
        yield statistic_cell(places[0], metric, sums, perplexity, sums[1].sum())
    own = bits_per_byte(np.column_stack([nats[:, 0], scored[:, 0], *size]))[:, None]
    yield from ratio_cells(places[:1], "bits_per_byte_mean", own, np.ones((1, 1)))
    read = column(some, "n_tokens_read")[:, None]
    yield from ratio_cells([(data_set, None)], "tokens_read_per_token", read, size[0][:, None])


def _by_group(
    places: Sequence[tuple[Any, ...]], some: Sequence[Measured], name: str
) -> Iterator[Cell]:
    """Yield the cross-entropy of every group of states and offset."""
    n = some[0]["n"]
    sums = column(some, name).reshape(len(some), -1, 2 * n)  # [P, G, 2n]
    for i in range(n):
        there = [(data_set, i + 1, *rest) for data_set, *rest in places]
        yield from ratio_cells(there, "cross_entropy", sums[:, :, i], sums[:, :, n + i])


def perplexity(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the perplexity [...] of the columns nats and units, [..., 2]."""
    found: NDArray[np.float64] = np.exp(means[..., 0] / means[..., 1])
    return found


def pooled_perplexity(pairs: list[tuple[float, float]]) -> float:
    """Aggregate (nats, units) of documents as a perplexity."""
    return float(np.exp(ratio_of_sums(pairs)))
