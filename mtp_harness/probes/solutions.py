"""`mtp_solutions`: bits per byte of reference solutions given their prompts, for every head.

This still changes when pass@k is 0. Head 1's is lm_eval's log-likelihood of the solution after the
prompt, in bits per byte of what it scores: the solution, and white space at the prompt's end, which
lm_eval scores with it. Every head scores the same tokens: those that all heads can reach.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from mtp_harness.data.solutions import DATA_SETS
from mtp_harness.probes.head_logprobs import TextQuestion, TextReading
from mtp_harness.probes.pooled import Measured, column, ratio_cells, statistic_cell
from mtp_harness.probes.task import ProbeTask, Table
from mtp_harness.probes.teacher_forced import finite
from mtp_harness.results.long_table import Cell
from mtp_harness.scoring.bits_per_byte import bits_per_byte, pooled_bits_per_byte

SIZE = ("n_tokens", "n_scored_bytes")


def measure(reading: TextReading, scored_bytes: int) -> Measured:
    """Return the sums of one solution; `scored_bytes` are those of the tokens that are scored."""
    n, heads = reading.n, reading.heads
    # Head i reaches x[i] at the earliest; it matters only if a prompt is shorter than n.
    targets = reading.reached()
    states = targets[:, None] - torch.arange(1, n + 1)  # [targets, n]
    nats, said = finite(heads.nats.gather(0, states))
    return Measured(
        n=n,
        n_tokens=reading.n_scored,
        n_scored=len(targets),
        n_scored_bytes=scored_bytes,
        right=heads.right.gather(0, states).sum(0).tolist(),
        nats=nats.sum(0).tolist(),
        n_said=said.sum(0).tolist(),  # for a drafter with a smaller vocabulary: see `mtp_heads`
    )


def _by_offset(some: Sequence[Measured]) -> Iterator[Cell]:
    places = [(offset,) for offset in range(1, some[0]["n"] + 1)]
    nats, scored = column(some, "nats"), column(some, "n_scored")[:, None]
    said = column(some, "n_said")
    yield from ratio_cells(places, "cross_entropy", nats, said)
    yield from ratio_cells(places, "accuracy", column(some, "right"), scored)
    size = [column(some, name) for name in SIZE]
    for i, place in enumerate(places):
        sums = (nats[:, i], said[:, i], *size)
        yield statistic_cell(place, "bits_per_byte", sums, bits_per_byte, said[:, i].sum())


class SolutionsTask(ProbeTask):
    """See the module docstring."""

    request_type = "head_logprobs"
    POOLS = {"bits_per_byte": pooled_bits_per_byte}
    TABLES = {"by_offset": Table(("offset",), _by_offset)}

    def question(self, doc: dict[str, Any]) -> TextQuestion:
        """Return the question: the solution after its prompt, in one window where it fits."""
        context = doc["context"]
        moved = context[len(context.rstrip()) :]
        scored = len((moved + doc["text"]).encode())
        return TextQuestion(partial(measure, scored_bytes=scored), context=context)

    def values(self, measured: Measured) -> dict[str, Sequence[float]]:
        """Return bits per byte by offset."""
        size = [measured[name] for name in SIZE]
        return {
            f"bits_per_byte_{i + 1}": (measured["nats"][i], measured["n_said"][i], *size)
            for i in range(measured["n"])
        }

    def described(self, documents: list[Measured]) -> dict[str, dict[str, Any]]:
        """Return what was read; for a benchmark that is not on this machine, that it was not."""
        absent = {"sha256": None, "n_documents": 0, "bytes": 0, "source": "not at hand"}
        return {name: dict(absent) for name in DATA_SETS} | super().described(documents)
