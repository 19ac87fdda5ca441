"""The record of one checkpoint layout: a file here makes one, and `load.LAYOUTS` lists them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from mtp_harness.models.checkpoints.summary import Summary
from mtp_harness.models.interface import MultiHeadModel


@dataclass(frozen=True)
class Layout:
    """How checkpoints are stored; every function takes a folder of this layout.

    Attributes:
        name: in results and in `inspect --json`.
        title: for people.
        recognises: whether a folder is one; asked in the order of `load.LAYOUTS`.
        n_future_tokens: n, without reading weights.
        tokenizer: raises FileNotFoundError where there is none.
        describe: fills in what `inspect` says; returns where the tokenizer is, if that is known.
        load: to the CPU, in a type or as stored; None where transformers loads it with one head.
        provenance: what a converted folder says of its source; None where none is converted.
    """

    name: str
    title: str
    recognises: Callable[[Path], bool]
    n_future_tokens: Callable[[Path], int]
    tokenizer: Callable[[Path], PreTrainedTokenizerBase]
    describe: Callable[[Summary, Path], Path | None]
    load: Callable[[Path, torch.dtype | None], MultiHeadModel] | None = None
    provenance: Callable[[Path], dict[str, Any]] | None = None

    @property
    def ordinary(self) -> bool:
        """Whether it is an ordinary causal LM of transformers, with its one head."""
        return self.load is None
