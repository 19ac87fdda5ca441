"""The paper's eight summarisation benchmarks, all as rows of `id`, `document` and `summary`.

A folder of data holds `NAME/test.jsonl.gz` (or `.jsonl`, or Parquet files `NAME/test-*.parquet`)
with the columns that the benchmark has on the hub; `NAME/validation…` or `NAME/train…` gives
few-shot examples.

Source: Gloeckle et al. 2024, section 3.7 and appendix H; the repositories below. Most of those hold
a script that no longer runs and no table, so their files come from the branch on which the hub
keeps every public data set as Parquet.
"""

from __future__ import annotations

from typing import NamedTuple

from mtp_harness.data.rows import Splits, splits
from mtp_harness.data.sources import Source, find_files, read_rows

MAX_SHOTS = 64
"""Documents kept for few-shot prompts, the first of their split."""

_CONVERTED = "refs/convert/parquet"


class Benchmark(NamedTuple):
    """One benchmark's columns and place.

    Attributes:
        title: Its name in messages.
        document: Column with the text.
        summary: Column with the reference.
        n_test: Documents of the whole test split.
        repository: Data set on the hub.
        pattern: Its files there; `{split}` stands for the split.
        revision: Their branch; None for the main one.
    """

    title: str
    document: str
    summary: str
    n_test: int
    repository: str
    pattern: str
    revision: str | None = _CONVERTED


BENCHMARKS = {
    "cnn_dailymail": Benchmark(
        "CNN/DailyMail",
        "article",
        "highlights",
        11_490,
        "abisee/cnn_dailymail",
        "3.0.0/{split}-*.parquet",
        None,
    ),
    "multi_news": Benchmark(
        "Multi-News",
        "document",
        "summary",
        5_622,
        "alexfabbri/multi_news",
        "default/{split}/*.parquet",
    ),
    "orangesum": Benchmark(
        "OrangeSum (abstracts)",
        "text",
        "summary",
        1_500,
        "EdinburghNLP/orange_sum",
        "abstract/{split}/*.parquet",
    ),
    "pn_summary": Benchmark(
        "pn-summary",
        "article",
        "summary",
        5_593,
        "HooshvareLab/pn_summary",
        "1.0.0/{split}/*.parquet",
    ),
    "samsum": Benchmark(
        "SAMSum", "dialogue", "summary", 819, "knkarthick/samsum", "default/{split}/*.parquet"
    ),
    "thaisum": Benchmark(
        "ThaiSum", "body", "summary", 11_000, "nakhun/thaisum", "thaisum/{split}/*.parquet"
    ),
    "wikisummary": Benchmark(
        "WikiSummary",
        "article",
        "highlights",
        5_074,
        "community-datasets/wiki_summary",
        "data/{split}-*.parquet",
        None,
    ),
    "xsum": Benchmark(
        "XSum", "document", "summary", 11_334, "EdinburghNLP/xsum", "default/{split}/*.parquet"
    ),
}


def source(benchmark: str, split: str = "test") -> Source:
    """Return where the files of one split (`test`, `validation` or `train`) are looked for."""
    known = BENCHMARKS[benchmark]
    files = [f"{benchmark}/{split}{ending}" for ending in (".jsonl.gz", ".jsonl", "-*.parquet")]
    if split == "test":  # a part of the test split, for trying things out
        files += [f"{benchmark}_sample.jsonl.gz", f"{benchmark}_sample.jsonl"]
    title = known.title if split == "test" else f"{known.title} ({split})"
    return Source(
        title,
        tuple(files),
        known.repository,
        known.pattern.format(split=split),
        (known.document, known.summary),
        known.revision,
    )


def load(benchmark: str, data_dir: str | None = None, **_metadata: object) -> Splits:
    """Return the split `test` of a benchmark, which the task's `dataset_kwargs` name.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: A row lacks a column, or its reference is empty.
    """
    rows = _read(source(benchmark), data_dir)
    names = ", ".join(path.name for path in find_files(source(benchmark), data_dir))
    whole = BENCHMARKS[benchmark].n_test
    part = "" if len(rows) == whole else f", {len(rows)} of the test split's {whole} documents"
    return splits({"test": rows}, names + part)


def shots(benchmark: str, data_dir: str | None = None) -> tuple[str, list[dict[str, str]]]:
    """Return documents for few-shot prompts, and the split they are from.

    Returns:
        The first `MAX_SHOTS` of `validation`, or of `train` where that is missing; none where both
        are.
    """
    for split in ("validation", "train"):
        try:
            return split, _read(source(benchmark, split), data_dir, MAX_SHOTS)
        except FileNotFoundError:
            continue
    return "", []


def _read(where: Source, data_dir: str | None, at_most: int | None = None) -> list[dict[str, str]]:
    text, reference = where.columns
    rows = []
    for number, row in enumerate(read_rows(where, data_dir, at_most), 1):
        document, summary = row[text], row[reference]
        if not summary or not summary.strip():
            raise ValueError(
                f"row {number} of {where.title} has an empty {reference}, expected a reference "
                "summary: mend the row or take it out"
            )
        name = str(row.get("id", number))
        rows.append({"id": name, "document": document or "", "summary": summary})
    return rows
