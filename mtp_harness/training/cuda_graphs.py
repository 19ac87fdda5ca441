"""Training steps of small models as CUDA graphs, so that the GPU does not wait for Python."""

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers.modeling_layers import GradientCheckpointingLayer

from mtp_harness.models.gpu.current import captured
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.training.loss import Backward


class CudaGradients:
    """A backward pass in bfloat16 autocast, replayed as one CUDA graph per batch shape.

    A step has thousands of kernels of microseconds each. Blocks are compiled; all of them share one
    compiled graph per shape.
    """

    def __init__(self, model: MultiHeadModel, backward: Backward) -> None:
        """Compile the blocks and give every parameter a gradient at a fixed address."""
        self.backward = backward
        self.graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.compile(dynamic=False)

    def __call__(self, model: MultiHeadModel, tokens: Tensor) -> Tensor:
        """Add this batch's gradients to the parameters'; return the losses in nats, [n]."""
        if tokens.shape not in self.graphs:
            self.graphs[tokens.shape] = self._capture(model, tokens)
        graph, static, nats = self.graphs[tokens.shape]
        static.copy_(tokens)
        graph.replay()
        return nats

    def _capture(
        self, model: MultiHeadModel, tokens: Tensor
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        static = tokens.clone()
        # Three calls compile, and let every library allocate its workspace.
        graph, nats = captured(lambda: self._run(model, static), first=3)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        return graph, static, nats

    def _run(self, model: MultiHeadModel, tokens: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return self.backward(model, tokens)


class CudaMuon:
    """`Muon.step` replayed as one CUDA graph, at any learning rate.

    Muon launches thousands of tiny kernels, and its learning rate is a number baked into them. A
    step from w to w' moves in proportion to the rate (decay included), so the graph steps at the
    rate it was captured with, and w + (rate / captured rate) (w' - w) is the step asked for.
    """

    def __init__(self, muon: Optimizer) -> None:
        """Prepare; the first call captures."""
        self.muon = muon
        self.parameters = [p for group in muon.param_groups for p in group["params"]]
        self.before = [p.detach().clone() for p in self.parameters]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.captured_rate = 0.0

    @torch.no_grad()
    def __call__(self) -> None:
        """Do what `muon.step()` does."""
        if self.graph is None:
            self._capture()
        assert self.graph is not None
        rate = self.muon.param_groups[0]["lr"]
        torch._foreach_copy_(self.before, self.parameters)
        self.graph.replay()
        torch._foreach_lerp_(self.before, self.parameters, rate / self.captured_rate)
        torch._foreach_copy_(self.parameters, self.before)

    def _capture(self) -> None:
        group = self.muon.param_groups[0]
        rate, self.captured_rate = group["lr"], self.muon.defaults["lr"]
        for p in self.parameters:
            self.muon.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        buffers = [self.muon.state[p]["momentum_buffer"] for p in self.parameters]
        saved = [t.detach().clone() for t in (*self.parameters, *buffers)]
        group["lr"] = self.captured_rate
        self.graph, _ = captured(self.muon.step)
        torch._foreach_copy_([*self.parameters, *buffers], saved)
        group["lr"] = rate
