"""The most memory a piece of work takes: allocated on a GPU, of the process on the CPU."""

import re
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Starts a measurement when it is made; `read` gives what was the most since then."""

    def __init__(self, device: torch.device) -> None:
        """Forget the peaks so far, where the system allows it.

        Args:
            device: that the work runs on.
        """
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._fresh = True
            return
        try:
            _CLEAR.write_text("5")  # Linux: the peak begins anew at what is resident now
            self._fresh = True
        except OSError:
            self._fresh = False

    def read(self) -> int | None:
        """Return bytes; None where a peak cannot be told from earlier ones."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text()) if self._fresh else None
        return int(found[1]) * 1024 if found else None
