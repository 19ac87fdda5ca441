"""What tasks, probes and generation require of a model.

Tasks that fit their prompts to the context work with any model of the harness. Probes and decoding
need `MTPLM` (`mtp_harness.lm`); what it inherits from `HFLM` is declared here, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from lm_eval.api.instance import Instance

    from mtp_harness.decode.engine import Engine
    from mtp_harness.models.interface import MultiHeadModel


@runtime_checkable
class Tokenizing(Protocol):
    """Has a tokenizer: enough to count the tokens of a prompt."""

    def tok_encode(self, string: str) -> list[int]:
        """Return token ids, with what the tokenizer puts around a text."""


class Decoder(Protocol):
    """Decodes with any number of heads."""

    model: MultiHeadModel

    def engine(self, k: int, slots: int | None = None) -> Engine:
        """Return an engine with heads 1..k."""

    def prompt(self, context: str | list[int], budget: int, where: str) -> tuple[list[int], int]:
        """Return token ids cut so that an answer fits, and how many were cut off."""


@runtime_checkable
class HeadsModel(Tokenizing, Protocol):
    """A model of the harness that answers requests about its heads."""

    model: Any  # a `MultiHeadModel`, or transformers' own for an ordinary checkpoint
    tokenizer: Any
    pretrained: str
    device: torch.device
    rank: int
    batch_size: int | str  # "auto", too
    max_batch_size: int
    max_length: int
    max_gen_toks: int
    truncation: bool
    backend: str
    prefix_token_id: int
    think_end_token: str | int | None
    cache_hook: Any
    _model_call: Any
    _model_generate: Any

    def tok_decode(self, tokens: list[int]) -> str:
        """Return the text of token ids."""

    def tok_batch_encode(self, strings: list[str], truncation: bool = False) -> tuple[Any, Any]:
        """Return ids and attention mask, [B, T]."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]: ...

    def decoder(self) -> Decoder:
        """Return the generator that decodes with heads; a `UserError` for an ordinary model."""

    def identity(self) -> dict[str, Any]:
        """Return what a log-likelihood or an answer depends on, apart from decoding."""

    def agree(self, mine: Any) -> Any:
        """Return rank 0's value in every process."""

    def head_logprobs(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer requests `(text, TextQuestion)`; see `probes.head_logprobs`."""

    def speculative(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer requests `(prompt, SpeculativeQuestion)`; see `probes.speculative`."""

    def drafts(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer requests `(prompt, SpeculativeQuestion)`; see `probes.drafts`."""

    def speed(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer requests `(name, SpeedQuestion)`; see `probes.speed`."""

    def induction(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Answer requests `(template, InductionQuestion)`; see `probes.induction`."""
