"""The paper's loss for transformers' training: `labels=` for all heads of `MTPLlamaForCausalLM`.

    loss = sum over heads i, positions t of  -log P(x_{t+i} | z_t)  /  N

N is the number of head 1's targets (or the trainer's `num_items_in_batch`). Head i has a target at
every position that is not padding and whose label i places later is a target: i - 1 fewer per
sequence than head 1. Unlike in `mtp_harness.training.loss`, which trains the shipped models, the
logits of all heads are in memory at once.

Source: Gloeckle et al. 2024, section 2.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.masking_utils import create_causal_mask

IGNORED = -100
"""The label of a position that is not a target, as everywhere in transformers."""


class LossAndLogits(NamedTuple):
    """The loss over all heads, a scalar, and head 1's logits [B, T, V]."""

    loss: Tensor
    logits: Tensor


def all_heads_loss(
    model: Any,
    embedded: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None,
) -> LossAndLogits:
    """Run the trunk once and every head on it.

    Args:
        model: an `MTPLlamaForCausalLM`.
        embedded: the tokens' embeddings, [B, T, D].
        attention_mask: [B, T], 0 for padding tokens; None without padding.
        position_ids: int64 [B, T]; None means 0..T-1.
        labels: int64 [B, T], the tokens themselves, or `IGNORED` for a token that is not a target.
        num_items_in_batch: N, if several calls make one step.
    """
    if position_ids is None:
        position_ids = torch.arange(embedded.shape[1], device=embedded.device)[None]
    # As in `LlamaModel.forward`, for every attention function.
    given: dict[str, Any] = {
        "attention_mask": create_causal_mask(
            config=model.config,
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            past_key_values=None,
            position_ids=position_ids,
        ),
        "position_embeddings": model.model.rotary_emb(embedded, position_ids=position_ids),
        "position_ids": position_ids,
    }
    states = embedded
    for block in model.model.layers[:-1]:
        states = block(states, **given)
    targets = [_targets(labels, k, attention_mask) for k in range(1, model.n_future_tokens + 1)]
    n_items = targets[0].ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    losses, first = [], embedded
    for offset, block in enumerate([model.model.layers[-1], *model.extra_heads], 1):
        logits = model.logits(offset, block(states, **given))  # [B, T, V]
        first = logits if offset == 1 else first
        losses.append(
            model.loss_function(
                logits=logits,
                labels=None,
                vocab_size=model.config.vocab_size,
                shift_labels=targets[offset - 1],
                num_items_in_batch=n_items,
            )
        )
    return LossAndLogits(torch.stack(losses).sum(), first)


def _targets(labels: Tensor, offset: int, attention_mask: Tensor | None) -> Tensor:
    """Return the target of head `offset` at each position, [B, T]; `IGNORED` for padding."""
    targets = pad(labels, (0, offset), value=IGNORED)[:, offset:]
    if attention_mask is not None and attention_mask.dim() == 2:
        targets = targets.masked_fill(attention_mask == 0, IGNORED)
    return targets.contiguous()
