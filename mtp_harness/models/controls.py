"""Tests a family's row on a checkpoint: each of its settings is also tried the other way round.

Shapes do not show which state a module reads, or in which order `eh_proj` has its halves. A trained
module does: on real text, the way it was trained predicts best.

    head    what the row says                           control
    2       which state of the trunk module 1 reads     before the final norm instead of after it
    2       the order of the halves of eh_proj's input  swapped
    3       which state a module passes on              before post_norm instead of after it

(or the reverse, where the row says so).

The measure is cross-entropy in nats per token, which notices a changed probability of the true
token, unlike accuracy. Differences are paired by position, with a standard error over blocks of
neighbouring positions, because neighbours are similar.

A control is inconclusive if neither way beats the most frequent token: an untrained module does not
show that a row is wrong. A control is better only if it is also right as often, because a reading
that makes an overconfident module less sure lowers the cross-entropy, too. The embedding at
position 0 needs no control: it is one position of a text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mtp_harness.models.families import FAMILIES, Family
from mtp_harness.models.head_states import head_states
from mtp_harness.models.plausibility import beats_constant, beginning, read
from mtp_harness.models.sequential import SequentialModel

BLOCKS = 16
FEWEST_STATES = 4 * BLOCKS
STANDARD_ERRORS = 4.0  # a difference below this may be chance: p = 0.001 with 16 blocks
SMALLEST = 0.01
"""Nats per token; smaller differences are rounding, however regular."""

FORMS = {
    "reads_normed": (
        2,
        {True: "trunk state after final norm", False: "trunk state before final norm"},
    ),
    "hidden_first": (
        2,
        {True: "eh_proj of state, embedding", False: "eh_proj of embedding, state"},
    ),
    "passes_normed": (
        3,
        {True: "passes on after post_norm", False: "passes on before post_norm"},
    ),
}
"""Field of `Family` → the first head that it affects, and the names of its values."""


class Control(NamedTuple):
    """A head's scores with a setting of the row, and with its opposite."""

    row: str  # its name in `families.FAMILIES`
    field: str  # of the row
    offset: int
    way: str
    other_way: str
    nats: float  # cross-entropy per token
    other_nats: float
    error: float  # standard error of the difference
    accuracy: float
    other_accuracy: float
    constant: float  # accuracy of the most frequent token
    n_states: int

    def verdict(self) -> str:
        """Return "worse" (as expected), "better", "alike", or "unknown"."""
        margin = max(STANDARD_ERRORS * self.error, SMALLEST)
        known, other_known = (
            beats_constant(share, self.constant, self.n_states)
            for share in (self.accuracy, self.other_accuracy)
        )
        if not (known or other_known):
            return "unknown"
        if known and self.other_nats > self.nats + margin:
            return "worse"
        right = other_known and self.other_accuracy >= self.accuracy
        return "better" if right and self.other_nats < self.nats - margin else "alike"

    def problem(self) -> str | None:
        """Return why the row is wrong, or None."""
        if self.verdict() != "better":
            return None
        return (
            f"the row {self.row} is wrong for this checkpoint: head {self.offset} predicts better "
            f"with the control '{self.other_way}' ({self.other_nats:.2f} nats per token, accuracy "
            f"{self.other_accuracy:.2f}) than with the row's '{self.way}' ({self.nats:.2f} nats, "
            f"{self.accuracy:.2f}), expected the row to be better: correct {self.field} of the row "
            "in mtp_harness/models/families.py, or write the checkpoint as its family does"
        )


@torch.no_grad()
def probe_row(
    model: SequentialModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> list[Control]:
    """Try all settings of the model's row on the beginning of a text; none if it is too short.

    Raises:
        ValueError: the text is too short for the model's heads.
    """
    tokens, n_states = beginning(model, tokenizer, text)
    asked = tokens.to(model.device)
    if n_states < FEWEST_STATES:
        return []
    row, name = model.family, _name(model)
    heads = min(3, model.n_future_tokens)
    own = {
        offset: read(model, offset, states, tokens, n_states)
        for offset, states in head_states(model, asked, heads)
    }
    controls = []
    for field, (offset, words) in FORMS.items():
        if offset not in own:
            continue
        changed: Any = {field: not getattr(row, field)}
        with _reading_as(model, replace(row, **changed)):
            states = dict(head_states(model, asked, offset))[offset]
            other = read(model, offset, states, tokens, n_states)
        controls.append(
            Control(
                row=name,
                field=field,
                offset=offset,
                way=words[not changed[field]],
                other_way=words[changed[field]],
                nats=float(own[offset].nats.mean()),
                other_nats=float(other.nats.mean()),
                error=_standard_error(other.nats - own[offset].nats),
                accuracy=own[offset].share(offset),
                other_accuracy=other.share(offset),
                constant=other.constant(),
                n_states=n_states,
            )
        )
    return controls


def _standard_error(differences: Tensor) -> float:
    """Return the standard error of the mean of [n_states], over blocks of neighbours."""
    means = torch.stack([block.mean() for block in differences.tensor_split(BLOCKS)])
    return float(means.std() / BLOCKS**0.5)


def _name(model: SequentialModel) -> str:
    """Return the row's name; several types of one row have the type's."""
    kind = str(model.config.model_type)
    names = [name for name, row in FAMILIES.items() if row == model.family]
    return kind if kind in names or not names else names[0]


@contextmanager
def _reading_as(model: SequentialModel, family: Family) -> Iterator[None]:
    row, model.family = model.family, family
    try:
        yield
    finally:
        model.family = row
