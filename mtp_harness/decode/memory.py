"""How many slots fit, computed before the run from the longest request and the free memory."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from mtp_harness.decode.engine import Engine, Request

SHARE = 0.8
"""Share of the free memory for slots; the rest is for activations and other processes."""


def fitting_slots(engine: Engine, requests: Sequence[Request], most: int) -> int:
    """Return the number of slots for `batch_size=auto`, from 1 (even if it does not fit) to `most`.

    `requests` are all that the engine will get.
    """
    row = engine.memory(requests, 1)
    # A step holds the logits of k positions and k heads, and a few copies of them.
    logits = 4 * 4 * engine.k**2 * engine.vocabulary
    fit = int(SHARE * _free_bytes(engine.model.device)) // (row.cache_bytes + logits)
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
