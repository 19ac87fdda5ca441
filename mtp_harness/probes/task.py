"""The class of all probe tasks: requests of a type of their own, tables beside flat metrics.

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
(`question`), which flat metrics it has, and what its tables are.
"""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from mtp_harness.errors import UserError
from mtp_harness.harness.task_options import with_numbers
from mtp_harness.probes.measured import Measured
from mtp_harness.scoring.decoding import ratio_of_sums

POOLED = "n_documents"
"""The metric that carries what was measured of each document; printed, it is their number."""


class ProbeTask(ConfigurableTask):  # type: ignore[misc]
    """A task that asks a model for more than text and log-likelihoods.

    Attributes:
        request_type: the method of the model that answers; `plugin` looks whether there is one.
        OPTIONS: of `--metadata`, those that the class itself reads.
    """

    request_type: ClassVar[str]
    OPTIONS: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: dict[str, Any]) -> None:
        """Build the task from its YAML."""
        own = {key: value for key, value in config.items() if key != "class"}
        # A type that the harness knows, until its checks are done: its default would set up
        # generation. An empty list of metrics keeps it from adding those of that type.
        own |= {"output_type": "loglikelihood", "metric_list": []}
        own["metadata"] = with_numbers(own.get("metadata") or {})
        try:
            super().__init__(config=own)
        except (ValueError, FileNotFoundError) as error:
            raise UserError(f"{own.get('task')}: {error}.") from error
        # Not before: the harness sets it too, and pads short ranks by it.
        self.OUTPUT_TYPE = self.config.output_type = self.request_type
        self.data_sets = list(dict.fromkeys(self.eval_docs["data_set"]))

    # What a task says of itself -----------------------------------------------------------------

    @abstractmethod
    def question(self, doc: dict[str, Any]) -> Any:
        """Return what the model is asked about a document: the request's second argument."""

    @abstractmethod
    def metrics(self, doc: dict[str, Any], measured: Measured) -> dict[str, Any]:
        """Return the flat metrics of one document.

        Every document has every metric, with (0, 0) where it counts nothing: with several ranks the
        harness looks up the first one's metrics in all of them.
        """

    @abstractmethod
    def tables(self, documents: list[Measured]) -> dict[str, dict[str, list[Any]]]:
        """Return tables by name, each made by `mtp_harness.results.long_table.long_table`.

        Args:
            documents: all of them, sorted by data set and name.
        """

    def aggregations(self) -> dict[str, Callable[[list[Any]], float]]:
        """Return how flat metrics are pooled, where that is not sum over sum."""
        return {}

    # What the harness asks ----------------------------------------------------------------------

    @property
    def options(self) -> dict[str, Any]:
        """The task's metadata with that of `--metadata` over it."""
        return self.config.metadata or {}

    def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> str:
        """Return a name for the document: what is read of it is in the request."""
        return str(doc["name"])

    def doc_to_target(self, doc: Any, doc_to_target: Any = None) -> str:
        """Return nothing: there is no answer to compare with."""
        return ""

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> Instance:
        """Return the one request of a document; the harness hashes its first argument."""
        return Instance(
            request_type=self.request_type,
            doc=doc,
            arguments=(doc["text"], self.question(doc)),
            idx=0,
            metadata=kwargs["metadata"],
        )

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the flat metrics of one document, and what was measured of it."""
        about = {name: doc[name] for name in ("data_set", "name", "source", "sha256")}
        measured = Measured(about, n_bytes=len(doc["text"].encode()), **results[0])
        return {**self.metrics(doc, measured), POOLED: measured}

    def aggregation(self) -> dict[str, Callable[[list[Any]], float]]:
        """Return how each metric is pooled."""
        return _Aggregations({**self.aggregations(), POOLED: self._pool})

    def higher_is_better(self) -> dict[str, bool]:
        """Return nothing: probes describe a model."""
        return {}

    def override_metric(self, metric_name: str) -> None:
        """Refuse `--predict_only`, for which the harness puts another metric in place of ours."""
        raise UserError(
            f"{self.config.task} generates no text that --predict_only could save: leave the task "
            "or the flag out."
        )

    def _pool(self, documents: list[Measured]) -> int:
        """Leave the tables for `results.long_table.move`, and return the number of documents."""
        inorder = sorted(documents, key=lambda one: (one["data_set"], one["name"]))
        found = {"tables": self.tables(inorder), "documents": self.described(inorder)}
        self.set_config("metadata", found, update=True)
        return len(documents)

    def described(self, documents: list[Measured]) -> dict[str, dict[str, Any]]:
        """Return what tells the documents of a run from those of another, by data set."""
        described = {}
        for data_set in dict.fromkeys(one["data_set"] for one in documents):
            some = [one for one in documents if one["data_set"] == data_set]
            listing = "".join(f"{one['name']}\0{one['sha256']}\n" for one in some)
            described[data_set] = {
                "sha256": hashlib.sha256(listing.encode()).hexdigest(),
                "n_documents": len(some),
                "bytes": sum(one["n_bytes"] for one in some),
                "source": some[0]["source"],
            }
        return described


class _Aggregations(dict[str, Callable[[list[Any]], float]]):
    """Pools as sum over sum what has no other rule: how many offsets there are, the model says."""

    def __missing__(self, metric: str) -> Callable[[list[Any]], float]:
        return ratio_of_sums


def nothing_if(other: bool, numerator: float, denominator: float) -> tuple[float, float]:
    """Return a pair, or (0, 0) where the document belongs to another data set than the metric."""
    if other or (isinstance(numerator, float) and math.isnan(numerator)):
        return (0, 0)
    return (numerator, denominator)
