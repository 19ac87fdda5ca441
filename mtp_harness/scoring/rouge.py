"""ROUGE of one answer, by `rouge_score`, under two tokenisations.

ROUGE-1, 2, 3, L and Lsum (Lin 2004), each as precision, recall and F1 in [0, 1]. There is no
stemmer; Lsum takes lines as sentences and splits no further, as Table S10's averages imply. The two
tokenisers:

- no suffix: `rouge_score`'s own tokenizer, a to z and 0 to 9 in lower case. Other scripts have no
  tokens there, which would explain the paper's scores near 1 of 100 for Persian.

An answer or a reference without tokens in a tokenisation scores 0 there and is counted:

    reference "the cat sat on the mat", answer "the cat lay"
        rouge1: 2 of 3 tokens, 2 of 6      precision 2/3, recall 1/3, F1 4/9
        rouge2: "the cat", 1 of 2, 1 of 5  precision 1/2, recall 1/5, F1 2/7
        rouge3: 0 of 1, 0 of 4             0
        rougeL: "the cat"                  as rouge1 here
"""

import re
import unicodedata
from functools import cache
from typing import Any

TYPES = ("rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum")
ASPECTS = {"f1": "fmeasure", "precision": "precision", "recall": "recall"}
"""Our name of an aspect, and `rouge_score`'s."""

ASCII, UNICODE = "", "_unicode"
"""The tokenisations, as suffixes of metrics."""

SCORES = tuple(
    f"{kind}_{aspect}{suffix}"
    for suffix in (ASCII, UNICODE)
    for kind in TYPES
    for aspect in ASPECTS
)
COUNTS = tuple(
    f"empty_{what}{suffix}" for suffix in (ASCII, UNICODE) for what in ("answers", "references")
)


def rouge(reference: str, answer: str) -> dict[str, float]:
    """Return `SCORES`, in [0, 1], and `COUNTS`, 0 or 1: whether answer or reference has no token.

    Raises:
        ValueError: The reference is empty.
        ModuleNotFoundError: `rouge_score` is not installed.
    """
    if not reference.strip():
        raise ValueError("a reference summary is empty, expected text: take its document out")
    found: dict[str, float] = {}
    for suffix in (ASCII, UNICODE):
        scorer, tokenizer = _scorer(suffix)
        found[f"empty_answers{suffix}"] = not tokenizer.tokenize(answer)
        found[f"empty_references{suffix}"] = not tokenizer.tokenize(reference)
        for kind, score in scorer.score(reference, answer).items():
            for aspect, name in ASPECTS.items():
                found[f"{kind}_{aspect}{suffix}"] = float(getattr(score, name))
    return {name: found[name] for name in SCORES} | {name: int(found[name]) for name in COUNTS}


@cache
def _scorer(suffix: str) -> tuple[Any, Any]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"ROUGE needs the package rouge-score, and {missing.name} is not installed: "
            "`pip install rouge-score`"
        ) from missing
    tokenizer = UnicodeTokenizer() if suffix else DefaultTokenizer(use_stemmer=False)
    return RougeScorer(TYPES, split_summaries=False, tokenizer=tokenizer), tokenizer


_WITHOUT_SPACES = (
    range(0x0E00, 0x0F00),  # Thai, Lao
    range(0x1000, 0x10A0),  # Burmese
    range(0x1780, 0x1800),  # Khmer
    range(0x3040, 0x3100),  # Hiragana, Katakana
    range(0x3400, 0x4DC0),  # Chinese characters
    range(0x4E00, 0xA000),
    range(0xF900, 0xFB00),
    range(0x20000, 0x32000),
)


class UnicodeTokenizer:
    """Words of any script, for `rouge_score`, whose own tokenizer only has a to z and 0 to 9.

    A token is a run of letters and digits (Unicode categories L and N) with the marks on them (M),
    in lower case and composed form (NFC); everything else separates, and invisible format
    characters (Cf, such as the zero-width non-joiner inside Persian words) are dropped. Thai, Lao,
    Burmese, Khmer, Chinese and Japanese put no spaces between words: there every letter with its
    marks is one token, so their scores are over characters and higher than over words. On ASCII
    text the tokens are `rouge_score`'s own.

        "L'été"            → l, été
        "می‌خواهم"          → میخواهم              (with a zero-width non-joiner after می)
        "กินข้าว 2 จาน"      → กิ, น, ข้, า, ว, 2, จ, า, น
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        composed = unicodedata.normalize("NFC", text.lower())
        seen = [letter for letter in composed if unicodedata.category(letter) != "Cf"]
        kinds = "".join(map(_kind, seen))
        spans = (found.span() for found in re.finditer("w[wM]*|cM*", kinds))
        return ["".join(seen[start:end]) for start, end in spans]


def _kind(letter: str) -> str:
    """Return `w` in a word, `c` for a one-letter token, `M` for a mark, `.` for a separator."""
    category = unicodedata.category(letter)[0]
    if category not in "LN":
        return "M" if category == "M" else "."
    return "c" if any(ord(letter) in block for block in _WITHOUT_SPACES) else "w"
