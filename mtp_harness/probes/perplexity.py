"""`mtp_perplexity`: how well a text is predicted in a sliding window.

    token_perplexity = exp(nats / tokens)     byte_perplexity = exp(nats / bytes)
    word_perplexity  = exp(nats / words)      bits_per_byte   = nats / bytes / ln 2

Tokens, bytes and words are those of lm_eval's rolling log-likelihood; words are separated by white
space. At stride = window (`--metadata stride`) head 1's nats equal lm_eval's. A smaller stride
gives every token more context, and reads the text window / stride times.

Head i scores all tokens that it can reach, x[i]..x[N]. Its cross-entropy is marginal: it has not
seen the i-1 tokens in between. So only head 1 has a perplexity.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mtp_harness.probes.head_logprobs import TextQuestion, TextReading
from mtp_harness.probes.pooled import Measured, column, ratio_cells, statistic_cell
from mtp_harness.probes.positions import BUCKETS, POSITIONS, offset_cells, sums_by_position
from mtp_harness.probes.task import ProbeTask, Table
from mtp_harness.probes.teacher_forced import finite
from mtp_harness.results.long_table import Cell
from mtp_harness.scoring.bits_per_byte import bits_per_byte, pooled_bits_per_byte
from mtp_harness.scoring.decoding import ratio_of_sums

STRIDE, QUICK_STRIDE = 256, 512

UNITS = {"token_perplexity": "n_tokens", "byte_perplexity": "n_bytes", "word_perplexity": "n_words"}
"""Perplexities, and their units."""


def measure(reading: TextReading) -> Measured:
    """Return the sums of one text; lists are by offset, those of groups [G, 2n]: nats, tokens."""
    mask = reading.has_target()  # [N, n]
    nats, said = finite(torch.where(mask, reading.heads.nats, 0))
    mask &= said  # for a drafter with a smaller vocabulary: see `mtp_heads`
    values = torch.cat([nats, mask.double()], 1)  # [N, 2n]
    return Measured(
        n=reading.n,
        n_tokens=reading.n_scored,
        n_tokens_read=reading.n_tokens_read,
        n_words=len(re.split(r"\s+", reading.encoded.text)),
        nats=nats.sum(0).tolist(),
        n_scored=mask.sum(0).tolist(),
        **sums_by_position(reading.position, values),
    )


def perplexity(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the perplexity [...] of the columns nats and units, [..., 2]."""
    found: NDArray[np.float64] = np.exp(means[..., 0] / means[..., 1])
    return found


def pooled_perplexity(pairs: list[tuple[float, float]]) -> float:
    """Aggregate (nats, units) of documents as a perplexity."""
    return float(np.exp(ratio_of_sums(pairs)))


def _by_offset(some: Sequence[Measured]) -> Iterator[Cell]:
    places = [(offset,) for offset in range(1, some[0]["n"] + 1)]
    nats, scored = column(some, "nats"), column(some, "n_scored")  # [P, n]
    size = [column(some, name) for name in ("n_tokens", "n_bytes")]
    yield from ratio_cells(places, "cross_entropy", nats, scored)
    for i, place in enumerate(places):
        sums = (nats[:, i], scored[:, i], *size)
        yield statistic_cell(place, "bits_per_byte", sums, bits_per_byte, scored[:, i].sum())
    for metric, unit in UNITS.items():
        pair = (nats[:, 0], column(some, unit))
        yield statistic_cell(places[0], metric, pair, perplexity, pair[1].sum())
    own = bits_per_byte(np.column_stack([nats[:, 0], scored[:, 0], *size]))[:, None]
    yield from ratio_cells(places[:1], "bits_per_byte_mean", own, np.ones((1, 1)))
    read = column(some, "n_tokens_read")[:, None]
    yield from ratio_cells([(None,)], "tokens_read_per_token", read, size[0][:, None])


def _cross_entropy(some: Sequence[Measured], name: str) -> Iterator[Cell]:
    n = some[0]["n"]
    sums = column(some, name).reshape(len(some), -1, 2 * n)  # [P, G, 2n]
    places = POSITIONS if name == "positions" else BUCKETS
    yield from offset_cells(places, "cross_entropy", sums[:, :, :n], sums[:, :, n:])


class PerplexityTask(ProbeTask):
    """See the module docstring."""

    request_type = "head_logprobs"
    OPTIONS = frozenset({"window", "stride"})
    POOLS = {**dict.fromkeys(UNITS, pooled_perplexity), "bits_per_byte": pooled_bits_per_byte}
    TABLES = {
        "by_offset": Table(("offset",), _by_offset),
        "by_position": Table(("offset", "position"), partial(_cross_entropy, name="positions")),
        "by_bucket": Table(
            ("offset", "position_from", "position_to"), partial(_cross_entropy, name="buckets")
        ),
    }

    def question(self, doc: dict[str, Any]) -> TextQuestion:
        """Return the question: windows that slide by `stride`, by default 256 tokens."""
        return TextQuestion(
            measure,
            window=self.window,
            stride=self.options.get("stride"),
            usual_stride=QUICK_STRIDE if self.options.get("quick") else STRIDE,
            as_rolling=True,
            kind=doc["kind"],
        )

    def values(self, measured: Measured) -> dict[str, Sequence[float]]:
        """Return head 1's perplexities, bits per byte by offset, and the cost."""
        nats, size = measured["nats"], (measured["n_tokens"], measured["n_bytes"])
        found: dict[str, Sequence[float]] = {}
        for metric, unit in UNITS.items():
            found[metric] = (nats[0], measured[unit])
        for i in range(measured["n"]):
            found[f"bits_per_byte_{i + 1}"] = (nats[i], measured["n_scored"][i], *size)
        own = bits_per_byte(np.array([nats[0], size[0], *size]))
        found["bits_per_byte_1_mean"] = (float(own), 1)
        found["tokens_read_per_token"] = (measured["n_tokens_read"], measured["n_tokens"])
        return found
