"""The n-token loss, and its backward pass head by head.

    L_n = - sum_t sum_{i=1..n} log P(x_{t+i} | z_t)        every head has weight 1

Source: Gloeckle et al. 2024, section 2 (loss; memory-efficient order in Figure 2). Losses here are
means over the T positions of a row, in nats, so L_n is their sum over heads.

    tokens   0 1 2 3 4 5 6 7      T = 5, n = 3
    inputs   0 1 2 3 4
    head 1     1 2 3 4 5
    head 2       2 3 4 5 6
    head 3         3 4 5 6 7
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mtp_harness.models.interface import MultiHeadModel


def head_loss(model: MultiHeadModel, offset: int, trunk: Tensor, targets: Tensor) -> Tensor:
    """Return head `offset`'s mean cross-entropy in nats, a scalar.

    Args:
        model: with parallel heads.
        offset: 1..n.
        trunk: z, [B, T, D].
        targets: int64 [B, T], the tokens at t+offset.
    """
    logits = model.logits(offset, model.head(offset, trunk))  # [B, T, V]
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


@torch.no_grad()
def losses_of(model: MultiHeadModel, tokens: Tensor) -> Tensor:
    """Return the n mean losses in nats, [n], of tokens int64 [B, T + n]; nothing is trained."""
    n = model.n_future_tokens
    length = tokens.shape[1] - n
    trunk = model.trunk(tokens[:, :length])  # [B, T, D]
    return torch.stack(
        [
            head_loss(model, offset, trunk, tokens[:, offset : offset + length])
            for offset in range(1, n + 1)
        ]
    )


def backward_head_by_head(model: MultiHeadModel, tokens: Tensor) -> Tensor:
    """Accumulate the gradients of L_n, holding one head's activations and logits at a time.

    The trunk's output is detached and collects the heads' gradients; each head runs forward and
    backward before the next one starts, then the trunk runs backward once. The gradients are those
    of the sum of all heads' losses; peak memory does not grow with n.

    Args:
        model: with parallel heads.
        tokens: int64 [B, T + n].

    Returns:
        The n losses in nats, detached, [n].
    """
    if model.sequential:
        raise ValueError(
            "Training sequential heads is not supported: their gradients flow through each other; "
            "train a model with parallel heads."
        )
    n = model.n_future_tokens
    length = tokens.shape[1] - n
    trunk = model.trunk(tokens[:, :length])  # [B, T, D]
    detached = trunk.detach().requires_grad_()
    losses = []
    for offset in range(1, n + 1):
        one = head_loss(model, offset, detached, tokens[:, offset : offset + length])
        one.backward()  # type: ignore[no-untyped-call]
        losses.append(one.detach())
    trunk.backward(detached.grad)  # type: ignore[no-untyped-call]
    return torch.stack(losses)
