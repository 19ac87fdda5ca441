"""EAGLE and EAGLE-2: layers that read one state of the trunk, and draft repeatedly.

    state 2 = layers(fc([embedding of t+1, norm(z) of t]))       at position t
    state 3 = layers(fc([embedding of t+2, state 2]))            at position t+1
    draft   = the trunk's unembedding of the state, without a norm

The first layer has no norm before its attention. Both are the same model: EAGLE-2 drafts trees with
it. Here, as everywhere in this package, drafts are chains.

Source: Li et al. 2024, "EAGLE", section 3.1, and the files of its authors.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from mtp_harness.models.gpu.serve import serve_layers
from mtp_harness.models.interface import KeyValueCache, LayerShape
from mtp_harness.models.sequential import DEFAULT_REUSED, MOST_REUSED
from mtp_harness.models.trained_apart.stored import Stored
from mtp_harness.models.trunk import TrunkModel


def decoder_of(config: Any) -> Any:
    """Return transformers' decoder with random weights and a minimal embedding."""
    n_vocabulary, config.vocab_size = config.vocab_size, 1
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    config.vocab_size = n_vocabulary
    return model.get_decoder()


class LayersModel(TrunkModel):
    """A trunk with a drafter made of transformers' layers, which is read as one reused module.

    The drafter has `config`, `layers`, `rotary`, perhaps `embed_tokens`, and is called with
    embeddings and states [B, T, H].
    """

    sequential = reused = True

    def __init__(self, main: Any, drafter: Any, heads: int | None = None) -> None:
        """Put trunk and drafter together.

        Args:
            main: transformers' causal language model; see `TrunkModel`.
            drafter: of the same type and on the same device.
            heads: n; None means `DEFAULT_REUSED`.
        """
        super().__init__(main)
        drafter.config._attn_implementation = self.base.config._attn_implementation
        self.drafter, self._n = drafter, heads or DEFAULT_REUSED
        layer: Any
        for index, layer in enumerate(drafter.layers, len(self.base.layers)):
            layer.self_attn.layer_idx = index
        serve_layers(drafter.layers[1:])  # the first one is no layer of transformers
        self.train(main.training)

    @property
    def n_future_tokens(self) -> int:
        """The number of heads, n."""
        return self._n

    def layer_shapes(self, heads: int) -> list[LayerShape]:
        """Return the cache layers of the trunk and of the drafter."""
        config = self.drafter.config
        one = LayerShape(config.num_key_value_heads, config.head_dim)
        return self.trunk_shapes() + [one] * (len(self.drafter.layers) if heads > 1 else 0)

    def first(self, states: Tensor) -> Tensor:
        """Return state 1 of the trunk's, [B, T, D]."""
        normed: Tensor = self.norm(states)
        return normed

    def head(
        self,
        offset: int,
        states: Tensor,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """See `MultiHeadModel.head`."""
        if offset == 1:
            return self.first(states)
        assert tokens is not None
        return self.run(states, tokens, positions, cache)

    def run(
        self, states: Tensor, tokens: Tensor, positions: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        """Return the drafter's states [B, T, H] from those before and the tokens after them."""
        drafter = self.drafter
        table = getattr(drafter, "embed_tokens", None) or self.main.get_input_embeddings()
        found: Tensor = drafter(
            table(tokens),
            states,
            attention_mask=self._mask(tokens, cache, positions),
            position_embeddings=drafter.rotary(states, self._positions(tokens, positions)),
            past_key_values=cache,
        )
        return found


class Eagle(nn.Module):
    """The drafter's weights, named as in the authors' files."""

    def __init__(self, config: Any, fc_bias: bool, own_embeddings: bool) -> None:
        """Build it with random weights; `config` is transformers', for layers of its kind."""
        super().__init__()
        base, width = decoder_of(config), config.hidden_size
        self.config, self.rotary, self.layers = base.config, base.rotary_emb, base.layers
        self.layers[0].input_layernorm = nn.Identity()
        self.fc = nn.Linear(2 * width, width, bias=fc_bias)
        if own_embeddings:
            self.embed_tokens = nn.Embedding(config.vocab_size, width)

    def forward(self, embeddings: Tensor, states: Tensor, **where: Any) -> Tensor:
        """Return states [B, T, H] of embeddings and states [B, T, H]; `where` is for attention."""
        found: Tensor = self.fc(torch.cat([embeddings, states], -1))
        for layer in self.layers:
            found = layer(found, **where)
        return found


class EagleModel(LayersModel):
    """A trunk of transformers with an EAGLE drafter; all states are as wide as the trunk's."""

    shared_unembedding = True

    def logits(self, offset: int, states: Tensor) -> Tensor:
        """Return logits [..., V] of states [..., D]."""
        found: Tensor = self.main.lm_head(states)
        return found


@dataclass(frozen=True)
class StoredEagle(Stored):
    """A folder with an EAGLE drafter, as its authors write it."""

    name = "eagle"
    title = "transformers folder with an EAGLE drafter"

    heads = DEFAULT_REUSED
    most = MOST_REUSED
    n_modules = 1

    def built(self) -> nn.Module:
        """Return the drafter with random weights.

        It has a bias if the file has one: configurations do not say so reliably.
        """
        config, width = self.layer_config(self.content), self.of_trunk("hidden_size")
        if config.hidden_size != width:
            raise self.refuse(
                f"its hidden_size is {config.hidden_size} and the trunk's {width}, expected the "
                "same"
            )
        shapes = self.tensors.shapes
        return Eagle(config, "fc.bias" in shapes, "embed_tokens.weight" in shapes)

    def model(self, main: Any, drafter: Any, heads: int | None) -> EagleModel:
        """Return trunk and drafter."""
        return EagleModel(main, drafter, heads)
