"""The paper's architecture on transformers' Llama: a shared trunk and n parallel last layers.

`num_hidden_layers` counts every block, heads included, as Meta's `n_layers` does:

    embed_tokens -> layers[0..L-n-1] = trunk -> z -+-> layers[L-n]     = head 1 -+-> norm -> lm_head
                                                   +-> extra_heads[0]  = head 2 -+
                                                   +-> extra_heads[..] = head n -+

`model` alone (trunk and head 1) is an ordinary Llama of L-n+1 layers, so everything that needs only
the next token (log-likelihoods, `generate`, NTP) runs transformers' own code without heads 2..n.

Source: Gloeckle et al. 2024, section 2 and Table S13; released code as described in the README of
`facebook/multi-token-prediction`. Byte-level models have one unembedding per head (Table S13's
caption); all heads share the norm.
"""

import copy
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaModel,
    LlamaPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from mtp_harness.models.gpu.serve import normed
from mtp_harness.models.interface import KeyValueCache, LayerShape, MultiHeadModel
from mtp_harness.models.llama.all_heads_loss import all_heads_loss
from mtp_harness.models.llama.blocks import device_of, run_block_at, run_blocks


class MTPLlamaConfig(LlamaConfig):  # type: ignore[no-untyped-call]
    """A Llama configuration with n heads; `num_hidden_layers` counts trunk and heads."""

    model_type = "mtp_llama"

    n_future_tokens: int = 1  # n, 1..num_hidden_layers - 1
    replicated_unembeddings: bool = False  # one per head (byte-level models), not a shared one
    all_heads_loss: bool = False  # whether `labels=` gives the paper's loss, or head 1's alone

    def __post_init__(self, **kwargs: Any) -> None:
        """Check the number of heads against the number of blocks."""
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        if not 1 <= self.n_future_tokens < self.num_hidden_layers:
            raise ValueError(
                f"n_future_tokens={self.n_future_tokens} with num_hidden_layers="
                f"{self.num_hidden_layers}: expected 1 to {self.num_hidden_layers - 1}, because "
                "the heads count among the layers and the trunk needs at least one."
            )

    def next_token_config(self) -> LlamaConfig:
        """Return the configuration of the plain Llama that consists of the trunk and head 1.

        A padding token that is also BOS or EOS occurs in texts, so its embedding must be trained:
        transformers starts the row of `pad_token_id` at zero and gives it no gradient.
        """
        config = copy.deepcopy(self)
        config.num_hidden_layers = self.num_hidden_layers - self.n_future_tokens + 1
        several_eos = self.eos_token_id if isinstance(self.eos_token_id, list) else []
        if self.pad_token_id in (self.bos_token_id, self.eos_token_id, *several_eos):
            config.pad_token_id = None
        return config


class MTPLlamaForCausalLM(LlamaForCausalLM, MultiHeadModel):  # type: ignore[no-untyped-call]
    """Llama with n parallel transformer-layer heads; see the module docstring.

    `labels=` trains head 1 only: heads 2..n get no gradient, and count as unused parameters if
    several processes train (DDP). `from_pretrained(FOLDER, all_heads_loss=True)` makes `loss` the
    paper's, over all heads; `logits` stay head 1's.
    """

    config_class = MTPLlamaConfig
    _tied_weights_keys = None  # type: ignore[assignment]

    def __init__(self, config: MTPLlamaConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)
        self.model = LlamaModel(config.next_token_config())
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        first_extra = config.num_hidden_layers - config.n_future_tokens + 1
        self.extra_heads = nn.ModuleList(
            LlamaDecoderLayer(config, index)
            for index in range(first_extra, config.num_hidden_layers)
        )
        n_extra_unembeddings = config.n_future_tokens - 1 if config.replicated_unembeddings else 0
        self.extra_lm_heads = nn.ModuleList(
            nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            for _ in range(n_extra_unembeddings)
        )
        self.post_init()  # type: ignore[no-untyped-call]

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return head 1's logits and, with `labels`, a loss; arguments of `LlamaForCausalLM`."""
        if labels is None or not self.config.all_heads_loss:
            output: CausalLMOutputWithPast = super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                inputs_embeds=inputs_embeds,
                labels=labels,
                **kwargs,
            )
            return output
        embedded = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        n_items = kwargs.get("num_items_in_batch")
        found = all_heads_loss(self, embedded, attention_mask, position_ids, labels, n_items)
        return CausalLMOutputWithPast(loss=found.loss, logits=found.logits)

    @property
    def shared_unembedding(self) -> bool:  # type: ignore[override]
        """Whether all heads share one unembedding; byte-level models have one each."""
        return not self.config.replicated_unembeddings

    @property
    def n_future_tokens(self) -> int:
        """The number of heads, n."""
        return int(self.config.n_future_tokens)

    @property
    def max_positions(self) -> int:
        """The context length in tokens."""
        return int(self.config.max_position_embeddings)

    def layer_shapes(self, heads: int) -> list[LayerShape]:
        """Return one shape per block of the trunk and heads 1..`heads`."""
        config: Any = self.config  # transformers types these sizes as optional
        return [
            LayerShape(config.num_key_value_heads, config.head_dim, device_of(block))
            for block in [*self.model.layers, *self.extra_heads[: heads - 1]]
        ]

    def trunk(
        self, tokens: Tensor, positions: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Return the trunk states z [B, T, D] of `tokens` [B, T]."""
        embedded = self.model.embed_tokens(tokens)
        return run_blocks(self.model.layers[:-1], embedded, self.model.rotary_emb, positions, cache)

    def head(
        self,
        offset: int,
        states: Tensor,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return head `offset`'s state [B, T, D], before the shared norm, of z [B, T, D]."""
        return run_blocks([self._block(offset)], states, self.model.rotary_emb, positions, cache)

    def head_at(
        self, offset: int, states: Tensor, positions: Tensor, cache: KeyValueCache, last: Tensor
    ) -> Tensor:
        """Return head `offset`'s state [B, 1, D] at the tokens `last` [B] of z [B, T, D]."""
        block, rotary = self._block(offset), self.model.rotary_emb
        return run_block_at(block, states, rotary, positions, cache, last)

    def _block(self, offset: int) -> nn.Module:
        return self.model.layers[-1] if offset == 1 else self.extra_heads[offset - 2]

    def logits(self, offset: int, states: Tensor) -> Tensor:
        """Return the logits [..., V] of head `offset`'s states [..., D]."""
        replicated = self.config.replicated_unembeddings and offset > 1
        unembedding = self.extra_lm_heads[offset - 2] if replicated else self.lm_head
        logits: Tensor = unembedding(normed(self.model.norm, states))
        return logits


AutoConfig.register(MTPLlamaConfig.model_type, MTPLlamaConfig)
AutoModelForCausalLM.register(MTPLlamaConfig, MTPLlamaForCausalLM)
