"""Accuracy, loss and agreement of every head on some batches, in one pass: for training loops.

    from mtp_harness import evaluate_heads
    evaluate_heads(model, batches)
    {"accuracy_1": 0.775, "loss_1": 0.802, "accuracy_2": 0.664, …, "agreement_2": 0.750,
     "text_walk_tokens_per_forward": 2.147, "n_states": 98748}

It needs no harness and no files. Definitions are those of `mtp_heads` (`probes/heads.py`): all
heads are scored on the states whose targets all lie in their row.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.probes.teacher_forced import finite, read, walk

Batch = Tensor | Mapping[str, Any]


@torch.no_grad()
def evaluate_heads(
    model: nn.Module,
    batches: Iterable[Batch],
    drafter: Callable[[Any], MultiHeadModel] | None = None,
    offsets: Sequence[int] | None = None,
) -> dict[str, float]:
    """Return each head's accuracy, loss and agreement on batches, and the text walk.

    The cost is one forward of the trunk and of every head up to the largest offset, over all
    tokens, without gradients and in evaluation mode. Under DistributedDataParallel each process
    scores its own batches, and nothing is exchanged: call it on one process or on all. Weights that
    FSDP has sharded must be gathered first (`FullyShardedDataParallel.summon_full_params`).

    Args:
        model: a `MultiHeadModel`, also compiled or wrapped in DistributedDataParallel; with
            `drafter`, any model.
        batches: int64 [B, T], or what a data loader gives: `input_ids` [B, T] with an
            `attention_mask` [B, T], 0 after the end of shorter rows; ids there are ignored.
        drafter: puts a drafter on the unwrapped model and returns a `MultiHeadModel`.
        offsets: of the heads to report, 1..n; default: all. The text walk drafts with the heads up
            to the largest of them.

    Returns:
        By offset i: `accuracy_i` (share of top-1 predictions that are the token at t+i), `loss_i`
        (nats per token), and from 2 on `agreement_i` (head i at t predicts what head 1 predicts at
        t+i-1). A drafter with a smaller vocabulary is always wrong about other tokens: `loss_i` is
        over the targets that it can predict, `unsayable_i` is the share of the others. Over all:
        `text_walk_tokens_per_forward` (NaN if no row has three tokens) and `n_states`, the number
        of scored states. If a head gives NaN anywhere, all its numbers are NaN.

    Raises:
        ValueError: The model is not a `MultiHeadModel`, an offset is beyond its heads, a batch has
            no tokens or is not padded on the right, or no state has all targets.
    """
    heads = _heads_of(model, drafter)
    wanted = _offsets(heads, offsets)
    k = max(wanted)
    sums, kept, steps = torch.zeros(4, k, dtype=torch.float64), 0, 0
    n_states, n_batches = 0, 0
    with _evaluating(model), _evaluating(heads):
        for batch in batches:
            n_batches += 1
            tokens, lengths = _tokens_of(batch, heads)
            reading = read(heads, tokens, k)
            for row, length in enumerate(lengths):
                right = reading.right[row, :length]  # [T, k]
                count = max(0, length - k)  # states whose targets all lie in the row
                predicted = reading.predicted[row]
                sums[0] += right[:count].sum(0).cpu()
                nats, said = finite(reading.nats[row, :count])
                sums[1] += nats.sum(0).cpu()
                sums[2] += _agreeing(predicted, count).cpu()
                sums[3] += said.sum(0).cpu()
                n_states += count
                walked = walk(right, 0, length)
                kept, steps = kept + walked.n_kept, steps + walked.n_steps
    if not n_batches:
        raise ValueError(
            "there is no batch, expected some: give a list, or a new iterator for each call"
        )
    if not n_states:
        raise ValueError(
            f"no row is longer than {k} tokens, expected some: give longer rows, or fewer offsets"
        )
    # argmax of NaN is some token: a diverged head would seem to predict it.
    sums[:3, sums[1].isnan()] = torch.nan
    if sums[1, 0].isnan():
        sums[2] = torch.nan
    right, nats, agreeing, said = sums
    found: dict[str, float] = {}
    for i in wanted:
        found[f"accuracy_{i}"] = float(right[i - 1] / n_states)
        found[f"loss_{i}"] = float(nats[i - 1] / said[i - 1])
        if i > 1:
            found[f"agreement_{i}"] = float(agreeing[i - 1] / n_states)
        if said[i - 1] < n_states:
            found[f"unsayable_{i}"] = float(1 - said[i - 1] / n_states)
    speed = kept / steps if steps and not sums[1].isnan().any() else float("nan")
    return found | {"text_walk_tokens_per_forward": speed, "n_states": n_states}


def _agreeing(predicted: Tensor, count: int) -> Tensor:
    """Return at how many of the first states each head predicts what head 1 predicts later, [k].

    Args:
        predicted: int32 [T, k].
        count: of states, at most T - k.
    """
    each = [
        (predicted[:count, i] == predicted[i : i + count, 0]).sum()
        for i in range(predicted.shape[1])
    ]
    return torch.stack(each)


def _heads_of(model: nn.Module, drafter: Callable[[Any], MultiHeadModel] | None) -> MultiHeadModel:
    while not isinstance(model, MultiHeadModel):  # DistributedDataParallel's, torch.compile's
        inner = getattr(model, "module", getattr(model, "_orig_mod", None))
        if not isinstance(inner, nn.Module):
            break
        model = inner
    heads = drafter(model) if drafter else model
    if not isinstance(heads, MultiHeadModel):
        raise ValueError(
            f"{type(heads).__name__} is not a MultiHeadModel, expected one: load it by "
            "mtp_harness.models.load.open_model, or give drafter="
        )
    return heads


def _offsets(model: MultiHeadModel, offsets: Sequence[int] | None) -> list[int]:
    n = model.n_future_tokens
    wanted = range(1, n + 1) if offsets is None else offsets
    several = isinstance(wanted, Sequence) and len(wanted) > 0
    if not several or not all(type(i) is int and 1 <= i <= n for i in wanted):
        raise ValueError(f"offsets={offsets}, expected some of 1 to n = {n}")
    return sorted(set(wanted))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and restore the modes afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _tokens_of(batch: Batch, model: MultiHeadModel) -> tuple[Tensor, list[int]]:
    """Return a batch's tokens [B, T] and the length of each row."""
    given = batch if isinstance(batch, Mapping) else {"input_ids": batch}
    tokens, mask = given.get("input_ids"), given.get("attention_mask")
    if not (
        isinstance(tokens, Tensor)
        and tokens.dim() == 2
        and tokens.numel()
        and tokens.dtype in (torch.int64, torch.int32)
    ):
        raise ValueError("a batch has no input_ids [B, T] of whole numbers, expected some")
    if mask is None:
        mask = torch.ones_like(tokens)
    if not isinstance(mask, Tensor) or mask.shape != tokens.shape:
        found = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"a batch's attention_mask is {found}, expected a tensor {list(tokens.shape)} as its "
            "input_ids: leave it out, or give one number for each token"
        )
    mask = mask.to(tokens.device).bool()
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError(
            "a batch's attention_mask has 1 behind 0: it is padded on the left, expected the "
            "right: padding_side='right'"
        )
    tokens = tokens.masked_fill(~mask, 0).long()
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    least, most = (int(end) for end in tokens.aminmax())
    if least < 0 or (isinstance(size, int) and most >= size):  # would crash a GPU's process
        raise ValueError(
            f"a batch has the token {least if least < 0 else most}, expected 0 to "
            f"{'the largest of the vocabulary' if size is None else size - 1}: padding goes behind "
            "the end of a row, where attention_mask is 0"
        )
    return tokens.to(model.device), mask.sum(1).tolist()
