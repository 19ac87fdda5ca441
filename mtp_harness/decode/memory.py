"""How much memory slots take and how many fit, computed before the run from the longest request."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from mtp_harness.decode.engine import Engine, Request

SHARE = 0.8
"""Share of the free memory for slots; the rest is for activations and other processes."""


def foreseen_bytes(engine: Engine, requests: Sequence[Request], slots: int) -> int:
    """Return what so many slots take beside the weights: caches, and the logits of a step.

    Activations come on top; most of them are those of a prompt's own forward. `requests` are all
    that the engine will be asked.
    """
    # A step holds the logits of k positions and k heads, and a few copies of them.
    logits = 4 * 4 * engine.k**2 * engine.vocabulary
    return engine.memory(requests, slots).cache_bytes + slots * logits


def fitting_slots(engine: Engine, requests: Sequence[Request], most: int) -> int:
    """Return the number of slots for `batch_size=auto`, from 1 (even if it does not fit) to `most`.

    `requests` are all that the engine will get.
    """
    free = int(SHARE * _free_bytes(engine.model.device))
    fit = free // foreseen_bytes(engine, requests, 1)
    return max(1, min(most, fit, len(requests)))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:  # available without swapping: includes caches that the system would give back
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
