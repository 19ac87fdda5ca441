"""The origin of a number: versions, hardware, command."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mtp_harness import __version__

PACKAGES = ("lm_eval", "torch", "transformers", "numpy")
LARGEST_HASHED_BYTES = 1 << 30


def versions() -> dict[str, str]:
    """Return the versions that a result depends on; packages that are absent are left out."""
    found = {"mtp_harness": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Return the checkout's commit, `+dirty` when files differ, or None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*args: str) -> str:
        command = ["git", "-C", str(root), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = "+dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):
        return None


def command() -> str:
    """Return the command line of this process, as it can be typed again."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return shlex.join([program, *sys.argv[1:]])


def hardware(device: Any) -> dict[str, Any]:
    """Return what a timing on a `torch.device` depends on."""
    import torch

    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        **gpu,
    }


def busy() -> str | None:
    """Return a note for timings if more programs want to run than there are cores."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load <= cores + 0.5:  # this process counts as one
        return None
    return f"note: the machine is busy (load {load:.1f} on {cores} cores): timings are too slow"


def environment(device: Any) -> dict[str, Any]:
    """Return versions, hardware, revision and command, for results computed on a `torch.device`."""
    return {
        "versions": versions(),
        "hardware": hardware(device),
        "git_revision": git_revision(),
        "command": command(),
    }


def weights_sha256(place: Path) -> str | None:
    """Return a hash over the weight files of a folder, or over a file.

    None over a gigabyte, or without weight files.
    """
    files = sorted([*place.glob("*.safetensors"), *place.glob("*.pth")])
    files = files or sorted([*place.glob("pytorch_model*.bin"), *place.glob("*_lm_head.pt")])
    if place.is_file():
        files = [place]
    if not files or sum(file.stat().st_size for file in files) > LARGEST_HASHED_BYTES:
        return None
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def trained(folder: Path) -> dict[str, int]:
    """Return the facts that the trainer recorded of a checkpoint: tokens seen, steps and seed.

    Empty without a `training.json` of `mtp-harness train`.
    """
    try:
        record = json.loads((folder / "training.json").read_text("utf-8"))
        last, seed = record["curve"][-1], record["recipe"]["seed"]
        found = {"train_tokens": last["tokens"], "train_step": last["step"], "train_seed": seed}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return found if all(type(value) is int for value in found.values()) else {}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
