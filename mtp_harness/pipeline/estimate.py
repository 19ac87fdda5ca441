"""Estimates how long the cells of a suite take, from known times of their tasks."""

from collections.abc import Sequence

from mtp_harness.harness.task_facts import FACTS, NTP_TIMES
from mtp_harness.models.load import DEFAULT_MODEL, SHIPPED_MODELS
from mtp_harness.pipeline.cell import Cell

START_S = 10.0
"""Seconds for a process to import what it needs, on 2 cores."""


def about(processes: Sequence[Sequence[Cell]]) -> float | None:
    """Return about how many seconds the cells of some processes take on 2 cores.

    None if a cell has a checkpoint or task of the user's, or a GPU: their times are unknown.
    """
    each = [seconds(cell) for cells in processes for cell in cells]
    known = [one for one in each if one is not None]
    return START_S * len(processes) + sum(known) if len(known) == len(each) else None


def seconds(cell: Cell) -> float | None:
    """Return about how many seconds a cell takes on 2 cores, without starting."""
    name, _, temperature = cell.task.partition("_t0.")
    facts, pretrained = FACTS.get(name), cell.model_args.get("pretrained") or DEFAULT_MODEL
    on_cpu = str(cell.settings.get("device") or "cpu").startswith("cpu")
    if facts is None or temperature or pretrained not in SHIPPED_MODELS or not on_cpu:
        return None
    metadata, limit = cell.settings.get("metadata", {}), cell.settings.get("limit")
    whole = facts.cpu().seconds
    if metadata.get("quick") and facts.quick_cpu_s is not None:
        whole = facts.quick_cpu_s
    if not facts.writes:
        return whole
    if limit:
        whole *= min(1.0, limit if limit < 1 else limit / facts.n_answers)
    plain = cell.model_args.get("draft_heads") == 1 or pretrained != DEFAULT_MODEL
    return whole * int(metadata.get("n_samples", 1)) * (NTP_TIMES if plain else 1)
