"""The paper's eight summarisation benchmarks, all as rows of `id`, `document` and `summary`.

A folder of data holds `NAME/test.jsonl.gz` (or `.jsonl`, or Parquet files `NAME/test-*.parquet`)
with the columns that the benchmark has on the hub; `NAME/validation…` or `NAME/train…` gives
few-shot examples.

Source: Gloeckle et al. 2024, section 3.7 and appendix H; the repositories below. Most of those hold
a script that no longer runs and no table, so their files come from the branch where the hub keeps
every public data set as Parquet.
"""

from __future__ import annotations

from typing import NamedTuple

from mtp_harness.data.rows import Splits, splits
from mtp_harness.data.sources import Source, find_files, read_rows

MAX_SHOTS = 64
"""Documents for few-shot prompts: the first of their split."""


class Benchmark(NamedTuple):
    """One benchmark's columns and repository."""

    title: str  # its name in messages
    document: str  # column with the text
    summary: str  # column with the reference
    n_test: int  # documents of the whole test split
    repository: str  # data set on the hub
    folder: str = "default"  # of its files there
    converted: bool = True  # whether it is on the hub's branch of Parquet files


BENCHMARKS = {
    "cnn_dailymail": Benchmark(
        "CNN/DailyMail", "article", "highlights", 11_490, "abisee/cnn_dailymail", "3.0.0", False
    ),
    "multi_news": Benchmark("Multi-News", "document", "summary", 5_622, "alexfabbri/multi_news"),
    "orangesum": Benchmark(
        "OrangeSum (abstracts)", "text", "summary", 1_500, "EdinburghNLP/orange_sum", "abstract"
    ),
    "pn_summary": Benchmark(
        "pn-summary", "article", "summary", 5_593, "HooshvareLab/pn_summary", "1.0.0"
    ),
    "samsum": Benchmark("SAMSum", "dialogue", "summary", 819, "knkarthick/samsum"),
    "thaisum": Benchmark("ThaiSum", "body", "summary", 11_000, "nakhun/thaisum", "thaisum"),
    "wikisummary": Benchmark(
        "WikiSummary",
        "article",
        "highlights",
        5_074,
        "community-datasets/wiki_summary",
        "data",
        converted=False,
    ),
    "xsum": Benchmark("XSum", "document", "summary", 11_334, "EdinburghNLP/xsum"),
}


def source(benchmark: str, split: str = "test") -> Source:
    """Return where the files of one split (`test`, `validation` or `train`) are searched."""
    known = BENCHMARKS[benchmark]
    files = [f"{benchmark}/{split}{ending}" for ending in (".jsonl.gz", ".jsonl", "-*.parquet")]
    if split == "test":  # a part of the test split, for trying things out
        files += [f"{benchmark}_sample.jsonl.gz", f"{benchmark}_sample.jsonl"]
    title = known.title if split == "test" else f"{known.title} ({split})"
    return Source(
        title,
        tuple(files),
        known.repository,
        f"{known.folder}/{split}{'/' if known.converted else '-'}*.parquet",
        (known.document, known.summary),
        "refs/convert/parquet" if known.converted else None,
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
        The first `MAX_SHOTS` of `validation`, or of `train` if that is missing; none if both are
        missing.
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
                "summary: correct the row or remove it"
            )
        name = str(row.get("id", number))
        rows.append({"id": name, "document": document or "", "summary": summary})
    return rows
