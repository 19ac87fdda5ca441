"""A short training loop: linear warm-up, cosine decay, the same batches for every model.

Source: Gloeckle et al. 2024, Table S13 (schedule, betas, decay, clipping). Unlike the paper, Muon
(`torch.optim.Muon`, Jordan et al. 2024) trains the matrices of the blocks, at AdamW's learning
rate, and AdamW the rest: models this small learn more from the same bytes. The loop is meant for
models of millions of parameters on one device. It saves its state; the same command resumes a run.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer

from mtp_harness.files import whole
from mtp_harness.models.gpu.current import current
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.training.cuda_graphs import CudaGradients, CudaMuon
from mtp_harness.training.data import LOOKAHEAD
from mtp_harness.training.loss import Backward, backward_head_by_head, losses_of
from mtp_harness.training.recipe import Recipe


def optimizers(model: MultiHeadModel, recipe: Recipe) -> list[Optimizer]:
    """Return Muon for the blocks' matrices, and AdamW for the rest; only matrices decay.

    Frozen parameters are left out.
    """
    inside: list[Tensor] = []
    outside: list[Tensor] = []
    vectors: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        embedding = "embed" in name or "lm_head" in name
        group = vectors if parameter.ndim != 2 else outside if embedding else inside
        group.append(parameter)
    groups = [
        {"params": outside, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    adamw = AdamW(groups, lr=recipe.peak_lr, betas=(0.9, 0.95), fused=model.device.type == "cuda")
    muon = Muon(
        inside,
        lr=recipe.peak_lr,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, adamw]


@dataclass(frozen=True)
class Checkpoint:
    """`state.pt`: the state from which a run is resumed."""

    path: Path
    recipe: Recipe
    model: MultiHeadModel
    opts: list[Optimizer]

    def save(self, step: int, curve: list[dict[str, Any]], wall_s: float) -> None:
        """Write the state after `step` steps."""
        state = {
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "optimizers": [opt.state_dict() for opt in self.opts],
            "step": step,
            "curve": json.dumps(curve),
            "wall_s": wall_s,
        }
        with whole(self.path) as draft:
            torch.save(state, draft)

    def resume(self) -> tuple[int, list[dict[str, Any]], float]:
        """Load the state if there is one; return (first step, curve so far, seconds so far)."""
        if not self.path.is_file():
            return 0, [], 0.0
        state = torch.load(self.path, map_location=self.model.device, weights_only=True)
        recipe = asdict(self.recipe)
        if state["recipe"] != recipe:
            different = [k for k, v in recipe.items() if state["recipe"].get(k) != v]
            raise ValueError(
                f"{self.path} belongs to a run with another {', '.join(different)}; give the same "
                "recipe to resume it, or another output folder for a new run."
            )
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:  # other keys or shapes: torch names every one of them
            raise ValueError(
                f"{self.path} belongs to a run with a model of another shape; give the same --n, "
                "--layers and widths to resume it, or another output folder for a new run."
            ) from error
        for opt, saved in zip(self.opts, state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        return int(state["step"]), json.loads(state["curve"]), float(state["wall_s"])


def train(
    model: MultiHeadModel,
    batches: Callable[[int], np.ndarray[Any, Any]],
    recipe: Recipe,
    folder: Path,
    report: Callable[[dict[str, Any]], None],
    held_out: np.ndarray[Any, Any] | None = None,
    backward: Backward = backward_head_by_head,
) -> list[dict[str, Any]]:
    """Train `model` in place; return the curve.

    Args:
        model: float32 parameters on the device to train on; CUDA trains in bfloat16 autocast with
            compiled blocks, the CPU in float32.
        batches: step -> integer tokens [rows, context + `LOOKAHEAD`].
        recipe: see `Recipe`.
        folder: holds `state.pt`, which the caller deletes when the result is saved.
        report: called with each line of the curve.
        held_out: integer tokens [W, context + `LOOKAHEAD`] whose loss is in each line, too.
        backward: `backward_head_by_head` for parallel heads, or as `chained` for one module.

    Raises:
        ValueError: `folder` holds the state of a run with another recipe or model, or the loss
            diverged.
    """
    model.train()
    opts = optimizers(model, recipe)
    checkpoint = Checkpoint(folder / "state.pt", recipe, model, opts)
    start, curve, seconds = checkpoint.resume()
    on_gpu = model.device.type == "cuda"
    gradients = CudaGradients(model, backward) if on_gpu else backward
    muon_step: Callable[[], Any] = CudaMuon(opts[0]) if on_gpu else opts[0].step
    started = time.perf_counter() - seconds
    with current(model.device):
        for step in range(start, recipe.steps):
            tokens = torch.from_numpy(np.ascontiguousarray(batches(step)))
            tokens = tokens[:, : tokens.shape[1] - LOOKAHEAD + model.n_future_tokens]
            nats = gradients(model, tokens.to(model.device, non_blocking=True).long())
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            for opt in opts:
                for group in opt.param_groups:
                    group["lr"] = recipe.learning_rate(step)
            muon_step()
            opts[1].step()
            for opt in opts:
                opt.zero_grad(set_to_none=False)  # a CUDA graph writes into the same tensors
            at_log = (step + 1) % recipe.log_every == 0 or step + 1 == recipe.steps
            at_save = (step + 1) % recipe.save_every == 0
            if at_log or at_save:  # a diverged state must not be saved either
                line = _line(step, nats, norm, recipe, time.perf_counter() - started)
            if at_log and held_out is not None:
                line["held_out_nats"] = _held_out(model, held_out)
            if at_log:
                curve.append(line)
                report(line)
            if at_save:
                checkpoint.save(step + 1, curve, time.perf_counter() - started)
    model.eval()
    return curve


def _held_out(model: MultiHeadModel, windows: np.ndarray[Any, Any]) -> list[float]:
    """Return each head's loss in nats, one window at a time; compiled blocks would recompile."""
    end = windows.shape[1] - LOOKAHEAD + model.n_future_tokens
    rows = torch.from_numpy(windows[:, :end].astype(np.int64)).to(model.device)
    with torch.compiler.set_stance("force_eager"):
        losses = torch.stack([losses_of(model, row[None]) for row in rows]).mean(0)
    return [round(value, 5) for value in losses.tolist()]


def _line(step: int, nats: Tensor, norm: Tensor, recipe: Recipe, wall_s: float) -> dict[str, Any]:
    losses = nats.tolist()
    if not all(math.isfinite(value) for value in losses):
        raise ValueError(
            f"The loss is {losses} at step {step + 1}: training diverged at learning rate "
            f"{recipe.learning_rate(step):.2g}; lower --peak-lr (now {recipe.peak_lr:g})."
        )
    return {
        "step": step + 1,
        "tokens": (step + 1) * recipe.rows * recipe.context,
        "loss_nats": [round(value, 5) for value in losses],
        "grad_norm": round(float(norm), 4),
        "lr": recipe.learning_rate(step),
        "wall_s": round(wall_s, 2),
    }
