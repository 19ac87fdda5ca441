"""Which drafts a step accepts.

A draft is verified when head 1, reading the same prefix, chooses the same token; the step accepts
the agreeing prefix and adds head 1's own token after it, the bonus.

    window   y0 d1 d2 d3        y0 pending (already emitted), d1..d3 drafts
    head 1   t0 t1 t2 t3        its choice after each
             d1 = t0, d2 = t1, d3 != t2   ->   2 verified; emitted: t0 t1 t2

Source: Stern et al. 2018 (blockwise parallel decoding), as in Gloeckle et al. 2024, section 2. With
sampling, both choices are made with the same noise (`sampling`), and the rule stays the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mtp_harness.decode.sampling import Sampling


@dataclass(frozen=True)
class Rule:
    """How many drafts are made, and which are accepted."""

    # A row stops drafting at the first head that gives its draft a probability below this; the text
    # does not depend on it.
    draft_threshold: float = 0.0
    # False accepts every draft unverified. The text is then no longer the model's: it is an upper
    # limit of what drafts could save, shown with its score.
    verify: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.draft_threshold < 1.0:
            raise ValueError(
                f"draft_threshold={self.draft_threshold}, expected a probability from 0 to below 1."
            )

    def describe(self, sampling: Sampling) -> str:
        """Return the rule in words, for results."""
        if not self.verify:
            return "LOSSY: every draft is accepted unverified; this is not the model's own text"
        chosen = "argmax" if sampling.greedy else "choice with the same noise"
        rule = f"exact: a draft is verified when it equals head 1's {chosen}"
        if self.draft_threshold:
            rule += f"; drafting stops below probability {self.draft_threshold:g}"
        return rule


def count_verified(drafts: Tensor, choices: Tensor) -> Tensor:
    """Return the length of the agreeing prefix per row, int64 [B], 0..k-1.

    `choices` [B, k] are head 1's, after the pending token and after each of `drafts` [B, k-1].
    """
    agree = drafts == choices[:, :-1]
    return agree.long().cumprod(-1).sum(-1)


def confidence_of(drafts: Tensor, log_probabilities: Tensor) -> Tensor:
    """Return the probabilities [B, k-1] of drafts [B, k-1]; logarithms are [B, k-1, V], in nats."""
    return log_probabilities.gather(-1, drafts[..., None])[..., 0].exp()


def count_confident(drafts: Tensor, log_probabilities: Tensor, threshold: float) -> Tensor:
    """Return how many drafts [B, k-1] each row makes before one falls below the threshold.

    `log_probabilities` [B, k-1, V] are in nats, `threshold` is a probability; int64 [B], 0..k-1.
    """
    given = confidence_of(drafts, log_probabilities)
    return torch.cumprod((given >= threshold).long(), -1).sum(-1)
