"""What a study keeps of its trainings besides their results: settings, hashes and its cost."""

import json
from pathlib import Path
from typing import Any

from mtp_harness.files import write_whole

KEPT = ("recipe", "parameters", "versions", "hardware", "wall_s")


def trainings(results: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of each training, by its folder in WORK/results.

    The recipe has the seed, and the hash of the training text.
    """
    found = {}
    for path in sorted(results.glob("*/training.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        kept = {name: record[name] for name in KEPT}
        found[path.parent.name] = kept | {"last": record["curve"][-1]}
    return found


def parts(results: Path) -> list[dict[str, Any]]:
    """Return the calls of the study's script, each with its seconds."""
    found = sorted((results / "parts").glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]


def minutes(calls: list[dict[str, Any]]) -> float:
    """Return the time that the machine was used, in minutes."""
    return float(sum(call["seconds"] for call in calls)) / 60


def write(path: Path, results: Path, found: dict[str, Any]) -> None:
    """Write what was found and what it was found with.

    Args:
        path: of the JSON file.
        results: WORK/results.
        found: the outcome and its numbers.
    """
    calls = parts(results)
    content = found | {
        "gpu_minutes": round(minutes(calls), 1),
        "parts": calls,
        "trainings": trainings(results),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1) + "\n")
