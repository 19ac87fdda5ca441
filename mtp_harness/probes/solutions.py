"""`mtp_solutions`: bits per byte of reference solutions given their prompts, for every head.

The number that still moves where pass@k is 0. Head 1's is lm_eval's log-likelihood of the solution
after the prompt, in bits per byte of what it scores: the solution, and the white space that ends
the prompt, which lm_eval scores with it. Every head scores the same tokens, those that all reach.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from mtp_harness.data.solutions import DATA_SETS
from mtp_harness.probes.head_logprobs import TextQuestion, TextReading
from mtp_harness.probes.measured import Measured
from mtp_harness.probes.pooled import (
    by_data_set,
    column,
    ratio_cells,
    statistic_cell,
)
from mtp_harness.probes.task import ProbeTask
from mtp_harness.results.long_table import Cell, long_table
from mtp_harness.scoring.bits_per_byte import bits_per_byte, pooled_bits_per_byte
from mtp_harness.scoring.decoding import MAX_OFFSET


def measure(reading: TextReading, scored_bytes: int) -> Measured:
    """Return the sums of one solution; lists are by offset.

    Args:
        reading: of prompt and solution.
        scored_bytes: bytes of the tokens that are scored.
    """
    n, heads = reading.n, reading.heads
    # Head i reaches x[i] at the earliest; only a prompt shorter than n makes a difference.
    targets = torch.arange(max(n, reading.first_target), len(reading.tokens))
    states = targets[:, None] - torch.arange(1, n + 1)  # [targets, n]
    return Measured(
        n=n,
        n_tokens=len(reading.tokens) - reading.first_target,
        n_scored=len(targets),
        n_scored_bytes=scored_bytes,
        right=heads.right.gather(0, states).sum(0).tolist(),
        nats=heads.nats.gather(0, states).double().sum(0).tolist(),
    )


class SolutionsTask(ProbeTask):
    """See the module docstring."""

    request_type = "head_logprobs"

    def question(self, doc: dict[str, Any]) -> TextQuestion:
        """Return the question: the solution after its prompt, in one window where it fits."""
        context = doc["context"]
        moved = context[len(context.rstrip()) :]
        scored = len((moved + doc["text"]).encode())
        return TextQuestion(partial(measure, scored_bytes=scored), context=context)

    def metrics(self, doc: dict[str, Any], measured: Measured) -> dict[str, Any]:
        """Return bits per byte by offset, for each benchmark."""
        found: dict[str, Any] = {}
        for data_set in self.data_sets:
            own = data_set == measured["data_set"]
            for i in range(measured["n"]):
                bits = (measured["nats"][i], *(measured[name] for name in SIZE))
                found[f"{data_set}_bits_per_byte_{i + 1}"] = bits if own else (0, 0, 0, 0)
        return found

    def aggregations(self) -> dict[str, Callable[[list[Any]], float]]:
        """Return how bits are pooled."""
        return {
            f"{data_set}_bits_per_byte_{i}": pooled_bits_per_byte
            for data_set in self.data_sets
            for i in range(1, MAX_OFFSET + 1)
        }

    def tables(self, documents: list[Measured]) -> dict[str, dict[str, list[Any]]]:
        """Return `by_offset`."""
        cells: list[Cell] = []
        for data_set, some in by_data_set(documents):
            cells += _by_offset(data_set, some)
        return {"by_offset": long_table(("data_set", "offset"), cells)}

    def described(self, documents: list[Measured]) -> dict[str, dict[str, Any]]:
        """Return what was read; of a benchmark that is not at hand, that it was not."""
        absent = {"sha256": None, "n_documents": 0, "bytes": 0, "source": "not at hand"}
        return {
            **{data_set: dict(absent) for data_set in DATA_SETS},
            **super().described(documents),
        }


SIZE = ("n_scored", "n_tokens", "n_scored_bytes")


def _by_offset(data_set: str, some: Sequence[Measured]) -> Iterator[Cell]:
    places = [(data_set, offset) for offset in range(1, some[0]["n"] + 1)]
    nats, scored = column(some, "nats"), column(some, "n_scored")[:, None]
    yield from ratio_cells(places, "cross_entropy", nats, scored)
    yield from ratio_cells(places, "accuracy", column(some, "right"), scored)
    size = [column(some, name) for name in SIZE]
    for i, place in enumerate(places):
        sums = (nats[:, i], *size)
        yield statistic_cell(place, "bits_per_byte", sums, bits_per_byte, scored.sum())
