"""Study 1: what a training step costs with n heads, at equal parameters.

    python figures/studies/training_cost.py -o figures/studies/results/training_cost.json
    python figures/studies/training_cost.py -o OUT.json --tiny        # anywhere, seconds

Models of one shape with n = 1, 2, 4 and 8, whose heads are among their 24 layers, so that all have
as many parameters. A step: forward, backward, clipping and AdamW, in bfloat16 autocast, on random
tokens. Two ways to do the backward pass:

    head by head   the trunk's state is held, each head runs forward and backward in turn (Figure 2)
    at once        the sum of all heads' losses, one backward pass

Ways take turns (A B C, C B A, ...), so that a change of the machine's speed meets all of them. A
repeat is the mean of three steps after one that does not count. Memory is the most that a step adds
to weights and optimizer: activations, gradients, logits.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from mtp_harness.files import write_whole
from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM, provenance
from mtp_harness.training.loss import backward_head_by_head, head_loss

HEADS = (1, 2, 4, 8)
SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}
TINY = SHAPE | {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64}
TINY |= {"num_hidden_layers": 9, "num_attention_heads": 2, "num_key_value_heads": 2}
STEPS = 3


def at_once(model: MTPLlamaForCausalLM, tokens: Tensor) -> Tensor:
    """Add the gradients of the sum of all heads' losses; return the losses, [n].

    Args:
        model: with n heads.
        tokens: int64 [B, T + n].
    """
    n = model.n_future_tokens
    length = tokens.shape[1] - n
    trunk = model.trunk(tokens[:, :length])  # [B, T, D]
    losses = torch.stack(
        [head_loss(model, i, trunk, tokens[:, i : i + length]) for i in range(1, n + 1)]
    )
    losses.sum().backward()
    return losses.detach()


WAYS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "head by head": backward_head_by_head,
    "at once": at_once,
}


class Contender:
    """A model with n heads, its optimizer, and steps of it."""

    def __init__(self, n: int, shape: dict[str, int], rows: int, context: int, device: str) -> None:
        """Build it; tokens are the same for every n but for their last."""
        torch.manual_seed(0)
        config = MTPLlamaConfig(**shape, n_future_tokens=n, max_position_embeddings=context)
        with torch.device(device):
            self.model = MTPLlamaForCausalLM(config)
        self.model.train()
        self.optimizer = AdamW(self.model.parameters(), lr=1e-4, fused=device == "cuda")
        size = (rows, context + n)
        generator = torch.Generator().manual_seed(1)
        self.tokens = torch.randint(shape["vocab_size"], size, generator=generator).to(device)

    def step(self, way: str) -> None:
        """Train one step."""
        with torch.autocast(self.tokens.device.type, torch.bfloat16):
            WAYS[way](self.model, self.tokens)
        clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def measure(self, way: str) -> dict[str, float | None]:
        """Return seconds of a step, and the bytes that it adds at most (None on a CPU)."""
        on_gpu = self.tokens.device.type == "cuda"
        self.step(way)
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if on_gpu else 0
        began = time.perf_counter()
        for _ in range(STEPS):
            self.step(way)
        if on_gpu:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - began) / STEPS
        added = torch.cuda.max_memory_allocated() - before if on_gpu else None
        return {"step_s": seconds, "added_bytes": added}


def main(argv: Sequence[str]) -> int:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = TINY if args.tiny else SHAPE
    models = {n: Contender(n, shape, args.rows, args.context, device) for n in HEADS}
    found: dict[tuple[int, str], list[dict[str, float | None]]] = {
        (n, way): [] for n in HEADS for way in WAYS
    }
    for repeat in range(args.repeats):
        for n, way in list(found)[:: -1 if repeat % 2 else 1]:
            found[n, way].append(models[n].measure(way))
    one = models[1].model
    content = {
        "shape": shape | {"rows": args.rows, "context": args.context},
        "parameters": {n: sum(p.numel() for p in m.model.parameters()) for n, m in models.items()},
        "runs": [{"n": n, "way": way, "repeats": runs} for (n, way), runs in found.items()],
        **provenance.environment(one.device),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.out, json.dumps(content, indent=1) + "\n")
    base = found[1, "head by head"]
    for (n, way), runs in found.items():
        pairs = zip(runs, base, strict=True)
        ratio = statistics.median(own["step_s"] / its["step_s"] for own, its in pairs)  # type: ignore[operator]
        seconds = statistics.median(run["step_s"] for run in runs)  # type: ignore[type-var]
        added = max(run["added_bytes"] or 0 for run in runs)
        sys.stdout.write(
            f"n = {n}, {way}: {seconds:.4f} s a step, {ratio:.3f} of n = 1, "
            f"{added / 2**30:.2f} GiB added\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
