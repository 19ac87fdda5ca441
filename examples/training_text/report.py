"""What the report about a training text says: counts, tables of its origin, a summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sources import Licence, Read, Source


def count_files(reads: Sequence[Read], reasons: dict[int, str]) -> dict[str, Any]:
    """Return how many files were seen, kept, cut and left out for which reason."""
    kept = [reads[index] for index, reason in reasons.items() if not reason]
    dropped: dict[str, list[int]] = {}
    for index, reason in reasons.items():
        if reason:
            dropped.setdefault(reason, []).append(reads[index].n_bytes)
    return {
        "n_seen": len(reads),
        "n_bytes_seen": sum(read.n_bytes for read in reads),
        "n_kept": len(kept),
        "n_kept_and_cut": sum(read.n_lines_cut > 0 for read in kept),
        "n_lines_cut": sum(read.n_lines_cut for read in kept),
        "dropped": {
            reason: {"n_files": len(n), "n_bytes": sum(n)}
            for reason, n in sorted(dropped.items(), key=lambda item: -sum(item[1]))
        },
    }


def describe_holdout(packages: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """Return the names and the size of what is held out."""
    n_bytes = sum(len(text.encode()) for text in texts)
    return {"packages": sorted(packages), "n_documents": len(texts), "n_bytes": n_bytes}


def tables(
    found: Sequence[Source], owners: Sequence[Licence], texts: Sequence[str]
) -> dict[str, Any]:
    """Return files and bytes of the kept text by package and by distribution, largest first."""
    packages: dict[str, list[int]] = {}
    licensed: dict[Licence, list[int]] = {}
    for source, owner, text in zip(found, owners, texts, strict=True):
        n_bytes = len(text.encode())
        packages.setdefault(source.package, []).append(n_bytes)
        licensed.setdefault(owner, []).append(n_bytes)
    total = sum(map(sum, packages.values()))
    return {
        "packages": [
            {"name": name, "n_files": len(n), "n_bytes": sum(n), "share": sum(n) / total}
            for name, n in sorted(packages.items(), key=lambda item: -sum(item[1]))
        ],
        "distributions": [
            {**owner._asdict(), "n_files": len(n), "n_bytes": sum(n)}
            for owner, n in sorted(licensed.items(), key=lambda item: -sum(item[1]))
        ],
    }


def summary(report: dict[str, Any], n_packages: int = 15) -> str:
    """Return the report as JSON, its tables cut to the largest entries."""
    short = {name: value for name, value in report.items() if name != "distributions"}
    short["packages"] = [
        f"{entry['name']} {entry['n_bytes'] / 1e6:.1f} MB, {entry['share']:.1%}"
        for entry in report["packages"][:n_packages]
    ]
    short["n_distributions"] = len(report["distributions"])
    return json.dumps(short, indent=1)
