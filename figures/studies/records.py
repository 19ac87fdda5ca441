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
    """Return the calls of the study's script: when each began (Unix time), where, and seconds.

    One that was stopped and gone on with is there twice.
    """
    found = sorted((results / "parts").glob("*.json"))
    return [
        {"began": int(path.stem.split("-")[0])} | json.loads(path.read_text(encoding="utf-8"))
        for path in found
    ]


def minutes(calls: list[dict[str, Any]]) -> float:
    """Return how long GPUs were used, in minutes.

    Time in which several calls of a WORK shared a GPU counts once.
    """
    ends: dict[tuple[str, str], float] = {}
    used = 0.0
    for call in sorted(calls, key=lambda call: float(call["began"])):
        gpu, end = (call["work"], call["gpu"]), call["began"] + call["seconds"]
        used += max(0.0, end - max(call["began"], ends.get(gpu, 0.0)))
        ends[gpu] = max(end, ends.get(gpu, 0.0))
    return used / 60


def cost(results: Path) -> str:
    """Return a line with what the study cost; nothing where results were brought in."""
    calls = parts(results)
    return f"cost: {minutes(calls):.1f} minutes\n" if calls else ""


def write(path: Path, results: Path, found: dict[str, Any]) -> None:
    """Write what was found and what it was found with, beside what the file knows already.

    So a study that was done on several machines, each with a WORK of its own, keeps the trainings
    and the cost of all. Without any training nothing is written.

    Args:
        path: of the JSON file.
        results: WORK/results, or where results were brought in, which have no trainings.
        found: the outcome and its numbers.

    Raises:
        ValueError: Not all models were trained on the same text.
    """
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    both = [*known.get("parts", ()), *parts(results)]
    calls = {tuple(call[name] for name in ("began", "work", "part")): call for call in both}
    every = known.get("trainings", {}) | trainings(results)
    if not every:
        return
    if len({one["recipe"]["data_sha256"] for one in every.values()}) > 1:
        raise ValueError(
            f"{results} has models that were trained on another text than those in {path}: the "
            "text differs between machines, so train all of a study on one text"
        )
    content = found | {
        "gpu_minutes": round(minutes([*calls.values()]), 1),
        "parts": [*calls.values()],
        "trainings": dict(sorted(every.items())),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1) + "\n")
