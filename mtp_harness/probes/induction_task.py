"""`mtp_induction`: is a name known once it has been read?"""

from collections.abc import Sequence
from typing import Any

from mtp_harness.data.induction_texts import STORIES
from mtp_harness.errors import UserError
from mtp_harness.probes.induction import InductionQuestion
from mtp_harness.probes.measured import Measured
from mtp_harness.probes.pooled import by_data_set, pair_cell
from mtp_harness.probes.task import ProbeTask, nothing_if
from mtp_harness.results.long_table import Cell, long_table

PARTS = {"later": "accuracy", "first": "accuracy_first_mention"}
"""What is measured, and its control."""


class InductionTask(ProbeTask):
    """Reads texts with made-up names.

    Flat metrics, by data set: `stories_accuracy` and `code_accuracy`, head 1's on the second token
    of names that were read before, and the controls `…_accuracy_first_mention`;
    `mentions_left_out`: the tokenizer splits them in another way, or the context does not hold
    them.
    """

    request_type = "induction"

    def question(self, doc: dict[str, Any]) -> InductionQuestion:
        """Return how names are put into a text."""
        seed = self.options.get("seed", 0)
        if type(seed) is not int:
            raise UserError(
                f"{self.config.task}: seed={seed}, expected a whole number; choose one."
            )
        return InductionQuestion(seed, capital=doc["data_set"] == STORIES)

    def metrics(self, doc: dict[str, Any], measured: Measured) -> dict[str, Any]:
        """Return the flat metrics of one document."""
        found: dict[str, Any] = {"mentions_left_out": measured["n_left_out"]}
        for data_set in self.data_sets:
            for part, name in PARTS.items():
                counts = measured[part]
                found[f"{data_set}_{name}"] = nothing_if(
                    doc["data_set"] != data_set, counts["right"][0], counts["mentions"][0]
                )
        return found

    def aggregations(self) -> dict[str, Any]:
        """Return how flat metrics are pooled, where that is not sum over sum."""
        return {"mentions_left_out": sum}

    def tables(self, documents: list[Measured]) -> dict[str, dict[str, list[Any]]]:
        """Return the table `by_data_set`."""
        cells = []
        for data_set, some in by_data_set(documents):
            units = [one["name_tokens"] for one in some]
            cells.append(Cell((data_set, None), "name_tokens", units[0], count=len(units)))
            for offset in range(1, len(some[0]["later"]["right"]) + 1):
                for part, name in PARTS.items():
                    cells.append(pair_cell((data_set, offset), name, _pairs(some, part, offset)))
        return {"by_data_set": long_table(("data_set", "offset"), cells)}


def _pairs(documents: Sequence[Measured], part: str, offset: int) -> list[tuple[int, int]]:
    counts = [one[part] for one in documents]
    return [(one["right"][offset - 1], one["mentions"][offset - 1]) for one in counts]
