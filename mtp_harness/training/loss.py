"""The n-token loss, and its backward pass head by head.

    L_n = - sum_t sum_{i=1..n} log P(x_{t+i} | z_t)        every head has weight 1

Source: Gloeckle et al. 2024, section 2 (loss; memory-efficient order in Figure 2). Losses here are
means over the T positions of a row, in nats, so L_n is their sum over heads.

    tokens   0 1 2 3 4 5 6 7      T = 5, n = 3
    inputs   0 1 2 3 4
    head 1     1 2 3 4 5
    head 2       2 3 4 5 6
    head 3         3 4 5 6 7

Sequential heads are a chain: head k reads head k-1's state at the same position and the token that
head k-1 is to predict, so they share one graph, and their losses have weights (`chained`).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

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
    return _nats(model, offset, model.head(offset, trunk), targets)


def _nats(model: MultiHeadModel, offset: int, states: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of a head's states [B, T, D] for targets [B, T], a scalar."""
    logits = model.logits(offset, states)  # [B, T, V]
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def _losses(model: MultiHeadModel, tokens: Tensor) -> Iterator[Tensor]:
    """Yield the n mean losses in nats of tokens int64 [B, T + n], sequential heads chained."""
    length = tokens.shape[1] - model.n_future_tokens
    trunk = state = model.trunk(tokens[:, :length])  # [B, T, D]
    for offset in range(1, model.n_future_tokens + 1):
        read = tokens[:, offset - 1 : offset - 1 + length]
        state = model.head(offset, state if model.sequential else trunk, read)
        yield _nats(model, offset, state, tokens[:, offset : offset + length])


@torch.no_grad()
def losses_of(model: MultiHeadModel, tokens: Tensor) -> Tensor:
    """Return the n mean losses in nats, [n], of tokens int64 [B, T + n], without gradients."""
    return torch.stack(list(_losses(model, tokens)))


Backward = Callable[[MultiHeadModel, Tensor], Tensor]
"""Adds the gradients of tokens int64 [B, T + n] to a model's; returns the n losses, [n]."""


def chained(steps: int = 3, decay: float = 0.6, share: float = 0.3) -> Backward:
    """Return the backward pass of one module that is trained on its own states.

        L = L_1 + share * sum_k w_k L_{k+1},   w_k = decay^(k-1) / (1 + ... + decay^(steps-1))

    Source: FastMTP (arXiv 2509.18362), section 3, for w; DeepSeek-V3 (arXiv 2412.19437), section
    4.2, for the share beside the next-token loss.

    Args:
        steps: times the module runs, n - 1.
        decay: ratio of the weights of consecutive steps.
        share: weight of all steps together, beside the next-token loss.
    """
    together = sum(decay**k for k in range(steps))
    return partial(_backward, [1.0, *(share * decay**k / together for k in range(steps))])


def _backward(weights: Sequence[float], model: MultiHeadModel, tokens: Tensor) -> Tensor:
    losses = list(_losses(model, tokens))
    weighted = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    torch.stack(weighted).sum().backward()  # type: ignore[no-untyped-call]
    return torch.stack(losses).detach()


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
            "The gradients of sequential heads flow through each other: train them by `chained`."
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
