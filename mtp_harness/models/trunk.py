"""A causal language model of transformers as a trunk for heads.

Its forward is called unchanged, with our cache, 4D masks and positions per row; its final norm is
removed, because some heads read the states before it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mtp_harness.models.causal_mask import causal_mask, holds_all_scores
from mtp_harness.models.gated_delta import serve_slots, state_shapes
from mtp_harness.models.gpu.serve import serve_layers, serve_norms, serve_rotary
from mtp_harness.models.interface import KeyValueCache, LayerShape, MultiHeadModel


class TrunkModel(MultiHeadModel):
    """The trunk; subclasses add the heads."""

    def __init__(self, main: Any) -> None:
        """Take a model.

        Args:
            main: transformers' causal language model; it must not be used elsewhere, because its
                final norm is removed.
        """
        super().__init__()
        self.main = main
        self.config = main.config
        self.base: Any = main.get_decoder()
        self.norm, self.base.norm = self.base.norm, nn.Identity()
        serve_slots(self.base)
        serve_layers(self.base.layers)
        serve_norms([self.norm])
        if hasattr(self.base, "rotary_emb"):
            serve_rotary(self.base.rotary_emb)

    @property
    def max_positions(self) -> int:
        """The longest sequence the trunk was built for, in tokens."""
        return int(self.base.config.max_position_embeddings)

    def attention_shape(self) -> LayerShape:
        """Return the cache layer of one of the trunk's attention layers."""
        config = self.base.config
        if getattr(config, "kv_lora_rank", None):  # MLA keeps latents
            return LayerShape(1, config.kv_lora_rank, value_dim=config.qk_rope_head_dim)
        width = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        return LayerShape(config.num_key_value_heads, width)

    def trunk_shapes(self) -> list[LayerShape]:
        """Return the cache layers of the trunk."""
        config = self.base.config
        shapes = [self.attention_shape()] * config.num_hidden_layers
        for index, kind in enumerate(getattr(config, "layer_types", None) or []):
            if kind == "linear_attention":
                shapes[index] = LayerShape(0, 0, states=state_shapes(config))
        return shapes

    def trunk(
        self, tokens: Tensor, positions: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Return the trunk's states before its final norm; see `MultiHeadModel.trunk`.

        Without a cache, positions below 0 are padding, which no other token sees.
        """
        arguments: dict[str, Any] = {}
        if cache is not None:
            arguments["attention_mask"] = self._served_mask(tokens, cache)
            arguments["position_ids"] = self._positions(tokens, positions)
            arguments["past_key_values"] = cache
        elif positions is not None:  # linear attention takes padding as a 2D mask
            arguments["attention_mask"] = (positions >= 0).long()
            arguments["position_ids"] = positions.clamp(min=0)
        else:
            mask = self._served_mask(tokens, None)
            hybrid = "linear_attention" in (getattr(self.base.config, "layer_types", None) or [])
            masks = {"full_attention": mask, "linear_attention": None}
            arguments["attention_mask"] = masks if hybrid else mask
        states: Tensor = self.base(
            tokens, use_cache=cache is not None, **arguments
        ).last_hidden_state
        return states

    def _positions(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        return positions.expand(tokens.shape)

    def _served_mask(
        self, tokens: Tensor, cache: KeyValueCache | None, positions: Tensor | None = None
    ) -> Tensor | None:
        """Return `_mask`, or an empty one that layers of `serve_layers` take for no mask.

        Prompts are padded on the right, so causal attention suffices. transformers' models take
        None for a mask to make: from a cache of their own, or because a graph is captured.
        """
        sdpa = self.base.config._attn_implementation == "sdpa"
        causal = cache.in_prompts if cache is not None else positions is None
        if sdpa and causal and not self._holds_all_scores(tokens):
            return torch.empty(1, 1, 0, 0, device=tokens.device)
        return self._mask(tokens, cache, positions)

    def _mask(
        self, tokens: Tensor, cache: KeyValueCache | None, positions: Tensor | None = None
    ) -> Tensor | None:
        """Return numbers to add to scores, [1 or B, 1, T, S]; None if attention is causal."""
        if cache is not None and not cache.in_prompts:
            return cache.bias(self.dtype, 1)
        padded = cache is None and positions is not None  # perhaps: see `trunk`
        eager = self.base.config._attn_implementation == "eager"
        if not (cache is not None or padded or eager or self._holds_all_scores(tokens)):
            return None  # attention is causal without a mask
        causal = causal_mask(tokens.shape[1], tokens.device, self.dtype)
        if positions is None or not padded:
            return causal
        lowest = torch.finfo(self.dtype).min
        return causal.masked_fill((positions < 0)[:, None, None], lowest)

    def _holds_all_scores(self, tokens: Tensor) -> bool:
        return holds_all_scores(self.base.config, tokens.device, self.dtype)
