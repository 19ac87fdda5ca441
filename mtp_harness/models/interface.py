"""The interface between checkpoints and the rest: decoding, probes and the harness model.

Shape legend, used in every tensor module of the package:
`B` rows, `T` tokens in this call, `S` cached length, `n` heads, `D` width, `V` vocabulary.

Two kinds of heads implement it. Head k predicts the token at offset k from position t:

    parallel (the paper, Medusa)            sequential (DeepSeek-V3, GLM-4.5, Qwen3.5, ...)
    state_1 = head(1, z)                    state_1 = head(1, z)
    state_k = head(k, z)                    state_k = head(k, state_{k-1}, token at t+k-1)
    logits_k = logits(k, state_k)           logits_k = logits(k, state_k)

with z = trunk(tokens). Teacher-forced, a sequential head sees the true tokens in between, and a
parallel head does not: every result that compares heads says which kind it measured.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from mtp_harness.models.full_precision import keeping_precision


class LayerShape(NamedTuple):
    """What a cache holds for one layer, and where: keys and values per token, states per row."""

    n_kv_heads: int
    head_dim: int
    device: torch.device | None = None  # None: the model's
    value_dim: int | None = None  # if values are not as wide as keys (DeepSeek's latents)
    states: tuple[tuple[int, ...], ...] = ()  # shapes, of a layer of linear attention

    @property
    def widths(self) -> tuple[int, int]:
        """The dtype of keys and values."""
        return self.head_dim, self.head_dim if self.value_dim is None else self.value_dim


class KeyValueCache(Protocol):
    """What a block needs from a cache; `mtp_harness.decode.cache.SlotCache` implements it.

    The caller sets the positions of the tokens in this call before it calls the model.
    """

    in_prompts: bool  # the call's tokens: they see each other causally, and nothing else
    positions: Tensor  # of the call's tokens, int64 [B, T]
    places: Tensor  # their columns in the cache, counted over all rows, int64 [B * T]

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Store [B, H, T, d] keys and values; return those to attend to, [B, H, S, d]."""

    def bias(self, dtype: torch.dtype, repeats: int, last: Tensor | None = None) -> Tensor:
        """Return the mask as numbers to add to scores, [B, 1, repeats * T, S].

        With `last`, int64 [B], only the call's token at that index is a query: T is 1.
        """

    def stored(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Return all keys and values of a layer, [slots, columns, H, d], to write and read."""

    def lengths(self) -> Tensor:
        """Return how many columns the call's tokens see at most, per row, int64 [B]."""

    def held(self, layer_idx: int) -> list[Tensor] | None:
        """Return a layer's states at the last kept tokens, [B, ...]; None before a prompt."""

    def settle(self, layer_idx: int, states: Sequence[Tensor]) -> None:
        """Store a layer's states behind the prompts of this call, [b, ...]."""

    def settle_later(self, layer_idx: int, move: Callable[[Tensor], None]) -> None:
        """Take what moves a layer's states, in place, behind the tokens of this call that stay.

        Their number in each row, int64 [B], is known later; `move` is called with it. A call's
        first token stays in every live row, so a call of one token may move the states itself.
        """

    def remember(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returns, computed once for the tokens of this call."""

    def on(self, device: torch.device) -> "KeyValueCache":
        """Return this cache for layers that are on `device`."""


class MultiHeadModel(nn.Module, ABC):
    """A language model with a trunk and n heads; head 1 is the next-token head."""

    sequential: bool = False  # whether head k reads state k-1 and the token at t+k-1
    reused: bool = False  # whether heads 2..n are one sequential module, which drafts repeatedly
    shared_unembedding: bool = False  # whether `logits` is the same function for every head
    draft_vocabulary: int | None = None  # size of heads 2..n's; None if it is the trunk's

    @property
    def reading(self) -> str:
        """How sequential heads beyond the first module are read, as results say it."""
        return "reused" if self.reused else "chained"

    @property
    @abstractmethod
    def n_future_tokens(self) -> int:
        """The number of heads, n."""

    @property
    @abstractmethod
    def max_positions(self) -> int:
        """The longest sequence the model was built for, in tokens."""

    @abstractmethod
    def layer_shapes(self, heads: int) -> list[LayerShape]:
        """Return the cache layers that the trunk and heads 1..`heads` write, by layer index."""

    @abstractmethod
    def trunk(
        self, tokens: Tensor, positions: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Run the shared layers; return the trunk states z, [B, T, D].

        Args:
            tokens: int64 [B, T].
            positions: int64 [B, T]; None means 0..T-1 in every row.
            cache: None: causal attention within this call alone.
        """

    @abstractmethod
    def head(
        self,
        offset: int,
        states: Tensor,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Run head `offset` (1..n); return state_offset, [B, T, D].

        Args:
            offset: 1-based.
            states: [B, T, D]: z for parallel heads and for head 1, state_{offset-1} otherwise.
            tokens: int64 [B, T], the tokens at t+offset-1; read by sequential heads 2..n only.
            positions: as for `trunk`.
            cache: as for `trunk`.
        """

    def head_at(
        self, offset: int, states: Tensor, positions: Tensor, cache: KeyValueCache, last: Tensor
    ) -> Tensor:
        """Return head `offset`'s state at one token per row, [B, 1, D]; parallel heads only.

        The cache gets what the head keeps of all tokens, for later calls. By default this runs the
        head on all of them. `last`, int64 [B], is an index within the call.
        """
        return at_index(self.head(offset, states, None, positions, cache), last)

    @abstractmethod
    def logits(self, offset: int, states: Tensor) -> Tensor:
        """Return head `offset`'s logits [..., V] of its states [..., D]."""

    def next_token_logits(self, tokens: Tensor) -> Tensor:
        """Return head 1's logits [B, T, V] of int64 `tokens` [B, T], without a cache."""
        return self.logits(1, self.head(1, self.trunk(tokens)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert everything (`to`, `half`, ...), but what must not be rounded."""
        with keeping_precision(self):
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def tie_weights(self, *_: Any, **__: Any) -> None:
        """Do nothing: lm_eval's `HFLM` calls this on every module it loads."""

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return next(self.parameters()).dtype


def at_index(states: Tensor, index: Tensor) -> Tensor:
    """Return the state at `index` [B] of every row of [B, T, ...]; [B, 1, ...]."""
    return states[torch.arange(len(index), device=index.device), index][:, None]
