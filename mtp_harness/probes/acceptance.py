"""`mtp_acceptance`: how often drafts would be accepted when an engine samples.

    accept_greedy    mean over states of p(d), d the head's most likely token
    accept_sampled   mean of the sum over the vocabulary of min(p, q)
    accept_same_noise  by this project's rule: how often one noise samples the same of p and q
    expected_accept_rate_prefix   of the drafts at an offset, the share that is accepted together
                                  with all before it, over the steps of the text
    expected_tokens_per_forward   tokens of the text, by the number of steps that emit them

p is head 1's distribution and q the head's, both at `temperature`, `top_k` and `top_p`. The last
two are about sampled drafts. They are expected values if the model sampled the text (`on`, of a run
with the same settings), and approximations for other text. This project's own decoding uses another
rule, under which its sampled text is the same for every k: `accept_same_noise` predicts the
`accept_rate_cond` of the generation tasks. See `standard_rule` for both.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mtp_harness.decode.sampling import Sampling
from mtp_harness.errors import UserError, user_errors
from mtp_harness.probes.head_logprobs import TextQuestion, TextReading
from mtp_harness.probes.pooled import Measured, column, ratio_cells
from mtp_harness.probes.task import ProbeTask, Table
from mtp_harness.results.long_table import Cell


def measure(reading: TextReading) -> Measured:
    """Return the sums of one text; lists are by offset, from 2 on."""
    mask, standard = reading.has_target()[:, 1:], reading.standard
    walked = reading.expected_walk()
    greedy, sampled, same_noise = (
        torch.where(mask, part, 0).double().sum(0).tolist()
        for part in (standard.greedy, standard.sampled, standard.same_noise)
    )
    return Measured(
        n=reading.n,
        n_tokens=reading.n_scored,
        n_states=mask.sum(0).tolist(),
        greedy=greedy,
        sampled=sampled,
        same_noise=same_noise,
        kept=walked.n_kept,
        steps=walked.n_steps,
        drafted=walked.n_drafted,
        accepted=walked.n_accepted,
    )


def _by_offset(some: Sequence[Measured]) -> Iterator[Cell]:
    temperature = some[0]["temperature"]
    places = [(temperature, offset) for offset in range(2, some[0]["n"] + 1)]
    states = column(some, "n_states")
    for name in ("greedy", "sampled", "same_noise"):
        yield from ratio_cells(places, f"accept_{name}", column(some, name), states)
    accepted, drafted = column(some, "accepted"), column(some, "drafted")
    yield from ratio_cells(places, "expected_accept_rate_prefix", accepted, drafted)
    kept, steps = (column(some, name)[:, None] for name in ("kept", "steps"))
    yield from ratio_cells([(temperature, None)], "expected_tokens_per_forward", kept, steps)


class AcceptanceTask(ProbeTask):
    """See the module docstring."""

    request_type = "head_logprobs"
    OPTIONS = frozenset({"window"})
    TABLES = {"by_offset": Table(("temperature", "offset"), _by_offset)}

    @property
    def sampling(self) -> Sampling:
        """The settings that warp p and q."""
        names = ("temperature", "top_k", "top_p")
        with user_errors(ValueError, prefix=f"{self.config.task}: "):
            found = Sampling(**{name: self.options[name] for name in names})
        if found.greedy:
            raise UserError(
                f"{self.config.task}: temperature=0, expected a number above it: greedily, drafts "
                "are accepted where they are right, which mtp_heads says."
            )
        return found

    def question(self, doc: dict[str, Any]) -> TextQuestion:
        """Return the question: windows as long as the context, none overlapping."""
        about = {"window": self.window, "kind": doc["kind"]}
        return TextQuestion(measure, sampling=self.sampling, **about)

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the metrics of one document, with the temperature that tables name."""
        told = {"temperature": float(self.sampling.temperature)}
        return super().process_results(doc, [Measured(**told, **results[0])])

    def values(self, measured: Measured) -> dict[str, Sequence[float]]:
        """Return acceptance by offset, and the expected tokens per forward."""
        found: dict[str, Sequence[float]] = {}
        for i in range(measured["n"] - 1):
            for name in ("greedy", "sampled"):
                found[f"accept_{name}_{i + 2}"] = (measured[name][i], measured["n_states"][i])
        found["expected_tokens_per_forward"] = (measured["kept"], measured["steps"])
        return found
