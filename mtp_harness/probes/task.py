"""The class of all probe tasks: own request types, and tables beside flat metrics.

    document ──construct_requests──▶ Instance(request_type, (text, question))
                                          │  MTPLM.<request_type>
                                          ▼
                                       Measured: counts and sums of this document
                                          │  process_results
                  flat metrics, as pairs ─┴─ n_documents: the Measured itself
                          │ Σ ÷ Σ                  │ on rank 0, of all ranks
                          ▼                        ▼
                   results, printed          tables, documents (`mtp_harness.results.long_table`)

A task is a subclass that says which method of the model answers it (`request_type`), what it asks
(`question`), which flat metrics a document has (`values`), and what its tables are (`TABLES`).
"""

import hashlib
import logging
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from mtp_harness.errors import UserError
from mtp_harness.harness import rules
from mtp_harness.harness.task_options import own_config
from mtp_harness.probes.pooled import Measured
from mtp_harness.results.long_table import Cell, long_table
from mtp_harness.scoring.decoding import ratio_of_sums

_log = logging.getLogger(__name__)

POOLED = "n_documents"
"""The metric that carries the measurements of each document; printed, it is their number."""

QUICK_WINDOW = 1024

Pool = Callable[[list[Any]], float]
Tables = dict[str, dict[str, list[Any]]]


class Table(NamedTuple):
    """A table of a probe: dimensions beyond the data set, and the cells of one data set."""

    dimensions: tuple[str, ...]
    cells: Callable[[list[Measured]], Iterable[Cell]]


class ProbeTask(ConfigurableTask):  # type: ignore[misc]
    """A task that asks a model for more than text and log-likelihoods."""

    request_type: ClassVar[str]
    """The method of the model that answers; `harness.checks` looks for it."""
    IN_VLLM: ClassVar[bool] = False
    """Whether `mtp-vllm` answers, too, which shows no logits; `harness.checks` asks."""
    OPTIONS: ClassVar[frozenset[str]] = frozenset()
    """Options of `--metadata` that the class itself reads."""
    POOLS: ClassVar[Mapping[str, Pool]] = {}
    """How metrics are pooled that are not a ratio of sums, by name without data set and offset."""
    TABLES: ClassVar[Mapping[str, Table]] = {}
    DATA_SET: ClassVar[str] = "data_set"
    """The name of the data set's column in tables."""
    SAME_FOR_EVERY_K: ClassVar[bool] = True
    """Whether `draft_heads` has no effect: all heads are read, or every k decodes."""

    def __init__(self, config: dict[str, Any]) -> None:
        # A type that the harness knows, until its checks are done: its default would set up
        # generation. An empty list of metrics keeps it from adding those of that type.
        own = own_config(config) | {"output_type": "loglikelihood", "metric_list": []}
        try:
            super().__init__(config=own)
        except (ValueError, FileNotFoundError) as error:
            raise UserError(f"{own.get('task')}: {error}.") from error
        # Only now: the harness sets it too, and pads short ranks by it.
        self.OUTPUT_TYPE = self.config.output_type = self.request_type
        self.data_sets = list(dict.fromkeys(self.eval_docs["data_set"]))

    # The task's definition ----------------------------------------------------------------------

    @abstractmethod
    def question(self, doc: dict[str, Any]) -> Any:
        """Return the question about a document: the request's second argument."""

    def values(self, measured: Measured) -> dict[str, Sequence[float]]:
        """Return the flat metrics of one document for its data set: sums that are pooled."""
        return {}

    def metrics(self, measured: Measured) -> dict[str, Any]:
        """Return the flat metrics of one document; by default `values`, for every data set.

        Every document has every metric, with zeros if it counts nothing: with several ranks the
        harness looks up the first document's metrics in all of them.
        """
        own = self.values(measured)
        zeros = {name: (0,) * len(value) for name, value in own.items()}
        return {
            f"{data_set}_{name}": value
            for data_set in self.data_sets
            for name, value in (own if data_set == measured["data_set"] else zeros).items()
        }

    def tables(self, documents: list[Measured]) -> Tables:
        """Return the tables of all documents, which are sorted by data set and name."""
        found: Tables = {}
        for name, table in self.TABLES.items():
            cells = [
                replace(cell, place=(data_set, *cell.place))
                for data_set, some in _by_data_set(documents).items()
                for cell in table.cells(some)
            ]
            found[name] = long_table((self.DATA_SET, *table.dimensions), cells)
        return found

    def described(self, documents: list[Measured]) -> dict[str, dict[str, Any]]:
        """Return what distinguishes the documents of two runs, by data set."""
        described = {}
        for data_set, some in _by_data_set(documents).items():
            listing = "".join(f"{one['name']}\0{one['sha256']}\n" for one in some)
            described[data_set] = {
                "sha256": hashlib.sha256(listing.encode()).hexdigest(),
                "n_documents": len(some),
                "bytes": sum(one["n_bytes"] for one in some),
                "source": some[0]["source"],
                **_own(some),
            }
        return described

    # Options ------------------------------------------------------------------------------------

    @property
    def options(self) -> dict[str, Any]:
        """The task's metadata with that of `--metadata` over it."""
        return self.config.metadata or {}

    def whole(
        self,
        name: str,
        usual: int,
        quick: int | None = None,
        least: int | None = None,
        hint: str = "; choose one",
    ) -> int:
        """Return an option that is a whole number; by default `usual`, or `quick`."""
        value = self.options.get(name)
        if value is None:
            value = quick if quick is not None and self.options.get("quick") else usual
        rule = rules.whole(least)
        if not rule.fits(value):
            raise UserError(f"{self.config.task}: {name}={value}, expected {rule.expected}{hint}.")
        return int(value)

    @property
    def window(self) -> int | None:
        """The window that a run's metadata asks for; None: the model's context."""
        window: int | None = self.options.get("window")
        return QUICK_WINDOW if window is None and self.options.get("quick") else window

    # The harness's interface --------------------------------------------------------------------

    def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> str:
        """Return a name for the document; its text is in the request."""
        return str(doc["name"])

    def doc_to_target(self, doc: Any, doc_to_target: Any = None) -> str:
        """Return nothing: there is no answer to compare with."""
        return ""

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> Instance:
        """Return the one request of a document; the harness hashes its first argument."""
        asked = (doc["text"], self.question(doc))
        return Instance(self.request_type, doc, asked, idx=0, metadata=kwargs["metadata"])

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the flat metrics of one document, and what was measured of it."""
        about = {name: doc[name] for name in ("data_set", "name", "source", "sha256")}
        about["n_bytes"] = len(doc["text"].encode())  # a document of the user's gives its own
        measured = Measured(about | results[0])
        return {**self.metrics(measured), POOLED: measured}

    def aggregation(self) -> dict[str, Pool]:
        """Return how each metric is pooled."""
        return _Aggregations(self.POOLS, self._pool)

    def higher_is_better(self) -> dict[str, bool]:
        """Return nothing: no metric of a probe is better higher or lower."""
        return {}

    def override_metric(self, metric_name: str) -> None:
        """Refuse `--predict_only`, for which the harness replaces our metrics."""
        raise UserError(
            f"{self.config.task} generates no text that --predict_only could save: leave the task "
            "or the flag out."
        )

    def _pool(self, documents: list[Measured]) -> int:
        """Leave the tables for `results.long_table.move`, and return the number of documents."""
        inorder = sorted(documents, key=lambda one: (one["data_set"], one["name"]))
        found = {"tables": self.tables(inorder), "documents": self.described(inorder)}
        told = found["documents"].values()
        if n_cut := sum(about.get("n_cut_tokens", 0) for about in told):
            n_documents = sum(about["n_cut_documents"] for about in told)
            _log.warning(
                "%s: %d tokens of %d documents are predicted without the document's beginning, "
                "which the window does not hold",
                *(self.config.task, n_cut, n_documents),
            )
        self.set_config("metadata", found, update=True)
        return len(documents)


class _Aggregations(dict[str, Pool]):
    """Finds a rule by a metric's name, whatever the number of offsets and data sets.

    Metrics without a rule are pooled as sum over sum.
    """

    def __init__(self, pools: Mapping[str, Pool], pooled: Pool) -> None:
        super().__init__({POOLED: pooled})
        self.pools = pools

    def __missing__(self, metric: str) -> Pool:
        for name, pool in self.pools.items():
            if re.search(rf"(^|_){name}(_\d+)?$", metric):
                return pool
        return ratio_of_sums


def _own(some: Sequence[Measured]) -> dict[str, Any]:
    """Return how the user's documents were encoded, and what was cut or lost.

    Keys are those of `encoding.Encoded.facts` and of `TextReading.facts`.
    """
    if not all("encoded" in one for one in some):
        return {}
    ways = Counter(one["encoded"] for one in some)
    return {
        "encoded": dict(ways),
        "n_cut_documents": sum(bool(one["n_cut"]) for one in some),
        "n_cut_tokens": sum(one["n_cut"] for one in some),
        "n_reasoning_lost": sum(one.get("n_reasoning_lost", 0) for one in some),
    }


def _by_data_set(documents: Sequence[Measured]) -> dict[str, list[Measured]]:
    found: dict[str, list[Measured]] = {}
    for one in documents:
        found.setdefault(one["data_set"], []).append(one)
    return found
