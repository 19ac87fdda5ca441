"""`mtp_arithmetic`: expressions over F_7[X]/(X^5), answered in five digits.

    (20513@00640)=          and with five pause tokens          (20513@00640)_____=

The answer is the text up to the end of its line; it is right if it is the expected value, white
space at its ends aside. A pause token is text that the tokenizer encodes as one token each time it
is repeated: `_`, or the value of `pause` in the metadata. If the tokenizer has none, expressions
are asked without pauses only, and the results say so.

Source: Gloeckle et al. 2024, section 4.2 and appendix K; `mtp_harness.data.arithmetic` says what
the paper leaves open.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from lm_eval.api.task import ConfigurableTask

from mtp_harness.data.arithmetic import VERSION
from mtp_harness.errors import UserError
from mtp_harness.harness.shots import tokens_of
from mtp_harness.harness.task_options import own_config
from mtp_harness.results.long_table import Cell, long_table
from mtp_harness.scoring.bootstrap import estimate
from mtp_harness.scoring.decoding import ratio_of_sums

_log = logging.getLogger(__name__)

PAUSES = ("_", ".", " .", "…", " _", "#")
"""Texts tried as pause tokens, in order."""

_SYMBOLS = frozenset("0123456789()-+*@=\n")
"""Characters of expressions (`data.arithmetic`)."""

SCORED = "n_answers"
"""The metric that carries each answer to the table; printed, it is their number."""


class ArithmeticTask(ConfigurableTask):  # type: ignore[misc]
    """Asks for the values of expressions.

    Flat metrics: `accuracy_M` for each number M of operations, without pauses, and
    `accuracy_pause_P` over all of them with P pause tokens.
    """

    OPTIONS = frozenset({"pause"})

    def __init__(self, config: dict[str, Any]) -> None:
        self.pause = PAUSES[0]
        self.pauses_fit = True
        own = own_config(config) | {"metric_list": []}  # or the harness adds its own exact match
        try:
            super().__init__(config=own)
        except ValueError as error:
            raise UserError(f"{own.get('task')}: {error}.") from error

    def fit_shots(self, lm: object) -> None:
        """Choose a pause token for a model's tokenizer (called before prompts are built)."""
        wanted = sorted({doc["pause_tokens"] for doc in self.eval_docs} - {0})
        if not wanted:
            return
        given = (self.config.metadata or {}).get("pause")
        if given is not None and set(given) & _SYMBOLS:
            raise UserError(
                f"{self.config.task}: pause={given!r} is part of an expression, expected a text "
                "without digits, brackets, operators, '=' and line breaks: choose another."
            )
        fitting = (p for p in ([given] if given else PAUSES) if _is_token(lm, p, wanted))
        said = found = next(fitting, None)
        if found is None:
            self.pauses_fit = False
            tried = f"{given!r} is not" if given else f"none of {' '.join(map(repr, PAUSES))} is"
            said = f"left out: {tried} a single token in this tokenizer"
            _log.warning(
                "%s: expressions with pause tokens are %s; name another as pause in the metadata",
                self.config.task,
                said,
            )
        else:
            self.pause = found
        self.set_config("metadata", {"pause": said}, update=True)

    def test_docs(self) -> Any:
        """Return the expressions, without those that the tokenizer cannot pause before."""
        docs = super().test_docs()
        return docs if self.pauses_fit else docs.filter(lambda doc: not doc["pause_tokens"])

    def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> str:
        """Return the question."""
        return f"{doc['expression']}{self.pause * doc['pause_tokens']}="

    def doc_to_target(self, doc: Any, doc_to_target: Any = None) -> str:
        """Return the value."""
        return str(doc["answer"])

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the flat metrics of one expression, and its answer for the table."""
        if "bypass" in self._metric_fn_list:
            none: dict[str, Any] = super().process_results(doc, results)
            return none
        answer = results[0][0] if isinstance(results[0], list) else results[0]
        right = int(is_right(str(answer), doc["answer"]))
        metrics: dict[str, Any] = {}
        for name, (column, value) in self._accuracies.items():
            mine = doc[column] == value and not (column == "operations" and doc["pause_tokens"])
            metrics[name] = (right, 1) if mine else (0, 0)
        kind = {name: doc[name] for name in ("operations", "pause_tokens", "expression", "answer")}
        return {**metrics, SCORED: {**kind, "right": right}}

    @cached_property
    def _accuracies(self) -> dict[str, tuple[str, int]]:
        """Column and value of each flat metric; the documents are known by then."""
        names = {"operations": "accuracy_{}", "pause_tokens": "accuracy_pause_{}"}
        return {
            name.format(value): (column, value)
            for column, name in names.items()
            for value in sorted(set(self.eval_docs[column]))
        }

    def aggregation(self) -> dict[str, Callable[[list[Any]], float]]:
        """Return how each metric is pooled."""
        known: dict[str, Callable[[list[Any]], float]] = super().aggregation()
        return known | dict.fromkeys(self._accuracies, ratio_of_sums) | {SCORED: self._pool}

    def higher_is_better(self) -> dict[str, bool]:
        """Return whether higher or lower is better, by metric."""
        known: dict[str, bool] = super().higher_is_better()
        return known | dict.fromkeys(self._accuracies, True)

    def _pool(self, answers: list[dict[str, Any]]) -> int:
        """Leave table and documents for `results.long_table.move`; return the number of answers."""
        listing = "".join(sorted(f"{one['expression']}={one['answer']}\n" for one in answers))
        seed = (self.config.metadata or {}).get("seed", 0)
        documents = {
            "polynomials": {
                "sha256": hashlib.sha256(listing.encode()).hexdigest(),
                "n_documents": len(answers),
                "bytes": len(listing.encode()),
                "source": f"generated: generator {VERSION}, seed {seed}",
            }
        }
        found = {"tables": {"by_operations": by_operations(answers)}, "documents": documents}
        self.set_config("metadata", found, update=True)
        return len(answers)


def by_operations(answers: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return accuracy and the share of the most frequent value, by operations and pause tokens."""
    cells = []
    for place in sorted({(one["operations"], one["pause_tokens"]) for one in answers}):
        some = [one for one in answers if (one["operations"], one["pause_tokens"]) == place]
        right = estimate([one["right"] for one in some])
        commonest = Counter(one["answer"] for one in some).most_common(1)[0][1]
        cells.append(Cell(place, "accuracy", *right, count=len(some)))
        cells.append(Cell(place, "commonest_answer", commonest / len(some), count=len(some)))
    return long_table(("operations", "pause_tokens"), cells)


def is_right(answer: str, value: str) -> bool:
    """Return whether the first line of an answer is the value, white space at its ends aside."""
    return answer.partition("\n")[0].strip() == value


def _is_token(lm: object, pause: str, counts: Sequence[int]) -> bool:
    """Return whether so many pauses before the equality sign add as many tokens."""
    plain = tokens_of(lm, "(20513+00640)=")
    if plain is None:
        return False
    return all(tokens_of(lm, f"(20513+00640){pause * n}=") == plain + n for n in counts)
