"""EAGLE-3: one layer that reads three states of the trunk, and drafts repeatedly.

    taps    = [h_i, h_j, h_k] of the token at t       residual stream after i, j, k layers
    state 2 = layer(embedding of t+1, fc(taps))       at position t
    state 3 = layer(embedding of t+2, state 2)        at position t+1; fc is not applied again
    draft   = lm_head(norm(state)), in its own vocabulary: id i means the trunk's i + d2t[i]

Its attention reads [norm of the embedding, norm of the state], twice as wide as the layer; further
layers are plain. All other tokens of the trunk have the probability 0.

Source: Li et al. 2025, "EAGLE-3", section 3, and the files of its authors and of speculators, which
have options to normalise the taps, the passed state, or the residual.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtp_harness.models.interface import KeyValueCache
from mtp_harness.models.trained_apart.eagle import LayersModel, decoder_of


@dataclass(frozen=True)
class Design:
    """The structure of a drafter, apart from its weights.

    Attributes:
        taps: how many layers of the trunk precede each state that is read; 0 means the embeddings,
            the number of layers means the input of the final norm.
    """

    config: Any  # transformers', for layers of its kind; its `vocab_size` is the trunk's, V
    taps: tuple[int, ...]
    width: int  # of the trunk, D
    n_drafts: int  # size of its own vocabulary
    norm_before_residual: bool = False  # whether the residual is the normed state
    norm_before_fc: bool = False  # whether the joined taps are normalised
    fc_norm: bool = False  # whether each tap is normalised
    norm_output: bool = False  # whether the state is passed on after the last norm
    own_embeddings: bool = False  # whether it has its own embeddings, instead of the trunk's
    own_head: bool = True  # whether it has its own unembedding, instead of the trunk's
    fc_bias: bool = False  # whether `fc` has one


class FirstLayer(nn.Module):
    """A layer of transformers that reads embeddings in addition to states, which `norm` is for."""

    def __init__(self, layer: Any, norm: nn.Module, before_residual: bool) -> None:
        super().__init__()
        self.self_attn, self.mlp = layer.self_attn, layer.mlp
        self.input_layernorm, self.hidden_norm = layer.input_layernorm, norm
        self.post_attention_layernorm = layer.post_attention_layernorm
        self.before_residual = before_residual
        for name in ("q_proj", "k_proj", "v_proj"):
            old = getattr(self.self_attn, name)
            new = nn.Linear(2 * old.in_features, old.out_features, bias=old.bias is not None)
            setattr(self.self_attn, name, new)

    def forward(self, embeddings: Tensor, states: Tensor, **where: Any) -> Tensor:
        """Return states [B, T, H] of embeddings and states [B, T, H]; `where` is for attention."""
        normed = self.hidden_norm(states)
        both = torch.cat([self.input_layernorm(embeddings), normed], -1)
        found: Tensor = self.self_attn(both, **where)[0]
        found = found + (normed if self.before_residual else states)
        found = found + self.mlp(self.post_attention_layernorm(found))
        return found


class Eagle3(nn.Module):
    """The drafter's weights, named as in speculators' files."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        config = design.config
        base, width = decoder_of(config), config.hidden_size

        def norm(size: int = width) -> nn.Module:
            made: nn.Module = type(base.norm)(size, eps=config.rms_norm_eps)
            return made

        self.config = base.config  # the layers read from it how attention is computed
        self.design, self.rotary, self.norm = design, base.rotary_emb, base.norm
        first = FirstLayer(base.layers[0], norm(), design.norm_before_residual)
        self.layers = nn.ModuleList([first, *base.layers[1:]])
        n_read = len(design.taps) * design.width
        self.fc = nn.Linear(n_read, width, bias=design.fc_bias)
        if design.norm_before_fc:
            self.input_norm = norm(n_read)
        if design.fc_norm:
            self.fc_norm = nn.ModuleList(norm(design.width) for _ in design.taps)
        if design.own_embeddings:
            self.embed_tokens = nn.Embedding(config.vocab_size, width)
        if design.own_head:
            self.lm_head = nn.Linear(width, design.n_drafts, bias=False)

    def fuse(self, taps: Tensor) -> Tensor:
        """Return the input of the first pass, [..., H], from joined taps."""
        if self.design.norm_before_fc:
            taps = self.input_norm(taps)
        if self.design.fc_norm:
            each = zip(self.fc_norm, taps.chunk(len(self.fc_norm), -1), strict=True)
            taps = torch.cat([norm(tap) for norm, tap in each], -1)
        found: Tensor = self.fc(taps)
        return found

    def forward(self, embeddings: Tensor, states: Tensor, **where: Any) -> Tensor:
        """Return states [B, T, H] of embeddings and states [B, T, H]; `where` is for attention."""
        first, *further = self.layers
        found: Tensor = first(embeddings, states, **where)
        for layer in further:
            found = layer(found, **where)
        return self.norm(found) if self.design.norm_output else found


class Eagle3Model(LayersModel):
    """A trunk of transformers with an EAGLE-3 drafter.

    State 1 is [normed trunk state, taps]; the states that the drafter passes on are as wide as it
    is.
    """

    def __init__(
        self, main: Any, drafter: Eagle3, ids: Tensor | None, heads: int | None = None
    ) -> None:
        """Put trunk and drafter together.

        Args:
            main: as for `LayersModel`.
            drafter: likewise.
            ids: the trunk's ids of the drafter's vocabulary, int64; None if it is the trunk's.
            heads: as for `LayersModel`.
        """
        super().__init__(main, drafter, heads)
        self.ids: Tensor | None
        self.register_buffer("ids", ids, persistent=False)
        self.draft_vocabulary = None if ids is None else len(ids)
        self._depth, design = len(self.base.layers), drafter.design
        self._width = self.base.config.hidden_size  # D
        self._wide = self._width * (1 + len(design.taps))
        assert self._wide != design.config.hidden_size, "states are distinguished by their width"
        self._seen: dict[int, Tensor] = {}
        for tap in design.taps:
            if tap < self._depth:
                self.base.layers[tap].register_forward_pre_hook(self._note(tap), with_kwargs=True)

    def _note(self, tap: int) -> Any:
        def note(_: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            self._seen[tap] = args[0] if args else kwargs["hidden_states"]

        return note

    def trunk(
        self, tokens: Tensor, positions: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Return [state before the final norm, taps]; see `TrunkModel.trunk`."""
        last = super().trunk(tokens, positions, cache)
        taps = [self._seen.get(tap, last) for tap in self.drafter.design.taps]
        self._seen.clear()
        return torch.cat([last, *taps], -1)

    def first(self, states: Tensor) -> Tensor:
        """Return [normed trunk state, taps]."""
        last, taps = states[..., : self._width], states[..., self._width :]
        return torch.cat([self.norm(last), taps], -1)

    def run(self, states: Tensor, *where: Any) -> Tensor:
        """See `LayersModel.run`; the first pass reads the taps."""
        if states.shape[-1] == self._wide:
            states = self.drafter.fuse(states[..., self._width :])
        return super().run(states, *where)

    def logits(self, offset: int, states: Tensor) -> Tensor:
        """Return logits [..., V] of states; -inf for tokens outside the drafter's vocabulary."""
        if offset == 1:
            found: Tensor = self.main.lm_head(states[..., : self._width])
            return found
        drafter = self.drafter
        normed = states if drafter.design.norm_output else drafter.norm(states)
        own: Tensor = (drafter.lm_head if drafter.design.own_head else self.main.lm_head)(normed)
        if self.ids is None:
            return own
        whole = own.new_full((*own.shape[:-1], self.main.lm_head.out_features), float("-inf"))
        return whole.index_copy_(-1, self.ids, own)
