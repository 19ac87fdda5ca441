"""Medusa: heads of a few residual layers that all read the trunk's state, after its final norm.

    state_k  = x + SiLU(W x + b), once for each layer, from x = norm(z)
    logits_k = lm_head_k(state_k)                             for the token at t+k

Source: Cai et al. 2024, "Medusa", section 2.1.1, and the files of its authors and of vLLM.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import silu

from mtp_harness.models.interface import KeyValueCache, at_index
from mtp_harness.models.trained_apart.heads import HeadsModel
from mtp_harness.models.trained_apart.stored import Stored


class MedusaHead(nn.Module):
    """One head; [..., D] → [..., D], and its unembedding."""

    def __init__(self, width: int, n_layers: int, vocabulary: int, bias: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=bias) for _ in range(n_layers))
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Return the head's states."""
        for layer in self.layers:
            states = states + silu(layer(states))
        return states


class MedusaModel(HeadsModel):
    """A trunk of transformers with Medusa heads, which are parallel ones."""

    def head(self, offset: int, states: Tensor, *_: Any, **__: Any) -> Tensor:
        """See `MultiHeadModel.head`."""
        normed: Tensor = self.norm(states)
        return normed if offset == 1 else self.heads[offset - 2](normed)

    def head_at(
        self, offset: int, states: Tensor, positions: Tensor, cache: KeyValueCache, last: Tensor
    ) -> Tensor:
        """See `MultiHeadModel.head_at`: nothing of the other tokens is stored."""
        return self.head(offset, at_index(states, last))

    def logits(self, offset: int, states: Tensor) -> Tensor:
        """Return logits [..., V] of states [..., D] of head `offset`."""
        head: Any = self.main if offset == 1 else self.heads[offset - 2]
        found: Tensor = head.lm_head(states)
        return found


_KEYS = {
    r"(\d+)\.(\d+)\.linear\.(weight|bias)": r"\1.layers.\2.\3",
    r"(\d+)\.\d+\.weight": r"\1.lm_head.weight",
    r"blocks\.(\d+)\.layers\.(\d+)\.(weight|bias)": r"\1.layers.\2.\3",
    r"lm_heads\.(\d+)\.weight": r"\1.lm_head.weight",
}
"""Keys of the authors' and of vLLM's files → names in a list of `MedusaHead`."""


@dataclass(frozen=True)
class StoredMedusa(Stored):
    """A folder with Medusa heads, as their authors or vLLM write it."""

    name = "medusa"
    title = "transformers folder with Medusa heads"

    def key(self, name: str) -> str:
        """Return the name in a list of `MedusaHead`."""
        return self.renamed(name, _KEYS)

    @property
    def heads(self) -> int:
        """The file's n."""
        return 1 + self.count("medusa_num_heads", "num_heads")

    most = heads

    def built(self) -> nn.ModuleList:
        """Return heads 2..n with random weights; there are biases where the files have some."""
        n_layers = self.count("medusa_num_layers", "num_hidden_layers")
        width, vocabulary = self.of_trunk("hidden_size"), self.of_trunk("vocab_size")
        bias = any(key.endswith(".bias") for key in self.tensors.shapes)
        return nn.ModuleList(
            MedusaHead(width, n_layers, vocabulary, bias) for _ in range(self.heads - 1)
        )

    def model(self, main: Any, drafter: Any, heads: int | None) -> MedusaModel:
        """Return trunk and heads."""
        return MedusaModel(main, drafter)
