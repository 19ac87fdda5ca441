"""ROUGE of one answer, by `rouge_score`, under two tokenisations.

ROUGE-1, 2, 3, L and Lsum (Lin 2004), each as precision, recall and F1 in [0, 1]. No stemmer; Lsum
takes lines as sentences and splits no further, as Table S10's averages imply. The two readings:

- no suffix: `rouge_score`'s own tokenizer, a to z and 0 to 9 in lower case. Other scripts have no
  tokens there, which is how the paper's scores near 1 of 100 for Persian look.
- `_unicode`: `UnicodeTokenizer`.

An answer or a reference without a token under a tokenisation scores 0 there and is counted:

    reference "the cat sat on the mat", answer "the cat lay"
        rouge1: 2 of 3 tokens, 2 of 6      precision 2/3, recall 1/3, F1 4/9
        rouge2: "the cat", 1 of 2, 1 of 5  precision 1/2, recall 1/5, F1 2/7
        rouge3: 0 of 1, 0 of 4             0
        rougeL: "the cat"                  as rouge1 here
"""

from functools import cache
from typing import Any

from mtp_harness.scoring.unicode_tokenizer import UnicodeTokenizer

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
    """Return all scores of an answer, and whether it or its reference has no token.

    Args:
        reference: The summary to match.
        answer: What the model wrote.

    Returns:
        `SCORES`, in [0, 1], and `COUNTS`, each 0 or 1.

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
