"""A quick test whether heads predict what they should: it finds wiring errors, and is no benchmark.

Shapes do not show whether heads are in the right order or read the right state. So each head k is
scored on real text, at every position t, against three things:

    own        x[t+k]                     what it was trained for
    shifted    x[t+k-1] and x[t+k+1]      its neighbours' targets: accuracy must collapse
    constant   the most frequent token    what always giving the same answer would score

A head that is always right is flagged, and so is one that is not better at its own target than at a
shifted one, or than the constant. If the shifted one clearly beats the constant, the head predicts
another offset; otherwise it is trained too little for this test.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from mtp_harness.models.head_states import head_states
from mtp_harness.models.interface import MultiHeadModel

MAX_CHARACTERS = 4000
MAX_TOKENS = 512

_CHUNK = 64
"""States whose logits are in memory at once: a vocabulary may have 250,000 tokens."""


class HeadProbe(NamedTuple):
    """One head's accuracies; shares in [0, 1]."""

    offset: int
    accuracy: float
    shifted: float  # the larger of the two
    constant: float
    n_states: int

    def doubt(self) -> str | None:
        """Return why this head is implausible, None if it is not."""
        if self.accuracy == 1:
            return "always right, which no model is on real text"
        if self.accuracy > max(self.shifted, self.constant):
            return None
        if beats_constant(self.shifted, self.constant, self.n_states):
            return "no better at its own offset than at a neighbouring one: heads out of order?"
        if self.accuracy == 0:
            return "never right: not trained, or not on such text?"
        return "no better than always answering the most frequent token: trained too little?"


def beats_constant(share: float, constant: float, n: int) -> bool:
    """Return whether a share of n positions is three standard errors above the constant's."""
    error: float = (constant * (1 - constant) / n) ** 0.5
    return share > constant + 3 * error


class Reading(NamedTuple):
    """One head's answers along a text."""

    guess: Tensor  # its first choices, int64 [n_states]
    nats: Tensor  # cross-entropy of the token at its own offset, float32 [n_states]
    own: Tensor  # that token, int64 [n_states]
    text: Tensor  # all tokens, int64 [T]

    def share(self, offset: int) -> float:
        """Return how often the guess is the token at an offset, in [0, 1]."""
        target = self.text[offset : offset + len(self.guess)]
        return float((self.guess == target).double().mean())

    def constant(self) -> float:
        """Return how often the most frequent of the own tokens would be right."""
        return float((self.own == self.own.mode().values).double().mean())


def read(
    model: MultiHeadModel, offset: int, states: Tensor, tokens: Tensor, n_states: int
) -> Reading:
    """Return the answers of head `offset` from its states [1, T, D] at the first `n_states`."""
    own = tokens[0, offset : offset + n_states]
    parts = []
    for start in range(0, n_states, _CHUNK):
        chunk = slice(start, min(start + _CHUNK, n_states))
        logits = model.logits(offset, states[0, chunk]).float().cpu()  # [<= 64, V]
        parts.append((logits.argmax(-1), cross_entropy(logits, own[chunk], reduction="none")))
    guess, nats = (torch.cat(found) for found in zip(*parts, strict=True))
    return Reading(guess, nats, own, tokens[0])


def default_text() -> str:
    """Return code that every Python has: the beginning of the standard library's `textwrap`.

    Raises:
        FileNotFoundError: this Python has no library source.
    """
    import textwrap

    path = Path(textwrap.__file__)
    if path.suffix != ".py" or not path.is_file():
        raise FileNotFoundError(
            "this Python has no source of its standard library, expected textwrap.py: name a "
            "text file with --probe FILE"
        )
    return path.read_text(encoding="utf-8")


def beginning(
    model: MultiHeadModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[Tensor, int]:
    """Return the first tokens of a text, int64 [1, T], and how many states all heads can score.

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
    return tokens, n_states


@torch.no_grad()
def probe_heads(
    model: MultiHeadModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> list[HeadProbe]:
    """Score every head on the beginning of a text of the kind the model was trained on.

    Raises:
        ValueError: the text is too short for the model's heads.
    """
    tokens, n_states = beginning(model, tokenizer, text)
    probes = []
    for offset, states in head_states(model, tokens.to(model.device)):
        found = read(model, offset, states, tokens, n_states)
        shifted = max(found.share(offset - 1), found.share(offset + 1))
        probe = HeadProbe(offset, found.share(offset), shifted, found.constant(), n_states)
        probes.append(probe)
    return probes
