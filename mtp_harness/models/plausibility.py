"""Do the heads predict what they should? A quick look that catches wiring, not a benchmark.

Shapes cannot tell whether heads are in the right order or read the right state. So each head k is
scored on real text, at every position t, against three things:

    own        x[t+k]                     what it was trained for
    shifted    x[t+k-1] and x[t+k+1]      its neighbours' targets: accuracy must collapse
    constant   the most frequent token    what answering without looking would get

A head that is not better at its own target than at a shifted one, or than the constant, is flagged,
and so is one that is never or always right.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mtp_harness.models.head_states import head_states
from mtp_harness.models.interface import MultiHeadModel

MAX_CHARACTERS = 4000
MAX_TOKENS = 512


class HeadProbe(NamedTuple):
    """What one head got right; shares in [0, 1]."""

    offset: int
    accuracy: float
    shifted: float  # the larger of the two
    constant: float
    n_states: int

    def doubt(self) -> str | None:
        """Return why this head is implausible, None if it is not."""
        if self.accuracy == 0:
            return "never right"
        if self.accuracy == 1:
            return "always right, which no model is on real text"
        if self.accuracy <= self.shifted:
            return "no better at its own offset than at a neighbouring one: heads out of order?"
        if self.accuracy <= self.constant:
            return "no better than always answering the most frequent token"
        return None


def default_text() -> str:
    """Return code that every Python has: the beginning of the standard library's `textwrap`.

    Raises:
        FileNotFoundError: this Python carries no library source.
    """
    import textwrap

    path = Path(textwrap.__file__)
    if path.suffix != ".py" or not path.is_file():
        raise FileNotFoundError(
            "this Python carries no source of its standard library, expected textwrap.py: name a "
            "text file with --probe FILE"
        )
    return path.read_text(encoding="utf-8")


@torch.no_grad()
def probe_heads(
    model: MultiHeadModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> list[HeadProbe]:
    """Score every head on the beginning of a text of the kind the model was trained on.

    Raises:
        ValueError: the text is too short for the model's heads.
    """
    limit = min(MAX_TOKENS, model.max_positions)
    tokens = tokenizer.encode(text[:MAX_CHARACTERS], return_tensors="pt")[:, :limit]
    n_states = tokens.shape[1] - model.n_future_tokens - 1
    if n_states < 1:
        raise ValueError(
            f"the text has {tokens.shape[1]} tokens, expected more than "
            f"{model.n_future_tokens + 1} for {model.n_future_tokens} heads: name a longer one"
        )

    def share(guess: Tensor, target: Tensor) -> float:
        return float((guess == target).double().mean())

    probes = []
    for offset, states in head_states(model, tokens.to(model.device)):
        guess = model.logits(offset, states[0, :n_states]).argmax(-1).cpu()  # [n_states]
        before, own, after = (tokens[0, k : k + n_states] for k in (offset - 1, offset, offset + 1))
        shifted = max(share(guess, before), share(guess, after))
        constant = share(own.mode().values, own)
        probes.append(HeadProbe(offset, share(guess, own), shifted, constant, n_states))
    return probes
