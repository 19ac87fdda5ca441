"""Small documents in the columns of the real text data sets, made by hand."""

import gzip
import json
from pathlib import Path
from typing import Any

from mtp_harness.data.corpus import Corpus, Document

from .code_fixtures import write

ENGLISH = [
    ("The cat sat on the mat. It was warm.", "The cat sat.\nIt was warm."),
    ("A dog barked at the moon all night.", "A dog barked all night."),
    ("Rain fell on the town, and the river rose.", "Rain made the river rise."),
]
PERSIAN = [("دولت امروز گزارش تازه‌ای منتشر کرد.", "گزارش تازهٔ دولت منتشر شد.")] * 2
THAI = [("ฝนตกหนักที่กรุงเทพฯ วันนี้", "ฝนตกหนัก")] * 2
FRENCH = [("L'été sera chaud à Paris, dit la météo.", "Été chaud à Paris.")] * 2

# benchmark -> column of the text, column of the reference, rows
SUMMARIES = {
    "cnn_dailymail": ("article", "highlights", ENGLISH),
    "multi_news": ("document", "summary", ENGLISH),
    "orangesum": ("text", "summary", FRENCH),
    "pn_summary": ("article", "summary", PERSIAN),
    "samsum": ("dialogue", "summary", ENGLISH),
    "thaisum": ("body", "summary", THAI),
    "wikisummary": ("article", "highlights", PERSIAN),
    "xsum": ("document", "summary", ENGLISH),
}
GSM8K = [
    {"question": "Tom has 3 apples and buys 4. How many?", "answer": "3+4=<<3+4=7>>7\n#### 7"},
    {"question": "A car costs $1,500, two of them?", "answer": "2*1500=3000\n#### 3,000"},
    {"question": "It was 2 degrees and fell by 5?", "answer": "2-5=-3\n#### -3"},
]


def summaries(benchmark: str) -> list[dict[str, Any]]:
    text, reference, rows = SUMMARIES[benchmark]
    return [{text: one, reference: two} for one, two in rows]


def write_texts(folder: Path) -> Path:
    for benchmark in SUMMARIES:
        write(folder / benchmark / "test.jsonl", summaries(benchmark))
    write(folder / "gsm8k" / "test.jsonl", GSM8K)
    return folder


def library() -> Corpus:
    """300 functions, as the standard library's stand-in where its contents do not matter."""
    functions = "".join(
        f"def f{i}():\n    'Return the number {i}.'\n    a = {i}\n    b = a\n    return b\n"
        for i in range(300)
    )
    return Corpus("code", "3", (Document("many.py", functions),))


def articles(shared_data: Path) -> list[dict[str, str]]:
    """The real articles of CNN/DailyMail beside the checkout."""
    with gzip.open(shared_data / "cnn_dailymail_sample.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
