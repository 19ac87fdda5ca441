"""Summarisation: generated, and scored by ROUGE and by how the answers were decoded.

Per document, and so in the samples:

    rouge1_f1, rouge1_precision, rouge1_recall; and so for rouge2, rouge3, rougeL, rougeLsum
    …_unicode                         the same under the other tokenisation (`scoring.rouge`)
    …_f1_low90, …_f1_high90           the F1 again; pooled as the ends of its bootstrap interval
    empty_answers, empty_references   without a token under that tokenisation; they score 0
    n_truncated_answers               answers that end inside their thinking: they count as empty
    truncated_prompts                 prompts that lost their beginning, if the model reports it
    tokens_per_forward, …             as for programs (`mtp_harness.scoring.code_task`)
    n_answers                         each answer's decode record (in the results: how many)

The paper finetuned a model on each benchmark. Here a base model gets a prompt, with `--num_fewshot`
after examples, and an instruct model a question (`--apply_chat_template`). The results'
`metadata.protocol` says which, and figures beside the paper's numbers say "protocol differs".
"""

from typing import Any

from lm_eval.api.registry import get_aggregation

from mtp_harness.data import summarization
from mtp_harness.errors import UserError
from mtp_harness.scoring.decoding import decoding_metrics
from mtp_harness.scoring.generation_task import GenerationTask, Metric, with_interval
from mtp_harness.scoring.rouge import COUNTS, SCORES, rouge
from mtp_harness.scoring.thinking import TRUNCATED, FinalText, n_truncated

F1S = tuple(name for name in SCORES if "_f1" in name)


class SummaryTask(GenerationTask):
    """A benchmark of summaries: rows of `document` and `summary`."""

    columns = ("document", "summary")

    def __init__(self, config: dict[str, Any]) -> None:
        """Build the task from its YAML; a missing scorer ends the run before the model loads."""
        try:
            rouge("a", "a")
        except ModuleNotFoundError as missing:
            raise UserError(f"{config.get('task')}: {missing}.") from missing
        super().__init__(config)

    def build_all_requests(self, *, apply_chat_template: bool = False, **kwargs: Any) -> None:
        """Build the requests, after the examples for them have been found."""
        n_shots = self.config.num_fewshot or 0
        self.note(protocol=f"{n_shots}-shot" + (", chat template" if apply_chat_template else ""))
        if n_shots:
            self._find_shots(n_shots)
        super().build_all_requests(apply_chat_template=apply_chat_template, **kwargs)

    def _find_shots(self, n_shots: int) -> None:
        """Take examples from another split; without one, from the other test documents."""
        split, most = "shots", len(self.sampler.df)
        if split not in self.dataset:
            given = (self.config.metadata or {}).get("data_dir")
            benchmark = (self.config.dataset_kwargs or {})["benchmark"]
            split, examples = summarization.shots(benchmark, given)
            if examples:
                self.sampler.replace_df(examples)
            most = len(examples) or len(self.eval_docs) - 1
        if n_shots > most:
            raise UserError(
                f"{self.config.task}: num_fewshot={n_shots}, expected at most {most}, because "
                "there are no more documents for examples: lower it."
            )
        self.note(shots=f"the first of {split or 'test; a document is never its own example'}")

    def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> Any:
        """Return the prompt, or the question to an instruct model."""
        if self._chat:
            return self.config.metadata["instruction"] + "\n\n" + doc["document"]
        return super().doc_to_text(doc, doc_to_text)

    def doc_to_target(self, doc: Any, doc_to_target: Any = None) -> Any:
        """Return an example's answer; for an instruct model without a base model's marks."""
        return doc["summary"] if self._chat else super().doc_to_target(doc, doc_to_target)

    def score(self, doc: Any, results: list[list[FinalText]]) -> dict[str, Any]:
        """Return the metrics of one document."""
        return score_summary(doc, results)

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics that a YAML cannot name."""
        known = super().metrics() | dict.fromkeys(SCORES, Metric(get_aggregation("mean"), True))
        for name in F1S:
            known |= with_interval(name, True)
        return known | dict.fromkeys((*COUNTS, "truncated_prompts"), Metric(sum, False))


def score_summary(doc: dict[str, Any], results: list[list[FinalText]]) -> dict[str, Any]:
    """Return the metrics of one document: the mean over answers, for counts the sum."""
    answers = [answer for some in results for answer in some]
    scored = [rouge(doc["summary"], str(answer)) for answer in answers]
    metrics: dict[str, Any] = {
        name: sum(one[name] for one in scored) / len(scored) for name in SCORES
    }
    for name in F1S:
        metrics |= {f"{name}_low90": metrics[name], f"{name}_high90": metrics[name]}
    metrics |= {name: sum(one[name] for one in scored) for name in COUNTS}
    metrics[TRUNCATED] = n_truncated(results)
    records = [answer.record for answer in answers if answer.record is not None]
    if records:
        metrics["truncated_prompts"] = sum(record.n_truncated > 0 for record in records)
    metrics["n_answers"] = [answer.described() for answer in answers]
    return metrics | decoding_metrics(records)
