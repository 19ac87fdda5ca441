"""`mtp_positions`: accuracy and loss of every head, by position in the window and by kind of token.

The position is that of the state t in the window that scored it, for states whose n targets all lie
in the document. The class is that of the target, for targets that every head can reach: x[n]..x[N],
each predicted by head i at the state i tokens before it.

A token has the class of its first character that is not a space; "over two classes" is the share of
tokens with characters of two classes. For byte-level models every class is split into the `first`
byte of its words and the `rest`.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtp_harness.data.token_classes import CLASSES, ROLL_UP, lexemes
from mtp_harness.errors import UserError
from mtp_harness.probes.head_logprobs import TextQuestion, TextReading, sums_by
from mtp_harness.probes.pooled import Measured, Place, column, ratio_cells
from mtp_harness.probes.task import ProbeTask, Table
from mtp_harness.probes.teacher_forced import finite
from mtp_harness.results.long_table import Cell

BOUND = 64
"""Positions below it are reported one by one; the others in buckets of doubling size."""

EDGES = (0, *(BOUND * 2**i for i in range(15)))  # the last one is beyond a million tokens
POSITIONS = [(position,) for position in range(BOUND)]
BUCKETS = [(begin, end - 1) for begin, end in pairwise(EDGES)]


def measure(reading: TextReading, kind: str) -> Measured:
    """Return the sums of one text, as `_row` has them, of each position, bucket, class and part.

    The kind, `code` or `text`, decides the classes; documents of the user's have none.
    """
    common = reading.has_target().all(-1)  # [N]
    heads = reading.heads
    values = _row(heads.right, heads.nats)
    return Measured(
        n=reading.n,
        kind=kind,
        **sums_by_position(reading.position[common], values[common]),
        **(_classes(reading, kind) if kind in CLASSES else {}),
    )


def _row(right: Tensor, nats: Tensor) -> Tensor:
    """Return what is summed, [N, 3n + 1], from [N, n]: right, nats, how many are finite, 1."""
    return torch.cat([right, *finite(nats), torch.ones(len(right), 1)], 1)


def sums_by_position(position: Tensor, values: Tensor) -> dict[str, list[list[float]]]:
    """Return the sums of values [N, C] by position below `BOUND`, and by bucket, [G, C]."""
    low, bucket = position < BOUND, torch.bucketize(position, torch.tensor(EDGES), right=True) - 1
    return {
        "positions": sums_by(position[low], values[low], BOUND),
        "buckets": sums_by(bucket, values, len(BUCKETS)),
    }


def _classes(reading: TextReading, kind: str) -> dict[str, Any]:
    """Return the sums of every class and part over targets x[n]..x[N]: [C, 2 parts, 3n + 1]."""
    characters, text = reading.encoded.characters(), reading.encoded.text
    if characters is None:
        raise UserError(
            "mtp_positions needs a tokenizer that gives the characters of each token, and this one "
            "does not: give a fast one (tokenizer=...), or leave the task out."
        )
    n, heads, classes = reading.n, reading.heads, CLASSES[kind]
    of_token, first, over_two = classes_of_tokens(characters, text, kind)  # of x[1]..x[N]
    targets = reading.reached().numpy()
    sums = np.zeros((len(classes), 2, 3 * n + 1))
    if len(targets):
        states = torch.from_numpy(targets[:, None] - np.arange(1, n + 1))  # [targets, n]
        values = _row(*(part.gather(0, states) for part in (heads.right, heads.nats))).numpy()
        np.add.at(sums, (of_token[targets - 1], 1 - first[targets - 1]), values)
    return {
        "classes": sums.tolist(),
        "n_targets": len(targets),
        "n_over_two": int(over_two[targets - 1].sum()),
        "bytes_are_tokens": len(characters) == len(text.encode()),
    }


def classes_of_tokens(
    characters: Sequence[tuple[int, int]], text: str, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each token's class, whether it opens its word, and whether it spans two classes.

    Returns:
        int64 [N] into `CLASSES[kind]`, int64 [N] of 0 and 1, bool [N].
    """
    word_of, class_of = np.zeros((2, len(text)), dtype=np.int64)
    for number, lexeme in enumerate(lexemes(text, kind)):
        word_of[lexeme.begin : lexeme.end] = number
        class_of[lexeme.begin : lexeme.end] = CLASSES[kind].index(lexeme.name)
    own, several = [], []
    for begin, end in characters:
        inside = text[begin:end]
        own.append(min(begin + len(inside) - len(inside.lstrip()), max(begin, end - 1)))
        several.append(len(set(class_of[begin:end])) > 1)
    words = word_of[own]
    first = np.concatenate([[True], words[1:] != words[:-1]]).astype(np.int64)
    return class_of[own], first, np.array(several)


def _groups(kind: str, n: int, measured: Measured | None = None) -> dict[str, NDArray[np.float64]]:
    """Return the sums [3n + 1] of the states and targets of a flat metric; None: zeros."""
    buckets, rolled = np.zeros((len(BUCKETS), 3 * n + 1)), {}
    if measured is not None:
        buckets = np.array(measured["buckets"])
    if kind in CLASSES:
        classes = np.zeros((len(CLASSES[kind]), 3 * n + 1))
        if measured is not None:
            classes = np.array(measured["classes"]).sum(1)
        rolled = {
            name.replace(" ", "_"): classes[[CLASSES[kind].index(one) for one in members]].sum(0)
            for name, members in ROLL_UP[kind].items()
        }
    early, later = f"position_0_{BOUND - 1}", f"position_{BOUND}_on"
    return {early: buckets[0], later: buckets[1:].sum(0), **rolled}


def offset_cells(
    places: Sequence[Place],
    metric: str,
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
) -> Iterator[Cell]:
    """Yield the ratios of sums [P, G, n] by offset, which stands first in every place."""
    for i in range(numerators.shape[-1]):
        there = [(i + 1, *place) for place in places]
        yield from ratio_cells(there, metric, numerators[..., i], denominators[..., i])


def _means(places: Sequence[Place], sums: NDArray[np.float64]) -> Iterator[Cell]:
    """Yield accuracy and cross-entropy of sums [P, G, 3n + 1], by offset."""
    n = sums.shape[-1] // 3
    count = np.broadcast_to(sums[..., -1:], (*sums.shape[:-1], n))
    yield from offset_cells(places, "accuracy", sums[..., :n], count)
    yield from offset_cells(places, "cross_entropy", sums[..., n : 2 * n], sums[..., 2 * n : 3 * n])


def _by_position(some: Sequence[Measured], name: str) -> Iterator[Cell]:
    sums = column(some, name).reshape(len(some), -1, 3 * some[0]["n"] + 1)
    yield from _means(POSITIONS if name == "positions" else BUCKETS, sums)


def _by_class(some: Sequence[Measured]) -> Iterator[Cell]:
    for kind in dict.fromkeys(one["kind"] for one in some):
        if kind in CLASSES:
            yield from _of_kind(kind, [one for one in some if one["kind"] == kind])


def _of_kind(kind: str, some: Sequence[Measured]) -> Iterator[Cell]:
    names = list(CLASSES[kind])
    sums = column(some, "classes").reshape(len(some), len(names), 2, 3 * some[0]["n"] + 1)
    rolled = [
        sums[:, [names.index(member) for member in group]].sum(1, keepdims=True)
        for group in ROLL_UP[kind].values()
    ]
    sums = np.concatenate([sums, *rolled], 1)
    names += ROLL_UP[kind]
    parts = {"all": sums.sum(2)}
    if all(one["bytes_are_tokens"] for one in some):
        parts |= {"rest": sums[:, :, 1], "first": sums[:, :, 0]}
    total = column(some, "n_targets")[:, None]
    for part, of_part in parts.items():
        yield from _means([(name, part) for name in names], of_part)
        shared = [(None, name, part) for name in names]
        yield from ratio_cells(shared, "share", of_part[:, :, -1], total)
    over = column(some, "n_over_two")[:, None]
    yield from ratio_cells([(None, "over two classes", "all")], "share", over, total)


class PositionsTask(ProbeTask):
    """See the module docstring."""

    request_type = "head_logprobs"
    OPTIONS = frozenset({"window"})
    TABLES = {
        "by_position": Table(("offset", "position"), partial(_by_position, name="positions")),
        "by_bucket": Table(
            ("offset", "position_from", "position_to"), partial(_by_position, name="buckets")
        ),
        "by_class": Table(("offset", "class", "part"), _by_class),
    }

    def question(self, doc: dict[str, Any]) -> TextQuestion:
        """Return the question: the windows of `mtp_heads`, so that both share one reading."""
        kind = doc["kind"]
        return TextQuestion(partial(measure, kind=kind), window=self.window, kind=kind)

    def metrics(self, measured: Measured) -> dict[str, Any]:
        """Return accuracy of the first and the last head: early, later, and by kind of token."""
        n, found = measured["n"], {}
        kinds = dict(zip(self.eval_docs["data_set"], self.eval_docs["kind"], strict=True))
        for data_set, kind in kinds.items():
            own = data_set == measured["data_set"]
            for name, sums in _groups(kind, n, measured if own else None).items():
                for offset in sorted({1, n}):
                    pair = (float(sums[offset - 1]), float(sums[-1]))
                    found[f"{data_set}_{name}_accuracy_{offset}"] = pair
        return found
