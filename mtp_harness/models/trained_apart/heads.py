"""A trunk with a list of heads without entries in the cache: Medusa's and Hydra's."""

from typing import Any

from torch import nn

from mtp_harness.models.interface import LayerShape
from mtp_harness.models.trunk import TrunkModel


class HeadsModel(TrunkModel):
    """A trunk of transformers and heads 2..n; subclasses define how they read."""

    def __init__(self, main: Any, heads: nn.ModuleList) -> None:
        super().__init__(main)
        self.heads = heads
        self.train(main.training)

    @property
    def n_future_tokens(self) -> int:
        """The number of heads, n."""
        return 1 + len(self.heads)

    def layer_shapes(self, heads: int) -> list[LayerShape]:
        """Return the cache layers of the trunk; the heads have none."""
        return self.trunk_shapes()
