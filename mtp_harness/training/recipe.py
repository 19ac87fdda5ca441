"""The settings of `mtp-harness train`. Imports nothing heavy."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: optimiser steps of rows * context tokens each.
        rows: windows per step.
        context: tokens per window, and the model's context length.
        short_context: tokens per window in the first steps (as many tokens per step).
        short_share: share of the steps that use `short_context`: attention costs less there.
        peak_lr: learning rate after warm-up.
        warmup: steps of linear warm-up.
        final_lr_ratio: where the cosine ends, as a share of `peak_lr`.
        weight_decay: decoupled, on matrices only.
        clip: largest gradient norm.
        seed: of the initial weights and of the batches.
        log_every: steps between two lines of the curve.
        save_every: steps between two checkpoints.
        data_sha256: of the training text, so that a run is not resumed with another one.
    """

    steps: int
    rows: int = 24
    context: int = 4096
    short_context: int = 1024
    short_share: float = 0.7
    peak_lr: float = 4e-3
    warmup: int = 200
    final_lr_ratio: float = 0.03
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    log_every: int = 50
    save_every: int = 2000
    data_sha256: str = ""

    def __post_init__(self) -> None:
        for name in ("steps", "rows", "context", "short_context", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}, expected at least 1.")

    def learning_rate(self, step: int) -> float:
        """Return the rate of step 0, 1, ... `steps` - 1."""
        if step < self.warmup:
            return self.peak_lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        floor = self.final_lr_ratio
        return self.peak_lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))
