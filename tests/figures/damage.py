"""A results file as the harness writes it, and ways to damage it."""

import copy
import json
from pathlib import Path
from typing import Any

NAME = "results_2026-01-31T12-00-00.000000.json"

WHOLE: dict[str, Any] = {
    "results": {
        "humaneval_mtp": {
            "name": "humaneval_mtp",
            "alias": "humaneval_mtp",
            "pass@1,none": 0.25,
            "pass@1_stderr,none": "N/A",
            "pass@1_low90,none": 0.125,
            "pass@1_high90,none": 0.5,
            "accept_rate_prefix_2,none": 0.75,
            "tokens_per_forward_no_loops,none": float("nan"),
        }
    },
    "configs": {
        "humaneval_mtp": {
            "task": "humaneval_mtp",
            "generation_kwargs": {"until": ["\ndef"], "do_sample": False},
            "repeats": 1,
        }
    },
    "config": {
        "model": "mtp",
        "model_num_parameters": 3863232,
        "mtp": {
            "schema": 1,
            "pretrained": "mtp-bytes-n4",
            "n_future_tokens": 4,
            "draft_heads": 4,
            "heads": "parallel",
            "acceptance": "exact",
            "slots": 16,
            "hardware": {"cpu": "a processor"},
            "totals": {
                "n_answers": 8,
                "n_steps": 100,
                "tokens_per_forward": 3.5,
                "n_steps_by_verified_drafts": [10, 5, 10, 75],
                "timing": {"tokens_per_s": 100.0},
            },
            "tables": {
                "mtp_heads": {
                    "by_offset": {
                        "columns": "data_set offset metric value low high count".split(),
                        "rows": [
                            ["code", 1, "accuracy", 0.75, 0.5, 0.875, 1000],
                            ["code", 2, "accuracy", 0.5, None, None, 1000],
                        ],
                    }
                }
            },
        },
    },
    "n-samples": {"humaneval_mtp": {"original": 164, "effective": 8}},
    "date": 1.8e9,
    "model_name": "mtp-bytes-n4",
}


def changed(*path: Any, to: Any = None) -> dict[str, Any]:
    """Return the whole file with one entry replaced, or removed where `to` is the type `del`."""
    content = copy.deepcopy(WHOLE)
    *above, last = path
    place: Any = content
    for key in above:
        place = place[key]
    if to is REMOVED:
        del place[last]
    else:
        place[last] = to
    return content


REMOVED = object()


def write(folder: Path, content: Any = WHOLE, name: str = NAME) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


ODD = (None, True, -1, 2.5, 1e400, "", "word", [], [1], {}, {"a": [1]})
"""What may stand where something else is expected."""


def places(value, above=()):
    """Yield the path of every entry of a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in entries:
        yield (*above, key)
        if isinstance(entry, dict | list):
            yield from places(entry, (*above, key))
