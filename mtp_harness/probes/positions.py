"""`mtp_positions`: accuracy and loss of every head, by position in the window and by kind of token.

Positions are those of the state t in the window that scored it, over the states whose n targets all
lie in the document. Classes are those of the target, over the targets that every head can reach:
x[n]..x[N], each predicted by head i at the state i tokens before it.

A model token belongs to the class of its first character that is not a space; "over two classes"
is the share of tokens for which that was a choice. For models of bytes every class is split into
the `first` byte of its words and the `rest`.
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
from mtp_harness.probes.head_logprobs import TextQuestion, TextReading
from mtp_harness.probes.heads import window_of
from mtp_harness.probes.measured import Measured
from mtp_harness.probes.pooled import by_data_set, column, ratio_cells
from mtp_harness.probes.task import ProbeTask
from mtp_harness.results.long_table import Cell, long_table

BOUND = 64
"""Positions below it stand each for itself; from it on in buckets that double."""

EDGES = (0, *(BOUND * 2**i for i in range(15)))  # the last one is beyond a million tokens


def measure(reading: TextReading, text: str, kind: str) -> Measured:
    """Return the sums of one text: [right, nats, count] of each position, bucket, class and part.

    Args:
        reading: of the text.
        text: its characters.
        kind: `code` or `text`, which decides the classes.
    """
    common = reading.has_target().all(-1)  # [N]
    low = common & (reading.position < BOUND)
    return Measured(
        n=reading.n,
        kind=kind,
        positions=sums_by(reading, reading.position.where(low, 0), low, BOUND),
        buckets=sums_by(reading, bucket_of(reading.position), common, len(EDGES) - 1),
        **_by_class(reading, text, kind),
    )


def bucket_of(position: Tensor) -> Tensor:
    """Return the buckets between `EDGES` that positions lie in, int64 [N]."""
    return torch.bucketize(position, torch.tensor(EDGES), right=True) - 1


def sums_by(reading: TextReading, group: Tensor, scored: Tensor, n_groups: int) -> list[list[Any]]:
    """Return right answers and nats by offset, and the number of states, of every group of states.

    Args:
        reading: of a text.
        group: which group a state belongs to, int64 [N].
        scored: states that count, bool [N].
        n_groups: G.

    Returns:
        [G, 2n + 1].
    """
    heads = reading.heads
    values = torch.cat([heads.right, heads.nats, torch.ones(len(group), 1)], 1).double()
    sums = torch.zeros(n_groups, values.shape[1], dtype=torch.float64)
    found: list[list[Any]] = sums.index_add_(0, group[scored], values[scored]).tolist()
    return found


def _by_class(reading: TextReading, text: str, kind: str) -> dict[str, Any]:
    """Return the sums of every class and part over targets x[n]..x[N]: [C, 2 parts, 2n + 1]."""
    characters = reading.characters()
    if characters is None:
        raise UserError(
            "mtp_positions needs a tokenizer that says which characters a token stands for, and "
            "this one does not: give a fast one (tokenizer=...), or leave the task out."
        )
    n, heads, classes = reading.n, reading.heads, CLASSES[kind]
    of_token, first, over_two = classes_of_tokens(characters, text, kind)  # of x[1]..x[N]
    targets = np.arange(n, len(reading.tokens))  # at least n states stand before each
    sums = np.zeros((len(classes), 2, 2 * n + 1))
    if len(targets):
        states = torch.from_numpy(targets[:, None] - np.arange(1, n + 1))  # [targets, n]
        right = heads.right.gather(0, states).double()
        nats = heads.nats.gather(0, states).double()
        values = torch.cat([right, nats, torch.ones(len(targets), 1)], 1).numpy()
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
    """Return each token's class, whether it opens its word, and whether it is over two classes.

    Args:
        characters: begin and end of the characters of N tokens.
        text: all of them.
        kind: `code` or `text`.

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


class PositionsTask(ProbeTask):
    """See the module docstring."""

    request_type = "head_logprobs"
    OPTIONS = frozenset({"window"})

    def question(self, doc: dict[str, Any]) -> TextQuestion:
        """Return the question: the windows of `mtp_heads`, so that both share one reading."""
        measures = partial(measure, text=doc["text"], kind=doc["kind"])
        return TextQuestion(measures, window=window_of(self.options))

    def metrics(self, doc: dict[str, Any], measured: Measured) -> dict[str, Any]:
        """Return accuracy of the first and the last head: early, later, and by kind of token."""
        n, found = measured["n"], {}
        for data_set, kind in self.kinds.items():
            own = data_set == measured["data_set"]
            for name, sums in _groups(measured if own else None, kind, n).items():
                for offset in sorted({1, n}):
                    pair = (float(sums[offset - 1]), float(sums[-1]))
                    found[f"{data_set}_{name}_accuracy_{offset}"] = pair
        return found

    @property
    def kinds(self) -> dict[str, str]:
        """Return whether a data set is code or text, by name."""
        return dict(zip(self.eval_docs["data_set"], self.eval_docs["kind"], strict=True))

    def tables(self, documents: list[Measured]) -> dict[str, dict[str, list[Any]]]:
        """Return `by_position`, `by_bucket` and `by_class`."""
        positions: list[Cell] = []
        buckets: list[Cell] = []
        classes: list[Cell] = []
        for data_set, some in by_data_set(documents):
            positions += _cells([(data_set, p) for p in range(BOUND)], some, "positions")
            buckets += _cells([(data_set, a, b - 1) for a, b in pairwise(EDGES)], some, "buckets")
            for kind in dict.fromkeys(one["kind"] for one in some):
                same = [one for one in some if one["kind"] == kind]
                classes += _class_cells(data_set, kind, same)
        return {
            "by_position": long_table(("data_set", "offset", "position"), positions),
            "by_bucket": long_table(
                ("data_set", "offset", "position_from", "position_to"), buckets
            ),
            "by_class": long_table(("data_set", "offset", "class", "part"), classes),
        }


def _groups(measured: Measured | None, kind: str, n: int) -> dict[str, NDArray[np.float64]]:
    """Return the sums [2n + 1] of states and targets that a flat metric is about; None: zeros."""
    size = 2 * n + 1
    buckets, classes = np.zeros((len(EDGES) - 1, size)), np.zeros((len(CLASSES[kind]), size))
    if measured is not None:
        buckets, classes = np.array(measured["buckets"]), np.array(measured["classes"]).sum(1)
    rolled = {
        name.replace(" ", "_"): classes[[CLASSES[kind].index(one) for one in members]].sum(0)
        for name, members in ROLL_UP[kind].items()
    }
    early, later = f"position_0_{BOUND - 1}", f"position_{BOUND}_on"
    return {early: buckets[0], later: buckets[1:].sum(0), **rolled}


def _cells(places: list[tuple[Any, ...]], some: Sequence[Measured], name: str) -> Iterator[Cell]:
    """Yield accuracy and cross-entropy of every group of states and offset."""
    n = some[0]["n"]
    sums = column(some, name).reshape(len(some), -1, 2 * n + 1)  # [P, G, 2n + 1]
    yield from _offset_cells(places, sums[:, : len(places)], n)


def _offset_cells(places: list[tuple[Any, ...]], sums: np.ndarray, n: int) -> Iterator[Cell]:
    """Yield the cells of sums [P, G, 2n + 1]; the offset stands second in every place."""
    for metric, begin in (("accuracy", 0), ("cross_entropy", n)):
        for i in range(n):
            there = [(place[0], i + 1, *place[1:]) for place in places]
            yield from ratio_cells(there, metric, sums[:, :, begin + i], sums[:, :, -1])


def _class_cells(data_set: str, kind: str, some: Sequence[Measured]) -> Iterator[Cell]:
    n = some[0]["n"]
    sums = column(some, "classes").reshape(len(some), len(CLASSES[kind]), 2, 2 * n + 1)
    names = list(CLASSES[kind])
    rolled = [
        sums[:, [names.index(member) for member in group]] for group in ROLL_UP[kind].values()
    ]
    sums = np.concatenate([sums, *(group.sum(1, keepdims=True) for group in rolled)], 1)
    names += ROLL_UP[kind]
    parts = {"all": sums.sum(2), "rest": sums[:, :, 1], "first": sums[:, :, 0]}
    if not all(one["bytes_are_tokens"] for one in some):
        parts = {"all": parts["all"]}
    total = column(some, "n_targets")[:, None]
    for part in parts:
        places = [(data_set, name, part) for name in names]
        yield from _offset_cells(places, parts[part], n)
        shared = [(data_set, None, name, part) for name in names]
        yield from ratio_cells(shared, "share", parts[part][:, :, -1], total)
    over = column(some, "n_over_two")[:, None]
    yield from ratio_cells([(data_set, None, "over two classes", "all")], "share", over, total)
