"""`mtp_long_context`: how many drafts are accepted by how much text stands before a step.

A step stands behind its prompt and the tokens that were written before, the one among them that
this step feeds first. Steps are counted by that number, in bins of `WIDTH` tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from mtp_harness.decode.records import DecodeRecord
from mtp_harness.probes.pooled import Measured, pair_cell
from mtp_harness.probes.speculative import (
    SpeculativeQuestion,
    SpeculativeTask,
    acceptance_cells,
)
from mtp_harness.probes.task import Table
from mtp_harness.results.long_table import Cell

WIDTH = 512
"""Tokens of a bin."""


def in_bins(record: DecodeRecord) -> dict[int, DecodeRecord]:
    """Return, by bin, a record of those steps alone; its kept tokens are still the answer's."""
    steps: dict[int, list[int]] = {}
    stand = record.n_prompt_tokens + 1  # the first token comes from the prompt's own forward
    for step, verified in enumerate(record.n_verified):
        steps.setdefault(stand // WIDTH, []).append(step)
        stand += verified + 1
    made = record.n_drafted
    return {
        number: replace(
            record,
            n_verified=tuple(record.n_verified[step] for step in some),
            n_drafted=made and tuple(made[step] for step in some),
        )
        for number, some in steps.items()
    }


def _by_context(some: Sequence[Measured]) -> Iterator[Cell]:
    parts: dict[tuple[int, int], list[DecodeRecord]] = {}
    for at_k in (at_k for one in some for at_k in one["by_k"][1:]):  # k = 1 drafts nothing
        record = DecodeRecord.from_dict(at_k["record"])
        for number, part in in_bins(record).items():
            parts.setdefault((record.draft_heads, number), []).append(part)
    for (k, number), of_bin in sorted(parts.items()):
        place = (k, number * WIDTH, (number + 1) * WIDTH - 1)
        lengths = [(sum(one.n_verified) + one.n_steps, one.n_steps) for one in of_bin]
        yield pair_cell((*place, None), "accept_length", lengths)
        yield from acceptance_cells(place, of_bin)


class LongContextTask(SpeculativeTask):
    """`SpeculativeTask` on prompts of several lengths, with a table by what stands before a step.

    Flat metrics are those of `SpeculativeTask`, all lengths together.
    """

    IN_VLLM = False  # which does not cut prompts to a number of tokens
    TABLES = SpeculativeTask.TABLES | {
        "by_context": Table(("k", "position_from", "position_to", "offset"), _by_context)
    }

    def question(self, doc: dict[str, Any]) -> SpeculativeQuestion:
        """Return how the prompt is continued: no stop strings, so that all answers are as long."""
        new = self.new_tokens
        return SpeculativeQuestion(doc["data_set"], new, prompt_tokens=doc["prompt_tokens"])
