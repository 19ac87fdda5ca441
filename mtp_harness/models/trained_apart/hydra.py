"""Hydra: heads that read the trunk's state, after its final norm, and all tokens drafted so far.

    state_1  = norm(z) of t
    state_k  = [state_{k-1}, embedding of the token at t+k-1]     k times as wide as the trunk
    x        = res(state_k) + SiLU(W state_k + b)                 first layer of head k
    x        = x + SiLU(W x + b)                                  further layers
    logits_k = lm_head_k(x)                                       for the token at t+k

Source: Ankner et al. 2024, "Hydra", section 3, and the files of its authors: `mlp` heads, grounded.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from mtp_harness.models.trained_apart.heads import HeadsModel
from mtp_harness.models.trained_apart.stored import Stored


class HydraHead(nn.Module):
    """Head k; [..., k D] → [..., V]."""

    def __init__(self, k: int, width: int, n_layers: int, vocabulary: int, bias: bool) -> None:
        """Build it with random weights; `bias` is the unembedding's."""
        super().__init__()
        self.res = nn.Linear(k * width, width)
        self.layers = nn.ModuleList(
            nn.Linear(width if i else k * width, width) for i in range(n_layers)
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=bias)

    def forward(self, states: Tensor) -> Tensor:
        """Return the logits."""
        first, *further = self.layers
        found = self.res(states) + silu(first(states))
        for layer in further:
            found = found + silu(layer(found))
        logits: Tensor = self.lm_head(found)
        return logits


class HydraModel(HeadsModel):
    """A trunk of transformers with Hydra heads, which are sequential ones without a cache."""

    sequential = True

    def head(
        self, offset: int, states: Tensor, tokens: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        """See `MultiHeadModel.head`."""
        if offset == 1:
            normed: Tensor = self.norm(states)
            return normed
        assert tokens is not None
        return torch.cat([states, self.main.get_input_embeddings()(tokens)], -1)

    def logits(self, offset: int, states: Tensor) -> Tensor:
        """Return logits [..., V] of states [..., k D] of head `offset`."""
        head: Any = self.main.lm_head if offset == 1 else self.heads[offset - 2]
        found: Tensor = head(states)
        return found


_KEYS = {
    r"hydra_mlp\.(\d+)\.(\d+)\.linear\.(weight|bias)": r"\1.layers.\2.\3",
    r"hydra_mlp\.(\d+)\.0\.res_connection\.(weight|bias)": r"\1.res.\2",
    r"hydra_lm_head\.(\d+)\.(weight|bias)": r"\1.lm_head.\2",
}
"""Keys of the authors' files → names in a list of `HydraHead`."""


@dataclass(frozen=True)
class StoredHydra(Stored):
    """A folder with Hydra heads, as their authors write it."""

    name = "hydra"
    title = "transformers folder with Hydra heads"

    @property
    def ignored(self) -> frozenset[str]:
        """The authors' files also hold the trunk's embeddings, which belong to no head."""
        return frozenset({"input_embed_fn.weight"})

    def key(self, name: str) -> str:
        """Return the name in a list of `HydraHead`."""
        return self.renamed(name, _KEYS)

    @property
    def heads(self) -> int:
        """The file's n."""
        return 1 + self.count("hydra_num_heads")

    most = heads

    def built(self) -> nn.ModuleList:
        """Return heads 2..n with random weights."""
        for name, wanted in (("grounded_heads", True), ("hidden_state_offset", 0)):
            if (said := self.content.get(name, wanted)) != wanted:
                raise self.refuse(f"{name} is {said}, expected {wanted}: others are not read here")
        n_layers, vocabulary = self.count("hydra_num_layers"), self.of_trunk("vocab_size")
        bias = any(re.fullmatch(r"hydra_lm_head\.\d+\.bias", key) for key in self.tensors.shapes)
        return nn.ModuleList(
            HydraHead(k, self.of_trunk("hidden_size"), n_layers, vocabulary, bias)
            for k in range(2, self.heads + 1)
        )

    def model(self, main: Any, drafter: Any, heads: int | None) -> HydraModel:
        """Return trunk and heads."""
        return HydraModel(main, drafter)
