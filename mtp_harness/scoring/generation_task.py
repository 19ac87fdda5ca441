"""Tasks whose answers keep their decode records, for base and for instruct models.

`GenerationTask` adds four things to the harness's task: documents that cannot be read end the run
with one sentence, an instruct model gets its own question, its thinking is not part of the answer
(`thinking`), and metrics of decoding are pooled. `SampledTask` adds several answers per document,
as the metadata asks for (`NSamples`).
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, ClassVar, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_aggregation
from lm_eval.api.task import ConfigurableTask

from mtp_harness.data.sources import describe
from mtp_harness.errors import UserError
from mtp_harness.harness.task_options import own_config
from mtp_harness.scoring.bootstrap import high90, low90
from mtp_harness.scoring.decoding import MAX_OFFSET, ratio_of_sums
from mtp_harness.scoring.n_samples import SUFFIX, NSamples
from mtp_harness.scoring.thinking import (
    TRUNCATED,
    FinalText,
    cut_off_by_budget,
    n_truncated,
    opens_thinking,
    without_thinking,
)

FILTER = "none"


class Metric(NamedTuple):
    """How a metric is pooled over documents, and whether higher is better (None: unknown)."""

    pooled: Callable[[list[Any]], float]
    more_is_better: bool | None = None


def with_interval(name: str, more_is_better: bool | None) -> dict[str, Metric]:
    """Return a metric that is pooled as its mean, and the ends of the interval around it."""
    ends = {f"{name}_low90": Metric(low90), f"{name}_high90": Metric(high90)}
    return {name: Metric(get_aggregation("mean"), more_is_better), **ends}


class GenerationTask(ConfigurableTask):  # type: ignore[misc]
    """A task of generated answers.

    Attributes:
        columns: The columns that distinguish documents; if there are any, the results'
            `metadata.documents` hold a hash of them.
        instruction: Makes the prompt a question for an instruct model; the bare prompt if empty.
        chat_stops: Stop strings for an instruct model. It ends its turn by itself, and a base
            model's stops would cut its first line.
    """

    columns: ClassVar[tuple[str, ...]] = ()
    instruction = ""
    chat_stops: tuple[str, ...] = ()

    def __init__(self, config: dict[str, Any]) -> None:
        self._chat = False
        self._model_cuts = False
        super().__init__(config={k: v for k, v in config.items() if k != "class"})

    def download(self, *args: Any, **kwargs: Any) -> None:
        """Read the documents; an error is one sentence, without a traceback."""
        try:
            super().download(*args, **kwargs)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.config.task}: {error}.") from error
        if self.columns:
            test = self.dataset["test"]
            found = describe(test, self.columns, test.info.description)
            self.note(documents={str(self.config.task).partition("_mtp")[0]: found})

    def fit_shots(self, lm: object) -> None:
        """Ask a model whether it removes its thinking (called before prompts are built)."""
        self._model_cuts = getattr(lm, "think_end_token", None) is not None

    def build_all_requests(self, *, apply_chat_template: bool = False, **kwargs: Any) -> None:
        """Build the requests; with a chat template, as questions without a base model's stops."""
        self._chat = apply_chat_template
        if apply_chat_template:
            self.set_config("generation_kwargs", {"until": [*self.chat_stops]}, update=True)
        super().build_all_requests(apply_chat_template=apply_chat_template, **kwargs)

    def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> Any:
        """Return the prompt, or the question to an instruct model."""
        text = super().doc_to_text(doc, doc_to_text)
        is_question = self._chat and self.instruction
        return self.instruction.format(prompt=text) if is_question else text

    def note(self, **facts: Any) -> None:
        """Add an entry to the task's metadata, which the results hold."""
        self.set_config("metadata", {**(self.config.metadata or {}), **facts})

    def answers(self) -> list[tuple[Instance, FinalText]]:
        """Return all answers of this rank without their thinking, each with its request."""
        # The evaluator pads short ranks with repetitions: only `repeats` answers count.
        return [
            (instance, without_thinking(text, self._begins_inside(instance, text)))
            for instance in self.instances
            for text in instance.resps[: instance.repeats]
        ]

    def _begins_inside(self, instance: Instance, answer: str) -> bool:
        """Return whether an answer, as the model returned it, began inside a thinking block."""
        opened = opens_thinking(instance.args[0])
        return opened and (not self._model_cuts or cut_off_by_budget(answer))

    def apply_filters(self) -> None:
        """Judge all answers of this rank as one stream, and return them with their records."""
        answers = self.answers()
        if "bypass" not in self._metric_fn_list:
            self.judge(answers)
        for instance in self.instances:
            instance.filtered_resps[FILTER] = []
        for instance, text in answers:
            instance.filtered_resps[FILTER].append(text)

    def judge(self, answers: Sequence[tuple[Instance, FinalText]]) -> None:
        """Give answers their verdicts, if they are right or wrong."""

    def process_results(self, doc: Any, results: Any) -> dict[str, Any]:
        """Return the metrics of one document; the harness's own with `--predict_only`."""
        if "bypass" not in self._metric_fn_list:
            return self.score(doc, results)
        return {**super().process_results(doc, results), TRUNCATED: n_truncated(results)}

    def score(self, doc: Any, results: list[list[FinalText]]) -> dict[str, Any]:
        """Return the metrics of one document from its answers."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics that a YAML cannot name; the offsets depend on the model."""
        rates = ("accept_rate_prefix", "accept_rate_cond")
        names = [f"{rate}_{offset}" for offset in range(2, MAX_OFFSET + 1) for rate in rates]
        known = {"lossy": Metric(max), TRUNCATED: Metric(sum, False)}
        return known | dict.fromkeys(names, Metric(ratio_of_sums))

    def aggregation(self) -> dict[str, Callable[[list[Any]], float]]:
        """Return how each metric is pooled."""
        known: dict[str, Callable[[list[Any]], float]] = super().aggregation()
        return known | {name: metric.pooled for name, metric in self.metrics().items()}

    def higher_is_better(self) -> dict[str, bool]:
        """Return whether higher or lower is better, by metric."""
        ways = {name: metric.more_is_better for name, metric in self.metrics().items()}
        known: dict[str, bool] = super().higher_is_better()
        return known | {name: way for name, way in ways.items() if way is not None}


class SampledTask(GenerationTask):
    """A task of right and wrong answers, scored by pass@k."""

    OPTIONS = frozenset({"n_samples", "temperature", "k", "top_p", "top_k"})

    def __init__(self, config: dict[str, Any]) -> None:
        """Build the task from its YAML, with the sampling that the metadata asks for."""
        own = own_config(config)
        try:
            sampling = NSamples.from_metadata(own["metadata"])
        except ValueError as error:
            raise UserError(f"{own.get('task')}: {error}.") from None
        if sampling is not None:
            own["repeats"] = sampling.n_samples
            greedy = own.get("generation_kwargs") or {}
            own["generation_kwargs"] = {**greedy, **sampling.generation_kwargs()}
        self.ks: tuple[int, ...] = (sampling or NSamples()).ks
        super().__init__(own)

    @property
    def suffix(self) -> str:
        """The suffix of pass@k, which separates sampled from greedy runs."""
        return SUFFIX if (self.config.generation_kwargs or {}).get("do_sample") else ""

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics that a YAML cannot name; the names depend on k."""
        known = super().metrics()
        for k, suffix in product(self.ks, ("", SUFFIX)):
            known |= with_interval(f"pass@{k}{suffix}", True if suffix == self.suffix else None)
        return known
