"""Drafters, one file for each kind of heads (`decode.step.Drafter`)."""

from mtp_harness.decode.drafters.chained import ChainedDrafter
from mtp_harness.decode.drafters.parallel import ParallelDrafter
from mtp_harness.decode.drafters.reused import ReusedDrafter
from mtp_harness.decode.step import Batch, Drafter


def drafter_for(batch: Batch) -> Drafter:
    """Return the drafter for a model's kind of heads."""
    if not batch.model.sequential:
        return ParallelDrafter(batch)
    return ReusedDrafter(batch) if batch.model.reused else ChainedDrafter(batch)
