"""A folder with an EAGLE-3 drafter, as its authors or speculators write it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE
from mtp_harness.models.sequential import DEFAULT_REUSED, MOST_REUSED
from mtp_harness.models.trained_apart.eagle3 import Design, Eagle3, Eagle3Model
from mtp_harness.models.trained_apart.stored import Stored

TABLES = frozenset({"d2t", "t2d"})
"""Tables of the drafter's vocabulary: offsets to the trunk's ids, and which of these it has."""

FEWEST_LAYERS = 7
"""Smallest trunk for the default taps, (2, N / 2, N - 3), which must ascend."""


@dataclass(frozen=True)
class StoredEagle3(Stored):
    """See `Stored`."""

    name = "eagle3"
    title = "transformers folder with an EAGLE-3 drafter"

    heads = DEFAULT_REUSED
    most = MOST_REUSED
    n_modules = 1

    @property
    def ignored(self) -> frozenset[str]:
        """Keys of the tables."""
        return TABLES

    def key(self, name: str) -> str:
        """Return the name in `Eagle3`: the authors call its layer midlayer."""
        return f"layers.0.{name.removeprefix('midlayer.')}" if "midlayer." in name else name

    @property
    def _is_speculators(self) -> bool:
        return "speculators_model_type" in self.content

    @cached_property
    def ids(self) -> Tensor | None:
        """The trunk's ids of the drafter's tokens, int64; None if it has the trunk's vocabulary.

        Raises:
            ValueError: they do not fit this trunk.
        """
        size, shapes = self.of_trunk("vocab_size"), self.tensors.shapes
        if "d2t" not in shapes:
            return None
        ids = torch.arange(shapes["d2t"][0]) + self.tensors.read("d2t").long()
        if ids.min() < 0 or ids.max() >= size or len(set(ids.tolist())) < len(ids):
            raise self.refuse(
                f"d2t leads to ids from {int(ids.min())} to {int(ids.max())}, expected different "
                f"ones below {size}, the trunk's vocabulary"
            )
        if "t2d" not in shapes:
            return ids
        if shapes["t2d"] != (size,):
            raise self.refuse(
                f"t2d is {list(shapes['t2d'])}, expected [{size}], the trunk's vocabulary"
            )
        if not torch.equal(self.tensors.read("t2d").bool().nonzero()[:, 0], ids.sort().values):
            raise self.refuse("t2d names other tokens than d2t, expected the same")
        return ids

    def taps(self) -> tuple[int, ...]:
        """Return which states of the trunk are read; see `Design`.

        Raises:
            ValueError: the trunk does not have them, or they are not given.
        """
        nested = self.content.get("eagle_config") or {}
        if nested.get("use_aux_hidden_state") is False:
            raise self.refuse(
                "use_aux_hidden_state is false, expected a drafter that reads states of several "
                "layers"
            )
        name, depth = "eagle_aux_hidden_state_layer_ids", self.trunk.n_trunk
        said = self.content.get(name) or nested.get(name)
        if said is None:
            if depth < FEWEST_LAYERS:
                raise self.refuse(
                    f"its {CONFIG_FILE} has no {name}, and there is no default for a trunk of "
                    f"{depth} layers"
                )
            return 2, depth // 2, depth - 3
        whole = isinstance(said, list) and all(type(one) is int for one in said)
        if not whole or sorted(set(said)) != said or not 0 <= said[0] <= said[-1] <= depth:
            raise self.refuse(
                f"{name} is {str(said)[:60]}, expected different numbers from 0 to {depth}, the "
                "trunk's layers, in ascending order"
            )
        return tuple(said)

    def design(self) -> Design:
        """Return the drafter's structure.

        Raises:
            ValueError: the configuration does not give it, or it does not fit the trunk.
        """
        part = self.content
        if self._is_speculators:
            part = self.content.get("transformer_layer_config") or {}
        shapes, config = self.tensors.shapes, self.layer_config(part)
        names = ("norm_before_residual", "norm_before_fc", "fc_norm", "norm_output")
        switches = {name: bool(self.content.get(name)) for name in names}
        if self._is_speculators and self.content.get("norm_before_residual") is None:
            raise self.refuse(
                f"its {CONFIG_FILE} does not say norm_before_residual, which engines take for true "
                "and speculators for false, expected one of them: add it"
            )
        found = Design(
            config,
            self.taps(),
            self.of_trunk("hidden_size"),
            self.of_trunk("vocab_size") if self.ids is None else len(self.ids),
            **switches,
            own_embeddings="embed_tokens.weight" in shapes,
            own_head="lm_head.weight" in shapes,
            fc_bias="fc.bias" in shapes,
        )
        borrows = not (found.own_embeddings and found.own_head)
        if borrows and config.hidden_size != found.width:
            raise self.refuse(
                f"its hidden_size is {config.hidden_size} and the trunk's {found.width}, expected "
                "the same, because it uses the trunk's embeddings or unembedding"
            )
        if not found.own_head and self.ids is not None:
            raise self.refuse(
                "its vocabulary differs from the trunk's, but it has no lm_head.weight"
            )
        return found

    def built(self) -> nn.Module:
        """Return the drafter with random weights."""
        return Eagle3(self.design())

    def model(self, main: Any, drafter: Any, heads: int | None) -> Eagle3Model:
        """Return trunk and drafter."""
        return Eagle3Model(main, drafter, self.ids, heads)
