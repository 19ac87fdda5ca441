"""Sequential modules on a trunk of transformers: the one adapter for all families.

The trunk is transformers' own model, called unchanged; a module is its `MtpLayer`, filled as the
family's row in `families` says:

    z       = trunk(tokens), before the final norm
    state_1 = norm(z), or z where the family's module reads the trunk before its norm
    state_k = block(eh_proj([enorm(embedding of the token at t+k-1), hnorm(state_{k-1})]))
              and post_norm of it where the family passes that on

With one module, heads 2, 3, ... are that module again (`reused`); with several, head k is module
k-1.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import MtpLayer

from mtp_harness.models.families import Family
from mtp_harness.models.gpu.serve import serve_layers, serve_norms
from mtp_harness.models.interface import KeyValueCache, LayerShape
from mtp_harness.models.trunk import TrunkModel

DEFAULT_REUSED, MOST_REUSED = 4, 8
"""Heads of a checkpoint with one module: by default, and at most."""


def heads_of(n_modules: int) -> int:
    """Return the default n."""
    return DEFAULT_REUSED if n_modules == 1 else 1 + n_modules


def most_heads_of(n_modules: int) -> int:
    """Return the largest possible n."""
    return MOST_REUSED if n_modules == 1 else 1 + n_modules


class Modules(PreTrainedModel):
    """The modules that a family's loader fills: `layers.k`, one `MtpLayer` per module.

    Args:
        config: of `modules_config`.
        trunk: transformers' decoder, whose kinds of layer and norm the modules have.
        n_trunk: its number of layers, after which the modules' cache indices follow.
    """

    base_model_prefix = "modules"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, config: Any, trunk: Any, n_trunk: int) -> None:
        super().__init__(config)
        self._keep_in_fp32_modules_strict = trunk._keep_in_fp32_modules_strict
        self.layers = nn.ModuleList(
            MtpLayer(config, type(trunk.layers[-1]), type(trunk.norm), index)
            for index in range(n_trunk, config.num_hidden_layers)
        )
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def is_custom_code(cls) -> bool:
        """Return False: transformers' conversions of keys apply, as all layers are its own."""
        return False

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True


def modules_config(config: Any, n: int) -> Any:
    """Return a trunk's configuration with n more layers, all with full attention and experts."""
    longer = copy.deepcopy(config)
    if hasattr(longer, "quantization_config"):  # the trunk's: modules are stored as plain numbers
        del longer.quantization_config
    longer.num_hidden_layers = config.num_hidden_layers + n
    for name, kind in (("layer_types", "full_attention"), ("mlp_layer_types", "sparse")):
        if (kinds := getattr(config, name, None)) is not None:
            setattr(longer, name, [*kinds, *[kind] * n])
    return longer


class SequentialModel(TrunkModel):
    """A trunk of transformers with sequential modules.

    Attributes:
        family: the row in use; tests and `inspect --probe` replace it.
        reused: whether one module serves all offsets from 2 on.
    """

    sequential = True

    def __init__(self, main: Any, modules: Modules, family: Family, heads: int | None = None):
        """Put trunk and modules together.

        Args:
            main: transformers' causal language model; see `TrunkModel`.
            modules: of the same type and on the same device.
            family: how they are read.
            heads: n; None: as many as there are modules and one more, or `DEFAULT_REUSED` with a
                single module.
        """
        super().__init__(main)
        self.modules_ = modules
        self.family = family
        layer: Any
        for layer in modules.layers:
            layer.use_post_norm = False  # `head` or `logits` applies it, as the row says
            serve_norms([layer.enorm, layer.hnorm, layer.post_norm])
        serve_layers(layer.mtp_block for layer in modules.layers)
        self.reused = len(modules.layers) == 1
        self._n = heads or heads_of(len(modules.layers))
        self.train(main.training)

    @property
    def family(self) -> Family:
        """How the modules are read."""
        return self._family

    @family.setter
    def family(self, family: Family) -> None:
        self._family = family
        self.modules_.config.mtp_hidden_states_first = family.hidden_first  # `MtpLayer` asks it

    @property
    def n_future_tokens(self) -> int:
        """The number of heads, n."""
        return self._n

    @property
    def shared_unembedding(self) -> bool:  # type: ignore[override]
        """Whether the states of all heads only need the unembedding."""
        return self.family.reads_normed and self.family.passes_normed

    def layer_shapes(self, heads: int) -> list[LayerShape]:
        """Return the cache layers of the trunk and of the modules that heads 1..`heads` use."""
        used = min(heads - 1, len(self.modules_.layers))
        return self.trunk_shapes() + [self.attention_shape()] * used

    def head(
        self,
        offset: int,
        states: Tensor,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """See `MultiHeadModel.head`; states of offset 1 are what module 1 reads."""
        if offset == 1:
            return self.norm(states) if self.family.reads_normed else states
        assert tokens is not None
        layer, mask = self._layer(offset), self._served_mask(tokens, cache, positions)
        positions = self._positions(tokens, positions)
        embeddings = self.main.get_input_embeddings()(tokens)  # [B, T, D]
        if self.family.zeroes_first:
            embeddings = torch.where(positions[..., None] == 0, 0, embeddings)
        found: Tensor = layer(
            embeddings,
            states,
            position_embeddings=self._rotary(embeddings, positions),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
        )
        return layer.post_norm(found) if self.family.passes_normed else found

    def logits(self, offset: int, states: Tensor) -> Tensor:
        """Return logits [..., V] of states [..., D] of head `offset`."""
        if offset == 1:
            normed = states if self.family.reads_normed else self.norm(states)
        else:
            normed = states if self.family.passes_normed else self._layer(offset).post_norm(states)
        found: Tensor = self.main.lm_head(normed)
        return found

    def _layer(self, offset: int) -> Any:
        return self.modules_.layers[0 if self.reused else offset - 2]

    def _rotary(self, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the trunk's cos and sin at positions [B, T]."""
        if hasattr(
            self.base.rotary_emb, "mrope_section"
        ):  # a text stands at one place in each grid
            positions = positions.expand(3, *positions.shape)
        found: tuple[Tensor, Tensor] = self.base.rotary_emb(like, positions)
        return found
