"""The step as one CUDA graph: a GPU that waits for Python does not decode."""

from collections.abc import Callable

import torch
from torch import Tensor


class StepGraph:
    """Replays a function of fixed shapes whose inputs and outputs stay where they are."""

    def __init__(self, step: Callable[[], Tensor]) -> None:
        """Run `step` a few times, so that everything it needs is compiled, then capture it.

        Args:
            step: reads and writes tensors that live as long as this; must do no harm when run.

        Raises:
            RuntimeError: the step does what a graph cannot hold, such as asking for a value.
        """
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.out = step()

    def replay(self) -> Tensor:
        """Run the step; returns the tensor that every replay writes its result into."""
        self.graph.replay()
        return self.out
