"""The training text of study 4: solved expressions of 1 to 5 operations, as `mtp_arithmetic` asks.

    python figures/studies/arithmetic_text.py PREFIX [--chunks 45]
    mtp-harness train MODEL --data PREFIX

Each expression is a document of its own, `(20513+00640)=20453` and a line break, with byte 0 before
it, so that a question begins as in training. Every number of operations is as frequent, in random
order. Seeds are others than those of the task, and expressions that the task asks, or shows as
examples, are left out: there are only 16,807 with one negation.

Writes PREFIX.npy and, last, PREFIX.json.
"""

import argparse
import hashlib
import json
import multiprocessing
import random
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from mtp_harness.data.arithmetic import COUNT, SHOT_OPERATIONS, SHOTS, VERSION, problems
from mtp_harness.files import user_path, whole, write_whole

OPERATIONS = range(1, 6)
PER_CHUNK = 20_000
"""Expressions of each number of operations in a chunk."""

ASKED, SHOWN = 0, 1
"""Seeds of the task: of its expressions, and of its examples."""

FIRST_SEED = 1000


@cache
def held_out() -> frozenset[str]:
    """Return the expressions of the task, up to five operations, and its examples."""
    asked = [one for m in OPERATIONS for one in problems(m, COUNT, ASKED)]
    shown = [one for m in range(1, SHOT_OPERATIONS + 1) for one in problems(m, SHOTS, SHOWN)]
    return frozenset(one.expression for one in [*asked, *shown])


def chunk(number: int, per_chunk: int = PER_CHUNK) -> tuple[bytes, int]:
    """Return the documents of a chunk, and how many expressions were left out."""
    seed = FIRST_SEED + number
    drawn = [one for m in OPERATIONS for one in problems(m, per_chunk, seed)]
    kept = [one for one in drawn if one.expression not in held_out()]
    random.Random(seed).shuffle(kept)
    text = "".join(f"\0{one.expression}={one.answer}\n" for one in kept)
    return text.encode(), len(drawn) - len(kept)


def main(argv: Sequence[str]) -> int:
    """Write the text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix", type=user_path)
    parser.add_argument("--chunks", type=int, default=45, help="of 100,000 expressions")
    given = parser.parse_args(argv)
    with multiprocessing.Pool() as pool:
        made = pool.map(chunk, range(given.chunks), chunksize=1)
    data = b"".join(text for text, _ in made)
    write(given.prefix, data, sum(count for _, count in made), given.chunks)
    return 0


def write(prefix: Path, data: bytes, n_left_out: int, n_chunks: int) -> None:
    """Write the text and, last, what is known of it."""
    with whole(prefix.with_name(prefix.name + ".npy")) as draft, draft.open("wb") as file:
        np.save(file, np.frombuffer(data, dtype=np.uint8))
    report = {
        "source": f"generated: generator {VERSION}, seeds {FIRST_SEED} to "
        f"{FIRST_SEED + n_chunks - 1}, {OPERATIONS[0]} to {OPERATIONS[-1]} operations",
        "n_documents": data.count(b"\0"),
        "n_left_out": n_left_out,
        "n_bytes": len(data),
        "data_sha256": hashlib.sha256(data).hexdigest(),
    }
    write_whole(prefix.with_name(prefix.name + ".json"), json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
